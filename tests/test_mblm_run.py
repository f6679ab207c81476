# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs of MBLM: killed and resumed, on one device and on eight, with teachers from other folders."""

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

LABELS = ("contradiction", "entailment", "neutral")  # This is not the order of labels in the data.
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
    """Writes an encoder and a teacher that is built on it; returns their folder."""
    base = tmp_path_factory.mktemp("mblm")
    checkpoint = hf.load(toy_models.save_span_model(base))
    head = jax.tree.map(lambda x: 30 * x, init_head(ClassifierHead(checkpoint.architecture, 3), jax.random.key(3)))
    params = {"encoder": checkpoint.params["encoder"], "classifier": jax.device_get(head)}
    hf.save(base / "teacher", checkpoint.architecture, params, labels=LABELS, tokenizer=base / "model")
    return base


def start_run(folder, workdir, *flags, devices=1):
    environment = os.environ | {
        "XLKD_CACHE": str(folder / "cache"),
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_PLATFORMS": "cpu",
        "OMP_NUM_THREADS": "1",
    }
    teachers = [f"--config.mblm.teachers.{tag}={folder / 'teacher'}" for tag in ("en", "de")]
    arguments = [*FLAGS, *teachers, "--config.mblm.teachers.ru=", f"--config.encoder.path={folder / 'model'}"]
    command = [sys.executable, "-m", "xlkd.main", *arguments, f"--workdir={workdir}", *flags]
    return subprocess.Popen(
        command, env=environment, cwd=toy_models.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish_run(folder, workdir, *flags, **options):
    process = start_run(folder, workdir, *flags, **options)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    return output


def stage_folder(workdir):
    return workdir / "stages" / "01-mblm"


def read_metrics(workdir):
    try:
        return [json.loads(line) for line in (stage_folder(workdir) / "metrics.jsonl").read_text().splitlines()]
    except (OSError, json.JSONDecodeError):
        return []


def load_exported(workdir):
    return load_file(stage_folder(workdir) / "export" / "branches" / "branches.safetensors")


@pytest.fixture(scope="module")
def whole(folder):
    """Trains two epochs of 6 steps without an interruption; returns the work directory and the output."""
    return folder / "whole", finish_run(folder, folder / "whole")


def test_a_run_logs_its_teachers_and_exports_and_evaluates_every_route(whole):
    workdir, output = whole
    assert "of its tokens" in output
    assert output.count("teacher of ") == 2
    assert sorted(path.name for path in (stage_folder(workdir) / "export").iterdir()) == ["branches", "de", "en"]
    assert {"ce", "kd", "zero_shot"} <= set(read_metrics(workdir)[0])
    results = json.loads((workdir / "results.json").read_text())["stages"]["mblm"]
    cell = results["sets"]["eval"]["cells"]["atlas fr"]
    assert {"accuracy", "accuracy_via_en", "accuracy_via_de", "accuracy_via_mixture"} <= set(cell)
    assert cell["accuracy"] == cell["accuracy_via_mixture"]
    assert json.loads((stage_folder(workdir) / "export" / "de" / "config.json").read_text())["num_hidden_layers"] == 2


@pytest.mark.long
def test_a_killed_run_resumes_bit_identically(whole, folder):
    workdir = folder / "killed"
    process = start_run(folder, workdir)
    while len(read_metrics(workdir)) < 4 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the run must have died"
    output = finish_run(folder, workdir)
    assert "examples from the cache" in output
    assert read_metrics(workdir) == read_metrics(whole[0])
    for name, value in load_exported(whole[0]).items():
        np.testing.assert_array_equal(load_exported(workdir)[name], value, err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize("parts", [1, 4])
def test_eight_devices_draw_the_same_mixtures(whole, folder, parts):
    """Branches lie on one part of the mesh, or two are spread over four parts that are padded with copies."""
    flags = [f"--config.mesh.branch={parts}", "--config.data.eval="]  # Only steps are compared.
    finish_run(folder, folder / f"eight-{parts}", *flags, devices=8)
    for a, b in zip(read_metrics(whole[0]), read_metrics(folder / f"eight-{parts}"), strict=True):
        np.testing.assert_allclose(a["zero_shot"], b["zero_shot"], rtol=1e-5)
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-5)


def test_one_flag_names_a_teacher_for_all_stages_that_have_one():
    config = settings.apply_flags(configs.get_config(""), ["--config.mblm.teachers.de=other+teacher_de"])
    teachers = {name: settings.read_stage(config, name).teachers for name in config.stages}
    expected = {"en": "teacher_en", "de": "other+teacher_de", "ru": "teacher_ru"}
    assert {name: paths for name, paths in teachers.items() if paths} == dict.fromkeys(
        ("single_kd", "branches", "mblm"), expected
    )


def test_controls_differ_only_in_the_documented_settings():
    config = configs.get_config("")
    values = {name: dict(spec.flatten(spec.to_plain(settings.read_stage(config, name)))) for name in config.controls}
    for name, stage_values in values.items():
        full = values["mblm"]
        different = {key for key in stage_values.keys() | full.keys() if stage_values.get(key) != full.get(key)} - {
            "name"
        }
        allowed = {f"method.{key}" for key in ("branches", "weight_s", "weight_z", "weight_h")}
        assert {key for key in different if not key.startswith("teachers")} <= allowed, name
        assert any(key.startswith("teachers") for key in different) == (name == "single")
