# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tags of languages: those of known data sets, what they become, and where tags with hyphens are used.

`golden/language_tags.json` has the tags of data sets as they write them, with our tag of each.
"""

import collections
import json
import pathlib
import subprocess
import sys

import babel
import numpy as np
import pytest
import toy_models
from stages import make_spec

from xlkd import evaluate, languages, settings
from xlkd.data import cleaning, sources
from xlkd.errors import UserError
from xlkd.evaluation import provenance
from xlkd.languages import find_tag, freeze, get_base_language, get_name, normalise_tag
from xlkd.metrics import averages, contamination
from xlkd.reports import badges
from xlkd.rows import Cell, Labelled
from xlkd.spec import mblm
from xlkd.spec.tasks import Classify
from xlkd.train import run

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "language_tags.json").read_text())
TABLE = json.loads(freeze.TARGET.read_text(encoding="utf-8"))
COUNTS = {"FLORES-200": 204, "Belebele": 122, "Tatoeba": 112, "AfriXNLI": 18, "MASSIVE": 52, "WMT24++": 55}


@pytest.fixture
def table_of_version_0_1():
    """Reads tags as version 0.1 did, during a test."""
    languages.use_table(1)
    yield
    languages.use_table(languages.TABLE_VERSION)


@pytest.mark.parametrize("name", GOLDEN)
def test_the_tags_of_a_data_set_are_known_and_stay_apart(name):
    tags = GOLDEN[name]
    assert {tag: normalise_tag(tag) for tag in tags} == tags
    assert len(set(tags.values())) == len(tags) == COUNTS.get(name, len(tags))


@pytest.mark.parametrize(
    ("tags", "canonical"),
    [
        ("zh zho chi cmn zh-CN zho-CN zh_SG zho_Hani Chinese zh-cmn", "zh"),
        ("zh-Hans zho_Hans cmn_Hans cmn_hans_cn zh-cmn-Hans-CN", "zh-Hans"),
        ("zh-Hant zho_Hant zh-TW zho-TW zh_MO cmn-TW", "zh-Hant"),
        ("zh-HK zh_Hant_HK", "zh-Hant-HK"),
        ("yue zh-yue yue_Hant yue_hant_hk yue-HK", "yue"),
        ("pt por pt-PT por_Latn Portuguese", "pt"),
        ("pt-BR pt_br por-BR", "pt-BR"),
        ("sr srp srp_Cyrl sr-RS scc", "sr"),
        ("sr-Latn srp_Latn sh hbs", "sr-Latn"),
        ("cnr sr-ME", "sr-Latn-ME"),
        ("en eng en-US eng_Latn English", "en"),
        ("en-GB eng-GB en_UK", "en-GB"),
        ("no nor no_NO Norwegian", "no"),
        ("nb nob nb-NO nob_Latn", "nb"),
        ("nn nno nno_Latn", "nn"),
        ("sw swa swh sw-KE swh_Latn", "sw"),
        ("fa fas per pes pes_Arab", "fa"),
        ("fa-AF prs prs_Arab", "fa-AF"),
        ("ar ara arb arb_Arab ar-SA", "ar"),
        ("ms msa may zsm zsm_Latn", "ms"),
        ("fil tl tgl tl-PH Tagalog Filipino", "fil"),
        ("ko kor kor_Hang kor_Kore", "ko"),
        ("ja jpn jpn_Jpan ja-JP", "ja"),
        ("he iw heb", "he"),
        ("id in ind", "id"),
        ("uz uzn_Latn", "uz"),
        ("uz-Arab uz-AF", "uz-Arab"),
        ("bbc Toba_Batak Batak-Toba", "bbc"),
        ("bjn banjarese", "bjn"),
        ("tlh i-klingon", "tlh"),
        ("ca-valencia cat-valencia", "ca-valencia"),
        ("oc-aran1260 oci_Latn_aran1260", "oc-aran1260"),
        ("und und_Latn", "und"),
    ],
)
def test_different_names_of_a_language_are_one_tag(tags, canonical):
    assert {find_tag(tag) for tag in tags.split()} == {canonical}
    assert find_tag(canonical.upper()) == find_tag(f" {canonical.replace('-', '_').lower()} ") == canonical


@pytest.mark.parametrize(
    ("tag", "hint"),
    [
        ("qqq", "did you mean"),
        ("deutsch", "did you mean 'dutch' (Dutch)?"),
        ("swahilli", "did you mean 'swahili' (Swahili)?"),
        ("zh-Hanz", "'Hanz' is no script; did you mean 'Han"),
        ("en-XX", "'XX' is no region"),
        ("de-foobar", "'foobar' is no variant"),
        ("", "use a tag such as"),
        ("-", "use a tag such as"),
        ("a" * 10_000, "use a tag such as"),
        ("en\0", "did you mean 'en' (English)?"),
        ("\u202ede", ""),
        ("١٢", ""),
        ("en\nde", ""),
        ("../../etc/passwd", ""),
    ],
)
def test_an_unknown_tag_is_refused_in_one_line_with_the_nearest(tag, hint):
    assert not find_tag(tag)
    with pytest.raises(UserError) as error:
        normalise_tag(tag, "somewhere")
    line = str(error.value)
    assert line.startswith("somewhere: unknown language ")
    assert hint in line
    assert line.isprintable()
    assert len(line) < 250


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("zh-Hant", "Chinese (Traditional)"),
        ("zh-Hans", "Chinese (Simplified)"),
        ("pt-BR", "Portuguese (Brazil)"),
        ("nij", "Ngaju"),
        ("gsw-ZH", "Swiss German (Zurich)"),
        ("ca-valencia", "Catalan (Valencian)"),
        ("und", "Unknown language"),
    ],
)
def test_languages_have_english_names(tag, name):
    assert get_name(tag) == name


def test_writing_follows_from_the_script():
    right_to_left = "ar fa he ps ur dv ug sd yi ckb nqo arz azb ks fa-AF ace-Arab pa-Arab".split()  # noqa: SIM905
    left_to_right = "en zh ru hi tr ku ace ar-Latn ur-Latn ks-Deva kr sw am ka".split()  # noqa: SIM905
    without_spaces = "zh zh-Hant zh-Hans yue wuu ja th my lo km bo dz shn".split()  # noqa: SIM905
    assert [tag for tag in right_to_left if not languages.is_right_to_left(tag)] == []
    assert [tag for tag in left_to_right if languages.is_right_to_left(tag)] == []
    assert [tag for tag in without_spaces if not languages.is_without_spaces(tag)] == []
    assert [tag for tag in [*left_to_right[:1], "ko", "vi", "ar", "hi", "am"] if languages.is_without_spaces(tag)] == []


def test_cleaning_knows_the_letters_of_a_script_and_keeps_texts_in_unknown_ones():
    assert cleaning.is_in_script("你好", "zh-Hant")
    assert not cleaning.is_in_script("hello there", "zh-Hant")
    assert cleaning.is_in_script("Zdravo", "sr")
    assert not cleaning.is_in_script("Здраво", "sr-Latn")
    assert cleaning.is_in_script("ສະບາຍດີ", "lo")


def test_scripts_and_regions_are_one_language_for_badges_and_contamination():
    assert {get_base_language(tag) for tag in ("zh", "zh-Hans", "zh-Hant", "zh-Hant-HK")} == {"zh"}
    assert {get_base_language(tag) for tag in ("no", "nb", "nn")} == {"no"}
    assert get_base_language("yue") == "yue"
    seen = {"training": ["zh"], "teacher": ["pt-BR"]}
    assert badges.list_badges(seen, ["zh-Hant"], False) == ["T"]
    assert badges.classify_cell(seen, ["zh-Hans", "zh-Hant"], False) == badges.SUPERVISED
    assert badges.classify_cell(seen, ["pt"], False) == badges.TRANSFERRED
    assert badges.classify_cell(seen, ["yue"], False) == badges.ZERO_SHOT
    cells = averages.list_average_cells(["de", "zh-Hant"], seen=["zh"])
    assert cells["xlt_seen"] == (("zh-Hant", "zh-Hant"),)
    text = "長江發源於青藏高原，流經許多省份，最後在上海注入東海，全長六千三百公里，是亞洲最長的河流。"
    train, test = (contamination.Item(f"a_{tag}", tag, tag, text + tag) for tag in ("zh-Hant", "zh"))
    found = contamination.find_contamination([train], [test]).test
    assert found[contamination.NEAR_DUPLICATE] == found[contamination.PARALLEL_ID] == {0}


def test_cells_with_hyphens_are_read_as_they_were_written():
    tags = ["en", "min", "zh-Hant", "zh-Hant-HK", "pt-BR", "sr-Latn-ME", "ca-valencia", "und", "oc-aran1260"]
    cells = [Cell("my-set", pair) for pair in [*((a, b) for a in tags for b in tags), *((a,) for a in tags)]]
    assert [Cell.parse(str(cell)) for cell in cells] == cells


def test_flags_and_branches_take_tags_with_hyphens():
    config = settings.read_config("configs/mblm.py")
    flags = ["--config.mblm.teachers.zh-Hant=DIR", "--config.task.languages=zh-Hant,pt-BR,en"]
    settings.apply_flags(config, flags)
    assert settings.to_plain(config)["mblm"]["teachers"]["zh-Hant"] == "DIR"
    task = Classify(languages=("zh-Hant", "pt-BR", "en"))
    groups = mblm.groups(mblm.Method(branches="zho_Hant+en,por-BR"), task)
    assert groups == (((0, "zh-Hant"), (2, "en")), ((1, "pt-BR"),))


def test_labelled_languages_are_recorded_with_their_script():
    rows = [Labelled("i", "k", "g", "s", "t", None, "yes", tag) for tag in ("zh-Hant", "en")]
    assert provenance.find_labelled_languages(rows) == {"zh-Hant", "en"}


def write_folder(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("one sentence\n")


@pytest.mark.parametrize(
    ("source", "task", "read", "unread"),
    [
        ("tatoeba:{}", "parallel", "tatoeba.kzj-eng.kzj tatoeba.kzj-eng.eng", "README tatoeba.qqq-eng.eng"),
        ("moses:{}/c?languages=en,pt-BR", "parallel", "c.en-pt_BR.en c.en-pt_BR.pt_BR c.en-de.de", "c.xml c.q.qqq"),
        ("text:{}", "masked", "kzj.txt pt_BR.txt", "qqq.txt notes/de.txt"),
        ("align:{}/c?languages=en,zh-Hant", "parallel", "c.en c.zh-Hant c.gold", "c.names"),
        ("nusax:{}", "classify", "german/train.csv german/test.csv", "notes/a.txt german/dev.csv"),
    ],
)
def test_files_that_a_source_does_not_read_are_counted_and_named(tmp_path, source, task, read, unread):
    write_folder(tmp_path, *read.split(), *unread.split(), ".git/config", ".hidden")
    for name in read.split():
        text = "id,text,label\n1,gut,positive\n" if name.endswith("csv") else "0-0\n" if name == "c.gold" else "text\n"
        (tmp_path / name).write_text(text if name.endswith(("csv", "gold")) else f"{text[:-1]} of {name}\n")
    rows = sources.read(source.format(tmp_path), task)
    (note,) = rows.notes
    count, names = note.split(": ", 1)[1].split(" not read: ")
    assert count == ("1 file is" if len(unread.split()) == 1 else f"{len(unread.split())} files are")
    assert sorted(names.split(", ")) == sorted(unread.split())


def test_a_folder_of_questions_names_what_it_does_not_read(tmp_path):
    answer = [{"text": "Anna", "answer_start": 0}]
    paragraph = {"context": "Anna went.", "qas": [{"id": "1", "question": "Who?", "answers": answer}]}
    for tag in ("zh-Hant", "por-BR", "en"):
        (tmp_path / f"xquad.{tag}.json").write_text(json.dumps({"data": [{"paragraphs": [paragraph]}]}))
    write_folder(tmp_path, *(f"more/{i}.txt" for i in range(12)), "a.json")
    rows = sources.read(f"xquad:{tmp_path}?languages=zho_Hant,pt-BR&pairs=all", "qa")
    assert collections.Counter(str(Cell.from_example(row)) for row in rows) == dict.fromkeys(
        ("xquad zh-Hant-zh-Hant", "xquad zh-Hant-pt-BR", "xquad pt-BR-zh-Hant", "xquad pt-BR-pt-BR"), 1
    )
    assert rows.notes == (
        f"{tmp_path}: 13 files are not read: a.json, more/0.txt, more/1.txt, more/10.txt, more/11.txt, more/2.txt, "
        "more/3.txt, more/4.txt and 5 more",
    )


def test_evaluation_names_the_files_of_predictions_that_it_does_not_read(tmp_path, capsys):
    answer = [{"text": "Anna", "answer_start": 0}]
    paragraph = {"context": "Anna went.", "qas": [{"id": "1", "question": "Who?", "answers": answer}]}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "xquad.zh-Hant.json").write_text(json.dumps({"data": [{"paragraphs": [paragraph]}]}))
    (tmp_path / "answers").mkdir()
    for name in ("xquad.zho_Hant.json", "xquad.pt-BR.json", "log.txt"):
        (tmp_path / "answers" / name).write_text(json.dumps({"1": "Anna"}))
    evaluate.main([f"--data=xquad:{tmp_path}/data", f"--predictions={tmp_path}/answers"])
    printed = capsys.readouterr()
    assert "zh-Hant" in printed.out
    assert printed.err == f"note: {tmp_path}/answers: 2 files are not read: log.txt, xquad.pt-BR.json\n"


def test_names_of_unread_files_are_printed_as_one_line(tmp_path):
    for name in (b"a\xff.txt", b"b\nc.txt", b"d\x1b[2J.txt"):
        (tmp_path / name.decode(errors="surrogateescape")).write_text("")
    bad_rows = sources.BadRows()
    bad_rows.note_unread(tmp_path, sorted(path.name for path in tmp_path.iterdir()))
    assert bad_rows.notes[str(tmp_path)].isprintable()


def test_a_translation_memory_in_any_english_is_english_where_that_is_asked_for(tmp_path):
    unit = '<tu><tuv xml:lang="EN-GB"><seg>colour</seg></tuv><tuv xml:lang="zh-TW"><seg>顏色</seg></tuv></tu>'
    (tmp_path / "m.tmx").write_text(f'<tmx version="1.4"><header/><body>{unit}</body></tmx>')
    for tags in ("en,zh", "en-GB,zh-Hant"):
        (row,) = sources.read(f"tmx:{tmp_path}/m.tmx?languages={tags}", "parallel")
        assert (row.source, row.target) == ("colour", "顏色")
        assert f"{row.source_language},{row.target_language}" == tags


def test_the_part_of_the_table_that_cldr_gives_is_as_babel_has_it():
    if babel.__version__ != TABLE["babel"]:
        pytest.skip(f"the table is of Babel {TABLE['babel']}")
    part = freeze.make_cldr_part(TABLE["languages"])
    assert {key: TABLE[key] for key in part} == part


def test_importing_languages_reads_no_table():
    code = "import sys, xlkd.languages as l; assert not l._load_table.cache_info().currsize; print(len(sys.modules))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=toy_models.ROOT, capture_output=True)


def test_a_run_of_version_0_1_reads_the_tags_as_it_began(tmp_path, table_of_version_0_1):
    earlier = "nb:no nn:no nob:no tl:tl fil:tl zho_Hant:zh pt-BR:pt srp_Latn:sr en-GB:en yor_Latn:yo prs: qqq:".split()  # noqa: SIM905
    assert {pair.split(":")[0]: find_tag(pair.split(":")[0]) for pair in earlier} == dict(p.split(":") for p in earlier)
    with pytest.raises(UserError, match="unknown language 'prs'"):
        normalise_tag("prs")
    languages.use_table(languages.TABLE_VERSION)
    record, lines = tmp_path / "environment.json", []
    for content, version in (({"command": []}, 1), ({"language_table": 2}, 2), ({"language_table": "x"}, 2)):
        record.write_text(json.dumps(content))
        run.choose_language_table(record, lines.append)
        assert find_tag("nob") == ("no" if version == 1 else "nb")
        assert run.get_language_table(content) == version
    assert lines == ["tags of languages are read as when this run began (table 1)"]
    record.unlink()
    run.choose_language_table(record, lines.append)
    assert find_tag("nob") == "nb"


def test_earlier_tags_of_known_data_sets_have_not_changed():
    earlier = json.loads(freeze.TARGET.with_name("version_0_1.json").read_text(encoding="utf-8"))
    changed = {old: find_tag(old) for old in earlier if find_tag(old) != earlier[old]}
    assert changed == {
        "nb": "nb", "nob": "nb", "nn": "nn", "tl": "fil", "tgl": "fil", "tagalog": "fil", "fil": "fil",
    }  # fmt: skip


@pytest.mark.long
def test_a_student_with_branches_that_have_hyphens_is_trained_evaluated_and_asked(tmp_path):
    texts = {"zho_Hant": "誰走了 安娜", "pt_BR": "A Ana foi", "en": "Anna went"}
    lines = [f"{text} {i},{'yes' if i % 2 else 'no'},{tag}" for i in range(12) for tag, text in texts.items()]
    (tmp_path / "d.csv").write_text("\n".join(["text,label,lang", *lines]) + "\n")
    model, cache = toy_models.save_span_model(tmp_path), tmp_path / "cache"
    data = f"csv:{tmp_path}/d.csv?languages=zh-Hant,pt-BR"
    flags = {
        "config": "configs/mblm.py", "config.stages": "mblm", "config.method.control": "mblm",
        "config.task.languages": "zh-Hant,pt-BR", "config.task.max_length": 32, "config.data.train": data,
        "config.data.eval": f"{data},en", "config.data.batch": 8, "config.data.buckets": 1, "config.budget.epochs": 1,
        "config.method.own": "true", "config.method.branch_layers": 1, "config.encoder.path": model,
        "config.mblm.method.weight_s": 0, "config.mblm.method.weight_z": 0, "workdir": tmp_path / "run",
        **{f"config.mblm.teachers.{tag}": "" for tag in ("en", "de", "zh", "ru", "zh-Hant")},
    }  # fmt: skip
    trained = toy_models.run_command("main", *(f"--{key}={value}" for key, value in flags.items()), cache=cache)
    assert trained.returncode == 0, trained.stderr
    export = tmp_path / "run/stages/01-mblm/export/branches"
    for route, language, answer in (("pt-BR", "zh-TW", "pt-BR"), ("", "zh-TW", "zh-Hant"), ("", "en", "mixture")):
        options = [f"--route={route}"] if route else []
        asked = toy_models.run_command(
            "predict", f"--model={export}", "--text=安娜", f"--language={language}", *options, cache=cache
        )
        assert json.loads(asked.stdout)["route"] == answer, asked.stderr
    scored = tmp_path / "scores.json"
    toy_models.run_command("evaluate", f"--model={export}", f"--data={data},en", f"--json={scored}", cache=cache)
    cells = json.loads(scored.read_text())["sets"]["d"]["cells"]
    assert {tag: cell["route"] for tag, cell in cells.items()} == {
        "zh-Hant": "zh-Hant", "pt-BR": "pt-BR", "en": "mixture",
    }  # fmt: skip
    assert np.isfinite([cell["accuracy"] for cell in cells.values()]).all()
    assert "Chinese (Traditional)" in (tmp_path / "run/report.html").read_text()


def test_two_keys_for_the_teacher_of_one_language_are_refused():
    with pytest.raises(UserError, match=r"config\.teachers: zh-Hant and zho_Hant are the same language"):
        mblm.check(
            make_spec(Classify(languages=("zh-Hant", "en")), mblm.Method(), teachers={"zh-Hant": "", "zho_Hant": ""})
        )


@pytest.mark.long
def test_questions_in_one_language_about_contexts_in_another_are_trained_on_and_evaluated(tmp_path):
    texts = {"zh-Hant": ("誰走了？", "安娜昨天走了。", "安娜"), "por-BR": ("Quem foi?", "A Ana foi ontem.", "Ana")}
    (tmp_path / "xquad").mkdir()
    for tag, (question, context, answer) in texts.items():
        answers = [{"text": answer, "answer_start": context.index(answer)}]
        asked = [[{"id": f"q{i}", "question": f"{question} {i}", "answers": answers}] for i in range(8)]
        paragraphs = [{"context": f"{context} {i}", "qas": questions} for i, questions in enumerate(asked)]
        (tmp_path / f"xquad/xquad.{tag}.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    (tmp_path / "xquad/extra.json").write_text("{}")
    model, cache, data = toy_models.save_span_model(tmp_path), tmp_path / "cache", f"xquad:{tmp_path}/xquad"
    flags = {
        "config": "configs/gxlt.py", "config.stages": "skd_map", "config.data.train": data, "config.data.ntl": 1,
        "config.data.eval": f"{data}?languages=zho_Hant,pt-BR&pairs=all", "config.data.pivot": "zho_Hant",
        "config.data.batch": 4, "config.data.buckets": 1, "config.task.max_length": 64, "config.budget.epochs": 1,
        "config.method.coefficient_group": 2, "config.eval.keep": "best", "config.start": model,
        "workdir": tmp_path / "run",
    }  # fmt: skip
    trained = toy_models.run_command("main", *(f"--{key}={value}" for key, value in flags.items()), cache=cache)
    assert trained.returncode == 0, trained.stderr
    assert f"train: note: {tmp_path}/xquad: 1 file is not read: extra.json" in trained.stdout
    stage = tmp_path / "run/stages/01-skd_map"
    assert "not read: extra.json" in json.loads((stage / "data_report.json").read_text())["eval"]["notes"][0]
    cells = {"zh-Hant-zh-Hant", "zh-Hant-pt-BR", "pt-BR-zh-Hant", "pt-BR-pt-BR"}
    (results,) = json.loads((tmp_path / "run/results.json").read_text())["sets"].values()
    assert set(results["systems"]["skd_map"]["cells"]) == cells
    scored = toy_models.run_command("evaluate", f"--model={stage}/export", f"--data={data}?pairs=all", cache=cache)
    assert all(cell in scored.stdout for cell in cells), scored.stderr
    assert (
        "<b>pt-BR</b> Portuguese (Brazil), <b>zh-Hant</b> Chinese (Traditional)"
        in (tmp_path / "run/report.html").read_text()
    )
