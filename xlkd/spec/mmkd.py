# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Settings of MMKD's four levels; every default is the form without the slips of the authors' code."""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

from xlkd.errors import UserError
from xlkd.spec import setting, stage
from xlkd.spec.tasks import Views

TASKS = ("views",)
READS = (
    *("data.identities", "data.cap", "data.take", "data.block", "data.alignment"),
    *("teacher.path", "teacher.revision", "teacher.vectors", "teacher.cache"),
)
COUPLED = ("sentence", "structure")  # levels that need all rows of a step


@dataclasses.dataclass(frozen=True)
class Method(stage.Method):
    """Weights and forms of the levels."""

    name: str = setting("mmkd", "The method: a module of xlkd/methods.")
    token: float = setting(1.0, "Weight of the token level; 0 leaves a level out.", at_least=0, at_most=1e6)
    word: float = setting(1.0, "Weight of the word level.", at_least=0, at_most=1e6)
    sentence: float = setting(1.0, "Weight of the sentence level.", at_least=0, at_most=1e6)
    structure: float = setting(10.0, "Weight of the structure level.", at_least=0, at_most=1e6)
    student_passes: Literal["shared", "separate"] = setting(
        "shared", "Sentence and structure share a forward pass, or each has one."
    )
    teacher_dropout: bool = setting(False, "Dropout in the teacher, with a pass for each level, as published.")
    student_pooling: Literal["cls", "mean"] = setting("cls", "Sentence vector of the student.")
    teacher_pooling: Literal["cls", "mean"] = setting("cls", "Sentence vector of the teacher.")
    word_label_index: Literal["token", "word"] = setting(
        "token", "Index of a masked word: its first token, or as published its number."
    )
    word_sum: Literal["fixed", "published"] = setting("fixed", "Sum of the word level.")
    word_similarity: Literal["dot", "cosine"] = setting("dot", "Similarity of words.")
    word_temperature: float = setting(1.0, "Temperature of the word level.", at_least=0.001, at_most=1000)
    word_anchor: Literal["teacher", "student"] = setting("teacher", "Side whose words are contrasted.")
    teacher_projector: Literal["random_frozen", "identity", "trained"] = setting(
        "random_frozen", "The teacher's projector."
    )
    head_width: int = setting(
        0, "Hidden width of the projectors; 0 takes that of the encoder.", at_least=0, at_most=65_536
    )
    head_output: int = setting(128, "Output width of the projectors.", at_least=1, at_most=65_536)
    bn_group: int = setting(
        0, "Examples that BatchNorm sees together; 0 takes the whole step.", at_least=2, at_most=1_000_000, also=(0,)
    )
    structure_group: int = setting(
        0,
        "Examples that the structure level compares; 0 takes the whole step.",
        at_least=2,
        at_most=1_000_000,
        also=(0,),
    )
    structure_temperature: float = setting(1.0, "Temperature of the structure level.", at_least=0.001, at_most=1000)
    structure_diagonal: bool = setting(True, "Keep an example's similarity to itself.")
    structure_direction: Literal["forward", "reverse"] = setting(
        "forward", "Direction of the KL: forward is KL(teacher ‖ student)."
    )
    word_layers: tuple[str, ...] = setting(("-1:-1",), "Layers student:teacher of the word level; several: their mean.")
    sentence_layers: tuple[str, ...] = setting(("-1:-1",), "Layers student:teacher of the sentence level.")
    structure_layers: tuple[str, ...] = setting(("-1:-1",), "Layers student:teacher of the structure level.")
    retrieval_layer: int = setting(
        -1, "Layer that retrieval is evaluated on; -1 is the last.", at_least=-1000, at_most=1000
    )
    alignment_layer: int = setting(
        0, "Layer that word links are evaluated on; 0 takes two thirds of the depth.", at_least=-1000, at_most=1000
    )


def check(spec: stage.StageSettings[Method, Views]) -> None:
    """Refuses settings that are impossible together, or that would have no effect."""
    method = spec.method
    if not any((method.token, method.word, method.sentence, method.structure)):
        raise UserError("all weights of the levels are 0", "config.method", "give token a weight")
    if spec.teacher.vectors:
        check_vectors(spec)
    elif not spec.teacher.path and any((method.word, method.sentence, method.structure)):
        raise UserError("no teacher", "config.teacher.path", "name an English encoder, or set config.teacher.vectors")
    for name in ("word_layers", "sentence_layers", "structure_layers"):
        pairs = getattr(method, name)
        if not pairs or not all(re.fullmatch("-?[0-9]{1,4}:-?[0-9]{1,4}", pair) for pair in pairs):
            what = f"{pairs} are not pairs of student and teacher layers"
            raise UserError(what, f"config.method.{name}", "for example 8:8,-1:-1")
    if spec.task.tlm_labels == "all" and spec.data.pad_to < spec.task.max_length:
        what = "labels at padding make the loss depend on how far a batch is padded"
        raise UserError(what, "config.task.tlm_labels", f"set config.data.pad_to={spec.task.max_length}")
    if method.word_sum == "published" and spec.optim.micro_batches > 1:
        remedy = "set config.optim.micro_batches=1"
        raise UserError("the published sum needs the complete batch", "config.method.word_sum", remedy)
    if method.structure and method.structure_diagonal and method.structure_temperature < 1:
        what = "below temperature 1 the similarity of an example to itself dominates the loss"
        raise UserError(what, "config.method.structure_temperature", "set config.method.structure_diagonal=False")


def check_vectors(spec: stage.StageSettings[Method, Views]) -> None:
    """Refuses settings that need more of a teacher than the vectors of its sentences."""
    method, where = spec.method, "config.teacher.vectors"
    if spec.teacher.path:
        raise UserError("two teachers: teacher.path names another", where, "set config.teacher.path= (empty)")
    if method.word:
        what = "the word level needs a teacher encoder, whose vectors of words are not in the file"
        raise UserError(what, where, "set config.method.word=0")
    if method.teacher_dropout:
        raise UserError("vectors have no dropout", where, "set config.method.teacher_dropout=false")
    for name in COUPLED:
        for pair in getattr(method, f"{name}_layers"):
            if not pair.endswith(":-1"):
                what = f"{pair} names a layer of the teacher, which has only its vectors"
                raise UserError(what, f"config.method.{name}_layers", "write -1 after the colon")
