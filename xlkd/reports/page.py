# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Builds the report as one page of at most five megabytes, which needs no network and no other file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape

from xlkd.files import encode_text
from xlkd.reports import explorer, files, looks, panels, sheets, tables, words
from xlkd.reports.files import Record
from xlkd.reports.results import DataSet

MOST_BYTES = 5_000_000
MOST_EXPLORED = 2_500_000
LEAST_EXPLORED = 200_000

Section = tuple[str, str, str]  # anchor, heading, markup


def build_page(results: Record, answers: Mapping[str, DataSet], runs: Sequence[files.Run]) -> str:
    """Builds the page from the content of results.json; a section that does not fit is replaced by a note."""
    sections = [
        ("words", "In words", _show_sentences(results)),
        ("stages", "Stages and budgets", sheets.show_stages(results)),
        *((f"set{i}", title, sheets.show_data_set(data)) for i, (title, data) in enumerate(results["sets"].items())),
        ("plain", "Scores without intervals", sheets.show_without_intervals(results)),
        ("curves", "Learning curves", panels.draw_curves(runs)),
        ("pictures", "From the methods", panels.draw_pictures(runs)),
        ("time", "Where the time went", sheets.show_goodput(results)),
    ]
    sections = _drop_largest([section for section in sections if section[2]], MOST_BYTES - LEAST_EXPLORED - 100_000)
    room = MOST_BYTES - 100_000 - sum(len(encode_text(markup)) for *_, markup in sections)
    embedded = explorer.embed_json(explorer.make_data(results, answers, runs, min(room, MOST_EXPLORED)))
    explored = _show_explorer(embedded)
    return _format_page(
        results, [*sections, ("questions", "Single questions", explored), ("left", "Left out", _show_notes(results))]
    )


def _format_page(results: Record, sections: Sequence[Section]) -> str:
    title = "Report: " + ", ".join(run["workdir"].rstrip("/").rpartition("/")[2] for run in results["runs"])
    links = "".join(f'<a href="#{anchor}">{escape(heading)}</a>' for anchor, heading, _ in sections)
    body = "".join(f'<h2 id="{anchor}">{escape(heading)}</h2>{markup}' for anchor, heading, markup in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_write_policy()}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{looks.STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1>{_list_runs(results)}<nav>{links}</nav>{body}"
        f"<script>{looks.SCRIPT}</script></body></html>\n"
    )


def _write_policy() -> str:
    """Returns a content security policy that loads nothing and allows only the style and script of `looks`."""
    style, script = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (looks.STYLE, looks.SCRIPT)
    )
    return (
        f"default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _list_runs(results: Record) -> str:
    lines = []
    for run in results["runs"]:
        command = " ".join(run.get("command") or ())
        git = (run.get("git") or "no git revision")[:12] + (", changed since" if run.get("git_changes") else "")
        devices = _name_devices(run.get("devices") or ())
        lines.append(
            f"<li><b>{escape(run['workdir'])}</b>: {escape(run['state'])}, seed {run['seed']}, config "
            f"{escape(run['config'])}, {escape(git)}, {escape(devices)}<br><code>{escape(command)}</code>"
            f"{_list_commits(run)}</li>"
        )
    return f'<ul class="soft">{"".join(lines)}</ul>'


def _list_commits(run: Record) -> str:
    """Lists the models and data sets that a run took from the hub."""
    commits = [*(run.get("models") or {}).items(), *(run.get("data_sets") or {}).items()]
    names = ", ".join(f"{escape(name)} at commit <code>{escape(commit)}</code>" for name, commit in commits)
    return f"<br>From the hub: {names}" if names else ""


def _name_devices(devices: Sequence[str]) -> str:
    return ", ".join(devices[:2]) + (f" and {len(devices) - 2} more" if len(devices) > 2 else "") or "devices not known"


def _show_sentences(results: Record) -> str:
    unfinished = [
        f"<li>{escape(run['workdir'])}, stage {escape(name)}: {escape(tables.describe_state(stage))}</li>"
        for run in results["runs"]
        for name, stage in run["stages"].items()
        if stage["state"] != files.DONE
    ]
    parts = (
        [f'<div class="warn"><p>This run is not finished.</p><ul>{"".join(unfinished)}</ul></div>']
        if unfinished
        else []
    )
    parts += [f'<p class="warn">{escape(line)}</p>' for line in words.write_warnings(results)]
    parts.append(f'<ul class="said">{"".join(f"<li>{escape(line)}</li>" for line in results["sentences"])}</ul>')
    if not results["sentences"]:
        parts.append("<p>No stages have been compared: <code>report.compare</code> names none, or they are not "
                     "finished yet.</p>")  # fmt: skip
    return "".join(parts) + sheets.show_legend(results)


def _show_explorer(embedded: str) -> str:
    marks = (
        '<p class="soft">In the context: <span class="gold">gold answer</span>, <span class="was">baseline</span>, '
        '<span class="now">system</span>. Fixed: exactly right in the system and not in the baseline; broken: the '
        "reverse.</p>"
    )
    return (
        f"{marks}<noscript><p>Scripts are disabled. Only the questions need them.</p></noscript>"
        f'<div id="explorer"></div><script type="application/json" id="data">{embedded}</script>'
    )


def _show_notes(results: Record) -> str:
    lines = [
        "Scores of all questions are in stages/NN-NAME/rows of the work directory; those shown above are a seeded "
        "sample of whole groups, as many as fit on the page.",
        "Every number of this page is in results.json, with its p, groups and seeds.",
        *results["notes"],
    ]
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _drop_largest(sections: Sequence[Section], room: int) -> list[Section]:
    """Replaces the largest sections by a note until all of them fit in `room` bytes."""
    fitted = list(sections)
    while sum(len(encode_text(markup)) for *_, markup in fitted) > room:
        largest = max(range(len(fitted)), key=lambda i: len(fitted[i][2]))
        anchor, heading, _ = fitted[largest]
        fitted[largest] = (anchor, heading, "<p>Left out: too large for one page. The numbers are in results.json.</p>")
    return fitted
