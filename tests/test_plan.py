# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The command `plan`: its numbers are those of the later run, and a stage that does not fit gets an alternative."""

import importlib.util
import json
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest
from toy_models import RECORD, save_span_model

from xlkd import main, plan
from xlkd.data.batches import Plan
from xlkd.errors import DONE, USER_INPUT, UserError
from xlkd.planning import machine, planner
from xlkd.planning.program import fit_speed, parse_needed_bytes
from xlkd.runtime import accelerators, mesh
from xlkd.spec.stage import Mesh
from xlkd.train import loop


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """Returns the flags of a tiny config of two stages: English, then self-distillation from it."""
    base = tmp_path_factory.mktemp("plan")
    patch = pytest.MonkeyPatch()
    patch.setenv("XLKD_CACHE", str(base / "cache"))
    model = save_span_model(base, RECORD)
    (model / "model.safetensors").rename(base / "weights")  # a plan reads no weights
    yield [
        "--config=configs/gxlt.py",
        f"--config.encoder.path={model}",
        "--config.stages=english,skd",
        "--config.task.max_length=64",
        "--config.task.doc_stride=24",
        "--config.english.data.train=atlas?split=train&languages=en&size=40",
        "--config.english.data.eval=",
        "--config.data.train=atlas?split=train&languages=en,es,ru&size=24",
        "--config.data.eval=atlas?split=test&languages=en,es&size=4",
        "--config.data.batch=8",
        "--config.data.buckets=1",
        "--config.method.generations=fixed",
        "--config.budget.epochs=3",
    ]
    patch.undo()


@pytest.fixture(scope="module")
def planned(flags, tmp_path_factory):
    """Returns the plan for this machine, and the memory of every compiled program."""
    sizes, patch = [], pytest.MonkeyPatch()
    patch.setattr(
        loop, "measure_memory", lambda compiled, memory=loop.measure_memory: sizes.append(memory(compiled)) or sizes[-1]
    )
    file = tmp_path_factory.mktemp("planned") / "plan.json"
    assert plan.main([*flags, f"--json={file}"]) == DONE
    patch.undo()
    return json.loads(file.read_text()), sizes


def test_every_stage_is_planned_before_any_has_run(planned):
    english, skd = planned[0]["stages"]
    assert english["start"].endswith("/model")
    assert skd["start"] == "english"
    assert english["parameters"] == skd["parameters"]
    assert set(english["parameters"]) == {"embeddings", "layers", "span"}
    assert english["steps"] == sum(bucket["steps"] for bucket in english["buckets"])
    assert english["data"]["padding"] <= english["data"]["padding_at_longest"]
    assert english["data"]["features_bytes"] > 0
    assert skd["data"]["evaluated_rows"] == {"eval": 8}
    assert planned[0]["fits"]


def test_a_plan_predicts_memory_and_steps_of_the_run(planned, flags, tmp_path, monkeypatch):
    """The plan and the run agree on the bytes of the compiled step and on the number of steps."""
    sizes = []
    monkeypatch.setattr(
        loop, "measure_memory", lambda compiled, memory=loop.measure_memory: sizes.append(memory(compiled)) or sizes[-1]
    )
    model = next(flag.partition("=")[2] for flag in flags if ".encoder.path" in flag)
    weights = pathlib.Path(model) / "model.safetensors"
    weights.symlink_to(pathlib.Path(model).parent / "weights")
    try:
        main.main([*flags, "--config.stages=english", f"--workdir={tmp_path / 'run'}"])
    finally:
        weights.unlink()
    english = planned[0]["stages"][0]
    assert max(sizes) == english["memory"]["program"]
    results = json.loads((tmp_path / "run" / "stages" / "01-english" / "stage.json").read_text())
    assert results["steps"] == english["steps"]
    assert results["parameters"] == sum(english["parameters"].values())


def test_parts_of_the_memory_add_up(planned):
    for stage in planned[0]["stages"]:
        memory = stage["memory"]
        assert sum(memory["parts"].values()) == memory["total"]
        count = sum(stage["parameters"].values())
        assert memory["parts"]["parameters"] == 4 * count
        assert memory["parts"]["moments"] == 8 * count + 4
        assert memory["parts"]["teacher"] == (4 * count if stage["stage"] == "skd" else 0)


def test_work_is_counted_by_formula(planned):
    """A step costs three forward passes, of real tokens and of all positions."""
    english = planned[0]["stages"][0]
    (bucket,) = english["buckets"]
    rows, *_, length = bucket["shape"].split()
    forward = 2 * int(length) * (8 * 16**2 + 4 * 16 * 32 + 4 * int(length) * 16)
    assert english["flops"]["step_padded"] == pytest.approx(3 * int(rows) * bucket["steps"] * forward)
    assert english["flops"]["step"] < english["flops"]["step_padded"]


def test_the_gain_of_cached_targets_depends_on_their_uses(planned):
    teacher = planned[0]["stages"][1]["teacher"]
    assert (teacher["kind"], teacher["uses"]) == ("kept", 3)
    assert teacher["share"] == pytest.approx(1 / 3)
    assert teacher["gain"] == pytest.approx(1.2), "E(3 + r) / (3E + r) with r = 1, E = 3"
    assert teacher["bytes"] == 8 * planned[0]["stages"][1]["data"]["tokens"]


def test_time_on_this_machine_is_measured(planned):
    time = planned[0]["stages"][0]["time"]
    assert planned[0]["machine"]["measured"]
    assert 0 < time["mfu"] < time["mfu_padded"]
    assert planned[0]["seconds"] == pytest.approx(sum(stage["time"]["seconds"] for stage in planned[0]["stages"]))
    assert planned[0]["cost"] is None


def test_a_plan_is_printed_in_plain_lines(planned):
    text = "\n".join(plan.format_plan(planned[0]))
    assert "stage skd: gxlt from english" in text
    assert "targets cached: each is used 3 times, 1.20× less work" in text
    assert "MFU" in text


def test_another_machine_is_estimated_and_priced(flags, tmp_path, capsys):
    arguments = [*flags, "--config.stages=english"]
    assert plan.main([*arguments, "--device=v5e", f"--json={tmp_path / 'a.json'}"]) == DONE
    numbers = json.loads((tmp_path / "a.json").read_text())
    assert numbers["machine"]["flops"] == 197e12
    assert numbers["cost"] == pytest.approx(1.20 * numbers["seconds"] / 3600)
    time = numbers["stages"][0]["time"]
    assert time["mfu_padded"] < machine.EFFICIENCY, "AdamW's traffic is on top"
    assert "assumed 35% of the peak" in capsys.readouterr().out


@pytest.mark.parametrize(("device", "platform"), [("v5e", "tpu"), ("h100", "gpu"), ("cpu", "cpu")])
def test_a_machine_has_the_platform_that_decides_the_buckets(device, platform):
    assert machine.choose_machine(device, 0, "", 1, 0.35, print).platform == platform


def test_a_stage_that_does_not_fit_gets_an_alternative(flags, monkeypatch, capsys):
    """The device has so little memory that only rematerialisation makes the stage fit."""
    arguments = [*flags, "--config.stages=english", "--config.data.batch=32", "--device=v5e"]
    total = make_plan(arguments, monkeypatch)["stages"][0]["memory"]["total"]
    shrunk = {"v5e": accelerators.TABLE["v5e"].__class__(("TPU v5 lite",), 197e12, 0.95 * total, 819e9)}
    monkeypatch.setattr(accelerators, "TABLE", accelerators.TABLE | shrunk)
    assert plan.main(arguments) == USER_INPUT
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("does not fit"))
    assert "needs 1.1× the memory" in line
    assert "config.encoder.remat=full" in line


def make_plan(flags, monkeypatch):
    values, overrides = plan.cli.split_flags(flags, plan.FLAGS)
    return plan.plan_run(plan.settings.apply_flags(plan.settings.read_config(values["config"]), overrides), values)


def test_the_utilisation_of_a_cpu_refers_to_the_peak_of_the_type(monkeypatch):
    monkeypatch.setattr(machine, "measure_flops", {"float32": 1e9, "bfloat16": 4e9}.get)
    cpu = machine.choose_machine("cpu", 0, "", 1, 0.35, print)
    assert [cpu.find_peak(dtype) for dtype in ("float32", "bfloat16")] == [1e9, 4e9]
    gpu = machine.choose_machine("h100", 0, "", 1, 0.35, print)
    assert {gpu.find_peak(dtype) for dtype in ("float32", "bfloat16")} == {gpu.flops}


@pytest.mark.parametrize(
    ("memory", "message"),
    [
        (
            {"total": 300, "of": 100, "tried": [{"change": "config.a=1", "total": 90, "fits": True}]},
            "does not fit: needs 3.0× the memory (300 B of 100 B a device); fits with config.a=1",
        ),
        (
            {"total": 300, "of": 100, "tried": [{"change": "config.a=1", "total": 150, "fits": False}]},
            "not enough: config.a=1 1.5×; take a smaller config.data.batch, or more devices and config.mesh.fsdp",
        ),
    ],
)
def test_the_refusal_names_the_changes_that_were_tried(memory, message):
    assert message in plan.format_refusal(memory)


@pytest.mark.parametrize(
    ("topology", "shape"),
    [
        ("v5e-64", ("v5e", "8x8")),
        ("v5e-8", ("v5e", "2x4")),
        ("v6e-4", ("v6e", "2x2")),
        ("v6e-1", ("v6e", "1x1")),
        ("v4-8", ("v4", "2x2x1")),  # Names count cores, and a chip has two.
        ("v5p-128", ("v5p", "4x4x4")),
        ("v5p:2x2x4", ("v5p", "2x2x4")),
    ],
)
def test_topology_names_are_parsed(topology, shape):
    assert machine._parse_topology(topology) == shape


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "no --config"),
        (["--config=configs/gxlt.py", "--device=h1000"], "no device 'h1000' in the table"),
        (["--config=configs/gxlt.py", "--efficiency=2"], "is not between 0 and 1"),
        (["--config=configs/gxlt.py", "--topology=v5e-63"], "no known shape for v5e-63; v5e-1, v5e-4, v5e-8, v5e-16"),
        (["--config=configs/gxlt.py", "--slices=2"], "--slices without --topology"),
        (["--config=configs/gxlt.py", "--topology=pod"], "for example v5e-64"),
        (["--config=configs/gxlt.py", "--topology=v5e-64", "--chips=4"], "leave out --device and --chips"),
        (["--config=configs/gxlt.py", "--chip=4"], "cannot read '--chip=4'"),
    ],
)
def test_bad_flags_are_refused(flags, message):
    with pytest.raises(UserError) as error:
        plan.main(flags)
    assert message in str(error.value)


SLICES_PROGRAM = """
from xlkd.spec.stage import Mesh
from xlkd.planning import machine
from xlkd.runtime import mesh
from xlkd.spec.stage import Mesh
for topology, slices in (("v4-8", 1), ("v5e-1", 1), ("v5e-8", 1), ("v5p-8", 2), ("v6e-8", 2), ("v6e-64", 1)):
    pod = machine.choose_machine("", 0, topology, slices, 0.35, print)
    shape = mesh.build_mesh(Mesh(tensor=min(2, pod.count)), pod.devices).shape
    print(topology, pod.devices[0].device_kind, pod.count, pod.slices, pod.exact, shape["data"], shape["tensor"])
"""


def test_meshes_are_built_for_remote_slices():
    """Runs in another process, since libtpu reads its settings from the environment."""
    if not importlib.util.find_spec("libtpu"):
        pytest.skip("needs libtpu: pip install 'xlkd[topology]'")
    process = subprocess.run([sys.executable, "-c", SLICES_PROGRAM], capture_output=True, text=True, check=False)
    assert process.stdout.splitlines() == [
        "v4-8 TPU v4 4 1 True 2 2",
        "v5e-1 TPU v5 lite 1 1 True 1 1",
        "v5e-8 TPU v5 lite 8 1 True 4 2",
        "v5p-8 TPU v5 8 2 True 4 2",
        "v6e-8 TPU v6 lite 16 2 True 8 2",
        "v6e-64 TPU v6 lite 64 1 True 32 2",
    ], process.stderr[-2000:]


def test_slices_are_distinguished_without_libtpu_too(monkeypatch):
    """CPU devices stand in for the chips, and only `data` may cross slices."""
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(machine, "_stand_in_devices", lambda count: [types.SimpleNamespace(platform="cpu")] * count)
    messages = []
    chosen = machine.choose_machine("", 0, "v6e-8", 2, 0.35, messages.append)
    assert (chosen.count, chosen.slices, chosen.exact) == (16, 2, False)
    assert "libtpu is not installed" in messages[0]
    with pytest.raises(UserError, match="data alone can cross slices"):
        mesh.build_mesh(Mesh(data=1, fsdp=16), chosen.devices, chosen.slices)


def test_padding_for_the_devices_counts_as_no_work():
    """Two steps of three examples on four devices have the FLOPs of one device for real tokens."""
    method = types.SimpleNamespace(flops=lambda tokens, rows: tokens**2 / rows, teacher=None)
    batches = Plan({"text": np.array([10, 20, 30, 40, 50, 60])}, batch=3, edges=(64,), seed=0)
    inputs = types.SimpleNamespace(plan=batches)
    one_device, four_devices = (
        planner._count_flops(method, planner._list_batches(batches, 2, rows), inputs, 2) for rows in (3, 4)
    )
    assert four_devices["step"] == one_device["step"]
    assert four_devices["step_padded"] == pytest.approx(4 / 3 * one_device["step_padded"])


def test_the_fixed_time_of_a_step_is_separated_from_its_speed():
    assert fit_speed({100.0: 3.0, 300.0: 7.0}) == (1.0, 50.0)
    assert fit_speed({100.0: 2.0}) == (0.0, 50.0)
    assert fit_speed({100.0: 1.0, 300.0: 6.0}) == (0.0, 50.0), "nothing is paid for less than nothing"
    assert fit_speed({100.0: 7.0, 300.0: 6.0}) == (0.0, 50.0), "noise"


def test_needed_bytes_are_read_from_a_compiler_error():
    refusal = "RESOURCE_EXHAUSTED: … (411.32G) exceeds available HBM (15.75G) by 395.57G"
    assert parse_needed_bytes(refusal) == int(411.32 * 2**30)
    assert parse_needed_bytes("INTERNAL: something else") == 0


def test_kinds_of_devices_are_distinguished():
    names = {"TPU v5 lite": 197e12, "TPU v5p": 459e12, "TPU v5": 459e12, "TPU v6 lite": 918e12, "TPU v4": 275e12}
    names |= {"NVIDIA H100 80GB HBM3": 989e12, "TPU7x": 2307e12 / 2}
    assert {name: accelerators.find_accelerator(name).flops for name in names} == names
    assert accelerators.find_accelerator("cpu") is None


def test_bytes_and_flops_are_formatted_with_units():
    assert [plan.format_bytes(n) for n in (12, 2048, 3 * 2**30)] == ["12 B", "2 KiB", "3 GiB"]
    assert [plan.format_flops(n) for n in (5e9, 1.5e12)] == ["5 GFLOP", "1.5 TFLOP"]
