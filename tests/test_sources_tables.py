# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tables of any origin: columns by name or number, with or without quoting, labelled texts or pairs."""

import json

import pytest

from xlkd.data import sources
from xlkd.errors import UserError


def write(path, text):
    path.write_bytes(text.encode())
    return path


def read_plain(source, task="classify", on_bad_row="stop"):
    rows = sources.read(source, task, on_bad_row)
    if task == "parallel":
        return [(row.source_language, row.source, row.target_language, row.target) for row in rows]
    return [(row.language, row.text, row.second, row.label) for row in rows]


@pytest.mark.parametrize(
    "header", ["text\ttext2\tlabel", "premise\thypo\tgold_label", "\ufeffSentence1\tsentence2\tLabel"]
)
def test_usual_column_names_are_recognised(tmp_path, header):
    path = write(tmp_path / "a.tsv", f'{header}\r\n"a" b\tc\tYes \r\n')
    assert read_plain(f"tsv:{path}?languages=de") == [("de", '"a" b', "c", "Yes ")]


def test_columns_are_chosen_by_name_or_number(tmp_path):
    path = write(tmp_path / "a.tsv", "1\ta\tgood\n2\tb\tbad\n")
    assert read_plain(f"tsv:{path}?languages=de&text=1&label=2&id=0") == [
        ("de", "a", None, "good"),
        ("de", "b", None, "bad"),
    ]
    path = write(tmp_path / "b.csv", 'review,verdict,product\n"a, ""b""\nc",good,p\n')
    assert read_plain(f"csv:{path}?languages=de&text=review&label=verdict") == [("de", 'a, "b"\nc', None, "good")]
    assert sources.read(f"csv:{path}?languages=de&text=review&group=product", "classify")[0].group == "b/p"


def test_quoting_in_a_tsv_is_undone_when_asked(tmp_path):
    path = write(tmp_path / "a.tsv", 'text\tlabel\n"a ""b"""\tx\n')
    assert read_plain(f"tsv:{path}?languages=de")[0][1] == '"a ""b"""'
    assert read_plain(f"tsv:{path}?languages=de&quoting=csv")[0][1] == 'a "b"'


def test_columns_may_contain_languages_and_ids(tmp_path):
    path = write(tmp_path / "test.tsv", "id\tlang\ttext\n1\tde\ta\n1\tzh-CN\tb\n2\tde\tc\n")
    rows = sources.read(f"tsv:{path}", "classify")
    assert [(row.language, row.id, row.group, row.label) for row in rows] == [
        ("de", "1", "test/1", None),
        ("de", "2", "test/2", None),
        ("zh", "1", "test/1", None),
    ]
    assert read_plain(f"tsv:{path}?languages=zh") == [("zh", "b", None, None)]
    assert len(read_plain(f"tsv:{path}?rows=common")) == 2


def test_rows_without_ids_are_not_grouped_as_translations(tmp_path):
    path = write(tmp_path / "a.tsv", "lang\ttext\nde\ta\nen\tb\nen\ta\n")
    rows = sources.read(f"tsv:{path}", "classify")
    assert [row.id for row in rows] == ["a.tsv:0", "a.tsv:0", "a.tsv:1"]
    assert len({row.key for row in rows}) == 3
    assert rows[0].group != rows[1].group
    assert rows[0].group == rows[2].group


def test_json_lines_are_read(tmp_path):
    rows = [{"text": "a", "label": 1, "id": 7}, {"text": "b\nc", "label": None, "id": 8}]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n")
    assert read_plain(f"jsonl:{path}?languages=en") == [("en", "a", None, "1"), ("en", "b\nc", None, None)]
    assert [row.id for row in sources.read(f"jsonl:{path}?languages=en", "classify")] == ["7", "8"]


BAD_OBJECTS = {
    "broken": ('{"text": ', "broken JSON"),
    "a list": ('["a"]', "not a JSON object"),
    "a list for text": ('{"text": ["a"]}', "text is neither text nor a whole number"),
    "no text": ('{"label": "x"}', "empty text"),
    "half a surrogate": ('{"text": "a \\ud83d", "label": "x"}', "text contains half of a surrogate pair"),
    "an empty line": ("", "an empty line"),
}


@pytest.mark.parametrize(("bad", "reason"), BAD_OBJECTS.values(), ids=BAD_OBJECTS)
def test_a_bad_json_line_is_named_with_its_reason(tmp_path, bad, reason):
    good = '{"text": "a", "label": "x"}'
    path = write(tmp_path / "a.jsonl", f"{good}\n{bad}\n{good}\n")
    with pytest.raises(UserError, match=f"a.jsonl: line 2: {reason}"):
        read_plain(f"jsonl:{path}?languages=en")
    assert len(read_plain(f"jsonl:{path}?languages=en", on_bad_row="skip")) == 2


def test_the_line_of_a_bad_row_counts_lines_not_rows(tmp_path):
    path = write(tmp_path / "a.csv", 'text,label\n"a\nb",x\nc\nd"e,x\n"f"g,x\nh,x\n')
    rows = sources.read(f"csv:{path}?languages=en", "classify", "skip")
    assert [row.text for row in rows] == ["a\nb", 'd"e', "h"]
    assert [where.rpartition(" ")[2] for where, _ in rows.dropped] == ["4", "6"]


def test_pairs_are_read_from_all_formats(tmp_path):
    path = write(tmp_path / "a.tsv", "hello\thallo\n\tleer\nbye\ttschüss\n")
    source = f"tsv:{path}?languages=en,de&source=0&target=1"
    with pytest.raises(UserError, match="line 2: empty source"):
        read_plain(source, "parallel")
    assert read_plain(source, "parallel", "skip") == [("en", "hello", "de", "hallo"), ("en", "bye", "de", "tschüss")]
    path = write(tmp_path / "a.csv", 'src,tgt,doc\n"a, b",c,d1\ne,f,d1\n')
    rows = sources.read(f"csv:{path}?languages=en,zh&group=doc", "parallel")
    assert [(row.source, row.group, row.links) for row in rows] == [("a, b", "a/d1", None), ("e", "a/d1", None)]
    path = write(tmp_path / "a.jsonl", '{"source": "a", "target": "b"}\n{"source": "c", "target": "d"}\n')
    assert read_plain(f"jsonl:{path}?languages=en,de&limit=1", "parallel") == [("en", "a", "de", "b")]


def test_wrong_options_are_explained(tmp_path):
    table = write(tmp_path / "a.tsv", "a\tb\nc\td\n")
    for source, task, reason in (
        (f"tsv:{table}?languages=de", "classify", "no column is known to be the text; name it: text=COLUMN, or text=0"),
        (f"tsv:{table}?languages=de&text=x", "classify", "no column named x; there are: a, b"),
        (f"tsv:{table}?languages=de&text=4", "classify", "no column 4, counted from 0: the first row has 2"),
        (f"tsv:{table}?languages=de&text=a&label=1", "classify", "columns are named both by name and by number"),
        (f"tsv:{table}?text=a", "classify", "no column says the language; add languages=de"),
        (f"tsv:{table}?text=a&languages=de,en", "classify", "no column says the language"),
        (f"tsv:{table}?source=a&target=b", "parallel", "two languages are needed; add languages=en,de"),
        (f"tsv:{table}?source=a&target=b&label=b", "parallel", "unknown option 'label'"),
        (f"tsv:{table}?quoting=yes", "classify", "quoting=yes is not possible"),
        (f"csv:{table}?quoting=yes", "classify", "quoting=yes is not possible"),
        (f"tsv:{tmp_path}/none?text=0&languages=de", "classify", "no such file"),
        (f"tsv:{tmp_path}?text=0&languages=de", "classify", "a folder, not a file"),
        (f"tsv:{table}?text=a&languages=de", "qa", "it has data for classify, parallel"),
    ):
        with pytest.raises(UserError) as error:
            sources.read(source, task)
        assert reason in str(error.value), source
