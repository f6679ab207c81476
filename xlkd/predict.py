# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Answers of a model: `python -m xlkd.predict --model=DIR --question=… --context=…`, or JSONL from standard input.

    python -m xlkd.predict --model=DIR < questions.jsonl > answers.jsonl
    python -m xlkd.predict --model=DIR --text="Anna went." --second="Anna stayed." --language=en

Questions. In, one JSON object a line:
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

Labels, where the model is a classifier. In: text; second, a second text (optional); language (optional); id.
Out: id; label; probability; probabilities, {label: …} of all labels; route, the branch that the text went through or
mixture, null in a model without branches.

Flags:
  --model=NAME        a folder, a hub id, package:NAME; it needs a head for questions or for labels
  --task=qa|classify  where the model has both heads
  --language=de       of texts that name none; without any all branches answer together
  --route=de          through that branch whatever the language; or mixture
  --labels=A,B,C      names of the labels in the order of the logits, where the model has none of its own
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

from xlkd import cli
from xlkd.errors import UserError, escape_controls
from xlkd.settings import TASK_FLAGS

READING = tuple(flag for flag in TASK_FLAGS if flag != "mlqa_fallback")  # that one is about scores
OF_QUESTIONS = ("question", "context", *(flag for flag in READING if flag != "max_length"))
OF_LABELS = ("text", "second", "language", "route", "labels")
NUMBERS = {"n_best": 5, "batch": 64}
FLAGS = ("model", "task", "batch", "on_bad_row", "revision", "max_length", *OF_QUESTIONS, *OF_LABELS)


class Asked(NamedTuple):
    id: Any
    question: str
    context: str


class Text(NamedTuple):
    id: Any
    text: str
    second: str | None
    language: str


def main(arguments: list[str]) -> None:
    flags = cli.parse_flags(arguments, FLAGS)
    if "model" not in flags:
        raise UserError("no --model given", "command line", "give the folder that a run exported")
    if ("question" in flags) != ("context" in flags):
        raise UserError("--question and --context belong together", "command line", "give both, or JSONL on stdin")
    if "second" in flags and "text" not in flags:
        raise UserError("--second without --text", "command line", "give both, or JSONL on stdin")
    if flags.get("task", "qa") not in ("qa", "classify"):
        raise UserError(f"--task={flags['task']} is not possible", "command line", "qa and classify are")
    from xlkd.data.sources import BadRows

    bad_rows = BadRows(flags.get("on_bad_row", "stop"))
    for name, default in NUMBERS.items():
        cli.parse_count(flags, name, default)
    task = _task(flags)
    if unused := [name for name in (OF_QUESTIONS if task == "classify" else OF_LABELS) if name in flags]:
        raise UserError(f"--{unused[0]} is not for the task {task}", "command line", "leave it out")
    read, answers = (_text, _labels) if task == "classify" else (_asked, _answers)
    if "question" in flags or "text" in flags:
        asked = [read({"id": 1} | flags, "command line")]
    else:
        asked = _lines(sys.stdin.buffer, bad_rows, read, {name: flags[name] for name in ("language",) if name in flags})
    for some, found in answers(flags, asked):
        for one, answer in zip(some, found, strict=True):
            print(written({"id": one.id} | answer))
        sys.stdout.flush()
    for where, reason in bad_rows.skipped:
        print(escape_controls(f"left out: {where}: {reason}"), file=sys.stderr)


def written(value: dict[str, Any]) -> str:
    """One line of JSON, in the letters of all languages; what would act on a terminal is spelt out, as JSON does."""
    return escape_controls(json.dumps(value, ensure_ascii=False))


def _task(flags: dict[str, str]) -> str:
    """As asked, as the command line's own text needs it, else what the model was made for."""
    if "task" in flags or "question" in flags or "text" in flags:
        return flags.get("task") or ("classify" if "text" in flags else "qa")
    from xlkd import api

    return api.task_of(flags["model"], flags.get("revision", ""))


def _answers(flags: dict[str, str], asked: Iterable[Any]) -> Iterator[tuple[list[Any], list[dict[str, Any]]]]:
    """Some questions at a time, and the answers to them."""
    from xlkd import api

    n_best, batch = (cli.parse_count(flags, name, default) for name, default in NUMBERS.items())
    model = api.load(flags["model"], flags.get("revision", ""))
    # the flag says what is written; fewer candidates for the decoder would be other answers
    recorded = model.task().n_best
    chosen = model.task("qa", flags | {"n_best": str(max(recorded, n_best))})
    reader = api.Reader(model, chosen, batch=-(-batch // 4), fixed=True)
    for some in _chunks(asked, batch):
        yield some, reader.answers([(one.question, one.context) for one in some], n_best)


def _labels(flags: dict[str, str], asked: Iterable[Any]) -> Iterator[tuple[list[Any], list[dict[str, Any]]]]:
    """Some texts at a time, and their labels."""
    from xlkd import api

    batch, route = cli.parse_count(flags, "batch", NUMBERS["batch"]), flags.get("route", "")
    model = api.load(flags["model"], flags.get("revision", ""))
    chosen = model.task("classify", flags)
    labeller = api.Labeller(model, chosen, batch=-(-batch // 4), fixed=True)
    for some in _chunks(asked, batch):
        yield some, labeller.labels([(one.text, one.second, one.language) for one in some], route)


def _chunks(asked: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """So many at a time; those before a bad line are answered before it stops the work."""
    held: list[Any] = []
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


def _lines(stream: Iterable[bytes], bad_rows, read, default: dict[str, str]) -> Iterator[Any]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        where = f"standard input, line {number}"
        try:
            value = json.loads(line.decode("utf-8-sig"))
            if not isinstance(value, dict):
                raise UserError("not a JSON object", where)
            told = value if value.get("language") else {**value, **default}
            yield read({"id": number} | told, where)
        except UnicodeDecodeError as error:
            bad_rows.report(f"not UTF-8 at byte {error.start}", where)
        except (ValueError, RecursionError) as error:
            bad_rows.report(f"broken JSON: {error}", where)
        except UserError as error:
            bad_rows.report(error.what, where)


def _asked(value: dict[str, Any], where: str) -> Asked:
    from xlkd.data.sources.squad import find_text_fault

    for name in ("question", "context"):
        if fault := find_text_fault(value.get(name), name):
            raise UserError(fault, where)
    return Asked(value["id"], value["question"], value["context"])


def _text(value: dict[str, Any], where: str) -> Text:
    from xlkd.data.sources.squad import find_text_fault
    from xlkd.languages import UNKNOWN, normalise_tag

    for name in ("text", "second"):
        flags = name == "text" or value.get(name) is not None
        if fault := flags and find_text_fault(value.get(name), name):
            raise UserError(fault, where)
    language = value.get("language") or ""
    if not isinstance(language, str):
        raise UserError("language is not a string", where)
    tag = language if language in ("", UNKNOWN) else normalise_tag(language, where)
    return Text(value["id"], value["text"], value.get("second"), tag)


if __name__ == "__main__":
    sys.exit(cli.run(main))
