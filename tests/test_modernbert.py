# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""ModernBERT: the numbers of `transformers` in both directions, windows, and what follows from layers that differ."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from toy_models import DATA, find_golden

from xlkd import parity, trim
from xlkd.data import sources
from xlkd.errors import UserError
from xlkd.inputs.weights import override_dropout
from xlkd.models import branches, hf, layout, tokenizers
from xlkd.models.encoder import Encoder, forward_flops, init
from xlkd.models.families.modernbert import FAMILY, ModernBert
from xlkd.models.heads import ClassifierHead, MaskedLMHead, SpanHead, init_head, start_head
from xlkd.spec.stage import Encoder as EncoderSettings

RATES = {"dropout": 0.1, "attention_dropout": 0.2, "mlp_dropout": 0.1, "classifier_dropout": 0.1}
TINY = ModernBert(
    "modernbert", 40, 16, 4, 2, 20, 30, 0, 0, 0, norm_eps=1e-5, **RATES,
    global_layers=(True, False, False, True), local_attention=4, norm_bias=True,
)  # fmt: skip
KEY = jax.random.key(3, impl="rbg")
IDS = np.random.default_rng(0).integers(1, 40, (2, 12))
MASK = (np.arange(12) < np.array([[12], [7]])).astype(np.int32)


def draw_params(architecture, seed=0):
    """Returns parameters of which none has its initial value."""
    draw = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda key: init(architecture, key), jax.random.key(0))
    return jax.tree.map(lambda x: draw.normal(0, 0.4, x.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def params():
    return draw_params(TINY)


def run(encoder, params, ids=IDS, mask=MASK, **options):
    return jax.jit(lambda p: encoder.apply({"params": p}, ids, mask, **options))(params)


CLASSES = {"span": "QuestionAnswering", "classifier": "SequenceClassification", "masked_lm": "MaskedLM"}
BIASES = ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias", "decoder_bias")
CASES = {  # head: (layers, a global layer every, window, vocabulary, biases, pooling)
    "span": (4, 3, 4, 41, False, "cls"),
    "classifier": (2, 1, 128, 50, True, "mean"),
    "classifier, first token": (3, 2, 7, 64, False, "cls"),
    "masked_lm": (3, 2, 5, 37, True, "mean"),
    "masked_lm, no bias": (3, 3, 64, 33, False, "cls"),
}


def train_peer(case, folder):
    """Trains a model of `transformers` for a few steps, so that no parameter keeps its initial value, and saves it."""
    torch = pytest.importorskip("torch")
    import transformers

    head, (layers, every, window, vocabulary, bias, pooling) = case.partition(",")[0], CASES[case]
    torch.manual_seed(0)
    config = transformers.ModernBertConfig(
        vocab_size=vocabulary, hidden_size=16, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=20,
        max_position_embeddings=19, global_attn_every_n_layers=every, local_attention=window, pad_token_id=0,
        bos_token_id=None, eos_token_id=None, cls_token_id=None, sep_token_id=None, classifier_pooling=pooling,
        **dict.fromkeys(BIASES, bias), **({"num_labels": 3} if head == "classifier" else {}),
    )  # fmt: skip
    model = getattr(transformers, f"ModernBertFor{CLASSES[head]}")(config)
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05, eps=1e-12)
    for _ in range(3):
        ids = torch.randint(1, vocabulary, (4, 19))
        outputs = model(ids, attention_mask=torch.ones_like(ids))
        logits = (outputs.start_logits - 2 * outputs.end_logits) if head == "span" else outputs.logits
        optimizer.zero_grad()
        (logits * torch.randn_like(logits)).sum().backward()
        optimizer.step()
    assert all(
        (value != before[name]).any(dim=-1).all() for name, value in model.named_parameters() if "tok_" not in name
    )
    model.save_pretrained(folder)
    return model.eval()


def draw_inputs(architecture):
    """Returns rows of the longest length, of one token, and between."""
    mask = (np.arange(19) < np.array([[19], [1], [12], [4]])).astype(np.int32)
    return {
        "input_ids": np.random.default_rng(1).integers(1, architecture.vocab_size, (4, 19)) * mask,
        "attention_mask": mask,
    }


@pytest.mark.torch
@pytest.mark.parametrize("case", CASES)
def test_states_logits_and_gradients_equal_those_of_transformers_in_both_directions(case, tmp_path, monkeypatch):
    model = train_peer(case, tmp_path / "theirs")
    monkeypatch.setattr(parity, "_draw_inputs", draw_inputs)
    differences = parity.compare(str(tmp_path / "theirs"))
    assert sum(part.startswith("hidden") for part in differences) == CASES[case][0] + 1
    for part, difference in differences.items():
        assert difference < (1e-4 if part.startswith("gradient") else 2e-5), part
    checkpoint = hf.load(tmp_path / "theirs")
    hf.save(tmp_path / "ours", checkpoint.architecture, checkpoint.params, labels=checkpoint.labels)
    again, info = type(model).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values()), info
    theirs, expected = again.state_dict(), model.state_dict()
    assert theirs.keys() == expected.keys()
    assert all((theirs[name] == expected[name]).all() for name in theirs)
    kinds = ("layer_types", "rope_parameters", "local_attention", "norm_eps", "classifier_pooling", *BIASES)
    assert all(getattr(again.config, name) == getattr(model.config, name) for name in kinds)


@pytest.mark.torch
def test_a_batch_of_single_tokens_equals_that_of_transformers(tmp_path):
    torch = pytest.importorskip("torch")
    model = train_peer("span", tmp_path)
    checkpoint, ids = hf.load(tmp_path), np.array([[5], [7]])
    states = Encoder(checkpoint.architecture).apply({"params": checkpoint.params["encoder"]}, ids, np.ones_like(ids))
    with torch.no_grad():
        theirs = model(torch.tensor(ids), output_hidden_states=True).hidden_states
    for state, other in zip(states, theirs, strict=True):
        np.testing.assert_allclose(state, other.numpy(), atol=1e-5)


def test_scanned_unrolled_and_rematerialised_layers_are_the_same_with_dropout(params):
    options = {"train": True, "key": KEY}
    expected = run(Encoder(TINY), params, **options)
    for changes in ({"scan": True}, {"remat": "full"}, {"scan": True, "remat": "full"}):
        for state, other in zip(expected, run(Encoder(TINY, **changes), params, **options), strict=True):
            np.testing.assert_allclose(state, other, atol=2e-5)
    for i, state in enumerate(run(Encoder(TINY), params)):
        assert np.abs(state - expected[i]).max() > 0.1


def test_scanned_and_unrolled_layers_have_the_same_gradient(params):
    def differentiate(scan):
        encoder = Encoder(TINY, scan=scan)
        weights = jax.random.normal(KEY, (2, 12, 16)) * MASK[..., None]

        def loss(params):
            return (encoder.apply({"params": params}, IDS, MASK, train=True, key=KEY)[-1] * weights).sum()

        return jax.jit(jax.grad(loss))(params)

    unrolled, scanned = differentiate(False), differentiate(True)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4, rtol=1e-3), unrolled, scanned)
    norm = unrolled["layers"]["attention_norm"]["scale"]
    assert not np.any(norm[0])  # the first layer has none
    assert np.all(norm[1:])


@pytest.mark.parametrize(("changes", "chooses"), [({}, False), ({"remat": "full"}, False), ({"scan": True}, True)])
def test_the_program_chooses_the_kind_of_a_layer_only_in_a_scan(params, changes, chooses, monkeypatch):
    choices, cond = [], jax.lax.cond
    monkeypatch.setattr(jax.lax, "cond", lambda *arguments: choices.append(1) or cond(*arguments))
    jax.eval_shape(lambda p: Encoder(TINY, **changes).apply({"params": p}, IDS, MASK)[-1], params)
    assert bool(choices) == chooses


def test_a_local_layer_does_not_see_beyond_its_window():
    architecture = dataclasses.replace(TINY, layers=1, global_layers=(False,), local_attention=5)
    params, changed = draw_params(architecture), IDS.copy()
    changed[0, 6] += 1 - 2 * (changed[0, 6] == 39)
    before, after = (run(Encoder(architecture), params, ids)[-1][0] for ids in (IDS, changed))
    assert np.flatnonzero(np.any(before != after, axis=-1)).tolist() == [4, 5, 6, 7, 8]


@pytest.mark.parametrize("scan", [False, True])
def test_branches_are_their_encoders(params, scan):
    text = {"ids": jnp.asarray(IDS), "mask": jnp.asarray(MASK), "types": None}
    trunk, stacked = branches.split_encoder(params, 2, 3)
    stacked = jax.tree.map(lambda x: x * jnp.linspace(1, 1.2, 2).reshape(2, *[1] * (x.ndim - 1)), stacked)
    encoder = Encoder(TINY, scan=scan)

    @jax.jit
    def run_branches(trunk, stacked):
        return branches.run_branches(encoder, trunk, stacked, branches.run_trunk(encoder, trunk, text), text["mask"])

    pooled = run_branches(trunk, stacked)
    for k in range(2):
        whole = run(Encoder(TINY), branches.join_encoder(trunk, stacked, k))[-1]
        np.testing.assert_allclose(pooled[k], whole[:, 0], atol=2e-5)
    assert np.abs(pooled[0] - pooled[1]).max() > 0.1


def test_the_lowest_layers_keep_their_kinds_and_the_last_norm(params):
    checkpoint = hf.Checkpoint(TINY, {"encoder": params}, None, {})
    low = trim.keep_lowest_layers(checkpoint, 2)
    assert low.architecture.global_layers == (True, False)
    states, full = run(Encoder(low.architecture), low.params["encoder"]), run(Encoder(TINY), params)
    np.testing.assert_allclose(states[1], full[1], atol=1e-5)
    np.testing.assert_allclose(states[2], FAMILY.finish(TINY, params["final"], full[2]), atol=1e-5)


def test_a_trimmed_vocabulary_of_byte_pairs_gives_the_same_states(tmp_path):
    texts = [text for row in sources.read(DATA, "qa") for text in (row.question, row.context)]
    tokenizers.train(tmp_path / "tokenizer", texts, kind="xlm-roberta", size=500)
    tokenizer = hf.load_tokenizer(tmp_path / "tokenizer")
    architecture = dataclasses.replace(TINY, vocab_size=len(tokenizer), pad_id=tokenizer.pad_token_id)
    params = {"encoder": draw_params(architecture), "span": init_head(SpanHead(architecture), jax.random.key(1))}
    hf.save(tmp_path / "full", architecture, jax.device_get(params), tokenizer=tokenizer)
    (tmp_path / "texts.txt").write_text("the neighbouring country", encoding="utf-8")
    flags = [f"--model={tmp_path / 'full'}", f"--texts={tmp_path / 'texts.txt'}", "--layers=2"]
    trim.main([*flags, f"--out={tmp_path / 'small'}"])
    trim.main([f"--model={tmp_path / 'full'}", "--layers=2", f"--out={tmp_path / 'low'}"])
    states = []
    for folder in (tmp_path / "low", tmp_path / "small"):
        checkpoint, encoded = hf.load(folder), hf.load_tokenizer(folder)("the neighbouring country")
        assert set(encoded) == {"input_ids", "attention_mask"}
        ids = np.array([encoded["input_ids"]])
        states.append(run(Encoder(checkpoint.architecture), checkpoint.params["encoder"], ids, np.ones_like(ids)))
    assert checkpoint.architecture.vocab_size < len(tokenizer)
    jax.tree.map(np.testing.assert_array_equal, *states)


def read_config():
    return json.loads((find_golden("modernbert", "span") / "config.json").read_text())


def test_the_config_of_transformers_4_gives_the_same_architecture():
    config = read_config() | {"num_hidden_layers": 7, "layer_types": None, "rope_parameters": None}
    config |= {"global_attn_every_n_layers": 3, "global_rope_theta": 7e4, "local_rope_theta": 5e3}
    old = layout.read_architecture({key: value for key, value in config.items() if value is not None})
    assert old.global_layers == (True, False, False, True, False, False, True)
    assert (old.global_theta, old.local_theta) == (7e4, 5e3)
    written = layout.write_config(old, {}, None)
    assert layout.read_architecture(written) == old
    for keys in (("layer_types", "rope_parameters"), ("global_attn_every_n_layers", "global_rope_theta")):
        assert layout.read_architecture({k: v for k, v in written.items() if k not in keys}) == old


def test_layers_without_a_period_are_written_for_transformers_5_only():
    architecture = dataclasses.replace(TINY, global_layers=(False, True, True, False))
    written = layout.write_config(architecture, {}, None)
    assert "global_attn_every_n_layers" not in written
    assert layout.read_architecture(written) == architecture


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 4}}}, "rope 'yarn'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope 'linear'"),
        ({"rope_parameters": [1]}, r"rope \[1\]"),
        ({"rope_parameters": {"sliding_attention": {"rope_theta": "x"}}}, "local_theta 'x'"),
        ({"rope_parameters": None, "global_rope_theta": 0}, "global_theta 0"),
        ({"rope_parameters": None, "local_rope_theta": float("inf")}, "local_theta inf"),
        ({"layer_types": ["full_attention"]}, "global_layers"),
        ({"layer_types": ["full_attention", "chunked_attention"]}, "global_layers"),
        ({"layer_types": {"a": 1}}, "global_layers"),
        ({"layer_types": None, "global_attn_every_n_layers": 0}, "global_layers"),
        ({"layer_types": None, "global_attn_every_n_layers": True}, "global_layers"),
        ({"layer_types": None, "num_hidden_layers": 10**9}, "layers 1000000000"),
        ({"local_attention": 0}, "local_attention 0"),
        ({"local_attention": 4.0}, "local_attention 4.0"),
        ({"mlp_dropout": True}, "mlp_dropout True"),
        ({"embedding_dropout": "0"}, "dropout '0'"),
        ({"attention_bias": 0}, "attention_bias 0"),
        ({"norm_bias": "no"}, "norm_bias 'no'"),
        ({"classifier_pooling": ["cls"]}, "classifier_pooling"),
        ({"classifier_activation": "tanh"}, "classifier_activation 'tanh'"),
        ({"hidden_activation": {"a": 1}}, "activation"),
        ({"hidden_activation": "swish2"}, "activation 'swish2'"),
        ({"num_attention_heads": 16}, "heads of 1 values"),
        ({"num_attention_heads": 3}, "3 heads do not divide"),
        ({"hidden_size": None}, "hidden_size' is missing"),
    ],
)
def test_an_impossible_config_is_refused_in_one_line(change, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users do not have the annotations checked
    config = {key: value for key, value in (read_config() | change).items() if value is not None}
    with pytest.raises(UserError, match=message) as caught:
        layout.read_architecture(config)
    assert "\n" not in str(caught.value)


def test_heads_of_the_same_names_are_read_as_the_class_that_the_config_names(tmp_path):
    checkpoint = hf.load(find_golden("modernbert", "classifier"))
    hf.save(tmp_path / "out", checkpoint.architecture, checkpoint.params)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    for classes in (None, "x", ["ModernBertForTokenClassification"]):
        (tmp_path / "out" / "config.json").write_text(json.dumps(config | {"architectures": classes}))
        assert set(hf.load(tmp_path / "out").params) == {"encoder"}
    with pytest.raises(ValueError, match="several heads"):
        layout.to_tensors(checkpoint.architecture, checkpoint.params | {"span": checkpoint.params["classifier"]})


def test_one_setting_replaces_every_dropout_rate():
    architecture = override_dropout(TINY, EncoderSettings(dropout=0.5))
    rates = {name: value for name, value in dataclasses.asdict(architecture).items() if "dropout" in name}
    assert rates == dict.fromkeys(RATES, 0.5)
    assert override_dropout(TINY, EncoderSettings()) == TINY
    architecture = override_dropout(TINY, EncoderSettings(dropout=0.5, attention_dropout=0.0))
    assert (architecture.attention_dropout, architecture.mlp_dropout) == (0.0, 0.5)


def test_operations_grow_with_the_length_in_global_layers_and_with_the_window_in_local_ones():
    linear = 4 * (8 * 16**2 + 6 * 16 * 20)
    assert forward_flops(TINY, 1, 1) == linear + 4 * 16 * 4
    assert forward_flops(TINY, 100, 1) == 100 * (linear + 4 * 16 * (2 * 100 + 2 * 5))


def test_a_new_head_begins_with_the_linear_map_and_the_norm_of_a_trained_masked_lm_head():
    trained = draw_head(MaskedLMHead(TINY))
    for name, head in (("span", SpanHead(TINY)), ("classifier", ClassifierHead(TINY, 3))):
        fresh, started = init_head(head, KEY), start_head(name, head, KEY, {"masked_lm": trained})
        assert started["dense"] is trained["dense"]
        assert started["norm"] is trained["norm"]
        np.testing.assert_array_equal(started["output"]["kernel"], fresh["output"]["kernel"])
        assert jax.tree.all(jax.tree.map(np.array_equal, start_head(name, head, KEY, {}), fresh))


def draw_head(head):
    draw = np.random.default_rng(1)
    return jax.tree.map(lambda x: draw.normal(0, 0.4, x.shape).astype(np.float32), init_head(head, KEY))
