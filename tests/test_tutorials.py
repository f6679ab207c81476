# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The tutorials are notebooks without outputs, and run from the first cell to the last in an empty folder.

Their links, commands, configs and sources are checked with those of the pages: see test_docs.py.
"""

import ast
import json
import os
import pathlib
import re
import shlex
import sys

import pytest
import toy_models
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = {  # what each notebook leaves, besides its data
    "own-labels": ("runs/teacher/report.html", "runs/labels/report.html", "labels.jsonl"),
    "own-parallel": ("runs/aligned/report.html", "nearest.tsv"),
    "own-qa": ("runs/qa/report.html", "answers.jsonl"),
}
NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def read_notebook(path: pathlib.Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def list_code(path: pathlib.Path) -> list[str]:
    return ["".join(cell["source"]) for cell in read_notebook(path)["cells"] if cell["cell_type"] == "code"]


def list_python(path: pathlib.Path) -> list[ast.Module]:
    """Returns the cells of Python, and the Python files that cells write."""
    cells = [re.sub(r"^%%writefile \S+\.py\n", "", text) for text in list_code(path)]
    return [ast.parse(text) for text in cells if not text.startswith("%%")]


def import_or_skip(name: str):
    return pytest.importorskip(name, reason=f"{name} is not installed (pip install '.[dev]')")


def test_each_notebook_has_results_that_are_checked():
    assert [path.stem for path in NOTEBOOKS] == sorted(RESULTS)


@each_notebook
def test_a_notebook_follows_the_schema_of_its_format(path):
    import_or_skip("nbformat").validate(read_notebook(path))


@each_notebook
def test_a_notebook_is_saved_as_jupyter_does_without_outputs(path):
    notebook = read_notebook(path)
    assert path.read_text(encoding="utf-8") == json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[a-z]+(-[a-z]+)*", id) for id in ids), "ids name the cell: no random ones of an editor"
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"] is not None]


@each_notebook
def test_a_notebook_names_no_absolute_path(path):
    sources = "\n".join("".join(cell["source"]) for cell in read_notebook(path)["cells"])
    assert not re.findall(r"(?<![\w.:/)\]])/\w+[^\s\"']*|~/\S*|file:/\S*", sources)


@each_notebook
def test_a_notebook_uses_the_documented_names_of_the_package(path):
    nodes = [node for tree in list_python(path) for node in ast.walk(tree)]
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names} | {
        f"{node.module}.{alias.name}" for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    own = {name for name in imported if name.startswith("xlkd") and not name.startswith("xlkd.configs.")}
    assert own == {"xlkd", "xlkd.data.sources"}
    used = {
        ast.unparse(node)
        for node in nodes
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("xlkd", "sources")
    }
    assert used == {"sources.read", "xlkd.load"}


def test_notebooks_are_listed_on_their_page_and_in_the_navigation_of_the_site():
    linked = re.findall(r"\]\(tutorials/([\w-]+)\.ipynb\)", (ROOT / "docs" / "tutorials.md").read_text())
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    (pages,) = (section["Tutorials"] for section in navigation if "Tutorials" in section)
    in_navigation = re.findall(r"tutorials/([\w-]+)\.md", " ".join(page for entry in pages for page in entry.values()))
    assert sorted(linked) == sorted(in_navigation) == sorted(RESULTS)


def install_command(folder: pathlib.Path) -> pathlib.Path:
    """Writes the command `xlkd` of this checkout and this Python into a folder."""
    folder.mkdir()
    (folder / "xlkd").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m xlkd "$@"\n', encoding="utf-8")
    (folder / "xlkd").chmod(0o755)
    return folder


@pytest.mark.long
@each_notebook
def test_a_notebook_runs_in_an_empty_folder(path, tmp_path, monkeypatch):
    nbformat, nbclient, _ = map(import_or_skip, ("nbformat", "nbclient", "ipykernel"))

    settings = {
        "PATH": f"{install_command(tmp_path / 'bin')}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "XLKD_CACHE": str(tmp_path / "cache"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "jupyter"),
        "PYTHONWARNINGS": "ignore:IProgress not found",  # of tqdm, for the package ipywidgets
    }
    for name, value in (settings | toy_models.OPTIMIZED).items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "empty"
    folder.mkdir()
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}}).execute()

    printed = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    errors = "".join(output.text for output in printed if output.output_type == "stream" and output.name == "stderr")
    assert not re.search("warning|error|traceback", errors, re.IGNORECASE), errors
    assert [name for name in RESULTS[path.stem] if not (folder / name).stat().st_size] == []
    assert any("text/html" in output.get("data", {}) for output in printed), "the report is shown"
