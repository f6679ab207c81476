# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What mkdocs is told beyond mkdocs.yml: README.md is the first page, and other folders' pages come in as they are."""

import pathlib
import posixpath
import re

from _notebooks import convert_notebook
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).resolve().parents[1]
BROUGHT_IN = {"README.md": "index.md", "launch/README.md": "launch.md"}
NOTEBOOKS = {path.relative_to(ROOT / "docs").as_posix(): path for path in (ROOT / "docs").glob("tutorials/*.ipynb")}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")


def on_files(files, config):
    for source, page in BROUGHT_IN.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for name, path in NOTEBOOKS.items():
        files.append(File.generated(config, _name_page(name), content=convert_notebook(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links as a reader of the repository follows them become links of the site; what it lacks is named only."""
    here = {page: source for source, page in BROUGHT_IN.items()}.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    folder = (ROOT / here).parent
    own_folder = posixpath.dirname(page.file.src_uri) or "."

    def moved(found: re.Match) -> str:
        mark, text, target, anchor = found.groups(default="")
        if not target or ":" in target:
            return found[0]
        meant = (folder / target).resolve()
        inside = BROUGHT_IN.get(_below(meant, ROOT)) or _name_page(_below(meant, ROOT / "docs"))
        return f"{mark}[{text}]({posixpath.relpath(inside, own_folder)}{anchor})" if inside else text

    markdown = LINK.sub(moved, markdown)
    if notebook := {_name_page(name): name for name in NOTEBOOKS}.get(page.file.src_uri):
        title, text = markdown.split("\n", 1)
        return f"{title}\n\n[Download this page as a notebook]({posixpath.basename(notebook)}).\n{text}"
    return markdown


def _name_page(name: str) -> str:
    """Returns the name of the page that shows a file of docs/; notebooks are shown as Markdown."""
    return name.replace(".ipynb", ".md") if name in NOTEBOOKS else name


def _below(path: pathlib.Path, folder: pathlib.Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else ""
