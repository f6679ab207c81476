# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Projections of sentence vectors onto two axes, which are the same for all pictures that are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

Picture = dict[str, Any]  # JSON, as a report reads it


class Axes(NamedTuple):
    """The mean of the vectors, and the two directions of most variance."""

    middle: Float[np.ndarray, " hidden"]
    directions: Float[np.ndarray, "2 hidden"]


def fit_axes(vectors: Float[np.ndarray, "rows hidden"]) -> Axes:
    """Returns the first two principal components; the largest entry of each is positive, so that signs are fixed."""
    vectors = np.asarray(vectors, np.float64)
    middle = vectors.mean(0)
    _, _, directions = np.linalg.svd(vectors - middle, full_matrices=False)
    two = np.zeros((2, vectors.shape[1]))
    two[: len(directions[:2])] = directions[:2]
    signs = np.sign(two[np.arange(2), np.abs(two).argmax(1)])
    return Axes(middle, two * np.where(signs == 0, 1, signs)[:, None])


def make_picture(
    title: str,
    vectors: Float[np.ndarray, "rows hidden"],
    languages: Sequence[str],
    ids: Sequence[str],
    links: Sequence[tuple[int, int]],
    axes: Axes,
) -> Picture:
    """Returns a picture for the report: a point for each vector, a line for each translation, and the axes."""
    places = ((np.asarray(vectors, np.float64) - axes.middle) @ axes.directions.T).round(4)
    points = [
        {"x": float(x), "y": float(y), "language": language, "id": id}
        for (x, y), language, id in zip(places, languages, ids, strict=True)
    ]
    saved = {"middle": axes.middle.round(6).tolist(), "directions": axes.directions.round(6).tolist()}
    return {"kind": "picture", "title": title, "points": points, "links": [list(link) for link in links], "axes": saved}


def read_axes(picture: Mapping[str, Any]) -> Axes:
    """Returns the axes of a saved picture."""
    return Axes(*(np.array(picture["axes"][name]) for name in Axes._fields))
