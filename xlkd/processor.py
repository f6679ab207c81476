# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Describes the processor of this machine, on which measured numbers depend."""

from __future__ import annotations

import os
import pathlib
import platform
import re


def read_name() -> str:
    """Returns the name of the processor."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return named[1] if named else platform.processor()


def count_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
