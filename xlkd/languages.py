# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The table of languages: maps tags, codes and English names to the tags that xlkd uses."""

from __future__ import annotations

from xlkd.errors import UserError, suggest_name

NAMES = {
    "ace": "Acehnese", "af": "Afrikaans", "ar": "Arabic", "az": "Azerbaijani", "ban": "Balinese", "bbc": "Toba Batak",
    "be": "Belarusian", "bg": "Bulgarian", "bjn": "Banjarese", "bn": "Bengali", "bug": "Buginese", "ca": "Catalan",
    "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish", "et": "Estonian",
    "eu": "Basque", "fa": "Persian", "fi": "Finnish", "fr": "French", "ga": "Irish", "gl": "Galician",
    "gu": "Gujarati", "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "hy": "Armenian",
    "id": "Indonesian", "is": "Icelandic", "it": "Italian", "ja": "Japanese", "jv": "Javanese", "ka": "Georgian",
    "kk": "Kazakh", "kn": "Kannada", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian", "mad": "Madurese",
    "mk": "Macedonian", "ml": "Malayalam", "mn": "Mongolian", "mr": "Marathi", "ms": "Malay", "mt": "Maltese",
    "min": "Minangkabau", "my": "Burmese", "ne": "Nepali", "nij": "Ngaju", "nl": "Dutch", "no": "Norwegian",
    "pa": "Punjabi", "pl": "Polish", "ps": "Pashto", "pt": "Portuguese", "qu": "Quechua", "ro": "Romanian",
    "ru": "Russian", "si": "Sinhala", "sk": "Slovak", "sl": "Slovenian", "so": "Somali", "sq": "Albanian",
    "sr": "Serbian", "su": "Sundanese", "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "te": "Telugu",
    "th": "Thai", "tl": "Tagalog", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "uz": "Uzbek",
    "vi": "Vietnamese", "yo": "Yoruba", "zh": "Chinese",
}  # fmt: skip

# Other tags that files use: ISO 639-3, macrolanguages for their usual member, older codes.
ALIASES = {
    "afr": "af", "ara": "ar", "arb": "ar", "aze": "az", "bel": "be", "ben": "bn", "bul": "bg", "cat": "ca",
    "ces": "cs", "cmn": "zh", "dan": "da", "deu": "de", "ell": "el", "eng": "en", "est": "et", "eus": "eu",
    "fas": "fa", "fil": "tl", "fin": "fi", "fra": "fr", "ger": "de", "gle": "ga", "glg": "gl", "guj": "gu",
    "heb": "he", "hin": "hi", "hrv": "hr", "hun": "hu", "hye": "hy", "in": "id", "ind": "id", "isl": "is",
    "ita": "it", "iw": "he", "jav": "jv", "jpn": "ja", "kan": "kn", "kat": "ka", "kaz": "kk", "kor": "ko",
    "lav": "lv", "lit": "lt", "lvs": "lv", "mal": "ml", "mar": "mr", "mkd": "mk", "mlt": "mt", "mon": "mn",
    "msa": "ms", "mya": "my", "nb": "no", "nep": "ne", "nld": "nl", "nn": "no", "nob": "no", "nor": "no",
    "pan": "pa", "pes": "fa", "pol": "pl", "por": "pt", "pus": "ps", "que": "qu", "ron": "ro", "rus": "ru",
    "sin": "si", "slk": "sk", "slv": "sl", "som": "so", "spa": "es", "sqi": "sq", "srp": "sr", "sun": "su",
    "swa": "sw", "swe": "sv", "swh": "sw", "tam": "ta", "tel": "te", "tgl": "tl", "tha": "th", "tur": "tr",
    "ukr": "uk", "urd": "ur", "uzb": "uz", "vie": "vi", "yor": "yo", "zho": "zh", "zsm": "ms",
}  # fmt: skip

UNKNOWN = "und"  # an undetermined language
RIGHT_TO_LEFT = frozenset({"ar", "fa", "he", "ps", "ur"})
WITHOUT_SPACES = frozenset({"ja", "my", "th", "zh"})

_TAGS_BY_NAME = {name.casefold().replace(" ", "_"): tag for tag, name in NAMES.items()}


def normalise_tag(tag: str, where: str = "") -> str:
    """Returns xlkd's tag for a tag, a code or an English name: zho-CN, cmn, zh_Hans and Chinese are all zh."""
    name = tag.strip().casefold().replace("-", "_").replace(" ", "_")
    base = name.split("_")[0]
    for candidate in (name, base):
        if candidate in NAMES:
            return candidate
        if candidate in ALIASES:
            return ALIASES[candidate]
        if candidate in _TAGS_BY_NAME:
            return _TAGS_BY_NAME[candidate]
    tag, base = tag[:60], base[:60]  # a cell of a wrong column can be long
    remedy = suggest_name(base, [*NAMES, *ALIASES, *_TAGS_BY_NAME], "use a two-letter code such as 'en'")
    raise UserError(f"unknown language {tag!r}", where, remedy)
