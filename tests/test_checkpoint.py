# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: which remain, that a kill loses only the save in progress, and restoring onto other devices."""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from xlkd.errors import UserError
from xlkd.methods import State, Variables
from xlkd.runtime.saved_steps import SUMS
from xlkd.train import checkpoint_folder
from xlkd.train.checkpoint import Checkpoints, make_abstract


def make_state(step: int, width: int = 4, extra=()) -> State:
    params = {"kernel": jnp.full((8, width), float(step)), **dict(extra)}
    return State(jnp.int32(step), Variables(params), optax.scale_by_adam().init(params), (), jnp.ones((), bool))


def make_target(tree):
    return make_abstract(tree, jax.tree.map(lambda x: x.sharding, tree))


def test_the_best_and_the_last_two_checkpoints_remain(tmp_path):
    best = {"step": None}
    checkpoints = Checkpoints(tmp_path, lambda: best["step"])
    for step in (5, 10, 15, 20, 25):
        best["step"] = 10 if step >= 10 else None
        checkpoints.save(step, make_state(step))
    checkpoints.close()
    again = Checkpoints(tmp_path, lambda: None)
    assert again.list_steps() == [10, 20, 25]
    again.close()


def test_a_former_best_checkpoint_is_deleted_when_there_is_a_better_one(tmp_path):
    best = {"step": 5}
    checkpoints = Checkpoints(tmp_path, lambda: best["step"])
    for step in (5, 10, 15, 20):
        checkpoints.save(step, make_state(step), wait=True)
    assert checkpoints.list_steps() == [5, 15, 20]
    best["step"] = 20
    checkpoints.save(25, make_state(25), wait=True)
    assert checkpoints.list_steps() == [20, 25]
    checkpoints.close()


def test_saving_survives_a_clock_that_jumps(tmp_path, monkeypatch):
    """The library measures its time limits with this clock; any limit in force would end in a TimeoutError."""
    real, jumps = time.time, itertools.cycle((-86400.0, 0.0, 3600.0, 3e7, -1.0))
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    checkpoints = Checkpoints(tmp_path, lambda: None)
    for step in (1, 2, 3, 4):
        checkpoints.save(step, make_state(step))
    checkpoints.close()
    again = Checkpoints(tmp_path, lambda: None)
    assert again.list_steps() == [3, 4]
    again.close()


def test_a_restored_state_equals_the_saved_one(tmp_path):
    checkpoints = Checkpoints(tmp_path, lambda: None)
    checkpoints.save(7, make_state(7), wait=True)
    restored = checkpoints.restore(7, make_target(make_state(0)))
    checkpoints.close()
    assert jax.tree.structure(restored) == jax.tree.structure(make_state(7))
    jax.tree.map(np.testing.assert_array_equal, restored, make_state(7))


def test_a_state_that_is_donated_during_its_save_is_saved_unchanged(tmp_path):
    """The loop donates the state to the next step right after it has started the save."""
    checkpoints = Checkpoints(tmp_path, lambda: None)
    saved_state = make_state(1, width=4096)
    step = jax.jit(lambda s: jax.tree.map(lambda x: x + jnp.ones_like(x), s._replace(ok=())), donate_argnums=0)
    checkpoints.save(1, saved_state)
    step(saved_state)  # updates in place, unless the save still uses the buffer
    checkpoints.close()
    again = Checkpoints(tmp_path, lambda: None)
    restored = again.restore(1, make_target(make_state(0, width=4096)))
    again.close()
    np.testing.assert_array_equal(restored.variables.params["kernel"], 1.0)


def test_overlapping_saves_all_complete_and_closing_waits_for_them(tmp_path):
    checkpoints = Checkpoints(tmp_path, lambda: None)
    checkpoints.save(1, make_state(1, width=4096))
    checkpoints.save(2, make_state(2, width=4096))  # the first save is still running
    checkpoints.close()
    again = Checkpoints(tmp_path, lambda: None)
    assert again.list_steps() == [1, 2]
    np.testing.assert_array_equal(
        again.restore(2, make_target(make_state(0, width=4096))).variables.params["kernel"], np.full((8, 4096), 2.0)
    )
    again.close()


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"width": 5}, r"params/kernel is \(8, 4\) there, \(8, 5\) here|mu/kernel is \(8, 4\) there, \(8, 5\) here"),
        ({"extra": {"bias": jnp.zeros(3)}}, r"bias is absent there, \(3,\) here"),
    ],
)
def test_a_state_of_another_model_is_refused_with_the_name_of_a_leaf(tmp_path, other, says):
    checkpoints = Checkpoints(tmp_path, lambda: None)
    checkpoints.save(1, make_state(1), wait=True)
    with pytest.raises(UserError, match=says):
        checkpoints.restore(1, make_target(make_state(0, **other)))
    checkpoints.close()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Saves checkpoints of steps 1 and 2, with values that do not compress to one number."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    checkpoints = Checkpoints(folder, lambda: None)
    for step in (1, 2):
        checkpoints.save(step, draw_state(step), wait=True)
    checkpoints.close()
    return folder


def draw_state(step: int) -> State:
    constant = make_state(step, width=512)
    kernel = jax.random.normal(jax.random.key(step), (8, 512))
    return constant._replace(variables=Variables({"kernel": kernel}))


def cut_file(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_bit(path):
    """Flips one bit of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def overwrite(path):
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def remove_file(path):
    path.unlink()


def restore_damaged(saved, tmp_path, *damages):
    """Damages files of a checkpoint; returns the open checkpoints, the restored state and the messages."""
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    for damage, pattern in damages:
        (file,) = folder.glob(pattern)
        damage(file)
    checkpoints, messages = Checkpoints(folder, lambda: None), []
    return checkpoints, checkpoints.restore_last(make_target(draw_state(0)), messages.append), messages


VALUES, TREE = "2/state/ocdbt.process_0/d/*", "2/state/_METADATA"


@pytest.mark.parametrize(
    ("damage", "file", "says"),
    [
        (cut_file, VALUES, r"\w+ has \d+ of \d+ bytes"),
        (flip_bit, VALUES, r"\w+ does not match its checksum"),
        (remove_file, VALUES, r"\w+ is missing"),
        (overwrite, TREE, "state/_METADATA does not match its checksum"),
        (remove_file, "2/state/manifest.ocdbt", "state/manifest.ocdbt is missing"),
        (cut_file, "2/sums.json", "sums.json is unreadable"),
        (remove_file, "2/sums.json", "sums.json is missing"),
        (lambda path: path.write_text("{}"), "2/sums.json", "sums.json names no file"),
    ],
)
def test_a_damaged_checkpoint_is_moved_away_and_the_one_before_is_restored(saved, tmp_path, damage, file, says):
    checkpoints, restored, messages = restore_damaged(saved, tmp_path, (damage, file))
    jax.tree.map(np.testing.assert_array_equal, restored, draw_state(1))
    assert re.fullmatch(
        rf"the checkpoint of step 2 is damaged \(.*{says}\): moved to {tmp_path}/damaged/2, resuming from step 1",
        messages[0],
    )
    assert messages[1:] == ["restored step 1"]
    assert checkpoints.list_steps() == [1]
    for step in (2, 3):  # the damaged one is not in the way
        checkpoints.save(step, draw_state(step), wait=True)
    assert checkpoints.list_steps() == [2, 3]
    jax.tree.map(
        np.testing.assert_array_equal,
        checkpoints.restore_last(make_target(draw_state(0)), messages.append),
        draw_state(3),
    )
    checkpoints.close()


def test_a_checkpoint_has_checksums_even_if_orbax_renames_its_drafts(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_folder, "ORBAX_DRAFT", "{step}.another-name")
    checkpoints = Checkpoints(tmp_path, lambda: None)
    checkpoints.save(1, make_state(1), wait=True)
    assert (tmp_path / "1" / SUMS).exists()
    checkpoints.save(2, make_state(2))
    checkpoints.save(3, make_state(3))
    assert (tmp_path / "2" / SUMS).exists()
    checkpoints.close()
    assert (tmp_path / "3" / SUMS).exists()


def test_without_a_usable_checkpoint_the_stage_starts_again(saved, tmp_path):
    checkpoints, restored, messages = restore_damaged(
        saved, tmp_path, (cut_file, VALUES), (flip_bit, VALUES.replace("2", "1", 1))
    )
    assert restored is None
    assert "resuming from step 1" in messages[0]
    assert "of step 1 is damaged" in messages[1]
    assert "resuming from the beginning of this stage" in messages[1]
    assert checkpoints.list_steps() == []
    checkpoints.close()


def test_the_best_checkpoint_is_never_replaced_by_another(saved, tmp_path):
    folder = tmp_path / "stage" / "checkpoints"
    shutil.copytree(saved, folder)
    (file,) = folder.glob(VALUES)
    flip_bit(file)
    checkpoints = Checkpoints(folder, lambda: None)
    with pytest.raises(
        UserError, match=rf"which is to be exported, is damaged .*delete {folder.parent} and start again"
    ):
        checkpoints.restore(2, make_target(draw_state(0)))
    checkpoints.close()


KILLED = """
import os, sys, pathlib
sys.path.insert(0, {tests!r})
from test_checkpoint import make_state
from xlkd.train.checkpoint import Checkpoints
checkpoints = Checkpoints(pathlib.Path({folder!r}), lambda: None)
checkpoints.save(1, make_state(1, width=65536), wait=True)
checkpoints.save(2, make_state(2, width=65536))
print("saving", flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_killed_save_leaves_the_former_checkpoint(tmp_path):
    """The process is killed right after its second save started, which is then complete or absent."""
    code = KILLED.format(tests=os.path.dirname(__file__), folder=str(tmp_path))
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert killed.stdout == "saving\n"
    checkpoints = Checkpoints(tmp_path, lambda: None)
    last = checkpoints.list_steps()[-1]
    restored = checkpoints.restore(last, make_target(make_state(0, width=65536)))
    np.testing.assert_array_equal(restored.variables.params["kernel"], float(last))
    checkpoints.save(last + 1, make_state(last + 1, width=65536), wait=True)  # its remains are not in the way
    assert checkpoints.list_steps()[-1] == last + 1
    checkpoints.close()
    assert not list(tmp_path.glob("*tmp*"))


RESHARDED = """
import sys, pathlib, jax, numpy as np
sys.path.insert(0, {tests!r})
from test_checkpoint import make_state
from xlkd.runtime import mesh
from xlkd.spec.stage import Mesh
from xlkd.train.checkpoint import Checkpoints, make_abstract
from xlkd.train.state import shard_state
checkpoints = Checkpoints(pathlib.Path({folder!r}), lambda: None)
shapes = jax.eval_shape(lambda: make_state(0))
for sizes in (dict(), dict(fsdp=8), dict(fsdp=8, fsdp_shards="moments")):
    settings = Mesh(**sizes)
    devices = mesh.build_mesh(settings)
    state = checkpoints.restore(3, make_abstract(shapes, shard_state(devices, shapes, settings)))
    kernel = state.variables.params["kernel"]
    moments = jax.tree.leaves(state.optimizer)[-1]
    assert (np.asarray(kernel) == 3).all()
    print(kernel.addressable_shards[0].data.shape, moments.addressable_shards[0].data.shape, len(kernel.addressable_shards))
checkpoints.close()
"""


def test_a_checkpoint_of_one_device_is_restored_onto_eight(tmp_path):
    checkpoints = Checkpoints(tmp_path, lambda: None)
    checkpoints.save(3, make_state(3), wait=True)
    checkpoints.close()
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}
    code = RESHARDED.format(tests=os.path.dirname(__file__), folder=str(tmp_path))
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    expected = ["(8, 4) (8, 4) 8", "(1, 4) (1, 4) 8", "(8, 4) (1, 4) 8"]
    assert process.stdout.splitlines() == expected, "replicated, an eighth on each, and an eighth of the moments alone"
