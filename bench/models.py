# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Our side of a bench: encoders of fixed shapes, made batches, and the step that a run takes, one program a shape."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from xlkd import settings
from xlkd.methods import Method, Start, key_for
from xlkd.models import encoder as encoders
from xlkd.models.encoder import Architecture, Encoder
from xlkd.models.outputs import span_logits
from xlkd.spec.optim import Horizon
from xlkd.spec.stage import StageSettings, StageSpec
from xlkd.train import optim, state, step

SHAPES = {  # hidden, layers, heads, feed-forward, vocabulary
    "6x384": (384, 6, 12, 1536, 30522),
    "12x384": (384, 12, 12, 1536, 30522),
    "base": (768, 12, 12, 3072, 119547),  # mBERT's
    "tiny": (16, 2, 2, 32, 100),
}


def architecture(shape: str, dropout: float = 0.1, vocabulary: int = 0) -> Architecture:
    """BERT's kind, with one rate for all that is dropped."""
    hidden, layers, heads, inner, words = SHAPES[shape]
    return Architecture(
        model_type="bert",
        vocab_size=vocabulary or words,
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        intermediate_size=inner,
        positions=512,
        types=2,
        pad_id=0,
        position_offset=0,
        dropout=dropout,
        attention_dropout=dropout,
        classifier_dropout=dropout,
    )


STEPS = 1000  # of a schedule; how many there are does not change how long one takes


def stage(config: str, name: str, **changes: Any) -> StageSettings[Any, Any]:
    """Reads a stage of a packaged config with changed keys; `data__batch` stands for `data.batch`."""
    flags = [f"--config.{key.replace('__', '.')}={value}" for key, value in changes.items()]
    return settings.read_stage(settings.apply_flags(settings.read_config(f"configs/{config}"), flags), name)


def resolve(
    settings: StageSettings[Any, Any], steps: int = STEPS, steps_per_epoch: int = 0, labels: tuple[str, ...] = ()
) -> StageSpec[Any, Any]:
    """Returns a stage as data would resolve it that has so many steps and these labels; one epoch begins, at 0."""
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    if labels:
        values["task"] = dataclasses.replace(settings.task, labels=labels)
    return StageSpec(**values, horizon=Horizon(steps, steps_per_epoch, (0,)))


def start(of: Architecture, seed: int = 0, labels: tuple[str, ...] = ()) -> Start:
    """Weights drawn from a seed: what they are does not change how long a step takes."""
    return Start(of, encoders.init(of, jax.random.key(seed)), {}, labels)


def texts(random: np.random.Generator, rows: int, length: int, words: int) -> dict[str, np.ndarray]:
    """A view of rows without padding."""
    return {
        "ids": random.integers(5, words, (rows, length)).astype(np.int32),
        "mask": np.ones((rows, length), np.int32),
        "types": np.repeat([[0, 1]], [length // 4, length - length // 4], axis=1).repeat(rows, 0).astype(np.int32),
    }


def questions(rows: int, length: int, words: int) -> dict[str, Any]:
    """A batch of question answering at one length."""
    random = np.random.default_rng(0)
    begin = random.integers(length // 4, length - 3, rows).astype(np.int32)
    text = texts(random, rows, length, words)
    context = text["types"].astype(bool)
    return {
        "text": text,
        "start": begin,
        "end": begin + 2,
        "answerable": np.ones(rows, bool),
        "context_mask": context,
        "start_mask": context,
        "mask": np.ones(rows, np.float32),
    }


class Trainer:
    """Our step over our state, as the loop calls it; a teacher that does not change is asked within the step."""

    def __init__(self, method: Method, given: Start, stage: StageSpec[Any, Any]) -> None:
        adam = optim.make_optimizer(stage.optim)
        arrays = (given.encoder, given.heads, given.other)

        def begun(encoder, heads, other):
            return given._replace(encoder=encoder, heads=heads, other=other)

        self.method = method
        self.state = jax.jit(lambda *a: state.create_state(method, begun(*a), adam, stage.seed))(*arrays)
        rate, clip = optim.make_schedule(stage.optim, STEPS), stage.optim.clip
        self._step = jax.jit(step.make_step(method, adam, rate, seed=stage.seed, clip_norm=clip), donate_argnums=0)
        if method.teacher:

            def teach(*a):
                return method.teacher.variables(method.init(key_for(0, "init"), begun(*a)), begun(*a))

            self.ask = functools.partial(jax.jit(method.teacher.forward), jax.jit(teach)(*arrays))

    def __call__(self, batch: Any, targets: Any = ()) -> dict[str, Any]:
        """One step; targets of None: the teacher's."""
        targets = self.ask(batch) if targets is None else targets
        new, report = self._step(self.state._replace(teacher=()), batch, targets)
        self.state = new._replace(teacher=self.state.teacher)
        return report

    def over(self, batches: list[Any], targets: list[Any] | None = None) -> None:
        """A step for each of the batches, and wait for the last."""
        known = targets if targets is not None else [() if self.method.teacher is None else None] * len(batches)
        for batch, target in zip(batches, known, strict=True):
            self(batch, target)
        jax.block_until_ready(self.state.variables.params)


def forward(of: Architecture, params: Any) -> Callable[[Any], Any]:
    """The encoder and its head of spans, in inference."""
    logits = span_logits(Encoder(of))
    return functools.partial(jax.jit(lambda params, batch: logits(params, batch)), params)


def place(batches: Any) -> Any:
    """On the device before the clock runs: the loop's threads do this beside the step."""
    return jax.device_put(batches)
