# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What mkdocs is told beyond mkdocs.yml: README.md is the first page, and other folders' pages come in as they are."""

import pathlib
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).resolve().parents[1]
BROUGHT_IN = {"README.md": "index.md", "launch/README.md": "launch.md"}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")


def on_files(files, config):
    for source, page in BROUGHT_IN.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links as a reader of the repository follows them become links of the site; what it lacks is named only."""
    here = {page: source for source, page in BROUGHT_IN.items()}.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    folder = (ROOT / here).parent

    def moved(found: re.Match) -> str:
        mark, text, target, anchor = found.groups(default="")
        if not target or ":" in target:
            return found[0]
        meant = (folder / target).resolve()
        inside = BROUGHT_IN.get(_below(meant, ROOT)) or _below(meant, ROOT / "docs")
        return f"{mark}[{text}]({inside}{anchor})" if inside else text

    return LINK.sub(moved, markdown)


def _below(path: pathlib.Path, folder: pathlib.Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else ""
