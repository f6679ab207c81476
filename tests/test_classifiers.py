# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Classifiers as teachers: each reads with its own tokenizer, labels are matched by name, logits are cached."""

import jax
import numpy as np
import pytest
from qa_toys import make_unigram_tokenizer, make_word_tokenizer
from share_toys import Processes
from stages import make_spec

from xlkd.data import cache
from xlkd.data.batches import PAD, PlannedBatch, Shape
from xlkd.errors import UserError
from xlkd.methods import Classifiers
from xlkd.models import encoder as encoders
from xlkd.models import hf
from xlkd.models.family import Architecture
from xlkd.models.heads import ClassifierHead, init_head
from xlkd.rows import Labelled, make_key
from xlkd.runtime import mesh as meshes
from xlkd.spec.stage import Mesh
from xlkd.tasks.classify import Classify
from xlkd.tasks.tokenization import TextTokenizer
from xlkd.train.targets import classifiers

NLI = ("entailment", "neutral", "contradiction")
WORDS = [f"w{i}" for i in range(20)]


def save_classifier(folder, kind="bert", labels=NLI, seed=0, permuted=(0, 1, 2), positions=24):
    """Saves a classifier of 1 layer x 16 with a tokenizer of its own; its logits are `permuted`."""
    tokenizer = make_word_tokenizer(WORDS) if kind == "bert" else make_unigram_tokenizer(["▁", "w", *"0123456789"])
    bert = kind == "bert"
    architecture = Architecture(
        kind, 40, 16, 1, 2, 32, positions=positions, types=2 if bert else 1, pad_id=0 if bert else 1,
        position_offset=0 if bert else 2,
    )  # fmt: skip
    keys = jax.random.split(jax.random.key(seed))
    head = jax.tree.map(lambda x: 10 * x, init_head(ClassifierHead(architecture, len(labels)), keys[1]))
    if len(labels) == 3:
        head["output"] = jax.tree.map(lambda x: x[..., np.array(permuted)], head["output"])
    params = {"encoder": encoders.init(architecture, keys[0], 1.0), "classifier": head}
    return hf.save(folder, architecture, jax.device_get(params), labels=labels, tokenizer=tokenizer)


def make_rows(count=12, languages=("en", "de"), label=None):
    random = np.random.default_rng(0)
    examples = []
    for i in range(count):
        first, second = (" ".join(random.choice(WORDS, random.integers(1, 12))) for _ in range(2))
        examples.append(Labelled(str(i), make_key(i), "g", "toy", first, second, label, languages[i % len(languages)]))
    return examples


class ListLog:
    """A log that collects its lines."""

    def __init__(self):
        self.lines = []

    def __call__(self, line):
        self.lines.append(line)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path / "cache"))


def compute_targets(teachers, rows=None, earlier=None, log=None, tokenizer=None, **reading):
    """Computes targets for a student with a tokenizer like XLM-R's."""
    rows = make_rows() if rows is None else rows
    task = Classify(TextTokenizer(tokenizer or make_unigram_tokenizer(["▁", "w", *"0123456789"])), 24, labels=NLI)
    features = task.features(rows)
    reading_settings = Classifiers(**reading)
    return classifiers.compute_logits(
        make_spec(teachers=teachers), reading_settings, rows, features, task, earlier or {}, log or ListLog()
    )


def compute_alone(folder, row, length=None):
    """Runs the teacher on one row without padding, encoded by the tokenizer of transformers."""
    model, tokenizer = hf.load(folder), hf.load_tokenizer(folder)
    encoded = tokenizer(row.text, row.second, truncation="longest_first", max_length=length, return_tensors="np")
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    types = encoded.get("token_type_ids", np.zeros_like(ids))
    hidden = encoders.Encoder(model.architecture).apply({"params": model.params["encoder"]}, ids, mask, types)[-1]
    head = ClassifierHead(model.architecture, len(model.labels))
    return np.asarray(head.apply({"params": model.params["classifier"]}, hidden[:, 0]))[0]


def save_balanced(folder, labels=NLI):
    """Saves a classifier that predicts each label about equally often."""
    raw = save_classifier(folder.with_name(f"{folder.name}-raw"))
    model = hf.load(raw)
    bias = model.params["classifier"]["output"]["bias"]
    bias -= np.median(compute_targets({"en": str(raw)}, make_rows(60, ("en",)))["teacher"], axis=0)
    return hf.save(folder, model.architecture, model.params, labels=labels, tokenizer=raw)


def label_rows(folder, count=240):
    """Makes rows whose labels are the predictions of a classifier."""
    rows = make_rows(count, ("en",))
    logits = compute_targets({"en": str(folder)}, rows)["teacher"]
    return [
        Labelled(r.id, r.key, r.group, r.set, r.text, r.second, NLI[int(z.argmax())], r.language)
        for r, z in zip(rows, logits, strict=True)
    ]


def test_each_row_gets_the_logits_of_its_own_teacher(tmp_path):
    """One teacher has a word tokenizer, one has SentencePiece; each reads up to its own or the set length."""
    rows = make_rows(4)
    teachers = {
        "en": save_classifier(tmp_path / "en"),
        "de": save_classifier(tmp_path / "de", "xlm-roberta", seed=1, positions=66),
    }
    targets = compute_targets({tag: str(folder) for tag, folder in teachers.items()}, rows, max_length=30)
    assert targets["taught"].tolist() == [1] * 4
    assert targets["teacher"].dtype == np.float32
    for row, logits in zip(rows, targets["teacher"], strict=True):
        length = 24 if row.language == "en" else 30  # limited by its positions
        expected = compute_alone(teachers[row.language], row, length)
        np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_labels_are_matched_by_name(tmp_path):
    """The same model with its logits and names in another order gives the same targets."""
    plain = save_classifier(tmp_path / "plain")
    other = save_classifier(tmp_path / "other", labels=("Contradictory", "ENTAILMENT", "neutral"), permuted=(2, 0, 1))
    a, b = (compute_targets({"en": str(folder)})["teacher"] for folder in (plain, other))
    assert np.abs(a).max() > 0.1
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_order_of_labels_is_never_guessed(tmp_path):
    unnamed = save_classifier(tmp_path / "unnamed", labels=("LABEL_0", "LABEL_1", "LABEL_2"), permuted=(2, 0, 1))
    with pytest.raises(UserError, match=r"its labels have no names .*teacher_labels\.en"):
        compute_targets({"en": str(unnamed)})
    stated = compute_targets({"en": str(unnamed)}, labels={"en": ("contradiction", "entailment", "neutral")})
    plain = compute_targets({"en": str(save_classifier(tmp_path / "plain"))})
    np.testing.assert_allclose(stated["teacher"], plain["teacher"], atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("entailment", "other"), r"its labels \(entailment, other\) do not match those of the task"),
        (("entailment", "neutral", "else"), "its labels "),
        (("score",), "a regression head"),
    ],
)
def test_other_labels_are_refused(tmp_path, labels, message):
    with pytest.raises(UserError, match=message):
        compute_targets({"en": str(save_classifier(tmp_path / "model", labels=labels))})


def test_a_swapped_order_of_labels_is_detected_from_the_data(tmp_path):
    right = save_balanced(tmp_path / "right")
    rows, log = label_rows(right), ListLog()
    assert min(sum(row.label == label for row in rows) for label in NLI) > 20
    compute_targets({"en": str(right)}, rows, log=log)
    assert any("accuracy 100.0% on 240 training examples" in line for line in log.lines)
    swapped = save_balanced(tmp_path / "swapped", labels=("contradiction", "neutral", "entailment"))
    with pytest.raises(UserError, match="for 100% if they are entailment, neutral, contradiction; state the order"):
        compute_targets({"en": str(swapped)}, rows)
    compute_targets({"en": str(swapped)}, rows[: classifiers.CHECKED - 1])  # too few examples to detect it


def test_a_permutation_is_reported_in_the_order_of_the_logits():
    """The logits are (neutral, contradiction, entailment), its names (contradiction, entailment, neutral)."""
    teacher = classifiers.Classifier(
        "t", None, None, {}, None, ("contradiction", "entailment", "neutral"), np.array([1, 2, 0])
    )
    true_order = ("neutral", "contradiction", "entailment")
    counts = np.zeros((3, 3), int)
    for gold in range(3):  # the logit of the gold label is read with the wrong name
        counts[gold, NLI.index(teacher.labels[true_order.index(NLI[gold])])] = 100
    with pytest.raises(UserError, match="100% if they are neutral, contradiction, entailment"):
        classifiers.check_order(counts, teacher, NLI, "t")
    classifiers.check_order(np.eye(3, dtype=int) * 60 + 20, teacher, NLI, "t")


def test_several_teachers_are_averaged_as_logits(tmp_path):
    folders = [str(save_classifier(tmp_path / str(seed), seed=seed)) for seed in range(2)]
    first, second = (compute_targets({"en": folder})["teacher"] for folder in folders)
    averaged, log = compute_targets({"en": " + ".join(folders)}, log=(log := ListLog())), log
    np.testing.assert_allclose(averaged["teacher"], (first + second) / 2, atol=1e-6)
    assert any("the mean of their logits" in line for line in log.lines)


def test_rows_without_a_teacher_have_no_targets(tmp_path):
    log = ListLog()
    targets = compute_targets({"en-US": str(save_classifier(tmp_path / "en")), "ru": "never-read", "de": ""}, log=log)
    assert targets["taught"].tolist() == [1, 0] * 6
    assert not targets["teacher"][1::2].any()
    assert "teacher of ru: no training example is in this language" in log.lines
    assert any("6 examples without a teacher (de)" in line for line in log.lines)


def test_a_stage_of_the_run_can_be_a_teacher_by_its_name(tmp_path):
    folder = save_classifier(tmp_path / "export")
    targets = compute_targets({"en": "teacher_en"}, earlier={"teacher_en": folder})
    np.testing.assert_array_equal(targets["teacher"], compute_targets({"en": str(folder)})["teacher"])
    with pytest.raises(UserError):
        compute_targets({"en": "./teacher_fr"}, earlier={"teacher_en": folder})


def test_logits_are_cached_by_content(tmp_path, monkeypatch):
    """Shuffled rows find their logits; another length, model or row does not."""
    folder, examples = str(save_classifier(tmp_path / "en")), make_rows(languages=("en",))
    first = compute_targets({"en": folder}, examples)["teacher"]
    order = np.random.default_rng(1).permutation(len(examples))

    def count_entries():
        return len(cache.list_entries("teacher"))

    assert count_entries() == 1
    log = ListLog()
    shuffled = compute_targets({"en": folder}, [examples[i] for i in order], log=log)["teacher"]
    np.testing.assert_array_equal(shuffled, first[order])
    assert any("12 examples from the cache" in line for line in log.lines)
    assert count_entries() == 1
    compute_targets({"en": folder}, examples[1:])
    assert count_entries() == 1, "fewer rows are found too"
    more = compute_targets({"en": folder}, make_rows(15, languages=("en",)))["teacher"]
    np.testing.assert_array_equal(more[:12], first)
    assert count_entries() == 2, "of more rows only the new ones are computed"
    compute_targets({"en": folder}, examples, max_length=10)
    compute_targets({"en": str(save_classifier(tmp_path / "other", seed=5))}, examples)
    assert count_entries() == 4


def test_processes_compute_the_logits_together_where_one_cache_lacks_them(tmp_path, monkeypatch):
    folder, computed = str(save_classifier(tmp_path / "en")), []
    examples, make_compute = make_rows(languages=("en",)), classifiers._make_compute
    whole = compute_targets({"en": folder}, examples)["teacher"]
    processes = Processes(monkeypatch, tmp_path / "caches", shared=False)

    def make_counted(*arguments):
        compute = make_compute(*arguments)
        return lambda rows, **options: computed.append(len(rows)) or compute(rows, **options)

    monkeypatch.setattr(classifiers, "_make_compute", make_counted)
    sample = 8
    for missing, expected in ((0, [12]), (None, [sample]), (1, [sample, 12])):
        if missing:
            (entry,) = (tmp_path / "caches" / str(missing)).glob("teacher-*")
            cache.delete(entry)
        computed.clear()
        for values in processes.run(lambda: compute_targets({"en": folder}, examples)["teacher"], 2):
            np.testing.assert_array_equal(values, whole)
        assert sorted(computed) == sorted(expected * 2)


def test_a_cache_with_wrong_logits_stops_the_run(tmp_path, monkeypatch):
    folder = str(save_classifier(tmp_path / "en"))
    compute_targets({"en": folder})
    load_entry = cache.load

    def load_reversed(name):
        entry = load_entry(name)
        return entry and entry | {"logits": np.asarray(entry["logits"])[::-1]}

    monkeypatch.setattr(cache, "load", load_reversed)
    with pytest.raises(UserError, match="differs from the teacher's output"):
        compute_targets({"en": folder})


def test_a_model_without_a_head_is_refused(tmp_path):
    model = hf.load(save_classifier(tmp_path / "whole"))
    encoder_only = {"encoder": model.params["encoder"]}
    hf.save(tmp_path / "bare", model.architecture, encoder_only, tokenizer=tmp_path / "whole")
    with pytest.raises(UserError, match=r"config\.teachers\.en.*: has no classification head"):
        compute_targets({"en": str(tmp_path / "bare")})


def test_dropout_in_a_teachers_config_is_not_used(tmp_path):
    folder = save_classifier(tmp_path / "en")
    text = (folder / "config.json").read_text()
    plain = compute_targets({"en": str(folder)})["teacher"]
    (folder / "config.json").write_text(text.replace('dropout_prob": 0.1', 'dropout_prob": 0.9'))
    np.testing.assert_array_equal(compute_targets({"en": str(folder)})["teacher"], plain)


@pytest.mark.shared
def test_a_real_english_encoder_teaches_a_student_with_a_multilingual_tokenizer(shared, tmp_path):
    """The teacher is MiniLM with a new head and lower-case WordPiece; the student uses SentencePiece."""
    model = hf.load(shared / "models" / "all-MiniLM-L6-v2")
    head = init_head(ClassifierHead(model.architecture, 3), jax.random.key(0))
    params = {"encoder": model.params["encoder"], "classifier": jax.device_get(head)}
    teacher = hf.save(
        tmp_path / "teacher", model.architecture, params, labels=NLI, tokenizer=shared / "models" / "all-MiniLM-L6-v2"
    )
    text = "Ünlike the OTHERS, this naïve sentence; 5%!"
    rows = [
        Labelled(str(i), make_key(i), "g", "toy", text[:n], text[n:], None, "en") for i, n in enumerate((5, 20, 35))
    ]
    student = hf.load_tokenizer(shared / "models" / "multilingual-e5-small")
    teacher_logits = compute_targets({"en": str(teacher)}, rows, tokenizer=student)["teacher"]
    assert np.ptp(teacher_logits) > 0.01
    for row, logits in zip(rows, teacher_logits, strict=True):
        np.testing.assert_allclose(logits, compute_alone(teacher, row, 128), atol=1e-5)


def test_computed_targets_follow_the_rows_of_a_batch_and_padding_has_zeros():
    logits = np.arange(1.0, 7.0).reshape(3, 2)
    targets = classifiers.ClassifierTargets({"teacher": logits, "taught": np.ones(3)}, meshes.build_mesh(Mesh()))
    batch = targets.for_batch(PlannedBatch(np.array([2, 0, PAD]), Shape(3, (("text", 8),))), {})
    assert batch["teacher"].tolist() == [[5.0, 6.0], [1.0, 2.0], [0.0, 0.0]]
    assert batch["taught"].tolist() == [1.0, 1.0, 0.0]
