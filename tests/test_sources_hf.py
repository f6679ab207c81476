# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Data sets of the hub, which a server on this machine stands in for: which files are read, and what is refused."""

import io
import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import HubServer, Repository, make_commit, run_with_hub
from toy_models import ROOT, run_command

from xlkd import hub
from xlkd.data import sources
from xlkd.data.sources import _layout
from xlkd.train import run

CONVERTED = "refs/convert/parquet"
GIT = {".gitattributes": b"*.parquet filter=lfs\n"}
CARD = b"""---
license: cc-by-4.0
configs:
- config_name: en
  data_files:
  - split: train
    path: texts/en-a*.parquet
  - split: test
    path: [texts/en-test.parquet]
- config_name: de
  data_files: {train: texts/de.parquet}
---
"""


def pack(columns):
    """Returns a parquet file of these columns."""
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def make_texts(language, numbers):
    numbers = list(numbers)
    return {
        "id": [str(number) for number in numbers],
        "text": [f"{language} text {number}" for number in numbers],
        "label": ["ab"[number % 2] for number in numbers],
    }


def make_questions(language, numbers):
    numbers = list(numbers)
    return {
        "id": [f"q{number}" for number in numbers],
        "context": [f"{language} context {number // 2} of Anna" for number in numbers],
        "question": [f"{language} who {number}?" for number in numbers],
        "answers": [{"text": ["Anna"], "answer_start": [len(f"{language} context {n // 2} of ")]} for n in numbers],
    }


def make_pairs(language):
    numbers = range(6)
    return {
        "premise": [f"{language} premise {number // 3}" for number in numbers],
        "hypothesis": [f"{language} hypothesis {number}" for number in numbers],
        "label": [("entailment", "neutral", "contradiction")[number % 3] for number in numbers],
    }


SHARDS = {f"data/train-0000{n}-of-00003.parquet": pack(make_texts("sw", range(4 * n, 4 * n + 4))) for n in range(3)}
LANGUAGES = ("en", "de", "zh")
REPOSITORIES = {
    "datasets/an/described": Repository({
        "main": GIT | {
            "README.md": CARD,
            "texts/en-a1.parquet": pack(make_texts("en", range(3))),
            "texts/en-a2.parquet": pack(make_texts("en", range(3, 5))),
            "texts/en-test.parquet": pack(make_texts("en", [7])),
            "texts/de.parquet": pack(make_texts("de", range(4))),
        },
        "v1": GIT | {"train.parquet": pack(make_texts("en", [9]))},
    }),
    "datasets/in/shards": Repository({"main": GIT | SHARDS | {"data/test-00000-of-00001.parquet": pack(make_texts("sw", [99]))}}),
    "datasets/of/questions": Repository({
        "main": GIT | {"xquad.py": b"raise SystemExit", "README.md": b"---\nlicense: mit\n---\n"},
        CONVERTED: GIT | {f"xquad.{tag}/validation/0000.parquet": pack(make_questions(tag, range(4))) for tag in LANGUAGES},
    }),
    "datasets/partly/converted": Repository({
        "main": GIT | {"a.jsonl": b""},
        CONVERTED: GIT | {"default/partial-train/0000.parquet": pack(make_texts("en", range(2)))},
    }),
    "datasets/two/configs": Repository({
        "main": GIT | {f"{name}/train-00000-of-00001.parquet": pack(make_texts("en", [1])) for name in ("cola", "rte")},
    }),
    "datasets/x/xnli": Repository({
        "main": GIT | {f"{tag}/validation-00000-of-00001.parquet": pack(make_pairs(tag)) for tag in ("de", "en")},
    }),
    "datasets/only/scripts": Repository({"main": GIT | {"load.py": b"", "a.json": b"", "b.json": b""}}),
    "datasets/behind/gate": Repository({"main": GIT | SHARDS}, gated=True),
    "datasets/old/name": Repository({}, renamed_to="datasets/in/shards"),
    "datasets/with/cut": Repository({"main": GIT | SHARDS}, cuts={"data/train-00001-of-00003.parquet": 1}),
    "datasets/always/cut": Repository({"main": GIT | SHARDS}, cuts={"data/train-00001-of-00003.parquet": 1000}),
}  # fmt: skip
PROGRAM = """
import json, sys
from xlkd.errors import UserError
from xlkd.data import sources
from xlkd.hub import DATA_SET, list_commits

for text, task in json.loads(sys.argv[1]):
    try:
        rows = sources.read(text, task)
        texts = [getattr(row, "text", None) or row.question for row in rows]
        answer = [texts, [row.key for row in rows], [row.group for row in rows], rows.notes, rows.compute_hash()]
    except UserError as error:
        answer = str(error)
    print(json.dumps(answer))
print(json.dumps(list_commits(DATA_SET)))
"""


@pytest.fixture(scope="module")
def server():
    with HubServer(REPOSITORIES) as server:
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


def ask(requests, server, home, **environment):
    """Reads sources in another process, with the server as its hub; returns the answers and standard error."""
    requests = [(text, "qa" if "questions" in text else "classify") for text in requests]
    return run_with_hub(PROGRAM, requests, server, home, HF_HUB_DISABLE_PROGRESS_BARS="1", **environment)


READ = [
    "hf:an/described?config=en&split=train",
    "hf:an/described?config=en&split=test",
    "hf:an/described?languages=de&split=train",
    "hf:an/described?languages=de,en&split=train&limit=2",
    "hf:an/described?revision=v1&languages=en",
    "hf:in/shards?split=train&languages=sw",
    "hf:in/shards?split=test&languages=sw+hf:an/described?config=de",
    "hf:of/questions?languages=de,zh",
    "hf:of/questions?languages=zh&split=dev",
    "hf:partly/converted?languages=en",
    "hf:old/name?split=test&languages=sw",
    "hf:with/cut?languages=sw",
    "hf:x/xnli?languages=de,en",
]
REFUSED = {
    "hf:an/described?config=fr": ["no config fr", "there are en, de"],
    "hf:an/described?split=train": ["2 configs: en, de", "config=NAME, or some with languages=A,B"],
    "hf:an/described?languages=fr": ["no config for fr"],
    "hf:an/described?config=en": ["config en has 2 splits: train, test; choose one with split=NAME"],
    "hf:an/described?config=en&split=dev": ["config en has no split dev"],
    "hf:two/configs?languages=en": ["2 configs: cola, rte; choose one with config=NAME"],
    "hf:only/scripts": ["has no parquet files, neither its own nor converted by the hub (its files: .json, .py)"],
    "hf:behind/gate?languages=sw": ["is gated", "/datasets/behind/gate, then log in"],
    "hf:no/such": ["the hub has no such data set, or it is private", "hf auth login"],
    "hf:an/described?revision=v9": ["an/described: the hub has no revision v9 of this data set"],
    "hf:./folder": ["not the name of a data set", "parquet:"],
    "hf:an/described?splits=train": ["unknown option 'splits'", "did you mean 'split'?"],
}


@pytest.fixture(scope="module")
def answers(server, home):
    """Reads and refuses everything once; returns the answers by source, the commits, and standard error."""
    (*lines, commits), error = ask([*READ, *REFUSED], server, home)
    return dict(zip([*READ, *REFUSED], lines, strict=True)), commits, error


@pytest.fixture(autouse=True)
def name_unexpected_errors(answers):
    assert [answer for text, answer in answers[0].items() if text in READ and isinstance(answer, str)] == []


def test_configs_and_splits_are_those_of_the_card(answers):
    texts = answers[0]["hf:an/described?config=en&split=train"][0]
    assert texts == [f"en text {number}" for number in range(5)]
    assert answers[0]["hf:an/described?config=en&split=test"][0] == ["en text 7"]


def test_configs_that_are_languages_are_chosen_by_the_option_in_its_order(answers):
    texts, keys, groups, *_ = answers[0]["hf:an/described?languages=de,en&split=train&limit=2"]
    assert texts == ["de text 0", "de text 1", "en text 0", "en text 1"]
    assert groups[:2] == groups[2:], "rows with the same id are a group"
    alone = answers[0]["hf:an/described?languages=de&split=train"]
    assert alone[1][:2] == keys[:2], "a row has the same key whatever languages are read with it"
    assert answers[0]["hf:an/described?config=en&split=train"][1][:2] == keys[2:]


def test_rows_of_a_known_data_set_are_those_of_its_folder(answers, tmp_path):
    for tag in ("de", "en"):
        rows = zip(*make_pairs(tag).values(), strict=True)
        (tmp_path / f"dev-{tag}.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    rows = sources.read(f"xnli:{tmp_path}?split=dev&languages=de,en", "classify")
    texts, keys, groups, *_ = answers[0]["hf:x/xnli?languages=de,en"]
    assert [(row.text, row.key, row.group) for row in rows] == list(zip(texts, keys, groups, strict=True))


def test_check_names_the_commit(server, home, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    flags = ["--task=classify", "--data=hf:in/shards?split=dev&languages=sw+hf:an/described?config=de"]
    process = run_command("check", *flags, cache=tmp_path)
    assert process.returncode == 2
    assert "hf:in/shards?split=dev&languages=sw: config default has no split dev; there are" in process.stderr
    commit = make_commit(REPOSITORIES["datasets/an/described"].revisions["main"])
    assert process.stdout.startswith(f"classify: 4 rows, 1 faults\nnote: hf:an/described: commit {commit}\n")


def test_all_shards_are_read_in_order(answers):
    assert answers[0]["hf:in/shards?split=train&languages=sw"][0] == [f"sw text {number}" for number in range(12)]


def test_converted_files_are_read_where_a_data_set_has_no_parquet_files(answers):
    texts, _, groups, notes, _ = answers[0]["hf:of/questions?languages=de,zh"]
    assert texts == [f"{tag} who {number}?" for tag in ("de", "zh") for number in range(4)]
    assert groups[:4] == groups[4:]
    assert len(set(groups)) == 2
    commit = make_commit(REPOSITORIES["datasets/of/questions"].revisions[CONVERTED])
    assert notes == [f"hf:of/questions: commit {commit}, converted by the hub"]
    assert answers[0]["hf:of/questions?languages=zh&split=dev"][0] == texts[4:]


def test_a_partial_conversion_is_noted(answers):
    notes = answers[0]["hf:partly/converted?languages=en"][3]
    assert notes[1] == "hf:partly/converted default/train: the hub has converted only the beginning"


def test_a_revision_is_read_and_commits_are_listed(answers):
    assert answers[0]["hf:an/described?revision=v1&languages=en"][0] == ["en text 9"]
    commits = answers[1]
    revisions = REPOSITORIES["datasets/an/described"].revisions
    assert commits["an/described"] == make_commit(revisions["main"])
    assert commits["an/described@v1"] == make_commit(revisions["v1"])
    assert commits["of/questions"] == make_commit(REPOSITORIES["datasets/of/questions"].revisions[CONVERTED])
    assert "only/scripts" not in commits


def test_sources_are_joined(answers):
    texts = answers[0]["hf:in/shards?split=test&languages=sw+hf:an/described?config=de"][0]
    assert texts == ["sw text 99", *(f"de text {number}" for number in range(4))]


def test_a_renamed_data_set_is_read_and_its_new_name_is_shown(answers):
    assert answers[0]["hf:old/name?split=test&languages=sw"][0] == ["sw text 99"]
    assert "note: old/name is called in/shards on the hub now\n" in answers[2]


def test_a_cut_download_is_continued_and_all_rows_are_read(answers):
    assert answers[0]["hf:with/cut?languages=sw"][0] == answers[0]["hf:in/shards?split=train&languages=sw"][0]


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line(answers, text):
    answer = answers[0][text]
    assert isinstance(answer, str)
    assert "\n" not in answer
    assert [message for message in REFUSED[text] if message not in answer] == []


@pytest.mark.parametrize("without", ["offline", "unreachable"])
def test_without_the_hub_what_was_downloaded_is_found(answers, server, home, without):
    readable = [text for text in READ if "old/name" not in text]
    missing = ["hf:an/described?revision=v9", "hf:behind/gate?languages=sw", "hf:two/configs?config=rte&languages=en"]
    same = ["hf:an/described?split=train", "hf:an/described?config=en"]
    environment = {"HF_HUB_OFFLINE": "1"} if without == "offline" else {"HF_ENDPOINT": "http://127.0.0.1:9"}
    before = len(server.asked)
    (*lines, commits), _ = ask([*readable, *same, *missing], server, home, **environment)
    assert lines[: -len(missing)] == [answers[0][text] for text in [*readable, *same]]
    assert all("and the data set is not in the cache; start again with a network" in line for line in lines[-3:])
    assert "an/described" in lines[-1]
    assert commits["of/questions"] == answers[1]["of/questions"]
    assert len(server.asked) == before


@pytest.mark.long
def test_a_download_that_is_always_cut_is_one_line_and_leaves_no_half_file(server, tmp_path):
    text = "hf:always/cut?languages=sw"
    repository = REPOSITORIES["datasets/always/cut"]
    (line, _), _ = ask([text], server, tmp_path)
    assert "always/cut: the hub cannot be reached, or the connection broke (" in line
    (line, _), _ = ask([text], server, tmp_path, HF_HUB_OFFLINE="1")
    assert "the data set is not in the cache" in line, "the other shards are, but they are not all"
    repository.cuts.clear()
    before = len(server.asked)
    (answer, _), _ = ask([text], server, tmp_path)
    assert answer[0] == [f"sw text {number}" for number in range(12)]
    downloads = [line for line in server.asked[before:] if line.startswith("GET /datasets") and "parquet" in line]
    assert len(downloads) == 1, "complete shards are not downloaded again"


def test_only_what_is_read_is_downloaded_and_the_machine_is_not_part_of_keys(answers, server, tmp_path):
    text, before = "hf:in/shards?split=train&languages=sw", len(server.asked)
    (answer, _), _ = ask([text], server, tmp_path)
    assert answer == answers[0][text]
    downloads = {line.rpartition("/")[2] for line in server.asked[before:] if line.startswith("GET /datasets/")}
    assert downloads == {".gitattributes", *(name.partition("/")[2] for name in SHARDS)}


def test_every_process_reads_the_commit_that_process_0_resolved(server, home):
    """Between two requests a branch of the hub may get another commit."""
    program = """
import sys, types
from xlkd.data import sources
from xlkd.inputs import data
data.distributed.broadcast_from_primary = lambda name, function: sys.argv[1]
text = "hf:an/described?languages=en"
settings = types.SimpleNamespace(data=types.SimpleNamespace(**dict.fromkeys(data.SETS, ""), train=text))
settings.teacher = types.SimpleNamespace(vectors="")
data.check_sources_exist(settings)
print(*(row.text for row in sources.read(text, "classify")))
"""
    commit = make_commit(REPOSITORIES["datasets/an/described"].revisions["v1"])
    environment = {"PATH": "/usr/bin", "PYTHONPATH": str(ROOT), "HF_HOME": str(home), "HF_ENDPOINT": server.url}
    command = [sys.executable, "-c", program, commit]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert process.stdout == "en text 9\n", process.stderr


@pytest.mark.parametrize(
    ("names", "configs"),
    [
        (["train.parquet", "dev.parquet"], {"default": {"validation": ["dev.parquet"], "train": ["train.parquet"]}}),
        (["a/train/0000.parquet"], {"a": {"train": ["a/train/0000.parquet"]}}),
        (["test/part-2.parquet", "test/part-10.parquet"], {"default": {"test": ["test/part-2.parquet", "test/part-10.parquet"]}}),
        (["data/x-00000-of-00001-0a1b.parquet"], {"default": {"x": ["data/x-00000-of-00001-0a1b.parquet"]}}),
        (["a/b.parquet", "c.csv"], {"a": {"train": ["a/b.parquet"]}}),
    ],
)  # fmt: skip
def test_without_a_card_names_tell_config_and_split(names, configs):
    inferred = _layout.find_configs(names, {})
    assert {name: {split: [*files] for split, files in splits.items()} for name, splits in inferred.items()} == configs


@pytest.mark.parametrize(
    "card",
    [
        {"configs": 3},
        {"configs": [None, "x", {"config_name": ["a"], "data_files": None}]},
        {"configs": [{"data_files": [{"path": 1, "split": None}, 4, {"path": [["x"], {"path": "[z-a]*"}]}]}]},
        {"configs": [{"data_dir": 5, "default": "yes"}]},
    ],
)
def test_a_strange_card_is_no_failure(card):
    assert isinstance(_layout.find_configs(["data/train.parquet"], card), dict)
    assert _layout.find_default(card) == ""


def test_a_name_on_the_hub_is_no_path():
    assert sources.list_paths("hf:an/described?config=en+hf:in/shards") == []


def test_a_run_that_has_begun_keeps_the_commits_that_it_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "_COMMITS", {})
    record = {"data_sets": {"an/described@v1": "0" * 40}, "models": {"a/model": "not a commit"}}
    (tmp_path / "environment.json").write_text(json.dumps(record))
    run.restore_commits(tmp_path, print)
    assert hub.list_commits(hub.DATA_SET) == {}, "nothing was trained yet"
    (tmp_path / "stages" / "01-one" / "checkpoints" / "2").mkdir(parents=True)
    run.restore_commits(tmp_path, print)
    assert hub.find_commit(hub.Repository("an/described", "v1", hub.DATA_SET)) == "0" * 40
    assert run.list_commits() == {"models": {}, "data_sets": record["data_sets"]}


@pytest.mark.long
def test_a_run_records_commits_and_resumes_with_them(tmp_path, monkeypatch):
    flags = ["--config=configs/finetune.py:classify", "--config.budget.steps=2", "--config.budget.epochs=0"]
    flags += ["--config.data.train=hf:in/shards?split=train&languages=sw", "--config.task.max_length=32"]
    flags += ["--config.data.eval=hf:of/texts?languages=de", "--config.data.batch=4", "--config.data.buckets=1"]
    flags += ["--config.save.every=1", f"--workdir={tmp_path / 'run'}"]
    texts = GIT | {"README.md": b"---\nlicense: cc-by-4.0\n---\n"}
    files = {"refs/convert/parquet": GIT | {"x/test/0000.parquet": pack(make_texts("de", range(6)))}, "main": texts}
    repositories = {"datasets/in/shards": Repository({"main": GIT | SHARDS}), "datasets/of/texts": Repository(files)}
    commits = {"in/shards": make_commit(GIT | SHARDS), "of/texts": make_commit(files[CONVERTED])}
    with HubServer(repositories) as server:
        for name, value in {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home")}.items():
            monkeypatch.setenv(name, value)
        wrong = run_command("main", *flags, "--config.data.eval=hf:of/texts?split=dev", cache=tmp_path / "cache")
        assert (wrong.returncode, "has no split dev" in wrong.stderr) == (2, True), wrong.stderr
        assert not (tmp_path / "run" / "stages").exists()
        process = run_command("main", *flags, cache=tmp_path / "cache")
        assert process.returncode == 0, process.stderr
        stage = tmp_path / "run" / "stages" / "01-finetune"
        for name in ("done", "stage.json"):
            (stage / name).unlink()
        repositories["datasets/in/shards"].revisions |= {"main": GIT, "earlier": GIT | SHARDS}
        process = run_command("main", *flags, cache=tmp_path / "cache")
    assert process.returncode == 0, process.stderr
    assert f"in/shards of the hub is read at commit {commits['in/shards']}, as when this run began" in process.stdout
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["data_sets"] == commits
    card = (stage / "export" / "README.md").read_text()
    assert f"`hf:of/texts?languages=de`, revision `{commits['of/texts']}`; licence: `cc-by-4.0`" in card
    assert f"in/shards at commit <code>{commits['in/shards']}" in (tmp_path / "run" / "report.html").read_text()
    assert commits["of/texts"] in json.loads((stage / "data_report.json").read_text())["eval"]["notes"][0]
