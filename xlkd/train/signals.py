# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""SIGTERM and Ctrl-C ask a run to save and end; a second Ctrl-C ends it at once."""

from __future__ import annotations

import os
import signal

from xlkd.errors import INTERRUPTED


class Signals:
    """`asked` names the first signal that came, or is empty."""

    def __init__(self) -> None:
        self.asked = ""

    def __enter__(self) -> Signals:
        self._former = {kind: signal.signal(kind, self._note) for kind in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_) -> None:
        for kind, handler in self._former.items():
            signal.signal(kind, handler)

    def _note(self, number: int, _) -> None:
        if self.asked and number == signal.SIGINT:
            os._exit(INTERRUPTED)
        self.asked = signal.Signals(number).name
