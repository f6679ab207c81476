# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes the differences as sentences, and numbers, metrics and verdicts as text."""

from __future__ import annotations

import statistics as statistics_of
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from xlkd.metrics import statistics
from xlkd.reports import grid
from xlkd.reports.files import Record
from xlkd.tasks import metrics

STAGES = {
    "zs": "zero-shot",
    "ce": "cross-entropy",
    "ce_ntl3": "cross-entropy with ntl 3",
    "ce_early": "cross-entropy for one epoch",
    "average": "mean of the weights before and after cross-entropy",
    "mt": "cross-entropy on machine translations",
    "skd": "self-distillation",
    "skd_map": "self-distillation with mAP@k",
    "skd_no_ce": "self-distillation without cross-entropy",
    "skd_map_no_ce": "self-distillation with mAP@k, without cross-entropy",
    "single": "one branch, hard labels",
    "single_kd": "one branch, teachers",
    "branches": "branches without the zero-shot-aware term",
    "mblm": "branches with the zero-shot-aware term",
}
VERDICTS = {
    statistics.BETTER: "significantly better",
    statistics.WORSE: "significantly worse",
    statistics.CANNOT_TELL: "no significant difference",
    statistics.TOO_FEW_GROUPS: "too few groups to test",
    statistics.IDENTICAL: "identical answers",
    grid.WIDER: "significantly wider",
    grid.NARROWER: "significantly narrower",
    grid.NOT_TESTED: "not tested",
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
LOWER_IS_BETTER = " (lower is better)"
IN_SENTENCES = ("gxlt", "gxlt_off", "xlt", "supervised_mean", "zero_shot_mean", "macro_mean")


def write_sentences(results: Record) -> list[str]:
    """Describes each comparison of a pair on a data set: differences of the main means, then verdicts over cells."""
    return [
        line
        for title, data in results["sets"].items()
        for compared in data["comparisons"].values()
        for line in _describe_pair(title, data, compared)
    ]


def write_warnings(results: Record) -> list[str]:
    """Warns of evaluation examples that occur in training, once for all stages with the same ones."""
    stages: dict[str, list[str]] = {}
    for name, stage in results["stages"].items():
        for where, contamination in (stage.get("contamination") or {}).items():
            if contamination.get("flagged"):
                by_kind = contamination.get("kinds", {}).items()
                kinds = ", ".join(f"{kind} {number:,}" for kind, number in by_kind if number)
                count = f"{contamination['flagged']:,} of {contamination['rows']:,} examples of {where}"
                stages.setdefault(f"{count} occur in the training data ({kinds})", []).append(name)
    return [
        f"{', '.join(names)}: {text}; their numbers have badge C and are not zero-shot."
        for text, names in stages.items()
    ]


def label_metric(name: str, recorded: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """Returns a metric's label: as a run recorded it, as the lists of the tasks have it, or else its name."""
    metric = (recorded or {}).get(name)
    if metric is None:
        if name not in metrics.ALL:
            return name
        metric = metrics.ALL[name].describe()
    return f"{metric['label']}{'' if metric['higher_is_better'] else LOWER_IS_BETTER}"


def label_in_set(data: Mapping[str, Any], metric: str) -> str:
    """Returns the label of a metric of a data set, with a mark if a lower value is better."""
    return data["labels"][metric] + (LOWER_IS_BETTER if metric in data["lower_is_better"] else "")


def describe_average(name: str, entry: Mapping[str, Any] | None = None) -> str:
    """Describes a mean, and which of its cells are missing."""
    if entry and entry.get("missing"):
        return entry["title"]
    base, bracket, language = name.partition("[")
    if bracket:
        side = "question" if base.startswith("by_question") else "context"
        return f"{side} in {language[:-1]}" + (", without the diagonal" if base.endswith("_off") else "")
    return AVERAGES.get(name, name)


def list_main_means(averages: Mapping[str, Any]) -> list[str]:
    """Returns the means that sentences are about; the macro mean only where no other is known."""
    names = [name for name in IN_SENTENCES if name in averages]
    return [name for name in names if name != "macro_mean"] or names


def shorten_average(name: str, entry: Mapping[str, Any] | None = None) -> str:
    """Describes a mean without the explanation in parentheses, and counts its cells where some are missing."""
    text = describe_average(name).partition(" (")[0]
    if entry and entry.get("missing"):
        return f"{text}, {len(entry['cells'])} of {len(entry['cells']) + entry['missing']} cells"
    return text


def describe_stage(name: str) -> str:
    """Returns a stage's name, with its description where it is a known control."""
    head, slash, last = name.rpartition("/")
    plain = last.partition(" (")[0]
    return f"{STAGES[plain]} [{head}{slash}{last}]" if plain in STAGES else name


def format_score(number: Mapping[str, Any]) -> str:
    """Writes a score as 45.2 (43.1 to 47.3)."""
    return f"{format_number(number['value'])}{_format_interval(number)}"


def format_difference(number: Mapping[str, Any], label: str = "") -> str:
    """Writes a difference as +0.4 (−0.3 to 1.1), with a label before the interval."""
    return f"{format_signed(number['value'])}{_format_interval(number, label)}"


def format_number(value: float | None) -> str:
    """Writes a value with one decimal; a mean over nothing is a dash."""
    return "–" if value is None else f"{value:.1f}".replace("-0.0", "0.0").replace("-", "−")


def format_signed(value: float) -> str:
    """Writes a value with its sign."""
    text = format_number(value)
    return text if text[0] == "−" or float(text) == 0 else f"+{text}"


def format_tick(value: float) -> str:
    """Writes a round difference on an axis or a scale."""
    return f"{value:+g}".replace("-", "−") if value else "0"


def format_duration(seconds: float) -> str:
    """Writes a time in seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def format_spread(by_seed: Sequence[float]) -> str:
    """Writes the standard deviation over seeds."""
    return format_number(statistics_of.stdev(by_seed))


def format_p(value: float | None) -> str:
    """Writes a p value with two significant digits, or `< 0.001`; a dash for a difference that was not tested."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def _format_interval(number: Mapping[str, Any], label: str = "") -> str:
    if number["low"] is None:
        return ""
    return f" ({label}{format_number(number['low'])} to {format_number(number['high'])})"


def _describe_pair(title: str, data: Record, compared: Record) -> list[str]:
    metric = data["main"]
    who = f"{describe_stage(compared['a'])} against {describe_stage(compared['b'])}"
    lines = []
    for name in list_main_means(compared["averages"]):
        entry = compared["averages"][name]
        where = f"{label_in_set(data, metric)}, {describe_average(name, entry)}"
        over = f"over {len(data['draws'])} draws " if "draws" in data else ""
        lines.append(f"{who}, {title}, {where}: {_describe_difference(entry[metric], over)}.")
    if "draws" in data:
        return lines
    tally = Counter(cell[metric]["verdict"] for cell in compared["cells"].values())
    cells = "languages" if data["task"] == "classify" else "cells"
    counts = ", ".join(f"{count} {VERDICTS[verdict]}" for verdict, count in sorted(tally.items()))
    lines.append(f"{who}, {title}: of {len(compared['cells'])} {cells} {counts} (Holm-corrected over {cells}).")
    if primary := [compared["averages"][name][metric]["verdict"] for name in compared["primary"]]:
        lines += _write_conclusion(who, title, primary)
    return lines


def _describe_difference(number: Mapping[str, Any], over: str) -> str:
    """Describes a difference by its interval and its verdict."""
    verdict = VERDICTS[number["verdict"]]
    if number["verdict"] == statistics.IDENTICAL:
        return verdict
    corrected = " (Holm-corrected)" if verdict.startswith("significantly") else ""
    return f"{format_difference(number, f'95% interval {over}')}: {verdict}{corrected}"


def _write_conclusion(who: str, title: str, verdicts: list[str]) -> list[str]:
    """Says which of the primary means show no improvement."""
    if all(verdict == statistics.BETTER for verdict in verdicts):
        return []
    if statistics.WORSE in verdicts:
        return [f"{who}, {title}: significantly worse on at least one of the primary means."]
    if statistics.BETTER in verdicts:
        what = "significantly better on some of the primary means, no significant difference on the others"
        return [f"{who}, {title}: {what}."]
    return [f"{who}, {title}: no significant difference on the primary means."]
