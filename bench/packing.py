# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The possible gain of packing rows together beside buckets, counted on real lengths: `python bench/packing.py`.

  --data=SOURCE     questions (default: the atlas, synthetic data)
  --tokenizer=DIR   tokenizer of the texts
  --max_length=384

Nothing is timed: the figures are FLOPs of an encoder of width 384 or 768, relative to those without padding. Packing is
best fit by decreasing length; the attention of packed rows is computed over the whole row.
"""

from __future__ import annotations

import bisect
import sys

import numpy as np

from xlkd import cli
from xlkd.data.buckets import assign_buckets, choose_edges, make_encoder_cost

BUCKETS = (1, 4, 8, 16)


def main(arguments: list[str]) -> None:
    flags = cli.parse_flags(arguments, ("data", "tokenizer", "max_length"))
    lengths = _read_lengths(flags)
    longest = -(-int(lengths.max()) // 16) * 16
    print(f"{len(lengths)} rows, mean {lengths.mean():.0f}, longest {lengths.max()}\n")
    print("| FLOPs ÷ those without padding | width 384 | width 768 | compiled shapes |\n|---|---|---|---|")
    for k in BUCKETS:
        name = f"{k} buckets" if k > 1 else f"all at {longest}"
        print(f"| {name} | {_format_row(lambda cost, k=k: sum_bucketed_cost(lengths, k, cost), lengths)} | {k} |")
    for size in (longest, 2 * longest, 4 * longest):
        bins = count_packed_rows(lengths, size)
        name = f"packed into {size}, {lengths.sum() / (bins * size):.0%} full"
        print(
            f"| {name} | {_format_row(lambda cost, size=size, bins=bins: bins * cost(np.float64(size)), lengths)} | 1 |"
        )
        alone = _format_row(lambda cost, size=size, bins=bins: _sum_separate_cost(lengths, bins, size, cost), lengths)
        print(f"| … scores between segments skipped | {alone} | 1 |")


def count_packed_rows(lengths: np.ndarray, size: int) -> int:
    """Returns the number of rows that all lengths need, packed as best fit by decreasing length."""
    free: list[int] = []  # free places of each row, ascending
    for length in sorted(map(int, lengths), reverse=True):
        at = bisect.bisect_left(free, length)
        room = (free.pop(at) if at < len(free) else size) - length
        bisect.insort(free, room)
    return len(free)


def sum_bucketed_cost(lengths: np.ndarray, k: int, cost) -> float:
    chosen = choose_edges(lengths, k, cost=cost)
    return float(cost(np.asarray(chosen, np.float64)[assign_buckets(lengths, chosen)]).sum())


def _sum_separate_cost(lengths: np.ndarray, bins: int, size: int, cost) -> float:
    """Returns the cost if padding is computed, and attention between segments is not."""
    linear = cost(np.float64(1)) - (cost(np.float64(2)) - 2 * cost(np.float64(1))) / 2
    return float(cost(lengths.astype(np.float64)).sum() + linear * (bins * size - lengths.sum()))


def _format_row(total, lengths: np.ndarray) -> str:
    shares = (total(cost) / cost(lengths.astype(np.float64)).sum() for cost in map(make_encoder_cost, (384, 768)))
    return " | ".join(f"{share:.3f}" for share in shares)


def _read_lengths(flags: dict[str, str]) -> np.ndarray:
    import models

    from xlkd.inputs import data as inputs
    from xlkd.inputs.weights import resolve_weights
    from xlkd.runtime.log import Log

    changes = {"data__eval": "", "task__max_length": cli.parse_count(flags, "max_length", 384, 8192)}
    changes |= {"data__train": flags["data"]} if "data" in flags else {}
    changes |= {"encoder__path": flags["tokenizer"]} if "tokenizer" in flags else {}
    stage = models.read_stage("finetune.py", "finetune", **changes)
    plan = inputs.read_training_data(stage, resolve_weights(stage, {}, None), None, Log()).plan
    return plan.lengths[plan.view]


if __name__ == "__main__":
    sys.exit(cli.run(main))
