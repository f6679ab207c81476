# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes the tables of measured times into docs/performance.md: `make results`.

Between `<!-- benchmarks NAME -->` and `<!-- end of benchmarks -->` stands what this module makes of the files
bench/results/NAME/MACHINE.json, which a benchmark writes with `--json`: a row for each work, with the range over all
machines. A target is met only if it is met on each. `--check` writes nothing and says whether the page differs.
"""

import json
import pathlib
import re
import statistics
import sys
from collections.abc import Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = "docs/performance.md"
BLOCK = re.compile(r"(<!-- benchmarks (\S+) -->\n).*?(<!-- end of benchmarks -->)", re.DOTALL)
BUSY = 0.1  # of a core: a case during which others used more is not counted

Measured = dict[str, Any]  # what a benchmark wrote of one machine, or of one case on it


def read_machines(folder: pathlib.Path) -> dict[str, Measured]:
    """Reads the files of a benchmark, by machine; quick runs measure nothing and are refused."""
    machines = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    if quick := [name for name, measured in machines.items() if measured["quick"]]:
        sys.exit(f"error: {folder}: measured with --quick: {', '.join(quick)}")
    return machines


def write_table(machines: dict[str, Measured]) -> str:
    """Returns a table of the works, with the ratio on each machine, its range over rounds, and the faster peer."""
    head = ["work", "worst", "target", *machines]
    rows = []
    for name in dict.fromkeys(case["name"] for measured in machines.values() for case in measured["cases"]):
        cases = {key: case for key, measured in machines.items() if (case := _find_case(measured, name))}
        quiet = {key: case for key, case in cases.items() if case["others"] <= BUSY}
        cells = [_format_case(cases[key]) if key in cases else "–" for key in machines]
        rows.append([name, *_judge(quiet), *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def write_machines(machines: dict[str, Measured]) -> str:
    """Returns a list of the machines: processor, cores, versions, rounds and commit."""
    lines = []
    for name, measured in machines.items():
        versions = ", ".join(f"{library} {version}" for library, version in measured["versions"].items())
        rounds = sorted({len(case["ours"]) for case in measured["cases"]})
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
    times = f"{seconds[0]:.2f} s to {seconds[1]:.2f} s{peer}"
    loaded = f"; not idle, {case['others']:.1f} cores" if case["others"] > BUSY else ""
    return f"{case['ratio']:.2f} ({min(case['ratios']):.2f}–{max(case['ratios']):.2f}), {times}{loaded}"


def make_page(root: pathlib.Path = ROOT) -> str:
    """Returns the page with its tables as the kept files give them."""

    def write_block(block: re.Match[str]) -> str:
        mark, name, end = block.groups()
        machines = read_machines(root / "bench" / "results" / name)
        if not machines:
            sys.exit(f"error: {mark.strip()}: no files in bench/results/{name}")
        return f"{mark}\n{write_table(machines)}\n\n{write_machines(machines)}\n\n{end}"

    return BLOCK.sub(write_block, (root / PAGE).read_text(encoding="utf-8"))


def main(arguments: Sequence[str]) -> int:
    """Writes the page where it differs; with --check only says so."""
    page, text = ROOT / PAGE, make_page()
    if page.read_text(encoding="utf-8") == text:
        return 0
    print(PAGE)
    if "--check" in arguments:
        return 1
    page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
