# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What all tests share."""

import atexit
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest
from jaxtyping import install_import_hook


def supported_xla_flags(flags: tuple[str, ...]) -> str:
    """Returns those of the flags that this XLA knows, asked in processes of their own: an unknown one aborts."""

    def start_jax(given: str) -> bool:
        command = [sys.executable, "-c", "import jax; jax.devices()"]
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": given}
        return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0

    every = " ".join(flags)
    return every if start_jax(every) else " ".join(flag for flag in flags if start_jax(flag))


os.environ.pop("PYTHON", None)  # `make PYTHON=…` hands it on, and the scripts of launch/ would take it
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Toys compile longer than they run: so a quarter as long. What needs a user's programs says so (toy_models.OPTIMIZED)
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit what their controller found
    os.environ["XLA_FLAGS"] = supported_xla_flags(
        ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")
    )
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # the workers and the runs that tests start inherit it
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="xlkd-compiled-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

# The tests check the arguments and results of these against their annotations, with the shapes of arrays
install_import_hook(["xlkd.losses", "xlkd.models", "xlkd.methods", "xlkd.metrics"], "annotations.check")

PROJECT = pathlib.Path(__file__).resolve().parents[1]
SHARED = PROJECT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """Real data and small real encoders beside the checkout; they do not travel with the repository."""
    if not SHARED.is_dir():
        pytest.skip("needs real data and models that do not travel with the repository (none beside the checkout)")
    return SHARED


@pytest.fixture
def float64():
    """Golden numbers of losses were computed so."""
    import jax

    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def shared_data(shared, tmp_path_factory) -> pathlib.Path:
    """The real data sets, unpacked once."""
    target = tmp_path_factory.mktemp("shared_data")
    subprocess.run([str(shared / "data" / "unpack.sh"), str(target)], check=True, capture_output=True)
    return target
