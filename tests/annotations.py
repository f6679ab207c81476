# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks arguments and results against annotations; conftest.py applies it to whole packages while they are imported."""

from beartype import BeartypeConf, beartype

check = beartype(
    conf=BeartypeConf(is_pep484_tower=True)
)  # an int is accepted where a float is annotated, as by pyrefly
