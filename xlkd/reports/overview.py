# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Builds the first screen of a data set: what was compared, what the differences are, and how sure they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

from xlkd.reports import badges, forest, heatmaps, words
from xlkd.reports.files import Record

MOST_SYSTEMS = 24
MOST_EXCEPTIONS = 2  # sets of training languages that are named beside the usual one


def show_overview(data: Record, stages: Record) -> str:
    """Shows the differences with their intervals, the main means by system, and the small heat maps."""
    top = f'<div class="top">{_show_differences(data)}{_show_averages(data)}</div>'
    return f"{_describe_systems(data, stages)}{top}{heatmaps.draw_heatmaps(data)}"


def _describe_systems(data: Record, stages: Record) -> str:
    """Names the systems, the cells that they were measured on, and the languages with labels in their training."""
    systems = data["systems"]
    names = [_describe_system(name) for name in list(systems)[:MOST_SYSTEMS]]
    names += [f"{len(systems) - MOST_SYSTEMS} more"] if len(systems) > MOST_SYSTEMS else []
    sizes = [[cell["n"] for cell in system["cells"].values()] for system in systems.values()]
    most = max(sizes, key=len)
    cells = f"{len(most)} cell{'s' if len(most) > 1 else ''} with {sum(most):,} scored rows"
    over = f"{' a draw' if 'draws' in data else ''}, {_count_seeds(data)}" if _count_seeds(data) else ""
    metric = escape(words.label_in_set(data, data["main"]))
    trained = _list_training_languages(list(systems), stages)
    return f'<p class="what">{metric} of {", ".join(names)}, on {cells}{over}.{trained}</p>'


def _list_training_languages(systems: Sequence[str], stages: Record) -> str:
    """Writes the languages with labels in training, with the systems for which they differ from the most frequent."""
    seen = {name: " ".join(stages[name]["seen"].get("training", ())) or "no language" for name in systems}
    usual, *others = [languages for languages, _ in Counter(seen.values()).most_common()]
    parts = [usual]
    for languages in others[:MOST_EXCEPTIONS]:
        names = ", ".join(name for name in systems if seen[name] == languages)
        parts.append(f"{names}: {languages}")
    more = f"; {len(others) - MOST_EXCEPTIONS} other sets" if len(others) > MOST_EXCEPTIONS else ""
    return f" Labels in training: {escape('; '.join(parts) + more)}."


def _count_seeds(data: Record) -> str:
    """Writes how many draws or seeds there are; nothing for one."""
    seeds = {seed for system in data["systems"].values() for seed in system["seeds"]}
    return f"{len(seeds)} {'draws' if 'draws' in data else 'seeds'}" if len(seeds) > 1 else ""


def _describe_system(name: str) -> str:
    """Returns a system's name, and what it is where it is a known control."""
    known = words.STAGES.get(name.rpartition("/")[2].partition(" (")[0])
    return f"<b>{escape(name)}</b>{f' {known}' if known else ''}"


def _show_differences(data: Record) -> str:
    """Shows the differences in the means that were chosen in advance, those of the primary comparisons first."""
    differences = forest.list_differences(data, _choose_means)
    if not differences:
        return ""
    chosen = {name for compared in data["comparisons"].values() for name in _choose_means(compared)}
    means = [words.shorten_average(name, _collect_means(data).get(name)) for name in chosen]
    where = ", ".join([words.label_in_set(data, data["main"]), *(means if len(means) == 1 else ())])
    heading = f"Differences in {where}: {forest.count_verdicts(differences)}"
    return (
        f'<section class="differences"><h3>{escape(heading)}</h3>{forest.draw_forest(differences)}'
        f'<p class="soft">{escape(_explain_intervals(data, differences))}</p></section>'
    )


def _explain_intervals(data: Record, differences: Sequence[forest.Difference]) -> str:
    """Says what the intervals are over, and which differences were tested together."""
    captions = "; ".join(dict.fromkeys(compared["caption"] for compared in data["comparisons"].values()))
    parts = [f"95% intervals, {captions}."]
    if _count_seeds(data):
        parts.append(f"Small dots: single {'draws' if 'draws' in data else 'seeds, with their t-interval'}.")
    family = sum(each.primary for each in differences)
    corrected = f", those of the {family} primary differences together" if family > 1 else ""
    if "draws" not in data:
        parts.append(f"Verdicts are Holm-corrected{corrected}.")
    elif family < len(differences):
        what = (
            f"{family} primary differences are tested, Holm-corrected" if family > 1 else "primary difference is tested"
        )
        parts.append(f"Only the {what}.")
    elif family > 1:
        parts.append("Verdicts are Holm-corrected together.")
    return " ".join(parts)


def _choose_means(compared: Record) -> Sequence[str]:
    """Returns the means that were chosen in advance, or where they cannot be compared the first main mean."""
    return compared["primary"] or words.list_main_means(compared["averages"])[:1]


def _collect_means(data: Record) -> Record:
    """Returns the means that any system has."""
    return {name: entry for system in data["systems"].values() for name, entry in system["averages"].items()}


def _show_averages(data: Record) -> str:
    """Shows a row for each system, with a column for each main mean; below them the differences in the other means."""
    metric, systems = data["main"], data["systems"]
    means = _collect_means(data)
    names = words.list_main_means(means)
    head = "".join(f'<th scope="col">{escape(words.shorten_average(name, means[name]))}</th>' for name in names)
    rows = []
    for system, numbers in list(systems.items())[:MOST_SYSTEMS]:
        cells = "".join(_show_average(numbers["averages"].get(name), metric) for name in names)
        rows.append(f'<tr><th scope="row">{escape(system)}</th>{cells}</tr>')
    more = f"<p>{len(systems) - MOST_SYSTEMS} more are in the tables.</p>" if len(systems) > MOST_SYSTEMS else ""
    label = escape(
        words.label_in_set(data, metric) + (f" (interval), sd of {seeds}" if (seeds := _count_seeds(data)) else "")
    )
    return (
        f'<section class="averages"><h3>Means by control: {label}</h3><div class="scroll"><table>'
        f'<tr><th scope="col">control</th>{head}</tr>{"".join(rows)}</table></div>{more}{_explain_badges(means)}'
        f"{_show_others(data)}</section>"
    )


def _explain_badges(means: Record) -> str:
    """Says in a few words what the badges of the means are, and the means of a grid."""
    letters = badges.join_badges(list(means.values()))["badges"]
    texts = [", ".join(f"{letter}: {badges.BRIEF[letter]}" for letter in letters)] if letters else []
    if "gxlt" in means:
        texts.append("XLT: same language, G-XLT: all pairs")
    return f'<p class="soft">{escape(". ".join(texts))}.</p>' if texts else ""


def _show_others(data: Record) -> str:
    """Shows the differences in the main means that were not chosen in advance."""
    differences = forest.list_differences(
        data,
        lambda compared: [
            name for name in words.list_main_means(compared["averages"]) if name not in _choose_means(compared)
        ],
    )
    if not differences:
        return ""
    return f"<details><summary>Differences in the other means</summary>{forest.draw_forest(differences)}</details>"


def _show_average(entry: Record | None, metric: str) -> str:
    if entry is None or metric not in entry:
        return "<td>–</td>"
    value, _, interval = words.format_score(entry[metric]).partition(" ")
    meanings = escape("; ".join(f"{letter}: {badges.MEANING[letter]}" for letter in entry["badges"]))
    letters = f'<span class="b" title="{meanings}">{"".join(entry["badges"])}</span>' if entry["badges"] else ""
    if "by_seed" in entry[metric]:
        interval = f"{interval} sd {words.format_spread(entry[metric]['by_seed'])}".strip()
    return f"<td><b>{value}</b> <small>{interval}</small>{letters}</td>"
