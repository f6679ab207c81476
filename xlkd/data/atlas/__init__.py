# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The atlas: synthetic data with real names in ten languages, packaged with xlkd (docs/atlas.md)."""

from xlkd.data.atlas.deal import LANGUAGES, RELATIONS, SPLITS
from xlkd.data.atlas.grammar import find_word_spans, split_words
from xlkd.data.atlas.views import LABELS, World, make_companions, make_question, make_statement, make_translation

VERSION = "a3365f7cd7ba7eee"  # names the generated rows in caches; tests/test_atlas.py says when it must change

__all__ = [
    "LABELS",
    "LANGUAGES",
    "RELATIONS",
    "SPLITS",
    "VERSION",
    "World",
    "find_word_spans",
    "make_companions",
    "make_question",
    "make_statement",
    "make_translation",
    "split_words",
]
