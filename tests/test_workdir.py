# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A work directory belongs to one config and to one process at a time, and a run ends where its folder is gone."""

import json
import os

import pytest
from ml_collections import ConfigDict

from xlkd.errors import UserError
from xlkd.train import workdir


def config(**changes) -> ConfigDict:
    return ConfigDict({"seed": 0, "stages": ("one",), "mesh": {"data": -1}, "log": {"every": 20}} | changes)


def claim(folder, **changes):
    with workdir.claim_folder(config(**changes), folder):
        return json.loads((folder / "config.json").read_text())


def begin(folder):
    """What the first stage does as soon as its data was read."""
    claim(folder)
    (folder / "stages" / "01-one").mkdir(parents=True)


def test_the_config_is_there_and_the_same_one_may_come_again(tmp_path):
    begin(tmp_path / "run")
    assert claim(tmp_path / "run") == {"seed": 0, "stages": ["one"], "mesh": {"data": -1}, "log": {"every": 20}}
    assert claim(tmp_path / "run", mesh={"data": 4}, log={"every": 1})["mesh"] == {"data": 4}


def test_another_config_is_refused_by_the_keys_that_differ(tmp_path):
    begin(tmp_path / "run")
    with pytest.raises(UserError, match="another config \\(seed, stages differ\\)"):
        claim(tmp_path / "run", seed=1, stages=("two",))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["seed"] == 0


def test_what_was_mended_before_anything_began_is_not_another_run(tmp_path):
    """A source that was mistyped ends the first start; the second has the right one."""
    claim(tmp_path / "run", seed=1)
    assert claim(tmp_path / "run", seed=2)["seed"] == 2


def test_two_runs_in_one_folder(tmp_path):
    with (
        workdir.claim_folder(config(), tmp_path),
        pytest.raises(UserError, match=f"in use by process {os.getpid()}; wait, or choose another"),
    ):
        claim(tmp_path)
    claim(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another --workdir"):
        claim(tmp_path / "file" / "run")
