# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in a bucket: which remain, how damage is noticed, and what kills and faults of the bucket leave."""

import os
import random
import re
import subprocess
import sys
import time

import bucket
import jax
import numpy as np
import pytest
import toy_models
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec
from test_checkpoint import draw_state, make_state, make_target
from test_distributed import find_free_port

from xlkd import storage
from xlkd.compat import ORBAX_COMMITTED, ORBAX_OBJECT
from xlkd.errors import Stopped, UserError
from xlkd.runtime.saved_steps import list_saved_steps
from xlkd.train.checkpoint import Checkpoints
from xlkd.train.checkpoint_bucket import _split_replicas


def save_steps(url, *steps, best=None):
    checkpoints = Checkpoints(url, lambda: best)
    for step in steps:
        checkpoints.save(step, draw_state(step))
    checkpoints.close()


def restore_last(url):
    """Returns the open checkpoints, the restored state and the messages."""
    checkpoints, messages = Checkpoints(url, lambda: None), []
    return checkpoints, checkpoints.restore_last(make_target(draw_state(0)), messages.append), messages


def assert_same(state, expected):
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, state, expected)


def test_the_best_and_the_last_two_checkpoints_remain_in_a_bucket(bucket_url):
    url = f"{bucket_url}/stages/01-a/checkpoints"
    assert list_saved_steps(url) == []
    save_steps(url, 5, 10, 15, 20, best=5)
    names = storage.RemoteFolder(url).list_objects()
    assert {name.partition("/")[0] for name in names} == {"5", "15", "20"}, "nothing of the others is left"
    unknown = {name for name in names if not ORBAX_OBJECT.fullmatch(name.partition("/")[2])}
    assert unknown == {"5/sums.json", "15/sums.json", "20/sums.json"}, "what a kill leaves is recognized by these names"
    assert all(f"{step}/{ORBAX_COMMITTED}" in names for step in (5, 15, 20))
    checkpoints, restored, messages = restore_last(url)
    assert messages == ["restored step 20"]
    assert_same(restored, draw_state(20))
    assert checkpoints.list_steps() == list_saved_steps(url) == [5, 15, 20]
    with pytest.raises(UserError, match=r"kernel is \(8, 512\) there, \(8, 4\) here"):
        checkpoints.restore(15, make_target(make_state(0)))
    checkpoints.close()


@pytest.fixture(scope="module")
def saved(bucket_proxy):
    """Saves checkpoints of steps 1 and 2 in the folder `saved` of the bucket."""
    bucket_proxy.fault = None
    save_steps(f"gs://{bucket.BUCKET}/saved/checkpoints", 1, 2)


@pytest.fixture
def url(saved, bucket_url):
    """Returns the URL of a copy of these checkpoints."""
    everything = storage.RemoteFolder(f"gs://{bucket.BUCKET}")
    for name in everything.list_objects("saved/"):
        everything.copy(name, name.replace("saved", bucket_url.rpartition("/")[2], 1))
    return f"{bucket_url}/checkpoints"


def test_a_damaged_checkpoint_in_a_bucket_is_moved_and_the_one_before_is_restored(url):
    folder, stage = storage.RemoteFolder(url), storage.RemoteFolder(url.rpartition("/")[0])
    folder.delete(["2/state/manifest.ocdbt"])
    objects = folder.list_objects("2/")
    checkpoints, restored, messages = restore_last(url)
    assert_same(restored, draw_state(1))
    what = "the checkpoint of step 2 is damaged (state/manifest.ocdbt is missing)"
    assert messages == [f"{what}: moved to {stage.url}/damaged/2, resuming from step 1", "restored step 1"]
    assert len(stage.list_objects("damaged/2/")) == len(objects)
    assert checkpoints.list_steps() == [1]
    checkpoints.save(2, draw_state(2), wait=True)  # the damaged one is not in the way
    assert checkpoints.list_steps() == [1, 2]
    folder.delete(["2/commit_success.txt"])
    assert checkpoints._store.set_aside(2) == f"{stage.url}/damaged/2-2"
    checkpoints.close()


def test_every_damage_of_a_checkpoint_in_a_bucket_is_noticed(url):
    damages = [
        ("2/state/ocdbt.process_0/d/", lambda content: content[:-1], r"state/\S+ has \d+ of \d+ bytes"),
        (
            "2/state/ocdbt.process_0/d/",
            lambda content: b"other" + content[5:],
            r"state/\S+ does not match its checksum",
        ),
        ("2/state/_METADATA", None, "state/_METADATA is missing"),
        ("2/commit_success.txt", None, "commit_success.txt is missing"),
        ("2/sums.json", None, "sums.json is missing"),
        ("2/sums.json", lambda content: content[:-9], "sums.json is unreadable"),
        ("2/sums.json", lambda content: b"{}", "sums.json is unreadable"),
        ("2/sums.json", lambda content: b"[]", "sums.json is unreadable"),
    ]
    folder, checkpoints = storage.RemoteFolder(url), Checkpoints(url, lambda: None)
    for name, damage, says in damages:
        assert checkpoints._store.describe_damage(2) == ""
        (path,) = folder.list_objects(name)
        content = folder.read(path)[0]
        if damage is None:
            folder.delete([path])
        else:
            folder.write(path, damage(content))
        assert checkpoints.list_steps() == [1, 2], "until it is restored"
        assert re.fullmatch(says, checkpoints._store.describe_damage(2))
        folder.write(path, content)
    checkpoints.close()


def test_the_best_checkpoint_in_a_bucket_is_never_replaced_by_another(url):
    storage.RemoteFolder(url).delete(["2/state/_METADATA"])
    checkpoints = Checkpoints(url, lambda: None)
    with pytest.raises(UserError, match=rf"is damaged .*delete {url.rpartition('/')[0]} and start again"):
        checkpoints.restore(2, make_target(draw_state(0)))
    assert checkpoints.restore_if_sound(2, make_target(draw_state(0))) is None
    checkpoints.close()


def test_what_a_killed_upload_leaves_is_deleted_and_what_no_run_wrote_is_not(url):
    """The names of the first two checkpoints are those that a kill leaves at some moment."""
    folder = storage.RemoteFolder(url)
    foreign = ["7/photo.jpg", "8/state/a", "8/notes.txt", "9/x", "007/state/a", "notes/state/a"]
    for name in ["5/state/ocdbt.process_1/d/0", "6/state/_METADATA", "6/_CHECKPOINT_METADATA", *foreign]:
        folder.write(name, b"x")
    checkpoints = Checkpoints(url, lambda: None)
    assert checkpoints.list_steps() == [1, 2]
    assert {name for name in folder.list_objects() if not name.startswith(("1/", "2/"))} == set(foreign)
    folder.write("3/state/d/0", b"x")  # of a request that was under way when the process was killed
    for step in (3, 8):
        checkpoints.save(step, draw_state(step), wait=True)
    assert checkpoints.list_steps() == [3, 8]
    assert "3/state/d/0" not in folder.list_objects()
    checkpoints.close()
    damaged = storage.RemoteFolder(url.rpartition("/")[0]).list_objects("damaged/")
    assert list(damaged) == ["damaged/8/notes.txt", "damaged/8/state/a"]
    assert_same(restore_last(url)[1], draw_state(8))


def test_a_refusal_while_saving_or_restoring_is_one_line(url, proxy):
    checkpoints = Checkpoints(url, lambda: None)
    for part in ("_METADATA", "%2Fd%2F", "sums.json"):  # sent by gcsfs, by TensorStore, and by us
        proxy.fault = lambda method, path, part=part: 403 if part in path else None
        with pytest.raises(UserError, match="access refused"):
            checkpoints.save(3, draw_state(3), wait=True)
        with pytest.raises(UserError, match="access refused"):
            checkpoints.restore_last(make_target(draw_state(0)), print)
    checkpoints.save(4, draw_state(4))
    with pytest.raises(UserError, match="access refused"):  # it happened in the background
        checkpoints.save(5, draw_state(5))
    proxy.fault = None
    assert checkpoints.list_steps()[:2] == [1, 2]
    checkpoints.close()


def test_the_work_directory_is_checked_before_a_checkpoint_counts_as_saved(url):
    checks = []

    def check():
        checks.append(list_saved_steps(url))
        if len(checks) == 3:  # when the checkpoints are opened, before the save, and before it is complete
            raise Stopped("another run took over")

    checkpoints = Checkpoints(url, lambda: None, check)
    with pytest.raises(Stopped, match="took over"):
        checkpoints.save(3, draw_state(3), wait=True)
    assert checks[2] == [1, 2, 3], "Orbax has committed it"
    checkpoints.close()
    assert restore_last(url)[2][-1] == "restored step 2"


@pytest.mark.parametrize(
    ("shape", "spec", "part", "why"),
    [
        ((16, 3), (None, None), (2, 3), "the replicas are along the first axis that their number divides"),
        ((5, 32), (None, None), (5, 4), "the first axis is not divisible"),
        ((8, 3), ("fsdp", None), (1, 3), "the axis is cut already, by one axis of the mesh"),
        ((8, 2), ("data", "fsdp"), (2, 1), "nothing is replicated"),
        ((5, 3), (None, None), (5, 3), "no axis is divisible, so that each device reads everything"),
        ((), (), (), "a number"),
    ],
)
def test_each_process_reads_its_own_part_of_a_replicated_array(shape, spec, part, why):
    mesh = AbstractMesh((4, 2), ("data", "fsdp"))
    leaf = jax.ShapeDtypeStruct(shape, np.float32, sharding=NamedSharding(mesh, PartitionSpec(*spec)))
    assert _split_replicas(leaf).sharding.shard_shape(shape) == part, why


HOST = """
import sys, time, jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from xlkd.runtime import distributed, mesh
from xlkd.spec.stage import Mesh
from xlkd.train.checkpoint import Checkpoints, make_abstract
url, coordinator, processes, process, last, pause = sys.argv[1:]
with distributed.join_run({"coordinator": coordinator, "processes": processes, "process": process}):
    devices = mesh.build_mesh(Mesh())
    specs = {"replicated": PartitionSpec(), "moments": PartitionSpec("data"), "zero": PartitionSpec(), "ok": PartitionSpec()}
    shardings = {name: NamedSharding(devices, spec) for name, spec in specs.items()}
    shapes = {"replicated": (512, 1024), "moments": (512, 512), "zero": (16, 3), "ok": ()}

    def create(step):
        values = {name: jax.random.normal(jax.random.key(step), shape) for name, shape in shapes.items()}
        return values | {"zero": -0.0 * values["zero"], "ok": values["ok"] < 9}

    make = jax.jit(create, out_shardings=shardings)
    checkpoints, log = Checkpoints(url, lambda: 2), []
    state = checkpoints.restore_last(make_abstract(jax.eval_shape(create, 0), shardings), log.append)
    print(log, flush=True)
    first = int(log[-1].split()[-1]) if state else 0

    def check(state, step):
        for name, value in make(step).items():
            for mine, expected in zip(state[name].addressable_shards, value.addressable_shards, strict=True):
                assert state[name].dtype == value.dtype
                assert np.asarray(mine.data).tobytes() == np.asarray(expected.data).tobytes(), name

    if state:
        check(state, first)
    for step in range(first + 1, int(last) + 1):
        checkpoints.save(step, make(step))
        print("saving", step, flush=True)
        time.sleep(float(pause))
    checkpoints.close()
    steps = checkpoints.list_steps()
    print(steps, flush=True)
"""


class Hosts:
    """Processes of one run, each with a home of its own and two devices, that share nothing but a bucket."""

    def __init__(self, tmp_path, processes, url, last, pause=0.0, devices=2):
        coordinator = f"127.0.0.1:{find_free_port()}"
        self.outputs = [tmp_path / f"output-{number}" for number in range(processes)]
        self.processes = []
        for number, output in enumerate(self.outputs):
            home = tmp_path / f"home-{number}"
            (home / "work").mkdir(parents=True, exist_ok=True)
            environment = os.environ | {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
            environment |= {"JAX_NUM_CPU_DEVICES": str(devices), "PYTHONPATH": str(toy_models.ROOT)}
            command = [sys.executable, "-c", HOST, url, coordinator, str(processes), str(number), str(last), str(pause)]
            with output.open("w") as file:
                process = subprocess.Popen(command, env=environment, cwd=home / "work", stdout=file, stderr=file)
            self.processes.append(process)

    def wait_for(self, text):
        while text not in self.outputs[0].read_text():
            assert all(process.poll() is None for process in self.processes), self.read()
            time.sleep(0.01)

    def kill(self, numbers):
        """Kills some with signal 9, and ends the others, which would notice that within twenty seconds."""
        for number in numbers:
            self.processes[number].kill()
        time.sleep(0.3)
        for process in self.processes:
            process.kill()
            process.wait()

    def wait(self):
        assert [process.wait(timeout=300) for process in self.processes] == [0] * len(self.processes), self.read()
        return [output.read_text() for output in self.outputs]

    def read(self):
        return "\n".join(output.read_text() for output in self.outputs)


@pytest.mark.long
@pytest.mark.parametrize("processes", [2, 4])
def test_hosts_that_share_only_a_bucket_are_killed_and_restore_every_bit(proxy, bucket_url, tmp_path, processes):
    url, draw = f"{bucket_url}/checkpoints", random.Random(processes)
    for last in range(4, 28, 4):
        hosts = Hosts(tmp_path, processes, url, 1000)
        hosts.wait_for(f"saving {last}\n")
        time.sleep(draw.uniform(0, 0.5))
        hosts.kill(draw.choice([[0], [processes - 1], range(processes)]))
    *_, final = Hosts(tmp_path, processes, url, 40).wait()
    assert "damaged" not in final, "a kill leaves a complete checkpoint or an incomplete one"
    assert final.splitlines()[-1] == "[2, 39, 40]"
    names = storage.RemoteFolder(url).list_objects()
    assert {name.partition("/")[0] for name in names} == {"2", "39", "40"}
    before = proxy.bytes_sent
    size = sum(names[name].size for name in names if name.startswith("40/"))
    assert all("restored step 40" in output for output in Hosts(tmp_path, processes, url, 40).wait())
    assert proxy.bytes_sent - before < 1.2 * size + processes * 100_000, "each part is read by one process"
    assert "restored step 40" in Hosts(tmp_path, 1, url, 40, devices=processes).wait()[0], "on another number of hosts"


@pytest.mark.long
def test_a_bucket_that_is_unavailable_for_ten_seconds_delays_saving_and_restoring(proxy, bucket_url, tmp_path):
    url = f"{bucket_url}/checkpoints"
    hosts = Hosts(tmp_path, 2, url, 8, pause=0.5)
    for step in (2, 5):
        hosts.wait_for(f"saving {step}\n")
        proxy.fail_for(10)
    assert hosts.wait()[0].splitlines()[-1] == "[2, 7, 8]"
    hosts = Hosts(tmp_path, 2, url, 9)
    proxy.log.clear()
    while not any("sums.json" in path for _, path in proxy.log):
        time.sleep(0.01)
    proxy.fail_for(10)
    assert all("restored step 8" in output for output in hosts.wait())
