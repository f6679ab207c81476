# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs the stages of a config in a work directory; finished stages are not run again."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from ml_collections import ConfigDict

from xlkd import files, hub, languages, reports
from xlkd.data import cache, sources
from xlkd.runtime import distributed, trackers
from xlkd.runtime.log import Log, process_start_time
from xlkd.runtime.signals import Signals
from xlkd.runtime.workdir import WorkDirectory, has_trained, open_work_directory, read_object
from xlkd.settings import check_start, is_model_name, read_stages
from xlkd.spec.stage import AnySettings, list_starts

PACKAGES = ("jax", "jaxlib", "libtpu", "flax", "optax", "orbax-checkpoint", "grain", "transformers", "tokenizers")
PACKAGES += ("safetensors", "numpy")
COMMIT = re.compile("[0-9a-f]{40}")
HUB_KINDS = {"models": hub.MODEL, "data_sets": hub.DATA_SET}  # repositories of the hub in environment.json
FLAG = re.compile("LIBTPU_INIT_ARGS|XLA_FLAGS|JAX_.*")  # variables that change compiled programs


def run(config: ConfigDict, place: str, command: Sequence[str]) -> None:
    """Runs all stages of a config that are not finished yet, in a work directory: a folder, or gs://BUCKET/FOLDER."""
    stages = read_stages(config)
    cache.check_settings()  # before the work directory is made
    for number, settings in enumerate(stages):
        check_start(settings, [earlier.name for earlier in stages[:number]])
        sources.check_options(settings)
        trackers.check_names(settings.log.to)
    with contextlib.ExitStack() as stack:
        remedy = "free disk space or make the disk writable, then the same command resumes from the last save"
        stack.enter_context(files.explain_no_room(place, remedy))
        workdir, note = stack.enter_context(open_work_directory(config, place))
        path = workdir.path
        stack.enter_context(workdir.explain_loss())
        signals = stack.enter_context(Signals())
        from xlkd.inputs import data as inputs
        from xlkd.inputs.weights import locate_model
        from xlkd.runtime.devices import describe_devices, prepare_devices
        from xlkd.train import finished, stage

        prepare_devices()
        console = None if distributed.is_primary() else stack.enter_context(_open_null())
        log = Log(
            path / "log.txt" if distributed.is_primary() else None, console, workdir.check, workdir.describe_paths
        )
        stack.callback(log.close)
        log.event("start", at=process_start_time())
        log(f"start: {' '.join(command)}")
        if note:
            log(note)
        before = read_object(path / "environment.json") or {}
        choose_language_table(path / "environment.json", log)
        environment = describe_environment(command, before)
        if changes := describe_environment_changes(before, environment):
            log(f"other software than at the last start: {changes}; results may differ in rounding")
        restore_commits(path, log)
        workdir.write_json(path / "environment.json", environment | list_commits())
        log(f"work directory {workdir.place}, devices: {describe_devices()}")
        write_report, exports = ReportWriter(workdir, log), {}
        folders = [path / "stages" / f"{number:02d}-{settings.name}" for number, settings in enumerate(stages, 1)]
        damages = distributed.broadcast_from_primary(
            "finished stages", lambda: [finished.describe_damage(workdir, folder) for folder in folders]
        )
        for damage, settings in zip(damages, stages, strict=True):
            if damage != "":
                inputs.check_sources_exist(settings)
                for name in filter(is_model_name, list_starts(settings.start)):
                    locate_model(name, settings.start_revision or None)  # before another stage trains: may be misspelt
        workdir.write_json(path / "environment.json", environment | list_commits())
        log.show(stages=tuple(settings.name for settings in stages))
        for folder, damage, settings in zip(folders, damages, stages, strict=True):
            name = settings.name
            if damage == "":
                log(f"stage {name}: finished before")
            else:
                log(f"stage {name}" + (f": {damage}; it is written again" if damage else ""))
                log.show(stage=name, steps=0, eta="", values="", speed="", scores=())
                log.event("prepare", stage=name)
                for earlier in find_needed_stages(settings, exports):
                    workdir.share(exports[earlier].parent)
                stage.train(settings, workdir, folder, exports, log, signals, write_report)
                workdir.write_json(path / "environment.json", environment | list_commits())
                workdir.upload()
                distributed.barrier(f"{name} finished")
            exports[name] = folder / "export"
            log.show(finished=tuple(exports))
        log.event("report")
        if distributed.is_primary():
            reports.write(path, log, check=workdir.check)
        distributed.barrier("report")  # a process that ended earlier would be missing in collectives
        log.event("end")
        log("done")


def choose_language_table(record: pathlib.Path, log: Log) -> None:
    """Lets a run read tags of languages as it began: by the table that it recorded, or by that of version 0.1.

    A tag is part of the keys of examples, so with another table the data would not be the same.
    """
    before = distributed.broadcast_from_primary("language table", lambda: read_object(record) or {})
    version = get_language_table(before)
    if version != languages.TABLE_VERSION:
        log(f"tags of languages are read as when this run began (table {version})")
    languages.use_table(version)


def get_language_table(environment: Mapping[str, Any]) -> int:
    """Returns the table of languages that a run uses, by the record of its last start, which is empty at the first."""
    version = environment.get("language_table", 1 if environment else languages.TABLE_VERSION)
    return version if version in (1, languages.TABLE_VERSION) else languages.TABLE_VERSION


def restore_commits(folder: pathlib.Path, log: Log) -> None:
    """Lets a run that has begun read models and data sets of the hub at the commits that it recorded."""

    def read() -> dict[str, dict[str, str]]:
        has_begun = any(map(has_trained, (folder / "stages").glob("*")))
        before = (has_begun and read_object(folder / "environment.json")) or {}
        return {key: before[key] for key in HUB_KINDS if are_commits(before.get(key))}

    for key, commits in distributed.broadcast_from_primary("commits", read).items():
        hub.restore_commits(HUB_KINDS[key], commits)
        for name, commit in commits.items():
            log(f"{name} of the hub is read at commit {commit}, as when this run began")


def are_commits(value: Any) -> bool:
    """Says whether a value is a record of commits by name."""
    commits = value.values() if isinstance(value, dict) else [None]
    return all(isinstance(commit, str) and COMMIT.fullmatch(commit) for commit in commits)


def list_commits() -> dict[str, dict[str, str]]:
    """Returns the commits of the models and data sets of the hub that the run reads."""
    return {key: hub.list_commits(kind) for key, kind in HUB_KINDS.items()}


def find_needed_stages(settings: AnySettings, earlier: Iterable[str]) -> list[str]:
    """Returns the earlier stages whose models a stage reads: those of its start, and its teachers."""
    teachers = (name.strip() for names in settings.teachers.values() for name in names.split("+"))
    names = {*list_starts(settings.start), *teachers}
    return [name for name in earlier if name in names]


class ReportWriter:
    """Writes the report after evaluations, but no more often than in a twentieth of the time."""

    def __init__(self, workdir: WorkDirectory, log: Log) -> None:
        self._workdir, self._log, self._next = workdir, log, time.monotonic() + 60

    def __call__(self) -> None:
        began = time.monotonic()
        if began < self._next or not distributed.is_primary():
            return
        self._log.event("report")
        reports.write(self._workdir.path, lambda line: None, check=self._workdir.check)
        self._next = time.monotonic() + max(60, 20 * (time.monotonic() - began))


def describe_environment(command: Sequence[str], before: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the command, the versions and the devices of the run, for whoever repeats it.

    `before` is the record of the last start, whose packages are kept where they were others.
    """
    import jax

    packages = {name: version for name in PACKAGES if (version := _get_version(name))}
    earlier = before.get("earlier_packages")
    earlier = [*(earlier if isinstance(earlier, list) else ()), before.get("packages")]
    return {
        "command": list(command),
        "language_table": get_language_table(before),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "earlier_packages": [versions for versions in earlier if versions and versions != packages],
        "git": _run_git("rev-parse", "HEAD"),
        "git_changes": bool(_run_git("status", "--porcelain", "--untracked-files=no")),
        "devices": [str(device) for device in jax.devices()],
        "runtime": " ".join(jax.devices()[0].client.platform_version.split()),
        "flags": {name: value for name, value in sorted(os.environ.items()) if FLAG.fullmatch(name)},
    }


def describe_environment_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Names what differs between two records: versions, as `jax 0.10.2 → 0.12.0`, the devices' runtime, and flags."""
    changes = []
    if isinstance(old := before.get("packages"), dict):
        changed = [name for name, version in now["packages"].items() if old.get(name, version) != version]
        changes += [f"{name} {old[name]} → {now['packages'][name]}" for name in changed]
    if before.get("runtime", now["runtime"]) != now["runtime"]:
        changes.append(f"runtime {before['runtime']} → {now['runtime']}")
    if isinstance(old := before.get("flags"), dict):
        names = sorted(name for name in old.keys() | now["flags"] if "CACHE" not in name)
        pairs = [(name, old.get(name, "unset"), now["flags"].get(name, "unset")) for name in names]
        changes += [f"{name} {value} → {new}" for name, value, new in pairs if value != new]
    return ", ".join(changes)


def _open_null() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


def _get_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


@functools.cache
def _run_git(*arguments: str) -> str:
    """Returns the output of git in the folder of the package; empty where there is no git."""
    folder = pathlib.Path(__file__).parent
    with contextlib.suppress(OSError):
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return ""
