# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""An MMKD step with shared passes, compared with the seven published passes: `python bench/mmkd.py [--data=SOURCE]`.

  --data=SOURCE    parallel text for the line with real lengths, such as ntrex:DIR?languages=en,de,zh
  --student=DIR    tokenizers for it (default: the package's)
  --teacher=DIR
  --steps=16       batches per round on that line: every n-th of an epoch by length

Published: four student passes and three of the teacher, each with its own dropout, all of length 128, and the masked-LM
head at every position. Ours: three and one, the head at masked tokens only, buckets. Student and teacher are 6×384 with
30,522 tokens, where the head has the same share of the cost as in mBERT's shape. Both sides are our code, so that only
the method differs. Common flags: bench/side_by_side.py.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import side_by_side
from side_by_side import Case, Sides

from xlkd import cli

if TYPE_CHECKING:  # side_by_side.parse_flags comes before jax
    from models import Trainer

    from xlkd.models.family import Architecture

LENGTH, ROWS, WORDS = 128, 8, 32
PUBLISHED = {"method__student_passes": "separate", "method__teacher_dropout": True}
EVERYWHERE = {"task__tlm_labels": "all", "data__pad_to": LENGTH}


def main(arguments: list[str]) -> None:
    flags = side_by_side.parse_flags(arguments, ("data", "student", "teacher", "steps"))
    cases = [
        Case("equal shapes, encoder only", lambda: make_fixed_sides(flags, few_tokens=True), 1.35, True),
        Case("with the masked-LM head", lambda: make_fixed_sides(flags, few_tokens=False), 1.5, True),
        Case("and with buckets on real lengths", lambda: make_real_sides(flags), 2.8, True),
    ]
    side_by_side.judge("MMKD, against seven passes", cases, flags)


def make_fixed_sides(flags: side_by_side.Flags, few_tokens: bool) -> Sides:
    """Builds steps on rows of one length; with few tokens in the vocabulary the head costs nothing."""
    import models

    words = 100 if few_tokens or flags.quick else 30522
    rows, length = (2, 16) if flags.quick else (ROWS, LENGTH)
    ours, theirs = _make_trainer(flags, words, {}), _make_trainer(flags, words, PUBLISHED | EVERYWHERE)
    budget = length if few_tokens else count_positions(length)  # positions that are scored
    batches = [models.put_on_device([make_batch(rows, length, n, words)] * 2) for n in (budget, length)]
    return lambda: ours.run_steps(batches[0]), lambda: theirs.run_steps(batches[1])


def make_real_sides(flags: side_by_side.Flags) -> Sides:
    """Builds steps on batches of a source; the other side pads every view of every row to 128."""
    import dataclasses

    import models
    import real_batches

    from xlkd.tasks import Draw

    stage = models.read_stage("mmkd.py:own", "full", **_read_data_flags(flags))
    count = 2 if flags.quick else cli.parse_count(flags.rest, "steps", 16, 10_000)
    material = real_batches.read_material(stage)
    length = stage.task.max_length
    steps, shuffled = (
        real_batches.sample_bucketed(material, count),
        real_batches.sample_shuffled(material, count, length),
    )
    words = max(dict(step.shape.lengths)["words"] for step in steps)
    longest = dict.fromkeys(material.plan.lengths, length) | {"words": words}
    task = dataclasses.replace(material.task, tlm_labels="all")
    padded = [task.arrays(material.features, step.index, longest, Draw(0, 0)) for step in shuffled]
    ours = _make_trainer(flags, material.vocabulary, {})
    theirs = _make_trainer(flags, material.vocabulary, PUBLISHED | EVERYWHERE)
    batches, padded = models.put_on_device([material.batch(step) for step in steps]), models.put_on_device(padded)
    return lambda: ours.run_steps(batches), lambda: theirs.run_steps(padded)


def _read_data_flags(flags: side_by_side.Flags) -> dict[str, Any]:
    changes = {"data__batch": ROWS, "data__buckets": 5, "data__identities": False, "task__max_length": LENGTH}
    changes["data__train"] = flags.rest.get("data", "atlas?split=train&languages=en,de,es,ru,ar,hi,zh&size=100")
    changes["encoder__path"] = flags.rest.get("student", "package:multilingual")
    changes["teacher__path"] = flags.rest.get("teacher", "package:english")
    if flags.quick:
        changes |= {"data__batch": 2, "data__buckets": 2, "data__train": "atlas?split=train&languages=en,de&size=4"}
    return changes


def _make_trainer(flags: side_by_side.Flags, words: int, changes: dict[str, Any]) -> Trainer:
    import models

    shape = "tiny" if flags.quick else "6x384"
    return make_trainer(models.make_architecture(shape, 0.1, words), models.make_architecture(shape, 0.1), changes)


def make_trainer(
    student: Architecture, teacher: Architecture, changes: dict[str, Any], dtype: str = "float32"
) -> Trainer:
    """Builds a step on all four levels, from random weights."""
    import models

    from xlkd.methods import mmkd

    stage = models.resolve_stage(models.read_stage("mmkd.py:own", "full", data__train="", **changes))
    method = mmkd.build(stage, *(models.make_encoder(architecture, dtype) for architecture in (student, teacher)))
    start = models.make_start(student)._replace(other=models.make_start(teacher, 1).encoder)
    return models.Trainer(method, start, stage)


def count_positions(length: int) -> int:
    """Returns the number of positions that the task reserves for masked tokens."""
    from xlkd.tasks.views import Views

    return int(Views(None, None, length, 0.15).max_masked(length))


def make_batch(rows: int, length: int, positions: int, words: int, side: int = 0) -> dict[str, Any]:
    """Returns a random batch with all four views, without padding.

    Pairs have this length, and sentences the length `side`; 0 means that of pairs.
    """
    import models
    import numpy as np

    random = np.random.default_rng(0)
    count = min(WORDS, length // 2)
    at = np.sort(random.permuted(np.tile(np.arange(length), (rows, 1)), axis=1)[:, :positions], axis=1)
    lengths = {"token": length, "word": length, "sentence": side or length, "teacher": side or length}
    views = {view: models.make_texts(random, rows, n, words) for view, n in lengths.items()}
    first = {
        view: np.tile(np.linspace(0, lengths[view] - 1, count, dtype=np.int32), (rows, 1))
        for view in ("word", "teacher")
    }
    views["word"] |= {"drawn": random.random((rows, length)) < 0.15, "first": first["word"]}
    views["teacher"] |= {"first": first["teacher"]}
    scored = {"positions": at.astype(np.int32), "labels": np.take_along_axis(views["token"]["ids"], at, 1)}
    counted, exists = np.ones((rows, positions), bool), first["word"] >= 0
    return views | scored | {"counted": counted, "exists": exists, "mask": np.ones(rows, np.float32)}


if __name__ == "__main__":
    sys.exit(cli.run(main))
