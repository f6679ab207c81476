# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Private parts of other libraries are where xlkd/compat.py expects them; each test says what to fix if not."""

import inspect
import os
import re
import subprocess
import sys

import conftest
import pytest

from xlkd import compat

PRIVATE = re.compile(r"jax\._src|orbax\.checkpoint\.experimental|(from|import) tensorboardX")


def run_python(program: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


def test_only_compat_uses_private_parts():
    package = conftest.PROJECT / "xlkd"
    users = [path.name for path in package.rglob("*.py") if PRIVATE.search(path.read_text(encoding="utf-8"))]
    assert users == ["compat.py"], "move what these import into xlkd/compat.py, or use a public name"


def test_jax_has_its_private_record_of_processes():
    """The store and the barrier of its client are used in tests/test_distributed.py."""
    import jax

    state = compat.get_coordination_state()
    advice = f"jax {jax.__version__} has moved jax._src.distributed.global_state: fix compat.get_coordination_state"
    assert state is not None, advice
    assert {"client", "num_processes", "process_id"} <= set(dir(state)), advice


def test_the_record_of_processes_is_empty_before_jax_is_imported():
    program = "import sys; from xlkd import compat; print(compat.get_coordination_state(), 'jax' in sys.modules)"
    assert run_python(program).stdout == "None False\n"


def test_jax_detects_clusters_with_the_arguments_that_compat_passes(monkeypatch):
    from jax._src.clusters import ClusterEnv

    names = list(inspect.signature(ClusterEnv.auto_detect_unset_distributed_params).parameters)
    expected = [
        "coordinator_address",
        "num_processes",
        "process_id",
        "local_device_ids",
        "cluster_detection_method",
        "initialization_timeout",
    ]
    assert names == expected, "jax's cluster detection has changed its arguments: fix compat.detect_cluster"
    slurm = {"JOB_ID": "7", "STEP_NODELIST": "node[1-2]", "NTASKS": "2", "PROCID": "1", "LOCALID": "0"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    place = compat.detect_cluster("slurm", 1)
    assert (place.processes, place.process) == (2, 1)
    assert place.coordinator.startswith("node1:")


def test_tensorboardx_writes_events_without_a_thread(tmp_path):
    import threading

    advice = "tensorboardX has moved its EventsWriter, event_pb2 or summary.scalar: fix compat.import_event_files"
    try:
        files = compat.import_event_files()
    except ImportError as error:
        pytest.fail(f"{advice} ({error})")
    before = threading.active_count()
    writer = files.writer(str(tmp_path / "events"))
    writer.write_event(files.events.Event(step=1, wall_time=0.0, summary=files.scalar("loss", 0.5)))
    writer.flush()
    assert threading.active_count() == before, advice
    writer.close()
    assert b"loss" in next(tmp_path.iterdir()).read_bytes()


def test_tensorboardx_and_transformers_neither_import_nor_mention_pytorch():
    program = (
        "import sys; from xlkd import compat\n"
        "compat.import_event_files(); print('torch' in sys.modules)\n"
        "sys.modules['torch'] = None  # as if it were not installed\n"
        "print(compat.import_tokenizer_class().__module__.partition('.')[0])\n"
    )
    done = run_python(program)
    assert done.stdout == "False\ntransformers\n"
    assert done.stderr == "", "transformers has other advice to give: silence it in compat.import_tokenizer_class"


def test_orbax_has_the_expected_file_names(tmp_path):
    import jax.numpy as jnp

    from xlkd.runtime.saved_steps import SUMS
    from xlkd.train.checkpoint import Checkpoints

    checkpoints = Checkpoints(tmp_path, lambda: None)
    checkpoints.save(1, {"x": jnp.ones(2)}, wait=True)
    checkpoints.close()
    assert (tmp_path / "1" / SUMS).exists(), "orbax has renamed its drafts: fix compat.ORBAX_DRAFT"
    advice = "orbax has renamed the metadata of a checkpoint: fix compat.ORBAX_METADATA"
    assert (tmp_path / "1" / compat.ORBAX_METADATA).exists(), advice


def test_the_compilation_cache_of_jax_has_the_expected_file_names(tmp_path):
    program = (
        "import jax, jax.numpy as jnp\n"
        f"jax.config.update('jax_compilation_cache_dir', {str(tmp_path)!r})\n"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)\n"
        "jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((8, 8)))\n"
    )
    done = run_python(program, JAX_PLATFORMS="cpu")
    names = [path.name for path in tmp_path.iterdir()]
    assert names, done.stderr
    unknown = [name for name in names if not compat.JAX_CACHE_FILE.fullmatch(name)]
    assert not unknown, "jax has renamed the files of its cache, which is then not pruned: fix compat.JAX_CACHE_FILE"


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (RuntimeError("Unable to initialize backend 'x': no such\nmore"), "jax has no device"),
        (ValueError('Invalid value "x" for JAX flag jax_num_cpu_devices'), "an environment variable of jax"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), "not enough memory: RESOURCE_EXHAUSTED"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("anything else"), ""),
        (ValueError("anything else"), ""),
    ],
)
def test_what_the_environment_causes_is_told_from_bugs(error, fault):
    description = compat.find_environment_fault(error)
    assert description.startswith(fault)
    assert "\n" not in description
    assert bool(description) == bool(fault)
