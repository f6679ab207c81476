# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Windows of steps that are profiled; test_loop.py stops and resumes a real run inside one."""

import pathlib
import types

import jax
import jax.numpy as jnp
import pytest

from xlkd.errors import UserError
from xlkd.runtime import distributed
from xlkd.runtime.profiling import Profiler
from xlkd.spec.optim import Horizon
from xlkd.spec.stage import Log
from xlkd.train import stage


def write_file(path: pathlib.Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def take_steps(profiler: Profiler, last: int) -> None:
    state = jnp.ones(3)
    for step in range(1, last + 1):
        profiler.start_if_due(step, state)
        with profiler.annotate_step(step):
            state = state + 1
        profiler.stop_if_due(step, state)


def list_steps(session) -> list[int]:
    """Returns the steps that a trace contains, as a viewer reads it."""
    (file,) = session.glob("*.xplane.pb")
    lines = [line for plane in jax.profiler.ProfileData.from_file(str(file)).planes for line in plane.lines]
    return [dict(event.stats)["step_num"] for line in lines for event in line.events if event.name == "train"]


def test_the_steps_of_a_window_are_traced_and_no_others(tmp_path):
    lines = []
    take_steps(Profiler(range(3, 5), tmp_path, write_file, log=lines.append), 6)
    session = tmp_path / "profile" / "plugins" / "profile" / "steps-3-4"
    assert lines == [f"profiled steps 3 to 4: {session}"]
    assert list_steps(session) == [3, 4]
    assert list((tmp_path / "profile" / "plugins" / "profile").iterdir()) == [session]


def test_a_run_that_ends_inside_its_window_writes_the_steps_that_it_took(tmp_path, monkeypatch):
    """Of several processes each writes a file of its own, also on the same host."""
    monkeypatch.setattr(distributed, "has_several_processes", lambda: True)
    monkeypatch.setattr(distributed, "get_process", lambda: 0)
    profiler = Profiler(range(2, 9), tmp_path, write_file)
    take_steps(profiler, 3)
    profiler.close()
    profiler.close()
    session = tmp_path / "profile" / "plugins" / "profile" / "steps-2-3"
    assert list_steps(session) == [2, 3]
    assert all(path.name.startswith("process-0-") for path in session.iterdir())


def test_a_profiler_that_is_in_use_is_a_warning(tmp_path):
    lines = []
    with jax.profiler.trace(str(tmp_path / "other")):
        take_steps(Profiler(range(1, 3), tmp_path, write_file, log=lines.append), 3)
    assert len(lines) == 1
    assert lines[0].startswith("warning: steps 1 to 2 are not profiled: ")
    assert not (tmp_path / "profile").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("100", "'100' is not FIRST:LAST"),
        ("100:", "is not FIRST:LAST"),
        ("-1:5", "is not FIRST:LAST"),
        ("5:4", "no steps 5:4"),
        ("0:4", "no steps 0:4"),
        ("1:99999999999999999999", "no steps 1:9"),
        ("1:1001", "1001 steps are more than a profile can hold"),
    ],
)
def test_impossible_windows_are_refused(text, says):
    with pytest.raises(UserError, match=says) as error:
        Log(profile=text).profiled_steps  # noqa: B018
    assert error.value.where == "config.log.profile"


@pytest.mark.parametrize(
    ("steps", "profiled", "says"),
    [
        (200, range(100, 111), []),
        (105, range(100, 106), ["has 105 steps; steps 100 to 105 are profiled"]),
        (60, range(100, 61), ["has 60 steps; nothing is profiled"]),
    ],
)
def test_a_window_is_cut_to_the_steps_of_a_stage(steps, profiled, says):
    spec, lines = types.SimpleNamespace(log=Log(profile="100:110"), horizon=Horizon(steps, steps, (0,))), []
    assert stage.clip_profile(spec, lines.append) == profiled
    assert [line.partition("the stage ")[2] for line in lines] == says
