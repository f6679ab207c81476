# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Renders the API reference of the site: below each heading of docs/api.md that links to a name in a source file.

It reads the sources without importing them. The fields of a class are shown as they stand, since their comments explain
them.
"""

import ast
import pathlib
import re
import textwrap
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]
ENTRY = re.compile(r"^### \[`(\w+)`\]\(\.\./(xlkd/[\w/]+\.py)\)$", re.MULTILINE)


def on_page_markdown(markdown, page, config, files):
    """Adds to each heading of the page the signature and the docstring of what it names."""
    if page.file.src_uri != "api.md":
        return markdown
    return ENTRY.sub(lambda entry: f"{entry[0]}\n\n{render(*entry.groups())}", markdown)


def render(name: str, path: str) -> str:
    """Returns the Markdown of a function or a class, with its fields and public methods."""
    source = (ROOT / path).read_text(encoding="utf-8")
    nodes = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    if name not in nodes:
        raise ValueError(f"docs/api.md: {path} has no function or class {name}")
    node, lines = nodes[name], source.splitlines()
    return _render_function(node, lines) if isinstance(node, ast.FunctionDef) else _render_class(node, lines)


def _render_function(node: ast.FunctionDef, lines: Sequence[str]) -> str:
    return _show(_write_signature(node, lines), node)


def _render_class(node: ast.ClassDef, lines: Sequence[str]) -> str:
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    head = f"class {node.name}({bases})" if bases else f"class {node.name}"
    fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
    shown = [line for field in fields for line in lines[field.lineno - 1 : field.end_lineno]]
    methods = [part for part in node.body if isinstance(part, ast.FunctionDef) and not part.name.startswith("_")]
    described = [_render_function(method, lines) for method in methods if ast.get_docstring(method)]
    return "\n\n".join([_show("\n".join([f"{head}:", *shown] if shown else [head]), node), *described])


def _write_signature(node: ast.FunctionDef, lines: Sequence[str]) -> str:
    """Returns the head of a function as its source has it, without `self`; of a property the name and the type."""
    if node.returns and any(ast.unparse(decorator).endswith("property") for decorator in node.decorator_list):
        return f"{node.name}: {ast.unparse(node.returns)}"
    head = textwrap.dedent("\n".join(lines[node.lineno - 1 : node.body[0].lineno - 1]))
    return re.sub(r"\(\s*self(,\s*)?", "(", head).removeprefix("def ").removesuffix(":")


def _show(code: str, node: ast.FunctionDef | ast.ClassDef) -> str:
    return f"```python\n{code}\n```\n\n{ast.get_docstring(node) or ''}"
