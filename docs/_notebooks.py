# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Shows a notebook as a page: its Markdown as it is, and its code in blocks."""

import json
import pathlib


def convert_notebook(path: pathlib.Path) -> str:
    """Returns the Markdown of a notebook; a file that it writes is a block with a title, a command one of the shell."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join(_convert_cell(cell["cell_type"], "".join(cell["source"])) for cell in cells) + "\n"


def _convert_cell(kind: str, text: str) -> str:
    if kind == "markdown":
        return text
    magic, _, body = text.partition("\n")
    if magic == "%%bash":
        return f"```sh\n{body}\n```"
    if magic.startswith("%%writefile "):
        name = magic.removeprefix("%%writefile ")
        return f'```{"py" if name.endswith(".py") else "text"} title="{name}"\n{body}\n```'
    return f"```py\n{text}\n```"
