# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which question meets which context: pairs of languages drawn for each question; and the shares of languages."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Mapping

from xlkd.errors import UserError
from xlkd.rows import Question, make_key


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Examples (question id, question language, context language), and how many questions lack the pivot."""

    examples: tuple[tuple[str, str, str], ...]
    without_pivot: int


def languages_of(rows: Iterable[Question]) -> dict[str, set[str]]:
    """For each question id the languages in which it and its context exist: those of the rows in one language."""
    found: dict[str, set[str]] = {}
    for id_, language in _held(rows)[0]:
        found.setdefault(id_, set()).add(language)
    return found


def undrawn(rows: Iterable[Question]) -> tuple[tuple[str, str], ...]:
    """Rows that no pair is drawn from, each with the reason."""
    return _held(rows)[1]


def _held(rows: Iterable[Question]) -> tuple[dict[tuple[str, str], Question], tuple[tuple[str, str], ...]]:
    """Rows by id and language, and those that have no such place for themselves."""
    found: dict[tuple[str, str], Question] = {}
    left = []
    for row in rows:
        if row.question_language != row.context_language:
            left.append((f"{row.set}: {row.id}", "question and context in two languages, from which no pair is drawn"))
        elif found.setdefault((row.id, row.context_language), row) is not row:
            left.append((f"{row.set}: {row.id}", f"a second row of this id in {row.context_language}"))
    return found, tuple(left)


def ntl(available: Mapping[str, Collection[str]], *, n: int, pivot: str = "en", seed: int = 0, epoch: int = 0) -> Drawn:
    """n drawn languages and the pivot, every ordered pair of them; n = 0: each language with itself.

    `pivot="none"` draws n of all languages. A question's draw depends on (seed, epoch, its id, its languages, pivot, n)
    alone; give the epoch only where it should be drawn anew.
    """
    if n < 0:
        raise UserError(f"ntl={n} is not possible", remedy="0 is each language with itself, n draws n languages")
    examples = []
    for question, languages in available.items():
        examples += [(question, a, b) for a, b in pairs(question, languages, n=n, pivot=pivot, seed=seed, epoch=epoch)]
    lacking = 0 if pivot == "none" else sum(pivot not in languages for languages in available.values())
    return Drawn(tuple(examples), lacking)


def pairs(
    question: str, languages: Collection[str], *, n: int, pivot: str, seed: int, epoch: int
) -> list[tuple[str, str]]:
    """The (question language, context language) pairs of one question."""
    if n == 0:
        return [(language, language) for language in sorted(languages)]
    others = set(languages) - {pivot}
    # The n smallest of one hash a language: uniform, and the set of a smaller n is part of the set of a larger one.
    by_hash = sorted(others, key=lambda language: make_key("ntl", seed, epoch, question, language))
    chosen = sorted({*by_hash[:n], *({pivot} & set(languages))})
    return list(itertools.product(chosen, chosen))


def joined(draws: Iterable[Drawn]) -> Drawn:
    """The examples of several draws, each once, in order of their first."""
    held = list(draws)
    examples = dict.fromkeys(example for drawn in held for example in drawn.examples)
    return Drawn(tuple(examples), max(drawn.without_pivot for drawn in held))


def crossed(rows: Iterable[Question], drawn: Drawn) -> list[Question]:
    """The drawn examples as rows: the question of one language over the paragraph and answers of another."""
    held, _ = _held(rows)
    return [_joined(held[id_, asked], held[id_, told]) for id_, asked, told in drawn.examples]


def _joined(asked: Question, told: Question) -> Question:
    if asked is told:
        return told
    return dataclasses.replace(
        told,
        id=f"{told.id}_{asked.question_language}-{told.context_language}",
        key=make_key("crossed", asked.key, told.key),
        question=asked.question,
        question_language=asked.question_language,
    )


def counts(drawn: Drawn, pivot: str = "en") -> dict[str, int]:
    """What the data report says of a draw."""
    languages = [(a, b) for _, a, b in drawn.examples]
    return {
        "examples": len(languages),
        "same_language": sum(a == b for a, b in languages),
        "cross_language": sum(a != b for a, b in languages),
        "pivot_on_a_side": sum(pivot in pair for pair in languages),
        "without_pivot": drawn.without_pivot,
    }


def shares(rows: Mapping[str, int], exponent: float) -> dict[str, float]:
    """The share of each language: proportional to rows ** exponent; 1 as the data lie, 0 all equal."""
    raised = {language: count**exponent if count else 0.0 for language, count in rows.items()}
    total = sum(raised.values())
    if not total:
        raise UserError("no rows in any language", remedy="check data.train")
    return {language: value / total for language, value in raised.items()}
