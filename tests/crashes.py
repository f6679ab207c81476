# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Records what a run writes, and builds the folders that a power failure could leave: `python tests/crashes.py FOLDER`.

A power failure loses what was not flushed. The recorder therefore logs every creation, renaming, deletion and flush in
a folder, and the content of files between them, whichever library wrote them. A crash state is a prefix of that log in
which operations that were not flushed yet may be missing, and files that were not flushed may be empty, cut or full of
NULs. Two models decide what may be missing: in `journal` the names change in the order of the log, as in the journal of
ext4 and XFS; in `free` each folder loses its last changes independently, which is all that POSIX promises.

As a program it records one short run, replays states drawn from a seed in the same process, and prints one JSON line.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import random
import shutil
import sys
import threading

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
    "--config.budget.steps=6",
    "--config.optim.warmup=2",
    "--config.save.every=2",
    "--config.eval.every=3",
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
    if model == "journal":
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


def main(folder: pathlib.Path, states: int, seed: int) -> None:
    """Records a run in FOLDER, replays states, and prints what went wrong."""
    from xlkd import main as command
    from xlkd.errors import UserError

    recorder = Recorder(folder / "run")
    command.main([*RUN, f"--workdir={folder / 'run'}"])
    log = recorder.stop()
    expected = read_results(folder / "run")
    wrong, lost = [], 0
    for number in range(states):
        draw, replay = random.Random(f"{seed} {number}"), folder / "replay"
        end, model = draw.randint(1, len(log)), MODELS[number % 2]
        write_state(build_state(log, end, model, draw), replay)
        lost += any(
            read_results(replay)[name] != digest for name, digest in expected.items() if (replay / name).exists()
        )
        try:
            command.main([*RUN, f"--workdir={replay}"])
        except (UserError, Exception) as error:
            wrong.append([number, model, end, f"{type(error).__name__}: {error}"])
        else:
            results = read_results(replay)
            names = expected.keys() | results.keys()
            differing = sorted(name for name in names if expected.get(name) != results.get(name))
            wrong += [[number, model, end, f"{name} differs"] for name in differing]
        if wrong and wrong[-1][0] == number and os.environ.get("KEEP"):
            shutil.copytree(replay, folder / f"failed-{number}")
        shutil.rmtree(replay)
    print(json.dumps({"operations": len(log), "flushes": sum(op.kind == "flush" for op in log), "wrong": wrong}))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
