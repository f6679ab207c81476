# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes rows of the atlas: questions, statement pairs, translations and text for pre-training, each from its number."""

from __future__ import annotations

import dataclasses
import functools

from xlkd.data.atlas import grammar
from xlkd.data.atlas.deal import RELATIONS, Fact, Passage, deal_passage
from xlkd.data.atlas.draw import Draw
from xlkd.data.atlas.grammar import HEADERS, NAMED, REFERRED, Sentence, Text, write_text
from xlkd.rows import Answer, Labelled, Pair, Question, make_key

LABELS = ("entailment", "contradiction", "neutral")
FRAMES = {"seen": grammar.SEEN, "held_out": grammar.HELD_OUT, "all": grammar.SEEN + grammar.HELD_OUT}
FORMS = {
    "seen": grammar.SEEN_FORMS,
    "held_out": grammar.HELD_OUT_FORMS,
    "all": grammar.SEEN_FORMS + grammar.HELD_OUT_FORMS,
}
QUESTIONS = 2  # per passage


@dataclasses.dataclass(frozen=True)
class World:
    """The settings of one view of the atlas, from which any of its rows can be made."""

    split: str
    seed: int
    facts: int
    countries: int = 1
    frames: str = "seen"


def make_question(world: World, item: int, question_language: str, context_language: str) -> Question:
    """Makes question `item` in one language about its passage in another; the answer is a span of the passage."""
    passage, number = divmod(item, QUESTIONS)
    passage_facts, context = _write_passage(world, passage, context_language)
    fact = Draw(world.seed, world.split, "question", passage).some(passage_facts.facts, QUESTIONS)[number]
    wording = Draw(world.seed, world.split, "question", item, question_language)
    text = grammar.write_question(question_language, fact, wording.pick(FORMS[world.frames]), wording.below(2))
    spans = context.spans[-len(passage_facts.facts) :]  # without the header's
    span = spans[passage_facts.facts.index(fact)].value
    assert span is not None  # every sentence says a value
    start, end = span
    group = _name_group(world, passage)
    return Question(
        id=f"{group}-q{number}",
        key=make_key("atlas qa", item, question_language, context_language, text, context.text),
        group=group,
        set="atlas",
        question=text,
        context=context.text,
        answers=(Answer(context.text[start:end], start),),
        question_language=question_language,
        context_language=context_language,
    )


def make_statement(world: World, item: int, language: str) -> Labelled:
    """Makes a passage and a claim about its country; three successive items share a passage and have all labels."""
    passage, number = divmod(item, len(LABELS))
    passage_facts, sentences, premise = _write_premise(world, passage, language)
    order = Draw(world.seed, world.split, "labels", passage).some(LABELS, len(LABELS))
    label = order[number]
    draw = Draw(world.seed, world.split, "claim", item)
    fact = draw.pick(passage_facts.facts)
    if label == "contradiction":
        fact = Fact(fact.country, fact.relation, passage_facts.unsaid[fact.relation])
    if label == "neutral":
        said = {fact.relation for fact in passage_facts.facts}
        relation = draw.pick([relation for relation in RELATIONS if relation not in said])
        fact = Fact(fact.country, relation, passage_facts.unsaid[relation])
    wording = Draw(world.seed, world.split, "claim", item, language)
    used = {sentence.fact.relation: sentence.frame for sentence in sentences}.get(fact.relation)
    frame = wording.pick([frame for frame in FRAMES[world.frames] if frame != used])
    claim = write_text(language, (Sentence(fact, frame, wording.below(2)),)).text
    group = _name_group(world, passage)
    return Labelled(
        id=f"{group}-s{number}",
        key=make_key("atlas classify", item, language, premise.text, claim),
        group=group,
        set="atlas",
        text=premise.text,
        second=claim,
        label=label,
        language=language,
    )


def make_translation(world: World, item: int, source: str, target: str) -> Pair:
    """Makes the same sentences in two languages; the words of a slot are linked all with all."""
    draw = Draw(world.seed, world.split, "bitext", item)
    passage_facts = deal_passage(draw, world.split, world.facts)
    sentences, header = _plan_wording(draw, passage_facts.facts, FRAMES[world.frames], countries=1)
    left, right = write_text(source, sentences, header), write_text(target, sentences, header)
    group = _name_group(world, item)
    return Pair(
        id=group,
        key=make_key("atlas parallel", item, source, target, left.text, right.text),
        group=group,
        set="atlas",
        source=left.text,
        target=right.text,
        source_language=source,
        target_language=target,
        links=_link_words(left, source, right, target),
    )


def make_companions(world: World, item: int, languages: tuple[str, ...], translated: int) -> Pair:
    """Makes two texts about one country that share facts, for pre-training.

    `translated` percent are in two languages. Either text may come first, since a reader of questions sees the question
    before the passage.
    """
    draw = Draw(world.seed, world.split, "corpus", item)
    across = draw.below(100) < translated
    source, foreign = draw.some(languages, 2) if len(languages) > 1 else languages * 2
    target = foreign if across else source
    facts = 2 if draw.below(100) < 55 else 3 + draw.below(world.facts - 2)
    passage_facts = deal_passage(draw, world.split, facts)
    frames = FRAMES[world.frames]
    first, header = _plan_wording(draw, passage_facts.facts, frames, countries=1)
    repeated = draw.some(first, 1 + draw.below(facts) if draw.below(100) < 25 else facts)
    if draw.below(100) < 30:
        second = _write_dialogue(draw, target, repeated[:2], FORMS[world.frames])
    else:
        second = _retell(draw, target, repeated, frames)
    group = _name_group(world, item)
    sides = [(write_text(source, first, header).text, source), (second, target)]
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


def _name_group(world: World, passage: int) -> str:
    """Returns the group of a passage."""
    return f"{world.split}-{world.seed}-{passage}"


@functools.lru_cache(maxsize=256)
def _write_passage(world: World, passage: int, language: str) -> tuple[Passage, Text]:
    """Samples the facts of passage number `passage` and words them in a language."""
    passage_facts = deal_passage(
        Draw(world.seed, world.split, "passage", passage), world.split, world.facts, world.countries
    )
    draw = Draw(world.seed, world.split, "passage", passage, language)
    sentences, header = _plan_wording(draw, passage_facts.facts, FRAMES[world.frames], world.countries)
    return passage_facts, write_text(language, sentences, header)


@functools.lru_cache(maxsize=256)
def _write_premise(world: World, passage: int, language: str) -> tuple[Passage, tuple[Sentence, ...], Text]:
    """Writes the passage of statement pairs; where claims use the held-out frame, it uses the others."""
    passage_facts = deal_passage(Draw(world.seed, world.split, "premise", passage), world.split, world.facts)
    frames = FRAMES["seen" if world.frames == "held_out" else world.frames]
    draw = Draw(world.seed, world.split, "premise", passage, language)
    sentences, header = _plan_wording(draw, passage_facts.facts, frames, countries=1)
    return passage_facts, sentences, write_text(language, sentences, header)


def _plan_wording(
    draw: Draw, facts: tuple[Fact, ...], frames: tuple[int, ...], countries: int
) -> tuple[tuple[Sentence, ...], int | None]:
    """Draws wordings, and how the country is named: in a header, in the first sentence, or (one in five) in each."""
    style = draw.below(5) if countries == 1 else 4
    header = draw.pick(HEADERS) if style < 2 else None
    modes = [NAMED if style == 4 or (header is None and i == 0) else REFERRED for i in range(len(facts))]
    sentences = [
        Sentence(fact, draw.pick(frames), draw.below(2), mode) for fact, mode in zip(facts, modes, strict=True)
    ]
    return tuple(sentences), header


def _retell(draw: Draw, language: str, sentences: list[Sentence], frames: tuple[int, ...]) -> str:
    """Writes the same facts in other frames and with the other noun."""
    retold, header = _plan_wording(draw, tuple(s.fact for s in sentences), frames, countries=1)
    sentences_retold = [
        dataclasses.replace(new, frame=draw.pick([f for f in frames if f != old.frame] or frames), noun=1 - old.noun)
        for new, old in zip(retold, sentences, strict=True)
    ]
    return write_text(language, tuple(sentences_retold), header).text


def _write_dialogue(draw: Draw, language: str, sentences: list[Sentence], forms: tuple[int, ...]) -> str:
    """Writes questions about the facts, each with its answer."""
    parts = []
    for sentence in sentences:
        fact = sentence.fact
        parts += [
            grammar.write_question(language, fact, draw.pick(forms), draw.below(2)),
            grammar.write_answer(language, fact),
        ]
    return grammar.join_texts(language, *parts)


def _link_words(left: Text, source: str, right: Text, target: str) -> tuple[tuple[int, int], ...]:
    """Links the words of corresponding slots of two texts."""
    sources, targets = grammar.find_word_spans(left.text, source), grammar.find_word_spans(right.text, target)
    links = set()
    for ours, theirs in zip(left.spans, right.spans, strict=True):
        for slot in ("country", "value", "words"):
            a, b = getattr(ours, slot), getattr(theirs, slot)
            if a and b:
                links |= {(i, j) for i in _find_overlapping(sources, a) for j in _find_overlapping(targets, b)}
    return tuple(sorted(links))


def _find_overlapping(spans: list[grammar.Span], slot: grammar.Span) -> list[int]:
    """Returns the indices of the spans that overlap a slot."""
    return [i for i, (start, end) in enumerate(spans) if start < slot[1] and slot[0] < end]
