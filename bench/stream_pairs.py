# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Peak memory and speed of reading generated corpora of one and ten million pairs: `python bench/stream_pairs.py`.

For each size another process cleans the corpus, builds its index, and reads some blocks.
It needs about 3 GB of disk and some minutes; `--pairs=200000` uses corpora of that size and of a tenth of it.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import numpy as np

BLOCK, BLOCKS = 16384, 8


def main() -> None:
    sizes = [int(a.removeprefix("--pairs=")) for a in sys.argv[1:] if a.startswith("--pairs=")]
    largest = sizes[0] if sizes else 10_000_000
    with tempfile.TemporaryDirectory() as folder:
        peaks = [_measure(pathlib.Path(folder), count) for count in (largest // 10, largest)]
    print(f"peak memory at {largest:,} pairs / at {largest // 10:,} pairs: {peaks[1] / peaks[0]:.3f}")


def _measure(folder: pathlib.Path, count: int) -> int:
    """Returns the peak resident kB of a process that indexes the corpus and reads it."""
    prefix = folder / f"corpus{count}"
    _write_corpus(prefix, count)
    command = [sys.executable, __file__, f"--read={prefix}"]
    process = subprocess.run(
        command, env=os.environ | {"XLKD_CACHE": str(folder / "cache")}, check=True, stdout=-1, text=True
    )
    print(process.stdout, end="", flush=True)
    for tag in ("en", "de"):
        pathlib.Path(f"{prefix}.{tag}").unlink()
    return int(re.search(r"(\d+) kB", process.stdout)[1])


def _write_corpus(prefix: pathlib.Path, count: int) -> None:
    """Writes sentences of 6 to 30 invented words; one pair in a hundred equals the one before it."""
    words = [f"{a}{b}{c}" for a in ("ka", "mo", "ri", "tu") for b in "nlst" for c in "aeiou"]
    random = np.random.default_rng(0)
    text = random.choice(words, 1 << 16).tolist()
    with open(f"{prefix}.en", "w") as english, open(f"{prefix}.de", "w") as german:
        for first in range(0, count, 100):
            starts, sizes = random.integers(0, len(text) - 30, 100), random.integers(6, 31, 100)
            pairs = [
                (f"{first + n} {' '.join(text[a : a + size])}\n")
                for n, (a, size) in enumerate(zip(starts, sizes, strict=True))
            ]
            pairs[-1] = pairs[-2]
            english.writelines(pairs)
            german.writelines(pair[::-1].strip() + "\n" for pair in pairs)


def _read_corpus(prefix: str) -> None:
    from xlkd.data import sources
    from xlkd.data.composition import read_many
    from xlkd.data.permutation import Permutation

    start = time.perf_counter()
    (rows,) = sources.read(f"moses:{prefix}?languages=en,de", "parallel").parts
    built = time.perf_counter()
    order = Permutation(len(rows), seed=0, purpose="bench")
    count = min(BLOCK, len(rows) // BLOCKS)
    for block in range(BLOCKS):
        assert len(read_many(rows, order.at(np.arange(block * count, (block + 1) * count)))) == count
    done = time.perf_counter()
    peak = re.search(r"VmHWM:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())[1]
    lines = rows.counts["lines"]
    print(
        f"{lines:,} pairs ({len(rows):,} kept): peak {peak} kB, index {lines / (built - start):,.0f} pairs/s, "
        f"blocks {BLOCKS * count / (done - built):,.0f} pairs/s"
    )


if __name__ == "__main__":
    prefixes = [argument for argument in sys.argv[1:] if argument.startswith("--read=")]
    _read_corpus(prefixes[0].removeprefix("--read=")) if prefixes else main()
