# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The training loop in real processes: killed and started again, on one device and on eight."""

import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import toy_models

from xlkd import main
from xlkd.errors import UserError
from xlkd.reports import goodput

ROOT = pathlib.Path(__file__).parents[1]
TINY = [
    "--config=configs/pretrain.py",
    "--config.encoder.new.hidden_size=32",
    "--config.encoder.new.layers=2",
    "--config.encoder.new.vocabulary=1200",
    "--config.encoder.new.texts=atlas?kind=same&languages=en,de&size=200",
    "--config.data.train=atlas?kind=mixed&languages=en,de&size=400&facts=3",
    "--config.data.eval=atlas?split=validation&kind=same&languages=en,de&size=40",
    "--config.data.retrieval=",
    "--config.data.batch=12",
    "--config.data.buckets=2",
    "--config.encoder.dropout=0.1",
    "--config.encoder.layers_as=scanned",
    "--config.optim.warmup=5",
    "--config.budget.steps=24",
    "--config.save.every=4",
    "--config.eval.every=12",
    "--config.log.every=1",  # a line averages the steps since the one before or since a restart
]


ENTRY = ["-m", "xlkd.main"]
LISTENING = (  # the same command, which prints the loaded libraries at its end
    "import sys\n"
    "from xlkd import cli, main\n"
    "code = cli.run(main.main)\n"
    "print('loaded:', sorted({'torch', 'tensorflow'} & set(sys.modules)))\n"
    "sys.exit(code)"
)


def start_run(workdir, *flags, devices=1, cache=None, entry=ENTRY, optimized=False, **options):
    """Starts a run; `optimized` compiles its programs as a user's, which takes longer than the steps of this one."""
    environment = os.environ | {
        "XLKD_CACHE": str(cache or workdir.parent / "cache"),
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_PLATFORMS": "cpu",
    }
    environment |= toy_models.OPTIMIZED if optimized else {}
    command = [sys.executable, *entry, *TINY, f"--workdir={workdir}", *flags]
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


def finish_run(workdir, *flags, code=0, **options):
    process = start_run(workdir, *flags, **options)
    output = process.communicate()[0]
    assert process.returncode == code, output
    return output


def load_export(workdir) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(workdir / "stages" / "01-all" / "export" / "model.safetensors")


def read_lines(workdir) -> list[dict]:
    return [json.loads(line) for line in (workdir / "stages" / "01-all" / "metrics.jsonl").read_text().splitlines()]


def read_modification_time(workdir) -> int:
    """Returns when a step was last written; a resumed run finds lines of the former process."""
    file = workdir / "stages" / "01-all" / "metrics.jsonl"
    return file.stat().st_mtime_ns if file.exists() else 0


def read_last_step(workdir) -> int:
    try:
        return read_lines(workdir)[-1]["step"]
    except (OSError, IndexError, json.JSONDecodeError):
        return -1


@pytest.fixture(scope="module")
def undisturbed_run(tmp_path_factory):
    """Runs without interruption; returns the work directory and the output."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, finish_run(folder, entry=["-c", LISTENING])


def test_a_run_writes_all_documented_files(undisturbed_run):
    folder, output = undisturbed_run
    assert {"config.json", "environment.json", "log.txt", "results.json"} <= {p.name for p in folder.iterdir()}
    stage = folder / "stages" / "01-all"
    assert {"checkpoints", "metrics.jsonl", "tensorboard", "evaluation", "export", "done"} <= {
        p.name for p in stage.iterdir()
    }
    assert [line["step"] for line in read_lines(folder)] == list(range(1, 25))
    assert sorted(p.name for p in (stage / "evaluation").iterdir()) == ["0-eval.json", "12-eval.json", "24-eval.json"]
    losses = [line["loss"] for line in read_lines(folder)]
    assert losses[-1] < losses[0] - 0.5
    assert "MiB per device" in output
    assert "ETA" in output


def test_a_run_accounts_for_its_time(undisturbed_run):
    folder, output = undisturbed_run
    assert "goodput: " in output
    measured = goodput.measure(folder)
    assert {"steps", "compile", "prepare", "start", "finish"} <= set(measured["parts"])
    assert measured["steps_again"] == 0
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [event["step"] for event in events if event["kind"] == "train" and "step" in event] == list(range(25))
    assert measured["seconds"] == pytest.approx(events[-1]["time"] - events[0]["time"], abs=0.01)
    assert sum(measured["parts"].values()) == pytest.approx(measured["seconds"], abs=0.05)


def test_the_same_command_again_repeats_nothing(undisturbed_run):
    output = finish_run(undisturbed_run[0])
    assert "finished before" in output
    assert "compiled" not in output


VALUES = "state/ocdbt.process_0/d/"


def truncate_last_checkpoint(workdir):
    folders = [path for path in workdir.glob("stages/*/checkpoints/*") if path.name.isdecimal()]
    (file,) = (max(folders, key=lambda path: int(path.name)) / VALUES).iterdir()
    os.truncate(file, file.stat().st_size // 2)


def signal_run(workdir, number, at, *flags, **options):
    """Signals a run after a step; returns its exit code and its output."""
    before = read_modification_time(workdir)
    process = start_run(workdir, *flags, **options)
    while (read_modification_time(workdir) == before or read_last_step(workdir) < at) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    output = process.communicate()[0]
    return process.returncode, output


def assert_equal(folder, expected):
    """Asserts that the trained weights and the metrics of two runs are the same bits."""
    assert load_export(folder).keys() == load_export(expected).keys()
    for name, value in load_export(expected).items():
        np.testing.assert_array_equal(load_export(folder)[name], value, err_msg=name)
    assert read_lines(folder) == read_lines(expected)


def test_a_run_that_is_killed_stopped_and_damaged_ends_bit_identical(undisturbed_run, tmp_path):
    """A run is killed, then stopped by SIGTERM, then its last checkpoint is truncated, all while it is profiled."""
    folder, options = tmp_path / "run", {"cache": undisturbed_run[0].parent / "cache"}
    flag = "--config.log.profile=5:22"
    assert signal_run(folder, signal.SIGKILL, 6, flag, **options)[0] == -signal.SIGKILL, "the run must have died"
    assert not (folder / "stages" / "01-all" / "done").exists()
    code, output = signal_run(folder, signal.SIGTERM, 13, flag, **options)
    assert code == 75, output
    assert "restored step" in output
    assert "SIGTERM: saved at step" in output.splitlines()[-1]
    assert "is damaged" not in output
    truncate_last_checkpoint(folder)
    assert f"is damaged ({VALUES}" in finish_run(folder, flag, **options)
    assert_equal(folder, undisturbed_run[0])
    sessions = (folder / "stages" / "01-all" / "profile" / "plugins" / "profile").iterdir()
    ends = [int(path.name.split("-")[2]) for path in sessions]
    assert len(ends) == 2, "nothing of the killed process"
    assert max(ends) == 22


@pytest.mark.long
def test_an_optimized_run_that_is_killed_three_times_ends_bit_identical(tmp_path):
    """Programs are compiled as a user's; the first kill is before the first checkpoint."""
    undisturbed, folder = tmp_path / "undisturbed", tmp_path / "run"
    finish_run(undisturbed, optimized=True)
    for at in (1, 7, 14):
        assert signal_run(folder, signal.SIGKILL, at, optimized=True)[0] == -signal.SIGKILL, "the run must have died"
        assert not (folder / "stages" / "01-all" / "done").exists()
    assert "restored step" in finish_run(folder, optimized=True)
    assert_equal(folder, undisturbed)


@pytest.mark.long
def test_eight_devices_have_the_same_batches_and_losses(undisturbed_run, tmp_path):
    """Compares training steps only, so nothing is evaluated."""
    options = {"devices": 8, "cache": undisturbed_run[0].parent / "cache"}
    output = finish_run(tmp_path / "run", "--config.data.eval=", **options)
    assert "batch of 12 examples: 16 rows on 8 devices (75% useful)" in output
    assert "compiled 16 × " in output
    assert "batch of" not in undisturbed_run[1]
    pairs = list(zip(read_lines(undisturbed_run[0]), read_lines(tmp_path / "run"), strict=True))
    for a, b in pairs[:12]:
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-5)


ON_DEVICES = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
import dataclasses, jax, json, types
import numpy as np
from test_step import batch_of, similarities, toy
from xlkd.data.batches import Plan
from xlkd.errors import Stopped
from xlkd.methods import Start
from xlkd.runtime import mesh
from xlkd.spec.optim import Optim
from xlkd.spec.stage import Mesh
from xlkd.train import loop
from xlkd.train.checkpoint import Checkpoints

class Task:
    def arrays(self, features, index, lengths, draw):
        nonsense = {"x": 1e4, "y": -1e4, "tokens": 1.0, "mask": 0.0}
        expand = lambda is_row, value: is_row.reshape(-1, *[1] * (value.ndim - 1))
        return {n: np.where(expand(index >= 0, v), v[index], np.float32(nonsense[n])) for n, v in features.items()}

class Log(list):
    def __call__(self, line): self.append(line)
    def event(self, *_, **more): pass
    def show(self, **values): pass

def train(folder, devices, micro_batches, dropped, stop_at=99):
    log, losses, settings = Log(), {}, Optim(micro_batches=micro_batches, lr=0.01)
    signals = types.SimpleNamespace(asked="")
    def write(step, values):
        losses[step] = values["loss"]
        signals.asked = "a signal" if step == stop_at else ""
    def open_metrics(step):
        assert "grain" in sys.modules, "its import disturbs those of a save in another thread"
        return types.SimpleNamespace(write=write, flush=lambda: None, close=lambda: None)
    checkpoints = Checkpoints(pathlib.Path(sys.argv[2]) / folder, lambda: None)
    job = loop.Job(
        method=dataclasses.replace(toy(similarities, dropped), warn=lambda values: "warning" * (values["loss"] > 0)),
        start=lambda: Start(None, (), {}), task=Task(), features=batch_of(27, seed=5),
        plan=Plan({"text": np.full(27, 9)}, batch=6, edges=(16,), seed=2), steps=20, schedule_steps=20, seed=3,
        optim=settings, save_every=50, evaluate_every=20, evaluate_start=False, log_every=1, evaluate=lambda *_: None,
        is_evaluated=lambda step: True, checkpoints=checkpoints, log=log,
        publish=lambda: None,
        metrics=open_metrics, mesh=mesh.build_mesh(Mesh(), jax.devices()[:devices]), peak_flops=1.0)
    try:
        loop.train(job, signals)
    except Stopped:
        pass
    checkpoints.close()
    layout = [line for line in log if line.startswith("batch")]
    return {"losses": losses, "layout": layout, "warnings": log.count("warning")}

print(json.dumps({
    "one": train("one", 1, 3, 0.0),
    "four": train("four", 4, 3, 0.0),
    "eight": train("eight", 8, 3, 0.0),
    "one with dropout": train("one-dropout", 1, 1, 0.5),
    "eight with dropout": train("eight-dropout", 8, 1, 0.5),
    "stopped on four": train("moved", 4, 3, 0.0, stop_at=7),
    "resumed on eight": train("moved", 8, 3, 0.0),
}))
"""


def test_any_batch_size_trains_on_any_number_of_devices(tmp_path):
    """Six examples per step on 1, 4 and 8 devices, and resumed on 8 after 4, have the same losses."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", ON_DEVICES, os.path.dirname(__file__), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    runs = json.loads(done.stdout.splitlines()[-1])

    def losses(*names):
        return [
            loss for name in names for _, loss in sorted((int(step), x) for step, x in runs[name]["losses"].items())
        ]

    assert len(losses("one")) == 20
    assert runs["one"]["warnings"] == 1, "a warning is printed once"
    for name in ("four", "eight"):
        np.testing.assert_allclose(losses(name), losses("one"), rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(losses("stopped on four", "resumed on eight"), losses("one"), rtol=1e-5)
    np.testing.assert_allclose(losses("eight with dropout"), losses("one with dropout"), rtol=1e-5)
    assert runs["one"]["layout"] == runs["one with dropout"]["layout"] == []
    assert runs["four"]["layout"] == [
        "batch of 6 examples: 8 rows on 4 devices (75% useful), 2 micro-batches instead of 3"
    ]
    assert runs["eight"]["layout"] == [
        "batch of 6 examples: 8 rows on 8 devices (75% useful), 1 micro-batch instead of 3"
    ]
    assert runs["eight with dropout"]["layout"] == ["batch of 6 examples: 8 rows on 8 devices (75% useful)"]


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_examples(undisturbed_run, tmp_path):
    folder = tmp_path / "run"
    flags = ["--config.optim.lr=10", "--config.optim.warmup=0", "--config.optim.clip=0.0", "--config.data.eval="]
    flags += ["--config.encoder.dtype=float16"]  # in which values beyond 65,504 are infinite
    flags += ["--config.data.buckets=1", "--config.eval.start=False"]
    output = finish_run(folder, *flags, code=3, cache=undisturbed_run[0].parent / "cache")
    assert "not finite at step" in output
    assert "examples: " in output
    assert not (folder / "stages" / "01-all" / "done").exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--config.optim.lrr=3"], "did you mean config.optim.lr?"),
        (["--config.budget.steps=many"], "not of type int"),
        (["--confg=x"], "did you mean --config?"),
        (["--config.encoder.path=/nowhere/at/all"], "/nowhere/at/all"),
        (["--config.data.train=atlass"], "did you mean 'atlas'?"),
        (["--config.method.name=pretrian"], "did you mean 'pretrain'?"),
        (["--config.mesh.data=3"], "does not use the 1 devices"),
    ],
)
def test_bad_flags_are_refused(tmp_path, monkeypatch, flags, says):
    """Runs in this process; the test of another config checks the message and exit code of the command."""
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError) as error:
        main.main([*TINY, f"--workdir={tmp_path / 'run'}", *flags])
    assert says in str(error.value)


def test_a_work_directory_of_another_config_is_refused(undisturbed_run):
    output = finish_run(undisturbed_run[0], "--config.optim.lr=0.5", code=2)
    assert "optim.lr differ" in output.splitlines()[-1]
    assert "Traceback" not in output


def test_help_is_fast():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    shown = subprocess.run([sys.executable, "-m", "xlkd.main", "--help"], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "--config" in shown.stdout
    # CPU time, so that other work on the machine does not count.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_a_run_imports_neither_torch_nor_tensorflow(undisturbed_run):
    assert "loaded: []" in undisturbed_run[1].splitlines()


def wait_until(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


@pytest.mark.long
def test_a_run_whose_folder_was_deleted_ends_and_does_not_disturb_the_next_one(undisturbed_run, tmp_path):
    """The first run is paused while its folder is deleted and another run starts in a new folder of that name."""
    cache, folder = undisturbed_run[0].parent / "cache", tmp_path / "run"
    unsaved = ["--config.save.every=1000", "--config.eval.every=1000", "--config.eval.start=False"]
    first = start_run(folder, *unsaved, cache=cache)
    wait_until(lambda: read_last_step(folder) >= 5, first)
    first.send_signal(signal.SIGSTOP)
    shutil.rmtree(folder)
    second = start_run(folder, cache=cache)
    wait_until(lambda: read_last_step(folder) >= 5, second)
    first.send_signal(signal.SIGCONT)
    output = first.communicate()[0]
    assert first.returncode == 2, output
    assert "no longer the folder that this run started in" in output.splitlines()[-1]
    assert second.communicate()[0].endswith("done\n")
    assert_equal(folder, undisturbed_run[0])
    assert (folder / "log.txt").read_text().count("start: ") == 1


@pytest.mark.long  # test_workdir.py has the check in one process
def test_a_run_whose_folder_was_moved_ends_and_does_not_recreate_it(undisturbed_run, tmp_path):
    folder = tmp_path / "run"
    process = start_run(folder, cache=undisturbed_run[0].parent / "cache")
    wait_until(lambda: read_last_step(folder) >= 5, process)
    folder.rename(tmp_path / "elsewhere")
    output = process.communicate()[0]
    assert process.returncode == 2, output
    assert "no longer the folder that this run started in" in output.splitlines()[-1]
    # A save in progress may still write its draft there, which no run takes for a checkpoint.
    written = [path for path in tmp_path.glob("run/**/*") if path.is_file()]
    assert not [path for path in written if ".orbax-checkpoint-tmp" not in str(path)]


@pytest.mark.long
def test_a_batch_beyond_the_memory_is_refused_and_a_smaller_one_trains_in_the_same_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path / "cache"))
    command = [*TINY, "--config.budget.steps=5", f"--workdir={tmp_path / 'run'}"]
    with monkeypatch.context() as little:
        little.setattr("xlkd.cli.available_memory_bytes", lambda: 2**20)
        with pytest.raises(UserError, match="GiB, more than this machine has"):
            main.main(command)
    main.main([*command, "--config.data.batch=6"])
    assert (tmp_path / "run" / "stages" / "01-all" / "done").exists()
