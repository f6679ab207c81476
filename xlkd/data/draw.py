# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws random numbers by a counter hash of (seed, purpose, step, row key, position), the same on every machine."""

from __future__ import annotations

import zlib

import numpy as np

_M1, _M2, _GOLD = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB), np.uint64(0x9E3779B97F4A7C15)


def draw_uniform(seed: int, purpose: str, step: int, keys: np.ndarray, count: int) -> np.ndarray:
    """Returns uniform numbers in [0, 1) [rows, count]; `keys` are the 64-bit keys of the rows."""
    with np.errstate(over="ignore"):
        start = _mix(np.atleast_1d(np.uint64(seed) * _GOLD + np.uint64(zlib.crc32(purpose.encode()))))
        start = _mix(start + np.uint64(step) * _GOLD)
        rows = _mix(keys.astype(np.uint64) ^ start)
        bits = _mix(rows[:, None] + np.arange(1, count + 1, dtype=np.uint64) * _GOLD)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def truncate_keys(keys: list[str]) -> np.ndarray:
    """Returns the first 64 bits of each hexadecimal row key."""
    return np.array([int(key[:16], 16) for key in keys], np.uint64)


def format_keys(keys: np.ndarray) -> list[str]:
    """Formats keys of features for messages: complete keys are bytes, others their first 64 bits."""
    return [key.decode() if isinstance(key, bytes) else f"{key:016x}" for key in keys.tolist()]


def _mix(x: np.ndarray) -> np.ndarray:
    """Applies the finalizer of splitmix64."""
    x = (x ^ (x >> np.uint64(30))) * _M1
    x = (x ^ (x >> np.uint64(27))) * _M2
    return x ^ (x >> np.uint64(31))
