# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sentence vectors on paper: the same two axes for all pictures that are to be compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Axes(NamedTuple):
    """Where the middle lies [D], and the two directions of most variance [2, D]."""

    middle: np.ndarray
    directions: np.ndarray


def axes(vectors: np.ndarray) -> Axes:
    """First two principal components of [rows, D]; the largest entry of each is positive, so that signs are fixed."""
    vectors = np.asarray(vectors, np.float64)
    middle = vectors.mean(0)
    _, _, directions = np.linalg.svd(vectors - middle, full_matrices=False)
    two = np.zeros((2, vectors.shape[1]))
    two[: len(directions[:2])] = directions[:2]
    signs = np.sign(two[np.arange(2), np.abs(two).argmax(1)])
    return Axes(middle, two * np.where(signs == 0, 1, signs)[:, None])


def picture(
    title: str,
    vectors: np.ndarray,
    languages: Sequence[str],
    ids: Sequence[str],
    links: Sequence[tuple[int, int]],
    within: Axes,
) -> dict[str, Any]:
    """What a report draws: a point a vector, a line a translation; the axes go with it, for the pictures after."""
    places = ((np.asarray(vectors, np.float64) - within.middle) @ within.directions.T).round(4)
    points = [
        {"x": float(x), "y": float(y), "language": language, "id": id}
        for (x, y), language, id in zip(places, languages, ids, strict=True)
    ]
    held = {"middle": within.middle.round(6).tolist(), "directions": within.directions.round(6).tolist()}
    return {"kind": "picture", "title": title, "points": points, "links": [list(link) for link in links], "axes": held}


def axes_of(drawn: dict[str, Any]) -> Axes:
    """The axes of a picture that was drawn before."""
    return Axes(*(np.array(drawn["axes"][name]) for name in Axes._fields))
