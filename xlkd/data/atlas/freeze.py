# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes cldr.json, the names that the atlas deals out, from Unicode CLDR through Babel: python -m xlkd.data.atlas.freeze."""

from __future__ import annotations

import json
import pathlib
import re
import sys

from xlkd import files

LANGUAGES = ("en", "de", "es", "fr", "ru", "el", "ar", "hi", "zh", "tr")
LATIN = frozenset({"en", "de", "es", "fr", "tr"})
TARGET = pathlib.Path(__file__).with_name("cldr.json")

LONGEST = 30
# Reserved codes (parts of countries, unions, tests of software): nobody would call them a country
NOT_COUNTRIES = frozenset(
    "AC AQ BV CP CQ DG EA EU EZ GS HM IC IO QO TA TF UM UN XA XB ZZ".split()  # noqa: SIM905
)
# Two that many languages call "the … region" are left out: they would stand beside that very word
REGIONS = "005 011 013 014 015 017 018 029 030 034 035 039 053 054 061 143 145 151 154 155".split()  # noqa: SIM905
# Writing systems in everyday use; left out are variants of Han and those whose name is a slip or a word of one letter
SCRIPTS = (  # noqa: SIM905
    "Arab Armn Beng Cher Cyrl Deva Ethi Geor Grek Guru Hebr Hira Jpan Kana Khmr Knda Kore Laoo Latn "
    "Mlym Mong Mymr Orya Sinh Taml Telu Thaa Thai Tibt"
).split()
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")  # Babel counts them from Monday = 0
# Babel knows some zones by a new id only, CLDR's names hang on the old one
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
# Islands and peninsulas that CLDR gives a zone of its own, but nobody lives in a city of that name
NOT_CITIES = frozenset(
    "America/Bahia America/Lower_Princes America/Noronha Asia/Kamchatka Australia/Lindeman Australia/Lord_Howe".split()  # noqa: SIM905
)
# Brackets, commas, digits, abbreviations, free-standing dashes, invisible marks
_AWKWARD = re.compile(r"[^\w\s'’&.\-\u0300-\u036f\u0900-\u097f]|[\d_]|\s-|-\s|[\u00a0\u202f\u200e\u200f]|\.|о-в")


def main() -> int:
    import babel

    files.write_text(TARGET, text())
    print(f"{TARGET} from Babel {babel.__version__}")
    return 0


def text() -> str:
    """The bytes of cldr.json, which Babel's version alone decides."""
    import babel

    pools = {"country": countries(), **values()}
    head = {"babel": babel.__version__, "licence": "Unicode-3.0, see NOTICE.md", "languages": list(LANGUAGES)}
    return json.dumps({**head, "pools": pools}, ensure_ascii=False, indent=1) + "\n"


def countries() -> dict[str, list[str]]:
    codes = [code for code in sorted(_locale("en").territories) if re.fullmatch("[A-Z]{2}", code)]
    return _clean({code: _names("territories", code) for code in codes if code not in NOT_COUNTRIES})


def values() -> dict[str, dict[str, list[str]]]:
    """What can be said of a country, but for years, which need no name, and neighbours, which are countries."""
    return {
        "currency": _clean({code: _names("currencies", code) for code in _currencies()}),
        "language": _clean({code: _names("languages", code) for code in _languages()}, apart_from=_territories()),
        "city": _clean({zone: _cities(zone) for zone in _zones()}, apart_from=_territories()),
        "region": _clean({code: _names("territories", code) for code in REGIONS}, apart_from=_territories()),
        "weekday": _clean({code: _weekdays(day) for day, code in enumerate(WEEKDAYS)}),
        "script": _clean({code: _names("scripts", code) for code in SCRIPTS}, apart_from=_territories()),
    }


def _clean(names: dict[str, list[str | None]], apart_from: frozenset[str] = frozenset()) -> dict[str, list[str]]:
    """Keep what every language can name plainly, and of two that share a name in some language the first."""
    kept: dict[str, list[str]] = {}
    seen: set[tuple[int, str]] = set()
    for code, row in names.items():
        plain = all(_plain(name, code, language) for name, language in zip(row, LANGUAGES, strict=True))
        keys = {(at, name.casefold()) for at, name in enumerate(row) if name}
        if plain and not keys & seen and not any(name.casefold() in apart_from for name in row):
            kept[code] = row
            seen |= keys
    return kept


def _plain(name: str | None, code: str, language: str) -> bool:
    if not name or name == code or len(name) > LONGEST or _AWKWARD.search(name):
        return False
    return language in LATIN or not re.search("[A-Za-z]", name)


def _names(table: str, code: str) -> list[str | None]:
    return [getattr(_locale(language), table).get(code) for language in LANGUAGES]


def _weekdays(day: int) -> list[str]:
    # 'format': Babel 2.18 mixes the stand-alone names of languages read in one process
    return [_locale(language).days["format"]["wide"][day] for language in LANGUAGES]


def _cities(zone: str) -> list[str | None]:
    found = [_city(_locale(language), zone) for language in LANGUAGES]
    own = zone.rsplit("/", 1)[-1].replace("_", " ")
    # Where letters are Latin, CLDR leaves out a name that equals the zone's id
    return [name or (own if language in LATIN else None) for name, language in zip(found, LANGUAGES, strict=True)]


def _city(locale, zone: str) -> str | None:
    zones = locale.time_zones
    for known in (zone, OLD_ZONES.get(zone)):
        if known and zones.get(known, {}).get("city"):
            return zones[known]["city"]
    return None


def _zones() -> list[str]:
    from babel.core import get_global

    zones = {zone for found in get_global("territory_zones").values() for zone in found}
    mainland = tuple(f"{part}/" for part in ("Africa", "America", "Asia", "Australia", "Europe"))
    return sorted(zone for zone in zones - NOT_CITIES if zone.startswith(mainland))


def _currencies() -> list[str]:
    from babel.numbers import get_territory_currencies

    return sorted({code for country in countries() for code in get_territory_currencies(country)})


def _languages() -> list[str]:
    from babel.languages import get_official_languages

    codes = {code.split("_")[0] for t in countries() for code in get_official_languages(t, de_facto=True)}
    # Arabic sentences need the name of a language with its article
    return sorted(code for code in codes if (_locale("ar").languages.get(code) or "").startswith("ال"))


def _territories() -> frozenset[str]:
    """Names of countries in every language: no city or language may bear one, or held-out names would be seen."""
    named = [(code, name) for language in LANGUAGES for code, name in _locale(language).territories.items()]
    return frozenset(name.casefold() for code, name in named if len(code) == 2)


def _locale(language: str):
    from babel import Locale

    return Locale(language)


if __name__ == "__main__":
    sys.exit(main())
