# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the numbers say, in sentences; and how a number is written."""

from __future__ import annotations

import statistics as statistics_of
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from xlkd.metrics import statistics
from xlkd.reports.files import Record

STAGES = {
    "zs": "zero-shot",
    "ce": "cross-entropy",
    "skd": "self-distillation",
    "skd_map": "self-distillation with mAP@k",
    "skd_no_ce": "self-distillation without cross-entropy",
    "skd_map_no_ce": "self-distillation with mAP@k, without cross-entropy",
    "single": "one branch, hard labels",
    "single_kd": "one branch, teachers",
    "branches": "branches without the zero-shot-aware term",
    "mblm": "branches with the zero-shot-aware term",
}
METRICS = {
    "f1": "F1",
    "em": "EM",
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "retrieval": "retrieval, both directions",
    "to_source": "retrieval, to the source",
    "to_target": "retrieval, to the target",
    "aer": "alignment error rate (lower is better)",
}
AVERAGES = {
    "xlt": "XLT (question and context in the same language)",
    "xlt_seen": "XLT over languages with labels in training",
    "xlt_unseen": "XLT over languages without labels in training",
    "gxlt": "G-XLT, diagonal included",
    "gxlt_off": "G-XLT, without the diagonal",
    "gxlt_seen": "G-XLT off the diagonal, labels of both languages in training",
    "gxlt_mixed": "G-XLT off the diagonal, labels of one language in training",
    "gxlt_unseen": "G-XLT off the diagonal, labels of neither language in training",
    "pivot_question": "English question, other context",
    "pivot_context": "other question, English context",
    "xquad_zs": "XQuAD el ru th tr (the paper's zero-shot list)",
    "xquad_11": "XQuAD without ro",
    "xquad_12": "XQuAD, all twelve",
    "tydiqa_zs": "TyDiQA without ar and en",
    "macro_mean": "macro mean",
    "supervised_mean": "supervised mean",
    "zero_shot_mean": "zero-shot mean",
    "transfer_gap": "transfer gap (English above the others)",
}
SAID = ("gxlt", "gxlt_off", "xlt", "supervised_mean", "zero_shot_mean", "macro_mean")


def sentences(results: Record) -> list[str]:
    """The differences in words: for each data set and pair the means that matter, then the count over cells."""
    return [
        line
        for title, data in results["sets"].items()
        for compared in data["comparisons"].values()
        for line in _of_pair(title, data, compared)
    ]


def warnings(results: Record) -> list[str]:
    """Rows of evaluation sets that training met, once for the stages that met the same."""
    stages: dict[str, list[str]] = {}
    for name, one in results["stages"].items():
        for where, met in (one.get("contamination") or {}).items():
            if met.get("flagged"):
                kinds = ", ".join(f"{kind} {count:,}" for kind, count in met.get("kinds", {}).items() if count)
                text = f"{met['flagged']:,} of {met['rows']:,} rows of {where} were met in training ({kinds})"
                stages.setdefault(text, []).append(name)
    return [
        f"{', '.join(names)}: {text}; their numbers carry C and are not zero-shot." for text, names in stages.items()
    ]


def average(name: str, entry: Mapping[str, Any] | None = None) -> str:
    """The name of a mean, or what is missing of it."""
    if entry and entry.get("missing"):
        return entry["title"]
    base, bracket, language = name.partition("[")
    if bracket:
        side = "question" if base.startswith("by_question") else "context"
        return f"{side} in {language[:-1]}" + (", without the diagonal" if base.endswith("_off") else "")
    return AVERAGES.get(name, name)


def stage(name: str) -> str:
    """A stage's name, in words where it is a known control."""
    head, slash, last = name.rpartition("/")
    plain = last.partition(" (")[0]
    return f"{STAGES[plain]} [{head}{slash}{last}]" if plain in STAGES else name


def score(number: Mapping[str, Any]) -> str:
    """45.2 (43.1 to 47.3)."""
    return f"{one(number['value'])}{_between(number)}"


def difference(number: Mapping[str, Any], label: str = "") -> str:
    """+0.4 (−0.3 to 1.1), with a label before the interval."""
    return f"{signed(number['value'])}{_between(number, label)}"


def one(value: float | None) -> str:
    """One decimal; a mean over nothing is a dash."""
    return "–" if value is None else f"{value:.1f}".replace("-0.0", "0.0").replace("-", "−")


def signed(value: float) -> str:
    text = one(value)
    return text if text[0] == "−" or float(text) == 0 else f"+{text}"


def spread(by_seed: Sequence[float]) -> str:
    """The standard deviation over seeds."""
    return one(statistics_of.stdev(by_seed))


def p(value: float) -> str:
    """Two significant digits."""
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def _between(number: Mapping[str, Any], label: str = "") -> str:
    if number["low"] is None:
        return ""
    return f" ({label}{one(number['low'])} to {one(number['high'])})"


def _of_pair(title: str, data: Record, compared: Record) -> list[str]:
    metric = data["main"]
    who = f"{stage(compared['a'])} against {stage(compared['b'])}"
    lines = []
    for name in SAID:
        if name in compared["averages"] and not (name == "macro_mean" and data["task"] == "classify"):
            entry = compared["averages"][name]
            of = average(name, entry)
            lines.append(f"{who}, {title}, {METRICS[metric]}, {of}: {_verdict(entry[metric])}.")
    tally = Counter(cell[metric]["verdict"] for cell in compared["cells"].values())
    cells = "languages" if data["task"] == "classify" else "cells"
    counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(tally.items()))
    lines.append(f"{who}, {title}: of {len(compared['cells'])} {cells} {counts} (Holm over {cells}).")
    if primary := [compared["averages"][name][metric]["verdict"] for name in compared["primary"]]:
        lines += _conclusion(who, title, primary)
    return lines


def _verdict(number: Mapping[str, Any]) -> str:
    if number["verdict"] == statistics.IDENTICAL:
        return "identical answers"
    return f"{difference(number, '95% interval ')}: {number['verdict']}"


def _conclusion(who: str, title: str, verdicts: list[str]) -> list[str]:
    """What was hoped for and not shown is said as plainly as what was."""
    if all(verdict == statistics.BETTER for verdict in verdicts):
        return []
    if statistics.WORSE in verdicts:
        return [f"{who}, {title}: on what was named beforehand it is worse in at least one number."]
    if statistics.BETTER in verdicts:
        return [f"{who}, {title}: better on part of what was named beforehand, not shown on the rest."]
    return [f"{who}, {title}: this does not show that one is better than the other."]
