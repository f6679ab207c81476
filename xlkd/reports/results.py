# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes all numbers of a report: the content of results.json, which the page and the console show."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from xlkd.errors import UserError
from xlkd.metrics import statistics
from xlkd.reports import badges, files, goodput, grid, joined, labelled, questions, retrieved, shapes, words
from xlkd.reports.files import CLASSIFY, QA, RETRIEVAL, Record
from xlkd.reports.systems import Pair, Score, System, choose_pairs, find_systems, read_score
from xlkd.tasks import metrics as metric_lists

VERSION = 1
BUDGET = ("rows", "steps", "lr", "parameters")
_TABLES = {QA: questions.make_table, RETRIEVAL: retrieved.make_table, CLASSIFY: labelled.make_table}
_METRICS = {QA: metric_lists.QA, RETRIEVAL: metric_lists.RETRIEVAL, CLASSIFY: metric_lists.CLASSIFICATION}
_EXACT = {QA: "em", CLASSIFY: "accuracy", RETRIEVAL: "retrieval"}  # 100 where an answer is exactly right


@dataclasses.dataclass(frozen=True)
class Entry:
    """A system's answers on one data set, a table for each seed; `rows` are the first seed's as they were read."""

    system: System
    evaluation_set: str
    tables: tuple[grid.Table, ...]
    rows: Sequence[Record]

    @property
    def seen(self) -> badges.Seen:
        """Returns the labels that were seen in training."""
        return self.system.results["seen"]

    def describe_cells(self) -> dict[str, Record]:
        """Returns for each cell `n`, `languages`, `badges` and `word`."""
        contaminated = (self.system.results.get("contamination") or {}).get(self.evaluation_set)
        return grid.describe_cells(self.tables[0], self.seen, badges.Contamination(contaminated))

    def select_seed(self, seed: int) -> Entry:
        """Returns the answers of one seed."""
        table = self.tables[self.system.seeds.index(seed)]
        return dataclasses.replace(self, system=self.system.select_seed(seed), tables=(table,))


@dataclasses.dataclass
class DataSet:
    """A data set within an evaluation set, with the answers of each system under the system's name."""

    name: str
    evaluation_set: str
    task: str
    metrics: dict[str, Record]  # by name the run's record of the metric, see `Metric.describe`
    entries: dict[str, Entry] = dataclasses.field(default_factory=dict)

    def over(self, kind: str) -> list[str]:
        """Returns the metrics over examples, or those over cells."""
        return [name for name, metric in self.metrics.items() if metric["over"] == kind]

    def lower_is_better(self) -> frozenset[str]:
        """Returns the metrics of which a lower value is better."""
        return frozenset(name for name, metric in self.metrics.items() if not metric["higher_is_better"])

    def list_seeds(self) -> list[int]:
        """Returns the seeds of all systems."""
        return sorted({seed for entry in self.entries.values() for seed in entry.system.seeds})

    def select_seed(self, seed: int) -> DataSet:
        """Returns the answers of one seed, of the systems that have it."""
        entries = {name: entry.select_seed(seed) for name, entry in self.entries.items() if seed in entry.system.seeds}
        return dataclasses.replace(self, entries=entries)

    def shares_questions(self) -> bool:
        """Returns whether all seeds of each system answered the same questions."""
        return all(
            table.list_questions() == entry.tables[0].list_questions()
            for entry in self.entries.values()
            for table in entry.tables[1:]
        )


def compute_results(runs: Sequence[files.Run]) -> tuple[Record, dict[str, DataSet]]:
    """Returns the content of `results.json`, which docs/report.md describes, and by title the data sets behind it."""
    notes = [line for run in runs for line in run.damaged]
    systems = find_systems(runs)
    pairs = choose_pairs(runs, systems, notes)
    data_sets = _collect_data_sets(systems, notes)
    score = read_score(runs)
    by_title = _order_by_score(dict(zip(_title_data_sets(data_sets), data_sets, strict=True)), score)
    result: Record = {
        "version": VERSION,
        "state": files.DONE if all(run.state == files.DONE for run in runs) else files.UNFINISHED,
        "config": runs[0].digest(),
        "runs": [_describe_run(run) for run in runs],
        "statistics": {"resamples": statistics.RESAMPLES, "seed": statistics.SEED, "level": statistics.LEVEL},
        "stages": {system.name: _describe_stage(system) for system in systems},
        "sets": {},
    }
    for number, (title, data) in enumerate(by_title.items()):
        judged = score if score and score.data_set == title else None
        result["sets"][title] = _compute_set(data, pairs, judged, statistics.SEED + number, notes)
    if by_title and score and not _has_score(result["sets"], score):
        notes.append(f"report.judged_by: no differences in {score.average}, {score.metric} of {score.data_set}")
    _check_pairs_have_sets(pairs, data_sets)
    result["budgets"] = _find_unequal_budgets(result, by_title)
    result["plain"] = _collect_plain_scores(systems)
    result["sentences"] = words.write_sentences(result)
    result["notes"] = list(dict.fromkeys(notes))
    return result, by_title


def score_rows(
    rows: Sequence[Record], evaluation_set: str, record: Record, metric: str
) -> dict[str, tuple[dict[str, Record], Record]]:
    """Returns one system's scores by data set: a number for each cell, as `compute_results` gives it, and the mean.

    `record` is the stage's record of the evaluation set. The metric may be any that the rows contain: also the accuracy
    by another route.
    """
    scores = {}
    for number, (name, members) in enumerate(_split_data_sets(rows, evaluation_set).items()):
        if not (task := files.find_task(record, members[0])):
            continue
        table = _TABLES[task](_add_means(members, task), (metric,))
        if table.rows and all(shapes.is_number(row.get(metric)) for cell in table.rows.values() for row in cell):
            described: dict[str, Record] = {cell: {"badges": "", "word": ""} for cell in table.rows}
            means = {"mean": grid.Mean(tuple(table.rows))}
            numbers = grid.score_system((table,), means, described, statistics.SEED + number)
            cells = {cell: entry[metric] for cell, entry in numbers["cells"].items()}
            scores[name] = cells, numbers["averages"]["mean"][metric]
    return scores


def _describe_run(run: files.Run) -> Record:
    environment = {key: run.environment.get(key) for key in ("command", "git", "git_changes", "devices")}
    commits = {key: run.environment.get(key) or {} for key in ("models", "data_sets")}
    stages = {stage.name: {"state": stage.state} | stage.progress() | _list_last_scores(stage) for stage in run.stages}
    return {
        "workdir": str(run.folder),
        "config": run.digest(),
        "seed": run.seed,
        "state": run.state,
        "goodput": goodput.measure(run.folder),
        **environment,
        **commits,
        "stages": stages,
    }


def _list_last_scores(stage: files.Stage) -> Record:
    """Returns in `scores`, for an unfinished stage, `step`, `main` and `mean` of each set's last evaluation."""
    if stage.state != files.UNFINISHED:
        return {}
    last = {record["in"]: {key: record[key] for key in ("step", "main", "mean")} for record in stage.evaluations}
    return {"scores": last} if last else {}


def _describe_stage(system: System) -> Record:
    """Returns the `stage.json` of the first seed without keys of contaminated examples, and the list of `seeds`.

    The contamination is that of the seed with the most such examples.
    """
    record = {key: value for key, value in system.results.items() if key != "version"}
    by_seed = [stage.results.get("contamination") or {} for stage in system.stages]
    record["contamination"] = {}
    for name in dict.fromkeys(name for each in by_seed for name in each):
        most = max((each[name] for each in by_seed if name in each), key=lambda matches: matches["flagged"])
        record["contamination"][name] = {key: value for key, value in most.items() if key != "keys"}
    return record | {"seeds": list(system.seeds), "stage": system.stage}


# The answers of the systems


def _collect_data_sets(systems: Sequence[System], notes: list[str]) -> list[DataSet]:
    data_sets: dict[tuple[str, str, str], DataSet] = {}
    for system in systems:
        for evaluation_set in dict.fromkeys(name for stage in system.stages for name in stage.sets()):
            if system.results.get("seen") is None:
                notes.append(
                    f"{system.name}, {evaluation_set}: not shown, its record does not say which labels were seen"
                )
                continue
            by_seed = [_split_data_sets(stage.rows(evaluation_set), evaluation_set) for stage in system.stages]
            for name, rows in by_seed[0].items():
                if not (task := files.find_task(_get_record(system, evaluation_set), rows[0])):
                    notes.append(f"{system.name}, {evaluation_set}: not shown, rows of no known task")
                    continue
                metrics = _read_metrics(system, evaluation_set, task)
                data = data_sets.setdefault((evaluation_set, name, task), DataSet(name, evaluation_set, task, metrics))
                data.metrics = {name: metric for name, metric in data.metrics.items() if name in metrics}
                rows_by_seed = [_add_means(seed_rows.get(name, []), task) for seed_rows in by_seed]
                tables = tuple(_TABLES[task](seed_rows, ()) for seed_rows in rows_by_seed)
                if tables[0].rows:
                    data.entries[system.name] = Entry(system, evaluation_set, tables, rows_by_seed[0])
            notes += _find_disagreements(system, evaluation_set, by_seed[0])
    for data in data_sets.values():
        _choose_metrics(data)
        if data.entries and not data.over("example"):
            notes.append(f"{data.name}: not shown, no metric has a score in every row of {', '.join(data.entries)}")
    return [data for data in data_sets.values() if data.entries and data.over("example")]


def _read_metrics(system: System, evaluation_set: str, task: str) -> dict[str, Record]:
    """Returns the metrics that the stage recorded, or the task's, because version 0.1 recorded none."""
    recorded = _get_record(system, evaluation_set).get("metrics")
    known = {metric.name: metric for metric in _METRICS[task]}
    if not recorded:
        return {name: metric.describe() for name, metric in known.items()}
    usable = (
        name
        for name, metric in recorded.items()
        if (known[name].over == metric["over"] if name in known else metric["over"] == "example")
    )
    return {name: recorded[name] for name in usable}


def _choose_metrics(data: DataSet) -> None:
    """Keeps the metrics that all systems have scores of."""
    tables = [table for entry in data.entries.values() for table in entry.tables]
    rows = [row for table in tables for cell in table.rows.values() for row in cell]
    shown = tuple(name for name in data.over("example") if all(shapes.is_number(row.get(name)) for row in rows))
    data.metrics = {name: metric for name, metric in data.metrics.items() if name in shown or metric["over"] == "cell"}
    choice = {"metrics": shown, "lower_is_better": data.lower_is_better()}
    for name, entry in data.entries.items():
        chosen = tuple(dataclasses.replace(table, **choice) for table in entry.tables)
        data.entries[name] = dataclasses.replace(entry, tables=chosen)


def _split_data_sets(rows: Sequence[Record], evaluation_set: str) -> dict[str, list[Record]]:
    return grid.group_rows(rows, lambda row: row.get("set") or evaluation_set)


def _get_record(system: System, evaluation_set: str) -> Record:
    """Returns the stage's record of an evaluation set; empty where it has none."""
    return (system.results.get("sets") or {}).get(evaluation_set) or {}


def _add_means(rows: Sequence[Record], task: str) -> Sequence[Record]:
    return [retrieved.add_mean(row) for row in rows] if task == RETRIEVAL else rows


def _find_disagreements(system: System, evaluation_set: str, by_data_set: Mapping[str, Sequence[Record]]) -> list[str]:
    """Returns notes on cells whose rows give other scores than the stage reported, so that one of them is outdated."""
    reported = _get_record(system, evaluation_set).get("cells") or {}
    notes = []
    for name, rows in by_data_set.items():
        if not (task := files.find_task(_get_record(system, evaluation_set), rows[0])):
            continue
        table = _TABLES[task](_add_means(rows, task), ())
        for cell, members in table.rows.items():
            record = reported.get(f"{name} {cell}") or reported.get(cell) or {}
            for metric in record:
                if (
                    all(shapes.is_number(row.get(metric)) for row in members)
                    and abs(record[metric] - table.mean(metric, cell)) > 0.01
                ):
                    what = f"rows say {table.mean(metric, cell):.2f}, the stage {record[metric]:.2f}"
                    notes.append(f"{system.name}, {name} {cell}, {metric}: {what}")
    return notes


def _collect_plain_scores(systems: Sequence[System]) -> dict[str, Record]:
    """Returns by set and system the scores `before` and `after` training of sets that have no scores by example.

    Such scores have no interval.
    """
    scores: dict[str, Record] = {}
    for system in systems:
        stage = system.stages[0]
        for evaluation_set, after in (system.results.get("sets") or {}).items():
            if system.results.get("seen") is None or stage.rows(evaluation_set):
                continue
            before = next((e["cells"] for e in stage.evaluations if (e["in"], e["step"]) == (evaluation_set, 0)), None)
            entry = {"main": after["main"], "seen": system.results["seen"], "after": after["cells"]}
            entry |= {"metrics": after["metrics"]} if after.get("metrics") else {}
            entry |= {"before": before} if before and after["step"] else {}
            scores.setdefault(evaluation_set, {})[system.name] = entry
    return scores


def _title_data_sets(data_sets: Sequence[DataSet]) -> list[str]:
    """Returns the names of the data sets, with their evaluation set, and then their task, where several are equal."""
    names = [data.name for data in data_sets]
    titles = [
        data.name if names.count(data.name) == 1 else f"{data.name} ({data.evaluation_set})" for data in data_sets
    ]
    return [
        title if titles.count(title) == 1 else f"{title}, {data.task}"
        for title, data in zip(titles, data_sets, strict=True)
    ]


def _order_by_score(by_title: Mapping[str, DataSet], score: Score | None) -> dict[str, DataSet]:
    """Returns the data sets with that of the score first, and its metric as the first one."""
    if score is None or score.data_set not in by_title:
        return dict(by_title)
    data = by_title[score.data_set]
    if score.metric in data.metrics:
        data.metrics = {score.metric: data.metrics[score.metric]} | data.metrics
    return {score.data_set: data} | dict(by_title)


def _has_score(sets: Mapping[str, Record], score: Score) -> bool:
    """Returns whether a difference in this score was computed."""
    comparisons = sets.get(score.data_set, {}).get("comparisons", {}).values()
    return any(score.metric in compared["averages"].get(score.average, {}) for compared in comparisons)


# The numbers of one data set


def _compute_set(data: DataSet, wanted: Sequence[Pair], judged: Score | None, seed: int, notes: list[str]) -> Record:
    """Returns the numbers of a data set: of all seeds together, or over draws as the config or the data demand.

    Where the config names primary differences, these are one Holm family. `judged` is the score that decides.
    """
    pairs, shared, seeds = _choose_comparisons(data, wanted), data.shares_questions(), data.list_seeds()
    named = [f"{pair.a}:{pair.b}" for pair in wanted if pair.primary]
    if len(seeds) > 1 and (named or judged or not shared):
        by_draw = {draw: _compute_seeds(data.select_seed(draw), pairs, judged, seed, notes) for draw in seeds}
        numbers = joined.join_draws(by_draw, named, same_questions=shared)
        for pair in (pair for name, pair in pairs.items() if name not in numbers["comparisons"]):
            notes.append(f"{pair.a} against {pair.b} on {data.name}: not compared: no draw in common")
        return numbers
    numbers = _compute_seeds(data, pairs, judged, seed, notes)
    return numbers | {"primary": grid.judge_primary(numbers["comparisons"], named)}


def _compute_seeds(
    data: DataSet, pairs: Mapping[str, Pair], judged: Score | None, seed: int, notes: list[str]
) -> Record:
    """Returns the numbers of a data set whose seeds answered the same questions."""
    systems = {name: _score_entry(entry, data, seed) for name, entry in data.entries.items()}
    comparisons = {}
    for name, pair in pairs.items():
        if not {pair.a, pair.b} <= data.entries.keys():
            continue
        try:
            compared = _compare_entries(data.entries[pair.a], data.entries[pair.b], data, judged, seed)
            comparisons[name] = compared | {"a": pair.a, "b": pair.b}
        except UserError as error:
            where = f"{pair.a} against {pair.b}"
            if pair.asked:
                raise UserError(error.what, f"{where}, {data.name} {error.where}", error.remedy) from None
            notes.append(f"{where} on {data.name}: not compared: {error}")
    names = list(data.metrics)
    numbers: Record = {"task": data.task, "in": data.evaluation_set, "main": names[0], "metrics": names}
    numbers["labels"] = {name: metric["label"] for name, metric in data.metrics.items()}
    numbers["lower_is_better"] = sorted(data.lower_is_better())
    numbers |= {"systems": systems, "comparisons": comparisons}
    first = next(iter(data.entries.values()))
    if data.task == CLASSIFY:
        numbers["majority"] = labelled.majority_baseline(first.tables[0])
    if ceilings := (first.system.results.get("ceilings") or {}).get(data.evaluation_set):
        numbers["ceilings"] = ceilings
    unanswerable = {
        name: questions.describe_unanswerable(
            entry.tables[0], data.name, _get_record(entry.system, data.evaluation_set)
        )
        for name, entry in data.entries.items()
        if data.task == QA
    }
    return numbers | ({"unanswerable": unanswerable} if any(unanswerable.values()) else {})


def _choose_comparisons(data: DataSet, wanted: Sequence[Pair]) -> dict[str, Pair]:
    """Returns by name the comparisons that this data set allows.

    Where no wanted pair has this data set, each system is compared with the one that did not train, or the first.
    """
    pairs = {f"{pair.a}:{pair.b}": pair for pair in wanted if {pair.a, pair.b} <= data.entries.keys()}
    if pairs or len(data.entries) < 2:
        return pairs
    first = next((n for n, e in data.entries.items() if not e.system.results.get("steps")), next(iter(data.entries)))
    return {f"{name}:{first}": Pair(name, first, asked=False) for name in data.entries if name != first}


def _score_entry(entry: Entry, data: DataSet, seed: int) -> Record:
    described = entry.describe_cells()
    means = _define_means(entry, data, described)
    try:
        scores = grid.score_system(entry.tables, means, described, seed)
    except UserError as error:
        where = f"{entry.system.stages[0].folder}, {data.name} {error.where}".rstrip()
        raise UserError(error.what, where, error.remedy) from None
    if data.task == QA:
        scores["worst"] = questions.find_worst_cells(scores["cells"], entry.tables[0])
        if em_at := questions.compute_em_at(entry.tables, means):
            scores["em_at"] = em_at
    entries = scores["cells"] | scores["averages"]
    for metric in data.over("cell"):
        for name, value in labelled.score_whole_cells(
            metric_lists.ALL[metric].score, entry.tables, means, seed
        ).items():
            entries[name][metric] = value
    return scores | {"seeds": list(entry.system.seeds)}


def _define_means(entry: Entry, data: DataSet, described: Mapping[str, Record]) -> dict[str, grid.Mean]:
    if data.task == QA:
        return questions.define_means(entry.tables[0], data.name, entry.seen)
    return labelled.define_means(described) if data.task == CLASSIFY else retrieved.define_means(entry.tables[0])


def _compare_entries(a: Entry, b: Entry, data: DataSet, judged: Score | None, seed: int) -> Record:
    """Returns A − B, without the means whose cells differ between the two, because other labels were seen."""
    described = [entry.describe_cells() for entry in (a, b)]
    means_a, means_b = (_define_means(entry, data, cells) for entry, cells in zip((a, b), described, strict=True))
    means = {name: mean for name, mean in means_a.items() if means_b.get(name) == mean}
    primary = {CLASSIFY: labelled.PRIMARY, RETRIEVAL: retrieved.PRIMARY}.get(data.task)
    primary = primary or questions.choose_primary(a.tables[0])
    if judged and judged.average in grid.list_plain_means(means):
        primary = (judged.average,)
    left, right, paired = _match_seeds(a, b)
    numbers = grid.compare_systems(left, right, means, primary=primary, seed=seed, paired=paired)
    entries = numbers["cells"] | numbers["averages"]
    for metric in data.over("cell") if len(left) == len(right) == 1 else ():
        lower = metric in data.lower_is_better()
        compared = labelled.compare_whole_cells(
            metric_lists.ALL[metric].score, left[0], right[0], means, seed, lower_is_better=lower
        )
        for name, value in compared.items():
            entries[name][metric] = value
    for cell, entry in numbers["cells"].items():
        entry |= badges.join_badges([cells[cell] for cells in described])
    for name, entry in numbers["averages"].items():
        entry |= badges.join_badges([cells[cell] for cells in described for cell in means[name].all])
    not_compared = sorted((means_a.keys() | means_b.keys()) - means.keys())
    numbers |= grid.count_fixed_and_broken(left[0], right[0], _EXACT[data.task])
    return numbers | ({"not_compared": not_compared} if not_compared else {})


def _match_seeds(a: Entry, b: Entry) -> tuple[Sequence[grid.Table], Sequence[grid.Table], bool]:
    """Returns the tables of both systems, and whether they are paired by seed."""
    common = [seed for seed in a.system.seeds if seed in b.system.seeds]
    if a.system.config == b.system.config or set(a.system.seeds) == set(b.system.seeds):
        if not common:
            raise UserError(
                "no seed for which both compared runs are finished", remedy="finish one run of each with the same seed"
            )
        left, right = ([e.tables[e.system.seeds.index(seed)] for seed in common] for e in (a, b))
        return left, right, True
    return a.tables, b.tables, False


def _check_pairs_have_sets(wanted: Sequence[Pair], data_sets: Sequence[DataSet]) -> None:
    names = [{entry.system.name for entry in data.entries.values()} for data in data_sets]
    for pair in wanted:
        if pair.asked and not any({pair.a, pair.b} <= systems for systems in names):
            remedy = "compare runs that were evaluated on the same sets"
            raise UserError("no data set in common", f"{pair.a} against {pair.b}", remedy)


def _find_unequal_budgets(result: Record, data_sets: Mapping[str, DataSet]) -> list[Record]:
    """Returns for each pair of compared systems the parts of the budget in which they differ."""
    compared: dict[tuple[str, str], tuple[Record, Record]] = {}
    for title, data in data_sets.items():
        for comparison in result["sets"][title]["comparisons"].values():
            a, b = (data.entries[comparison[side]].system for side in "ab")
            compared[a.name, b.name] = (a.results, b.results)
    unequal = []
    for (a, b), (x, y) in compared.items():
        if differ := {key: [x.get(key), y.get(key)] for key in BUDGET if x.get(key) != y.get(key)}:
            unequal.append({"a": a, "b": b, "differ": differ})
    return unequal
