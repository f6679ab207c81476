# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Parts of other libraries that they do not promise to keep: private names, names of files, imports with side effects.

Everything of that kind stands here and nowhere else, imported on first use. `tests/test_compat.py` fails when one of
them has moved, and says what to do.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


ORBAX_DRAFT = "{step}.orbax-checkpoint-tmp"  # the checkpoint of a step, until it is whole and gets its name
ORBAX_METADATA = "_CHECKPOINT_METADATA"  # stands in every checkpoint
# Files of jax's compilation cache: a program's function and a hash; on GPUs XLA keeps a folder of its own in there
_XLA_FOLDER = r"xla_gpu_per_fusion_autotune_cache_dir/(tmp/)?"
JAX_CACHE_FILE = re.compile(rf"[^/]+-[0-9a-f]{{64}}-(cache|atime)|\.lockfile|{_XLA_FOLDER}([^/]+\.textproto)?")


class EventFiles(NamedTuple):
    """Holds what writes TensorBoard's event files without a thread of its own."""

    writer: Any  # (path prefix) -> object with write_event, flush and close
    events: Any  # module of the protocol buffers Event and SessionLog
    scalar: Any  # (name, value) -> Summary


class ClusterPlace(NamedTuple):
    """Says where this process stands in a cluster; None where the cluster does not tell."""

    coordinator: str | None
    processes: int | None
    process: int | None


def coordination_state() -> Any:
    """Returns jax's record of the processes of this run, with `client`, `num_processes` and `process_id`.

    None where jax was not imported yet. The public functions tell the same only after they have started the devices,
    and the client's key-value store and barriers, which wait longer than collectives do, have no public name.
    """
    module = sys.modules.get("jax._src.distributed")
    return module.global_state if module else None


def detect_cluster(kind: str, timeout_seconds: int) -> ClusterPlace:
    """Asks jax's detection of clusters (`slurm`, `gketpu`, `gcetpu`) for the place of this process."""
    from jax._src.clusters import ClusterEnv

    place = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, kind, timeout_seconds)
    return ClusterPlace(*place[:3])


def import_event_files() -> EventFiles:
    """Imports the parts of tensorboardX below its SummaryWriter, whose thread can wait for ever on a full disk."""
    with _without_torch():
        from tensorboardX import summary
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

    return EventFiles(EventsWriter, event_pb2, summary.scalar)


def import_tokenizer_class() -> type[PreTrainedTokenizerFast]:
    """Imports transformers without the advice to install PyTorch that it prints where there is none.

    Its later warnings are about use by its own models (sequences longer than the tokenizer's config says).
    """
    name = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        from transformers import PreTrainedTokenizerFast
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
    logging.getLogger("transformers").setLevel(logging.ERROR)
    return PreTrainedTokenizerFast


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """Hides PyTorch, whose import takes two seconds, from what would import it for nothing."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # pyrefly: ignore
    try:
        yield
    finally:
        if hidden:
            del sys.modules["torch"]
