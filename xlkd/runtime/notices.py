# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Watches the notices of Google Cloud that this machine will be stopped: for maintenance, or because it is preempted.

The metadata server of a machine answers a request when the value changes. Only machines that have one are asked, so
that no other machine waits for an answer.
"""

from __future__ import annotations

import http.client
import os
import pathlib
import threading
import time
from collections.abc import Callable

NOTICES = {  # by path below `instance/`: the value with which a machine will be stopped, and what a run calls it
    "maintenance-event": ("TERMINATE_ON_HOST_MAINTENANCE", "maintenance notice"),
    "preempted": ("TRUE", "preemption notice"),
}
SERVER = "169.254.169.254"  # the address of metadata.google.internal, so that no name is looked up
WAIT = 60  # seconds after which the server answers although nothing has changed
PAUSE = 10  # seconds before a request that failed is repeated


def find_server(product: pathlib.Path = pathlib.Path("/sys/class/dmi/id/product_name")) -> str:
    """Returns the address of the metadata server; empty on machines that have none. Uses no network."""
    if os.environ.get("NO_GCE_CHECK", "").lower() in ("1", "true"):
        return ""
    if named := os.environ.get("GCE_METADATA_HOST"):
        return named
    try:
        return SERVER if product.read_text(encoding="utf-8").startswith("Google") else ""
    except (OSError, ValueError):
        return ""


def watch_notices(tell: Callable[[str], object]) -> None:
    """Calls `tell` with the name of each notice that comes from now on, from threads that end with the process.

    A notice that was given before is not repeated: the run that it stopped has been started again, and trains until the
    machine stops.
    """
    if server := find_server():
        for path, (value, name) in NOTICES.items():
            threading.Thread(target=_watch_value, args=(server, path, value, name, tell), daemon=True).start()


def _watch_value(server: str, path: str, value: str, name: str, tell: Callable[[str], object]) -> None:
    query, before = "", value  # the first answer is only the present value
    while True:
        try:
            status, etag, now = _request(server, f"/computeMetadata/v1/instance/{path}{query}")
        except (OSError, http.client.HTTPException):
            status, etag, now = 0, "", ""
        if status == 404:  # metadata servers of Kubernetes lack some values
            return
        if status != 200:
            time.sleep(PAUSE)
            continue
        if now == value != before:
            tell(name)
        before, query = now, f"?wait_for_change=true&timeout_sec={WAIT}&last_etag={etag}"


def _request(server: str, path: str) -> tuple[int, str, str]:
    """Requests a value; returns the HTTP status, the ETag and the value."""
    connection = http.client.HTTPConnection(server, timeout=WAIT + 30)
    try:
        connection.request("GET", path, headers={"Metadata-Flavor": "Google"})
        answer = connection.getresponse()
        return answer.status, answer.getheader("ETag") or "0", answer.read(1000).decode(errors="replace").strip()
    finally:
        connection.close()
