# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Dropout bits are uniform, the same under any sharding, and independent of other positions, layers and steps."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlkd.models.dropout import dropout, random_bits

KEY, SHAPE = jax.random.key(0), (32, 64, 512)  # a million values


def draw_bits(key=KEY, *place, shape=SHAPE):
    return np.asarray(random_bits(key, shape, *place))


def compute_correlation(a, b) -> float:
    """Returns the correlation of two dropout masks at rate 0.1, in standard deviations of independent masks."""
    a, b = (np.asarray(x).ravel() >= 0.1 * 2**32 for x in (a, b))
    return float(np.corrcoef(a, b)[0, 1] * np.sqrt(a.size))


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3, 0.9])
def test_dropout_has_the_given_rate_and_keeps_the_mean(rate):
    x = np.asarray(dropout(jnp.ones(SHAPE), rate, KEY))
    assert abs((x == 0).mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / x.size)
    np.testing.assert_allclose(x[x > 0], 1 / (1 - rate), rtol=1e-6)


def test_without_a_key_or_a_rate_nothing_changes():
    x = jnp.arange(6.0).reshape(2, 3)
    assert dropout(x, 0.5, None) is x
    assert dropout(x, 0.0, KEY) is x


def test_a_rate_of_almost_one_does_not_overflow():
    assert np.asarray(dropout(jnp.ones((4, 1000)), 1 - 1e-12, KEY)).any() == 0


@pytest.mark.parametrize("shift", [0, 8, 16, 24])
def test_every_byte_is_uniform(shift):
    counts = np.bincount((draw_bits().ravel() >> shift) & 255, minlength=256)
    expected = counts.sum() / 256
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert 255 - 5 * np.sqrt(510) < chi_squared < 255 + 5 * np.sqrt(510)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("distance", [1, 2, 3, 16])
def test_neighbouring_positions_are_independent(axis, distance):
    x = draw_bits()
    ahead, behind = (
        np.take(x, range(*bounds), axis) for bounds in ((distance, x.shape[axis]), (0, x.shape[axis] - distance))
    )
    assert abs(compute_correlation(ahead, behind)) < 5


def test_triples_of_neighbours_are_independent():
    mask = draw_bits().reshape(-1, 512) >= 2**31
    patterns = np.bincount((mask[:, :-2] + 2 * mask[:, 1:-1] + 4 * mask[:, 2:]).ravel(), minlength=8)
    assert np.abs(patterns / patterns.sum() - 1 / 8).max() < 0.002


@pytest.mark.long
def test_steps_layers_and_sites_are_independent():
    steps = [jax.random.fold_in(KEY, step) for step in range(4)]
    streams = [draw_bits(key, site, layer) for key in steps for layer in range(3) for site in (1, 2, 3)]
    worst = max(abs(compute_correlation(a, b)) for i, a in enumerate(streams) for b in streams[:i])
    assert worst < 5  # of 630 pairs
    assert len({stream.tobytes() for stream in streams}) == len(streams)


def test_rows_share_no_part_of_a_random_stream():
    x = draw_bits(shape=(512, 2048))
    assert len(np.unique(x)) > 0.999 * x.size * (1 - x.size / 2**33)  # as many distinct values as expected by chance


def test_the_dropout_rate_of_rows_and_columns_varies_as_by_chance():
    mask = draw_bits(shape=(1024, 1024)) >= 0.1 * 2**32
    for axis in (0, 1):
        deviations = (mask.mean(axis) - 0.9) / np.sqrt(0.09 / 1024)
        assert 0.85 < deviations.std() < 1.15
        assert np.abs(deviations).max() < 5


ON_EIGHT = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from xlkd.models.dropout import dropout

@jax.jit
def drop(x):
    return dropout(x, 0.3, jax.random.key(0), 2, 5)

mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
x = jnp.ones((8, 16, 24))
expected = np.asarray(drop(x))
for spec in (("a", None, None), (None, "a", None), ("a", None, "b"), (None, "b", "a")):
    dropped = drop(jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec))))
    assert not dropped.sharding.is_fully_replicated, spec
    np.testing.assert_array_equal(dropped, expected, err_msg=str(spec))
print("identical on", jax.device_count())
"""


def test_bits_are_the_same_under_any_sharding():
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", ON_EIGHT], env=environment, capture_output=True, text=True, check=False
    )
    assert "identical on 8" in done.stdout, done.stderr


def test_golden_bits():
    """A change here changes every run, also runs that are resumed."""
    assert draw_bits(jax.random.key(7), 1, 5, shape=(2, 3)).tolist() == [
        [1379080731, 3124625571, 1188841219],
        [2156180143, 4196599104, 3447430473],
    ]


def test_the_bits_of_a_row_do_not_depend_on_the_batch_size():
    np.testing.assert_array_equal(draw_bits(shape=(4, 8, 16)), draw_bits(shape=(9, 8, 16))[:4])


def test_a_slice_of_an_array_has_the_bits_of_its_position():
    np.testing.assert_array_equal(
        random_bits(KEY, (4, 3, 16), 2, first=5 * 16), random_bits(KEY, (4, 9, 16), 2)[:, 5:8]
    )


def test_keys_of_other_generators_are_supported():
    assert (draw_bits(jax.random.key(0, impl="rbg")) != draw_bits(jax.random.key(1, impl="rbg"))).mean() > 0.99


def test_the_gradient_has_the_same_mask_as_the_value():
    x = jnp.ones((4, 100))
    gradient = jax.grad(lambda x: dropout(x, 0.4, KEY).sum())(x)
    np.testing.assert_array_equal(gradient, dropout(x, 0.4, KEY))
