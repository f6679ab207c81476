# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""DeBERTa: equal to `transformers` for every kind of attention; scan, remat, dropout, branches, trimming, settings."""

import dataclasses
import functools
import json
import pathlib
import shutil
import struct
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlkd import parity
from xlkd.errors import UserError
from xlkd.inputs.weights import override_dropout
from xlkd.models import branches, disentangled, hf, vocab
from xlkd.models.encoder import Encoder, forward_flops, init
from xlkd.models.families import deberta
from xlkd.models.families.deberta import Deberta, index_differences
from xlkd.models.heads import MaskedLMHead, init_head
from xlkd.spec.stage import Encoder as EncoderSettings

GOLDEN = pathlib.Path(__file__).parent / "golden" / "encoders" / "deberta-v2"
KEY = jax.random.key(3, impl="rbg")
TINY = Deberta(
    "deberta-v2",
    *(40, 16, 2, 2, 24, 12, 2, 0, 0),
    embedding_size=10,
    relative_attention=True,
    relative_norm=True,
    pos_att_type="c2p|p2c",
    position_buckets=6,
    max_relative_positions=12,
    conv_kernel_size=3,
)
MDEBERTA = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "relative_attention": True,
    "position_buckets": 6,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
    "type_vocab_size": 0,
    "legacy": False,
    "vocab_size": 41,
}
LONG = [
    ("ForQuestionAnswering", {"pos_att_type": "c2p", "vocab_size": 67}),
    ("ForSequenceClassification", {"pos_att_type": None, "pooler_hidden_act": "tanh"}),
    ("ForMaskedLM", {"share_att_key": False}),
    ("ForMaskedLM", {"legacy": True, "embedding_size": 10, "type_vocab_size": 1, "position_biased_input": True}),
    ("ForQuestionAnswering", {"conv_kernel_size": 5, "conv_groups": 2, "conv_act": "gelu", "type_vocab_size": 2}),
    ("ForSequenceClassification", {"position_buckets": 4, "max_relative_positions": 7, "conv_kernel_size": 3}),
]
QUICK = [
    ("ForMaskedLM", {"relative_attention": False, "position_biased_input": True, "type_vocab_size": 2, "legacy": True}),
    ("ForMaskedLM", {"share_att_key": False, "pos_att_type": ["p2c"], "position_buckets": -1, "norm_rel_ebd": "none"}),
]


@pytest.fixture(scope="module")
def tiny():
    """Returns parameters of TINY, ids and a mask; no bias is zero, so that a missing one is noticed."""
    draw = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda key: init(TINY, key), jax.random.key(0))
    params = jax.tree.map(lambda x: draw.normal(0, 0.4, x.shape).astype(np.float32), shapes)
    mask = (np.arange(9) < np.array([[9], [5], [1]])).astype(np.int32)
    return params, draw.integers(1, 40, (3, 9)), mask


@functools.cache
def compile_encoder(architecture=TINY, **options):
    train = {"train": True, "key": KEY} if options.pop("train", False) else {}
    run = Encoder(architecture, **options)
    return jax.jit(lambda params, *inputs: run.apply({"params": params}, *inputs, **train))


@pytest.mark.torch
@pytest.mark.parametrize(
    ("classes", "changes"), QUICK + [pytest.param(*case, marks=pytest.mark.long) for case in LONG], ids=str
)
def test_a_trained_model_equals_transformers_and_so_does_its_export(classes, changes, tmp_path):
    torch = pytest.importorskip("torch")
    import transformers

    torch.manual_seed(0)
    config = transformers.DebertaV2Config(**MDEBERTA | changes)
    model = getattr(transformers, f"DebertaV2{classes}")(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    mask = (torch.arange(20) < torch.tensor([[20], [9], [1]])).long()
    inputs = {"input_ids": torch.randint(1, config.vocab_size, (3, 20)) * mask, "attention_mask": mask}
    if config.type_vocab_size > 1:
        inputs["token_type_ids"] = (torch.arange(20) > 6).long() * mask
    for _ in range(3):  # no parameter keeps its initial value
        outputs = model(**inputs)[0]
        optimizer.zero_grad()
        (outputs * torch.cos(torch.arange(outputs.numel())).reshape(outputs.shape)).square().mean().backward()
        optimizer.step()
    model.eval().save_pretrained(tmp_path / "trained")
    for part, difference in parity.compare(str(tmp_path / "trained")).items():
        assert difference < (1e-3 if part.startswith("gradient") else 1e-5), part
    checkpoint = hf.load(tmp_path / "trained")
    hf.save(tmp_path / "out", checkpoint.architecture, checkpoint.params)
    exported, info = type(model).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    with torch.no_grad():
        np.testing.assert_allclose(exported.eval()(**inputs)[0], model(**inputs)[0], atol=1e-5)


@pytest.mark.torch
def test_differences_are_in_the_buckets_of_transformers():
    torch = pytest.importorskip("torch")
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    for buckets, longest, length in ((256, 512, 512), (256, 512, 600), (6, 12, 12), (100, 400, 400), (33, 257, 257)):
        architecture = dataclasses.replace(TINY, position_buckets=buckets, max_relative_positions=longest)
        first, index = index_differences(architecture, length)
        theirs = make_log_bucket_position(torch.arange(1 - length, length), buckets, longest).long() + buckets
        np.testing.assert_array_equal(first + index, theirs.clamp(0, 2 * buckets - 1))


def attend_by_gathers(q, k, v, keys, queries, index, bias, scale):
    length = q.shape[1]
    bucket = index[np.arange(length)[:, None] - np.arange(length)[None] + length - 1]
    scores = jnp.einsum("blhd,bmhd->bhlm", q, k)
    scores += 0 if keys is None else jnp.einsum("blhd,lmhd->bhlm", q, keys[bucket])
    scores += 0 if queries is None else jnp.einsum("bmhd,lmhd->bhlm", k, queries[bucket])
    return jnp.einsum("bhlm,bmhd->blhd", jax.nn.softmax(scores * scale + bias), v)


@pytest.mark.parametrize("length", [1, 70])
def test_attention_and_its_gradient_equal_the_formula_with_gathers(length):
    draw = np.random.default_rng(0)
    assert disentangled.BLOCK < 70
    index = np.sort(draw.integers(0, 30, 2 * length - 1))
    q, k, v, weights = draw.normal(size=(4, 2, length, 2, 4)).astype(np.float32)
    keys, queries = draw.normal(size=(2, 30, 2, 4)).astype(np.float32)
    bias = np.where(np.arange(length) < np.array([[length], [max(length - 5, 1)]]), 0.0, -1e9)[:, None, None]
    bias = jnp.asarray(bias, jnp.float32)

    def differentiate(attend, k, queries):
        def total(*arrays):
            output = attend(*arrays, index, bias, 0.3)
            return (output * weights).sum(), output

        return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2, 3), has_aux=True))(q, k, v, keys, queries)

    for ours, theirs in zip(
        *(jax.tree.leaves(differentiate(f, k, queries)) for f in (disentangled.attend, attend_by_gathers)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_scanned_and_unrolled_layers_have_the_same_dropout(tiny):
    unrolled, scanned = (compile_encoder(scan=scan, train=True)(*tiny) for scan in (False, True))
    for one, other in zip(unrolled, scanned, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.abs(unrolled[-1] - compile_encoder()(*tiny)[-1]).max() > 0.1


def test_relative_positions_have_a_dropout_of_their_own(tiny):
    params, ids, mask = tiny
    tables, first = params["embeddings"], jax.tree.map(lambda x: x[0], params["layers"])
    architecture = dataclasses.replace(TINY, dropout=0.5, attention_dropout=0.0)
    prepared, hidden = deberta.prepare(TINY, tables, mask, jnp.float32), deberta.embed(TINY, tables, ids)

    @jax.jit
    def attend(key, number):
        return deberta._run_attention(architecture, first, hidden, prepared, jnp.float32, key, number)

    outputs = [attend(None, 0), attend(KEY, 0), attend(KEY, 1)]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(outputs[i] - outputs[j]).max() > 0.01


def test_remat_has_the_same_gradients_also_of_the_relative_table(tiny):
    params, ids, mask = tiny

    def loss(params, remat):
        states = Encoder(TINY, scan=True, remat=remat).apply({"params": params}, ids, mask, train=True, key=KEY)
        return jnp.square(states[-1] * mask[..., None]).sum()

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    plain = gradient(params, "none")
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-3, rtol=1e-3), plain, gradient(params, "full"))
    assert np.abs(plain["embeddings"]["relative"][1:]).max(axis=1).min() > 0  # the first is for 11 tokens and more


def test_padding_changes_nothing_and_bfloat16_little(tiny):
    params, ids, mask = tiny
    narrow = compile_encoder()(params, ids, mask)
    wide = compile_encoder()(params, *(np.pad(x, ((0, 0), (0, 3)), constant_values=0) for x in (ids, mask)))
    single = compile_encoder()(params, ids[:, :1], mask[:, :1])
    half = compile_encoder(dtype=jnp.bfloat16)(params, ids, mask)
    for state, padded, alone, rounded in zip(narrow, wide, single, half, strict=True):
        np.testing.assert_allclose(padded[:, :9][mask == 1], state[mask == 1], atol=1e-5)
        np.testing.assert_allclose(alone[2, 0], state[2, 0], atol=1e-5)
        assert rounded.dtype == jnp.bfloat16
        assert np.abs(rounded.astype(jnp.float32) - state)[mask == 1].mean() < 3e-2


def test_equal_branches_compute_what_the_encoder_does(tiny):
    params, ids, mask = tiny
    encoder, mask = Encoder(TINY), jnp.asarray(mask)
    text = {"ids": jnp.asarray(ids), "types": jnp.zeros_like(ids), "mask": mask}
    trunk, copies = branches.split_encoder(params, 2, 1)

    @jax.jit
    def run(trunk, copies):
        hidden = branches.run_trunk(encoder, trunk, text)
        return branches.run_branches(encoder, trunk, copies, hidden, mask)

    whole = compile_encoder()(params, ids, jnp.asarray(mask))[-1][:, 0]
    for branch in run(trunk, copies):
        np.testing.assert_allclose(branch, whole, atol=1e-5)


def test_fewer_tokens_and_layers_compute_the_same(tiny):
    checkpoint, ids, mask = hf.load(GOLDEN), tiny[1], tiny[2]
    tokens = np.union1d(ids, 0)
    trimmed = vocab.select_tokens(checkpoint, tokens)
    whole = compile_encoder(checkpoint.architecture)(checkpoint.params["encoder"], ids, mask)
    encoder = trimmed.params["encoder"]
    fewer = compile_encoder(trimmed.architecture)(encoder, np.searchsorted(tokens, ids), mask)
    np.testing.assert_allclose(fewer[-1], whole[-1], atol=1e-6)
    architecture = dataclasses.replace(checkpoint.architecture, layers=1)
    params = checkpoint.params["encoder"]
    params = params | {"layers": jax.tree.map(lambda x: x[:1], params["layers"])}
    np.testing.assert_allclose(compile_encoder(architecture)(params, ids, mask)[-1], whole[1], atol=1e-6)


def test_an_override_of_dropout_covers_every_rate():
    architecture = override_dropout(dataclasses.replace(TINY, pooler_dropout=0.4), EncoderSettings(dropout=0.25))
    rates = {getattr(architecture, f"{name}dropout") for name in ("", "attention_", "classifier_", "pooler_")}
    assert rates == {0.25}


def test_position_terms_are_counted():
    without = dataclasses.replace(TINY, pos_att_type="")
    assert forward_flops(TINY, 40, 4) - forward_flops(without, 40, 4) == 40 * 2 * 2 * 2 * 10 * 16


def test_a_masked_lm_head_is_as_wide_as_the_table_of_words(tiny):
    head = MaskedLMHead(TINY)
    params = init_head(head, KEY)
    assert params["dense"]["kernel"].shape == (16, 10)
    logits = head.apply({"params": params}, jnp.ones((1, 2, 16)), tiny[0]["embeddings"]["words"])
    assert logits.shape == (1, 2, 40)


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"pos_att_type": "p2p|c2p"}, "pos_att_type 'p2p' is not supported"),
        ({"position_buckets": 1}, "1 position_buckets cannot divide 12"),
        ({"position_buckets": 8, "max_relative_positions": 4}, "8 position_buckets cannot divide 4"),
        ({"pooler_dropout": 2}, "pooler_dropout 2 is not possible"),
        ({"pooler_hidden_act": "mish"}, "pooler_hidden_act 'mish' is not supported"),
        ({"conv_kernel_size": 4}, "convolution of 4 positions in 1 groups"),
        ({"conv_kernel_size": 3, "conv_groups": 3}, "convolution of 3 positions in 3 groups"),
        ({"embedding_size": 0}, "embedding_size 0 is not possible"),
        ({"embedding_size": 8}, "embedding_size 8 does not fit the masked-LM head"),
        ({"pooler_hidden_size": 8}, "pooler_hidden_size 8 is not supported"),
        ({"attention_head_size": 4}, "attention_head_size 4 is not supported"),
        ({"share_att_key": False}, r"lack encoder\.layer\.0\.attention\.self\.pos_key_proj"),
        ({"position_buckets": 5}, r"rel_embeddings\.weight has shape \[12, 16\], config\.json asks for \[10, 16\]"),
    ],
)
def test_settings_that_are_impossible_or_not_those_of_the_weights_are_refused(changes, pattern, tmp_path):
    folder = pathlib.Path(shutil.copytree(GOLDEN, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=pattern) as caught:
        hf.load(folder)
    assert "\n" not in str(caught.value)


def test_settings_of_wrong_types_are_refused_in_one_line(tmp_path):
    hostile = {
        "pos_att_type": [[1], {"c2p": 1}, 3, ["p2c", None]],
        "norm_rel_ebd": [["layer_norm"], 1, None],
        "position_buckets": ["256", None, 2.0, True, [], 10**12],
        "max_relative_positions": [1e9, None, "12", 10**12],
        "share_att_key": ["yes", None, 1],
        "relative_attention": [1, "true", {}],
        "embedding_size": ["16", -1, [16]],
        "pooler_hidden_act": [None, 1, ["gelu"]],
        "pooler_dropout": ["0", None, -1],
        "conv_kernel_size": [-1, None, "3"],
        "conv_groups": [0, None],
        "legacy": [None, 1, "false"],
        "pooler_hidden_size": ["16", [16]],
        "type_vocab_size": [-1, None, "2"],
    }
    cases = [{name: value} for name, values in hostile.items() for value in values]
    program = (  # in another process, because the tests check the types of a dataclass's fields themselves
        "import json, sys\n"
        "from xlkd.errors import UserError\n"
        "from xlkd.models.layout import read_architecture\n"
        "config = json.load(open(sys.argv[1]))\n"
        "for case in json.loads(sys.argv[2]):\n"
        "    try:\n"
        "        print('accepted', case, read_architecture(config | case))\n"
        "    except UserError as error:\n"
        "        print('refused', error)\n"
    )
    run = [sys.executable, "-c", program, str(GOLDEN / "config.json"), json.dumps(cases)]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == len(cases)
    assert [line for line in lines if not line.startswith("refused config.json: ")] == []


def field(number, value):
    """Returns a field of a message of protocol buffers."""
    if isinstance(value, int):
        return bytes([number << 3 & 127 | (128 if number > 15 else 0)] + [number >> 4] * (number > 15) + [value])
    if isinstance(value, float):
        return bytes([number << 3 | 5]) + struct.pack("<f", value)
    size = len(value)
    return bytes([number << 3 | 2] + ([size] if size < 128 else [size & 127 | 128, size >> 7])) + value


@pytest.fixture
def spm(tmp_path):
    """Returns the folder of a SentencePiece model without a table of characters."""
    pieces = [("[PAD]", 0.0, 3), ("[CLS]", 0.0, 3), ("[SEP]", 0.0, 3), ("[UNK]", 0.0, 2), ("<x>", 0.0, 4)]
    pieces += [("▁the", -1.5, 1), ("▁", -2.0, 1), ("c", -4.0, 1), ("at", -3.0, 1), ("a", -5.0, 1), ("t", -5.0, 1)]
    data = b"".join(field(1, field(1, p.encode()) + field(2, s) + field(3, kind)) for p, s, kind in pieces)
    (tmp_path / "spm.model").write_bytes(data + field(2, field(3, 1) + field(40, 3)) + field(3, field(3, 1)))
    return tmp_path


def test_spm_model_is_read_as_a_tokenizer_and_saved_as_one(spm, tmp_path):
    tokenizer = hf.load_tokenizer(spm)
    encoded = tokenizer("the  cat <x>ü[MASK]", "at", return_token_type_ids=True)
    assert encoded["input_ids"] == [1, 5, 6, 7, 8, 4, 6, 3, 11, 2, 6, 8, 2]
    assert encoded["token_type_ids"] == [0] * 10 + [1] * 3
    assert (tokenizer.pad_token_id, tokenizer.mask_token_id, len(tokenizer)) == (0, 11, 12)
    assert tokenizer.decode([5, 6, 7, 8]) == "the cat"
    checkpoint = hf.load(GOLDEN)
    hf.save(tmp_path / "out", checkpoint.architecture, checkpoint.params, tokenizer=spm)
    assert hf.load_tokenizer(tmp_path / "out")("the cat at")["input_ids"] == tokenizer("the cat at")["input_ids"]


def test_a_damaged_spm_model_is_refused_in_one_line(spm):
    data = (spm / "spm.model").read_bytes()
    damaged = [
        data[:-3],
        b"",
        b"\xff" * 30,
        data.replace(b"[CLS]", b"[CLT]"),
        data.replace(b"\x18\x01\xc0", b"\x18\x02\xc0"),
    ]
    for content in damaged:
        (spm / "spm.model").write_bytes(content)
        with pytest.raises(UserError) as caught:
            hf.load_tokenizer(spm)
        assert "spm.model" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_spm_model_gives_the_ids_of_sentencepiece(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    texts = [
        "Die Katze saß auf der Matte.",
        "Кошка сидела на коврике.",
        "猫坐在垫子上，ｆｕｌｌ ② ﬁne",
        "القط جلس",
        "ﾈｺ a\u3000b é",
    ]
    names = {f"{name}_piece": f"[{name.upper()}]" for name in ("pad", "unk")} | {
        "bos_piece": "[CLS]",
        "eos_piece": "[SEP]",
    }
    ids = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3}
    (tmp_path / "texts").write_text("\n".join(texts * 20))
    options = {"model_prefix": str(tmp_path / "spm"), "vocab_size": 80, "character_coverage": 1.0, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(input=str(tmp_path / "texts"), **names, **ids, **options)
    peer = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spm.model"))
    tokenizer = hf.load_tokenizer(tmp_path)
    for text in [*texts, "  ＫＡＴＺＥ  Мат\tte…  ", "\u0e19\u0e33 x²"]:
        assert tokenizer(text)["input_ids"] == [1, *peer.encode(text), 2]
