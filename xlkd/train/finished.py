# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Marks a stage as finished with the hashes of its files, and checks them when the run is started again."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

from xlkd import files
from xlkd.errors import UserError
from xlkd.files import Json
from xlkd.models.hf import CARD
from xlkd.reports.files import STAGE_RECORD
from xlkd.runtime.workdir import INPUTS, WorkDirectory, read_object

DONE = "done"
HASHED = ("export/**/*", "rows/*.jsonl", "evaluation/*.json", "report/*.json")
HASHED += (STAGE_RECORD, INPUTS, "data_report.json", "metrics.jsonl")


def mark_finished(workdir: WorkDirectory, folder: pathlib.Path, texts: Sequence[str]) -> None:
    """Writes the marker after all files of the stage are on the disk; `texts` names the stage's files in `texts/`."""
    names = sorted(
        {str(path.relative_to(folder)) for pattern in HASHED for path in folder.glob(pattern) if path.is_file()}
    )
    for parent in {(folder / name).parent for name in names}:
        files.flush_path(parent)
    for name in names:
        files.flush_path(folder / name)
    # People edit model cards: no hash
    hashes: dict[str, Json] = {
        name: "" if name.endswith(CARD) else files.compute_sha256(folder / name) for name in names
    }
    record: dict[str, Json] = {"version": 1, "files": hashes, "texts": sorted(texts)}
    if workdir.mirror:
        workdir.upload()
        record["objects"] = workdir.mirror.list_large_objects(folder)
    workdir.write_json(folder / DONE, record)


def describe_damage(workdir: WorkDirectory, folder: pathlib.Path) -> str | None:
    """Returns "" for a finished stage, what is wrong with its files if they were damaged, and None if it is unfinished.

    A stage that cannot be written again, because its checkpoints were deleted, is refused.
    """
    if not (folder / DONE).exists():
        return None
    damage = _find_damage(workdir, folder)
    if damage and not any((folder / "checkpoints").glob("[0-9]*")):
        what = f"{damage}, and no checkpoint is left from which it could be written again"
        raise UserError(what, str(folder), "restore the file, or delete this folder to train the stage again")
    return damage


def _find_damage(workdir: WorkDirectory, folder: pathlib.Path) -> str:
    """Returns which file of a finished stage is not as it was written; "" if none, and for stages of version 0.1."""
    if not (folder / DONE).stat().st_size and not (folder / INPUTS).exists():
        return ""
    try:
        record = read_object(folder / DONE) or {}
        hashes, texts = dict(record["files"]), list(record["texts"])
        objects = {name: tuple(value) for name, value in record.get("objects", {}).items()} if workdir.mirror else {}
    except (ValueError, TypeError, KeyError):
        return f"{DONE} is damaged"
    if workdir.mirror:
        stored = workdir.mirror.list_large_objects(folder)
        for name, expected in objects.items():
            if stored.get(name) != expected:
                return f"{name} does not match its checksum" if name in stored else f"{name} is missing"
    for name, expected in hashes.items():
        if name in objects:  # in the bucket; downloaded where it is read
            continue
        if not (folder / name).is_file():
            return f"{name} is missing"
        if not expected and not (folder / name).read_bytes().strip(b"\0"):
            return f"{name} is empty"
        if expected and files.compute_sha256(folder / name) != expected:
            return f"{name} does not match its checksum"
    for name in texts:
        if read_lines(workdir.path / "texts" / f"{name}.jsonl") is None:
            return f"texts/{name}.jsonl is missing or damaged"
    return ""


def read_lines(path: pathlib.Path) -> list[dict[str, Json]] | None:
    """Returns the JSON objects in the lines of a file; None where it is missing or damaged."""
    try:
        values = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, RecursionError):
        return None
    return values if values and all(isinstance(value, dict) for value in values) else None
