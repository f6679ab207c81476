# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What runs keep to be faster the next time: `python -m xlkd.caches [--prune=SIZE | --delete_all]`.

Without flags it lists each entry with its kind, size and last use, what was used longest ago first. Deleting an entry
costs only the time to make it again; runs that are reading it go on.

  --prune=SIZE   delete what was used longest ago until no more than SIZE is left: 500M, 5G, 1.5T
  --delete_all   delete every entry

The cache lies in $XLKD_CACHE, else in `xlkd/` of the user's cache folder. Half-written entries that a kill left more
than a day ago count as entries. Whatever else lies in that folder is left alone and counted: a folder is an entry by
its name, a kind and a hash, and by holding nothing but the cache's own files.
"""

from __future__ import annotations

import re
import sys
import time

from xlkd import cli
from xlkd.errors import UserError

UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def main(arguments: list[str]) -> None:
    flags = cli.parse_flags(arguments, ("prune",), ("delete_all",))
    if len(flags) > 1:
        raise UserError("--prune and --delete_all contradict each other", "command line", "give one of them")
    from xlkd.data import cache

    contents = cache.list_contents()
    entries, foreign = contents.entries, len(contents.foreign)
    others = f"; not the cache's and left alone: {foreign}" if foreign else ""
    total = sum(entry.size_bytes for entry in entries)
    if not flags:
        for entry in entries:
            print(f"{entry.kind:<12}  {size(entry.size_bytes):>8}  {_day(entry.used)}  {entry.path.name}")
        print(f"{len(entries)} entries, {size(total)} in {cache.get_folder()}{others}")
        return
    allowed = size_bytes(flags["prune"]) if "prune" in flags else -1
    deleted, left = 0, total
    for entry in entries:
        if left > allowed:
            cache.delete(entry.path)
            deleted, left = deleted + 1, left - entry.size_bytes
    done = f"deleted {deleted} of {len(entries)} entries, {size(total - left)}"
    print(f"{done}; {size(left)} left in {cache.get_folder()}{others}")


def size_bytes(text: str) -> int:
    """`5G` as a number."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found:
        raise UserError(f"--prune={text} is not a size", "command line", "for example 500M or 5G")
    return int(float(found[1]) * UNITS[found[2].upper()])


def size(number: int) -> str:
    """A number of bytes as people read it."""
    unit = max((u for u in UNITS if UNITS[u] <= max(number, 1)), key=UNITS.__getitem__)
    return f"{number / UNITS[unit]:.{1 if unit else 0}f} {unit}B"


def _day(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(when))


if __name__ == "__main__":
    sys.exit(cli.run(main))
