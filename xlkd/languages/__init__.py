# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Languages: makes one canonical tag of each tag, code or English name, and says how a language is written.

A canonical tag is `language[-Script][-REGION]`, as `de`, `zh-Hant` or `pt-BR`; docs/new-language.md has the rule. What
is known of languages stands in table.json, which `xlkd.languages.freeze` writes; it is read on first use.
"""

from __future__ import annotations

import difflib
import functools
import json
import pathlib
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from xlkd.errors import UserError

UNKNOWN = "und"  # an undetermined language
TABLE_VERSION = 2  # 1 is that of version 0.1, which runs that began with it keep

# Codes that CLDR replaces by others, but that a data set keeps apart from these: Twi and Akan, South and North
# Levantine Arabic (FLORES-200), Coastal and Central Kadazan (Tatoeba)
DISTINCT_CODES = {"twi": "tw", "tw": "tw", "ajp": "ajp", "kzj": "kzj"}
# A script that stays although the language is usually written in it: `zh` does not say in which of two scripts it is
DISTINCT_SCRIPTS = frozenset({"zh-Hans"})
# Regions that stay, since a data set has texts of the language in this and in another one
DISTINCT_REGIONS = frozenset({
    "en-GB", "en-IN", "es-MX", "fr-CA", "gsw-BE", "gsw-ZH", "pt-BR",  # NTREX-128
    "fa-AF", "sr-ME", "sw-CD",  # have codes of their own in ISO 639-3: prs, cnr, swc
    "zh-HK",  # Common Voice
    "ar-EG", "sw-TZ",  # WMT24++
})  # fmt: skip
# Other English names, and cantons that NTREX writes like regions
_OTHER_NAMES = {"banjarese": "bjn", "toba_batak": "bbc"}
_CANTONS = {"gsw-BE": "Bern", "gsw-ZH": "Zurich"}
# A script that is a part or a style of others
_PART_OF = {"Hang": ("Kore",), "Hani": ("Hans", "Hant", "Jpan", "Kore"), "Hira": ("Jpan",), "Kana": ("Jpan",)}
_PART_OF |= {"Aran": ("Arab",), "Hrkt": ("Jpan",)}

_RIGHT_TO_LEFT = frozenset({
    "Adlm", "Arab", "Aran", "Armi", "Avst", "Chrs", "Cprt", "Elym", "Gara", "Hatr", "Hebr", "Hung", "Khar", "Lydi",
    "Mand", "Mani", "Mend", "Merc", "Mero", "Narb", "Nbat", "Nkoo", "Orkh", "Palm", "Phli", "Phlp", "Phlv", "Phnx",
    "Prti", "Rohg", "Samr", "Sarb", "Sogd", "Sogo", "Syrc", "Syre", "Syrj", "Syrn", "Thaa", "Yezi",
})  # fmt: skip
_WITHOUT_SPACES = frozenset({
    "Ahom", "Bali", "Bopo", "Hani", "Hans", "Hant", "Hira", "Hrkt", "Java", "Jpan", "Kana", "Khmr", "Lana", "Laoo",
    "Mymr", "Tale", "Talu", "Tavt", "Thai", "Tibt",
})  # fmt: skip
_LONGEST = 100  # characters of a tag or a name
_table_version = TABLE_VERSION


class Tag(NamedTuple):
    """The parts of a tag; empty where it does not have them."""

    language: str
    script: str = ""
    region: str = ""
    variants: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "-".join(part for part in (self.language, self.script, self.region, *self.variants) if part)


class _UnknownSubtag(Exception):
    """Reports the part of a tag that is not known, with the kind of names that it could be."""

    def __init__(self, subtag: str, kind: str) -> None:
        self.subtag, self.kind = subtag, kind
        super().__init__(subtag, kind)


def normalise_tag(tag: str, where: str = "") -> str:
    """Returns the canonical tag of a tag, a code or an English name: deu, de_DE, deu_Latn and German are all de."""
    if canonical := find_tag(tag):
        return canonical
    shown = tag if len(tag) <= 60 else f"{tag[:60]}…"  # a cell of a wrong column can be long
    raise UserError(f"unknown language {shown!r}", where, _suggest(tag))


@functools.lru_cache(4096)
def find_tag(tag: str) -> str:
    """Returns the canonical tag of a tag, a code or an English name; an empty string for any other text."""
    if _table_version == 1:
        return _find_earlier_tag(tag)
    try:
        return str(_parse(tag))
    except _UnknownSubtag:
        return _find_by_name(tag)


@functools.lru_cache(4096)
def get_base_language(tag: str) -> str:
    """Returns the language of a canonical tag without script and region: labels in one of them are labels in all.

    Codes that CLDR joins count as one language, and Bokmål and Nynorsk as Norwegian, as version 0.1 wrote both.
    """
    language = tag.partition("-")[0]
    language = _load_table()["aliases"].get(language, language).partition("-")[0]
    return "no" if language in ("nb", "nn") else language


def has_language(tags: Iterable[str], tag: str) -> bool:
    """Returns whether one of the tags is the same language, in whatever script or region."""
    return get_base_language(tag) in map(get_base_language, tags)


def is_english(tag: str) -> bool:
    """Returns whether a canonical tag is English of any region."""
    return get_base_language(tag) == "en"


@functools.lru_cache(4096)
def get_name(tag: str) -> str:
    """Returns the English name of a canonical tag, such as Chinese (Traditional, Hong Kong)."""
    table = _load_table()
    parts = _split(tag)
    region = _CANTONS.get(f"{parts.language}-{parts.region}", table["regions"].get(parts.region, parts.region))
    details = [table["scripts"].get(parts.script, parts.script), region]
    details += [table["variants"].get(variant, variant) for variant in parts.variants]
    name = table["languages"].get(parts.language, parts.language).partition(";")[0]
    shown = ", ".join(filter(None, details))
    return f"{name} ({shown})" if shown else name


@functools.lru_cache(4096)
def get_script(tag: str) -> str:
    """Returns the script of a canonical tag, or the one that the language is usually written in; Latn by default."""
    parts = _split(tag)
    return parts.script or _get_likely_script(parts.language)


def is_right_to_left(tag: str) -> bool:
    """Returns whether a language is written from right to left."""
    return get_script(tag) in _RIGHT_TO_LEFT


def is_without_spaces(tag: str) -> bool:
    """Returns whether a language is written without spaces between words."""
    return get_script(tag) in _WITHOUT_SPACES


def list_common_tags() -> list[str]:
    """Returns the canonical codes of the languages that CLDR has names for, which are the widely used ones."""
    table = _load_table()
    return [code for code in table["named"] if code not in table["aliases"] or code in DISTINCT_CODES]


def use_table(version: int) -> None:
    """Chooses the table by which tags are read from now on: 1 for a run of version 0.1, which wrote other tags."""
    global _table_version
    _table_version = version
    find_tag.cache_clear()


def _parse(text: str) -> Tag:
    """Returns the canonical parts of a tag, or raises `_UnknownSubtag`."""
    parts = _canonicalise_codes(_split_subtags(text))
    language, script, region, variants = parts
    likely = _get_likely_script(language)
    script = script or _load_table()["likely_scripts"].get(f"{language}-{region}", likely)
    is_implied = script == likely or likely in _PART_OF.get(script, ())
    names_script = parts.script and f"{language}-{script}" in DISTINCT_SCRIPTS
    return Tag(
        language,
        script if names_script or not is_implied else "",
        region if f"{language}-{region}" in DISTINCT_REGIONS else "",
        variants,
    )


def _split_subtags(text: str) -> list[str]:
    """Returns the parts of a tag in lower case, without extensions, after checking their form."""
    subtags = text.strip().replace("_", "-").lower().split("-") if len(text) <= _LONGEST else []
    if not subtags or not all(re.fullmatch("[a-z0-9]{1,8}", subtag) for subtag in subtags):
        raise _UnknownSubtag(text, "language")
    if preferred := _load_table()["preferred"].get("-".join(subtags)):
        subtags = preferred.lower().split("-") if len(subtags) > 1 else subtags
    end = next((i for i, subtag in enumerate(subtags) if i and len(subtag) == 1), len(subtags))
    return subtags[:end]


def _canonicalise_codes(subtags: list[str]) -> Tag:
    """Returns the parts of a tag, with the codes that CLDR has for them."""
    table = _load_table()
    language, *rest = subtags
    if rest and table["extlangs"].get(rest[0]) == language:  # zh-yue
        language = rest.pop(0)
    script = rest.pop(0).title() if rest and re.fullmatch("[a-z]{4}", rest[0]) else ""
    region = rest.pop(0).upper() if rest and re.fullmatch("[a-z]{2}|[0-9]{3}", rest[0]) else ""
    replacement = _split(_replace_code(language))
    if replacement.language not in table["languages"]:
        raise _UnknownSubtag(language, "language")
    if script and script not in table["scripts"]:
        raise _UnknownSubtag(script, "script")
    region = table["region_aliases"].get(region, region)
    if region and region not in table["regions"] and f"{replacement.language}-{region}" not in DISTINCT_REGIONS:
        raise _UnknownSubtag(region, "region")
    # FLORES+ names varieties by Glottolog's codes
    if unknown := [
        part for part in rest if part not in table["variants"] and not re.fullmatch("[a-z]{4}[0-9]{4}", part)
    ]:
        raise _UnknownSubtag(unknown[0], "variant")
    if replacement.language == UNKNOWN:
        return Tag(UNKNOWN)
    return Tag(replacement.language, script or replacement.script, region or replacement.region, tuple(rest))


def _replace_code(language: str) -> str:
    """Returns the code of a language as CLDR has it, which may be one with a script or a region: prs is fa-AF."""
    if language in DISTINCT_CODES:
        return DISTINCT_CODES[language]
    table = _load_table()
    language = table["preferred"].get(language, language)
    return table["aliases"].get(language, language)


def _split(tag: str) -> Tag:
    """Returns the parts of a canonical tag."""
    language, *rest = tag.split("-")
    script = rest.pop(0) if rest and re.fullmatch("[A-Z][a-z]{3}", rest[0]) else ""
    region = rest.pop(0) if rest and re.fullmatch("[A-Z]{2}|[0-9]{3}", rest[0]) else ""
    return Tag(language, script, region, tuple(rest))


def _get_likely_script(language: str) -> str:
    """Returns the script that a language is usually written in."""
    return _load_table()["likely_scripts"].get(language, "Latn")


def _find_by_name(text: str) -> str:
    """Returns the canonical tag of an English name, or an empty string."""
    code = _load_names().get(_fold_name(text)) if len(text) <= _LONGEST else None
    return str(_parse(code)) if code else ""


def _fold_name(name: str) -> str:
    """Returns a name as names are compared: in lower case, with underscores."""
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())


def _suggest(tag: str) -> str:
    """Returns the remedy for an unknown tag: the one most like it."""
    otherwise = "use a tag such as 'en' or 'zh-Hant', or an ISO 639 code"
    if _table_version == 1 or len(tag) > _LONGEST:
        return otherwise
    try:
        _parse(tag)
    except _UnknownSubtag as error:
        table = _load_table()
        if error.kind in ("script", "region", "variant"):
            similar = difflib.get_close_matches(error.subtag, table[f"{error.kind}s"], n=1)
            return f"{error.subtag!r} is no {error.kind}" + (f"; did you mean {similar[0]!r}?" if similar else "")
        codes, is_code = [*list_common_tags(), *table["aliases"]], len(error.subtag) < 4
        known, cutoff = (codes, 0.3) if is_code else ([*codes, *_load_names()], 0.6)
        for name in difflib.get_close_matches(_fold_name(error.subtag), known, n=1, cutoff=cutoff):
            return f"did you mean {name!r} ({get_name(find_tag(name))})?"
    return otherwise


@functools.cache
def _load_table() -> dict[str, Any]:
    """Reads the table of codes and names."""
    return json.loads(pathlib.Path(__file__).with_name("table.json").read_text(encoding="utf-8"))


@functools.cache
def _load_names() -> dict[str, str]:
    """Returns the codes of the languages by name; a name that several have is that of the most used one."""
    table = _load_table()
    names = dict(_OTHER_NAMES)
    codes = sorted(table["languages"], key=lambda code: (code not in table["named"], len(code), code))
    for rank in (0, 1):  # CLDR's name of one language before another name of another
        for code in codes:
            shown = table["languages"][code].split(";")
            for name in shown[:1] if rank == 0 else shown[1:]:
                names.setdefault(_fold_name(name), code)
    return names


def _find_earlier_tag(tag: str) -> str:
    """Returns the tag that version 0.1 had for a tag, a code or an English name; an empty string where it had none."""
    known = _load_earlier_table()
    name = tag.strip().casefold().replace("-", "_").replace(" ", "_")
    return known.get(name) or known.get(name.split("_")[0], "")


@functools.cache
def _load_earlier_table() -> dict[str, str]:
    """Reads the table of version 0.1."""
    return json.loads(pathlib.Path(__file__).with_name("version_0_1.json").read_text(encoding="utf-8"))
