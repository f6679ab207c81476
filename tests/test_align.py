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


def close(a, b, atol=1e-6):
    np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), atol=atol, rtol=0)


# --- words


def word_inputs(order=(0, 1, 2, 3)):
    inputs = WORD["inputs"]
    sentences = [inputs["sentences"][i] for i in order]
    first_t, exists = padded([first_pieces(s["teacher_word_of_token"]) for s in sentences])
    first_s, _ = padded([first_pieces(s["student_word_of_token"]) for s in sentences])
    masked = np.zeros((len(order), 8), bool)
    for row, s in enumerate(sentences):
        masked[row, : len(s["student_token_masked"])] = s["student_token_masked"]
    vectors = [jnp.array(inputs[f"{who}_vectors"])[jnp.array(order)] for who in ("teacher", "student")]
    return *vectors, *map(jnp.array, (first_t, first_s, exists, masked))


def first_pieces(word_of_token):
    return [word_of_token.index(word) for word in range(max(word_of_token) + 1)]


def padded(lists):
    width = max(map(len, lists)) + 1
    values, mask = np.zeros((len(lists), width), int), np.zeros((len(lists), width), bool)
    for row, items in enumerate(lists):
        values[row, : len(items)], mask[row, : len(items)] = items, True
    return values, mask


def word_loss(student=None, order=(0, 1, 2, 3), index="token", sum="fixed", masked=None, **options):
    teacher, own, first_t, first_s, exists, flags = word_inputs(order)
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
        term, (values, counted) = word_loss(order=case["sentence_order"], index=index, sum=sum_)
        close(mean(term), golden["loss"])
        assert term.count == golden["sentences_counted"]
        assert counted.tolist() == [value is not None for value in golden["per_sentence"]]
        close(values, [value or 0 for value in golden["per_sentence"]])
    close(mean(word_loss(order=case["sentence_order"])[0]), case["fixed"])
    published = word_loss(order=case["sentence_order"], index="word", sum="published")[0]
    close(mean(published), case["published"])


@pytest.mark.parametrize("case", WORD["cases"], ids=lambda case: case["name"])
def test_golden_word_gradients(case):
    gradient = jax.grad(lambda s: mean(word_loss(s)[0]))(word_inputs()[1])
    close(gradient, case["fixed_gradient_student_vectors"])
    order = case["sentence_order"]
    gradient = jax.grad(lambda s: mean(word_loss(s, order, "word", "published")[0]))(word_inputs(order)[1])
    close(gradient, case["published_gradient_student_vectors_in_batch_order"])


@pytest.mark.parametrize("golden", WORD["options_on_plain_fixed"])
def test_golden_word_options(golden):
    similarity = "cosine" if golden["cosine"] else "dot"
    term, _ = word_loss(anchor=golden["anchor"], temperature=golden["tau"], similarity=similarity)
    close(mean(term), golden["loss"])


def test_no_masked_word_is_no_term():
    for sum_ in ("fixed", "published"):
        term, _ = word_loss(sum=sum_, masked=jnp.zeros((4, 8), bool))
        assert (term.sum, term.count) == (0, 0)
        assert total({"word": term}) == 0
    gradient = jax.grad(lambda s: total({"w": word_loss(s, masked=jnp.zeros((4, 8), bool))[0]}))(word_inputs()[1])
    assert not gradient.any()


def test_no_gradient_to_the_teachers_words():
    teacher, student, first_t, first_s, exists, flags = word_inputs()
    scored = align.select_scored_words(flags, first_s, exists, "token")

    def loss(t):
        return align.word_losses(align.gather_words(t, first_t), align.gather_words(student, first_s), exists, scored)[
            0
        ].sum()

    assert not jax.grad(loss)(teacher).any()


def test_words_past_the_end_do_not_matter():
    teacher, student, first_t, first_s, exists, flags = word_inputs()
    scored = align.select_scored_words(flags, first_s, exists, "token")
    other = jnp.where(exists, first_s, 7)
    a, b = (
        align.word_losses(align.gather_words(teacher, first_t), align.gather_words(student, f), exists, scored)[0]
        for f in (first_s, other)
    )
    assert (a == b).all()


def test_a_word_without_vector_has_a_finite_cosine_gradient():
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
    close(mean(align.sentence_term(STUDENT, TEACHER, ROWS)), SENTENCE["loss"])
    for row, value in enumerate(SENTENCE["per_row"]):
        close(align.sentence_term(STUDENT, TEACHER, jnp.arange(4) == row).sum, value)
    gradient = jax.grad(lambda s: mean(align.sentence_term(s, TEACHER, ROWS)))(STUDENT)
    close(gradient, SENTENCE["gradient_student"])
    to_teacher = jax.grad(lambda t, trained: mean(align.sentence_term(STUDENT, t, ROWS, trained=trained)))
    assert not to_teacher(TEACHER, False).any()
    assert to_teacher(TEACHER, True).any()


def test_golden_structure():
    term = align.structure_term(STUDENT, TEACHER, ROWS, weight=10.0)
    close(mean(term), STRUCTURE["published"])
    close(total({"structure": term}), STRUCTURE["times_10"])
    gradient = jax.grad(lambda s: mean(align.structure_term(s, TEACHER, ROWS)))(STUDENT)
    close(gradient, STRUCTURE["gradient_student"])
    assert not jax.grad(lambda t: mean(align.structure_term(STUDENT, t, ROWS)))(TEACHER).any()


@pytest.mark.parametrize("golden", STRUCTURE["options"])
def test_golden_structure_options(golden):
    options = {
        "temperature": golden["tau"],
        "diagonal": golden["diag"],
        "direction": {"teacher_student": "forward", "student_teacher": "reverse"}[golden["direction"]],
    }
    value, gradient = jax.value_and_grad(lambda s: mean(align.structure_term(s, TEACHER, ROWS, **options)))(STUDENT)
    close(value, golden["loss"])
    close(gradient, golden["gradient_student"])


@pytest.mark.parametrize("group", [0, 2])
def test_padded_rows_are_no_columns(group):
    rows = jnp.array([1, 0, 1, 1, 0, 1], bool)
    student = jnp.full((6, 6), 3.0).at[rows].set(STUDENT)
    teacher = jnp.full((6, 6), -2.0).at[rows].set(TEACHER)
    plain = align.structure_term(STUDENT, TEACHER, ROWS, group=group)
    close(align.structure_term(student, teacher, rows, group=group), plain, atol=1e-12)


def test_a_row_alone_without_its_diagonal_is_not_counted():
    term = align.structure_term(STUDENT, TEACHER, ROWS, group=3, diagonal=False)
    assert term.count == 3
    assert jnp.isfinite(term.sum)


# --- heads: the projectors and the predictor of one view, by hand


def bn(x, rows, part=None, group=0):
    scale = {} if part is None else {"scale": jnp.array(part["g1"]), "bias": jnp.array(part["b1"])}
    start = align.Statistics(jnp.zeros(x.shape[1]), jnp.ones(x.shape[1]))
    return align.batch_norm(x, rows, start, group=group, **scale)[0]


def project(part, x, rows, group=0):
    hidden = jax.nn.relu(bn(x @ np.array(part["w1"]).T, rows, part, group=group))
    return bn(hidden @ np.array(part["w2"]).T, rows, group=group)


def predict(part, x, rows, group=0):
    return jax.nn.relu(bn(x @ np.array(part["w1"]).T, rows, part, group=group)) @ np.array(part["w2"]).T


def outputs(student, teacher, rows, group=0):
    inputs = HEADS["inputs"]
    out = {}
    for view in ("sentence", "structure"):
        heads = inputs["student_heads"][view]
        q = predict(heads["predictor"], project(heads["projector"], student, rows, group), rows, group)
        out[view] = q, project(inputs["teacher_projectors"][view], teacher, rows, group)
    return out


@functools.partial(jax.jit, static_argnames=("bn_group", "structure_group"))
def losses(student, teacher, rows, *, bn_group=0, structure_group=0):
    out = outputs(student, teacher, rows, bn_group)
    sentence = mean(align.sentence_term(*out["sentence"], rows))
    return sentence, mean(align.structure_term(*out["structure"], rows, group=structure_group))


def cls(rows):
    return [jnp.array(HEADS["inputs"][f"{who}_cls"])[jnp.array(rows)] for who in ("student", "teacher")]


@pytest.mark.parametrize("name", ["one_device_rows_0_to_3", "global_batch_8"])
def test_golden_heads(name):
    golden = HEADS[name]
    student, teacher = cls(golden["rows"])
    rows = jnp.ones(len(student), bool)

    def loss(s, t):
        sentence, structure = losses(s, t, rows)
        return sentence + 10 * structure, (sentence, structure, outputs(s, t, rows))

    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (value, (sentence, structure, out)), (to_student, to_teacher) = both(student, teacher)
    for view, (q, k) in out.items():
        close(q, golden[f"student_{view}_out"], atol=2e-6)
        close(k, golden[f"teacher_{view}_out"], atol=2e-6)
    close([sentence, structure], [golden["sentence_loss"], golden["structure_loss"]])
    close(value, golden["sentence_plus_10_structure"])
    close(to_student, golden["gradient_student_cls"])
    assert not to_teacher.any()


def test_golden_groups_of_four():
    rows = jnp.ones(8, bool)
    golden = HEADS["two_devices_of_4"]
    by_group = losses(*cls(range(8)), rows, bn_group=4, structure_group=4)
    close(by_group, [golden["sentence_loss"], golden["structure_loss"]])
    global_statistics = losses(*cls(range(8)), rows, bn_group=0, structure_group=4)
    close(global_statistics[1], HEADS["global_statistics_structure_per_device_2x4"]["structure_loss"])


@pytest.mark.parametrize("group", [0, 4])
def test_padded_rows_change_no_head(group):
    rows = np.array([1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0], bool)
    student, teacher = np.full((11, 6), 30.0), np.full((11, 6), -7.0)
    student[rows], teacher[rows] = cls(range(8))
    with_padding = losses(student, teacher, rows, bn_group=group, structure_group=group)
    close(with_padding, losses(*cls(range(8)), jnp.ones(8, bool), bn_group=group, structure_group=group), atol=1e-12)


@pytest.mark.parametrize("name", ["one_device_rows_0_to_3", "global_batch_8"])
def test_golden_running_statistics(name):
    golden = HEADS[name]["running_after_one_step"]
    x = cls(HEADS[name]["rows"])[0] @ np.array(HEADS["inputs"]["student_heads"]["sentence"]["projector"]["w1"]).T
    start = align.Statistics(jnp.zeros(5), jnp.ones(5))
    _, new = align.batch_norm(x, jnp.ones(len(x), bool), start)
    close(new.mean, golden["projector_sentence_bn1_mean"])
    close(new.variance, golden["projector_sentence_bn1_var_pytorch"])


def test_running_statistics_move_by_a_tenth_and_take_the_mean_of_the_groups():
    x, rows = jnp.array([[1.0], [3.0], [99.0], [10.0], [14.0]]), jnp.array([1, 1, 0, 1, 1], bool)
    start = align.Statistics(jnp.array([100.0]), jnp.array([50.0]))
    y, new = align.batch_norm(x, rows, start, group=2, scale=3.0, bias=1.0)
    close(y[rows, 0], [-2, 4, -2, 4], atol=1e-4)  # −1 and 1 in each group, but for epsilon
    close([*new.mean, *new.variance], [90 + 0.1 * (2 + 12) / 2, 45 + 0.1 * (2 + 8) / 2])
    one = align.batch_norm(x, jnp.array([1, 0, 0, 0, 0], bool), start)[1]
    close([*one.mean, *one.variance], [90.1, 45])
    to_x = jax.grad(lambda x: align.batch_norm(x, rows, start)[1].mean.sum())(x)
    assert not to_x.any()


# --- the sum of all


@pytest.mark.parametrize("name", ["example", "example_published"])
def test_golden_total(name):
    golden, weights = GOLDEN["total"][name], GOLDEN["total"]["weights"]
    terms = {k: Term(jnp.array(golden[k] * 3), jnp.array(3), w) for k, w in weights.items()}
    close(total(terms), golden["total"])
