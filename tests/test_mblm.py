# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""MBLM: the loss by hand, which parameters learn from which term, the route of an example, and the exports."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mblm_toys import (
    LABELS,
    compute_terms,
    make_architecture,
    make_batch,
    make_stage,
    make_student,
    make_targets,
    replace_arrays,
)
from step_toys import make_state, report_gradient

from xlkd.errors import UserError
from xlkd.losses.terms import total
from xlkd.methods import Start, finetune, mblm
from xlkd.models import branches
from xlkd.models import encoder as encoders
from xlkd.models.heads import ClassifierHead, init_head
from xlkd.spec import list_settings
from xlkd.spec.mblm import Method
from xlkd.spec.optim import Optim
from xlkd.train import optim, step
from xlkd.train import state as states

LEVELS, WEIGHTS = (list_settings(Method)[name].choices for name in ("mix", "weights"))


def value(method, variables, name, inputs=None, teacher_targets=None, **options):
    """Returns sum / count of a term."""
    term = compute_terms(method, variables, inputs or make_batch(), teacher_targets or make_targets(), **options)[name]
    return float(term.sum / term.count)


def gradient(method, variables, name, inputs=None):
    """Returns the step's gradient of one term, by parameter, with a loss that has this term alone."""

    def loss(*arguments):
        loss = method.loss(*arguments)
        return loss._replace(terms={name: loss.terms[name]})

    single_term, inputs = dataclasses.replace(method, loss=loss), inputs or make_batch()
    prepared = method.prepare(inputs, make_targets())
    take = jax.jit(lambda state: step.compute_gradient(single_term, state, inputs, prepared, jax.random.key(3), 1)[0])
    return take(make_state(variables, number=50))


def sum_magnitudes(tree) -> float:
    return sum(float(jnp.abs(x).sum()) for x in jax.tree.leaves(tree))


def train(method, start, inputs, teacher_targets, steps, micro_batches=1):
    """Takes some steps, jitted as in the loop; returns the parameters and the losses."""
    settings = Optim()
    optimizer = optim.make_optimizer(settings)
    options = {"seed": 0, "clip_norm": 1.0, "micro_batches": micro_batches}
    take_step = jax.jit(step.make_step(method, optimizer, optim.make_schedule(settings, 20), **options))
    state = states.create_state(method, start, optimizer, 0)
    losses, targets = [], method.prepare(inputs, teacher_targets) if method.prepare else teacher_targets
    for _ in range(steps):
        state, report = take_step(state, inputs, targets)
        losses.append(float(report["loss"]))
    return state.variables.params, losses


def test_one_branch_and_labels_alone_are_plain_fine_tuning_for_ten_steps():
    encoder = encoders.Encoder(make_architecture())
    start = Start(encoder.architecture, encoders.init(encoder.architecture, jax.random.key(0)), {})
    spec = make_stage(branches="one", weight_s=0.0, weight_z=0.0, weight_h=1.0)
    ours, losses = train(mblm.build(spec, encoder), start, make_batch(), (), 10)
    plain, expected = train(finetune.build(spec, encoder), start, make_batch(), (), 10)
    np.testing.assert_allclose(losses, expected, atol=1e-6)
    assert losses[-1] < losses[0]
    joined = {"encoder": branches.join_encoder(ours["trunk"], ours["branches"], 0), "classifier": ours["classifier"]}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), joined, plain)


@pytest.mark.parametrize("mix", LEVELS)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_all_branches_give_the_same_logits_at_the_start(mix, weights):
    method, variables = make_student(spread=False, mix=mix, weights=weights)
    loss_terms = compute_terms(method, variables, make_batch(), make_targets())
    np.testing.assert_allclose(loss_terms["zero_shot"].sum, loss_terms["kd"].sum, rtol=1e-5)
    outputs = method.outputs["classify"](variables, make_batch())
    for name in ("mixture", "en", "de", "ru"):
        a, b = (jax.nn.log_softmax(outputs[key]) for key in (f"logits_{name}", "logits"))
        np.testing.assert_allclose(a, b, atol=1e-5)


def compute_by_hand(method, variables, inputs, mix):
    """Computes own logits and the uniform mixture without the own branch from ordinary encoders."""
    arch, params = make_architecture(), variables.params
    head, own, mixed = ClassifierHead(arch, 3), [], []
    firsts = []
    for k in range(3):
        encoder = branches.join_encoder(params["trunk"], params["branches"], k)
        text = inputs["text"]
        firsts.append(
            encoders.Encoder(arch).apply({"params": encoder}, text["ids"], text["mask"], text["types"])[-1][:, 0]
        )
    logits = [head.apply({"params": params["classifier"]}, x) for x in firsts]
    for row, k in enumerate(inputs["language"]):
        others = [j for j in range(3) if j != k]
        own.append(logits[k][row])
        if mix == "representation":
            mean = sum(firsts[j][row] for j in others) / 2
            mixed.append(head.apply({"params": params["classifier"]}, mean[None])[0])
        elif mix == "logits":
            mixed.append(sum(logits[j][row] for j in others) / 2)
        else:
            mixed.append(jnp.log(sum(jax.nn.softmax(logits[j][row] / 2.0) for j in others) / 2))
    return jnp.stack(own), jnp.stack(mixed)


@pytest.mark.parametrize("mix", LEVELS)
def test_the_loss_equals_one_computed_by_hand(mix):
    method, variables = make_student(mix=mix, temperature=2.0, t_squared=True)
    own, mixed = compute_by_hand(method, variables, make_batch(), mix)
    p = jax.nn.softmax(make_targets()["teacher"] / 2.0)
    kd = -4 * (p * jax.nn.log_softmax(own / 2.0)).sum(-1)
    log_q = mixed if mix == "probability" else jax.nn.log_softmax(mixed / 2.0)
    loss_terms = compute_terms(method, variables, make_batch(), make_targets())
    np.testing.assert_allclose(loss_terms["kd"].sum, kd.sum(), rtol=1e-4)
    np.testing.assert_allclose(loss_terms["zero_shot"].sum, -4 * (p * log_q).sum(), rtol=1e-4)
    hard = -jax.nn.log_softmax(own)[jnp.arange(6), make_batch()["labels"]]
    np.testing.assert_allclose(loss_terms["ce"].sum, hard.sum(), rtol=1e-4)
    assert [float(loss_terms[name].weight) for name in ("kd", "zero_shot", "ce")] == [1.0, 1.0, 0.5]


# Term, settings, and what learns from an example of the first language: trunk, its branch, the others, head, mixture.
TABLE = {
    "own branch": ("kd", {}, (True, True, False, True, False)),
    "labels": ("ce", {}, (True, True, False, True, False)),
    "own left out": ("zero_shot", {}, (True, False, True, True, True)),
    "own included": ("zero_shot", {"own": True}, (True, True, True, True, True)),
    "stop=branches": ("zero_shot", {"stop": "branches"}, (True, False, False, True, True)),
    "stop=trunk": ("zero_shot", {"stop": "trunk"}, (False, False, True, True, True)),
}


@pytest.mark.parametrize(("name", "settings", "expected"), TABLE.values(), ids=TABLE)
def test_which_parameters_learn_from_an_example(name, settings, expected):
    method, variables = make_student(layers=1, weights="learned", **settings)
    gradients = gradient(method, variables, name, replace_arrays(make_batch(), language=np.zeros(6, np.int32)))
    own, others = (jax.tree.map(lambda x, s=s: x[s], gradients["branches"]) for s in (slice(0, 1), slice(1, 3)))
    parts = (gradients["trunk"], own, others, gradients["classifier"], gradients["mixture"])
    assert tuple(sum_magnitudes(part) > 0 for part in parts) == expected


@pytest.mark.parametrize("stop", ["branches", "trunk"])
def test_stopping_a_gradient_changes_no_value(stop):
    plain, stopped = (value(*make_student(dropout=0.2, stop=s), "zero_shot") for s in ("none", stop))
    assert plain == pytest.approx(stopped, rel=1e-6)


FORMS = [("ce", "representation"), ("kl", "probability"), ("mse", "logits")]


@pytest.mark.parametrize(("kd", "mix"), FORMS)
def test_the_loss_gives_the_teacher_no_gradient(kd, mix):
    method, variables = make_student(layers=1, kd=kd, mix=mix)

    @jax.jit
    def loss(teacher):
        prepared = method.prepare(make_batch(), make_targets() | {"teacher": teacher})
        return total(method.loss(variables, make_batch(), prepared, jax.random.key(0), 0).terms)

    teacher = jnp.asarray(make_targets()["teacher"])
    assert not np.any(jax.grad(loss)(teacher))
    assert float(loss(teacher)) != float(loss(2 * teacher))


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_a_step_gives_the_teacher_no_gradient(micro_batches):
    method, variables = make_student(layers=1)

    def place(teacher):
        return make_state(variables), make_targets() | {"teacher": teacher}

    take, teacher = report_gradient(method, place, make_batch(), micro_batches), jnp.asarray(make_targets()["teacher"])
    reported, learned = take(teacher)
    assert not np.any(learned)
    assert float(reported) != float(take(2 * teacher)[0])


COMBINATIONS = [*itertools.product(LEVELS, WEIGHTS, [False]), *itertools.product(LEVELS, ["learned"], [True])]


@pytest.mark.parametrize(("mix", "weights", "own"), COMBINATIONS)
def test_gradients_are_finite(mix, weights, own):
    method, variables = make_student(layers=1, mix=mix, weights=weights, own=own, alpha=0.05)
    inputs = replace_arrays(make_batch(), mask=[1, 1, 1, 1, 0, 1], language=[0, 1, 2, 0, 0, -1])
    gradients = gradient(method, variables, "zero_shot", inputs)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
    assert sum_magnitudes(gradients) > 0


def test_ce_and_kl_have_equal_gradients_and_mse_with_t_squared_is_independent_of_temperature():
    ce, kl = (gradient(*make_student(layers=1, kd=kd, temperature=2.0), "kd") for kd in ("ce", "kl"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), ce, kl)
    expected = value(*make_student(kd="mse"), "zero_shot")
    assert value(*make_student(kd="mse", temperature=4.0, t_squared=True), "zero_shot") == pytest.approx(
        expected, rel=1e-5
    )


def test_mixing_representations_equals_mixing_logits_with_a_linear_head():
    losses = []
    for mix in ("representation", "logits"):
        method, variables = make_student(mix=mix)
        head = variables.params["classifier"]
        small = jax.tree.map(lambda x: x * 1e-3, head["dense"])  # tanh is nearly linear near 0
        head = {"dense": small, "output": {**head["output"], "kernel": head["output"]["kernel"] * 1e3}}
        losses.append(value(method, variables._replace(params=variables.params | {"classifier": head}), "zero_shot"))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert value(*make_student(), "zero_shot") != pytest.approx(
        value(*make_student(mix="logits"), "zero_shot"), rel=1e-3
    )


@pytest.mark.parametrize(
    ("warmup", "steps", "weights"),
    [
        (0.1, (0, 5, 10, 90), (0, 1, 2, 2)),
        (0.0, (0, 90), (2, 2)),
        (20.0, (10, 20), (1, 2)),
        (1.0, (0, 1, 2), (0, 2, 2)),
    ],
)
def test_the_zero_shot_term_warms_up(warmup, steps, weights):
    method, variables = make_student(layers=1, weight_z=2.0, warmup_z=warmup)
    actual = [
        float(compute_terms(method, variables, make_batch(), make_targets(), step=s)["zero_shot"].weight) for s in steps
    ]
    assert actual == pytest.approx(weights)


def test_permuting_languages_and_branches_together_changes_nothing():
    method, variables = make_student()
    other_method, _ = make_student(languages=("ru", "en", "de"))
    moved_branches = jax.tree.map(lambda x: x[np.array([2, 0, 1])], variables.params["branches"])
    permuted = variables._replace(params=variables.params | {"branches": moved_branches})
    inputs = replace_arrays(make_batch(), language=(make_batch()["language"] + 1) % 3)
    for name in ("kd", "zero_shot", "ce"):
        assert value(other_method, permuted, name, inputs) == pytest.approx(value(method, variables, name), rel=1e-5)


def test_several_languages_may_share_one_branch():
    method, variables = make_student(branches="en+de,ru")
    assert branches.count_branches(variables.params["branches"]) == 2
    outputs = method.outputs["classify"](variables, make_batch())
    assert sorted(outputs) == ["logits", "logits_en+de", "logits_mixture", "logits_ru"]
    for row, language in enumerate(make_batch()["language"]):
        np.testing.assert_array_equal(
            outputs["logits"][row], outputs["logits_ru" if language == 2 else "logits_en+de"][row]
        )
    assert sorted(method.exports(variables)) == ["branches", "de", "en", "ru"]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("head", ["shared", "branch"])
def test_branches_that_fill_a_mesh_axis_change_nothing(weights, head):
    plain, padded = (make_student(mix="logits", weights=weights, head=head, mesh=mesh) for mesh in ({}, {"branch": 4}))
    assert branches.count_branches(padded[1].params["branches"]) == 4
    terms, expected = (compute_terms(*student, make_batch(), make_targets()) for student in (padded, plain))
    for name in ("kd", "zero_shot", "ce"):
        assert float(terms[name].sum) == pytest.approx(float(expected[name].sum), rel=1e-5)
    a, b = (method.outputs["classify"](variables, make_batch()) for method, variables in (plain, padded))
    assert a.keys() == b.keys()
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), a, b)
    assert (
        branches.count_branches(padded[0].exports(padded[1].params and padded[1])["branches"].encoder["branches"]) == 3
    )


def test_a_dirichlet_draw_depends_on_the_step_and_the_position_in_the_batch_alone():
    method, variables = make_student(weights="dirichlet", alpha=0.3)
    expected, with_other_key = (value(method, variables, "zero_shot", key=key) for key in (3, 4))
    assert expected == with_other_key  # The dropout key of the step does not change the draw.
    assert value(method, variables, "zero_shot", step=51) != pytest.approx(expected, rel=1e-4)
    prepared = method.prepare(make_batch(), make_targets())

    @jax.jit
    def sum_losses(part, part_targets):
        return method.loss(variables, part, part_targets, jax.random.key(9), 50).terms["zero_shot"].sum

    parts = []
    for rows in (np.arange(0, 6, 2), np.arange(1, 6, 2)):  # Micro-batches are cut this way.
        parts.append(sum_losses(*jax.tree.map(lambda x, r=rows: x[r], (make_batch(), prepared))))
    assert float(sum(parts)) / 6 == pytest.approx(expected, rel=1e-5)


@pytest.mark.long
def test_micro_batches_and_padded_rows_change_nothing():
    encoder = encoders.Encoder(make_architecture(1))
    start = Start(encoder.architecture, encoders.init(encoder.architecture, jax.random.key(0), 1.0), {})
    method = mblm.build(make_stage(weights="dirichlet"), encoder)
    labelled = replace_arrays(make_batch(), labelled=[1, 0, 1, 1, 1, 1])
    teacher_targets = make_targets() | {"taught": np.float32([1, 1, 0, 1, 1, 1])}
    params, losses = train(method, start, labelled, teacher_targets, 3)
    accumulated, accumulated_losses = train(method, start, labelled, teacher_targets, 3, micro_batches=3)
    longer = [jax.tree.map(lambda x: np.concatenate([x, x[:3]]), tree) for tree in (labelled, teacher_targets)]
    longer[0]["mask"][6:] = 0
    padded, padded_losses = train(method, start, *longer, 3)
    for other_params, values in ((accumulated, accumulated_losses), (padded, padded_losses)):
        np.testing.assert_allclose(values, losses, rtol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), params, other_params)


def test_an_example_counts_for_a_term_if_it_has_a_teacher_a_label_or_a_branch():
    method, variables = make_student(layers=1)
    inputs = replace_arrays(make_batch(), labelled=[1, 1, 1, 0, 1, 1], language=[0, 1, 2, 0, 1, -1])
    teacher_targets = make_targets() | {"taught": np.float32([1, 0, 1, 1, 1, 1])}
    loss_terms = compute_terms(method, variables, inputs, teacher_targets)
    assert [float(loss_terms[name].count) for name in ("kd", "zero_shot", "ce")] == [4, 4, 4]


def test_without_teachers_only_labels_can_be_learned():
    method, variables = make_student(layers=1)
    with pytest.raises(UserError, match=r"no teachers \(config.teachers\)|config.teachers: no teachers"):
        compute_terms(method, variables, make_batch(), ())
    plain, variables = make_student(layers=1, weight_s=0.0, weight_z=0.0)
    assert list(compute_terms(plain, variables, make_batch(), ())) == ["ce"]


@pytest.mark.parametrize("mix", LEVELS)
def test_the_language_of_an_example_selects_its_route(mix):
    method, variables = make_student(mix=mix, weights="learned")
    languages = np.array([0, 1, 2, -1, -1, 0])
    outputs = method.outputs["classify"](variables, replace_arrays(make_batch(), language=languages))
    for row, language in enumerate(languages):
        name = "mixture" if language < 0 else ("en", "de", "ru")[language]
        np.testing.assert_array_equal(outputs["logits"][row], outputs[f"logits_{name}"][row])
    assert not np.allclose(outputs["logits_en"], outputs["logits_de"], atol=0.01)
    w = jax.nn.softmax(variables.params["mixture"])
    logits = [outputs[f"logits_{tag}"] for tag in ("en", "de", "ru")]
    if mix == "logits":
        np.testing.assert_allclose(
            outputs["logits_mixture"], sum(a * z for a, z in zip(w, logits, strict=True)), rtol=1e-4
        )
    if mix == "probability":
        shares = sum(a * jax.nn.softmax(z) for a, z in zip(w, logits, strict=True))
        np.testing.assert_allclose(jax.nn.softmax(outputs["logits_mixture"]), shares, atol=1e-5)


def test_one_branch_gives_one_route_and_an_ordinary_classifier():
    method, variables = make_student(branches="one", weight_z=0.0)
    assert list(method.outputs["classify"](variables, make_batch())) == ["logits"]
    assert list(method.exports(variables)) == [""]


def test_a_loaded_head_is_kept_if_its_labels_have_our_order():
    arch = make_architecture()
    heads = {"classifier": init_head(ClassifierHead(arch, 3), jax.random.key(8))}
    method = mblm.build(make_stage(), encoders.Encoder(arch))
    start = Start(arch, encoders.init(arch, jax.random.key(0)), heads, LABELS)
    loaded = method.init(jax.random.key(1), start).params["classifier"]
    fresh = method.init(jax.random.key(1), start._replace(labels=LABELS[::-1])).params["classifier"]
    same = [np.array_equal(x["dense"]["kernel"], heads["classifier"]["dense"]["kernel"]) for x in (loaded, fresh)]
    assert same == [True, False]


FAULTS = {
    "nothing to mix": ({"branches": "one"}, "nothing to mix"),
    "a language twice": ({"branches": "en+de,de,ru"}, "does not contain each of en, de, ru once"),
    "a language is missing": ({"branches": "en,de"}, "does not contain each of"),
    "too many layers": ({"branch_layers": 3}, "branch_layers=3 of 2 layers"),
    "no such level": ({"mix": "mean"}, "mix=mean is not possible"),
    "probabilities by mse": ({"mix": "probability", "kd": "mse"}, "has no logits for kd=mse"),
    "no single reader": ({"head": "branch"}, "has no single head to read it"),
    "nothing to learn": ({"weight_s": 0.0, "weight_z": 0.0, "weight_h": 0.0}, "nothing is learned"),
    "a negative weight": ({"weight_z": -1.0}, "weight_z=-1.0 is not possible; give 0 to 1000000"),
    "no temperature": ({"temperature": 0.0}, "give 0.001 to 1000"),
}


@pytest.mark.parametrize(("settings", "message"), FAULTS.values(), ids=FAULTS)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UserError) as error:
        mblm.build(make_stage(**settings), encoders.Encoder(make_architecture()))
    assert message in str(error.value)


def test_the_supervised_languages_must_be_named():
    with pytest.raises(UserError, match="no supervised languages"):
        mblm.build(make_stage(languages=()), encoders.Encoder(make_architecture()))


def test_the_config_has_exactly_the_settings_that_the_method_reads():
    from xlkd.configs import mblm as config

    assert set(config.get_config("").method) - {"control"} == set(list_settings(Method))


@pytest.mark.torch
@pytest.mark.parametrize("head", ["shared", "branch"])
def test_transformers_gives_the_logits_of_each_branch(tmp_path, head):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForSequenceClassification

    from xlkd.models import hf

    method, variables = make_student(mix="logits", head=head)
    text, expected = make_batch()["text"], method.outputs["classify"](variables, make_batch())
    inputs = {"input_ids": text["ids"], "attention_mask": text["mask"], "token_type_ids": text["types"]}
    logits = {}
    for name, exported in method.exports(variables).items():
        if name == "branches":
            continue
        params = jax.device_get({"encoder": exported.encoder, **exported.heads})
        hf.save(tmp_path / name, exported.architecture, params, labels=exported.labels)
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path / name).eval()
        assert tuple(model.config.id2label.values()) == LABELS
        with torch.no_grad():
            logits[name] = model(**{k: torch.tensor(v).long() for k, v in inputs.items()}).logits.numpy()
        np.testing.assert_allclose(logits[name], expected[f"logits_{name}"], atol=1e-4)
    np.testing.assert_allclose(sum(logits.values()) / 3, expected["logits_mixture"], atol=1e-4)
