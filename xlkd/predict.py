# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Answers questions or labels texts: `python -m xlkd.predict --model=DIR --question=… --context=…`, or JSONL on stdin.

Questions. In, one JSON object a line:
  question   text
  context    text
  id         anything; by default the number of the line, from 1
Other keys and empty lines are ignored.

Out, one JSON object for each line in the same order:
  id
  answer       a part of the context; empty where the model says that there is none
  start, end   its characters: context[start:end] is the answer; both are -1 where there is none
  probability  among the best candidates (20, unless trained otherwise)
  null_odds    only of a model that knows unanswerable questions: the score of no answer minus that of the best span;
               above the threshold, which was chosen in training, the answer is empty
  n_best       [{text, probability, start, end}, …], best first; the first is the answer, unless a threshold decides
               otherwise: then no answer, with an empty text, is always among them

Labels, where the model is a classifier. In: text; second, a second text (optional); language (optional); id.
Out: id; label; probability; probabilities, {label: …} of all labels; route, the branch that was used or mixture, null
in a model without branches.

Flags:
  --model=NAME        a folder, a hub id, package:NAME; it needs a head for questions or one for labels
  --question=… --context=…, or --text=… [--second=…]: one example, in place of standard input
  --task=qa|classify  where the model has both heads
  --language=de       of texts that name none; without a language all branches answer together
  --route=de          use that branch whatever the language; or mixture
  --labels=A,B,C      names of the labels in the order of the logits, where the model has no names
  --n_best=5          how many candidates are written
  --null_threshold=0  the threshold of null_odds, also for a model that has none
  --batch=64          questions read, answered and written at a time: memory does not grow with the input
  --on_bad_row=skip   leave out a bad line and say so on standard error, instead of stopping there
  --revision=COMMIT   of a hub id
  --max_length, --max_query_length, --doc_stride, --doc_stride_means, --candidates, --max_answer_tokens: as evaluate

Examples:
  python -m xlkd.predict --model=DIR --question="Who went?" --context="Anna went."
  python -m xlkd.predict --model=DIR < questions.jsonl > answers.jsonl
  python -m xlkd.predict --model=DIR --text="Anna went." --second="Anna stayed." --language=en
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from xlkd import cli
from xlkd.errors import UserError, escape_controls
from xlkd.files import Json
from xlkd.settings import TASK_FLAGS

if TYPE_CHECKING:
    from xlkd.data.sources import BadRows

_Input = TypeVar("_Input")
_Parser = Callable[[Mapping[str, Json], str], _Input]  # from the keys of a line, and its place for messages

READER_FLAGS = tuple(flag for flag in TASK_FLAGS if flag != "mlqa_fallback")  # this one changes scores, not answers
QUESTION_FLAGS = ("question", "context", "null_threshold", *(flag for flag in READER_FLAGS if flag != "max_length"))
LABEL_FLAGS = ("text", "second", "language", "route", "labels")
COUNTS = {"n_best": 5, "batch": 64}
LIMITS = {"n_best": 200, "batch": 4096}  # of the settings of question answering; of the memory that a batch takes
FLAGS = ("model", "task", "batch", "on_bad_row", "revision", "max_length", *QUESTION_FLAGS, *LABEL_FLAGS)


class QuestionInput(NamedTuple):
    """A question about a context."""

    id: Json
    question: str
    context: str


class TextInput(NamedTuple):
    """A text, or a pair of texts, to be labelled."""

    id: Json
    text: str
    second: str | None
    language: str


def main(arguments: list[str]) -> None:
    """Answers the input of the command line or of standard input."""
    flags = cli.parse_flags(arguments, FLAGS)
    if "model" not in flags:
        raise UserError("no --model given", "command line", "give the folder that a run exported")
    if ("question" in flags) != ("context" in flags):
        raise UserError("--question and --context belong together", "command line", "give both, or JSONL on stdin")
    if "second" in flags and "text" not in flags:
        raise UserError("--second without --text", "command line", "give both, or JSONL on stdin")
    if flags.get("task", "qa") not in ("qa", "classify"):
        raise UserError(f"--task={flags['task']} is not possible", "command line", "choose qa or classify")
    from xlkd.data.sources import BadRows

    bad_rows = BadRows(flags.get("on_bad_row", "stop"), "--on_bad_row")
    for name, default in COUNTS.items():
        cli.parse_count(flags, name, default, LIMITS[name])
    task = _choose_task(flags)
    if unused := [name for name in (QUESTION_FLAGS if task == "classify" else LABEL_FLAGS) if name in flags]:
        raise UserError(f"--{unused[0]} does not belong to the task {task}", "command line", "leave it out")
    if task == "classify":
        chunks = _label_texts(flags, _list_inputs(flags, bad_rows, _parse_text))
    else:
        chunks = _answer_questions(flags, _list_inputs(flags, bad_rows, _parse_question))
    for items, results in chunks:
        for item, result in zip(items, results, strict=True):
            print(format_line({"id": item.id, **result}))
        sys.stdout.flush()
    for where, reason in bad_rows.skipped:
        print(escape_controls(f"left out: {where}: {reason}"), file=sys.stderr)


def format_line(value: Json) -> str:
    """Formats a value as one line of JSON, in the letters of all languages, with control characters escaped."""
    return escape_controls(json.dumps(value, ensure_ascii=False, allow_nan=False))


def _choose_task(flags: dict[str, str]) -> str:
    """Returns the task of `--task`, else the one of the command line's text, else the one the model was trained for."""
    if "task" in flags or "question" in flags or "text" in flags:
        return flags.get("task") or ("classify" if "text" in flags else "qa")
    from xlkd import api

    return api.find_task(flags["model"], flags.get("revision", ""))


def _answer_questions(
    flags: dict[str, str], inputs: Iterable[QuestionInput]
) -> Iterator[tuple[list[QuestionInput], Sequence[Mapping[str, Json]]]]:
    """Yields some questions at a time with their answers."""
    from xlkd import api

    n_best, batch = (cli.parse_count(flags, name, default, LIMITS[name]) for name, default in COUNTS.items())
    model = api.load(flags["model"], flags.get("revision", ""))
    # The flag limits what is written; fewer candidates in the decoder would change the answers
    candidates = max(model.question_settings().n_best, n_best)
    task_settings = model.question_settings(flags | {"n_best": str(candidates)})
    threshold = model.null_threshold(flags)
    reader = api.Reader(model, task_settings, batch=-(-batch // 4), fixed=True, threshold=threshold)
    for chunk in _iterate_chunks(inputs, batch):
        yield chunk, reader.answer_questions([(item.question, item.context) for item in chunk], n_best)


def _label_texts(
    flags: dict[str, str], inputs: Iterable[TextInput]
) -> Iterator[tuple[list[TextInput], Sequence[Mapping[str, Json]]]]:
    """Yields some texts at a time with their labels."""
    from xlkd import api

    batch, route = cli.parse_count(flags, "batch", COUNTS["batch"], LIMITS["batch"]), flags.get("route", "")
    model = api.load(flags["model"], flags.get("revision", ""))
    task_settings = model.label_settings(flags)
    labeller = api.Labeller(model, task_settings, batch=-(-batch // 4), fixed=True)
    for chunk in _iterate_chunks(inputs, batch):
        yield chunk, labeller.label_texts([(item.text, item.second, item.language) for item in chunk], route)


def _iterate_chunks(inputs: Iterable[_Input], size: int) -> Iterator[list[_Input]]:
    """Yields `size` inputs at a time; those before a bad line are answered before it stops the command."""
    chunk: list[_Input] = []
    try:
        for item in inputs:
            chunk.append(item)
            if len(chunk) == size:
                yield chunk
                chunk = []
    except UserError:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


def _list_inputs(flags: dict[str, str], bad_rows: BadRows, parse: _Parser[_Input]) -> Iterable[_Input]:
    """Returns the input of the command line, else the lines of standard input as they come."""
    if "question" in flags or "text" in flags:
        # In a locale of ASCII alone, Python has escaped the bytes of other characters
        texts = {name: os.fsencode(text).decode("utf-8", "surrogateescape") for name, text in flags.items()}
        return [parse({"id": 1} | texts, "command line")]
    default = {"language": flags["language"]} if "language" in flags else {}
    if sys.stdin is None:
        raise UserError("standard input is closed", "", "give JSONL there, or --question and --context, or --text")
    return _read_inputs(sys.stdin.buffer, bad_rows, parse, default)


def _read_inputs(
    stream: Iterable[bytes],
    bad_rows: BadRows,
    parse: _Parser[_Input],
    default: Mapping[str, str],
) -> Iterator[_Input]:
    """Yields the parsed lines of a stream of JSON; `default` is used for keys that a line leaves empty."""
    for number, line in enumerate(_read_lines(stream), 1):
        if not line.strip():
            continue
        where = f"standard input, line {number}"
        try:
            value = json.loads(line.decode("utf-8-sig"))
            if not isinstance(value, dict):
                raise UserError("not a JSON object", where)
            json.dumps(value.get("id"), indent=1, allow_nan=False)  # it is written again beside the answer
            complete = value if value.get("language") else {**value, **default}
            yield parse({"id": number} | complete, where)
        except UnicodeDecodeError as error:
            bad_rows.report(f"not UTF-8 at byte {error.start}", where)
        except (ValueError, RecursionError) as error:
            bad_rows.report(f"broken JSON: {error}", where)
        except UserError as error:
            bad_rows.report(error.what, where)


def _read_lines(stream: Iterable[bytes]) -> Iterator[bytes]:
    """Yields the lines of standard input."""
    try:
        yield from stream
    except OSError as error:
        remedy = "give JSONL on standard input"
        raise UserError(f"cannot be read: {error.strerror or error}", "standard input", remedy) from None


def _parse_question(value: Mapping[str, Json], where: str) -> QuestionInput:
    """Checks the texts of an input and returns the question."""
    from xlkd.data.sources.squad import find_text_fault

    for name in ("question", "context"):
        if fault := find_text_fault(value.get(name), name):
            raise UserError(fault, where)
    return QuestionInput(value["id"], value["question"], value["context"])


def _parse_text(value: Mapping[str, Json], where: str) -> TextInput:
    """Checks the texts and the language of an input and returns the text."""
    from xlkd.data.sources.squad import find_text_fault
    from xlkd.languages import UNKNOWN, normalise_tag

    for name in ("text", "second"):
        required = name == "text" or value.get(name) is not None
        if required and (fault := find_text_fault(value.get(name), name)):
            raise UserError(fault, where)
    language = value.get("language") or ""
    if not isinstance(language, str):
        raise UserError("language is not a string", where)
    tag = language if language in ("", UNKNOWN) else normalise_tag(language, where)
    return TextInput(value["id"], value["text"], value.get("second"), tag)


if __name__ == "__main__":
    sys.exit(cli.run(main))
