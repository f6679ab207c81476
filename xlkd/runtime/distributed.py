# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs on several processes: how they start together, exchange values, and end when one of them dies.

A run in one process uses none of this and imports nothing for it.
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
import threading
import time
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from xlkd import cli
from xlkd.compat import detect_cluster, get_coordination_state
from xlkd.data.share import WAIT_TIMEOUT, Share
from xlkd.errors import STOPPED, USER_INPUT, Stopped, UserError

if TYPE_CHECKING:
    import numpy as np

FLAGS = ("coordinator", "processes", "process")
JOIN_TIMEOUT = 300  # seconds within which all processes have to start
HEARTBEAT_TIMEOUT = 20  # seconds without a heartbeat after which a process counts as dead
SHUTDOWN_TIMEOUT = 30  # seconds within which all have to end when one ends
CONNECTION_LOST = re.compile(
    r"gloo|connection (closed|reset)|heartbeat|coordination|unavailable|nccl.*remote", re.IGNORECASE
)
PROCESS_LOST = re.compile("heartbeat|coordination ?service", re.IGNORECASE)  # in an error of any library
WATCH_PAUSE = 1  # seconds between two looks at the errors of other processes
FAREWELL = 15  # seconds that process 0 waits for the others, less than HEARTBEAT_TIMEOUT, with which JAX aborts it
_ERRORS = "errors"  # published: the UserError that ended a process, under the number of each process that knows it
_EXCHANGE = itertools.count()  # numbers the exchanges: all processes make the same ones in the same order


@contextlib.contextmanager
def join_run(flags: Mapping[str, str]) -> Generator[None, None, None]:
    """Joins the processes of a run: by three flags, or by the environment of Slurm, GKE and TPU hosts."""
    place = _parse_flags(flags) if any(name in flags for name in FLAGS) else _detect_processes(os.environ)
    if place is None:
        yield
        return
    coordinator, processes, process = place
    _check_all_processes_start(coordinator, processes, process)
    _start_jax(coordinator, processes, process)
    watch = _ErrorWatch(processes)
    try:
        yield
    except UserError as error:
        watch.end_run(str(error))
    except Exception as error:
        if not _is_connection_lost(error):
            raise
        if published := watch.find_error():
            watch.end_run(published)
        _print_last_line("stopped: another process of this run ended; the same command resumes from its last save")
        os._exit(STOPPED)  # an ordinary exit would wait for the process that has ended
    finally:
        watch.close()


class _ErrorWatch:
    """Ends all processes of a run with the UserError of one of them.

    Each process publishes the error once it knows it. One that waits for another in a collective operation cannot raise
    it, so a thread watches what the others publish.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._ending = threading.Lock()  # never released
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread, because the run has ended in another way."""
        self._closed.set()
        self._thread.join(WATCH_PAUSE)

    def end_run(self, error: str) -> NoReturn:
        """Publishes an error and exits with it; process 0, which the others need until then, is the last one."""
        self._ending.acquire()
        _print_last_line(f"error: {error}")
        with contextlib.suppress(Exception):
            publish_value(f"{_ERRORS}/{get_process()}", error)
            until = time.monotonic() + FAREWELL
            while is_primary() and len(read_published(_ERRORS)) < self._processes and time.monotonic() < until:
                time.sleep(0.1)
        os._exit(USER_INPUT)

    def find_error(self) -> str:
        """Returns the error that another process has published; empty if there is none, or process 0 has ended."""
        try:
            return next(iter(read_published(_ERRORS).values()), "")
        except Exception:  # whatever JAX raises if process 0 has ended
            return ""

    def _watch(self) -> None:
        while not self._closed.wait(WATCH_PAUSE):
            if error := self.find_error():
                # The main thread of process 0 may notice that the other one has ended, and upload what it has written
                if is_primary() and self._closed.wait(FAREWELL):
                    return
                self.end_run(error)


def _print_last_line(line: str) -> None:
    """Prints a line to standard error and writes what is buffered, before a process ends at once."""
    with contextlib.suppress(OSError, UserError):
        print(line, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()


def _is_connection_lost(error: Exception) -> bool:
    """Returns whether an error, of jax or of a library that waits for other processes, says that one has ended."""
    import jax

    # jit raises some errors of its runtime as a ValueError that begins with their status
    status = isinstance(error, ValueError) and re.match("[A-Z_]{5,}: ", str(error))
    lost = CONNECTION_LOST if status or isinstance(error, jax.errors.JaxRuntimeError) else PROCESS_LOST
    return not isinstance(error, UserError) and bool(lost.search(str(error)))


def has_several_processes() -> bool:
    """Returns whether this run has more than one process, without importing jax."""
    state = get_coordination_state()
    return state is not None and state.client is not None and state.num_processes > 1


def get_process() -> int:
    """Returns the number of this process, without importing jax."""
    return get_coordination_state().process_id if has_several_processes() else 0


def is_primary() -> bool:
    """Returns whether this process is the one that writes files and prints."""
    return get_process() == 0


def broadcast_from_primary(name: str, function: Callable[[], Any]) -> Any:
    """Calls `function` on the primary process and returns its value, which is JSON, or raises its UserError, on all.

    The name must be the same on all processes, which may have other folders.
    """
    if not has_several_processes():
        return function()
    client, key = get_coordination_state().client, f"xlkd/{next(_EXCHANGE)}/{name}"
    if is_primary():
        try:
            answer = {"value": function()}
        except UserError as error:
            client.key_value_set(key, json.dumps({"error": error.args}))
            raise
        client.key_value_set(key, json.dumps(answer))
        return answer["value"]
    answer = json.loads(client.blocking_key_value_get(key, WAIT_TIMEOUT * 1000))
    if "error" in answer:
        raise UserError(*answer["error"])
    return answer["value"]


def barrier(name: str) -> None:
    """Waits until every process has reached this point."""
    if has_several_processes():
        get_coordination_state().client.wait_at_barrier(f"xlkd/{next(_EXCHANGE)}/{name}", WAIT_TIMEOUT * 1000)


def publish_value(name: str, value: str) -> None:
    """Gives all processes a value, in place of an earlier one of that name; waits for none of them."""
    get_coordination_state().client.key_value_set(f"xlkd/published/{name}", value, allow_overwrite=True)


def read_published(folder: str) -> dict[str, str]:
    """Returns the values that processes have published so far under names that begin with `folder/`."""
    values = get_coordination_state().client.key_value_dir_get(f"xlkd/published/{folder}/")
    return {key.rpartition("/")[2]: value for key, value in values}


def open_share(name: str) -> Share | None:
    """Returns this process's share of some work; None where one process does all of it.

    All processes open the same shares in the same order.
    """
    if not has_several_processes():
        return None
    state = get_coordination_state()
    return Share(state.client, f"{next(_EXCHANGE)}/{name}", state.process_id, state.num_processes)


def any_process(flags: np.ndarray) -> np.ndarray:
    """Returns which of the flags are true on any process."""
    if not has_several_processes():
        return flags
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(flags).any(0)


def gather_to_host(tree: Any) -> Any:
    """Gathers global arrays as complete numpy arrays on every process; all processes must call it."""
    import jax

    if not has_several_processes():
        return jax.device_get(tree)
    from jax.experimental import multihost_utils

    def gather(x: Any) -> Any:
        spread = isinstance(x, jax.Array) and not x.is_fully_replicated
        return multihost_utils.process_allgather(x, tiled=True) if spread else jax.device_get(x)

    return jax.tree.map(gather, tree)


def _parse_flags(flags: Mapping[str, str]) -> tuple[str, int, int]:
    """Returns coordinator, number of processes and number of this one."""
    missing = [name for name in FLAGS if name not in flags]
    example = "--coordinator=HOST:PORT --processes=4 --process=0"
    if missing:
        raise UserError(f"--{missing[0]} is missing", "command line", f"set all three for several processes: {example}")
    host, _, port = flags["coordinator"].rpartition(":")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        what = f"--coordinator={flags['coordinator']} is not HOST:PORT"
        raise UserError(what, "command line", "name the host of process 0 and a free port on it")
    count = cli.parse_count(flags, "processes", 4, 100_000)
    if not re.fullmatch("[0-9]{1,6}", flags["process"]) or int(flags["process"]) >= count:
        raise UserError(f"--process={flags['process']} is not one of 0 to {count - 1}", "command line", example)
    return flags["coordinator"], count, int(flags["process"])


def _detect_processes(environment: Mapping[str, str]) -> tuple[str, int, int] | None:
    """Detects the processes that a scheduler started; its environment variables decide whether JAX is asked."""
    kind = detect_cluster_kind(environment)
    if kind is None:
        return None
    place = detect_cluster(kind, JOIN_TIMEOUT)
    if place.processes is None or place.processes <= 1:
        return None
    if place.coordinator is None or place.process is None:
        what = f"{place.processes} processes, but the cluster ({kind}) does not give the number of this process"
        raise UserError(what, "the environment", "set --coordinator, --processes and --process")
    return place.coordinator, place.processes, place.process


def detect_cluster_kind(environment: Mapping[str, str]) -> str | None:
    """Returns JAX's name for the cluster of this process; None on a single machine. Uses no network."""
    slurm = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
    if all(name in environment for name in slurm):
        return "slurm" if environment["SLURM_NTASKS"] != "1" else None
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES") or ""
    if "," in hosts or environment.get("MEGASCALE_NUM_SLICES", "1") != "1":
        return "gketpu" if hosts else "gcetpu"
    if hosts or "TPU_SKIP_MDS_QUERY" in environment or not _is_tpu_machine():
        return None
    return "gcetpu"


def _is_tpu_machine() -> bool:
    """Returns whether this is a TPU machine of Google: only there the metadata server answers without delay."""
    maker = pathlib.Path("/sys/class/dmi/id/product_name")
    chips = glob.glob("/dev/accel[0-9]*") + glob.glob("/dev/vfio/[0-9]*")
    return bool(chips) and maker.exists() and maker.read_text(encoding="utf-8").startswith("Google")


def _start_jax(coordinator: str, processes: int, process: int) -> None:
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    local = os.environ.get("SLURM_LOCALID") if detect_cluster_kind(os.environ) == "slurm" else None
    jax.distributed.initialize(
        coordinator,
        processes,
        process,
        local_device_ids=None if local is None else int(local),  # one task a GPU, as launch/slurm.sh asks for
        cluster_detection_method="deactivate",
        initialization_timeout=JOIN_TIMEOUT,
        heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
        shutdown_timeout_seconds=SHUTDOWN_TIMEOUT,
    )


def _check_all_processes_start(coordinator: str, processes: int, process: int) -> None:
    """Checks that all processes start, before JAX does, which would end them with a stack trace and name none."""
    host, _, port = coordinator.rpartition(":")
    if process:
        answer = _report_to_primary(host.strip("[]"), int(port), processes, process)
    else:
        answer = _collect_processes(int(port), processes)
    if answer != "go":
        raise Stopped(f"{answer}; start the same command on every host")


def _collect_processes(port: int, processes: int) -> str:
    """Waits for all other processes at the port, and sends the result to those that came."""
    until = time.monotonic() + JOIN_TIMEOUT
    joined: dict[str, socket.socket] = {}
    dual = socket.has_dualstack_ipv6()
    try:
        listener = socket.create_server(
            ("", port), family=socket.AF_INET6 if dual else socket.AF_INET, dualstack_ipv6=dual, backlog=processes
        )
    except OSError as error:
        raise UserError(
            f"port {port} cannot be listened on: {error.strerror}", "--coordinator", "name a free one"
        ) from None
    with listener, contextlib.ExitStack() as open_:
        answer = ""
        while len(joined) < processes - 1 and not answer and (left := until - time.monotonic()) > 0:
            if select.select([listener], [], [], left)[0]:
                other = open_.enter_context(listener.accept()[0])
                other.settimeout(5)
                words = _read_line(other).split()
                if len(words) != 3 or words[0] != "xlkd" or not words[2].isdecimal():  # not a process of ours
                    continue
                if int(words[2]) != processes:
                    answer = f"process {words[1]} was started as one of {words[2]}, process 0 as one of {processes}"
                elif words[1] in joined or words[1] == "0":
                    answer = f"two processes were started as process {words[1]} of {processes}"
                joined[words[1]] = other
        missing = [str(i) for i in range(1, processes) if str(i) not in joined]
        came = f"{processes - len(missing)} of {processes} processes came within {JOIN_TIMEOUT} s"
        answer = answer or (f"{came}, missing: {', '.join(missing)}" if missing else "go")
        for other in joined.values():
            with contextlib.suppress(OSError):
                other.sendall(f"xlkd {answer}\n".encode())
    return answer


def _report_to_primary(host: str, port: int, processes: int, process: int) -> str:
    """Reports to the primary process, and returns its answer."""
    until = time.monotonic() + JOIN_TIMEOUT
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=5) as connection:
            connection.sendall(f"xlkd {process} {processes}\n".encode())
            connection.settimeout(JOIN_TIMEOUT + 10)
            if (answer := _read_line(connection)).startswith("xlkd "):  # not another program at that port
                return answer.removeprefix("xlkd ")
        time.sleep(0.2)
    count = f"1 of {processes} processes came within {JOIN_TIMEOUT} s"
    return f"{count}: process 0 is not at {host}:{port}, this is process {process}"


def _read_line(connection: socket.socket) -> str:
    with contextlib.suppress(OSError), connection.makefile(encoding="utf-8", errors="replace") as lines:
        return lines.readline(400).strip()
    return ""
