# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Model folders that mislead: what is loaded equals the file and every id has a row, or one line says what is wrong.

XLKD_EXAMPLES=2000 runs many more examples; the tests marked `long` run 500.
"""

import base64
import copy
import json
import os
import pathlib
import shutil

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from qa_toys import make_word_tokenizer
from safetensors.numpy import load_file, save_file

from xlkd import compat
from xlkd.errors import UserError, escape_controls
from xlkd.evaluation.evaluator import check_finite
from xlkd.models import hf, layout
from xlkd.models.families import find_form
from xlkd.models.tensors import Tensors
from xlkd.tasks.tokenization import TextTokenizer

GOLDEN = pathlib.Path(__file__).parent / "golden" / "encoders" / "bert"
WORDS = [f"w{i}" for i in range(20)]
LAYER = "bert.encoder.layer.1."
QUERY = f"{LAYER}attention.self.query"


def run_examples(number):
    return settings(
        max_examples=int(os.environ.get("XLKD_EXAMPLES", number)),
        derandomize="XLKD_EXAMPLES" not in os.environ,
        phases=[Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Returns a BERT of 40 tokens with all heads, and a tokenizer of 24 words."""
    checkpoint = hf.load(GOLDEN)
    folder = tmp_path_factory.mktemp("models") / "base"
    tokenizer = make_word_tokenizer(WORDS)
    return hf.save(folder, checkpoint.architecture, checkpoint.params, labels=("a", "b", "c"), tokenizer=tokenizer)


@pytest.fixture
def folder(base, tmp_path):
    return pathlib.Path(shutil.copytree(base, tmp_path / "model"))


def write_weights(folder, tensors, name="model.safetensors"):
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / name)


def write_json(folder, name, value):
    (folder / name).write_text(json.dumps(value), encoding="utf-8")


def refuse(load, pattern):
    with pytest.raises(UserError, match=pattern) as caught:
        load()
    assert str(caught.value) == escape_controls(str(caught.value))


def load_or_refuse(load):
    """Returns what was loaded, or None for an error of one line."""
    try:
        return load()
    except UserError as error:
        line = str(error)
    assert line == escape_controls(line)
    return None


# Weights


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(np.nan, np.float32), (np.inf, np.float16), (-np.inf, ml_dtypes.bfloat16), (1e300, np.float64)],
)
def test_a_value_that_is_not_finite_is_refused_with_the_name_of_its_tensor(folder, value, dtype):
    tensors = load_file(folder / "model.safetensors")
    bias = tensors["qa_outputs.bias"].astype(dtype)
    bias[1] = value
    write_weights(folder, tensors | {"qa_outputs.bias": bias})
    refuse(
        lambda: hf.load(folder), r"model\.safetensors: tensor qa_outputs\.bias has 1 values that are NaN or infinite"
    )


def copy_layer(tensors):
    return {name.replace("layer.1.", "layer.2."): value for name, value in tensors.items() if "layer.1." in name}


WRONG_TENSORS = {
    "another layer": (copy_layer, "the weights have 3 layers, config.json says 2"),
    "another layer without prefix": (
        lambda t: {name.removeprefix("bert."): value for name, value in copy_layer(t).items()},
        "the weights have 3 layers, config.json says 2",
    ),
    "LoRA": (
        lambda t: {f"{QUERY}.lora_A.default.weight": np.ones((4, 16))},
        "lora_A.default.weight is part of an adap",
    ),
    "base layer": (lambda t: {f"{QUERY}.base_layer.weight": t[f"{QUERY}.weight"]}, "merge the adapter first"),
    "PEFT": (lambda t: {f"base_model.model.{QUERY}.weight": t[f"{QUERY}.weight"]}, "merge the adapter first"),
    "saved modules": (lambda t: {"classifier.modules_to_save.default.weight": np.ones(3)}, "merge the adapter first"),
    "cross-attention": (lambda t: {f"{LAYER}crossattention.self.query.weight": np.ones(3)}, "xlkd does not compute"),
    "unknown part": (lambda t: {f"{QUERY}.delta": np.ones(3)}, "xlkd does not compute"),
    "without prefix": (
        lambda t: {f"{QUERY}.weight".removeprefix("bert."): t[f"{QUERY}.weight"]},
        rf"tensors {QUERY}\.weight and .* are the same part",
    ),
    "gamma": (
        lambda t: {"bert.embeddings.LayerNorm.gamma": t["bert.embeddings.LayerNorm.weight"] + 1},
        r"tensors bert\.embeddings\.LayerNorm\.gamma and .* are the same part of the model",
    ),
    "another family": (lambda t: {"roberta.embeddings.LayerNorm.bias": np.ones(16)}, "are the same part of the model"),
}


@pytest.mark.parametrize("name", WRONG_TENSORS)
def test_tensors_that_change_the_encoder_are_refused(folder, name):
    change, pattern = WRONG_TENSORS[name]
    tensors = load_file(folder / "model.safetensors")
    write_weights(folder, tensors | {key: value.astype(np.float32) for key, value in change(tensors).items()})
    refuse(lambda: hf.load(folder), pattern)


def test_a_tensor_in_two_shards_and_an_adapter_beside_the_weights_are_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "1.safetensors")
    write_weights(folder, {f"{QUERY}.weight": tensors[f"{QUERY}.weight"]}, "2.safetensors")
    shards = dict.fromkeys(tensors, "1.safetensors") | {f"{QUERY}.weight": "2.safetensors"}
    write_json(folder, "model.safetensors.index.json", {"weight_map": shards})
    refuse(lambda: hf.load(folder), "are the same part of the model")
    (folder / "1.safetensors").rename(folder / "model.safetensors")
    write_json(folder, "adapter_config.json", {})
    refuse(lambda: hf.load(folder), r"adapter_config\.json is part of an adapter")


def test_unused_tensors_are_named_once_except_usual_ones(folder, capsys):
    tensors = load_file(folder / "model.safetensors")
    usual = {"bert.embeddings.position_ids": np.arange(12), "cls.seq_relationship.weight": np.ones((2, 16))}
    write_weights(folder, tensors | usual)
    hf.load(folder)
    assert capsys.readouterr().err == ""
    write_weights(folder, tensors | {"mlp.dense.weight": np.ones(3), "teacher.bias": np.ones(3)})
    for _ in range(2):
        assert set(hf.load(folder).params) == {"encoder", "span", "classifier", "masked_lm"}
    assert capsys.readouterr().err == f"note: {folder}: not used: mlp.dense.weight, teacher.bias\n"


def test_labels_that_are_not_those_of_the_head_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    write_json(folder, "config.json", config | {"id2label": {"0": "a", "1": "b"}})
    refuse(lambda: hf.load(folder), "id2label names 2 labels, the classification head has 3")


PLACE = st.integers(0, 10**6)
RENAMES = {
    "drop": lambda name: [],
    "no prefix": lambda name: [name.removeprefix("bert.")],
    "other prefix": lambda name: [f"distilbert.{name.removeprefix('bert.')}"],
    "nested": lambda name: [f"model.{name}"],
    "again": lambda name: [name, name.removeprefix("bert.")],
    "old": lambda name: [name.replace("LayerNorm.weight", "LayerNorm.gamma")],
    "layer": lambda name: [name, name.replace("layer.0.", "layer.7.")],
    "zero": lambda name: [name.replace("layer.0.", "layer.00.")],
    "part": lambda name: [name, f"{name}.scale"],
    "lora": lambda name: [name, name.replace(".weight", ".lora_B")],
}
CONFIG = ("num_hidden_layers", "hidden_size", "vocab_size", "model_type", "type_vocab_size", "id2label", "pad_token_id")
VALUES = (None, 0, 1, 2, 3, -1, 40, 10**9, 10**12, 2**63, 1.5, "2", "roberta", [], {"0": "a"}, True, float("nan"))
CONFIGS = st.dictionaries(st.sampled_from(CONFIG), st.sampled_from(VALUES), max_size=1)


def check_weights(base, place, renames, changes):
    """Loads weights with renamed tensors and another config: those of the encoder equal the file's, or are refused."""
    tensors = load_file(base / "model.safetensors")
    for number, rename in renames:
        name = list(tensors)[number % len(tensors)] if tensors else ""
        value = tensors.pop(name, np.zeros(1, np.float32))
        tensors |= {new: value + i for i, new in enumerate(RENAMES[rename](name))}
    write_weights(place, tensors)
    config = json.loads((base / "config.json").read_text())
    write_json(place, "config.json", config | changes)
    checkpoint = load_or_refuse(lambda: hf.load(place))
    if checkpoint:
        simplify_name = find_form(checkpoint.architecture).simplify_name
        encoder = layout.to_tensors(checkpoint.architecture, {"encoder": checkpoint.params["encoder"]})
        stored = {simplify_name(name): value for name, value in tensors.items()}
        in_body = {name for name in stored if name.startswith(("embeddings.", "encoder.", "transformer."))}
        assert {simplify_name(name) for name in encoder} == in_body
        for name, value in encoder.items():
            np.testing.assert_array_equal(value, stored[simplify_name(name)])


MUTATIONS = given(renames=st.lists(st.tuples(PLACE, st.sampled_from(list(RENAMES))), max_size=2), changes=CONFIGS)


@MUTATIONS
@run_examples(10)
def test_the_loaded_encoder_is_that_of_the_file(base, folder, renames, changes):
    check_weights(base, folder, renames, changes)


@pytest.mark.long
@MUTATIONS
@run_examples(500)
def test_the_loaded_encoder_is_that_of_the_file_in_many_cases(base, folder, renames, changes):
    check_weights(base, folder, renames, changes)


def test_safetensors_of_another_type_are_refused(folder):
    write_weights(folder, {"a": np.ones(3, np.int8), "b": np.ones(3, np.complex64)}, "x.safetensors")
    with Tensors([folder / "x.safetensors"]) as tensors:
        for name in tensors:
            refuse(lambda name=name: tensors[name], f"tensor {name} is ")


def test_outputs_that_overflow_are_refused():
    check_finite({"start_scores": np.array([[1.0, -np.inf]]), "best_start": np.array([3]), "logits": np.ones((2, 3))})
    for outputs in ({"logits": [[1, -np.inf]]}, {"start_scores": [[np.nan, 1]]}, {"best_score": [np.inf]}):
        refuse(
            lambda outputs=outputs: check_finite({k: np.array(v) for k, v in outputs.items()}), "are NaN or infinite"
        )


# Tokenizers


@pytest.fixture(scope="module")
def spec(base):
    return json.loads((base / "tokenizer.json").read_text())


def add_token(spec, number, content="<new>"):
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    spec["added_tokens"].append({"id": number, "content": content, **flags})


def set_ids(spec, ids):
    spec["post_processor"]["special_tokens"]["[CLS]"]["ids"] = ids


def set_vocabulary(spec, names):
    spec["model"]["vocab"] |= {name: len(spec["model"]["vocab"]) + i for i, name in enumerate(names)}


def set_normalizer(spec, *components):
    spec["normalizer"] = {"type": "Sequence", "normalizers": list(components)}


def make_regex(pattern):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def make_charsmap(data):
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}


LONGER = {"type": "Replace", "pattern": {"String": "w"}, "content": "w" * 50}
BEYOND = "tokens have ids beyond the 40 rows of the embedding table"
WRONG_TOKENIZERS = {
    "many words": (lambda s: set_vocabulary(s, map(str, range(30))), f"14 {BEYOND}: '16' 40, '17' 41, '18' 42, …"),
    "a high id": (lambda s: s["model"]["vocab"].update(high=2**31), f"1 {BEYOND}: 'high' 2147483648"),
    "the highest id": (lambda s: s["model"]["vocab"].update(high=2**32 - 1), BEYOND),
    "added tokens": (lambda s: [add_token(s, 24 + i, f"<{i}>") for i in range(20)], f"4 {BEYOND}: '<16>' 40"),
    "a gap before an added token": (lambda s: add_token(s, 30), "'<new>' has id 30, but follows the vocabulary as 24"),
    "one id for two tokens": (lambda s: s["model"]["vocab"].update(twice=5), "have the same id 5"),
    "special ids": (lambda s: set_ids(s, [10**6]), f"{BEYOND}: '\\[CLS\\]' 1000000"),
    "no special ids": (lambda s: set_ids(s, []), "does not have each text once"),
    "special types": (
        lambda s: s["post_processor"]["single"][0]["SpecialToken"].update(type_id=2),
        "token type 2, but",
    ),
    "many special tokens": (
        lambda s: s["post_processor"].update(
            single=s["post_processor"]["single"][:1] * 30 + s["post_processor"]["single"]
        ),
        "adds 32 special tokens",
    ),
    "texts exchanged": (lambda s: s["post_processor"]["pair"].reverse(), "each text once, in their order"),
    "a text twice": (lambda s: s["post_processor"].update(single=s["post_processor"]["single"] * 2), "each text once"),
    "multiplying texts": (lambda s: set_normalizer(s, LONGER, LONGER), "more than 1000 times longer"),
    "long prefixes": (lambda s: set_normalizer(s, {"type": "Prepend", "prepend": "x" * 2000}), "1000 times longer"),
    "a reserving table": (lambda s: set_normalizer(s, make_charsmap(b"\xff\xff\xff\xff" * 4)), "charsmap .truncated"),
    "a panic while reading": (lambda s: set_normalizer(s, make_charsmap(bytes(3))), "unreadable"),
    "a panic in use": (lambda s: set_normalizer(s, make_charsmap(b"\4\0\0\0" + b"\0" * 8)), "unreadable"),
    "an empty split": (lambda s: s.update(pre_tokenizer={"type": "FixedLength", "length": 0}), "unreadable"),
    "a wrong expression": (lambda s: s.update(pre_tokenizer=make_regex("(")), "unreadable .Oniguruma"),
    "no vocabulary": (lambda s: s["model"].update(vocab={}), "."),
    "deep nesting": (lambda s: s.update(normalizer=json.loads('{"normalizers":[' * 200 + "]}" * 200)), "recursion"),
    "long words": (
        lambda s: s["model"].update(type="WordPiece", max_input_chars_per_word=2**40, continuing_subword_prefix="##"),
        "max_input_chars_per_word is 1099511627776",
    ),
    "random tokens": (lambda s: s["model"].update(type="BPE", merges=[], dropout=0.1), "makes tokens random"),
}


@pytest.mark.parametrize("name", WRONG_TOKENIZERS)
def test_a_tokenizer_that_does_not_fit_or_takes_too_much_is_refused_in_one_line(folder, spec, name, capfd):
    changed, (change, pattern) = copy.deepcopy(spec), WRONG_TOKENIZERS[name]
    change(changed)
    write_json(folder, "tokenizer.json", changed)
    refuse(lambda: hf.load_tokenizer(folder), pattern)
    assert capfd.readouterr().err == ""


def test_many_replacements_that_do_not_lengthen_a_text_are_read(folder, spec):
    patterns = ({"Regex": " {2,}"}, {"Regex": r"\s+"}, {"Regex": "[ab]"}, {"Regex": r"\p{Han}"}, {"String": "``"})
    parts = [{"type": "Replace", "pattern": pattern, "content": "x"} for pattern in patterns * 5]
    write_json(folder, "tokenizer.json", spec | {"normalizer": {"type": "Sequence", "normalizers": parts}})
    hf.load_tokenizer(folder)


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
def test_a_special_token_without_a_row_is_refused(folder, spec, file):
    set_vocabulary(spec := copy.deepcopy(spec), map(str, range(16)))
    write_json(folder, "tokenizer.json", spec)
    hf.load_tokenizer(folder)  # 40 tokens fit
    (folder / "tokenizer_config.json").unlink()
    write_json(folder, file, {"pad_token": "[PAD]", "mask_token": "<mask>"})
    refuse(lambda: hf.load_tokenizer(folder), f"1 {BEYOND}: '<mask>' 40")


def test_a_vocabulary_with_more_words_than_the_table_is_refused(folder):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(37))]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(words))
    refuse(lambda: hf.load_tokenizer(folder), f"vocab.txt: 2 {BEYOND}: '35' 40, '36' 41")


def test_the_padding_that_positions_are_counted_from_must_be_the_tokenizers(folder):
    config = json.loads((folder / "config.json").read_text())
    write_json(folder, "config.json", config | {"model_type": "roberta", "pad_token_id": 1})
    refuse(lambda: hf.load_tokenizer(folder), "pad_token_id is 1 in config.json, but the tokenizer pads with 0")
    write_json(folder, "config.json", config | {"model_type": "roberta", "pad_token_id": 0})
    hf.load_tokenizer(folder)


@pytest.mark.parametrize(
    "part", [{"padding": {"strategy": {"Fixed": 2**40}}}, {"padding": {"pad_to_multiple_of": 2**40}}]
)
def test_padding_and_truncation_of_the_file_are_not_used(folder, spec, part):
    sides = {"direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]", "pad_to_multiple_of": None}
    padding = {"strategy": "BatchLongest"} | sides | part["padding"]
    truncation = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    write_json(folder, "tokenizer.json", spec | {"padding": padding, "truncation": truncation})
    assert len(TextTokenizer(hf.load_tokenizer(folder)).encode(["w1 w2 w3 w4 w5"]).ids) == 5


def test_a_text_on_which_the_tokenizer_fails_is_a_line_without_a_dump(folder, spec, capfd):
    write_json(folder, "tokenizer.json", spec | {"pre_tokenizer": make_regex("(x+x+)+y")})
    tokenizer = TextTokenizer(hf.load_tokenizer(folder))
    refuse(lambda: tokenizer.encode(["x" * 40]), "cannot tokenize a text .*retry-limit")
    assert capfd.readouterr().err == ""


def test_what_else_is_written_during_a_panic_is_kept(capfd):
    dump = b"\nthread '<unnamed>' (7) panicked at a.rs:1:2:\nindex\nnote: run with `RUST_BACKTRACE=1` for more\n"

    def panic():
        with compat.catch_panics():
            os.write(2, b"before\n" + dump + b"after\n")
            raise BaseException("an index\nis wrong")

    with pytest.raises(ValueError, match="an index is wrong"):
        panic()
    assert capfd.readouterr().err == "before\nafter\n"


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', '{"a": {"b": 1, "b": 1}}', '{"a": NaN}', '{"a": [-Infinity]}', "[" * 9999]
)
def test_json_that_two_readers_may_read_differently_is_refused(folder, text):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text(text)
        refuse(lambda name=name: hf.read_json(folder / name), f"{name}: unreadable")


def test_a_pipe_in_place_of_a_file_is_not_waited_for(folder):
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    refuse(lambda: hf.load(folder), "no such file")


NUMBERS = st.sampled_from([0, 1, 23, 24, 39, 40, -1, 2**31, 2**32 - 1, 2**40, 2**63, 1.5, None, "x", [], {}])
TEXTS = st.text("wW1 é\u0301\u200b\U0001f44d", max_size=30)
COMPONENTS = st.recursive(
    st.builds(lambda p, c: {"type": "Replace", "pattern": p, "content": c}, st.builds(dict, String=TEXTS), TEXTS)
    | st.builds(lambda p, c: {"type": "Replace", "pattern": {"Regex": p}, "content": c}, TEXTS, TEXTS)
    | st.builds(make_charsmap, st.binary(max_size=40))
    | st.builds(
        make_charsmap,
        st.builds(lambda size, data: bytes([size, 0, 0, 0]) + data, PLACE.map(lambda n: n % 40), st.binary()),
    )
    | st.builds(lambda text: {"type": "Prepend", "prepend": text}, TEXTS)
    | st.sampled_from(
        [{"type": kind} for kind in ("NFD", "NFKC", "Lowercase", "StripAccents", "Nmt", "ByteLevel", "None")]
    ),
    lambda inner: st.builds(lambda parts: {"type": "Sequence", "normalizers": parts}, st.lists(inner, max_size=3)),
    max_leaves=4,
)
PARTS = st.sampled_from(
    [
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 3}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"Sequence": {"id": "B", "type_id": 1}},
    ]
)
CHANGES = st.lists(
    st.tuples(st.just("vocab"), TEXTS, NUMBERS)
    | st.tuples(st.just("added"), TEXTS, NUMBERS)
    | st.tuples(st.just("ids"), st.sampled_from(["[CLS]", "[SEP]"]), st.lists(NUMBERS, max_size=3))
    | st.tuples(st.just("template"), st.sampled_from(["single", "pair"]), st.lists(PARTS, max_size=6))
    | st.tuples(st.just("part"), st.just("normalizer"), COMPONENTS)
    | st.tuples(st.just("model"), st.sampled_from(["unk_token", "type", "vocab"]), NUMBERS),
    min_size=1,
    max_size=2,
)


def check_changed_tokenizer(folder, spec, changes, capfd):
    """Loads a changed tokenizer: all that it gives has rows in the encoder's tables, or it is refused."""
    spec = copy.deepcopy(spec)
    for kind, name, value in changes:
        if kind == "vocab" and isinstance(spec["model"]["vocab"], dict):
            spec["model"]["vocab"][name] = value
        elif kind == "added":
            add_token(spec, value, name)
        elif kind == "ids":
            spec["post_processor"]["special_tokens"][name]["ids"] = value
        elif kind == "template":
            spec["post_processor"][name] = value
        elif kind == "part":
            spec[name] = value
        elif kind == "model":
            spec["model"][name] = value
    write_json(folder, "tokenizer.json", spec)
    fast = load_or_refuse(lambda: hf.load_tokenizer(folder))
    if fast:
        tokenizer = TextTokenizer(fast)
        tokens = load_or_refuse(lambda: tokenizer.encode(["w1 w2 é\u0301 \U0001f44d", "", "w" * 100]))
        if tokens:
            joined = tokenizer.join_pair(tokens[0].ids, tokens[2].ids, 12)
            assert max([0, *tokens.ids, *joined.ids]) < 40
            assert max(joined.types, default=0) < 2
            assert len(tokens.ids) <= 1000 * 200
    assert capfd.readouterr().err == ""


@given(changes=CHANGES)
@run_examples(40)
def test_a_changed_tokenizer_fits_the_encoder_or_is_refused(folder, spec, changes, capfd):
    check_changed_tokenizer(folder, spec, changes, capfd)


@pytest.mark.long
@given(changes=CHANGES)
@run_examples(500)
def test_a_changed_tokenizer_fits_the_encoder_or_is_refused_in_many_cases(folder, spec, changes, capfd):
    check_changed_tokenizer(folder, spec, changes, capfd)
