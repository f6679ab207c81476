# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes event files for TensorBoard, into the folder `tensorboard` of a stage.

tensorboardX's own writer has a thread; when a clock jump or a full disk ends it, the run would wait forever.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from xlkd.compat import import_event_files
from xlkd.runtime.trackers import Place

LOCAL = True


class EventFile:
    """Writes the event file of one start."""

    def __init__(self, prefix: str) -> None:
        self._files = import_event_files()
        self._writer = self._files.writer(prefix)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one event per value."""
        for name, value in values.items():
            summary = self._files.scalar(name, value)
            self._writer.write_event(self._files.events.Event(step=step, wall_time=time.time(), summary=summary))
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()


def open_tracker(place: Place) -> EventFile:
    """Begins an event file."""
    return EventFile(str(place.folder / "events"))
