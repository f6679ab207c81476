# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sends the values of a stage to the trackers that `config.log.to` names, such as TensorBoard.

A tracker is one module of this folder with `open_tracker(place) -> Tracker`. If it needs a package, `PACKAGE` names
that package, which is also the name of the extra that installs it. A tracker gets each step once, over all restarts. It
is called in a thread of its own, so that nothing it waits for delays the training; a module that writes local files
only can set `LOCAL = True` and is called directly. A tracker that raises an error or does not answer gets nothing more:
the log says so once, and the run continues.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import json
import pathlib
import pkgutil
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, Protocol, TextIO

from xlkd.errors import UserError
from xlkd.files import open_to_append

SENT = "sent.jsonl"  # in the folder of a tracker: its id, and the steps that were sent
PATIENCE = 60.0  # seconds that a call may take
MOST_WAITING = 1000  # calls

Task = Callable[[], None]


class Tracker(Protocol):
    """Receives values by name, such as `train/loss` and `eval/xquad/de/f1`; steps of one name never go back."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Takes the values at a step; other values at the same step may follow, and values can be NaN."""

    def close(self) -> None:
        """Sends what is left."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Names the stage of a run that a tracker belongs to."""

    folder: pathlib.Path  # of the tracker's own files
    run: str  # name of the work directory
    stage: str
    settings: Mapping[str, Any]  # of the stage, in the form of config.json
    id: str = ""  # the same after each restart, and different in each work directory


def check_names(names: Iterable[str]) -> None:
    """Refuses a tracker that does not exist or whose package is not installed."""
    known = sorted(module.name for module in pkgutil.iter_modules(__path__))
    for name in names:
        if name not in known:
            raise UserError(f"no tracker {name!r}", "config.log.to", f"known: {', '.join(known)}")
        package = getattr(_load_module(name), "PACKAGE", "")
        if package and not importlib.util.find_spec(package):
            what = f"the tracker {name} needs the package {package}, which is not installed"
            raise UserError(what, "config.log.to", f"pip install 'xlkd[{package}]'")


class Trackers:
    """Sends values to several trackers; `check` is called before each write, as in `Log`."""

    def __init__(
        self,
        names: Iterable[str],
        stage: pathlib.Path,
        place: Place,
        log: Callable[[str], object],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        check()
        self._log, self._check = log, check
        self._senders = {
            name: _Sender(_load_module(name), dataclasses.replace(place, folder=stage / name)) for name in names
        }

    def send(self, group: str, step: int, values: Mapping[str, float]) -> None:
        """Sends the values of a group at a step to each tracker that has not had them."""
        self._check()
        for sender in self._senders.values():
            sender.send(group, step, values)
        self._report_faults()

    def close(self) -> None:
        """Closes the trackers; one that does not answer is left behind."""
        for sender in self._senders.values():
            sender.close()
        self._report_faults()

    def _report_faults(self) -> None:
        for name, sender in list(self._senders.items()):
            if fault := sender.find_fault():
                self._log(f"warning: the tracker {name} gets nothing more, the run continues: {fault}")
                del self._senders[name]


class _Sender:
    """Calls one tracker, in a thread unless it is local, and records what it sent before it sends it.

    A process that is killed in between has therefore lost a step for the tracker, and never sends one twice.
    """

    def __init__(self, module: ModuleType, place: Place) -> None:
        self._module, self._place = module, place
        self._tracker: Tracker | None = None
        self._record: TextIO | None = None
        self._sent: dict[str, int] = {}  # by group the last step
        self._fault = ""
        self._busy_since: float | None = None
        self._tasks: queue.SimpleQueue[Task | None] | None = None
        if not getattr(module, "LOCAL", False):
            self._tasks = queue.SimpleQueue()
            self._thread = threading.Thread(target=self._work, name=module.__name__, daemon=True)
            self._thread.start()
        self._call(self._open)

    def send(self, group: str, step: int, values: Mapping[str, float]) -> None:
        self._call(lambda: self._send_once(group, step, values))

    def close(self) -> None:
        self._call(self._close)
        if self._tasks is not None and not self._fault:
            self._tasks.put(None)
            self._thread.join(PATIENCE)
            if self._thread.is_alive():
                self._fault = f"no answer for {PATIENCE:.0f} s"

    def find_fault(self) -> str:
        """Returns why the tracker gets nothing more; empty while it works."""
        since = self._busy_since
        if not self._fault and since is not None and time.monotonic() - since > PATIENCE:
            self._fault = f"no answer for {PATIENCE:.0f} s"
        return self._fault

    def _call(self, task: Task) -> None:
        if self._tasks is None:
            self._attempt(task)
        elif self._tasks.qsize() < MOST_WAITING:
            self._tasks.put(task)
        else:
            self._fault = self._fault or f"{MOST_WAITING} calls are waiting"

    def _work(self) -> None:
        assert self._tasks is not None
        while not self._fault and (task := self._tasks.get()):
            self._busy_since = time.monotonic()
            self._attempt(task)
            self._busy_since = None

    def _attempt(self, task: Task) -> None:
        if self._fault:
            return
        try:
            task()
        except (Exception, SystemExit) as error:
            first = next(iter(str(error).splitlines()), "")
            self._fault = f"{type(error).__name__}: {first}" if first else type(error).__name__

    def _open(self) -> None:
        file = self._place.folder / SENT
        self._place.folder.mkdir(exist_ok=True)
        name, self._sent = _read_sent(file)
        self._record = open_to_append(file)
        if not name:
            name = secrets.token_hex(8)
            self._write_record({"id": name})
        self._tracker = self._module.open_tracker(dataclasses.replace(self._place, id=name))

    def _send_once(self, group: str, step: int, values: Mapping[str, float]) -> None:
        assert self._tracker is not None
        if step > self._sent.get(group, -1):
            self._write_record({"step": step, "group": group})
            self._sent[group] = step
            self._tracker.log(step, values)

    def _write_record(self, line: Mapping[str, Any]) -> None:
        assert self._record is not None
        self._record.write(json.dumps(line) + "\n")
        self._record.flush()

    def _close(self) -> None:
        assert self._tracker is not None
        assert self._record is not None
        self._record.close()
        self._tracker.close()


def _read_sent(file: pathlib.Path) -> tuple[str, dict[str, int]]:
    """Returns the id in a record of what was sent, and by group the last step; damaged lines are left out."""
    name, sent = "", {}
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else ():
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            values = json.loads(line)
            if "id" in values:
                name = str(values["id"])
            else:
                sent[str(values["group"])] = max(int(values["step"]), sent.get(str(values["group"]), -1))
    return name, sent


def _load_module(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")
