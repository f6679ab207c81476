# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Launch scripts run for real: their loops, processes and signals, with stubs for clouds, schedulers and training."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
import test_launch

LAUNCH = pathlib.Path(__file__).parents[1] / "launch"
PATIENCE = 120  # seconds until a test gives up; no test needs that long

# The stubs record their actions in $STUBS/events, in order, and anything that must never happen in $STUBS/faults.
TRAINING = """
workdir=${*: -1}
workdir=${workdir#--workdir=}
workdir=${workdir/#gs:\\/\\//$STUBS/} # a place in Cloud Storage is a folder
mkdir -p "$workdir"
step=$(cat "$workdir/step" 2>/dev/null || echo 0)
mkdir "$STUBS/training" 2>/dev/null || echo "two trainings at a time" >>"$STUBS/faults"
ended() { echo "$1" >>"$STUBS/events"; rmdir "$STUBS/training"; }
trap 'sleep 0.3; echo $((step + 100)) >"$workdir/step"; ended saved; exit 75' TERM
echo "training from $step" >>"$STUBS/events"
turn=$(grep -c training "$STUBS/events")
how=$(sed -n "${turn}p" "$STUBS/plan")
case $how in
  wait) while :; do sleep 0.05; done ;;
  kill) ended killed; kill -KILL $$ ;;
  *) echo $((step + 100)) >"$workdir/step"; ended "code $how"; exit "$how" ;;
esac
"""
PYTHON = """
case "$*" in
  "-c import sys; sys.exit(sys.version_info"*) exit "${OLD:-0}" ;;
  "-c import ensurepip") [ -z "${BARE:-}" ] || [ -e "$STUBS/python3-venv" ]; exit ;;
  "-m venv "*)
    place=${*: -1}
    mkdir -p "$place/bin"
    cp "$STUBS/bin/python3" "$place/bin/python"
    echo "venv ${place##*/}" >>"$STUBS/events"
    ;;
  "-m pip install "*)
    fails pip && exit 1
    case $* in *" uv") cp "$STUBS/uv" "${0%/*}/uv" ;; esac
    place=${*: -1}
    case $* in *--editable*) place="editable ${place##*/}" ;; esac
    echo "pip $place" >>"$STUBS/events"
    ;;
  "-m xlkd.main "*) exec bash "$STUBS/train" "$@" ;;
  *) exec "$REAL_PYTHON" "$@" ;;
esac
"""
UV = """
echo "uv $*" >>"$STUBS/events"
mkdir -p "${*: -1}/bin"
cp "$STUBS/bin/python3" "${*: -1}/bin/python"
"""
GCLOUD = """
words=() # a place in Cloud Storage is a folder
for word in "$@"; do case $word in --*) ;; *) words+=("${word/#gs:\\/\\//$STUBS/}") ;; esac; done
case "$1 $2" in
  "storage cp")
    fails cp && exit 1
    mkdir -p "${words[3]%/*}"
    cp "${words[2]}" "${words[3]}"
    ;;
  "storage cat") cat "${words[2]}" ;;
  "storage rm") rm "${words[2]}" ;;
  "storage rsync")
    mkdir -p "${words[3]}"
    cp -R "${words[2]}/." "${words[3]}/"
    ;;
  *)
    echo "gcloud $*" >>"$STUBS/events"
    for word in "$@"; do
      case $word in --metadata-from-file=startup-script=*) cp "${word##*=}" "$STUBS/start.sh" ;; esac
    done
    case $* in
      *" delete "*)
        fails delete && exit 1
        rm -f "$STUBS/state"
        ;;
      *"queued-resources create"*)
        fails create && exit 1
        echo WAITING_FOR_RESOURCES >"$STUBS/state"
        ;;
      *"templates describe"*) [ -n "${TEMPLATE:-}" ] ;;
      *" describe "*) cat "$STUBS/state" ;;
      *list-instances*) printf '%s\\n' $MACHINES ;;
    esac
    ;;
esac
"""
# With Restart=on-failure, systemd does not start a service again that was told to stop, or that SIGTERM killed.
SYSTEMD_RUN = """
echo "systemd-run $*" >>"$STUBS/events"
[ ! -e "$STUBS/service" ] || ! kill -0 "$(cat "$STUBS/service")" 2>/dev/null || { echo "already loaded"; exit 1; }
while :; do
  case $1 in
    --setenv=*) export "${1#--setenv=}" ;;
    --property=RestartPreventExitStatus=*) final=${1##*=} ;;
    --property=RestartSec=*) pause=${1##*=} ;;
    --property=ExecStopPost=*) after=${1#*=*=} ;;
    --*) ;;
    *) break ;;
  esac
  shift
done
rm -f "$STUBS/code" "$STUBS/stopping"
while :; do
  bash -c 'echo $$ >"$STUBS/service"; exec "$@"' bash "$@"
  code=$?
  EXIT_STATUS=$([ $code -gt 128 ] && kill -l $code || echo $code) $after
  case " 0 143 $final " in *" $code "*) break ;; esac
  [ ! -e "$STUBS/stopping" ] || break
  sleep "$pause"
done && echo $code >"$STUBS/draft" && mv "$STUBS/draft" "$STUBS/code" &
"""
NVIDIA_SMI = """
case $* in *driver_version*) echo "$DRIVER" ;; *) echo 0 ;; esac
"""


class Machine:
    """A folder with stubs that come first on the path, and everything that the scripts write."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()
        for name in ("events", "faults"):
            (folder / name).touch()
        (folder / "train").write_text(TRAINING)
        self.stub("python3", PYTHON)
        self.stub("gcloud", GCLOUD)
        self.stub("systemd-run", SYSTEMD_RUN)
        self.stub("nvidia-smi", NVIDIA_SMI)
        self.stub(
            "apt-get", 'fails apt-get && exit 1; touch "$STUBS/${*: -1}"; echo "apt-get ${*: -1}" >>"$STUBS/events"'
        )
        shutil.copy(self.stub("uv", UV), folder / "uv")
        self.environment = os.environ | {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "STUBS": str(folder),
            "REAL_PYTHON": sys.executable,
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "XLKD_TOP": str(folder / "top"),
            "XLKD_LOG": str(folder / "log"),
            "XLKD_CACHE": str(folder / "cache"),
            "XLKD_PAUSE": "0",
            "DRIVER": "580.65.06",
        }
        for name in ("home", "tmp"):
            (folder / name).mkdir()

    def stub(self, name: str, text: str) -> pathlib.Path:
        """Adds a program; in it, `fails NAME` is true as often as `fail` said."""
        fails = 'fails() { local n; n=$(cat "$STUBS/fail-$1" 2>/dev/null) && [ "$n" -gt 0 ] && echo $((n - 1)) >"$STUBS/fail-$1"; }'
        program = self.bin / name
        program.write_text(f"#!/usr/bin/env bash\n{fails}\n{text}")
        program.chmod(0o755)
        return program

    def fail(self, name: str, times: int) -> None:
        (self.folder / f"fail-{name}").write_text(str(times))

    def plan(self, *ends: str) -> None:
        """Plans how each training ends: with an exit code, by a kill, or on a signal (wait)."""
        (self.folder / "plan").write_text("\n".join(ends) + "\n")

    def run(self, *command, **environment) -> subprocess.CompletedProcess:
        return subprocess.run(
            command,
            env=self.environment | environment,
            cwd=LAUNCH.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def start(self, *command, **environment) -> subprocess.Popen:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=self.environment | environment, cwd=LAUNCH.parent, text=True, **pipes)

    @property
    def events(self) -> list[str]:
        return (self.folder / "events").read_text().splitlines()

    def trained(self) -> list[str]:
        """Returns the events of training."""
        return [event for event in self.events if event.startswith(("training", "saved", "killed", "code"))]

    def check(self) -> None:
        """Checks that there was no fault, that no process is running and no temporary file is left."""
        assert (self.folder / "faults").read_text() == ""
        wait_until(lambda: not self.running(), "all processes have ended")
        assert not list((self.folder / "tmp").iterdir())

    def running(self) -> list[str]:
        mark, commands = f"STUBS={self.folder}\0".encode(), []
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (process / "environ").read_bytes():
                    commands.append((process / "cmdline").read_text().replace("\0", " "))
        return commands

    def end(self) -> None:
        """Kills all processes of a failed test."""
        while self.running():
            for process in pathlib.Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    if f"STUBS={self.folder}\0".encode() in (process / "environ").read_bytes():
                        os.kill(int(process.name), signal.SIGKILL)


def wait_until(condition, what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, f"not within {PATIENCE} s: {what}"
        time.sleep(0.02)


@pytest.fixture
def machine(tmp_path):
    machine = Machine(tmp_path)
    yield machine
    machine.end()


# An environment that fits the machine


def copy_checkout(machine: Machine) -> pathlib.Path:
    checkout = machine.folder / "checkout"
    shutil.copytree(LAUNCH, checkout / "launch")
    return checkout


def test_an_environment_is_created_in_the_checkout(machine):
    checkout = copy_checkout(machine)
    done = machine.run(checkout / "launch" / "install.sh", "tpu")
    assert done.returncode == 0, done.stderr
    assert machine.events == ["venv .venv", "pip editable checkout[tpu]"]
    assert (checkout / ".venv" / "bin" / "python").exists()


@pytest.mark.parametrize(
    ("extra", "environment", "says"),
    [
        ((), {}, "no extra"),
        (("cuda",), {"DRIVER": "470.9"}, "NVIDIA's driver 470.9 is too old"),
        (("cuda",), {"DRIVER": "No devices were found"}, "nvidia-smi names no driver"),
        (("tpu",), {"BARE": "1"}, "python3 cannot make environments; sudo apt-get install python3-venv"),
    ],
)
def test_an_environment_is_not_created_without_what_it_needs(machine, extra, environment, says):
    done = machine.run(copy_checkout(machine) / "launch" / "install.sh", *extra, **environment)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert machine.events == []


# Machines of Google Cloud

TPU = ("--name=mine", "--zone=us-east5-b", "--type=v6e-8", "--bucket=gs://bucket/xlkd")
GCE = ("--name=mine", "--zone=us-central1-a", "--bucket=gs://bucket/xlkd")
MAIN = ("--", "python", "-m", "xlkd.main", "--config=configs/gxlt.py", "--config.data.train=atlas?size=2&seed=1 'x'")


class Host:
    """A machine of Google Cloud: its start-up script, and the service that this starts."""

    def __init__(self, machine: Machine, script: str = "tpu_vm", flags: tuple[str, ...] = TPU) -> None:
        self.machine, self.bucket = machine, machine.folder / "bucket" / "xlkd" / "mine"
        # git would archive the last commit, but the working tree is to be tested.
        machine.stub("git", f'tar -czf "$6" -C {LAUNCH.parent} launch')
        done = machine.run(LAUNCH / f"{script}.sh", *flags, *MAIN)
        assert done.returncode == 0, done.stderr

    def boot(self, **environment) -> None:
        done = self.machine.run("bash", self.machine.folder / "start.sh", **environment)
        assert done.returncode == 0, self.log

    @property
    def main_process(self) -> int:
        """Returns the process that systemd would send SIGTERM to."""
        return int((self.machine.folder / "service").read_text())

    def terminate(self) -> None:
        (self.machine.folder / "stopping").touch()
        os.kill(self.main_process, signal.SIGTERM)

    def wait(self) -> int:
        wait_until((self.machine.folder / "code").exists, "the service has ended")
        return int((self.machine.folder / "code").read_text())

    def read_end(self) -> str:
        """Returns the exit code that the machine left in the bucket."""
        file = self.bucket / "ended"
        return file.read_text().strip() if file.exists() else ""

    @property
    def log(self) -> str:
        return (self.machine.folder / "log").read_text()

    def count(self, event: str) -> int:
        return sum(each.startswith(event) for each in self.machine.events)

    def replace(self) -> None:
        """Replaces the machine by a new one."""
        shutil.rmtree(self.machine.folder / "top")


def test_a_preempted_host_saves_and_another_resumes(machine):
    machine.plan("wait", "0")
    host = Host(machine)
    host.boot()
    wait_until(lambda: host.count("training"), "it trains")
    assert "-m xlkd.main" in pathlib.Path(f"/proc/{host.main_process}/cmdline").read_text().replace("\0", " ")
    host.terminate()
    assert host.wait() == 75, host.log
    assert host.read_end() == "", "the run goes on"
    machine.check()

    host.replace()
    host.boot()
    assert host.wait() == 0, host.log
    assert machine.trained() == ["training from 0", "saved", "training from 100", "code 0"]
    assert host.read_end() == "0"
    assert "start" in (host.bucket / "ended.log").read_text()
    machine.check()


def test_a_host_starts_the_training_again_until_it_is_done(machine):
    machine.plan("75", "kill", "0")
    host = Host(machine)
    host.boot()
    assert host.wait() == 0, host.log
    assert [event for event in machine.trained() if "training" not in event] == ["code 75", "killed", "code 0"]
    assert host.count("training from 100") == 2
    assert host.log.count("ended with") == 3
    assert "ended with KILL" in host.log
    machine.check()


@pytest.mark.parametrize("code", ["1", "2", "3"])
def test_a_host_does_not_restart_after_an_error_that_would_repeat(machine, code):
    machine.plan(code)
    host = Host(machine)
    machine.fail("cp", 3)  # of the machine
    host.boot()
    assert host.wait() == int(code)
    assert machine.trained() == ["training from 0", f"code {code}"]
    assert host.read_end() == code
    machine.check()


def test_a_second_start_up_script_starts_nothing(machine):
    machine.plan("wait")
    host = Host(machine)
    host.boot()
    wait_until(lambda: host.count("training"), "it trains")
    second = machine.run("bash", machine.folder / "start.sh")
    assert second.returncode == 1
    host.terminate()
    assert host.wait() == 75
    assert host.count("training") == 1
    machine.check()


def test_the_service_is_stopped_first_and_has_time_to_save(machine):
    machine.plan("0")
    host = Host(machine)
    host.boot()
    assert host.wait() == 0, host.log
    command = next(event for event in machine.events if event.startswith("systemd-run"))
    for words in ("KillMode=mixed", "TimeoutStopSec=300", "network-online.target remote-fs.target", "LimitCORE=0"):
        assert words in command
    for words in ("Restart=on-failure", "RestartPreventExitStatus=1 2 3"):
        assert words in command


def test_arguments_arrive_unchanged_on_the_host(machine):
    machine.plan("0")
    (machine.folder / "train").write_text('printf "%s\\n" "$@" "$XLKD_CACHE" >"$STUBS/words"')
    del machine.environment["XLKD_CACHE"]
    host = Host(machine)
    host.boot()
    assert host.wait() == 0, host.log
    words = (machine.folder / "words").read_text().splitlines()
    assert words == [*MAIN[2:], "--workdir=gs://bucket/xlkd/mine/runs/mine", "gs://bucket/xlkd/mine/cache"]


def test_the_setup_of_a_host_is_retried_after_faults(machine):
    machine.plan("0")
    host = Host(machine)
    machine.fail("apt-get", 1)
    machine.fail("pip", 5)
    host.boot(BARE="1")
    assert host.wait() == 1
    assert "stopped: the code cannot be installed; a restart of this machine tries again" in host.log
    assert not host.count("training")
    host.boot()
    assert host.wait() == 0, host.log
    assert host.count("apt-get python3-venv") == 1
    machine.plan("0", "0")
    host.boot()
    assert host.wait() == 0
    assert host.count("pip editable code[tpu,gcs]") == 1, "a machine is set up once"


def test_a_host_with_an_old_python_installs_a_newer_one(machine):
    machine.plan("0")
    host = Host(machine)
    host.boot(OLD="1")
    assert host.wait() == 0, host.log
    events = [event for event in machine.events if event.startswith(("venv", "pip", "uv"))]
    venv = machine.folder / "top" / "venv"
    machine.check()
    assert events == [
        "venv uv",
        "pip uv",
        f"uv venv -q --clear --seed --python=3.12 {venv}",
        "pip editable code[tpu,gcs]",
    ]


@pytest.mark.parametrize(
    ("driver", "installed"), [("580.65.06", "code[cuda,gcs]"), ("570.133.20", "code[cuda12,gcs]"), ("470.9", None)]
)
def test_a_host_installs_the_cuda_version_that_its_driver_supports(machine, driver, installed):
    machine.plan("0")
    host = Host(machine, "gce", GCE)
    host.boot(DRIVER=driver)
    assert host.wait() == (0 if installed else 1), host.log
    assert host.count(f"pip editable {installed}") == bool(installed)
    assert ("driver 470.9 is too old: CUDA 12 needs 525, CUDA 13 needs 580" in host.log) == (not installed)
    machine.check()


def test_machines_of_a_group_wait_for_each_other_and_get_their_numbers(machine):
    machine.plan("0")
    machine.stub("hostname", "echo mine-b")
    (machine.folder / "train").write_text('printf "%s\\n" "$@" >"$STUBS/words"')
    host = Host(machine, "gce", (*GCE, "--hosts=2"))
    (machine.folder / "machines").write_text("mine-b\n")
    machine.stub("gcloud", GCLOUD.replace("$MACHINES", '$(cat "$STUBS/machines")'))
    host.boot()
    wait_until(lambda: "waiting: the group mine has 1 of 2 machines" in host.log, "it waits")
    (machine.folder / "machines").write_text("mine-b\nmine-a\n")
    assert host.wait() == 0, host.log
    words = (machine.folder / "words").read_text().splitlines()
    assert words[-3:] == ["--coordinator=mine-a:8476", "--processes=2", "--process=1"]


@pytest.mark.parametrize(
    ("state", "does"),
    [
        ("", ["describe", "create"]),
        ("ACTIVE", ["describe"]),
        ("WAITING_FOR_RESOURCES", ["describe"]),
        ("SUSPENDED", ["describe", "delete", "create"]),
        ("FAILED", ["describe", "delete", "create"]),
    ],
)
def test_a_tpu_is_requested_unless_it_exists(machine, state, does):
    Host(machine)
    (machine.folder / "state").write_text(state)
    done = machine.run(LAUNCH / "tpu_vm.sh", *TPU, "--spot", *MAIN)
    assert done.returncode == 0, done.stderr
    calls = [event.split() for event in machine.events if event.startswith("gcloud compute")][2:]
    assert [call[4] for call in calls] == does
    if "create" in does:
        assert "--spot" in calls[-1]
        assert "--runtime-version=v2-alpha-tpuv6e" in calls[-1]
    machine.check()


def test_a_tpu_that_is_being_suspended_is_not_requested_again(machine):
    (machine.folder / "state").write_text("SUSPENDING")
    done = machine.run(LAUNCH / "tpu_vm.sh", *TPU, *MAIN)
    assert done.returncode == 75
    assert done.stderr == "stopped: the TPU mine is SUSPENDING; start this script again in a minute, or with --keep\n"


def test_a_tpu_that_cannot_be_deleted_is_not_requested_again(machine):
    machine.fail("delete", 1)
    (machine.folder / "state").write_text("FAILED")
    done = machine.run(LAUNCH / "tpu_vm.sh", *TPU, *MAIN)
    assert done.returncode == 1
    assert not [event for event in machine.events if " create " in event]


@pytest.fixture
def keeper(machine):
    """Returns a function that starts tpu_vm.sh with --keep, and one that waits for the state of the TPU."""
    machine.stub("git", f'tar -czf "$6" -C {LAUNCH.parent} launch')
    states = machine.folder / "state"

    def start():
        return machine.start(LAUNCH / "tpu_vm.sh", *TPU, "--spot", "--keep", *MAIN, XLKD_PAUSE="0.02")

    def wait_for(state):
        wait_until(lambda: (states.read_text().strip() if states.exists() else "") == state, f"the TPU is {state}")

    return start, wait_for


def count_calls(machine, verb: str) -> int:
    return sum(event.startswith(f"gcloud compute tpus queued-resources {verb} ") for event in machine.events)


def test_a_spot_tpu_that_is_gone_is_requested_again_until_the_run_has_ended(machine, keeper):
    """The TPU is taken away twice; then the run of its machines ends."""
    start, wait_for = keeper
    (machine.folder / "state").write_text("SUSPENDING\n")  # of an earlier start
    running = start()
    wait_until(lambda: count_calls(machine, "describe") > 2, "it watches")
    assert not count_calls(machine, "delete")
    machine.fail("delete", 1)
    machine.fail("create", 1)
    for lost in ("SUSPENDED\n", "FAILED\n"):
        (machine.folder / "state").write_text(lost)
        wait_for("WAITING_FOR_RESOURCES")
        (machine.folder / "state").write_text("ACTIVE\n")
        before = count_calls(machine, "describe")
        wait_until(lambda before=before: count_calls(machine, "describe") > before + 2, "it watches")
    requests = count_calls(machine, "create")
    machine.plan("0")
    host = Host.__new__(Host)
    host.machine, host.bucket = machine, machine.folder / "bucket" / "xlkd" / "mine"
    host.boot()
    output, errors = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0, errors
    assert "the run has ended with exit code 0" in output
    assert requests == count_calls(machine, "create") == 3, "twice, and once in vain"
    assert not (machine.folder / "state").exists(), "it was deleted"
    assert host.wait() == 0
    machine.check()


def test_a_kept_run_ends_with_the_exit_code_of_its_training_and_a_corrected_one_starts(machine, keeper):
    start, wait_for = keeper
    marker = machine.folder / "bucket" / "xlkd" / "mine" / "ended"
    running = start()
    wait_for("WAITING_FOR_RESOURCES")
    marker.write_text("2\n")
    running.communicate(timeout=PATIENCE)
    assert running.returncode == 2
    wait_for("")

    again = start()  # by another computer, after the machines of a second attempt had ended
    (machine.folder / "state").write_text("ACTIVE\n")
    wait_until(lambda: not marker.exists(), "the former end is forgotten")
    again.terminate()
    again.communicate(timeout=PATIENCE)

    marker.write_text("0\n")
    done = machine.run(LAUNCH / "tpu_vm.sh", *TPU, "--keep", *MAIN)
    assert done.returncode == 0
    assert "the run mine is done: gs://bucket/xlkd/mine/runs/mine" in done.stdout
    wait_for("")
    machine.check()


def test_a_group_is_created_unless_it_exists(machine):
    Host(machine, "gce", GCE)
    verbs = [" ".join(event.split()[2:5]) for event in machine.events if event.startswith("gcloud compute")]
    assert verbs == [
        "instance-groups managed describe",
        "instance-templates describe mine",
        "instance-templates create mine",
        "instance-groups managed create",
    ]
    assert "--image-family=common-cu129-ubuntu-2404-nvidia-580" in " ".join(machine.events)
    (machine.folder / "events").write_text("")
    (machine.folder / "state").write_text("mine")
    assert "the group mine exists" in machine.run(LAUNCH / "gce.sh", *GCE, *MAIN).stdout
    assert not [event for event in machine.events if " create " in event]
    (machine.folder / "state").unlink()
    assert machine.run(LAUNCH / "gce.sh", *GCE, *MAIN, TEMPLATE="mine").returncode == 0
    assert [event.split()[3] for event in machine.events if "templates" in event] == ["describe", "delete", "create"]


# Slurm


def submit_slurm_job(machine, *flags) -> pathlib.Path:
    """Returns the job that slurm.sh submits, with stubs for the programs that it calls."""
    machine.stub("sbatch", 'cat >"$STUBS/job"')
    machine.stub("srun", 'echo "srun $1" >>"$STUBS/events"; echo $$ >"$STUBS/step"; shift; exec "$@"')
    # Slurm ends a job that is requeued.
    machine.stub("scontrol", 'fails scontrol && exit 1; echo "$*" >>"$STUBS/events"; kill $PPID')
    flags = (*flags, f"--python={machine.bin / 'python3'}")
    main = ("--config=configs/gxlt.py", f"--workdir={machine.folder / 'work'}")
    done = machine.run(LAUNCH / "slurm.sh", *flags, "--", *main)
    assert done.returncode == 0, done.stderr
    return machine.folder / "job"


def test_a_slurm_job_that_is_signalled_saves_and_is_requeued_once(machine):
    machine.plan("wait", "0")
    job = submit_slurm_job(machine)
    running = machine.start("bash", job, SLURM_JOB_ID="7")
    wait_until(lambda: "training from 0" in machine.events, "it trains")
    # Slurm signals the steps of a job (--signal=TERM@120, scancel --signal=TERM), not its script
    os.kill(int((machine.folder / "step").read_text()), signal.SIGTERM)
    running.communicate(timeout=PATIENCE)
    done = machine.run("bash", job, SLURM_JOB_ID="7", SLURM_RESTART_COUNT="1")
    assert done.returncode == 0
    first_events = ["srun --kill-on-bad-exit=0", "training from 0", "saved", "requeue 7"]
    assert machine.events == [*first_events, "srun --kill-on-bad-exit=0", "training from 100", "code 0"]
    machine.check()


@pytest.mark.parametrize(
    ("how", "restarts", "requeued"),
    [("0", 0, False), ("2", 0, False), ("3", 0, False), ("75", 0, True), ("kill", 0, True), ("75", 3, False)],
)
def test_a_slurm_job_is_requeued_only_after_interruptions(machine, how, restarts, requeued):
    machine.plan(how)
    done = machine.run(
        "bash", submit_slurm_job(machine, "--restarts=3"), SLURM_JOB_ID="7", SLURM_RESTART_COUNT=str(restarts)
    )
    assert machine.events.count("requeue 7") == requeued
    if not requeued:
        assert done.returncode == int(how)
    machine.check()


# SkyPilot


def test_a_sky_job_works_in_the_bucket_and_passes_its_exit_code_on(machine):
    yaml = pytest.importorskip("yaml")
    job = machine.folder / "sky.sh"  # as SkyPilot writes it
    job.write_text(yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())["run"])
    venv = machine.folder / "home" / "venv" / "bin"
    venv.mkdir(parents=True)
    shutil.copy(machine.bin / "python3", venv / "python")
    machine.plan("wait", "0")
    (machine.folder / "main").write_text('printf "%s\\n" "$@" "$XLKD_CACHE" >"$STUBS/words"\n' + TRAINING)
    (machine.folder / "train").write_text('. "$STUBS/main"')
    del machine.environment["XLKD_CACHE"]
    source = "--config.data.train=atlas?size=2&seed=1"
    environment = {"RUN": "mine", "BUCKET": "gs://bucket", "MAIN": f"--config=configs/gxlt.py '{source}'"}
    running = machine.start("bash", job, **environment)
    wait_until(lambda: "training from 0" in machine.events, "it trains")
    running.terminate()
    running.communicate(timeout=PATIENCE)
    assert running.returncode == 75
    words = (machine.folder / "words").read_text().splitlines()
    assert words[2:] == ["--config=configs/gxlt.py", source, "--workdir=gs://bucket/runs/mine", "gs://bucket/cache"]
    assert machine.run("bash", job, **environment).returncode == 0
    assert machine.events == ["training from 0", "saved", "training from 100", "code 0"]
    machine.check()


# Kubernetes


def test_an_evicted_pod_of_a_job_set_saves_and_exits_to_be_restarted(machine):
    yaml = pytest.importorskip("yaml")
    machine.plan("wait")
    machine.stub("kubectl", 'case $1 in get) exit "${NO_JOBSET:-0}" ;; apply) cat >"$STUBS/jobset" ;; esac')
    command = (LAUNCH / "gke.sh", *test_launch.GOOD["gke"], *MAIN)
    refused = machine.run(*command, NO_JOBSET="1")
    assert refused.returncode == 2
    assert "JobSet is not installed" in refused.stderr
    assert machine.run(*command).returncode == 0

    job = yaml.safe_load((machine.folder / "jobset").read_text())
    pod = job["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= 60
    words = [word.replace("$(JOB_COMPLETION_INDEX)", "1") for word in pod["containers"][0]["command"]]
    assert words[-1] == "--process=1"
    words[-1] = f"--workdir={machine.folder / 'work'}"  # the stub of training expects it last
    container = machine.start(*words)
    wait_until(lambda: "training from 0" in machine.events, "it trains")
    container.terminate()  # Kubernetes sends SIGTERM first
    container.communicate(timeout=PATIENCE)
    assert container.returncode == 75
    assert machine.events == ["training from 0", "saved"]
    machine.check()


# One machine with GPUs


@pytest.mark.parametrize(
    ("driver", "cuda", "says"),
    [
        ("570.133.20", "13", "NVIDIA's driver 570.133.20 is too old for CUDA 13, which needs 580"),
        ("470.9", "12", "NVIDIA's driver 470.9 is too old for CUDA 12, which needs 525"),
        ("580.65.06", "", "has no CUDA for JAX"),
        ("No devices were found", "13", "nvidia-smi names no driver"),
    ],
)
def test_a_driver_too_old_for_cuda_is_refused(machine, driver, cuda, says):
    machine.stub("python", f"echo {cuda}")
    done = machine.run(LAUNCH / "gpu.sh", "--", "python", "-m", "xlkd.main", "--config=configs/gxlt.py", DRIVER=driver)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_with_a_supported_driver_training_runs_on_the_named_gpus(machine):
    machine.stub(
        "python", 'case $2 in *metadata*) echo 12 ;; *) echo "$CUDA_VISIBLE_DEVICES $*" >>"$STUBS/events" ;; esac'
    )
    command = ("--gpus=0", "--", "python", "-m", "xlkd.main", "--config=configs/gxlt.py")
    assert machine.run(LAUNCH / "gpu.sh", *command, DRIVER="535.1").returncode == 0
    assert machine.events == ['0 -c import jax; jax.devices("gpu")', "0 -m xlkd.main --config=configs/gxlt.py"]


# One process, and a pod on this machine


def test_output_is_complete_although_another_process_keeps_it_open(machine):
    script = "sleep 60 & for i in $(seq 2000); do echo $i; done; printf end; echo $! >$STUBS/sleeper; exit 3"
    done = machine.run(LAUNCH / "member.sh", "bash", "-c", script.replace("sleep 60 &", "sleep 60 2>&1 &"))
    os.kill(int((machine.folder / "sleeper").read_text()), signal.SIGKILL)
    assert done.returncode == 3
    assert done.stdout == "".join(f"{i}\n" for i in range(1, 2001)) + "end"
    machine.check()


def test_each_signal_is_forwarded_once_and_input_is_passed_on(machine):
    script = "trap 'echo told' TERM; echo ready; while read -r line || [ $? -gt 128 ]; do echo $line; done; exit 4"
    member = machine.start(LAUNCH / "member.sh", "bash", "-c", script)
    assert member.stdout.readline() == "ready\n"
    for _ in range(2):
        member.terminate()
        while (line := member.stdout.readline()) == "\n":  # read, interrupted
            pass
        assert line == "told\n"
    output, _ = member.communicate("words\n", timeout=PATIENCE)
    assert output.split() == ["words"]
    assert member.returncode == 4
    machine.check()


def test_the_shell_prints_nothing_when_a_process_aborts(machine):
    trace = "F1121 16:34:17.1 1 client.h:80] the JAX distributed service detected fatal errors"
    for _ in range(5):
        done = machine.run(LAUNCH / "member.sh", "bash", "-c", f"echo '{trace}' >&2; kill -ABRT $$")
        says = "stopped: another process of this run ended; the same command resumes from its last save\n"
        assert (done.returncode, done.stdout, done.stderr) == (75, "", says)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process whose parent was killed")
@pytest.mark.parametrize("script", ["member.sh", "local_pod.sh"])
def test_a_killed_launcher_leaves_no_training_running(machine, script):
    machine.plan("wait", "wait")
    (machine.folder / "train").write_text('echo up >>"$STUBS/events"; trap "" TERM; while :; do sleep 0.05; done')
    flags = ("--processes=2", "--") if script == "local_pod.sh" else ()
    command = (machine.bin / "python3", "-m", "xlkd.main", "--config=configs/gxlt.py")
    launcher = machine.start(LAUNCH / script, *flags, *command)
    wait_until(lambda: len(machine.events) == (2 if flags else 1), "all train")
    launcher.kill()
    launcher.communicate(timeout=PATIENCE)
    machine.check()


@pytest.fixture
def pod(machine):
    """Returns a function that starts a pod of two processes running a script, with $process as their number."""

    def start(script, **environment):
        (machine.folder / "train").write_text(f"process=${{*: -1}}; process=${{process#*=}}; export process; {script}")
        command = ("--processes=2", "--", machine.bin / "python3", "-m", "xlkd.main", "--config=configs/gxlt.py")
        return machine.start(LAUNCH / "local_pod.sh", *command, **environment)

    return start


@pytest.mark.parametrize(
    ("codes", "code"), [("0 0", 0), ("75 75", 75), ("75 2", 2), ("3 75", 3), ("0 75", 75), ("0 134", 75), ("75 1", 1)]
)
def test_the_exit_code_of_a_pod_follows_from_its_processes(machine, pod, codes, code):
    running = pod(f'codes=({codes}); echo "$process says" >&2; exit "${{codes[process]}}"')
    _, error = running.communicate(timeout=PATIENCE)
    assert running.returncode == code
    failed = codes.split()[1] != "0"
    assert ("process 1: 1 says" in error) == failed, "errors of other processes are shown if they fail"
    assert "0 says" in error
    machine.check()


def test_all_processes_of_a_pod_are_signalled_once_and_share_one_port(machine, pod):
    running = pod(
        "trap 'echo told $process >>$STUBS/events; exit 75' TERM; echo $4 >>$STUBS/ports;"
        "echo up >>$STUBS/events; while :; do sleep 0.05; done"
    )
    wait_until(lambda: len(machine.events) == 2, "both run")
    running.terminate()
    running.communicate(timeout=PATIENCE)
    assert running.returncode == 75
    assert sorted(machine.events) == ["told 0", "told 1", "up", "up"]
    ports = (machine.folder / "ports").read_text().split()
    assert len(ports) == 2
    assert len(set(ports)) == 1
    machine.check()


def test_a_process_of_a_pod_that_is_killed_is_named(machine, pod):
    running = pod('if [ $process = 1 ]; then kill -KILL $$; fi; echo "noticed"; exit 75')
    output, error = running.communicate(timeout=PATIENCE)
    assert (running.returncode, output) == (75, "noticed\n")
    assert error == "stopped: process 1 of 2 was killed (signal 9)\n"


def test_processes_that_do_not_end_after_a_failure_are_killed(machine):
    code = """
import member, sys
commands = [["bash", "-c", "exit 75"], ["bash", "-c", "trap '' TERM; while :; do sleep 0.05; done"]]
members = [member.Member(command, print, print) for command in commands]
member.wait_for_members(members, seconds_to_follow=1)
print([each.code for each in members])
"""
    done = machine.run(sys.executable, "-c", code, PYTHONPATH=str(LAUNCH))
    assert done.stdout == "[75, 137]\n", done.stderr
    machine.check()


def test_python_need_not_be_on_the_path(machine, tmp_path):
    """Debian and Ubuntu have only python3, not python."""
    machine.plan("0", "0")
    needed = ("bash", "env", "dirname", "basename", "sed", "mkdir", "cat", "grep", "rmdir", "sleep", "mktemp", "rm")
    for name in needed:
        (machine.bin / name).symlink_to(shutil.which(name))
    command = (LAUNCH / "local_pod.sh", "--processes=1", "--", "python", "-m", "xlkd.main", "--config=configs/gxlt.py")
    work = f"--workdir={tmp_path / 'work'}"
    done = machine.run(*command, work, PATH=str(machine.bin), PYTHON="python3")
    assert done.returncode == 0, done.stderr
    copy = tmp_path / "checkout"
    shutil.copytree(LAUNCH, copy / "launch")
    shown = machine.run(copy / "launch" / "gpu.sh", "--dry_run", *command[2:], PATH=str(machine.bin), PYTHON="")
    assert shown.stdout == "exec python3 -m xlkd.main --config=configs/gxlt.py\n"
    (copy / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(machine.bin / "python3", copy / ".venv" / "bin" / "python")
    shown = machine.run(copy / "launch" / "gpu.sh", "--dry_run", *command[2:], PATH=str(machine.bin), PYTHON="")
    assert shown.stdout == f"exec {copy}/.venv/bin/python -m xlkd.main --config=configs/gxlt.py\n"
