# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`text:FILE?languages=yo`, `text:DIR`: plain text for masked-LM, one line or paragraph per line, .txt or .txt.gz.

The language is that of the option or of the file's name: `yo.txt`, `yor_Latn.txt`, `news.yo.txt.gz`. Empty lines are
skipped. A line of more than `longest=800` English characters (a third as many in Chinese) is not thrown away but cut at
white space into several examples of about equal length; `longest=0` cuts none. Lines in another script and repeated
lines are left out; `clean=empty` keeps them.

`split=heldout` has `share=5` percent of the lines, drawn from `seed=0` by their text, and `split=train` the others:
lines that are equal are in the same part. `limit=N` takes N examples of each language, `take=random` or `head`.
"""

from __future__ import annotations

import functools
import pathlib
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from xlkd.data.cleaning import Rules, get_width
from xlkd.data.composition import JoinedRows
from xlkd.data.corpus import Corpus, CorpusOrigin, CorruptLine, RawRow, strip_text
from xlkd.data.sources import BadRows, Source, _aligned, _files, _folders, moses
from xlkd.errors import UserError
from xlkd.rows import Text, make_key

TASKS = ("masked",)
OPTIONS = ("languages", "longest", "clean", "limit", "take", "seed", "split", "share")
_LONGEST = 800  # English characters: about 200 tokens of a tokenizer that knows the language
_ENDINGS = (".txt", ".txt.gz")


class Selection(NamedTuple):
    """The lines that are read, and where they are cut."""

    longest: int
    split: str
    share: int  # percent that are held out
    seed: int

    def selects(self, line: str) -> bool:
        """Returns whether a line is in the split."""
        if self.split == "all":
            return True
        is_held_out = int(make_key("text split", self.seed, line)[:8], 16) * 100 < self.share << 32
        return is_held_out == (self.split == "heldout")


def rows(source: Source, task: str, bad_rows: BadRows) -> Sequence[Text]:
    """Returns the texts of one language after the other, each in the order of its files."""
    only_empty = source.choice("clean", ("all", "empty")) == "empty"
    selection, parts = _parse_selection(source), []
    for language, paths in _find_files(source, bad_rows).items():
        corpora = [
            Corpus(_make_origin(path, language, selection), Rules(longest=0, only_empty=only_empty), bad_rows)
            for path in paths
        ]
        parts.append(moses.cap_rows(corpora[0] if len(corpora) == 1 else JoinedRows(corpora), source))
    return parts[0] if len(parts) == 1 else JoinedRows(parts)


def _parse_selection(source: Source) -> Selection:
    """Returns the selection that the options ask for."""
    share = source.number("share", 5)
    if share > 100:
        raise UserError(f"share={share} is not a percentage", str(source), "give 0 to 100")
    split = source.choice("split", ("all", "train", "heldout"))
    return Selection(source.number("longest", _LONGEST), split, share, source.number("seed"))


def _find_files(source: Source, bad_rows: BadRows) -> dict[str, list[pathlib.Path]]:
    """Returns the files of each language."""
    root = source.locate()
    if not source.path or not root.exists():
        raise UserError("no such file or folder", str(root) if source.path else str(source), "check the path")
    if not root.is_dir():
        _files.check_regular(root)
        languages = source.languages() or tuple(filter(None, [_find_language(root)]))
        if len(languages) != 1:
            raise UserError("one language is needed", str(source), "add languages=yo, or name the file yo.txt")
        return {languages[0]: [root]}
    files: dict[str, list[pathlib.Path]] = {}
    for path in sorted(root.iterdir()):
        if path.name.endswith(_ENDINGS) and path.is_file() and (language := _find_language(path)):
            files.setdefault(language, []).append(path)
    bad_rows.note_unread(root, _files.list_unread(root, {path for paths in files.values() for path in paths}))
    if not files:
        raise UserError("no file named LANG.txt", str(root), "check the path")
    return {language: files[language] for language in _folders.choose_languages(source, set(files))}


def _find_language(path: pathlib.Path) -> str:
    """Returns the language that the name of a file gives; an empty string where it gives none."""
    stem = path.name.removesuffix(".gz").removesuffix(".txt")
    return _aligned.find_language(stem) or _aligned.find_language(stem.rpartition(".")[2])


def _make_origin(path: pathlib.Path, language: str, selection: Selection) -> CorpusOrigin:
    """Returns the corpus of a file."""
    read = functools.partial(_read, path, language, selection)
    return CorpusOrigin("text", path.name.removesuffix(".gz"), (language,), (path,), read, str(selection))


def _read(path: pathlib.Path, language: str, selection: Selection) -> Iterator[RawRow | CorruptLine]:
    """Yields the parts of each line that is not empty, with their places where the file is not packed."""
    longest = max(1, int(selection.longest / get_width(language))) if selection.longest else 0
    for number, (at, data) in enumerate(_aligned.iterate_lines(path), start=1):
        try:
            line = _aligned.decode_line(data)
        except _aligned.LineFault as fault:
            yield CorruptLine(0, number, str(fault))
            continue
        if not line or not selection.selects(line):
            continue
        at += data.find(line.encode())
        for part in cut_line(line, longest):
            size = len(part.encode())
            yield RawRow(number, (strip_text(part),), None if path.suffix == ".gz" else (at, size))
            at += size


def cut_line(line: str, longest: int) -> Iterator[str]:
    """Cuts a line into parts of at most `longest` characters and about equal length, after white space if possible.

    All characters are in one of the parts; 0 does not cut. A mark stays with its letter.
    """
    start = 0
    while longest and (rest := len(line) - start) > longest:
        size = -(-rest // -(-rest // longest))
        cut = 1 + max(line.rfind(space, start + size // 2, start + size) for space in (" ", "\t", "\u3000"))
        if not cut:
            cut = start + size
            while cut > start + 1 and unicodedata.category(line[cut])[0] == "M":
                cut -= 1
        yield line[start:cut]
        start = cut
    yield line[start:]
