# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Faults injected into real runs of the embedded defaults, their ends compared to the bit: `python bench/faults.py`.

  --kills=100    seeded random kills over all systems; each is shown to have happened, and where
  --seed=0       of the kills
  --only=TEXT    faults with this in their name; kills are called "kills, SYSTEM"
  --scale=small  the embedded defaults with few rows and steps; default: as they are, an hour and more each
  --json=FILE    every kill and fault, beside the table

Takes an hour or two on two cores. Exit code 1 where a run did not end as it should have.
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

from disturbed import DAMAGED, POD, ROOT, SYSTEMS, Bench, Ended, Outcome, Run, say
from kills import Kill, kills, planned, struck

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
    count, seed = 0 if flags.get("kills") == "0" else cli.parse_count(flags, "kills", 100), flags.get("seed", "0")
    shares = [count // len(systems) + (i < count % len(systems)) for i in range(len(systems))]
    todo = [planned(share, random.Random(f"{seed} {of.name}")) for of, share in zip(systems, shares, strict=True)]
    while any(todo):
        for system, left in zip(systems, todo, strict=True):
            outcomes += kills(bench, system, left)
    for name, fault in FAULTS.items():
        if only in name:
            outcomes.append(fault(bench, name))
            say(outcomes[-1])
    table(outcomes)
    if out:
        out.write_json([dataclasses.asdict(outcome) for outcome in outcomes])
    failed = [outcome for outcome in outcomes if outcome.wrong]
    if failed:
        say(f"{len(failed)} of {len(outcomes)} failed; what they left: {folder}")
        return BUG
    shutil.rmtree(folder)
    return DONE


def table(outcomes: list[Outcome]) -> None:
    """Kills are counted by system and place, the other faults have a line each."""
    print("\n| | injected | happened | as promised, equal to the bit |\n|---|---|---|---|")
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.group or outcome.name, []).append(outcome)
    for name, group in groups.items():
        happened = sum(bool(outcome.injected) for outcome in group)
        held = sum(bool(outcome.injected and outcome.equal and not outcome.wrong) for outcome in group)
        print(f"| {name} | {len(group)} | {happened} | {held} |")


# Single faults; each on the system whose targets are cached

SYSTEM = SYSTEMS[1]


def full_disk(bench: Bench, name: str) -> Outcome:
    """Room for one checkpoint and a half; then there is more."""
    run = bench.run(SYSTEM, cache=True)
    return _full(bench, name, run, run.workdir, 16 << 20, 4 << 20, ("No space left", "File too large"))


def full_cache(bench: Bench, name: str) -> Outcome:
    run = bench.run(SYSTEM)
    return _full(bench, name, run, run.cache, 64 << 10, 4 << 10, ("XLKD_CACHE", "XLKD_CACHE|File too large"))


def _full(
    bench: Bench, name: str, run: Run, place: pathlib.Path, size: int, file: int, says: tuple[str, str]
) -> Outcome:
    """A small file system in the place of a folder; without the right to mount one, files of a limited size."""
    with mounted(place, "-o", f"size={size >> 10}k") as there:
        if there:
            fault = run.finish()
            free = os.statvfs(place).f_bfree * os.statvfs(place).f_bsize
            injected = f"a file system of {size >> 10} KiB, {free >> 10} KiB of it left"
            subprocess.run(["mount", "-o", "remount,size=1g", str(place)], check=True)
            return bench.judged(name, run, injected, fault, USER_INPUT, says[0], run.finish())
    fault = run.finish(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file, file)))
    injected = f"no right to mount: files of at most {file >> 10} KiB (ulimit -f)"
    return bench.judged(name, run, injected, fault, USER_INPUT, says[1], run.finish())


def read_only(bench: Bench, name: str) -> Outcome:
    """After a kill, so that there is something to go on with."""
    run = bench.run(SYSTEM, cache=True)
    struck(run, Kill("a step", signal.SIGKILL, 5, 0.0))
    with mounted(run.workdir, "-o", "bind,ro", what=run.workdir) as there:
        if there:
            fault = run.finish()
            injected = f"a mount that says {refused(run.workdir)!r}"
        else:
            run.workdir.chmod(0o555)
            fault, injected = run.finish(), f"modes that say {refused(run.workdir)!r}" if os.getuid() else ""
            run.workdir.chmod(0o755)
    return bench.judged(name, run, injected, fault, USER_INPUT, "cannot be written", run.finish())


def entry_damaged(kind: str, damage: Callable[[pathlib.Path], str]) -> Callable[[Bench, str], Outcome]:
    def inject(bench: Bench, name: str) -> Outcome:
        run = bench.run(SYSTEM, cache=True)
        injected = damage(largest(run.cache.glob(f"{kind}-*/*.npy")))
        fault = run.finish()
        return bench.judged(name, run, injected, fault, DONE, "is damaged .* and is rebuilt", fault)

    return inject


def checkpoint_damaged(damage: Callable[[pathlib.Path], str]) -> Callable[[Bench, str], Outcome]:
    def inject(bench: Bench, name: str) -> Outcome:
        run = bench.run(SYSTEM, cache=True)
        killed_after_two_saves(run, run.command())
        return gone_on_without(bench, name, run, damage)

    return inject


def killed_after_two_saves(run: Run, command: list[str]) -> None:
    """As soon as there are two checkpoints."""
    process = run.start(command)
    while process.poll() is None and len(run.checkpoints()) < 2:
        time.sleep(0.01)
    process.kill()
    run.ended(process)


def gone_on_without(bench: Bench, name: str, run: Run, damage: Callable[[pathlib.Path], str]) -> Outcome:
    """The last checkpoint."""
    before, last = run.checkpoints()[-2:]
    injected = damage(largest(last.rglob("d/*")))
    fault = run.finish()
    says = rf"of step {last.name} {DAMAGED} .* resuming from step {before.name}"
    return bench.judged(name, run, injected, fault, DONE, says, fault)


def cut(path: pathlib.Path) -> str:
    size = path.stat().st_size
    os.truncate(path, size // 2)
    return f"{path.parent.name}/{path.name} has {path.stat().st_size} of {size} bytes"


def flip(path: pathlib.Path) -> str:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return f"bit 0 of byte {len(data) // 2} of {path.parent.name}/{path.name}"


def largest(files: Iterator[pathlib.Path]) -> pathlib.Path:
    return max(files, key=lambda path: path.stat().st_size)


def second_run(bench: Bench, name: str) -> Outcome:
    run = bench.run(SYSTEM, cache=True)
    first = run.start()
    while first.poll() is None and not run.events():
        time.sleep(0.01)
    second = subprocess.run(run.command(), cwd=ROOT, env=run.environment(), capture_output=True, text=True, check=False)
    injected = f"a second process while process {first.pid} trains" if first.poll() is None else ""
    fault = Ended(second.returncode, second.stdout, second.stderr)
    return bench.judged(name, run, injected, fault, USER_INPUT, f"in use by process {first.pid}", run.ended(first))


def closed_pipe(bench: Bench, name: str) -> Outcome:
    run = bench.run(SYSTEM, cache=True)
    piped = ["bash", "-c", 'set -o pipefail; "$@" | head -n 1', "piped", *run.command()]
    fault = run.finish(piped)
    injected = f"its output to head -n 1: {len(fault.output.splitlines())} line"
    return bench.judged(name, run, injected, fault, DONE, " done$", fault)


NOBODY = """
import pwd
def nobody(number):
    raise KeyError(number)
pwd.getpwuid = nobody
"""


def no_home(home: str | None) -> Callable[[Bench, str], Outcome]:
    """Without the variable the system's own record is asked, in which a container's user need not stand."""

    def inject(bench: Bench, name: str) -> Outcome:
        run = bench.run(SYSTEM)
        run.cache.mkdir()
        nowhere = dict.fromkeys(("XLKD_CACHE", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"))
        fault = run.finish(run.command(NOBODY), nowhere | {"HOME": home, "TMPDIR": str(run.cache)})
        found = [str(path.relative_to(run.cache)) for path in run.cache.glob("*/xlkd")]
        injected = f"HOME={home}" if home else "HOME is not set, and nobody has this user's number"
        injected = f"{injected}: the cache went to $TMPDIR/{found[0]}" if found else ""
        return bench.judged(name, run, injected, fault, DONE, " done$", fault)

    return inject


CLOCK = """
import random, time
real, draw = time.time, random.Random(0)
time.time = lambda: real() + draw.choice((-86400.0, -1.0, 0.0, 3600.0, 3e7))
"""


def clock(bench: Bench, name: str) -> Outcome:
    """Also over a kill: what was written last is not what looks newest."""
    run = bench.run(SYSTEM, cache=True)
    killed_after_two_saves(run, run.command(CLOCK))
    fault = run.finish(run.command(CLOCK))
    times = [event["time"] for event in run.events()]
    jumps = sum(abs(b - a) > 1800 for a, b in itertools.pairwise(times))
    injected = f"{jumps} of {len(times)} events lie more than half an hour from the one before" if jumps else ""
    return bench.judged(name, run, injected, fault, DONE, " done$", fault)


NAN = """
import jax
from xlkd.train import loop
compile_, calls = loop._compile_steps, iter(range(10**9))
def poisoned(step):
    def run(state, *given):
        if next(calls) == 4:
            with jax.transfer_guard("allow"):
                params = jax.tree.map(lambda x: x * float("nan"), state.variables.params)
                state = state._replace(variables=state.variables._replace(params=params))
        return step(state, *given)
    return run
loop._compile_steps = lambda *given: {shape: poisoned(step) for shape, step in compile_(*given).items()}
"""


def not_finite(bench: Bench, name: str) -> Outcome:
    """Every parameter is NaN at step 4; the next start has sound memory."""
    run = bench.run(SYSTEM, cache=True)
    fault = run.finish(run.command(NAN))
    steps = [int(path.name) for path in run.checkpoints()]
    injected = f"parameters made NaN in memory at step 4; checkpoints of steps {steps} are there"
    return bench.judged(name, run, injected, fault, NOT_FINITE, "not finite at step 4", run.finish())


def one_of_two(member: int) -> Callable[[Bench, str], Outcome]:
    """Compared with two processes that nobody disturbed: another number of devices is equal up to rounding only."""

    def inject(bench: Bench, name: str) -> Outcome:
        run = bench.run(POD, cache=True)
        fault, died = pod_struck(run, member)
        injected = f"kill -9 of process {died}, which was --process={member}"
        says = rf"process {member} of 2 was killed \(signal 9\)"
        return bench.judged(name, run, injected, fault, STOPPED, says, run.finish())

    return inject


def checkpoint_damaged_for_two(bench: Bench, name: str) -> Outcome:
    run = bench.run(POD, cache=True)
    pod_struck(run, 1)
    return gone_on_without(bench, name, run, cut)


def pod_struck(run: Run, member: int) -> tuple[Ended, int]:
    """A process of two is killed as soon as there are two checkpoints; which it was."""
    process = run.start()
    while process.poll() is None and len(run.checkpoints()) < 2:
        time.sleep(0.01)
    died = process_of(run, member)
    os.kill(died, signal.SIGKILL)
    return run.ended(process), died


def process_of(run: Run, member: int) -> int:
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_text().split("\0")
            if "python" in words[0] and f"--workdir={run.workdir}" in words and f"--process={member}" in words:
                return int(folder.name)
    raise UserError(
        f"process {member} is no more", str(run.workdir), "start again: it ended before it was to be killed"
    )


@contextlib.contextmanager
def mounted(folder: pathlib.Path, *options: str, what: pathlib.Path | str = "tmpfs") -> Iterator[bool]:
    """Whether it could be mounted."""
    folder.mkdir(exist_ok=True)
    kind = ["-t", "tmpfs"] if what == "tmpfs" else []
    command = ["mount", *kind, *options, str(what), str(folder)]
    done = subprocess.run(command, capture_output=True, check=False).returncode == 0 if shutil.which("mount") else False
    try:
        yield done
    finally:
        if done:
            subprocess.run(["umount", str(folder)], check=True)


def refused(folder: pathlib.Path) -> str:
    try:
        (folder / "try").touch()
    except OSError as error:
        return error.strerror or ""
    return ""


FAULTS: dict[str, Callable[[Bench, str], Outcome]] = {
    "full disk": full_disk,
    "full cache": full_cache,
    "read-only work directory": read_only,
    "cached targets cut short": entry_damaged("targets", cut),
    "cached targets with a flipped bit": entry_damaged("targets", flip),
    "cached features cut short": entry_damaged("qa", cut),
    "cached features with a flipped bit": entry_damaged("qa", flip),
    "last checkpoint cut short": checkpoint_damaged(cut),
    "last checkpoint with a flipped bit": checkpoint_damaged(flip),
    "last checkpoint cut short, two processes": checkpoint_damaged_for_two,
    "second run in a work directory": second_run,
    "closed output pipe": closed_pipe,
    "no home": no_home(None),
    "home that is nowhere": no_home("/proc/nowhere"),
    "clock that jumps": clock,
    "NaN at a step": not_finite,
    "first of two processes dies": one_of_two(0),
    "second of two processes dies": one_of_two(1),
}


if __name__ == "__main__":
    sys.exit(cli.run(main))
