# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Settings of the optimizer, and of how long a stage trains."""

from __future__ import annotations

import dataclasses
from typing import Literal

from xlkd.spec import setting

MOST_STEPS = 10_000_000  # of a stage


@dataclasses.dataclass(frozen=True)
class Optim:
    """AdamW and its schedule."""

    lr: float = setting(5e-5, "Learning rate after the warm-up.", at_least=1e-12, at_most=10, also=(0,))
    schedule: Literal["constant", "linear", "cosine"] = setting(
        "linear", "Shape of the learning rate after the warm-up."
    )
    warmup: float = setting(
        0.1, "Warm-up as a share of the steps, or in steps where 1 or more.", at_least=0, at_most=MOST_STEPS
    )
    b1: float = setting(0.9, "Adam's decay rate of the first moment.", at_least=0, at_most=0.999999)
    b2: float = setting(0.999, "Adam's decay rate of the second moment.", at_least=0, at_most=0.9999999)
    eps: float = setting(1e-8, "Adam's epsilon.", at_least=1e-30, at_most=1)
    weight_decay: float = setting(0.01, "Decoupled weight decay.", at_least=0, at_most=100)
    decay_mask: Literal["matrices", "all"] = setting("matrices", "Parameters that decay.")
    clip: float = setting(
        1.0, "Global gradient norm to clip to; 0 does not clip.", at_least=1e-6, at_most=1e6, also=(0,)
    )
    micro_batches: int = setting(
        1, "Parts that a step is computed in; the result is the same.", at_least=1, at_most=65_536
    )


@dataclasses.dataclass(frozen=True)
class Budget:
    """Length of a stage's training."""

    epochs: float = setting(1.0, "Passes over the training examples.", at_least=0, at_most=100_000)
    steps: int = setting(0, "Optimizer steps, instead of epochs; 0 goes by epochs.", at_least=0, at_most=MOST_STEPS)
    stop_after: int = setting(
        0, "Epochs after which training stops, before the end of its schedule; 0: none.", at_least=0, at_most=100_000
    )


@dataclasses.dataclass(frozen=True)
class Horizon:
    """The steps of a stage, known once its data is read, and the steps at which its epochs begin."""

    steps: int
    steps_per_epoch: int
    epoch_starts: tuple[int, ...]
    whole: int = 0  # steps of the whole schedule, where training stops before its end

    @property
    def schedule_steps(self) -> int:
        """Returns the steps by which schedules are measured."""
        return self.whole or self.steps

    def stop_after(self, epochs: int) -> Horizon:
        """Returns the steps of the first epochs, on the same schedule."""
        if not 0 < epochs < len(self.epoch_starts) or self.epoch_starts[epochs] >= self.steps:
            return self
        return dataclasses.replace(self, steps=self.epoch_starts[epochs], whole=self.schedule_steps)
