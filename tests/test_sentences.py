# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""An export that transformers and sentence-transformers read: the same vectors as ours, after trimming too."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stages

from xlkd import trim
from xlkd.export import cards
from xlkd.export.folder import write_export
from xlkd.inputs.weights import PACKAGED
from xlkd.methods import Export
from xlkd.models import hf, sentences
from xlkd.models.encoder import Encoder
from xlkd.models.pooling import pool
from xlkd.tasks.tokenization import TextTokenizer

SENTENCES = [
    "Anna wrote a letter.", "The train stops here!", "a", "It was Anna who went, wasn't it? " * 9,
    "Der Zug hält hier.", "¿Quién escribió la carta?", "Où est la gare ?", "Übergrößenträger",
    "Анна написала письмо.", "Поезд останавливается здесь.", "Где вокзал?", "Да",
    "كتبت آنا رسالة.", "يتوقف القطار هنا.", "أين المحطة؟",
    "आना ने एक पत्र लिखा।", "रेलगाड़ी यहाँ रुकती है।",
    "安娜写了一封信。", "火车停在这里。", "车站在哪里？",
]  # fmt: skip
LENGTH = 32


@pytest.fixture(scope="module", params=["cls", "mean"])
def student(request, tmp_path_factory):
    """Exports the packaged encoder as a stage of MMKD does; returns the folder and the pooling."""
    config = stages.read_stage("configs/mmkd.py", "full", f"task.max_length={LENGTH}")
    checkpoint = hf.load(PACKAGED / "multilingual")
    heads = {"masked_lm": checkpoint.params["masked_lm"]}
    exported = Export(checkpoint.architecture, checkpoint.params["encoder"], heads, pooling=request.param)
    folder = tmp_path_factory.mktemp(request.param) / "student"
    write_export(folder, exported, hf.load_tokenizer(PACKAGED / "multilingual"), config, {}, {"training": []})
    return folder, request.param


def compute_our_vectors(folder, pooling):
    checkpoint, tokenizer = hf.load(folder), TextTokenizer(hf.load_tokenizer(folder))
    rows = [tokenizer.join(text.ids, LENGTH).ids for text in tokenizer.encode(SENTENCES)]
    ids = np.stack([np.pad(row, (0, LENGTH - len(row)), constant_values=tokenizer.pad_id) for row in rows])
    mask = (np.arange(LENGTH) < np.array([len(row) for row in rows])[:, None]).astype(np.int32)
    hidden = Encoder(checkpoint.architecture).apply({"params": checkpoint.params["encoder"]}, ids, mask)[-1]
    return jax.device_get(pool(hidden, jnp.asarray(mask), pooling))


def test_some_sentences_are_cut_and_some_are_short(student):
    tokenizer = TextTokenizer(hf.load_tokenizer(student[0]))
    lengths = [len(text.ids) for text in tokenizer.encode(SENTENCES)]
    assert min(lengths) <= 3
    assert max(lengths) > LENGTH


def test_sentence_transformers_gives_our_vectors(student):
    library = pytest.importorskip("sentence_transformers")
    folder, pooling = student
    model = library.SentenceTransformer(str(folder), device="cpu")
    assert model.max_seq_length == LENGTH
    vectors = model.encode(SENTENCES, batch_size=7, show_progress_bar=False)
    np.testing.assert_allclose(vectors, compute_our_vectors(folder, pooling), atol=1e-5)


@pytest.mark.torch
def test_the_exported_settings_give_our_vectors_in_transformers(student):
    torch = pytest.importorskip("torch")
    from transformers import AutoModel, AutoTokenizer

    folder, pooling = student
    modules = json.loads((folder / "modules.json").read_text())
    assert [(module["type"].rpartition(".")[2], module["path"]) for module in modules] == [
        ("Transformer", ""),
        ("Pooling", "1_Pooling"),
    ]
    pooling_config = json.loads((folder / "1_Pooling" / "config.json").read_text())
    chosen = [name for name, on in pooling_config.items() if on is True]
    assert chosen == [{"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens"}[pooling]]
    longest = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(SENTENCES, padding=True, truncation="longest_first", max_length=longest, return_tensors="pt")
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(folder).eval()(**batch).last_hidden_state
    weights = batch["attention_mask"][..., None].float()
    vectors = {
        "pooling_mode_cls_token": hidden[:, 0],
        "pooling_mode_mean_tokens": (hidden * weights).sum(1) / weights.sum(1),
    }
    assert pooling_config["word_embedding_dimension"] == hidden.shape[-1]
    np.testing.assert_allclose(vectors[chosen[0]], compute_our_vectors(folder, pooling), atol=1e-5)


def test_a_trimmed_student_gives_the_same_vectors(student, tmp_path):
    folder, pooling = student
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    out = tmp_path / "small"
    trim.main([f"--model={folder}", f"--texts={tmp_path / 'texts.txt'}", f"--out={out}"])
    assert sentences.read_pooling_files(out) == sentences.read_pooling_files(folder) != {}
    np.testing.assert_allclose(compute_our_vectors(out, pooling), compute_our_vectors(folder, pooling), atol=1e-6)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: sentence-transformers\n")
    assert "The training of the full model started from `package:multilingual`" in card
    assert card.count("\n---\n") == 1, "one header, without that of the full model"
    assert "# mmkd full" in card
    assert hf.read_json(out / hf.RECORD) == hf.read_json(folder / hf.RECORD)


@pytest.mark.parametrize(
    "modules",
    [
        [],
        [1, {"type": "sentence_transformers.models.Pooling"}],
        [{"type": "a.Transformer", "path": ""}, {"type": "a.Pooling", "path": "../1_Pooling"}],
        [{"type": "a.Transformer", "path": ""}, {"type": "a.Pooling", "path": "1_Pooling"}, {"type": "a.Dense"}],
    ],
)
def test_modules_of_other_kinds_and_places_are_ignored(tmp_path, modules):
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    assert sentences.read_pooling_files(tmp_path) == {}


def test_other_methods_export_no_pooling(tmp_path):
    checkpoint = hf.load(PACKAGED / "english")
    exported = Export(checkpoint.architecture, checkpoint.params["encoder"], {})
    config = stages.read_stage("configs/finetune.py")
    write_export(tmp_path / "out", exported, hf.load_tokenizer(PACKAGED / "english"), config, {}, {})
    assert not (tmp_path / "out" / "modules.json").exists()
    assert cards.find_licence(tmp_path / "out") == "apache-2.0", "that of the packaged encoder"
