# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Classifiers in the commands and in Python: ordinary ones, and students with branches by every route."""

import io
import json
import shutil
import sys

import numpy as np
import pytest
from mblm_toys import LABELS, export_student
from safetensors.numpy import load_file, save_file

import xlkd
from xlkd import evaluate, predict
from xlkd.data import sources
from xlkd.errors import UserError
from xlkd.export import branch_checkpoint
from xlkd.models import hf

DATA = "atlas?split=validation&size=8&languages=en,de,fr"


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Returns the exports of a stage with the branches en and de: all branches, and one folder per language."""
    return export_student(tmp_path_factory.mktemp("labels"))


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, exports):
    monkeypatch.setenv("XLKD_CACHE", str(exports.parent / "cache"))


def run_evaluate(file, *flags) -> dict:
    evaluate.main([*flags, f"--json={file}"])
    return json.loads(file.read_text())


@pytest.fixture
def run_predict(monkeypatch, capsys):
    def run(lines, *flags):
        data = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        predict.main(list(flags))
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def read_texts(language="de", count=3):
    rows = [row for row in sources.read(DATA, "classify") if row.language == language][:count]
    return [{"id": row.id, "text": row.text, "second": row.second} for row in rows]


def test_a_branch_checkpoint_loads_unchanged_and_is_not_an_ordinary_model(exports):
    checkpoint = branch_checkpoint.load(exports / "branches")
    assert sorted(file.name for file in (exports / "branches").glob("*.safetensors")) == ["branches.safetensors"]
    assert not (exports / "branches" / "config.json").exists()
    assert checkpoint.labels == LABELS
    assert len(checkpoint.params["branches"]["query"]["kernel"]) == 2
    for k, tag in enumerate(("en", "de")):
        layers = hf.load(exports / tag).params["encoder"]["layers"]["query"]["kernel"]
        np.testing.assert_array_equal(layers[-1], checkpoint.params["branches"]["query"]["kernel"][k, 0])
        np.testing.assert_array_equal(layers[:-1], checkpoint.params["trunk"]["layers"]["query"]["kernel"])
    assert "# mblm" in (exports / "branches" / "README.md").read_text()


def test_a_language_uses_its_branch_and_any_other_the_mixture(exports):
    model = xlkd.load(exports / "branches")
    text = read_texts()[0]
    pair = (text["text"], text["second"])
    answers = {tag: model.classify(*pair, language=tag) for tag in ("", "en", "de", "fr", "de-AT")}
    assert {tag: answer["route"] for tag, answer in answers.items()} == {
        "": "mixture", "en": "en", "de": "de", "fr": "mixture", "de-AT": "de"
    }  # fmt: skip
    assert answers[""] == answers["fr"] == model.classify(*pair, language="de", route="mixture")
    assert answers["de"] == answers["de-AT"] == model.classify(*pair, route="de")
    for tag in ("en", "de"):
        ordinary = xlkd.load(exports / tag).classify(*pair)
        assert ordinary["route"] is None
        assert ordinary["probabilities"] == pytest.approx(answers[tag]["probabilities"], abs=1e-5)
    logs = [{label: np.log(p) for label, p in answers[tag]["probabilities"].items()} for tag in ("en", "de")]
    mean = np.array([(logs[0][label] + logs[1][label]) / 2 for label in LABELS])
    expected = np.exp(mean) / np.exp(mean).sum()  # a mean of logits
    np.testing.assert_allclose(list(answers["fr"]["probabilities"].values()), expected, atol=1e-4)
    assert abs(answers["en"]["probability"] - answers["de"]["probability"]) > 1e-3


def test_a_branch_is_an_ordinary_model(exports):
    model, ids = xlkd.load(exports / "branches"), np.arange(5, 11, dtype=np.int32)[None]
    branch, ordinary = model.branch("de"), xlkd.load(exports / "de")
    for a, b in zip(branch.apply(ids, ids > 0), ordinary.apply(ids, ids > 0), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(
        branch.outputs(ids, ids > 0)["classifier"], ordinary.outputs(ids, ids > 0)["classifier"], atol=1e-6
    )
    with pytest.raises(UserError, match="no branch for 'fr'; branches: en, de"):
        model.branch("fr")
    with pytest.raises(UserError, match="has several branches"):
        model.apply(ids, ids)
    with pytest.raises(UserError, match="no question answering head"):
        model.answer("who?", "Anna.")


def test_scores_by_language_and_route(exports, tmp_path, capsys):
    report = run_evaluate(tmp_path / "a.json", f"--model={exports / 'branches'}", f"--data={DATA}")
    cells = report["sets"]["atlas"]["cells"]
    assert {tag: cell["route"] for tag, cell in cells.items()} == {"en": "en", "de": "de", "fr": "mixture"}
    assert report["routes"] == {"en": 8, "de": 8, "mixture": 8}
    averages = report["sets"]["atlas"]["averages"]
    assert averages["supervised_mean"] == {
        "accuracy": pytest.approx((cells["en"]["accuracy"] + cells["de"]["accuracy"]) / 2), "languages": ["en", "de"]
    }  # fmt: skip
    assert averages["zero_shot_mean"] == {"accuracy": cells["fr"]["accuracy"], "languages": ["fr"]}
    shown = capsys.readouterr().out
    assert "rows by route: en 8, de 8, mixture 8" in shown
    forced = run_evaluate(tmp_path / "b.json", f"--model={exports / 'branches'}", f"--data={DATA}", "--route=de")
    ordinary = run_evaluate(tmp_path / "c.json", f"--model={exports / 'de'}", f"--data={DATA}", "--batch=5")
    assert forced["routes"] == {"de": 24}
    assert ordinary["routes"] == {"": 24}
    for tag, cell in cells.items():
        others = (other["sets"]["atlas"]["cells"][tag]["accuracy"] for other in (forced, ordinary))
        assert cell["accuracy_via_de"] == next(others) == next(others)
    as_unknown = run_evaluate(
        tmp_path / "d.json", f"--model={exports / 'branches'}", f"--data={DATA}", "--language=und"
    )
    assert as_unknown["routes"] == {"mixture": 24}


def test_features_with_a_set_language_are_not_reused_for_the_languages_of_rows(exports, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f"{json.dumps(one | {'language': 'de', 'label': LABELS[0]})}\n" for one in read_texts()))
    reports = [run_evaluate(tmp_path / f"{tag}.json", f"--model={exports / 'branches'}", f"--data=jsonl:{file}", f"--language={tag}")
            for tag in ("und", "de")]  # fmt: skip
    assert [one["routes"] for one in reports] == [{"mixture": 3}, {"de": 3}]
    cells = [next(iter(next(iter(one["sets"].values()))["cells"].values())) for one in reports]
    assert [cell["route"] for cell in cells] == ["mixture", "de"]


def test_the_command_predicts_labels(exports, run_predict):
    lines = [read_texts("de")[0], read_texts("fr")[0] | {"language": "fr"}, read_texts("en")[0] | {"second": None}]
    answers = run_predict(lines, f"--model={exports / 'branches'}", "--language=de-CH")
    assert [(answer["id"], answer["route"]) for answer in answers] == [
        (line["id"], route) for line, route in zip(lines, ("de", "mixture", "de"), strict=True)
    ]
    for answer in answers:
        assert (
            answer["probability"] == max(answer["probabilities"].values()) == answer["probabilities"][answer["label"]]
        )
        assert list(answer["probabilities"]) == list(LABELS)
        assert sum(answer["probabilities"].values()) == pytest.approx(1)
    again = run_predict(
        [],
        f"--model={exports / 'branches'}",
        f"--text={lines[0]['text']}",
        f"--second={lines[0]['second']}",
        "--language=de",
    )
    assert again[0]["probabilities"] == pytest.approx(answers[0]["probabilities"], abs=1e-5)
    assert run_predict(lines[:1], f"--model={exports / 'en'}")[0]["route"] is None


def test_unnamed_labels_are_numbered_in_the_order_of_the_logits(exports, tmp_path, run_predict):
    base = hf.load(exports / "en")
    unnamed = hf.save(tmp_path / "m", base.architecture, base.params, tokenizer=exports / "en")
    lines = read_texts("en", 1)
    expected = run_predict(lines, f"--model={exports / 'en'}", "--max_length=96")[0]
    without_names = run_predict(lines, f"--model={unnamed}", "--max_length=96")[0]
    assert list(without_names["probabilities"]) == ["LABEL_0", "LABEL_1", "LABEL_2"]
    with_names = run_predict(lines, f"--model={unnamed}", "--max_length=96", f"--labels={','.join(LABELS)}")[0]
    assert with_names["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-6)
    with pytest.raises(UserError, match="2 labels for 3 logits"):
        run_predict(lines, f"--model={unnamed}", "--labels=a,b")
    with pytest.raises(UserError, match="not one of LABEL_0"):
        evaluate.main([f"--model={unnamed}", f"--data={DATA}"])


def test_the_task_follows_from_the_model_and_another_is_refused(exports, tmp_path):
    assert (
        run_evaluate(tmp_path / "a.json", f"--model={exports / 'en'}", f"--data={DATA}")["task"]["name"] == "classify"
    )
    with pytest.raises(UserError, match="has no question answering head"):
        evaluate.main([f"--model={exports / 'en'}", f"--data={DATA}", "--task=qa"])
    with pytest.raises(UserError, match="has no classification head; train one"):
        evaluate.main([f"--model={exports.parent / 'model'}", f"--data={DATA}", "--task=classify"])


FAULTS = {
    "no such route": (["--route=ru"], "no route 'ru'; routes: en, de, mixture"),
    "no such language": (["--language=xx"], "unknown language 'xx'"),
    "answers in a file": (["--predictions=a", "--task=classify"], "give either --model or --predictions"),
    "a threshold of null odds": (["--null_threshold=1"], "--null_threshold does not belong to the task classify"),
    "not for labels": (["--route=de", "--task=qa"], "--route does not belong to the task qa"),
}


@pytest.mark.parametrize(("flags", "message"), FAULTS.values(), ids=FAULTS)
def test_bad_flags_of_evaluate_are_refused(exports, flags, message):
    with pytest.raises(UserError) as error:
        evaluate.main([f"--model={exports / 'branches'}", f"--data={DATA}", *flags])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--text=a", "--language=xx"], "unknown language 'xx'"),
        (["--text= "], "empty text"),
        (["--text=a", "--n_best=2"], "--n_best does not belong to the task classify"),
        (["--question=a", "--context=b", "--route=de"], "--route does not belong to the task qa"),
        (["--text=a", "--route=zh"], "no route 'zh'"),
        (["--task=parallel"], "--task=parallel is not possible"),
    ],
)
def test_bad_flags_of_predict_are_refused(exports, flags, message):
    with pytest.raises(UserError, match=message):
        predict.main([f"--model={exports / 'branches'}", *flags])


def test_a_folder_of_several_models_is_refused_with_their_names(exports):
    with pytest.raises(UserError, match=r"a run's folder, not a model; give what it exported: .*branches.*de"):
        xlkd.load(exports)


def add_nan(tensors):
    name = "branches/query/kernel"
    return {name: np.full_like(tensors[name], np.nan)}


CHANGED_BRANCHES = {
    "NaN": (add_nan, "tensor branches/query/kernel has 512 values that are NaN or infinite"),
    "an adapter": (lambda t: {"branches/query/lora_A": np.ones(3, np.float32)}, "merge the adapter first"),
    "another tensor": (
        lambda t: {"trunk/x": np.ones(3, np.float32)},
        r"tensor trunk/x is \(3,\), the record asks for ab",
    ),
    "fewer branches": (lambda t: {"branches/up/bias": t["branches/up/bias"][:1]}, "tensor branches/up/bias is "),
    "fewer rows": (lambda t: {"trunk/embeddings/words": t["trunk/embeddings/words"][:9]}, "trunk/embeddings/words is "),
    "another group": (lambda t: {"trunk": np.ones(3, np.float32)}, "tensor trunk has the name of a group"),
}


@pytest.mark.parametrize("name", CHANGED_BRANCHES)
def test_other_weights_of_branches_are_refused(exports, tmp_path, name):
    change, pattern = CHANGED_BRANCHES[name]
    shutil.copytree(exports / "branches", tmp_path / "m")
    tensors = load_file(tmp_path / "m" / "branches.safetensors")
    save_file(tensors | change(tensors), tmp_path / "m" / "branches.safetensors")
    with pytest.raises(UserError, match=pattern):
        xlkd.load(tmp_path / "m").branch("en")


def test_a_tokenizer_with_more_tokens_than_the_branches_is_refused(exports, tmp_path):
    shutil.copytree(exports / "branches", tmp_path / "m")
    spec = json.loads((tmp_path / "m" / "tokenizer.json").read_text())
    spec["model"]["vocab"]["beyond"] = 10**6
    (tmp_path / "m" / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(
        UserError, match=r"1 tokens have ids beyond the .* rows of the embedding table: 'beyond' 1000000"
    ):
        xlkd.load(tmp_path / "m")


def test_a_damaged_branch_checkpoint_is_refused(exports, tmp_path):
    shutil.copytree(exports / "branches", tmp_path / "m")
    (tmp_path / "m" / "branches.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match="unreadable weights"):
        xlkd.load(tmp_path / "m")
    record = json.loads((tmp_path / "m" / "xlkd.json").read_text())
    (tmp_path / "m" / "xlkd.json").write_text(json.dumps({k: v for k, v in record.items() if k != "method"}))
    with pytest.raises(UserError, match="lacks method"):
        xlkd.load(tmp_path / "m")
