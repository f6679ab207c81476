# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The sources of questions: their rows, order and groups, and the error of each kind of bad file."""

import collections
import itertools
import json
import operator

import numpy as np
import pytest

from xlkd.data import sources
from xlkd.errors import UserError


def make_entry(id="a", question="who?", text="Anna", start=4, **changes):
    return {"id": id, "question": question, "answers": [{"text": text, "answer_start": start}]} | changes


def make_document(*entries, context="It’s Anna who went."):
    return {"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(entries)}]}]}


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


GOOD = make_entry(id="good", start=5)
CONTEXT = "It’s Anna who went."
BAD_ROWS = {
    "wrong offset": (make_entry(), "wrong offset: answer 'Anna' is not at character 4 but at 5"),
    "offset past the end": (make_entry(start=900), "wrong offset"),
    "negative offset": (make_entry(start=-14), "wrong offset"),
    "not in the context": (make_entry(text="Berta"), "answer not in the context: 'Berta'"),
    "offset as a string": (make_entry(start="5"), "answer_start is '5', not a whole number"),
    "offset as a fraction": (make_entry(start=5.0), "answer_start is 5.0"),
    "offset as a truth value": (make_entry(text="t", start=True), "answer_start is True"),
    "no offset": (make_entry(answers=[{"text": "Anna"}]), "answer_start is None"),
    "no text": (make_entry(answers=[{"answer_start": 5}]), "an answer without 'text'"),
    "a blanked answer": (make_entry(text="", start=0), "no gold answer"),
    "blanks for an answer": (make_entry(text=" ", start=9), "no gold answer"),
    "no answers, but possible": (
        make_entry(answers=[], is_impossible=False),
        "no gold answer, but is_impossible is false",
    ),
    "impossible with answers": (
        make_entry(start=5, is_impossible=True),
        "is_impossible is true, but there are answers",
    ),
    "impossible in words": (make_entry(start=5, is_impossible="no"), "is_impossible is 'no', not true or false"),
    "impossible as a number": (make_entry(answers=[], is_impossible=1), "is_impossible is 1, not true or false"),
    "no list of answers": (make_entry(answers=None), "no list under 'answers'"),
    "answers as a dict": (make_entry(answers={"text": ["Anna"], "answer_start": [5]}), "no list under 'answers'"),
    "a second answer that is wrong": (
        make_entry(answers=[{"text": "Anna", "answer_start": 5}, {"text": "Anna", "answer_start": 6}]),
        "not at character 6",
    ),
    "empty question": (make_entry(question=" ", start=5), "empty question"),
    "no question": (make_entry(question=None, start=5), "no question"),
    "question as a number": (make_entry(question=3, start=5), "question is not a string"),
    "half a surrogate": (make_entry(question="who \ud83d?", start=5), "surrogate"),
    "no id": (make_entry(id=None, start=5), "no id"),
    "id as a list": (make_entry(id=[7], start=5), "id is neither a string nor a number"),
    "id as a truth value": (make_entry(id=True, start=5), "id is neither a string nor a number"),
    "not an object": ("who?", "not an object"),
    "duplicate id": (make_entry(id="good", start=5), "duplicate id"),
}


def test_numeric_ids_become_strings_as_in_prediction_files(tmp_path):
    path = tmp_path / "numbered.json"
    path.write_text(
        json.dumps(make_document(make_entry(id=1, start=5), make_entry(id=0, start=5), make_entry(id=2.0, start=5)))
    )
    assert [row.id for row in sources.read(f"squad:{path}", "qa")] == ["1", "0", "2.0"]
    path.write_text(json.dumps(make_document(make_entry(id=1, start=5), make_entry(id="1", start=5))))
    with pytest.raises(UserError, match="duplicate id"):
        sources.read(f"squad:{path}", "qa")


@pytest.mark.parametrize(("bad", "reason"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_named_with_file_row_and_reason(tmp_path, bad, reason):
    path = tmp_path / "dirty.json"
    path.write_text(json.dumps(make_document(GOOD, bad, make_entry(id="last", start=5))))
    with pytest.raises(UserError) as error:
        sources.read(f"squad:{path}", "qa")
    line = str(error.value)
    assert reason in line
    assert f"{path}: data[0].paragraphs[0].qas[1]" in line
    assert "\n" not in line
    if isinstance(bad, dict) and bad["id"]:
        assert repr(bad["id"]) in line
    rows = sources.read(f"squad:{path}", "qa", "skip")
    assert [row.id for row in rows] == ["good", "last"]
    assert len(rows.dropped) == 1


def test_an_unanswerable_question_is_a_row_without_answers(tmp_path):
    """As in SQuAD 2; in other sets an empty list of answers alone says so."""
    plausible = [{"text": "Anna", "answer_start": 5}]
    path = write(
        tmp_path / "v2.json",
        make_document(
            make_entry(id="a", start=5, is_impossible=False),
            make_entry(id="b", answers=[], is_impossible=True, plausible_answers=plausible),
            make_entry(id="c", answers=[]),
            make_entry(id="d", start=5, is_impossible=None),
        ),
    )
    rows = sources.read(f"squad:{path}", "qa")
    assert [(row.id, [answer.text for answer in row.answers]) for row in rows] == [
        ("a", ["Anna"]),
        ("b", []),
        ("c", []),
        ("d", ["Anna"]),
    ]
    assert rows[0].key == sources.read(f"squad:{path}?limit=1", "qa")[0].key


def test_a_file_without_any_answer_has_no_labels(tmp_path):
    path = write(tmp_path / "test.json", make_document(make_entry(id="a", answers=[]), make_entry(id="b", answers=[])))
    with pytest.raises(UserError, match=r"no gold answer \(no question has one, and none is marked.*no labels"):
        sources.read(f"squad:{path}", "qa")
    write(path, make_document(make_entry(id="a", answers=[], is_impossible=True), make_entry(id="b", answers=[])))
    assert [row.answers for row in sources.read(f"squad:{path}", "qa")] == [(), ()]


def test_files_of_national_sets_are_read(tmp_path):
    """In the forms of DRCD (traditional Chinese), ARCD (Arabic), PersianQA and GermanQuAD."""
    drcd = {
        "version": "1.3",
        "data": [{"title": "梵語", "id": "2128", "paragraphs": [{"context": "在歐洲，梵語的學術研究由德國學者開創。", "id": "2128-2",
            "qas": [{"id": "2128-2-1", "question": "誰開創了歐洲的梵語研究？",
                     "answers": [{"id": "1", "text": "德國學者", "answer_start": 12}]}]}]}],
    }  # fmt: skip
    arcd = {
        "version": "1.1",
        "data": [{"title": "جمال خاشقجي", "paragraphs": [{"context": "ولد جمال خاشقجي في المدينة المنورة.",
            "qas": [{"question": "- أين ولد؟", "id": "969331847966",
                     "answers": [{"text": "المدينة المنورة", "answer_start": 19}]}]}]}],
    }  # fmt: skip
    persian = {
        "data": [{"title": "خوشنویسی", "paragraphs": [{"context": "میرعماد در قزوین زاده شد.",
            "qas": [{"question": "میرعماد کجا زاده شد؟", "id": 1, "answers": [{"text": "قزوین", "answer_start": 11}],
                     "is_impossible": False},
                    {"question": "میرعماد کی درگذشت؟", "id": 2, "answers": [], "is_impossible": True}]}]}],
    }  # fmt: skip
    german = {
        "data": [{"paragraphs": [{"context": "Riga liegt an der Düna.", "document_id": 7,
            "qas": [{"question": "Wo liegt Riga?", "id": 3, "is_impossible": False,
                     "answers": [{"answer_id": 5, "document_id": 7, "question_id": 3, "text": "an der Düna",
                                  "answer_start": 11, "answer_category": "SHORT"}]}]}]}],
    }  # fmt: skip
    files = {"zh-Hant": drcd, "ar": arcd, "fa": persian, "de": german}
    for language, document in files.items():
        path = write(tmp_path / f"{language}.json", document)
        rows = sources.read(f"squad:{path}?languages={language}", "qa")
        assert {row.context_language for row in rows} == {language}
        assert [bool(row.answers) for row in rows] == [True, False][: len(rows)]
        for row in rows:
            assert all(row.context.startswith(answer.text, answer.start) for answer in row.answers)
    assert len(rows) == 1
    assert [row.id for row in sources.read(f"squad:{tmp_path / 'fa.json'}?languages=fa", "qa")] == ["1", "2"]


BAD_FILES = {
    "broken": ('{"data": [', "broken JSON: Expecting value"),
    "empty": ("", "broken JSON"),
    "a list": ([], "no list under 'data'"),
    "no data": ({"version": "1.1"}, "no list under 'data'"),
    "data as an object": ({"data": {}}, "no list under 'data'"),
    "no articles": ({"data": []}, "no rows"),
    "article as a string": ({"data": ["x"]}, "data[0]: no list under 'paragraphs'"),
    "no paragraphs": ({"data": [{"title": "t"}]}, "data[0]: no list under 'paragraphs'"),
    "no qas": ({"data": [{"paragraphs": [{"context": "x"}]}]}, "data[0].paragraphs[0]: no list under 'qas'"),
    "no context": ({"data": [{"paragraphs": [{"qas": []}]}]}, "data[0].paragraphs[0]: no context"),
    "empty context": (make_document(GOOD, context=" \n"), "data[0].paragraphs[0]: empty context"),
    "context as a list": (make_document(GOOD, context=["x"]), "context is not a string"),
}


@pytest.mark.parametrize(("content", "reason"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_refused_in_one_line(tmp_path, content, reason):
    path = write(tmp_path / "dirty.json", content)
    with pytest.raises(UserError) as error:
        sources.read(f"squad:{path}", "qa")
    assert reason in str(error.value)
    assert str(path) in str(error.value)


def test_bad_paths_and_options_are_explained(tmp_path):
    (tmp_path / "latin.json").write_bytes(json.dumps(make_document(GOOD), ensure_ascii=False).encode("cp1252"))
    for source, reason in {
        f"squad:{tmp_path}/none.json": "no such file",
        f"squad:{tmp_path}": "a folder, not a file",
        f"squad:{tmp_path}/latin.json": "not UTF-8",
        f"xquad:{tmp_path}/none": "no such file or folder",
        f"xquad:{tmp_path}": "no file named xquad.LANG.json",
        f"mlqa:{tmp_path}": "no file named dev-context-C-question-Q.json",
        f"tydiqa:{tmp_path}?split=dev": "no file named tydiqa.goldp.LANG.dev.json",
        "mlqa:": "no such file or folder",
        f"squad:{tmp_path}/none.json?split=dev": "unknown option 'split'",
        f"xquad:{tmp_path}?pairs=some": "no file",
    }.items():
        with pytest.raises(UserError) as error:
            sources.read(source, "qa")
        assert reason in str(error.value), source


def test_squad_rows_have_ids_keys_and_groups(tmp_path):
    path = write(tmp_path / "train.json", make_document(GOOD, make_entry(id="b", start=5), make_entry(id="c", start=5)))
    rows = sources.read(f"squad:{path}", "qa")
    assert [(row.id, row.set, row.question_language, row.context_language) for row in rows][:1] == [
        ("good", "squad", "en", "en")
    ]
    assert rows[0].answers[0].text == "Anna"
    assert len({row.key for row in rows}) == 3
    assert {row.group for row in rows} == {"squad/train.json/0/0"}
    assert [row.id for row in sources.read(f"squad:{path}?limit=2", "qa")] == ["good", "b"]
    assert sources.read(f"squad:{path}?languages=German", "qa")[0].context_language == "de"
    with pytest.raises(UserError, match="one language"):
        sources.read(f"squad:{path}?languages=de,en", "qa")


def test_a_key_depends_on_content_and_position_but_not_on_the_folder(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    first = write(tmp_path / "one" / "f.json", make_document(GOOD, make_entry(id="b", start=5)))
    second = write(tmp_path / "two" / "f.json", make_document(GOOD, make_entry(id="b", start=5, question="when?")))
    a, b = (sources.read(f"squad:{path}", "qa") for path in (first, second))
    assert a[0].key == b[0].key
    assert a[1].key != b[1].key


def make_paragraphs(*groups):
    return {"data": [{"paragraphs": [{"context": context, "qas": list(qas)} for context, qas in groups]}]}


@pytest.fixture
def xquad(tmp_path):
    for language, name in [("en", "Anna"), ("de", "Änna"), ("zh-CN", "安娜")]:
        qas = [make_entry(id=id, question=f"{language} {id}?", text=name, start=0) for id in ("a", "b")]
        if language == "de":
            qas.pop()
        write(
            tmp_path / f"xquad.{language}.json",
            make_paragraphs((f"{name} x", qas), (f"{name} y", [make_entry(id="c", question="?", text=name, start=0)])),
        )
    write(tmp_path / "notes.json", {})
    return tmp_path


def test_xquad_gives_cells_and_groups(xquad):
    rows = sources.read(f"xquad:{xquad}", "qa")
    assert [(row.question_language, row.id) for row in rows] == [
        ("de", "a"), ("de", "c"), ("en", "a"), ("en", "b"), ("en", "c"), ("zh", "a"), ("zh", "b"), ("zh", "c"),
    ]  # fmt: skip
    assert {row.group for row in rows} == {"xquad/0/0", "xquad/0/1"}
    assert {row.group for row in rows if row.id == "c"} == {"xquad/0/1"}
    pairs = sources.read(f"xquad:{xquad}?pairs=all&languages=de,en", "qa")
    cells = [(row.question_language, row.context_language, row.id) for row in pairs]
    assert cells == [
        ("de", "de", "a"), ("de", "de", "c"), ("de", "en", "a"), ("de", "en", "c"),
        ("en", "de", "a"), ("en", "de", "c"), ("en", "en", "a"), ("en", "en", "b"), ("en", "en", "c"),
    ]  # fmt: skip
    crossed = next(row for row in pairs if (row.question_language, row.context_language) == ("de", "en"))
    assert (crossed.question, crossed.context, crossed.answers[0].text) == ("de a?", "Anna x", "Anna")
    assert len({row.key for row in pairs}) == len(pairs)


def test_xquad_languages_can_be_selected(xquad):
    assert [row.context_language for row in sources.read(f"xquad:{xquad}?languages=zh,de&limit=1", "qa")] == [
        "zh",
        "de",
    ]
    assert len(sources.read(f"xquad:{xquad}/xquad.de.json", "qa")) == 2
    with pytest.raises(UserError, match=r"no file for fr.*there are de, en, zh"):
        sources.read(f"xquad:{xquad}?languages=fr", "qa")
    with pytest.raises(UserError, match="unknown language 'xx'"):
        sources.read(f"xquad:{xquad}?languages=xx", "qa")
    write(xquad / "xquad.zh.json", make_document(GOOD))
    with pytest.raises(UserError, match="the same languages as"):
        sources.read(f"xquad:{xquad}", "qa")
    (xquad / "xquad.zh.json").rename(xquad / "xquad.qqq.json")
    with pytest.raises(UserError, match=r"xquad.qqq.json: unknown language"):
        sources.read(f"xquad:{xquad}", "qa")


@pytest.fixture
def mlqa(tmp_path):
    def cell(context, question, *groups, split="dev"):
        paragraphs = [
            (f"{context} {name}", [make_entry(id=id, question=question, text=context, start=0) for id in ids])
            for name, ids in groups
        ]
        write(tmp_path / f"{split}-context-{context}-question-{question}.json", make_paragraphs(*paragraphs))

    cell("en", "en", ("p", ["1", "2"]), ("q", ["3"]), ("r", ["4"]))
    cell("de", "de", ("p", ["2"]), ("q", ["3", "4"]))  # One German paragraph joins two English ones.
    cell("de", "en", ("p", ["2"]))
    cell("en", "en", ("p", ["9"]), split="test")
    return tmp_path


def test_mlqa_gives_cells_and_groups(mlqa):
    rows = sources.read(f"mlqa:{mlqa}?pairs=all", "qa")
    assert [(r.context_language, r.question_language, r.id) for r in rows] == [
        ("de", "de", "2"), ("de", "de", "3"), ("de", "de", "4"), ("de", "en", "2"),
        ("en", "en", "1"), ("en", "en", "2"), ("en", "en", "3"), ("en", "en", "4"),
    ]  # fmt: skip
    assert {row.id: row.group for row in rows} == {"1": "mlqa/1", "2": "mlqa/1", "3": "mlqa/3", "4": "mlqa/3"}
    assert len(sources.read(f"mlqa:{mlqa}", "qa")) == 7
    assert {row.id: row.group for row in sources.read(f"mlqa:{mlqa}?languages=en", "qa")}["4"] == "mlqa/4"
    assert [row.id for row in sources.read(f"mlqa:{mlqa}?split=test", "qa")] == ["9"]


def test_one_mlqa_file_is_one_cell(mlqa):
    (row,) = sources.read(f"mlqa:{mlqa}/dev-context-de-question-en.json", "qa")
    assert (row.question_language, row.context_language) == ("en", "de")
    assert len(sources.read(f"mlqa:{mlqa}/test-context-en-question-en.json", "qa")) == 1


def test_mlqa_is_read_in_its_published_folders(mlqa):
    (mlqa / "dev").mkdir()
    for path in mlqa.glob("dev-*.json"):
        path.rename(mlqa / "dev" / path.name)
    assert len(sources.read(f"mlqa:{mlqa}", "qa")) == 7


def test_rows_with_repeated_tydiqa_ids_have_distinct_keys(tmp_path):
    folder = tmp_path / "tydiqa-goldp-v1.1-train"
    folder.mkdir()
    paragraph = ("Anna x", [make_entry(id="1", start=0)])
    write(
        folder / "tydiqa.goldp.ko.train.json",
        make_paragraphs(paragraph, ("Anna y", [make_entry(id="1", start=0)]), paragraph),
    )
    rows = sources.read(f"tydiqa:{tmp_path}", "qa")
    assert [row.id for row in rows] == ["1"] * 3
    assert len({row.key for row in rows}) == 3
    assert rows[0].group == rows[2].group != rows[1].group
    assert {(row.set, row.context_language) for row in rows} == {("tydiqa", "ko")}
    assert len(sources.read(f"tydiqa:{folder}/tydiqa.goldp.ko.train.json", "qa")) == 3


def list_questions(language):
    """Lists id, context and answer of toy questions of MLQA, and how they are asked; each language lacks one."""
    numbers = [number for number in range(6) if number != {"de": 3, "en": 2}[language]]
    contexts = {number: f"{language}: text {number // 2} of Anna" for number in numbers}
    return [((str(number), context, "Anna"), f"{language}? {number}") for number, context in contexts.items()]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Prepares XQuAD, MLQA, SQuAD and TyDi QA as TFDS does, and Greek XQuAD in the format of TensorFlow."""
    tfds = pytest.importorskip("tensorflow_datasets")
    folder = tmp_path_factory.mktemp("tfds")

    def prepare(name, config, split, examples, version="3.0.0", more=None):
        text = tfds.features.Text
        answers = tfds.features.Sequence({"text": text(), "answer_start": np.int32})
        shape = {"id": text(), "title": text(), "context": text(), "question": text(), "answers": answers}
        shape |= more or {}

        class Toy(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            VERSION = tfds.core.Version(version)
            BUILDER_CONFIGS = (tfds.core.BuilderConfig(name=config),)

            def _info(self):
                return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(shape))

            def _split_generators(self, _):
                return {split: iter(enumerate(examples))}

            def _generate_examples(self):
                raise NotImplementedError

        Toy.name = name
        Toy(config=config, data_dir=folder, file_format="array_record").download_and_prepare()

    def example(id, context, text):
        at = context.find(text)
        return {
            "id": id,
            "title": "t",
            "context": context,
            "question": "was?",
            "answers": [{"text": text, "answer_start": at}],
        }

    for language in ("de", "en"):
        prepare("xquad", language, "test", [example(id, f"{language} Öl {id > 'b'}", "Öl") for id in "abc"])
        asked = [example(*part) | {"question": question} for part, question in list_questions(language)]
        prepare("mlqa", language, "test", asked, "1.0.0")
    bad_examples = [example("x", "a b", "c"), example("y", "a b", "b") | {"answers": []}, example("z", "a b", "b")]
    prepare("squad", "v1.1", "train", bad_examples)
    marked = [
        example("y", "a b", "b") | {"is_impossible": False},
        example("n", "a b", "c") | {"answers": [], "is_impossible": True},
        example("x", "a b", "b") | {"is_impossible": True},
        example("z", "a b", "b") | {"answers": [], "is_impossible": False},
    ]
    for each in marked:
        each["plausible_answers"] = [{"text": "b", "answer_start": 2}]
    more = {
        "is_impossible": np.bool_,
        "plausible_answers": tfds.features.Sequence({"text": tfds.features.Text(), "answer_start": np.int32}),
    }
    prepare("squad", "v2.0", "train", marked, more=more)
    prepare("tydi_qa", "goldp", "validation", [example("korean-1-0", "a b", "b"), example("swahili-1-0", "a b", "b")])
    info = folder / "xquad" / "de" / "3.0.0" / "dataset_info.json"
    tfrecord = folder / "xquad" / "el" / "3.0.0"
    tfrecord.mkdir(parents=True)
    (tfrecord / "features.json").write_bytes((info.parent / "features.json").read_bytes())
    (tfrecord / "dataset_info.json").write_text(
        info.read_text().replace("array_record", "tfrecord").replace('"de"', '"el"')
    )
    return folder


def test_tfds_rows_are_read_without_tensorflow(prepared):
    import sys

    rows = sources.read(f"tfds:xquad?languages=de,en&data_dir={prepared}", "qa")
    assert [row.context_language for row in rows] == ["de"] * 3 + ["en"] * 3
    assert {row.set for row in rows} == {"xquad"}
    first = next(row for row in rows if row.id == "a")
    assert (first.context, first.question, first.answers[0].text, first.answers[0].start) == (
        "de Öl False",
        "was?",
        "Öl",
        3,
    )
    assert {row.id: row.group for row in rows} == {"a": "xquad/a", "b": "xquad/a", "c": "xquad/c"}
    assert len({row.key for row in rows}) == 6
    assert len(sources.read(f"tfds:xquad/en?data_dir={prepared}&limit=2", "qa")) == 2
    assert len(sources.read(f"tfds:xquad/en?data_dir={prepared}&split=test[:1]", "qa")) == 1
    assert "tensorflow" not in sys.modules


def test_tfds_mlqa_has_the_cells_of_the_files_of_mlqa(prepared, tmp_path):
    own = {language: dict(list_questions(language)) for language in ("de", "en")}
    for context, question in itertools.product(own, own):
        asked = {id: text for (id, _, _), text in own[question].items()}
        paragraphs = [
            (text, [make_entry(id=id, question=asked[id], text=answer, start=text.find(answer))])
            for id, text, answer in own[context]
            if id in asked
        ]
        write(tmp_path / f"test-context-{context}-question-{question}.json", make_paragraphs(*paragraphs))
    names = ("id", "question", "context", "answers", "question_language", "context_language", "group", "set")
    for options in ("languages=de,en&pairs=all", "languages=de,en&pairs=diagonal", "pairs=all&languages=de"):
        folder = sources.read(f"mlqa:{tmp_path}?split=test&{options}", "qa")
        rows = sources.read(f"tfds:mlqa?split=test&{options}&data_dir={prepared}", "qa")
        contents = [sorted(operator.attrgetter(*names)(row) for row in part) for part in (rows, folder)]
        assert contents[0] == contents[1]
    crossed = sources.read(f"tfds:mlqa?languages=de,en&split=test&pairs=all&data_dir={prepared}", "qa")
    cells = collections.Counter((row.question_language, row.context_language) for row in crossed)
    assert cells == {("de", "de"): 5, ("en", "en"): 5, ("de", "en"): 4, ("en", "de"): 4}
    assert len({row.key for row in crossed}) == 18
    limited = sources.read(f"tfds:mlqa?languages=de,en&split=test&pairs=all&limit=2&data_dir={prepared}", "qa")
    assert len(limited) == 8
    diagonal = sources.read(f"tfds:mlqa?languages=de,en&split=test&data_dir={prepared}", "qa")
    assert {row.key for row in diagonal} == {
        row.key for row in crossed if row.question_language == row.context_language
    }
    assert len(sources.read(f"tfds:xquad?languages=de,en&pairs=all&data_dir={prepared}", "qa")) == 12


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("xquad?languages=de,ru", "not prepared under .*xquad/ru"),
        ("squad/v3?", "no config v3"),
        ("xnli?", "not prepared under .*xnli"),
        ("paws_x_wiki?languages=de", "not prepared under .*paws_x_wiki/de"),
        ("para_crawl?languages=en,de", "not prepared under .*para_crawl/ende"),
    ],
)
def test_tfds_data_that_is_not_prepared_is_found_before_anything_is_read(prepared, missing, reason):
    present = f"tfds:xquad?languages=de,en&data_dir={prepared}+tfds:tydi_qa?data_dir={prepared}"
    sources.check_sources_exist(present)
    with pytest.raises(UserError, match=reason):
        sources.check_sources_exist(f"{present}+tfds:{missing}&data_dir={prepared}")


def test_bad_tfds_rows_are_refused_or_skipped(prepared):
    with pytest.raises(UserError, match=r"tfds:squad/v1.1 train\["):
        sources.read(f"tfds:squad?data_dir={prepared}", "qa")
    rows = sources.read(f"tfds:squad?data_dir={prepared}", "qa", "skip")
    assert [row.id for row in rows] == ["z"]
    assert sorted(reason.split(" ")[0] for _, reason in rows.dropped) == ["answer", "no"]


def test_tfds_squad_2_has_unanswerable_questions(prepared):
    rows = sources.read(f"tfds:squad/v2.0?data_dir={prepared}", "qa", "skip")
    assert {row.id: [answer.text for answer in row.answers] for row in rows} == {"y": ["b"], "n": []}
    assert {row.set for row in rows} == {"squad"}
    assert sorted(reason for _, reason in rows.dropped) == [
        "is_impossible is true, but there are answers",
        "no gold answer, but is_impossible is false",
    ]


def test_tfds_tydiqa_languages_come_from_ids(prepared):
    rows = sources.read(f"tfds:tydi_qa?data_dir={prepared}&split=validation", "qa")
    assert {row.context_language for row in rows} == {"ko", "sw"}
    only = sources.read(f"tfds:tydi_qa?data_dir={prepared}&split=validation&languages=sw", "qa")
    assert [row.set for row in only] == ["tydiqa"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("tfds:xquad/ru?data_dir={}", r"not prepared under .*xquad/ru.*tfds.builder\('xquad/ru', data_dir='{}', file_format='array_record'\)"),
        ("tfds:xquad/el?data_dir={}", "prepared as tfrecord .*move it away"),
        ("tfds:xquad/ro?data_dir={}", "no config ro; there are ar, de, el"),
        ("tfds:xquad?data_dir={}", r"tfds:xquad/ar,es,.*tfds.builder\('xquad/' \+ c, .*for c in 'ar es hi .*'.split\(\)"),
        ("tfds:xquad/de?data_dir={}&split=train", "Unknown split 'train'"),
        ("tfds:squad?data_dir={}&pairs=all", "unknown option 'pairs'"),
        ("tfds:natural_questions", "no reader for the TFDS data set 'natural_questions'"),
    ],
)  # fmt: skip
def test_missing_tfds_data_is_reported_in_one_line(prepared, source, reason):
    with pytest.raises(UserError, match=reason.replace("{}", str(prepared))) as error:
        sources.read(source.format(prepared), "qa")
    assert "\n" not in str(error.value)
