# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The embedded data: an imagined world with real names, told in ten languages (docs/atlas.md)."""

import functools
import hashlib
import pathlib

from xlkd.data.atlas.deal import LANGUAGES, RELATIONS, SPLITS
from xlkd.data.atlas.grammar import word_spans, words
from xlkd.data.atlas.views import LABELS, World, companions, question, statements, translation

__all__ = [
    "LABELS",
    "LANGUAGES",
    "RELATIONS",
    "SPLITS",
    "World",
    "companions",
    "question",
    "statements",
    "translation",
    "version",
    "word_spans",
    "words",
]


@functools.cache
def version() -> str:
    """Changes with any name, sentence or rule of the atlas."""
    digest = hashlib.sha256()
    for file in sorted(pathlib.Path(__file__).parent.iterdir()):
        if file.suffix in (".json", ".py"):
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]
