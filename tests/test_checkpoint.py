# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What is kept, what is lost at a kill (nothing but the save under way), and onto what a state can be restored."""

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
from xlkd.train.checkpoint import Checkpoints, make_abstract


def state(step: int, width: int = 4, extra=()) -> State:
    params = {"kernel": jnp.full((8, width), float(step)), **dict(extra)}
    return State(jnp.int32(step), Variables(params), optax.scale_by_adam().init(params), (), jnp.ones((), bool))


def placed(tree):
    return make_abstract(tree, jax.tree.map(lambda x: x.sharding, tree))


def test_the_best_and_the_last_two_are_kept(tmp_path):
    best = {"step": None}
    checkpoints = Checkpoints(tmp_path, lambda: best["step"])
    for step in (5, 10, 15, 20, 25):
        best["step"] = 10 if step >= 10 else None
        checkpoints.save(step, state(step))
    checkpoints.close()
    again = Checkpoints(tmp_path, lambda: None)
    assert again.list_steps() == [10, 20, 25]
    again.close()


def test_a_former_best_goes_when_there_is_a_better_one(tmp_path):
    best = {"step": 5}
    checkpoints = Checkpoints(tmp_path, lambda: best["step"])
    for step in (5, 10, 15, 20):
        checkpoints.save(step, state(step), wait=True)
    assert checkpoints.list_steps() == [5, 15, 20]
    best["step"] = 20
    checkpoints.save(25, state(25), wait=True)
    assert checkpoints.list_steps() == [20, 25]
    checkpoints.close()


def test_a_clock_that_jumps_fails_no_save(tmp_path, monkeypatch):
    """The library reads its limits from it: with any of them in force a save ends in a TimeoutError."""
    real, jumps = time.time, itertools.cycle((-86400.0, 0.0, 3600.0, 3e7, -1.0))
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    checkpoints = Checkpoints(tmp_path, lambda: None)
    for step in (1, 2, 3, 4):
        checkpoints.save(step, state(step))
    checkpoints.close()
    again = Checkpoints(tmp_path, lambda: None)
    assert again.list_steps() == [3, 4]
    again.close()


def test_what_is_restored_is_what_was_saved(tmp_path):
    checkpoints = Checkpoints(tmp_path, lambda: None)
    checkpoints.save(7, state(7), wait=True)
    found = checkpoints.restore(7, placed(state(0)))
    checkpoints.close()
    assert jax.tree.structure(found) == jax.tree.structure(state(7))
    jax.tree.map(np.testing.assert_array_equal, found, state(7))


def test_a_state_that_is_overwritten_during_its_save_is_saved_as_it_was(tmp_path):
    """The loop donates the state to the next step right after the save was started."""
    checkpoints = Checkpoints(tmp_path, lambda: None)
    now = state(1, width=4096)
    step = jax.jit(lambda s: jax.tree.map(lambda x: x + jnp.ones_like(x), s._replace(ok=())), donate_argnums=0)
    checkpoints.save(1, now)
    step(now)  # in place, unless the save still holds the buffer
    checkpoints.close()
    again = Checkpoints(tmp_path, lambda: None)
    found = again.restore(1, placed(state(0, width=4096)))
    again.close()
    np.testing.assert_array_equal(found.variables.params["kernel"], 1.0)


def test_saves_one_upon_the_other_all_happen_and_closing_waits(tmp_path):
    checkpoints = Checkpoints(tmp_path, lambda: None)
    checkpoints.save(1, state(1, width=4096))
    checkpoints.save(2, state(2, width=4096))  # the former one still runs
    checkpoints.close()
    again = Checkpoints(tmp_path, lambda: None)
    assert again.list_steps() == [1, 2]
    np.testing.assert_array_equal(
        again.restore(2, placed(state(0, width=4096))).variables.params["kernel"], np.full((8, 4096), 2.0)
    )
    again.close()


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"width": 5}, r"params/kernel is \(8, 4\) there, \(8, 5\) here|mu/kernel is \(8, 4\) there, \(8, 5\) here"),
        ({"extra": {"bias": jnp.zeros(3)}}, r"bias is absent there, \(3,\) here"),
    ],
)
def test_another_model_is_refused_by_the_name_of_a_leaf(tmp_path, other, says):
    checkpoints = Checkpoints(tmp_path, lambda: None)
    checkpoints.save(1, state(1), wait=True)
    with pytest.raises(UserError, match=says):
        checkpoints.restore(1, placed(state(0, **other)))
    checkpoints.close()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Checkpoints of steps 1 and 2, and their values where they are more than one compressed number."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    checkpoints = Checkpoints(folder, lambda: None)
    for step in (1, 2):
        checkpoints.save(step, drawn(step), wait=True)
    checkpoints.close()
    return folder


def drawn(step: int) -> State:
    found = state(step, width=512)
    kernel = jax.random.normal(jax.random.key(step), (8, 512))
    return found._replace(variables=Variables({"kernel": kernel}))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    """One bit."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def garbage(path):
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def remove(path):
    path.unlink()


def reopened(saved, tmp_path, *damages):
    """What a stage goes on from where the files that match were damaged, what it says, and its open checkpoints."""
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    for damage, pattern in damages:
        (file,) = folder.glob(pattern)
        damage(file)
    checkpoints, said = Checkpoints(folder, lambda: None), []
    return checkpoints, checkpoints.restore_last(placed(drawn(0)), said.append), said


VALUES, TREE = "2/state/ocdbt.process_0/d/*", "2/state/_METADATA"


@pytest.mark.parametrize(
    ("damage", "file", "says"),
    [
        (cut, VALUES, r"\w+ has \d+ of \d+ bytes"),
        (flip, VALUES, r"\w+ does not match its checksum"),
        (remove, VALUES, r"\w+ is missing"),
        (garbage, TREE, "state/_METADATA does not match its checksum"),
        (remove, "2/state/manifest.ocdbt", "state/manifest.ocdbt is missing"),
        (cut, "2/sums.json", "sums.json is unreadable"),
    ],
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(saved, tmp_path, damage, file, says):
    checkpoints, found, said = reopened(saved, tmp_path, (damage, file))
    jax.tree.map(np.testing.assert_array_equal, found, drawn(1))
    assert re.fullmatch(
        rf"the checkpoint of step 2 is damaged \(.*{says}\): moved to {tmp_path}/damaged/2, resuming from step 1",
        said[0],
    )
    assert said[1:] == ["restored step 1"]
    assert checkpoints.list_steps() == [1]
    for step in (2, 3):  # it is in nobody's way
        checkpoints.save(step, drawn(step), wait=True)
    assert checkpoints.list_steps() == [2, 3]
    jax.tree.map(np.testing.assert_array_equal, checkpoints.restore_last(placed(drawn(0)), said.append), drawn(3))
    checkpoints.close()


@pytest.mark.parametrize(("damage", "file"), [(cut, VALUES), (garbage, TREE), (remove, TREE)])
def test_without_checksums_what_cannot_be_read_is_damaged_too(saved, tmp_path, damage, file):
    checkpoints, found, said = reopened(saved, tmp_path, (remove, "2/sums.json"), (damage, file))
    checkpoints.close()
    assert int(found.step) == 1
    assert "of step 2 is damaged (unreadable: " in said[0]


def test_where_no_checkpoint_is_left_the_stage_begins_again(saved, tmp_path):
    checkpoints, found, said = reopened(saved, tmp_path, (cut, VALUES), (flip, VALUES.replace("2", "1", 1)))
    assert found is None
    assert "resuming from step 1" in said[0]
    assert "of step 1 is damaged" in said[1]
    assert "resuming from the beginning of this stage" in said[1]
    assert checkpoints.list_steps() == []
    checkpoints.close()


def test_the_best_one_is_never_replaced_by_another(saved, tmp_path):
    folder = tmp_path / "stage" / "checkpoints"
    shutil.copytree(saved, folder)
    (file,) = folder.glob(VALUES)
    flip(file)
    checkpoints = Checkpoints(folder, lambda: None)
    with pytest.raises(
        UserError, match=rf"which is to be exported, is damaged .*delete {folder.parent} and start again"
    ):
        checkpoints.restore(2, placed(drawn(0)))
    checkpoints.close()


KILLED = """
import os, sys, pathlib
sys.path.insert(0, {tests!r})
from test_checkpoint import state
from xlkd.train.checkpoint import Checkpoints
checkpoints = Checkpoints(pathlib.Path({folder!r}), lambda: None)
checkpoints.save(1, state(1, width=65536), wait=True)
checkpoints.save(2, state(2, width=65536))
print("saving", flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_save_that_is_killed_leaves_the_former(tmp_path):
    """Killed right after the second save began: it is there whole, or as if it had never been."""
    code = KILLED.format(tests=os.path.dirname(__file__), folder=str(tmp_path))
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert killed.stdout == "saving\n"
    checkpoints = Checkpoints(tmp_path, lambda: None)
    last = checkpoints.list_steps()[-1]
    found = checkpoints.restore(last, placed(state(0, width=65536)))
    np.testing.assert_array_equal(found.variables.params["kernel"], float(last))
    checkpoints.save(last + 1, state(last + 1, width=65536), wait=True)  # what is left of it is in nobody's way
    assert checkpoints.list_steps()[-1] == last + 1
    checkpoints.close()
    assert not list(tmp_path.glob("*tmp*"))


RESHARDED = """
import sys, pathlib, jax, numpy as np
sys.path.insert(0, {tests!r})
from test_checkpoint import state
from xlkd.runtime import mesh
from xlkd.spec.stage import Mesh
from xlkd.train.checkpoint import Checkpoints, make_abstract
checkpoints = Checkpoints(pathlib.Path({folder!r}), lambda: None)
shapes = jax.eval_shape(lambda: state(0))
for sizes in ((8, 1, 1, 1), (1, 8, 1, 1)):
    devices = mesh.build_mesh(Mesh(**dict(zip(mesh.AXES, sizes))))
    found = checkpoints.restore(3, make_abstract(shapes, mesh.make_shardings(devices, shapes)))
    kernel = found.variables.params["kernel"]
    assert (np.asarray(kernel) == 3).all()
    print(kernel.addressable_shards[0].data.shape, len(kernel.addressable_shards))
checkpoints.close()
"""


def test_saved_on_one_device_restored_onto_eight(tmp_path):
    checkpoints = Checkpoints(tmp_path, lambda: None)
    checkpoints.save(3, state(3), wait=True)
    checkpoints.close()
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}
    code = RESHARDED.format(tests=os.path.dirname(__file__), folder=str(tmp_path))
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines() == ["(8, 4) 8", "(1, 4) 8"], "whole on each, then an eighth on each"
