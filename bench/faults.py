# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Faults in real runs of the defaults on the atlas, compared for bit-identical results: `python bench/faults.py`.

  --kills=100    number of seeded random kills over all systems; the place of each is recorded
  --seed=0       seed of the kills
  --only=TEXT    faults with this in their name; kills are named "kills, SYSTEM"
  --scale=small  the defaults with few rows and steps; --scale=default runs them in full, over an hour each
  --json=FILE    also writes every kill and fault

It takes an hour or two on two cores. The exit code is 1 if a run did not end as expected.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from disturbed import DAMAGED, POD, ROOT, SYSTEMS, Bench, Outcome, ProcessEnd, Run, print_line
from kills import Kill, plan_kills, run_kills, strike

from xlkd import cli
from xlkd.errors import BUG, DONE, NOT_FINITE, STOPPED, USER_INPUT, UserError


def main(arguments: list[str]) -> int:
    flags = cli.parse_flags(arguments, ("kills", "seed", "only", "scale", "json"))
    out, only, scale = cli.resolve_output(flags, "json"), flags.get("only", ""), flags.get("scale", "small")
    if scale not in ("small", "default"):
        raise UserError(f"--scale={scale} is not possible", "command line", "choose small or default")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    logging.getLogger("absl").setLevel(logging.ERROR)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="faults-"))
    bench, outcomes = Bench(folder, scale), []
    systems = [system for system in SYSTEMS if only in f"kills, {system.name}"]
    if not systems and not any(only in name for name in FAULTS):
        raise UserError(f"no fault is called {only!r}", "command line", f"known: kills, {', '.join(FAULTS)}")
    count = 0 if flags.get("kills") == "0" else cli.parse_count(flags, "kills", 100, 10_000)
    seed = flags.get("seed", "0")
    shares = [count // len(systems) + (i < count % len(systems)) for i in range(len(systems))]
    todo = [
        plan_kills(share, random.Random(f"{seed} {system.name}")) for system, share in zip(systems, shares, strict=True)
    ]
    while any(todo):
        for system, left in zip(systems, todo, strict=True):
            outcomes += run_kills(bench, system, left)
    for name, fault in FAULTS.items():
        if only in name:
            outcomes.append(fault(bench, name))
            print_line(outcomes[-1])
    print_table(outcomes)
    if out:
        out.write_json([dataclasses.asdict(outcome) for outcome in outcomes])
    failed = [outcome for outcome in outcomes if outcome.wrong]
    if failed:
        print_line(f"{len(failed)} of {len(outcomes)} failed; their files are in {folder}")
        return BUG
    shutil.rmtree(folder)
    return DONE


def print_table(outcomes: list[Outcome]) -> None:
    """Prints the table: kills are counted by system and place, other faults have a line each."""
    print("\n| | injected | happened | as promised and bit-identical |\n|---|---|---|---|")
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.group or outcome.name, []).append(outcome)
    for name, group in groups.items():
        happened = sum(bool(outcome.injected) for outcome in group)
        passed = sum(bool(outcome.injected and outcome.equal and not outcome.wrong) for outcome in group)
        print(f"| {name} | {len(group)} | {happened} | {passed} |")


# Single faults, each on the system with cached targets

SYSTEM = SYSTEMS[1]


def fill_disk(bench: Bench, name: str) -> Outcome:
    """Has room for one checkpoint and a half at first, and more room at the restart."""
    run = bench.run(SYSTEM, cache=True)
    return _fill(bench, name, run, run.workdir, 16 << 20, 4 << 20, ("No space left", "File too large"))


def fill_cache(bench: Bench, name: str) -> Outcome:
    run = bench.run(SYSTEM)
    return _fill(bench, name, run, run.cache, 64 << 10, 4 << 10, ("XLKD_CACHE", "XLKD_CACHE|File too large"))


def _fill(
    bench: Bench, name: str, run: Run, place: pathlib.Path, size: int, file: int, says: tuple[str, str]
) -> Outcome:
    """Mounts a small file system as a folder; without the right to mount, limits the size of files."""
    with mount(place, "-o", f"size={size >> 10}k") as is_mounted:
        if is_mounted:
            fault = run.finish()
            free = os.statvfs(place).f_bfree * os.statvfs(place).f_bsize
            injected = f"a file system of {size >> 10} KiB, {free >> 10} KiB of it left"
            subprocess.run(["mount", "-o", "remount,size=1g", str(place)], check=True)
            return bench.judge(name, run, injected, fault, USER_INPUT, says[0], run.finish())
    fault = run.finish(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file, file)))
    injected = f"no right to mount: files of at most {file >> 10} KiB (ulimit -f)"
    return bench.judge(name, run, injected, fault, USER_INPUT, says[1], run.finish())


def forbid_writing(bench: Bench, name: str) -> Outcome:
    """Makes the work directory read-only after a kill, so that there is a checkpoint to resume from."""
    run = bench.run(SYSTEM, cache=True)
    strike(run, Kill("a step", signal.SIGKILL, 5, 0.0))
    with mount(run.workdir, "-o", "bind,ro", what=run.workdir) as is_mounted:
        if is_mounted:
            fault = run.finish()
            injected = f"a mount that says {try_to_write(run.workdir)!r}"
        else:
            run.workdir.chmod(0o555)
            fault, injected = run.finish(), f"modes that say {try_to_write(run.workdir)!r}" if os.getuid() else ""
            run.workdir.chmod(0o755)
    return bench.judge(name, run, injected, fault, USER_INPUT, "cannot be written", run.finish())


def damage_entry(kind: str, damage: Callable[[pathlib.Path], str]) -> Callable[[Bench, str], Outcome]:
    def inject(bench: Bench, name: str) -> Outcome:
        run = bench.run(SYSTEM, cache=True)
        injected = damage(find_largest(run.cache.glob(f"{kind}-*/*.npy")))
        fault = run.finish()
        return bench.judge(name, run, injected, fault, DONE, "is damaged .* and is rebuilt", fault)

    return inject


def damage_checkpoint(damage: Callable[[pathlib.Path], str]) -> Callable[[Bench, str], Outcome]:
    def inject(bench: Bench, name: str) -> Outcome:
        run = bench.run(SYSTEM, cache=True)
        kill_after_two_saves(run, run.command())
        return resume_without(bench, name, run, damage)

    return inject


def kill_after_two_saves(run: Run, command: list[str]) -> None:
    """Kills a run as soon as it has two checkpoints."""
    process = run.start(command)
    while process.poll() is None and len(run.list_checkpoints()) < 2:
        time.sleep(0.01)
    process.kill()
    run.wait(process)


def resume_without(bench: Bench, name: str, run: Run, damage: Callable[[pathlib.Path], str]) -> Outcome:
    """Damages the last checkpoint, and resumes the run."""
    before, last = run.list_checkpoints()[-2:]
    injected = damage(find_largest(last.rglob("d/*")))
    fault = run.finish()
    says = rf"of step {last.name} {DAMAGED} .* resuming from step {before.name}"
    return bench.judge(name, run, injected, fault, DONE, says, fault)


def cut(path: pathlib.Path) -> str:
    size = path.stat().st_size
    os.truncate(path, size // 2)
    return f"{path.parent.name}/{path.name} has {path.stat().st_size} of {size} bytes"


def flip(path: pathlib.Path) -> str:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return f"bit 0 of byte {len(data) // 2} of {path.parent.name}/{path.name}"


def find_largest(files: Iterator[pathlib.Path]) -> pathlib.Path:
    return max(files, key=lambda path: path.stat().st_size)


def start_second_run(bench: Bench, name: str) -> Outcome:
    run = bench.run(SYSTEM, cache=True)
    first = run.start()
    while first.poll() is None and not run.read_events():
        time.sleep(0.01)
    second = subprocess.run(run.command(), cwd=ROOT, env=run.environment(), capture_output=True, text=True, check=False)
    injected = f"a second process while process {first.pid} trains" if first.poll() is None else ""
    fault = ProcessEnd(second.returncode, second.stdout, second.stderr)
    return bench.judge(name, run, injected, fault, USER_INPUT, f"in use by process {first.pid}", run.wait(first))


def close_pipe(bench: Bench, name: str) -> Outcome:
    run = bench.run(SYSTEM, cache=True)
    piped = ["bash", "-c", 'set -o pipefail; "$@" | head -n 1', "piped", *run.command()]
    fault = run.finish(piped)
    injected = f"its output to head -n 1: {len(fault.output.splitlines())} line"
    return bench.judge(name, run, injected, fault, DONE, " done$", fault)


NOBODY = """
import pwd
def nobody(number):
    raise KeyError(number)
pwd.getpwuid = nobody
"""


def remove_home(home: str | None) -> Callable[[Bench, str], Outcome]:
    """Removes HOME or sets it to a missing folder; without HOME the user database is read, which may lack the user."""

    def inject(bench: Bench, name: str) -> Outcome:
        run = bench.run(SYSTEM)
        run.cache.mkdir()
        nowhere = dict.fromkeys(("XLKD_CACHE", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"))
        fault = run.finish(run.command(NOBODY), nowhere | {"HOME": home, "TMPDIR": str(run.cache)})
        cache_folders = [str(path.relative_to(run.cache)) for path in run.cache.glob("*/xlkd")]
        injected = f"HOME={home}" if home else "HOME is not set, and nobody has this user's number"
        injected = f"{injected}: the cache went to $TMPDIR/{cache_folders[0]}" if cache_folders else ""
        return bench.judge(name, run, injected, fault, DONE, " done$", fault)

    return inject


CLOCK = """
import random, time
real, draw = time.time, random.Random(0)
time.time = lambda: real() + draw.choice((-86400.0, -1.0, 0.0, 3600.0, 3e7))
"""


def move_clock(bench: Bench, name: str) -> Outcome:
    """Lets the clock jump, also over a kill, so that the last written files do not look newest."""
    run = bench.run(SYSTEM, cache=True)
    kill_after_two_saves(run, run.command(CLOCK))
    fault = run.finish(run.command(CLOCK))
    times = [event["time"] for event in run.read_events()]
    jumps = sum(abs(b - a) > 1800 for a, b in itertools.pairwise(times))
    injected = f"{jumps} of {len(times)} events lie more than half an hour from the one before" if jumps else ""
    return bench.judge(name, run, injected, fault, DONE, " done$", fault)


NAN = """
import jax
from xlkd.train import loop
compile_, calls = loop._compile_steps, iter(range(10**9))
def poison(step):
    def run(state, *arguments):
        if next(calls) == 4:
            with jax.transfer_guard("allow"):
                params = jax.tree.map(lambda x: x * float("nan"), state.variables.params)
                state = state._replace(variables=state.variables._replace(params=params))
        return step(state, *arguments)
    return run
loop._compile_steps = lambda *arguments: {shape: poison(step) for shape, step in compile_(*arguments).items()}
"""


def poison_parameters(bench: Bench, name: str) -> Outcome:
    """Sets every parameter to NaN at step 4; the next start has no such fault."""
    run = bench.run(SYSTEM, cache=True)
    fault = run.finish(run.command(NAN))
    steps = [int(path.name) for path in run.list_checkpoints()]
    injected = f"parameters made NaN in memory at step 4; checkpoints of steps {steps} exist"
    return bench.judge(name, run, injected, fault, NOT_FINITE, "not finite at step 4", run.finish())


def kill_one_of_two(member: int) -> Callable[[Bench, str], Outcome]:
    """Kills one of two processes; compares with two undisturbed ones, as device counts differ in rounding."""

    def inject(bench: Bench, name: str) -> Outcome:
        run = bench.run(POD, cache=True)
        fault, died = kill_member(run, member)
        injected = f"kill -9 of process {died}, which was --process={member}"
        says = rf"process {member} of 2 was killed \(signal 9\)"
        return bench.judge(name, run, injected, fault, STOPPED, says, run.finish())

    return inject


def damage_checkpoint_of_two(bench: Bench, name: str) -> Outcome:
    run = bench.run(POD, cache=True)
    kill_member(run, 1)
    return resume_without(bench, name, run, cut)


def kill_member(run: Run, member: int) -> tuple[ProcessEnd, int]:
    """Kills one of two processes as soon as there are two checkpoints; returns the end of the run and its id."""
    process = run.start()
    while process.poll() is None and len(run.list_checkpoints()) < 2:
        time.sleep(0.01)
    killed = find_process(run, member)
    os.kill(killed, signal.SIGKILL)
    return run.wait(process), killed


def find_process(run: Run, member: int) -> int:
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_text().split("\0")
            if "python" in words[0] and f"--workdir={run.workdir}" in words and f"--process={member}" in words:
                return int(folder.name)
    raise UserError(f"process {member} ended before it could be killed", str(run.workdir), "start again")


@contextlib.contextmanager
def mount(folder: pathlib.Path, *options: str, what: pathlib.Path | str = "tmpfs") -> Iterator[bool]:
    """Mounts something as a folder; yields whether that was possible."""
    folder.mkdir(exist_ok=True)
    kind = ["-t", "tmpfs"] if what == "tmpfs" else []
    command = ["mount", *kind, *options, str(what), str(folder)]
    done = subprocess.run(command, capture_output=True, check=False).returncode == 0 if shutil.which("mount") else False
    try:
        yield done
    finally:
        if done:
            subprocess.run(["umount", str(folder)], check=True)


def try_to_write(folder: pathlib.Path) -> str:
    try:
        (folder / "try").touch()
    except OSError as error:
        return error.strerror or ""
    return ""


FAULTS: dict[str, Callable[[Bench, str], Outcome]] = {
    "full disk": fill_disk,
    "full cache": fill_cache,
    "read-only work directory": forbid_writing,
    "cached targets cut short": damage_entry("targets", cut),
    "cached targets with a flipped bit": damage_entry("targets", flip),
    "cached features cut short": damage_entry("qa", cut),
    "cached features with a flipped bit": damage_entry("qa", flip),
    "last checkpoint cut short": damage_checkpoint(cut),
    "last checkpoint with a flipped bit": damage_checkpoint(flip),
    "last checkpoint cut short, two processes": damage_checkpoint_of_two,
    "second run in a work directory": start_second_run,
    "closed output pipe": close_pipe,
    "no home": remove_home(None),
    "home that is nowhere": remove_home("/proc/nowhere"),
    "clock that jumps": move_clock,
    "NaN at a step": poison_parameters,
    "first of two processes dies": kill_one_of_two(0),
    "second of two processes dies": kill_one_of_two(1),
}


if __name__ == "__main__":
    sys.exit(cli.run(main))
