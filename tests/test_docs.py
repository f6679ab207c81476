# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""README and docs say what is so: links, commands, code, names of functions and messages are held against the source."""

import ast
import functools
import importlib
import importlib.util
import itertools
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
from typing import NamedTuple

import pytest

from xlkd import settings
from xlkd.data import sources

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "launch").glob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
EXTEND = ROOT / "docs" / "extend.md"
ERRORS = ROOT / "docs" / "errors.md"


class Block(NamedTuple):
    kind: str
    title: str
    text: str


def blocks(page: pathlib.Path) -> list[Block]:
    found, kind, title, lines = [], None, "", []
    for line in page.read_text(encoding="utf-8").splitlines():
        fence = re.match(r"\s*```(\w*)(?: title=\"([^\"]+)\")?\s*$", line)
        if kind is None and fence:
            kind, title, lines = fence[1], fence[2] or "", []
        elif kind is not None and line.strip() == "```":
            found.append(Block(kind, title, "\n".join(lines) + "\n"))
            kind = None
        elif kind is not None:
            lines.append(line)
    assert kind is None, f"{page}: a block is never closed"
    return found


def prose(page: pathlib.Path) -> str:
    return re.sub(r"^\s*```.*?^\s*```\s*$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def unpack(page: pathlib.Path, folder: pathlib.Path) -> None:
    """The files that a page shows with a title."""
    for block in blocks(page):
        if block.title and block.kind != "diff":
            (folder / block.title).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.title).write_text(block.text, encoding="utf-8")


# Links


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page):
    text = re.sub(r"`[^`]*`", "", prose(page))
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, anchor = target.partition("#")
        meant = (page.parent / name).resolve() if name else page
        if ":" in target:
            continue
        if not meant.exists() or (anchor and anchor not in anchors(meant)):
            dead.append(target)
    assert not dead


def anchors(page: pathlib.Path) -> set[str]:
    """What a heading is called in a link, on GitHub and on the site."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower().replace("`", "")).strip().replace(" ", "-") for title in titles}


def test_every_page_is_reached_from_the_readme():
    reached = set(re.findall(r"\]\(docs/([\w-]+\.md)", (ROOT / "README.md").read_text(encoding="utf-8")))
    for page in list(reached):
        reached |= set(re.findall(r"\]\(([\w-]+\.md)", (ROOT / "docs" / page).read_text(encoding="utf-8")))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} <= reached


def test_the_site_builds_strictly(tmp_path):
    if not importlib.util.find_spec("mkdocs"):
        pytest.skip("mkdocs is not installed (pip install '.[docs]')")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    build(load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(tmp_path)))
    assert (tmp_path / "index.html").exists()
    assert len(list(tmp_path.glob("*.html"))) > len(PAGES) - 2


# Commands


def commands(page: pathlib.Path) -> list[list[str]]:
    """Every `python -m xlkd.…`, in blocks and in running text, as the command gets it."""
    shown = [line for b in blocks(page) if b.kind in ("", "sh") for line in b.text.replace("\\\n", " ").splitlines()]
    shown += re.findall(r"`(python -m xlkd[^`]*)`", prose(page)) + re.findall(
        r"^ {4}(.*python -m xlkd.*)$", prose(page), re.M
    )
    found = []
    for line in shown:
        if command := re.search(r"python -m xlkd\.(.*)", re.sub(r" \[[^\]]*\]", "", line)):
            words = shlex.shlex(command[1], posix=True, punctuation_chars=";<>|")
            words.whitespace_split = True
            found.append(list(itertools.takewhile(lambda word: not set(word) <= set(";<>|"), words)))
    return found


ALL = [(page, command) for page in PAGES for command in commands(page)]


@pytest.mark.parametrize(
    ("page", "command"), ALL, ids=[f"{page.name}-{i}-{command[0]}" for i, (page, command) in enumerate(ALL)]
)
def test_commands_are_understood(page, command, tmp_path, monkeypatch):
    unpack(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    module, *flags = [word for word in command if "…" not in word]
    assert importlib.util.find_spec(f"xlkd.{module}"), f"no command {module}"
    given = dict(flag.removeprefix("--").partition("=")[::2] for flag in flags if flag.startswith("--"))
    if "config" in given:
        understood(given, [flag for flag in flags if flag.startswith("--config.")], page)
    known = set(re.findall(r"--([a-z_]+)", importlib.import_module(f"xlkd.{module}").__doc__)) | {"help"}
    assert {name for name in given if not name.startswith("config.")} <= known
    if "data" in given:
        read_or_named(given["data"], page)
    if module == "check" and list(tmp_path.glob(re.sub(r"^\w+:|\?.*", "", given["data"]) + "*")) and page != EXTEND:
        assert importlib.import_module("xlkd.check").main(flags) in (0, None)


def understood(given: dict[str, str], overrides: list[str], page: pathlib.Path) -> None:
    if given["config"].startswith("runs/") or page == EXTEND:  # what a run recorded, and what another test runs
        return
    config = settings.read_config(given["config"])
    stages = config.stages
    config = settings.apply_flags(config, overrides)
    assert set(config.stages) <= set(stages)
    assert settings.read_stages(config)
    for key in ("train", "eval", "retrieval", "alignment"):
        if source := config.data.get(key):
            read_or_named(source, page)


def read_or_named(source: str, page: pathlib.Path) -> None:
    """Every source is known, or shown on the page; the embedded one also knows its options."""
    shown = {pathlib.Path(block.title).stem for block in blocks(page)}
    if source == "SOURCE" or source.partition(":")[0] in shown:
        return
    for spec in sources.parse(source):
        if spec.name == "atlas":
            assert any(
                len(sources.read_source(spec, task, sources.BadRows()))
                for task in sources.list_tasks(spec)
                if fits(spec, task)
            )


def fits(spec: sources.Spec, task: str) -> bool:
    from xlkd.errors import UserError

    try:
        sources.read_source(spec, task, sources.BadRows())
    except UserError:
        return False
    return True


# Code


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """What the pages call `DIR` and so on: a model that answers, and one that labels."""
    from mblm_toys import export_student
    from toy_models import RECORD, save_span_model

    folder = tmp_path_factory.mktemp("models")
    return {
        "DIR": save_span_model(folder / "qa", RECORD),
        ".../export/branches": export_student(folder / "labels") / "branches",
    }


RUN = [(page, block) for page in PAGES for block in blocks(page) if block.kind == "python" and not block.title]


@pytest.mark.parametrize(("page", "block"), RUN, ids=[f"{page.name}-{i}" for i, (page, _) in enumerate(RUN)])
def test_python_runs(page, block, models, tmp_path, monkeypatch):
    import numpy as np

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XLKD_CACHE", str(models["DIR"].parent / "cache"))
    text = block.text
    for shown, folder in models.items():
        text = text.replace(f'"{shown}"', repr(str(folder)))
    ids = np.ones((2, 16), np.int32)
    exec(compile(text, page.name, "exec"), {"ids": ids, "mask": ids, "types": 0 * ids})


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the package with everything that docs/extend.md adds to it."""
    folder = tmp_path_factory.mktemp("extended")
    for room in ("xlkd", "configs"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "xlkd" / "configs").symlink_to("../configs")
    unpack(EXTEND, folder)
    for block in blocks(EXTEND):
        if block.kind == "diff":
            before, after = (
                "".join(f"{line[1:]}\n" for line in block.text.splitlines() if line[0] in of) for of in (" -", " +")
            )
            text = (folder / block.title).read_text(encoding="utf-8")
            assert text.count(before) == 1, f"{block.title} no longer holds {before!r}"
            (folder / block.title).write_text(text.replace(before, after), encoding="utf-8")
    return folder


def save_data2vec(folder):
    """Saves a small random Data2Vec text encoder with a head for questions."""
    torch = pytest.importorskip("torch")
    from transformers import Data2VecTextConfig, Data2VecTextForQuestionAnswering

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = Data2VecTextConfig(vocab_size=97, max_position_embeddings=40, type_vocab_size=1, **sizes)
    Data2VecTextForQuestionAnswering(config).save_pretrained(folder / "model")
    return folder / "model"


@pytest.mark.parametrize("number", range(len(commands(EXTEND))), ids=lambda i: commands(EXTEND)[i][0])
def test_a_new_source_metric_method_and_encoder_family_work_as_shown(extended, number, tmp_path):
    module, *flags = commands(EXTEND)[number]
    if module == "main":
        flags.append("--config.stages=twice")  # the page's other stage is compared with it, and costs as much again
    if module == "parity":
        flags = [f"--model={save_data2vec(tmp_path)}"]  # the page names a model of the hub
    environment = {"PYTHONPATH": str(extended), "XLKD_CACHE": str(extended / "cache"), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", f"xlkd.{module}", *flags],
        cwd=extended,
        env=os.environ | environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    if module == "main":
        results = (extended / "runs" / "twice" / "results.json").read_text(encoding="utf-8")
        assert '"inside"' in results
        assert "quiz" in results


# Names and messages


def test_the_names_on_the_page_of_the_architecture_stand_where_it_says():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py)` `([\w.]+)`", page)
    assert len(named) > 40
    missing = []
    for file, name in named:
        path = ROOT / file if file.startswith("configs/") else ROOT / "xlkd" / file
        if not path.exists() or name not in defined(ast.parse(path.read_text(encoding="utf-8"))):
            missing.append(f"{file} {name}")
    assert not missing


def defined(tree: ast.AST, prefix: str = "") -> set[str]:
    found = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found |= {prefix + node.name}
            if isinstance(node, ast.ClassDef):
                found |= defined(node, f"{prefix}{node.name}.")
    return found


def test_every_message_has_its_cause_and_cure():
    said, patterns = messages(), listed()
    unknown = sorted(text for text in said if not any(pattern.fullmatch(text) for pattern in patterns.values()))
    assert not unknown, "say in docs/errors.md why they come and what to do"


def test_no_message_is_explained_that_nobody_says():
    said = messages()
    assert not [name for name, pattern in listed().items() if not any(pattern.fullmatch(text) for text in said)]


def listed() -> dict[str, re.Pattern]:
    """Messages of the page by what they match: an ellipsis may stand for any text where two words are left to go by."""
    rows = re.findall(r"^\| `(.+?)` \| ", ERRORS.read_text(encoding="utf-8"), re.M)
    assert len(rows) == len(set(rows))
    any_text = {row: ".*" if len(re.findall(r"[a-zA-Z]{2,}", row)) > 1 else "…" for row in rows}
    return {row: re.compile(any_text[row].join(map(re.escape, row.split("…")))) for row in rows}


@functools.cache
def messages() -> set[str]:
    """What errors, refusals and faults of rows say, an ellipsis where a value stands."""
    found = set()
    for file in (ROOT / "xlkd").rglob("*.py"):
        for function in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef):
                found |= set(
                    itertools.chain.from_iterable(texts(said, assigned(function)) for said in sayings(function))
                )
    return {text for text in found if text.strip("…")}


def sayings(function: ast.FunctionDef) -> list[ast.expr]:
    found = []
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            found += node.args[:1] if name in ("UserError", "refusal", "report", "leave_out") else []
            found += [keyword.value for keyword in node.keywords if keyword.arg == "fault"]
        if isinstance(node, ast.Return) and node.value and function.name.endswith("fault"):
            found.append(node.value)
    return found


def assigned(function: ast.FunctionDef) -> dict[str, list[ast.expr]]:
    """What the names of a function may stand for."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(function):
        for target in node.targets if isinstance(node, ast.Assign) else ():
            pairs = (
                zip(target.elts, node.value.elts, strict=True)
                if _paired(target, node.value)
                else [(target, node.value)]
            )
            for name, value in pairs:
                if isinstance(name, ast.Name):
                    found.setdefault(name.id, []).append(value)
    return found


def _paired(target: ast.expr, value: ast.expr) -> bool:
    return isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts)


def is_text(part: ast.expr) -> bool:
    """Of an f-string: what stands there, or the name of a text."""
    return isinstance(part, ast.Constant) or isinstance(getattr(part, "value", None), ast.Name)


def texts(node: ast.expr, names: dict[str, list[ast.expr]]) -> list[str]:
    """The texts that an expression may be; none where it was said elsewhere and is only handed on."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) and node.value else []
    if isinstance(node, ast.JoinedStr):
        parts = [
            texts(part if isinstance(part, ast.Constant) else part.value, names) if is_text(part) else ["…"]
            for part in node.values
        ]
        return ["".join(chosen) for chosen in itertools.product(*(part or ["…"] for part in parts))]
    if isinstance(node, ast.IfExp):
        return texts(node.body, names) + texts(node.orelse, names)
    if isinstance(node, ast.BoolOp):
        return [text for value in node.values for text in texts(value, names)]
    if isinstance(node, ast.BinOp):
        return [a + b for a in texts(node.left, names) for b in texts(node.right, names) or [""]]
    if isinstance(node, ast.Name):
        return [text for value in names.get(node.id, ()) for text in texts(value, {})]
    return []
