# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Hugging Face folders: a saved model loads unchanged, `transformers` computes the same, bad folders are named."""

import json
import pathlib
import shutil
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from toy_models import find_golden

from xlkd.errors import UserError
from xlkd.models import hf, hub
from xlkd.models.encoder import Encoder
from xlkd.models.families import find_family
from xlkd.models.heads import ClassifierHead, MaskedLMHead, SpanHead

GOLDEN = pathlib.Path(__file__).parent / "golden" / "encoders"
KINDS = ["bert", "roberta", "xlm-roberta", "camembert", "distilbert", "modernbert", "deberta-v2"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sat", "."]


@pytest.fixture
def folder(tmp_path):
    """Returns a copy of the tiny BERT that a test may damage."""
    return pathlib.Path(shutil.copytree(GOLDEN / "bert", tmp_path / "bert"))


def rewrite_weights(folder, change, name="model.safetensors"):
    tensors = load_file(folder / "model.safetensors")
    save_file({k: np.ascontiguousarray(v) for k, v in change(tensors).items()}, folder / name)


def assert_equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("head", ["span", "classifier", "masked_lm"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_is_loaded_unchanged(kind, head, tmp_path):
    first = hf.load(find_golden(kind, head))
    expected = {head} if kind == "modernbert" else {"span", "classifier", "masked_lm"}
    assert set(first.params) == {"encoder"} | expected
    noisy = jax.tree.map(
        lambda x: x + np.float32(1e-5) * np.arange(x.size, dtype=np.float32).reshape(x.shape), first.params
    )
    for name, x in noisy["encoder"]["layers"]["attention_norm"].items() if kind == "modernbert" else ():
        x[0] = name == "scale"  # the first layer has no such norm
    labels = ("no", "maybe", "yes") if "classifier" in noisy else None
    hf.save(tmp_path / "out", first.architecture, noisy, labels=labels, card="# A card\n")
    second = hf.load(tmp_path / "out")
    assert_equal(second.params, noisy)
    assert second.architecture == first.architecture
    assert second.labels == labels
    assert (tmp_path / "out" / "README.md").read_text() == "# A card\n"
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(second.params))


def test_a_bare_encoder_is_saved_without_heads(tmp_path):
    first = hf.load(GOLDEN / "roberta")
    hf.save(tmp_path / "out", first.architecture, {"encoder": first.params["encoder"]})
    second = hf.load(tmp_path / "out")
    assert_equal(second.params, {"encoder": first.params["encoder"]})
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == ["RobertaModel"]


def test_saving_again_replaces_the_folder_and_leaves_no_draft(tmp_path):
    first = hf.load(GOLDEN / "bert")
    hf.save(tmp_path / "out", first.architecture, first.params, card="old")
    hf.save(tmp_path / "out", first.architecture, {"encoder": first.params["encoder"]})
    assert set(hf.load(tmp_path / "out").params) == {"encoder"}
    assert not (tmp_path / "out" / "README.md").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_failed_save_leaves_the_former_folder(tmp_path):
    first = hf.load(GOLDEN / "bert")
    hf.save(tmp_path / "out", first.architecture, first.params, card="old")
    with pytest.raises(ValueError, match="2 labels for a head of 3"):
        hf.save(tmp_path / "out", first.architecture, first.params, labels=("a", "b"))
    assert_equal(hf.load(tmp_path / "out").params, first.params)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_weights_saved_as_float16_are_loaded_as_float32(tmp_path):
    first = hf.load(GOLDEN / "bert")  # its values are exact in float16
    hf.save(tmp_path / "out", first.architecture, first.params, dtype="float16")
    assert load_file(tmp_path / "out" / "model.safetensors")["qa_outputs.weight"].dtype == np.float16
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"
    assert_equal(hf.load(tmp_path / "out").params, first.params)


def remove_prefix(tensors):
    return {k.removeprefix("bert."): v for k, v in tensors.items()}


def rename_to_old(tensors):
    names = {
        k: k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta") for k in tensors
    }
    return {names[k]: v for k, v in tensors.items()} | {"bert.embeddings.position_ids": np.arange(12)[None]}


def widen(tensors):
    return {k: v.astype(np.float32) for k, v in tensors.items()}


@pytest.mark.parametrize("change", [remove_prefix, rename_to_old, widen])
def test_other_names_and_dtypes_of_the_same_weights_are_loaded(folder, change):
    rewrite_weights(folder, change)
    assert_equal(hf.load(folder).params, hf.load(GOLDEN / "bert").params)


def test_bfloat16_weights_are_loaded(folder):
    rewrite_weights(folder, lambda t: {k: v.astype(ml_dtypes.bfloat16) for k, v in t.items()})
    for ours, exact in zip(*(jax.tree.leaves(hf.load(f).params) for f in (folder, GOLDEN / "bert")), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, exact, rtol=2**-8)


def test_sharded_weights_are_loaded_by_their_index(folder):
    names = sorted(load_file(folder / "model.safetensors"))
    weight_map = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(names)}
    for shard in set(weight_map.values()):
        rewrite_weights(folder, lambda t, shard=shard: {k: v for k, v in t.items() if weight_map[k] == shard}, shard)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert_equal(hf.load(folder).params, hf.load(GOLDEN / "bert").params)
    (folder / "part-1.safetensors").unlink()
    with pytest.raises(UserError, match=r"part-1\.safetensors is missing"):
        hf.load(folder)


def test_a_pooler_without_classifier_and_an_untied_decoder_are_not_loaded_as_heads(folder):
    rewrite_weights(folder, lambda t: {k: v for k, v in t.items() if not k.startswith("classifier.")})
    assert set(hf.load(folder).params) == {"encoder", "span", "masked_lm"}
    decoder = "cls.predictions.decoder.weight"
    rewrite_weights(folder, lambda t: t | {decoder: t["bert.embeddings.word_embeddings.weight"]})
    assert "masked_lm" in hf.load(folder).params
    rewrite_weights(folder, lambda t: t | {decoder: t["bert.embeddings.word_embeddings.weight"] + 1})
    assert "masked_lm" not in hf.load(folder).params


def assert_refused(folder, pattern):
    with pytest.raises(UserError, match=pattern) as caught:
        hf.load(folder)
    assert "\n" not in str(caught.value)


def test_a_wrong_shape_names_the_tensor_and_both_shapes(folder):
    rewrite_weights(
        folder, lambda t: t | {"bert.encoder.layer.1.intermediate.dense.weight": np.zeros((24, 15), np.float16)}
    )
    assert_refused(
        folder, r"layer\.1\.intermediate\.dense\.weight has shape \[24, 15\], config\.json asks for \[24, 16\]"
    )


def test_a_missing_tensor_is_named(folder):
    rewrite_weights(folder, lambda t: {k: v for k, v in t.items() if "layer.1.attention.self.key" not in k})
    assert_refused(folder, r"lack encoder\.layer\.1\.attention\.self\.key\.bias, .*key\.weight")


def test_integer_weights_are_refused(folder):
    rewrite_weights(folder, lambda t: t | {"qa_outputs.bias": np.zeros(2, np.int8)})
    assert_refused(folder, r"qa_outputs\.bias is int8")


def test_a_pickle_is_refused_with_a_way_to_convert_it(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert_refused(folder, r"pytorch_model\.bin, a pickle.*save_pretrained")


def test_a_truncated_file_is_refused(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    assert_refused(folder, r"unreadable weights")


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        ({"model_type": "gpt2"}, "'gpt2' is not supported.*bert, roberta, xlm-roberta, camembert, distilbert"),
        ({"hidden_act": "silu"}, "'silu' is not supported"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"is_decoder": True}, "is_decoder"),
        ({"num_attention_heads": 3}, "3 heads do not divide a hidden size of 16"),
        ({"hidden_size": None}, "hidden_size"),
    ],
)
def test_an_unsupported_encoder_is_refused(folder, change, pattern):
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    assert_refused(folder, pattern)


def test_a_folder_that_is_not_a_model_is_refused(folder, tmp_path):
    assert_refused(tmp_path / "nowhere", "nowhere: no such directory")
    (folder / "config.json").write_text("{")
    assert_refused(folder, r"config\.json: unreadable")
    (folder / "config.json").unlink()
    assert_refused(folder, r"config\.json: no such file")


def test_a_tokenizer_is_built_from_a_wordpiece_vocabulary_and_saved(folder, tmp_path):
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    specials = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"do_lower_case": True, **specials, "mask_token": "[MASK]"})
    )
    checkpoint = hf.load(folder)
    hf.save(tmp_path / "out", checkpoint.architecture, checkpoint.params, tokenizer=folder)
    hf.save(tmp_path / "again", checkpoint.architecture, checkpoint.params, tokenizer=tmp_path / "out")
    for place in (folder, tmp_path / "out", tmp_path / "again"):
        tokenizer = hf.load_tokenizer(place)
        encoded = tokenizer("The cats sat.", "The cat")
        assert encoded["input_ids"] == [2, 5, 6, 7, 8, 9, 3, 5, 6, 3]
        assert encoded["token_type_ids"] == [0, 0, 0, 0, 0, 0, 0, 1, 1, 1]
        assert (tokenizer.pad_token_id, tokenizer.mask_token_id) == (0, 4)
    written = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_a_folder_without_a_tokenizer_says_how_to_make_one(folder):
    with pytest.raises(UserError, match=r"no tokenizer\.json here.*save_pretrained"):
        hf.load_tokenizer(folder)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "multilingual-e5-small"])
def test_real_tokenizers_equal_golden_tokens(shared, name):
    tokenizer = hf.load_tokenizer(shared / "models" / name)
    for case in json.loads((shared / "models" / name / "golden_tokens.json").read_text()):
        encoded = tokenizer(case["text"], case["pair"], return_offsets_mapping=True)
        assert encoded["input_ids"] == case["ids"]
        assert [list(pair) for pair in encoded["offset_mapping"]] == case["offsets"]


def test_a_local_folder_resolves_to_itself():
    assert hub.resolve(str(GOLDEN / "bert")) == (GOLDEN / "bert", None)
    with pytest.raises(UserError, match="no such directory"):
        hub.resolve("/nowhere/at/all")


@pytest.mark.parametrize("offline", ["0", "1"])
def test_without_a_network_a_hub_name_is_a_quick_error_or_found_in_the_cache(tmp_path, offline):
    program = "from xlkd.models import hub; print(hub.resolve('some/encoder'))"
    environment = {
        "PATH": "/usr/bin",
        "HF_HOME": str(tmp_path),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HUB_OFFLINE": offline,
    }
    run = [sys.executable, "-c", program]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=60)
    line = done.stderr.strip().splitlines()[-1]
    assert "UserError" in line
    assert "local directory" in line
    commit = tmp_path / "hub" / "models--some--encoder" / "snapshots" / ("0" * 40)
    commit.mkdir(parents=True)
    (commit / "model.safetensors").write_text("")
    (commit.parents[1] / "refs").mkdir()
    (commit.parents[1] / "refs" / "main").write_text("0" * 40)
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=60)
    assert str(commit) in done.stdout, done.stderr


def test_loading_and_tokenizing_import_neither_torch_nor_tensorflow(folder):
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    program = (
        "import sys; from xlkd.models import hf; hf.load(sys.argv[1]); hf.load_tokenizer(sys.argv[1]); "
        "print([name for name in ('torch', 'tensorflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


CLASSES = {
    "span": "AutoModelForQuestionAnswering",
    "classifier": "AutoModelForSequenceClassification",
    "masked_lm": "AutoModelForMaskedLM",
}


@pytest.mark.torch
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", CLASSES)
def test_transformers_computes_the_same_logits_from_an_export(kind, head, tmp_path):
    torch = pytest.importorskip("torch")
    import transformers

    checkpoint, values = hf.load(find_golden(kind, head)), np.load(find_golden(kind, head) / "golden.npz")
    architecture, params = checkpoint.architecture, {name: checkpoint.params[name] for name in ("encoder", head)}
    hf.save(tmp_path / "out", architecture, params, labels=("a", "b", "c") if head == "classifier" else None)
    model, info = getattr(transformers, CLASSES[head]).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    names = [n for n in ("input_ids", "attention_mask", "token_type_ids") if n in values.files]
    with torch.no_grad():
        theirs = model.eval()(**{name: torch.tensor(values[name]).long() for name in names})
    last = Encoder(architecture, scan=True).apply({"params": params["encoder"]}, *(values[name] for name in names))[-1]
    own = {"params": params[head]}
    if head == "span":
        pairs = zip(SpanHead(architecture).apply(own, last), (theirs.start_logits, theirs.end_logits), strict=True)
    elif head == "classifier":
        pooled = find_family(architecture).pool(architecture, last, jax.numpy.asarray(values["attention_mask"]))
        pairs = [(ClassifierHead(architecture, 3).apply(own, pooled), theirs.logits)]
        assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    else:
        words = params["encoder"]["embeddings"]["words"]
        pairs = [(MaskedLMHead(architecture).apply(own, last, words), theirs.logits)]
    for ours, other in pairs:
        valid = values["attention_mask"] == 1 if head != "classifier" else slice(None)
        np.testing.assert_allclose(np.asarray(ours)[valid], other.numpy()[valid], atol=1e-4)
