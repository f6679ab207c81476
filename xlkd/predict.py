# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Answers of a model: `python -m xlkd.predict --model=DIR --question=… --context=…`, or JSONL from standard input.

    python -m xlkd.predict --model=DIR < questions.jsonl > answers.jsonl

In, one JSON object a line:
  question   text
  context    text
  id         anything; the number of the line, from 1, where there is none
Other keys are let be; empty lines are passed over.

Out, one JSON object for each in the same order:
  id
  answer       a part of the context
  start, end   its characters: context[start:end] is the answer; both -1 where there is none
  probability  among the best candidates (20, unless trained otherwise)
  n_best       [{text, probability, start, end}, …], best first; the first is the answer

Flags:
  --model=NAME        a folder, a hub id, package:NAME; it needs a head for questions
  --n_best=5          how many candidates are written
  --batch=64          questions read, answered and written at a time: memory does not grow with the input
  --on_bad_row=skip   leave out a bad line and say so on standard error, instead of stopping there
  --revision=COMMIT   of a hub id
  --max_length, --max_query_length, --doc_stride, --doc_stride_means, --candidates, --max_answer_tokens: as evaluate
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from xlkd import door
from xlkd.errors import UserError
from xlkd.settings import TASK_FLAGS

READING = tuple(flag for flag in TASK_FLAGS if flag != "mlqa_fallback")  # that one is about scores
FLAGS = ("model", "question", "context", "batch", "on_bad_row", "revision", *READING)


class Asked(NamedTuple):
    id: Any
    question: str
    context: str


def main(arguments: list[str]) -> None:
    given = door.flags(arguments, FLAGS)
    if "model" not in given:
        raise UserError("no --model given", "command line", "give the folder that a run exported")
    if ("question" in given) != ("context" in given):
        raise UserError("--question and --context belong together", "command line", "give both, or JSONL on stdin")
    from xlkd.data.sources import Bad

    n_best, batch = door.whole(given, "n_best", 5), door.whole(given, "batch", 64)
    bad = Bad(given.get("on_bad_row", "stop"))
    once = "question" in given
    asked = [_asked({"id": 1} | given, "command line")] if once else _lines(sys.stdin.buffer, bad)
    from xlkd import api

    model = api.load(given["model"], given.get("revision", ""))
    # the flag says what is written; fewer candidates for the decoder would be other answers
    recorded = model.task().n_best
    chosen = model.task("qa", given | {"n_best": str(max(recorded, n_best))})
    reader = api.Reader(model, chosen, batch=-(-batch // 4), fixed=True)
    for some in _chunks(asked, batch):
        found = reader.answers([(one.question, one.context) for one in some], n_best)
        for one, answer in zip(some, found, strict=True):
            print(json.dumps({"id": one.id} | answer, ensure_ascii=False))
        sys.stdout.flush()
    for where, reason in bad.seen:
        print(f"left out: {where}: {reason}", file=sys.stderr)


def _chunks(asked: Iterable[Asked], size: int) -> Iterator[list[Asked]]:
    """So many at a time; those before a bad line are answered before it stops the work."""
    held: list[Asked] = []
    try:
        for one in asked:
            held.append(one)
            if len(held) == size:
                yield held
                held = []
    except UserError:
        if held:
            yield held
        raise
    if held:
        yield held


def _lines(stream: Iterable[bytes], bad) -> Iterator[Asked]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        where = f"standard input, line {number}"
        try:
            value = json.loads(line.decode("utf-8-sig"))
            if not isinstance(value, dict):
                raise UserError("not a JSON object", where)
            yield _asked({"id": number} | value, where)
        except UnicodeDecodeError as error:
            bad(f"not UTF-8 at byte {error.start}", where)
        except (json.JSONDecodeError, RecursionError) as error:
            bad(f"broken JSON: {error}", where)
        except UserError as error:
            bad(error.what, where)


def _asked(value: dict[str, Any], where: str) -> Asked:
    from xlkd.data.sources.squad import text_fault

    for name in ("question", "context"):
        if fault := text_fault(value.get(name), name):
            raise UserError(fault, where)
    return Asked(value["id"], value["question"], value["context"])


if __name__ == "__main__":
    sys.exit(door.run(main))
