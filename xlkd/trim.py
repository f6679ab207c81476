# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes a smaller model: `python -m xlkd.trim --model=DIR [--texts=FILE[,FILE…]] [--layers=N] --out=DIR`.

  --model=DIR         a folder in Hugging Face's format, a hub id, or package:NAME
  --texts=FILE,FILE   plain text, one sentence or paragraph per line; only tokens that these texts use are kept
  --layers=N          only the lowest N layers are kept
  --out=DIR           the smaller folder: a new or an empty one, or an earlier export, whose files are replaced

Without the tokens that the texts do not use, outputs on these texts are bit-identical to those of the full model. With
fewer layers it is another model, whose last hidden states are the full model's states at layer N (after the norm that
follows the last layer, where an encoder has one). The record of an xlkd run and the files for sentence-transformers are
copied; the model card says what was left out, above the card of the full model.

Examples:
  python -m xlkd.trim --model=OWNER/NAME --texts=de.txt,sw.txt --out=smaller
  python -m xlkd.trim --model=runs/NAME/stages/01-english/export --layers=6 --out=six-layers
"""

from __future__ import annotations

import dataclasses
import io
import json
import pathlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from xlkd import cli, files
from xlkd.errors import UserError, escape_controls

if TYPE_CHECKING:
    from xlkd.models.hf import Checkpoint


def main(arguments: list[str]) -> None:
    """Trims the model and writes the smaller folder."""
    flags = cli.parse_flags(arguments, ("model", "texts", "layers", "out"))
    for name in ("model", "out"):
        if name not in flags:
            raise UserError(f"--{name} is missing", "command line", "see --help")
    if not {"texts", "layers"} & set(flags):
        raise UserError("nothing to trim", "command line", "give --texts, --layers or both")
    from xlkd.export import cards
    from xlkd.inputs.weights import locate_model, reject_branch_folder
    from xlkd.models import hf, sentences, vocab

    out = files.expand_path(flags["out"])
    files.check_folder(out)
    folder, revision = locate_model(flags["model"])
    texts = [files.expand_path(name) for name in filter(None, flags["texts"].split(","))] if "texts" in flags else []
    files.check_inputs(out, [folder, *texts])
    reject_branch_folder(folder)
    model, tokenizer, changes = hf.load(folder), hf.load_tokenizer(folder), []
    if "layers" in flags:
        count, total = cli.parse_count(flags, "layers", 1, 1000), model.architecture.layers
        if count > total:
            raise UserError(f"--layers={count} exceeds the {total} layers of the encoder", flags["model"], "give fewer")
        model = keep_lowest_layers(model, count)
        changes.append(f"{count} of {total} layers")
    if "texts" in flags:
        vocab_size = model.architecture.vocab_size
        tokenizer_json = json.loads(tokenizer.backend_tokenizer.to_str())
        model, tokenizer_json, kept_tokens = vocab.trim_vocabulary(model, tokenizer_json, read_lines(texts))
        tokenizer = hf.load_tokenizer(folder, tokenizer_json, model.architecture)
        changes.append(f"{len(kept_tokens)} of {vocab_size} tokens")
    record = folder / hf.RECORD
    full = cards.Origin(flags["model"], revision, cards.find_licence(folder))
    hf.save(
        out,
        model.architecture,
        model.params,
        labels=model.labels,
        tokenizer=tokenizer,
        card=cards.write_trimmed_card(folder, full, changes, [*cli.name_command("trim"), *arguments]),
        record=hf.read_json(record) if record.exists() else None,
        files=sentences.read_pooling_files(folder),
    )
    print(escape_controls(f"kept {' and '.join(changes)}: {flags['out']}"))


def keep_lowest_layers(model: Checkpoint, count: int) -> Checkpoint:
    """Returns the model with its lowest layers only."""
    import jax

    from xlkd.models.families import find_family

    encoder = dict(model.params["encoder"])
    encoder["layers"] = jax.tree.map(lambda stacked: stacked[:count], encoder["layers"])
    changes = find_family(model.architecture).select_layers(model.architecture, count)
    architecture = dataclasses.replace(model.architecture, layers=count, **changes)
    return dataclasses.replace(model, architecture=architecture, params={**model.params, "encoder": encoder})


def read_lines(paths: list[pathlib.Path]) -> Iterator[str]:
    """Yields the lines of text files without their ends; refuses files without any text."""
    empty = True
    for path in paths:
        try:
            with io.TextIOWrapper(files.open_input(path), encoding="utf-8", newline="\n") as file:
                for line in file:
                    empty = empty and not line.strip()
                    yield line.rstrip("\r\n")
        except OSError as error:
            raise UserError(
                f"cannot be read: {error.strerror}", str(path), "check the path and its permissions"
            ) from error
        except UnicodeDecodeError as error:
            raise UserError(f"not UTF-8 at byte {error.start:,}", str(path), "save it as UTF-8") from error
    if empty:
        raise UserError("contains no text", ", ".join(map(str, paths)), "name texts that use the wanted tokens")


if __name__ == "__main__":
    sys.exit(cli.run(main))
