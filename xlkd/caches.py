# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Lists and prunes what runs cache to be faster the next time: `python -m xlkd.caches [--prune=SIZE | --delete_all]`.

Without flags it lists each entry with its kind, size and last use, least recently used first. Deleting an entry costs
only the time to build it again; runs that are reading it continue.

  --prune=SIZE   delete the least recently used entries until no more than SIZE is left: 500M, 5G, 1.5T
  --delete_all   delete every entry

The cache is in $XLKD_CACHE, else in `xlkd/` of the user's cache folder. Where $XLKD_CACHE is in a bucket (gs://…), this
lists and deletes only what was copied to this machine; `gcloud storage rm -r` deletes what is in the bucket. Partial
entries that a killed process left more than a day ago count as entries. Anything else in that folder is left alone and
counted: a folder is an entry by its name, a kind and a hash, and by having nothing but the cache's own files.

Examples:
  python -m xlkd.caches
  python -m xlkd.caches --prune=5G
"""

from __future__ import annotations

import re
import sys
import time

from xlkd import cli
from xlkd.errors import UserError


def main(arguments: list[str]) -> None:
    """Lists the cache, or deletes entries."""
    flags = cli.parse_flags(arguments, ("prune",), ("delete_all",))
    if len(flags) > 1:
        raise UserError("--prune and --delete_all contradict each other", "command line", "give one of them")
    from xlkd.data import cache

    contents = cache.list_contents()
    entries, foreign = contents.entries, len(contents.foreign)
    foreign_count = f"; not the cache's and left alone: {foreign}" if foreign else ""
    total = sum(entry.size_bytes for entry in entries)
    if not flags:
        for entry in entries:
            size = cli.format_size(entry.size_bytes)
            print(f"{entry.kind:<12}  {size:>8}  {_format_time(entry.used)}  {entry.path.name}")
        print(f"{len(entries)} entries, {cli.format_size(total)} in {cache.get_folder()}{foreign_count}")
        if remote := cache.get_remote():
            print(f"copies of what all machines share: list it with `gcloud storage ls {remote.url}`")
        return
    allowed = parse_size(flags["prune"]) if "prune" in flags else -1
    deleted, remaining = 0, total
    for entry in entries:
        if remaining > allowed:
            cache.delete(entry.path)
            deleted, remaining = deleted + 1, remaining - entry.size_bytes
    summary = f"deleted {deleted} of {len(entries)} entries, {cli.format_size(total - remaining)}"
    print(f"{summary}; {cli.format_size(remaining)} left in {cache.get_folder()}{foreign_count}")


def parse_size(text: str) -> int:
    """Parses a size such as `5G`; returns bytes."""
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise UserError(f"--prune={text} is not a size", "command line", "for example 500M or 5G")
    return int(float(match[1]) * cli.UNITS[match[2].upper()])


def _format_time(when: float) -> str:
    """Formats a time in seconds since 1970 as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(when))


if __name__ == "__main__":
    sys.exit(cli.run(main))
