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
    flushed = {}  # the last flush of each path
    for number, operation in enumerate(log):
        if operation.kind == "flush":
            flushed[operation.path] = number
    cuts = _draw_cuts(log, flushed, model, draw)
    names: dict[str, int | None] = {}  # path -> number of the file, or None for a folder
    versions: dict[int, list[tuple[bytes, bool]]] = {}  # of each file: contents, and whether they were flushed
    actual: dict[str, int | None] = {}  # the names without a crash, which say which file a flush was for
    for number, operation in enumerate(log):
        remains = number < cuts(operation)
        if operation.kind == "write":
            file = actual.get(operation.path)
            if file is None:
                file = actual[operation.path] = number
                versions[file] = []
                if remains and os.path.dirname(operation.path) in ("", *names):
                    names[operation.path] = file
            versions[file].append((operation.content, False))
        elif operation.kind == "flush" and actual.get(operation.path) is not None:
            file = actual[operation.path]
            versions[file][-1] = (versions[file][-1][0], True)
        else:
            _change_names(actual, operation)
            if remains:
                _change_names(names, operation)
    return {path: None if file is None else _draw_content(versions[file], draw) for path, file in names.items()}


def _draw_cuts(log: list[Operation], flushed: dict[str, int], model: str, draw: random.Random):
    """Returns a function that gives the number of the first operation that is lost, for the folder of an operation."""
    if model == "journal":
        cut = draw.randint(max(flushed.values(), default=-1) + 1, len(log))
        return lambda operation: cut
    folders = sorted({os.path.dirname(operation.target or operation.path) for operation in log})
    by_folder = {folder: draw.randint(flushed.get(folder or ".", -1) + 1, len(log)) for folder in folders}

    def get_cut(operation: Operation) -> int:
        return by_folder[os.path.dirname(operation.target or operation.path)]

    return get_cut


def _change_names(names: dict[str, int | None], operation: Operation) -> None:
    """Applies a change of names; one whose file is missing changes nothing."""
    path = operation.path
    if operation.kind == "mkdir" and os.path.dirname(path) in ("", *names):
        names.setdefault(path, None)
    elif operation.kind in ("remove", "rmdir"):
        names.pop(path, None)
    elif operation.kind == "rename" and path in names and os.path.dirname(operation.target) in ("", *names):
        moved = {name: names.pop(name) for name in list(names) if name == path or name.startswith(f"{path}/")}
        names.update({operation.target + name.removeprefix(path): file for name, file in moved.items()})


def _draw_content(versions: list[tuple[bytes, bool]], draw: random.Random) -> bytes:
    """Draws the content of a file from its last flushed version on."""
    last = max((number for number, (_, is_flushed) in enumerate(versions) if is_flushed), default=-1)
    if last == len(versions) - 1:
        return versions[-1][0]
    content = draw.choice(versions[last + 1 :])[0]
    before = versions[last][0] if last >= 0 else b""
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
