# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Supervised question answering and classification: their losses, and outputs for the decoder."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stages import make_spec

from xlkd import settings
from xlkd.errors import UserError
from xlkd.losses.span import Span
from xlkd.methods import Start, Variables, finetune
from xlkd.models import encoder as encoders
from xlkd.models.family import Architecture
from xlkd.models.outputs import best_spans
from xlkd.spec.tasks import Classify, QuestionAnswering

TASK = QuestionAnswering(n_best=4, max_answer_tokens=3)


def make_batch(mask, context):
    return {"text": {"mask": jnp.array(mask, jnp.int32)}, "context_mask": jnp.array(context, bool)}


def decode_answers(start, end, mask, context, **changes):
    logits = Span(jnp.array(start, jnp.float32), jnp.array(end, jnp.float32))
    task = dataclasses.replace(TASK, **changes)
    return jax.tree.map(np.asarray, best_spans(*logits, make_batch(mask, context), task))


def test_ties_are_ordered_by_position():
    outputs = decode_answers([[1, 3, 2, 3, 3, 0]], [[5, 5, 5, 5, 5, 5]], [[1] * 6], [[0, 1, 1, 1, 1, 1]])
    assert outputs["start_index"].tolist() == [[1, 3, 4, 2]]
    assert outputs["start_scores"].tolist() == [[3, 3, 3, 2]]
    assert outputs["end_index"].tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize(("candidates", "expected"), [("all", [0, 1, 3, 2]), ("context", [3, 2, 4])])
def test_candidates_are_all_valid_positions_or_the_context_only(candidates, expected):
    """Padding is never a candidate; the question is one unless candidates are limited to the context."""
    outputs = decode_answers(
        [[9, 8, 1, 2, 0, 50]], [[0] * 6], [[1] * 5 + [0]], [[0, 0, 1, 1, 1, 0]], candidates=candidates
    )
    finite = np.isfinite(outputs["start_scores"][0])
    assert outputs["start_index"][0][finite].tolist() == expected
    assert finite.sum() == len(expected)


def test_a_window_shorter_than_k_is_padded_to_k():
    outputs = decode_answers([[1, 2]], [[4, 3]], [[1, 1]], [[0, 1]])
    assert outputs["null_scores"].tolist() == [[1, 4]]
    assert {name: value.shape for name, value in outputs.items() if name.startswith(("start", "end"))} == dict.fromkeys(
        ("start_scores", "start_index", "end_scores", "end_index"), (1, 4)
    )
    assert outputs["start_scores"].tolist() == [[2, 1, -np.inf, -np.inf]]
    assert outputs["start_index"].tolist() == [[1, 0, 0, 0]]
    assert (outputs["best_start"], outputs["best_end"], outputs["best_score"]) == (1, 1, 5)


def search_exhaustively(start, end, context, longest):
    """Returns the best span of the context by trying all; ties go to the first start, then to the shortest."""
    best = (-np.inf, 0, 0)
    for i in np.flatnonzero(context):
        for j in range(i, min(i + longest, len(context))):
            if context[j] and start[i] + end[j] > best[0]:
                best = (start[i] + end[j], i, j)
    return best


@pytest.mark.parametrize("longest", [1, 3, 30])
@pytest.mark.parametrize("values", ["normal", "ties"])
def test_the_best_span_equals_exhaustive_search(longest, values):
    random = np.random.default_rng(0)
    shape = (40, 12)
    draw = random.normal if values == "normal" else lambda size: random.integers(0, 3, size)
    start, end = (np.asarray(draw(size=shape), np.float32) for _ in range(2))
    context = np.zeros(shape, bool)
    for row in context:
        low = random.integers(1, 8)
        row[low : random.integers(low, 13)] = True  # some are empty
    assert (~context).all(1).any()
    outputs = decode_answers(start, end, np.ones(shape), context, max_answer_tokens=longest)
    for r in range(len(start)):
        score, i, j = search_exhaustively(start[r], end[r], context[r], longest)
        assert outputs["best_score"][r] == np.float32(score)
        if np.isfinite(score):
            assert (outputs["best_start"][r], outputs["best_end"][r]) == (i, j)


def test_exact_hits_are_windows_with_the_right_start_and_end():
    one_hot = np.eye(5, dtype=np.float32)
    logits = Span(one_hot[[1, 2, 3, 4]] * 5, one_hot[[2, 2, 4, 4]] * 5)
    gold = Span(np.array([1, 2, 3, 4]), np.array([2, 3, 4, 4]))
    batch = make_batch(np.ones((4, 5)), np.ones((4, 5))) | {"mask": np.array([1, 1, 1, 0], np.float32)}
    logits, gold, batch = jax.tree.map(jnp.asarray, (logits, gold, batch))
    term = finetune.count_exact(logits, gold, batch)
    assert (float(term.sum), float(term.count), term.weight) == (2, 3, 0)


@pytest.fixture(scope="module")
def method():
    architecture = Architecture("bert", 30, 8, 1, 2, 16, positions=16, types=2, pad_id=0, position_offset=0)
    built = finetune.build(make_spec(TASK), encoders.Encoder(architecture))
    start = Start(architecture, encoders.init(architecture, jax.random.key(0)), {})
    return built, start, compile_loss(built)


def compile_loss(method):
    compiled = jax.jit(lambda variables, batch, key: method.loss(variables, batch, (), key, 0))
    return lambda variables, batch, seed=1: compiled(variables, batch, jax.random.key(seed))


def make_rows(n=3, length=10):
    random = np.random.default_rng(1)
    mask = (np.arange(length) < random.integers(5, length + 1, n)[:, None]).astype(np.int32)
    text = {"ids": random.integers(1, 30, (n, length)), "mask": mask, "types": np.zeros((n, length), np.int32)}
    return {"text": text, "context_mask": mask > 0, "start": np.array([1, 2, 3]), "end": np.array([2, 4, 4]),
            "mask": np.ones(n, np.float32)}  # fmt: skip


def test_a_given_head_is_used_and_a_missing_one_is_initialized(method):
    built, start, _ = method
    fresh = built.init(jax.random.key(3), start).params["span"]
    assert float(jnp.abs(fresh["output"]["kernel"]).max()) > 0
    given_head = jax.tree.map(lambda x: x + 7, fresh)
    used = built.init(jax.random.key(4), start._replace(heads={"span": given_head})).params["span"]
    jax.tree.map(np.testing.assert_array_equal, used, given_head)
    exported = built.exports(Variables({"encoder": start.encoder, "span": given_head}))
    assert list(exported) == [""]
    assert exported[""].heads["span"] is given_head


def test_the_loss_averages_start_and_end_and_ignores_padded_rows(method):
    built, start, loss = method
    variables = built.init(jax.random.key(3), start)
    all_rows = loss(variables, make_rows())
    batch = make_rows()
    batch["mask"] = np.array([1, 0, 1], np.float32)
    batch["text"]["ids"][1] = 29
    without_second = loss(variables, batch)
    assert (float(all_rows.terms["ce"].count), float(without_second.terms["ce"].count)) == (3, 2)
    only_second = make_rows()
    only_second["mask"] = np.array([0, 1, 0], np.float32)
    # Dropout has one mask for the batch, so a row has the same dropout in all three.
    np.testing.assert_allclose(
        all_rows.terms["ce"].sum,
        without_second.terms["ce"].sum + loss(variables, only_second).terms["ce"].sum,
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        all_rows.terms["ce"].sum / 3, np.log(make_rows()["text"]["mask"].sum(1)).mean(), rtol=0.05
    )
    assert float(without_second.metrics["exact"].count) == 2
    assert loss(variables, make_rows(), seed=2).terms["ce"].sum != all_rows.terms["ce"].sum, (
        "another key, other dropout"
    )


def make_classifier(labels=("yes", "no", "perhaps")):
    architecture = Architecture("bert", 30, 8, 1, 2, 16, positions=16, types=2, pad_id=0, position_offset=0)
    built = finetune.build(make_spec(Classify(labels=labels)), encoders.Encoder(architecture))
    start = Start(architecture, encoders.init(architecture, jax.random.key(0)), {})
    return built, built.init(jax.random.key(1), start)


def make_labelled_batch(labelled):
    ids = np.random.default_rng(0).integers(1, 30, (3, 6)).astype(np.int32)
    text = {"ids": ids, "mask": np.ones_like(ids), "types": np.zeros_like(ids)}
    labels = np.array([0, 2, 1], np.int32)
    return {"text": text, "labels": labels, "labelled": np.float32(labelled), "mask": np.ones(3, np.float32)}


def test_a_row_without_a_label_has_no_loss():
    method, variables = make_classifier()
    batch = make_labelled_batch([1, 0, 1])
    other = {**batch, "labels": np.array([0, 1, 1], np.int32)}  # differs only in the unlabelled row
    loss = compile_loss(method)
    terms = [loss(variables, b, seed).terms["ce"] for b, seed in ((batch, 1), (other, 1), (batch, 2))]
    assert terms[0].count == 2
    assert terms[0].sum == terms[1].sum
    assert terms[0].sum != terms[2].sum, "another key, other dropout"


def test_accuracy_is_counted_for_labelled_rows_without_weight_in_the_loss():
    method, variables = make_classifier()
    kernel, bias = (variables.params["classifier"]["output"][name] for name in ("kernel", "bias"))
    always_third = {
        **variables.params["classifier"],
        "output": {"kernel": kernel, "bias": bias + jnp.array([0.0, 0.0, 99.0])},
    }
    always_third = Variables({**variables.params, "classifier": always_third})
    loss = compile_loss(method)
    for labelled, right in (([1, 1, 1], 1), ([1, 0, 1], 0)):  # labels are 0, 2, 1, and the prediction is always 2
        term = loss(always_third, make_labelled_batch(labelled)).metrics["accuracy"]
        assert (term.sum, term.count, term.weight) == (right, sum(labelled), 0)


def test_a_task_without_a_head_is_refused():
    values = settings.replace_values(settings.read_config("configs/finetune.py"), task__name="masked")
    with pytest.raises(UserError, match=r"finetune cannot train the task masked; choose one of qa, classify"):
        settings.read_stages(values)


def test_a_classifier_exports_its_labels_and_computes_a_logit_for_each():
    method, variables = make_classifier()
    assert jax.jit(method.outputs["classify"])(variables, make_labelled_batch([1, 1, 1]))["logits"].shape == (3, 3)
    assert method.exports(variables)[""].labels == ("yes", "no", "perhaps")


def test_a_head_with_other_labels_is_initialized_again():
    method, variables = make_classifier()
    heads = {"classifier": variables.params["classifier"]}
    architecture = Architecture("bert", 30, 8, 1, 2, 16, positions=16, types=2, pad_id=0, position_offset=0)
    encoder = variables.params["encoder"]
    with_same_labels = method.init(jax.random.key(5), Start(architecture, encoder, heads, ("yes", "no", "perhaps")))
    with_other_labels = method.init(jax.random.key(5), Start(architecture, encoder, heads, ("no", "yes", "perhaps")))
    same = [
        np.array_equal(v.params["classifier"]["dense"]["kernel"], heads["classifier"]["dense"]["kernel"])
        for v in (with_same_labels, with_other_labels)
    ]
    assert same == [True, False]
