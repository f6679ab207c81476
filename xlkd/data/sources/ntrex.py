# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`ntrex:DIR?languages=de,fr`: news in 128 languages, each sentence with its English original.

`documents=train|heldout` splits by document, never by sentence: `share=20` percent are held out, drawn from `seed=0`.
A document is the same group in all languages; `limit=N` takes the first N pairs of each language.
"""

from __future__ import annotations

import pathlib

from xlkd.data.draw import draw_uniform, truncate_keys
from xlkd.data.sources import Bad, Spec, _aligned, _folders
from xlkd.errors import UserError
from xlkd.rows import Pair, make_key

TASKS = ("parallel",)


def rows(spec: Spec, task: str, bad: Bad) -> tuple[Pair, ...]:
    """Language after language, in the order of the files."""
    spec.allow("languages", "documents", "share", "seed", "limit")
    folder = _folder(spec)
    paths = _aligned.find(folder, r"newstest2019-ref\.([\w-]+)\.txt", "newstest2019-ref.LANG.txt")
    paths["en"] = folder / "newstest2019-src.eng.txt"
    languages = _folders.choose(spec, set(paths), besides="en")
    texts = {language: _aligned.lines(paths[language], bad) for language in ["en", *languages]}
    listed = next((path for base in (folder, folder.parent) if (path := base / "DOCUMENT_IDS.tsv").is_file()), None)
    if not listed:
        raise UserError("no DOCUMENT_IDS.tsv", str(folder), "fetch it too: a document must not be split")
    documents = _aligned.lines(listed, bad)
    _aligned.same_length({listed: documents} | {paths[language]: found for language, found in texts.items()})
    chosen = _chosen(spec, documents)
    found = []
    for language in languages:
        both = (paths["en"], paths[language]), (texts["en"], texts[language])
        pairs = (
            _aligned.pair("ntrex", "", document, number, ("en", language), row)
            for number, row in _aligned.sound(*both, bad)
            if (document := documents[number]) in chosen
        )
        found += spec.first(pairs)
    return tuple(found)


def _folder(spec: Spec) -> pathlib.Path:
    root = pathlib.Path(spec.path).expanduser()
    return root / "NTREX-128" if (root / "NTREX-128").is_dir() else root


def _chosen(spec: Spec, documents: list[str | None]) -> set[str]:
    """Each document is drawn by itself, so that others do not move it."""
    part, share = spec.choice("documents", ("all", "train", "heldout")), spec.number("share", 20)
    if share > 100:
        raise UserError(f"share={share} is not a percentage", str(spec), "give 0 to 100")
    names = sorted({name for name in documents if name})
    drawn = draw_uniform(
        spec.number("seed"), "ntrex documents", 0, truncate_keys([make_key(name) for name in names]), 1
    )[:, 0]
    held = {name for name, out in zip(names, drawn < share / 100, strict=True) if out}
    return {"all": set(names), "train": set(names) - held, "heldout": held}[part]
