# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs xlkd.main, and writes the number of texts of each call of the tokenizer to $COUNTS/PROCESS."""

import os
import pathlib
import sys

from xlkd import cli, main
from xlkd.tasks.tokenization import TextTokenizer

encode = TextTokenizer._encode_block


def encode_and_count(tokenizer, texts):
    folder = pathlib.Path(os.environ["COUNTS"])
    folder.mkdir(exist_ok=True)
    with (folder / str(os.getpid())).open("a", encoding="utf-8") as file:
        print(len(texts), file=file)
    return encode(tokenizer, texts)


if __name__ == "__main__":
    TextTokenizer._encode_block = encode_and_count
    sys.exit(cli.run(main.main))
