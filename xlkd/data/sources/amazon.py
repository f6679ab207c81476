# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`amazon:DIR?split=dev`: the multilingual Amazon reviews, with labels 1 to 5 stars for every copy.

Three layouts: `SPLIT/dataset_LANG_SPLIT.json` (JSON lines), `SPLIT.csv` with all languages, and a re-hosted
`LANG/SPLIT.jsonl` whose labels are 0 to 4 and whose text is title and body. In the others the text is
`text=review_body` by default, and `second=review_title,product_category` makes pairs of it and these fields.
"""

from __future__ import annotations

from xlkd.data import labels
from xlkd.data.sources import BadRows, Source, _labelled, is_whole
from xlkd.data.sources._labelled import Kind, Layout
from xlkd.data.sources._table import CSV, JSONL, Columns, Values
from xlkd.errors import UserError
from xlkd.rows import Labelled

TASKS = ("classify",)
OPTIONS = (*_labelled.OPTIONS, "split", "text", "second")

_FIELDS = ("review_body", "review_title", "product_category")
_SPLITS = {"train": ("train",), "dev": ("dev", "validation"), "test": ("test",)}
_EXPECTED = "dataset_LANG_SPLIT.json, SPLIT.csv or LANG/SPLIT.jsonl"


def rows(source: Source, task: str, bad_rows: BadRows) -> tuple[Labelled, ...]:
    """Returns the reviews language after language; the reviews of a product are a group."""
    files = _labelled.find_files(
        source,
        _make_layouts(_parse_fields(source, "text", "review_body"), _parse_fields(source, "second")),
        _SPLITS,
        _EXPECTED,
        bad_rows,
    )
    return _labelled.rows(
        source,
        Kind("amazon", labels.STARS, group="id", parallel=False, label=_get_stars, texts=_join_fields),
        files,
        bad_rows,
    )


def _make_layouts(text: list[str], second: list[str]) -> tuple[tuple[Layout, ...], ...]:
    """Returns the layouts of each distribution of the data set; `text` and `second` name the fields of each side.

    A distribution with the field `stars` counts labels from 1, one with `label` and `label_text` from 0.
    """
    sides = {
        f"{side}{i}": (name,) for side, names in (("text", text), ("second", second)) for i, name in enumerate(names)
    }
    stars, group = sides | {"label": ("stars",), "id": ("review_id",)}, {"group": ("product_id",)}
    rehosted = {"text0": ("text",), "from_0": ("label",), "named": ("label_text",), "id": ("id", "review_id")}
    choices = (Columns(stars, group), *(() if second or text != ["review_body"] else (Columns(rehosted, group),)))
    split = r"(?P<split>train|dev|validation|test)"
    return (
        (Layout(rf"(?:\w+/)?dataset_(?P<language>\w\w)_{split}\.json", JSONL, choices),),
        (Layout(rf"{split}\.csv", CSV, (Columns(stars | {"language": ("language",)}, group),)),),
        (Layout(rf"(?P<language>\w\w)/{split}\.jsonl", JSONL, choices),),
    )


def _parse_fields(source: Source, option: str, default: str = "") -> list[str]:
    """Returns the fields that an option names."""
    names = [name for name in source.option(option, default).split(",") if name]
    if unknown := [name for name in names if name not in _FIELDS]:
        raise UserError(f"{option}={unknown[0]} is not possible", str(source), f"choose from {', '.join(_FIELDS)}")
    return names


def _join_fields(values: Values) -> tuple[str, ...]:
    """Joins the fields of each side to a text."""
    sides = [[values[part] for part in values if part.startswith(side)] for side in ("text", "second")]
    return tuple(" . ".join(parts) for parts in sides if parts)


def _get_stars(values: Values) -> str | None:
    """Returns the label in stars; None where there is none."""
    label = values.get("label", values.get("from_0"))
    if label is None:
        return None
    if "label" in values or not is_whole(label.strip()):
        return label.strip()
    return str(int(label) + 1) if int(label) < len(labels.STARS) else f"{label}, counted from 0"
