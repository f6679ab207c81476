# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Distillation losses against golden numbers, and the bugs that are common in public code."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlkd.losses import distill, span
from xlkd.losses.terms import make_term, mean, total

pytestmark = pytest.mark.usefixtures("float64")

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "losses_span.json").read_text())
INPUTS = GOLDEN["inputs"]
ALL = jnp.ones((4, 24), bool)
MASK = jnp.array(INPUTS["position_mask"], bool)
ROWS = jnp.ones(4, bool)
DIRECTIONS = {"fw": "forward", "rv": "reverse", "sym": "symmetric"}


def load_logits(who):
    return span.Span(*(jnp.array(INPUTS[f"{who}_{side}_logits"]) for side in ("start", "end")))


def load_gold():
    return span.Span(*(jnp.array(INPUTS[f"{side}_positions"]) for side in ("start", "end")))


def assert_close(a, b, atol=1e-6):
    np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), atol=atol, rtol=0)


@pytest.mark.parametrize("name", list(GOLDEN["kl"]))
def test_golden_kl(name):
    direction, T = name.split(",T=")
    direction, T = DIRECTIONS[direction], float(T)
    for side in ("start", "end"):
        pair = [getattr(load_logits(who), side) for who in ("teacher", "student")]
        rows = distill.kl(*pair, ALL, temperature=T, direction=direction) * T**2
        assert_close(rows.mean(), GOLDEN["kl"][name][side])
    span_rows = distill.span_kl(load_logits("teacher"), load_logits("student"), ALL, temperature=T, direction=direction)
    assert_close(span_rows.mean(), GOLDEN["kl"][name]["mean"])


def test_golden_kl_in_float32():
    teacher, student = (tuple(x.astype(jnp.float32) for x in load_logits(who)) for who in ("teacher", "student"))
    rows = distill.span_kl(teacher, student, ALL, temperature=2.0)
    assert rows.dtype == jnp.float32
    assert_close(rows.mean(), GOLDEN["kl"]["fw,T=2"]["mean"], atol=2e-6)


def test_golden_kl_by_row_with_and_without_mask():
    teacher, student = load_logits("teacher"), load_logits("student")
    assert_close(distill.span_kl(teacher, student, ALL, temperature=2.0), GOLDEN["per_example"]["kl_rows_fw_T2"])
    assert_close(distill.span_kl(teacher, student, MASK, temperature=2.0), GOLDEN["masked_positions"]["kl_rows_fw_T2"])


def compute_total(student, ce, kl, direction="forward", T=2.0, coefficient=1.0):
    ce = span.cross_entropy(student, load_gold(), ALL, ROWS, ce)
    rows = distill.span_kl(load_logits("teacher"), student, ALL, temperature=T, direction=direction)
    return total({"ce": ce, "kl": make_term(coefficient * rows, ROWS, kl)})


TOTALS = [
    ("skd: 1*CE + 1*KL, T=2", {"ce": 1.0, "kl": 1.0}),
    ("skd_no_ce: 0*CE + 1*KL, T=2", {"ce": 0.0, "kl": 1.0}),
    ("skd: 1*CE + 1*KL, T=4", {"ce": 1.0, "kl": 1.0, "T": 4.0}),
    ("ce: 1*CE + 0*KL", {"ce": 1.0, "kl": 0.0}),
    ("0.5*CE + 0.5*KL, T=2", {"ce": 0.5, "kl": 0.5}),
    ("1*CE + 0.3*KL, T=2", {"ce": 1.0, "kl": 0.3}),
    ("1*CE + 1*KL reverse, T=2", {"ce": 1.0, "kl": 1.0, "direction": "reverse"}),
    ("1*CE + 1*KL symmetric, T=2", {"ce": 1.0, "kl": 1.0, "direction": "symmetric"}),
    ("skd_map: 1*CE + mAP@10*KL, T=2", {"ce": 1.0, "kl": 1.0, "coefficient": "authors"}),
    ("skd_map_no_ce: 0*CE + mAP@10*KL, T=2", {"ce": 0.0, "kl": 1.0, "coefficient": "authors"}),
    ("1*CE + MRR@10*KL, T=2", {"ce": 1.0, "kl": 1.0, "coefficient": "exact"}),
]


@pytest.mark.parametrize(("name", "settings"), TOTALS, ids=[name for name, _ in TOTALS])
def test_golden_total_and_gradient(name, settings):
    golden, settings = GOLDEN["total"][name], dict(settings)
    if reading := settings.get("coefficient"):
        window = (5, 4) if reading == "authors" else (0, 0)
        settings["coefficient"] = distill.coefficient(load_logits("teacher"), load_gold(), ALL, ROWS, window=window)
        assert_close(settings["coefficient"], [golden["alpha_kl"]] * 4)
    value, gradient = jax.value_and_grad(lambda student: compute_total(student, **settings))(load_logits("student"))
    assert_close(value, golden["total"])
    for side in ("start", "end"):
        if f"grad_student_{side}_logits" in golden:
            assert_close(getattr(gradient, side), golden[f"grad_student_{side}_logits"])


def test_every_golden_total_is_used():
    assert {name for name, _ in TOTALS} == set(GOLDEN["total"])


@pytest.mark.parametrize("name", list(GOLDEN["map_at_k_authors"]))
def test_golden_coefficient_as_published(name):
    context, k = (int(part.split("=")[1]) for part in name.split(","))
    settings = {"k": k, "window": (context, context - 1)}
    value = distill.coefficient(load_logits("teacher"), load_gold(), ALL, ROWS, group=0, **settings)
    assert_close(value, [GOLDEN["map_at_k_authors"][name]] * 4)


@pytest.mark.parametrize("reading", ["authors", "textbook"])
def test_golden_coefficient_by_row(reading):
    for name, golden in GOLDEN[f"map_at_k_{reading}_per_row"].items():
        settings = {"reading": reading, "k": int(name[2:]), "window": (5, 4)}
        for side in ("start", "end"):
            rows = distill.average_precision(
                getattr(load_logits("teacher"), side), getattr(load_gold(), side), ALL, **settings
            )
            assert_close(rows, golden[side])


def test_golden_coefficient_textbook():
    for name, golden in GOLDEN["map_at_k_textbook"].items():
        settings = {"reading": "textbook", "k": int(name[2:])}
        assert_close(distill.coefficient(load_logits("teacher"), load_gold(), ALL, ROWS, **settings), [golden] * 4)


@pytest.mark.parametrize("reading", ["authors", "textbook"])
def test_golden_coefficient_by_example(reading):
    alpha = distill.coefficient(load_logits("teacher"), load_gold(), ALL, ROWS, reading=reading, per="example")
    assert_close(alpha, GOLDEN["per_example"][f"alpha_{reading}"])
    assert_close(
        compute_total(load_logits("student"), 1.0, 1.0, coefficient=alpha), GOLDEN["per_example"][f"total_{reading}"]
    )


def test_golden_textbook_by_batch_in_the_total():
    alpha = distill.coefficient(load_logits("teacher"), load_gold(), ALL, ROWS, reading="textbook")
    assert_close(
        compute_total(load_logits("student"), 1.0, 1.0, coefficient=alpha),
        GOLDEN["per_example"]["total_textbook_per_batch"],
    )


def test_groups_equal_micro_batches():
    golden = GOLDEN["accumulation"]["skd_map, 2+2 rows"]
    alpha = distill.coefficient(load_logits("teacher"), load_gold(), ALL, ROWS, group=2)
    assert_close(alpha, np.repeat(golden["alpha_kl"], 2))
    assert_close(compute_total(load_logits("student"), 1.0, 1.0, coefficient=alpha), golden["loss"])


def test_published_groups_have_six_rows():
    order = np.array([0, 1, 2, 3, 0, 1, 2, 3])
    teacher, labels = (tuple(x[order] for x in side) for side in (load_logits("teacher"), load_gold()))
    own = distill.coefficient(teacher, labels, jnp.ones((8, 24)), jnp.ones(8), per="example")
    alpha = distill.coefficient(teacher, labels, jnp.ones((8, 24)), jnp.ones(8))
    assert_close(alpha, [own[:6].mean()] * 6 + [own[6:].mean()] * 2)


def test_unequal_micro_batches_are_weighted_by_rows():
    published = GOLDEN["accumulation"]["skd, 3+1 rows (mean of means, differs from the whole batch)"]["loss"]
    ours = compute_total(load_logits("student"), 1.0, 1.0)
    assert_close(ours, GOLDEN["accumulation"]["skd, 2+2 rows"]["loss"])
    assert abs(ours - published) > 0.1
    alpha = distill.coefficient(load_logits("teacher"), load_gold(), ALL, ROWS, group=3)
    assert_close(alpha[::3], GOLDEN["accumulation"]["skd_map, 3+1 rows"]["alpha_kl"])


def test_padded_rows_do_not_change_the_coefficient():
    order, rows = [0, 0, 1, 2, 3, 3], jnp.array([1, 0, 1, 1, 1, 0])
    teacher = span.Span(*(x[jnp.array(order)] for x in load_logits("teacher")))
    labels = span.Span(*(y[jnp.array(order)] for y in load_gold()))
    alpha = distill.coefficient(teacher, labels, jnp.ones((6, 24)), rows, group=2)
    plain = distill.coefficient(load_logits("teacher"), load_gold(), ALL, ROWS, group=2)
    assert_close(alpha[rows == 1], plain)


@pytest.mark.parametrize(("offset", "hit"), [(-6, 0), (-5, 1), (4, 1), (5, 0)])
@pytest.mark.parametrize("reading", ["authors", "textbook"])
def test_the_edges_of_the_window_are_those_published(offset, hit, reading):
    teacher = jnp.zeros((1, 24)).at[0, 10 + offset].set(9.0)
    value = distill.average_precision(teacher, jnp.array([10]), jnp.ones((1, 24)), reading=reading, k=1, window=(5, 4))
    assert value[0] == hit


@pytest.mark.parametrize(("position", "authors", "textbook"), [(0, 1, 1 / 5), (4, 1, 1 / 5), (5, 0, 0)])
def test_a_window_without_an_answer_has_the_first_position_as_its_gold_one(position, authors, textbook):
    """Counts hits in the whole window: of positions -5 to 4 those from 0 to 4 exist."""
    teacher = (-jnp.arange(24.0))[None].at[0, :5].set(-100.0).at[0, position].set(9.0)
    for reading, value in (("authors", authors), ("textbook", textbook)):
        settings = {"reading": reading, "k": 10, "window": (5, 4)}
        ap = distill.average_precision(teacher, jnp.array([0]), jnp.ones((1, 24)), **settings)
        assert_close(ap, [value])


def test_only_the_first_hit_counts_as_published():
    teacher = jnp.zeros((1, 24)).at[0, jnp.array([20, 10, 11])].set(jnp.array([9.0, 8.0, 7.0]))
    settings = {"k": 3, "window": (5, 4)}
    for reading, value in (("authors", 1 / 2), ("textbook", (1 / 2 + 2 / 3) / 3)):
        ap = distill.average_precision(teacher, jnp.array([10]), jnp.ones((1, 24)), reading=reading, **settings)
        assert_close(ap, [value])


def test_masked_positions_are_neither_hits_nor_relevant():
    mask = jnp.zeros((1, 24), bool).at[0, :3].set(True)
    teacher = jnp.zeros((1, 24)).at[0, 0].set(1.0)
    settings = {"k": 10, "window": (0, 23)}
    assert_close(
        distill.average_precision(teacher, jnp.array([1]), mask, reading="textbook", **settings), [(1 / 2 + 2 / 3) / 2]
    )
    none = distill.average_precision(teacher, jnp.array([1]), jnp.zeros((1, 24)), reading="authors", **settings)
    assert none[0] == 0


def test_ties_go_to_the_lower_position():
    teacher, ones = jnp.zeros((1, 24)), jnp.ones((1, 24))
    settings = {"reading": "authors", "k": 10, "window": (0, 0)}
    for position in (0, 3, 9, 10):
        value = distill.average_precision(teacher, jnp.array([position]), ones, **settings)
        assert_close(value, [1 / (position + 1) if position < 10 else 0])
    assert distill.agreement(jnp.zeros((1, 4)), jnp.array([[5.0, 5.0, 0, 0]]), jnp.ones((1, 4)))[0] == 1


def test_fewer_positions_than_k_are_an_error():
    with pytest.raises(ValueError, match="10 best of 4"):
        distill.average_precision(
            jnp.zeros((1, 4)), jnp.array([0]), jnp.ones((1, 4)), reading="authors", k=10, window=(5, 4)
        )


def test_the_coefficient_is_the_teachers_and_has_no_gradient():
    teacher = distill.coefficient(load_logits("teacher"), load_gold(), ALL, ROWS)
    student = distill.coefficient(load_logits("student"), load_gold(), ALL, ROWS)
    assert abs(teacher[0] - student[0]) > 0.05

    def loss(t):
        return distill.coefficient(t, load_gold(), ALL, ROWS, per="example").sum()

    assert not any(g.any() for g in jax.grad(loss)(load_logits("teacher")))


@pytest.mark.parametrize("direction", DIRECTIONS.values())
def test_no_gradient_to_the_teacher(direction):
    def loss(teacher):
        return distill.span_kl(teacher, load_logits("student"), ALL, temperature=2.0, direction=direction).sum()

    assert not any(g.any() for g in jax.grad(loss)(load_logits("teacher")))
    classes = jax.grad(lambda t: distill.class_loss(t, load_logits("student").start, form="kl").sum())
    assert not classes(load_logits("teacher").start).any()
    mse = jax.grad(lambda t: distill.class_loss(t, load_logits("student").start, form="mse").sum())
    assert not mse(load_logits("teacher").start).any()


def test_the_gradient_of_kl_equals_its_formula():
    T = 3.0
    gradient = jax.grad(lambda s: distill.span_kl(load_logits("teacher"), s, ALL, temperature=T).mean())(
        load_logits("student")
    )
    for side in ("start", "end"):
        q, p = (jax.nn.softmax(getattr(load_logits(who), side) / T) for who in ("student", "teacher"))
        assert_close(getattr(gradient, side), T / (2 * 4) * (q - p), atol=1e-12)


def test_kl_of_logits_that_differ_by_a_constant_is_zero():
    teacher = load_logits("teacher")
    assert_close(
        distill.span_kl(teacher, tuple(x + 7.5 for x in teacher), ALL, temperature=2.0), np.zeros(4), atol=1e-12
    )


def test_forward_and_reverse_kl_differ():
    teacher, student = load_logits("teacher"), load_logits("student")
    forward = distill.span_kl(teacher, student, ALL)
    assert_close(forward, distill.span_kl(student, teacher, ALL, direction="reverse"), atol=1e-12)
    assert abs(forward - distill.span_kl(teacher, student, ALL, direction="reverse")).min() > 1e-3


def test_the_gradient_keeps_its_scale_over_temperatures():
    def norm(T):
        g = jax.grad(lambda s: distill.span_kl(load_logits("teacher"), s, ALL, temperature=T).mean())(
            load_logits("student")
        )
        return float(jnp.sqrt(sum((x**2).sum() for x in g)))

    assert 1 / 3 < norm(8.0) / norm(1.0) < 3
    off = distill.span_kl(load_logits("teacher"), load_logits("student"), ALL, temperature=8.0, t_squared=False)
    assert_close(off * 64, distill.span_kl(load_logits("teacher"), load_logits("student"), ALL, temperature=8.0))


def test_more_padding_changes_nothing():
    def pad(x):
        return jnp.pad(x, ((0, 0), (0, 24)), constant_values=3.0)

    mask = jnp.pad(MASK, ((0, 0), (0, 24)))
    teacher, student = (tuple(pad(x) for x in load_logits(who)) for who in ("teacher", "student"))
    longer = distill.span_kl(teacher, student, mask, temperature=2.0)
    assert_close(
        longer, distill.span_kl(load_logits("teacher"), load_logits("student"), MASK, temperature=2.0), atol=1e-12
    )
    assert_close(
        distill.coefficient(teacher, load_gold(), mask, ROWS),
        distill.coefficient(load_logits("teacher"), load_gold(), MASK, ROWS),
        atol=1e-12,
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("valid", [0, 1])
@pytest.mark.parametrize("direction", DIRECTIONS.values())
def test_one_or_no_valid_position_gives_no_nan(dtype, valid, direction):
    mask = jnp.zeros((4, 24), bool).at[:, :valid].set(True)
    teacher, student = (tuple(x.astype(dtype) for x in load_logits(who)) for who in ("teacher", "student"))

    def loss(s):
        return distill.span_kl(teacher, s, mask, temperature=2.0, direction=direction).sum()

    value, gradient = jax.value_and_grad(loss)(student)
    assert value == 0
    assert all(jnp.isfinite(g).all() and not g.any() for g in gradient)


def test_bfloat16_logits_are_compared_in_float32():
    teacher, student = (tuple(x.astype(jnp.bfloat16) for x in load_logits(who)) for who in ("teacher", "student"))
    rows = distill.span_kl(teacher, student, ALL, temperature=2.0)
    assert rows.dtype == jnp.float32
    assert abs(rows.mean() - GOLDEN["kl"]["fw,T=2"]["mean"]) < 1e-2


def test_golden_diagnostics():
    golden, teacher, student = GOLDEN["diagnostics"], load_logits("teacher"), load_logits("student")
    for side in ("start", "end"):
        t, s = getattr(teacher, side), getattr(student, side)
        assert_close(distill.entropy(t, ALL, 2.0).mean(), golden["teacher_entropy_T2_nats"][side])
        assert_close(distill.agreement(t, s, ALL).mean(), golden["top1_agreement"][side])
    assert distill.entropy(teacher.start, jnp.zeros((4, 24)))[0] == 0


def test_diagnostics_ignore_masked_positions():
    x, mask = jnp.array([[5.0, 0.0, 1.0, 9.0]]), jnp.array([[1, 1, 1, 0]])
    assert_close(distill.entropy(x, mask), distill.entropy(x[:, :3], jnp.ones((1, 3))), atol=1e-12)
    assert distill.agreement(x, -x, mask)[0] == 0
    assert distill.agreement(x, jnp.array([[1.0, 0.0, 0.0, -9.0]]), mask)[0] == 1


TEACHER, OWN = [[2.0, 0.0, -1.0]], [[1.0, 0.5, -0.5]]


@pytest.mark.parametrize(
    ("student", "T", "ce", "kl", "mse"),
    [
        (OWN, 1.0, 0.7242433042, 0.1999766875, 0.5),
        (OWN, 2.0, 0.9744381594, 0.0684789029, 0.125),
        ([[0.75, 0.25, 0.0]], 1.0, 0.8204427161, 0.2961760994, 0.875),
        ([[0.75, 0.25, 0.0]], 2.0, 1.0130315436, 0.1070722871, 0.21875),
        ([[5 / 6, 1 / 3, -1 / 6]], 1.0, 0.7793773365, 0.2551107197, 0.7222222222),
    ],
)
def test_golden_class_losses(student, T, ce, kl, mse):
    for form, value in (("ce", ce), ("kl", kl), ("mse", mse)):
        rows = distill.class_loss(jnp.array(TEACHER), jnp.array(student), form=form, temperature=T)
        assert_close(rows, [value], atol=1e-9)
        squared = distill.class_loss(jnp.array(TEACHER), jnp.array(student), form=form, temperature=T, t_squared=True)
        assert_close(squared, [value * T**2], atol=1e-9)
    entropy = {1.0: 0.5242666167, 2.0: 0.9059592565}[T]
    assert_close(distill.entropy(jnp.array(TEACHER), jnp.ones((1, 3)), T), [entropy], atol=1e-9)


def test_gradients_of_class_losses_equal_their_formulas():
    t, z, T = jnp.array(TEACHER), jnp.array(OWN), 2.0
    p, q = jax.nn.softmax(t / T), jax.nn.softmax(z / T)
    for form, expected in (("ce", (q - p) / T), ("kl", (q - p) / T), ("mse", 2 * (z - t) / (3 * T**2))):
        assert_close(
            jax.grad(lambda z, f=form: distill.class_loss(t, z, form=f, temperature=T).sum())(z), expected, atol=1e-12
        )


def test_mse_at_any_temperature_with_t_squared_is_mse_at_one():
    rows = distill.class_loss(jnp.array(TEACHER), jnp.array(OWN), form="mse", temperature=5.0, t_squared=True)
    assert_close(rows, distill.class_loss(jnp.array(TEACHER), jnp.array(OWN), form="mse"), atol=1e-12)


def test_hard_labels_give_cross_entropy():
    rows, known = distill.label_loss(jnp.array(OWN * 3), jnp.array([0, -1, 2]))
    assert_close(rows[::2], [0.6041306053, 2.1041306053], atol=1e-9)  # the logits differ by 1.5
    assert known.tolist() == [True, False, True]
    assert mean(make_term(rows, known)) == rows[::2].mean()


def test_probabilities_have_no_mse():
    with pytest.raises(ValueError, match="mse"):
        distill.class_loss_from_log(jnp.array(TEACHER), jnp.array(OWN), form="mse")
