# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cross-lingual knowledge distillation inside one multilingual encoder."""

__all__ = ["load"]


def __getattr__(name: str) -> object:
    """Imports `xlkd.load` on first use, so that importing the package or its metrics does not import JAX."""
    if name != "load":
        raise AttributeError(f"module 'xlkd' has no attribute {name!r}")
    from xlkd.api import load

    return load
