# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Turns facts into sentences: fills the templates of the language files with uninflected names."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import re

from xlkd.data.atlas.deal import LANGUAGES, NAMES, Fact
from xlkd.languages import is_without_spaces

SEEN, HELD_OUT = (0, 1, 2), (3,)  # statement frames
SEEN_FORMS, HELD_OUT_FORMS = (0, 1), (2,)  # question forms
NAMED, REFERRED = 0, 1  # "of the country called Chad", "of this country"
HEADERS = (0, 1)

Span = tuple[int, int]
# A segment is literal text, or a slot: c and v are names (C and V at a sentence's start), < and > frame marked words
Segment = tuple[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Sentence:
    """A fact and its wording: `frame` and `noun` choose the wording, `mode` names the country or refers to it."""

    fact: Fact
    frame: int
    noun: int
    mode: int = NAMED


@dataclasses.dataclass(frozen=True, slots=True)
class Spans:
    """The spans of a sentence's slots in the text; `country` is None where the sentence only refers to it."""

    country: Span | None
    value: Span | None
    words: Span | None  # the words that express the relation


@dataclasses.dataclass(frozen=True, slots=True)
class Text:
    """A text with the spans of its sentences' slots."""

    text: str
    spans: tuple[Spans, ...]


def write_text(language: str, sentences: tuple[Sentence, ...], header: int | None = None) -> Text:
    """Writes the sentences as running text; `header` first introduces the country of the first sentence."""
    grammar = _load_grammar(language)
    texts, spans, at = [], [], 0
    if header is not None:
        start, sentence_spans = _fill_template(grammar, grammar.headers[header], sentences[0].fact, at)
        texts.append(start)
        spans.append(sentence_spans)
        at += len(start) + len(grammar.join)
    for s in sentences:
        text, sentence_spans = _fill_template(
            grammar, grammar.says[s.fact.relation][s.frame][s.noun][s.mode], s.fact, at
        )
        texts.append(text)
        spans.append(sentence_spans)
        at += len(text) + len(grammar.join)
    return Text(grammar.join.join(texts), tuple(spans))


def write_question(language: str, fact: Fact, form: int, noun: int) -> str:
    """Returns the question that the fact answers."""
    grammar = _load_grammar(language)
    return _fill_template(grammar, grammar.asks[fact.relation][form][noun], fact, 0)[0]


def write_answer(language: str, fact: Fact) -> str:
    """Returns the value alone, as a short sentence."""
    grammar = _load_grammar(language)
    return _fill_template(grammar, grammar.answer, fact, 0)[0]


def join_texts(language: str, *texts: str) -> str:
    """Joins texts as sentences of a language."""
    return _load_grammar(language).join.join(texts)


def split_words(text: str, language: str) -> list[str]:
    """Returns the words by which alignments count: split at white space, or characters where a script has no spaces.

    In Chinese every character is a word, but a run of Latin letters or digits is one word.
    """
    return [text[start:end] for start, end in find_word_spans(text, language)]


def find_word_spans(text: str, language: str) -> list[Span]:
    """Returns the spans of the words of a text."""
    return [match.span() for match in (_CHARACTERS if is_without_spaces(language) else _SPACED).finditer(text)]


def capitalize(name: str, language: str) -> str:
    """Returns the name with its first letter as at the start of a sentence."""
    if language == "tr" and name.startswith("i"):
        return "İ" + name[1:]
    return name[:1].upper() + name[1:]


_CHARACTERS, _SPACED = re.compile(r"[A-Za-z0-9]+|\S"), re.compile(r"\S+")


@dataclasses.dataclass(frozen=True, slots=True)
class _Grammar:
    """The compiled templates of a language."""

    join: str
    headers: list[list[Segment]]
    answer: list[Segment]
    says: dict[str, list[list[list[list[Segment]]]]]  # relation, frame, noun, mode
    asks: dict[str, list[list[list[Segment]]]]  # relation, form, noun
    names: list[str]
    capitalized: list[str]


@functools.cache
def _load_grammar(language: str) -> _Grammar:
    """Reads and compiles the templates of a language."""
    path = pathlib.Path(__file__).with_name(f"{language}.json")
    file = json.loads(path.read_text(encoding="utf-8"))
    headers = [_compile_template(header, language) for header in file["headers"]]
    full_stop = file["headers"][0][-1]

    def build(template: str, nouns: list[str], modes: tuple[int, ...]) -> list[list[list[Segment]]]:
        """Compiles a template for every noun and for each way to refer to the country, by name or as `this country`."""
        places = [{place: forms[mode] for place, forms in file["places"].items()} for mode in modes]
        return [
            [_compile_template(_expand_template(template, {"n": noun, **place}), language) for place in places]
            for noun in nouns
        ]

    says, asks = {}, {}
    for relation, relation_file in file["relations"].items():
        says[relation] = [
            build(template, relation_file["nouns"], (NAMED, REFERRED)) for template in relation_file["says"]
        ]
        asks[relation] = [
            [forms[0] for forms in build(t, relation_file["nouns"], (NAMED,))] for t in relation_file["asks"]
        ]
    column = LANGUAGES.index(language)
    names = [row[column] for row in NAMES]
    answer = _compile_template("{v}" + full_stop, language)
    return _Grammar(file["join"], headers, answer, says, asks, names, [capitalize(name, language) for name in names])


def _expand_template(template: str, parts: dict[str, str]) -> str:
    """Replaces the slots of a template other than the two names."""
    return re.sub(r"\{(n|of|in|sub)\}", lambda match: parts[match[1]], template)


def _compile_template(template: str, language: str) -> list[Segment]:
    """Returns the segments of a template whose only slots are the two names; the sentence begins with a capital."""
    segments: list[Segment] = []
    for part in re.findall(r"\{c\}|\{v\}|[\[\]]|[^{}\[\]]+", template):
        segments.append({"{c}": ("c", ""), "{v}": ("v", ""), "[": ("<", ""), "]": (">", "")}.get(part, ("", part)))
    for i, (slot, text) in enumerate(segments):
        if slot in ("c", "v"):
            segments[i] = (slot.upper(), text)
            break
        letter = re.search(r"\w", text)
        if letter:
            at = letter.start()
            segments[i] = ("", text[:at] + capitalize(text[at:], language))
            break
    return segments


def _fill_template(grammar: _Grammar, segments: list[Segment], fact: Fact, start: int) -> tuple[str, Spans]:
    """Returns the text of a template with the names of a fact, and the spans of its slots."""
    parts: list[str] = []
    at, marked_from = start, start
    country = value = marked = None
    for slot, text in segments:
        if not slot:
            parts.append(text)
            at += len(text)
        elif slot == "<":
            marked_from = at
        elif slot == ">":
            marked = (marked_from, at)
        else:
            names = grammar.capitalized if slot in "CV" else grammar.names
            name = names[fact.country if slot in "cC" else fact.value]
            parts.append(name)
            span = (at, at + len(name))
            at += len(name)
            if slot in "cC":
                country = span
            else:
                value = span
    return "".join(parts), Spans(country, value, marked)
