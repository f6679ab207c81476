# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Colour scales of the page: steps between round numbers, with colours for light and dark that a reader can tell apart.

Lightness alone orders the colours of scores. Those of differences are blue for better and orange for worse.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Sequence

Palette = tuple[str, ...]

SCORES = ("#e4f9f1", "#c3e3d9", "#a2ccc4", "#81b6b0", "#5fa09e", "#3a8a8d", "#0a747d", "#005c68", "#004552")
SCORES_DARK = ("#142a30", "#1b4147", "#21585e", "#277274", "#2e8c89", "#37a79d", "#58c0af", "#78dac2", "#97f4d4")
BETTER = ("#e4f0ff", "#b2cef3", "#83ace1", "#548acf", "#1f68bc")
BETTER_DARK = ("#222f3c", "#324e6b", "#416f9e", "#5092d4", "#6fb6fe")
WORSE = ("#ffeadb", "#eac2a5", "#d49b70", "#be7436", "#9d5300")
WORSE_DARK = ("#392a1f", "#64432a", "#925e33", "#c3793c", "#f79643")
PALETTES = {"q": (SCORES, SCORES_DARK), "b": (BETTER, BETTER_DARK), "w": (WORSE, WORSE_DARK)}  # by prefix of a class
BLACK, WHITE = "#101418", "#ffffff"  # of text on a colour


@dataclasses.dataclass(frozen=True)
class Scale:
    """Round numbers in rising order, and the CSS class of the colour of each step between two of them."""

    edges: tuple[float, ...]
    classes: tuple[str, ...]

    def choose_class(self, value: float) -> str:
        """Returns the class of the step that has the value; one beyond the ends has that of the last step."""
        return self.classes[bisect.bisect_right(self.edges[1:-1], value)]


def make_score_scale(values: Sequence[float]) -> Scale:
    """Returns a scale over all values, in at most nine steps."""
    low, high = min(values), max(values)
    unit = _choose_unit((high - low) / (len(SCORES) - 1))
    first, last = math.floor(low / unit), math.ceil(high / unit)
    count = max(last - first, 1)
    shades = [round(i * (len(SCORES) - 1) / max(count - 1, 1)) for i in range(count)]
    edges = tuple(round((first + i) * unit, 12) for i in range(count + 1))
    return Scale(edges, tuple(f"q{shade}" for shade in shades))


def make_difference_scale(values: Sequence[float], *, finest: float, lower_is_better: bool) -> Scale:
    """Returns a scale with 0 in its middle, in at most five steps to each side that are no smaller than `finest`."""
    most = max(map(abs, values))
    unit = max(_choose_unit(most / len(BETTER)), finest)
    count = max(math.ceil(round(most / unit, 9)), 1)
    rise, fall = ("w", "b") if lower_is_better else ("b", "w")
    classes = [*(f"{fall}{i}" for i in reversed(range(count))), *(f"{rise}{i}" for i in range(count))]
    return Scale(tuple(round(i * unit, 12) for i in range(-count, count + 1)), tuple(classes))


def write_rules() -> str:
    """Returns the CSS of all steps: the colour and that of text on it, in light and in dark."""
    light, dark = (
        "".join(
            f".{prefix}{i}{{background:{colour};color:{_choose_text(colour)}}}"
            for prefix, palettes in PALETTES.items()
            for i, colour in enumerate(palettes[theme])
        )
        for theme in (0, 1)
    )
    return f"{light}\n@media (prefers-color-scheme:dark){{{dark}}}\n"


def compute_contrast(a: str, b: str) -> float:
    """Returns the contrast of two colours as WCAG defines it, from 1 to 21."""
    lower, higher = sorted(map(_compute_luminance, (a, b)))
    return (higher + 0.05) / (lower + 0.05)


def _choose_text(colour: str) -> str:
    return max(BLACK, WHITE, key=lambda text: compute_contrast(text, colour))


def _compute_luminance(colour: str) -> float:
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _choose_unit(least: float) -> float:
    """Returns the smallest of 1, 2 and 5 times a power of ten that is not below `least`; 1 for nothing."""
    if least <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
