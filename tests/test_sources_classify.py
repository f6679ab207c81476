# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The sources of labelled texts: the layouts that users have, and the traps of the real files."""

import collections
import json

import pytest

from xlkd.data import sources
from xlkd.errors import UserError


def write(path, *lines, end="\n"):
    """Writes lines; a tuple is joined by tabs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(("\t".join(line) if isinstance(line, tuple) else line) + end for line in lines)
    path.write_bytes(text.encode())
    return path


def read(text, on_bad_row="stop"):
    return sources.read(text, "classify", on_bad_row)


def list_triples(rows):
    return [(row.text, row.second, row.label) for row in rows]


def count_by_language(rows):
    return dict(collections.Counter(row.language for row in rows))


HEADER = ("language", "gold_label", "sentence1", "sentence2", "promptID", "pairID", "sentence1_tokenized")


@pytest.fixture
def official(tmp_path):
    """Writes two premises with three hypotheses each in two languages, whose rows alternate."""
    lines = [HEADER]
    labels = ("neutral", "contradiction", "entailment")
    for premise in "AB":
        for language in ("de", "en"):
            for number, label in enumerate(labels):
                pair = str(1 + number + 3 * (premise == "B"))
                lines.append((language, label, f"{premise} {language}", f'"h{number}', "9", pair, "cut words"))
    write(tmp_path / "XNLI-1.0" / "xnli.dev.tsv", *lines)
    return tmp_path / "XNLI-1.0"


def test_official_xnli_is_read(official):
    rows = read(f"xnli:{official}?split=dev")
    assert count_by_language(rows) == {"de": 6, "en": 6}
    # The text is not unquoted, and it is not the tokenized text.
    assert list_triples(rows)[0] == ("A de", '"h0', "neutral")
    assert [row.id for row in rows] == ["1", "2", "3", "4", "5", "6"] * 2
    assert len({row.key for row in rows}) == 12
    groups = [row.group for row in rows]
    assert groups[:6] == groups[6:]
    assert [groups.index(group) for group in groups[:6]] == [0, 0, 0, 3, 3, 3]
    assert len(read(f"xnli:{official}/xnli.dev.tsv?languages=German&limit=2")) == 2


def test_groups_come_from_english_even_if_only_german_is_read(official):
    all_rows, german = (read(f"xnli:{official}?split=dev{more}") for more in ("", "&languages=de"))
    assert [row.group for row in german] == [row.group for row in all_rows if row.language == "de"]


def test_official_xnli_is_read_as_json_lines_too(official):
    lines = (official / "xnli.dev.tsv").read_text().splitlines()
    objects = [dict(zip(HEADER, line.split("\t"), strict=True)) | {"annotator_labels": []} for line in lines[1:]]
    write(official.parent / "j" / "xnli.dev.jsonl", *map(json.dumps, objects))
    assert list(read(f"xnli:{official.parent}/j?split=dev")) == list(read(f"xnli:{official}?split=dev"))


def test_parts_share_no_premise_and_are_equal_in_all_languages(official):
    lines = [HEADER] + [
        (lang, "neutral", f"{p} {lang}", "h", "", str(p), "") for lang in ("de", "en") for p in range(40)
    ]
    write(official / "xnli.dev.tsv", *lines)
    first, second = (read(f"xnli:{official}?split=dev&part={part}/2") for part in (1, 2))
    assert len(first) + len(second) == 80
    assert min(len(first), len(second)) > 20
    assert not {row.group for row in first} & {row.group for row in second}
    assert count_by_language(first)["de"] == count_by_language(first)["en"]


def test_machine_translated_training_files_are_read(tmp_path):
    rows = [("premise", "hypo", "label"), ('" Alles', "klar .", "contradictory"), ("a", "b", "Entailment ")]
    for language in ("de", "zh"):
        write(tmp_path / "multinli" / f"multinli.train.{language}.tsv", *rows)
    train_rows = read(f"xnli:{tmp_path}?languages=zh-CN,de")
    assert list_triples(train_rows)[:2] == [('" Alles', "klar .", "contradiction"), ("a", "b", "entailment")]
    assert [row.id for row in train_rows] == ["train:zh:0", "train:zh:1", "train:de:0", "train:de:1"]
    assert train_rows[0].group == train_rows[2].group


def test_xtreme_xnli_is_read(tmp_path):
    write(tmp_path / "dev-en.tsv", ("a", "b", "entailment"), ("c", "d", "neutral"), end="\r\n")
    write(tmp_path / "dev-el.tsv", ("a\u2028x\x85", "b", "entailment"), ("c", "d", "neutral"), end="\r\n")
    write(tmp_path / "test-en.tsv", ("a", "b"), ("c", "d"), end="\r\n")
    rows = read(f"xnli:{tmp_path}?split=dev")
    assert count_by_language(rows) == {"el": 2, "en": 2}
    assert list_triples(rows)[:2] == [("a\u2028x\x85", "b", "entailment"), ("c", "d", "neutral")]
    assert list_triples(read(f"xnli:{tmp_path}?split=test")) == [("a", "b", None), ("c", "d", None)]
    assert list_triples(read(f"xnli:{tmp_path}/test-en.tsv")) == [("a", "b", None), ("c", "d", None)]


def test_labels_from_the_official_file_are_joined_by_row_and_text(tmp_path):
    write(tmp_path / "test-en.tsv", ("a", "b"), ("c", "d"))
    rows = [HEADER, ("de", "neutral", "x", "y", "", "1", ""), ("en", "neutral", "a", "b", "", "1", "")]
    file = write(tmp_path / "o" / "xnli.test.tsv", *rows, ("en", "contradictory", "c", "d", "", "2", ""))
    joined = read(f"xnli:{tmp_path}?split=test&labels={file}")
    assert list_triples(joined) == [("a", "b", "neutral"), ("c", "d", "contradiction")]
    assert not {row.key for row in joined} & {row.key for row in read(f"xnli:{tmp_path}?split=test")}, (
        "caches go by key"
    )
    write(file, *rows, ("en", "neutral", "c", "other", "", "2", ""))
    with pytest.raises(UserError, match="differs from the texts of row test:en:1"):
        read(f"xnli:{tmp_path}?split=test&labels={file}")


def test_xtreme_translations_are_read_beside_english(tmp_path):
    write(tmp_path / "train-en.tsv", ("a", "b", "neutral"))
    write(tmp_path / "translate-train" / "en-de-translated.tsv", ("a", "b", "ah", "beh", "contradictory"))
    assert [(row.language, row.text, row.label) for row in read(f"xnli:{tmp_path}?split=train")] == [
        ("de", "ah", "contradiction"),
        ("en", "a", "neutral"),
    ]


def test_xtreme_pawsx_undoes_quoting(tmp_path):
    write(tmp_path / "dev-de.tsv", ('"""Öl"" sagt er"', 'b "c"', "0"), ("x", '"y\nz"', "1"), end="\r\n")
    assert list_triples(read(f"pawsx:{tmp_path}?split=dev")) == [('"Öl" sagt er', 'b "c"', "0"), ("x", "y\nz", "1")]
    plain = write(tmp_path / "p" / "dev-de.tsv", ('"Öl" sagt er', "b", "0"), ("x", "y", "different_meaning"))
    with pytest.raises(UserError, match="line 1: broken quoting"):
        read(f"pawsx:{plain}")
    assert list_triples(read(f"pawsx:{plain}?quoting=none")) == [('"Öl" sagt er', "b", "0"), ("x", "y", "0")]


@pytest.fixture
def pawsx(tmp_path):
    header = ("id", "sentence1", "sentence2", "label")
    english = [("7", "same", "b", "1"), ("8", "same", "d", "0"), ("9", "e", "f", "1")]
    write(tmp_path / "x-final" / "en" / "dev_2k.tsv", header, *english)
    german = [("7", '"gleich', "b", "1"), ("8", " NS ", "d", "0"), ("9", "e", "e", "0")]
    write(tmp_path / "x-final" / "de" / "dev_2k.tsv", header, *german)
    write(tmp_path / "x-final" / "en" / "train.tsv", header, *english)
    write(tmp_path / "x-final" / "de" / "translated_train.tsv", header, *german[:1], ("8", "", "x", "0"))
    return tmp_path


def test_official_pawsx_is_read(pawsx):
    rows = read(f"pawsx:{pawsx}?split=dev")
    assert [(row.language, row.id) for row in rows] == [("de", "7"), ("de", "9"), ("en", "7"), ("en", "8"), ("en", "9")]
    assert rows[0].text == '"gleich'
    assert [reason for _, reason in rows.dropped] == ["not translated (NS)"]
    assert rows.dropped[0][0].endswith("de/dev_2k.tsv: line 3")
    groups = {(row.language, row.id): row.group for row in rows}
    assert groups["de", "7"] == groups["en", "7"] == groups["en", "8"] != groups["en", "9"] == groups["de", "9"]
    assert list(read(f"pawsx:{pawsx}/x-final?split=dev")) == list(rows)
    assert read(f"pawsx:{pawsx}/x-final/de?split=dev")[0].text == '"gleich'


def test_copies_of_pawsx_with_csv_quoting_are_read(pawsx):
    header = ("id", "sentence1", "sentence2", "label")
    write(pawsx / "x-final" / "de" / "dev_2k.tsv", header, ("7", '"""Öl"" sagt er"', "b", "1"), ("9", "e", "e", "0"))
    assert read(f"pawsx:{pawsx}?split=dev")[0].text == '"Öl" sagt er'


def test_untranslated_pawsx_rows_can_be_kept_or_dropped_in_all_languages(pawsx):
    assert count_by_language(read(f"pawsx:{pawsx}?split=dev&ns=keep")) == {"de": 3, "en": 3}
    common = read(f"pawsx:{pawsx}?split=dev&rows=common")
    assert [(row.language, row.id) for row in common] == [("de", "7"), ("de", "9"), ("en", "7"), ("en", "9")]
    assert sorted(reason for _, reason in common.dropped) == ["missing in some language", "not translated (NS)"]


def test_pawsx_training_files_have_two_names_and_empty_sides(pawsx):
    with pytest.raises(UserError, match=r"translated_train.tsv: line 3: empty text"):
        read(f"pawsx:{pawsx}?split=train")
    rows = read(f"pawsx:{pawsx}?split=train", "skip")
    assert count_by_language(rows) == {"de": 1, "en": 3}


def test_nusax(tmp_path):
    for folder in ("toba_batak", "english"):
        text = 'id,text,label\r\n5,"a ""b""\nc, d",Positive\r\n6,e,neutral\r\n'
        write(tmp_path / "datasets" / "sentiment" / folder / "valid.csv", text, end="")
    rows = read(f"nusax:{tmp_path}?split=dev")
    assert [(row.language, row.id, row.group) for row in rows][:2] == [("bbc", "5", "nusax/5"), ("bbc", "6", "nusax/6")]
    assert list_triples(rows)[0] == ('a "b"\nc, d', None, "positive")
    assert count_by_language(read(f"nusax:{tmp_path}/datasets/sentiment?split=dev&languages=en")) == {"en": 2}


REVIEW = {"review_id": "r1", "product_id": "p", "stars": "5", "review_body": "good", "review_title": "t", "language": "de", "product_category": "home"}  # fmt: skip


def test_amazon_is_read_as_published(tmp_path):
    lines = [json.dumps(REVIEW), json.dumps(REVIEW | {"review_id": "r2", "stars": 1})]
    write(tmp_path / "dev" / "dataset_de_dev.json", *lines)
    rows = read(f"amazon:{tmp_path}?split=dev")
    assert [(row.text, row.second, row.label, row.group, row.id) for row in rows] == [
        ("good", None, "5", "amazon/p", "r1"),
        ("good", None, "1", "amazon/p", "r2"),
    ]
    pair = read(f"amazon:{tmp_path}?split=dev&second=review_title,product_category")[0]
    assert (pair.text, pair.second) == ("good", "t . home")
    with pytest.raises(UserError, match="text=stars is not possible"):
        read(f"amazon:{tmp_path}?split=dev&text=stars")


def test_amazon_is_read_as_csv(tmp_path):
    names = [*REVIEW]
    lines = [",".join(["", *names]), ",".join(["0", *REVIEW.values()]), '1,r2,p,3,"a\nb",t,fr,home']
    write(tmp_path / "validation.csv", *lines)
    rows = read(f"amazon:{tmp_path}?split=dev")
    assert [(row.language, row.text, row.label) for row in rows] == [("de", "good", "5"), ("fr", "a\nb", "3")]


def test_re_hosted_amazon_labels_count_from_zero(tmp_path):
    review = {"id": "de_1", "text": "t\n\ngood", "label": 0, "label_text": "0"}
    write(tmp_path / "de" / "train.jsonl", json.dumps(review), json.dumps(review | {"id": "de_2", "label": 4}))
    rows = read(f"amazon:{tmp_path}")
    assert [row.label for row in rows] == ["1", "5"]
    assert rows[0].group == "amazon/de_1"
    write(tmp_path / "de" / "train.jsonl", json.dumps(review), json.dumps(review | {"id": "de_2", "label": 5}))
    with pytest.raises(UserError, match="line 2: unknown label '5, counted from 0'"):
        read(f"amazon:{tmp_path}")
    with pytest.raises(UserError, match="no column named review_title"):
        read(f"amazon:{tmp_path}?text=review_title")


BAD_ROWS = {
    "unknown label": (("a", "b", "maybe"), "unknown label 'maybe' (known: entailment, neutral, contradiction)"),
    "no consensus": (("a", "b", "-"), "unknown label '-'"),
    "a stray tab": (("a", "b", "c", "neutral"), "4 columns instead of 3"),
    "a column less": (("a", "neutral"), "2 columns instead of 3"),
    "empty text": ((" ", "b", "neutral"), "empty text"),
    "empty second text": (("a", "", "neutral"), "empty second text"),
    "an empty line": ((), "an empty line"),
}


@pytest.mark.parametrize(("bad", "reason"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_named_with_file_line_and_reason(tmp_path, bad, reason):
    good = ("x", "y", "neutral")
    path = write(tmp_path / "multinli.train.de.tsv", ("premise", "hypo", "label"), good, bad, good, "", "")
    with pytest.raises(UserError) as error:
        read(f"xnli:{tmp_path}")
    assert f"{path}: line 3: {reason}" in str(error.value)
    rows = read(f"xnli:{tmp_path}", "skip")
    assert [row.id for row in rows] == ["train:de:0", "train:de:2"]  # The numbers are those of the other languages.
    assert [where for where, _ in rows.dropped] == [f"{path}: line 3"]


def test_an_empty_or_nan_label_cell_is_a_missing_label(tmp_path):
    cells = ("neutral", "", " ", "nan", "NaN", "contradiction")
    lines = [("a", f"b{number}", cell) for number, cell in enumerate(cells)]
    write(tmp_path / "multinli.train.de.tsv", ("premise", "hypo", "label"), *lines)
    expected = ["neutral", None, None, None, None, "contradiction"]
    assert [row.label for row in read(f"xnli:{tmp_path}")] == expected


def test_a_json_label_may_be_null_or_nan_or_a_whole_float(tmp_path):
    lines = [f'{{"text": "t{number}", "label": {label}}}' for number, label in enumerate(("1.0", "NaN", "null", "0"))]
    file = write(tmp_path / "mine.jsonl", *lines)
    assert [row.label for row in read(f"jsonl:{file}?languages=de")] == ["1", None, None, "0"]
    write(file, '{"text": "t", "label": 1.5}')
    with pytest.raises(UserError, match="label is neither text nor a whole number"):
        read(f"jsonl:{file}?languages=de")


def test_wrong_paths_and_options_are_explained(tmp_path):
    write(tmp_path / "dev-de.tsv", ("a", "b", "neutral"))
    write(tmp_path / "twice" / "dev-zh.tsv", ("a", "b", "neutral"))
    write(tmp_path / "twice" / "dev-zh-CN.tsv", ("a", "b", "neutral"))
    (tmp_path / "latin").mkdir()
    (tmp_path / "latin" / "dev-de.tsv").write_bytes("a\tb\tneutral\nÖl\tb\tneutral\n".encode("cp1252"))
    for source, reason in {
        f"xnli:{tmp_path}/none": "no such file or folder",
        f"xnli:{tmp_path}": "for split=train; there is split=dev",
        f"nusax:{tmp_path}": "no file named LANGUAGE/train.csv; check the path",
        f"xnli:{tmp_path}?split=valid": "choose one of train, dev, test",
        f"xnli:{tmp_path}?split=dev&languages=fr": "no file for fr; there are de",
        f"xnli:{tmp_path}?split=dev&ns=keep": "unknown option 'ns'",
        f"xnli:{tmp_path}?split=dev&part=3/2": "part=3/2 is not possible",
        f"xnli:{tmp_path}/twice?split=dev": "the same split and language as",
        f"xnli:{tmp_path}/latin?split=dev": "line 2: not UTF-8 at byte 0",
        "xnli:": "no such file or folder",
    }.items():
        with pytest.raises(UserError) as error:
            read(source)
        assert reason in str(error.value), source


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Prepares XNLI and PAWS-X as TFDS does."""
    tfds = pytest.importorskip("tensorflow_datasets")
    folder = tmp_path_factory.mktemp("tfds")
    text, label = tfds.features.Text, tfds.features.ClassLabel
    languages = ("de", "en")
    xnli = {
        "premise": tfds.features.Translation(languages=languages),
        "hypothesis": tfds.features.TranslationVariableLanguages(languages=languages),
        "label": label(num_classes=3),
    }
    pawsx = {"sentence1": text(), "sentence2": text(), "label": label(num_classes=2)}

    def prepare(name, config, split, shape, examples):
        class Toy(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            VERSION = tfds.core.Version("1.1.0" if name == "xnli" else "1.0.0")
            BUILDER_CONFIGS = (tfds.core.BuilderConfig(name=config),) if config else ()

            def _info(self):
                return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(shape))

            def _split_generators(self, _):
                return {split: iter(enumerate(examples))}

            def _generate_examples(self):
                raise NotImplementedError

        Toy.name = name
        Toy(
            **({"config": config} if config else {}), data_dir=folder, file_format="array_record"
        ).download_and_prepare()

    premise = {"de": "Öl", "en": "oil"}
    examples = [{"premise": premise, "hypothesis": {"de": f"h{i}", "en": f"e{i}"}, "label": i} for i in range(3)]
    prepare("xnli", "", "validation", xnli, examples)
    pairs = [{"sentence1": first, "sentence2": "b", "label": 1} for first in ("a", "NS", "c")]
    prepare("paws_x_wiki", "de", "train", pawsx, pairs)
    return folder


def test_tfds_xnli_contains_all_languages_in_a_record(prepared):
    rows = read(f"tfds:xnli?data_dir={prepared}&languages=en,de")
    assert count_by_language(rows) == {"en": 3, "de": 3}
    assert {(row.second, row.label) for row in rows if row.language == "en"} == {
        ("e0", "entailment"),
        ("e1", "neutral"),
        ("e2", "contradiction"),
    }
    assert len({row.group for row in rows}) == 1
    assert {row.id.replace(":de:", ":") for row in rows[3:]} == {row.id.replace(":en:", ":") for row in rows[:3]}
    assert len(read(f"tfds:xnli?data_dir={prepared}&limit=2")) == 4


def test_tfds_pawsx_drops_untranslated_rows(prepared):
    rows = read(f"tfds:paws_x_wiki/de?data_dir={prepared}")
    assert sorted(row.text for row in rows) == ["a", "c"]
    assert [reason for _, reason in rows.dropped] == ["not translated (NS)"]
    assert len(read(f"tfds:paws_x_wiki?data_dir={prepared}&ns=keep&languages=de")) == 3


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("tfds:multi_nli?data_dir={}", r"not prepared under .*datasets.text; tfds.builder\('multi_nli', data_dir="),
        ("tfds:paws_x_wiki?languages=it&data_dir={}", "no config it; there are de, en"),
        ("tfds:xnli?data_dir={}&languages=fr", "no rows"),
        ("tfds:squad", "for classify there are xnli"),
        ("tfds:xnli?data_dir={}&ns=keep", "unknown option 'ns'"),
    ],
)
def test_missing_tfds_data_is_reported_in_one_line(prepared, source, reason):
    with pytest.raises(UserError, match=reason) as error:
        read(source.format(prepared))
    assert "\n" not in str(error.value)


@pytest.mark.shared
class TestRealFiles:
    """The real files have the sizes that were counted by hand."""

    @pytest.mark.parametrize(
        ("split", "languages", "rows", "groups"), [("dev", 15, 2490, 830), ("test", 10, 2505, 835)]
    )
    def test_xnli(self, shared_data, split, languages, rows, groups):
        xnli_rows = read(f"xnli:{shared_data}/xnli?split={split}")
        assert list(count_by_language(xnli_rows).values()) == [rows] * languages
        assert len({row.group for row in xnli_rows}) == groups
        counted = collections.Counter((row.language, row.label) for row in xnli_rows)
        assert set(counted.values()) == {rows // 3}

    def test_xnli_official_header(self, shared_data):
        xnli_rows = read(f"xnli:{shared_data}/xnli/official_layout?split=dev")
        assert list(count_by_language(xnli_rows).values()) == [30] * 15
        first = read(f"xnli:{shared_data}/xnli?split=dev&limit=30")
        assert sorted((row.language, row.text, row.second, row.label) for row in xnli_rows) == sorted(
            (row.language, row.text, row.second, row.label) for row in first
        )
        assert {row.group for row in xnli_rows} == {row.group for row in first}

    def test_xnli_without_labels(self, shared_data):
        xnli_rows = read(f"xnli:{shared_data}/xnli/as_in_xtreme?split=test")
        assert [row.label for row in xnli_rows] == [None] * 300

    def test_xnli_train(self, shared):
        xnli_rows = read(f"xnli:{shared}/data/xnli_train?languages=en,zh")
        assert count_by_language(xnli_rows) == {"en": 5000, "zh": 5000}
        labels = collections.Counter(row.label for row in xnli_rows if row.language == "zh")
        assert labels == {"contradiction": 1860, "entailment": 1698, "neutral": 1442}

    @pytest.mark.parametrize(
        ("split", "counts", "common"),
        [
            ("dev", {"de": 1932, "en": 2000, "es": 1962, "fr": 1992, "ja": 1980, "ko": 1964, "zh": 1983}, 1848),
            # This copy lacks 6 rows that are NS in de and in zh.
            ("test", {"de": 1968, "en": 1994, "es": 1993, "fr": 1982, "ja": 1942, "ko": 1969, "zh": 1975}, None),
        ],
    )
    def test_pawsx(self, shared_data, split, counts, common):
        pawsx_rows = read(f"pawsx:{shared_data}/pawsx?split={split}")
        assert count_by_language(pawsx_rows) == counts
        if common:
            common_rows = read(f"pawsx:{shared_data}/pawsx?split={split}&rows=common")
            assert set(count_by_language(common_rows).values()) == {common}

    def test_pawsx_texts_are_the_same_in_both_layouts(self, shared_data):
        official, xtreme = (
            {row.text for row in read(f"pawsx:{shared_data}/pawsx{folder}?split=test&languages=de")}
            for folder in ("/x-final", "")
        )
        assert xtreme <= official

    def test_nusax(self, shared_data):
        for split, rows in (("train", 500), ("dev", 100), ("test", 400)):
            nusax_rows = read(f"nusax:{shared_data}/nusax?split={split}")
            assert list(count_by_language(nusax_rows).values()) == [rows] * 10
            assert len({row.group for row in nusax_rows}) == rows
