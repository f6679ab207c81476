# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Self-distillation: the terms of the loss, and which teacher is used when."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stages
from step_toys import largest_absolute, report_gradient

from xlkd import settings
from xlkd.errors import UserError
from xlkd.losses import distill, span
from xlkd.methods import Start, finetune, gxlt
from xlkd.models import encoder as encoders
from xlkd.models.family import Architecture
from xlkd.models.outputs import span_logits
from xlkd.train import loop, optim, step
from xlkd.train.state import create_state

PLAIN = {"dropout": 0.0, "attention_dropout": 0.0, "classifier_dropout": 0.0}
ARCHITECTURE = Architecture("bert", 30, 8, 1, 2, 16, positions=16, types=2, pad_id=0, position_offset=0, **PLAIN)


def make_stage(**changes):
    """Returns stage skd, resolved with three epochs of four steps."""
    flags = {"coefficient_group": 2, "k": 4, "window": (5, 4), "generation_epochs": 1} | changes
    stage_flags = [f"{'data' if name == 'redraw' else 'method'}.{name}={value}" for name, value in flags.items()]
    return stages.resolve(stages.read_stage("configs/gxlt.py", "skd", *(f"skd.{flag}" for flag in stage_flags)), 12, 4)


def build_method(**changes):
    return gxlt.build(make_stage(**changes), encoders.Encoder(ARCHITECTURE))


def create_first_state(method, seed=0):
    start = Start(ARCHITECTURE, encoders.init(ARCHITECTURE, jax.random.key(seed), 1.0), {})
    return start, jax.jit(lambda: create_state(method, start, optim.scale_by_adam(), seed))()


def make_batch(n=4, length=12):
    random = np.random.default_rng(1)
    mask = (np.arange(length) < random.integers(8, length + 1, n)[:, None]).astype(np.int32)
    text = {"ids": random.integers(1, 30, (n, length)), "mask": mask, "types": np.zeros((n, length), np.int32)}
    spans = {"context_mask": mask > 0, "start": np.arange(n), "end": np.arange(n) + 1}
    return jax.tree.map(jnp.asarray, {"text": text, **spans, "mask": np.ones(n, np.float32)})


def compute_loss(method, state, targets):
    rows = make_batch()
    if method.prepare:
        targets = method.prepare(rows, targets)
    return method.loss(state.variables, rows, targets, jax.random.key(0), 0)


def run_teacher(method, state):
    return jax.tree.map(jnp.asarray, method.teacher.forward(state.teacher, make_batch()))


def prepare_targets(method, state):
    return method.prepare(make_batch(), run_teacher(method, state))


def test_without_kl_there_is_no_teacher_and_the_loss_is_that_of_fine_tuning():
    method = build_method(alpha_kl=0.0)
    assert method.teacher is None
    _, state = create_first_state(method)
    plain = finetune.build(make_stage(), encoders.Encoder(ARCHITECTURE))
    own, usual = (m.loss(state.variables, make_batch(), (), jax.random.key(0), 0) for m in (method, plain))
    np.testing.assert_array_equal(own.terms["ce"].sum, usual.terms["ce"].sum)


def test_a_teacher_equal_to_the_student_has_no_kl():
    method = build_method()
    _, state = create_first_state(method)
    loss = compute_loss(method, state, run_teacher(method, state))
    assert abs(float(loss.terms["kl"].sum)) < 1e-5
    assert float(loss.metrics["agreement"].sum) == 4


@pytest.mark.parametrize("coefficient", ["none", "authors", "textbook"])
def test_the_kl_is_weighted_by_the_teachers_precision(coefficient):
    method = build_method(coefficient=coefficient, temperature=3.0, kl="symmetric")
    _, state = create_first_state(method)
    logits = jax.random.normal(jax.random.key(4), (2, 4, 12)) * 3
    loss = compute_loss(method, state, {"start": logits[0], "end": logits[1]})
    rows, taught = make_batch(), span.Span(*logits)
    mask, gold = rows["text"]["mask"], span.Span(rows["start"], rows["end"])
    student = span.Span(*span_logits(encoders.Encoder(ARCHITECTURE))(state.variables.params, rows))
    kl = distill.span_kl(taught, student, mask, temperature=3.0, direction="symmetric")
    factor = jnp.ones(4)
    if coefficient != "none":
        factor = distill.coefficient(taught, gold, mask, rows["mask"], reading=coefficient, k=4, group=2)
        assert len(set(factor.tolist())) <= 2, "the rows of a group have one coefficient"
        assert float(factor.min()) < 1
    np.testing.assert_allclose(loss.terms["kl"].sum, (kl * factor).sum(), rtol=1e-5)
    np.testing.assert_allclose(loss.metrics["coefficient"].sum, factor.sum(), rtol=1e-6)


def test_a_weight_of_zero_removes_the_cross_entropy():
    assert build_method(alpha_ce=0.0).loss is not None
    method = build_method(alpha_ce=0.0)
    _, state = create_first_state(method)
    assert compute_loss(method, state, run_teacher(method, state)).terms["ce"].weight == 0


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_step_gives_the_teacher_no_gradient(micro_batches):
    method = build_method(coefficient="authors")
    _, state = create_first_state(method)

    def place(teacher):
        return state._replace(teacher=teacher), method.teacher.forward(teacher, make_batch())

    differentiate = report_gradient(method, place, make_batch(), micro_batches)
    before, gradient = differentiate(state.teacher)
    assert largest_absolute(gradient) == 0
    after, gradient = differentiate(
        jax.tree.map(lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size)).reshape(x.shape), state.teacher)
    )
    assert largest_absolute(gradient) == 0
    assert float(after) != float(before), "the step depends on the teacher"


def test_the_loss_itself_gives_the_teacher_no_gradient():
    method = build_method(coefficient="authors", kl="symmetric")
    _, state = create_first_state(method)

    def sum_loss(logits):
        terms = compute_loss(method, state, {"start": logits[0], "end": logits[1]}).terms
        return terms["ce"].sum + terms["kl"].sum

    logits = jax.random.normal(jax.random.key(4), (2, 4, 12))
    assert largest_absolute(jax.grad(sum_loss)(logits)) == 0
    assert float(sum_loss(logits)) != float(sum_loss(2 * logits))


def test_a_step_moves_the_student_and_leaves_the_teacher_bit_identical():
    method = build_method()
    _, state = create_first_state(method)
    take_step = jax.jit(step.make_step(method, optim.scale_by_adam(), lambda number: 0.1, seed=0, clip_norm=1.0))
    after, report = take_step(state, make_batch(), prepare_targets(method, state))
    assert bool(report["ok"])
    assert are_equal(after.teacher, state.teacher)
    assert largest_absolute(jax.tree.map(jnp.subtract, after.variables.params, state.variables.params)) > 1e-2
    _, report = take_step(after, make_batch(), prepare_targets(method, after))
    kl, count = report["terms"]["kl"]
    assert float(kl / count) > 1e-3, "the student is compared with its former weights, not with itself"


def test_teacher_passes_are_bit_identical_for_any_dropout_rate():
    high_dropout = Architecture(**{**vars(ARCHITECTURE), "dropout": 0.9, "attention_dropout": 0.9})
    method = gxlt.build(make_stage(), encoders.Encoder(high_dropout))
    _, state = create_first_state(method)
    without_dropout = run_teacher(build_method(), state)
    for name in ("start", "end"):
        np.testing.assert_array_equal(run_teacher(method, state)[name], without_dropout[name])


def advance_state(state):
    """Returns the state some steps later."""
    variables = state.variables._replace(params=jax.tree.map(lambda x: x + 1, state.variables.params))
    return state._replace(
        step=state.step + 4, variables=variables, optimizer=jax.tree.map(jnp.ones_like, state.optimizer)
    )


def are_equal(a, b):
    return all(bool((x == y).all()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_a_snapshot_is_a_copy_and_keeps_student_and_optimizer():
    method = build_method()
    start, state = create_first_state(method)
    later = advance_state(state)
    new = jax.jit(lambda s: method.teacher.advance(s, start, jax.random.key(0)))(later)
    assert are_equal(new.teacher, later.variables.params)
    assert are_equal(new.variables, later.variables)
    assert are_equal(new.optimizer, later.optimizer)
    pointers = [{x.unsafe_buffer_pointer() for x in jax.tree.leaves(t)} for t in (new.teacher, new.variables.params)]
    assert not pointers[0] & pointers[1]


def test_born_again_starts_a_new_student_with_a_new_optimizer_and_schedule():
    method = build_method(generations="born_again")
    start, state = create_first_state(method)
    later = advance_state(state)
    new = method.teacher.advance(later, start, jax.random.key(0))
    assert are_equal(new.teacher, later.variables.params)
    assert are_equal(new.variables.params["encoder"], start.encoder)
    assert all(float(jnp.abs(x).max()) == 0 for x in jax.tree.leaves(new.optimizer))
    assert method.period == 4
    assert int(new.step) == int(later.step)


def test_a_moving_average_follows_the_student_with_its_decay():
    method = build_method(generations="ema", ema_decay=0.75)
    start, state = create_first_state(method)
    later = advance_state(state)
    new = method.teacher.advance(later, start, jax.random.key(0))
    expected = jax.tree.map(lambda t, s: 0.75 * t + 0.25 * s, state.teacher, later.variables.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), new.teacher, expected)


def test_a_moving_average_needs_no_second_copy_of_the_state():
    method = build_method(generations="ema")
    start, state = create_first_state(method)
    before = jax.tree.map(np.array, state.variables)
    advance = loop._make_advance(types.SimpleNamespace(seed=0), method.teacher, lambda *_: start, (), None)
    new = advance(1, state)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.variables, state.optimizer, state.teacher)))
    jax.tree.map(np.testing.assert_array_equal, new.variables, before)


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
    teacher = build_method(generations=kind).teacher
    assert [teacher.generation(s) for s in range(9)] == expected
    assert teacher.uses == uses
    assert teacher.evolves == (kind != "fixed")


def test_a_target_of_redrawn_pairs_counts_as_used_once():
    assert build_method(generations="fixed", redraw="epoch").teacher.uses == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"generations": "epoch"}, "epoch_snapshot"),
        ({"coefficient": "map"}, "authors"),
        ({"mask_positions": "none"}, "pad_to=384"),
        ({"temperature": 0.0}, "give 0.001 to 1000"),
        ({"generation_epochs": 0}, "give 1 to 100000"),
        ({"k": 0}, "give 1 to 1000"),
        ({"window": (5,)}, "not of type pair of int"),
        ({"generations": "born_again", "redraw": "epoch"}, "redraw=never"),
    ],
)
def test_impossible_settings_are_refused(changes, says):
    with pytest.raises(UserError, match=says):
        build_method(**changes)


def test_a_named_control_leaves_out_the_others():
    config = settings.read_config("configs/gxlt.py")
    names = ["english", "zs", "ce", "skd", "skd_map"]
    assert [stage.name for stage in settings.read_stages(config)] == names
    config = settings.replace_values(config, method__control="skd_map")
    assert [stage.name for stage in settings.read_stages(config)] == ["english", "skd_map"]
    config = settings.replace_values(config, method__control="skd_mapp")
    with pytest.raises(UserError, match="did you mean 'skd_map'"):
        settings.read_stages(config)


def test_the_ablation_differs_from_the_default_by_two_controls_alone():
    default, ablation = (settings.read_config(f"configs/gxlt.py{variant}") for variant in ("", ":ablation"))
    stages = {stage.name: dataclasses.replace(stage, run="") for stage in settings.read_stages(ablation)}
    assert [*stages] == ["english", "zs", "ce", "skd", "skd_map", "skd_no_ce", "skd_map_no_ce"]
    assert [*stages.values()][:5] == [dataclasses.replace(stage, run="") for stage in settings.read_stages(default)]
    for name in ("skd", "skd_map"):
        without_ce, weights = stages[f"{name}_no_ce"].method, stages[name].method
        assert without_ce == dataclasses.replace(weights, alpha_ce=0.0)


def test_the_stages_of_the_default_have_the_same_dropout():
    for variant in ("", ":paper"):
        rates = {
            stage.encoder.dropout for stage in settings.read_stages(settings.read_config(f"configs/gxlt.py{variant}"))
        }
        assert len(rates) == 1


def test_the_optimizer_has_no_moments_of_the_teacher():
    _, state = create_first_state(build_method())
    assert jax.tree.structure(state.optimizer.mu) == jax.tree.structure(state.variables.params)


def test_a_generation_lasts_as_many_epochs_as_the_config_says():
    """Three epochs of four steps: the second generation begins with the third epoch."""
    teacher = build_method(generation_epochs=2).teacher
    assert [teacher.generation(step) for step in (0, 4, 7, 8, 11)] == [0, 0, 0, 1, 1]


def test_the_teachers_entropy_and_agreement_are_means_over_start_and_end():
    method = build_method()
    _, state = create_first_state(method)
    batch, teacher = make_batch(), run_teacher(method, state)
    metrics = compute_loss(method, state, teacher).metrics
    temperature, entropies = make_stage().method.temperature, []
    for side in ("start", "end"):
        p = np.asarray(jax.nn.softmax(jnp.where(batch["text"]["mask"] > 0, teacher[side] / temperature, -jnp.inf)))
        entropies.append(-np.sum(p * np.log(np.where(p > 0, p, 1)), axis=1))
    np.testing.assert_allclose(metrics["teacher_entropy"].sum, np.mean(entropies, axis=0).sum(), rtol=1e-4)
    others = {"start": -teacher["start"], "end": teacher["end"]}
    assert float(compute_loss(method, state, others).metrics["agreement"].sum) == 2, "the end of each of four rows"


def test_coefficients_change_only_the_program_that_prepares_targets():
    programs = []
    for coefficient in ("none", "authors"):
        method = build_method(coefficient=coefficient)
        _, state = create_first_state(method)
        take_step = step.make_step(method, optim.scale_by_adam(), lambda number: 0.1, seed=0, clip_norm=1.0)
        programs.append(jax.jit(take_step).lower(state, make_batch(), prepare_targets(method, state)).as_text())
    assert programs[0] == programs[1]
