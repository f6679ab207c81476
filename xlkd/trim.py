# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trim a vocabulary: `python -m xlkd.trim --model=DIR --texts=FILE[,FILE…] --out=DIR`.

  --model=DIR         a folder of Hugging Face's kind, a hub id, or package:NAME
  --texts=FILE,FILE   plain text, one sentence or paragraph a line; only pieces that these use are kept
  --out=DIR           where the smaller folder goes

On these texts the outputs are those of the whole model, to the bit.
"""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Iterator

from xlkd import door
from xlkd.errors import UserError


def main(arguments: list[str]) -> None:
    given = door.flags(arguments, ("model", "texts", "out"))
    for name in ("model", "texts", "out"):
        if name not in given:
            raise UserError(f"--{name} is missing", "command line", "see --help")
    from xlkd.models import hf, vocab
    from xlkd.train.start import locate

    folder, _ = locate(given["model"])
    spec = json.loads(hf.tokenizer(folder).backend_tokenizer.to_str())
    trimmed, spec, kept = vocab.trim(hf.load(folder), spec, lines(given["texts"].split(",")))
    hf.save(
        given["out"],
        trimmed.architecture,
        trimmed.params,
        labels=trimmed.labels,
        tokenizer=hf.tokenizer(folder, spec),
    )
    print(f"kept {len(kept)} of {hf.read_json(folder / 'config.json')['vocab_size']} pieces: {given['out']}")


def lines(files: list[str]) -> Iterator[str]:
    for name in files:
        try:
            with pathlib.Path(name).open(encoding="utf-8", newline="\n") as file:
                yield from (line.rstrip("\r\n") for line in file)
        except OSError as error:
            raise UserError(f"cannot be read: {error.strerror}", name, "give a text file") from error
        except UnicodeDecodeError as error:
            raise UserError(f"is not UTF-8: {error.reason}", name, "convert it") from error


if __name__ == "__main__":
    sys.exit(door.run(main))
