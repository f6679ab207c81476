# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Models of a hub, which a server on this machine stands in for: what is downloaded, and what is refused."""

import json
import pathlib

import pytest
from hub_server import HubServer, Repository, make_commit, run_with_hub
from toy_models import run_command, save_span_model

from xlkd import settings
from xlkd.errors import UserError

SMALL = {"config.json": b"{}", "tokenizer.json": b"{}", "README.md": b"---\nlicense: mit\n---\n"}
PICKLED = SMALL | {"pytorch_model.bin": b"pickle"}
SAFE = SMALL | {"model.safetensors": b"weights"}
SHARDS = {f"model-0000{i}-of-00002.safetensors": f"shard {i}".encode() for i in (1, 2)}
INDEX = json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})
FORMATS = {
    "onnx/model.onnx": b"1",
    "onnx/config.json": b"{}",
    "original/consolidated.safetensors": b"2",
    "original/params.json": b"{}",
    "pytorch_model.bin": b"3",
    "model.fp16.safetensors": b"4",
    "tf_model.h5": b"5",
    "training_args.bin": b"6",
}
POOLED = {"modules.json": b"[]", "1_Pooling/config.json": b"{}"}
REPOSITORIES = {
    "an/encoder": Repository({"main": SAFE | FORMATS | POOLED, "v1": SAFE | {"config.json": b'{"v": 1}'}}),
    "a/sharded": Repository({"main": SMALL | SHARDS | FORMATS | {"model.safetensors.index.json": INDEX.encode()}}),
    "with/request": Repository({"main": PICKLED, "refs/pr/9": PICKLED | {"x.txt": b""}, "refs/pr/10": SAFE, "refs/pr/2": SAFE}),
    "with/conversion": Repository({"main": PICKLED, "refs/pr/1": SAFE, "refs/convert/safetensors": SAFE}),
    "many/requests": Repository({"main": PICKLED} | {f"refs/pr/{i}": PICKLED | {"n.txt": b"%d" % i} for i in range(50)}),
    "only/pickles": Repository({"main": PICKLED}),
    "other/format": Repository({"main": SMALL | {"tf_model.h5": b""}}),
    "behind/gate": Repository({"main": SAFE}, gated=True),
    "old/name": Repository({}, renamed_to="an/encoder"),
}  # fmt: skip
PROGRAM = """
import json, pathlib, sys
from xlkd.errors import UserError
from xlkd.hub import MODEL, list_commits
from xlkd.models import hub

for name, revision in json.loads(sys.argv[1]):
    try:
        folder, commit = hub.resolve(name, revision)
        answer = [str(folder), commit, sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())]
    except UserError as error:
        answer = str(error)
    print(json.dumps(answer))
print(json.dumps(list_commits(MODEL)))
"""


@pytest.fixture(scope="module")
def server():
    with HubServer(REPOSITORIES) as server:
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


def ask(requests, server, home, **environment):
    """Resolves models in another process, with the server as its hub; returns the answers and standard error."""
    return run_with_hub(PROGRAM, requests, server, home, **environment)


@pytest.fixture(scope="module")
def answers(server, home):
    """Resolves every model once; returns the answers by name and revision, the commits, and standard error."""
    requests = [
        *((name, None) for name in REPOSITORIES),
        ("an/encoder", "v1"),
        ("an/encoder", "v2"),
        ("no/model", None),
    ]
    requests += [("with/request", "refs/pr/10")]
    (*lines, commits), error = ask(requests, server, home)
    return dict(zip(requests, lines, strict=True)), commits, error


def test_one_revision_is_downloaded_with_its_weights_and_no_other_format(answers):
    folder, commit, names = answers[0]["an/encoder", None]
    assert commit == make_commit(REPOSITORIES["an/encoder"].revisions["main"]) == pathlib.Path(folder).name
    assert names == sorted([*SAFE, *POOLED])
    _, commit, names = answers[0]["an/encoder", "v1"]
    assert (commit, names) == (make_commit(REPOSITORIES["an/encoder"].revisions["v1"]), sorted(SAFE))


def test_all_shards_are_downloaded_and_nothing_else(answers, server):
    _, _, names = answers[0]["a/sharded", None]
    assert names == sorted([*SMALL, *SHARDS, "model.safetensors.index.json"])
    assert not [path for path in server.asked if "/resolve/" in path and path.endswith((".bin", ".onnx", ".h5"))]


def test_commits_are_listed_by_name_and_revision(answers):
    commits = answers[1]
    assert commits["an/encoder@v1"] == make_commit(REPOSITORIES["an/encoder"].revisions["v1"])
    assert commits["a/sharded"] == make_commit(REPOSITORIES["a/sharded"].revisions["main"])
    assert "only/pickles" not in commits


@pytest.mark.parametrize(
    ("name", "messages"),
    [
        ("with/request", ["has only pickles", "its revision refs/pr/10 has safetensors"]),
        ("with/conversion", ["has only pickles", "its revision refs/convert/safetensors has safetensors"]),
        ("only/pickles", ["has only pickles", "convert them, if you trust them"]),
        ("many/requests", ["has only pickles", "convert them, if you trust them"]),
        ("other/format", ["has no weights in safetensors"]),
        ("behind/gate", ["is gated", "/behind/gate, then log in"]),
        ("no/model", ["the hub has no such model, or it is private", "hf auth login"]),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(answers, name, messages):
    answer = answers[0][name, None]
    assert isinstance(answer, str)
    assert answer.startswith(f"{name}: ")
    assert "\n" not in answer
    assert [message for message in messages if message not in answer] == []


def test_few_revisions_are_searched_and_no_pickle_is_downloaded(answers, server):
    searched = [path for path in server.asked if path.startswith("GET /api/models/many/requests/revision/")]
    assert [path.rpartition("/")[2] for path in searched] == [str(number) for number in range(49, 41, -1)]
    assert not [path for path in server.asked if "many/requests/resolve" in path]


def test_the_revision_that_a_refusal_names_can_be_loaded(answers):
    _, commit, names = answers[0]["with/request", "refs/pr/10"]
    assert (commit, names) == (make_commit(SAFE), sorted(SAFE))


def test_an_unknown_revision_is_named(answers):
    assert "an/encoder: the hub has no revision v2 of this model" in answers[0]["an/encoder", "v2"]


def test_a_renamed_model_is_loaded_and_its_new_name_is_shown(answers):
    folder, _, _ = answers[0]["old/name", None]
    assert folder == answers[0]["an/encoder", None][0]
    assert "note: old/name is called an/encoder on the hub now\n" in answers[2]


def test_without_the_hub_downloaded_revisions_are_found(answers, server, home):
    requests = [("an/encoder", None), ("an/encoder", "v1"), ("with/request", "refs/pr/10"), ("a/sharded", None)]
    requests += [("an/encoder", "v2"), ("behind/gate", None)]
    before = len(server.asked)
    (*lines, _), _ = ask(requests, server, home, HF_HUB_OFFLINE="1")
    assert lines[:4] == [answers[0][request] for request in requests[:4]]
    assert all("HF_HUB_OFFLINE is set and the model is not in the cache" in line for line in lines[4:])
    assert len(server.asked) == before


def test_an_interrupted_download_does_not_count_as_downloaded(server, home, tmp_path):
    snapshot = tmp_path / "hub" / "models--a--sharded" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors.index.json").write_text(INDEX)
    (snapshot / "model-00001-of-00002.safetensors").write_text("")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    (line, _), _ = ask([("a/sharded", None)], server, tmp_path, HF_HUB_OFFLINE="1")
    assert "the model is not in the cache" in line


def test_an_invalid_token_is_one_line(server, home):
    (line, _), _ = ask([("an/encoder", None)], server, home, HF_TOKEN="expired")
    assert "an/encoder: the hub refuses access (HTTP 401)" in line


@pytest.mark.parametrize("start", ["an/encoder", "package:multilingual"])
def test_a_stage_may_start_from_a_model_by_name(start):
    config = settings.read_config("configs/finetune.py")
    config = settings.apply_flags(config, [f"--config.start={start}", "--config.start_revision=v1"])
    stage = settings.read_stages(config)[0]
    settings.check_start(stage, ())
    assert (stage.start, stage.start_revision) == (start, "v1")


@pytest.mark.parametrize("start", ["typo", "runs/a/export", "./an/encoder", "/an/encoder"])
def test_what_cannot_be_the_name_of_a_model_is_refused_at_once(start):
    config = settings.apply_flags(settings.read_config("configs/finetune.py"), [f"--config.start={start}"])
    with pytest.raises(UserError, match="give a folder or a hub id OWNER/NAME"):
        settings.check_start(settings.read_stages(config)[0], ())


@pytest.mark.long
def test_a_run_starts_from_a_revision_and_records_its_commit(tmp_path, monkeypatch):
    folder = save_span_model(tmp_path / "model")
    files = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    repository = Repository({"main": files | {"note.txt": b""}, "v1": files})
    flags = [
        "--config=configs/gxlt.py",
        "--config.start=an/encoder",
        "--config.start_revision=v1",
        "--config.stages=zs",
    ]
    flags += [
        "--config.zs.budget.steps=1",
        "--config.zs.budget.epochs=0",
        "--config.data.train=atlas?split=train&languages=en&size=8",
    ]
    flags += [
        "--config.task.max_length=64",
        "--config.task.doc_stride=16",
        "--config.data.eval=",
        "--config.data.batch=4",
        f"--workdir={tmp_path / 'run'}",
    ]
    with HubServer({"an/encoder": repository}) as server:
        for name, value in {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home")}.items():
            monkeypatch.setenv(name, value)
        wrong = run_command("main", *flags[:2], "--config.start_revision=v2", *flags[3:], cache=tmp_path / "cache")
        assert wrong.returncode == 2, wrong.stderr
        assert "no revision v2" in wrong.stderr
        assert not (tmp_path / "run" / "stages").exists()
        process = run_command("main", *flags, cache=tmp_path / "cache")
    assert process.returncode == 0, process.stderr
    commit, stage = make_commit(files), tmp_path / "run" / "stages" / "01-zs"
    assert json.loads((stage / "stage.json").read_text())["commit"] == commit
    assert commit in (stage / "export" / "README.md").read_text()
    assert json.loads((stage / "export" / "xlkd.json").read_text())["base"]["revision"] == commit
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["models"] == {"an/encoder@v1": commit}
    assert f"an/encoder at commit {commit}" in (tmp_path / "run" / "report.html").read_text()
