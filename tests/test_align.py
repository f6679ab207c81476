# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Token, word, sentence and structure losses against golden numbers, as published and as fixed."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlkd.losses import align
from xlkd.losses.terms import Term, mean, total

pytestmark = pytest.mark.usefixtures("float64")

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "losses_align.json").read_text())
WORD, HEADS = GOLDEN["word"], GOLDEN["heads"]


def assert_close(a, b, atol=1e-6):
    np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), atol=atol, rtol=0)


# --- words


def load_word_inputs(order=(0, 1, 2, 3)):
    inputs = WORD["inputs"]
    sentences = [inputs["sentences"][i] for i in order]
    first_t, exists = pad_lists([find_first_tokens(s["teacher_word_of_token"]) for s in sentences])
    first_s, _ = pad_lists([find_first_tokens(s["student_word_of_token"]) for s in sentences])
    masked = np.zeros((len(order), 8), bool)
    for row, s in enumerate(sentences):
        masked[row, : len(s["student_token_masked"])] = s["student_token_masked"]
    vectors = [jnp.array(inputs[f"{who}_vectors"])[jnp.array(order)] for who in ("teacher", "student")]
    return *vectors, *map(jnp.array, (first_t, first_s, exists, masked))


def find_first_tokens(word_of_token):
    return [word_of_token.index(word) for word in range(max(word_of_token) + 1)]


def pad_lists(lists):
    width = max(map(len, lists)) + 1
    values, mask = np.zeros((len(lists), width), int), np.zeros((len(lists), width), bool)
    for row, items in enumerate(lists):
        values[row, : len(items)], mask[row, : len(items)] = items, True
    return values, mask


def compute_word_loss(student=None, order=(0, 1, 2, 3), index="token", sum="fixed", masked=None, **options):
    teacher, own, first_t, first_s, exists, flags = load_word_inputs(order)
    scored = align.select_scored_words(flags if masked is None else masked, first_s, exists, index)
    student = own if student is None else student
    rows = align.word_losses(
        align.gather_words(teacher, first_t), align.gather_words(student, first_s), exists, scored, **options
    )
    return align.word_term(*rows, sum=sum), rows


@pytest.mark.parametrize("case", WORD["cases"], ids=lambda case: case["name"])
def test_golden_words_with_every_switch(case):
    for switches, golden in case["by_switch"].items():
        index, sum_ = (part.split("=")[1] for part in switches.split(","))
        term, (values, counted) = compute_word_loss(order=case["sentence_order"], index=index, sum=sum_)
        assert_close(mean(term), golden["loss"])
        assert term.count == golden["sentences_counted"]
        assert counted.tolist() == [value is not None for value in golden["per_sentence"]]
        assert_close(values, [value or 0 for value in golden["per_sentence"]])
    assert_close(mean(compute_word_loss(order=case["sentence_order"])[0]), case["fixed"])
    published = compute_word_loss(order=case["sentence_order"], index="word", sum="published")[0]
    assert_close(mean(published), case["published"])


@pytest.mark.parametrize("case", WORD["cases"], ids=lambda case: case["name"])
def test_golden_word_gradients(case):
    gradient = jax.grad(lambda s: mean(compute_word_loss(s)[0]))(load_word_inputs()[1])
    assert_close(gradient, case["fixed_gradient_student_vectors"])
    order = case["sentence_order"]
    gradient = jax.grad(lambda s: mean(compute_word_loss(s, order, "word", "published")[0]))(load_word_inputs(order)[1])
    assert_close(gradient, case["published_gradient_student_vectors_in_batch_order"])


@pytest.mark.parametrize("golden", WORD["options_on_plain_fixed"])
def test_golden_word_options(golden):
    similarity = "cosine" if golden["cosine"] else "dot"
    term, _ = compute_word_loss(anchor=golden["anchor"], temperature=golden["tau"], similarity=similarity)
    assert_close(mean(term), golden["loss"])


def test_without_masked_words_the_term_is_absent():
    for sum_ in ("fixed", "published"):
        term, _ = compute_word_loss(sum=sum_, masked=jnp.zeros((4, 8), bool))
        assert (term.sum, term.count) == (0, 0)
        assert total({"word": term}) == 0
    gradient = jax.grad(lambda s: total({"w": compute_word_loss(s, masked=jnp.zeros((4, 8), bool))[0]}))(
        load_word_inputs()[1]
    )
    assert not gradient.any()


def test_no_gradient_to_the_teachers_words():
    teacher, student, first_t, first_s, exists, flags = load_word_inputs()
    scored = align.select_scored_words(flags, first_s, exists, "token")

    def loss(t):
        return align.word_losses(align.gather_words(t, first_t), align.gather_words(student, first_s), exists, scored)[
            0
        ].sum()

    assert not jax.grad(loss)(teacher).any()


def test_words_past_the_end_do_not_matter():
    teacher, student, first_t, first_s, exists, flags = load_word_inputs()
    scored = align.select_scored_words(flags, first_s, exists, "token")
    other = jnp.where(exists, first_s, 7)
    a, b = (
        align.word_losses(align.gather_words(teacher, first_t), align.gather_words(student, f), exists, scored)[0]
        for f in (first_s, other)
    )
    assert (a == b).all()


def test_a_zero_vector_has_a_finite_cosine_gradient():
    zero = jnp.zeros((1, 3, 4))
    exists = scored = jnp.ones((1, 3), bool)
    gradient = jax.grad(lambda s: align.word_losses(zero, s, exists, scored, similarity="cosine")[0].sum())(zero)
    assert jnp.isfinite(gradient).all()


# --- sentences and structure

SENTENCE, STRUCTURE = GOLDEN["sentence"], GOLDEN["structure"]
with jax.enable_x64(True):
    STUDENT, TEACHER = (jnp.array(SENTENCE["inputs"][who]) for who in ("student", "teacher"))
ROWS = jnp.ones(4, bool)


def test_golden_sentence():
    assert_close(mean(align.sentence_term(STUDENT, TEACHER, ROWS)), SENTENCE["loss"])
    for row, value in enumerate(SENTENCE["per_row"]):
        assert_close(align.sentence_term(STUDENT, TEACHER, jnp.arange(4) == row).sum, value)
    gradient = jax.grad(lambda s: mean(align.sentence_term(s, TEACHER, ROWS)))(STUDENT)
    assert_close(gradient, SENTENCE["gradient_student"])
    to_teacher = jax.grad(lambda t, trained: mean(align.sentence_term(STUDENT, t, ROWS, trained=trained)))
    assert not to_teacher(TEACHER, False).any()
    assert to_teacher(TEACHER, True).any()


def test_golden_structure():
    term = align.structure_term(STUDENT, TEACHER, ROWS, weight=10.0)
    assert_close(mean(term), STRUCTURE["published"])
    assert_close(total({"structure": term}), STRUCTURE["times_10"])
    gradient = jax.grad(lambda s: mean(align.structure_term(s, TEACHER, ROWS)))(STUDENT)
    assert_close(gradient, STRUCTURE["gradient_student"])
    assert not jax.grad(lambda t: mean(align.structure_term(STUDENT, t, ROWS)))(TEACHER).any()


@pytest.mark.parametrize("golden", STRUCTURE["options"])
def test_golden_structure_options(golden):
    options = {
        "temperature": golden["tau"],
        "diagonal": golden["diag"],
        "direction": {"teacher_student": "forward", "student_teacher": "reverse"}[golden["direction"]],
    }
    value, gradient = jax.value_and_grad(lambda s: mean(align.structure_term(s, TEACHER, ROWS, **options)))(STUDENT)
    assert_close(value, golden["loss"])
    assert_close(gradient, golden["gradient_student"])


@pytest.mark.parametrize("group", [0, 2])
def test_padded_rows_add_no_columns_to_the_structure(group):
    rows = jnp.array([1, 0, 1, 1, 0, 1], bool)
    student = jnp.full((6, 6), 3.0).at[rows].set(STUDENT)
    teacher = jnp.full((6, 6), -2.0).at[rows].set(TEACHER)
    plain = align.structure_term(STUDENT, TEACHER, ROWS, group=group)
    assert_close(align.structure_term(student, teacher, rows, group=group), plain, atol=1e-12)


def test_a_group_of_one_row_without_its_diagonal_is_not_counted():
    term = align.structure_term(STUDENT, TEACHER, ROWS, group=3, diagonal=False)
    assert term.count == 3
    assert jnp.isfinite(term.sum)


# --- heads: the projectors and the predictor of one view, computed by hand


def apply_batch_norm(x, rows, part=None, group=0):
    scale = {} if part is None else {"scale": jnp.array(part["g1"]), "bias": jnp.array(part["b1"])}
    start = align.Statistics(jnp.zeros(x.shape[1]), jnp.ones(x.shape[1]))
    return align.batch_norm(x, rows, start, group=group, **scale)[0]


def project(part, x, rows, group=0):
    hidden = jax.nn.relu(apply_batch_norm(x @ np.array(part["w1"]).T, rows, part, group=group))
    return apply_batch_norm(hidden @ np.array(part["w2"]).T, rows, group=group)


def predict(part, x, rows, group=0):
    return jax.nn.relu(apply_batch_norm(x @ np.array(part["w1"]).T, rows, part, group=group)) @ np.array(part["w2"]).T


def compute_outputs(student, teacher, rows, group=0):
    inputs = HEADS["inputs"]
    out = {}
    for view in ("sentence", "structure"):
        heads = inputs["student_heads"][view]
        q = predict(heads["predictor"], project(heads["projector"], student, rows, group), rows, group)
        out[view] = q, project(inputs["teacher_projectors"][view], teacher, rows, group)
    return out


@functools.partial(jax.jit, static_argnames=("bn_group", "structure_group"))
def compute_losses(student, teacher, rows, *, bn_group=0, structure_group=0):
    out = compute_outputs(student, teacher, rows, bn_group)
    sentence = mean(align.sentence_term(*out["sentence"], rows))
    return sentence, mean(align.structure_term(*out["structure"], rows, group=structure_group))


def load_cls_vectors(rows):
    return [jnp.array(HEADS["inputs"][f"{who}_cls"])[jnp.array(rows)] for who in ("student", "teacher")]


@pytest.mark.parametrize("name", ["one_device_rows_0_to_3", "global_batch_8"])
def test_golden_heads(name):
    golden = HEADS[name]
    student, teacher = load_cls_vectors(golden["rows"])
    rows = jnp.ones(len(student), bool)

    def loss(s, t):
        sentence, structure = compute_losses(s, t, rows)
        return sentence + 10 * structure, (sentence, structure, compute_outputs(s, t, rows))

    loss_and_gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (value, (sentence, structure, out)), (to_student, to_teacher) = loss_and_gradients(student, teacher)
    for view, (q, k) in out.items():
        assert_close(q, golden[f"student_{view}_out"], atol=2e-6)
        assert_close(k, golden[f"teacher_{view}_out"], atol=2e-6)
    assert_close([sentence, structure], [golden["sentence_loss"], golden["structure_loss"]])
    assert_close(value, golden["sentence_plus_10_structure"])
    assert_close(to_student, golden["gradient_student_cls"])
    assert not to_teacher.any()


def test_golden_groups_of_four():
    rows = jnp.ones(8, bool)
    golden = HEADS["two_devices_of_4"]
    by_group = compute_losses(*load_cls_vectors(range(8)), rows, bn_group=4, structure_group=4)
    assert_close(by_group, [golden["sentence_loss"], golden["structure_loss"]])
    global_statistics = compute_losses(*load_cls_vectors(range(8)), rows, bn_group=0, structure_group=4)
    assert_close(global_statistics[1], HEADS["global_statistics_structure_per_device_2x4"]["structure_loss"])


@pytest.mark.parametrize("group", [0, 4])
def test_padded_rows_do_not_change_the_heads(group):
    rows = np.array([1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0], bool)
    student, teacher = np.full((11, 6), 30.0), np.full((11, 6), -7.0)
    student[rows], teacher[rows] = load_cls_vectors(range(8))
    with_padding = compute_losses(student, teacher, rows, bn_group=group, structure_group=group)
    assert_close(
        with_padding,
        compute_losses(*load_cls_vectors(range(8)), jnp.ones(8, bool), bn_group=group, structure_group=group),
        atol=1e-12,
    )


@pytest.mark.parametrize("name", ["one_device_rows_0_to_3", "global_batch_8"])
def test_golden_running_statistics(name):
    golden = HEADS[name]["running_after_one_step"]
    x = (
        load_cls_vectors(HEADS[name]["rows"])[0]
        @ np.array(HEADS["inputs"]["student_heads"]["sentence"]["projector"]["w1"]).T
    )
    start = align.Statistics(jnp.zeros(5), jnp.ones(5))
    _, new = align.batch_norm(x, jnp.ones(len(x), bool), start)
    assert_close(new.mean, golden["projector_sentence_bn1_mean"])
    assert_close(new.variance, golden["projector_sentence_bn1_var_pytorch"])


def test_running_statistics_move_by_a_tenth_and_take_the_mean_of_the_groups():
    x, rows = jnp.array([[1.0], [3.0], [99.0], [10.0], [14.0]]), jnp.array([1, 1, 0, 1, 1], bool)
    start = align.Statistics(jnp.array([100.0]), jnp.array([50.0]))
    y, new = align.batch_norm(x, rows, start, group=2, scale=3.0, bias=1.0)
    assert_close(y[rows, 0], [-2, 4, -2, 4], atol=1e-4)  # −1 and 1 in each group, except for epsilon
    assert_close([*new.mean, *new.variance], [90 + 0.1 * (2 + 12) / 2, 45 + 0.1 * (2 + 8) / 2])
    single_row = align.batch_norm(x, jnp.array([1, 0, 0, 0, 0], bool), start)[1]
    assert_close([*single_row.mean, *single_row.variance], [90.1, 45])
    to_x = jax.grad(lambda x: align.batch_norm(x, rows, start)[1].mean.sum())(x)
    assert not to_x.any()


# --- the sum of all terms


@pytest.mark.parametrize("name", ["example", "example_published"])
def test_golden_total(name):
    golden, weights = GOLDEN["total"][name], GOLDEN["total"]["weights"]
    terms = {k: Term(jnp.array(golden[k] * 3), jnp.array(3), w) for k, w in weights.items()}
    assert_close(total(terms), golden["total"])
