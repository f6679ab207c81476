# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""All numbers of a report as one value: what results.json holds, and what page and console show."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from xlkd.errors import UserError
from xlkd.metrics import statistics
from xlkd.reports import badges, files, goodput, grid, labelled, questions, retrieved, words
from xlkd.reports.files import Record
from xlkd.reports.systems import Pair, System, pairs, systems

VERSION = 1
BUDGET = ("rows", "steps", "lr", "parameters")
QA, CLASSIFY, RETRIEVAL = "qa", "classify", "retrieval"
_TABLES = {QA: questions.table, RETRIEVAL: retrieved.table, CLASSIFY: labelled.table}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A system's answers on one data set, a table a seed; `rows` are the first seed's as they were read."""

    system: System
    seen: badges.Seen
    touched: badges.Touched
    tables: tuple[grid.Table, ...]
    rows: Sequence[Record]

    def told(self) -> dict[str, Record]:
        return grid.describe(self.tables[0], self.seen, self.touched)


@dataclasses.dataclass
class DataSet:
    """One data set of one evaluation set; `entries` by the name of the column."""

    name: str
    where: str
    task: str
    entries: dict[str, Entry] = dataclasses.field(default_factory=dict)


def compute(runs: Sequence[files.Run]) -> tuple[Record, dict[str, DataSet]]:
    """Everything that the runs say, with intervals, badges and verdicts; and the answers that it rests on."""
    notes: list[str] = []
    found = systems(runs)
    wanted = pairs(runs, found, notes)
    held = _data_sets(found, notes)
    named = dict(zip(_titles(held), held, strict=True))
    result: Record = {
        "version": VERSION,
        "state": files.DONE if all(run.state == files.DONE for run in runs) else files.UNFINISHED,
        "config": runs[0].digest(),
        "runs": [_run(run) for run in runs],
        "statistics": {"resamples": statistics.RESAMPLES, "seed": statistics.SEED, "level": statistics.LEVEL},
        "stages": {system.name: _stage(system) for system in found},
        "sets": {},
    }
    for number, (title, data) in enumerate(named.items()):
        result["sets"][title] = _judged(data, wanted, statistics.SEED + number, notes)
    _nothing_in_common(wanted, held)
    result["budgets"] = _unequal(result, named)
    result["plain"] = _plain(found)
    result["sentences"] = words.sentences(result)
    result["notes"] = notes
    return result, named


def scores(rows: Sequence[Record], where: str, metric: str) -> dict[str, tuple[dict[str, Record], Record]]:
    """Of one system's rows by data set: a number with its interval for each cell, as `compute` gives it, and the mean.

    The metric may be another than those of the task, where the rows hold it: the accuracy by another route.
    """
    found = {}
    for number, (name, those) in enumerate(_by_data_set(rows, where).items()):
        if not (build := _TABLES.get(_task(those[0]))):
            continue
        held = dataclasses.replace(build(those), metrics=(metric,))
        if held.rows and all(metric in row for of in held.rows.values() for row in of):
            told: dict[str, Record] = {cell: {"badges": "", "word": ""} for cell in held.rows}
            own = grid.own((held,), {"mean": grid.Mean(tuple(held.rows))}, told, statistics.SEED + number)
            found[name] = {cell: of[metric] for cell, of in own["cells"].items()}, own["averages"]["mean"][metric]
    return found


def _run(run: files.Run) -> Record:
    told = {key: run.environment.get(key) for key in ("command", "git", "git_changes", "devices")}
    stages = {stage.name: {"state": stage.state} | stage.progress() | _so_far(stage) for stage in run.stages}
    return {
        "workdir": str(run.folder),
        "config": run.digest(),
        "seed": run.seed,
        "state": run.state,
        "goodput": goodput.of(run.folder),
        **told,
        "stages": stages,
    }


def _so_far(stage: files.Stage) -> Record:
    """The last evaluation of each set, of a stage that has not ended."""
    if stage.state != files.UNFINISHED:
        return {}
    last = {one["in"]: {key: one[key] for key in ("step", "main", "mean")} for one in stage.evaluations()}
    return {"scores": last} if last else {}


def _stage(system: System) -> Record:
    """What the stage wrote of itself, over all seeds; rows that were met in training stay in its own file."""
    told = {key: value for key, value in system.results.items() if key != "version"}
    told["contamination"] = {
        name: {key: value for key, value in found.items() if key != "keys"}
        for name, found in (told.get("contamination") or {}).items()
    }
    return told | {"seeds": list(system.seeds), "stage": system.stage}


# Which answers there are.


def _data_sets(found: Sequence[System], notes: list[str]) -> list[DataSet]:
    held: dict[tuple[str, str], DataSet] = {}
    for system in found:
        for where in dict.fromkeys(name for stage in system.stages for name in stage.sets()):
            seen = system.results.get("seen")
            if seen is None:
                notes.append(f"{system.name}, {where}: not shown, its record does not say which labels were seen")
                continue
            touched = badges.Touched((system.results.get("contamination") or {}).get(where))
            by_seed = [_by_data_set(stage.rows(where), where) for stage in system.stages]
            for name, rows in by_seed[0].items():
                if not (task := _task(rows[0])):
                    notes.append(f"{system.name}, {where}: not shown, rows of no known task")
                    continue
                data = held.setdefault((where, name), DataSet(name, where, task))
                every = [of.get(name, []) for of in by_seed]
                if (tables := tuple(map(_TABLES[task], every)))[0].rows:
                    data.entries[system.name] = Entry(system, seen, touched, tables, every[0])
            notes += _disagreements(system, where, by_seed[0])
    return list(held.values())


def _by_data_set(rows: Sequence[Record], where: str) -> dict[str, list[Record]]:
    return grid.by_name(rows, lambda row: row.get("set") or where)


def _task(row: Record) -> str:
    """By what a row holds; empty where no task is known by it."""
    return next(
        (task for key, task in (("f1", QA), ("to_source", RETRIEVAL), ("language", CLASSIFY)) if key in row), ""
    )


def _disagreements(system: System, where: str, by_set: Mapping[str, Sequence[Record]]) -> list[str]:
    """The rows must give the scores that the stage reported; where they do not, one of the two is old."""
    reported = ((system.results.get("sets") or {}).get(where) or {}).get("cells") or {}
    notes = []
    for name, rows in by_set.items():
        build = _TABLES.get(_task(rows[0]))
        if build is None:
            continue
        held = build(rows)
        for cell in held.rows:
            said = reported.get(f"{name} {cell}") or reported.get(cell) or {}
            for metric in held.metrics:
                if metric in said and abs(said[metric] - held.mean(metric, cell)) > 0.01:
                    what = f"rows say {held.mean(metric, cell):.2f}, the stage {said[metric]:.2f}"
                    notes.append(f"{system.name}, {name} {cell}, {metric}: {what}")
    return notes


def _plain(found: Sequence[System]) -> dict[str, Record]:
    """Scores that a stage gave without scores by row, before its first step and after its last: no interval."""
    held: dict[str, Record] = {}
    for system in found:
        stage = system.stages[0]
        for where, after in (system.results.get("sets") or {}).items():
            if system.results.get("seen") is None or stage.rows(where):
                continue
            before = next((e["cells"] for e in stage.evaluations() if (e["in"], e["step"]) == (where, 0)), None)
            told = {"main": after["main"], "seen": system.results["seen"], "after": after["cells"]}
            held.setdefault(where, {})[system.name] = told | ({"before": before} if before and after["step"] else {})
    return held


def _titles(held: Sequence[DataSet]) -> list[str]:
    names = [data.name for data in held]
    return [data.name if names.count(data.name) == 1 else f"{data.name} ({data.where})" for data in held]


# What is said of one data set.


def _judged(data: DataSet, wanted: Sequence[Pair], seed: int, notes: list[str]) -> Record:
    shown = {name: _own(entry, data, seed) for name, entry in data.entries.items()}
    compared = {}
    for name, (a, b, asked) in _pairs_of(data, wanted).items():
        try:
            compared[name] = _compared(data.entries[a], data.entries[b], data, seed) | {"a": a, "b": b}
        except UserError as error:
            if asked:
                raise UserError(error.what, f"{a} against {b}, {data.name} {error.where}", error.remedy) from None
            notes.append(f"{a} against {b} on {data.name}: not compared: {error}")
    found = {"task": data.task, "in": data.where, "main": _metrics(data)[0], "metrics": list(_metrics(data))}
    found |= {"systems": shown, "comparisons": compared}
    first = next(iter(data.entries.values()))
    if data.task == CLASSIFY:
        found["majority"] = labelled.majority(first.tables[0])
    if ceilings := (first.system.results.get("ceilings") or {}).get(data.where):
        found["ceilings"] = ceilings
    return found


def _metrics(data: DataSet) -> tuple[str, ...]:
    return {QA: questions.METRICS, CLASSIFY: ("accuracy", "macro_f1"), RETRIEVAL: retrieved.METRICS}[data.task]


def _pairs_of(data: DataSet, wanted: Sequence[Pair]) -> dict[str, tuple[str, str, bool]]:
    """Returns the differences that can be shown here.

    Where none was named for this data set, each against what was not trained here, or else against the first.
    """
    possible = (pair for pair in wanted if {pair.a, pair.b} <= data.entries.keys())
    found = {f"{pair.a}:{pair.b}": (pair.a, pair.b, pair.asked) for pair in possible}
    if found or len(data.entries) < 2:
        return found
    first = next((n for n, e in data.entries.items() if not e.system.results.get("steps")), next(iter(data.entries)))
    return {f"{name}:{first}": (name, first, False) for name in data.entries if name != first}


def _own(entry: Entry, data: DataSet, seed: int) -> Record:
    told = entry.told()
    means = _means(entry, data, told)
    found = grid.own(entry.tables, means, told, seed)
    if data.task == QA:
        found["worst"] = questions.worst(found["cells"])
    if data.task == CLASSIFY:
        for name, value in labelled.macro_f1(entry.tables, means, seed).items():
            (found["cells"] | found["averages"])[name]["macro_f1"] = value
    return found | {"seeds": list(entry.system.seeds)}


def _means(entry: Entry, data: DataSet, told: Mapping[str, Record]) -> dict[str, grid.Mean]:
    if data.task == QA:
        return questions.means(entry.tables[0], data.name, entry.seen)
    return labelled.means(told) if data.task == CLASSIFY else retrieved.means(entry.tables[0])


def _compared(a: Entry, b: Entry, data: DataSet, seed: int) -> Record:
    """A − B. Means whose cells differ between the two (for other labels were seen) are not compared."""
    told = [entry.told() for entry in (a, b)]
    of_a, of_b = (_means(entry, data, cells) for entry, cells in zip((a, b), told, strict=True))
    means = {name: mean for name, mean in of_a.items() if of_b.get(name) == mean}
    primary = {QA: questions.primary(a.tables[0]), CLASSIFY: labelled.PRIMARY, RETRIEVAL: retrieved.PRIMARY}[data.task]
    left, right, paired = _seeds(a, b)
    found = grid.compare(left, right, means, primary=primary, seed=seed, paired=paired)
    if data.task == CLASSIFY and len(left) == len(right) == 1:
        for name, value in labelled.compare_macro_f1(left[0], right[0], means, seed).items():
            (found["cells"] | found["averages"])[name]["macro_f1"] = value
    for cell, entry in found["cells"].items():
        entry |= badges.joined([of[cell] for of in told])
    for name, entry in found["averages"].items():
        entry |= badges.joined([of[cell] for of in told for cell in means[name].all])
    metric = {QA: "em", CLASSIFY: "accuracy", RETRIEVAL: "retrieval"}[data.task]
    not_compared = sorted((of_a.keys() | of_b.keys()) - means.keys())
    found |= grid.fixed_and_broken(left[0], right[0], metric)
    return found | ({"not_compared": not_compared} if not_compared else {})


def _seeds(a: Entry, b: Entry) -> tuple[Sequence[grid.Table], Sequence[grid.Table], bool]:
    """The runs of both, paired by seed where they can be."""
    common = [seed for seed in a.system.seeds if seed in b.system.seeds]
    if a.system.config == b.system.config or set(a.system.seeds) == set(b.system.seeds):
        if not common:
            raise UserError("no seed in which both are done", remedy="finish the runs")
        left, right = ([e.tables[e.system.seeds.index(seed)] for seed in common] for e in (a, b))
        return left, right, True
    return a.tables, b.tables, False


def _nothing_in_common(wanted: Sequence[Pair], held: Sequence[DataSet]) -> None:
    for pair in wanted:
        there = [{entry.system.name for entry in data.entries.values()} for data in held]
        if pair.asked and not any({pair.a, pair.b} <= names for names in there):
            remedy = "compare runs that were evaluated on the same sets"
            raise UserError("no data set in common", f"{pair.a} against {pair.b}", remedy)


def _unequal(result: Record, held: Mapping[str, DataSet]) -> list[Record]:
    """In what systems differ that are compared."""
    compared: dict[tuple[str, str], tuple[Record, Record]] = {}
    for title, data in held.items():
        for one in result["sets"][title]["comparisons"].values():
            a, b = (data.entries[one[side]].system for side in "ab")
            compared[a.name, b.name] = (a.results, b.results)
    found = []
    for (a, b), (x, y) in compared.items():
        if differ := {key: [x.get(key), y.get(key)] for key in BUDGET if x.get(key) != y.get(key)}:
            found.append({"a": a, "b": b, "differ": differ})
    return found
