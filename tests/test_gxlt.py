# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Self-distillation: what the loss is made of, and who teaches when."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import stages
from step_toys import largest_absolute, report_gradient

from xlkd import settings
from xlkd.errors import UserError
from xlkd.losses import distill, span
from xlkd.methods import Start, finetune, gxlt
from xlkd.models import encoder as encoders
from xlkd.models.outputs import span_logits
from xlkd.train import step
from xlkd.train.state import create_state

PLAIN = {"dropout": 0.0, "attention_dropout": 0.0, "classifier_dropout": 0.0}
ARCHITECTURE = encoders.Architecture(
    "bert", 30, 8, 1, 2, 16, positions=16, types=2, pad_id=0, position_offset=0, **PLAIN
)


def stage(**changes):
    """Returns stage skd, resolved with three epochs of four steps."""
    flags = {"coefficient_group": 2, "k": 4} | changes
    named = [f"{'data' if name == 'redraw' else 'method'}.{name}={value}" for name, value in flags.items()]
    return stages.resolve(stages.read_stage("configs/gxlt.py", "skd", *(f"skd.{flag}" for flag in named)), 12, 4)


def built(**changes):
    return gxlt.build(stage(**changes), encoders.Encoder(ARCHITECTURE))


def begin(method, seed=0):
    start = Start(ARCHITECTURE, encoders.init(ARCHITECTURE, jax.random.key(seed), 1.0), {})
    return start, jax.jit(lambda: create_state(method, start, optax.scale_by_adam(), seed))()


def batch(n=4, length=12):
    random = np.random.default_rng(1)
    mask = (np.arange(length) < random.integers(8, length + 1, n)[:, None]).astype(np.int32)
    text = {"ids": random.integers(1, 30, (n, length)), "mask": mask, "types": np.zeros((n, length), np.int32)}
    spans = {"context_mask": mask > 0, "start": np.arange(n), "end": np.arange(n) + 1}
    return jax.tree.map(jnp.asarray, {"text": text, **spans, "mask": np.ones(n, np.float32)})


def loss_of(method, state, targets):
    rows = batch()
    if method.prepare:
        targets = method.prepare(rows, targets)
    return method.loss(state.variables, rows, targets, jax.random.key(0), 0)


def teach(method, state):
    return jax.tree.map(jnp.asarray, method.teacher.forward(state.teacher, batch()))


def test_without_kl_there_is_no_teacher_and_the_loss_is_that_of_finetuning():
    method = built(alpha_kl=0.0)
    assert method.teacher is None
    _, state = begin(method)
    plain = finetune.build(stage(), encoders.Encoder(ARCHITECTURE))
    own, usual = (m.loss(state.variables, batch(), (), jax.random.key(0), 0) for m in (method, plain))
    np.testing.assert_array_equal(own.terms["ce"].sum, usual.terms["ce"].sum)


def test_a_teacher_equal_to_the_student_asks_for_nothing():
    method = built()
    _, state = begin(method)
    found = loss_of(method, state, teach(method, state))
    assert abs(float(found.terms["kl"].sum)) < 1e-5
    assert float(found.metrics["agreement"].sum) == 4


@pytest.mark.parametrize("coefficient", ["none", "authors", "textbook"])
def test_the_kl_is_weighed_by_what_the_teacher_knows(coefficient):
    method = built(coefficient=coefficient, temperature=3.0, kl="symmetric")
    _, state = begin(method)
    logits = jax.random.normal(jax.random.key(4), (2, 4, 12)) * 3
    found = loss_of(method, state, {"start": logits[0], "end": logits[1]})
    rows, taught = batch(), span.Span(*logits)
    mask, gold = rows["text"]["mask"], span.Span(rows["start"], rows["end"])
    student = span.Span(*span_logits(encoders.Encoder(ARCHITECTURE))(state.variables.params, rows))
    kl = distill.span_kl(taught, student, mask, temperature=3.0, direction="symmetric")
    factor = jnp.ones(4)
    if coefficient != "none":
        factor = distill.coefficient(taught, gold, mask, rows["mask"], reading=coefficient, k=4, group=2)
        assert len(set(factor.tolist())) <= 2, "rows of a group share it"
        assert float(factor.min()) < 1
    np.testing.assert_allclose(found.terms["kl"].sum, (kl * factor).sum(), rtol=1e-5)
    np.testing.assert_allclose(found.metrics["coefficient"].sum, factor.sum(), rtol=1e-6)


def test_each_weight_at_zero_removes_its_term():
    assert built(alpha_ce=0.0).loss is not None
    method = built(alpha_ce=0.0)
    _, state = begin(method)
    assert loss_of(method, state, teach(method, state)).terms["ce"].weight == 0


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_step_gives_the_teacher_no_gradient(micro_batches):
    method = built(coefficient="authors")
    _, state = begin(method)

    def place(teacher):
        return state._replace(teacher=teacher), method.teacher.forward(teacher, batch())

    take = report_gradient(method, place, batch(), micro_batches)
    reported, gradient = take(state.teacher)
    assert largest_absolute(gradient) == 0
    other, gradient = take(
        jax.tree.map(lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size)).reshape(x.shape), state.teacher)
    )
    assert largest_absolute(gradient) == 0
    assert float(other) != float(reported), "the step does depend on the teacher"


def test_the_loss_itself_gives_the_teacher_no_gradient():
    method = built(coefficient="authors", kl="symmetric")
    _, state = begin(method)

    def summed(logits):
        terms = loss_of(method, state, {"start": logits[0], "end": logits[1]}).terms
        return terms["ce"].sum + terms["kl"].sum

    logits = jax.random.normal(jax.random.key(4), (2, 4, 12))
    assert largest_absolute(jax.grad(summed)(logits)) == 0
    assert float(summed(logits)) != float(summed(2 * logits))


def test_a_step_moves_the_student_and_leaves_the_teacher_bit_identical():
    method = built()
    _, state = begin(method)
    take_step = jax.jit(step.make_step(method, optax.scale_by_adam(), lambda number: 0.1, seed=0, clip_norm=1.0))
    after, report = take_step(state, batch(), teach(method, state))
    assert bool(report["ok"])
    assert equal(after.teacher, state.teacher)
    assert largest_absolute(jax.tree.map(jnp.subtract, after.variables.params, state.variables.params)) > 1e-2
    _, report = take_step(after, batch(), teach(method, after))
    kl, count = report["terms"]["kl"]
    assert float(kl / count) > 1e-3, "the student is compared with what it was, not with itself"


def test_two_teacher_passes_are_equal_to_the_bit_whatever_the_dropout():
    loud = encoders.Architecture(**{**vars(ARCHITECTURE), "dropout": 0.9, "attention_dropout": 0.9})
    method = gxlt.build(stage(), encoders.Encoder(loud))
    _, state = begin(method)
    quiet = teach(built(), state)
    for name in ("start", "end"):
        np.testing.assert_array_equal(teach(method, state)[name], quiet[name])


def moved(state):
    """Some steps later."""
    variables = state.variables._replace(params=jax.tree.map(lambda x: x + 1, state.variables.params))
    return state._replace(
        step=state.step + 4, variables=variables, optimizer=jax.tree.map(jnp.ones_like, state.optimizer)
    )


def equal(a, b):
    return all(bool((x == y).all()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_a_snapshot_is_a_copy_and_student_and_optimizer_go_on():
    method = built()
    start, state = begin(method)
    later = moved(state)
    new = jax.jit(lambda s: method.teacher.advance(s, start, jax.random.key(0)))(later)
    assert equal(new.teacher, later.variables.params)
    assert equal(new.variables, later.variables)
    assert equal(new.optimizer, later.optimizer)
    pointers = [{x.unsafe_buffer_pointer() for x in jax.tree.leaves(t)} for t in (new.teacher, new.variables.params)]
    assert not pointers[0] & pointers[1]


def test_born_again_is_a_fresh_student_with_a_fresh_optimizer_and_schedule():
    method = built(generations="born_again")
    start, state = begin(method)
    later = moved(state)
    new = method.teacher.advance(later, start, jax.random.key(0))
    assert equal(new.teacher, later.variables.params)
    assert equal(new.variables.params["encoder"], start.encoder)
    assert all(float(jnp.abs(x).max()) == 0 for x in jax.tree.leaves(new.optimizer))
    assert method.period == 4
    assert int(new.step) == int(later.step)


def test_a_moving_average_follows_slowly():
    method = built(generations="ema", ema_decay=0.75)
    start, state = begin(method)
    later = moved(state)
    new = method.teacher.advance(later, start, jax.random.key(0))
    expected = jax.tree.map(lambda t, s: 0.75 * t + 0.25 * s, state.teacher, later.variables.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), new.teacher, expected)


@pytest.mark.parametrize(
    ("kind", "expected", "uses"),
    [
        ("epoch_snapshot", [0, 0, 0, 0, 1, 1, 1, 1, 2], 0),
        ("born_again", [0, 0, 0, 0, 1, 1, 1, 1, 2], 0),
        ("ema", [0, 1, 2, 3, 4, 5, 6, 7, 8], 0),
        ("fixed", [0] * 9, 3),
    ],
)
def test_when_the_teacher_changes_and_how_often_a_target_is_used(kind, expected, uses):
    teacher = built(generations=kind).teacher
    assert [teacher.generation(s) for s in range(9)] == expected
    assert teacher.uses == uses
    assert teacher.evolves == (kind != "fixed")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"generations": "epoch"}, "epoch_snapshot"),
        ({"coefficient": "map"}, "authors"),
        ({"mask_positions": "none"}, "pad_to=384"),
        ({"temperature": 0.0}, "above 0"),
        ({"generation_epochs": 0}, "give 1 or more"),
        ({"k": 0}, "give 1 or more"),
        ({"window": (5,)}, "give two"),
        ({"generations": "born_again", "redraw": "epoch"}, "redraw=never"),
    ],
)
def test_what_cannot_be_is_refused(changes, says):
    with pytest.raises(UserError, match=says):
        built(**changes)


def test_a_named_variant_leaves_out_the_other_controls():
    config = settings.read_config("configs/gxlt.py")
    names = ["english", "zs", "ce", "skd", "skd_map", "skd_no_ce", "skd_map_no_ce"]
    assert [stage.name for stage in settings.read_stages(config)] == names
    config = settings.replace_values(config, method__control="skd_map")
    assert [stage.name for stage in settings.read_stages(config)] == ["english", "skd_map"]
    config = settings.replace_values(config, method__control="skd_mapp")
    with pytest.raises(UserError, match="did you mean 'skd_map'"):
        settings.read_stages(config)


def test_a_teacher_is_no_part_of_the_optimizer():
    _, state = begin(built())
    assert jax.tree.structure(state.optimizer.mu) == jax.tree.structure(state.variables.params)
