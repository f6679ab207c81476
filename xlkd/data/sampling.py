# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws pairs of question and context languages for each question, and computes the shares of languages in training."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Mapping

from xlkd.errors import UserError
from xlkd.rows import Question, make_key


@dataclasses.dataclass(frozen=True)
class PairDraw:
    """A draw of examples (question id, question language, context language).

    `without_pivot` counts the questions that do not exist in the pivot language.
    """

    examples: tuple[tuple[str, str, str], ...]
    without_pivot: int


def group_languages(rows: Iterable[Question]) -> dict[str, set[str]]:
    """Returns, by question id, the languages in which the question and its context both exist."""
    languages: dict[str, set[str]] = {}
    for id_, language in _index_rows(rows)[0]:
        languages.setdefault(id_, set()).add(language)
    return languages


def list_undrawable(rows: Iterable[Question]) -> tuple[tuple[str, str], ...]:
    """Returns the rows that no pair can be drawn from, each with the reason."""
    return _index_rows(rows)[1]


def _index_rows(rows: Iterable[Question]) -> tuple[dict[tuple[str, str], Question], tuple[tuple[str, str], ...]]:
    """Returns the rows by id and language, and the rows that cannot be indexed with the reason."""
    indexed: dict[tuple[str, str], Question] = {}
    left_out = []
    for row in rows:
        if row.question_language != row.context_language:
            left_out.append(
                (f"{row.set}: {row.id}", "question and context in two languages, from which no pair is drawn")
            )
        elif indexed.setdefault((row.id, row.context_language), row) is not row:
            left_out.append((f"{row.set}: {row.id}", f"a second row of this id in {row.context_language}"))
    return indexed, tuple(left_out)


def draw_pairs(
    available: Mapping[str, Collection[str]], *, n: int, pivot: str = "en", seed: int = 0, epoch: int = 0
) -> PairDraw:
    """Draws n languages for each question and returns every ordered pair of them and the pivot.

    With n = 0 each language is paired with itself only. `pivot="none"` draws n of all languages. A question's draw
    depends on (seed, epoch, its id, its languages, pivot, n) alone; pass the epoch only where every epoch draws anew.
    """
    if n < 0:
        raise UserError(f"ntl={n} is not possible", remedy="0 is each language with itself, n draws n languages")
    examples = []
    for question, languages in available.items():
        examples += [
            (question, a, b)
            for a, b in draw_question_pairs(question, languages, n=n, pivot=pivot, seed=seed, epoch=epoch)
        ]
    without_pivot = 0 if pivot == "none" else sum(pivot not in languages for languages in available.values())
    return PairDraw(tuple(examples), without_pivot)


def draw_question_pairs(
    question: str, languages: Collection[str], *, n: int, pivot: str, seed: int, epoch: int
) -> list[tuple[str, str]]:
    """Returns the (question language, context language) pairs of one question."""
    if n == 0:
        return [(language, language) for language in sorted(languages)]
    others = set(languages) - {pivot}
    # The n smallest hashes, one hash per language: uniform, and the draw of a smaller n is part of a larger one's.
    by_hash = sorted(others, key=lambda language: make_key("ntl", seed, epoch, question, language))
    chosen = sorted({*by_hash[:n], *({pivot} & set(languages))})
    return list(itertools.product(chosen, chosen))


def join_draws(draws: Iterable[PairDraw]) -> PairDraw:
    """Joins the examples of several draws, each example once, in the order of first occurrence."""
    all_draws = list(draws)
    examples = dict.fromkeys(example for drawn in all_draws for example in drawn.examples)
    return PairDraw(tuple(examples), max(drawn.without_pivot for drawn in all_draws))


def make_crossed_examples(rows: Iterable[Question], drawn: PairDraw) -> list[Question]:
    """Returns the drawn examples: the question of one language, context and answers of the same or another language."""
    indexed, _ = _index_rows(rows)
    return [
        _cross(indexed[id_, question_tag], indexed[id_, context_tag])
        for id_, question_tag, context_tag in drawn.examples
    ]


def _cross(question_row: Question, context_row: Question) -> Question:
    """Returns the example that asks the question of one row about the context of another."""
    if question_row is context_row:
        return context_row
    return dataclasses.replace(
        context_row,
        id=f"{context_row.id}_{question_row.question_language}-{context_row.context_language}",
        key=make_key("crossed", question_row.key, context_row.key),
        question=question_row.question,
        question_language=question_row.question_language,
    )


def count_pairs(drawn: PairDraw, pivot: str = "en") -> dict[str, int]:
    """Returns the counts of a draw for the data report."""
    languages = [(a, b) for _, a, b in drawn.examples]
    return {
        "examples": len(languages),
        "same_language": sum(a == b for a, b in languages),
        "cross_language": sum(a != b for a, b in languages),
        "pivot_on_a_side": sum(pivot in pair for pair in languages),
        "without_pivot": drawn.without_pivot,
    }


def compute_shares(rows: Mapping[str, int], exponent: float) -> dict[str, float]:
    """Returns each language's share, proportional to rows ** exponent: 1 keeps the data's shares, 0 equalises them."""
    weights = {language: count**exponent if count else 0.0 for language, count in rows.items()}
    total = sum(weights.values())
    if not total:
        raise UserError("no rows in any language", remedy="check data.train")
    return {language: value / total for language, value in weights.items()}
