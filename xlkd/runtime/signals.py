# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Handles SIGTERM, Ctrl-C and a cloud's notices: the run saves and ends, all processes at one step.

A second Ctrl-C ends it at once.
"""

from __future__ import annotations

import itertools
import os
import signal

from xlkd.errors import INTERRUPTED
from xlkd.runtime import distributed
from xlkd.runtime.notices import watch_notices

_NOTICES = "notices"  # published by the processes that got one


class Signals:
    """`asked` names the first signal or notice that came, or is empty; processes must read it at the same steps."""

    def __init__(self) -> None:
        self._signal, self._several, self._places = "", distributed.has_several_processes(), itertools.count()
        self._again = False

    def __enter__(self) -> Signals:
        # With several processes JAX handles SIGTERM, tells the others, and chooses a point that none has passed.
        kinds = (signal.SIGINT,) if self._several else (signal.SIGTERM, signal.SIGINT)
        self._former = {kind: signal.signal(kind, self._handle_signal) for kind in kinds}
        watch_notices(self._handle_notice)
        return self

    def __exit__(self, *_: object) -> None:
        for kind, handler in self._former.items():
            signal.signal(kind, handler)

    @property
    def asked(self) -> str:
        """The name of the signal or notice that asks the run to end; empty until one comes."""
        if self._several and not self._signal:
            from jax.experimental import multihost_utils

            reached = multihost_utils.reached_preemption_sync_point(next(self._places))
            if reached:
                self._signal = next(iter(distributed.read_published(_NOTICES).values()), "SIGTERM")
        return self._signal

    def _handle_signal(self, number: int, _: object) -> None:
        if self._again and number == signal.SIGINT:
            os._exit(INTERRUPTED)
        self._again = True
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self._signal = signal.Signals(number).name

    def _handle_notice(self, name: str) -> None:
        if self._several:
            process = distributed.get_process()
            distributed.publish_value(f"{_NOTICES}/{process}", f"{name} on process {process}")
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self._signal = self._signal or name
