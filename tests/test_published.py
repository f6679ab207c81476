# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The variants that follow the papers: what they compare, train on and are evaluated on; and runs of their stages."""

import json

import pytest
import toy_models

from xlkd import settings, spec
from xlkd.data import sources
from xlkd.errors import UserError
from xlkd.metrics import averages
from xlkd.spec.source import parse

PAPERS = ("gxlt.py:paper", "gxlt.py:paper_pod", "mmkd.py:paper", "mblm.py:paper", "mblm.py:xnli", "mblm.py:pawsx")


def read_stages(config: str, *flags: str) -> dict:
    values = settings.apply_flags(settings.read_config(f"configs/{config}"), [f"--config.{flag}" for flag in flags])
    return {stage.name: stage for stage in settings.read_stages(values)}


def list_values(stage) -> dict:
    return dict(spec.flatten(spec.to_plain(stage)))


def find_differences(a, b) -> set[str]:
    """Returns the keys in which two stages differ, but their names."""
    a, b = list_values(a), list_values(b)
    return {key for key in a.keys() | b.keys() if a.get(key) != b.get(key)} - {"name"}


@pytest.mark.parametrize("config", PAPERS)
def test_every_source_knows_its_options(config):
    for stage in read_stages(config).values():
        sources.check_options(stage)


@pytest.mark.parametrize("config", PAPERS[:2])
def test_gxlt_is_evaluated_on_all_cells_of_mlqa_and_on_the_languages_of_the_published_scripts(config):
    stages = read_stages(config)
    mlqa, xquad, tydiqa = parse(stages["skd"].data.eval)
    assert (mlqa.path, mlqa.option("split"), mlqa.languages()) == ("mlqa", "test", ())
    assert len(mlqa.pairs(averages.LANGUAGES["mlqa"])) == 49
    assert {*xquad.languages()} == {*averages.SET_AVERAGES["xquad"]["xquad_11"]}
    assert {*tydiqa.languages()} == {*averages.SET_AVERAGES["tydiqa"]["tydiqa_zs"]}
    assert {stage.data.eval for name, stage in stages.items() if name != "english"} == {stages["skd"].data.eval}


def test_cross_entropy_has_as_many_languages_as_self_distillation_and_also_as_many_as_published():
    config, stages = settings.read_config("configs/gxlt.py:paper"), read_stages("gxlt.py:paper")
    assert [stages[name].data.ntl for name in ("ce", "skd", "skd_map", "ce_ntl3")] == [5, 5, 5, 3]
    assert find_differences(stages["ce_ntl3"], stages["ce"]) == {"data.ntl"}
    assert find_differences(stages["ce"], stages["skd"]) == {"method.alpha_kl"}
    pairs = {"skd:ce", "skd_map:ce", "skd:ce_ntl3", "skd_map:ce_ntl3"}
    assert pairs <= {*config.report.compare}


def test_a_change_of_cross_entropy_changes_its_first_epoch_too():
    flags = ("ce.data.ntl=2", "ce.method.mask_positions=padding")
    stages = read_stages("gxlt.py:paper", *flags)
    assert find_differences(stages["ce_early"], stages["ce"]) == {"budget.stop_after"}
    assert (stages["ce_early"].data.ntl, stages["skd"].data.ntl) == (2, 5)


def test_translate_train_runs_only_where_it_is_named():
    data = "squad:de.json?languages=de+squad:es.json?languages=es"
    assert "mt" not in read_stages("gxlt.py:paper", f"mt.data.train={data}")
    stages = read_stages("gxlt.py:paper", "stages=english,ce,mt", f"mt.data.train={data}")
    assert find_differences(stages["mt"], stages["ce"]) == {"data.train", "data.ntl"}
    assert (stages["mt"].start, stages["mt"].data.ntl) == ("english", -1)
    with pytest.raises(UserError, match=r"config\.data\.train of stage mt: is empty"):
        settings.check_start(read_stages("gxlt.py:paper", "stages=english,mt")["mt"], ["english"])


def test_a_control_that_the_stages_lack_is_refused_with_the_flag_that_names_it():
    with pytest.raises(UserError, match=r"add it, for example --config\.stages=english,mt"):
        read_stages("gxlt.py:paper", "method.control=mt")
    assert [*read_stages("gxlt.py:paper", "method.control=mt", "stages=english,mt")] == ["english", "mt"]


def test_each_alignment_of_mmkd_is_fine_tuned_on_three_tasks_in_the_same_way():
    config, stages = settings.read_config("configs/mmkd.py:paper"), read_stages("mmkd.py:paper")
    tasks, controls = ("xnli", "pawsx", "qa"), ("before", "token", "full")
    assert [*stages] == [stage for name in controls for stage in (name, *(f"{task}_{name}" for task in tasks))]
    assert find_differences(stages["token"], stages["full"]) == {
        f"method.{k}" for k in ("word", "sentence", "structure")
    }
    for task in tasks:
        for name in controls:
            stage = stages[f"{task}_{name}"]
            assert (stage.start, stage.method.name) == (name, "finetune")
            assert find_differences(stage, stages[f"{task}_full"]) <= {"start"}
        assert {f"{task}_full:{task}_before", f"{task}_full:{task}_token"} <= {*config.report.compare}
    languages = {task: parse(stages[f"{task}_full"].data.eval)[0].languages() for task in tasks}
    assert [len(languages[task]) for task in tasks] == [8, 5, 6], "those of the published means"
    aligned = {tag for source in parse(stages["full"].data.train) for tag in source.languages()}
    assert all({*tags} <= aligned for tags in languages.values())


def test_the_fine_tuning_of_one_control_can_be_changed_alone():
    stages = read_stages("mmkd.py:paper", "qa_full.optim.lr=1e-5", "method.control=full")
    assert [*stages] == ["full", "xnli_full", "pawsx_full", "qa_full"]
    assert stages["qa_full"].optim.lr == 1e-5
    assert read_stages("mmkd.py:paper", "qa_full.optim.lr=1e-5")["qa_token"].optim.lr == 3e-5


@pytest.mark.parametrize("config", PAPERS[3:])
def test_each_language_of_mblm_has_a_teacher_from_the_hub_and_data_of_its_own(config):
    stages = read_stages(config)
    student = stages["mblm"]
    assert {*student.teachers} == {*student.task.languages}
    for tag, name in student.teachers.items():
        teacher = stages[name]
        assert settings.is_model_name(teacher.encoder.path)
        assert teacher.encoder.path != student.encoder.path
        (train,), (test,) = parse(teacher.data.train), parse(teacher.data.eval)
        assert train.languages() == test.languages() == (tag,)
        assert (train.name, train.path) == (parse(student.data.train)[0].name, parse(student.data.train)[0].path)
    assert parse(student.data.eval)[0].languages() == (), "the other languages are zero-shot"


SMALL = ["data.batch=8", "data.buckets=1", "data.pad_to=96", "budget.steps=2", "eval.batch=8", "task.max_length=96"]


def run_toy(folder, config, *flags):
    """Runs a config on toy models; returns the results that its report is made of."""
    command = [f"--config=configs/{config}", *(f"--config.{flag}" for flag in flags), f"--workdir={folder / 'run'}"]
    done = toy_models.run_command("main", *command, cache=folder / "cache")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "run" / "results.json").read_text())


@pytest.mark.long
def test_several_tasks_follow_one_alignment(tmp_path):
    student, teacher = (toy_models.save_span_model(tmp_path / name) for name in ("student", "teacher"))
    data = {
        "xnli": ("atlas?split=train&languages=en&size=24&facts=1", "atlas?split=test&languages=en,de&size=6&facts=1"),
        "qa": ("atlas?split=train&languages=en&size=16&facts=2", "atlas?split=test&languages=en,de&size=4&facts=2"),
    }
    flags = ["stages=before,qa_before,full,xnli_full,qa_full", f"encoder.path={student}", f"teacher.path={teacher}"]
    flags += ["data.train=atlas?split=train&languages=en,de&size=24", "method.bn_group=4", "method.structure_group=4"]
    flags += ["xnli_full.eval.every=1", "xnli_full.data.dev=atlas?split=validation&languages=en&size=6&facts=1"]
    for stage in ("qa_before", "xnli_full", "qa_full"):
        train, test = data[stage.partition("_")[0]]
        flags += [f"{stage}.data.train={train}", f"{stage}.data.eval={test}", *(f"{stage}.{flag}" for flag in SMALL)]
    results = run_toy(tmp_path, "mmkd.py:paper", *SMALL, *flags)
    done = {name: stage["task"] for name, stage in results["stages"].items()}
    assert done == {"before": "views", "qa_before": "qa", "full": "views", "xnli_full": "classify", "qa_full": "qa"}
    compared = [(pair["a"], pair["b"]) for data in results["sets"].values() for pair in data["comparisons"].values()]
    assert compared == [("qa_full", "qa_before")]
    assert not [note for note in results["notes"] if "not a pair of stages" in note]
    assert list(results["stages"]["xnli_full"]["seen"]["selection"]) == ["en"]


def write_squad(file, language, ids) -> str:
    """Writes questions in a language in the layout of SQuAD, and returns the source that reads them."""
    rows = [row for row in sources.read(f"atlas?split=train&languages={language}&size=8&facts=2", "qa")]
    articles = [
        {
            "title": str(ids + i),
            "paragraphs": [
                {
                    "context": row.context,
                    "qas": [
                        {
                            "id": str(ids + i),
                            "question": row.question,
                            "answers": [{"text": answer.text, "answer_start": answer.start} for answer in row.answers],
                        }
                    ],
                }
            ],
        }
        for i, row in enumerate(rows)
    ]
    file.write_text(json.dumps({"version": "1.1", "data": articles}, ensure_ascii=False), encoding="utf-8")
    return f"squad:{file}?languages={language}"


@pytest.mark.long
def test_translate_train_reads_a_file_for_each_language(tmp_path):
    model = toy_models.save_span_model(tmp_path, toy_models.RECORD)
    translated = "+".join(write_squad(tmp_path / f"{tag}.json", tag, 100 * i) for i, tag in enumerate(("de", "es")))
    flags = [f"start={model}", "stages=zs,skd,mt", f"mt.data.train={translated}", "optim.micro_batches=1"]
    flags += ["data.train=atlas?split=train&size=8&languages=en,de&facts=2"]
    flags += ["data.eval=atlas?split=test&size=4&languages=en,de,es&facts=2&pairs=all"]
    results = run_toy(tmp_path, "gxlt.py:paper", *SMALL, *flags)
    mt = results["stages"]["mt"]
    assert sorted(mt["seen"]["training"]) == ["de", "es"]
    assert mt["rows"] == 16, "each question once, in its own language"
    (data,) = results["sets"].values()
    assert {"mt:zs", "skd:mt"} <= {f"{pair['a']}:{pair['b']}" for pair in data["comparisons"].values()}
