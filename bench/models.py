# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Our side of a benchmark: encoders of fixed shapes, random batches, and the training step of a run."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from xlkd import settings
from xlkd.inputs.weights import override_dropout
from xlkd.methods import Method, Start, key_for
from xlkd.models import encoder as encoders
from xlkd.models.encoder import Encoder
from xlkd.models.family import Architecture
from xlkd.models.heads import SpanHead, init_head
from xlkd.models.layout import read_architecture
from xlkd.models.outputs import span_logits
from xlkd.spec import stage as spec
from xlkd.spec.optim import Horizon
from xlkd.spec.stage import StageSettings, StageSpec
from xlkd.train import optim, state, step

SHAPES = {  # hidden, layers, heads, feed-forward, vocabulary
    "6x384": (384, 6, 12, 1536, 30522),
    "12x384": (384, 12, 12, 1536, 30522),
    "base": (768, 12, 12, 3072, 119547),  # mBERT's
    "e5": (384, 12, 12, 1536, 250037),  # the size of multilingual-e5-small
    "tiny": (16, 2, 2, 32, 100),
}


FAMILIES = {  # keys of config.json by which the published encoders of a family differ from the defaults
    "bert": {},
    "modernbert": {"local_attention": 128, "global_attn_every_n_layers": 3, "pad_token_id": 0},
    "deberta-v2": {
        "relative_attention": True,
        "position_buckets": 256,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": "p2c|c2p",
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
}


def make_architecture(shape: str, dropout: float = 0.1, vocabulary: int = 0, model_type: str = "bert") -> Architecture:
    """Returns an architecture of a family, with one rate for all dropout; `base/2` has two of the layers of `base`."""
    name, _, fewer = shape.partition("/")
    hidden, layers, heads, inner, words = SHAPES[name]
    config = {
        "model_type": model_type,
        "vocab_size": vocabulary or words,
        "hidden_size": hidden,
        "num_hidden_layers": int(fewer or layers),
        "num_attention_heads": heads,
        "intermediate_size": 3 * inner // 8 if model_type == "modernbert" else inner,  # there, of each of two maps
        "max_position_embeddings": 512,
    }
    return override_dropout(read_architecture(config | FAMILIES[model_type]), spec.Encoder(dropout=dropout))


def make_encoder(architecture: Architecture, dtype: str = "float32") -> Encoder:
    """Returns the encoder as a run has it on these devices: layers are scanned where compiling is slow."""
    return Encoder(architecture, dtype=dtype, scan=encoders.scan_by_device())


def init_span_params(architecture: Architecture) -> dict[str, Any]:
    """Returns random weights of an encoder with a span head."""
    head = init_head(SpanHead(architecture), jax.random.key(1))
    return {"encoder": make_start(architecture).encoder, "span": head}


STEPS = 1000  # of the schedule; the number does not change the time of a step


def read_stage(config: str, name: str, **changes: Any) -> StageSettings[Any, Any]:
    """Reads a stage of a packaged config with changed keys; `data__batch` stands for `data.batch`."""
    flags = [f"--config.{key.replace('__', '.')}={value}" for key, value in changes.items()]
    return settings.read_stage(settings.apply_flags(settings.read_config(f"configs/{config}"), flags), name)


def resolve_stage(
    settings: StageSettings[Any, Any], steps: int = STEPS, steps_per_epoch: int = 0, labels: tuple[str, ...] = ()
) -> StageSpec[Any, Any]:
    """Returns the stage that data with `steps` steps and these labels would resolve to; one epoch starts, at 0."""
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    if labels:
        values["task"] = dataclasses.replace(settings.task, labels=labels)
    return StageSpec(**values, horizon=Horizon(steps, steps_per_epoch, (0,)))


def make_start(architecture: Architecture, seed: int = 0, labels: tuple[str, ...] = ()) -> Start:
    """Returns random weights; their values do not change the time of a step."""
    return Start(architecture, encoders.init(architecture, jax.random.key(seed)), {}, labels)


def make_texts(random: np.random.Generator, rows: int, length: int, words: int) -> dict[str, np.ndarray]:
    """Returns random texts as a view of a batch, without padding."""
    return {
        "ids": random.integers(5, words, (rows, length)).astype(np.int32),
        "mask": np.ones((rows, length), np.int32),
        "types": np.repeat([[0, 1]], [length // 4, length - length // 4], axis=1).repeat(rows, 0).astype(np.int32),
    }


def make_questions(rows: int, length: int, words: int) -> dict[str, Any]:
    """Returns a random batch for question answering, with all rows of one length."""
    random = np.random.default_rng(0)
    begin = random.integers(length // 4, length - 3, rows).astype(np.int32)
    text = make_texts(random, rows, length, words)
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
    """The training step as the loop runs it; a teacher that does not change runs in each step."""

    def __init__(self, method: Method, start: Start, stage: StageSpec[Any, Any]) -> None:
        adam = optim.make_optimizer(stage.optim)
        arrays = (start.encoder, start.heads, start.other)

        def replace_arrays(encoder, heads, other):
            return start._replace(encoder=encoder, heads=heads, other=other)

        self.method = method
        self._prepare = jax.jit(method.prepare) if method.prepare else None
        self.state = jax.jit(lambda *a: state.create_state(method, replace_arrays(*a), adam, stage.seed))(*arrays)
        rate, clip = optim.make_schedule(stage.optim, STEPS), stage.optim.clip
        self._step = jax.jit(step.make_step(method, adam, rate, seed=stage.seed, clip_norm=clip), donate_argnums=0)
        if method.teacher:

            def make_teacher(*a):
                return method.teacher.init(method.init(key_for(0, "init"), replace_arrays(*a)), replace_arrays(*a))

            self.compute_targets = functools.partial(jax.jit(method.teacher.forward), jax.jit(make_teacher)(*arrays))

    def __call__(self, batch: Any, targets: Any = ()) -> dict[str, Any]:
        """Runs one step; with targets of None, those of the teacher."""
        targets = self.compute_targets(batch) if targets is None else targets
        targets = self._prepare(batch, targets) if self._prepare else targets
        new, report = self._step(self.state._replace(teacher=()), batch, targets)
        self.state = new._replace(teacher=self.state.teacher)
        return report

    def compile(self, place: jax.sharding.Sharding, batch: Any, targets: Any = ()) -> list[jax.stages.Compiled]:
        """Compiles the programs of a step for a device, which may be one that is not here; targets as for a call."""

        def place_shapes(tree: Any) -> Any:
            return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)

        calls: list[tuple[Any, tuple[Any, ...]]] = []
        if targets is None:
            calls.append((self.compute_targets.func, (*self.compute_targets.args, batch)))
            targets = jax.eval_shape(self.compute_targets, batch)
        if self._prepare:
            calls.append((self._prepare, (batch, targets)))
            targets = jax.eval_shape(self._prepare, batch, targets)
        calls.append((self._step, (self.state._replace(teacher=()), batch, targets)))
        return [function.lower(*place_shapes(arguments)).compile() for function, arguments in calls]

    def run_steps(self, batches: list[Any], targets: list[Any] | None = None) -> None:
        """Runs a step on each of the batches, and waits for the last."""
        known = targets if targets is not None else [() if self.method.teacher is None else None] * len(batches)
        for batch, target in zip(batches, known, strict=True):
            self(batch, target)
        jax.block_until_ready(self.state.variables.params)


def compile_forward(architecture: Architecture, params: Any, dtype: str = "float32") -> Callable[[Any], Any]:
    """Returns the compiled forward pass of an encoder with a span head, in inference."""
    logits = span_logits(make_encoder(architecture, dtype))
    return functools.partial(jax.jit(lambda params, batch: logits(params, batch)), params)


def put_on_device(batches: Any) -> Any:
    """Puts batches on the device before timing, because the threads of the loop do this during other steps."""
    return jax.device_put(batches)
