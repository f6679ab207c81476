# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Bits of dropout: uniform, alike under any placement, and independent of what stands beside, above and before them."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlkd.models.dropout import dropout, random_bits

KEY, SHAPE = jax.random.key(0), (32, 64, 512)  # a million values


def drawn(key=KEY, *place, shape=SHAPE):
    return np.asarray(random_bits(key, shape, *place))


def correlation(a, b) -> float:
    """Of two masks of dropout at 0.1, in standard deviations of what chance gives."""
    a, b = (np.asarray(x).ravel() >= 0.1 * 2**32 for x in (a, b))
    return float(np.corrcoef(a, b)[0, 1] * np.sqrt(a.size))


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3, 0.9])
def test_the_rate_and_the_mean_are_kept(rate):
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
    counts = np.bincount((drawn().ravel() >> shift) & 255, minlength=256)
    expected = counts.sum() / 256
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert 255 - 5 * np.sqrt(510) < chi_squared < 255 + 5 * np.sqrt(510)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("distance", [1, 2, 3, 16])
def test_neighbouring_positions_are_independent(axis, distance):
    x = drawn()
    ahead, behind = (np.take(x, range(*of), axis) for of in ((distance, x.shape[axis]), (0, x.shape[axis] - distance)))
    assert abs(correlation(ahead, behind)) < 5


def test_triples_of_neighbours_are_independent():
    kept = drawn().reshape(-1, 512) >= 2**31
    patterns = np.bincount((kept[:, :-2] + 2 * kept[:, 1:-1] + 4 * kept[:, 2:]).ravel(), minlength=8)
    assert np.abs(patterns / patterns.sum() - 1 / 8).max() < 0.002


@pytest.mark.long
def test_steps_layers_and_sites_are_independent():
    steps = [jax.random.fold_in(KEY, step) for step in range(4)]
    streams = [drawn(key, site, layer) for key in steps for layer in range(3) for site in (1, 2, 3)]
    worst = max(abs(correlation(a, b)) for i, a in enumerate(streams) for b in streams[:i])
    assert worst < 5  # of 630 pairs
    assert len({stream.tobytes() for stream in streams}) == len(streams)


def test_rows_share_no_stretch_of_a_stream():
    x = drawn(shape=(512, 2048))
    assert len(np.unique(x)) > 0.999 * x.size * (1 - x.size / 2**33)  # as many as chance leaves different


def test_the_share_kept_of_rows_and_columns_scatters_as_chance_does():
    kept = drawn(shape=(1024, 1024)) >= 0.1 * 2**32
    for axis in (0, 1):
        deviations = (kept.mean(axis) - 0.9) / np.sqrt(0.09 / 1024)
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
    found = drop(jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec))))
    assert not found.sharding.is_fully_replicated, spec
    np.testing.assert_array_equal(found, expected, err_msg=str(spec))
print("the same on", jax.device_count())
"""


def test_bits_are_the_same_under_any_sharding():
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", ON_EIGHT], env=environment, capture_output=True, text=True, check=False
    )
    assert "the same on 8" in done.stdout, done.stderr


def test_golden_bits():
    """A change here changes every run, and a run that is gone on with."""
    assert drawn(jax.random.key(7), 1, 5, shape=(2, 3)).tolist() == [
        [1379080731, 3124625571, 1188841219],
        [2156180143, 4196599104, 3447430473],
    ]


def test_a_row_keeps_its_bits_in_a_longer_batch():
    np.testing.assert_array_equal(drawn(shape=(4, 8, 16)), drawn(shape=(9, 8, 16))[:4])


def test_a_stretch_of_an_array_has_the_bits_of_its_place():
    np.testing.assert_array_equal(
        random_bits(KEY, (4, 3, 16), 2, first=5 * 16), random_bits(KEY, (4, 9, 16), 2)[:, 5:8]
    )


def test_keys_of_every_kind_are_read():
    assert (drawn(jax.random.key(0, impl="rbg")) != drawn(jax.random.key(1, impl="rbg"))).mean() > 0.99


def test_the_gradient_passes_where_the_value_does():
    x = jnp.ones((4, 100))
    gradient = jax.grad(lambda x: dropout(x, 0.4, KEY).sum())(x)
    np.testing.assert_array_equal(gradient, dropout(x, 0.4, KEY))
