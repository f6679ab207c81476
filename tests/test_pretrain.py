# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Pre-training by masked tokens: what its step costs, and runs that continue an encoder on text and parallel text.

Numbers of its step are in test_golden_steps.py, runs of a new encoder in test_loop.py.
"""

import json

import jax
import mblm_toys
import numpy as np
import pytest
import stages
from toy_models import run_command

from xlkd import parity
from xlkd.data import sources
from xlkd.errors import UserError
from xlkd.inputs.weights import resolve_weights
from xlkd.methods import Start, pretrain
from xlkd.models import encoder as encoders
from xlkd.models import hf, tokenizers
from xlkd.models.families.modernbert import ModernBert
from xlkd.models.family import Architecture


def test_the_head_costs_two_products_for_each_masked_token():
    spec = stages.resolve(stages.read_stage("configs/pretrain.py"))
    architecture = mblm_toys.make_architecture()
    method = pretrain.build(spec, encoders.Encoder(architecture))
    masked, hidden, vocabulary = 1000 * spec.task.share, 16, 40
    products = 2 * masked * (hidden * hidden + hidden * vocabulary)
    assert method.flops(1000, 10) - encoders.forward_flops(architecture, 1000, 10) == pytest.approx(products)


def test_a_new_head_is_trained_without_the_encoder():
    spec = stages.resolve(stages.read_stage("configs/pretrain.py", "", "method.trains=head"))
    architecture = mblm_toys.make_architecture()
    method = pretrain.build(spec, encoders.Encoder(architecture))
    encoder = encoders.init(architecture, jax.random.key(0))
    variables = method.init(jax.random.key(1), Start(architecture, encoder, {}))
    assert set(variables.params) == {"masked_lm"}, "nothing else has a gradient, decay or moments"
    everything = pretrain.build(
        stages.resolve(stages.read_stage("configs/pretrain.py")), encoders.Encoder(architecture)
    )
    whole = everything.init(jax.random.key(1), Start(architecture, encoder, {}))
    for export, expected in zip((method, everything), (variables, whole), strict=True):
        exported = export.exports(expected)[""]
        jax.tree.map(np.testing.assert_array_equal, exported.encoder, encoder)
        assert set(exported.heads) == {"masked_lm"}


def test_languages_of_a_corpus_that_is_read_in_blocks_are_not_sampled():
    flags = ("data.exponent=0.3", "data.block=64", "data.batch=8")
    with pytest.raises(UserError, match="not sampled by exponent from a corpus that is read in blocks"):
        stages.read_stage("configs/pretrain.py:own", "", *flags)
    assert stages.read_stage("configs/pretrain.py:own", "", flags[0]).data.exponent == 0.3


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Writes a German text, English sentences with their German translations, and a tokenizer of both languages."""
    folder = tmp_path_factory.mktemp("pretrain")
    pairs = list(sources.read("atlas?split=train&size=60&languages=en,de&facts=1", "parallel"))
    texts = [row.source for row in sources.read("atlas?split=train&size=120&languages=de&kind=same", "masked")]
    lines = {"de.txt": texts, "c.en": [row.source for row in pairs], "c.de": [row.target for row in pairs]}
    for name, content in lines.items():
        (folder / name).write_text("".join(f"{line}\n" for line in content), encoding="utf-8")
    tokenizers.train(
        folder / "tokenizer", [line for content in lines.values() for line in content], kind="bert", size=500
    )
    return folder


def save_encoder(folder, kind):
    """Saves a toy encoder without heads; returns its folder."""
    tokenizer = hf.load_tokenizer(folder / "tokenizer")
    size, pad = len(tokenizer), tokenizer.pad_token_id
    if kind == "bert":
        architecture = Architecture("bert", size, 16, 2, 2, 32, 128, 2, pad, 0)
    else:
        architecture = ModernBert(
            "modernbert", size, 16, 2, 2, 20, 128, 0, pad, 0, norm_eps=1e-5,
            global_layers=(True, False), local_attention=8,
        )  # fmt: skip
    params = {"encoder": encoders.init(architecture, jax.random.key(0), 0.1)}
    return hf.save(folder / kind, architecture, jax.device_get(params), tokenizer=tokenizer)


def continue_training(folder, kind, workdir, *more, **options):
    encoder = folder / kind if (folder / kind).is_dir() else save_encoder(folder, kind)
    flags = [
        "--config=configs/pretrain.py:own",
        f"--workdir={workdir}",
        f"--config.encoder.path={encoder}",
        f"--config.data.train=text:{folder}/de.txt?split=train+moses:{folder}/c?languages=en,de",
        f"--config.data.eval=text:{folder}/de.txt?split=heldout&share=20",
        "--config.task.max_length=64",
        "--config.data.batch=8",
        "--config.data.buckets=1",
        "--config.optim.lr=0.01",
        "--config.budget.epochs=1",
        "--config.log.every=1",
    ]
    process = run_command("main", *flags, *more, cache=folder / "cache", **options)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout + process.stderr


@pytest.fixture(scope="module")
def continued(material):
    """Continues a toy BERT; returns the work directory and the output."""
    return material / "run", continue_training(material, "bert", material / "run")


def check_export(export, kind):
    """Checks that an export has a masked-LM head, and serves as the encoder of the three systems."""
    assert json.loads((export / "config.json").read_text())["architectures"] == [
        {"bert": "BertForMaskedLM", "modernbert": "ModernBertForMaskedLM"}[kind]
    ]
    for config in ("configs/gxlt.py", "configs/mblm.py", "configs/mmkd.py"):
        stage = stages.read_stage(config, "", f"encoder.path={export}")
        start = resolve_weights(stage, {}, export.parent).load(0)
        assert set(start.heads) == {"masked_lm"}
        assert start.architecture.model_type == kind


def test_a_run_on_text_and_pairs_learns_and_exports_an_encoder_that_the_systems_take(continued):
    folder, output = continued
    stage = folder / "stages" / "01-own"
    losses = [json.loads(line)["loss"] for line in (stage / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0] - 0.3
    record = json.loads((stage / "stage.json").read_text())
    assert record["seen"]["parallel"] == ["de", "en"]
    assert not record["seen"]["training"]
    assert list(record["sets"]["eval"]["cells"]) == ["de"]
    assert sorted(p.name for p in (stage / "evaluation").iterdir())[0] == "0-eval.json"
    report = json.loads((stage / "data_report.json").read_text())["train"]
    assert set(report["task"]["coverage"]) == {"de", "en"}
    assert "tokens a word" in output
    check_export(stage / "export", "bert")


@pytest.mark.torch
def test_the_export_opens_in_transformers_with_the_same_logits(continued):
    pytest.importorskip("torch")
    from transformers import AutoModelForMaskedLM

    export = continued[0] / "stages" / "01-own" / "export"
    _, info = AutoModelForMaskedLM.from_pretrained(export, output_loading_info=True)
    assert not any(info.values()), info
    assert max(parity.compare(str(export)).values()) < 1e-4


def read_step(file):
    return int(file.name.partition("-")[0])


@pytest.mark.long
def test_a_text_is_read_in_blocks_and_a_run_is_the_same_on_another_mesh_and_goes_on_with_its_head(material, continued):
    blocks = ["--config.data.block=40", "--config.data.train=" + f"text:{material}/de.txt"]
    continue_training(material, "bert", material / "blocks", *blocks)
    assert "blocks" in (material / "blocks" / "log.txt").read_text()
    export = continued[0] / "stages" / "01-own" / "export"
    continue_training(material, "bert", material / "mesh", "--config.mesh.fsdp=2", devices=2)
    a, b = (hf.load(folder / "stages" / "01-own" / "export").params for folder in (continued[0], material / "mesh"))
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)
    continue_training(material, "bert", material / "again", f"--config.encoder.path={export}")
    first, last = (
        json.loads(choose((folder / "stages" / "01-own" / "evaluation").iterdir(), key=read_step).read_text())
        for folder, choose in ((material / "again", min), (continued[0], max))
    )
    assert first["cells"] == last["cells"], "the head is continued with the encoder"


@pytest.mark.long
def test_modernbert_is_continued_too(material):
    continue_training(material, "modernbert", material / "modern")
    check_export(material / "modern" / "stages" / "01-own" / "export", "modernbert")
