# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The loss of masked tokens against golden numbers, by what is counted."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from xlkd.losses.masked_lm import masked_lm_term
from xlkd.losses.terms import mean, total

pytestmark = pytest.mark.usefixtures("float64")

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "losses_align.json").read_text())["token"]


def test_golden_tokens():
    logits, ids, attended, masked = (
        jnp.array(GOLDEN["inputs"][k]) for k in ("logits", "original_ids", "attention_mask", "masked")
    )
    counted = {"all (published)": jnp.ones_like(attended), "attended": attended, "masked (fixed)": masked}
    for key, positions in counted.items():
        loss = mean(masked_lm_term(logits, ids, positions))
        np.testing.assert_allclose(loss, GOLDEN[f"labels={key}"], atol=1e-6, rtol=0)
    assert total({"token": masked_lm_term(logits, ids, masked * 0)}) == 0
