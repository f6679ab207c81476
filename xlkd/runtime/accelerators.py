# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The table of accelerators with their peak rates, memory and price, for MFU, plans and costs."""

from __future__ import annotations

import dataclasses

PRICES = "US on demand, 2026"  # the kind of price, and the year in which they were read


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """A device as JAX counts devices, which may be a part of a chip."""

    kinds: tuple[str, ...]  # prefixes of JAX's device_kind
    flops: float  # dense bfloat16 FLOP/s
    memory: float  # bytes
    bandwidth: float  # bytes/s
    price: float | None = None  # $ a chip-hour
    devices: int = 1  # in a chip
    float32: float = 1.0  # share of the peak in float32 at JAX's default precision: TPU in one bfloat16 pass, GPU TF32
    usable: float = 1.0  # share of the memory that JAX takes


def _make_tpu(
    *kinds: str, tflops: float, memory: float, bandwidth: float, price: float | None = None, devices: int = 1
) -> Accelerator:
    """Makes a TPU; `tflops` and `memory` (bytes) are those of a device, `bandwidth` is in GB/s."""
    return Accelerator(kinds, tflops * 1e12, memory, bandwidth * 1e9, price, devices, usable=15.75 / 16)


def _make_hopper(kind: str, memory: float, bandwidth: float) -> Accelerator:
    """Makes a GPU of the Hopper generation; `memory` is in bytes, `bandwidth` in GB/s."""
    return Accelerator((kind,), 989e12, memory, bandwidth * 1e9, float32=0.5, usable=0.75)


TABLE = {
    "v4": _make_tpu("TPU v4", tflops=275, memory=32 * 2**30, bandwidth=1200),
    "v5e": _make_tpu("TPU v5 lite", tflops=197, memory=16 * 2**30, bandwidth=819, price=1.20),
    "v5p": _make_tpu("TPU v5", tflops=459, memory=95e9, bandwidth=2765, price=4.20),
    "v6e": _make_tpu("TPU v6", tflops=918, memory=32 * 2**30, bandwidth=1638, price=2.70),
    "tpu7x": _make_tpu("TPU7x", "TPU v7", tflops=2307 / 2, memory=192 * 2**30 / 2, bandwidth=7380 / 2, devices=2),
    "h100": _make_hopper("NVIDIA H100", memory=80e9, bandwidth=3350),
    "h200": _make_hopper("NVIDIA H200", memory=141e9, bandwidth=4800),
}


def find_accelerator(kind: str) -> Accelerator | None:
    """Returns the accelerator with JAX's device_kind `kind`; None where the table has none."""
    return next((accelerator for accelerator in TABLE.values() if kind.startswith(accelerator.kinds)), None)
