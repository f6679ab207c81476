# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Small aligned data sets: NTREX by document, Tatoeba, word alignments; toy files and the real ones."""

import pytest

from xlkd.data import sources
from xlkd.errors import UserError


def read(source, on_bad_row="stop"):
    return sources.read(source, "parallel", on_bad_row)


def read_error(source, on_bad_row="stop"):
    with pytest.raises(UserError) as error:
        read(source, on_bad_row)
    return str(error.value)


@pytest.fixture
def ntrex(tmp_path):
    """Writes forty documents of three sentences; German and English have a regional variant, one language is unknown."""
    numbers = range(120)
    files = {
        "DOCUMENT_IDS.tsv": [f"doc.{n // 3}" for n in numbers],
        "newstest2019-src.eng.txt": [f"sentence {n}" for n in numbers],
        "newstest2019-ref.deu.txt": [f"Satz {n}" for n in numbers],
        "newstest2019-ref.deu-AT.txt": [f"Satzl {n}" for n in numbers],
        "newstest2019-ref.eng-GB.txt": [f"sentence, old chap {n}" for n in numbers],
        "newstest2019-ref.swa.txt": [f"sentensi {n}" for n in numbers],
        "newstest2019-ref.xxx.txt": [f"? {n}" for n in numbers],
    }
    for name, lines in files.items():
        (tmp_path / name).write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    return tmp_path


def test_ntrex_pairs_each_language_with_english(ntrex):
    rows = read(f"ntrex:{ntrex}")
    assert [row.target_language for row in rows[::120]] == ["de", "en-GB", "sw"]
    assert (rows[4].source, rows[4].target, rows[4].group) == ("sentence 4", "Satz 4", "ntrex/doc.1")
    assert rows[124].group == rows[4].group, "a document is one group in all languages"
    assert len({row.key for row in rows}) == 360
    assert rows.notes == (f"{ntrex}: 2 files are not read: newstest2019-ref.deu-AT.txt, newstest2019-ref.xxx.txt",)
    assert {row.target_language for row in read(f"ntrex:{ntrex}?languages=sw,en")} == {"sw"}
    assert len(read(f"ntrex:{ntrex}?limit=7")) == 21


def test_ntrex_splits_by_document(ntrex):
    train, heldout = (read(f"ntrex:{ntrex}?documents={part}") for part in ("train", "heldout"))
    groups = [{row.group for row in part} for part in (train, heldout)]
    assert not groups[0] & groups[1]
    assert len(groups[0] | groups[1]) == 40
    assert 2 <= len(groups[1]) <= 16
    assert len(train) + len(heldout) == 360
    larger = {row.group for row in read(f"ntrex:{ntrex}?documents=heldout&share=50")}
    assert groups[1] < larger
    assert {row.group for row in read(f"ntrex:{ntrex}?documents=heldout&seed=1")} != groups[1]


def test_a_held_out_ntrex_document_does_not_depend_on_other_documents(ntrex):
    heldout = {row.group for row in read(f"ntrex:{ntrex}?documents=heldout&languages=de")}
    for name in ("DOCUMENT_IDS.tsv", "newstest2019-src.eng.txt", "newstest2019-ref.deu.txt"):
        lines = (ntrex / name).read_bytes().split(b"\n")
        (ntrex / name).write_bytes(b"\n".join(lines[30:]))
    assert {row.group for row in read(f"ntrex:{ntrex}?documents=heldout&languages=de")} == heldout & {
        f"ntrex/doc.{n}" for n in range(10, 40)
    }


def test_bad_ntrex_folders_are_refused_in_one_line(ntrex):
    assert "no file for fr; there are de, en, en-GB, sw" in read_error(f"ntrex:{ntrex}?languages=fr")
    assert "documents=test is not possible" in read_error(f"ntrex:{ntrex}?documents=test")
    assert "share=101 is not a percentage" in read_error(f"ntrex:{ntrex}?documents=train&share=101")
    path = ntrex / "newstest2019-ref.deu.txt"
    content = path.read_bytes()
    path.write_bytes(content + b"one more\r\n")
    line = read_error(f"ntrex:{ntrex}?languages=de")
    assert "121 lines" in line
    assert "has 120" in line
    path.write_bytes(content.replace(b"Satz 5\r", b"\r").replace(b"Satz 7\r", b"Satz \xff\r"))
    assert f"{path}: line 8" in read_error(f"ntrex:{ntrex}?languages=de")
    rows = read(f"ntrex:{ntrex}?languages=de", "skip")
    assert len(rows) == 118
    assert rows.dropped == ((f"{path}: line 8", "not UTF-8 at byte 5"), (f"{path}: line 6", "empty line"))
    path.write_bytes(content)
    (ntrex / "DOCUMENT_IDS.tsv").unlink()
    assert "no DOCUMENT_IDS.tsv" in read_error(f"ntrex:{ntrex}")
    assert "no such folder" in read_error("ntrex:/none")


def test_tatoeba_is_read_by_language(tmp_path):
    for tag, count in (("deu", 4), ("cmn", 3)):
        (tmp_path / f"tatoeba.{tag}-eng.{tag}").write_text("".join(f"{tag} {n}\n" for n in range(count)))
        (tmp_path / f"tatoeba.{tag}-eng.eng").write_text("".join(f"English of {tag} {n}\n" for n in range(count)))
    rows = read(f"tatoeba:{tmp_path}")
    assert [(row.target_language, row.id) for row in rows] == [
        *(("de", str(n)) for n in (1, 2, 3, 4)),
        *(("zh", str(n)) for n in (1, 2, 3)),
    ]
    assert rows[5].source == "English of cmn 1"
    assert len({row.group for row in rows}) == 7
    assert len(read(f"tatoeba:{tmp_path}?languages=zh&limit=2")) == 2
    assert "no file for fr" in read_error(f"tatoeba:{tmp_path}?languages=fr")
    (tmp_path / "tatoeba.deu-eng.eng").write_text("one\n")
    assert "4 lines" in read_error(f"tatoeba:{tmp_path}")


def write_alignments(folder, *lines, name="ende"):
    (folder / f"{name}.en").write_text("the dog sleeps\nit rains\n")
    (folder / f"{name}.de").write_text("der Hund schläft\nes regnet\n", encoding="utf-8")
    (folder / f"{name}.gold").write_text("".join(f"{line}\n" for line in lines))
    return f"align:{folder}/{name}"


def test_gold_links_are_sure_or_possible(tmp_path):
    rows = read(write_alignments(tmp_path, "0-0 1-1 1?2 2-2", "0p0 1-1"))
    assert rows[0].links == ((0, 0), (1, 1), (2, 2))
    assert rows[0].possible == ((1, 2),)
    assert (rows[1].links, rows[1].possible) == (((1, 1),), ((0, 0),))
    assert (rows[0].source_language, rows[0].target_language) == ("en", "de")
    assert read(write_alignments(tmp_path, "", "1-1") + "?first=1")[1].links == ((0, 0),)
    reversed_rows = read(write_alignments(tmp_path, "0-0", "", name="x") + "?languages=de,en")
    assert reversed_rows[0].source == "der Hund schläft"
    assert reversed_rows[0].links == ((0, 0),)


def test_links_that_point_outside_are_named_and_left_out(tmp_path):
    source = write_alignments(tmp_path, "0-0 2-3 3-2", "1-1 a-b 9?9")
    assert "ende.gold: line 1: link 2-3 points outside its sentence (word 3 of 3 words" in read_error(source)
    rows = read(source, "skip")
    assert [row.links for row in rows] == [((0, 0),), ((1, 1),)]
    assert [where.rsplit(" ", 1)[1] for where, _ in rows.dropped] == ["1", "1", "2", "2"]
    (tmp_path / "ende.gold").write_bytes(b"0-0\n1-\xff\n")
    rows = read(f"align:{tmp_path}/ende", "skip")
    assert [row.id for row in rows] == ["1"]
    assert [where for where, _ in rows.dropped] == [f"{tmp_path}/ende.gold: line 2"]
    assert "0-0" in read_error(write_alignments(tmp_path, "0-0", "") + "?first=1")


def test_bad_alignment_sets_are_refused_in_one_line(tmp_path):
    assert "set languages=A,B; there are de, en" in read_error(write_alignments(tmp_path, "", "", name="x"))
    assert "no file for fr" in read_error(write_alignments(tmp_path, "", "", name="x") + "?languages=en,fr")
    line = read_error(write_alignments(tmp_path, "0-0"))
    assert "1 lines" in line
    assert "has 2" in line


@pytest.mark.shared
def test_real_sets_have_their_known_sizes(shared_data):
    rows = read(f"ntrex:{shared_data}/ntrex")
    assert len(rows) == 19 * 1997
    assert len({row.group for row in rows}) == 123
    assert not any("\r" in row.source or "\r" in row.target for row in rows)
    tatoeba = read(f"tatoeba:{shared_data}/tatoeba")
    counts = {
        row.target_language: sum(r.target_language == row.target_language for r in tatoeba) for row in tatoeba[::97]
    }
    assert {language: n for language, n in counts.items() if n != 1000} == {"sw": 390, "th": 548}


@pytest.mark.shared
def test_real_alignments_have_their_known_sizes(shared_data):
    french = read(f"align:{shared_data}/word_align/enfr")
    assert len(french) == 447
    assert sum(len(row.links) for row in french) == 4038
    assert sum(len(row.possible) for row in french) == 13400
    source = f"align:{shared_data}/word_align/jaen"
    assert "jaen.gold: line 351" in read_error(source)
    japanese = read(source, "skip")
    assert len(japanese) == 582
    assert sum(len(row.links) for row in japanese) == 13562 - 6
    assert sorted({int(where.rsplit(" ", 1)[1]) for where, _ in japanese.dropped}) == [351, 354, 355, 356]
    assert len(japanese.dropped) == 6


@pytest.mark.shared
def test_cleaning_keeps_real_translations(shared_data, tmp_path, monkeypatch):
    """Cleaning drops under 2% of professional translations: lines left in English or full of names."""
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path / "cache"))
    names = {
        "en": "src.eng",
        "de": "ref.deu",
        "zh": "ref.zho-CN",
        "ja": "ref.jpn",
        "th": "ref.tha",
        "ar": "ref.arb",
        "hi": "ref.hin",
    }
    for language, name in names.items():
        (tmp_path / f"news.{language}").write_bytes((shared_data / "ntrex" / f"newstest2019-{name}.txt").read_bytes())
    for part in read(f"moses:{tmp_path}/news?languages={','.join(names)}").parts[0].parts:
        assert part.counts["lines"] == 1997
        assert part.counts["kept"] > 0.98 * 1997, part.counts
