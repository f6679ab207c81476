# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs that are refused before their first stage."""

import pytest

from xlkd import settings
from xlkd.errors import UserError
from xlkd.inputs import data as inputs
from xlkd.train import run


def test_a_missing_start_is_refused_before_the_work_directory_is_created(tmp_path):
    """The second stage starts from it, so that a later check would come after the training of the first stage."""
    flags = ["stages=one,two", "data.train=atlas?split=train&languages=en&size=4", "two.start=/no/such/model"]
    config = settings.apply_flags(settings.read_config("configs/finetune.py"), [f"--config.{flag}" for flag in flags])
    with pytest.raises(UserError, match=r"stage two: no stage '/no/such/model' before this one; known: encoder, one"):
        run.run(config, str(tmp_path / "run"), ["command"])
    assert not (tmp_path / "run").exists()


def test_a_missing_source_is_refused_before_the_first_stage(tmp_path):
    """The data of the second stage is checked before the first one trains."""
    (tmp_path / "corpus.de").write_text("")
    existing_sources = f"atlas?split=train+moses:{tmp_path / 'corpus'}?languages=de,en+xquad:{tmp_path}"
    flags = [
        "stages=one,two",
        f"data.train={existing_sources}",
        "data.eval=",
        f"two.data.eval=squad:{tmp_path / 'nope.json'}",
    ]
    config = settings.apply_flags(settings.read_config("configs/finetune.py"), [f"--config.{flag}" for flag in flags])
    inputs.check_sources_exist(settings.read_stage(config, "one"))
    with pytest.raises(UserError, match=r"nope\.json: no such file or folder; check the path"):
        run.run(config, str(tmp_path / "run"), ["command"])
    assert not (tmp_path / "run" / "stages").exists()
