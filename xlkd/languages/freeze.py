# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes table.json, the codes and names of languages: python -m xlkd.languages.freeze REGISTRY.json.

The codes are those of IANA's subtag registry, as `data/json/registry.json` of the npm package language-subtag-registry
has it; aliases, likely scripts and most names are those of Unicode CLDR, through Babel.
"""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xlkd import files

TARGET = pathlib.Path(__file__).with_name("table.json")
Table = dict[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Writes the file and returns the exit code."""
    records = json.loads(pathlib.Path(arguments[0]).read_text(encoding="utf-8"))
    files.write_text(TARGET, format_table(make_table(records)))
    return 0


def make_table(records: Sequence[Mapping[str, Any]]) -> Table:
    """Returns the table from the records of the registry, which have one File-Date, and from CLDR."""
    import babel

    english = babel.Locale("en")
    by_kind = {kind: dict(_iterate_subtags(records, kind)) for kind in ("language", "script", "region", "variant")}
    preferred = {
        (record.get("Subtag") or record["Tag"]).lower(): record["Preferred-Value"]
        for record in records
        if record["Type"] in ("language", "grandfathered") and "Preferred-Value" in record
    }
    return {
        **make_cldr_part(by_kind["language"]),
        "preferred": dict(sorted(preferred.items())),
        "extlangs": {record["Subtag"]: record["Prefix"][0] for record in records if record["Type"] == "extlang"},
        "languages": _join_names(by_kind["language"], english.languages),
        "named": sorted(code for code in by_kind["language"] if code in english.languages),
        "scripts": {code: english.scripts.get(code, names[0]) for code, names in by_kind["script"].items()},
        "regions": {code: english.territories.get(code, names[0]) for code, names in by_kind["region"].items()},
        "variants": {code: names[0] for code, names in by_kind["variant"].items()},
    }


def make_cldr_part(languages: Mapping[str, object]) -> Table:
    """Returns what CLDR alone says: aliases of languages and regions, and the script that a language is written in.

    A language without a script is written in Latn, and a language in a region without one as elsewhere.
    """
    import babel
    from babel.core import get_global

    aliases = {code: tag.replace("_", "-") for code, tag in get_global("language_aliases").items() if "_" not in code}
    likely = {key: tag.split("_")[1] for key, tag in get_global("likely_subtags").items()}
    scripts = {code: script for code, script in likely.items() if code in languages and script != "Latn"}
    # Codes that CLDR replaces are not written in another script for that
    scripts |= {code: likely[tag] for code, tag in aliases.items() if likely.get(tag, "Latn") != "Latn"}
    for key, script in likely.items():
        code, _, region = key.partition("_")
        if code != "und" and code in languages and len(region) == 2 and script != scripts.get(code, "Latn"):
            scripts[f"{code}-{region}"] = script
    regions = {code: new[0] for code, new in get_global("territory_aliases").items() if len(code) in (2, 3)}
    return {
        "babel": babel.__version__,
        "licence": "CC0-1.0 and Unicode-3.0, see NOTICE.md",
        "aliases": dict(sorted(aliases.items())),
        "region_aliases": dict(sorted(regions.items())),
        "likely_scripts": dict(sorted(scripts.items())),
    }


def format_table(table: Table) -> str:
    """Returns the text of the file, with one line for each part of the table."""
    lines = (f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in table.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _iterate_subtags(records: Sequence[Mapping[str, Any]], kind: str) -> Iterator[tuple[str, list[str]]]:
    """Yields the subtags of a kind with their names, without ranges for private use."""
    for record in records:
        if record["Type"] == kind and ".." not in record["Subtag"]:
            yield record["Subtag"], record["Description"]


def _join_names(languages: Mapping[str, Sequence[str]], english: Mapping[str, str]) -> dict[str, str]:
    """Returns the names of each language, that of CLDR first, joined with semicolons."""
    return {
        code: ";".join(dict.fromkeys([*([english[code]] if code in english else []), *names]))
        for code, names in languages.items()
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
