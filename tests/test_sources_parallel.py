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


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Prepares parallel text of four shapes as TFDS does."""
    tfds = pytest.importorskip("tensorflow_datasets")
    folder = tmp_path_factory.mktemp("tfds")
    text, translation = tfds.features.Text, tfds.features.Translation

    def prepare(name, config, version, shape, examples):
        class Toy(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            VERSION = tfds.core.Version(version)
            BUILDER_CONFIGS = (tfds.core.BuilderConfig(name=config),) if config else ()

            def _info(self):
                return tfds.core.DatasetInfo(builder=self, features=shape)

            def _split_generators(self, _):
                return {"train": iter(enumerate(examples))}

            def _generate_examples(self):
                raise NotImplementedError

        Toy.name = name
        named = {"config": config} if config else {}
        Toy(**named, data_dir=folder, file_format="array_record").download_and_prepare()

    def pairs(tag, count):
        return [{"en": f"The house number {n}.", tag: f"Das Haus Nummer {n}."} for n in range(count)]

    prepare(
        "para_crawl",
        "ende",
        "1.2.0",
        translation(languages=("en", "de")),
        [*pairs("de", 700), *pairs("de", 1), {"en": "", "de": "x"}],
    )
    prepare("para_crawl", "enfr", "1.2.0", translation(languages=("en", "fr")), pairs("fr", 3))
    prepare(
        "wmt19_translate",
        "fr-de",
        "1.0.0",
        translation(languages=("fr", "de")),
        [{"fr": "La maison.", "de": "Das Haus."}],
    )
    sentences = {"source_sentence": text(), "target_sentence": text()}
    languages = {"source_language": text(), "target_language": text()}
    rows = [{"source_sentence": b"Ol\xff", "target_sentence": "?"}] + [
        {"source_sentence": "Ja.", "target_sentence": "Yes."}
    ] * 2
    tagged = [row | {"source_language": "de", "target_language": "en"} for row in rows]
    prepare("tatoeba", "tatoeba_de", "1.0.0", tfds.features.FeaturesDict(sentences | languages), tagged)
    ids = {"source_id": text(), "target_id": text()}
    mined = [row | {"source_id": "1", "target_id": "2"} for row in rows[1:]]
    prepare("bucc", "bucc_fr", "1.0.0", tfds.features.FeaturesDict(sentences | ids), mined)
    many = tfds.features.TranslationVariableLanguages(languages=("en", "de", "pt-br"))
    talk = [
        {"talk_name": "t", "translations": {"en": "The sea.", "pt-br": "O mar."}},
        {"talk_name": "t", "translations": {"en": "x", "de": "y"}},
    ]
    prepare(
        "ted_multi_translate",
        "",
        "1.1.0",
        tfds.features.FeaturesDict({"translations": many, "talk_name": text()}),
        talk,
    )
    return folder


def test_tfds_serves_cleaned_parallel_text_from_an_index(prepared):
    rows = read(f"tfds:para_crawl/ende?data_dir={prepared}")
    assert (len(rows), rows.parts[0].languages) == (700, ("en", "de"))
    assert sorted(reason for _, reason in rows.dropped) == ["duplicate: 1 of 702 pairs", "empty: 1 of 702 pairs"]
    row = rows[5]
    number = row.source.split()[-1]
    assert (row.source, row.target) == (f"The house number {number}", f"Das Haus Nummer {number}")
    assert (row.set, row.group) == ("para_crawl", f"para_crawl/tfds/para_crawl/ende/train/{row.id}")
    assert len({row.key for row in rows}) == 700
    swapped = read(f"tfds:para_crawl?languages=de,en&data_dir={prepared}")[0]
    assert (swapped.source_language, swapped.target_language) == ("de", "en")
    assert swapped.source.startswith("Das")
    joined = read(f"tfds:para_crawl?languages=en,de,fr&limit=2&data_dir={prepared}")
    assert [row.target_language for row in joined] == ["de", "de", "fr", "fr"]
    assert len(read(f"tfds:para_crawl/ende?split=train[:10]&data_dir={prepared}")) == 10, "a part of its own"
    assert len(read(f"tfds:para_crawl/ende?data_dir={prepared}")) == 700
    (pair,) = read(f"tfds:wmt19_translate?languages=fr,de&data_dir={prepared}")
    assert (pair.source, pair.target) == ("La maison.", "Das Haus.")


def test_tfds_sets_for_retrieval_lose_no_pair(prepared):
    rows = read(f"tfds:tatoeba?languages=de&data_dir={prepared}", "skip")
    assert [(row.source_language, row.source, row.target) for row in rows] == [("en", "Yes.", "Ja.")] * 2
    ((where, reason),) = rows.dropped
    assert "/tatoeba/tatoeba_de/1.0.0/tatoeba-train.array_record" in where
    assert reason == "not UTF-8 at byte 2 of the row of this number"
    assert reason in read_error(f"tfds:tatoeba?languages=de&data_dir={prepared}")
    assert len(read(f"tfds:tatoeba?languages=de&clean=all&data_dir={prepared}", "skip")) == 1
    mined = read(f"tfds:bucc/bucc_fr?split=train&languages=fr,en&data_dir={prepared}")
    assert [(row.source_language, row.source) for row in mined] == [("fr", "Ja.")] * 2


def test_tfds_talks_have_any_two_of_many_languages(prepared):
    (row,) = read(f"tfds:ted_multi_translate?languages=pt-BR&data_dir={prepared}")
    assert (row.target_language, row.source, row.target) == ("pt-BR", "The sea.", "O mar.")
    assert "no language pair given" in read_error(f"tfds:ted_multi_translate?data_dir={prepared}")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("tfds:para_crawl?languages=en,zh", "no config with en-zh; languages there: bg, cs"),
        ("tfds:para_crawl/enzh", "no config enzh; there are enbg, encs"),
        ("tfds:para_crawl?languages=en", "no language pair given; set languages=A,B"),
        ("tfds:para_crawl/encs", r"not prepared under .*datasets.translate; tfds.builder\('para_crawl/encs'"),
        ("tfds:xnli", "for parallel there are bucc, flores, opus, para_crawl, tatoeba"),
        ("tfds:para_crawl/ende?split=test", "Unknown split 'test'"),
    ],
)
def test_missing_parallel_tfds_data_is_reported_in_one_line(prepared, source, reason):
    with pytest.raises(UserError, match=reason) as error:
        read(f"{source}{'&' if '?' in source else '?'}data_dir={prepared}")
    assert "\n" not in str(error.value)


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
