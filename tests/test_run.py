# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A work directory belongs to one config and to one process at a time."""

import errno
import json
import os
import re

import pytest
from ml_collections import ConfigDict

from xlkd import settings
from xlkd.errors import UserError
from xlkd.train import material, run


def config(**changes) -> ConfigDict:
    return ConfigDict({"seed": 0, "stages": ("one",), "mesh": {"data": -1}, "log": {"every": 20}} | changes)


def claim(folder, **changes):
    with run._claimed(config(**changes), folder):
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
        run._claimed(config(), tmp_path),
        pytest.raises(UserError, match=f"in use by process {os.getpid()}; wait, or choose another"),
    ):
        claim(tmp_path)
    claim(tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        ValueError('RESOURCE_EXHAUSTED: Error writing "d/1" [OS error 28: No space left on device]'),
        OSError(errno.EROFS, os.strerror(errno.EROFS)),
    ],
)
def test_a_disk_that_is_full_is_told_in_one_line_whoever_met_it(tmp_path, error):
    with pytest.raises(UserError) as told:
        meet(error, tmp_path)
    assert re.match("cannot be written any more: (No space|Read-only).*", told.value.what)
    assert told.value.where == str(tmp_path)


def meet(error, tmp_path):
    """Closing what is open fails too, as it does on a full disk."""
    with run._room(tmp_path):
        try:
            raise error
        finally:
            raise RuntimeError("the save did not end")


def test_another_fault_keeps_its_own_traceback(tmp_path):
    with pytest.raises(ZeroDivisionError), run._room(tmp_path):
        print(1 / 0)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another --workdir"):
        claim(tmp_path / "file" / "run")


def test_a_source_that_is_not_there_is_refused_before_the_first_stage(tmp_path):
    """The second stage's data is looked for before the first one trains."""
    (tmp_path / "corpus.de").write_text("")
    there = f"atlas?split=train+tfds:xquad+moses:{tmp_path / 'corpus'}?languages=de,en+xquad:{tmp_path}"
    later = {"data": {"train": there, "eval": f"squad:{tmp_path / 'nope.json'}"}}
    data = {"train": there, "eval": ""}
    two = config(stages=("one", "two"), data=data, two=later, controls=(), method={"variant": "all"}, start="")
    material.present(settings.stage(two, "one"))
    with pytest.raises(UserError, match=r"nope\.json: no such file or folder; look at the path"):
        run.run(two, tmp_path / "run", ["command"])
    assert not (tmp_path / "run" / "stages").exists()
