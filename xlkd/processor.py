# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Describes the processor of this machine, on which measured numbers depend."""

from __future__ import annotations

import os
import pathlib
import platform

# What matrix products use, as /proc/cpuinfo names it, on x86 and on ARM
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")


def describe() -> str:
    """Returns the name of the processor, its family and model, and the instructions that it has for matrix products.

    The name alone is not enough: virtual machines often have one such as "Intel(R) Xeon(R) Processor" for several
    generations, with and without AMX.
    """
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()
    fields = {key.strip(): value.strip() for line in text.splitlines() for key, _, value in [line.partition(":")]}
    numbers = [f"{key} {value}" for key in ("cpu family", "model", "CPU part") if (value := fields.get(key))]
    present = set(fields.get("flags", fields.get("Features", "")).split())
    parts = [
        fields.get("model name", platform.processor()),
        *numbers,
        " ".join(i for i in INSTRUCTIONS if i in present),
    ]
    return ", ".join(filter(None, parts))


def count_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
