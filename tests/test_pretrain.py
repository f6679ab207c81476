# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Pre-training by masked tokens: what its step costs. Its numbers are in test_golden_steps.py, its runs in test_loop.py."""

import mblm_toys
import pytest
import stages

from xlkd.methods import pretrain
from xlkd.models import encoder as encoders


def test_the_head_costs_two_products_for_each_masked_token():
    spec = stages.resolve(stages.read_stage("configs/pretrain.py"))
    architecture = mblm_toys.make_architecture()
    method = pretrain.build(spec, encoders.Encoder(architecture))
    masked, hidden, vocabulary = 1000 * spec.task.share, 16, 40
    products = 2 * masked * (hidden * hidden + hidden * vocabulary)
    assert method.flops(1000, 10) - encoders.forward_flops(architecture, 1000, 10) == pytest.approx(products)
