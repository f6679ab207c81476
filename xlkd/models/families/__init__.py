# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The families of encoders, one module each, found by the model type of config.json."""

from __future__ import annotations

import functools
import importlib
import pkgutil

from xlkd.models.family import Architecture, Family, Form


@functools.cache
def list_families() -> dict[str, Family]:
    """Returns all families by model type."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    families = [importlib.import_module(f"{__name__}.{name}").FAMILY for name in names]
    return {model_type: family for family in families for model_type in family.forms}


def find_family(architecture: Architecture) -> Family:
    """Returns the family of an encoder."""
    return list_families()[architecture.model_type]


def find_form(architecture: Architecture) -> Form:
    """Returns an encoder's form in `transformers`."""
    family = find_family(architecture)
    return family.choose_form(family.forms[architecture.model_type], architecture)
