# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A model is sent to a hub, which a server on this machine stands in for: what is sent, and what is refused."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from hub_server import HubServer, Repository, make_commit, run_with_hub

from xlkd import files

ROOT = pathlib.Path(__file__).parents[1]
CARD = "---\nlibrary_name: transformers\nlicense: mit\n---\n# Mine\n"
EXPORT = {"config.json": "{}", "tokenizer.json": "{}", "model.safetensors": "weights " * 300, "README.md": CARD}
WORKER = """
import contextlib, io, json, os, sys
from xlkd import cli, push

for line in sys.stdin:
    flags, os.environ["HF_TOKEN"] = json.loads(line)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.run(push.main, flags)
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""
RESOLVE = """
import json, pathlib, sys
from xlkd.models import hub

for name, revision in json.loads(sys.argv[1]):
    folder, commit = hub.resolve(name, revision)
    print(json.dumps([commit, {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}]))
"""


def write_export(folder, contents=EXPORT):
    with files.replace_folder(folder) as draft:
        for name, text in contents.items():
            (draft / name).parent.mkdir(exist_ok=True)
            (draft / name).write_text(text)
    return folder


@pytest.fixture
def export(tmp_path):
    """Makes an export, beside which lie files that are not for anybody else."""
    folder = write_export(tmp_path / "stages" / "01-mine" / "export")
    (folder / "notes.txt").write_text("secret")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "state").write_text("secret")
    return folder


class Hub(HubServer):
    """A server with a process that runs the command, one after another, with the server as its hub."""

    def __init__(self, home):
        super().__init__()
        self.environment = {"PATH": "/usr/bin", "PYTHONPATH": str(ROOT), "HF_HOME": str(home), "HF_TOKEN": "writer"}
        self.environment |= {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_XET": "1"}
        pipes = {name: subprocess.PIPE for name in ("stdin", "stdout")}
        self.worker = subprocess.Popen([sys.executable, "-c", WORKER], env=self.environment, text=True, **pipes)

    def __exit__(self, *error):
        self.worker.communicate(timeout=60)
        super().__exit__(*error)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with Hub(tmp_path_factory.mktemp("home")) as hub:
        yield hub


@pytest.fixture
def server(hub):
    """Returns the server without repositories."""
    for contents in (hub.repositories, hub.failures, hub.large_files, hub.asked, hub.commits):
        contents.clear()
    return hub


def push(server, folder, *flags, repo="me/model", token="writer", **changes):
    """Runs the command, in a process of its own where other variables of the environment are needed."""
    flags = [str(folder), f"--repo={repo}", *flags]
    if changes:
        command = [sys.executable, "-m", "xlkd.push", *flags]
        environment = server.environment | changes
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
        )
    print(json.dumps([flags, token]), file=server.worker.stdin, flush=True)
    return subprocess.CompletedProcess(flags, *json.loads(server.worker.stdout.readline()))


def assert_refused(done, message):
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert message in done.stderr


def test_an_export_is_sent_in_one_commit_and_can_be_read_back(export, server, tmp_path):
    done = push(server, export, "--yes", "--message=First")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"to {server.url}/me/model, a new private model:"
    assert [line.split()[-1] for line in lines[1:-2]] == sorted([*EXPORT, files.MARKER])
    assert "     2.4 KB  model.safetensors" in lines
    assert lines[-2].startswith("5 files, ")
    assert server.commits == [("me/model", "main", "First")]
    model = server.repositories["me/model"]
    assert model.private
    assert lines[-1] == f"sent: {server.url}/me/model/commit/{make_commit(model.revisions['main'])}"
    assert set(model.revisions["main"]) == {*EXPORT, files.MARKER, ".gitattributes"}
    assert list(server.large_files.values()) == [EXPORT["model.safetensors"].encode()]
    ((commit, contents),), _ = run_with_hub(
        RESOLVE, [("me/model", None)], server, tmp_path / "other", HF_TOKEN="writer"
    )
    assert commit == make_commit(model.revisions["main"])
    assert {name: contents[name] for name in EXPORT} == EXPORT


def test_a_second_upload_replaces_the_first_and_leaves_other_files(export, server):
    push(server, export, "--yes")
    model = server.repositories["me/model"]
    model.revisions["main"] |= {"picture.png": b"mine"}
    write_export(
        export, {name: text for name, text in EXPORT.items() if name != "tokenizer.json"} | {"spm.model": "new"}
    )
    done = push(server, export, "--yes")
    assert done.returncode == 0, done.stderr
    assert "an existing private model:" in done.stdout
    assert "deletes  tokenizer.json" in done.stdout
    assert len(server.commits) == 2
    assert len(server.large_files) == 1, "weights that the hub has are not sent again"
    names = {*EXPORT, "spm.model", files.MARKER, ".gitattributes", "picture.png"} - {"tokenizer.json"}
    assert set(model.revisions["main"]) == names
    done = push(server, export, "--yes")
    assert done.stdout.endswith(f"unchanged: {server.url}/me/model/commit/{make_commit(model.revisions['main'])}\n")
    assert len(server.commits) == 2
    model.revisions["main"] |= {"vocab.txt": b"theirs"}
    write_export(export, {**EXPORT, "vocab.txt": "ours"})
    assert_refused(push(server, export, "--yes"), "me/model: contains vocab.txt, which no export wrote")


def test_only_with_public_can_others_see_it(export, server):
    done = push(server, export, "--yes", "--public")
    assert "a new public model:" in done.stdout
    assert not server.repositories["me/model"].private
    assert_refused(push(server, export, "--yes"), "is public on the hub, which an upload does not change; add --public")
    server.repositories["me/model"].private = True
    assert_refused(push(server, export, "--yes", "--public"), "is private on the hub")
    assert len(server.commits) == 1


def test_a_branch_is_created_and_main_stays_as_it_is(export, server):
    push(server, export, "--yes")
    main = server.repositories["me/model"].revisions["main"]
    write_export(export, {**EXPORT, "config.json": '{"v": 2}'})
    for number in (2, 2):
        assert push(server, export, "--yes", f"--revision=v{number}").returncode == 0
    assert server.repositories["me/model"].revisions["main"] == main
    assert server.repositories["me/model"].revisions["v2"]["config.json"] == b'{"v": 2}'
    assert {branch for _, branch, _ in server.commits} == {"main", "v2"}


def test_without_a_terminal_nothing_is_sent_unasked(export, server):
    done = push(server, export)
    assert "a new private model:" in done.stdout
    assert_refused(done, "not confirmed, and no terminal to ask on; add --yes")
    assert not server.repositories


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("", 2)])
def test_on_a_terminal_the_command_asks(export, server, answer, code):
    try:
        main, terminal = os.openpty()
    except OSError:
        pytest.skip("this machine has no pseudo-terminals")
    command = [sys.executable, "-m", "xlkd", "push", str(export), "--repo=me/model"]
    os.write(main, f"{answer}\n".encode())
    done = subprocess.run(
        command, env=server.environment, stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, timeout=120
    )
    os.close(terminal)
    shown = os.read(main, 65536).decode()
    os.close(main)
    assert "send this? [y/N]" in shown
    assert done.returncode == code, done.stderr
    assert len(server.commits) == (code == 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token": ""}, "me/model: no token of the hub; log in with one that may write: hf auth login"),
        ({"token": "expired"}, "me/model: the hub refuses access (HTTP 401); log in with a token that may write"),
        ({"token": "reader"}, "me/model: the hub refuses access (HTTP 403); log in with a token that may write"),
        ({"repo": "others/model"}, "others/model: the hub refuses access (HTTP 403)"),
        ({"HF_HUB_OFFLINE": "1"}, "me/model: HF_HUB_OFFLINE is set; unset it"),
        (
            {"HF_ENDPOINT": "http://127.0.0.1:9"},
            "me/model: the hub cannot be reached, or the connection broke (ConnectE",
        ),
        ({"repo": "model"}, "no --repo=OWNER/NAME given"),
        ({"repo": "taken/by-others"}, "contains model.onnx, which no export wrote"),
        ({"repo": "me/hidden"}, "the name is taken, by a model that this token may not see"),
    ],
)
def test_what_cannot_be_sent_is_refused_in_one_line(export, server, changes, message):
    server.repositories |= {
        "taken/by-others": Repository({"main": {"model.onnx": b""}}),
        "me/hidden": Repository({"main": {}}, hidden=True),
    }
    assert_refused(push(server, export, "--yes", **changes), message)
    assert not server.commits


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/lfs/", 403, "the hub refuses access (HTTP 403)"),
        ("/lfs/", 413, "the hub refuses this (HTTP 413): "),
        ("/commit/", 0, "the hub cannot be reached, or the connection broke"),
        ("/commit/", 412, "was changed by another commit meanwhile (HTTP 412); start the same command again"),
        ("/commit/", 507, "the hub refuses this (HTTP 507): This is out of order today"),
    ],
)
def test_an_upload_that_fails_commits_nothing_and_can_be_repeated(export, server, path, status, message):
    server.failures[path] = status
    assert_refused(push(server, export, "--yes"), f"me/model: {message}")
    assert set(server.repositories["me/model"].revisions["main"]) == {".gitattributes"}
    server.failures.clear()
    assert push(server, export, "--yes").returncode == 0
    assert len(server.commits) == 1


@pytest.mark.long
def test_an_upload_whose_connection_breaks_again_and_again_is_one_line(export, server):
    server.failures["/lfs/"] = 0
    assert_refused(push(server, export, "--yes"), "the connection broke")
    assert not server.commits


def test_a_card_that_the_hub_does_not_accept_is_one_line(export, server):
    (export / "README.md").write_text("---\n- a list\n---\n# Mine\n")
    assert_refused(push(server, export, "--yes"), "the hub refuses this (HTTP 400): The head of the card is not valid")
    assert not server.commits


def test_folders_that_no_export_wrote_are_refused(export, server, tmp_path):
    assert_refused(
        push(server, export.parent), "is not an export: it has no .xlkd-export.json; name one of the exports in"
    )
    assert_refused(push(server, tmp_path / "typo"), "is not an export")
    (export / "config.json").unlink()
    (export / "config.json").symlink_to("/etc/passwd")
    assert_refused(push(server, export), "is incomplete: config.json missing or not a file")
    (export / files.MARKER).write_text(json.dumps({"version": 1, "files": ["../../secret"]}))
    assert_refused(push(server, export), "is not a list of exported files")
    assert not server.asked
