# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes the tables and plots of the studies into the pages of `PAGES`: `make results`.

Between `<!-- results STUDY PART -->` and `<!-- end of results -->` stands what this module makes of the files in
docs/results/STUDY; PART is one of `PARTS`. `python docs/_results.py --check` writes nothing and names what differs.
"""

import functools
import html
import math
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import NamedTuple

from xlkd.reports import draws, words
from xlkd.reports.draws import Difference
from xlkd.reports.files import Record

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = ("docs/results.md", "docs/which-system.md", "README.md")
BLOCK = re.compile(r"(<!-- results (\S+) (\S+) -->\n).*?(<!-- end of results -->)", re.DOTALL)
WITHOUT_DRAWS = {"plot": "No draw has been run yet.", "summary": "Not decided yet: the study is running."}
CURVES = ("coefficient", "teacher_entropy", "agreement")  # metrics that are drawn by step
ROW, LEFT, RIGHT, BOTTOM, WIDTH = 34, 190, 20, 30, 720  # pixels of a plot
STYLE = (
    "text{font:13px sans-serif;fill:#222}line{stroke:#888}.mean{stroke:#222;stroke-width:2}rect{fill:#222}"
    "circle{fill:#1b6ca8}circle.other{fill:#c8611a}.curve{fill:none;stroke:#1b6ca8}.curve.other{stroke:#c8611a}"
    "@media(prefers-color-scheme:dark){text,rect{fill:#eee}.mean{stroke:#eee}circle{fill:#6bb3e8}circle.other{fill:#f0a060}}"
)


class Study(NamedTuple):
    """The draws of a folder of docs/results, by name, and what judges them."""

    name: str
    draws: dict[str, Record]
    primary: list[Difference]
    others: list[Difference]
    title: str
    average: str
    metric: str

    def count(self) -> str:
        """Returns the number of draws in words."""
        return "1 draw" if len(self.draws) == 1 else f"{len(self.draws)} draws"


def read_study(folder: pathlib.Path) -> Study:
    """Reads the kept draws of a study, of which there may be none yet."""
    records = draws.read_draws(folder)
    place = next(iter(records.values()))["judged_by"].split("/") if records else ["", "", ""]
    return Study(folder.name, records, *draws.judge_draws(records), *place)


def write_scores(study: Study) -> str:
    """Returns a table of the main averages by control: their mean over the draws, the lowest and the highest."""
    systems = [draw["sets"][study.title]["systems"] for draw in study.draws.values()]
    known = next(iter(systems[0].values()))["averages"]
    averages = [name for name in words.IN_SENTENCES if name in known]
    rows = []
    for control in systems[0]:
        cells = [f"`{control}`"]
        for average in averages:
            values = [system[control]["averages"][average][study.metric][0] for system in systems if control in system]
            spread = f" ({words.format_number(min(values))} to {words.format_number(max(values))})"
            cells.append(words.format_number(math.fsum(values) / len(values)) + (spread if len(values) > 1 else ""))
        rows.append(cells)
    return make_table([words.label_metric(study.metric), *map(words.describe_average, averages)], rows)


def write_differences(study: Study) -> str:
    """Returns a table of the differences: over draws with verdicts, and in each draw with its interval over questions.

    The primary ones are bold.
    """
    rows = []
    for each in (*study.primary, *study.others):
        label = f"`{each.name.replace(':', '` − `')}`"
        by_draw = [_format_draw(each, name) for name in study.draws]
        rows.append([f"**{label}**" if each in study.primary else label, draws.format_difference(each), *by_draw])
    return make_table(["difference", f"over {study.count()}", *map(_shorten, study.draws)], rows)


def write_summary(study: Study) -> str:
    """Returns a list with a line for each primary difference."""
    where = f"{study.title}, {words.label_metric(study.metric)}, {words.describe_average(study.average)}"
    return "\n".join(
        f"- `{each.name.replace(':', '` − `')}`: {draws.format_difference(each)} ({where}; {study.count()})"
        for each in study.primary
    )


def write_plot(study: Study) -> str:
    """Returns the link to the plot of a study."""
    return f"![{study.name}: differences between the controls, by draw and over draws](images/results-{study.name}.svg)"


def write_runs(study: Study) -> str:
    """Returns a table of what repeats each draw: commit, processor, and the versions that decide its numbers."""
    rows = []
    for name, draw in study.draws.items():
        known = draw["provenance"]
        versions = [each for each in known["packages"] if each.partition("==")[0] in ("jax", "jaxlib", "flax", "optax")]
        hours = math.fsum(stage["seconds"] or 0 for stage in draw["stages"].values()) / 3600
        machine = f"{known['processor']}, {known['cores']} cores"
        rows.append([_shorten(name), f"`{known['git'][:9]}`", machine, " ".join(versions), f"{hours:.1f} h"])
    return make_table(["", "commit", "machine", "packages", "training"], rows)


def write_curve(study: Study, metric: str) -> str:
    """Returns the link to the plot of a logged metric."""
    if not _list_curves(study, metric):
        return f"No draw has logged a changing `{metric}`."
    return f"![{study.name}: {metric} by step](images/results-{study.name}-{metric}.svg)"


PARTS = {
    "scores": write_scores,
    "differences": write_differences,
    "summary": write_summary,
    "plot": write_plot,
    "runs": write_runs,
    **{metric: functools.partial(write_curve, metric=metric) for metric in CURVES},
}


def _shorten(name: str) -> str:
    return name.replace("seed=", "draw ")


def _format_draw(difference: Difference, name: str) -> str:
    if name not in difference.by_draw:
        return "–"
    low, high = difference.within[name] or (None, None)
    return words.format_difference({"value": difference.by_draw[name], "low": low, "high": high})


def make_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def draw_plot(study: Study) -> str:
    """Draws a row for each difference: a point for each draw, coloured by its start, and the mean with its interval."""
    differences = [*study.primary, *study.others]
    values = [value for each in differences for value in (*each.by_draw.values(), each.low, each.high, 0.0)]
    shown = [value for value in values if value is not None]
    low, high = min(shown), max(shown)
    margin = 0.05 * ((high - low) or 1.0)
    scale = (WIDTH - LEFT - RIGHT) / (high - low + 2 * margin)
    starts = sorted({_find_start(draw) for draw in study.draws.values()})

    def place(value: float) -> str:
        return f"{LEFT + (value - low + margin) * scale:.1f}"

    height = ROW * len(differences) + BOTTOM
    parts = [f'<line x1="{place(0)}" x2="{place(0)}" y1="4" y2="{height - BOTTOM}"/>']
    for row, each in enumerate(differences):
        y = ROW * row + ROW // 2
        weight = ' font-weight="bold"' if each in study.primary else ""
        parts.append(f'<text x="4" y="{y + 4}"{weight}>{html.escape(each.name.replace(":", " − "))}</text>')
        if each.low is not None and each.high is not None:
            parts.append(f'<line class="mean" x1="{place(each.low)}" x2="{place(each.high)}" y1="{y}" y2="{y}"/>')
        parts.append(f'<rect x="{float(place(each.mean)) - 4:.1f}" y="{y - 4}" width="8" height="8"/>')
        for name, value in each.by_draw.items():
            other = ' class="other"' if _find_start(study.draws[name]) != starts[0] else ""
            tip = f"<title>{html.escape(_shorten(name))}: {words.format_signed(value)}</title>"
            parts.append(f'<circle{other} cx="{place(value)}" cy="{y + 10}" r="3.5">{tip}</circle>')
    for value in (low, 0.0, high):
        label = words.format_signed(value)
        parts.append(f'<text x="{place(value)}" y="{height - 10}" text-anchor="middle">{label}</text>')
    about = f"{study.title}, {words.label_metric(study.metric)}, {words.describe_average(study.average)}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{html.escape(about)}"><style>{STYLE}</style>{"".join(parts)}</svg>\n'
    )


def draw_curve(study: Study, metric: str) -> str:
    """Draws a logged metric by step: a line for each draw, coloured by control, and the edges of the generations."""
    curves = _list_curves(study, metric)
    last = max(steps[-1] for _, steps, _ in curves)
    values = [value for _, _, line in curves for value in line]
    low, high = min(values), max(values)
    height, controls = 260, list(dict.fromkeys(control for control, _, _ in curves))

    def place(step: float, value: float) -> tuple[float, float]:
        across = LEFT / 3 + (WIDTH - LEFT / 3 - RIGHT) * step / last
        return across, BOTTOM + (height - 2 * BOTTOM) * (high - value) / ((high - low) or 1.0)

    parts = []
    for edge in _find_generation_edges(study):
        x, _ = place(edge, low)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{BOTTOM}" y2="{height - BOTTOM}" stroke-dasharray="3"/>')
    for control, steps, line in curves:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, steps, line))
        other = "" if control == controls[0] else " other"
        parts.append(f'<polyline class="curve{other}" points="{points}"/>')
    for value in (low, high):
        parts.append(f'<text x="4" y="{place(0, value)[1] + 4:.1f}">{value:.2f}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{height - 8}" text-anchor="end">step {last}</text>')
    title = html.escape(f"{metric}: {' (blue), '.join(controls)}")
    parts.append(f'<text x="{LEFT / 3:.1f}" y="18">{title}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{metric} by step"><style>{STYLE}</style>{"".join(parts)}</svg>\n'
    )


def _list_curves(study: Study, metric: str) -> list[tuple[str, list[int], list[float]]]:
    """Returns control, steps and values of each draw in which a metric was logged and is not the same everywhere."""
    curves = []
    for draw in study.draws.values():
        for control, curve in draw["curves"].items():
            points = [(s, v) for s, v in zip(curve["step"], curve.get(metric, ()), strict=False) if v is not None]
            if len({value for _, value in points}) > 1:
                curves.append((control, [step for step, _ in points], [value for _, value in points]))
    return curves


def _find_generation_edges(study: Study) -> list[int]:
    """Returns the first logged step of each generation but the first, in the first draw with generations."""
    for draw in study.draws.values():
        for curve in draw["curves"].values():
            if numbers := curve.get("generation"):
                pairs = zip(curve["step"][1:], numbers, numbers[1:], strict=False)
                return [step for step, before, now in pairs if now != before]
    return []


def _find_start(draw: Record) -> str:
    """Returns the folder of the model that a draw starts from."""
    return next(iter(draw["stages"].values()))["start"] or ""


def make_files(root: pathlib.Path = ROOT) -> dict[pathlib.Path, str]:
    """Returns the content of every file that is made from the results, by its path."""
    studies = {path.name: read_study(path) for path in sorted((root / "docs" / "results").iterdir()) if path.is_dir()}

    def write_block(block: re.Match[str]) -> str:
        mark, name, part, end = block.groups()
        if name not in studies or part not in PARTS:
            sys.exit(f"error: {mark.strip()}: studies are {', '.join(studies)}, parts are {', '.join(PARTS)}")
        if not studies[name].draws:
            return f"{mark}{WITHOUT_DRAWS[part]}\n{end}" if part in WITHOUT_DRAWS else mark + end
        return f"{mark}\n{PARTS[part](studies[name])}\n\n{end}"

    pages = {root / page: BLOCK.sub(write_block, (root / page).read_text(encoding="utf-8")) for page in PAGES}
    shown = {(name, part) for page in pages.values() for _, name, part, _ in BLOCK.findall(page)}
    plots = {s.name: draw_plot(s) for s in studies.values() if s.draws}
    curves = [(s, metric) for s in studies.values() for metric in CURVES if (s.name, metric) in shown]
    plots |= {f"{s.name}-{metric}": draw_curve(s, metric) for s, metric in curves if _list_curves(s, metric)}
    return pages | {root / "docs" / "images" / f"results-{name}.svg": plot for name, plot in plots.items()}


def write_files(files: dict[pathlib.Path, str], arguments: Sequence[str]) -> int:
    """Writes the files that differ; with --check only names them, and returns 1 if there are any."""
    differing = {
        path: text for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    for path, text in differing.items():
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))
    return int(bool(differing) and "--check" in arguments)


def main(arguments: Sequence[str]) -> int:
    """Writes what differs; with --check only names it."""
    return write_files(make_files(), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
