# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Answers questions as our commands do, against loops in PyTorch: `python bench/predict.py --model=DIR --xquad=DIR`.

  --model=DIR    an encoder with its tokenizer, which gets a random question answering head
  --xquad=DIR    the folder of xquad.*.json; without it the atlas (synthetic data), with shorter texts
  --questions=40 of each language

All sides tokenize the questions, compute the logits of all windows (at most 384 tokens, of which 128 overlap), and
choose the best of 20 × 20 spans. The loops take the questions as they come, pad each batch to its longest window, and
use transformers' model with SDPA; the fastest of them counts. Common flags: bench/side_by_side.py.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import side_by_side
from side_by_side import Case, Sides

from xlkd import cli
from xlkd.errors import UserError

Pairs = list[tuple[str, str]]  # of question and context

LANGUAGES = "en,es,de,ar,hi,vi,zh"  # the seven of the paper
LENGTH, OVERLAP, BEST, LONGEST = 384, 128, 20, 30
COMMAND_ROWS = 64  # that `xlkd.predict` reads at a time
LOOPS = {"batches of 8": 8, "batches of 32": 32}
AGREEING = 0.97  # share of the questions that both sides answer alike; a random head has near-ties


def main(arguments: list[str]) -> None:
    flags = side_by_side.parse_flags(arguments, ("model", "xquad", "questions"))
    if "model" not in flags.rest:
        raise UserError("--model is missing", "command line", "name the folder of an encoder with its tokenizer")
    pairs = _read_pairs(flags)
    with tempfile.TemporaryDirectory() as folder:
        add_random_head(pathlib.Path(flags.rest["model"]), pathlib.Path(folder) / "model")
        make = functools.partial(make_sides, pathlib.Path(folder) / "model", pairs)
        cases = [
            Case("evaluate: all questions", lambda: make(0), 1.5, True, warm=1, peers=tuple(LOOPS)),
            Case(
                f"predict: {COMMAND_ROWS} at a time", lambda: make(COMMAND_ROWS), 1.5, True, warm=1, peers=tuple(LOOPS)
            ),
        ]
        data = "XQuAD" if "xquad" in flags.rest else "the atlas (synthetic data)"
        side_by_side.judge(f"PyTorch / ours, {len(pairs)} questions of {data}", cases, flags)


def _read_pairs(flags: side_by_side.Flags) -> Pairs:
    from xlkd.data import sources

    count = 4 if flags.quick else cli.parse_count(flags.rest, "questions", 40, 100_000)
    text = f"atlas?split=test&languages=en,es&size={count}"
    if "xquad" in flags.rest:
        text = f"xquad:{flags.rest['xquad']}?languages={LANGUAGES}&limit={count}"
    return [(row.question, row.context) for row in sources.read(text, "qa")]


def add_random_head(encoder: pathlib.Path, folder: pathlib.Path) -> None:
    """Writes a model with the weights of an encoder and a random question answering head."""
    import jax

    from xlkd.models import hf
    from xlkd.models.heads import SpanHead, init_head

    checkpoint = hf.load(encoder)
    head = init_head(SpanHead(checkpoint.architecture), jax.random.key(0))
    params = {"encoder": checkpoint.params["encoder"], "span": jax.tree.map(lambda x: 10 * x, head)}
    hf.save(folder, checkpoint.architecture, jax.device_get(params), tokenizer=encoder)


def make_sides(folder: pathlib.Path, pairs: Pairs, chunk: int) -> Sides:
    """Builds our side, with `chunk` questions at a time (0: all), and a loop for each size of its batches."""
    from xlkd import api

    model = api.load(folder)
    same = {"max_length": LENGTH, "doc_stride": OVERLAP, "doc_stride_means": "overlap", "max_context": False}
    task = dataclasses.replace(model.question_settings(), **same)
    reader = api.Reader(model, task, batch=chunk // 4 or 64, fixed=bool(chunk))

    def answer() -> list[str]:
        size = chunk or len(pairs)
        parts = (pairs[i : i + size] for i in range(0, len(pairs), size))
        return [each["answer"] for part in parts for each in reader.answer_questions(part)]

    loop = make_loop(folder)
    answers, expected = answer(), loop(pairs, min(LOOPS.values()))
    agreeing = sum(ours == theirs for ours, theirs in zip(answers, expected, strict=True)) / len(pairs)
    if agreeing < AGREEING:
        raise AssertionError(f"both sides give the same answer to only {agreeing:.0%} of the questions")
    return lambda: _discard(answer()), *(lambda rows=rows: _discard(loop(pairs, rows)) for rows in LOOPS.values())


def _discard(_: list[str]) -> None:
    """Drops answers: a side returns nothing when it is to be timed."""


def make_loop(folder: pathlib.Path) -> Callable[[Pairs, int], list[str]]:
    """Returns a function that answers questions in batches of windows by transformers in PyTorch."""
    import numpy as np
    import peer
    import torch
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer
    from transformers.utils import logging as reporting

    reporting.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForQuestionAnswering.from_pretrained(folder, attn_implementation="sdpa", dtype=torch.float32)
    forward = peer.compile_forward(model.to(peer.DEVICE), False)

    def iterate_batches(pairs: Pairs, rows: int) -> Iterator[tuple[Any, Any]]:
        """Yields the inputs of the model for some windows, and the encodings of these windows."""
        for start in range(0, len(pairs), rows):
            questions, contexts = zip(*pairs[start : start + rows], strict=True)
            windows = tokenizer(
                list(questions),
                list(contexts),
                truncation="only_second",
                max_length=LENGTH,
                stride=OVERLAP,
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
                padding=True,
                return_tensors="np",
            )
            for first in range(0, len(windows["input_ids"]), rows):
                part = slice(first, first + rows)
                inputs = {name: torch.from_numpy(windows[name][part]) for name in tokenizer.model_input_names}
                yield inputs, (windows, range(len(windows["input_ids"]))[part], start)

    def answer(pairs: Pairs, rows: int) -> list[str]:
        best: dict[int, tuple[float, str]] = {}
        for inputs, (windows, numbers, start) in iterate_batches(pairs, rows):
            outputs = forward(inputs)
            begins, ends = outputs.start_logits.numpy(), outputs.end_logits.numpy()
            for row, number in enumerate(numbers):
                question = start + int(windows["overflow_to_sample_mapping"][number])
                is_context = np.array([each == 1 for each in windows.sequence_ids(number)])
                firsts = _list_best(np.where(is_context, begins[row], -np.inf))
                lasts = _list_best(np.where(is_context, ends[row], -np.inf))
                lengths = lasts[None, :] - firsts[:, None] + 1
                scores = begins[row][firsts][:, None] + ends[row][lasts][None, :]
                scores[(lengths < 1) | (lengths > LONGEST)] = -np.inf
                i, j = np.unravel_index(np.argmax(scores), scores.shape)
                if scores[i, j] > best.get(question, (-np.inf, ""))[0]:
                    offsets = windows["offset_mapping"][number]
                    text = pairs[question][1][offsets[firsts[i]][0] : offsets[lasts[j]][1]]
                    best[question] = float(scores[i, j]), text
        return [best.get(i, (0.0, ""))[1] for i in range(len(pairs))]

    return answer


def _list_best(logits: Any) -> Any:
    """Returns the positions of the highest logits."""
    import numpy as np

    return np.argsort(-logits)[:BEST]


if __name__ == "__main__":
    sys.exit(cli.run(main))
