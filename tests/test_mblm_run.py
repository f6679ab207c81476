# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A student with branches in real runs: killed, on one device and on eight, with teachers from elsewhere."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import toy_models
from safetensors.numpy import load_file
from xlkd.configs import mblm as configs

from xlkd import settings, spec
from xlkd.models import hf
from xlkd.models.heads import ClassifierHead, init_head

LABELS = ("contradiction", "entailment", "neutral")  # not the order of the rows
FLAGS = [
    "--config=configs/mblm.py",
    "--config.method.control=mblm",
    "--config.stages=mblm",
    "--config.task.languages=en,de",
    "--config.task.max_length=96",
    "--config.data.train=atlas?split=train&size=24&languages=en,de&facts=1",
    "--config.data.eval=atlas?split=test&size=8&languages=en,de,fr&facts=1",
    "--config.method.weights=dirichlet",
    "--config.method.own=true",
    "--config.encoder.dropout=0.1",
    "--config.encoder.layers_as=scanned",
    "--config.data.batch=8",
    "--config.data.buckets=1",
    "--config.budget.epochs=2",
    "--config.save.every=3",
    "--config.log.every=1",
    "--config.optim.lr=1e-3",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An encoder, and a teacher upon it."""
    made = tmp_path_factory.mktemp("mblm")
    found = hf.load(toy_models.save_span_model(made))
    head = jax.tree.map(lambda x: 30 * x, init_head(ClassifierHead(found.architecture, 3), jax.random.key(3)))
    params = {"encoder": found.params["encoder"], "classifier": jax.device_get(head)}
    hf.save(made / "teacher", found.architecture, params, labels=LABELS, tokenizer=made / "model")
    return made


def start(folder, workdir, *flags, devices=1):
    environment = os.environ | {
        "XLKD_CACHE": str(folder / "cache"),
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_PLATFORMS": "cpu",
        "OMP_NUM_THREADS": "1",
    }
    teachers = [f"--config.mblm.teachers.{tag}={folder / 'teacher'}" for tag in ("en", "de")]
    given = [*FLAGS, *teachers, "--config.mblm.teachers.ru=", f"--config.encoder.path={folder / 'model'}"]
    command = [sys.executable, "-m", "xlkd.main", *given, f"--workdir={workdir}", *flags]
    return subprocess.Popen(
        command, env=environment, cwd=toy_models.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(folder, workdir, *flags, **options):
    process = start(folder, workdir, *flags, **options)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    return output


def stage(workdir):
    return workdir / "stages" / "01-mblm"


def lines(workdir):
    try:
        return [json.loads(line) for line in (stage(workdir) / "metrics.jsonl").read_text().splitlines()]
    except (OSError, json.JSONDecodeError):
        return []


def exported(workdir):
    return load_file(stage(workdir) / "export" / "branches" / "branches.safetensors")


@pytest.fixture(scope="module")
def whole(folder):
    """Two epochs of 6 steps, without a break; the other stage is a control that was not asked for."""
    return folder / "whole", finish(folder, folder / "whole")


def test_a_run_says_what_teachers_know_and_leaves_every_route(whole):
    workdir, output = whole
    assert "of its tokens" in output
    assert output.count("teacher of ") == 2
    assert sorted(path.name for path in (stage(workdir) / "export").iterdir()) == ["branches", "de", "en"]
    assert {"ce", "kd", "zero_shot"} <= set(lines(workdir)[0])
    results = json.loads((workdir / "results.json").read_text())["stages"]["mblm"]
    cell = results["sets"]["eval"]["cells"]["atlas fr"]
    assert {"accuracy", "accuracy_via_en", "accuracy_via_de", "accuracy_via_mixture"} <= set(cell)
    assert cell["accuracy"] == cell["accuracy_via_mixture"]
    assert json.loads((stage(workdir) / "export" / "de" / "config.json").read_text())["num_hidden_layers"] == 2


@pytest.mark.long
def test_killed_and_started_again_ends_with_the_same_bits(whole, folder):
    workdir = folder / "killed"
    process = start(folder, workdir)
    while len(lines(workdir)) < 4 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the run must have died"
    output = finish(folder, workdir)
    assert "examples from the cache" in output
    assert lines(workdir) == lines(whole[0])
    for name, value in exported(whole[0]).items():
        np.testing.assert_array_equal(exported(workdir)[name], value, err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize("parts", [1, 4])
def test_eight_devices_draw_the_same_mixtures(whole, folder, parts):
    """Branches on one part of the mesh, or two spread over four, which are filled up with copies."""
    flags = [f"--config.mesh.branch={parts}", "--config.data.eval="]  # what is compared are steps
    finish(folder, folder / f"eight-{parts}", *flags, devices=8)
    for a, b in zip(lines(whole[0]), lines(folder / f"eight-{parts}"), strict=True):
        np.testing.assert_allclose(a["zero_shot"], b["zero_shot"], rtol=1e-5)
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-5)


def test_one_flag_names_a_teacher_for_all_stages_that_have_one():
    config = settings.apply_flags(configs.get_config(""), ["--config.mblm.teachers.de=other+teacher_de"])
    found = {name: settings.read_stage(config, name).teachers for name in config.stages}
    taught = {"en": "teacher_en", "de": "other+teacher_de", "ru": "teacher_ru"}
    assert {name: of for name, of in found.items() if of} == dict.fromkeys(("single_kd", "branches", "mblm"), taught)


def test_controls_differ_in_what_the_table_says_alone():
    config = configs.get_config("")
    values = {name: dict(spec.flatten(spec.to_plain(settings.read_stage(config, name)))) for name in config.controls}
    for name, of in values.items():
        full = values["mblm"]
        different = {key for key in of.keys() | full.keys() if of.get(key) != full.get(key)} - {"name"}
        allowed = {f"method.{key}" for key in ("branches", "weight_s", "weight_z", "weight_h")}
        assert {key for key in different if not key.startswith("teachers")} <= allowed, name
        assert any(key.startswith("teachers") for key in different) == (name == "single")
