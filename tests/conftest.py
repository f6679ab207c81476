# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Test environment and fixtures that all tests share."""

import atexit
import gc
import os
import pathlib
import secrets
import shutil
import subprocess
import sys
import tempfile

import bucket
import pytest
from jaxtyping import install_import_hook


def supported_xla_flags(flags: tuple[str, ...]) -> str:
    """Returns the flags that this XLA knows. Tries them in separate processes, because an unknown flag aborts."""

    def start_jax(xla_flags: str) -> bool:
        command = [sys.executable, "-c", "import jax; jax.devices()"]
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla_flags}
        return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0

    all_flags = " ".join(flags)
    return all_flags if start_jax(all_flags) else " ".join(flag for flag in flags if start_jax(flag))


gc.set_threshold(100_000)  # JAX's traces are many objects that stay: collecting at every 700 takes 7% of the time

os.environ.pop("PYTHON", None)  # `make PYTHON=…` exports it, and the scripts of launch/ would use it
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Toy models compile longer than they run; this takes a quarter of the time. Tests of optimized programs say so
# (toy_models.OPTIMIZED).
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit the flags from their controller
    os.environ["XLA_FLAGS"] = supported_xla_flags(
        ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")
    )
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # the workers and the runs that tests start inherit it
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="xlkd-compiled-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

# In the tests, arguments and results in these packages are checked against their annotations, array shapes included.
install_import_hook(["xlkd.losses", "xlkd.models", "xlkd.methods", "xlkd.metrics"], "annotations.check")

PROJECT = pathlib.Path(__file__).resolve().parents[1]
SHARED = PROJECT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """Returns the folder with real data and small real encoders beside the checkout; the repository lacks them."""
    if not SHARED.is_dir():
        pytest.skip("needs real data and models that are not part of the repository (none beside the checkout)")
    return SHARED


@pytest.fixture(scope="session")
def browser():
    """Returns a function that opens a page in a headless browser and returns what the browser prints."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not program:
        pytest.skip("no headless browser found (chromium, chromium-browser, google-chrome)")

    def open_page(path: pathlib.Path, *flags: str) -> str:
        quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files")
        command = [program, *quiet, f"--user-data-dir={path.parent / 'profile'}", *flags, path.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=path.parent).stdout

    return open_page


@pytest.fixture
def float64():
    """Enables float64, in which the golden numbers of losses were computed."""
    import jax

    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def bucket_proxy():
    """Starts the server of `gs://bucket`: one in each process of the tests, because its clients remember its address."""
    with bucket.serve_bucket() as proxy, bucket.use_bucket(proxy):
        yield proxy


@pytest.fixture
def proxy(bucket_proxy):
    """Returns the proxy before the bucket, which passes every request on until a test sets its `fault`."""
    bucket_proxy.fault = None
    bucket_proxy.log.clear()
    yield bucket_proxy
    bucket_proxy.fault = None


@pytest.fixture
def bucket_url(proxy) -> str:
    """Returns the URL of an empty folder in the bucket."""
    return f"gs://{bucket.BUCKET}/{secrets.token_hex(8)}"


@pytest.fixture(scope="session")
def shared_data(shared, tmp_path_factory) -> pathlib.Path:
    """Returns the folder with the real data sets, unpacked once."""
    target = tmp_path_factory.mktemp("shared_data")
    subprocess.run([str(shared / "data" / "unpack.sh"), str(target)], check=True, capture_output=True)
    return target
