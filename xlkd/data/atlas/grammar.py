# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""From facts to sentences: the templates of the language files, filled with names that stand bare."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import re

from xlkd.data.atlas.deal import LANGUAGES, NAMES, Fact
from xlkd.languages import WITHOUT_SPACES

SEEN, HELD_OUT = (0, 1, 2), (3,)  # statement frames
SEEN_FORMS, HELD_OUT_FORMS = (0, 1), (2,)  # question forms
NAMED, POINTED = 0, 1  # "of the country called Chad", "of this country"
HEADERS = (0, 1)

Span = tuple[int, int]
# A piece is literal text, or a slot: c and v are names (C and V at a sentence's start), < and > frame the marked words
Piece = tuple[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Sentence:
    """What to say and how: `frame` and `noun` choose the wording, `mode` names the country or points at it."""

    fact: Fact
    frame: int
    noun: int
    mode: int = NAMED


@dataclasses.dataclass(frozen=True, slots=True)
class Spans:
    """Where the slots of a sentence lie in the text; `country` is None where the sentence only points at it."""

    country: Span | None
    value: Span | None
    words: Span | None  # the words that say which relation it is


@dataclasses.dataclass(frozen=True, slots=True)
class Text:
    text: str
    spans: tuple[Spans, ...]


def write(language: str, sentences: tuple[Sentence, ...], header: int | None = None) -> Text:
    """The sentences as running text; `header` first presents the country of the first sentence."""
    grammar = _grammar(language)
    filled, spans, at = [], [], 0
    if header is not None:
        start, own = _fill(grammar, grammar.headers[header], sentences[0].fact, at)
        filled.append(start)
        spans.append(own)
        at += len(start) + len(grammar.join)
    for s in sentences:
        text, own = _fill(grammar, grammar.says[s.fact.relation][s.frame][s.noun][s.mode], s.fact, at)
        filled.append(text)
        spans.append(own)
        at += len(text) + len(grammar.join)
    return Text(grammar.join.join(filled), tuple(spans))


def ask(language: str, fact: Fact, form: int, noun: int) -> str:
    """The question that the fact answers."""
    grammar = _grammar(language)
    return _fill(grammar, grammar.asks[fact.relation][form][noun], fact, 0)[0]


def answer(language: str, fact: Fact) -> str:
    """The value alone, as a short sentence."""
    grammar = _grammar(language)
    return _fill(grammar, grammar.answer, fact, 0)[0]


def joined(language: str, *texts: str) -> str:
    return _grammar(language).join.join(texts)


def words(text: str, language: str) -> list[str]:
    """The words that alignments count: what white space cuts, or the characters where a script has none.

    In Chinese every character is a word, but a run of Latin letters or digits is one.
    """
    return [text[start:end] for start, end in word_spans(text, language)]


def word_spans(text: str, language: str) -> list[Span]:
    return [match.span() for match in (_CHARACTERS if language in WITHOUT_SPACES else _SPACED).finditer(text)]


def raised(name: str, language: str) -> str:
    """The name with its first letter as at the start of a sentence."""
    if language == "tr" and name.startswith("i"):
        return "İ" + name[1:]
    return name[:1].upper() + name[1:]


_CHARACTERS, _SPACED = re.compile(r"[A-Za-z0-9]+|\S"), re.compile(r"\S+")


@dataclasses.dataclass(frozen=True, slots=True)
class _Grammar:
    join: str
    headers: list[list[Piece]]
    answer: list[Piece]
    says: dict[str, list[list[list[list[Piece]]]]]  # relation, frame, noun, mode
    asks: dict[str, list[list[list[Piece]]]]  # relation, form, noun
    names: list[str]
    raised: list[str]


@functools.cache
def _grammar(language: str) -> _Grammar:
    path = pathlib.Path(__file__).with_name(f"{language}.json")
    told = json.loads(path.read_text(encoding="utf-8"))
    headers = [_compile(header, language) for header in told["headers"]]
    full_stop = told["headers"][0][-1]

    def build(template: str, nouns: list[str], modes: tuple[int, ...]) -> list:
        places = [{place: forms[mode] for place, forms in told["places"].items()} for mode in modes]
        return [[_compile(_expand(template, {"n": noun, **place}), language) for place in places] for noun in nouns]

    says, asks = {}, {}
    for relation, own in told["relations"].items():
        says[relation] = [build(template, own["nouns"], (NAMED, POINTED)) for template in own["says"]]
        asks[relation] = [[forms[0] for forms in build(t, own["nouns"], (NAMED,))] for t in own["asks"]]
    column = LANGUAGES.index(language)
    names = [row[column] for row in NAMES]
    answer = _compile("{v}" + full_stop, language)
    return _Grammar(told["join"], headers, answer, says, asks, names, [raised(name, language) for name in names])


def _expand(template: str, parts: dict[str, str]) -> str:
    return re.sub(r"\{(n|of|in|sub)\}", lambda match: parts[match[1]], template)


def _compile(template: str, language: str) -> list[Piece]:
    """Pieces of a template whose only slots are the two names; the sentence begins with a capital."""
    pieces: list[Piece] = []
    for part in re.findall(r"\{c\}|\{v\}|[\[\]]|[^{}\[\]]+", template):
        pieces.append({"{c}": ("c", ""), "{v}": ("v", ""), "[": ("<", ""), "]": (">", "")}.get(part, ("", part)))
    for i, (slot, text) in enumerate(pieces):
        if slot in ("c", "v"):
            pieces[i] = (slot.upper(), text)
            break
        letter = re.search(r"\w", text)
        if letter:
            at = letter.start()
            pieces[i] = ("", text[:at] + raised(text[at:], language))
            break
    return pieces


def _fill(grammar: _Grammar, pieces: list[Piece], fact: Fact, start: int) -> tuple[str, Spans]:
    out: list[str] = []
    at, opened = start, start
    country = value = marked = None
    for slot, text in pieces:
        if not slot:
            out.append(text)
            at += len(text)
        elif slot == "<":
            opened = at
        elif slot == ">":
            marked = (opened, at)
        else:
            names = grammar.raised if slot in "CV" else grammar.names
            name = names[fact.country if slot in "cC" else fact.value]
            out.append(name)
            span = (at, at + len(name))
            at += len(name)
            if slot in "cC":
                country = span
            else:
                value = span
    return "".join(out), Spans(country, value, marked)
