# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Parquet files and folders of `save_to_disk`: the rows that the readers of the same data sets' own files give."""

import dataclasses
import json
import math
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xlkd import check
from xlkd.data import sources
from xlkd.data.sources import _arrow_files
from xlkd.errors import UserError, escape_controls
from xlkd.rows import Answer

NLI = ("entailment", "neutral", "contradiction")
CONTEXT = "Anna wrote a letter to Omar."


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path / "cache"))


def make_table(columns, class_labels=None):
    """Returns a table, with the names of class labels where `datasets` puts them."""
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    features = {name: {"names": names, "_type": "ClassLabel"} for name, names in (class_labels or {}).items()}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write(path, columns, class_labels=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(make_table(columns, class_labels), path, **options)
    return path


def save_to_disk(folder, shards, class_labels=None, chunk=2):
    """Writes the files that `datasets.Dataset.save_to_disk` writes; names of labels beside them, not in the schema."""
    folder.mkdir(parents=True)
    names = [f"data-{number:05}-of-{len(shards):05}.arrow" for number in range(len(shards))]
    for name, columns in zip(names, shards, strict=True):
        table = pa.table(columns)
        with pa.ipc.new_stream(folder / name, table.schema) as stream:
            stream.write_table(table, max_chunksize=chunk)
    features = {name: {"names": names, "_type": "ClassLabel"} for name, names in (class_labels or {}).items()}
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    (folder / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": name} for name in names], "_split": None})
    )
    return folder


def make_questions(count=2, **changes):
    columns = {
        "id": [str(number) for number in range(count)],
        "question": [f"Who wrote letter {number}?" for number in range(count)],
        "context": [CONTEXT] * count,
        "answers": [{"text": ["Anna", "Anna wrote"], "answer_start": [0, 0]}] * count,
    }
    return {name: values for name, values in (columns | changes).items() if values is not None}


def read_labelled(source, on_bad_row="stop"):
    return [(row.language, row.text, row.second, row.label) for row in sources.read(source, "classify", on_bad_row)]


def read_all_fields(source, task="classify"):
    return [dataclasses.asdict(row) for row in sources.read(source, task)]


# Questions


def test_questions_are_those_of_the_same_file_in_squads_layout(tmp_path):
    contexts = [CONTEXT, "The train stops in Riga and in Tartu."]
    rows = [
        ("a", "Who wrote?", 0, [("Anna", 0)]),
        ("b", "To whom?", 0, [("Omar", 23), ("to Omar", 20)]),
        ("c", "Where?", 1, [("Riga", 19)]),
    ]
    paragraphs = [
        {
            "context": context,
            "qas": [
                {"id": id, "question": text, "answers": [{"text": t, "answer_start": s} for t, s in answers]}
                for id, text, at, answers in rows
                if at == number
            ],
        }
        for number, context in enumerate(contexts)
    ]
    (tmp_path / "dev.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    for form in ("a struct of lists", "a list of structs"):
        entries = [[{"text": t, "answer_start": s} for t, s in answers] for *_, answers in rows]
        if form == "a struct of lists":
            entries = [{key: [entry[key] for entry in own] for key in ("text", "answer_start")} for own in entries]
        columns = {"id": [r[0] for r in rows], "title": ["t"] * 3, "context": [contexts[r[2]] for r in rows]}
        path = write(tmp_path / f"{form}.parquet", {**columns, "question": [r[1] for r in rows], "answers": entries})
        questions = sources.read(f"parquet:{path}?languages=de", "qa")
        expected = sources.read(f"squad:{tmp_path}/dev.json?languages=de", "qa")
        assert [read_content(row) for row in questions] == [read_content(row) for row in expected]
        assert [row.group for row in questions] == [f"{form}/{id}" for id in "aac"]  # one for each paragraph


def write_squad(path, context, questions):
    path.parent.mkdir(exist_ok=True)
    answers = [{"text": "Anna", "answer_start": 0}, {"text": "Anna wrote", "answer_start": 0}]
    entries = [{"id": str(number), "question": text, "answers": answers} for number, text in enumerate(questions)]
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": context, "qas": entries}]}]}))


def read_content(row):
    return row.id, row.question, row.context, row.answers, row.question_language, row.context_language


def test_the_only_answer_may_be_in_columns_of_its_own(tmp_path):
    flat = make_questions(answers=None, span=["Anna", "letter"], start=[0, 13])
    path = write(tmp_path / "a.parquet", flat)
    rows = sources.read(f"parquet:{path}?languages=en&answer_text=span&answer_start=start", "qa")
    assert [row.answers for row in rows] == [(Answer("Anna", 0),), (Answer("letter", 13),)]
    with pytest.raises(UserError, match="no column is known to be the answers; name it: answers=COLUMN"):
        sources.read(f"parquet:{path}?languages=en", "qa")


def test_questions_are_grouped_by_the_languages_of_a_column(tmp_path):
    table = make_questions(4, id=["1", "1", "2", "2"], lang=["de", "eng", "de", "eng"])
    path = write(tmp_path / "a.parquet", table)
    rows = sources.read(f"parquet:{path}", "qa")
    assert [(row.context_language, row.id) for row in rows] == [("de", "1"), ("de", "2"), ("en", "1"), ("en", "2")]
    assert {row.group for row in rows} == {"a/1"}  # the paragraphs of both languages
    assert [row.context_language for row in sources.read(f"parquet:{path}?languages=en&limit=1", "qa")] == ["en"]


def test_folders_named_by_languages_are_read_one_after_the_other(tmp_path):
    for language in ("de", "en"):
        questions = [f"Who wrote letter {number} in {language}?" for number in range(2)]
        write(
            tmp_path / f"xquad/xquad.{language}/validation-00000-of-00001.parquet", make_questions(question=questions)
        )
        write_squad(tmp_path / f"own/xquad.{language}.json", CONTEXT, questions)
    rows = sources.read(f"parquet:{tmp_path}/xquad?languages=en,de", "qa")
    assert [(row.set, row.question_language) for row in rows] == [("xquad", tag) for tag in ("en", "en", "de", "de")]
    assert len({row.key for row in rows}) == 4
    assert {row.group for row in rows} == {"xquad/0"}
    assert len(sources.read(f"parquet:{tmp_path}/xquad", "qa")) == 4
    expected = sources.read(f"xquad:{tmp_path}/own?pairs=all&limit=1", "qa")
    rows = sources.read(f"parquet:{tmp_path}/xquad?pairs=all&limit=1", "qa")
    assert [read_content(row) for row in rows] == [read_content(row) for row in expected]
    assert len({row.key for row in rows}) == 4
    write(tmp_path / "mlqa/mlqa.de.en/test/0000.parquet", make_questions())
    row = sources.read(f"parquet:{tmp_path}/mlqa/mlqa.de.en", "qa")[0]
    assert (row.set, row.context_language, row.question_language) == ("mlqa", "de", "en")


def test_questions_of_tydiqa_are_in_the_language_of_their_id(tmp_path):
    ids = ["swahili-1-0", "swahili-1-0", "telugu-2-0"]
    path = write(tmp_path / "tydiqa/train.parquet", make_questions(3, id=ids))
    rows = sources.read(f"parquet:{path}", "qa")
    assert [(row.set, row.id, row.question_language) for row in rows] == [
        ("tydiqa", ids[0], "sw"),
        ("tydiqa", ids[1], "sw"),
        ("tydiqa", ids[2], "te"),
    ]
    assert len({row.group for row in rows}) == 1  # one paragraph


BAD_QUESTIONS = {
    "no context": ({"context": [CONTEXT, None]}, "no context"),
    "an empty question": ({"question": ["Who?", " "]}, "empty question"),
    "no id": ({"id": ["1", None]}, "no id"),
    "a repeated id": ({"id": ["1", "1"]}, "duplicate id"),
    "a wrong offset": (
        {"answers": [{"text": ["Anna"], "answer_start": [s]} for s in (0, 7)]},
        "wrong offset: answer 'Anna' is not at character 7 but at 0",
    ),
    "an offset beyond the context": (
        {"answers": [{"text": ["Anna"], "answer_start": [s]} for s in (0, 10**9)]},
        "wrong offset",
    ),
    "another answer": (
        {"answers": [{"text": [t], "answer_start": [0]} for t in ("Anna", "Olga")]},
        "answer not in the context: 'Olga'",
    ),
    "no offset": ({"answers": [{"text": ["Anna"], "answer_start": s} for s in ([0], [])]}, "answer_start is None"),
    "no text": ({"answers": [{"text": t, "answer_start": [0]} for t in (["Anna"], [])]}, "an answer without 'text'"),
    "null for answers": ({"answers": [{"text": ["Anna"], "answer_start": [0]}, None]}, "no list under 'answers'"),
    "an unknown language": ({"language": ["en", "qqq"]}, "unknown language 'qqq'"),
    "half a character": (
        {"context": pa.array([CONTEXT.encode(), b"Anna \xed\xa0\x80"]).cast(pa.string(), safe=False)},
        "context is not UTF-8 at byte 5",
    ),
}


@pytest.mark.parametrize(("changes", "reason"), BAD_QUESTIONS.values(), ids=BAD_QUESTIONS)
def test_a_bad_question_is_named_by_its_row(tmp_path, changes, reason):
    path = write(tmp_path / "a.parquet", make_questions(**changes))
    source = f"parquet:{path}" + ("" if "language" in changes else "?languages=en")
    with pytest.raises(UserError, match=f"a.parquet: row 2: {reason}"):
        sources.read(source, "qa")
    assert len(sources.read(source, "qa", "skip")) == 1


NONE, ANNA = {"text": [], "answer_start": []}, {"text": ["Anna"], "answer_start": [0]}


@pytest.mark.parametrize("marks", [None, [False, True]])
def test_a_question_without_an_answer_is_one_where_the_file_has_labels(tmp_path, marks):
    path = write(tmp_path / "a.parquet", make_questions(answers=[ANNA, NONE], is_impossible=marks))
    assert [len(row.answers) for row in sources.read(f"parquet:{path}?languages=en", "qa")] == [1, 0]


@pytest.mark.parametrize(
    ("answers", "marks", "reason"),
    [
        ([NONE, NONE], None, "the file has no labels"),
        ([ANNA, ANNA], [True, False], "is_impossible is true, but there are answers"),
        ([NONE, ANNA], [False, False], "no gold answer, but is_impossible is false"),
        ([ANNA, NONE], ["no", "yes"], "column is_impossible cannot be the is_impossible"),
    ],
)
def test_missing_answers_and_false_marks_are_faults(tmp_path, answers, marks, reason):
    path = write(tmp_path / "a.parquet", make_questions(answers=answers, is_impossible=marks))
    with pytest.raises(UserError, match=reason):
        sources.read(f"parquet:{path}?languages=en", "qa")


# Labelled texts


def test_class_labels_have_the_names_in_the_file(tmp_path):
    columns = {"text": ["a", "b", "c", "d"], "label": [1, 0, -1, None]}
    path = write(tmp_path / "a.parquet", columns, {"label": ["bad", "good"]})
    expected = [("de", "a", None, "good"), ("de", "b", None, "bad"), ("de", "c", None, None), ("de", "d", None, None)]
    assert read_labelled(f"parquet:{path}?languages=de") == expected
    save_to_disk(tmp_path / "saved", [columns], {"label": ["bad", "good"]})
    assert read_labelled(f"parquet:{tmp_path}/saved?languages=de") == expected
    path = write(tmp_path / "b.parquet", columns)
    assert [label for *_, label in read_labelled(f"parquet:{path}?languages=de")] == ["1", "0", "-1", None]
    for label in (1, -2):
        path = write(tmp_path / "c.parquet", {"text": ["a"], "label": [label]}, {"label": ["bad"]})
        with pytest.raises(UserError, match=rf"c.parquet: row 1: label {label} has no name \(there are 1\)"):
            read_labelled(f"parquet:{path}?languages=de")


XNLI_ROWS = [("A man sleeps.", "He is awake.", 2), ("A dog runs.", "An animal runs.", 0), ("A dog runs.", "Fast.", 1)]


def write_xtreme(folder, tag, rows, names):
    folder.mkdir(exist_ok=True)
    text = "".join(f"{first}\t{second}\t{names[label]}\n" for first, second, label in rows)
    (folder / f"test-{tag}.tsv").write_text(text, encoding="utf-8")


def test_xnli_has_the_rows_of_its_folder(tmp_path):
    translated = {"en": XNLI_ROWS, "de": [(f"{a} (de)", f"{b} (de)", label) for a, b, label in XNLI_ROWS]}
    for tag, rows in translated.items():
        write_xtreme(tmp_path / "tsv", tag, rows, NLI)
        texts = {"premise": [r[0] for r in rows], "hypothesis": [r[1] for r in rows], "label": [r[2] for r in rows]}
        write(tmp_path / f"xnli/{tag}/test-00000-of-00001.parquet", texts, {"label": NLI})
    premises = [{tag: translated[tag][i][0] for tag in ("de", "en")} for i in range(3)]
    hypotheses = [
        {"language": ["en", "de"], "translation": [translated["en"][i][1], translated["de"][i][1]]} for i in range(3)
    ]
    columns = {"premise": premises, "hypothesis": hypotheses, "label": [r[2] for r in XNLI_ROWS]}
    write(tmp_path / "all/xnli/test-00000-of-00001.parquet", columns, {"label": NLI})
    expected = read_all_fields(f"xnli:{tmp_path}/tsv?split=test")
    assert [row["group"] for row in expected[:3]] == [row["group"] for row in expected[3:]]  # those of English
    assert read_all_fields(f"parquet:{tmp_path}/xnli?split=test") == expected
    assert read_all_fields(f"parquet:{tmp_path}/all/xnli?split=test") == expected
    assert read_all_fields(f"parquet:{tmp_path}/all/xnli?languages=en&limit=2") == expected[3:5]
    assert len(read_all_fields(f"parquet:{tmp_path}/xnli/de")) == 3  # the folder's name is the language
    path = write(tmp_path / "afri.parquet", columns, {"label": NLI})  # another set in the same form
    rows = sources.read(f"parquet:{path}", "classify")
    assert [row.group.replace("afri/", "xnli/") for row in rows] == [row["group"] for row in expected]


def test_pawsx_has_the_rows_of_its_folder(tmp_path):
    rows = [(1, "a b", "b a", 1), (2, "NS", "c", 0), (3, 'say "c"', "d", 0)]
    text = "".join("\t".join(map(str, row)) + "\n" for row in [("id", "sentence1", "sentence2", "label"), *rows])
    (tmp_path / "x-final/de").mkdir(parents=True)
    (tmp_path / "x-final/de/dev_2k.tsv").write_text(text)
    names = ("id", "sentence1", "sentence2", "label")
    columns = {name: [row[at] for row in rows] for at, name in enumerate(names)}
    write(tmp_path / "paws-x/de/validation-00000-of-00001.parquet", columns, {"label": ["0", "1"]})
    expected = read_all_fields(f"pawsx:{tmp_path}/x-final?split=dev")
    assert read_all_fields(f"parquet:{tmp_path}/paws-x/de") == expected
    assert len(expected) == 2
    assert len(read_labelled(f"parquet:{tmp_path}/paws-x/de?ns=keep")) == 3
    path = write(tmp_path / "mine.parquet", columns)  # the columns tell the data set, but its name is the file's
    assert read_labelled(f"parquet:{path}?languages=de") == [tuple(row[n] for n in FIELDS) for row in expected]
    with pytest.raises(UserError, match="ns= is possible for PAWS-X alone"):
        read_labelled(f"parquet:{write(tmp_path / 'b.parquet', {'text': ['a']})}?languages=de&ns=keep")


FIELDS = ("language", "text", "second", "label")


def test_nusax_has_the_rows_of_its_folder(tmp_path):
    (tmp_path / "ace").mkdir()
    (tmp_path / "ace/test.csv").write_text("id,text,label\n7,a,positive\n8,b,neutral\n")
    columns = {"id": ["7", "8"], "text": ["a", "b"], "lang": ["ace", "ace"], "label": [2, 1]}
    write(tmp_path / "NusaX-senti/ace/test.parquet", columns, {"label": ["negative", "neutral", "positive"]})
    expected = read_all_fields(f"nusax:{tmp_path}?split=test")
    assert read_all_fields(f"parquet:{tmp_path}/NusaX-senti/ace") == expected


def test_folders_of_languages_of_an_own_data_set_are_one_set(tmp_path):
    for tag in ("de", "sw"):
        write(tmp_path / f"mine/{tag}/test.parquet", {"text": [f"{tag} {i}" for i in range(2)], "label": ["x", "y"]})
    rows = sources.read(f"parquet:{tmp_path}/mine?languages=sw,de", "classify")
    assert [(row.set, row.id, row.language, row.text) for row in rows] == [
        ("mine", f"mine/test:{i}", tag, f"{tag} {i}") for tag in ("sw", "de") for i in range(2)
    ]
    with pytest.raises(UserError, match="no file for fr; there are de, sw"):
        read_labelled(f"parquet:{tmp_path}/mine?languages=fr")


def test_columns_of_massive_and_sib200_are_recognised(tmp_path):
    columns = {"id": ["1", "1", "2"], "locale": ["de-DE", "zh-TW", "de-DE"], "partition": ["test", "test", "train"]}
    columns |= {"utt": ["weck mich", "叫醒我", "licht an"], "scenario": [1, 1, 0], "intent": [2, 2, 0]}
    names = {"scenario": ["iot", "alarm"], "intent": ["iot_on", "iot_off", "alarm_set"]}
    path = write(tmp_path / "massive.parquet", columns, names)
    rows = sources.read(f"parquet:{path}?split=test", "classify")
    assert [(row.language, row.text, row.label) for row in rows] == [
        ("de", "weck mich", "alarm_set"),
        ("zh-Hant", "叫醒我", "alarm_set"),
    ]
    assert {row.group for row in rows} == {"massive/1"}
    assert read_labelled(f"parquet:{path}?split=train&label=scenario") == [("de", "licht an", None, "iot")]
    with pytest.raises(UserError, match=r"massive.parquet: row 3: rows of several splits: test, train"):
        read_labelled(f"parquet:{path}")
    columns = {"index_id": [5, 6], "category": ["health", "sports"], "text": ["a", "b"]}
    write(tmp_path / "sib200/data/ace_Arab/dev.parquet", columns)
    rows = sources.read(f"parquet:{tmp_path}/sib200/data/ace_Arab", "classify")
    assert [(row.set, row.language, row.id, row.label) for row in rows] == [
        ("sib200", "ace-Arab", "5", "health"),
        ("sib200", "ace-Arab", "6", "sports"),
    ]


def test_rows_are_those_of_a_table_with_the_same_columns(tmp_path):
    columns = {"id": ["1", "1", "2"], "lang": ["de", "en", "de"], "review": ["a", "b", "c"], "stars": [1, 2, 3]}
    path = write(tmp_path / "a.parquet", columns)
    lines = ["\t".join(columns), *("\t".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    (tmp_path / "a.tsv").write_text("\n".join(lines) + "\n")
    for options in ("", "&languages=de&limit=1", "&rows=common", "&part=1/2", "&group=stars"):
        rows = sources.read(f"parquet:{path}?text=review&label=stars{options}", "classify")
        expected = sources.read(f"tsv:{tmp_path}/a.tsv?text=review&label=stars{options}", "classify")
        assert [(r.id, r.group, r.language, r.text, r.label) for r in rows] == [
            (r.id, r.group, r.language, r.text, r.label) for r in expected
        ]


TEXTS = ["a", "b"]
UNUSUAL = {
    "dictionary": pa.array(TEXTS).dictionary_encode(),
    "large string": pa.array(TEXTS, pa.large_string()),
    "string view": pa.array(TEXTS, pa.string_view()),
    "whole numbers": pa.array([1, 2]),
}


@pytest.mark.parametrize("texts", UNUSUAL.values(), ids=UNUSUAL)
def test_every_type_of_text_is_read(tmp_path, texts):
    path = write(tmp_path / "a.parquet", pa.table({"text": texts, "label": pa.array(TEXTS).dictionary_encode()}))
    expected = [str(text) for text in texts.to_pylist()]
    assert read_labelled(f"parquet:{path}?languages=de") == [
        ("de", text, None, label) for text, label in zip(expected, TEXTS, strict=True)
    ]


NO_TEXT = {
    "a list": ([["a"], ["b"]], r"list<\w+: string>"),
    "a struct of numbers": ([{"en": 1}, {"en": 2}], "struct<en: int64>"),
    "a list of structs": ([[{"en": "a"}], []], "list<"),
    "a timestamp": (pa.array([1, 2], pa.timestamp("ns")), r"timestamp\[ns\]"),
    "bytes": ([b"a", b"b"], "binary"),
    "truth values": ([True, False], "bool"),
    "a decimal": (pa.array([1, 2]).cast(pa.decimal128(38, 3)), r"decimal128\(38, 3\)"),
}


@pytest.mark.parametrize(("values", "shown"), NO_TEXT.values(), ids=NO_TEXT)
def test_a_column_of_another_type_is_refused_with_its_type(tmp_path, values, shown):
    path = write(tmp_path / "a.parquet", pa.table({"text": values, "label": TEXTS}))
    with pytest.raises(UserError, match=f"a.parquet: column text cannot be the text: its type is {shown}"):
        read_labelled(f"parquet:{path}?languages=de")


BAD_TEXTS = {
    "null": (["a", None, "c"], "empty text"),
    "no letters": (["a", "\t", "c"], "empty text"),
    "a fraction": ([1.0, 2.5, 3.0], "text is neither text nor a whole number"),
    "infinity": ([1.0, math.inf, 3.0], "text is neither text nor a whole number"),
    "half a surrogate pair": (
        pa.array([b"a", b"\xed\xa0\xbd", b"c"]).cast(pa.string(), safe=False),
        "text is not UTF-8 at byte 0",
    ),
}


@pytest.mark.parametrize(("values", "reason"), BAD_TEXTS.values(), ids=BAD_TEXTS)
def test_a_bad_text_is_named_by_its_row(tmp_path, values, reason):
    path = write(tmp_path / "a.parquet", {"text": values, "label": ["x", "y", "z"]})
    with pytest.raises(UserError, match=f"a.parquet: row 2: {reason}"):
        read_labelled(f"parquet:{path}?languages=de")
    assert [label for *_, label in read_labelled(f"parquet:{path}?languages=de", "skip")] == ["x", "z"]


def test_a_row_that_lacks_a_translation_is_named_with_the_language(tmp_path):
    columns = {"premise": [{"de": "a", "en": "b"}], "hypothesis": [{"language": ["en"], "translation": ["c"]}]}
    path = write(tmp_path / "a.parquet", {**columns, "label": [0]})
    with pytest.raises(UserError, match=r"a.parquet: row 1 in de: empty second text"):
        read_labelled(f"parquet:{path}")
    columns = {"premise": [{"de": "a"}, None], "hypothesis": [{"language": ["de"], "translation": ["c"]}] * 2}
    path = write(tmp_path / "b.parquet", {**columns, "label": [0, 1]})
    with pytest.raises(UserError, match=r"b.parquet: row 2"):
        read_labelled(f"parquet:{path}")
    assert read_labelled(f"parquet:{path}", "skip") == [("de", "a", "c", "0")]


# Pairs

GERMAN = ["Anna schrieb einen Brief.", "Der Zug hält hier.", None, "Der Zug hält hier."]
ENGLISH = ["Anna wrote a letter.", " The train stops here.\n", "It rains.", "The train stops here."]


def read_pairs(source, on_bad_row="stop"):
    rows = sources.read(source, "parallel", on_bad_row)
    return [(row.source_language, row.source, row.target_language, row.target) for row in rows]


def test_pairs_are_cleaned_like_those_of_text_files(tmp_path):
    struct = [{"de": de, "en": en} for de, en in zip(GERMAN, ENGLISH, strict=True)]
    expected = [("en", en.strip(), "de", de) for de, en in zip(GERMAN[:2], ENGLISH[:2], strict=True)]
    path = write(tmp_path / "a.parquet", {"id": ["1"] * 4, "translation": struct}, row_group_size=3)
    rows = sources.read(f"parquet:{path}", "parallel")
    assert read_pairs(f"parquet:{path}") == expected
    assert [(row.id, row.group, row.set) for row in rows] == [
        ("1", "a/a.parquet/1", "a"),
        ("2", "a/a.parquet/2", "a"),
    ]
    assert any("duplicate: 1 of 4 pairs" in reason for _, reason in rows.dropped)
    assert any("empty: 1 of 4 pairs" in reason for _, reason in rows.dropped)
    assert len(read_pairs(f"parquet:{path}?clean=empty")) == 3
    assert read_pairs(f"parquet:{path}?languages=de,en&take=head&limit=1") == [("de", GERMAN[0], "en", ENGLISH[0])]
    named = {"src": GERMAN, "tgt": ENGLISH, "mt": ["x"] * 4}
    path = write(tmp_path / "b.parquet", named)
    assert read_pairs(f"parquet:{path}?languages=de,en")[0] == ("de", GERMAN[0], "en", ENGLISH[0])
    assert read_pairs(f"parquet:{path}?languages=de,en&target=mt&source=tgt&clean=empty")[0] == (
        "de",
        ENGLISH[0],
        "en",
        "x",
    )
    path = write(tmp_path / "c.parquet", {"eng": ENGLISH, "deu": GERMAN})
    assert read_pairs(f"parquet:{path}?languages=en,de") == expected


def test_the_first_language_is_paired_with_each_of_the_others(tmp_path):
    texts = {"de": GERMAN[0], "en": ENGLISH[0], "fr": "Anna a écrit une lettre."}
    path = write(tmp_path / "a.parquet", {"translation": [texts]})
    with pytest.raises(UserError, match=r"no language pair given; set languages=A,B,…, .* there are de, en, fr"):
        read_pairs(f"parquet:{path}")
    assert read_pairs(f"parquet:{path}?languages=de,en,fr") == [
        ("de", texts["de"], "en", texts["en"]),
        ("de", texts["de"], "fr", texts["fr"]),
    ]
    with pytest.raises(UserError, match=r"a.parquet: no texts in sw; there are de, en, fr"):
        read_pairs(f"parquet:{path}?languages=de,sw")


def test_an_unreadable_pair_is_named_by_its_file_and_row(tmp_path):
    bad = pa.array([b"gut", b"\xff", b"zero\0"]).cast(pa.string(), safe=False)
    write(tmp_path / "s/train-00000-of-00002.parquet", {"source": ["fine"], "target": ["fein"]})
    write(tmp_path / "s/train-00001-of-00002.parquet", {"source": ["good", "bad", "null"], "target": bad})
    source = f"parquet:{tmp_path}/s?languages=en,de"
    with pytest.raises(UserError, match=r"train-00001-of-00002.parquet: row 2: target is not UTF-8 at byte 0"):
        read_pairs(source)
    rows = sources.read(source, "parallel", "skip")
    assert [(row.id, row.source) for row in rows] == [("1", "fine"), ("2", "good")]
    assert [(where.rpartition("/")[2], reason) for where, reason in rows.dropped] == [
        ("train-00001-of-00002.parquet: row 2", "target is not UTF-8 at byte 0"),
        ("train-00001-of-00002.parquet: row 3", "contains a zero byte"),
    ]


def test_pairs_of_other_columns_of_a_file_are_not_taken_from_the_cache(tmp_path):
    path = write(tmp_path / "a.parquet", {"source": ["hello"], "target": ["hallo"], "mt": ["servus"]})
    targets = [read_pairs(f"parquet:{path}?languages=en,de&target={name}")[0][3] for name in ("target", "mt", "target")]
    assert targets == ["hallo", "servus", "hallo"]


def test_a_few_rows_of_a_large_file_are_in_memory_at_a_time(tmp_path):
    generator = random.Random(0)
    columns = {side: [generator.randbytes(150).hex() for _ in range(40_000)] for side in ("source", "target", "other")}
    write(tmp_path / "file.parquet", columns)  # in one row group
    save_to_disk(tmp_path / "saved", [columns], chunk=1000)  # as datasets
    for name in ("file.parquet", "saved/data-00000-of-00001.arrow"):
        before, most, count = pa.total_allocated_bytes(), 0, 0
        for _ in _arrow_files.iterate_rows(tmp_path / name, [("source",), ("target",)]):
            count += 1
            most = max(most, pa.total_allocated_bytes() - before) if count % 100 == 0 else most
        assert count == 40_000
        assert 0 < most < 8_000_000 < 40_000 * 600


# Folders


def test_the_files_of_a_split_are_found_by_their_names(tmp_path):
    layouts = {
        "numbered": ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"),
        "converted": ("train/0000", "train/0001", "test/0000"),
        "data": ("data/train-00000-of-00002-0a1b2c", "data/train-00001-of-00002-3d4e5f", "data/test-00000-of-00001-6a"),
    }
    for layout, names in layouts.items():
        for number, name in enumerate(names):
            write(tmp_path / layout / f"{name}.parquet", {"text": [f"{number}a", f"{number}b"], "label": ["x", "y"]})
        source = f"parquet:{tmp_path / layout}?languages=de"
        assert [row[1] for row in read_labelled(f"{source}&split=train")] == ["0a", "0b", "1a", "1b"]
        assert [row[1] for row in read_labelled(f"{source}&split=test")] == ["2a", "2b"]
        with pytest.raises(UserError, match="has several splits; there is split=test, train"):
            read_labelled(source)
        with pytest.raises(UserError, match="no split named dev; there is split=test, train"):
            read_labelled(f"{source}&split=dev")
    path = write(tmp_path / "validation.parquet", {"text": ["c"]})
    assert read_labelled(f"parquet:{path}?languages=de&split=dev") == [("de", "c", None, None)]
    with pytest.raises(UserError, match="no split named test; there is split=validation"):
        read_labelled(f"parquet:{path}?languages=de&split=test")


def test_a_folder_with_missing_files_or_several_data_sets_is_refused(tmp_path):
    write(tmp_path / "a/train-00000-of-00003.parquet", {"text": ["a"]})
    write(tmp_path / "a/train-00002-of-00003.parquet", {"text": ["b"]})
    with pytest.raises(UserError, match="a: has 2 of the 3 files of a split; fetch the missing ones"):
        read_labelled(f"parquet:{tmp_path}/a?languages=de")
    write(tmp_path / "a/train-00000-of-00002.parquet", {"text": ["a"]})
    with pytest.raises(UserError, match="a: has files of several versions of a split"):
        read_labelled(f"parquet:{tmp_path}/a?languages=de")
    for name in ("rte", "wnli"):
        write(tmp_path / f"b/{name}/train.parquet", {"text": ["a"]})
    with pytest.raises(UserError, match=r"b: has files of several data sets \(rte, wnli\); name the folder of one"):
        read_labelled(f"parquet:{tmp_path}/b?languages=de")
    write(tmp_path / "a/test.parquet", {"text": ["c"]})  # the split that is read is complete
    assert len(read_labelled(f"parquet:{tmp_path}/a?languages=de&split=test")) == 1
    (tmp_path / "c").mkdir()
    with pytest.raises(UserError, match="c: no parquet files, and none that save_to_disk wrote"):
        read_labelled(f"parquet:{tmp_path}/c?languages=de")


def test_files_that_are_not_read_are_noted(tmp_path):
    write(tmp_path / "a/train.parquet", {"text": ["a"]})
    write(tmp_path / "a/test.parquet", {"text": ["a"]})
    (tmp_path / "a/README.md").write_text("")
    (tmp_path / "a/more.csv").write_text("")
    write(tmp_path / "a/.cache/test.parquet", {"text": ["hidden"]})
    rows = sources.read(f"parquet:{tmp_path}/a?languages=de&split=test", "classify")
    assert [row.text for row in rows] == ["a"]
    assert rows.notes == (f"{tmp_path}/a: 2 files are not read: README.md, more.csv",)


def test_folders_of_save_to_disk_are_read(tmp_path):
    shards = [{"text": ["a", "b", "c"], "label": [0, 1, 0]}, {"text": ["d"], "label": [1]}]
    folder = save_to_disk(tmp_path / "one", shards, {"label": ["no", "yes"]})
    assert [row[1:] for row in read_labelled(f"parquet:{folder}?languages=de")] == [
        ("a", None, "no"),
        ("b", None, "yes"),
        ("c", None, "no"),
        ("d", None, "yes"),
    ]
    for split in ("train", "validation"):
        save_to_disk(tmp_path / "two" / split, [{"text": [split]}])
    (tmp_path / "two/dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation"]}))
    rows = sources.read(f"parquet:{tmp_path}/two?languages=de&split=dev", "classify")
    assert [row.text for row in rows] == ["validation"]
    assert not rows.notes
    with pytest.raises(UserError, match="has several splits; there is split=train, validation"):
        read_labelled(f"parquet:{tmp_path}/two?languages=de")
    pairs = [{"translation": [{"de": de, "en": en} for de, en in zip(GERMAN, ENGLISH, strict=True)]}]
    assert len(read_pairs(f"parquet:{save_to_disk(tmp_path / 'pairs', pairs)}")) == 2
    many = [{"en": f"{i} houses were built.", "de": f"{i} Häuser wurden gebaut."} for i in range(700)]
    sides = [pa.array([f"hidden {tag}", *(row[tag] for row in many)]) for tag in ("en", "de")]
    mask = pa.array([True] + [False] * len(many))  # the first pair is missing, although there are texts
    table = pa.table({"translation": pa.StructArray.from_arrays(sides, names=["en", "de"], mask=mask)})
    write(tmp_path / "many.parquet", table)
    (tmp_path / "many").mkdir()
    with pa.ipc.new_stream(tmp_path / "many/data-00000-of-00001.arrow", table.schema) as stream:
        stream.write_table(table)  # as one batch
    (tmp_path / "many/state.json").write_text('{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')
    texts = [("en", row["en"], "de", row["de"]) for row in many]
    assert read_pairs(f"parquet:{tmp_path}/many") == read_pairs(f"parquet:{tmp_path}/many.parquet") == texts
    questions = save_to_disk(tmp_path / "questions", [make_questions(3)])
    assert [row.id for row in sources.read(f"parquet:{questions}?languages=en", "qa")] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("state.json", "{", "state.json: broken JSON"),
        ("state.json", "[" * 100_000, "state.json: broken JSON: nested too deeply"),
        ("state.json", '{"_data_files": []}', "state.json: no list of names under '_data_files'"),
        ("state.json", '{"_data_files": [{"filename": "../x.arrow"}]}', "no list of names under '_data_files'"),
        ("state.json", '{"_data_files": [{"filename": "gone.arrow"}]}', "gone.arrow: no such file"),
        ("state.json", '{"_indices_data_files": [{"filename": "i.arrow"}]}', "selects rows by an index"),
        (
            "dataset_info.json",
            '{"features": {"label": {"_type": "ClassLabel", "names": [1]}}}',
            "names that are not text",
        ),
    ],
)
def test_damaged_settings_of_save_to_disk_are_refused(tmp_path, name, content, reason):
    folder = save_to_disk(tmp_path / "saved", [{"text": ["a"], "label": [0]}])
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=reason):
        read_labelled(f"parquet:{folder}?languages=de")


# Damage


def test_damaged_files_are_refused_in_one_line(tmp_path):
    good = write(tmp_path / "good.parquet", {"text": [f"text {i}" for i in range(2000)]}).read_bytes()
    stream = (save_to_disk(tmp_path / "s", [{"text": ["a"] * 5}], chunk=5) / "data-00000-of-00001.arrow").read_bytes()
    middle = len(good) // 2
    damaged = {
        "empty": (b"", "an empty file"),
        "text": (b"text\tlabel\n", "neither a parquet file nor an Arrow stream"),
        "cut": (good[:middle], "cut off: the end of the file is missing"),
        "head": (b"PAR1", "damaged: "),
        "stream": (stream[:-16], "cut off: the end of the file is missing"),
        "ends": (b"PAR1" + b"\0" * 40 + b"PAR1", "damaged: "),
        "zeros": (good[:50] + b"\0" * (middle - 50) + good[middle:], "damaged: "),
        "names": (stream.replace(b"text", b"\xff\xfe\xfd\xfc"), "damaged: "),
        "offsets": (stream.replace(b"\2\0\0\0\3\0\0\0", b"\2\0\0\0\xff\xff\xff\x7f"), "damaged: "),
        "noise": (stream[:12] + b"\xff" * 40 + stream[52:], "damaged: "),
    }
    for name, (data, reason) in damaged.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=f"{name}: {reason}") as error:
            read_labelled(f"parquet:{tmp_path}/{name}?languages=de")
        assert str(error.value) == escape_controls(str(error.value))
    with pytest.raises(UserError, match="no such file or folder"):
        read_labelled(f"parquet:{tmp_path}/gone.parquet?languages=de")


@pytest.mark.parametrize("examples", [60, pytest.param(3000, marks=pytest.mark.long)])
def test_flipped_bits_give_rows_or_one_line(tmp_path, examples):
    translated = {"translation": ["c", "d"], "language": ["en", "de"]}
    in_all = {"premise": [{"de": "a", "en": "b"}] * 9, "hypothesis": [translated] * 9, "label": [0, 1, 2] * 3}
    saved = save_to_disk(tmp_path / "s", [{"text": ["a", "b"], "label": pa.array(["x", "y"]).dictionary_encode()}])
    pairs = {"translation": [{"de": f"Haus Nummer {i}", "en": f"house number {i}"} for i in range(9)]}
    cases = (
        (write(tmp_path / "qa", make_questions(9)), "qa", "?languages=en"),
        (write(tmp_path / "all", in_all, {"label": NLI}), "classify", ""),
        (write(tmp_path / "pairs", pairs), "parallel", "?languages=en,de"),
        (saved / "data-00000-of-00001.arrow", "classify", "?languages=de"),
    )
    generator, outcomes = random.Random(examples), set()
    for number in range(examples):
        path, task, options = cases[number % len(cases)]
        data = bytearray(path.read_bytes())
        for _ in range(generator.choice((1, 1, 2, 9))):
            data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        (tmp_path / "damaged").write_bytes(data)
        try:
            rows = sources.read(f"parquet:{tmp_path}/damaged{options}", task, "skip")
            outcomes.add("rows" if len(list(rows)) else "no rows")
        except UserError as error:
            outcomes.add(str(error).partition(": ")[2])
    assert all(outcome == escape_controls(outcome) for outcome in outcomes)
    assert "rows" in outcomes
    assert any(outcome.startswith("damaged: ") for outcome in outcomes)


def test_files_of_a_split_must_have_the_same_columns(tmp_path):
    write(tmp_path / "a/train-00000-of-00002.parquet", {"text": ["a"], "label": ["x"]})
    write(tmp_path / "a/train-00001-of-00002.parquet", {"text": ["a"], "class": ["x"]})
    with pytest.raises(UserError, match=r"train-00001-of-00002.parquet: no column named label; there are: text, class"):
        read_labelled(f"parquet:{tmp_path}/a?languages=de")
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    path = write(tmp_path / "twice.parquet", table)
    with pytest.raises(UserError, match=r"twice.parquet: two columns 'text'; rename one of them"):
        read_labelled(f"parquet:{path}?languages=de")


def test_wrong_options_are_explained(tmp_path):
    path = write(tmp_path / "a.parquet", {"text": ["a"], "label": ["b"]})
    for options, task, reason in (
        ("", "classify", "no column says the language; add languages=de, or language=COLUMN"),
        ("?languages=de&text=x", "classify", "a.parquet: no column named x; there are: text, label"),
        ("?languages=de&source=text", "classify", "unknown option 'source'"),
        ("?languages=de", "qa", "no column is known to be the question; name it: question=COLUMN"),
        ("?languages=de&label=x", "qa", "unknown option 'label'"),
        ("?languages=de", "parallel", "two languages are needed"),
        ("?languages=de,en", "parallel", "no column is known to be the source; name it: source=COLUMN"),
        ("?languages=de&config=x", "classify", "unknown option 'config'"),
    ):
        with pytest.raises(UserError, match=reason):
            sources.read(f"parquet:{path}{options}", task)
    path = write(tmp_path / "a.de.parquet", {"text": ["a"]})
    assert read_labelled(f"parquet:{path}") == [("de", "a", None, None)]
    with pytest.raises(UserError, match="no texts in en, fr; there are de"):
        read_labelled(f"parquet:{path}?languages=en,fr")


def test_check_reports_every_bad_row(tmp_path, capsys):
    path = write(tmp_path / "a.parquet", {"text": ["a", None, "c\x1b[2J", None], "label": ["x"] * 4})
    assert check.main([f"--data=parquet:{path}?languages=de", "--task=classify"]) == 2
    assert capsys.readouterr().err.splitlines() == [f"{path}: row {row}: empty text" for row in (2, 4)]
