# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Teachers of classes: each reads with its own tokenizer, labels meet by name, answers are kept by content."""

import jax
import numpy as np
import pytest
from qa_toys import make_unigram_tokenizer, make_word_tokenizer
from stages import make_spec

from xlkd.data import cache
from xlkd.errors import UserError
from xlkd.methods import Classifiers
from xlkd.models import encoder as encoders
from xlkd.models import hf
from xlkd.models.heads import ClassifierHead, init_head
from xlkd.rows import Labelled, make_key
from xlkd.tasks.classify import Classify
from xlkd.tasks.tokenization import TextTokenizer
from xlkd.train.targets import classifiers

NLI = ("entailment", "neutral", "contradiction")
WORDS = [f"w{i}" for i in range(20)]


def save(folder, kind="bert", labels=NLI, seed=0, permuted=(0, 1, 2), positions=24):
    """A classifier of 1 layer x 16 with a tokenizer of its own kind; its logits are `permuted`."""
    tokenizer = make_word_tokenizer(WORDS) if kind == "bert" else make_unigram_tokenizer(["▁", "w", *"0123456789"])
    bert = kind == "bert"
    architecture = encoders.Architecture(
        kind, 40, 16, 1, 2, 32, positions=positions, types=2 if bert else 1, pad_id=0 if bert else 1,
        position_offset=0 if bert else 2,
    )  # fmt: skip
    keys = jax.random.split(jax.random.key(seed))
    head = jax.tree.map(lambda x: 10 * x, init_head(ClassifierHead(architecture, len(labels)), keys[1]))
    if len(labels) == 3:
        head["output"] = jax.tree.map(lambda x: x[..., np.array(permuted)], head["output"])
    params = {"encoder": encoders.init(architecture, keys[0], 1.0), "classifier": head}
    return hf.save(folder, architecture, jax.device_get(params), labels=labels, tokenizer=tokenizer)


def rows(count=12, languages=("en", "de"), label=None):
    random = np.random.default_rng(0)
    found = []
    for i in range(count):
        first, second = (" ".join(random.choice(WORDS, random.integers(1, 12))) for _ in range(2))
        found.append(Labelled(str(i), make_key(i), "g", "toy", first, second, label, languages[i % len(languages)]))
    return found


class Heard:
    """A log that keeps its lines."""

    def __init__(self):
        self.lines = []

    def __call__(self, line):
        self.lines.append(line)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path / "cache"))


def ask(teachers, of=None, earlier=None, log=None, tokenizer=None, **reading):
    """Targets for a student with a tokenizer of XLM-R's kind."""
    of = rows() if of is None else of
    task = Classify(TextTokenizer(tokenizer or make_unigram_tokenizer(["▁", "w", *"0123456789"])), 24, labels=NLI)
    features = task.features(of)
    reads = Classifiers(**reading)
    return classifiers.compute_logits(
        make_spec(teachers=teachers), reads, of, features, task, earlier or {}, log or Heard()
    )


def alone(folder, row, length=None):
    """The teacher on one row without padding, as the library's own tokenizer frames the pair."""
    found, tokenizer = hf.load(folder), hf.load_tokenizer(folder)
    given = tokenizer(row.text, row.second, truncation="longest_first", max_length=length, return_tensors="np")
    ids, mask = given["input_ids"], given["attention_mask"]
    types = given.get("token_type_ids", np.zeros_like(ids))
    hidden = encoders.Encoder(found.architecture).apply({"params": found.params["encoder"]}, ids, mask, types)[-1]
    head = ClassifierHead(found.architecture, len(found.labels))
    return np.asarray(head.apply({"params": found.params["classifier"]}, hidden))[0]


def balanced(folder, labels=NLI):
    """A classifier that says each label about as often as the others."""
    raw = save(folder.with_name(f"{folder.name}-raw"))
    found = hf.load(raw)
    bias = found.params["classifier"]["output"]["bias"]
    bias -= np.median(ask({"en": str(raw)}, rows(60, ("en",)))["teacher"], axis=0)
    return hf.save(folder, found.architecture, found.params, labels=labels, tokenizer=raw)


def labelled_by(folder, count=240):
    """Rows whose labels are what a classifier says."""
    of = rows(count, ("en",))
    logits = ask({"en": str(folder)}, of)["teacher"]
    return [
        Labelled(r.id, r.key, r.group, r.set, r.text, r.second, NLI[int(z.argmax())], r.language)
        for r, z in zip(of, logits, strict=True)
    ]


def test_each_row_as_its_own_teacher_reads_it_alone(tmp_path):
    """A teacher with words for pieces and one of SentencePiece's kind, each as long as it can read or may."""
    of = rows(4)
    teachers = {"en": save(tmp_path / "en"), "de": save(tmp_path / "de", "xlm-roberta", seed=1, positions=66)}
    found = ask({tag: str(folder) for tag, folder in teachers.items()}, of, max_length=30)
    assert found["taught"].tolist() == [1] * 4
    assert found["teacher"].dtype == np.float32
    for row, logits in zip(of, found["teacher"], strict=True):
        length = 24 if row.language == "en" else 30  # no longer than it can read
        expected = alone(teachers[row.language], row, length)
        np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_labels_meet_by_name(tmp_path):
    """The same model with its logits and names in another order gives the same targets."""
    plain = save(tmp_path / "plain")
    other = save(tmp_path / "other", labels=("Contradictory", "ENTAILMENT", "neutral"), permuted=(2, 0, 1))
    a, b = (ask({"en": str(folder)})["teacher"] for folder in (plain, other))
    assert np.abs(a).max() > 0.1
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_order_of_labels_is_never_guessed(tmp_path):
    unnamed = save(tmp_path / "unnamed", labels=("LABEL_0", "LABEL_1", "LABEL_2"), permuted=(2, 0, 1))
    with pytest.raises(UserError, match=r"its labels have no names .*teacher_labels\.en"):
        ask({"en": str(unnamed)})
    stated = ask({"en": str(unnamed)}, labels={"en": ("contradiction", "entailment", "neutral")})
    plain = ask({"en": str(save(tmp_path / "plain"))})
    np.testing.assert_allclose(stated["teacher"], plain["teacher"], atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("entailment", "other"), "its labels are entailment, other, and here they are"),
        (("entailment", "neutral", "else"), "its labels are"),
        (("score",), "a regression head"),
    ],
)
def test_other_labels_are_refused(tmp_path, labels, said):
    with pytest.raises(UserError, match=said):
        ask({"en": str(save(tmp_path / "model", labels=labels))})


def test_the_data_find_a_swapped_order(tmp_path):
    right = balanced(tmp_path / "right")
    of, log = labelled_by(right), Heard()
    assert min(sum(row.label == label for row in of) for label in NLI) > 20
    ask({"en": str(right)}, of, log=log)
    assert any("accuracy 100.0% on 240 training examples" in line for line in log.lines)
    swapped = balanced(tmp_path / "swapped", labels=("contradiction", "neutral", "entailment"))
    with pytest.raises(UserError, match="for 100% if they are entailment, neutral, contradiction; state the order"):
        ask({"en": str(swapped)}, of)
    ask({"en": str(swapped)}, of[: classifiers.CHECKED - 1])  # too few to say


def test_a_permutation_is_found_in_the_order_of_the_logits():
    """Its logits are really (neutral, contradiction, entailment); it says (contradiction, entailment, neutral)."""
    teacher = classifiers.Classifier(
        "t", None, None, {}, None, ("contradiction", "entailment", "neutral"), np.array([1, 2, 0])
    )
    meant = ("neutral", "contradiction", "entailment")
    counts = np.zeros((3, 3), int)
    for gold in range(3):  # it says at which logit it has the gold label; we read that logit by its own words
        counts[gold, NLI.index(teacher.labels[meant.index(NLI[gold])])] = 100
    with pytest.raises(UserError, match="100% if they are neutral, contradiction, entailment"):
        classifiers.check_order(counts, teacher, NLI, "t")
    classifiers.check_order(np.eye(3, dtype=int) * 60 + 20, teacher, NLI, "t")


def test_several_teachers_are_averaged_as_logits(tmp_path):
    folders = [str(save(tmp_path / str(seed), seed=seed)) for seed in range(2)]
    one, two = (ask({"en": folder})["teacher"] for folder in folders)
    both, log = ask({"en": " + ".join(folders)}, log=(log := Heard())), log
    np.testing.assert_allclose(both["teacher"], (one + two) / 2, atol=1e-6)
    assert any("the mean of their logits" in line for line in log.lines)


def test_rows_without_a_teacher_are_not_taught(tmp_path):
    log = Heard()
    found = ask({"en-GB": str(save(tmp_path / "en")), "ru": "never-read", "de": ""}, log=log)
    assert found["taught"].tolist() == [1, 0] * 6
    assert not found["teacher"][1::2].any()
    assert "teacher of ru: no training example is in this language" in log.lines
    assert any("6 examples without a teacher (de)" in line for line in log.lines)


def test_a_stage_of_the_run_teaches_by_its_name(tmp_path):
    folder = save(tmp_path / "export")
    found = ask({"en": "teacher_en"}, earlier={"teacher_en": folder})
    np.testing.assert_array_equal(found["teacher"], ask({"en": str(folder)})["teacher"])
    with pytest.raises(UserError):
        ask({"en": "./teacher_fr"}, earlier={"teacher_en": folder})


def test_answers_are_kept_by_content(tmp_path, monkeypatch):
    """Shuffled rows find theirs; another length, model or row does not."""
    folder, of = str(save(tmp_path / "en")), rows(languages=("en",))
    first = ask({"en": folder}, of)["teacher"]
    order = np.random.default_rng(1).permutation(len(of))

    def entries():
        return len(cache.list_entries("teacher"))

    assert entries() == 1
    log = Heard()
    shuffled = ask({"en": folder}, [of[i] for i in order], log=log)["teacher"]
    np.testing.assert_array_equal(shuffled, first[order])
    assert any("12 examples from the cache" in line for line in log.lines)
    assert entries() == 1
    ask({"en": folder}, of[1:])
    assert entries() == 1, "fewer rows are found too"
    more = ask({"en": folder}, rows(15, languages=("en",)))["teacher"]
    np.testing.assert_array_equal(more[:12], first)
    assert entries() == 2, "of more rows only the new ones are asked for"
    ask({"en": folder}, of, max_length=10)
    ask({"en": str(save(tmp_path / "other", seed=5))}, of)
    assert entries() == 4


def test_a_cache_that_lies_stops_the_run(tmp_path, monkeypatch):
    folder = str(save(tmp_path / "en"))
    ask({"en": folder})
    held = cache.load

    def wrong(name):
        found = held(name)
        return found and found | {"logits": np.asarray(found["logits"])[::-1]}

    monkeypatch.setattr(cache, "load", wrong)
    with pytest.raises(UserError, match="differs from the teacher's output"):
        ask({"en": folder})


def test_a_model_without_a_head_is_refused(tmp_path):
    found = hf.load(save(tmp_path / "whole"))
    bare = {"encoder": found.params["encoder"]}
    hf.save(tmp_path / "bare", found.architecture, bare, tokenizer=tmp_path / "whole")
    with pytest.raises(UserError, match=r"config\.teachers\.en.*: has no classification head"):
        ask({"en": str(tmp_path / "bare")})


def test_dropout_in_a_teachers_config_is_not_used(tmp_path):
    folder = save(tmp_path / "en")
    text = (folder / "config.json").read_text()
    plain = ask({"en": str(folder)})["teacher"]
    (folder / "config.json").write_text(text.replace('dropout_prob": 0.1', 'dropout_prob": 0.9'))
    np.testing.assert_array_equal(ask({"en": str(folder)})["teacher"], plain)


@pytest.mark.shared
def test_a_real_english_encoder_teaches_beside_a_multilingual_tokenizer(shared, tmp_path):
    """MiniLM with a new head: WordPiece, lower case; the student reads SentencePiece."""
    found = hf.load(shared / "models" / "all-MiniLM-L6-v2")
    head = init_head(ClassifierHead(found.architecture, 3), jax.random.key(0))
    params = {"encoder": found.params["encoder"], "classifier": jax.device_get(head)}
    teacher = hf.save(
        tmp_path / "teacher", found.architecture, params, labels=NLI, tokenizer=shared / "models" / "all-MiniLM-L6-v2"
    )
    text = "Ünlike the OTHERS, this naïve sentence; 5%!"
    of = [Labelled(str(i), make_key(i), "g", "toy", text[:n], text[n:], None, "en") for i, n in enumerate((5, 20, 35))]
    student = hf.load_tokenizer(shared / "models" / "multilingual-e5-small")
    answers = ask({"en": str(teacher)}, of, tokenizer=student)["teacher"]
    assert np.ptp(answers) > 0.01
    for row, logits in zip(of, answers, strict=True):
        np.testing.assert_allclose(logits, alone(teacher, row, 128), atol=1e-5)
