# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A server that speaks enough of the Hugging Face hub's API to list and download: `with HubServer() as server`.

Repositories of models are under OWNER/NAME, those of data sets under datasets/OWNER/NAME.
"""

import contextlib
import dataclasses
import hashlib
import http.server
import json
import pathlib
import re
import subprocess
import sys
import threading
import urllib.parse

Files = dict[str, bytes]
COMMIT = re.compile("[0-9a-f]{40}")


@dataclasses.dataclass
class Repository:
    """A model or data set: its files by revision (`main`, `refs/pr/1`, …), and what keeps them from being read.

    The files of a gated one need an access that nobody has. The first downloads of a file end half-way, as often as
    `cuts` says.
    """

    revisions: dict[str, Files]
    gated: bool = False
    renamed_to: str = ""
    cuts: dict[str, int] = dataclasses.field(default_factory=dict)

    def find_commit(self, revision):
        """Returns the commit of a revision; None if there is none."""
        commits = {name: make_commit(files) for name, files in self.revisions.items()}
        return revision if revision in commits.values() else commits.get(revision)

    def get_files(self, commit):
        return next((files for files in self.revisions.values() if make_commit(files) == commit), None)


def make_commit(files):
    """Returns a commit that depends on the files."""
    return hashlib.sha1(repr(sorted(files.items())).encode(), usedforsecurity=False).hexdigest()


class HubServer(http.server.ThreadingHTTPServer):
    """Serves `repositories` by id, and keeps the paths that were asked for."""

    def __init__(self, repositories=None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories, self.asked = repositories or {}, []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path, _, _ = self.path.partition("?")
        self.server.asked.append(f"{self.command} {urllib.parse.unquote(self.path)}")
        parts = path.removeprefix("/api/models").removeprefix("/api").strip("/").split("/")
        size = 3 if parts[0] == "datasets" else 2
        name, rest = "/".join(parts[:size]), [urllib.parse.unquote(part) for part in parts[size:]]
        repository = self.server.repositories.get(name)
        if self.headers.get("Authorization") == "Bearer expired":
            self.reply(
                401,
                {"error": "Invalid credentials in Authorization header"},
                message="Invalid credentials in Authorization header",
            )
        elif repository is None:
            self.reply(401, {"error": "Repository not found"}, code="RepoNotFound")
        elif repository.renamed_to:
            self.reply(307, {}, location=self.path.replace(name, repository.renamed_to))
        elif path.startswith("/api/"):
            self.reply_about(repository, name.removeprefix("datasets/"), rest)
        else:
            self.reply_file(repository, rest[1], "/".join(rest[2:]))

    def reply_about(self, repository, name, rest):
        if rest == ["refs"]:
            self.reply(200, list_refs(repository))
            return
        commit = repository.find_commit(rest[1] if rest else "main")
        if commit is None:
            self.reply(404, {"error": "Invalid rev id"}, code="RevisionNotFound")
            return
        files = repository.get_files(commit)
        if rest[:1] == ["tree"]:
            entries = [
                {"type": "file", "path": file, "size": len(data), "oid": name_blob(data)}
                for file, data in files.items()
            ]
            self.reply(200, entries)
        else:
            siblings = [{"rfilename": file} for file in files]
            self.reply(
                200,
                {
                    "_id": "1",
                    "id": name,
                    "modelId": name,
                    "sha": commit,
                    "siblings": siblings,
                    "tags": [],
                    "private": False,
                    "downloads": 0,
                },
            )

    def reply_file(self, repository, commit, name):
        files = repository.get_files(commit)
        if repository.gated:
            self.reply(403, {"error": "Access to this model is restricted"}, code="GatedRepo")
        elif not files or name not in files:
            self.reply(404, {"error": "Entry not found"}, code="EntryNotFound", commit=commit)
        elif self.command == "GET" and repository.cuts.get(name):
            repository.cuts[name] -= 1
            self.reply(200, files[name], commit=commit, sent=len(files[name]) // 2)
        else:
            self.reply(200, files[name], commit=commit)

    def reply(self, status, content, *, code="", message="", commit="", location="", sent=None):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        headers = {"X-Error-Code": code, "X-Error-Message": message, "X-Repo-Commit": commit, "Location": location}
        headers |= {"Content-Length": str(len(data)), "ETag": f'"{name_blob(data)}"'}
        for header, value in headers.items():
            if value:
                self.send_header(header, value)
        self.end_headers()
        if self.command == "GET":
            with contextlib.suppress(BrokenPipeError):
                self.wfile.write(data[:sent])
        self.close_connection = self.close_connection or sent is not None


def name_blob(data):
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def run_with_hub(program, requests, server, home, **environment):
    """Runs a program in another process with the server as its hub; returns the lines it prints and standard error."""
    environment = {
        "PATH": "/usr/bin",
        "PYTHONPATH": str(pathlib.Path(__file__).parents[1]),
        "HF_HOME": str(home),
        "HF_ENDPOINT": server.url,
    } | environment
    command = [sys.executable, "-c", program, json.dumps(requests)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    return [json.loads(line) for line in process.stdout.splitlines()], process.stderr


def list_refs(repository):
    """Returns the branches, converted revisions and pull requests of a repository, as the hub lists them."""
    refs = {"branches": [], "converts": [], "tags": [], "pullRequests": []}
    for name, files in repository.revisions.items():
        kinds = {"refs/pr/": "pullRequests", "refs/convert/": "converts"}
        kind = next((kind for prefix, kind in kinds.items() if name.startswith(prefix)), "branches")
        ref = name if kind != "branches" else f"refs/heads/{name}"
        refs[kind].append({"name": name.rpartition("/")[2], "ref": ref, "targetCommit": make_commit(files)})
    return refs
