# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Valid small files of every supported format, and ways to damage them: at bytes, and in JSON at values."""

import copy
import gzip
import json

from hypothesis import strategies as st

KINDS = ("flip", "cut", "end", "insert", "replace", "twice", "crlf")
HOSTILE = (
    b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b'"\\ud800"', b"\\u0000", b"\r", b"\n", b"\n\n", b"\t", b'"',
    b"'", b",", b":", b"[", b"}", b"NaN", b"-Infinity", b"-1", b"0", b"1e999", b"9" * 5000, b"null", b"true", b'""',
    b"[]", b"{}", b"[" * 20_000, b'{"a":' * 20_000, b"x" * (1 << 20), b"a " * (1 << 17), "\u202e\u2066".encode(),
    b"\x1b[2J", b"../../x", b"a/b", b"=1+1", b"<tu>", b"</tuv>", b"&lol;", b"<![CDATA[", b"<!--", b'<x a="',
    '\u0130\u1e9e\ufdfa'.encode(), b"en", b"zz", b"2-",
)  # fmt: skip
WRONG = (
    None, True, False, 0, -1, 7, 10**30, -(10**30), 1.5, 1e308, float("nan"), float("inf"), "", " ", "x", "\ud800",
    "\0", "../../x", "a/b", "x" * 300, "\u202etxt", "\x1b[31m", "en", "0", [], {}, [None], [[]], {"": None},
    {"a": {"a": []}}, ["x"], [0], [{}], "1/2",
)  # fmt: skip

PLACE = st.integers(0, 2**31)
OPERATIONS = st.lists(st.tuples(st.sampled_from(KINDS), PLACE, PLACE), min_size=1, max_size=4)
SLIPS = st.lists(
    st.tuples(PLACE, st.sampled_from((*range(len(WRONG)), "delete", "twice", "deep"))), min_size=1, max_size=3
)


def spoil(data: bytes, operations) -> bytes:
    """Returns the bytes after each operation in turn."""
    for kind, place, other in operations:
        at = place % (len(data) + 1)
        end = at + other % 40
        if kind == "flip" and data:
            at = place % len(data)
            data = data[:at] + bytes([data[at] ^ (1 << other % 8)]) + data[at + 1 :]
        elif kind == "cut":
            data = data[:at] + data[end:]
        elif kind == "end":
            data = data[:at]
        elif kind == "insert":
            data = data[:at] + HOSTILE[other % len(HOSTILE)] + data[at:]
        elif kind == "replace":
            data = data[:at] + HOSTILE[other % len(HOSTILE)] + data[at + 1 + other % 7 :]
        elif kind == "twice":
            data = data[:end] + data[at:]
        elif kind == "crlf":
            data = data.replace(b"\n", b"\r\n" if other % 2 else b"\r")
    return data


def slip(text: bytes, slips) -> bytes:
    """Returns JSON with wrong, missing or duplicated values at some positions."""
    value = json.loads(text)
    for place, what in slips:
        spots = list(_spots(value))
        if not spots:
            break
        parent, key = spots[place % len(spots)]
        if what == "delete":
            del parent[key]
        elif what == "twice":
            if isinstance(parent, list):
                parent.append(copy.deepcopy(parent[key]))
            else:
                parent[Key(key)] = copy.deepcopy(parent[key])
        elif what == "deep":
            parent[key] = _deep(200)
        else:
            parent[key] = copy.deepcopy(WRONG[what])
    return json.dumps(value).encode()


class Key(str):
    """A string equal to no other key, so that an object can contain the same name twice."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def _spots(value):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _spots(inner)


def _deep(depth: int):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def lines(*rows: str) -> bytes:
    return "".join(f"{row}\n" for row in rows).encode()


def squad(*ids: str) -> bytes:
    context = "Anna wrote Ünal a letter. 安娜写信。"
    questions = [
        {"id": id, "question": "Who wrote?", "answers": [{"text": "Anna", "answer_start": 0}]} for id in ids
    ] + [{"id": f"{ids[0]}2", "question": "谁?", "answers": [{"text": "安娜", "answer_start": 26}]}]
    return json.dumps(
        {"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": questions}]}]}
    ).encode()


_ENGLISH = ("Anna wrote a letter.", "The train stops here.", "It rained.")
_GERMAN = ("Anna schrieb einen Brief.", "Der Zug hält hier.", "Es hat geregnet.")
_TMX = lines(
    '<?xml version="1.0" encoding="UTF-8"?>',
    '<tmx version="1.4"><header srclang="en"/><body>',
    *(
        f'<tu><tuv xml:lang="en"><seg>{a}</seg></tuv><tuv xml:lang="de"><seg>{b} <ph>x</ph></seg></tuv></tu>'
        for a, b in zip(_ENGLISH, _GERMAN, strict=True)
    ),
    "</body></tmx>",
)
_REVIEWS = ("text\tlabel\tlanguage\tid", "The food\tbad\ten\t1", "Das Essen\tbad\tde\t2", "¡Bien!\tgood\tes\t3")
_NLI = (
    "language\tgold_label\tsentence1\tsentence2\tpairID",
    *(f"{language}\tneutral\tA {language}\tB\t{i}" for i in "12" for language in ("en", "de")),
)
_AMAZON = {
    "review_id": "r1",
    "product_id": "p1",
    "stars": "5",
    "review_body": "good",
    "review_title": "t",
    "product_category": "c",
}

# name: (task, source string, {file: bytes})
FORMATS = {
    "squad": ("qa", "squad:{}/mine.json", {"mine.json": squad("1", "2")}),
    "xquad": ("qa", "xquad:{}?pairs=all", {"xquad.en.json": squad("1"), "xquad.de.json": squad("1")}),
    "mlqa": (
        "qa",
        "mlqa:{}?pairs=all",
        {"dev-context-en-question-de.json": squad("a"), "dev-context-en-question-en.json": squad("a")},
    ),
    "tydiqa": ("qa", "tydiqa:{}", {"tydiqa.goldp.sw.train.json": squad("s")}),
    "tsv": ("classify", "tsv:{}/r.tsv", {"r.tsv": lines(*_REVIEWS)}),
    "tsv_quoted": ("classify", "tsv:{}/r.tsv?quoting=csv", {"r.tsv": lines(*_REVIEWS)}),
    "tsv_numbers": ("classify", "tsv:{}/r.tsv?text=0&label=1&languages=en", {"r.tsv": lines(*_REVIEWS)}),
    "csv": ("classify", "csv:{}/r.csv", {"r.csv": lines(*(f'"{row}"'.replace("\t", '","') for row in _REVIEWS))}),
    "csv_pairs": (
        "parallel",
        "csv:{}/r.csv?languages=en,de",
        {"r.csv": lines("source,target,id", 'Hi,"Hal""lo",1', "Bye,Tschüss,2")},
    ),
    "jsonl": (
        "classify",
        "jsonl:{}/r.jsonl?languages=de",
        {"r.jsonl": lines('{"text": "Gut", "label": 1, "id": "a"}', '{"text": "Schlecht", "label": "0", "id": 2}')},
    ),
    "jsonl_pairs": (
        "parallel",
        "jsonl:{}/r.jsonl?languages=en,de",
        {"r.jsonl": lines('{"source": "Hi", "target": "Hallo", "id": 3}')},
    ),
    "xnli": ("classify", "xnli:{}?split=dev", {"xnli.dev.tsv": lines(*_NLI)}),
    "xnli_json": (
        "classify",
        "xnli:{}?split=dev&rows=common",
        {
            "xnli.dev.jsonl": lines(
                *(json.dumps(dict(zip(_NLI[0].split("\t"), row.split("\t"), strict=True))) for row in _NLI[1:])
            )
        },
    ),
    "xtreme": (
        "classify",
        "xnli:{}?split=dev",
        {"dev-de.tsv": lines('"A ""x"""\tB\tneutral'), "dev-en.tsv": lines("A\tB\tneutral")},
    ),
    "pawsx": (
        "classify",
        "pawsx:{}?split=dev",
        {"de/dev_2k.tsv": lines("id\tsentence1\tsentence2\tlabel", "1\tA\tB\t1", "2\tNS\tB\t0")},
    ),
    "nusax": (
        "classify",
        "nusax:{}?split=dev",
        {"english/valid.csv": lines("id,text,label", "1,good,positive", '2,"bad, bad",negative')},
    ),
    "amazon": ("classify", "amazon:{}?split=dev", {"dev/dataset_de_dev.json": lines(json.dumps(_AMAZON))}),
    "amazon_csv": (
        "classify",
        "amazon:{}?split=dev",
        {"dev.csv": lines(",".join((*_AMAZON, "language")), ",".join((*_AMAZON.values(), "de")))},
    ),
    "text": (
        "masked",
        "text:{}?longest=8",
        {"yo.txt": lines(*_ENGLISH), "zh.txt.gz": gzip.compress(lines("这里", "那"))},
    ),
    "moses": ("parallel", "moses:{}/c?languages=en,de", {"c.en": lines(*_ENGLISH), "c.de": lines(*_GERMAN)}),
    "moses_packed": (
        "parallel",
        "moses:{}/c?languages=en,de",
        {"c.en.gz": gzip.compress(lines(*_ENGLISH)), "c.de": lines(*_GERMAN)},
    ),
    "tmx": ("parallel", "tmx:{}/m.tmx?languages=en,de", {"m.tmx": _TMX}),
    "tmx_packed": ("parallel", "tmx:{}/m.tmx.gz", {"m.tmx.gz": gzip.compress(_TMX)}),
    "ntrex": (
        "parallel",
        "ntrex:{}",
        {
            "newstest2019-src.eng.txt": lines(*_ENGLISH),
            "newstest2019-ref.deu.txt": lines(*_GERMAN),
            "DOCUMENT_IDS.tsv": lines("a", "a", "b"),
        },
    ),
    "tatoeba": (
        "parallel",
        "tatoeba:{}",
        {"tatoeba.deu-eng.eng": lines(*_ENGLISH), "tatoeba.deu-eng.deu": lines(*_GERMAN)},
    ),
    "align": (
        "parallel",
        "align:{}/ende",
        {"ende.en": lines(*_ENGLISH), "ende.de": lines(*_GERMAN), "ende.gold": lines("0-0 1?1", "2-2", "0-0")},
    ),
}
