# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Uses other libraries in ways that they may change: private names, names of files, imports with side effects.

All such uses are in this module, imported on first use. `tests/test_compat.py` fails when one of them has moved, and
says what to do.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tensorboardX.event_file_writer import EventsWriter
    from transformers import PreTrainedTokenizerFast


# A panic of a Rust library, as it is written to standard error, by one thread at a time
_PANIC = re.compile(rb"\n?thread '[^\n]*panicked at .*?(note: [^\n]*RUST_BACKTRACE[^\n]*\n|\Z)", re.DOTALL)
_PANICS = threading.RLock()
ORBAX_DRAFT = "{step}.orbax-checkpoint-tmp"  # a checkpoint that is being written
ORBAX_METADATA = "_CHECKPOINT_METADATA"  # a file in every checkpoint
ORBAX_COMMITTED = "commit_success.txt"  # in a bucket, the last object of a checkpoint that is written
ORBAX_OBJECT = re.compile(rf"state/.+|{ORBAX_METADATA}|{ORBAX_COMMITTED}|orbax\.checkpoint")  # the names of all objects
# Files of jax's compilation cache, named by function and hash; on GPUs XLA adds a folder of its own
_XLA_FOLDER = r"xla_gpu_per_fusion_autotune_cache_dir/(tmp/)?"
JAX_CACHE_FILE = re.compile(rf"[^/]+-[0-9a-f]{{64}}-(cache|atime)|\.lockfile|{_XLA_FOLDER}([^/]+\.textproto)?")


_NO_BACKEND = re.compile("Unable to initialize backend|Unknown backend")
_BAD_VARIABLE = re.compile("for JAX flag|for environment 'JAX")
_NO_MEMORY = re.compile("RESOURCE_EXHAUSTED|[Oo]ut of memory")


class EventFiles(NamedTuple):
    """The parts of tensorboardX that write event files without a thread."""

    writer: type[EventsWriter]  # takes the prefix of the file's path
    events: Any  # the module of the protocol buffer Event, which has no types
    scalar: Callable[[str, float], object]  # (name, value) -> Summary


class ClusterPlace(NamedTuple):
    """The place of this process in a cluster; None where the cluster does not say."""

    coordinator: str | None
    processes: int | None
    process: int | None


def find_environment_fault(error: BaseException) -> str:
    """Describes an error of jax that its environment causes: a variable, a missing device, too little memory."""
    line = next(iter(str(error).splitlines()), "")[:200]
    if isinstance(error, ValueError) and _BAD_VARIABLE.search(str(error)):
        return f"an environment variable of jax has an impossible value: {line}"
    if isinstance(error, RuntimeError) and _NO_BACKEND.search(str(error)):
        return f"jax has no device: {line}"
    if isinstance(error, AssertionError) and "xla_bridge" in traceback.extract_tb(error.__traceback__)[-1].filename:
        return f"jax has no device: JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')}"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error))):
        return f"not enough memory: {line}"
    return ""


def get_coordination_state() -> Any:  # jax gives it no public type
    """Returns jax's record of the processes of this run; None where jax was not imported yet.

    The public functions give the same values only after they have started the devices. The client's key-value store and
    barriers, which wait longer than collectives do, have no public name.
    """
    module = sys.modules.get("jax._src.distributed")
    return module.global_state if module else None


def detect_cluster(kind: str, timeout_seconds: int) -> ClusterPlace:
    """Asks jax's cluster detection (`slurm`, `gketpu`, `gcetpu`) for the place of this process."""
    from jax._src.clusters import ClusterEnv

    place = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, kind, timeout_seconds)
    return ClusterPlace(*place[:3])


def replace_compilation_cache(cache: Any) -> None:
    """Lets jax use an object with `get` and `put` as its compilation cache, to which every process writes."""
    from jax._src import compilation_cache, compiler

    compilation_cache._cache = cache
    compilation_cache._cache_initialized = True
    compiler._cache_write = _write_program


def _write_program(
    cache_key: str,
    compile_time_secs: float,
    module_name: str,
    backend: Any,
    executable: Any,
    host_callbacks: Any = None,  # not passed by jax 0.12 and later
) -> None:
    """Writes a compiled program to jax's compilation cache, as jax itself does on process 0 alone."""
    from jax._src import compilation_cache, config

    if host_callbacks or compile_time_secs < config.persistent_cache_min_compile_time_secs.value:
        return
    try:
        compilation_cache.put_executable_and_time(cache_key, module_name, executable, backend, int(compile_time_secs))
    except Exception as error:  # jax too does without what cannot be written
        warnings.warn(f"the compiled program {module_name} was not cached: {error}", stacklevel=2)


def import_event_files() -> EventFiles:
    """Imports the parts of tensorboardX below its SummaryWriter, whose thread can wait for ever on a full disk."""
    with _without_torch():
        from tensorboardX import summary
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

    return EventFiles(EventsWriter, event_pb2, summary.scalar)


def import_tokenizer_class() -> type[PreTrainedTokenizerFast]:
    """Imports transformers without the advice to install PyTorch that it prints where PyTorch is missing.

    Later warnings are silenced: they concern its own models (sequences longer than the tokenizer's config says).
    """
    variable = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
    value = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        from transformers import PreTrainedTokenizerFast
    finally:
        if value is None:
            del os.environ[variable]
        else:
            os.environ[variable] = value
    logging.getLogger("transformers").setLevel(logging.ERROR)
    return PreTrainedTokenizerFast


@contextlib.contextmanager
def catch_panics() -> Generator[None, None, None]:
    """Raises a ValueError for any error of the tokenizers library, and for its panics, whose dumps are not printed.

    A panic is not an Exception, and Rust writes its dump to the descriptor of standard error.
    """
    with _PANICS, _hold_stderr():
        try:
            yield
        except (KeyboardInterrupt, SystemExit, MemoryError, GeneratorExit):
            raise
        except BaseException as error:
            raise ValueError(" ".join(str(error).split())[:500]) from error


@contextlib.contextmanager
def _hold_stderr() -> Generator[None, None, None]:
    """Holds back what is written to the descriptor 2, and writes it at the end without the dumps of panics."""
    try:
        memory, stderr = os.memfd_create("stderr"), os.dup(2)
    except (AttributeError, OSError):  # not Linux, or standard error is closed
        yield
        return
    os.dup2(memory, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        with contextlib.suppress(OSError), open(memory, "rb") as file:
            file.seek(0)
            os.write(stderr, _PANIC.sub(b"", file.read()))
        os.close(stderr)


@contextlib.contextmanager
def _without_torch() -> Generator[None, None, None]:
    """Hides PyTorch from libraries that would import it without using it, which takes two seconds."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # pyrefly: ignore (None makes an import fail)
    try:
        yield
    finally:
        if hidden:
            del sys.modules["torch"]
