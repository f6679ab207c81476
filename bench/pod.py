# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Random kills of pods whose work directory is in a bucket, compared for bit-identical results: `python bench/pod.py`.

  --kills=50       number of seeded random kills, half of them of two processes and half of four
  --seed=0         seed of the kills
  --faults=all     or none: also failures of the bucket, and two runs in one work directory
  --json=FILE      also writes every kill and fault

The processes have no folder in common: each has a home of its own, and the bucket is a server on loopback. The run is
compared with one that nothing disturbs, in a local folder, with the same number of processes. The exit code is 1 if a
run did not end as expected.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable

from disturbed import ROOT, Outcome, ProcessEnd, collect_results, print_line

from xlkd import cli, files, storage
from xlkd.errors import BUG, DONE, STOPPED, USER_INPUT

sys.path.insert(0, str(ROOT / "tests"))
import bucket

LONG = 600  # seconds after which a process counts as hanging
IN_A_ROW = 6  # kills of one run before it may finish
ELSEWHERE = "localhost"  # another name for this machine; connections between processes need one that has an address
DEVICES = 4  # of all processes together
FLAGS = (
    "--config=configs/gxlt.py",
    "--config.stages=english,skd",
    "--config.report.compare=skd:english",
    "--config.method.generations=fixed",  # so that targets are cached
    "--config.english.data.train=atlas?split=train&languages=en&size=12",
    "--config.english.data.eval=atlas?split=validation&languages=en,es&size=6",
    "--config.data.train=atlas?split=train&size=8&languages=en,de&facts=2",
    "--config.data.eval=atlas?split=test&size=4&languages=en,de&facts=2&pairs=all",
    "--config.data.batch=6",
    "--config.data.buckets=1",
    "--config.task.max_length=96",
    "--config.encoder.layers_as=scanned",
    "--config.budget.epochs=2",
    "--config.save.every=3",
    "--config.log.every=1",
)
PLACES = {  # of an upload: its part of an object's name
    "an upload of a checkpoint": "%2Fcheckpoints%2F",
    "an upload of the run's files": "%2Fevaluation%2F",
    "an upload of a model": "%2Fexport%2F",
    "an upload of the cache": "cache%2F",
}


def main(arguments: list[str]) -> int:
    flags = cli.parse_flags(arguments, ("kills", "seed", "faults", "json"))
    out, seed = cli.resolve_output(flags, "json"), flags.get("seed", "0")
    count = 0 if flags.get("kills") == "0" else cli.parse_count(flags, "kills", 50, 10_000)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    folder, outcomes = pathlib.Path(tempfile.mkdtemp(prefix="pod-")), []
    with bucket.serve_bucket(folder / "objects") as proxy, bucket.use_bucket(proxy):
        has_faults = flags.get("faults", "all") == "all"
        for processes, share in ((2, -(-count // 2)), (4, count // 2)):
            if not share and (processes > 2 or not has_faults):
                continue
            bench = Bench(folder, proxy, processes, random.Random(f"{seed} {processes}"))
            while share:
                outcomes += bench.run_kills(min(share, IN_A_ROW))
                share -= min(share, IN_A_ROW)
                write_outcomes(outcomes, out)
            if has_faults and processes == 2:
                outcomes += [fault(bench) for fault in FAULTS]
    wrong = [outcome for outcome in outcomes if outcome.wrong or not outcome.equal]
    print_line(f"{len(outcomes)} kills and faults, {len(outcomes) - len(wrong)} as promised")
    write_outcomes(outcomes, out)
    if wrong:
        return BUG
    shutil.rmtree(folder)
    return DONE


def write_outcomes(outcomes: list[Outcome], out: files.OutputFile | None) -> None:
    """Writes the outcomes so far, if the user named a file."""
    if out:
        out.write_json([dataclasses.asdict(outcome) for outcome in outcomes])


class Pod:
    """Processes with homes of their own that form one run in a work directory."""

    def __init__(self, folder: pathlib.Path, workdir: str, processes: int) -> None:
        self.folder, self.workdir, self.processes = folder, workdir, processes
        self.members: list[subprocess.Popen] = []

    def start(self, hostname: str = "") -> None:
        """Starts all processes; on another machine, as far as they can tell, where a host name is given."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        place = [f"--coordinator=127.0.0.1:{port}", f"--processes={self.processes}"] if self.processes > 1 else []
        self.members = []
        for number in range(self.processes):
            home = self.folder / f"host-{number}"
            home.mkdir(parents=True, exist_ok=True)
            inherited = {name: text for name, text in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
            environment = inherited | {
                "HOME": str(home),
                "XDG_CACHE_HOME": str(home / "cache"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05",
                "JAX_NUM_CPU_DEVICES": str(DEVICES // self.processes),
                "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",  # compiling would take most of the time
                "OMP_NUM_THREADS": "1",
            }
            if storage.is_remote(self.workdir):
                environment["XLKD_CACHE"] = f"{self.workdir}-cache"
            member = [f"--process={number}"] if self.processes > 1 else []
            main = [sys.executable, "-m", "xlkd.main", *FLAGS, f"--workdir={self.workdir}"]
            command = ["launch/member.sh", *main, *place, *member]
            if hostname:
                command = ["unshare", "--uts", "bash", "-c", f'hostname {hostname} && exec "$@"', "_", *command]
            with (home / "stdout").open("w") as out, (home / "stderr").open("w") as errors:
                process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=errors)
            self.members.append(process)

    def send_signal(self, victim: int, number: signal.Signals) -> bool:
        """Signals a process of the run, not its launcher; returns whether it was alive."""
        process = launcher = self.members[victim].pid
        try:
            while children := pathlib.Path(f"/proc/{process}/task/{process}/children").read_text().split():
                process = int(children[0])
        except FileNotFoundError:
            return False
        if process == launcher:
            return False
        os.kill(process, number)
        return True

    def wait(self) -> list[ProcessEnd]:
        """Waits for all processes; one that hangs is killed."""
        until, ends = time.monotonic() + LONG, []
        for number, process in enumerate(self.members):
            try:
                code = process.wait(max(until - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait() * 1000  # no code that anything expects
            home = self.folder / f"host-{number}"
            ends.append(ProcessEnd(code, (home / "stdout").read_text(), (home / "stderr").read_text()))
        return ends

    def finish(self, hostname: str = "") -> list[ProcessEnd]:
        """Runs to the end."""
        self.start(hostname)
        return self.wait()

    def collect(self) -> dict[str, str]:
        """Returns the results of the run by name, as `collect_results` does."""
        local = pathlib.Path(self.workdir)
        if storage.is_remote(self.workdir):
            local = self.folder / "downloaded"
            shutil.rmtree(local, ignore_errors=True)
            remote = storage.RemoteFolder(self.workdir)
            for name in remote.list_objects():
                remote.download(name, local / name)
        return collect_results(_Results(local))


@dataclasses.dataclass(frozen=True)
class _Results:
    """What `collect_results` reads of a run."""

    workdir: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Kill:
    """A kill: its signal, its victims, and when: after seconds, or at an upload whose object has a name like this."""

    signal: signal.Signals
    victims: tuple[int, ...]
    after: float
    place: str
    elsewhere: bool  # whether the run is started again on another machine

    def __str__(self) -> str:
        victims = "all processes" if len(self.victims) > 1 else f"process {self.victims[0]}"
        when = f"{self.place or 'start'} + {self.after:.1f} s"
        return f"{self.signal.name} of {victims} at {when}{', resumed on another machine' if self.elsewhere else ''}"


class Bench:
    """Kills and disturbs pods of one size."""

    def __init__(self, folder: pathlib.Path, proxy: bucket.Proxy, processes: int, draw: random.Random) -> None:
        self.folder, self.proxy, self.processes, self._draw = folder / f"{processes}", proxy, processes, draw
        self._count = 0
        for name in ("cold", "run"):  # the second one finds its programs compiled, as those that are killed do
            undisturbed = Pod(self.folder / "undisturbed", str(self.folder / "undisturbed" / name), processes)
            undisturbed.folder.mkdir(parents=True, exist_ok=True)
            began = time.monotonic()
            ends = undisturbed.finish()
            assert all(end.code == DONE for end in ends), ends
        self.seconds, self.expected = time.monotonic() - began, undisturbed.collect()
        print_line(f"{processes} processes, undisturbed: {self.seconds:.0f} s, {len(self.expected)} values")

    def make_pod(self) -> Pod:
        """Returns a pod with a new work directory in the bucket; its compiled programs are those of the undisturbed."""
        self._count += 1
        folder = self.folder / f"{self._count}"
        for number in range(self.processes):
            compiled = f"host-{number}/cache/xlkd/compiled"
            shutil.copytree(self.folder / "undisturbed" / compiled, folder / compiled)
        return Pod(folder, f"gs://{bucket.BUCKET}/{self.processes}/{self._count}", self.processes)

    def draw_kill(self) -> Kill:
        """Draws a kill: −9 or TERM, of one process or all, at any time or during an upload."""
        victims = self._draw.choice([(0,), (self.processes - 1,), tuple(range(self.processes))])
        place = self._draw.choice(["", "", *PLACES])
        after = self._draw.uniform(0, self.seconds) if not place else self._draw.uniform(0, 0.3)
        number = self._draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        return Kill(number, victims, after, place, self._draw.random() < 0.1)

    def run_kills(self, count: int) -> list[Outcome]:
        """Kills a run this many times or until it ends, lets it finish, and compares its results."""
        pod, outcomes, elsewhere, ended = self.make_pod(), [], "", False
        while len(outcomes) < count:
            if ended:  # the kill came too late
                pod, ended = self.make_pod(), False
            kill = self.draw_kill()
            pod.start(elsewhere)
            happened = self.strike(pod, kill)
            ends = pod.wait()
            ended = all(end.code == DONE for end in ends)
            elsewhere = ELSEWHERE if kill.elsewhere else elsewhere
            if happened and not ended:
                wrong = judge_ends(ends, kill)
                if wrong:
                    errors = pod.folder / f"errors-{len(outcomes)}"
                    errors.write_text("\n".join(f"{end.errors}\n{end.output[-5000:]}" for end in ends))
                codes = ", ".join(str(end.code) for end in ends)
                message = next((end.message for end in ends if end.message), "")
                outcomes.append(Outcome(str(kill), codes, ends[0].code, message, True, wrong))
                print_line(f"  {kill}: exit {codes} {message[:150]} {wrong}")
        ends = pod.finish(elsewhere)
        equal = all(end.code == DONE for end in ends) and pod.collect() == self.expected
        print_line(f"resumed after {len(outcomes)} kills: {'bit-identical' if equal else 'NOT EQUAL'}")
        fault = "" if equal else f"another end: {', '.join(f'{end.code} {end.message}' for end in ends)}"
        if equal and not any(outcome.wrong for outcome in outcomes):
            shutil.rmtree(pod.folder)
        return [dataclasses.replace(each, equal=equal, wrong=each.wrong or fault) for each in outcomes]

    def strike(self, pod: Pod, kill: Kill) -> bool:
        """Kills processes when it is time; returns whether all of the victims were alive."""
        reached = threading.Event()
        if kill.place:
            pattern = PLACES[kill.place]

            def notice_upload(method: str, path: str) -> None:
                if method in ("POST", "PUT") and pattern in path.replace("/", "%2F"):
                    reached.set()

            self.proxy.fault = notice_upload
            until = time.monotonic() + LONG
            while not reached.wait(0.01) and time.monotonic() < until:
                if all(process.poll() is not None for process in pod.members):
                    break
            self.proxy.fault = None
        time.sleep(kill.after)
        return all([pod.send_signal(victim, kill.signal) for victim in kill.victims])


def judge_ends(ends: list[ProcessEnd], kill: Kill) -> str:
    """Returns what is wrong with the ends of processes of which some were killed; "" if nothing is."""
    wrong = []
    for number, end in enumerate(ends):
        killed = number in kill.victims
        possible = {STOPPED, DONE} | ({128 + kill.signal} if killed else set())
        if end.code not in possible:
            wrong.append(f"process {number}: exit {end.code} {end.message}")
        if "Traceback" in end.errors and end.code != 128 + signal.SIGKILL:
            wrong.append(f"process {number}: a traceback")
    return "; ".join(wrong)


def fail_for_ten_seconds(bench: Bench) -> Outcome:
    """Answers all requests with 503 for ten seconds, twice."""
    pod = bench.make_pod()
    pod.start()
    for _ in range(2):
        time.sleep(bench.seconds / 3)
        bench.proxy.fail_for(10)
        time.sleep(10)
    ends = pod.wait()
    bench.proxy.fault = None
    return _compare(bench, pod, "503 for ten seconds, twice", ends, DONE, "")


def refuse_access(bench: Bench) -> Outcome:
    """Answers all requests with 403 in the middle of a run, which ends, and resumes it later."""
    pod = bench.make_pod()
    pod.start()
    time.sleep(bench.seconds * 0.7)
    bench.proxy.fail_for(LONG, 403)
    ends = pod.wait()
    bench.proxy.fault = None
    return _compare(bench, pod, "access refused in the middle", ends, USER_INPUT, "access refused", pod.finish())


def start_second_run(bench: Bench) -> Outcome:
    """Starts a second run in the work directory of one that is alive, from another machine."""
    pod = bench.make_pod()
    second = Pod(pod.folder / "second", pod.workdir, bench.processes)
    pod.start()
    time.sleep(bench.seconds / 3)
    ends = second.finish(ELSEWHERE)
    return _compare(bench, pod, "a second run in one work directory", ends, USER_INPUT, "in use by", pod.wait())


FAULTS: tuple[Callable[[Bench], Outcome], ...] = (fail_for_ten_seconds, refuse_access, start_second_run)


def _compare(
    bench: Bench,
    pod: Pod,
    name: str,
    ends: list[ProcessEnd],
    code: int,
    says: str,
    last: list[ProcessEnd] | None = None,
) -> Outcome:
    """Returns the outcome of a fault: how the processes reported it, and whether the results are unchanged."""
    wrong = [f"exit {end.code}: {end.message}" for end in ends if end.code != code or says not in end.errors]
    wrong += ["a traceback" for end in ends if "Traceback" in end.errors]
    equal = all(end.code == DONE for end in last or ends) and pod.collect() == bench.expected
    outcome = Outcome(name, "", ends[0].code, ends[0].message, equal, ", ".join(wrong))
    print_line(outcome)
    return outcome


if __name__ == "__main__":
    sys.exit(cli.run(main))
