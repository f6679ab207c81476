# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The parts of a forward and a backward pass, ours and PyTorch's: `python bench/parts.py`.

Shows what decides the ratios of bench/step.py: the matrix products of the two libraries, or what is between them. All
parts are float32 and have the shapes of an encoder 6×384 where their names say nothing else. Common flags:
bench/side_by_side.py.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

import side_by_side
from side_by_side import Case, Sides

from xlkd import cli

if TYPE_CHECKING:  # side_by_side.parse_flags comes before jax
    import jax
    import torch

CALLS = 100  # of a part per round
PRODUCT, GRADIENT, ATTENTION, SOFTMAX, GELU = "x·W", "xᵀ·gradient", "attention", "softmax of scores", "GELU"


class Part(NamedTuple):
    """A function, and the shapes of its operands."""

    function: str
    shapes: tuple[tuple[int, ...], ...]


PARTS = {
    "x·W, 8×128, 384 to 384": Part(PRODUCT, ((1024, 384), (384, 384))),
    "x·W, 8×128, 384 to 1536": Part(PRODUCT, ((1024, 384), (384, 1536))),
    "x·W, 8×128, 1536 to 384": Part(PRODUCT, ((1024, 1536), (1536, 384))),
    "x·W, 4×128, 768 to 3072 (mBERT)": Part(PRODUCT, ((512, 768), (768, 3072))),
    "xᵀ·gradient, 8×128, 384 to 1536": Part(GRADIENT, ((1024, 384), (1024, 1536))),
    "attention, 8×128": Part(ATTENTION, ((8, 128, 12, 32),) * 3),
    "attention, 4×384": Part(ATTENTION, ((4, 384, 12, 32),) * 3),
    "softmax of scores, 8×128": Part(SOFTMAX, ((8, 12, 128, 128),)),
    "softmax of scores, 4×384": Part(SOFTMAX, ((4, 12, 384, 384),)),
    "GELU, 8×128, 1536": Part(GELU, ((1024, 1536),)),
}


def main(arguments: list[str]) -> None:
    flags = side_by_side.parse_flags(arguments)
    cases = [Case(name, lambda part=part: make_sides(part)) for name, part in PARTS.items()]
    side_by_side.judge("ours / PyTorch, parts of a pass", cases, flags)


def make_sides(part: Part) -> Sides:
    """Builds both sides of a part on the same random numbers, and checks that they agree."""
    import jax
    import numpy as np
    import torch

    random = np.random.default_rng(0)
    values = [random.standard_normal(shape, np.float32) for shape in part.shapes]
    arrays, tensors = [jax.device_put(x) for x in values], [torch.from_numpy(x) for x in values]
    compiled = jax.jit(lambda *arrays: compute_ours(part.function, *arrays))
    np.testing.assert_allclose(compiled(*arrays), compute_theirs(part.function, *tensors), rtol=1e-3, atol=1e-3)

    def run_ours() -> None:
        for _ in range(CALLS):
            compiled(*arrays).block_until_ready()

    def run_theirs() -> None:
        with torch.inference_mode():
            for _ in range(CALLS):
                compute_theirs(part.function, *tensors)

    return run_ours, run_theirs


def compute_ours(function: str, *arrays: jax.Array) -> jax.Array:
    """Computes a part as our encoders do."""
    import jax.numpy as jnp

    from xlkd.models import attention, layers, matmul

    if function == PRODUCT:
        return matmul.matmul(*arrays)
    if function == GRADIENT:
        return matmul.transposed_matmul(*arrays)
    if function == ATTENTION:
        rows, length = arrays[0].shape[:2]
        return attention.attend(*arrays, jnp.zeros((rows, 1, 1, length)))
    if function == SOFTMAX:
        import jax

        return jax.nn.softmax(*arrays, axis=-1)
    return layers.ACTIVATIONS["gelu"](*arrays)


def compute_theirs(function: str, *tensors: torch.Tensor) -> torch.Tensor:
    """Computes a part as transformers' encoders do in PyTorch."""
    import torch
    from torch.nn import functional

    if function == PRODUCT:
        return tensors[0] @ tensors[1]
    if function == GRADIENT:
        return tensors[0].mT @ tensors[1]
    if function == ATTENTION:
        mask = torch.zeros(tensors[0].shape[0], 1, 1, tensors[0].shape[1])
        queries, keys, values = (x.transpose(1, 2) for x in tensors)
        return functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask).transpose(1, 2)
    return torch.softmax(*tensors, dim=-1) if function == SOFTMAX else functional.gelu(*tensors)


if __name__ == "__main__":
    sys.exit(cli.run(main))
