# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""MBLM: monolingual teachers, a student with a branch of upper layers for each language, mixtures of branches.

    L = weight_s · KD(teacher, own branch) + weight_z(step) · KD(teacher, mixture of branches) + weight_h · hard labels

The mixture of a row leaves its own branch out: all that enters is what an unseen language would get. A language with
a branch is answered by it, any other by the mixture of all. What is published of this and what is ours: docs/mblm.md.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from xlkd.errors import UserError
from xlkd.losses import distill, mixture
from xlkd.losses.terms import Term, make_term
from xlkd.methods import (
    Batch,
    Classifiers,
    Export,
    Inference,
    Loss,
    Method,
    Start,
    Step,
    Tree,
    Variables,
    key_for,
    take_variables,
)
from xlkd.models import branches
from xlkd.models import encoder as encoders
from xlkd.models.encoder import Encoder
from xlkd.models.heads import ClassifierHead, start_head
from xlkd.models.outputs import Outputs
from xlkd.spec.mblm import Group, groups
from xlkd.spec.mblm import Method as Settings
from xlkd.spec.stage import StageSpec
from xlkd.spec.tasks import Classify

Draws = tuple[Key[Array, ""], Int[Array, " rows"]]  # a key, and each row's place in the global batch
Mixing = tuple[Float[Array, "rows branches"], Bool[Array, "rows branches"]]  # log weights, and which are allowed


def build(spec: StageSpec[Settings, Classify], encoder: Encoder) -> Method:
    """Builds the method for batches of `tasks/classify.py`; `task.languages` are the supervised ones."""
    student = build_student(spec.method, spec.task, encoder)
    settings, seed = spec.method, spec.seed
    ramp = settings.warmup_z * spec.horizon.schedule_steps if settings.warmup_z < 1 else settings.warmup_z

    def init(key: Key[Array, ""], start: Start) -> Variables:
        return Variables(student.init(key, start, spec.mesh.branch))

    def prepare(batch: Batch, targets: Tree) -> Tree:
        place = jnp.arange(len(batch["mask"]))  # in the global batch: a draw is the same on any number of devices
        return (targets or {}) | {"place": place}

    def loss(variables: Variables, batch: Batch, targets: Tree, key: Key[Array, ""], step: Step) -> Loss:
        own = student.find_branches(batch)
        allowed = student.select_branches(variables.params, own)
        draws = key_for(seed, "mixture", step)
        log_weights = student.log_weights(variables.params, allowed, (draws, targets["place"]))
        mixing = (log_weights, allowed) if settings.weight_z else None
        logits, mixed = student.training_logits(variables.params, batch, own, mixing, key)
        counted = batch["mask"] * (own >= 0)
        terms, metrics = _label_terms(logits, batch, counted, settings.weight_h)
        if settings.weight_s:
            rows = distill.class_loss(_take_teacher_logits(targets), logits, **student.distillation)
            terms |= {"kd": make_term(rows, counted * targets["taught"], settings.weight_s)}
        if mixed is not None:
            compare = distill.class_loss_from_log if settings.mix == "probability" else distill.class_loss
            rows = compare(_take_teacher_logits(targets), mixed, **student.distillation)
            ramped = jnp.minimum(1.0, step / ramp) if ramp else 1.0
            mixable = counted * targets["taught"] * allowed.any(-1)
            terms |= {"zero_shot": make_term(rows, mixable, settings.weight_z * ramped)}
        return Loss(terms, metrics)

    return Method(
        init,
        loss,
        take_variables({"classify": student.route_logits}),
        lambda variables: student.exports(variables.params),
        prepare=prepare,
        classifiers=Classifiers(settings.teacher_length, settings.teacher_labels),
        flops=lambda tokens, rows: branches.flops(encoder.architecture, student.count, student.top, tokens, rows),
    )


def _label_terms(
    logits: Float[Array, "rows classes"], batch: Batch, counted: Shaped[Array, " rows"], weight: float
) -> tuple[dict[str, Term], dict[str, Term]]:
    """Returns the cross-entropy of labels as a term, if it has a weight, and accuracy as a metric."""
    labelled = counted * batch["labelled"]
    values, _ = distill.label_loss(logits, batch["labels"])
    correct = (logits.argmax(-1) == batch["labels"]).astype(values.dtype)
    terms = {"ce": make_term(values, labelled, weight)} if weight else {}
    return terms, {"accuracy": make_term(correct, labelled, 0.0)}


def _take_teacher_logits(targets: Tree) -> Float[Array, "rows classes"]:
    if "teacher" not in targets:
        raise UserError("no teachers", "config.teachers", "name one for each language, or set weight_s=weight_z=0")
    return targets["teacher"]


def infer(settings: Settings, task: Classify, encoder: Encoder) -> Inference:
    """Builds the student alone, to classify texts by its branches or to export them."""
    student = build_student(settings, task, encoder)
    routes = {tag: name for name, group in zip(student.names, student.groups, strict=True) for _, tag in group}

    def init(key: Key[Array, ""]) -> Tree:
        return student.init(key, Start(encoder.architecture, encoders.init(encoder.architecture, key), {}))

    return Inference(student.route_logits, routes, student.exports, jax.eval_shape(init, jax.random.key(0)))


def build_student(settings: Settings, task: Classify, encoder: Encoder) -> Student:
    """Builds the student that the settings describe, or refuses branches that the encoder cannot have."""
    layers, top = encoder.architecture.layers, settings.branch_layers
    if top > layers:
        what, remedy = f"branch_layers={top} of {layers} layers", f"give 1 to {layers}, or 0: a quarter"
        raise UserError(what, "config.method.branch_layers", remedy)
    return Student(encoder, groups(settings, task), task.labels, top or max(1, layers // 4), settings)


@dataclasses.dataclass(frozen=True)
class Student:
    """Trunk, branches and head. `groups` are the languages of each branch; the batch counts languages through them."""

    encoder: Encoder
    groups: tuple[Group, ...]
    labels: tuple[str, ...]
    top: int  # layers of a branch
    settings: Settings

    @property
    def count(self) -> int:
        """The number of branches, without those that only fill a mesh axis."""
        return len(self.groups)

    @property
    def names(self) -> list[str]:
        return ["+".join(tag for _, tag in group) for group in self.groups]

    @property
    def distillation(self) -> dict[str, Any]:
        return {
            "form": self.settings.kd,
            "temperature": self.settings.temperature,
            "t_squared": self.settings.t_squared,
        }

    @property
    def head(self) -> ClassifierHead:
        return ClassifierHead(self.encoder.architecture, len(self.labels), self.encoder.dtype)

    def init(self, key: Key[Array, ""], start: Start, multiple: int = 1) -> dict[str, Any]:
        """Returns parameters in which all branches and their heads are equal.

        A head that came with the weights is kept if its labels are the task's.
        """
        trunk, stacked = branches.split_encoder(start.encoder, self.count, self.top)
        trained = start.heads.get("classifier") if start.labels == self.labels else None
        head = trained or start_head("classifier", self.head, key, start.heads)
        if self.settings.head == "branch":
            head = jax.tree.map(lambda x: jnp.repeat(x[None], self.count, axis=0), head)
            head = branches.pad_branches(head, multiple)
        scores = {"mixture": jnp.zeros(self.count)} if self.settings.weights == "learned" else {}
        return {"trunk": trunk, "branches": branches.pad_branches(stacked, multiple), "classifier": head} | scores

    def find_branches(self, batch: Batch) -> Int[Array, " rows"]:
        """Returns the branch of each row's language, -1 where it has none."""
        branch_of = {place: k for k, group in enumerate(self.groups) for place, _ in group}
        table = jnp.array([branch_of[place] for place in range(len(branch_of))], jnp.int32)
        return jnp.where(batch["language"] >= 0, table[batch["language"]], -1)

    def select_branches(
        self, params: Tree, own: Int[Array, " rows"], keep_own: bool | None = None
    ) -> Bool[Array, "rows branches"]:
        """Returns which branches are mixed for each row: all but its own, unless that is kept."""
        keep = self.settings.own if keep_own is None else keep_own
        return mixture.select_branches(
            own, branches.count_branches(params["branches"]), real_branches=self.count, keep_own=keep
        )

    def log_weights(
        self, params: Tree, allowed: Bool[Array, "rows branches"], draws: Draws | None = None
    ) -> Float[Array, "rows branches"]:
        """Returns the log weights of the mixture, in training with draws, in inference without."""
        if self.settings.weights == "learned":
            scores = jnp.pad(params["mixture"], (0, allowed.shape[1] - self.count))
            return mixture.learned_log_weights(scores, allowed)
        if self.settings.weights == "dirichlet" and draws:
            return mixture.dirichlet_log_weights(*draws, self.settings.alpha, allowed)
        return mixture.uniform_log_weights(allowed)

    def training_logits(
        self, params: Tree, batch: Batch, own: Int[Array, " rows"], mixing: Mixing | None, key: Key[Array, ""]
    ) -> tuple[Float[Array, "rows classes"], Float[Array, "rows classes"] | None]:
        """Returns the logits of each row's own branch, and of its mixture, which are None without `mixing`.

        A mixture of probabilities is given as log-probabilities at the temperature.
        """
        inner, outer = jax.random.split(key)
        own_first, mixed_first = self._first_tokens(params, batch["text"], inner, mixing is not None)
        one_hot = jax.nn.one_hot(own, len(own_first), dtype=own_first.dtype)  # all 0 where it is -1
        level = self.settings.mix
        if level != "representation" or self.settings.head == "branch":
            is_same = mixed_first is own_first
            own_first = self.apply_head(params, own_first, outer)
            mixed_first = own_first if is_same else self.apply_head(params, mixed_first, outer)
        pairs = [(one_hot, own_first)]
        if mixing and level != "probability":
            pairs.append((mixture.weights_from_log(*mixing), mixed_first))
        outputs = _sum_weighted(pairs)
        if level == "representation" and self.settings.head == "shared":
            outputs = self.apply_head(params, outputs, outer)
        if mixing and level == "probability":
            return outputs[0], mixture.mix_probabilities(mixing[0], mixed_first, self.settings.temperature)
        return outputs[0], outputs[1] if mixing else None

    def _first_tokens(
        self, params: Tree, text: Batch, key: Key[Array, ""], mixes: bool
    ) -> tuple[Float[Array, "branches rows hidden"], Float[Array, "branches rows hidden"]]:
        """Returns the first token's state after each branch, and the same without gradient for the mixture."""
        trunk, stacked = params["trunk"], params["branches"]
        hidden = branches.run_trunk(self.encoder, trunk, text, key)
        first = branches.run_branches(self.encoder, trunk, stacked, hidden, text["mask"], key)
        if not mixes or self.settings.stop == "none":
            return first, first
        stop = jax.lax.stop_gradient
        if self.settings.stop == "branches":
            stacked = stop(stacked)
        else:
            trunk, hidden = stop((trunk, hidden))
        return first, branches.run_branches(self.encoder, trunk, stacked, hidden, text["mask"], key)

    def route_logits(self, params: Tree, batch: Batch) -> Outputs:
        """Returns for inference the `logits` of each row's own route, and the logits of every route."""
        text, own = batch["text"], self.find_branches(batch)
        hidden = branches.run_trunk(self.encoder, params["trunk"], text)
        first = branches.run_branches(self.encoder, params["trunk"], params["branches"], hidden, text["mask"])
        logits = self.apply_head(params, first)
        if self.count == 1:
            return {"logits": logits[0]}
        selected = self.select_branches(params, own, keep_own=True)
        log_weights = self.log_weights(params, selected)
        if self.settings.mix == "representation":
            mixed = self.apply_head(params, mixture.mix(mixture.weights_from_log(log_weights, selected), first))
        elif self.settings.mix == "logits":
            mixed = mixture.mix(mixture.weights_from_log(log_weights, selected), logits)
        else:
            mixed = mixture.mix_probabilities(log_weights, logits)
        of_branch = logits[jnp.maximum(own, 0), jnp.arange(len(own))]
        routes = {f"logits_{name}": logits[k] for k, name in enumerate(self.names)}
        return {"logits": jnp.where(own[:, None] >= 0, of_branch, mixed), f"logits_{branches.MIXTURE}": mixed} | routes

    def apply_head(
        self, params: Tree, first: Float[Array, "*axes hidden"], key: Key[Array, ""] | None = None
    ) -> Float[Array, "*axes classes"]:
        """Returns the logits of first tokens; with a head for each branch they are [branches, rows, hidden]."""

        def apply(params: Tree, x: Float[Array, "rows hidden"], key: Key[Array, ""] | None, groups: int = 1) -> Any:
            return self.head.apply({"params": params}, x, key is not None, key, groups)

        if self.settings.head == "shared":
            flat = apply(params["classifier"], first.reshape(-1, first.shape[-1]), key, math.prod(first.shape[:-2]))
            return flat.reshape(*first.shape[:-1], -1)
        keys = None if key is None else jax.random.split(key, len(first))
        return jax.vmap(apply, in_axes=(0, 0, None if key is None else 0))(params["classifier"], first, keys)

    def exports(self, params: Tree) -> dict[str, Export]:
        """Returns a classifier for each language, and the student with all branches for `predict` and `evaluate`.

        A student with one branch is just one classifier.
        """
        architecture = self.encoder.architecture

        def export_branch(k: int) -> Export:
            head = params["classifier"]
            head = jax.tree.map(lambda x: x[k], head) if self.settings.head == "branch" else head
            encoder = branches.join_encoder(params["trunk"], params["branches"], k)
            return Export(architecture, encoder, {"classifier": head}, self.labels, route=self.names[k])

        if self.count == 1:
            return {"": export_branch(0)._replace(route="")}
        by_language = {tag: export_branch(k) for k, group in enumerate(self.groups) for _, tag in group}
        return {branches.WHOLE: Export(architecture, self._drop_padding(params), {}, self.labels)} | by_language

    def _drop_padding(self, params: Tree) -> dict[str, Any]:
        stacked = ("branches", "classifier") if self.settings.head == "branch" else ("branches",)
        cut = {name: jax.tree.map(lambda x: x[: self.count], params[name]) for name in stacked}
        return params | cut


def _sum_weighted(
    pairs: list[tuple[Float[Array, "rows branches"], Float[Array, "branches rows width"]]],
) -> Float[Array, "pairs rows width"]:
    """Returns Σ_k w_bk x_kb for each (w, x), in one contraction if all share one x."""
    if all(x is pairs[0][1] for _, x in pairs):
        return jnp.einsum("sbk,kbh->sbh", jnp.stack([w for w, _ in pairs]), pairs[0][1])
    return jnp.stack([mixture.mix(w, x) for w, x in pairs])
