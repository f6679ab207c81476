# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""MMKD (Li et al. 2022): a multilingual student is tied to an English teacher by tokens, words, sentences, structure.

Every default is the form without the slips of the authors' code; docs/mmkd.md has the switch that restores each.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped

from xlkd.errors import UserError
from xlkd.losses import align
from xlkd.losses.align import Statistics
from xlkd.losses.masked_lm import masked_lm_term
from xlkd.losses.terms import Term, at_least_float32, make_term
from xlkd.methods import (
    Batch,
    Coupled,
    Export,
    Loss,
    Method,
    Start,
    Step,
    Teacher,
    Tree,
    Variables,
    merge_variables,
)
from xlkd.models.encoder import Encoder, forward_flops
from xlkd.models.family import Architecture
from xlkd.models.heads import MaskedLMHead, init_head, init_perceptron
from xlkd.models.layers import normal
from xlkd.models.outputs import OutputFn, Outputs
from xlkd.models.pooling import find_nearest, pool
from xlkd.spec.mmkd import COUPLED
from xlkd.spec.mmkd import Method as Settings
from xlkd.spec.stage import StageSpec
from xlkd.spec.tasks import Views

COLLAPSED = 0.05  # a spread below it: the mean cosine of different sentences is above 0.997

Hidden = tuple[Float[Array, "rows length hidden"], ...]  # the embeddings, then the output of each layer


@dataclasses.dataclass(frozen=True)
class Level:
    """A level's weight (0 leaves it out) and the pairs of layers that it aligns, the student's and the teacher's."""

    weight: float
    layers: tuple[tuple[int, int], ...]

    def __bool__(self) -> bool:
        return self.weight > 0


def build(spec: StageSpec[Settings, Views], encoder: Encoder, teacher: Encoder | None = None) -> Method:
    """Builds the method for batches of `tasks/views.py`; `tasks/parallel.py` and `tasks/alignment.py` evaluate."""
    check_layers(spec.method, encoder.architecture)
    levels = parse_levels(spec.method, encoder, teacher)
    alignment = Alignment(spec.method, spec.task, encoder, teacher, levels, spec.vector_width)
    # Word vectors are too large to cache, and the examples of a streamed corpus are too many
    is_cacheable = not alignment.levels["word"] and not spec.data.block
    fixed_teacher = None
    if alignment.has_teacher and not alignment.teaches_in_loss and not spec.vector_width:
        uses = spec.budget.epochs if is_cacheable else 0.0
        forward, flops = alignment.teacher_vectors, alignment.teacher_flops
        fixed_teacher = Teacher(lambda variables, start: start.other, forward, uses=uses, flops=flops)
    return Method(
        alignment.init,
        alignment.loss,
        alignment.outputs,
        alignment.exports,
        alignment.coupled if alignment.coupled_levels else None,
        fixed_teacher,
        warn=warn_of_collapse,
        learns_vectors=alignment.has_teacher and spec.vector_width > 0,
        reference_pooling=spec.method.teacher_pooling,
        flops=alignment.flops,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Alignment:
    """A student and its teacher, aligned on the levels that have a weight.

    The teacher is an encoder, or vectors of this width, which serve the levels of sentences alone.
    """

    settings: Settings
    task: Views
    student: Encoder
    teacher: Encoder | None
    levels: dict[str, Level]
    vector_width: int = 0

    @property
    def architecture(self) -> Architecture:
        return self.student.architecture

    @property
    def english(self) -> Encoder:
        """The teacher, without which no level but that of tokens can be."""
        if self.teacher is None:
            raise UserError("no teacher", "config.teacher.path", "name an English encoder")
        return self.teacher

    @property
    def teacher_width(self) -> int:
        return self.vector_width or self.english.architecture.hidden_size

    @property
    def coupled_levels(self) -> dict[str, Level]:
        """The levels that compare all rows of a step."""
        return {name: self.levels[name] for name in COUPLED if self.levels[name]}

    @property
    def has_teacher(self) -> bool:
        return any(level for name, level in self.levels.items() if name != "token")

    @property
    def teaches_in_loss(self) -> bool:
        """`True` if the teacher runs inside the loss: three passes with three dropout masks, as published."""
        return self.has_teacher and self.settings.teacher_dropout

    @functools.cached_property
    def masked_lm(self) -> MaskedLMHead:
        return MaskedLMHead(self.architecture, self.student.dtype)

    def init(self, key: Key[Array, ""], start: Start) -> Variables:
        keys = dict(zip(("masked_lm", "word", *COUPLED), jax.random.split(key, 4), strict=True))
        params: dict[str, Tree] = {"encoder": start.encoder}
        frozen: dict[str, Tree] = {}
        statistics: dict[str, Tree] = {}
        home = params if self.levels["token"] else frozen  # decay must not move a head that has no loss
        home["masked_lm"] = start.heads.get("masked_lm") or init_head(self.masked_lm, keys["masked_lm"])
        width = self.architecture.hidden_size
        if self.levels["word"] and width != self.english.architecture.hidden_size:
            params["word_map"] = init_word_maps(
                keys["word"], len(self.levels["word"].layers), self.student, self.english
            )
        for name, level in self.coupled_levels.items():
            for at, pair_key in enumerate(jax.random.split(keys[name], len(level.layers))):
                heads = init_heads(pair_key, self.settings, width, self.teacher_width)
                params[f"{name}_{at}"], frozen[f"{name}_{at}"], statistics[f"{name}_{at}"] = heads
        frozen = {name: tree for name, tree in frozen.items() if tree}
        if self.teaches_in_loss:
            frozen["teacher"] = start.other
        return Variables(params, frozen or (), statistics or ())

    def hidden_states(
        self, params: Tree, view: Batch, train: bool = False, key: Key[Array, ""] | None = None
    ) -> Hidden:
        """Returns the student's embeddings and the output of each of its layers."""
        states: Any = self.student.apply(
            {"params": params["encoder"]}, view["ids"], view["mask"], view["types"], train, key=key
        )
        return states

    def teacher_vectors(
        self, params: Tree, batch: Batch, keys: dict[str, Key[Array, ""]] | None = None
    ) -> dict[str, Array]:
        """Returns word vectors [rows, pairs, words, hidden] and sentence vectors [rows, pairs, hidden] of the English.

        Without keys there is no dropout, and one pass serves all levels; with them each level has a pass of its own.
        """
        view, vectors = batch["teacher"], {}
        apply: Callable[..., Any] = functools.partial(
            self.english.apply, {"params": params}, view["ids"], view["mask"], view["types"]
        )
        shared: Any = apply() if keys is None else None
        for name in filter(self.levels.get, ("word", *COUPLED)):
            states = shared if keys is None else apply(train=True, key=keys[name])
            hidden = [states[layer] for _, layer in self.levels[name].layers]
            if name == "word":
                vectors[name] = jnp.stack([align.gather_words(h, view["first"]) for h in hidden], 1)
            else:
                vectors[name] = jnp.stack([pool(h, view["mask"], self.settings.teacher_pooling) for h in hidden], 1)
        return vectors

    def assign_vectors(self, targets: Tree) -> dict[str, Float[Array, "rows pairs hidden"]]:
        """Returns the vectors of a file as the targets of each level: the same one for all of its pairs of layers."""
        levels = self.coupled_levels.items()
        return {name: jnp.repeat(targets["vectors"][:, None], len(level.layers), 1) for name, level in levels}

    def loss(self, variables: Variables, batch: Batch, targets: Tree, key: Key[Array, ""], step: Step) -> Loss:
        params, levels = variables.params, self.levels
        token_key, word_key, sentence_key, structure_key, *teacher_keys = jax.random.split(key, 7)
        if self.teaches_in_loss:
            keys = dict(zip(("word", *COUPLED), teacher_keys, strict=True))
            targets = jax.lax.stop_gradient(self.teacher_vectors(variables.frozen["teacher"], batch, keys))
        elif self.vector_width:
            targets = self.assign_vectors(targets)
        terms, metrics = {}, {}
        if levels["token"]:
            logits = self.predict_tokens(variables, batch, self.hidden_states(params, batch["token"], True, token_key))
            terms["token"] = masked_lm_term(logits, batch["labels"], batch["counted"], levels["token"].weight)
            metrics["token_accuracy"] = make_term(is_correct(logits, batch), batch["counted"], 0.0)
        if levels["word"]:
            hidden = self.hidden_states(params, batch["word"], True, word_key)
            terms["word"] = self.word_term(params, hidden, batch, targets["word"])
        vectors = self.sentence_vectors(params, batch, {"sentence": sentence_key, "structure": structure_key})
        return Loss(terms, metrics, vectors | {f"teacher_{name}": targets[name] for name in vectors})

    def sentence_vectors(
        self, params: Tree, batch: Batch, keys: dict[str, Key[Array, ""]]
    ) -> dict[str, Float[Array, "rows pairs hidden"]]:
        """Returns the student's vectors for each level; the levels share a pass, or each has one with its own key."""
        if not self.coupled_levels:
            return {}
        view, vectors, shared = batch["sentence"], {}, None
        if self.settings.student_passes == "shared":
            shared = self.hidden_states(params, view, True, keys["sentence"])
        for name, level in self.coupled_levels.items():
            states = self.hidden_states(params, view, True, keys[name]) if shared is None else shared
            hidden = [states[layer] for layer, _ in level.layers]
            vectors[name] = jnp.stack([pool(h, view["mask"], self.settings.student_pooling) for h in hidden], 1)
        return vectors

    def predict_tokens(
        self, variables: Variables, batch: Batch, hidden: Hidden
    ) -> Float[Array, "rows masked vocabulary"]:
        """Returns the logits at the masked positions."""
        masked = jnp.take_along_axis(hidden[-1], batch["positions"][..., None], axis=1)
        words = variables.params["encoder"]["embeddings"]["words"]
        logits: Any = self.masked_lm.apply({"params": merge_variables(variables)["masked_lm"]}, masked, words)
        return logits

    def word_term(
        self, params: Tree, hidden: Hidden, batch: Batch, vectors: Float[Array, "rows pairs words teacher_hidden"]
    ) -> Term:
        """Returns the mean of the word level's terms over its pairs of layers."""
        view, exists, terms, m = batch["word"], batch["exists"], [], self.settings
        scored = align.select_scored_words(view["drawn"], view["first"], exists, m.word_label_index)
        for at, (layer, _) in enumerate(self.levels["word"].layers):
            student = at_least_float32(align.gather_words(hidden[layer], view["first"]))
            if "word_map" in params:
                student = student @ params["word_map"]["kernel"][at]
            rows = align.word_losses(
                vectors[:, at],
                student,
                exists,
                scored,
                anchor=m.word_anchor,
                temperature=m.word_temperature,
                similarity=m.word_similarity,
            )
            terms.append(align.word_term(*rows, sum=m.word_sum, weight=self.levels["word"].weight))
        return average_terms(terms)

    def coupled(self, variables: Variables, embeddings: Tree, batch: Batch, targets: Tree, step: Step) -> Coupled:
        terms, metrics, statistics = {}, {}, {}
        is_trained = self.settings.teacher_projector == "trained"
        for name, level in self.coupled_levels.items():
            pair_terms = []
            for at in range(len(level.layers)):
                key, vectors = f"{name}_{at}", (embeddings[name][:, at], embeddings[f"teacher_{name}"][:, at])
                q, k, statistics[key] = apply_heads(variables, key, vectors, batch, self.settings)
                pair_terms.append(COUPLED_TERMS[name](self.settings, q, k, batch["mask"], is_trained, level.weight))
                if is_trained and name == "sentence":
                    metrics["teacher_spread"] = measure_spread(k, batch["mask"])
            metrics["spread"] = measure_spread(embeddings[name][:, -1], batch["mask"])
            terms[name] = average_terms(pair_terms)
        return terms, metrics, statistics

    @property
    def outputs(self) -> dict[str, OutputFn]:
        return {"views": self.token_outputs, "parallel": self.sentence_outputs, "alignment": self.link_outputs}

    def token_outputs(self, variables: Variables, batch: Batch) -> Outputs:
        logits = self.predict_tokens(variables, batch, self.hidden_states(variables.params, batch["token"]))
        return {"right": (is_correct(logits, batch) * batch["counted"]).sum(1), "count": batch["counted"].sum(1)}

    def sentence_outputs(self, variables: Variables, batch: Batch) -> Outputs:
        hidden = self.hidden_states(variables.params, batch["text"])[self.settings.retrieval_layer]
        return {name: pool(hidden, batch["text"]["mask"], how) for name, how in (("vectors", "mean"), ("cls", "cls"))}

    def link_outputs(self, variables: Variables, batch: Batch) -> Outputs:
        layer = self.settings.alignment_layer or -(-2 * self.architecture.layers // 3)
        source, target = (self.hidden_states(variables.params, batch[side])[layer] for side in ("source", "target"))
        forth, back = find_nearest(source, target, batch["source"]["inside"], batch["target"]["inside"])
        missing = self.task.max_length - forth.shape[1]
        return {name: jnp.pad(x, ((0, 0), (0, missing))) for name, x in (("forth", forth), ("back", back))}

    def exports(self, variables: Variables) -> dict[str, Export]:
        heads = {"masked_lm": merge_variables(variables)["masked_lm"]}
        student = variables.params["encoder"]
        return {"": Export(self.architecture, student, heads, pooling=self.settings.student_pooling)}

    def flops(self, tokens: int, rows: int) -> float:
        pair, side = (forward_flops(self.architecture, n, rows) for n in (tokens, tokens // 2))
        is_separate = self.settings.student_passes == "separate"
        passes = len(self.coupled_levels) if is_separate else bool(self.coupled_levels)
        D, V = self.architecture.hidden_size, self.architecture.vocab_size
        head = self.task.share * tokens * (2.0 * D**2 + 2.0 * D * V)
        total = bool(self.levels["token"]) * (pair + head) + bool(self.levels["word"]) * pair + passes * side
        # Three passes without a backward one
        return total + (self.teacher_flops(tokens, rows) if self.teaches_in_loss else 0.0)

    def teacher_flops(self, tokens: int, rows: int) -> float:
        return forward_flops(self.english.architecture, tokens // 2, rows)


def check_layers(settings: Settings, architecture: Architecture) -> None:
    """Refuses layers of evaluation that the student does not have."""
    for name in ("retrieval_layer", "alignment_layer"):
        layer = getattr(settings, name)
        if not -architecture.layers <= layer <= architecture.layers:
            raise UserError(f"no layer {layer}", f"config.method.{name}", "0: embeddings, -1: the last")


def parse_levels(settings: Settings, encoder: Encoder, teacher: Encoder | None) -> dict[str, Level]:
    """Returns each level with its pairs of layers, counted as hidden states: 0 the embeddings, -1 the last."""
    levels = {"token": Level(settings.token, ())}
    depths = [side.architecture.layers + 1 for side in (encoder, teacher or encoder)]
    for name in ("word", *COUPLED):
        layers = getattr(settings, f"{name}_layers")
        try:
            pairs = tuple(_parse_pair(pair, depths) for pair in layers)
            if not pairs:
                raise ValueError(layers)
        except ValueError:
            what = f"{layers} are not pairs of student and teacher layers"
            raise UserError(what, f"config.method.{name}_layers", "for example 8:8,-1:-1") from None
        levels[name] = Level(getattr(settings, name), pairs)
    return levels


def _parse_pair(text: str, depths: Sequence[int]) -> tuple[int, int]:
    """Returns the layers of `student:teacher`; raises ValueError where it is not a pair, or a layer does not exist."""
    student, teacher = map(int, text.split(":"))
    if not all(-depth <= layer < depth for layer, depth in zip((student, teacher), depths, strict=True)):
        raise ValueError(text)
    return student, teacher


def average_terms(terms: list[Term]) -> Term:
    """Returns the mean of the terms of several pairs of layers, which count the same rows."""
    return terms[0]._replace(sum=sum((term.sum for term in terms[1:]), terms[0].sum) / len(terms))


def is_correct(logits: Float[Array, "rows masked vocabulary"], batch: Batch) -> Float[Array, "rows masked"]:
    """Returns 1 where the best token is the label, else 0."""
    return (logits.argmax(-1) == batch["labels"]).astype(jnp.float32)


# --- heads: projectors and predictor, thrown away after training


def init_word_maps(
    key: Key[Array, ""], count: int, encoder: Encoder, teacher: Encoder
) -> dict[str, Float[Array, "pairs hidden teacher_hidden"]]:
    """Returns maps from student words to the teacher's width, for encoders whose widths differ."""
    D, width = encoder.architecture.hidden_size, teacher.architecture.hidden_size
    return {"kernel": normal(key, (count, D, width), D**-0.5)}


def init_heads(key: Key[Array, ""], settings: Settings, width: int, teacher_width: int) -> tuple[Tree, Tree, Tree]:
    """Returns the parameters, the frozen ones and the running statistics of the heads of one level."""
    projector_key, predictor_key, teacher_key = jax.random.split(key, 3)
    hidden, out = settings.head_width or width, settings.head_output
    is_identity = settings.teacher_projector == "identity"
    params = {
        "projector": init_perceptron(projector_key, width, hidden, out),
        "predictor": init_perceptron(predictor_key, out, hidden, teacher_width if is_identity else out),
    }
    statistics = {
        "projector": (_init_statistics(hidden), _init_statistics(out)),
        "predictor": (_init_statistics(hidden),),
    }
    if is_identity:
        return params, {}, statistics
    teacher_hidden = settings.head_width or teacher_width
    teacher = {"teacher": init_perceptron(teacher_key, teacher_width, teacher_hidden, out)}
    statistics["teacher"] = (_init_statistics(teacher_hidden), _init_statistics(out))
    if settings.teacher_projector == "trained":
        return params | teacher, {}, statistics
    return params, teacher, statistics


def _init_statistics(width: int) -> Statistics:
    return Statistics(jnp.zeros(width), jnp.ones(width))


def apply_heads(
    variables: Variables,
    name: str,
    vectors: tuple[Float[Array, "rows hidden"], Float[Array, "rows teacher_hidden"]],
    batch: Batch,
    settings: Settings,
) -> tuple[Float[Array, "rows width"], Float[Array, "rows width"], Tree]:
    """Returns the student's prediction, the teacher's projection, and the new running statistics."""
    params, old, new = merge_variables(variables)[name], variables.statistics[name], {}

    def perceptron(part: str, x: Float[Array, "rows inputs"]) -> Float[Array, "rows outputs"]:
        x, new[part] = apply_perceptron(params[part], x, old[part], batch["mask"], settings.bn_group)
        return x

    student, teacher = vectors
    q = perceptron("predictor", perceptron("projector", student))
    k = perceptron("teacher", teacher) if "teacher" in params else at_least_float32(teacher)
    return q, k, new


def apply_perceptron(
    params: Tree,
    x: Float[Array, "rows inputs"],
    running: tuple[Statistics, ...],
    rows: Shaped[Array, " rows"],
    group: int,
) -> tuple[Float[Array, "rows outputs"], tuple[Statistics, ...]]:
    """Applies linear, BatchNorm, ReLU, linear; with a second pair of statistics also BatchNorm without scale and shift.

    Returns the outputs and the new statistics.
    """
    x = at_least_float32(x) @ params["inner"]["kernel"]
    x, first = align.batch_norm(x, rows, running[0], **params["norm"], group=group)
    x = jax.nn.relu(x) @ params["outer"]["kernel"]
    if len(running) == 1:
        return x, (first,)
    x, second = align.batch_norm(x, rows, running[1], group=group)
    return x, (first, second)


def sentence_term(
    settings: Settings,
    q: Float[Array, "rows width"],
    k: Float[Array, "rows width"],
    rows: Shaped[Array, " rows"],
    trained: bool,
    weight: float,
) -> Term:
    """Returns the sentence level's term of student q and teacher k."""
    return align.sentence_term(q, k, rows, trained=trained, weight=weight)


def structure_term(
    settings: Settings,
    q: Float[Array, "rows width"],
    k: Float[Array, "rows width"],
    rows: Shaped[Array, " rows"],
    trained: bool,
    weight: float,
) -> Term:
    """Returns the structure level's term of student q and teacher k."""
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


COUPLED_TERMS: dict[str, Callable[..., Term]] = {"sentence": sentence_term, "structure": structure_term}


def measure_spread(vectors: Float[Array, "rows width"], rows: Shaped[Array, " rows"]) -> Term:
    """Returns √(1 − mean cosine of all pairs of rows): 0 where all vectors have the same direction."""
    x = jax.lax.stop_gradient(at_least_float32(vectors))
    unit = x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    weights = rows[:, None] / jnp.maximum(rows.sum(), 1)
    mean = (unit * weights).sum(0)
    return Term(jnp.sqrt((jnp.square(unit - mean) * weights).sum()), jnp.ones(()), 0.0)


def warn_of_collapse(values: Mapping[str, float]) -> str:
    """Returns a warning where the vectors of different sentences have become one; "" where they have not."""
    for name, owner in (("spread", "the student's"), ("teacher_spread", "the teacher's projected")):
        if values.get(name, 1.0) < COLLAPSED:
            return f"warning: {owner} vectors of different sentences are nearly the same ({name} below {COLLAPSED})"
    return ""
