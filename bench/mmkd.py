# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""An MMKD step that shares its passes against the seven that were published: `python bench/mmkd.py [--data=SOURCE]`.

  --data=SOURCE    parallel text for the line with real lengths, such as ntrex:DIR?languages=en,de,zh
  --student=DIR    tokenizers for it (default: the package's)
  --teacher=DIR
  --steps=16       batches a round on that line: every n-th of an epoch by length

Published: four student passes and three of the teacher, each with its own dropout, all of 128, the masked-LM head at
every position. Ours: three and one, the head where a token is hidden, buckets. Student and teacher are 6×384 with
30,522 pieces, where the head costs as much beside the encoder as in mBERT's shape. Both sides are ours, so that the
arrangement alone differs. Common flags: bench/side_by_side.py.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import side_by_side
from side_by_side import Case, Sides

from xlkd import cli

if TYPE_CHECKING:  # side_by_side.flags comes before jax
    from models import Trainer

LENGTH, ROWS, WORDS = 128, 8, 32
PUBLISHED = {"method__student_passes": "separate", "method__teacher_dropout": True}
EVERYWHERE = {"task__tlm_labels": "all", "data__pad_to": LENGTH}


def main(arguments: list[str]) -> None:
    flags = side_by_side.flags(arguments, ("data", "student", "teacher", "steps"))
    cases = [
        Case("equal shapes, encoder alone", lambda: made(flags, few_pieces=True), 1.35, True),
        Case("with the masked-LM head", lambda: made(flags, few_pieces=False), 1.5, True),
        Case("and with buckets on real lengths", lambda: real(flags), 2.8, True),
    ]
    side_by_side.judge("MMKD, against seven passes", cases, flags)


def made(flags: side_by_side.Flags, few_pieces: bool) -> Sides:
    """Rows of one length; with a few pieces alone in the vocabulary the head costs nothing."""
    import models

    words = 100 if few_pieces or flags.quick else 30522
    rows, length = (2, 16) if flags.quick else (ROWS, LENGTH)
    ours, theirs = _trainer(flags, words, {}), _trainer(flags, words, PUBLISHED | EVERYWHERE)
    budget = length if few_pieces else _budget(length)  # positions that are scored
    batches = [models.place([_batch(rows, length, n, words)] * 2) for n in (budget, length)]
    return lambda: ours.over(batches[0]), lambda: theirs.over(batches[1])


def real(flags: side_by_side.Flags) -> Sides:
    """Batches of a source; there, every view of every row padded to 128."""
    import dataclasses

    import models
    import real_batches

    from xlkd.tasks import Draw

    stage = models.stage("mmkd.py:own", "full", **_data(flags))
    count = 2 if flags.quick else cli.parse_count(flags.rest, "steps", 16)
    read = real_batches.read(stage)
    length = stage.task.max_length
    steps, others = real_batches.bucketed(read, count), real_batches.shuffled(read, count, length)
    words = max(dict(step.shape.lengths)["words"] for step in steps)
    longest = dict.fromkeys(read.plan.lengths, length) | {"words": words}
    task = dataclasses.replace(read.task, tlm_labels="all")
    padded = [task.arrays(read.features, step.index, longest, Draw(0, 0)) for step in others]
    ours = _trainer(flags, read.vocabulary, {})
    theirs = _trainer(flags, read.vocabulary, PUBLISHED | EVERYWHERE)
    batches, padded = models.place([read.batch(step) for step in steps]), models.place(padded)
    return lambda: ours.over(batches), lambda: theirs.over(padded)


def _data(flags: side_by_side.Flags) -> dict[str, Any]:
    found = {"data__batch": ROWS, "data__buckets": 5, "data__identities": False, "task__max_length": LENGTH}
    found["data__train"] = flags.rest.get("data", "atlas?split=train&languages=en,de,es,ru,ar,hi,zh&size=100")
    found["encoder__path"] = flags.rest.get("student", "package:multilingual")
    found["teacher__path"] = flags.rest.get("teacher", "package:english")
    if flags.quick:
        found |= {"data__batch": 2, "data__buckets": 2, "data__train": "atlas?split=train&languages=en,de&size=4"}
    return found


def _trainer(flags: side_by_side.Flags, words: int, changes: dict[str, Any]) -> Trainer:
    import models

    from xlkd.methods import mmkd
    from xlkd.models.encoder import Encoder

    stage = models.resolve(models.stage("mmkd.py:own", "full", data__train="", **changes))
    of = models.architecture("tiny" if flags.quick else "6x384", 0.1, words)
    teacher = models.architecture("tiny" if flags.quick else "6x384", 0.1)
    method = mmkd.build(stage, Encoder(of), Encoder(teacher))
    given = models.start(of)._replace(other=models.start(teacher, 1).encoder)
    return models.Trainer(method, given, stage)


def _budget(length: int) -> int:
    """Positions that the task keeps for hidden tokens, by its own rule."""
    from xlkd.tasks.views import Views

    return int(Views(None, None, length, 0.15).budget(length))


def _batch(rows: int, length: int, positions: int, words: int) -> dict[str, Any]:
    """All four views at one length, without padding."""
    import models
    import numpy as np

    random = np.random.default_rng(0)
    count = min(WORDS, length // 2)
    at = np.sort(random.permuted(np.tile(np.arange(length), (rows, 1)), axis=1)[:, :positions], axis=1)
    first = np.tile(np.linspace(0, length - 1, count, dtype=np.int32), (rows, 1))
    views = {view: models.texts(random, rows, length, words) for view in ("token", "word", "sentence", "teacher")}
    views["word"] |= {"drawn": random.random((rows, length)) < 0.15, "first": first}
    views["teacher"] |= {"first": first}
    scored = {"positions": at.astype(np.int32), "labels": np.take_along_axis(views["token"]["ids"], at, 1)}
    counted = np.ones((rows, positions), bool)
    return views | scored | {"counted": counted, "exists": first >= 0, "mask": np.ones(rows, np.float32)}


if __name__ == "__main__":
    sys.exit(cli.run(main))
