# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Notices of a cloud that a machine will be stopped, from a metadata server on loopback."""

import http.server
import pathlib
import signal
import threading
import time
import urllib.parse

import pytest

from xlkd.runtime import distributed, notices
from xlkd.runtime.signals import Signals

PATIENCE = 30


class MetadataServer:
    """A server that answers as that of Compute Engine does: a request that waits for a change is held until then."""

    def __init__(self) -> None:
        self.values = {"maintenance-event": "NONE", "preempted": "FALSE"}
        self.versions = dict.fromkeys(self.values, 0)
        self.failures, self.requests, self.changed = 0, [], threading.Condition()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.address = f"127.0.0.1:{self.server.server_port}"

    def answer(self, request) -> None:
        url = urllib.parse.urlsplit(request.path)
        query, name = dict(urllib.parse.parse_qsl(url.query)), url.path.rpartition("/")[2]
        with self.changed:
            self.requests.append(request.path)
            self.changed.notify_all()
            if self.failures:
                self.failures -= 1
                return request.send_error(503)
            if request.headers["Metadata-Flavor"] != "Google" or name not in self.values:
                return request.send_error(404)
            if query.get("wait_for_change") == "true":
                self.changed.wait_for(lambda: str(self.versions[name]) != query["last_etag"], PATIENCE)
            value, version = self.values[name], self.versions[name]
        request.send_response(200)
        request.send_header("ETag", str(version))
        request.end_headers()
        request.wfile.write(value.encode())
        return None

    def set(self, name: str, value: str) -> None:
        with self.changed:
            self.values[name] = value
            self.versions[name] += 1
            self.changed.notify_all()

    def wait_for_watchers(self) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: sum("last_etag" in path for path in self.requests) >= 2, PATIENCE)


@pytest.fixture
def server(monkeypatch):
    server = MetadataServer()
    monkeypatch.setattr(notices, "PAUSE", 0.01)
    monkeypatch.delenv("NO_GCE_CHECK", raising=False)
    monkeypatch.setenv("GCE_METADATA_HOST", server.address)
    yield server
    server.server.shutdown()


def wait_until(condition) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [
        ("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE", "maintenance notice"),
        ("preempted", "TRUE", "preemption notice"),
    ],
)
def test_a_notice_asks_a_run_to_end(server, path, value, name):
    server.failures = 3
    with Signals() as signals:
        server.wait_for_watchers()
        server.set("maintenance-event", "MIGRATE_ON_HOST_MAINTENANCE")  # a live migration: training goes on
        server.set("preempted", "FALSE")
        wait_until(lambda: sum("last_etag=1" in path for path in server.requests) == 2)
        assert signals.asked == ""
        server.set(path, value)
        wait_until(lambda: signals.asked)
        assert signals.asked == name


def test_a_notice_from_before_the_start_does_not_stop_the_run_again(server):
    server.set("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE")
    with Signals() as signals:
        server.wait_for_watchers()
        server.set("maintenance-event", "NONE")
        wait_until(lambda: any("last_etag=2" in path for path in server.requests))
        assert signals.asked == ""
        server.set("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE")
        wait_until(lambda: signals.asked)


def test_a_value_that_the_server_lacks_is_not_asked_for_again(server):
    del server.values["preempted"]
    with Signals():
        with server.changed:
            assert server.changed.wait_for(lambda: len(server.requests) >= 3, PATIENCE)
        time.sleep(0.1)
    assert sum("preempted" in path for path in server.requests) == 1


def test_of_several_processes_one_notice_stops_all_by_a_signal(server, monkeypatch):
    """JAX then chooses a step for all; the notice is published first, so that they can name it."""
    received, published = [], {}
    former = signal.signal(signal.SIGTERM, lambda number, _: received.append((number, dict(published))))
    try:
        monkeypatch.setattr(distributed, "has_several_processes", lambda: True)
        monkeypatch.setattr(distributed, "publish_value", published.__setitem__)
        monkeypatch.setattr(distributed, "get_process", lambda: 3)
        with Signals():
            server.wait_for_watchers()
            server.set("preempted", "TRUE")
            wait_until(lambda: received)
    finally:
        signal.signal(signal.SIGTERM, former)
    assert received == [(signal.SIGTERM, {"notices/3": "preemption notice on process 3"})]


def test_only_machines_of_google_have_a_server(monkeypatch, tmp_path):
    for name in ("NO_GCE_CHECK", "GCE_METADATA_HOST"):
        monkeypatch.delenv(name, raising=False)
    product = tmp_path / "product_name"
    assert notices.find_server(product) == ""
    product.write_text("Standard PC (Q35 + ICH9, 2009)\n")
    assert notices.find_server(product) == ""
    product.write_text("Google Compute Engine\n")
    assert notices.find_server(product) == "169.254.169.254"
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:8080")
    assert notices.find_server(pathlib.Path("/nowhere")) == "127.0.0.1:8080"
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    assert notices.find_server(product) == ""
