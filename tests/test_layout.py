# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Layout: which modules import JAX or PyTorch, and which know a method by its name.

`.importlinter` checks the order of the folders; these tests check what it cannot see.
"""

import ast
import collections
import pathlib
from collections.abc import Iterator

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "xlkd"
ACCELERATED = frozenset({"jax", "jaxlib", "flax", "optax", "orbax", "torch"})
PLAIN_FOLDERS = ("tasks", "data", "metrics", "reports", "spec", "languages")
PLAIN_MODULES = ("settings", "cli", "files", "keys", "rows", "errors")
METHODS = frozenset({"gxlt", "mblm", "mmkd", "pretrain", "finetune"})
KNOW_METHODS = ("methods", "spec", "configs")

# Modules that name a method today, with the reason. Remove a line together with its cause.
EXPECTED = {
    ("metrics/averages.py", "gxlt"): "the average over all cells is called gxlt as well",
    ("reports/questions.py", "gxlt"): "the average over all cells is called gxlt as well",
    ("reports/heatmaps.py", "gxlt"): "the average over all cells is called gxlt as well",
    ("reports/overview.py", "gxlt"): "the average over all cells is called gxlt as well",
    ("export/head.py", "finetune"): "the hub's word for a model that was trained from another one",
    ("reports/sheets.py", "gxlt"): "the average over all cells is called gxlt as well",
    ("reports/words.py", "gxlt"): "the average over all cells is called gxlt as well",
    ("reports/words.py", "mblm"): "the control with all of the method's terms is called mblm as well",
}


def list_plain_modules() -> list[pathlib.Path]:
    """Returns the modules that must work without JAX."""
    files = [file for folder in PLAIN_FOLDERS for file in (PACKAGE / folder).rglob("*.py")]
    return sorted([*files, *(PACKAGE / f"{name}.py" for name in PLAIN_MODULES)])


def iterate_imports(tree: ast.AST) -> Iterator[str]:
    """Yields the full name of every module or attribute that a file imports, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("import_module", "__import__"):
            yield from (name.value for name in node.args[:1] if isinstance(name, ast.Constant))


def iterate_strings(tree: ast.AST) -> Iterator[str]:
    """Yields every string literal of a file but docstrings."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def list_named_methods(text: str) -> set[str]:
    """Returns the methods that a file imports or whose names it contains as strings."""
    tree = ast.parse(text)
    imported = [name.split(".") for name in iterate_imports(tree)]
    modules = {parts[2] for parts in imported if parts[:2] == ["xlkd", "methods"] and len(parts) > 2}
    return METHODS & (modules | set(iterate_strings(tree)))


@pytest.mark.parametrize("file", list_plain_modules(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_plain_modules_import_no_jax_and_no_torch(file):
    imported = {name.partition(".")[0] for name in iterate_imports(ast.parse(file.read_text(encoding="utf-8")))}
    assert not imported & ACCELERATED


def test_only_methods_settings_and_configs_name_a_method():
    named = collections.defaultdict(set)
    for file in PACKAGE.rglob("*.py"):
        place = file.relative_to(PACKAGE)
        if place.parts[0] not in KNOW_METHODS:
            for method in list_named_methods(file.read_text(encoding="utf-8")):
                named[str(place)].add(method)
    assert {(place, method) for place, methods in named.items() for method in methods} == set(EXPECTED)


@pytest.mark.parametrize(
    ("text", "methods"),
    [
        ("from xlkd.methods import gxlt", {"gxlt"}),
        ("def build():\n    from xlkd.methods.mblm import build", {"mblm"}),
        ("importlib.import_module('xlkd.methods.mmkd')", {"mmkd"}),
        ("if config.method.name == 'finetune': pass", {"finetune"}),
        ("'''mblm'''\nhelp = 'configs/gxlt.py'", set()),
    ],
)
def test_ways_to_name_a_method_are_noticed(text, methods):
    assert list_named_methods(text) == methods


def test_every_method_is_looked_for():
    assert {file.stem for file in (PACKAGE / "methods").glob("[a-z]*.py")} == METHODS
