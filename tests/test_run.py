# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a run refuses before its first stage."""

import pytest

from xlkd import settings
from xlkd.errors import UserError
from xlkd.inputs import data as inputs
from xlkd.train import run


def test_a_start_that_does_not_exist_is_refused_before_the_folder_is_begun(tmp_path):
    """The second stage starts from it: found out only then, the first one would have trained for nothing."""
    flags = ["stages=one,two", "data.train=atlas?split=train&languages=en&size=4", "two.start=/no/such/model"]
    two = settings.apply_flags(settings.read_config("configs/finetune.py"), [f"--config.{flag}" for flag in flags])
    with pytest.raises(UserError, match=r"stage two: no stage '/no/such/model' before this one; known: encoder, one"):
        run.run(two, tmp_path / "run", ["command"])
    assert not (tmp_path / "run").exists()


def test_a_source_that_is_not_there_is_refused_before_the_first_stage(tmp_path):
    """The second stage's data is looked for before the first one trains."""
    (tmp_path / "corpus.de").write_text("")
    there = f"atlas?split=train+tfds:xquad+moses:{tmp_path / 'corpus'}?languages=de,en+xquad:{tmp_path}"
    flags = ["stages=one,two", f"data.train={there}", "data.eval=", f"two.data.eval=squad:{tmp_path / 'nope.json'}"]
    two = settings.apply_flags(settings.read_config("configs/finetune.py"), [f"--config.{flag}" for flag in flags])
    inputs.check_sources_exist(settings.read_stage(two, "one"))
    with pytest.raises(UserError, match=r"nope\.json: no such file or folder; check the path"):
        run.run(two, tmp_path / "run", ["command"])
    assert not (tmp_path / "run" / "stages").exists()
