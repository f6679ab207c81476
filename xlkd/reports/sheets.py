# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Builds the tables of the page: budgets, means, heat maps of a grid, tables by language, differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from xlkd.languages import get_name
from xlkd.reports import badges, tables, words
from xlkd.reports import goodput as times
from xlkd.reports.files import Record
from xlkd.rows import Cell

BUDGET = {"rows": "examples", "steps": "steps", "lr": "learning rate", "parameters": "parameters", "seconds": "seconds"}
ZERO_SHOT_MARK = "Z"


def show_legend(results: Record) -> str:
    """Explains badges, intervals and verdicts."""
    letters = tables.list_used_badges(results)
    meanings = [f"<b>{letter}</b> {badges.MEANING[letter]}" for letter in letters]
    meanings.append(f"<b>{ZERO_SHOT_MARK}</b> may be called zero-shot: none of T, S, K, C, ?")
    records = [stage["seen"] for stage in results["stages"].values() if stage.get("seen") is not None]
    unknown = list(dict.fromkeys(letter for seen in records for letter in badges.list_unrecorded(seen)))
    never_shown = (
        f" Not recorded, so never shown: {', '.join(f'{x} ({badges.MEANING[x]})' for x in unknown)}." if unknown else ""
    )
    return (
        f'<p class="soft">Badges: {"; ".join(meanings)}.{never_shown} A pair has the badges of both languages.</p>'
        f"{_explain_intervals(results)}{_explain_means(results)}{_explain_scores(results)}{_name_languages(results)}"
    )


def _explain_intervals(results: Record) -> str:
    """Says how intervals were computed and what was tested, for data sets with draws and without."""
    kinds = {"draws" in data for data in results["sets"].values()}
    how, texts = results["statistics"], []
    if False in kinds:
        texts.append(
            f"Small numbers are 95% intervals ({how['resamples']:,} resamples of whole groups, seed {how['seed']}). "
            "Significance is Holm-corrected over all cells of a table, so a cell whose interval excludes 0 may have no "
            "significant difference; in the small maps an outline says that a difference is significant."
        )
    if True in kinds:
        texts.append(
            "Over draws, small numbers are 95% t-intervals of the mean over draws, and only the primary differences "
            "are tested, each metric with its own Holm correction. A dashed outline in the small maps says that the "
            "interval of a cell has no 0: of cells without any difference one in twenty has one by chance."
        )
    texts.append("In tables only significantly better (▲) and significantly worse (▼) have a colour.")
    return f'<p class="soft">{" ".join(texts)}</p>' if results["sets"] else ""


def _explain_scores(results: Record) -> str:
    """Says what F1 of answers compares."""
    if all(data["task"] != "qa" for data in results["sets"].values()):
        return ""
    return (
        '<p class="soft">Scores of answers are those of the official scripts. F1 by the rules of SQuAD compares what '
        "stands between spaces, so that in Chinese, Japanese and Thai an answer is nearly always right or wrong as a "
        "whole; the rules of MLQA split Chinese into characters.</p>"
    )


def _explain_means(results: Record) -> str:
    """Says which cells the means of a grid are over."""
    if not any(
        "gxlt" in system["averages"] for data in results["sets"].values() for system in data["systems"].values()
    ):
        return ""
    return (
        '<p class="soft">Means: <b>XLT</b> over the cells with question and context in the same language (the diagonal '
        "of the grid); <b>G-XLT</b> over all pairs of languages, with or without the diagonal.</p>"
    )


def _name_languages(results: Record) -> str:
    """Lists the languages of all data sets with their English names."""
    tags = sorted({tag for data in results["sets"].values() for cell in _list_languages(data) for tag in cell})
    names = ", ".join(f"<b>{escape(tag)}</b> {escape(get_name(tag))}" for tag in tags)
    return f'<p class="soft">Languages: {names}.</p>' if tags else ""


def show_stages(results: Record) -> str:
    """Shows the budget of each stage, and marks where the budgets of compared systems differ."""
    if not results["stages"]:
        return "<p>No stage has ended yet.</p>"
    unequal = {(pair[side], key) for pair in results["budgets"] for key in pair["differ"] for side in "ab"}
    several = any(len(stage["seeds"]) > 1 for stage in results["stages"].values())
    budget = [*list(BUDGET.values())[:-1], "seconds of the first seed" if several else BUDGET["seconds"]]
    head = _format_head(["stage", "method", "started from", *budget, "seeds", "labels seen in training"])
    rows = []
    for name, stage in results["stages"].items():
        start = " at commit ".join(filter(None, (stage.get("start"), stage.get("commit"))))
        cells = [_format_text_cell(stage.get("method")), _format_text_cell(start)]
        cells += [_format_text_cell(stage.get(key), "≠" if (name, key) in unequal else "") for key in BUDGET]
        seen = stage.get("seen")
        cells += [
            _format_text_cell(" ".join(map(str, stage["seeds"]))),
            _format_text_cell(" ".join((seen or {}).get("training", ())) or "none"),
        ]
        rows.append(f"<tr>{_format_name(name)}{''.join(cells)}</tr>")
    lines = [
        f"<li>{escape(pair['a'])} against {escape(pair['b'])}: {escape(tables.format_budget(pair['differ']))}</li>"
        for pair in results["budgets"]
    ]
    marked = f"<p>≠ Compared systems with unequal budgets:</p><ul>{''.join(lines)}</ul>" if lines else ""
    return _wrap_table(head + "".join(rows)) + marked


def show_data_set(data: Record) -> str:
    """Shows all tables of one data set."""
    parts = [f'<p class="soft">{_describe_data_set(data)}</p>']
    parts.append(_show_side_by_side(data, "means", _show_averages))
    if data["task"] == "qa" and _is_grid(data):
        for metric in data["metrics"]:
            heading = f"{words.label_in_set(data, metric)}: question language × context language"
            parts.append(f"<h3>{escape(heading)}</h3>{_show_maps(data, metric)}")
    else:
        parts.append(_show_side_by_side(data, "by language", _show_cells))
    parts += [_show_counts(data), _show_unanswerable(data), _show_em_at(data), _show_ceilings(data)]
    return "".join(parts)


def show_without_intervals(results: Record) -> str:
    """Shows the scores of stages that have no scores by example, and so no intervals."""
    parts = []
    for where, systems in results["plain"].items():
        seen = "; ".join(
            f"{name}: labels seen in training: {' '.join(entry['seen'].get('training', ())) or 'none'}"
            for name, entry in systems.items()
        )
        note = f'<p class="soft">No intervals, because there are no scores by row. {escape(seen)}.</p>'
        parts.append(f"<h3>{escape(where)}</h3>{note}{wrap_rows(tables.make_plain_rows(systems))}")
    return "".join(parts)


def show_goodput(results: Record) -> str:
    """Shows the seconds and the share of each part of the time, with a column for each run."""
    runs = [run for run in results["runs"] if run.get("goodput")]
    if not runs:
        return ""
    records = [run["goodput"] for run in runs]
    parts = [part for part in times.NAMES if any(part in record["parts"] for record in records)]
    rows = [
        f"<tr>{_format_name(times.NAMES[part])}{''.join(_format_time(record, part) for record in records)}</tr>"
        for part in parts
    ]
    for key in ("starts", "steps_again", "seconds_between_starts"):
        rows.append(
            f"<tr>{_format_name(key.replace('_', ' '))}"
            f"{''.join(_format_text_cell(record[key]) for record in records)}</tr>"
        )
    note = (
        '<p class="soft">Sums over all starts of a run; a start that was killed counts until its last printed step.</p>'
    )
    return note + _wrap_table(_format_head(["", *(run["workdir"] for run in runs)]) + "".join(rows))


def _format_time(record: Record, part: str) -> str:
    seconds = record["parts"].get(part, 0.0)
    return f"<td>{seconds:,.1f} s, {seconds / max(record['seconds'], 1e-9):.0%}</td>"


def _show_side_by_side(data: Record, what: str, table: Callable[[Record, str], str]) -> str:
    """Shows a table for each metric, side by side where there is room."""
    parts = [
        f"<div><h3>{escape(words.label_in_set(data, metric))}: {what}</h3>{table(data, metric)}</div>"
        for metric in data["metrics"]
    ]
    return f'<div class="pair">{"".join(parts)}</div>'


def _describe_data_set(data: Record) -> str:
    texts = list(dict.fromkeys(system["caption"] for system in data["systems"].values()))
    first = next(iter(data["systems"].values()))
    count = sum(cell["n"] for cell in first["cells"].values())
    groups = max(cell[data["main"]]["groups"] for cell in first["cells"].values())
    return escape(
        f"Evaluation set {data['in']}, {count:,} scored rows in {len(first['cells'])} cells, up to {groups:,} groups "
        f"a cell; {'; '.join(texts)}."
    )


def _show_averages(data: Record, metric: str) -> str:
    """Shows a row for each mean, with a column for each system and then for each difference."""
    names = [name for name in tables.list_averages(data, metric) if "[" not in name]
    rows = []
    for name in names:
        entry = next(s["averages"][name] for s in data["systems"].values() if name in s["averages"])
        cells = [_format_score(system["averages"].get(name), metric) for system in data["systems"].values()]
        cells += [_format_verdict(c["averages"].get(name), metric) for c in data["comparisons"].values()]
        over = "" if len(entry["cells"]) > 12 else ", ".join((*entry["cells"], *entry.get("against", ())))
        rows.append(f"<tr>{_format_name(words.describe_average(name, entry), over)}{''.join(cells)}</tr>")
    if data["task"] == "qa":
        worst = [_format_score({metric: w, **w}, metric, w["cell"]) for w in tables.list_worst_cells(data, metric)]
        rows.append(f"<tr>{_format_name('worst cell')}{''.join(worst)}{'<td>–</td>' * len(data['comparisons'])}</tr>")
    if metric == "accuracy":
        floor = f"<td>{words.format_number(data['majority']['macro_mean'])}</td>" * len(data["systems"])
        rows.append(f"<tr>{_format_name('majority class')}{floor}{'<td>–</td>' * len(data['comparisons'])}</tr>")
    return _wrap_table(_name_columns(data, "mean") + "".join(rows))


def _show_cells(data: Record, metric: str) -> str:
    """Shows a row for each language or pair of languages, with a column for each system and difference."""
    rows = []
    for cell in tables.list_cells(data):
        entries = [system["cells"].get(cell) for system in data["systems"].values()]
        cells = [_format_score(entry, metric) for entry in entries]
        cells += [_format_verdict(c["cells"].get(cell), metric) for c in data["comparisons"].values()]
        first = next(entry for entry in entries if entry)
        about = f"{first['word']}, n = {first['n']:,}" if data["task"] != "retrieval" else f"n = {first['n']:,}"
        if metric == "accuracy":
            cells.append(f"<td>{words.format_number(data['majority'].get(cell))}</td>")
        rows.append(f"<tr>{_format_name(cell, about)}{''.join(cells)}</tr>")
    more = ["majority class"] if metric == "accuracy" else []
    return _wrap_table(_name_columns(data, "language", more) + "".join(rows))


def _name_columns(data: Record, first: str, more: Sequence[str] = ()) -> str:
    pairs = [f"{pair['a']} − {pair['b']}" for pair in data["comparisons"].values()]
    return _format_head([first, *data["systems"], *pairs, *more])


# Heat maps


def _show_maps(data: Record, metric: str) -> str:
    languages = sorted({language for pair in _list_languages(data) for language in pair})
    maps = [_show_map(name, system, metric, languages, _format_heat_cell) for name, system in data["systems"].items()]
    for pair in data["comparisons"].values():
        maps.append(_show_map(f"{pair['a']} − {pair['b']}", pair, metric, languages, _format_change_cell))
    return f'<div class="maps">{"".join(maps)}</div>'


def _show_map(title: str, numbers: Record, metric: str, languages: Sequence[str], cell: Callable[..., str]) -> str:
    """Shows question languages in rows and context languages in columns, with means in the margins."""
    margins = [("mean", "by_{}[{}]"), ("off diag.", "by_{}_off[{}]")]
    complete_means = {name: entry for name, entry in numbers["averages"].items() if not entry.get("missing")}
    head = _format_head(["Q \\ C", *languages, *(label for label, _ in margins)])
    rows = []
    for question in languages:
        cells = [cell(numbers["cells"].get(str(Cell("", (question, context)))), metric) for context in languages]
        cells += [cell(complete_means.get(name.format("question", question)), metric, "m") for _, name in margins]
        rows.append(f'<tr><th scope="row">{escape(question)}</th>{"".join(cells)}</tr>')
    for i, (label, name) in enumerate(margins):
        cells = [cell(complete_means.get(name.format("context", context)), metric, "m") for context in languages]
        corner = [cell(complete_means.get("gxlt"), metric, "m"), cell(None, metric, "m")]
        corner = corner if i == 0 else [cell(None, metric, "m"), cell(complete_means.get("gxlt_off"), metric, "m")]
        rows.append(f'<tr><th scope="row">{label}</th>{"".join(cells + corner)}</tr>')
    return (
        f'<div><h4>{escape(title)}</h4><div class="scroll"><table class="map">{head}{"".join(rows)}</table></div></div>'
    )


def _format_heat_cell(entry: Record | None, metric: str, css_class: str = "") -> str:
    """Returns a cell of the map, coloured by the score unless a class is given."""
    if entry is None or metric not in entry:
        return '<td class="m">–</td>' if css_class else "<td>–</td>"
    shade = css_class or f"h{min(10, max(0, round(entry[metric]['value'] / 10)))}"
    value = words.format_number(entry[metric]["value"])
    return f'<td class="{shade}">{value}{_format_interval(entry[metric])}{_format_badges(entry)}</td>'


def _format_change_cell(entry: Record | None, metric: str, css_class: str = "") -> str:
    """Returns a cell of the map of differences; a significant one is coloured, others have the class that is given."""
    if entry is None or metric not in entry:
        return '<td class="m">–</td>' if css_class else "<td>–</td>"
    number = entry[metric]
    shade = _choose_shade(number) or css_class
    mark = tables.MARKS.get(number["verdict"], "")
    details = f"{words.VERDICTS[number['verdict']]}, adjusted p {words.format_p(number['adjusted'])}"
    shown = f"{words.format_signed(number['value'])}{mark}{_format_interval(number)}{_format_badges(entry)}"
    return f'<td class="{shade}" title="{escape(details)}">{shown}</td>'


def _choose_shade(number: Record) -> str:
    """Returns the colour class of a significant difference."""
    side = {"better": "up", "worse": "down"}.get(number["verdict"])
    if side is None:
        return ""
    return f"{side}{1 + (abs(number['value']) >= 2) + (abs(number['value']) >= 5)}"


# Cells of tables


def _format_score(entry: Record | None, metric: str, label: str = "") -> str:
    if entry is None or metric not in entry:
        return "<td>–</td>"
    before = f"{escape(label)} " if label else ""
    value = words.format_number(entry[metric]["value"])
    return f"<td>{before}{value}{_format_interval(entry[metric])}{_format_badges(entry)}</td>"


def _format_verdict(entry: Record | None, metric: str) -> str:
    if entry is None or metric not in entry:
        return "<td>–</td>"
    number = entry[metric]
    mark = tables.MARKS.get(number["verdict"], "")
    p, adjusted = words.format_p(number["p"]), words.format_p(number["adjusted"])
    details = f"adjusted p {adjusted}, p {p}, {number['groups']} groups"
    verdict = f"<small>{escape(words.VERDICTS[number['verdict']])}</small>"
    shown = f"{words.format_signed(number['value'])} {mark}{_format_interval(number)}{verdict}"
    shown += f"{_format_seeds(number)}{_format_badges(entry)}"
    return f'<td class="{_choose_shade(number)}" title="{escape(details)}">{shown}</td>'


def _format_interval(number: Mapping[str, Any]) -> str:
    if number["low"] is None:
        return ""
    return f"<small>{words.format_number(number['low'])} to {words.format_number(number['high'])}</small>"


def _format_seeds(number: Mapping[str, Any]) -> str:
    if "by_seed" not in number:
        return ""
    values = " ".join(words.format_signed(value) for value in number["by_seed"])
    return f"<small>by seed {values}; sd {words.format_spread(number['by_seed'])}</small>"


def _format_badges(entry: Record) -> str:
    mark = [ZERO_SHOT_MARK] if entry["word"] == badges.ZERO_SHOT else []
    return f'<span class="b" title="{escape(entry["word"])}">{"".join([*entry["badges"], *mark]) or "·"}</span>'


def _format_text_cell(value: Any, mark: str = "") -> str:
    return f'<td class="left">{escape(tables.format_plain(value))} {mark}</td>'


def _format_name(text: str, small: str = "") -> str:
    below = f"<br><small>{escape(small)}</small>" if small else ""
    return f'<th scope="row" class="long">{escape(text)}{below}</th>'


def _format_head(names: Sequence[str]) -> str:
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    return f"<tr>{cells}</tr>"


def _wrap_table(rows: str) -> str:
    return f'<div class="scroll"><table>{rows}</table></div>'


def wrap_rows(rows: Sequence[Sequence[str]]) -> str:
    """Returns a table of texts: a head, then rows that begin with their names."""
    head, *others = rows
    body = "".join(
        f"<tr>{_format_name(row[0])}{''.join(f'<td>{escape(text)}</td>' for text in row[1:])}</tr>" for row in others
    )
    return _wrap_table(_format_head(head) + body)


# Below the tables


def _show_counts(data: Record) -> str:
    """Shows how many answers became right and how many became wrong, which a mean hides."""
    exact = "exactly right" if data["task"] == "qa" else "right"
    lines = []
    for pair in data["comparisons"].values():
        text = f"{words.describe_stage(pair['a'])} against {words.describe_stage(pair['b'])}: {pair['fixed']:,} rows "
        first = " in the first draw" if "draws" in data else ""
        text += f"fixed ({exact} now, not before){first}, {pair['broken']:,} broken; {pair['caption']}."
        if pair.get("not_compared"):
            names = ", ".join(words.describe_average(name) for name in pair["not_compared"])
            text += f" Not compared, because they cover different languages in the two: {names}."
        lines.append(f"<li>{escape(text)}</li>")
    return f"<ul>{''.join(lines)}</ul>" if lines else ""


def _show_unanswerable(data: Record) -> str:
    """Shows the numbers of SQuAD 2 for cells with unanswerable questions."""
    if "unanswerable" not in data:
        return ""
    table = wrap_rows(tables.make_unanswerable_rows(data))
    return f"<details open><summary>Questions with and without an answer</summary>{table}</details>"


def _show_em_at(data: Record) -> str:
    """Shows how many questions have an exactly right answer among the first k candidates."""
    if not (rows := tables.make_em_at_rows(data)):
        return ""
    summary = "Exactly right among the first answers: EM@1 to EM@10"
    return f"<details><summary>{summary}</summary>{wrap_rows(rows)}</details>"


def _show_ceilings(data: Record) -> str:
    """Shows the best scores that are possible with the windows and lengths of the task."""
    ceilings = data.get("ceilings")
    if not ceilings:
        return ""
    metrics = list(dict.fromkeys(metric for scores in ceilings.values() for metric in scores))
    rows = []
    for language, scores in sorted(ceilings.items()):
        cells = "".join(f"<td>{words.format_number(scores.get(metric))}</td>" for metric in metrics)
        rows.append(f"<tr>{_format_name(language)}{cells}</tr>")
    head = _format_head(["language", *(words.label_metric(metric) for metric in metrics)])
    table = _wrap_table(head + "".join(rows))
    return f"<details><summary>Ceilings: the best that windows and lengths allow</summary>{table}</details>"


def _is_grid(data: Record) -> bool:
    return any(len(set(pair)) > 1 for pair in _list_languages(data))


def _list_languages(data: Record) -> list[list[str]]:
    """Lists the languages of each cell of each system."""
    return [cell["languages"] for system in data["systems"].values() for cell in system["cells"].values()]
