# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Names scores for trackers: `eval/xquad/de/f1`, `eval/mlqa/en-de/f1`, and averages such as `eval/mlqa/gxlt/f1`."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Mapping

from xlkd.metrics import averages
from xlkd.rows import Cell
from xlkd.tasks import Scores


def list_values(evaluation_set: str, scores: Scores) -> dict[str, float]:
    """Returns the scores of each cell, and for each data set the averages over complete sets of cells, by tag."""
    by_set: dict[str, dict[Cell, Mapping[str, float]]] = collections.defaultdict(dict)
    for cell, values in scores.cells.items():
        by_set[cell.set][cell] = values
    tags = {}
    for name, cells in by_set.items():
        prefix = f"{evaluation_set}/{name}" if name else evaluation_set
        for cell, values in cells.items():
            place = "-".join(dict.fromkeys(cell.languages))
            tags |= {f"{prefix}/{place}/{metric}": value for metric, value in values.items() if metric != "n"}
        for metric in dict.fromkeys((scores.main, *(metric.name for metric in scores.metrics))):
            if all(metric in values for values in cells.values()):
                means = compute_means(name, {cell: values[metric] for cell, values in cells.items()})
                tags |= {f"{prefix}/{average}/{metric}": value for average, value in means.items()}
    return tags


def compute_means(name: str, scores: Mapping[Cell, float]) -> dict[str, float]:
    """Returns the mean over the cells of a data set, and its official averages of which no cell is missing."""
    means = {"mean": statistics.fmean(scores.values())}
    if languages := averages.LANGUAGES.get(name):
        pairs = {(cell.languages[0], cell.languages[-1]): value for cell, value in scores.items()}
        for average in averages.compute_averages(pairs, languages, set=name).values():
            if average.value is not None and not average.missing and "[" not in average.name:
                means[average.name] = average.value
    return means
