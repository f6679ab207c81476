# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Builds the report as one page of at most five megabytes, which needs no network and no other file."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from html import escape

from xlkd.files import encode_text
from xlkd.reports import behaviour, explorer, files, looks, overlaps, overview, panels, sheets, tables, words
from xlkd.reports.files import Record
from xlkd.reports.results import DataSet

MOST_BYTES = 5_000_000
MOST_EXPLORED = 2_500_000
LEAST_EXPLORED = 200_000
MOST_NAMED = 6  # runs, seeds, configs and commits in the first line
_EXPLORER = (
    '<p class="soft">In the context: <span class="gold">gold answer</span>, <span class="was">baseline</span>, '
    '<span class="now">system</span>. Fixed: exactly right in the system and not in the baseline; broken: the '
    "reverse.</p><noscript><p>Scripts are disabled. Only the questions need them.</p></noscript>"
    '<div id="explorer"></div>'
)


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page, which may be folded, and whether it may be left out if the page is too large."""

    anchor: str
    heading: str
    markup: str
    folded: bool = False
    needed: bool = False
    css_class: str = "part"

    def show(self) -> str:
        """Returns the section with its heading."""
        heading = f"<h2>{escape(self.heading)}</h2>"
        if self.folded:
            return f'<details id="{self.anchor}" class="fold"><summary>{heading}</summary>{self.markup}</details>'
        return f'<section id="{self.anchor}" class="{self.css_class}">{heading}{self.markup}</section>'


def build_page(results: Record, answers: Mapping[str, DataSet], runs: Sequence[files.Run]) -> str:
    """Builds the page from the content of results.json; a section that does not fit is replaced by a note.

    The first screen answers what was compared, what the differences are and how sure they are; tables are folded.
    """
    plain = sheets.show_without_intervals(results)
    sections = [
        *(
            Section(
                f"set{i}", title, overview.show_overview(data, results["stages"]), needed=i == 0, css_class="overview"
            )
            for i, (title, data) in enumerate(results["sets"].items())
        ),
        Section("plain", "Scores without intervals", plain, folded=bool(results["sets"])),
        Section("key", "How to read", sheets.show_legend(results), folded=True),
        Section("curves", "Learning curves", panels.draw_compared(runs)),
        Section("coefficient", "Coefficient", panels.draw_coefficient(runs)),
        Section("cost", "Cost", sheets.show_stages(results) + _show_time(results)),
        Section("contamination", "Contamination", overlaps.show_overlaps(results)),
        Section("questions", "Single questions", _introduce_questions(results)),
        Section("words", "In words", _show_sentences(results), folded=True),
        *(
            Section(f"tables{i}", f"Tables: {title}", sheets.show_data_set(data), folded=True)
            for i, (title, data) in enumerate(results["sets"].items())
        ),
        Section("panels", "Logged metrics by stage", panels.draw_curves(runs), folded=True),
        Section("pictures", "From the methods", panels.draw_pictures(runs), folded=True),
        Section("left", "Left out", _show_notes(results), folded=True),
    ]
    sections = _drop_largest([section for section in sections if section.markup], MOST_BYTES - LEAST_EXPLORED - 100_000)
    room = MOST_BYTES - 100_000 - sum(len(encode_text(section.markup)) for section in sections)
    embedded = explorer.embed_json(explorer.make_data(results, answers, runs, min(room, MOST_EXPLORED)))
    return _format_page(results, sections, embedded)


def _format_page(results: Record, sections: Sequence[Section], embedded: str) -> str:
    title = "Report: " + _name_runs(results["runs"])
    links = "".join(f'<a href="#{section.anchor}">{escape(section.heading)}</a>' for section in sections)
    body = "".join(section.show() for section in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_write_policy()}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{looks.STYLE}</style></head><body>"
        f"<header><h1>{escape(title)}</h1>{_list_runs(results)}{_summarise_facts(results)}<nav>{links}</nav></header>"
        f"<main>{_warn(results)}{body}</main>"
        '<div id="tip" aria-hidden="true" hidden></div>'
        f'<script type="application/json" id="data">{embedded}</script>'
        f"<script>{behaviour.SCRIPT}</script></body></html>\n"
    )


def _name_runs(runs: Sequence[Record]) -> str:
    """Names the folders of the runs, or the folder in which several of them lie."""
    places = [run["workdir"].rstrip("/").rpartition("/") for run in runs]
    parents = {parent for parent, _, _ in places}
    if len(runs) > 1 and len(parents) == 1 and (parent := parents.pop()):
        return f"{parent.rpartition('/')[2]}, {len(runs)} runs"
    return _join_names([name for _, _, name in places])


def _write_policy() -> str:
    """Returns a content security policy that loads nothing and allows only the page's own style and script."""
    style, script = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (looks.STYLE, behaviour.SCRIPT)
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
    summary = escape(_summarise_runs(results))
    return f'<details class="runs"><summary>{summary}</summary><ul>{"".join(lines)}</ul></details>'


def _summarise_facts(results: Record) -> str:
    """Writes in a line what the runs cost, and whether evaluation examples occur in training data."""
    parts = [("contamination", overlaps.summarise_overlaps(results))]
    seconds = [run["goodput"]["seconds"] for run in results["runs"] if run.get("goodput")]
    if seconds:
        devices = _name_devices(list(dict.fromkeys(name for run in results["runs"] for name in run["devices"] or ())))
        pairs = _join_names([f"{pair['a']} against {pair['b']}" for pair in results["budgets"]])
        unequal = f", unequal budgets of {pairs}" if pairs else ""
        parts.insert(0, ("cost", f"{words.format_duration(sum(seconds))}, {devices}{unequal}"))
    texts = (f'<a href="#{name}">{name.capitalize()}</a>: {escape(text)}' for name, text in parts)
    return f'<p class="facts">{" · ".join(texts)}</p>'


def _summarise_runs(results: Record) -> str:
    """Writes in one line how many runs there are, their seeds, configs and commits."""
    runs = results["runs"]
    configs = list(dict.fromkeys(run["config"] for run in runs))
    values = {
        "seed": [str(run["seed"]) for run in runs],
        "config": configs if len(configs) == 1 else [],
        "commit": [(run.get("git") or "unknown")[:12] for run in runs],
    }
    parts = [f"{name}{'s' if len(set(each)) > 1 else ''} {_join_names(each)}" for name, each in values.items() if each]
    return ", ".join([f"{len(runs)} run{'s' if len(runs) > 1 else ''}", results["state"], *parts])


def _join_names(names: Sequence[str]) -> str:
    """Joins the first of the names that differ, and counts the others."""
    unique = list(dict.fromkeys(names))
    more = f" and {len(unique) - MOST_NAMED} more" if len(unique) > MOST_NAMED else ""
    return ", ".join(unique[:MOST_NAMED]) + more


def _list_commits(run: Record) -> str:
    """Lists the models and data sets that a run took from the hub."""
    commits = [*(run.get("models") or {}).items(), *(run.get("data_sets") or {}).items()]
    names = ", ".join(f"{escape(name)} at commit <code>{escape(commit)}</code>" for name, commit in commits)
    return f"<br>From the hub: {names}" if names else ""


def _name_devices(devices: Sequence[str]) -> str:
    return ", ".join(devices[:2]) + (f" and {len(devices) - 2} more" if len(devices) > 2 else "") or "devices not known"


def _warn(results: Record) -> str:
    """Says above all numbers that a run is not finished, and that examples of a test set occur in training data."""
    unfinished = [
        f"<li>{escape(run['workdir'])}, stage {escape(name)}: {escape(tables.describe_state(stage))}</li>"
        for run in results["runs"]
        for name, stage in run["stages"].items()
        if stage["state"] != files.DONE
    ]
    parts = []
    if unfinished:
        parts.append(f'<div class="warn"><p>This run is not finished.</p><ul>{"".join(unfinished)}</ul></div>')
    if words.write_warnings(results):
        parts.append(
            '<p class="warn">Some evaluation examples occur in the training data (badge C): '
            '<a href="#contamination">contamination</a>.</p>'
        )
    return "".join(parts)


def _introduce_questions(results: Record) -> str:
    several = any("draws" in data for data in results["sets"].values())
    return ('<p class="soft">The questions are those of the first draw.</p>' if several else "") + _EXPLORER


def _show_sentences(results: Record) -> str:
    if not results["sentences"]:
        return (
            "<p>No stages have been compared: <code>report.compare</code> names none, or they are not finished yet.</p>"
        )
    return f'<ul class="said">{"".join(f"<li>{escape(line)}</li>" for line in results["sentences"])}</ul>'


def _show_time(results: Record) -> str:
    shown = sheets.show_goodput(results)
    return f"<h3>Where the time went</h3>{shown}" if shown else ""


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
    note = "<p>Left out: too large for one page. The numbers are in results.json.</p>"
    while sum(len(encode_text(section.markup)) for section in fitted) > room:
        largest = max(range(len(fitted)), key=lambda i: (not fitted[i].needed, len(fitted[i].markup)))
        fitted[largest] = dataclasses.replace(fitted[largest], markup=note, needed=True)
    return fitted
