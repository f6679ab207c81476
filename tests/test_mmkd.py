# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""MMKD: golden numbers from hidden states to the gradient of a step, switches, heads, and which parameters learn."""

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stages
from step_toys import largest_absolute, make_state, report_gradient

from xlkd import settings
from xlkd.errors import UserError
from xlkd.losses.terms import mean
from xlkd.methods import Start, State, Variables, mmkd
from xlkd.models import encoder as encoders
from xlkd.models.dropout import dropout
from xlkd.models.family import Architecture
from xlkd.models.heads import MaskedLMHead
from xlkd.train import optim, step

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "losses_align.json").read_text())
SCHEDULE = json.loads((pathlib.Path(__file__).parent / "golden" / "mmkd_schedule.json").read_text())
NONE = {"token": 0.0, "word": 0.0, "sentence": 0.0, "structure": 0.0}
D = 6
ARCHITECTURE = Architecture("bert", 7, D, 1, 2, 8, positions=16, types=2, pad_id=0, position_offset=0)


class TableEncoder(encoders.Encoder):
    """An encoder that looks up its last hidden states in a table, by id."""

    architecture: Architecture = ARCHITECTURE

    def apply(self, variables, ids, mask, types=None, train=False, layers=None, key=None):
        states = variables["params"]["table"][ids]
        return (0 * states, states)


def config(variant="", **method):
    """Returns stage full with changed settings of the method."""
    method = {"student_pooling": "cls", "teacher_pooling": "cls"} | method
    stage = stages.read_stage(f"configs/mmkd.py{':' + variant if variant else ''}", "full")
    return stages.resolve(stages.change(stage, **{f"method__{name}": value for name, value in method.items()}))


def make_view(size, rows=4):
    ids = np.arange(rows * size).reshape(rows, size)
    return {"ids": ids, "mask": np.ones_like(ids), "types": 0 * ids}


def assert_close(a, b, atol=1e-6):
    np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), atol=atol, rtol=0)


def build_method(c):
    return mmkd.build(c, TableEncoder(), TableEncoder())


def compute_gradient(method, variables, batch, teacher_states, micro_batches=1):
    """Computes the gradient of a step, its terms and the updated statistics."""
    state = State(jnp.zeros((), int), variables, (), (), jnp.ones((), bool))
    batch, teacher_states = jax.tree.map(jnp.asarray, (batch, teacher_states))
    targets = method.teacher.forward({"table": teacher_states}, batch)
    key = jax.random.key(0)
    return jax.jit(lambda: step.compute_gradient(method, state, batch, targets, key, micro_batches))()


@pytest.mark.parametrize(("chosen", "layer"), [(0, 2), (1, 1), (3, 3)])
def test_word_links_are_read_from_the_chosen_layer_or_at_two_thirds_of_the_depth(monkeypatch, chosen, layer):
    class NumberedEncoder(TableEncoder):
        """An encoder of three layers, whose hidden states are the number of the layer."""

        architecture: Architecture = dataclasses.replace(ARCHITECTURE, layers=3)

        def apply(self, variables, ids, mask, types=None, train=False, layers=None, key=None):
            return tuple(jnp.full((*ids.shape, D), float(number)) for number in range(4))

    layers = []
    find_nearest = mmkd.find_nearest
    monkeypatch.setattr(
        mmkd, "find_nearest", lambda a, *rest: layers.append(float(a[0, 0, 0])) or find_nearest(a, *rest)
    )
    method = mmkd.build(config(alignment_layer=chosen), NumberedEncoder(), TableEncoder())
    side = jax.tree.map(jnp.asarray, make_view(5) | {"inside": np.ones((4, 5), bool)})
    method.outputs["alignment"](Variables({"encoder": {}}), {"source": side, "target": side})
    assert layers == [layer]


@pytest.mark.parametrize(
    ("levels", "passes", "sides"),
    [
        ({"sentence": 1.0}, "shared", 1),
        ({"sentence": 1.0, "structure": 1.0}, "shared", 1),
        ({"sentence": 1.0, "structure": 1.0}, "separate", 2),
    ],
)
def test_flops_of_sentences_are_those_of_one_side_for_each_pass(levels, passes, sides):
    """Half of the tokens of a pair are in the language that the student reads."""
    method = build_method(config(**NONE | levels | {"student_passes": passes}))
    assert method.flops(1000, 10) == sides * encoders.forward_flops(ARCHITECTURE, 500, 10)


# --- words

WORD = GOLDEN["word"]


def make_word_batch(order=(0, 1, 2, 3)):
    sentences = [WORD["inputs"]["sentences"][i] for i in order]
    width = len(WORD["inputs"]["student_vectors"][0])
    firsts, exists, drawn = {}, np.zeros((4, 8), bool), np.zeros((4, width), bool)
    for side in ("student", "teacher"):
        firsts[side] = np.zeros((4, 8), int)
        for row, s in enumerate(sentences):
            word_numbers = s[f"{side}_word_of_token"]
            starts = [word_numbers.index(word) for word in range(max(word_numbers) + 1)]
            firsts[side][row, : len(starts)], exists[row, : len(starts)] = starts, True
    for row, s in enumerate(sentences):
        drawn[row, : len(s["student_token_masked"])] = s["student_token_masked"]
    teacher_view = make_view(len(WORD["inputs"]["teacher_vectors"][0])) | {"first": firsts["teacher"]}
    word = make_view(width) | {"first": firsts["student"], "drawn": drawn}
    batch = {"word": word, "teacher": teacher_view, "exists": exists, "mask": np.ones(4)}
    tables = [
        np.array(WORD["inputs"][f"{side}_vectors"])[list(order)].reshape(-1, D) for side in ("student", "teacher")
    ]
    return batch, *tables


@pytest.mark.parametrize("case", WORD["cases"], ids=lambda case: case["name"])
@pytest.mark.parametrize("published", [False, True])
def test_golden_words(float64, case, published):
    switches = {"word_label_index": "word", "word_sum": "published"} if published else {}
    method = build_method(config(**NONE | {"word": 1.0} | switches))
    batch, student, teacher = make_word_batch(case["sentence_order"])
    variables = Variables({"encoder": {"table": jnp.array(student)}})
    gradients, terms, _ = compute_gradient(method, variables, batch, teacher)
    assert_close(mean(terms["word"]), case["published" if published else "fixed"])
    if published:
        expected = np.array(case["published_gradient_student_vectors_in_batch_order"])
    else:
        expected = np.array(case["fixed_gradient_student_vectors"])[list(case["sentence_order"])]
    assert_close(gradients["encoder"]["table"].reshape(expected.shape), expected)


@pytest.mark.parametrize("golden", WORD["options_on_plain_fixed"])
def test_golden_word_options(float64, golden):
    options = {"word_anchor": golden["anchor"], "word_temperature": golden["tau"]}
    options["word_similarity"] = "cosine" if golden["cosine"] else "dot"
    batch, student, teacher = make_word_batch()
    variables = Variables({"encoder": {"table": jnp.array(student)}})
    _, terms, _ = compute_gradient(build_method(config(**NONE | {"word": 1.0} | options)), variables, batch, teacher)
    assert_close(mean(terms["word"]), golden["loss"])


# --- tokens


class Logits(MaskedLMHead):
    """A head whose logits are the hidden states."""

    def apply(self, variables, hidden, words):
        return hidden


@pytest.mark.parametrize("labels", ["all (published)", "attended", "masked (fixed)"])
def test_golden_tokens(float64, monkeypatch, labels):
    monkeypatch.setattr(mmkd, "MaskedLMHead", Logits)
    golden = GOLDEN["token"]
    logits, ids, attended, masked = (
        np.array(golden["inputs"][k]) for k in ("logits", "original_ids", "attention_mask", "masked")
    )
    counted = {"all (published)": np.ones_like(masked), "attended": attended}.get(labels, masked)
    rows, length = ids.shape
    positions = np.broadcast_to(np.arange(length), ids.shape)
    batch = {"token": make_view(length, rows=rows), "positions": positions, "labels": ids, "counted": counted}
    batch = jax.tree.map(jnp.asarray, batch)
    table = jnp.array(logits.reshape(rows * length, -1))
    variables = Variables({"encoder": {"table": table, "embeddings": {"words": ()}}, "masked_lm": {}})
    method = build_method(config(**NONE | {"token": 1.0}))
    assert method.teacher is None, "no teacher is needed"
    assert method.coupled is None
    assert_close(
        mean(method.loss(variables, batch, (), jax.random.key(0), jnp.zeros((), int)).terms["token"]),
        golden[f"labels={labels}"],
    )


# --- sentences and structure

HEADS = GOLDEN["heads"]


def make_perceptron(part):
    return {
        "inner": {"kernel": jnp.array(part["w1"]).T},
        "norm": {"scale": jnp.array(part["g1"]), "bias": jnp.array(part["b1"])},
        "outer": {"kernel": jnp.array(part["w2"]).T},
    }


def init_with_golden_heads(method, student):
    """Returns the variables of the method with the golden heads in them."""
    start = Start(ARCHITECTURE, {"table": jnp.array(student)}, {"masked_lm": {"kernel": jnp.ones(1)}})
    variables = method.init(jax.random.key(0), start)
    inputs = HEADS["inputs"]
    for name in ("sentence", "structure"):
        own = {part: make_perceptron(inputs["student_heads"][name][part]) for part in ("projector", "predictor")}
        assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, variables.params[f"{name}_0"])
        variables.params[f"{name}_0"] = own
        variables.frozen[f"{name}_0"] = {"teacher": make_perceptron(inputs["teacher_projectors"][name])}
    return jax.tree.map(jnp.asarray, variables)


def make_head_batch(rows):
    student, teacher = (np.array(HEADS["inputs"][f"{model}_cls"])[rows] for model in ("student", "teacher"))
    view = make_view(1, rows=len(student))
    return {"sentence": view, "teacher": view, "mask": np.ones(len(student), bool)}, student, teacher


COUPLED = NONE | {"sentence": 1.0, "structure": 10.0, "head_width": 5, "head_output": 4}


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("name", ["one_device_rows_0_to_3", "global_batch_8"])
def test_golden_heads_for_any_number_of_micro_batches(float64, name, micro_batches):
    golden, method = HEADS[name], build_method(config(**COUPLED))
    batch, student, teacher = make_head_batch(golden["rows"])
    gradients, terms, statistics = compute_gradient(
        method, init_with_golden_heads(method, student), batch, teacher, micro_batches
    )
    assert_close(
        [mean(terms[n]) for n in ("sentence", "structure")], [golden["sentence_loss"], golden["structure_loss"]]
    )
    assert_close(gradients["encoder"]["table"], golden["gradient_student_cls"])
    running = golden["running_after_one_step"]
    first = statistics["sentence_0"]["projector"][0]
    assert_close(first.mean, running["projector_sentence_bn1_mean"])
    assert_close(first.variance, running["projector_sentence_bn1_var_pytorch"])


def test_golden_groups_of_rows_simulate_devices(float64):
    golden = HEADS["two_devices_of_4"]
    batch, student, teacher = make_head_batch(list(range(8)))
    for options, expected in (
        ({"bn_group": 4, "structure_group": 4}, (golden["sentence_loss"], golden["structure_loss"])),
        ({"structure_group": 4}, (HEADS["global_batch_8"]["sentence_loss"], 0.1740799093)),
    ):
        method = build_method(config(**COUPLED | options))
        _, terms, _ = compute_gradient(method, init_with_golden_heads(method, student), batch, teacher)
        assert_close([mean(terms["sentence"]), mean(terms["structure"])], expected)


# --- which parameters learn

BATCH = {
    "token": make_view(5, rows=8),
    "positions": np.tile([1, 3], (8, 1)),
    "labels": np.tile([2, 4], (8, 1)),
    "counted": np.ones((8, 2), bool),
    "word": make_view(5, rows=8) | {"first": np.tile([0, 1, 3], (8, 1)), "drawn": np.tile([0, 1, 0, 0, 0], (8, 1)) > 0},
    "sentence": make_view(3, rows=8),
    "teacher": make_view(4, rows=8) | {"first": np.tile([0, 1, 2], (8, 1))},
    "exists": np.ones((8, 3), bool),
    "mask": np.ones(8, np.float32),
}
for name in ("token", "word", "sentence", "teacher"):
    BATCH[name]["ids"] = BATCH[name]["ids"] % 7
BATCH = jax.tree.map(jnp.asarray, BATCH)


class ToyEncoder(TableEncoder):
    """An encoder of two layers without attention, with dropout; enough to distinguish passes and layers."""

    def init(self, seed):
        width = self.architecture.hidden_size
        random = np.random.default_rng(seed)
        words, kernel = random.normal(size=(7, width)), random.normal(size=(2, width, width)) / 3
        words, kernel = words.astype(np.float32), kernel.astype(np.float32)
        return {"embeddings": {"words": words}, "kernel": kernel}

    def apply(self, variables, ids, mask, types=None, train=False, layers=None, key=None):
        states = [jnp.asarray(variables["params"]["embeddings"]["words"])[ids]]
        for layer, kernel in enumerate(variables["params"]["kernel"]):
            hidden = jnp.tanh(states[-1] @ kernel) + 0.1 * states[-1]
            states.append(dropout(hidden, 0.4, jax.random.fold_in(key, layer) if train else None))
        return tuple(states)


def make_toy_encoder(width=8):
    sizes = {"hidden_size": width, "layers": 2, "heads": 2, "intermediate_size": 16, "positions": 16}
    return ToyEncoder(Architecture("bert", 7, **sizes, types=2, pad_id=0, position_offset=0))


TOY = make_toy_encoder()


def build_toy_method(**method):
    return mmkd.build(config(**{"head_output": 4} | method), TOY, TOY)


def init_toy(method):
    start = Start(TOY.architecture, TOY.init(0), {}, other=TOY.init(5))
    return method.init(jax.random.key(2), start), start.other


def compute_terms(method, variables, teacher):
    def compute(variables, teacher):
        targets = method.teacher.forward(teacher, BATCH) if method.teacher else ()
        return method.loss(variables, BATCH, targets, jax.random.key(0), jnp.zeros((), int)), targets

    return jax.jit(compute)(variables, teacher)


def test_only_the_student_and_its_heads_learn():
    method = build_toy_method()
    variables, teacher = init_toy(method)
    assert set(variables.params) == {"encoder", "masked_lm", "sentence_0", "structure_0"}
    assert set(variables.frozen) == {"sentence_0", "structure_0"}
    assert set(variables.params["sentence_0"]) == {"projector", "predictor"}

    def loss(params, frozen, teacher):
        everything = Variables(params, frozen, variables.statistics)
        losses, targets = compute_terms(method, everything, teacher)
        coupled_terms, _, _ = method.coupled(everything, losses.embeddings, BATCH, targets, jnp.zeros((), int))
        return step.total(losses.terms | coupled_terms)

    learned = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    student, frozen, taught = learned(variables.params, variables.frozen, teacher)
    assert all(jnp.abs(g).max() > 0 for g in jax.tree.leaves(student["sentence_0"]))
    assert not any(g.any() for g in jax.tree.leaves((frozen, taught)))


@pytest.mark.parametrize("place_of_teacher", ["targets", "loss"])
def test_a_step_gives_the_teacher_no_gradient(place_of_teacher):
    """This holds if the teacher's projector learns, and if the teacher reads the batch inside the loss."""
    in_loss = place_of_teacher == "loss"
    method = build_toy_method(teacher_projector="trained", teacher_dropout=in_loss)
    variables, teacher = init_toy(method)

    def place(teacher):
        if in_loss:
            return make_state(variables._replace(frozen=variables.frozen | {"teacher": teacher})), ()
        return make_state(variables), method.teacher.forward(teacher, BATCH)

    take = report_gradient(method, place, BATCH)
    reported, learned = take(teacher)
    assert largest_absolute(learned) == 0
    assert float(reported) != float(take(jax.tree.map(lambda x: 1.1 * x, teacher))[0])


@pytest.mark.parametrize("projector", ["identity", "trained"])
def test_other_projectors_of_the_teacher(projector):
    method = build_toy_method(
        teacher_projector=projector, sentence=1.0, **{k: 0.0 for k in ("token", "word", "structure")}
    )
    variables, teacher = init_toy(method)

    def loss(params):
        everything = variables._replace(params=params)
        losses, targets = compute_terms(method, everything, teacher)
        coupled_terms, metrics, _ = method.coupled(everything, losses.embeddings, BATCH, targets, jnp.zeros((), int))
        return step.total(coupled_terms), metrics

    gradients, metrics = jax.jit(jax.grad(loss, has_aux=True))(variables.params)
    if projector == "identity":
        assert variables.params["sentence_0"]["predictor"]["outer"]["kernel"].shape[1] == 8, "as wide as the teacher"
        assert set(variables.frozen) == {"masked_lm"}
    else:
        assert jnp.abs(gradients["sentence_0"]["teacher"]["inner"]["kernel"]).max() > 0
        assert 0 < mean(metrics["teacher_spread"]) < 1
    assert 0 < mean(metrics["spread"]) < 1


def test_a_collapse_of_the_sentence_vectors_is_a_warning():
    random = np.random.default_rng(0)
    rows = jnp.array([1.0] * 7 + [0.0])
    scattered, constant = random.normal(size=(8, 5)), np.ones((8, 5)) + 1e-3 * random.normal(size=(8, 5))
    constant[-1] = -1.0  # a padded row
    spreads = [float(mean(mmkd.measure_spread(jnp.asarray(x, jnp.float32), rows))) for x in (scattered, constant)]
    unit = scattered[:7] / np.linalg.norm(scattered[:7], axis=1, keepdims=True)
    np.testing.assert_allclose(spreads[0], np.sqrt(1 - (unit @ unit.T).mean()), rtol=1e-5)
    assert not mmkd.warn_of_collapse({"spread": spreads[0]})
    assert "the student's vectors of different sentences" in mmkd.warn_of_collapse({"spread": spreads[1]})
    assert "the teacher's projected" in mmkd.warn_of_collapse({"spread": 0.5, "teacher_spread": 0.0})
    assert not mmkd.warn_of_collapse({"loss": 1.0}), "the token level alone has no sentence vectors"


def test_a_disabled_level_has_no_terms_targets_or_heads():
    for off in ("token", "word", "sentence", "structure"):
        method = build_toy_method(**{off: 0.0})
        variables, teacher = init_toy(method)
        losses, targets = jax.eval_shape(functools.partial(compute_terms, method), variables, teacher)
        assert off not in losses.terms
        assert off not in targets
        coupled_terms, _, statistics = jax.eval_shape(method.coupled, variables, losses.embeddings, BATCH, targets, 0)
        assert set(losses.terms) | set(coupled_terms) == {"token", "word", "sentence", "structure"} - {off}
        assert jax.tree.structure(statistics) == jax.tree.structure(variables.statistics)
        assert "masked_lm" in (variables.frozen if off == "token" else variables.params)
        assert method.exports(variables)[""].heads["masked_lm"]


def test_passes_are_shared_or_have_separate_dropout():
    for passes, same in (("shared", True), ("separate", False)):
        method = build_toy_method(student_passes=passes)
        losses, _ = compute_terms(method, *init_toy(method))
        assert bool((losses.embeddings["sentence"] == losses.embeddings["structure"]).all()) is same


def test_the_teacher_has_dropout_only_if_configured():
    method = build_toy_method()
    variables, teacher = init_toy(method)
    _, targets = compute_terms(method, variables, teacher)
    assert (targets["sentence"] == targets["structure"]).all(), "one pass"
    with_dropout = build_toy_method(teacher_dropout=True)
    variables, teacher = init_toy(with_dropout)
    assert with_dropout.teacher is None
    losses, _ = compute_terms(with_dropout, variables, teacher)
    assert (losses.embeddings["teacher_sentence"] != losses.embeddings["teacher_structure"]).any()
    assert (losses.embeddings["teacher_sentence"] != targets["sentence"]).any()


def test_vectors_of_a_file_are_targets_as_those_of_an_encoder():
    """The levels of sentences have the same loss; the other levels need no teacher."""
    layers = {"sentence_layers": ("1:-1", "2:-1"), "structure_layers": ("-1:-1",)}
    options = {"head_output": 4, "word": 0.0} | layers
    taught = mmkd.build(config(**options), TOY, make_toy_encoder(12))
    variables = taught.init(jax.random.key(2), Start(TOY.architecture, TOY.init(0), {}))
    spec = dataclasses.replace(config(**options), vector_width=12)
    method = mmkd.build(spec, TOY)
    assert method.teacher is None
    assert method.learns_vectors
    own = method.init(jax.random.key(2), Start(TOY.architecture, TOY.init(0), {}))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), own, variables))
    targets = taught.teacher.forward(make_toy_encoder(12).init(5), BATCH)

    def compute(method, targets):
        losses = method.loss(variables, BATCH, targets, jax.random.key(0), jnp.zeros((), int))
        terms = losses.terms | method.coupled(variables, losses.embeddings, BATCH, targets, 0)[0]
        return terms, losses.embeddings

    expected, embeddings = jax.jit(functools.partial(compute, taught))(targets)
    terms, own_embeddings = jax.jit(functools.partial(compute, method))({"vectors": targets["sentence"][:, 0]})
    assert jax.tree.map(jnp.shape, own_embeddings) == jax.tree.map(jnp.shape, embeddings)
    assert {name: float(mean(term)) for name, term in terms.items()} == {n: float(mean(t)) for n, t in expected.items()}
    alone = dataclasses.replace(config(**NONE | {"token": 1.0}), vector_width=12)
    assert not mmkd.build(alone, TOY).learns_vectors


def test_several_layers_are_averaged():
    terms = {}
    for layers in (("1:1",), ("2:2",), ("1:1", "2:2")):
        method = build_toy_method(word_layers=layers, sentence_layers=layers, student_passes="shared")
        variables, teacher = init_toy(method)
        losses, _ = compute_terms(method, variables, teacher)
        terms[layers] = float(mean(losses.terms["word"]))
        assert losses.embeddings["sentence"].shape == (8, len(layers), 8)
        assert len([name for name in variables.params if name.startswith("sentence")]) == len(layers)
    first, second, average = terms.values()
    assert average == pytest.approx((first + second) / 2, rel=1e-5)


def test_word_states_of_another_width_are_mapped_linearly():
    wide = make_toy_encoder(12)
    method = mmkd.build(config(head_output=4), TOY, wide)
    variables, _ = init_toy(method)
    assert variables.params["word_map"]["kernel"].shape == (1, 8, 12)
    losses, targets = compute_terms(method, variables, wide.init(0))
    assert targets["word"].shape == (8, 1, 3, 12)
    assert mean(losses.terms["word"]) > 0


def test_outputs_for_each_kind_of_evaluation():
    method = build_toy_method()
    variables, _ = init_toy(method)
    side = make_view(5, rows=3) | {"inside": np.tile([0, 1, 1, 1, 0], (3, 1)) > 0}
    side["ids"] = side["ids"] % 7
    side = jax.tree.map(jnp.asarray, side)
    links = method.outputs["alignment"](variables, {"source": side, "target": side})
    assert links["forth"].shape == (3, 128)
    assert links["forth"][:, 1:4].tolist() == links["back"][:, 1:4].tolist()
    assert set(np.unique(links["forth"][:, :5])) <= {1, 2, 3}
    vectors = method.outputs["parallel"](variables, {"text": side})
    assert vectors["vectors"].shape == vectors["cls"].shape == (3, 8)
    tokens = method.outputs["views"](variables, BATCH)
    assert tokens["count"].tolist() == [2] * 8
    assert tokens["right"].shape == (8,), "one number for each pair"
    assert set(np.unique(tokens["right"])) <= {0, 1, 2}


# --- settings


@pytest.mark.parametrize("case", SCHEDULE, ids=lambda case: f"{case['global_batch']}-{case['epochs']}")
def test_golden_schedule(case):
    warmup = case["warmup_epochs"] / case["epochs"]
    flags = (f"data.batch={case['global_batch']}", f"budget.epochs={case['epochs']}", f"optim.warmup={warmup!r}")
    c = stages.read_stage("configs/mmkd.py:paper", "full", *flags)
    assert c.optim.lr == pytest.approx(case["base_lr"])
    rate = optim.make_schedule(c.optim, case["steps_per_epoch"] * case["epochs"])
    np.testing.assert_allclose([rate(s) for s in case["steps"]], case["lr"], atol=1e-6 * case["base_lr"], rtol=1e-5)


def test_the_paper_variant_has_every_published_value():
    c = stages.resolve(stages.read_stage("configs/mmkd.py:paper", "full"))
    assert {n: getattr(c.method, n) for n in ("token", "word", "sentence", "structure")} == published_weights()
    assert (c.data.batch, c.budget.epochs, c.task.max_length, c.data.pad_to) == (256, 15, 128, 128)
    assert c.optim.lr == pytest.approx(2e-5)
    assert (c.optim.schedule, c.optim.clip, c.optim.weight_decay, c.optim.decay_mask) == ("cosine", 0.0, 0.01, "all")
    assert (c.method.bn_group, c.method.structure_group, c.method.head_output) == (32, 32, 128)
    assert (c.method.word_label_index, c.method.word_sum) == ("word", "published")
    assert (c.method.student_passes, c.method.teacher_dropout) == ("separate", True)
    assert (c.task.tlm_labels, c.task.word_truncate, c.data.cap) == ("all", False, 2_000_000)
    assert c.data.train.count("take=head") == 2
    mmkd.build(c, TOY, TOY)


def published_weights():
    return {"token": 1.0, "word": 1.0, "sentence": 1.0, "structure": 10.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method.word_anchor": "pupil"}, "choose one of teacher, student"),
        ({"task.tlm_labels": "all"}, "config.data.pad_to=128"),
        ({"method.word_sum": "published", "optim.micro_batches": 2}, "micro_batches=1"),
        ({"method.structure_temperature": 0.1}, "structure_diagonal=False"),
        ({"method.bn_group": 1}, "give 2 to 1000000, or 0"),
        ({"method.word_temperature": 0.0}, "give 0.001 to 1000"),
        ({"method.sentence_layers": "3:1"}, "not pairs of student and teacher"),
        ({"method.sentence_layers": "one"}, "not pairs of student and teacher"),
        ({"method.retrieval_layer": 3}, "no layer 3"),
        ({"method.alignment_layer": 99}, "no layer 99"),
        ({f"method.{level}": 0.0 for level in NONE}, "give token a weight"),
        ({"method.token": -1.0}, "give 0 to 1000000"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(changes, message):
    values = settings.read_config("configs/mmkd.py:own")
    flags = [f"--config.full.{key}={value}" for key, value in changes.items()]
    flags += ["--config.encoder.path=package:multilingual", "--config.teacher.path=package:english"]

    def build():
        return mmkd.build(stages.resolve(settings.read_stage(settings.apply_flags(values, flags), "full")), TOY, TOY)

    with pytest.raises(UserError) as error:
        build()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_no_teacher_is_refused_unless_none_is_needed():
    with pytest.raises(UserError, match="no teacher"):
        stages.read_stage("configs/mmkd.py", "full", "full.teacher.path=")
    assert mmkd.build(config(**NONE | {"token": 1.0}), TOY).teacher is None


SCRIPT = """
import sys, json; sys.path.insert(0, "tests")
import jax, numpy as np
import test_mmkd as t
from xlkd.runtime import mesh
from xlkd.train import optim, step
from xlkd.train import state as states
from xlkd.methods import Start

method = t.build_method(t.config(**t.COUPLED))
random = np.random.default_rng(0)
student, teacher = random.normal(size=(2, 16, 6)).astype(np.float32)
batch = {"sentence": t.make_view(1, rows=16), "teacher": t.make_view(1, rows=16), "mask": np.ones(16, bool)}
batch["mask"][[3, 15]] = False
results = []
for devices in (jax.devices()[:1], jax.devices()):
    devices_mesh = jax.sharding.Mesh(np.array(devices).reshape(-1, 1, 1, 1), mesh.AXES)
    placed = mesh.place_batch(devices_mesh, batch, 16)
    targets = mesh.place_batch(devices_mesh, method.teacher.forward({"table": teacher}, batch), 16)
    start = Start(t.ARCHITECTURE, {"table": student}, {"masked_lm": {"kernel": np.ones(1)}})
    adam = optim.make_optimizer(t.config().optim)
    state = states.create_state(method, start, adam, 0)
    state = jax.device_put(state, mesh.replicated_sharding(devices_mesh))
    take_step = jax.jit(step.make_step(method, adam, lambda s: 1e-2, seed=0, clip_norm=0.0))
    for _ in range(3):
        state, report = take_step(state, placed, targets)
    results.append(jax.device_get((state.variables.statistics, state.variables.params, report["loss"])))
print(len(jax.devices()), jax.tree.all(jax.tree.map(lambda a, b: np.allclose(a, b, rtol=1e-5, atol=1e-5), *results)))
statistics = jax.tree.leaves(results[0][0])
print(max(float(np.abs(x).max()) for x in statistics) > 0)
"""


@pytest.mark.long
def test_statistics_are_the_same_on_one_device_and_on_eight():
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": "8",
        "JAX_PLATFORMS": "cpu",
        "OMP_NUM_THREADS": "1",
    }
    root = pathlib.Path(__file__).parents[1]
    command = [sys.executable, "-c", SCRIPT]
    process = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
    assert process.stdout.split() == ["8", "True", "True"], process.stderr[-2000:]
