# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Shows which evaluation examples occur in training data, and what was checked where none do."""

from __future__ import annotations

from html import escape

from xlkd.reports import sheets, words
from xlkd.reports.files import Record

CHECKS = {
    "parallel id": "the same id, or a translation's, in any language",
    "same paragraph": "the same text or group, ignoring case and punctuation",
    "near-duplicate": "nearly the same text, by character 5-grams",
}


def show_overlaps(results: Record) -> str:
    """Shows for each stage and evaluation set how many examples were checked and how many occur in training data."""
    records = [
        (f"{name}, {where}", matches)
        for name, stage in results["stages"].items()
        for where, matches in (stage.get("contamination") or {}).items()
    ]
    unrecorded = [name for name, stage in results["stages"].items() if not stage.get("contamination")]
    parts = [f'<p class="warn">{escape(line)}</p>' for line in words.write_warnings(results)]
    if records and not parts:
        rows = max(matches["rows"] for _, matches in records)
        parts.append(f"<p>None of the evaluation examples (up to {rows:,} a stage) occur in its training data.</p>")
    if records:
        parts.append(f"<p>Checked: {'; '.join(f'<b>{kind}</b> ({what})' for kind, what in CHECKS.items())}.</p>")
        parts.append(_show_table(records))
    if unrecorded:
        parts.append(f"<p>No record of a check (labels or parallel text only): {escape(', '.join(unrecorded))}.</p>")
    return "".join([*parts, _show_examples(records)])


def summarise_overlaps(results: Record) -> str:
    """Says in a few words whether evaluation examples were found in training data, and how many were checked."""
    records = [
        matches for stage in results["stages"].values() for matches in (stage.get("contamination") or {}).values()
    ]
    if not records:
        return "not checked"
    if any(matches["flagged"] for matches in records):
        return "found, see badge C"
    rows = max(matches["rows"] for matches in records)
    unchecked = any(not stage.get("contamination") for stage in results["stages"].values())
    each = " a run" if len(results["runs"]) > 1 else ""
    return f"none found, {rows:,} examples checked{each}{', not in all stages' if unchecked else ''}"


def _show_table(records: list[tuple[str, Record]]) -> str:
    kinds = list(dict.fromkeys(kind for _, matches in records for kind in matches.get("kinds", {})))
    rows = [["stage, evaluation set", "examples checked", "in training data", *kinds]]
    for name, matches in records:
        counts = (matches.get("kinds", {}).get(kind) for kind in kinds)
        numbers = (matches["rows"], matches["flagged"], *counts)
        rows.append([name, *("–" if number is None else f"{number:,}" for number in numbers)])
    return sheets.wrap_rows(rows)


def _show_examples(records: list[tuple[str, Record]]) -> str:
    lines = []
    for name, matches in records:
        if matches["flagged"]:
            kinds = ", ".join(f"{kind}: {count:,}" for kind, count in matches.get("kinds", {}).items() if count)
            text = f"{name}: {matches['flagged']:,} of {matches['rows']:,} rows ({kinds})"
            lines.append(f"<li>{escape(text)}{_show_matched_examples(matches)}</li>")
    if not lines:
        return ""
    return f"<details><summary>Examples that occur in the training data</summary><ul>{''.join(lines)}</ul></details>"


def _show_matched_examples(matches: Record) -> str:
    items = [
        f"<li><small>{escape(', '.join(str(example.get(key, '')) for key in ('kind', 'id', 'language')))}: "
        f'<span dir="auto">{escape(str(example.get("text", "")))}</span></small></li>'
        for example in matches.get("examples", ())[:3]
        if isinstance(example, dict)
    ]
    return f"<ul>{''.join(items)}</ul>" if items else ""
