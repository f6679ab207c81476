# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A run on several processes: how they meet, what they agree on, and how all end when one of them dies.

A run in one process passes through here without importing anything.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import json
import os
import pathlib
import re
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from xlkd.compat import detect_cluster, get_coordination_state
from xlkd.errors import STOPPED, Stopped, UserError

if TYPE_CHECKING:
    import numpy as np

FLAGS = ("coordinator", "processes", "process")
COME = 300  # seconds in which all processes have to be there
ALIVE = 20  # seconds without a sign of life after which a process counts as dead
LEAVE = 30  # seconds in which all have to end when one ends
PATIENCE = 24 * 3600  # seconds that a process waits for what another one does, while that one lives
GONE = re.compile(r"gloo|connection (closed|reset)|heartbeat|coordination|unavailable|nccl.*remote", re.IGNORECASE)
_TURN = itertools.count()  # of what was agreed on: all processes ask for the same things in the same order


@contextlib.contextmanager
def join_run(given: Mapping[str, str]) -> Iterator[None]:
    """Joins the processes of a run: by three flags, or as Slurm, GKE and TPU hosts say by themselves."""
    place = _flags(given) if any(name in given for name in FLAGS) else _detected(os.environ)
    if place is None:
        yield
        return
    coordinator, processes, process = place
    _meet(coordinator, processes, process)
    _start(coordinator, processes, process)
    import jax

    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not GONE.search(str(error)):
            raise
        print(
            "stopped: another process of this run ended; the same command goes on from its last save", file=sys.stderr
        )
        # No ordinary end: it would wait for a process that is no more
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(STOPPED)


def has_several_processes() -> bool:
    """Returns whether this run has more than one process; jax is not imported to know it."""
    state = get_coordination_state()
    return state is not None and state.client is not None and state.num_processes > 1


def is_primary() -> bool:
    """Returns whether this process is the one that writes files and prints."""
    return not has_several_processes() or get_coordination_state().process_id == 0


def broadcast_from_primary(name: str, function: Callable[[], Any]) -> Any:
    """Returns to every process what the primary one gets from `function`: JSON, or its UserError."""
    if not has_several_processes():
        return function()
    client, key = get_coordination_state().client, f"xlkd/{next(_TURN)}/{name}"
    if is_primary():
        try:
            found = {"value": function()}
        except UserError as error:
            client.key_value_set(key, json.dumps({"error": error.args}))
            raise
        client.key_value_set(key, json.dumps(found))
        return found["value"]
    found = json.loads(client.blocking_key_value_get(key, PATIENCE * 1000))
    if "error" in found:
        raise UserError(*found["error"])
    return found["value"]


def barrier(name: str) -> None:
    """Waits until every process has come here."""
    if has_several_processes():
        get_coordination_state().client.wait_at_barrier(f"xlkd/{next(_TURN)}/{name}", PATIENCE * 1000)


def any_process(flags: np.ndarray) -> np.ndarray:
    """Returns which of the flags are true at any process."""
    if not has_several_processes():
        return flags
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(flags).any(0)


def gather_to_host(tree: Any) -> Any:
    """Gathers global arrays as numpy arrays, whole at every process; all of them must call it."""
    import jax

    if not has_several_processes():
        return jax.device_get(tree)
    from jax.experimental import multihost_utils

    def whole(x):
        spread = isinstance(x, jax.Array) and not x.is_fully_replicated
        return multihost_utils.process_allgather(x, tiled=True) if spread else jax.device_get(x)

    return jax.tree.map(whole, tree)


def _flags(given: Mapping[str, str]) -> tuple[str, int, int]:
    missing = [name for name in FLAGS if name not in given]
    example = "--coordinator=HOST:PORT --processes=4 --process=0"
    if missing:
        raise UserError(f"--{missing[0]} is missing", "command line", f"several processes need all three: {example}")
    host, _, port = given["coordinator"].rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        what = f"--coordinator={given['coordinator']} is not HOST:PORT"
        raise UserError(what, "command line", "name the host of process 0 and a free port on it")
    if not given["processes"].isdecimal() or not int(given["processes"]):
        raise UserError(f"--processes={given['processes']} is not a whole number above 0", "command line", example)
    count = int(given["processes"])
    if not given["process"].isdecimal() or int(given["process"]) >= count:
        raise UserError(f"--process={given['process']} is none of 0 to {count - 1}", "command line", example)
    return given["coordinator"], count, int(given["process"])


def _detected(environment: Mapping[str, str]) -> tuple[str, int, int] | None:
    """Detects several processes of a scheduler; what it left in the environment decides whether jax is asked."""
    kind = kind_of(environment)
    if kind is None:
        return None
    place = detect_cluster(kind, COME)
    return (place.coordinator, place.processes, place.process) if (place.processes or 1) > 1 else None


def kind_of(environment: Mapping[str, str]) -> str | None:
    """Returns jax's name for the cluster of this process; None on a single machine. No network is touched."""
    slurm = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
    if all(name in environment for name in slurm):
        return "slurm" if environment["SLURM_NTASKS"] != "1" else None
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES") or ""
    if "," in hosts or environment.get("MEGASCALE_NUM_SLICES", "1") != "1":
        return "gketpu" if hosts else "gcetpu"
    if hosts or "TPU_SKIP_MDS_QUERY" in environment or not _tpu_machine():
        return None
    return "gcetpu"


def _tpu_machine() -> bool:
    """Returns whether this is Google's machine with TPU chips: only there the metadata server answers at once."""
    maker = pathlib.Path("/sys/class/dmi/id/product_name")
    chips = glob.glob("/dev/accel[0-9]*") + glob.glob("/dev/vfio/[0-9]*")
    return bool(chips) and maker.exists() and maker.read_text(encoding="utf-8").startswith("Google")


def _start(coordinator: str, processes: int, process: int) -> None:
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    local = os.environ.get("SLURM_LOCALID") if kind_of(os.environ) == "slurm" else None
    jax.distributed.initialize(
        coordinator,
        processes,
        process,
        local_device_ids=None if local is None else int(local),  # one task a GPU, as launch/slurm.sh asks for
        cluster_detection_method="deactivate",
        initialization_timeout=COME,
        heartbeat_timeout_seconds=ALIVE,
        shutdown_timeout_seconds=LEAVE,
    )


def _meet(coordinator: str, processes: int, process: int) -> None:
    """Calls the roll before jax does, which ends every process with a stack trace and names none."""
    host, _, port = coordinator.rpartition(":")
    there = host.strip("[]"), int(port)
    answer = _answer(*there, processes, process) if process else _call(there[1], processes)
    if answer != "go":
        raise Stopped(f"{answer}; start the same command on every host")


def _call(port: int, processes: int) -> str:
    """Waits for all others at the port, and tells those that came how it ended."""
    until, there = time.monotonic() + COME, {}
    both = socket.has_dualstack_ipv6()
    try:
        listener = socket.create_server(
            ("", port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both, backlog=processes
        )
    except OSError as error:
        raise UserError(
            f"port {port} cannot be listened on: {error.strerror}", "--coordinator", "name a free one"
        ) from None
    with listener, contextlib.ExitStack() as open_:
        answer = ""
        while len(there) < processes - 1 and not answer and (left := until - time.monotonic()) > 0:
            if select.select([listener], [], [], left)[0]:
                other = open_.enter_context(listener.accept()[0])
                other.settimeout(5)
                said = _line(other).split()
                if len(said) != 3 or said[0] != "xlkd" or not said[2].isdecimal():  # a stranger
                    continue
                if int(said[2]) != processes:
                    answer = f"process {said[1]} was started as one of {said[2]}, process 0 as one of {processes}"
                elif said[1] in there or said[1] == "0":
                    answer = f"two processes were started as process {said[1]} of {processes}"
                there[said[1]] = other
        missing = [str(i) for i in range(1, processes) if str(i) not in there]
        came = f"{processes - len(missing)} of {processes} processes came within {COME} s"
        answer = answer or (f"{came}, missing: {', '.join(missing)}" if missing else "go")
        for other in there.values():
            with contextlib.suppress(OSError):
                other.sendall(f"xlkd {answer}\n".encode())
    return answer


def _answer(host: str, port: int, processes: int, process: int) -> str:
    """Reports to the primary process, and hears how the roll call ended."""
    until = time.monotonic() + COME
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=5) as there:
            there.sendall(f"xlkd {process} {processes}\n".encode())
            there.settimeout(COME + 10)
            if (answer := _line(there)).startswith("xlkd "):  # and not what is left of a run before
                return answer.removeprefix("xlkd ")
        time.sleep(0.2)
    return (
        f"1 of {processes} processes came within {COME} s: process 0 is not at {host}:{port}, this is process {process}"
    )


def _line(there: socket.socket) -> str:
    with contextlib.suppress(OSError), there.makefile(encoding="utf-8", errors="replace") as lines:
        return lines.readline(400).strip()
    return ""
