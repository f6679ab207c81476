# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`ntrex:DIR?languages=de,fr`: news in 128 languages, each sentence with its English original.

`documents=train|heldout` splits by document, never by sentence: `share=20` percent are held out, drawn from `seed=0`. A
document is the same group in all languages; `limit=N` takes the first N pairs of each language.
"""

from __future__ import annotations

import pathlib

from xlkd.data.draw import draw_uniform, truncate_keys
from xlkd.data.sources import BadRows, Source, _aligned, _files, _folders
from xlkd.errors import UserError
from xlkd.rows import Pair, make_key

TASKS = ("parallel",)
OPTIONS = ("languages", "documents", "share", "seed", "limit")


def rows(source: Source, task: str, bad_rows: BadRows) -> tuple[Pair, ...]:
    """Returns the pairs language after language, in the order of the files."""
    folder = _find_folder(source)
    paths = _aligned.find_files(folder, r"newstest2019-ref\.([\w-]+)\.txt", "newstest2019-ref.LANG.txt")
    paths["en"] = folder / "newstest2019-src.eng.txt"
    languages = _folders.choose_languages(source, set(paths), besides="en")
    listed = [*paths.values(), *(base / "DOCUMENT_IDS.tsv" for base in (folder, folder.parent))]
    bad_rows.note_unread(source.locate(), _files.list_unread(source.locate(), listed))
    lines = {language: _aligned.read_lines(paths[language], bad_rows) for language in ["en", *languages]}
    document_ids = next(
        (path for base in (folder, folder.parent) if (path := base / "DOCUMENT_IDS.tsv").is_file()), None
    )
    if not document_ids:
        raise UserError(
            "no DOCUMENT_IDS.tsv",
            str(folder),
            "download it too, because a document must not be divided over training and evaluation",
        )
    documents = _aligned.read_lines(document_ids, bad_rows)
    _aligned.check_same_length(
        {document_ids: documents} | {paths[language]: texts for language, texts in lines.items()}
    )
    chosen_documents = _split_documents(source, documents)
    pairs = []
    for language in languages:
        sides = (paths["en"], paths[language]), (lines["en"], lines[language])
        members = (
            _aligned.make_pair("ntrex", "", document, number, ("en", language), row)
            for number, row in _aligned.iterate_complete(*sides, bad_rows)
            if (document := documents[number]) in chosen_documents
        )
        pairs += source.first(members)
    return tuple(pairs)


def _find_folder(source: Source) -> pathlib.Path:
    """Returns the folder of the texts."""
    root = source.locate()
    return root / "NTREX-128" if (root / "NTREX-128").is_dir() else root


def _split_documents(source: Source, documents: list[str | None]) -> set[str]:
    """Returns the names of the documents that the option `documents` selects: all, train, or heldout.

    `share` percent are held out. A hash of its name decides that for each document, whatever others there are.
    """
    part, share = source.choice("documents", ("all", "train", "heldout")), source.number("share", 20)
    if share > 100:
        raise UserError(f"share={share} is not a percentage", str(source), "give 0 to 100")
    names = sorted({name for name in documents if name})
    drawn = draw_uniform(
        source.number("seed"), "ntrex documents", 0, truncate_keys([make_key(name) for name in names]), 1
    )[:, 0]
    held_out = {name for name, is_out in zip(names, drawn < share / 100, strict=True) if is_out}
    return {"all": set(names), "train": set(names) - held_out, "heldout": held_out}[part]
