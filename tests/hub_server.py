# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A server that speaks enough of the Hugging Face hub's API to list, download and upload: `with HubServer() as server`.

Repositories of models are under OWNER/NAME, those of data sets under datasets/OWNER/NAME.
"""

import base64
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

import yaml

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
    private: bool = False
    hidden: bool = False
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
    """Serves `repositories` by id, and keeps the paths that were asked for and the messages of commits.

    The token `writer` may write into the namespace `me` and see what is private there. `failures` has by a part of a
    path the status that requests for it get; 0 cuts the connection.
    """

    def __init__(self, repositories=None, failures=None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories, self.failures = repositories or {}, failures or {}
        self.asked, self.commits, self.large_files = [], [], {}

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

    def do_POST(self):
        path, body = self.path.partition("?")[0], self.read_body()
        if self.refuse_early(path):
            return
        parts = [urllib.parse.unquote(part) for part in path.removeprefix("/api/models").strip("/").split("/")]
        name, rest = "/".join(parts[:2]).removesuffix(".git"), parts[2:]
        if path == "/api/validate-yaml":
            self.validate_head(json.loads(body)["content"])
        elif self.get_token() != "writer" or not (name.startswith("me/") or path == "/api/repos/create"):
            self.reply(403, {"error": "You don't have the rights to do this"})
        elif path == "/api/repos/create":
            self.create_repository(json.loads(body))
        elif name not in self.server.repositories:
            self.reply(404, {"error": "Repository not found"}, code="RepoNotFound")
        elif rest[0] == "branch":
            self.create_branch(self.server.repositories[name], rest[1])
        elif rest[0] == "preupload":
            self.reply_upload_modes(self.server.repositories[name].revisions[rest[1]], json.loads(body)["files"])
        elif rest[0] == "info":
            self.reply_upload_urls(json.loads(body)["objects"])
        else:
            self.commit(name, rest[1], [json.loads(line) for line in body.splitlines()])

    def do_PUT(self):
        body = self.read_body()
        if not self.refuse_early(self.path):
            oid = self.path.rpartition("/")[2]
            assert hashlib.sha256(body).hexdigest() == oid
            self.server.large_files[oid] = body
            self.reply(200, {})

    def read_body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def get_token(self):
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def refuse_early(self, path):
        """Replies to a request that fails whatever it asks for; returns whether it did."""
        self.server.asked.append(f"{self.command} {urllib.parse.unquote(path)}")
        status = next((status for part, status in self.server.failures.items() if part in path), None)
        if status == 0:
            self.close_connection = True
        elif status:
            self.reply(status, {"error": "This is out of order today"})
        elif self.get_token() == "expired":
            text = "Invalid credentials in Authorization header"
            self.reply(401, {"error": text}, message=text)
        else:
            return False
        return True

    def validate_head(self, text):
        head = re.match(r"---\n(.*?)\n---\n", text, re.S)
        valid = isinstance(yaml.safe_load(head[1]), dict) if head else False
        errors = [] if valid else [{"message": "The head of the card is not valid"}]
        self.reply(400 if errors else 200, {"errors": errors, "warnings": []})

    def create_repository(self, request):
        name = f"{request['organization']}/{request['name']}"
        if name in self.server.repositories:
            self.reply(409, {"error": "You already created this model repo"})
        elif not name.startswith("me/"):
            self.reply(403, {"error": f"You don't have the rights to create a model under {request['organization']}"})
        else:
            private = request.get("private") or request.get("visibility") == "private"
            self.server.repositories[name] = Repository({"main": {".gitattributes": b""}}, private=private)
            self.reply(200, {"url": f"{self.server.url}/{name}"})

    def create_branch(self, repository, branch):
        if branch in repository.revisions:
            self.reply(409, {"error": "Reference already exists"})
        else:
            repository.revisions[branch] = dict(repository.revisions["main"])
            self.reply(200, {})

    def reply_upload_modes(self, files, names):
        def describe(name):
            is_large, data = name.endswith(".safetensors"), files.get(name)
            answer = {"path": name, "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False}
            if data is None:
                return answer
            blob = b"blob %d\0%s" % (len(data), data)
            return answer | {"oid": hashlib.sha256(data).hexdigest() if is_large else name_blob(blob)}

        self.reply(200, {"files": [describe(file["path"]) for file in names]})

    def reply_upload_urls(self, objects):
        def describe(entry):
            href = f"{self.server.url}/lfs/{entry['oid']}"
            is_new = entry["oid"] not in self.server.large_files
            return entry | ({"actions": {"upload": {"href": href}}} if is_new else {})

        self.reply(200, {"transfer": "basic", "objects": [describe(entry) for entry in objects]})

    def commit(self, name, branch, operations):
        repository, (header, *changes) = self.server.repositories[name], operations
        files = dict(repository.revisions[branch])
        parent = header["value"].get("parentCommit")
        if parent and parent != make_commit(files):
            self.reply(412, {"error": "A commit has happened since"})
            return
        for change in changes:
            value = change["value"]
            if change["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif change["key"] == "lfsFile":
                files[value["path"]] = self.server.large_files[value["oid"]]
            else:
                del files[value["path"]]
        repository.revisions[branch] = files
        self.server.commits.append((name, branch, header["value"]["summary"]))
        commit = make_commit(files)
        self.reply(200, {"commitUrl": f"{self.server.url}/{name}/commit/{commit}", "commitOid": commit})

    def do_GET(self):
        path, _, _ = self.path.partition("?")
        if self.refuse_early(self.path):
            return
        parts = path.removeprefix("/api/models").removeprefix("/api").strip("/").split("/")
        size = 3 if parts[0] == "datasets" else 2
        name, rest = "/".join(parts[:size]), [urllib.parse.unquote(part) for part in parts[size:]]
        repository = self.server.repositories.get(name)
        if repository is None or repository.hidden or (repository.private and self.get_token() != "writer"):
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
                    "private": repository.private,
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
        if self.command != "HEAD":
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
