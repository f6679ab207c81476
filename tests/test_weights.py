# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The weights that a stage starts from, where they are the mean of several models."""

import shutil

import jax
import numpy as np
import pytest
import toy_models
from stages import make_spec

from xlkd.errors import UserError
from xlkd.inputs.weights import resolve_weights
from xlkd.models import hf
from xlkd.spec.stage import Data

DATA = Data(train="atlas?split=train&size=6&languages=en&facts=2")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return [toy_models.save_span_model(tmp_path_factory.mktemp("toy"), seed=seed) for seed in range(3)]


def resolve(folders):
    start = "+".join(map(str, folders))
    return resolve_weights(make_spec(start=start, data=DATA), {}, folders[0] / "none")


def test_a_start_of_three_models_is_their_mean(models):
    start = resolve(models).load(0)
    params = [hf.load(folder).params for folder in models]
    for part, mean in {"encoder": start.encoder, "span": start.heads["span"]}.items():
        expected = jax.tree.map(lambda *x: np.mean(x, axis=0, dtype=np.float64), *(tree[part] for tree in params))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), mean, expected)


def test_models_that_differ_in_more_than_their_weights_are_not_averaged(models, tmp_path):
    other = shutil.copytree(models[1], tmp_path / "other")
    config = (other / "config.json").read_text()
    (other / "config.json").write_text(config.replace('"layer_norm_eps": 1e-12', '"layer_norm_eps": 1e-05'))
    with pytest.raises(UserError, match=r"cannot be averaged with .+: other architecture"):
        resolve([models[0], other])
    with pytest.raises(UserError, match="no stage 'absent' before this one"):
        resolve([models[0], "absent"])


def test_a_folder_with_a_plus_in_its_name_is_one_model(models, tmp_path):
    folder = shutil.copytree(models[0], tmp_path / "a+b")
    assert resolve([folder]).folders == (folder,)
