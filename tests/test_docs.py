# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""README and docs are correct: links, commands, code, names of functions and messages are compared with the source."""

import ast
import functools
import importlib
import importlib.util
import itertools
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
from typing import NamedTuple

import pytest
import toy_models

import xlkd
from xlkd import settings, spec
from xlkd.cli import COMMANDS
from xlkd.data import sources
from xlkd.spec import stage

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "launch").glob("*.md")), *NOTEBOOKS]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
EXTEND = ROOT / "docs" / "extend.md"
UNSEEN = ROOT / "docs" / "unseen-language.md"
ERRORS = ROOT / "docs" / "errors.md"


class Block(NamedTuple):
    kind: str
    title: str
    text: str


def load_hook(name: str):
    """Imports a module of docs/, which mkdocs runs."""
    module = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    hook = importlib.util.module_from_spec(module)
    module.loader.exec_module(hook)
    return hook


def read_page(page: pathlib.Path) -> str:
    """Returns the Markdown of a page; a notebook is read as the site shows it."""
    if page.suffix == ".ipynb":
        return load_hook("_notebooks").convert_notebook(page)
    return page.read_text(encoding="utf-8")


def read_blocks(page: pathlib.Path) -> list[Block]:
    code_blocks, kind, title, lines = [], None, "", []
    for line in read_page(page).splitlines():
        fence = re.match(r"\s*```(\w*)(?: title=\"([^\"]+)\")?\s*$", line)
        if kind is None and fence:
            kind, title, lines = fence[1], fence[2] or "", []
        elif kind is not None and line.strip() == "```":
            code_blocks.append(Block(kind, title, "\n".join(lines) + "\n"))
            kind = None
        elif kind is not None:
            lines.append(line)
    assert kind is None, f"{page}: a block is never closed"
    return code_blocks


def read_prose(page: pathlib.Path) -> str:
    return re.sub(r"^\s*```.*?^\s*```\s*$", "", read_page(page), flags=re.M | re.S)


def write_shown_files(page: pathlib.Path, folder: pathlib.Path) -> None:
    """Writes the files that a page shows with a title."""
    for block in read_blocks(page):
        if block.title and block.kind != "diff":
            (folder / block.title).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.title).write_text(block.text, encoding="utf-8")


# Links


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_have_a_target(page):
    text = re.sub(r"`[^`]*`", "", read_prose(page))
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, anchor = target.partition("#")
        linked_page = (page.parent / name).resolve() if name else page
        if ":" in target:
            continue
        if not linked_page.exists() or (anchor and anchor not in list_anchors(linked_page)):
            dead.append(target)
    assert not dead


def list_anchors(page: pathlib.Path) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub and the site generate them."""
    titles = re.findall(r"^#+ (.+)$", read_prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower().replace("`", "")).strip().replace(" ", "-") for title in titles}


def test_every_page_is_linked_from_the_readme():
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
    assert len(list(tmp_path.rglob("*.html"))) > len(PAGES) - 2
    assert "Answers a question by the best span of the context" in (tmp_path / "api.html").read_text(encoding="utf-8")
    for notebook in NOTEBOOKS:
        page = (tmp_path / "tutorials" / f"{notebook.stem}.html").read_text(encoding="utf-8")
        assert (tmp_path / "tutorials" / notebook.name).exists()
        assert f'href="{notebook.name}"' in page
        assert f'href="../{notebook.stem}.html' in page, "links lead to pages of the site"


# Commands


def list_commands(page: pathlib.Path) -> list[list[str]]:
    """Returns module and arguments of every `python -m xlkd.…` and `xlkd …` in code blocks and in running text."""
    shown = [
        line for b in read_blocks(page) if b.kind in ("", "sh") for line in b.text.replace("\\\n", " ").splitlines()
    ]
    shown += re.findall(r"`((?:python -m )?xlkd[. ][^`]*)`", read_prose(page)) + re.findall(
        r"^ {4}(.*python -m xlkd.*)$", read_prose(page), re.M
    )
    arguments = []
    for line in shown:
        if command := re.search(
            rf"python -m xlkd\.(.*)|\bxlkd ((?:{'|'.join(COMMANDS)})\b.*)", re.sub(r" \[[^\]]*\]", "", line)
        ):
            words = shlex.shlex(command[1] or command[2], posix=True, punctuation_chars=";<>|")
            words.whitespace_split = True
            name, *flags = itertools.takewhile(lambda word: not set(word) <= set(";<>|"), words)
            arguments.append([name if command[1] else COMMANDS[name], *flags])
    return arguments


ALL = [(page, command) for page in PAGES for command in list_commands(page)]


@pytest.mark.parametrize(
    ("page", "command"), ALL, ids=[f"{page.name}-{i}-{command[0]}" for i, (page, command) in enumerate(ALL)]
)
def test_commands_have_valid_flags_configs_and_data(page, command, tmp_path, monkeypatch):
    write_shown_files(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    module, *flags = [word for word in command if "…" not in word]
    assert importlib.util.find_spec(f"xlkd.{module}"), f"no command {module}"
    values = dict(flag.removeprefix("--").partition("=")[::2] for flag in flags if flag.startswith("--"))
    if "config" in values:
        check_config(values, [flag for flag in flags if flag.startswith("--config.")], page)
    known = set(re.findall(r"--([a-z_]+)", importlib.import_module(f"xlkd.{module}").__doc__)) | {"help"}
    assert {name for name in values if not name.startswith("config.")} <= known
    if "data" not in values:
        return
    check_source(values["data"], page)
    if module == "check" and list(tmp_path.glob(re.sub(r"^\w+:|\?.*", "", values["data"]) + "*")) and page != EXTEND:
        assert importlib.import_module("xlkd.check").main(flags) in (0, None)


def check_config(values: dict[str, str], overrides: list[str], page: pathlib.Path) -> None:
    if values["config"].startswith("runs/") or page == EXTEND:  # recorded by a run, or run by another test
        return
    config = settings.read_config(values["config"])
    stages = {*config.stages, *config.controls}
    config = settings.apply_flags(config, overrides)
    assert set(config.stages) <= stages
    assert settings.read_stages(config)
    for key in ("train", "eval", "retrieval", "alignment"):
        if source := config.data.get(key):
            check_source(source, page)


def check_source(source: str, page: pathlib.Path) -> None:
    """Checks that a source is known or shown on the page, and that options of the atlas are valid."""
    shown = {pathlib.Path(block.title).stem for block in read_blocks(page)}
    if source == "SOURCE" or source.partition(":")[0] in shown:
        return
    for part in sources.parse(source):
        if part.name == "atlas":
            assert any(
                len(sources.read_source(part, task, sources.BadRows()))
                for task in sources.list_tasks(part)
                if serves(part, task)
            )


def serves(source: sources.Source, task: str) -> bool:
    from xlkd.errors import UserError

    try:
        sources.read_source(source, task, sources.BadRows())
    except UserError:
        return False
    return True


# Code


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Returns models for the placeholders of the pages: one for question answering, one classifier."""
    from mblm_toys import export_student
    from toy_models import RECORD, save_span_model

    folder = tmp_path_factory.mktemp("models")
    return {
        "DIR": save_span_model(folder / "qa", RECORD),
        ".../export/branches": export_student(folder / "labels") / "branches",
    }


RUN = [(page, block) for page in PAGES for block in read_blocks(page) if block.kind == "python" and not block.title]


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
def extended_package(tmp_path_factory):
    """A copy of the package with everything that docs/extend.md adds to it."""
    folder = tmp_path_factory.mktemp("extended")
    for package_folder in ("xlkd", "configs"):
        shutil.copytree(ROOT / package_folder, folder / package_folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "xlkd" / "configs").symlink_to("../configs")
    write_shown_files(EXTEND, folder)
    for block in read_blocks(EXTEND):
        if block.kind == "diff":
            before, after = (
                "".join(f"{line[1:]}\n" for line in block.text.splitlines() if line[0] in signs)
                for signs in (" -", " +")
            )
            text = (folder / block.title).read_text(encoding="utf-8")
            assert text.count(before) == 1, f"{block.title} no longer contains {before!r}"
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


EXTEND_COMMANDS = [
    pytest.param(number, id=module, marks=pytest.mark.long if module == "parity" else ())
    for number, (module, *_) in enumerate(list_commands(EXTEND))
]


@pytest.mark.parametrize("number", EXTEND_COMMANDS)
def test_a_new_source_metric_method_and_encoder_family_work_as_shown(extended_package, number, tmp_path):
    module, *flags = list_commands(EXTEND)[number]
    if module == "main":
        flags.append("--config.stages=twice")  # the page's other stage would take as long again
    if module == "parity":
        flags = [f"--model={save_data2vec(tmp_path)}"]  # the page names a model of the hub
    environment = {
        "PYTHONPATH": str(extended_package),
        "XLKD_CACHE": str(extended_package / "cache"),
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-m", f"xlkd.{module}", *flags],
        cwd=extended_package,
        env=os.environ | environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    if module == "main":
        results = (extended_package / "runs" / "twice" / "results.json").read_text(encoding="utf-8")
        assert '"inside"' in results
        assert "quiz" in results
        values = extended_package / "runs" / "twice" / "stages" / "01-twice" / "lines" / "values.tsv"
        assert "eval/quiz/en/inside" in values.read_text(encoding="utf-8")


def run_steps(page: pathlib.Path, folder: pathlib.Path) -> subprocess.CompletedProcess:
    """Writes the files that a page shows, and runs its commands without a language in one shell."""
    write_shown_files(page, folder)
    (folder / "configs").symlink_to(ROOT / "configs")
    script = "".join(block.text for block in read_blocks(page) if not block.kind)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLKD_CACHE": str(folder / "cache"), "JAX_PLATFORMS": "cpu"}
    shell = f'python() {{ {shlex.quote(sys.executable)} "$@"; }}\nset -e\n{script}'
    done = subprocess.run(
        ["bash", "-c", shell], cwd=folder, env=environment | toy_models.OPTIMIZED, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.long
def test_the_quickstart_runs_literally(tmp_path):
    page = ROOT / "docs" / "quickstart.md"
    done = run_steps(page, tmp_path)
    (shown,) = (json.loads(block.text) for block in read_blocks(page) if block.kind == "json")
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer.keys() == shown.keys()
    assert answer["answer"] == shown["answer"]
    assert "report: runs/first/report.html" in done.stdout
    assert (tmp_path / "runs" / "first" / "report.html").exists()


@pytest.mark.long
def test_the_walk_through_of_a_new_language_runs_literally(tmp_path):
    """Runs the steps of the page in one shell, from the text to the comparison; takes minutes."""
    steps, _ = UNSEEN.read_text(encoding="utf-8").split("## Your own language")
    (tmp_path / "page.md").write_text(steps, encoding="utf-8")
    script = "".join(block.text for block in read_blocks(tmp_path / "page.md") if not block.kind)
    assert script.count("python ") == 8
    done = run_steps(tmp_path / "page.md", tmp_path)
    (shown, *_) = (block.text for block in read_blocks(UNSEEN) if block.kind == "text")
    assert " ".join(shown.split()[:9]) in done.stdout
    assert sum('{"id": 1, "answer": "' in line for line in done.stdout.splitlines()) == 1
    sets = {
        name: json.loads((tmp_path / "runs" / name / "results.json").read_text())["stages"][stage]["sets"]["eval"]
        for name, stage in (("spanish", "own"), ("adapted", "english"), ("plain", "english"))
    }
    assert sets["spanish"]["mean"] > 50, "per cent of the masked words"
    f1 = {name: sets[name]["cells"]["atlas es-es"]["f1"] for name in ("adapted", "plain")}
    assert f1["adapted"] > f1["plain"] + 5
    assert (tmp_path / "report.html").exists()


# Names and messages


def test_the_names_of_the_api_reference_exist_and_have_docstrings():
    api = load_hook("_api")
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    rendered = {entry[1]: api.render(*entry.groups()) for entry in api.ENTRY.finditer(page)}
    assert len(rendered) == len(re.findall("^### ", page, re.M))
    assert set(xlkd.__all__) <= set(rendered)
    assert not [name for name, text in rendered.items() if not text.split("```")[2].strip()]
    assert "answer(question: str, context: str) -> Answer" in rendered["Model"]


def test_the_keys_on_the_page_for_users_of_trainer_exist():
    page = (ROOT / "docs" / "from-trainer.md").read_text(encoding="utf-8")
    config = settings.to_plain(settings.read_config("configs/finetune.py"))
    keys = {key for key, _ in spec.flatten(config)} | {f"data.{key}" for key in stage.Data.__annotations__}
    named = {match for match in re.findall(r"`([a-z]+\.[a-z_0-9]+)(?:=[^`]*)?`", page) if match.split(".")[0] in config}
    assert len(named) > 25
    assert named <= keys


def test_the_names_on_the_page_of_the_architecture_exist_in_the_named_files():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py)` `([\w.]+)`", page)
    assert len(named) > 40
    missing = []
    for file, name in named:
        path = ROOT / file if file.startswith("configs/") else ROOT / "xlkd" / file
        if not path.exists() or name not in list_definitions(ast.parse(path.read_text(encoding="utf-8"))):
            missing.append(f"{file} {name}")
    assert not missing


def list_definitions(tree: ast.AST, prefix: str = "") -> set[str]:
    names = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names |= {prefix + node.name}
            if isinstance(node, ast.ClassDef):
                names |= list_definitions(node, f"{prefix}{node.name}.")
    return names


def test_every_message_is_explained_on_the_page_of_errors():
    messages, patterns = collect_messages(), read_listed_messages()
    unknown = sorted(text for text in messages if not any(pattern.fullmatch(text) for pattern in patterns.values()))
    assert not unknown, "explain their cause and remedy in docs/errors.md"


def test_every_explained_message_exists():
    messages = collect_messages()
    assert not [
        name
        for name, pattern in read_listed_messages().items()
        if not any(pattern.fullmatch(text) for text in messages)
    ]


def read_listed_messages() -> dict[str, re.Pattern]:
    """Returns a pattern for each message of the page; next to two or more words an ellipsis matches any text."""
    rows = re.findall(r"^\| `(.+?)` \| ", ERRORS.read_text(encoding="utf-8"), re.M)
    assert len(rows) == len(set(rows))
    any_text = {row: ".*" if len(re.findall(r"[a-zA-Z]{2,}", row)) > 1 else "…" for row in rows}
    return {row: re.compile(any_text[row].join(map(re.escape, row.split("…")))) for row in rows}


@functools.cache
def collect_messages() -> set[str]:
    """Returns the messages of errors and of faults of rows, with an ellipsis for each value."""
    messages = set()
    for file in (ROOT / "xlkd").rglob("*.py"):
        for function in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef):
                messages |= set(
                    itertools.chain.from_iterable(
                        expand_texts(node, collect_assignments(function)) for node in find_message_nodes(function)
                    )
                )
    return {text for text in messages if text.strip("…")}


def find_message_nodes(function: ast.FunctionDef) -> list[ast.expr]:
    nodes = []
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            raising = ("UserError", "LineFault", "Mismatch", "refusal", "report", "_report", "leave_out")
            nodes += node.args[:1] if name in raising else []
            nodes += node.args[2:3] if name in ("CorruptLine", "_RawRow") else []
            nodes += [keyword.value for keyword in node.keywords if keyword.arg == "fault"]
        if isinstance(node, ast.Return) and node.value and function.name.endswith("fault"):
            nodes.append(node.value)
    return nodes


def collect_assignments(function: ast.FunctionDef) -> dict[str, list[ast.expr]]:
    """Returns the expressions that are assigned to each name of a function."""
    values: dict[str, list[ast.expr]] = {}
    for node in ast.walk(function):
        for target in node.targets if isinstance(node, ast.Assign) else ():
            pairs = (
                zip(target.elts, node.value.elts, strict=True)
                if _paired(target, node.value)
                else [(target, node.value)]
            )
            for name, value in pairs:
                if isinstance(name, ast.Name):
                    values.setdefault(name.id, []).append(value)
    return values


def _paired(target: ast.expr, value: ast.expr) -> bool:
    return isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts)


def is_text(part: ast.expr) -> bool:
    """Returns whether a part of an f-string is a constant, or a name that may be a text."""
    return isinstance(part, ast.Constant) or isinstance(getattr(part, "value", None), ast.Name)


def expand_texts(node: ast.expr, names: dict[str, list[ast.expr]]) -> list[str]:
    """Returns the texts that an expression may evaluate to; none if it only passes on another error's message."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) and node.value else []
    if isinstance(node, ast.JoinedStr):
        parts = [
            expand_texts(part if isinstance(part, ast.Constant) else part.value, names) if is_text(part) else ["…"]
            for part in node.values
        ]
        return ["".join(chosen) for chosen in itertools.product(*(part or ["…"] for part in parts))]
    if isinstance(node, ast.IfExp):
        return expand_texts(node.body, names) + expand_texts(node.orelse, names)
    if isinstance(node, ast.BoolOp):
        return [text for value in node.values for text in expand_texts(value, names)]
    if isinstance(node, ast.BinOp):
        return [a + b for a in expand_texts(node.left, names) for b in expand_texts(node.right, names) or [""]]
    if isinstance(node, ast.Name):
        return [text for value in names.get(node.id, ()) for text in expand_texts(value, {})]
    return []
