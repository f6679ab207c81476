# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""SIGTERM and Ctrl-C ask a run to save and end, all its processes at one step; a second Ctrl-C ends it at once."""

from __future__ import annotations

import itertools
import os
import signal

from xlkd.errors import INTERRUPTED
from xlkd.runtime import distributed


class Signals:
    """`asked` names the first signal that came, or is empty; of several processes all ask in the same places."""

    def __init__(self) -> None:
        self._came, self._several, self._places = "", distributed.has_several_processes(), itertools.count()
        self._again = False

    def __enter__(self) -> Signals:
        # Of several processes jax takes SIGTERM, tells the others, and finds a place that none of them has passed.
        kinds = (signal.SIGINT,) if self._several else (signal.SIGTERM, signal.SIGINT)
        self._former = {kind: signal.signal(kind, self._note) for kind in kinds}
        return self

    def __exit__(self, *_) -> None:
        for kind, handler in self._former.items():
            signal.signal(kind, handler)

    @property
    def asked(self) -> str:
        if self._several and not self._came:
            from jax.experimental import multihost_utils

            reached = multihost_utils.reached_preemption_sync_point(next(self._places))
            self._came = "SIGTERM" if reached else ""
        return self._came

    def _note(self, number: int, _) -> None:
        if self._again and number == signal.SIGINT:
            os._exit(INTERRUPTED)
        self._again = True
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self._came = signal.Signals(number).name
