# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: their verdicts, when they refuse to measure, what they count, and that each runs from end to end."""

import importlib
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from xlkd.data.buckets import make_encoder_cost
from xlkd.errors import UserError
from xlkd.files import OutputFile

BENCH = pathlib.Path(__file__).parents[1] / "bench"
sys.path.insert(0, str(BENCH))
packing, scaling, side_by_side = map(importlib.import_module, ("packing", "scaling", "side_by_side"))
roofline = importlib.import_module("roofline")
disturbed, faults, kills = map(importlib.import_module, ("disturbed", "faults", "kills"))
Case, Flags = side_by_side.Case, side_by_side.Flags


@pytest.fixture
def idle_machine(monkeypatch):
    """Simulates a machine that nobody else uses."""
    monkeypatch.setattr(side_by_side, "_machine_seconds", lambda: 0.0)
    monkeypatch.setattr(side_by_side.time, "sleep", lambda seconds: None)


def make_flags(**changes) -> Flags:
    return Flags(**({"quick": False, "rounds": 5, "anyway": False, "only": "", "json": None, "rest": {}} | changes))


def make_case(ours=1.0, theirs=2.0, name="one", **changes) -> Case:
    return Case(name, lambda: (lambda: ours, lambda: theirs), **changes)


@pytest.mark.parametrize(
    ("bar", "gain", "ratio", "verdict"),
    [(0.6, False, 0.5, "held"), (0.4, False, 0.5, "missed"), (1.9, True, 2.0, "held"), (2.1, True, 2.0, "missed")],
)
def test_a_ratio_meets_or_misses_its_bar(idle_machine, capsys, bar, gain, ratio, verdict):
    (line,) = side_by_side.judge("t", [make_case(bar=bar, gain=gain)], make_flags())
    assert (line["ratio"], line["verdict"]) == (ratio, verdict)
    assert f"**{ratio:.2f}** | {ratio:.2f}–{ratio:.2f} | {'≥' if gain else '≤'} {bar:g} | {verdict} |" in (
        capsys.readouterr().out
    )


def test_the_ratio_is_of_medians_and_ratios_are_listed_by_round(idle_machine):
    times = iter([1.0] * 2 + [3.0, 1.0, 1.0, 1.0, 9.0])
    (line,) = side_by_side.judge("t", [Case("one", lambda: (lambda: next(times), lambda: 2.0))], make_flags())
    assert line["ratio"] == 0.5
    assert line["ratios"] == [1.5, 0.5, 0.5, 0.5, 4.5]


def test_sides_take_turns_in_going_first(idle_machine):
    order = []
    sides = lambda: order.append("ours") or 1.0, lambda: order.append("theirs") or 1.0
    side_by_side.judge("t", [Case("one", lambda: sides, warm=0)], make_flags(rounds=2))
    assert order == ["theirs", "ours", "ours", "theirs"]


def test_the_fastest_peer_counts_and_all_times_are_kept(idle_machine, capsys, tmp_path):
    out, order = tmp_path / "out.json", []

    def make_side(name, seconds):
        return lambda: order.append(name) or seconds

    sides = make_side("ours", 1.0), make_side("eager", 4.0), make_side("compiled", 2.0)
    case = Case("one", lambda: sides, bar=0.6, warm=0, peers=("eager", "compiled"))
    (line,) = side_by_side.judge("t", [case], make_flags(json=OutputFile(out)))
    assert (line["peer"], line["ratio"], line["verdict"]) == ("compiled", 0.5, "held")
    assert order[:6] == ["eager", "compiled", "ours", "compiled", "ours", "eager"]
    assert "| 2 (compiled) |" in capsys.readouterr().out
    recorded = json.loads(out.read_text())
    assert recorded["cases"][0]["eager"] == [4.0] * 5
    assert recorded["processor"]
    assert recorded["versions"]["jax"]


def test_too_few_rounds_give_no_verdict(idle_machine):
    assert side_by_side.judge("t", [make_case(bar=1)], make_flags(rounds=4))[0]["verdict"] == "too few rounds"


def test_a_loaded_machine_is_refused_before_measuring(monkeypatch, idle_machine):
    clock = iter(range(1000))
    monkeypatch.setattr(side_by_side, "_machine_seconds", lambda: float(next(clock)))
    with pytest.raises(UserError, match=r"others use 1.00 cores .* --anyway"):
        side_by_side.judge("t", [Case("one", lambda: pytest.fail("measured"))], make_flags())


def test_the_flag_anyway_marks_results_measured_under_load(monkeypatch, idle_machine):
    clock = iter(range(1000))
    monkeypatch.setattr(side_by_side, "_machine_seconds", lambda: float(next(clock)))
    (line,) = side_by_side.judge("t", [make_case(bar=1)], make_flags(anyway=True))
    assert line["verdict"].startswith("loaded (")


def test_only_the_named_cases_are_built_and_every_time_is_recorded(idle_machine, tmp_path):
    out = tmp_path / "out.json"
    cases = [make_case(name="first"), Case("second", lambda: pytest.fail("built"))]
    side_by_side.judge("t", cases, make_flags(only="fir", json=OutputFile(out)))
    (recorded,) = json.loads(out.read_text())["cases"]
    assert (recorded["name"], recorded["ours"]) == ("first", [1.0] * 5)


def test_collectives_are_counted_by_size():
    program = """ENTRY %main (x: f32[100,16]) -> f32[] {
  %a = f32[100,16]{1,0} all-reduce(%x), replica_groups={}
  %b = (f32[100]{0}, f32[60,10]{1,0}) all-reduce(%y, %z), to_apply=%add
  %c = f32[] all-reduce(%n)
  %d = bf16[800]{0} all-gather(%w), dimensions={0}
  %e = f32[100]{0} add(%all-reduce.1, %q)
}
"""
    counts = scaling.count_collectives(program, parameters_bytes=6400, devices=8)
    assert counts["small"] == 1
    assert counts["large"] == {"all-reduce": (2, 1 + 2800 / 6400), "all-gather": (1, 0.25)}


def test_packing_counts_the_rows_needed():
    assert packing.count_packed_rows(np.array([5, 5, 5, 5]), 10) == 2
    assert packing.count_packed_rows(np.array([9, 9, 1, 1]), 10) == 2
    assert packing.count_packed_rows(np.array([6, 6, 6]), 10) == 3


def test_more_buckets_cost_less_but_never_less_than_no_padding():
    lengths = np.random.default_rng(0).integers(20, 384, 500)
    cost = make_encoder_cost(384)
    totals = [packing.sum_bucketed_cost(lengths, k, cost) for k in (1, 4, 8, 16)]
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] > cost(lengths.astype(float)).sum()


def test_kills_are_drawn_from_a_seed_and_cover_every_place_and_signal():
    drawn = [kills.plan_kills(50, random.Random(seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert {kill.place for kill in drawn[0]} == set(kills.PLACES)
    assert {kill.signal for kill in drawn[0]} == {signal.SIGKILL, signal.SIGTERM}


def make_events(*kinds: str) -> list[dict]:
    return [{"kind": kind} for kind in kinds]


@pytest.mark.parametrize(
    ("half_written", "recorded_events", "place"),
    [
        ("", make_events(), "the start"),
        ("", make_events("prepare", "begin"), "the start"),
        ("", make_events("prepare", "train"), "a step"),
        ("", make_events("train", "evaluate"), "an evaluation"),
        ("", make_events("finish"), "between stages"),
        ("", make_events("finish", "prepare"), "between stages"),
        ("run/stages/01-one/checkpoints/8.orbax-checkpoint-tmp", make_events("train"), "a save"),
        ("cache/.writing-1", make_events("prepare"), "the cache"),
    ],
)
def test_the_place_of_a_kill_is_recognized(tmp_path, half_written, recorded_events, place):
    killed = disturbed.Run(faults.SYSTEM, (), tmp_path / "1")
    before = killed.list_drafts()
    (tmp_path / "1" / half_written).mkdir(parents=True, exist_ok=True)
    assert kills.locate(killed, recorded_events, before) == place
    assert kills.locate(killed, recorded_events, killed.list_drafts()) != place or not half_written, (
        "left by an earlier kill"
    )


def test_a_fault_passes_only_if_it_happened_was_reported_and_changed_nothing(tmp_path, monkeypatch):
    bench = disturbed.Bench(tmp_path, "small")
    monkeypatch.setattr(bench, "get_undisturbed", lambda system: {"weights": "a"})
    ends = iter([{"weights": "a"}, {"weights": "a"}, {"weights": "b"}, {"weights": "a"}])
    monkeypatch.setattr(disturbed, "collect_results", lambda run: next(ends))

    def judge(injected="cut", code=2, errors="error: full"):
        fault = disturbed.ProcessEnd(code, "", errors)
        return bench.judge(
            "disk", bench.run(faults.SYSTEM), injected, fault, 2, "full", disturbed.ProcessEnd(0, "", "")
        ).wrong

    assert judge() == ""
    assert judge(injected="") == "the fault did not happen"
    assert judge() == "another end"
    assert (
        judge(errors="error: full\nTraceback", code=1) == "exit 1 where 2 was expected, 2 lines of errors, a traceback"
    )


def test_counts_of_few_layers_are_continued_on_a_line():
    one, two = roofline.Counts(10.0, 100.0), roofline.Counts(13.0, 150.0)
    assert one.extend(two, 12) == roofline.Counts(43.0, 650.0)


def test_records_of_programs_are_kept_and_replaced_by_name(tmp_path):
    out = tmp_path / "out.json"
    for flops in (1, 2):
        record = roofline.Record(OutputFile(out))
        record.add("same", {"flops": flops}, 0.0)
        record.add(f"only {flops}", {"flops": flops}, 0.0)
    programs = json.loads(out.read_text())["programs"]
    assert {name: program["flops"] for name, program in programs.items()} == {"same": 2, "only 1": 1, "only 2": 2}


def run_bench(name: str, *arguments: str) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, BENCH / f"{name}.py", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.torch
@pytest.mark.parametrize("only", ["train, 6×384, 8×128, no dropout", "forward, 6×384, 8×128"])
def test_both_sides_of_a_step_agree_and_run(only):
    pytest.importorskip("torch")
    assert f"| {only} |" in run_bench("step", "--quick", f"--only={only}")


@pytest.mark.long
@pytest.mark.torch
def test_both_sides_of_each_part_of_a_pass_agree():
    pytest.importorskip("torch")
    assert run_bench("parts", "--quick").count("quick: no figure") == 10


@pytest.mark.long
def test_collectives_of_a_step_over_two_devices():
    """The gradient is reduced once; FSDP gathers parameters, and moves rows for the word embeddings only."""
    lines = run_bench("scaling", "--quick").splitlines()
    fsdp = next(line for line in lines if line.startswith("| fsdp 2 |"))
    assert "all-gather" in fsdp
    assert "permute" not in fsdp
    assert int(re.search(r"(\d+) × all-to-all", fsdp)[1]) <= 2
    assert next(line for line in lines if line.startswith("| data 2 |")).split(" | ")[2].startswith("1 × all-reduce")
    assert all(line.endswith("| 0 |") for line in lines if line.startswith(("| data", "| fsdp")))


@pytest.mark.long
@pytest.mark.parametrize("name", ["mblm", "mmkd", "startup", "packing"])
def test_other_benchmarks_run(name):
    assert "|---" in run_bench(name, *([] if name == "packing" else ["--quick"]))


@pytest.mark.long
def test_growth_by_vocabulary_is_counted_in_bytes_of_adamw(tmp_path):
    out = tmp_path / "out.json"
    printed = run_bench("growth", "--quick", "--only=vocabulary", "--rounds=2", f"--json={out}")
    small, large = json.loads(out.read_text())["points"]
    assert [len(point["seconds"]) for point in (small, large)] == [2, 2]
    assert large["counted"] - small["counted"] == 28 * 100 * 16  # 100 tokens more, of hidden size 16
    assert f"| {large['counted'] / small['counted']:.2f} |" in printed


@pytest.mark.long
def test_a_step_with_a_teacher_is_compiled_for_a_named_device():
    import jax

    training = importlib.import_module("throughput").make_gxlt("tiny", 2, 16)
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    teacher, _, step = training.compile(place)
    assert roofline.count_programs([teacher]).flops < roofline.count_programs([step]).flops
    assert roofline.count_programs([teacher, step]).flops > 0.9 * training.flops


@pytest.mark.long
@pytest.mark.torch
def test_distillation_runs_on_both_sides():
    pytest.importorskip("torch")
    assert "against the longest of a batch" in run_bench("distill", "--quick")
