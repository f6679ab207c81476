# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Parallel corpora: reading, cleaning, caps and error messages for files of any condition."""

import gzip
import itertools
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from xlkd.data import corpus, sources
from xlkd.data.cleaning import RULES, Rules, is_in_script
from xlkd.data.composition import CappedRows, compose
from xlkd.errors import UserError

GOOD = [("The dog sleeps.", "Der Hund schläft."), ("It rains.", "Es regnet."), ("We left early.", "Wir gingen früh.")]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path / "cache"))


def write_moses(folder, pairs, *, end=b"\n", last=True, name="c", tags=("en", "de"), packed=False):
    for side, tag in enumerate(tags):
        texts = [pair[side] if isinstance(pair[side], bytes) else pair[side].encode() for pair in pairs]
        data = end.join(texts) + (end if last else b"")
        path = folder / (f"{name}.{tag}" + (".gz" if packed else ""))
        path.write_bytes(gzip.compress(data) if packed else data)
    return f"moses:{folder}/{name}?languages=en,de"


def read_pairs(source, on_bad_row="stop"):
    return sources.read(source, "parallel", on_bad_row)


def list_texts(rows):
    return [(row.source, row.target) for row in rows]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_pairs_are_read_exactly_as_in_the_files(tmp_path, end, last, packed):
    pairs = [*GOOD, ("A line\u2028that splitlines breaks\x0b.", "Eine Zeile\u2028die splitlines bricht\x85.")]
    rows = read_pairs(write_moses(tmp_path, pairs, end=end, last=last, packed=packed))
    assert list_texts(rows) == pairs
    assert [row.id for row in rows] == ["1", "2", "3", "4"]
    assert list_texts(rows[i] for i in (2, 0)) == [GOOD[2], GOOD[0]]
    assert len({row.key for row in rows}) == len({row.group for row in rows}) == 4


def test_compressed_and_plain_files_have_the_same_rows(tmp_path):
    plain = list(read_pairs(write_moses(tmp_path, GOOD)))
    for path in ("c.en", "c.de"):
        (tmp_path / path).unlink()
    assert list(read_pairs(write_moses(tmp_path, GOOD, packed=True))) == plain


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path):
    marked = [(b"\xef\xbb\xbf" + GOOD[0][0].encode(), GOOD[0][1])]
    assert list_texts(read_pairs(write_moses(tmp_path, marked))) == GOOD[:1]


LEFT_OUT = {
    "empty": [("", "Etwas."), ("Something.", " \t"), ("", "")],
    "too long": [("word " * 250, "Wort " * 250)],
    "identical sides": [("Page 3 of 7", "Page 3 of 7 ")],
    "length ratio": [("Yes, " * 20, "Ja, genau so.")],
    "wrong script": [("Good morning", "Доброе утро"), ("Доброе утро", "Guten Morgen")],
    "duplicate": [GOOD[1], GOOD[1]],
}


@pytest.mark.parametrize(("rule", "pairs"), LEFT_OUT.items(), ids=LEFT_OUT)
def test_each_cleaning_rule_counts_the_pairs_it_removes(tmp_path, rule, pairs):
    rows = read_pairs(write_moses(tmp_path, [GOOD[0], GOOD[1], *pairs, GOOD[2]]))
    (part,) = rows.parts
    assert rows.dropped == ((f"{tmp_path}/c.de", f"{rule}: {len(pairs)} of {3 + len(pairs)} pairs"),)
    assert list_texts(part) == GOOD, "the first of the duplicates remains"
    assert {name: count for name, count in part.counts.items() if name in RULES and count} == {rule: len(pairs)}
    assert part.counts["lines"] == part.counts["kept"] + sum(part.counts[name] for name in RULES)


def test_cleaning_can_be_limited_to_empty_pairs(tmp_path):
    pairs = [GOOD[0], *itertools.chain(*LEFT_OUT.values())]
    (part,) = read_pairs(write_moses(tmp_path, pairs) + "&clean=empty").parts
    assert len(part) == len(pairs) - 3
    assert part.counts["empty"] == 3


def test_limits_of_the_cleaning_rules_can_be_set(tmp_path):
    source = write_moses(tmp_path, [*GOOD, *LEFT_OUT["too long"], *LEFT_OUT["length ratio"]])
    assert len(read_pairs(source + "&longest=0")) == 4
    assert len(read_pairs(source + "&ratio=0")) == 4
    assert len(read_pairs(source + "&longest=14")) == 1


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("1, 2 — 3.5 %", "ru", True),
        ("Apple 的 iPhone", "zh", False),
        ("他用苹果公司的 iPhone 拍照", "zh", True),
        ("カメラはカメラ", "ja", True),
        ("पानी, IBM", "hi", True),
        ("Привет", "en", False),
        ("Ærø ist schön", "da", True),
        ("Добар дан", "sr", True),
        ("Dobar dan", "sr", True),
    ],
)
def test_texts_are_checked_for_the_script_of_their_language(text, language, expected):
    assert is_in_script(text, language) is expected


def test_lengths_are_compared_as_english_characters():
    assert not Rules().find_fault(
        ("The committee has not yet come to a decision.", "委员会尚未作出决定。"), ("en", "zh")
    )
    long, short = "The committee has not yet come to a decision on it.", "noch nichts"
    assert Rules().find_fault((long, short), ("en", "de")) == "length ratio"


CORRUPT = {
    "not UTF-8": (b"Caf\xe9 au lait", "not UTF-8 at byte 3"),
    "half a character at the end": ("schön".encode()[:4], "not UTF-8 at byte 3"),
    "a zero byte": (b"It\0rains", "contains a zero byte"),
    "no line end": (b"x" * ((1 << 20) + 9), "without a line end"),
}


@pytest.mark.parametrize(("line", "reason"), CORRUPT.values(), ids=CORRUPT)
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("packed", [True, False])
def test_a_corrupt_line_is_named_and_either_stops_or_is_skipped(tmp_path, line, reason, side, packed):
    bad = (line, GOOD[1][1]) if side == 0 else (GOOD[1][0], line)
    source = write_moses(tmp_path, [GOOD[0], bad, GOOD[2]], packed=packed)
    named = f"{tmp_path}/c.{('en', 'de')[side]}{'.gz' if packed else ''}: line 2"
    with pytest.raises(UserError, match=r"; fix the row$") as error:
        read_pairs(source)
    assert named in str(error.value)
    assert reason in str(error.value)
    for _ in range(2):  # the second time from the cached index
        rows = read_pairs(source, "skip")
        assert list_texts(rows) == [GOOD[0], GOOD[2]]
        assert [place for place, _ in rows.dropped] == [named]
        assert rows.parts[0].counts["corrupt"] == 1
    with pytest.raises(UserError, match="line 2"):
        read_pairs(source)


def test_many_corrupt_lines_are_counted_and_the_first_are_named(tmp_path):
    rows = read_pairs(write_moses(tmp_path, [GOOD[0], *[(b"\xff", "x")] * 250]), "skip")
    assert rows.parts[0].counts["corrupt"] == 250
    assert len(rows.dropped) == 101
    assert "150 more" in rows.dropped[-1][1]


@pytest.mark.parametrize("short", [0, 1])
def test_unequal_line_counts_are_refused_with_both_numbers(tmp_path, short):
    source = write_moses(tmp_path, GOOD * 3)
    path = tmp_path / ("c.en", "c.de")[short]
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:4]))
    with pytest.raises(UserError) as error:
        read_pairs(source, "skip")
    assert "4 lines" in str(error.value)
    assert "has 9" in str(error.value)


def test_a_broken_archive_is_named(tmp_path):
    source = write_moses(tmp_path, [(str(i), str(-i)) for i in range(5000)], packed=True)
    path = tmp_path / "c.de.gz"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"c\.de\.gz: cannot be decompressed beyond byte"):
        read_pairs(source, "skip")


def test_languages_follow_from_the_names_of_files(tmp_path):
    write_moses(tmp_path, GOOD, name="corpus.v1", tags=("en-GB", "deu"))
    write_moses(tmp_path, GOOD[:1], name="opus", tags=("de-en.en", "de-en.de"))
    write_moses(tmp_path, GOOD[:2], name="opus", tags=("en-fr.en", "en-fr.fr"))
    assert len(read_pairs(f"moses:{tmp_path}/corpus.v1")) == 3
    rows = read_pairs(f"moses:{tmp_path}/opus?languages=en,fr,de")
    assert [row.target_language for row in rows] == ["fr", "fr", "de"]
    back = read_pairs(f"moses:{tmp_path}/opus?languages=de,en")
    assert (back[0].source, back[0].source_language) == (GOOD[0][1], "de")
    for source, message in {
        f"moses:{tmp_path}/opus": "set languages=A,B",
        f"moses:{tmp_path}/opus?languages=en": "set languages=A,B",
        f"moses:{tmp_path}/opus?languages=fr,de": "no pair of files for fr-de",
        f"moses:{tmp_path}/none": "there are none",
        f"moses:{tmp_path}/none/c": "no such folder",
        f"moses:{tmp_path}/opus?languages=en,fr&take=some&limit=1": "take=some is not possible",
        f"moses:{tmp_path}/opus?language=en": "did you mean 'languages'?",
    }.items():
        with pytest.raises(UserError) as error:
            read_pairs(source)
        assert message in str(error.value), source


def write_numbered(folder, count, name="c", tags=("en", "de")):
    return write_moses(
        folder, [(f"This is sentence {i}.", f"Dies ist Satz {i}.") for i in range(count)], name=name, tags=tags
    )


def test_a_limit_takes_the_first_pairs_or_a_random_set(tmp_path):
    source = write_numbered(tmp_path, 300)
    head = read_pairs(source + "&limit=40&take=head")
    assert [row.id for row in head] == [str(i) for i in range(1, 41)]
    drawn = [row.id for row in read_pairs(source + "&limit=40")]
    assert len(set(drawn)) == 40
    assert max(map(int, drawn)) > 150
    assert drawn == [row.id for row in read_pairs(source + "&limit=40")]
    assert drawn != [row.id for row in read_pairs(source + "&limit=40&seed=1")]
    assert len(read_pairs(source + "&limit=400")) == 300


def test_the_index_is_rebuilt_only_when_a_file_changes(tmp_path, monkeypatch):
    source = write_numbered(tmp_path, 50)
    first = read_pairs(source).parts[0]
    monkeypatch.setattr(corpus, "_build_entry", lambda *_: pytest.fail("read again"))
    assert read_pairs(source).parts[0].identity == first.identity
    monkeypatch.undo()
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path / "cache"))
    write_numbered(tmp_path, 51)
    assert read_pairs(source).parts[0].identity != first.identity
    assert len(read_pairs(source)) == 51
    with pytest.raises(UserError, match="changed while it was read"):
        first[0]


def test_other_cleaning_rules_have_another_index(tmp_path):
    source = write_numbered(tmp_path, 5)
    names = {read_pairs(source + more).parts[0].identity for more in ("", "&ratio=2", "&clean=empty")}
    assert len(names) == 3


def test_a_cache_that_cannot_be_written_is_a_clear_error(tmp_path, monkeypatch):
    source = write_numbered(tmp_path, 5)
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match="the index cannot be written"):
        read_pairs(source)


def test_building_leaves_only_the_index_in_the_cache(tmp_path):
    read_pairs(write_numbered(tmp_path, 5))
    with pytest.raises(UserError):
        read_pairs(write_moses(tmp_path, [GOOD[0], (b"\xff", "x")]))
    assert [path.name.rpartition("-")[0] for path in (tmp_path / "cache" / "").iterdir()] == ["corpus"]


def test_rows_are_complete_across_parts_of_the_index(tmp_path, monkeypatch):
    """Rows and texts that cross the boundaries of the index's parts are read completely."""
    monkeypatch.setattr(corpus, "_PIECE", 1 << 10)
    monkeypatch.setattr(corpus, "_CHUNK", 16)
    pairs = [(f"This is sentence {i}.", f"Dies ist Satz {i}.") for i in range(300)]
    twice = [pair for pair in pairs for _ in (0, 1)]
    for packed in (False, True):
        (part,) = read_pairs(
            write_moses(tmp_path, twice, name=f"p{packed}", packed=packed).replace("/c?", f"/p{packed}?")
        ).parts
        assert list_texts(part) == pairs
        assert part.counts["duplicate"] == 300
        assert list_texts(part.read_many(np.array([299, 0, 150]))) == [pairs[299], pairs[0], pairs[150]]


def test_an_index_beyond_the_end_is_out_of_range(tmp_path):
    rows = read_pairs(write_numbered(tmp_path, 5)).parts[0]
    assert rows[-1].id == "5"
    with pytest.raises(IndexError):
        rows[5]


LENGTHS = {"fr": 5, "bg": 5, "de": 8, "es": 2, "ar": 4, "zh": 6, "hi": 1}


def compose_corpora(folder, **options):
    parts = []
    for language, count in LENGTHS.items():
        write_numbered(folder, count, name=language, tags=("en", language))
        parts += read_pairs(f"moses:{folder}/{language}?languages=en,{language}&clean=empty").parts
    return compose(parts, **options)


def test_golden_composition(tmp_path):
    """The authors' rule gives 31 translations and 4 identity pairs on these lengths, without their empty pairs."""
    rows = list(compose_corpora(tmp_path, identities=True))
    identities = [row for row in rows if row.target_language == "en"]
    assert len(rows) - len(identities) == sum(LENGTHS.values()) == 31
    order, expected_groups = list(LENGTHS), []
    for j in range(max(LENGTHS.values())):
        language = order[j % len(order)]
        expected_groups += [f"moses/{language}/{j + 1}"] if j < LENGTHS[language] else []
    assert sorted(row.group for row in identities) == sorted(expected_groups)
    assert len(identities) == 4
    assert all(row.source == row.target == f"This is sentence {int(row.id) - 1}." for row in identities)
    assert len({row.key for row in rows}) == 35


@pytest.mark.shared
def test_golden_composition_of_the_authors(tmp_path, shared):
    golden = json.loads((shared / "golden" / "mmkd_golden.json").read_text())["data_composition"]
    assert golden["lines_per_language"] == LENGTHS
    rows = compose_corpora(tmp_path, identities=True)
    identities = sum(row.target_language == "en" for row in rows)
    assert {"translation_pairs": len(rows) - identities, "identity_pairs": identities} == golden["fixed"]


def test_a_cap_applies_to_all_corpora_of_a_language_pair_together(tmp_path):
    a, b, c = (
        read_pairs(write_numbered(tmp_path, n, name=f"part{n}").replace("/c?", f"/part{n}?")).parts[0]
        for n in (30, 20, 7)
    )
    write_numbered(tmp_path, 9, name="x", tags=("en", "fr"))
    french = read_pairs(f"moses:{tmp_path}/x?languages=en,fr").parts[0]
    rows = compose([a, french, b, c], cap=40, identities=True)
    count = {language: sum(row.target_language == language for row in rows) for language in ("de", "fr", "en")}
    # rounds: German j = 0, 2, …, 38 and French j = 1, 3, 5, 7
    assert count == {"de": 40, "fr": 9, "en": 24}
    assert len({row.key for row in rows if row.target_language == "de"}) == 40
    assert CappedRows(a, 5).identity != CappedRows(a, 5, seed=1).identity


def test_a_list_of_mixed_rows_is_composed_by_language(tmp_path):
    rows = list(compose_corpora(tmp_path))
    mixed = compose([tuple(rows[::-1])], cap=3, take="head", identities=True)
    assert sorted(row.target_language for row in mixed if row.target_language != "en") == sorted(
        language for language, n in LENGTHS.items() for _ in range(min(n, 3))
    )
    assert isinstance(mixed.identity, str)


def test_identity_pairs_need_english(tmp_path):
    source = write_numbered(tmp_path, 3, tags=("fr", "de")).replace("en,de", "fr,de")
    with pytest.raises(UserError, match="no English side in fr-de"):
        compose(read_pairs(source + "&clean=empty").parts, identities=True)


def write_tmx(
    path, *units, head='<?xml version="1.0" encoding="UTF-8"?>\n<tmx version="1.4">\n<header srclang="en"/><body>\n'
):
    path.write_text(head + "\n".join(units) + "\n</body></tmx>\n", encoding="utf-8")
    return f"tmx:{path}"


def make_unit(source, target, tags=("en-GB", "DE")):
    sides = zip(tags, (source, target), strict=True)
    return "<tu>" + "".join(f'<tuv xml:lang="{tag}"><seg>{text}</seg></tuv>' for tag, text in sides) + "</tu>"


def test_tmx_units_are_read_without_markup(tmp_path):
    marked = make_unit(
        "The <hi>old</hi> dog <bpt i='1'>&lt;b&gt;</bpt>sleeps<ept i='1'>&lt;/b&gt;</ept> &amp; eats.",
        "Der alte\n  Hund schläft &amp; frisst.",
    )
    source = write_tmx(
        tmp_path / "m.tmx",
        make_unit(*GOOD[0]),
        marked,
        make_unit("no German", "nichts", ("en", "fr")),
        make_unit(*GOOD[1]),
    )
    (part,) = read_pairs(source).parts
    expected = [GOOD[0], ("The old dog sleeps & eats.", "Der alte Hund schläft & frisst."), GOOD[1]]
    assert list_texts(part) == expected
    assert part.counts["empty"] == 1
    assert part[0].source_language == "en-GB"
    assert read_pairs(source + "?languages=en,de").parts[0][0].source_language == "en"
    assert list_texts(read_pairs(source + "?languages=de,en")) == [(b, a) for a, b in expected]
    packed = tmp_path / "m.tmx.gz"
    packed.write_bytes(gzip.compress((tmp_path / "m.tmx").read_bytes()))
    assert list_texts(read_pairs(f"tmx:{packed}")) == expected


@pytest.mark.parametrize("encoding", ["utf-16", "iso-8859-1"])
def test_tmx_in_other_encodings(tmp_path, encoding):
    path = tmp_path / "m.tmx"
    text = f'<?xml version="1.0" encoding="{encoding}"?><tmx><body>{make_unit(*GOOD[0])}</body></tmx>'
    path.write_bytes(text.encode(encoding))
    assert list_texts(read_pairs(f"tmx:{path}")) == GOOD[:1]


BROKEN = {
    "a tag that never ends": "<tu><tuv xml:lang='en'><seg>lost</tuv></tu>",
    "a bare ampersand": make_unit("lost & found", "verloren"),
    "not UTF-8": make_unit("lost \udce9", "verloren"),
    "a unit without an end": "<tu><tuv xml:lang='en'><seg>lost</seg></tuv>\n</body>",
    "a broken attribute": "<tu tuid=3>",
}


@pytest.mark.parametrize("fault", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("block", [7, 64, 1 << 16])
def test_a_broken_unit_is_named_and_the_next_is_read(tmp_path, fault, block, monkeypatch):
    monkeypatch.setattr(sources._load_module(sources.Source("tmx", "")), "_READ", block)
    path = tmp_path / "m.tmx"
    text = (
        "<tmx><body>\n"
        + "\n".join([make_unit(*GOOD[0]), fault, make_unit(*GOOD[1]), make_unit(*GOOD[2])])
        + "\n</body></tmx>"
    )
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    source = f"tmx:{path}?languages=en,de"
    with pytest.raises(UserError, match=r"m\.tmx: line [34]: broken XML"):
        read_pairs(source)
    rows = read_pairs(source, "skip")
    assert list_texts(rows) == GOOD
    assert rows.parts[0].counts["corrupt"] == len(rows.dropped) == 1


def test_the_complete_units_of_a_truncated_tmx_are_read(tmp_path):
    path = tmp_path / "m.tmx"
    path.write_text(f"<tmx><body>\n{make_unit(*GOOD[0])}\n<tu><tuv xml:lang='en'>")
    rows = read_pairs(f"tmx:{path}", "skip")
    assert list_texts(rows) == GOOD[:1]
    assert rows.dropped[0][0].endswith("line 3")


def test_tmx_with_entities_is_refused(tmp_path):
    (tmp_path / "secret").write_text("secret")
    head = '<!DOCTYPE tmx [<!ENTITY x SYSTEM "secret">]><tmx><body>'
    with pytest.raises(UserError, match="declares the entity 'x'"):
        read_pairs(write_tmx(tmp_path / "a.tmx", make_unit("&x;", "x"), head=head), "skip")
    head = '<!DOCTYPE tmx [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><tmx><body>'
    with pytest.raises(UserError, match="declares the entity 'a'"):
        read_pairs(write_tmx(tmp_path / "b.tmx", make_unit("&b;", "x"), head=head), "skip")
    usual = '<!DOCTYPE tmx SYSTEM "tmx14.dtd"><tmx><body>'
    assert list_texts(read_pairs(write_tmx(tmp_path / "c.tmx", make_unit(*GOOD[0]), head=usual))) == GOOD[:1]


def test_other_faults_of_tmx_files_are_refused(tmp_path):
    (tmp_path / "none.tmx").write_text("<html/>")
    three = write_tmx(
        tmp_path / "three.tmx",
        "<tu>" + "".join(f"<tuv lang='{t}'><seg>x</seg></tuv>" for t in ("en", "de", "fr")) + "</tu>",
    )
    for source, message in {
        f"tmx:{tmp_path}/missing.tmx": "no such file",
        f"tmx:{tmp_path}/none.tmx": "no readable translation unit",
        three: "set languages=A,B",
    }.items():
        with pytest.raises(UserError) as error:
            read_pairs(source)
        assert message in str(error.value), source


# Not ru_maxrss, because a child inherits the value of its parent at the fork.
PEAK = """
import pathlib, re, sys
from xlkd.data import sources
from xlkd.data.composition import read_many
from xlkd.data.permutation import Permutation
import numpy as np
(rows,) = sources.read(sys.argv[1], "parallel").parts
read_many(rows, Permutation(len(rows), seed=0, purpose="t").at(np.arange(2048)))
print(len(rows), re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="needs Linux's count of resident memory")
def test_memory_does_not_grow_with_the_corpus(tmp_path):
    """Building and reading the index of ten times as many pairs takes at most 1.2 times the memory."""
    peaks = []
    for count in (10_000, 100_000):
        source = write_numbered(tmp_path, count, name=f"c{count}").replace("/c?", f"/c{count}?")
        done = subprocess.run([sys.executable, "-c", PEAK, source], capture_output=True, text=True, check=True)
        pairs, peak = map(int, done.stdout.split())
        assert pairs == count
        peaks.append(peak)
    assert peaks[1] < 1.2 * peaks[0], peaks
