# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Records what a run writes, and builds the folders that a power failure could leave.

A power failure loses what was not flushed. The recorder therefore logs every creation, renaming, deletion and flush in
a folder, and the content of files between them, whichever library wrote them. A crash state is a prefix of that log in
which operations that were not flushed yet may be missing, and files that were not flushed may be empty, cut or full of
NULs. Two models decide what may be missing: in `journal` the names change in the order of the log, as in the journal of
ext4 and XFS; in `free` each folder loses its last changes independently, which is all that POSIX promises.

As a program it records one short run, damages it, starts it again in the same process, and prints one JSON line:

    python tests/crashes.py FOLDER power 100 2    100 power failures drawn from the seed 2
    python tests/crashes.py FOLDER files zeros    each file filled with zero bytes; also: emptied, deleted, garbage
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import os
import pathlib
import random
import re
import shutil
import sys
import threading
from collections.abc import Sequence

RUN = [
    "--config=configs/pretrain.py",
    "--config.encoder.new.hidden_size=16",
    "--config.encoder.new.layers=1",
    "--config.encoder.new.heads=2",
    "--config.encoder.new.vocabulary=300",
    "--config.encoder.new.texts=atlas?kind=same&languages=en,de&size=40",
    "--config.data.train=atlas?kind=mixed&languages=en,de&size=40&facts=3",
    "--config.data.eval=atlas?split=validation&kind=same&languages=en,de&size=10",
    "--config.data.retrieval=",
    "--config.data.batch=8",
    "--config.data.buckets=1",
    "--config.budget.steps=4",
    "--config.optim.warmup=2",
    "--config.save.every=2",
    "--config.eval.every=2",
    "--config.log.every=1",
]
MODELS = ("journal", "free")


@dataclasses.dataclass(frozen=True)
class Operation:
    """A change in the folder, or a flush, with paths relative to it."""

    kind: str  # write, rename, remove, mkdir, rmdir, flush
    path: str
    target: str = ""  # of a rename
    content: bytes = b""  # of a write: the whole file


class Recorder:
    """Logs the operations of this process in a folder while it is the current one."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.operations: list[Operation] = []
        self._folder, self._states, self._active, self._lock = os.path.realpath(folder), {}, True, threading.RLock()
        self._fsync = os.fsync
        os.fsync = self._flush
        sys.addaudithook(self._observe)

    def stop(self) -> list[Operation]:
        """Ends the recording and returns the log."""
        with self._lock:
            self._find_writes()
            self._active, os.fsync = False, self._fsync
        return self.operations

    def _observe(self, event: str, arguments: tuple) -> None:
        """Is called by Python before an operation; what was written before it is logged first."""
        if not self._active or event not in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            return
        folders = {"os.rename": arguments[2:], "os.mkdir": arguments[2:]}.get(event, arguments[1:])
        paths = [self._locate(arguments[0], folders[0])]
        if event == "os.rename":
            paths.append(self._locate(arguments[1], folders[1]))
        if all(path is None for path in paths):
            return
        with self._lock:
            self._find_writes()
            kind = event.removeprefix("os.")
            if not (kind == "mkdir" and os.path.exists(os.path.join(self._folder, paths[0]))):
                self.operations.append(Operation(kind, *paths))
            if kind == "rename":
                moved = [path for path in self._states if path == paths[0] or path.startswith(f"{paths[0]}/")]
                for path in moved:
                    self._states[paths[1] + path.removeprefix(paths[0])] = self._states.pop(path)
            elif kind == "remove":
                self._states.pop(paths[0], None)

    def _flush(self, descriptor: int) -> None:
        path = self._locate(os.readlink(f"/proc/self/fd/{descriptor}"), -1)
        with self._lock:
            if self._active and path is not None:
                self._find_writes()
                self.operations.append(Operation("flush", path))
        self._fsync(descriptor)

    def _locate(self, path, folder: int) -> str | None:
        """Returns a path relative to the folder; None outside of it."""
        parent = os.getcwd() if folder in (-1, None) else os.readlink(f"/proc/self/fd/{folder}")
        whole = os.path.join(parent, os.fsdecode(path))
        whole = os.path.join(os.path.realpath(os.path.dirname(whole)), os.path.basename(whole))
        relative = os.path.relpath(whole, self._folder)
        return None if relative.startswith("..") else relative

    def _find_writes(self) -> None:
        """Logs the files that were created or changed since the last call, and the folders that C++ created."""
        for root, folders, names in os.walk(self._folder):
            for name in sorted(folders):
                path = os.path.relpath(os.path.join(root, name), self._folder)
                if path not in self._states:
                    self._states[path] = "folder"
                    if not any(op.kind == "mkdir" and op.path == path for op in self.operations):
                        self.operations.append(Operation("mkdir", path))
            for name in sorted(names):
                whole = os.path.join(root, name)
                path = os.path.relpath(whole, self._folder)
                try:
                    state = os.stat(whole)
                    known = (state.st_ino, state.st_size, state.st_mtime_ns)
                    if self._states.get(path) != known:
                        content = pathlib.Path(whole).read_bytes()
                        self._states[path] = known
                        self.operations.append(Operation("write", path, content=content))
                except FileNotFoundError:  # just renamed by a thread of C++
                    continue


def build_state(log: list[Operation], end: int, model: str, draw: random.Random) -> dict[str, bytes | None]:
    """Returns files with their content, and folders as None, as a power failure after `end` operations could leave."""
    log = log[:end]
    actual: dict[str, str] = {"": "folder"}  # path -> identity of the file or folder, without a crash
    parents, subjects = [], []  # of each operation: the folder whose names it changes, and what it writes or flushes
    for number, operation in enumerate(log):
        path = "" if operation.path == "." else operation.path
        parents.append(actual.get(os.path.dirname(operation.target or path), ""))
        _change_names(actual, operation, number)
        subjects.append(actual.get(path, ""))
    flushed = {subject: number for number, subject in enumerate(subjects) if log[number].kind == "flush"}
    if model == "kill":  # everything that was written remains
        cuts = dict.fromkeys(parents, end)
    elif model == "journal":
        cut = draw.randint(max(flushed.values(), default=-1) + 1, len(log))
        cuts = dict.fromkeys(parents, cut)
    else:
        cuts = {folder: draw.randint(flushed.get(folder, -1) + 1, len(log)) for folder in sorted(set(parents))}
    names = {"": "folder"}
    contents: dict[str, tuple[bytes, list[bytes]]] = {}  # of each file: what was flushed, and what was written later
    for number, (operation, parent, subject) in enumerate(zip(log, parents, subjects, strict=True)):
        if operation.kind == "write":
            contents.setdefault(subject, (b"", []))[1].append(operation.content)
        elif operation.kind == "flush" and subject in contents and contents[subject][1]:
            contents[subject] = (contents[subject][1][-1], [])
        if number < cuts[parent]:
            _change_names(names, operation, number)
    if model == "kill":
        contents = {
            subject: (versions[-1] if versions else content, []) for subject, (content, versions) in contents.items()
        }
    return {
        path: _draw_content(*contents[subject], draw) if subject in contents else None
        for path, subject in names.items()
        if path
    }


def _change_names(names: dict[str, str], operation: Operation, number: int) -> None:
    """Applies a creation, renaming or deletion; one in a folder that is missing, or of a missing file, does nothing."""
    path, kind = operation.path, operation.kind
    if kind in ("write", "mkdir") and os.path.dirname(path) in names:
        names.setdefault(path, f"{kind} {number}")
    elif kind in ("remove", "rmdir"):
        names.pop(path, None)
    elif kind == "rename" and path in names and os.path.dirname(operation.target) in names:
        moved = {name: names.pop(name) for name in list(names) if name == path or name.startswith(f"{path}/")}
        names.update({operation.target + name.removeprefix(path): subject for name, subject in moved.items()})


def _draw_content(before: bytes, versions: list[bytes], draw: random.Random) -> bytes:
    """Draws the content of a file from the versions that were written after `before`, which was flushed."""
    if not versions:
        return before
    content = draw.choice(versions)
    if before and content.startswith(before):  # appended to: only the new part can be damaged
        rest = content[len(before) :]
        return before + draw.choice((rest, b"", b"\0" * len(rest), rest[: len(rest) // 2]))
    return draw.choice((content, b"", b"\0" * len(content), content[: len(content) // 2], before))


def write_state(state: dict[str, bytes | None], folder: pathlib.Path) -> None:
    """Writes a crash state to a folder."""
    folder.mkdir()
    for path, content in sorted(state.items()):
        if content is None:
            (folder / path).mkdir(parents=True, exist_ok=True)
    for path, content in state.items():
        if content is not None and (folder / path).parent.is_dir():
            (folder / path).write_bytes(content)


def read_results(folder: pathlib.Path) -> dict[str, str]:
    """Returns the hashes of what must be bit-identical: weights, scores, metrics and the sample of texts."""
    patterns = ("stages/*/export/*.safetensors", "stages/*/export/tokenizer.json", "stages/*/evaluation/*.json")
    patterns += ("stages/*/rows/*.jsonl", "stages/*/metrics.jsonl", "stages/*/inputs.json", "texts/*.jsonl")
    paths = sorted(path for pattern in patterns for path in folder.glob(pattern))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def main(folder: pathlib.Path, fault: str, *arguments: str) -> None:
    """Records a run in FOLDER, starts damaged copies of it again, and prints what went wrong."""
    log = record_run(folder / "run")
    operations = {"operations": len(log), "flushes": sum(operation.kind == "flush" for operation in log)}
    cases = draw_power_failures(log, *map(int, arguments)) if fault == "power" else damage_files(log, folder, arguments)
    print(json.dumps(operations | replay_cases(cases, folder)))


def record_run(folder: pathlib.Path) -> list[Operation]:
    """Returns the log of an undisturbed run."""
    from xlkd import main as command

    recorder = Recorder(folder)
    command.main([*RUN, f"--workdir={folder}"])
    return recorder.stop()


def draw_power_failures(log: list[Operation], count: int, seed: int):
    """Yields the name of a power failure, and the function that writes its state to a folder."""
    for number in range(count):
        draw, model = random.Random(f"{seed} {number}"), MODELS[number % 2]
        end = draw.randint(1, len(log))
        state = build_state(log, end, model, draw)
        yield f"{number}: {model} {end}", lambda folder, state=state: write_state(state, folder)


def damage_files(log: list[Operation], folder: pathlib.Path, kinds: Sequence[str]):
    """Yields these damages of each file, in the finished run and in the run after its last but one checkpoint."""
    saves = [number for number, operation in enumerate(log) if re.fullmatch(r".*/checkpoints/\d+", operation.target)]
    unfinished = build_state(log, saves[-2] + 1, "kill", random.Random(0))
    write_state(unfinished, folder / "unfinished")
    for original in (folder / "run", folder / "unfinished"):
        paths = sorted(path.relative_to(original) for path in original.rglob("*") if path.is_file())
        for path in paths:
            if path.name == ".lock" or "state" in path.parts:  # the arrays of checkpoints have tests of their own
                continue
            for kind in kinds:
                copy = functools.partial(copy_damaged, original, path, kind)
                yield f"{original.name}: {path} {kind}", copy


def copy_damaged(original: pathlib.Path, path: pathlib.Path, kind: str, folder: pathlib.Path) -> None:
    """Copies a run with one damaged file."""
    shutil.copytree(original, folder)
    content = (folder / path).read_bytes()
    if kind == "deleted":
        (folder / path).unlink()
    else:
        damaged = {
            "emptied": b"",
            "zeros": b"\0" * max(len(content), 1),
            "garbage": b"\xff[{" + content[: len(content) // 2],
        }
        (folder / path).write_bytes(damaged[kind])


def replay_cases(cases, folder: pathlib.Path) -> dict:
    """Starts the run again in each damaged folder, and compares its results with those of the undisturbed one.

    `lost` are lines of metrics, which no checkpoint can make again; the run announces that.
    """
    from xlkd import main as command

    expected = read_results(folder / "run")
    count, wrong, lost, replay = 0, [], [], folder / "replay"
    for name, write in cases:
        count += 1
        write(replay)
        output = io.StringIO()
        try:
            with contextlib.redirect_stdout(output):
                command.main([*RUN, f"--workdir={replay}"])
        except Exception as error:
            wrong.append(f"{name}: {type(error).__name__}: {error}")
        else:
            results = read_results(replay)
            differing = {path for path in expected.keys() | results.keys() if expected.get(path) != results.get(path)}
            announced = re.search("damaged|missing|lost|does not match", output.getvalue())
            if any(not path.endswith("metrics.jsonl") for path in differing) or not announced:
                wrong += [f"{name}: {path} differs" for path in differing]
            elif differing:
                lost.append(name)
        if wrong and wrong[-1].startswith(name) and os.environ.get("KEEP"):
            shutil.copytree(replay, folder / f"failed-{count}")
        shutil.rmtree(replay)
    return {"cases": count, "wrong": wrong, "lost": lost}


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), *sys.argv[2:])
