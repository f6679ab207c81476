# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Compiled programs: jax asks for them and writes them, machines share them in a bucket, and a failure is one warning."""

import logging
import os
import subprocess
import sys

import jax
import pytest
import toy_models
from test_distributed import find_free_port

from xlkd import compat, storage
from xlkd.data import cache, remote_cache
from xlkd.data.remote_cache import RemoteCache
from xlkd.runtime.programs import ProgramCache

KEY = f"jit_step-{'0' * 64}"


@pytest.fixture
def make_cache(bucket_url, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_cache, "PATIENCE", 0.3)
    return lambda machine: ProgramCache(tmp_path / machine, RemoteCache(bucket_url))


def end(programs):
    """Ends a process, which waits for its uploads."""
    programs._thread.shutdown()


def test_a_program_that_one_machine_has_compiled_is_read_by_another(make_cache, proxy, tmp_path):
    first = make_cache("first")
    assert first.get(KEY) is None
    first.put(KEY, b"old")
    first.put(KEY, b"program")  # the old one could not be read
    end(first)
    second = make_cache("second")
    assert second.get(KEY) == b"program"
    proxy.log.clear()
    assert second.get(KEY) == b"program"
    assert second.get(KEY.replace("step", "other")) is None
    assert not proxy.log, "neither what is here nor what is nowhere is asked for"
    assert all(compat.JAX_CACHE_FILE.fullmatch(path.name) for path in (tmp_path / "second").iterdir())


@pytest.mark.parametrize("status", [403, 503])
def test_a_bucket_that_fails_costs_one_warning(make_cache, proxy, bucket_url, status, caplog):
    storage.RemoteFolder(bucket_url).write(f"{cache.COMPILED}/{KEY}-cache", b"program")
    programs = make_cache("first")
    proxy.fault = lambda method, path: status
    with caplog.at_level(logging.WARNING):
        assert programs.get(KEY) is None
        assert make_cache("second").get(KEY) is None
        for name in ("a", "b"):
            programs.put(name, b"x")
        assert programs.get(KEY) is None
        assert programs.get("a") == b"x"
        end(programs)
    per_process = 1 if status == 503 else 2  # what refuses to be read may accept to be written
    assert len(caplog.messages) == 1 + per_process


def test_a_full_disk_costs_a_warning(make_cache, tmp_path, caplog):
    (tmp_path / "first").write_text("no folder")
    make_cache("first").put(KEY, b"program")
    assert "compiled again next time" in caplog.text


def test_jax_asks_for_a_program_and_writes_it_in_every_process(monkeypatch):
    from jax._src import compilation_cache, compiler, distributed

    programs = {}

    class Programs:
        get = staticmethod(programs.get)
        put = staticmethod(programs.__setitem__)

    for module, name in ((compilation_cache, "_cache"), (compilation_cache, "_cache_initialized")):
        monkeypatch.setattr(module, name, getattr(module, name))
    monkeypatch.setattr(compiler, "_cache_write", compiler._cache_write)
    jax.devices()  # which would be those of process 1 from here on
    monkeypatch.setattr(distributed.global_state, "process_id", 1)
    compat.replace_compilation_cache(Programs)
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    try:
        jax.jit(lambda x: x * 3 + 1).lower(1.0).compile()
        assert len(programs) == 1, "jax has moved its compilation cache: fix compat.replace_compilation_cache"
        (content,) = programs.values()
        jax.jit(lambda x: x * 3 + 1).lower(1.0).compile()
        assert list(programs.values()) == [content], "it is read, not written again"
    finally:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", before)


COMPILES = """
import sys, jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from xlkd.runtime import devices, distributed, mesh
from xlkd.spec.stage import Mesh
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if name.endswith("/cache_hits") else None)
coordinator, processes, process = sys.argv[1:]
with distributed.join_run({"coordinator": coordinator, "processes": processes, "process": process}):
    devices.prepare_devices()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    rows = NamedSharding(mesh.build_mesh(Mesh()), PartitionSpec("data"))
    jax.jit(lambda x: (x @ x.T).sum(), in_shardings=rows).lower(jnp.ones((8, 4))).compile()
    print("hits", len(hits))
"""


@pytest.mark.long
@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("where", ["on their disks", "in a bucket"])
def test_all_processes_find_their_programs_at_a_restart(tmp_path, bucket_url, processes, where):
    """In the bucket, the machines that restart are new ones, with homes at other paths."""
    outputs = []
    for start in ("first", "second"):
        coordinator, started = f"127.0.0.1:{find_free_port()}", []
        for number in range(processes):
            home = tmp_path / (f"{number}" if where == "on their disks" else f"{start}-{number}")
            environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION")}
            environment |= {"XDG_CACHE_HOME": str(home), "XLKD_CACHE": "" if where == "on their disks" else bucket_url}
            environment |= {"JAX_NUM_CPU_DEVICES": "2", "PYTHONPATH": str(toy_models.ROOT)}
            home.mkdir(exist_ok=True)
            command = [sys.executable, "-c", COMPILES, coordinator, str(processes), str(number)]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            started.append(subprocess.Popen(command, env=environment, text=True, **pipes))
        outputs.append([process.communicate(timeout=300)[0] for process in started])
    hits = [[int(output.split("hits")[-1]) for output in start] for start in outputs]
    assert not any(hits[0])
    assert all(hits[1]), outputs
