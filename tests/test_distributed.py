# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Several processes form one run: how they join, and a local pod that is killed, stopped and resumed."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import toy_models

from xlkd.errors import Stopped, UserError
from xlkd.runtime import distributed

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}


def make_flags(**changes):
    return {"coordinator": "host:8476", "processes": "2", "process": "1"} | changes


def test_the_three_flags_are_parsed():
    assert distributed._parse_flags(make_flags()) == ("host:8476", 2, 1)
    assert distributed._parse_flags(make_flags(coordinator="[::1]:80"))[0] == "[::1]:80"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"coordinator": "host:8476"}, "--processes is missing"),
        (make_flags(coordinator="host"), "is not HOST:PORT"),
        (make_flags(coordinator="host:99999"), "is not HOST:PORT"),
        (make_flags(processes="two"), "--processes=two is not a whole number"),
        (make_flags(process="2"), "--process=2 is not one of 0 to 1"),
    ],
)
def test_bad_flags_are_refused(flags, says):
    with pytest.raises(UserError, match=says):
        distributed._parse_flags(flags)


@pytest.mark.parametrize(
    ("environment", "kind"),
    [
        ({}, None),
        (SLURM, "slurm"),
        (SLURM | {"SLURM_NTASKS": "1"}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}, None),  # an interactive shell inside an allocation
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "0"}, "gketpu"),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, "gketpu"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
    ],
)
def test_the_kind_of_cluster_is_detected_from_the_environment(environment, kind, monkeypatch):
    monkeypatch.setattr(distributed, "_is_tpu_machine", lambda: False)
    assert distributed.detect_cluster_kind(environment) == kind


def test_a_tpu_machine_is_detected_without_environment_variables(monkeypatch):
    monkeypatch.setattr(distributed, "_is_tpu_machine", lambda: True)
    assert distributed.detect_cluster_kind({}) == "gcetpu"
    assert distributed.detect_cluster_kind({"TPU_SKIP_MDS_QUERY": "1"}) is None


def find_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return listener.getsockname()[1]


def join_processes(monkeypatch, *members, timeout=1.0):
    """Joins processes given as (processes, process); returns the error message of each, or None."""
    monkeypatch.setattr(distributed, "JOIN_TIMEOUT", timeout)
    port, messages = find_free_port(), {}

    def meet(processes, process):
        try:
            messages[process] = distributed._check_all_processes_start(f"localhost:{port}", processes, process)
        except Stopped as error:
            messages[process] = str(error)

    threads = [threading.Thread(target=meet, args=member) for member in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return messages


def test_all_processes_join(monkeypatch):
    assert join_processes(monkeypatch, (3, 0), (3, 1), (3, 2), timeout=60) == {0: None, 1: None, 2: None}


def test_missing_processes_are_named_to_all_that_joined(monkeypatch):
    messages = join_processes(monkeypatch, (4, 0), (4, 2), timeout=2)
    says = "2 of 4 processes came within 2 s, missing: 1, 3; start the same command on every host"
    assert messages == {0: says, 2: says}


def test_a_missing_coordinator_is_reported(monkeypatch):
    assert join_processes(monkeypatch, (2, 1))[1].startswith(
        "1 of 2 processes came within 1.0 s: process 0 is not at localhost:"
    )


def test_processes_that_disagree_on_their_number_are_reported(monkeypatch):
    messages = join_processes(monkeypatch, (3, 0), (2, 1), timeout=30)
    assert "process 1 was started as one of 2, process 0 as one of 3" in messages[0] == messages[1]


def test_a_port_in_use_is_refused():
    with socket.create_server(("", 0)) as taken, pytest.raises(UserError, match="name a free one"):
        distributed._collect_processes(taken.getsockname()[1], 2)


def test_a_single_process_does_not_import_jax():
    code = "import sys; from xlkd.runtime import distributed as d; print(d.is_primary(), d.has_several_processes(), 'jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "False"]
    with distributed.join_run({}):
        assert distributed.broadcast_from_primary("name", lambda: 3) == 3


FLAGS = [
    "--config=configs/gxlt.py",
    "--config.stages=skd",
    "--config.method.generations=fixed",  # so that several processes cache targets
    "--config.data.train=atlas?split=train&size=16&languages=en,de&facts=2",
    "--config.data.eval=atlas?split=test&size=4&languages=en,de&facts=2&pairs=all",
    "--config.data.batch=6",  # on four devices: 8 rows, two of them padding
    "--config.data.buckets=1",
    "--config.task.max_length=96",
    "--config.encoder.layers_as=scanned",
    "--config.budget.epochs=4",
    "--config.save.every=4",
    "--config.log.every=1",
    "--config.optim.lr=1e-4",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return toy_models.save_span_model(tmp_path_factory.mktemp("toy"), toy_models.RECORD)


def start_run(model, workdir, processes):
    """Starts a run on four devices in total."""
    counted = str(toy_models.ROOT / "tests" / "counted_main.py")  # xlkd.main, which counts the texts it tokenizes
    main = [sys.executable, counted, *FLAGS, f"--config.start={model}", f"--workdir={workdir}"]
    environment = os.environ | {
        "XLKD_CACHE": str(workdir.parent / f"cache-{workdir.name}"),
        "JAX_NUM_CPU_DEVICES": "4",
        "JAX_PLATFORMS": "cpu",
        "OMP_NUM_THREADS": "1",
        "COUNTS": str(workdir.parent / f"counts-{workdir.name}"),
    }
    if processes > 1:
        pod = [toy_models.ROOT / "launch" / "local_pod.sh", f"--processes={processes}", f"--devices={4 // processes}"]
        main = [*pod, "--", *main]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(main, env=environment, cwd=toy_models.ROOT, text=True, **pipes)


def read_steps(workdir):
    try:
        file = workdir / "stages" / "01-skd" / "metrics.jsonl"
        return {line["step"]: line for line in map(json.loads, file.read_text().splitlines())}
    except (OSError, json.JSONDecodeError):
        return {}


def read_counts(workdir):
    """Returns the number of texts that each process has tokenized."""
    files = (workdir.parent / f"counts-{workdir.name}").iterdir()
    return [sum(map(int, file.read_text().split())) for file in files]


def signal_member(process, workdir, number, at, member):
    """Signals a member after a step; returns the output of the run and the seconds until it ended."""
    while process.poll() is None and max(read_steps(workdir), default=0) < at:
        time.sleep(0.01)
    os.kill(find_process(workdir, member), number)
    since = time.monotonic()
    output = process.communicate()[0]
    return output, time.monotonic() - since


def find_process(workdir, member) -> int:
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if "python" in words[0] and f"--workdir={workdir}" in words and f"--process={member}" in words:
            return int(folder.name)
    raise AssertionError("the process ended before it could be signalled")


@pytest.mark.long
@pytest.mark.skipif(not pathlib.Path("/proc/self").exists(), reason="finds a process of the pod in Linux's /proc")
def test_a_pod_that_is_killed_and_stopped_resumes_and_equals_a_run_of_one_process(model, tmp_path):
    undisturbed, pod = tmp_path / "whole", tmp_path / "pod"
    single = start_run(model, undisturbed, 1)
    output = single.communicate()[0]
    assert single.returncode == 0, output

    killed = start_run(model, pod, 2)
    output, seconds = signal_member(killed, pod, signal.SIGKILL, 6, member=1)
    assert killed.returncode == 75, output
    assert "process 1 of 2 was killed (signal 9)" in output
    assert "another process of this run ended; the same command resumes" in output
    assert "Traceback" not in output
    assert "Check failure" not in output
    assert seconds < 60
    (total,), (first, second) = (read_counts(workdir) for workdir in (undisturbed, pod))
    assert first + second == total > 50, "each text is tokenized by one process"
    assert abs(first - second) <= 2, "one text for each data set"

    stopped = start_run(model, pod, 2)
    output, _ = signal_member(stopped, pod, signal.SIGTERM, 12, member=1)
    assert stopped.returncode == 75, output
    assert "restored step" in output
    assert "64 targets cached, 0 to compute" in output
    assert "SIGTERM: saved at step" in output

    last = start_run(model, pod, 1)
    output = last.communicate()[0]
    assert last.returncode == 0, output
    assert "restored step" in output

    expected, resumed = read_steps(undisturbed), read_steps(pod)
    assert list(resumed) == list(expected) == list(range(1, 45)), "every step once"
    for step in range(1, 21):
        assert resumed[step]["loss"] == pytest.approx(expected[step]["loss"], rel=1e-5), step
    assert (pod / "report.html").exists()
    assert not list((pod / "stages" / "01-skd").glob("evaluation/.*")), "no incomplete files"


FAILING = """
import sys
import numpy as np
from jax.experimental import multihost_utils
from xlkd import cli
from xlkd.errors import UserError
from xlkd.runtime import distributed

distributed.FAREWELL = 2

def main(arguments):
    coordinator, process, failing = arguments
    with distributed.join_run({"coordinator": coordinator, "processes": "2", "process": process}):
        if process == failing:
            raise UserError("the disk is full", "here", "make space")
        multihost_utils.process_allgather(np.ones(2))

sys.exit(cli.run(main))
"""


@pytest.mark.parametrize("failing", ["0", "1"])
def test_an_error_of_one_process_ends_all_of_them_with_its_line(failing, tmp_path):
    (tmp_path / "failing.py").write_text(FAILING)
    coordinator = f"localhost:{find_free_port()}"
    member = [toy_models.ROOT / "launch" / "member.sh", sys.executable, tmp_path / "failing.py", coordinator]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(toy_models.ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [
        subprocess.Popen([*member, process, failing], env=environment, text=True, **pipes) for process in ("0", "1")
    ]
    for process in processes:
        assert process.communicate(timeout=100) == ("", "error: here: the disk is full; make space\n")
        assert process.returncode == 2


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (TimeoutError("Barrier failed: UNAVAILABLE: Task 1 heartbeat timeout. This indicates that"), True),
        (RuntimeError("[type.googleapis.com/tensorflow.CoordinationServiceError='']"), True),
        (ValueError("UNKNOWN: Gloo AllGather failed: Read error: Connection reset by peer"), True),
        (ValueError("the word gloo in a text of the user"), False),
        (ConnectionError("the bucket is unavailable: connection reset"), False),
        (UserError("the file heartbeat.json does not exist"), False),
    ],
)
def test_an_error_says_whether_another_process_has_ended(error, lost):
    assert distributed._is_connection_lost(error) == lost
