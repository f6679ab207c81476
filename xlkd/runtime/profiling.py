# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Profiles a window of training steps for XProf: every process writes its trace where TensorBoard's plugin looks."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

from xlkd.runtime import distributed

FOLDER = "profile"  # of a stage


class Profiler:
    """Profiles the steps whose numbers, as the log counts them, are in `steps`; an empty range profiles none.

    A trace begins and ends with idle devices, so that it holds all of its steps' work and no other. `write` writes a
    file of this process.
    """

    def __init__(
        self,
        steps: range = range(0),
        folder: pathlib.Path = pathlib.Path(),
        write: Callable[[pathlib.Path, bytes], None] = lambda path, data: None,
        log: Callable[[str], object] = lambda line: None,
    ) -> None:
        self._steps, self._folder, self._write, self._log = steps, folder / FOLDER, write, log
        self._first = self._last = 0  # of the trace that is being taken; 0: none is
        self._draft: tempfile.TemporaryDirectory[str] | None = None

    def start_if_due(self, step: int, state: Any) -> None:
        """Starts the trace before a step of the window; `state` is waited for, so that earlier steps are not in it."""
        if step not in self._steps or self._draft:
            return
        import jax

        jax.block_until_ready(state)
        draft = tempfile.TemporaryDirectory(prefix="xlkd-profile-")
        try:
            jax.profiler.start_trace(draft.name)
        except RuntimeError as error:  # a device has one profiler at a time
            self._log(f"warning: steps {step} to {self._steps[-1]} are not profiled: {error}")
            self._steps = range(0)
            draft.cleanup()
            return
        self._first, self._draft = step, draft

    def annotate_step(self, step: int) -> Any:
        """Returns a context that marks a step in the trace, as XProf needs it to tell steps apart."""
        import jax

        self._last = step
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def stop_if_due(self, step: int, state: Any) -> None:
        """Ends and writes the trace after the last step of the window; `state` is waited for."""
        if self._draft and step == self._steps[-1]:
            import jax

            jax.block_until_ready(state)
            self.close()

    def close(self) -> None:
        """Ends a trace that is being taken, and writes it with the steps that it has."""
        if not self._draft:
            return
        import jax

        session = self._folder / "plugins" / "profile" / f"steps-{self._first}-{self._last}"
        with self._draft as draft:
            self._draft = None
            jax.profiler.stop_trace()
            # Processes of one host would give their files the same name
            prefix = f"process-{distributed.get_process()}-" if distributed.has_several_processes() else ""
            for path in pathlib.Path(draft).glob("plugins/profile/*/*"):
                self._write(session / f"{prefix}{path.name}", path.read_bytes())
        self._log(f"profiled steps {self._first} to {self._last}: {session}")
