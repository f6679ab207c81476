# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""MMKD (Li et al. 2022): a multilingual student is tied to an English teacher by tokens, words, sentences, structure.

Every default is the form without the slips of the authors' code; docs/mmkd.md has the switch that restores each.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from xlkd.errors import UserError
from xlkd.losses import align
from xlkd.losses.align import Statistics
from xlkd.losses.masked_lm import masked_lm_term
from xlkd.losses.terms import Term, at_least_float32, make_term
from xlkd.methods import Batch, Coupled, Export, Loss, Method, Start, Teacher, Tree, Variables
from xlkd.models.encoder import Architecture, Encoder, forward_flops, normal
from xlkd.models.heads import MaskedLMHead, init_head, init_perceptron
from xlkd.models.outputs import OutputFn
from xlkd.models.pooling import nearest, pool
from xlkd.spec.mmkd import COUPLED
from xlkd.spec.mmkd import Method as Settings
from xlkd.spec.stage import StageSpec
from xlkd.spec.tasks import Views


@dataclasses.dataclass(frozen=True)
class Level:
    """A level's weight (0: off) and the layers it aligns, student's and teacher's."""

    weight: float
    layers: tuple[tuple[int, int], ...]

    def __bool__(self) -> bool:
        return self.weight > 0


def build(spec: StageSpec[Settings, Views], encoder: Encoder, teacher: Encoder | None = None) -> Method:
    """Builds the method for batches of `tasks/views.py`; `tasks/parallel.py` and `tasks/alignment.py` evaluate."""
    check_layers(spec.method, encoder.architecture)
    alignment = Alignment(spec.method, spec.task, encoder, teacher, levels_of(spec.method, encoder, teacher))
    cached = not alignment.levels["word"] and not spec.data.block  # word vectors and streamed corpora are too many
    fixed_teacher = None
    if alignment.taught and not alignment.in_loss:
        uses = spec.budget.epochs if cached else 0.0
        forward, flops = alignment.taught_by, alignment.asked
        fixed_teacher = Teacher(lambda variables, start: start.other, forward, uses=uses, flops=flops)
    return Method(
        alignment.init,
        alignment.loss,
        alignment.outputs,
        alignment.exports,
        alignment.coupled if alignment.of_all_rows else None,
        fixed_teacher,
        reference_pooling=spec.method.teacher_pooling,
        flops=alignment.flops,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Alignment:
    """A student and its teacher, aligned on the levels that have a weight."""

    settings: Settings
    task: Views
    student: Encoder
    teacher: Encoder | None
    levels: dict[str, Level]

    @property
    def architecture(self) -> Architecture:
        return self.student.architecture

    @property
    def of_all_rows(self) -> dict[str, Level]:
        return {name: self.levels[name] for name in COUPLED if self.levels[name]}

    @property
    def taught(self) -> bool:
        return any(level for name, level in self.levels.items() if name != "token")

    @property
    def in_loss(self) -> bool:
        """Three passes of the teacher with three masks, as published."""
        return self.taught and self.settings.teacher_dropout

    @functools.cached_property
    def masked_lm(self) -> MaskedLMHead:
        return MaskedLMHead(self.architecture, self.student.dtype)

    def init(self, key: jax.Array, start: Start) -> Variables:
        keys = dict(zip(("masked_lm", "word", *COUPLED), jax.random.split(key, 4), strict=True))
        params, frozen, statistics = {"encoder": start.encoder}, {}, {}
        home = params if self.levels["token"] else frozen  # decay must not move what nobody trains
        home["masked_lm"] = start.heads.get("masked_lm") or init_head(self.masked_lm, keys["masked_lm"])
        width = self.architecture.hidden_size
        if self.levels["word"] and width != self.teacher.architecture.hidden_size:
            params["word_map"] = word_maps(keys["word"], len(self.levels["word"].layers), self.student, self.teacher)
        for name, level in self.of_all_rows.items():
            for at, one in enumerate(jax.random.split(keys[name], len(level.layers))):
                found = init_heads(one, self.settings, width, self.teacher.architecture.hidden_size)
                params[f"{name}_{at}"], frozen[f"{name}_{at}"], statistics[f"{name}_{at}"] = found
        frozen = {name: tree for name, tree in frozen.items() if tree}
        if self.in_loss:
            frozen["teacher"] = start.other
        return Variables(params, frozen or (), statistics or ())

    def states(self, params, view, train=False, key=None):
        view = view["ids"], view["mask"], view["types"]
        return self.student.apply({"params": params["encoder"]}, *view, train, key=key)

    def taught_by(self, params, batch: Batch, keys: dict[str, jax.Array] | None = None) -> dict[str, jax.Array]:
        """Returns word vectors [rows, maps, words, D] and sentence vectors [rows, maps, D] of the English sentence.

        Without keys there is no dropout, and one pass serves all levels; with them each level has a pass of its own.
        """
        view, found = batch["teacher"], {}
        apply = functools.partial(self.teacher.apply, {"params": params}, view["ids"], view["mask"], view["types"])
        shared = apply() if keys is None else None
        for name in filter(self.levels.get, ("word", *COUPLED)):
            states = shared if keys is None else apply(train=True, key=keys[name])
            hidden = [states[layer] for _, layer in self.levels[name].layers]
            if name == "word":
                found[name] = jnp.stack([align.gather_words(h, view["first"]) for h in hidden], 1)
            else:
                found[name] = jnp.stack([pool(h, view["mask"], self.settings.teacher_pooling) for h in hidden], 1)
        return found

    def loss(self, variables: Variables, batch: Batch, targets: Tree, key: jax.Array, step: jax.Array) -> Loss:
        params, levels = variables.params, self.levels
        of_token, of_word, of_sentence, of_structure, *of_teacher = jax.random.split(key, 7)
        if self.in_loss:
            keys = dict(zip(("word", *COUPLED), of_teacher, strict=True))
            targets = jax.lax.stop_gradient(self.taught_by(variables.frozen["teacher"], batch, keys))
        terms, metrics = {}, {}
        if levels["token"]:
            logits = self.predictions(variables, batch, self.states(params, batch["token"], True, of_token))
            terms["token"] = masked_lm_term(logits, batch["labels"], batch["counted"], levels["token"].weight)
            metrics["token_accuracy"] = make_term(right(logits, batch), batch["counted"], 0.0)
        if levels["word"]:
            hidden = self.states(params, batch["word"], True, of_word)
            terms["word"] = self.word_term(params, hidden, batch, targets["word"])
        vectors = self.sentence_vectors(params, batch, {"sentence": of_sentence, "structure": of_structure})
        return Loss(terms, metrics, vectors | {f"teacher_{name}": targets[name] for name in vectors})

    def sentence_vectors(self, params, batch: Batch, keys: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Returns by level [rows, pairs of layers, D]; the levels share a pass, or each has one with its own key."""
        if not self.of_all_rows:
            return {}
        view, found, shared = batch["sentence"], {}, None
        if self.settings.student_passes == "shared":
            shared = self.states(params, view, True, keys["sentence"])
        for name, level in self.of_all_rows.items():
            states = self.states(params, view, True, keys[name]) if shared is None else shared
            hidden = [states[layer] for layer, _ in level.layers]
            found[name] = jnp.stack([pool(h, view["mask"], self.settings.student_pooling) for h in hidden], 1)
        return found

    def predictions(self, variables: Variables, batch: Batch, hidden) -> jax.Array:
        found = jnp.take_along_axis(hidden[-1], batch["positions"][..., None], axis=1)
        words = variables.params["encoder"]["embeddings"]["words"]
        return self.masked_lm.apply({"params": both(variables)["masked_lm"]}, found, words)

    def word_term(self, params, hidden, batch: Batch, vectors: jax.Array) -> Term:
        view, exists, terms, m = batch["word"], batch["exists"], [], self.settings
        scored = align.select_scored_words(view["drawn"], view["first"], exists, m.word_label_index)
        how = {"anchor": m.word_anchor, "temperature": m.word_temperature, "similarity": m.word_similarity}
        for at, (layer, _) in enumerate(self.levels["word"].layers):
            student = at_least_float32(align.gather_words(hidden[layer], view["first"]))
            if "word_map" in params:
                student = student @ params["word_map"]["kernel"][at]
            rows = align.word_losses(vectors[:, at], student, exists, scored, **how)
            terms.append(align.word_term(*rows, sum=m.word_sum, weight=self.levels["word"].weight))
        return averaged(terms)

    def coupled(self, variables: Variables, embeddings: Tree, batch: Batch, targets: Tree, step: jax.Array) -> Coupled:
        terms, metrics, statistics = {}, {}, {}
        trained = self.settings.teacher_projector == "trained"
        for name, level in self.of_all_rows.items():
            found = []
            for at in range(len(level.layers)):
                key, vectors = f"{name}_{at}", (embeddings[name][:, at], embeddings[f"teacher_{name}"][:, at])
                q, k, statistics[key] = through_heads(variables, key, vectors, batch, self.settings)
                found.append(LOSSES[name](self.settings, q, k, batch["mask"], trained, level.weight))
                if trained and name == "sentence":
                    metrics["spread"] = spread(k, batch["mask"])
            terms[name] = averaged(found)
        return terms, metrics, statistics

    @property
    def outputs(self) -> dict[str, OutputFn]:
        return {"views": self.token_outputs, "parallel": self.sentence_outputs, "alignment": self.link_outputs}

    def token_outputs(self, variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        logits = self.predictions(variables, batch, self.states(variables.params, batch["token"]))
        return {"right": (right(logits, batch) * batch["counted"]).sum(1), "count": batch["counted"].sum(1)}

    def sentence_outputs(self, variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        hidden = self.states(variables.params, batch["text"])[self.settings.retrieval_layer]
        return {name: pool(hidden, batch["text"]["mask"], how) for name, how in (("vectors", "mean"), ("cls", "cls"))}

    def link_outputs(self, variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        hidden = [self.states(variables.params, batch[side]) for side in ("source", "target")]
        layer = self.settings.alignment_layer or -(-2 * self.architecture.layers // 3)
        found = nearest(*(of[layer] for of in hidden), *(batch[side]["inside"] for side in ("source", "target")))
        missing = self.task.max_length - found[0].shape[1]
        return {n: jnp.pad(x, ((0, 0), (0, missing))) for n, x in zip(("forth", "back"), found, strict=True)}

    def exports(self, variables: Variables) -> dict[str, Export]:
        heads = {"masked_lm": both(variables)["masked_lm"]}
        student = variables.params["encoder"]
        return {"": Export(self.architecture, student, heads, pooling=self.settings.student_pooling)}

    def flops(self, tokens: int, rows: int) -> float:
        pair, side = (forward_flops(self.architecture, n, rows) for n in (tokens, tokens // 2))
        separate = self.settings.student_passes == "separate"
        passes = len(self.of_all_rows) if separate else bool(self.of_all_rows)
        D, V = self.architecture.hidden_size, self.architecture.vocab_size
        head = self.task.share * tokens * (2.0 * D**2 + 2.0 * D * V)
        total = bool(self.levels["token"]) * (pair + head) + bool(self.levels["word"]) * pair + passes * side
        return total + (self.asked(tokens, rows) if self.in_loss else 0.0)  # three passes without a backward one

    def asked(self, tokens: int, rows: int) -> float:
        return forward_flops(self.teacher.architecture, tokens // 2, rows)


def check_layers(settings: Settings, architecture: Architecture) -> None:
    """Refuses layers of evaluation that the student does not have."""
    for name in ("retrieval_layer", "alignment_layer"):
        layer = getattr(settings, name)
        if not -architecture.layers <= layer <= architecture.layers:
            raise UserError(f"no layer {layer}", f"config.method.{name}", "0: embeddings, -1: the last")


def levels_of(settings: Settings, encoder: Encoder, teacher: Encoder | None) -> dict[str, Level]:
    """Each level with its pairs of layers, counted as states: 0 the embeddings, -1 the last."""
    found = {"token": Level(settings.token, ())}
    for name in ("word", *COUPLED):
        layers = getattr(settings, f"{name}_layers")
        try:
            pairs = tuple(tuple(int(side) for side in pair.split(":")) for pair in layers)
            for of, side in ((encoder, 0), (teacher or encoder, 1)):
                range(of.architecture.layers + 1)[max(pair[side] for pair in pairs)]
                range(of.architecture.layers + 1)[min(pair[side] for pair in pairs)]
        except (ValueError, IndexError):
            what = f"{layers} are no pairs of layers of student and teacher"
            raise UserError(what, f"config.method.{name}_layers", "for example 8:8,-1:-1") from None
        found[name] = Level(getattr(settings, name), pairs)
    return found


def both(variables: Variables) -> dict[str, Tree]:
    """What is trained and what is not, under one name where a level has both."""
    frozen = dict(variables.frozen)
    return {n: {**frozen.get(n, {}), **variables.params.get(n, {})} for n in {*frozen, *variables.params}}


def averaged(terms: list[Term]) -> Term:
    """Of several pairs of layers; they count the same rows."""
    return terms[0]._replace(sum=sum(term.sum for term in terms) / len(terms))


def right(logits: jax.Array, batch: Batch) -> jax.Array:
    return (logits.argmax(-1) == batch["labels"]).astype(jnp.float32)


# --- heads: projectors and predictor, thrown away after training


def word_maps(key: jax.Array, count: int, encoder: Encoder, teacher: Encoder) -> dict[str, jax.Array]:
    """Student words to the teacher's width, where the two differ."""
    D, width = encoder.architecture.hidden_size, teacher.architecture.hidden_size
    return {"kernel": normal(key, (count, D, width), D**-0.5)}


def init_heads(key: jax.Array, settings: Settings, width: int, teacher_width: int) -> tuple[Tree, Tree, Tree]:
    """Parameters, frozen ones and running statistics of the heads of one level."""
    one, two, three = jax.random.split(key, 3)
    hidden, out = settings.head_width or width, settings.head_output
    identity = settings.teacher_projector == "identity"
    params = {
        "projector": init_perceptron(one, width, hidden, out),
        "predictor": init_perceptron(two, out, hidden, teacher_width if identity else out),
    }
    statistics = {"projector": (_fresh(hidden), _fresh(out)), "predictor": (_fresh(hidden),)}
    if identity:
        return params, {}, statistics
    teacher = {"teacher": init_perceptron(three, teacher_width, settings.head_width or teacher_width, out)}
    statistics["teacher"] = (_fresh(settings.head_width or teacher_width), _fresh(out))
    if settings.teacher_projector == "trained":
        return params | teacher, {}, statistics
    return params, teacher, statistics


def _fresh(width: int) -> Statistics:
    return Statistics(jnp.zeros(width), jnp.ones(width))


def through_heads(variables: Variables, name: str, vectors, batch: Batch, settings: Settings) -> tuple[Any, Any, Tree]:
    """The student's prediction, the teacher's projection, and the new running statistics."""
    params, old, new = both(variables)[name], variables.statistics[name], {}

    def perceptron(part: str, x: jax.Array) -> jax.Array:
        x, new[part] = head(params[part], x, old[part], batch["mask"], settings.bn_group)
        return x

    student, teacher = vectors
    q = perceptron("predictor", perceptron("projector", student))
    k = perceptron("teacher", teacher) if "teacher" in params else at_least_float32(teacher)
    return q, k, new


def head(params: Tree, x: jax.Array, running: tuple[Statistics, ...], rows: jax.Array, group: int):
    """Linear, BatchNorm, ReLU, linear; with a second pair of statistics another BatchNorm without scale and shift."""
    x = at_least_float32(x) @ params["inner"]["kernel"]
    x, first = align.batch_norm(x, rows, running[0], **params["norm"], group=group)
    x = jax.nn.relu(x) @ params["outer"]["kernel"]
    if len(running) == 1:
        return x, (first,)
    x, second = align.batch_norm(x, rows, running[1], group=group)
    return x, (first, second)


def sentence_loss(settings: Settings, q, k, rows, trained: bool, weight: float) -> Term:
    return align.sentence_term(q, k, rows, trained=trained, weight=weight)


def structure_loss(settings: Settings, q, k, rows, trained: bool, weight: float) -> Term:
    return align.structure_term(
        q,
        k,
        rows,
        group=settings.structure_group,
        temperature=settings.structure_temperature,
        diagonal=settings.structure_diagonal,
        direction=settings.structure_direction,
        trained=trained,
        weight=weight,
    )


LOSSES: dict[str, Callable[..., Term]] = {"sentence": sentence_loss, "structure": structure_loss}


def spread(k: jax.Array, rows: jax.Array) -> Term:
    """Mean deviation of the dimensions of the unit vectors: near 0 both sides have become a constant."""
    unit = k / jnp.maximum(jnp.linalg.norm(k, axis=-1, keepdims=True), 1e-12)
    weights = rows[:, None] / jnp.maximum(rows.sum(), 1)
    mean = (unit * weights).sum(0)
    return Term(jnp.sqrt((jnp.square(unit - mean) * weights).sum(0)).mean(), jnp.ones(()), 0.0)
