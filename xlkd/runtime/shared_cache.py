# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tells whether the processes of a run have one cache together, and lets them write to it."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Callable

from xlkd.data import cache
from xlkd.data.share import Share
from xlkd.runtime import distributed


@functools.cache
def is_shared() -> bool:
    """Returns whether several processes use the same folder or bucket as cache; all of them must call it together."""
    share = distributed.open_share("cache")
    return share is not None and len(set(share.gather(lambda: _identify_cache().encode()))) == 1


def writes() -> bool:
    """Returns whether this process writes what all processes have: one does for a shared cache, else each for its own.

    All processes must call it together.
    """
    return not is_shared() or distributed.is_primary()


def call_on_all(share: Share | None, function: Callable[[], object]) -> None:
    """Calls a function on every process; an error of one of them, such as a full disk, ends all of them."""

    def call() -> bytes:
        function()
        return b""

    if share:
        share.gather(call)
    else:
        function()


def _identify_cache() -> str:
    """Returns a string that is the same on all processes that use the same folder or bucket."""
    place = os.environ.get("XLKD_CACHE", "")
    if "://" in place:
        return place
    folder = cache.get_folder()
    folder.mkdir(parents=True, exist_ok=True)
    state = folder.stat()
    return f"{platform.node()} {state.st_dev} {state.st_ino}"
