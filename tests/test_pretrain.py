# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Pre-training by masked tokens: what its step costs. Its numbers are in test_golden_steps.py, its runs in test_loop.py."""

import jax
import mblm_toys
import numpy as np
import pytest
import stages

from xlkd.methods import Start, pretrain
from xlkd.models import encoder as encoders


def test_the_head_costs_two_products_for_each_masked_token():
    spec = stages.resolve(stages.read_stage("configs/pretrain.py"))
    architecture = mblm_toys.make_architecture()
    method = pretrain.build(spec, encoders.Encoder(architecture))
    masked, hidden, vocabulary = 1000 * spec.task.share, 16, 40
    products = 2 * masked * (hidden * hidden + hidden * vocabulary)
    assert method.flops(1000, 10) - encoders.forward_flops(architecture, 1000, 10) == pytest.approx(products)


def test_a_new_head_is_trained_without_the_encoder():
    spec = stages.resolve(stages.read_stage("configs/pretrain.py", "", "method.trains=head"))
    architecture = mblm_toys.make_architecture()
    method = pretrain.build(spec, encoders.Encoder(architecture))
    encoder = encoders.init(architecture, jax.random.key(0))
    variables = method.init(jax.random.key(1), Start(architecture, encoder, {}))
    assert set(variables.params) == {"masked_lm"}, "nothing else has a gradient, decay or moments"
    everything = pretrain.build(stages.resolve(stages.read_stage("configs/pretrain.py")), encoders.Encoder(architecture))
    whole = everything.init(jax.random.key(1), Start(architecture, encoder, {}))
    for export, expected in zip((method, everything), (variables, whole), strict=True):
        exported = export.exports(expected)[""]
        jax.tree.map(np.testing.assert_array_equal, exported.encoder, encoder)
        assert set(exported.heads) == {"masked_lm"}
