# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Stores weights that were rounded to 4 bits before, in 4 bits again, without loss.

Such a matrix has in each block of 32 weights one scale, in float16, times whole numbers from -8 to 7. A matrix that
does not is stored as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

BLOCK, LOW, HIGH = 32, -8, 7
CODES, SCALES = ".codes", ".scales"


def encode(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays of a file: two for each matrix on such a grid, and all others as they are."""
    arrays = {}
    for name, tensor in tensors.items():
        codes_and_scales = _encode_matrix(tensor)
        if codes_and_scales is None:
            arrays[name] = tensor
        else:
            arrays[name + CODES], arrays[name + SCALES] = codes_and_scales
    return arrays


def decode(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the tensors of such a file."""
    tensors = {}
    for name, array in arrays.items():
        if name.endswith(CODES):
            name = name.removesuffix(CODES)
            tensors[name] = _decode_matrix(array, arrays[name + SCALES])
        elif not name.endswith(SCALES):
            tensors[name] = array
    return tensors


def _encode_matrix(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns two codes a byte, and the scales; None where a block is on no grid."""
    if matrix.dtype != np.float16 or matrix.ndim != 2 or matrix.shape[1] % BLOCK:
        return None
    blocks = matrix.reshape(-1, BLOCK)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)[:, 0].astype(np.float32)
    scales, codes = np.zeros(len(blocks), np.float16), np.zeros(blocks.shape, np.int8)
    left = np.arange(len(blocks))  # blocks without a scale yet
    for number in (*range(LOW, 0), *range(HIGH, 0, -1)):  # what the largest weight may be a multiple by
        rounded = (largest / number).astype(np.float16)
        for step in (0, -1, 1, -2, 2):  # the weight itself was rounded, so that its scale may be a neighbour
            scale = (rounded[left].view(np.int16) + np.int16(step)).view(np.float16)
            with np.errstate(all="ignore"):
                code = np.rint(blocks[left] / scale[:, None].astype(np.float32))
                code = np.clip(np.nan_to_num(code), LOW, HIGH).astype(np.int8)
                fits = (_multiply(code, scale) == blocks[left]).all(1)
            scales[left[fits]], codes[left[fits]] = scale[fits], code[fits]
            left = left[~fits]
    if len(left):
        return None
    high, low = (codes - LOW).astype(np.uint8).reshape(len(matrix), -1, 2).transpose(2, 0, 1)
    return high << 4 | low, scales.reshape(len(matrix), -1)


def _decode_matrix(pairs: np.ndarray, scales: np.ndarray) -> np.ndarray:
    codes = np.stack([pairs >> 4, pairs & 15], -1).astype(np.int8).reshape(-1, BLOCK) + np.int8(LOW)
    return _multiply(codes, scales.reshape(-1)).reshape(len(pairs), -1)


def _multiply(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    return (codes.astype(np.float32) * scales[:, None].astype(np.float32)).astype(np.float16)
