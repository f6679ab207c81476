# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads stages from a plain config, and knows which keys a stage reads, of which type and with which meaning."""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import json
import pkgutil
import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import xlkd.spec
from xlkd import spec
from xlkd.errors import UserError, suggest_name
from xlkd.spec import source
from xlkd.spec.stage import OPTIONAL, AnySettings, Encoder, StageSettings, check_shared_blocks, list_starts
from xlkd.spec.tasks import TASKS, Task, find_task_class

STAGE_NAME = re.compile(r"\w[\w-]{0,99}")  # stages are names of folders too
NEUTRAL = ("mesh", "log", "report")  # blocks that may differ between two starts of one run
RENAMED = {"method.variant": "method.control"}  # keys of version 0.1
RUN_KEYS = {  # keys of a run that no stage reads
    "stages": spec.Setting("Stages in the order in which they train."),
    "controls": spec.Setting("Stages that are compared with each other."),
    "method.control": spec.Setting("all, or the one control to run."),
    "report.compare": spec.Setting("Differences a:b of two stages that the report tests."),
    "report.primary": spec.Setting(
        "Those of them that a study is to decide; a report shows them first and judges them together."
    ),
    "report.judged_by": spec.Setting("The score that decides a study: SET/AVERAGE/METRIC as in results.json."),
    "report.tolerance": spec.Setting("Points by which averages may change in a repeated run; per cent of a loss."),
}
_PAIRS = ("report.compare", "report.primary")
_TYPES = {"method.control": str, "report.judged_by": str, "report.tolerance": float}  # others are lists of names


class Key(NamedTuple):
    """A key that a stage reads: its type, its setting, and its value in a config."""

    kind: Any
    setting: spec.Setting
    value: Any


def read_stage(config: Mapping[str, Any], name: str) -> AnySettings:
    """Reads one stage of a plain config: the shared blocks, overridden by the stage's own values."""
    own = config.get(name) or {}
    blocks = merge_stage(config, name)
    module = load_method_settings(blocks)

    def locate(path: str) -> str:
        is_own = path in dict(spec.flatten(own)) or path in own
        return f"config.{name}.{path}" if is_own else f"config.{path}"

    values: dict[str, Any] = {"name": name, "run": compute_digest(config)}
    values["method"] = spec.read_block(module.Method, blocks.get("method") or {}, "method", locate)
    values["task"] = spec.read_block(choose_task_class(blocks, module), blocks.get("task") or {}, "task", locate)
    for block, cls in _list_shared_blocks().items():
        read = {key: value for key, value in (blocks.get(block) or {}).items() if is_read(module, f"{block}.{key}")}
        values[block] = spec.read_block(cls, read, block, locate)
    for key, known in spec.list_settings(StageSettings).items():
        if key in blocks and is_read(module, key):
            values[key] = spec.check_value(known, spec.resolve_types(StageSettings)[key], blocks[key], locate(key))
    settings: AnySettings = StageSettings(**values)
    check_shared_blocks(settings)
    if check := getattr(module, "check", None):
        check(settings)
    return settings


def check_form(config: Mapping[str, Any], where: str) -> None:
    """Refuses what no config can be: lists of other things than names, and values in place of blocks."""
    blocks = ("method", "task", "report", "encoder.new", *_list_shared_blocks())
    texts = {key: get_value(config, key) or () for key in ("stages", "controls", *_PAIRS)}
    for key, names in texts.items():
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise UserError(f"config.{key} is not a list of names", where, "write for example ('finetune',)")
        if len(set(names)) < len(names):
            raise UserError(f"config.{key} contains a name twice", where, "name each once")
    stages = dict.fromkeys([*texts["stages"], *texts["controls"]])
    for name in stages:
        if not STAGE_NAME.fullmatch(name) or name in {*blocks, *RUN_KEYS, *spec.list_settings(StageSettings)}:
            raise UserError(f"{spec.shorten(name)!r} cannot be the name of a stage", where, "use letters and digits")
    for prefix in ("", *(f"{name}." for name in stages if name in config)):
        for block in (prefix.rstrip("."), *(f"{prefix}{name}" for name in blocks)):
            above, _, key = block.rpartition(".")
            parent = get_value(config, above) if above else config
            if key and isinstance(parent, Mapping) and key in parent and not isinstance(parent[key], Mapping):
                raise UserError(f"config.{block} is a value in place of a block", where, "see --keys")
    if not isinstance(get_value(config, "method.control") or "", str):
        raise UserError("config.method.control is not a name", where, "give all, or the name of a control")
    known = {*texts["stages"], *config} - {*blocks}  # `stages` may have been restricted to some of those with a block
    if others := [name for name in texts["controls"] if name not in known]:
        raise UserError(f"config.controls names {others[0]!r}, which is not a stage", where, "correct the name")
    judged_by = get_value(config, "report.judged_by") or ""
    if judged_by and (not isinstance(judged_by, str) or judged_by.count("/") != 2):
        what = f"{spec.shorten(repr(judged_by))} is not SET/AVERAGE/METRIC"
        raise UserError(what, "config.report.judged_by", "write for example mlqa/gxlt_off/f1")
    for key, pair in ((name, pair) for name in _PAIRS for pair in texts[name]):
        sides = {*pair.split(":")}
        if pair.count(":") != 1 or len(sides) != 2 or not sides <= known:
            what = f"config.{key}: {spec.shorten(pair)!r} is not a pair of two stages"
            raise UserError(what, where, f"write A:B with stages of {', '.join(stages)}")


def list_wanted_stages(config: Mapping[str, Any]) -> list[str]:
    """Returns the stages of a plain config, without unwanted controls and stages that start from them."""
    method = config.get("method") or {}
    controls, control = config.get("controls") or (), method.get("control", method.get("variant", "all"))
    starts = {
        name: list_starts((config.get(name) or {}).get("start", config.get("start", "encoder")))
        for name in config["stages"]
    }
    left_out = {*controls} - {control, *starts.get(control, ())} if control in controls else set()
    for name in config["stages"]:
        if not left_out.isdisjoint(starts[name]):
            left_out.add(name)
    return [name for name in config["stages"] if name not in left_out]


def compute_digest(config: Mapping[str, Any]) -> str:
    """Returns eight characters that name a plain config: runs of different configs get different folders."""
    relevant = {key: value for key, value in config.items() if key not in NEUTRAL}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:8]


def use_current_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a plain config with keys of version 0.1 under their names of today."""
    config = dict(config)
    for old, new in RENAMED.items():
        (block, old_key), new_key = old.split("."), new.partition(".")[2]
        values = config.get(block)
        if isinstance(values, dict) and old_key in values:
            config[block] = {new_key if key == old_key else key: value for key, value in values.items()}
    return config


def write_sources(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a plain config with every source as a string, which a config file may write as a dict or as a list."""
    written = _write_block_sources(config, "", "config")
    stages = (name for name, block in config.items() if isinstance(block, Mapping))
    return written | {name: _write_block_sources(written[name], "", f"config.{name}") for name in stages}


def _write_block_sources(block: Mapping[str, Any], prefix: str, place: str) -> dict[str, Any]:
    """Returns a block with its sources as strings, and those of the blocks inside it."""
    written = dict(block)
    for key, value in block.items():
        name = f"{prefix}{key}"
        if name in list_source_keys():
            written[key] = source.write_value(value, f"{place}.{key}")
        elif isinstance(value, Mapping) and any(known.startswith(f"{name}.") for known in list_source_keys()):
            written[key] = _write_block_sources(value, f"{name}.", f"{place}.{key}")
    return written


@functools.cache
def list_source_keys() -> tuple[str, ...]:
    """Lists the keys of the shared blocks that have a source, such as `data.train`."""

    def find_keys(cls: type, prefix: str) -> Iterator[str]:
        for name, kind in spec.resolve_types(cls).items():
            if kind is spec.SourceText:
                yield prefix + name
        for name, inner in spec.list_blocks(cls).items():
            yield from find_keys(inner, f"{prefix}{name}.")

    return tuple(key for name, cls in _list_shared_blocks().items() for key in find_keys(cls, f"{name}."))


def list_source_texts(settings: AnySettings) -> list[spec.SourceText]:
    """Lists the source strings of a stage."""
    values: list[Any] = [functools.reduce(getattr, key.split("."), settings) for key in list_source_keys()]
    return [value for value in values if value]


def split_option(name: str) -> tuple[str, str]:
    """Returns the key of a source and the name of its option, for a key such as `data.train.limit`; else no option."""
    above, _, option = name.rpartition(".")
    is_option = any(f".{above}".endswith(f".{key}") for key in list_source_keys())
    return (above, option) if is_option else (name, "")


def set_option(config: Mapping[str, Any], name: str, option: str, value: str) -> str:
    """Returns the source string of a key, shared or of one stage, with another value of an option."""
    text = get_value(config, name)
    if text is None:
        stage, _, key = name.partition(".")
        text = get_value(merge_stage(config, stage), key)
    return source.set_option(text or "", option, value, f"config.{name}")


def list_stage_keys(config: Mapping[str, Any], name: str) -> dict[str, Key]:
    """Lists every key that a stage reads, with its type, setting and value."""
    blocks = merge_stage(config, name)
    module = load_method_settings(blocks)
    classes = {"method": module.Method, "task": choose_task_class(blocks, module), **_list_shared_blocks()}
    keys: dict[str, Key] = {}

    def add(cls: type, prefix: str, values: Mapping[str, Any]) -> None:
        for key, known in spec.list_settings(cls).items():
            if is_read(module, prefix + key):
                default = spec.list_defaults(cls, (key,))[key] if prefix else getattr(cls, key, None)
                value = values.get(key, default)
                keys[prefix + key] = Key(spec.resolve_types(cls)[key], known, value)
        for key, inner in spec.list_blocks(cls).items():
            if cls is not StageSettings and (key != "new" or values.get("path") == "new"):
                add(inner, f"{prefix}{key}.", values.get(key) or {})

    add(StageSettings, "", blocks)
    for block, cls in classes.items():
        add(cls, f"{block}.", blocks.get(block) or {})
    if blocks.get("start", "encoder") != "encoder":
        for key in ("encoder.path", "encoder.revision"):
            del keys[key]
    return keys


def find_key_type(config: Mapping[str, Any], name: str) -> Any:
    """Returns the type of a key, shared or of one stage; refuses one that no stage reads, or not this stage."""
    if name in RUN_KEYS:
        return _TYPES.get(name, tuple[str, ...])
    names = dict.fromkeys([*config["stages"], *(config.get("controls") or ())])
    keys = {stage: list_stage_keys(config, stage) for stage in names}
    shared = list_shared_keys(keys[stage] for stage in config["stages"])
    first, _, rest = name.partition(".")
    if first in names and rest:
        if kind := _find_kind(keys[first], rest):
            return kind
        readers = [stage for stage in names if _find_kind(keys[stage], rest)]
        if readers or rest in RUN_KEYS or _find_kind(shared, rest):
            remedy = f"set it for {', '.join(readers)}" if readers else "leave it out"
            raise UserError(f"stage {first} never reads {rest}", f"config.{name}", remedy)
        raise _make_unknown_key_error(name, [f"{first}.{key}" for key in keys[first]])
    readers = [stage for stage in config["stages"] if name in keys[stage]]
    if readers and all(get_value(config.get(stage) or {}, name) is not None for stage in readers):
        remedy = f"set config.STAGE.{name} with STAGE={' or '.join(readers)}"
        raise UserError("has no effect, because every stage sets its own value", f"config.{name}", remedy)
    if kind := _find_kind(shared, name):
        return kind
    raise _make_unknown_key_error(name, [*shared, *RUN_KEYS, *(f"{stage}.{key}" for stage in names for key in shared)])


def list_shared_keys(keys_by_stage: Iterable[Mapping[str, Key]]) -> dict[str, Key]:
    """Returns the keys that any of the stages reads."""
    keys: dict[str, Key] = {}
    for keys_of_stage in keys_by_stage:
        keys = {**keys_of_stage, **keys}
    encoder = spec.list_settings(Encoder)
    for part in ("path", "revision"):  # no stage reads them where all start from other weights: a sweep sets that later
        keys.setdefault(f"encoder.{part}", Key(str, encoder[part], ""))
    return keys


def _find_kind(keys: Mapping[str, Key], name: str) -> Any:
    """Returns the type of a key, also of one below a mapping by language; None where it is not among them."""
    if name in keys:
        kind = keys[name].kind
        return None if spec.describe_type(kind) == "by language" else kind
    above, _, tag = name.rpartition(".")
    if tag and above in keys and spec.describe_type(keys[above].kind) == "by language":
        return spec.find_value_type(keys[above].kind)
    return None


def _make_unknown_key_error(name: str, known: Sequence[str]) -> UserError:
    """Returns the refusal of a key that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5) or [k for k in known if k.endswith("." + name)][:1]
    hint = f"did you mean config.{near[0]}?" if near else "--keys lists all keys"
    return UserError(f"unknown key config.{name}", "command line", hint)


def refuse_unread_keys(config: Mapping[str, Any], path: str) -> None:
    """Refuses a config file with keys that nothing reads: a misspelt one would silently do nothing."""
    if not config.get("stages"):
        raise UserError("names no stages", path, "see configs/finetune.py for an example")
    shared = list_shared_keys(list_stage_keys(config, name) for name in config["stages"])
    known = {*shared, *RUN_KEYS, *_list_all_shared_keys()}
    blocks = {key.partition(".")[0] for key in known}
    names = [name for name, block in config.items() if isinstance(block, Mapping) and name not in blocks]
    for key, _ in spec.flatten({name: block for name, block in config.items() if name not in names}):
        if key not in known and key.rpartition(".")[0] not in known:
            hint = suggest_name(key, known, "remove it")
            raise UserError(f"no stage reads the key {key}", path, hint)
    for name in names:
        keys = list_stage_keys(config, name)
        for key, _ in spec.flatten(config.get(name) or {}):
            if key not in keys and key.rpartition(".")[0] not in keys:
                raise UserError(f"stage {name} never reads {key}", path, suggest_name(key, keys, "remove it"))


def _list_all_shared_keys() -> Iterator[str]:
    """Yields the keys of the blocks that all configs share, whether or not a stage reads them."""
    yield from spec.list_settings(StageSettings)
    for block, cls in _list_shared_blocks().items():
        yield from (f"{block}.{key}" for key in spec.list_settings(cls))


def _list_shared_blocks() -> dict[str, type]:
    """Returns the classes of the blocks that all configs share."""
    return spec.list_blocks(StageSettings)


def merge_stage(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns the shared blocks, overridden by the blocks of a stage."""
    shared = {key: value for key, value in config.items() if key not in config["stages"]}
    return merge_blocks(shared, config.get(name) or {})


def merge_blocks(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a block overridden by another, key by key, also inside nested blocks."""
    merged = dict(shared)
    for key, value in own.items():
        old = merged.get(key)
        merged[key] = merge_blocks(old, value) if isinstance(value, Mapping) and isinstance(old, Mapping) else value
    return merged


def is_read(module: types.ModuleType, key: str) -> bool:
    """Returns whether a method reads a key of the shared blocks."""
    return key not in OPTIONAL or key in module.READS


def load_method_settings(blocks: Mapping[str, Any]) -> types.ModuleType:
    """Returns the module with the settings of a stage's method."""
    name = str((blocks.get("method") or {}).get("name", ""))
    others = ("optim", "reading", "source", "stage", "tasks")
    known = sorted(m.name for m in pkgutil.iter_modules(xlkd.spec.__path__) if m.name not in others)
    if name not in known:
        raise UserError(
            f"no method {name!r}", "config.method.name", suggest_name(name, known, f"known: {', '.join(known)}")
        )
    return importlib.import_module(f"xlkd.spec.{name}")


def choose_task_class(blocks: Mapping[str, Any], module: types.ModuleType) -> type[Task]:
    """Returns the class of a stage's task settings; refuses a task that its method cannot train."""
    name = str((blocks.get("task") or {}).get("name", ""))
    if name in TASKS and name not in module.TASKS:
        what = f"the method {blocks['method']['name']} cannot train the task {name}"
        raise UserError(what, "config.task.name", f"choose one of {', '.join(module.TASKS)}")
    return find_task_class(name)


def list_effective_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values that the stages of a plain config read, by key; by stage and key where stages differ."""
    config = use_current_names(config)
    by_stage = {
        name: {
            key: value
            for key, value in spec.flatten(spec.to_plain(read_stage(config, name)))
            if key.partition(".")[0] not in (*NEUTRAL, "name", "run")
        }
        for name in config["stages"]
    }
    values: dict[str, Any] = {key: get_value(config, key) for key in RUN_KEYS if not key.startswith(NEUTRAL)}
    for key in {key for stage in by_stage.values() for key in stage}:
        own = {name: stage[key] for name, stage in by_stage.items() if key in stage}
        if all(value == next(iter(own.values())) for value in own.values()):
            values[key] = next(iter(own.values()))
        else:
            values |= {f"{name}.{key}": value for name, value in own.items()}
    return values


def get_value(config: Mapping[str, Any], key: str) -> Any:
    """Returns the value of a key such as `optim.lr`; None where a config does not have it."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
