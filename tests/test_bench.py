# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Benches: what they judge and when they refuse to, what they count, and that each runs from end to end."""

import importlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from xlkd.data.buckets import encoder_cost
from xlkd.errors import UserError

BENCH = pathlib.Path(__file__).parents[1] / "bench"
sys.path.insert(0, str(BENCH))
packing, scaling, side_by_side = map(importlib.import_module, ("packing", "scaling", "side_by_side"))
Case, Flags = side_by_side.Case, side_by_side.Flags

whole = pytest.mark.skipif(not os.environ.get("XLKD_BENCH"), reason="a whole bench, half a minute each: XLKD_BENCH=1")


@pytest.fixture
def quiet(monkeypatch):
    """Nobody else uses the machine."""
    monkeypatch.setattr(side_by_side, "_machine", lambda: 0.0)
    monkeypatch.setattr(side_by_side.time, "sleep", lambda seconds: None)


def flags(**changes) -> Flags:
    return Flags(**({"quick": False, "rounds": 5, "anyway": False, "only": "", "json": None, "rest": {}} | changes))


def case(ours=1.0, theirs=2.0, name="one", **changes) -> Case:
    return Case(name, lambda: (lambda: ours, lambda: theirs), **changes)


@pytest.mark.parametrize(
    ("bar", "gain", "ratio", "verdict"),
    [(0.6, False, 0.5, "held"), (0.4, False, 0.5, "missed"), (1.9, True, 2.0, "held"), (2.1, True, 2.0, "missed")],
)
def test_a_bar_is_held_or_missed(quiet, capsys, bar, gain, ratio, verdict):
    (line,) = side_by_side.judge("t", [case(bar=bar, gain=gain)], flags())
    assert (line["ratio"], line["verdict"]) == (ratio, verdict)
    assert f"**{ratio:.2f}** | {ratio:.2f}–{ratio:.2f} | {'≥' if gain else '≤'} {bar:g} | {verdict} |" in (
        capsys.readouterr().out
    )


def test_the_ratio_is_of_medians_and_the_spread_of_rounds(quiet):
    times = iter([1.0] * 2 + [3.0, 1.0, 1.0, 1.0, 9.0])
    (line,) = side_by_side.judge("t", [Case("one", lambda: (lambda: next(times), lambda: 2.0))], flags())
    assert line["ratio"] == 0.5
    assert line["ratios"] == [1.5, 0.5, 0.5, 0.5, 4.5]


def test_sides_take_turns_in_going_first(quiet):
    order = []
    sides = lambda: order.append("ours") or 1.0, lambda: order.append("theirs") or 1.0
    side_by_side.judge("t", [Case("one", lambda: sides, warm=0)], flags(rounds=2))
    assert order == ["theirs", "ours", "ours", "theirs"]


def test_few_rounds_judge_nothing(quiet):
    assert side_by_side.judge("t", [case(bar=1)], flags(rounds=4))[0]["verdict"] == "too few rounds"


def test_a_loaded_machine_is_refused_before_anything_is_measured(monkeypatch, quiet):
    clock = iter(range(1000))
    monkeypatch.setattr(side_by_side, "_machine", lambda: float(next(clock)))
    with pytest.raises(UserError, match=r"others use 1.00 cores .* --anyway"):
        side_by_side.judge("t", [Case("one", lambda: pytest.fail("measured"))], flags())


def test_anyway_marks_what_was_measured_under_load(monkeypatch, quiet):
    clock = iter(range(1000))
    monkeypatch.setattr(side_by_side, "_machine", lambda: float(next(clock)))
    (line,) = side_by_side.judge("t", [case(bar=1)], flags(anyway=True))
    assert line["verdict"].startswith("loaded (")


def test_only_the_named_cases_are_built_and_every_time_is_kept(quiet, tmp_path):
    out = tmp_path / "out.json"
    cases = [case(name="first"), Case("second", lambda: pytest.fail("built"))]
    side_by_side.judge("t", cases, flags(only="fir", json=out))
    (kept,) = json.loads(out.read_text())["cases"]
    assert (kept["name"], kept["ours"]) == ("first", [1.0] * 5)


def test_collectives_are_counted_by_size():
    program = """
  %a = f32[100,16]{1,0} all-reduce(%x), replica_groups={}
  %b = (f32[100]{0}, f32[60,10]{1,0}) all-reduce(%y, %z), to_apply=%add
  %c = f32[] all-reduce(%n)
  %d = bf16[800]{0} all-gather(%w), dimensions={0}
  %e = f32[100]{0} add(%all-reduce.1, %q)
"""
    found = scaling.counted(program, parameters_bytes=6400)
    assert found["small"] == 1
    assert found["large"] == {"all-reduce": (2, 1 + 2800 / 6400), "all-gather": (1, 0.25)}


def test_packing_counts_rows_that_hold_all():
    assert packing.packed(np.array([5, 5, 5, 5]), 10) == 2
    assert packing.packed(np.array([9, 9, 1, 1]), 10) == 2
    assert packing.packed(np.array([6, 6, 6]), 10) == 3


def test_more_buckets_cost_less_and_never_less_than_no_padding():
    lengths = np.random.default_rng(0).integers(20, 384, 500)
    cost = encoder_cost(384)
    totals = [packing.bucketed(lengths, k, cost) for k in (1, 4, 8, 16)]
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] > cost(lengths.astype(float)).sum()


def run(name: str, *arguments: str) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, BENCH / f"{name}.py", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.torch
@pytest.mark.parametrize("only", ["train, 6×384, 8×128, no dropout", "forward, 6×384, 8×128"])
def test_both_sides_of_a_step_agree_and_run(only):
    pytest.importorskip("torch")
    assert f"| {only} |" in run("step", "--quick", f"--only={only}")


def test_a_step_over_two_devices_has_one_large_collective():
    lines = run("scaling", "--quick").splitlines()
    assert next(line for line in lines if line.startswith("| data 2 |")).split(" | ")[2].startswith("1 × all-reduce")
    assert all(line.endswith("| 0 |") for line in lines if line.startswith(("| data", "| fsdp")))


@whole
@pytest.mark.parametrize("name", ["mblm", "mmkd", "startup", "packing"])
def test_the_others_run(name):
    assert "|---" in run(name, *([] if name == "packing" else ["--quick"]))


@whole
@pytest.mark.torch
def test_distillation_runs_on_both_sides():
    pytest.importorskip("torch")
    assert "against the longest of a batch" in run("distill", "--quick")
