# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Plain text for masked-LM: files and folders, long lines, held-out lines, damaged lines; and parallel text as such."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlkd.data import corpus, sources
from xlkd.data.sources.text import cut_line
from xlkd.errors import UserError
from xlkd.rows import Text

LINES = ["Báwo ni, ọ̀rẹ́ mi?", "", "  Mo wà dáadáa.\u2028Ẹ ṣé.  ", "Ó dàbọ̀!"]
TEXTS = ["Báwo ni, ọ̀rẹ́ mi?", "Mo wà dáadáa.\u2028Ẹ ṣé.", "Ó dàbọ̀!"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path / "cache"))


def write(path, lines, end=b"\n"):
    path.parent.mkdir(exist_ok=True)
    data = end.join(line if isinstance(line, bytes) else line.encode() for line in lines)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def read(source, on_bad_row="stop"):
    return sources.read(source, "masked", on_bad_row)


def list_texts(rows):
    return [row.text for row in rows]


@pytest.mark.parametrize("name", ["yo.txt", "news.yor_Latn.txt.gz", "Yoruba.txt"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_each_line_that_is_not_empty_is_a_text_in_the_language_of_the_name(name, end, tmp_path):
    rows = read(f"text:{write(tmp_path / name, LINES, end)}")
    assert list_texts(rows) == TEXTS
    assert [(row.id, row.language) for row in rows] == [("1", "yo"), ("3", "yo"), ("4", "yo")]
    assert list_texts(rows[i] for i in (2, 0)) == [TEXTS[2], TEXTS[0]]
    assert not rows.dropped


def test_packed_and_plain_files_have_the_same_rows(tmp_path):
    long_lines = [f"{line} {word}" * 90 for line in TEXTS for word in ("kan", "méjì")]
    plain, packed = (list(read(f"text:{write(tmp_path / name, long_lines)}")) for name in ("yo.txt", "yo.txt.gz"))
    assert plain == packed
    assert len(plain) > len(long_lines)


def test_the_option_names_the_language_of_any_file(tmp_path):
    file = write(tmp_path / "corpus.dat", LINES)
    assert {row.language for row in read(f"text:{file}?languages=yor_Latn")} == {"yo"}
    for options in ("", "?languages=yo,ha"):
        with pytest.raises(UserError, match="one language is needed"):
            read(f"text:{file}{options}")


def test_a_folder_has_a_file_or_more_for_each_language_and_names_those_that_are_not_read(tmp_path):
    for name in ("yo.txt", "web.yo.txt.gz", "zho_Hans.txt", "readme.md", "qqq.txt"):
        write(tmp_path / "texts" / name, ["这是一个句子。" if "zho" in name else f"Èyí ni {name}"])
    rows = read(f"text:{tmp_path}/texts")
    assert [(row.language, row.group) for row in rows] == [
        ("yo", "text/web.yo.txt/1"),
        ("yo", "text/yo.txt/1"),
        ("zh-Hans", "text/zho_Hans.txt/1"),
    ]
    assert rows.notes == (f"{tmp_path}/texts: 2 files are not read: qqq.txt, readme.md",)
    assert {row.language for row in read(f"text:{tmp_path}/texts?languages=zh-Hans")} == {"zh-Hans"}
    with pytest.raises(UserError, match="no file for ha"):
        read(f"text:{tmp_path}/texts?languages=ha")


@given(line=st.text(alphabet="ab \u3000\u0301é字", min_size=1, max_size=60), longest=st.integers(0, 20))
def test_a_cut_loses_no_character_and_no_part_is_too_long(line, longest):
    parts = list(cut_line(line, longest))
    assert "".join(parts) == line
    assert all(parts)
    assert not longest or max(map(len, parts)) <= longest


def test_a_long_line_continues_in_further_rows_without_cutting_words(tmp_path):
    line = " ".join(f"word{i}" for i in range(500))
    rows = read(f"text:{write(tmp_path / 'en.txt', ['One.', line, 'Two.'])}?longest=300")
    parts = list_texts(rows)[1:-1]
    assert " ".join(parts) == line
    assert all(200 < len(part) <= 300 for part in parts), "of about equal length"
    assert {row.group for row in rows} == {f"text/en.txt/{number}" for number in (1, 2, 3)}
    assert len({row.key for row in rows}) == len(rows)
    (whole,) = read(f"text:{write(tmp_path / 'en.txt', [line])}?longest=0")
    assert whole.text == line


def test_chinese_is_cut_at_a_third_of_the_characters_and_a_mark_stays_with_its_letter(tmp_path):
    rows = read(f"text:{write(tmp_path / 'zh-Hans.txt', ['字' * 100 + '句' * 100])}?longest=240")
    assert [len(row.text) for row in rows] == [67, 67, 66]
    assert list(cut_line("ก็" * 3, 3)) == ["ก็", "ก็", "ก็"]


def test_lines_in_another_script_and_repeated_lines_are_left_out_unless_only_empty_ones_are(tmp_path):
    file = write(tmp_path / "ru.txt", ["Привет!", "Hello there!", "Привет!", "Пока."])
    rows = read(f"text:{file}")
    assert list_texts(rows) == ["Привет!", "Пока."]
    assert [reason for _, reason in rows.dropped] == ["wrong script: 1 of 4 texts", "duplicate: 1 of 4 texts"]
    assert len(read(f"text:{file}?clean=empty")) == 4


def test_held_out_lines_and_the_others_are_all_lines_and_have_none_in_common(tmp_path):
    lines = [f"This is line {i % 400}." for i in range(500)]
    source = f"text:{write(tmp_path / 'en.txt', lines)}?clean=empty"
    parts = {name: list_texts(read(f"{source}&split={name}&share=20")) for name in ("train", "heldout")}
    assert sorted(parts["train"] + parts["heldout"]) == sorted(lines)
    assert not set(parts["train"]) & set(parts["heldout"]), "lines that are equal are in one part"
    assert 0.1 < len(parts["heldout"]) / len(lines) < 0.3
    assert list_texts(read(f"{source}&split=heldout&share=20&seed=1")) != parts["heldout"]
    assert len(read(f"{source}&split=train&share=0")) == len(lines)
    with pytest.raises(UserError, match="share=101 is not a percentage"):
        read(f"{source}&share=101")


def test_a_limit_counts_the_examples_of_each_language(tmp_path):
    for name in ("a.en.txt", "b.en.txt", "de.txt"):
        write(tmp_path / "texts" / name, [f"{name} {i}" for i in range(20)])
    rows = read(f"text:{tmp_path}/texts?limit=25&take=head")
    assert [sum(row.language == language for row in rows) for language in ("en", "de")] == [25, 20]


@pytest.mark.parametrize("name", ["en.txt", "en.txt.gz"])
def test_damaged_lines_stop_the_run_or_are_named_and_skipped(name, tmp_path):
    bad = {2: (b"Caf\xe9", "not UTF-8 at byte 3"), 4: (b"a\0b", "contains a zero byte")}
    bad[5] = (b"x" * (2**20 + 1), "more than 1,048,576 bytes without a line end")
    lines = [bad[number][0] if number in bad else f"Line {number}." for number in range(1, 7)]
    file = write(tmp_path / name, lines)
    with pytest.raises(UserError, match=rf"{name}: line 2"):
        read(f"text:{file}")
    rows = read(f"text:{file}", "skip")
    assert list_texts(rows) == ["Line 1.", "Line 3.", "Line 6."]
    assert rows.dropped == tuple((f"{file}: line {number}", reason) for number, (_, reason) in bad.items())


def test_a_packed_file_that_is_cut_off_is_refused(tmp_path):
    file = write(tmp_path / "en.txt.gz", [f"Line {i}." for i in range(3000)])
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot be decompressed beyond byte"):
        read(f"text:{file}")


def test_the_index_of_a_text_is_read_again_for_another_cut_or_split(tmp_path, monkeypatch):
    source = f"text:{write(tmp_path / 'en.txt', ['One two three four.'] + [f'Line {i}.' for i in range(40)])}"
    first = read(source).parts[0]
    assert [row.text for row in read(f"{source}?longest=10")][:2] == ["One two", "three"]
    assert len(read(f"{source}?split=train&share=50")) < len(first)
    monkeypatch.setattr(corpus, "_build_entry", lambda *_: pytest.fail("read again"))
    assert read(source).parts[0].identity == first.identity


def test_every_source_of_parallel_text_serves_masked_lm_with_the_same_pairs(tmp_path):
    write(tmp_path / "c.en", ["It rains.", "We left early."])
    write(tmp_path / "c.de", ["Es regnet.", "Wir gingen früh."])
    write(tmp_path / "t.tsv", ["It rains.\tEs regnet."])
    unit = '<tu><tuv xml:lang="en"><seg>It rains.</seg></tuv><tuv xml:lang="de"><seg>Es regnet.</seg></tuv></tu>'
    write(tmp_path / "m.tmx", [f"<tmx><body>{unit}</body></tmx>"])
    write(tmp_path / "tatoeba.deu-eng.eng", ["It rains."])
    write(tmp_path / "tatoeba.deu-eng.deu", ["Es regnet."])
    pairs = [
        f"moses:{tmp_path}/c?languages=en,de",
        f"tsv:{tmp_path}/t.tsv?source=0&target=1&languages=en,de",
        f"tmx:{tmp_path}/m.tmx",
        f"tatoeba:{tmp_path}",
    ]
    for source in pairs:
        assert list(read(source)) == list(sources.read(source, "parallel")), source
    text = write(tmp_path / "de.txt", ["Es schneit."])
    rows = read("+".join([f"text:{text}", *pairs]))
    assert isinstance(rows[0], Text)
    assert len(rows) == 6


def test_other_tasks_are_refused_for_text(tmp_path):
    file = write(tmp_path / "en.txt", ["A line."])
    with pytest.raises(UserError, match="has no data for the task 'parallel'"):
        sources.read(f"text:{file}", "parallel")
    write(tmp_path / "squad.json", ["{}"])
    with pytest.raises(UserError, match="has no data for the task 'masked'"):
        read(f"squad:{tmp_path}/squad.json?languages=en")
