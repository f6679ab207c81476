# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A file of sentence vectors as MMKD's teacher: its two forms, its faults, its targets, and a run that learns from it."""

import hashlib
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet
from stages import change, make_spec, read_stage, resolve
from toy_models import ROOT, run_command

from xlkd.data import sources
from xlkd.data.batches import PAD, PlannedBatch, Shape
from xlkd.data.vectors import VectorFile, hash_texts
from xlkd.errors import UserError
from xlkd.evaluation import reference
from xlkd.inputs import data as inputs
from xlkd.inputs import weights
from xlkd.runtime import mesh as meshes
from xlkd.spec.stage import Mesh, Teacher
from xlkd.spec.tasks import Views
from xlkd.train.targets.vectors import VectorTargets

TEXTS = [f"sentence {number}" for number in range(50)]
VECTORS = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
FORMS = ("npy", "parquet")


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path / "cache"))


def make_keys(texts):
    return [hashlib.sha256(text.encode()).hexdigest() for text in texts]


def write_npy(path, keys, vectors):
    rows = np.zeros(len(keys), [("key", "S64"), ("vector", vectors.dtype, vectors.shape[1:])])
    rows["key"], rows["vector"] = keys, vectors
    np.save(path, rows)


def write_parquet(path, keys, vectors):
    lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.ravel()), vectors.shape[1])
    parquet.write_table(
        pyarrow.table({"key": pyarrow.array(keys, pyarrow.string()), "vector": lists}), path, row_group_size=7
    )


WRITERS = {"npy": write_npy, "parquet": write_parquet}


def write(folder, form="npy", keys=None, vectors=VECTORS):
    WRITERS[form](folder / f"vectors.{form}", make_keys(TEXTS) if keys is None else keys, vectors)
    return folder / f"vectors.{form}"


# The file


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_vector_is_found_by_its_text_whatever_the_order_of_the_file(tmp_path, monkeypatch, form, dtype):
    monkeypatch.setattr("xlkd.data.vectors._CHUNK", 64)  # several parts
    order = np.random.default_rng(1).permutation(50)
    vectors = VECTORS.astype(dtype)
    file = VectorFile(write(tmp_path, form, [make_keys(TEXTS)[i] for i in order], vectors[order]))
    taken = file.take(hash_texts([TEXTS[7], TEXTS[3], TEXTS[7]]))
    assert taken.dtype == np.float32
    np.testing.assert_array_equal(taken, vectors[[7, 3, 7]].astype(np.float32))
    assert (file.width, file.take(hash_texts([])).shape) == (3, (0, 3))
    assert file.contains(hash_texts(["sentence 49", "sentence 50", "~", ""])).tolist() == [True, False, False, False]


@pytest.mark.parametrize("form", FORMS)
def test_vectors_stay_on_disk_and_a_file_is_checked_once(tmp_path, monkeypatch, form):
    path = write(tmp_path, form)
    assert isinstance(VectorFile(path)._rows, np.memmap)
    monkeypatch.setattr("xlkd.data.vectors._build_index", None)
    again = VectorFile(path)
    np.testing.assert_array_equal(again.take(hash_texts(TEXTS)), VECTORS)
    assert again.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_key_may_occur_twice_with_one_vector(tmp_path):
    path = write(tmp_path, keys=make_keys([*TEXTS, *TEXTS]), vectors=np.concatenate([VECTORS, VECTORS]))
    np.testing.assert_array_equal(VectorFile(path).take(hash_texts(TEXTS)), VECTORS)


def set_value(vectors, value):
    vectors = vectors.copy()
    vectors[41, 1] = value
    return vectors


FAULTS = {
    "NaN": ({"vectors": set_value(VECTORS, np.nan)}, "the vector of row 41 is not finite"),
    "infinity": ({"vectors": set_value(VECTORS.astype("float16"), np.inf)}, "the vector of row 41 is not finite"),
    "float64": ({"vectors": VECTORS.astype(float)}, "of type (float64|double), not float32 or float16"),
    "integers": ({"vectors": VECTORS.astype(int)}, "of type int64, not float32"),
    "no rows": ({"keys": [], "vectors": VECTORS[:0]}, "has no vectors"),
    "other keys": ({"keys": TEXTS}, "the key of row 0 is 'sentence 0', not a SHA-256"),
    "a short key": ({"keys": [*make_keys(TEXTS[:49]), "ab" * 31]}, "the key of row 49 is"),
    "another vector": (
        {"keys": make_keys([*TEXTS[:49], TEXTS[3]])},
        "rows 3 and 49 have the same key and different vectors",
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_rows_are_one_line(tmp_path, form, fault):
    changes, message = FAULTS[fault]
    with pytest.raises(UserError, match=message) as error:
        VectorFile(write(tmp_path, form, **changes))
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def save(array):
    return lambda path: np.save(path, array)


def save_table(**columns):
    return lambda path: parquet.write_table(pyarrow.table(columns), path)


def cut(form, share):
    def write_cut(path):
        WRITERS[form](path, make_keys(TEXTS), VECTORS)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return write_cut


def zero_middle(path):
    write_parquet(path, make_keys(TEXTS), VECTORS)
    content = bytearray(path.read_bytes())
    content[200:400] = bytes(200)
    path.write_bytes(content)


KEYS, LISTS = make_keys(TEXTS), VECTORS.tolist()
HALF = pyarrow.array([*LISTS[:49], None], pyarrow.list_(pyarrow.float32(), 3))
FORM_FAULTS = {
    "missing": ("a.npy", lambda path: None, "no such file"),
    "a folder": ("a.npy", lambda path: path.mkdir(), "no such file"),
    "another ending": ("a.pt", lambda path: path.write_bytes(b""), "neither .npy nor .parquet"),
    "empty": ("a.npy", lambda path: path.write_bytes(b""), "not a sound file of vectors"),
    "truncated": ("a.npy", cut("npy", 0.7), "not a sound file of vectors"),
    "truncated header": ("a.npy", cut("npy", 0.01), "not a sound file of vectors"),
    "vectors alone": ("a.npy", save(VECTORS), "no array with the fields key and vector"),
    "pickled": ("a.npy", save(np.array([object()])), "not a sound file of vectors"),
    "two dimensions": ("a.npy", save(np.zeros((2, 2), [("key", "S64"), ("vector", "f4", 3)])), "of 2 dimensions"),
    "text keys": ("a.npy", save(np.zeros(2, [("key", "U64"), ("vector", "f4", 3)])), "key is of type <U64, not S64"),
    "numbers": ("a.npy", save(np.zeros(2, [("key", "S64"), ("vector", "f4")])), r"the shape \(\), not \(width,\)"),
    "width 0": ("a.npy", save(np.zeros(2, [("key", "S64"), ("vector", "f4", (0,))])), "not \\(width,\\)"),
    "empty parquet": ("a.parquet", lambda path: path.write_bytes(b""), "not a sound file of vectors"),
    "truncated parquet": ("a.parquet", cut("parquet", 0.7), "not a sound file of vectors"),
    "damaged parquet": ("a.parquet", zero_middle, "the key of row 2 is"),
    "no keys": ("a.parquet", save_table(vector=LISTS), "no column key"),
    "binary keys": ("a.parquet", save_table(key=[b"a"], vector=LISTS[:1]), "key is of type binary, not string"),
    "ragged": ("a.parquet", save_table(key=KEYS, vector=LISTS), "not a fixed-size list"),
    "a null": ("a.parquet", save_table(key=KEYS, vector=HALF), "a null in rows 0 to 49"),
}


@pytest.mark.parametrize("fault", FORM_FAULTS)
def test_files_of_another_form_are_one_line(tmp_path, fault):
    name, make, message = FORM_FAULTS[fault]
    make(tmp_path / name)
    with pytest.raises(UserError, match=message) as error:
        VectorFile(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_script_of_the_page_writes_a_file_that_has_all_texts(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "own-teacher.md").read_text(encoding="utf-8")
    script = page.split('title="write_vectors.py"\n')[1].split("```")[0]

    class Model:
        def __init__(self, name):
            pass

        def encode(self, texts):
            return np.array([[len(text), text.count("e"), 1.5] for text in texts], np.float32)

    monkeypatch.setitem(sys.modules, "sentence_transformers", types.SimpleNamespace(SentenceTransformer=Model))
    monkeypatch.chdir(tmp_path)
    english, german = ["Anna wrote a letter.", "The  train stops here."], ["Anna schrieb ihn.", "Der Zug hält hier."]
    for language, lines in (("en", english), ("de", german)):
        pathlib.Path(f"corpus.{language}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    pathlib.Path("write_vectors.py").write_text(script, encoding="utf-8")
    runpy.run_path("write_vectors.py")
    rows = sources.read("moses:corpus?languages=en,de", "parallel")
    file = inputs.load_vectors(make_spec(teacher=Teacher(vectors="vectors.npy")), rows)
    np.testing.assert_array_equal(file.take(hash_texts([english[0]])), [[20, 3, 1.5]])


def test_texts_without_a_vector_are_counted_and_one_is_shown(tmp_path):
    rows = sources.read("atlas?split=train&size=4&languages=en,de,zh", "parallel")
    english = sorted({row.source for row in rows})
    path = write(tmp_path, keys=make_keys(english[1:]), vectors=VECTORS[: len(english) - 1])
    with pytest.raises(UserError) as error:
        inputs.load_vectors(make_spec(teacher=Teacher(vectors=str(path))), rows)
    lacking = sum(row.source == english[0] for row in rows)
    assert f"no vector for the English text of {lacking} of {len(rows)} examples, such as" in str(error.value)
    assert repr(english[0][:80]) in str(error.value)


# Targets


@pytest.mark.parametrize("local", [[0, 1, 2, 3], [2, 3]])
def test_each_process_looks_up_its_rows_and_padding_is_zero(tmp_path, monkeypatch, local):
    monkeypatch.setattr(meshes, "select_local_rows", lambda mesh, index: index[local])
    targets = VectorTargets(VectorFile(write(tmp_path)), meshes.build_mesh(Mesh()))
    planned = PlannedBatch(np.array([4, 2, 4, PAD]), Shape(4, ()))
    values = targets.for_batch(planned, {"english": hash_texts(TEXTS[10:20])})["vectors"]
    expected = np.stack([VECTORS[14], VECTORS[12], VECTORS[14], np.zeros(3)])
    np.testing.assert_array_equal(values, expected[local])


def test_targets_are_compiled_in_the_width_of_the_file(tmp_path):
    targets = VectorTargets(VectorFile(write(tmp_path)), meshes.build_mesh(Mesh()))
    (shape,) = (x.shape for x in jax.tree.leaves(targets.compile(Shape(4, ()), {}, None)))
    assert shape == (4, 3)


# Settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["method.word=1"], "set config.method.word=0"),
        (["teacher.path=package:english"], "two teachers"),
        (["method.teacher_dropout=true"], "vectors have no dropout"),
        (["method.sentence_layers=-1:-1,1:1"], "1:1 names a layer of the teacher"),
    ],
)
def test_settings_that_need_an_encoder_are_refused(changes, message):
    flags = ["teacher.vectors=a.npy", *changes]
    with pytest.raises(UserError, match=message):
        read_stage("configs/mmkd.py:vectors", "full", *flags)


def test_the_variant_needs_no_more_than_the_file():
    stage = read_stage("configs/mmkd.py:vectors", "full", "teacher.vectors=a.npy")
    assert (stage.teacher.path, stage.method.word, stage.method.token) == ("", 0.0, 1.0)
    with pytest.raises(UserError, match=r"no teacher; name an English encoder, or set config\.teacher\.vectors"):
        read_stage("configs/mmkd.py:vectors", "full", "teacher.vectors=", "method.sentence=1")


# Runs

DATA = "atlas?split=train&size=24&languages=en,de"


@pytest.fixture(scope="module")
def english(tmp_path_factory):
    """Writes the packaged English encoder's own vectors of the training texts; returns the folder, texts and vectors."""
    folder = tmp_path_factory.mktemp("english")
    rows = sources.read(DATA, "parallel")
    spec = change(resolve(read_stage("configs/mmkd.py:own", "full", "teacher.path=package:english")))
    teacher = weights.resolve_teacher(spec)
    encoder = weights.build_encoder(spec.encoder, teacher.architecture)
    spec = make_spec(task=Views(max_length=64))
    vectors = reference.compute_english_vectors(spec, "mean", encoder, teacher, rows, meshes.build_mesh(Mesh()))
    texts = [row.source if row.source_language == "en" else row.target for row in rows]
    write(folder, keys=make_keys(texts), vectors=vectors)
    wide = np.concatenate([vectors, vectors[:, :5]], 1)
    write(folder, "parquet", make_keys(texts), wide)
    return folder


FLAGS = [
    "--config=configs/mmkd.py:own",
    "--config.encoder.path=package:multilingual",
    f"--config.data.train={DATA}",
    "--config.data.batch=8",
    "--config.data.buckets=1",
    "--config.data.identities=false",
    "--config.method.word=0",
    "--config.method.token=0",
    "--config.method.teacher_pooling=mean",
    "--config.optim.lr=0.001",
    "--config.budget.epochs=2",
    "--config.eval.start=false",
    "--config.log.every=1",
    "--config.encoder.dropout=0",
]


def run(folder, workdir, *more, **options):
    return run_command("main", *FLAGS, f"--workdir={workdir}", *more, cache=folder / "cache", **options)


def name_file(path):
    return ["--config.teacher.path=", f"--config.teacher.vectors={path}"]


def read_losses(workdir):
    lines = (workdir / "stages" / "01-full" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.fixture(scope="module")
def whole(english):
    process = run(english, english / "whole", *name_file(english / "vectors.npy"))
    assert process.returncode == 0, process.stderr
    return english / "whole"


@pytest.mark.long
def test_vectors_of_an_encoder_give_the_losses_of_that_encoder_as_teacher(english, whole, tmp_path):
    process = run(english, tmp_path / "encoder", "--config.teacher.path=package:english")
    assert process.returncode == 0, process.stderr
    losses = read_losses(tmp_path / "encoder")
    assert len(set(losses)) == len(losses) > 4
    np.testing.assert_allclose(read_losses(whole), losses, rtol=2e-4)


@pytest.mark.long
def test_a_stage_does_not_resume_with_another_file_and_its_card_names_the_file(english, whole, tmp_path):
    vectors = np.load(english / "vectors.npy")
    vectors["vector"][0] += 1
    np.save(tmp_path / "vectors.npy", vectors)
    stage = whole / "stages" / "01-full"
    identity = json.loads((stage / "inputs.json").read_text())["inputs"]["config.teacher.vectors"]
    assert identity == {"sha256": hashlib.sha256((english / "vectors.npy").read_bytes()).hexdigest()}
    assert f"the vectors of `{english / 'vectors.npy'}`" in (stage / "export" / "README.md").read_text()
    (stage / "stage.json").unlink()
    (english / "vectors.npy").rename(tmp_path / "before.npy")
    (tmp_path / "vectors.npy").rename(english / "vectors.npy")
    try:
        process = run(english, whole, *name_file(english / "vectors.npy"))
    finally:
        (tmp_path / "before.npy").rename(english / "vectors.npy")
    assert process.returncode == 2, process.stderr
    assert "trained with other inputs than these: config.teacher.vectors" in process.stderr


@pytest.mark.long
def test_a_killed_run_over_blocks_resumes_bit_identically_with_vectors_of_another_width(english, tmp_path):
    flags = [
        *name_file(english / "vectors.parquet"),
        "--config.data.block=16",
        "--config.save.every=2",
        "--config.budget.epochs=12",
    ]
    uninterrupted = run(english, tmp_path / "uninterrupted", *flags, devices=2)
    assert uninterrupted.returncode == 0, uninterrupted.stderr
    command = [sys.executable, "-m", "xlkd.main", *FLAGS, *flags, f"--workdir={tmp_path / 'killed'}"]
    environment = os.environ | {
        "XLKD_CACHE": str(english / "cache"),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "2",
    }
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoints = tmp_path / "killed" / "stages" / "01-full" / "checkpoints"
    while process.poll() is None and not list(checkpoints.glob("[0-9]")):  # renamed so when it is complete
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the run must have died"
    resumed = run(english, tmp_path / "killed", *flags, devices=2)
    assert resumed.returncode == 0, resumed.stderr
    assert "restored step" in resumed.stdout + resumed.stderr
    models = [
        tmp_path / name / "stages" / "01-full" / "export" / "model.safetensors" for name in ("uninterrupted", "killed")
    ]
    a, b = (model.read_bytes() for model in models)
    assert a == b
    assert read_losses(tmp_path / "killed") == read_losses(tmp_path / "uninterrupted")


@pytest.mark.long
def test_a_plan_says_that_vectors_need_no_forward_pass(english):
    process = run_command("plan", *FLAGS, *name_file(english / "vectors.npy"), cache=english / "cache")
    assert process.returncode == 0, process.stderr
    assert "the vectors of config.teacher.vectors" in process.stdout
