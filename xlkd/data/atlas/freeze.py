# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes cldr.json, the atlas's names, from Unicode CLDR through Babel: python -m xlkd.data.atlas.freeze."""

from __future__ import annotations

import json
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from xlkd import files

if TYPE_CHECKING:
    from babel import Locale

LANGUAGES = ("en", "de", "es", "fr", "ru", "el", "ar", "hi", "zh", "tr")
LATIN = frozenset({"en", "de", "es", "fr", "tr"})
TARGET = pathlib.Path(__file__).with_name("cldr.json")

LONGEST = 30
# Reserved codes (parts of countries, unions, codes for software tests), which are not countries
NOT_COUNTRIES = frozenset(
    "AC AQ BV CP CQ DG EA EU EZ GS HM IC IO QO TA TF UM UN XA XB ZZ".split()  # noqa: SIM905
)
# Two that many languages call "the … region" are left out: the templates use that word too
REGIONS = "005 011 013 014 015 017 018 029 030 034 035 039 053 054 061 143 145 151 154 155".split()  # noqa: SIM905
# Writing systems in everyday use, without variants of Han and those with a wrong or one-letter name
SCRIPTS = (  # noqa: SIM905
    "Arab Armn Beng Cher Cyrl Deva Ethi Geor Grek Guru Hebr Hira Jpan Kana Khmr Knda Kore Laoo Latn "
    "Mlym Mong Mymr Orya Sinh Taml Telu Thaa Thai Tibt"
).split()
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")  # Babel counts from Monday = 0
# Babel knows some zones by their new id only, but CLDR's names belong to the old one
OLD_ZONES = {
    "Europe/Kyiv": "Europe/Kiev",
    "Asia/Kolkata": "Asia/Calcutta",
    "Asia/Yangon": "Asia/Rangoon",
    "Asia/Kathmandu": "Asia/Katmandu",
    "Africa/Asmara": "Africa/Asmera",
    "Atlantic/Faroe": "Atlantic/Faeroe",
    "Asia/Ho_Chi_Minh": "Asia/Saigon",
    "America/Argentina/Buenos_Aires": "America/Buenos_Aires",
}
# Islands and peninsulas with their own zone in CLDR that are not names of cities
NOT_CITIES = frozenset(
    "America/Bahia America/Lower_Princes America/Noronha Asia/Kamchatka Australia/Lindeman Australia/Lord_Howe".split()  # noqa: SIM905
)
# Brackets, commas, digits, abbreviations, free-standing dashes, invisible characters
_AWKWARD = re.compile(r"[^\w\s'’&.\-\u0300-\u036f\u0900-\u097f]|[\d_]|\s-|-\s|[\u00a0\u202f\u200e\u200f]|\.|о-в")


def main() -> int:
    """Writes the file and returns the exit code."""
    import babel

    files.write_text(TARGET, make_text())
    print(f"{TARGET} from Babel {babel.__version__}")
    return 0


def make_text() -> str:
    """Returns the content of cldr.json, which depends on Babel's version alone."""
    import babel

    pools = {"country": list_countries(), **list_values()}
    head = {"babel": babel.__version__, "licence": "Unicode-3.0, see NOTICE.md", "languages": list(LANGUAGES)}
    return json.dumps({**head, "pools": pools}, ensure_ascii=False, indent=1) + "\n"


def list_countries() -> dict[str, list[str]]:
    """Returns the names of countries in every language, by code."""
    codes = [code for code in sorted(_load_locale("en").territories) if re.fullmatch("[A-Z]{2}", code)]
    return _select_clean({code: _get_names("territories", code) for code in codes if code not in NOT_COUNTRIES})


def list_values() -> dict[str, dict[str, list[str]]]:
    """Returns the names of values by relation; years need no names, and neighbours are countries."""
    return {
        "currency": _select_clean({code: _get_names("currencies", code) for code in _list_currencies()}),
        "language": _select_clean(
            {code: _get_names("languages", code) for code in _list_languages()}, apart_from=_list_reserved_names()
        ),
        "city": _select_clean(
            {zone: _get_city_names(zone) for zone in _list_zones()}, apart_from=_list_reserved_names()
        ),
        "region": _select_clean(
            {code: _get_names("territories", code) for code in REGIONS}, apart_from=_list_reserved_names()
        ),
        "weekday": _select_clean({code: _get_weekday_names(day) for day, code in enumerate(WEEKDAYS)}),
        "script": _select_clean(
            {code: _get_names("scripts", code) for code in SCRIPTS}, apart_from=_list_reserved_names()
        ),
    }


def _select_clean(
    names: Mapping[str, Sequence[str | None]], apart_from: frozenset[str] = frozenset()
) -> dict[str, list[str]]:
    """Selects entries with a plain name in every language; where two share a name in a language, the first."""
    selected: dict[str, list[str]] = {}
    seen: set[tuple[int, str]] = set()
    for code, row in names.items():
        plain = [name for name, tag in zip(row, LANGUAGES, strict=True) if name and _is_plain(name, code, tag)]
        folded = [name.casefold() for name in plain]
        keys = set(enumerate(folded))
        if len(plain) == len(LANGUAGES) and not keys & seen and apart_from.isdisjoint(folded):
            selected[code] = plain
            seen |= keys
    return selected


def _is_plain(name: str, code: str, language: str) -> bool:
    """Says whether a name can be used in a template without changes."""
    if name == code or len(name) > LONGEST or _AWKWARD.search(name):
        return False
    return language in LATIN or not re.search("[A-Za-z]", name)


def _get_names(table: str, code: str) -> list[str | None]:
    """Returns the names of a code in every language."""
    return [getattr(_load_locale(language), table).get(code) for language in LANGUAGES]


def _get_weekday_names(day: int) -> list[str]:
    """Returns the name of a weekday in every language."""
    # 'format': Babel 2.18 mixes the stand-alone names of languages read in one process
    return [_load_locale(language).days["format"]["wide"][day] for language in LANGUAGES]


def _get_city_names(zone: str) -> list[str | None]:
    """Returns the names of a zone's city in every language."""
    names = [_get_city_name(_load_locale(language), zone) for language in LANGUAGES]
    default = zone.rsplit("/", 1)[-1].replace("_", " ")
    # Where letters are Latin, CLDR leaves out a name that equals the zone's id
    return [name or (default if language in LATIN else None) for name, language in zip(names, LANGUAGES, strict=True)]


def _get_city_name(locale: Locale, zone: str) -> str | None:
    """Returns the name of a zone's city in a locale; None where it has none."""
    zones = locale.time_zones
    for zone_id in (zone, OLD_ZONES.get(zone)):
        if zone_id and zones.get(zone_id, {}).get("city"):
            return zones[zone_id]["city"]
    return None


def _list_zones() -> list[str]:
    """Returns the time zones that are named after cities."""
    from babel.core import get_global

    zones = {zone for territory in get_global("territory_zones").values() for zone in territory}
    mainland = tuple(f"{part}/" for part in ("Africa", "America", "Asia", "Australia", "Europe"))
    return sorted(zone for zone in zones - NOT_CITIES if zone.startswith(mainland))


def _list_currencies() -> list[str]:
    """Returns the currencies of all countries."""
    from babel.numbers import get_territory_currencies

    return sorted({code for country in list_countries() for code in get_territory_currencies(country)})


def _list_languages() -> list[str]:
    """Returns the official languages of all countries."""
    from babel.languages import get_official_languages

    codes = {code.split("_")[0] for t in list_countries() for code in get_official_languages(t, de_facto=True)}
    # Arabic sentences need the name of a language with its article
    return sorted(code for code in codes if (_load_locale("ar").languages.get(code) or "").startswith("ال"))


def _list_reserved_names() -> frozenset[str]:
    """Returns the names of all territories with two letters in every language, casefolded.

    No other value may have one of them, or training would show the names of held-out countries.
    """
    names = [(code, name) for language in LANGUAGES for code, name in _load_locale(language).territories.items()]
    return frozenset(name.casefold() for code, name in names if len(code) == 2)


def _load_locale(language: str) -> Locale:
    """Loads a language's data from Babel."""
    from babel import Locale

    return Locale(language)


if __name__ == "__main__":
    sys.exit(main())
