# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Damaged structure of files: a source gives the rows that the file has, and names each that it leaves out.

Rows are counted by other means than those of the sources. `make test-long` tries many more mutations.
"""

import copy
import csv
import gzip
import io
import itertools
import json
import os
import pathlib
import tempfile
import time
import xml.etree.ElementTree as ET

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from xlkd import check
from xlkd.data import sources
from xlkd.data.sources import _files, tmx
from xlkd.errors import UserError, escape_controls

LENGTHS = pytest.mark.parametrize("examples", [20, pytest.param(300, marks=pytest.mark.long)])
NUMBER = itertools.count()
INDEX = st.integers(0, 2**16)


def run_examples(examples, check_example, **strategies):
    """Runs a check on drawn examples."""
    options = settings(
        max_examples=examples,
        derandomize=examples < 100,
        phases=[Phase.explicit, Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    options(given(**strategies)(check_example))()


@pytest.fixture(scope="module", autouse=True)
def folder():
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLKD_CACHE", f"{name}/cache")
        patch.setenv("XLKD_CACHE_GIB", "0.01")
        yield pathlib.Path(name)


def read_all(source, task):
    """Returns the rows and the skipped ones, or None where the source is refused in one line."""
    bad_rows = sources.BadRows("skip")
    try:
        rows = [row for part in sources.parse(source) for row in sources.read_source(part, task, bad_rows)]
    except UserError as error:
        line = str(error)
    else:
        return rows, bad_rows.skipped
    assert line == escape_controls(line)
    return None, []


# Quotation marks


def write_plain_rows(path, rows, delimiter, header):
    path.write_text("".join(f"{delimiter.join(row)}\n" for row in [header, *rows]), encoding="utf-8")


@LENGTHS
def test_a_stray_quotation_mark_costs_its_own_row_alone(examples, folder):
    def check_example(before, swallowed, after, label_first, tabs, closes):
        rows = [(f"text {i}", "good" if i % 3 else "bad") for i in range(before + swallowed + after + 2)]
        opening, closing = before, before + swallowed + 1
        rows[opening] = (f'"{rows[opening][0]}', rows[opening][1])
        if closes:
            rows[closing] = (f'{rows[closing][0]}"', rows[closing][1])
        path, name = folder / "stray", "tsv" if tabs else "csv"
        ordered = [row[::-1] if label_first else row for row in rows]
        write_plain_rows(path, ordered, "\t" if tabs else ",", ("label", "text") if label_first else ("text", "label"))
        source = f"{name}:{path}?languages=en" + ("&quoting=csv" if tabs else "")
        read, skipped = read_all(source, "classify")
        assert [(row.text, row.label) for row in read] == [row for i, row in enumerate(rows) if i != opening]
        assert [where for where, _ in skipped] == [f"{path}: line {opening + 2}"]
        with pytest.raises(UserError, match=r"a stray quotation mark: the field would span|broken quoting"):
            sources.read(source, "classify")

    run_examples(
        examples,
        check_example,
        before=st.integers(2, 5),
        swallowed=st.sampled_from((0, 1, 2, 7, 40, 600)),
        after=st.integers(0, 3),
        label_first=st.booleans(),
        tabs=st.booleans(),
        closes=st.booleans(),
    )


@LENGTHS
def test_real_line_ends_in_quoted_fields_stay(examples, folder):
    def check_example(texts, form):
        path = folder / "lines"
        delimiter = "\t" if form == "tsv" else ","
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerows([("text", "label"), *((text, "good") for text in texts)])
        source = f"{form}:{path}?languages=en" + ("&quoting=csv" if form == "tsv" else "")
        rows, skipped = read_all(source, "classify")
        assert [row.text for row in rows] == texts
        assert not skipped

    pieces = st.lists(st.sampled_from(["a", "b ", "\n", "é", "word, word", ' "quoted" ']), min_size=1, max_size=12)
    texts = st.lists(pieces.map("".join).filter(str.strip), min_size=1, max_size=5)
    run_examples(examples, check_example, texts=texts, form=st.sampled_from(("csv", "tsv")))


def test_rows_of_several_lines_are_named_by_check(tmp_path, capsys):
    path = tmp_path / "a.csv"
    path.write_text('source,target\n"Dear all,\n\nbye",x\ny,z\n', encoding="utf-8")
    assert check.main([f"--data=csv:{path}?languages=en,de", "--task=parallel"]) == 0
    note = f"note: {path}: 1 rows with line ends in a quoted field, the longest in lines 2 to 4"
    assert note in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('text\n"' + "word\n" * 600 + '"\n', "stray quotation mark"),
        ('text,label\n"' + "a, b, c\n" * 600 + '",x\n', "quoted field is too long, over 601 lines"),
        ("text,text,label\na,b,c\n", "two columns 'text'"),
        ("text,label\na\0b,c\n", "line 2: contains a zero byte"),
        ("text,label\ra,b\r", "line 1: broken quoting"),
        ("", "an empty file"),
        ("text,label\n" + "\0" * 5000, "zero bytes"),
    ],
)
def test_a_table_that_would_lose_rows_is_refused(tmp_path, text, reason):
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode())
    with pytest.raises(UserError, match=reason):
        sources.read(f"csv:{path}?languages=en", "classify")


def test_quotation_marks_can_be_ordinary_characters(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('text,label\n"a,x\nb,y\nc",x\n', encoding="utf-8")
    rows = sources.read(f"csv:{path}?languages=en&quoting=none", "classify")
    assert [row.text for row in rows] == ['"a', "b", 'c"']


# Rows of lines

BASES = {
    "tsv": ("tsv:{}?languages=en", [b"text\tlabel", *(b"text %d\tgood" % i for i in range(6))], 1),
    "csv": ("csv:{}?languages=en", [b"text,label", *(b"text %d,good" % i for i in range(6))], 1),
    "jsonl": ("jsonl:{}?languages=en", [b'{"text": "text %d", "label": "good"}' % i for i in range(6)], 0),
    "numbers": ("tsv:{}?languages=en&text=0&label=1", [b"text %d\tgood" % i for i in range(6)], 0),
}
BREAKS = (b"\t", b",", b"\0", b"\r", b'"', b"{", b"}", b'"text": 1, ', b"null", b"[" * 3000, b"\xef\xbb\xbf", b"")


@LENGTHS
@pytest.mark.parametrize("name", list(BASES))
def test_each_line_is_a_row_or_a_fault(examples, name, folder):
    source, lines, header = BASES[name]

    def check_example(mutations):
        mutated = list(lines)
        for kind, at, other in mutations:
            at %= len(mutated)
            if kind == "delete" and len(mutated) > 1:
                del mutated[at]
            elif kind == "twice":
                mutated.insert(at, mutated[at])
            elif kind == "swap":
                mutated[at], mutated[other % len(mutated)] = mutated[other % len(mutated)], mutated[at]
            elif kind == "cut":
                mutated[at] = mutated[at][: other % (len(mutated[at]) + 1)]
            elif kind == "insert":
                place = other % (len(mutated[at]) + 1)
                mutated[at] = mutated[at][:place] + BREAKS[other % len(BREAKS)] + mutated[at][place:]
        path = folder / f"{name}-{next(NUMBER)}"
        path.write_bytes(b"\n".join(mutated) + b"\n")
        rows, skipped = read_all(source.format(path), "classify")
        path.unlink()
        if rows is None:
            return
        while mutated and not mutated[-1].strip(b"\r\t" if name == "jsonl" else b"\r"):
            mutated.pop()
        quoted = sum(line.count(b'"') % 2 for line in mutated) if name == "csv" else 0  # each may join two lines
        assert len(mutated) - header - 2 * quoted <= len(rows) + len(skipped) <= len(mutated) - header
        if not quoted:
            assert len(rows) + len(skipped) == len(mutated) - header

    mutations = st.lists(
        st.tuples(st.sampled_from(("delete", "twice", "swap", "cut", "insert", "insert")), INDEX, INDEX), max_size=3
    )
    run_examples(examples, check_example, mutations=mutations)


@pytest.mark.parametrize(
    "first", ['{"text": ', "[1]", "null", '{"text": "a", "text": "b"}', "[" * 5000, '{"text": ' + "9" * 5000 + "}"]
)
def test_a_broken_first_line_of_json_is_a_bad_row(tmp_path, first):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{first}\n{{"text": "a"}}\n{{"text": "b"}}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"a.jsonl: line 1: (broken JSON|not a JSON object)"):
        sources.read(f"jsonl:{path}?languages=en", "classify")
    assert [row.text for row in sources.read(f"jsonl:{path}?languages=en", "classify", "skip")] == ["a", "b"]


# Questions


def make_document():
    questions = [{"id": str(i), "question": "Who?", "answers": [{"text": "Anna", "answer_start": 0}]} for i in range(3)]
    paragraphs = [{"context": "Anna went.", "qas": [questions[0]]}, {"context": "Anna came.", "qas": questions[1:]}]
    return {"data": [{"title": "a", "paragraphs": paragraphs}]}


WRONG = st.sampled_from((None, True, 0, -1, 10**30, 1.5, "", "x", [], {}, [None], [{}], {"a": 1}, "\ud800", "\0"))


def list_places(value):
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key
        yield from list_places(inner)


@LENGTHS
def test_each_question_is_a_row_or_part_of_a_fault(examples, folder):
    def check_example(mutations):
        document = make_document()
        for kind, at, wrong in mutations:
            places = list(list_places(document))
            if not places:
                break
            parent, key = places[at % len(places)]
            if kind == "delete":
                del parent[key]
            elif kind == "twice" and isinstance(parent, list):
                parent.append(json.loads(json.dumps(parent[key])))
            else:
                parent[key] = copy.deepcopy(wrong)
        path = folder / "q.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        rows, skipped = read_all(f"squad:{path}", "qa")
        if rows is None:
            assert not isinstance(document.get("data"), list)
            return
        entries = [
            entry
            for article in document["data"]
            if isinstance(article, dict) and isinstance(article.get("paragraphs"), list)
            for paragraph in article["paragraphs"]
            if isinstance(paragraph, dict) and isinstance(paragraph.get("qas"), list)
            if isinstance(paragraph.get("context"), str) and paragraph["context"].strip("\ud800")
            for entry in paragraph["qas"]
        ]
        assert len(rows) + sum(".qas[" in where for where, _ in skipped) == len(entries)
        for row in rows:
            assert all(row.context[a.start :].startswith(a.text) for a in row.answers)

    mutations = st.lists(st.tuples(st.sampled_from(("delete", "twice", "wrong", "wrong")), INDEX, WRONG), max_size=3)
    run_examples(examples, check_example, mutations=mutations)


def test_a_repeated_key_is_named(tmp_path):
    path = tmp_path / "q.json"
    path.write_text(json.dumps(make_document()).replace('"question"', '"id": "9", "question"'), encoding="utf-8")
    with pytest.raises(UserError, match="broken JSON: two keys 'id'"):
        sources.read(f"squad:{path}", "qa")


# Translation memories

GOOD = '<tu><tuv xml:lang="en"><seg>Good bye then</seg></tuv><tuv xml:lang="de"><seg>Auf Wiedersehen</seg></tuv></tu>'
UNIT = GOOD.replace("Good bye then", "The {} house").replace("Auf Wiedersehen", "Das Haus")
EXTERNAL = '<!DOCTYPE tmx SYSTEM "tmx14.dtd">'
FAULTY = {
    "entity of an external declaration": UNIT.format("&red;"),
    "nested segment": UNIT.format("<seg>red</seg>"),
    "two segments": UNIT.format("red</seg><seg>big"),
    "segment outside a variant": UNIT.format("red").replace("<tu>", "<tu><seg>x</seg>"),
    "nested variant": UNIT.format("red").replace('</tuv><tuv xml:lang="de">', '<tuv xml:lang="de">', 1)[:-5]
    + "</tuv></tu>",
    "no language": UNIT.format("red").replace(' xml:lang="en"', ""),
    "no end": UNIT.format("red").removesuffix("</tu>"),
    "stray &": UNIT.format("red & big"),
    "two languages": UNIT.format("red").replace(' xml:lang="en"', ' xml:lang="en" xml:lang="fr"'),
}


def write_memory(path, body, head=""):
    path.write_text(f'<?xml version="1.0"?>{head}<tmx><header/><body>{body}</body></tmx>', encoding="utf-8")
    return f"tmx:{path}?languages=en,de"


@pytest.mark.parametrize("name", list(FAULTY))
def test_a_faulty_unit_is_named_and_the_others_are_read(name, tmp_path):
    source = write_memory(tmp_path / "m.tmx", FAULTY[name] + GOOD, EXTERNAL)
    with pytest.raises(UserError, match=r"m.tmx: line 1: "):
        sources.read(source, "parallel")
    rows, skipped = read_all(source, "parallel")
    assert [row.source for row in rows] == ["Good bye then"]
    assert skipped


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("<hi>red <hi>big</hi></hi>", "red big"),
        ('<bpt i="1">&lt;b></bpt>red<ept i="1">&lt;/b></ept><ph>x<sub>y</sub></ph>', "red"),
        ("<![CDATA[<red>]]>", "<red>"),
        ("r<!-- x -->e<?x y?>d", "red"),
        ("&lt;&#xe4;&amp;", "<ä&"),
    ],
)
def test_markup_inside_a_segment_does_not_change_its_text(tmp_path, text, result):
    source = write_memory(tmp_path / "m.tmx", UNIT.format(text), EXTERNAL)
    assert sources.read(source, "parallel")[0].source == f"The {result} house"


@LENGTHS
def test_units_have_the_text_that_the_document_has(examples, folder):
    def check_example(mutations):
        root = ET.fromstring(f"<tmx><body>{''.join(UNIT.format(f'<hi>{i}</hi>') for i in range(4))}</body></tmx>")
        for kind, at, other in mutations:
            parents = [(parent, child) for parent in root.iter() for child in parent]
            parent, child = parents[1 + at % (len(parents) - 1)] if len(parents) > 1 else (root, root[0])
            if kind == "delete":
                parent.remove(child)
            elif kind == "twice":
                parent.insert(other % (len(parent) + 1), copy.deepcopy(child))
            elif kind == "move" and child not in (inner := list(child.iter()))[1:]:
                target = [node for node in root.iter() if node not in inner][other % 2]
                parent.remove(child)
                target.append(child)
            elif kind == "rename":
                child.tag = ("tu", "tuv", "seg", "hi", "ph", "note")[other % 6]
            elif kind == "language":
                child.attrib.clear()
        path = folder / f"m{next(NUMBER)}.tmx"
        path.write_bytes(ET.tostring(root))
        rows, skipped = read_all(f"tmx:{path}?languages=en,de&clean=empty", "parallel")
        if rows is None or skipped:
            return
        language = "{http://www.w3.org/XML/1998/namespace}lang"
        expected = []
        for unit in root.iter("tu"):
            texts = {}
            for variant in unit.findall("tuv"):
                for segment in variant.findall("seg"):
                    for code in [node for node in segment.iter() if node.tag == "ph"]:
                        code.text, code[:] = "", []
                    texts.setdefault(variant.get(language), " ".join("".join(segment.itertext()).split()))
            if texts.get("en") and texts.get("de"):
                expected.append((texts["en"], texts["de"]))
        assert [(row.source, row.target) for row in rows] == expected

    kinds = ("delete", "twice", "move", "rename", "language")
    mutations = st.lists(st.tuples(st.sampled_from(kinds), INDEX, INDEX), max_size=3)
    run_examples(examples, check_example, mutations=mutations)


BOMBS = {
    "depth": "<a>" * 200_000,
    "units": "<tu>" * 200_000,
    "faults": "<tu >&" * 2_000,
}
DEFAULTS = " ".join(f'a{i} CDATA "x"' for i in range(900))
DECLARATIONS = {
    "defaults": f"<!ATTLIST tu {DEFAULTS}>",
    "one default": f'<!ATTLIST tu a CDATA "{"x" * 100_000}">',
    "elements": "<!ELEMENT a (b, c)>" * 60_000,
    "entities": '<!ENTITY a "b">',
}


@pytest.mark.parametrize("name", [*BOMBS, *DECLARATIONS])
def test_depth_and_declarations_of_a_memory_are_bounded(name, tmp_path, monkeypatch):
    monkeypatch.setattr(tmx, "_BROKEN", 500)
    head = f"<!DOCTYPE tmx [{DECLARATIONS[name]}]>" if name in DECLARATIONS else ""
    source = write_memory(tmp_path / "m.tmx", BOMBS.get(name, GOOD), head)
    started = time.process_time()
    with pytest.raises(UserError, match=r"inside one another|more than|declares the entity"):
        list(sources.read_source(sources.parse(source)[0], "parallel", sources.BadRows("skip")))
    assert time.process_time() - started < 10


@pytest.mark.parametrize("name", ["tmx", "moses"])
def test_a_packed_file_that_expands_too_far_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "_FREE", 1 << 18)
    (tmp_path / "c.de").write_text("das Haus\n", encoding="utf-8")
    for file in ("c.en.gz", "m.tmx.gz"):
        (tmp_path / file).write_bytes(gzip.compress(b"<tmx><body>" + b"\n" * 2**20))
    source = {"tmx": "tmx:{}/m.tmx.gz?languages=en,de", "moses": "moses:{}/c?languages=en,de"}[name]
    with pytest.raises(UserError, match="expands to more than 200 times its size"):
        sources.read(source.format(tmp_path), "parallel")


# Files that are none

ANY = {
    "squad:{}": "qa", "csv:{}?languages=en": "classify", "tsv:{}?languages=en": "classify",
    "jsonl:{}?languages=en": "classify", "tmx:{}?languages=en,de": "parallel", "xquad:{}": "qa",
    "xnli:{}": "classify", "tatoeba:{}": "parallel", "align:{}": "parallel", "moses:{}?languages=en,de": "parallel",
    "text:{}?languages=en": "masked",
}  # fmt: skip


def pack_zip(data):
    buffer = io.BytesIO()
    import zipfile

    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a", data)
    return buffer.getvalue()


SPECIAL = {
    "pipe": os.mkfifo,
    "folder": os.mkdir,
    "loop": lambda path: os.symlink(path, path),
    "device": lambda path: os.symlink("/dev/zero", path),
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 1 << 33),
    "gzip": lambda path: path.write_bytes(gzip.compress(b"text\tlabel\na\tb\n")),
    "zip": lambda path: path.write_bytes(pack_zip(b"text\tlabel\na\tb\n")),
    "utf-16": lambda path: path.write_bytes("text\tlabel\na\tb\n".encode("utf-16")),
    "utf-16 without a mark": lambda path: path.write_bytes("text\tlabel\na\tb\n".encode("utf-16-be")),
}


@pytest.mark.parametrize("kind", list(SPECIAL))
def test_what_is_no_text_file_is_refused_at_once(kind, tmp_path):
    SPECIAL[kind](tmp_path / "file")
    for source, task in ANY.items():
        with pytest.raises(UserError) as error:
            sources.read(source.format(tmp_path / "file"), task)
        assert len(str(error.value)) < 500


# Source strings


@pytest.mark.parametrize(
    "name", ["a?b", "a&b", "a b", "a+b", "a+csv.x", "a=b", "a?b&c.x", "a??", "a#b", "a%3Fb", "csv:a"]
)
def test_files_may_have_any_name(name, tmp_path):
    path = tmp_path / f"{name}.csv"
    path.write_text("text,label\na,b\n", encoding="utf-8")
    text = f"csv:{path}?languages=en"
    assert len(sources.read(f"{text}+{text}", "classify")) == 2
    path.with_suffix(".json").write_text(json.dumps(make_document()), encoding="utf-8")
    assert len(sources.read(f"squad:{path.with_suffix('.json')}", "qa")) == 3


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("squad:FILE?limit=1&limit=2", "two options 'limit'"),
        ("squad:FILE?limit", "limit= is not a whole number"),
        ("squad:FILE?limit=1?limit=1", "limit=1.limit=1 is not a whole number"),
        ("squad:FILE?limit=-1", "limit=-1 is not a whole number"),
        ("squad:FILE?limit=" + "9" * 30, "is not a whole number"),
        ("squad:FILE?languages=,", "unknown language"),
        ("squad:FILE?=1", "unknown option ''"),
        ("squad:FILE+", "unknown source ''"),
        ("squad:FILE+sqad:FILE", "unknown source 'sqad'"),
        ("squad:a\0b", "zero byte"),
        ("squad:a\udcffb", "not UTF-8"),
        ("atlas?size=" + "9" * 17, "is not possible; give at most"),
    ],
)
def test_odd_source_strings_are_explained(source, reason, tmp_path):
    path = tmp_path / "q.json"
    path.write_text(json.dumps(make_document()), encoding="utf-8")
    with pytest.raises(UserError, match=reason):
        sources.read(source.replace("FILE", str(path)), "qa")
