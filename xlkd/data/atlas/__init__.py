# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The embedded data: an imagined world with real names, told in ten languages (docs/atlas.md)."""

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
    "word_spans",
    "words",
]
