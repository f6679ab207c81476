# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs a command: `xlkd COMMAND [FLAG …]`, or `python -m xlkd COMMAND [FLAG …]`.

  train      trains a model, or resumes a run that was stopped
  evaluate   scores a model, or the answers of any other system, by language
  predict    answers questions or labels texts, one or many
  plan       estimates memory, time and cost of a run before it is launched
  report     writes the report of a run, or of several side by side
  check      describes a data set and lists every error in it
  sweep      runs several seeds or settings from the same starting point
  trim       makes a smaller model: only the tokens that texts use, or fewer layers
  push       sends an exported model to the Hugging Face hub
  parity     compares an encoder with transformers (needs PyTorch)
  caches     lists and deletes cached features and teacher targets

`xlkd COMMAND --help` has the flags of a command, with examples. Each command is also a module that `python -m` runs:
`train` is xlkd.main, and any other has the name of its module, as `report` xlkd.report.

Examples:
  xlkd train --config=configs/gxlt.py
  xlkd predict --model=runs/NAME/stages/02-ce/export < questions.jsonl
  xlkd push runs/NAME/stages/02-ce/export --repo=OWNER/NAME
"""

from __future__ import annotations

import importlib
import sys

from xlkd import cli
from xlkd.errors import UserError, suggest_name


def start() -> int:
    """Runs the command that the first argument names, and returns the exit code."""
    name, arguments = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("", [])
    if name in cli.COMMANDS:
        return cli.run(importlib.import_module(f"xlkd.{cli.COMMANDS[name]}").main, arguments)
    return cli.run(refuse)


def refuse(arguments: list[str]) -> None:
    """Refuses a command that does not exist, or that is missing."""
    known = f"one of {', '.join(cli.COMMANDS)}"
    if not arguments:
        raise UserError("no command given", "command line", known)
    raise UserError(f"no command {arguments[0]!r}", "command line", suggest_name(arguments[0], cli.COMMANDS, known))


if __name__ == "__main__":
    sys.exit(start())
