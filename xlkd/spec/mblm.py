# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Settings of MBLM: branches, their mixture, and three losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from xlkd.errors import UserError
from xlkd.languages import normalise_tag
from xlkd.spec import setting, stage
from xlkd.spec.tasks import Classify

TASKS = ("classify",)
READS = ("data.exponent", "data.mix_rows", "teachers")

Group = tuple[tuple[int, str], ...]  # the languages of a branch: their place among task.languages, and their tags


@dataclasses.dataclass(frozen=True)
class Method(stage.Method):
    """The student's form, and the weights of its losses."""

    name: str = setting("mblm", "The method: a module of xlkd/methods.")
    branches: str = setting("each", "One branch for each language; one for all; or groups such as en+de,ru.")
    branch_layers: int = setting(0, "Layers of a branch; 0 takes a quarter of the encoder's.", at_least=0, at_most=1000)
    head: Literal["shared", "branch"] = setting("shared", "One classifier for all branches, or one a branch.")
    weight_s: float = setting(1.0, "Weight of distillation into an example's own branch.", at_least=0, at_most=1e6)
    weight_z: float = setting(1.0, "λ: weight of distillation into the mixture of branches.", at_least=0, at_most=1e6)
    warmup_z: float = setting(
        0.1,
        "Ramp until λ is reached, as a share of the steps, or in steps where 1 or more.",
        at_least=0,
        at_most=10_000_000,
    )
    weight_h: float = setting(0.5, "γ: weight of cross-entropy on labels.", at_least=0, at_most=1e6)
    kd: Literal["ce", "kl", "mse"] = setting("ce", "Form of distillation.")
    temperature: float = setting(1.0, "Temperature of distillation.", at_least=0.001, at_most=1000)
    t_squared: bool = setting(False, "Multiply distillation by temperature squared.")
    mix: Literal["representation", "logits", "probability"] = setting("representation", "What is mixed.")
    weights: Literal["uniform", "learned", "dirichlet"] = setting("uniform", "Weights of the branches in a mixture.")
    alpha: float = setting(1.0, "Concentration, for weights=dirichlet.", at_least=0.001, at_most=1e6)
    own: bool = setting(False, "Keep an example's own branch in its mixture.")
    stop: Literal["none", "branches", "trunk"] = setting("none", "What the zero-shot-aware term does not train.")
    teacher_length: int = setting(
        0, "Longest input of the teachers in their own tokens; 0 takes what each can read.", at_least=0, at_most=65_536
    )
    teacher_labels: Mapping[str, tuple[str, ...]] = setting(
        {}, "By language the order of a teacher's logits, where its labels have no names."
    )


def groups(method: Method, task: Classify) -> tuple[Group, ...]:
    """Returns the languages of each branch: `each` is one per language, `one` one for all, else groups as en+de,ru."""
    where = "config.method.branches"
    if not task.languages:
        raise UserError("no supervised languages", "config.task.languages", "name those of the training rows: en,de")
    languages = list(task.supervised())
    text = {"each": ",".join(languages), "one": "+".join(languages)}.get(method.branches, method.branches)
    tags = [[normalise_tag(tag, where) for tag in group.split("+")] for group in text.split(",")]
    if sorted(tag for group in tags for tag in group) != sorted(set(languages)):
        what = f"branches={method.branches} does not contain each of {', '.join(languages)} once"
        raise UserError(what, where, "set it to 'each', to 'one', or to groups such as en+de,ru")
    return tuple(tuple((languages.index(tag), tag) for tag in group) for group in tags)


def check(spec: stage.StageSettings[Method, Classify]) -> None:
    """Refuses settings that are impossible together."""
    key_of: dict[str, str] = {}
    for key in spec.teachers:
        tag = normalise_tag(key, "config.teachers")
        if tag in key_of:
            raise UserError(f"{key_of[tag]} and {key} are the same language", "config.teachers", "keep one of the two")
        key_of[tag] = key
    check_method(spec.method, groups(spec.method, spec.task))


def check_method(method: Method, branches: tuple[Group, ...]) -> None:
    """Refuses losses and mixtures that are impossible together."""
    if method.mix == "probability" and method.kd == "mse":
        raise UserError("a mixture of probabilities has no logits for kd=mse", "config.method", "choose kd=ce or kl")
    if method.mix == "representation" and method.head == "branch" and method.branches != "one":
        what = "a mixture of representations has no single head to read it with head=branch"
        raise UserError(what, "config.method", "choose head=shared, or mix=logits or probability")
    if not (method.weight_s or method.weight_z or method.weight_h):
        raise UserError("all weights are 0: nothing is learned", "config.method", "give one of weight_s, weight_h")
    if method.weight_z and len(branches) == 1 and not method.own:
        remedy = "give a second branch, set method.own=true, or method.weight_z=0"
        raise UserError("nothing to mix: the only branch is left out", "config.method.weight_z", remedy)
