# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""MBLM: monolingual teachers, a student with a branch of upper layers a language, training on mixtures of branches.

    L = weight_s · KD(teacher, own branch) + weight_z(step) · KD(teacher, mixture of branches) + weight_h · hard labels

The mixture of a row leaves its own branch out: all that enters is what an unseen language would get. A language with
a branch is answered by it, any other by the mixture of all. What is published of this and what is ours: docs/mblm.md.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from xlkd.errors import UserError
from xlkd.losses import distill, mixture
from xlkd.losses.terms import Term, make_term
from xlkd.methods import Classifiers, Export, Inference, Loss, Method, Start, Variables, key_for, of_params
from xlkd.models import branches
from xlkd.models.encoder import Encoder
from xlkd.models.heads import ClassifierHead, init_head
from xlkd.spec.mblm import Group, groups
from xlkd.spec.mblm import Method as Settings
from xlkd.spec.stage import StageSpec
from xlkd.spec.tasks import Classify


def build(spec: StageSpec[Settings, Classify], encoder: Encoder) -> Method:
    """Builds the method for batches of `tasks/classify.py`; `task.languages` are the supervised ones."""
    student = build_student(spec.method, spec.task, encoder)
    settings, seed = spec.method, spec.seed
    ramp = settings.warmup_z * spec.horizon.steps if settings.warmup_z < 1 else settings.warmup_z

    def init(key: jax.Array, start: Start) -> Variables:
        return Variables(student.init(key, start, spec.mesh.branch))

    def prepare(batch, targets):
        place = jnp.arange(len(batch["mask"]))  # in the global batch: a draw is the same on any number of devices
        return (targets or {}) | {"place": place}

    def loss(variables, batch, targets, key, step) -> Loss:
        own = student.own(batch)
        allowed = student.allowed(variables.params, own)
        draws = key_for(seed, "mixture", step)
        logs = student.log_weights(variables.params, allowed, (draws, targets["place"]))
        mixing = (logs, allowed) if settings.weight_z else None
        found, mixed = student.answers(variables.params, batch, own, mixing, key)
        counted = batch["mask"] * (own >= 0)
        terms, metrics = _hard(found, batch, counted, settings.weight_h)
        if settings.weight_s:
            rows = distill.class_loss(_teacher(targets), found, **student.distillation)
            terms |= {"kd": make_term(rows, counted * targets["taught"], settings.weight_s)}
        if mixed is not None:
            compare = distill.class_loss_from_log if settings.mix == "probability" else distill.class_loss
            rows = compare(_teacher(targets), mixed, **student.distillation)
            risen = jnp.minimum(1.0, step / ramp) if ramp else 1.0
            terms |= {
                "zero_shot": make_term(rows, counted * targets["taught"] * allowed.any(-1), settings.weight_z * risen)
            }
        return Loss(terms, metrics)

    return Method(
        init,
        loss,
        of_params({"classify": student.routes}),
        lambda variables: student.exports(variables.params),
        prepare=prepare,
        classifiers=Classifiers(settings.teacher_length, settings.teacher_labels),
        flops=lambda tokens, rows: branches.flops(encoder.architecture, student.real, student.top, tokens, rows),
    )


def _hard(found: jax.Array, batch, counted: jax.Array, weight: float) -> tuple[dict[str, Term], dict[str, Term]]:
    labelled = counted * batch["labelled"]
    values, _ = distill.label_loss(found, batch["labels"])
    right = (found.argmax(-1) == batch["labels"]).astype(values.dtype)
    return {"ce": make_term(values, labelled, weight)} if weight else {}, {"accuracy": make_term(right, labelled, 0.0)}


def _teacher(targets) -> jax.Array:
    if "teacher" not in targets:
        raise UserError("no teachers", "config.teachers", "name one for each language, or set weight_s=weight_z=0")
    return targets["teacher"]


def infer(settings: Settings, task: Classify, encoder: Encoder) -> Inference:
    """Builds the student alone, to classify texts by its branches or to take it apart."""
    student = build_student(settings, task, encoder)
    routes = {tag: name for name, group in zip(student.names, student.groups, strict=True) for _, tag in group}
    return Inference(student.routes, routes, student.exports)


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
    def real(self) -> int:
        """Branches, those that only fill a mesh axis left out."""
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

    def init(self, key: jax.Array, start: Start, multiple: int = 1) -> dict[str, Any]:
        """Branches and their heads begin equal; a head that came with the weights is kept where its labels are ours."""
        trunk, stacked = branches.split(start.encoder, self.real, self.top)
        known = start.heads.get("classifier") if start.labels == self.labels else None
        head = known or init_head(self.head, key)
        if self.settings.head == "branch":
            head = jax.tree.map(lambda x: jnp.repeat(x[None], self.real, axis=0), head)
            head = branches.pad_branches(head, multiple)
        scores = {"mixture": jnp.zeros(self.real)} if self.settings.weights == "learned" else {}
        return {"trunk": trunk, "branches": branches.pad_branches(stacked, multiple), "classifier": head} | scores

    def own(self, batch) -> jax.Array:
        """The branch of each row's language, -1 where it has none."""
        of = {place: k for k, group in enumerate(self.groups) for place, _ in group}
        table = jnp.array([of[place] for place in range(len(of))], jnp.int32)
        return jnp.where(batch["language"] >= 0, table[batch["language"]], -1)

    def allowed(self, params, own: jax.Array, keep_own: bool | None = None) -> jax.Array:
        keep = self.settings.own if keep_own is None else keep_own
        return mixture.select_branches(own, branches.count(params["branches"]), real_branches=self.real, keep_own=keep)

    def log_weights(self, params, allowed: jax.Array, draws: tuple[jax.Array, jax.Array] | None = None) -> jax.Array:
        """Of training with draws = (key, each row's place), else of inference."""
        if self.settings.weights == "learned":
            scores = jnp.pad(params["mixture"], (0, allowed.shape[1] - self.real))
            return mixture.learned_log_weights(scores, allowed)
        if self.settings.weights == "dirichlet" and draws:
            return mixture.dirichlet_log_weights(*draws, self.settings.alpha, allowed)
        return mixture.uniform_log_weights(allowed)

    def answers(
        self, params, batch, own: jax.Array, mixing: tuple[jax.Array, jax.Array] | None, key: jax.Array
    ) -> tuple[jax.Array, jax.Array | None]:
        """In training: logits of the own branches, and of the mixtures by `mixing` = (log weights, allowed).

        A mixture of probabilities is given as log-probabilities at the temperature.
        """
        inner, outer = jax.random.split(key)
        first, again = self._first(params, batch["text"], inner, mixing is not None)
        one = jax.nn.one_hot(own, len(first), dtype=first.dtype)  # nothing where it is -1
        level = self.settings.mix
        if level != "representation" or self.settings.head == "branch":
            same = again is first
            first = self.read(params, first, outer)
            again = first if same else self.read(params, again, outer)
        picked = [(one, first)]
        if mixing and level != "probability":
            picked.append((mixture.weights_from_log(*mixing), again))
        found = _weigh(picked)
        if level == "representation" and self.settings.head == "shared":
            found = self.read(params, found, outer)
        if mixing and level == "probability":
            return found[0], mixture.mix_probabilities(mixing[0], again, self.settings.temperature)
        return found[0], found[1] if mixing else None

    def _first(self, params, text, key: jax.Array, mixes: bool) -> tuple[jax.Array, jax.Array]:
        """First tokens behind the branches [K, rows, D], and the same for the mixture, stopped where it should be."""
        hidden, held = branches.run_trunk(self.encoder, params["trunk"], text, key), params["branches"]
        first = branches.run_branches(self.encoder, held, hidden, text["mask"], key)
        if not mixes or self.settings.stop == "none":
            return first, first
        stop = jax.lax.stop_gradient
        held, hidden = (stop(held), hidden) if self.settings.stop == "branches" else (held, stop(hidden))
        return first, branches.run_branches(self.encoder, held, hidden, text["mask"], key)

    def routes(self, params, batch) -> dict[str, jax.Array]:
        """In inference: `logits` by each row's own route, and beside them those of every route there is."""
        text, own = batch["text"], self.own(batch)
        hidden = branches.run_trunk(self.encoder, params["trunk"], text)
        first = branches.run_branches(self.encoder, params["branches"], hidden, text["mask"])
        logits = self.read(params, first)
        if self.real == 1:
            return {"logits": logits[0]}
        every = self.allowed(params, own, keep_own=True)
        logs = self.log_weights(params, every)
        if self.settings.mix == "representation":
            mixed = self.read(params, mixture.mix(mixture.weights_from_log(logs, every), first))
        elif self.settings.mix == "logits":
            mixed = mixture.mix(mixture.weights_from_log(logs, every), logits)
        else:
            mixed = mixture.mix_probabilities(logs, logits)
        of_branch = logits[jnp.maximum(own, 0), jnp.arange(len(own))]
        routes = {f"logits_{name}": logits[k] for k, name in enumerate(self.names)}
        return {"logits": jnp.where(own[:, None] >= 0, of_branch, mixed), f"logits_{branches.MIXTURE}": mixed} | routes

    def read(self, params, first: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Logits [..., labels] of first tokens [..., D]; with a head a branch, of [K, rows, D] alone."""

        def apply(params, x, key) -> Any:
            return self.head.apply({"params": params}, x[:, None], key is not None, key)

        if self.settings.head == "shared":
            flat = apply(params["classifier"], first.reshape(-1, first.shape[-1]), key)
            return flat.reshape(*first.shape[:-1], -1)
        keys = None if key is None else jax.random.split(key, len(first))
        return jax.vmap(apply, in_axes=(0, 0, None if key is None else 0))(params["classifier"], first, keys)

    def exports(self, params) -> dict[str, Export]:
        """An ordinary classifier a language, and all in one for `predict` and `evaluate`; one branch is just one."""
        architecture = self.encoder.architecture

        def of(k: int) -> Export:
            head = params["classifier"]
            head = jax.tree.map(lambda x: x[k], head) if self.settings.head == "branch" else head
            encoder = branches.join(params["trunk"], params["branches"], k)
            return Export(architecture, encoder, {"classifier": head}, self.labels, route=self.names[k])

        if self.real == 1:
            return {"": of(0)._replace(route="")}
        each = {tag: of(k) for k, group in enumerate(self.groups) for _, tag in group}
        return {branches.WHOLE: Export(architecture, self._without_padding(params), {}, self.labels)} | each

    def _without_padding(self, params) -> dict[str, Any]:
        stacked = ("branches", "classifier") if self.settings.head == "branch" else ("branches",)
        cut = {name: jax.tree.map(lambda x: x[: self.real], params[name]) for name in stacked}
        return params | cut


def _weigh(pairs: list[tuple[jax.Array, jax.Array]]) -> jax.Array:
    """Σ_k w_bk x_kb for each (w, x) [pairs, rows, …]; of one x in one contraction."""
    if all(x is pairs[0][1] for _, x in pairs):
        return jnp.einsum("sbk,kbh->sbh", jnp.stack([w for w, _ in pairs]), pairs[0][1])
    return jnp.stack([mixture.mix(w, x) for w, x in pairs])
