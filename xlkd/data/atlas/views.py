# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rows of the atlas: questions, statement pairs, bitext and text for pre-training, each made from its number alone."""

from __future__ import annotations

import dataclasses
import functools

from xlkd.data.atlas import grammar
from xlkd.data.atlas.deal import RELATIONS, Deal, Fact, deal
from xlkd.data.atlas.draw import Draw
from xlkd.data.atlas.grammar import HEADERS, NAMED, POINTED, Sentence, Text, write
from xlkd.rows import Answer, Labelled, Pair, Question, make_key

LABELS = ("entailment", "contradiction", "neutral")
FRAMES = {"seen": grammar.SEEN, "held_out": grammar.HELD_OUT, "all": grammar.SEEN + grammar.HELD_OUT}
FORMS = {
    "seen": grammar.SEEN_FORMS,
    "held_out": grammar.HELD_OUT_FORMS,
    "all": grammar.SEEN_FORMS + grammar.HELD_OUT_FORMS,
}
QUESTIONS = 2  # questions a passage


@dataclasses.dataclass(frozen=True)
class World:
    """The dials of one view: who made it may ask for any row."""

    split: str
    seed: int
    facts: int
    countries: int = 1
    frames: str = "seen"


def question(world: World, item: int, asked_in: str, told_in: str) -> Question:
    """Question `item` in one language on its passage in another; the answer is a span of the passage."""
    passage, number = divmod(item, QUESTIONS)
    dealt, told = _passage(world, passage, told_in)
    fact = Draw(world.seed, world.split, "question", passage).some(dealt.facts, QUESTIONS)[number]
    wording = Draw(world.seed, world.split, "question", item, asked_in)
    asked = grammar.ask(asked_in, fact, wording.pick(FORMS[world.frames]), wording.below(2))
    start, end = told.spans[dealt.facts.index(fact) + len(told.spans) - len(dealt.facts)].value
    group = _group(world, passage)
    return Question(
        id=f"{group}-q{number}",
        key=make_key("atlas qa", item, asked_in, told_in, asked, told.text),
        group=group,
        set="atlas",
        question=asked,
        context=told.text,
        answers=(Answer(told.text[start:end], start),),
        question_language=asked_in,
        context_language=told_in,
    )


def statements(world: World, item: int, language: str) -> Labelled:
    """A passage and a claim on its country; three successive items share a passage and have all three labels."""
    passage, number = divmod(item, len(LABELS))
    dealt, sentences, told = _premise(world, passage, language)
    order = Draw(world.seed, world.split, "labels", passage).some(LABELS, len(LABELS))
    label = order[number]
    draw = Draw(world.seed, world.split, "claim", item)
    fact = draw.pick(dealt.facts)
    if label == "contradiction":
        fact = Fact(fact.country, fact.relation, dealt.unsaid[fact.relation])
    if label == "neutral":
        said = {fact.relation for fact in dealt.facts}
        relation = draw.pick([relation for relation in RELATIONS if relation not in said])
        fact = Fact(fact.country, relation, dealt.unsaid[relation])
    own = Draw(world.seed, world.split, "claim", item, language)
    used = {sentence.fact.relation: sentence.frame for sentence in sentences}.get(fact.relation)
    frame = own.pick([frame for frame in FRAMES[world.frames] if frame != used])
    claim = write(language, (Sentence(fact, frame, own.below(2)),)).text
    group = _group(world, passage)
    return Labelled(
        id=f"{group}-s{number}",
        key=make_key("atlas classify", item, language, told.text, claim),
        group=group,
        set="atlas",
        text=told.text,
        second=claim,
        label=label,
        language=language,
    )


def translation(world: World, item: int, source: str, target: str) -> Pair:
    """The same sentences in two languages; words of a slot are linked all with all."""
    draw = Draw(world.seed, world.split, "bitext", item)
    dealt = deal(draw, world.split, world.facts)
    sentences, header = _plan(draw, dealt.facts, FRAMES[world.frames], countries=1)
    left, right = write(source, sentences, header), write(target, sentences, header)
    group = _group(world, item)
    return Pair(
        id=group,
        key=make_key("atlas parallel", item, source, target, left.text, right.text),
        group=group,
        set="atlas",
        source=left.text,
        target=right.text,
        source_language=source,
        target_language=target,
        links=_links(left, source, right, target),
    )


def companions(world: World, item: int, languages: tuple[str, ...], translated: int) -> Pair:
    """Two texts on one country that share facts, for pre-training; `translated` percent are in two languages.

    Either may come first: a reader of questions has the question before the passage.
    """
    draw = Draw(world.seed, world.split, "corpus", item)
    across = draw.below(100) < translated
    source, foreign = draw.some(languages, 2) if len(languages) > 1 else languages * 2
    target = foreign if across else source
    facts = 2 if draw.below(100) < 55 else 3 + draw.below(world.facts - 2)
    dealt = deal(draw, world.split, facts)
    frames = FRAMES[world.frames]
    first, header = _plan(draw, dealt.facts, frames, countries=1)
    again = draw.some(first, 1 + draw.below(facts) if draw.below(100) < 25 else facts)
    if draw.below(100) < 30:
        second = _asked_and_answered(draw, target, again[:2], FORMS[world.frames])
    else:
        second = _retold(draw, target, again, frames)
    group = _group(world, item)
    sides = [(write(source, first, header).text, source), (second, target)]
    (text, source), (other, target) = sides if draw.below(2) else sides[::-1]
    return Pair(
        id=group,
        key=make_key("atlas masked", item, source, target, text, other),
        group=group,
        set="atlas",
        source=text,
        target=other,
        source_language=source,
        target_language=target,
    )


def _group(world: World, passage: int) -> str:
    return f"{world.split}-{world.seed}-{passage}"


@functools.lru_cache(maxsize=256)
def _passage(world: World, passage: int, language: str) -> tuple[Deal, Text]:
    dealt = deal(Draw(world.seed, world.split, "passage", passage), world.split, world.facts, world.countries)
    draw = Draw(world.seed, world.split, "passage", passage, language)
    sentences, header = _plan(draw, dealt.facts, FRAMES[world.frames], world.countries)
    return dealt, write(language, sentences, header)


@functools.lru_cache(maxsize=256)
def _premise(world: World, passage: int, language: str) -> tuple[Deal, tuple[Sentence, ...], Text]:
    """The passage of statement pairs; where claims take the held-out frame, it keeps the others."""
    dealt = deal(Draw(world.seed, world.split, "premise", passage), world.split, world.facts)
    frames = FRAMES["seen" if world.frames == "held_out" else world.frames]
    draw = Draw(world.seed, world.split, "premise", passage, language)
    sentences, header = _plan(draw, dealt.facts, frames, countries=1)
    return dealt, sentences, write(language, sentences, header)


def _plan(
    draw: Draw, facts: tuple[Fact, ...], frames: tuple[int, ...], countries: int
) -> tuple[tuple[Sentence, ...], int | None]:
    """Wordings, and how the country is named: in a header, in the first sentence, or (one in five) in each."""
    style = draw.below(5) if countries == 1 else 4
    header = draw.pick(HEADERS) if style < 2 else None
    modes = [NAMED if style == 4 or (header is None and i == 0) else POINTED for i in range(len(facts))]
    told = [Sentence(fact, draw.pick(frames), draw.below(2), mode) for fact, mode in zip(facts, modes, strict=True)]
    return tuple(told), header


def _retold(draw: Draw, language: str, sentences: list[Sentence], frames: tuple[int, ...]) -> str:
    """The same facts in other frames and with the other noun."""
    retold, header = _plan(draw, tuple(s.fact for s in sentences), frames, countries=1)
    other = [
        dataclasses.replace(new, frame=draw.pick([f for f in frames if f != old.frame] or frames), noun=1 - old.noun)
        for new, old in zip(retold, sentences, strict=True)
    ]
    return write(language, tuple(other), header).text


def _asked_and_answered(draw: Draw, language: str, sentences: list[Sentence], forms: tuple[int, ...]) -> str:
    parts = []
    for sentence in sentences:
        fact = sentence.fact
        parts += [grammar.ask(language, fact, draw.pick(forms), draw.below(2)), grammar.answer(language, fact)]
    return grammar.joined(language, *parts)


def _links(left: Text, source: str, right: Text, target: str) -> tuple[tuple[int, int], ...]:
    sources, targets = grammar.word_spans(left.text, source), grammar.word_spans(right.text, target)
    links = set()
    for ours, theirs in zip(left.spans, right.spans, strict=True):
        for slot in ("country", "value", "words"):
            a, b = getattr(ours, slot), getattr(theirs, slot)
            if a and b:
                links |= {(i, j) for i in _touched(sources, a) for j in _touched(targets, b)}
    return tuple(sorted(links))


def _touched(spans: list[grammar.Span], slot: grammar.Span) -> list[int]:
    return [i for i, (start, end) in enumerate(spans) if start < slot[1] and slot[0] < end]
