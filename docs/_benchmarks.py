# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes the tables of benchmarks into docs/performance.md, and draws the rooflines: `make results`.

Between `<!-- benchmarks NAME -->` and `<!-- end of benchmarks -->` stands what this module makes of the files that a
benchmark writes with `--json`; NAME is one of `WRITERS`. Measured times are in bench/results/NAME/MACHINE.json, and a
target is met only if it is met on each machine. `--check` writes nothing and says whether a file differs.
"""

import functools
import html
import json
import math
import pathlib
import re
import statistics
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from _results import make_table, write_files

from xlkd.runtime import accelerators

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = "docs/performance.md"
BLOCK = re.compile(r"(<!-- benchmarks (\S+) -->\n).*?(<!-- end of benchmarks -->)", re.DOTALL)
BUSY = 0.1  # of a core: a case during which others used more is not counted

ROOFS = {"v5e": "TPU v5e", "v6e": "TPU v6e", "h100": "H100", "h200": "H200"}
COMPILED = "v5e"  # the TPU whose program stands for accelerators without one of their own
PLOT = "docs/images/roofline.svg"
STYLE = (  # of the plot, light and dark
    "text{font:13px sans-serif;fill:#222}line{stroke:#888;stroke-width:.5}polyline{fill:none;stroke-width:1.5}"
    ".v5e{stroke:#1b6ca8}.v6e{stroke:#c8611a}.h100{stroke:#3a8a3a}.h200{stroke:#8a4fa8}"
    "circle.v5e{fill:#1b6ca8}circle.v6e{fill:#c8611a}circle.h100{fill:#3a8a3a}circle.h200{fill:#8a4fa8}"
    "@media(prefers-color-scheme:dark){text{fill:#eee}}"
)
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 400, 60, 20, 16, 40  # of the plot, in pixels
INTENSITIES, SPEEDS = (1.0, 3.5), (12.5, 15.2)  # its axes in powers of ten: FLOP per byte, FLOP/s
UNITS = {"vocabulary": "bytes of AdamW"}  # counted by axis; FLOPs on all others

Measured = dict[str, Any]  # what a benchmark wrote of one machine, or of one case on it


def read_machines(folder: pathlib.Path) -> dict[str, Measured]:
    """Reads the files of a benchmark, by machine; quick runs measure nothing and are refused."""
    machines = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    if not machines:
        sys.exit(f"error: no files in {folder}")
    if quick := [name for name, measured in machines.items() if measured["quick"]]:
        sys.exit(f"error: {folder}: measured with --quick: {', '.join(quick)}")
    return machines


def write_table(machines: dict[str, Measured]) -> str:
    """Returns a table of the works, with the ratio on each machine, its range over rounds, and the faster peer."""
    head = ["work", "worst", "target", *machines]
    rows: list[Sequence[str]] = []
    for name in dict.fromkeys(case["name"] for measured in machines.values() for case in measured["cases"]):
        cases = {key: case for key, measured in machines.items() if (case := _find_case(measured, name))}
        quiet = {key: case for key, case in cases.items() if case["others"] <= BUSY}
        cells = [_format_case(cases[key]) if key in cases else "–" for key in machines]
        rows.append([name, *_judge(quiet), *cells])
    return make_table(head, rows)


def write_machines(machines: dict[str, Measured]) -> str:
    """Returns a list of the machines: processor, cores, versions, rounds and commit."""
    lines = []
    for name, measured in machines.items():
        versions = ", ".join(f"{library} {version}" for library, version in measured["versions"].items())
        times = [case["ours"] for case in measured.get("cases", ())]
        times += [point["seconds"] for point in measured.get("points", ())]
        rounds = sorted(set(map(len, times)))
        lines.append(
            f"- {name}: {measured['processor']}, {measured['cores']} cores, {'/'.join(map(str, rounds))} rounds, "
            f"Python {measured['python']}, {versions}, commit `{measured['git'][:9]}`"
        )
    return "\n".join(lines)


def _find_case(measured: Measured, name: str) -> Measured | None:
    return next((case for case in measured["cases"] if case["name"] == name), None)


def _judge(cases: dict[str, Measured]) -> tuple[str, str]:
    """Returns the worst ratio with its machine, and whether the target is met on every machine."""
    if not cases:
        return "–", "not measured on an idle machine"
    choose = min if next(iter(cases.values()))["gain"] else max
    machine, worst = choose(cases.items(), key=lambda item: item[1]["ratio"])
    if not worst["bar"]:
        return f"**{worst['ratio']:.2f}** ({machine})", ""
    sign = "≥" if worst["gain"] else "≤"
    is_met = (worst["ratio"] >= worst["bar"]) == worst["gain"]
    return f"**{worst['ratio']:.2f}** ({machine})", f"{sign} {worst['bar']:g}, {'met' if is_met else 'missed'}"


def _format_case(case: Measured) -> str:
    seconds = statistics.median(case["ours"]), statistics.median(case[case["peer"]])
    peer = "" if case["peer"] == "theirs" else f" {case['peer']}"
    digits = 2 if min(seconds) >= 0.5 else 3
    times = f"{seconds[0]:.{digits}f} s to {seconds[1]:.{digits}f} s{peer}"
    loaded = f"; not idle, {case['others']:.1f} cores" if case["others"] > BUSY else ""
    return f"{case['ratio']:.2f} ({min(case['ratios']):.2f}–{max(case['ratios']):.2f}), {times}{loaded}"


def write_comparison(results: pathlib.Path, benchmark: str = "step") -> str:
    """Returns the table of a benchmark that compares two sides, and the machines."""
    machines = read_machines(results / benchmark)
    return f"{write_table(machines)}\n\n{write_machines(machines)}"


def write_growth(results: pathlib.Path) -> str:
    """Returns a table of bench/growth.py: each point relative to the first of its axis, counted and measured."""
    machines = read_machines(results / "growth")
    rows = []
    for axis, value in dict.fromkeys((p["axis"], p["value"]) for m in machines.values() for p in m["points"]):
        cells = {name: _format_growth(measured["points"], axis, value) for name, measured in machines.items()}
        counted = next(cell for cell, _ in cells.values() if cell)
        rows.append(
            [axis, f"{value:,}", f"{counted} ({UNITS.get(axis, 'FLOPs')})", *(cell for _, cell in cells.values())]
        )
    loaded = [f"{name}: {m['others']:.1f} cores by others" for name, m in machines.items() if m["others"] > BUSY]
    notes = [f"Not idle: {', '.join(loaded)}."] if loaded else []
    table = make_table(["axis", "value", "counted", *machines], rows)
    return "\n\n".join([table, *notes, write_machines(machines)])


def _format_growth(points: list[Measured], axis: str, value: int) -> tuple[str, str]:
    """Returns the counted and the measured growth of a point, the latter with its range over the rounds."""
    same = [point for point in points if point["axis"] == axis]
    point = next((point for point in same if point["value"] == value), None)
    if point is None:
        return "", "–"
    seconds, first = statistics.median(point["seconds"]), statistics.median(same[0]["seconds"])
    ratios = [own / start for own, start in zip(point["seconds"], same[0]["seconds"], strict=True)]
    spread = "" if point is same[0] else f" ({min(ratios):.2f}–{max(ratios):.2f})"
    return f"{point['counted'] / same[0]['counted']:.2f}", f"**{seconds / first:.2f}**{spread}, {seconds:.3f} s"


def write_devices(results: pathlib.Path) -> str:
    """Returns a table of bench/growth.py --devices: what a device computes, moves and sends, by the number of chips."""
    programs = sorted(_read_programs(results / "devices.json").values(), key=lambda program: program["chips"])
    rows = [
        [
            str(program["chips"]),
            *(f"{program[key] / programs[0][key]:.3f}" for key in ("flops", "bytes")),
            f"{program['sent'] / 1e6:,.0f}",
        ]
        for program in programs
    ]
    return make_table(["chips", "FLOPs of a device", "bytes read and written", "sent, MB"], rows)


class Bound(NamedTuple):
    """A system's step under an accelerator's roof; `is_own` says whether the program was compiled for it."""

    intensity: float  # FLOP per byte
    flops: float
    peak: float
    bandwidth: float
    is_own: bool

    @property
    def reachable(self) -> float:
        """Returns the FLOP/s that the roof leaves."""
        return min(self.peak, self.bandwidth * self.intensity)

    @property
    def limit(self) -> str:
        """Returns what bounds the step."""
        return "products" if self.reachable == self.peak else "memory"


def list_bounds(results: pathlib.Path) -> dict[str, dict[str, Bound]]:
    """Returns the bound of each system on each accelerator of `ROOFS`."""
    programs = list(_read_programs(results / "roofline.json").values())
    bounds: dict[str, dict[str, Bound]] = {}
    for name in dict.fromkeys(program["system"] for program in programs):
        counts = {program["device"]: program for program in programs if program["system"] == name}
        for key in ROOFS:
            known, program = accelerators.TABLE[key], counts.get(key) or counts[COMPILED]
            intensity, flops = program["flops"] / program["bytes"], program["flops"]
            bounds.setdefault(name, {})[key] = Bound(intensity, flops, known.flops, known.bandwidth, key in counts)
    return bounds


def write_roofline(results: pathlib.Path) -> str:
    """Returns the link to the rooflines, and a table of what bounds each system, with a step's time there."""
    bounds = list_bounds(results)
    rows = []
    for number, (name, by_roof) in enumerate(bounds.items(), 1):
        intensity = by_roof[COMPILED].intensity
        cells = [
            f"{1e3 * bound.flops / bound.reachable:.1f} ms, {bound.limit}{'' if bound.is_own else ' †'}"
            for bound in by_roof.values()
        ]
        rows.append([f"{number}: {name}", f"{by_roof[COMPILED].flops / 1e9:,.0f}", f"{intensity:.0f}", *cells])
    head = ["step", "GFLOP", "FLOP/byte", *ROOFS.values()]
    mark = f"† counted in the program for {ROOFS[COMPILED]}"
    link = f"![Rooflines of four accelerators with the steps of the systems]({PLOT.removeprefix('docs/')})"
    return "\n\n".join([link, make_table(head, rows), mark])


def draw_roofline(bounds: dict[str, dict[str, Bound]]) -> str:
    """Draws the roofs of the accelerators, and on each the steps of the systems, by FLOP per byte and FLOP/s."""
    parts = [*_draw_grid(), *(_draw_roof(number, key) for number, key in enumerate(ROOFS))]
    for number, (name, by_roof) in enumerate(bounds.items(), 1):
        for key, bound in by_roof.items():
            x, y = _place(bound.intensity, bound.reachable)
            tip = html.escape(f"{name}, {ROOFS[key]}: {bound.reachable / 1e12:.0f} TFLOP/s, {bound.limit}")
            parts.append(f'<circle class="{key}" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{tip}</title></circle>')
        lowest = min(by_roof.values(), key=lambda bound: bound.reachable)
        x, y = _place(lowest.intensity, lowest.reachable)
        parts.append(f'<text x="{x:.1f}" y="{y + 14 + 14 * (number % 2):.1f}" text-anchor="middle">{number}</text>')
    about = "Rooflines: FLOP per byte, and TFLOP/s that can be reached"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{about}"><style>{STYLE}</style>{"".join(parts)}</svg>\n'
    )


def _place(intensity: float, speed: float) -> tuple[float, float]:
    """Returns the place of FLOP per byte and FLOP/s in the plot."""
    across, up = (
        (math.log10(value) - low) / (high - low)
        for value, (low, high) in zip((intensity, speed), (INTENSITIES, SPEEDS), strict=True)
    )
    return LEFT + (WIDTH - LEFT - RIGHT) * across, HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * up


def _draw_grid() -> list[str]:
    """Draws a line and a label for each power of ten."""
    left, bottom, right = LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [
        f'<text x="{right}" y="{HEIGHT - 6}" text-anchor="end">FLOP per byte</text>',
        f'<text x="{left + 6}" y="{TOP + 12}">TFLOP/s</text>',
    ]
    for power in range(math.ceil(INTENSITIES[0]), math.floor(INTENSITIES[1]) + 1):
        x, _ = _place(10.0**power, 1e12)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{10**power:,}</text>')
    for power in range(math.ceil(SPEEDS[0]), math.floor(SPEEDS[1]) + 1):
        _, y = _place(10.0, 10.0**power)
        parts.append(f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{10 ** (power - 12):,}</text>')
    return parts


def _draw_roof(number: int, key: str) -> str:
    """Draws the roof of an accelerator, and its line of the legend."""
    known = accelerators.TABLE[key]
    edges = (10 ** INTENSITIES[0], known.flops / known.bandwidth, 10 ** INTENSITIES[1])
    ends = [_place(edge, min(known.flops, known.bandwidth * edge)) for edge in edges]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in ends)
    x, y = WIDTH - RIGHT - 90, HEIGHT - BOTTOM - 100 + 22 * number
    legend = f'<circle class="{key}" cx="{x}" cy="{y}" r="4"/><text x="{x + 10}" y="{y + 4}">{ROOFS[key]}</text>'
    return f'<polyline class="{key}" points="{points}"/>{legend}'


def _read_programs(path: pathlib.Path) -> dict[str, Measured]:
    return json.loads(path.read_text(encoding="utf-8"))["programs"]


WRITERS = {
    "step": write_comparison,
    "parts": functools.partial(write_comparison, benchmark="parts"),
    "predict": functools.partial(write_comparison, benchmark="predict"),
    "growth": write_growth,
    "devices": write_devices,
    "roofline": write_roofline,
}


def make_files(root: pathlib.Path = ROOT) -> dict[pathlib.Path, str]:
    """Returns the content of every file that is made from the kept results, by its path."""
    results = root / "bench" / "results"

    def write_block(block: re.Match[str]) -> str:
        mark, name, end = block.groups()
        if name not in WRITERS:
            sys.exit(f"error: {mark.strip()}: benchmarks are {', '.join(WRITERS)}")
        return f"{mark}\n{WRITERS[name](results)}\n\n{end}"

    files = {root / PAGE: BLOCK.sub(write_block, (root / PAGE).read_text(encoding="utf-8"))}
    if (results / "roofline.json").exists():
        files[root / PLOT] = draw_roofline(list_bounds(results))
    return files


def main(arguments: Sequence[str]) -> int:
    """Writes the files that differ; with --check only names them."""
    return write_files(make_files(), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
