# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Configs: a file with `get_config(variant)` or a saved config.json, overridden by typed flags, read into stages."""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import json
import pathlib
import pkgutil
import re
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

import xlkd.spec
from xlkd import spec
from xlkd.errors import UserError, suggest_name
from xlkd.spec.stage import OPTIONAL, Method, StageSettings
from xlkd.spec.tasks import TASKS, Task, task_class

NEUTRAL = ("mesh", "log", "report")  # blocks that may differ between two starts of one run
RENAMED = {"method.variant": "method.control"}  # keys of version 0.1
RUN_KEYS = {  # keys of a run that no stage reads
    "stages": spec.Setting("Stages in the order in which they train."),
    "controls": spec.Setting("Stages that are compared with each other."),
    "method.control": spec.Setting("all, or the one control to run."),
    "report.compare": spec.Setting("Differences a:b of two stages that the report tests."),
}
TASK_FLAGS = (  # of a task's settings, those that commands take as flags
    "max_length",
    "max_query_length",
    "doc_stride",
    "doc_stride_means",
    "candidates",
    "n_best",
    "max_answer_tokens",
    "published_empty",
    "mlqa_fallback",
)


def read(name: str) -> ConfigDict:
    """Reads a config file as `configs/gxlt.py:paper`, else the packaged one of that name, or a run's `config.json`."""
    if name.endswith(".json"):
        return _read_saved(pathlib.Path(name))
    path, _, variant = name.partition(":")
    module = _load_config_module(pathlib.Path(path))
    try:
        config = module.get_config(variant)
    except KeyError as error:
        known = ", ".join(name or "none" for name in getattr(module, "VARIANTS", ()))
        raise UserError(f"unknown variant {variant!r}", path, f"known: {known}") from error
    _refuse_unread_keys(plain(config), path)
    return config


def override(config: ConfigDict, flags: Sequence[str]) -> ConfigDict:
    """Applies `--config.KEY=VALUE` flags to the config, each typed as its setting is."""
    for flag in flags:
        name, text = _split_flag(flag)
        name = _current_name(name)
        kind = _type_of_key(plain(config), name)
        try:
            value = spec.parsed(kind, text)
        except (KeyError, ValueError):
            what = f"config.{name}={text} is not of type {spec.name_of(kind)}"
            raise UserError(what, "command line", "see --keys for type and range") from None
        *blocks, key = name.split(".")
        block = config
        for part in blocks:
            if part not in block:
                block[part] = ConfigDict()
            block = block[part]
        block[key] = value
    return config


def replaced(config: ConfigDict, **values: Any) -> ConfigDict:
    """Returns a copy of the config with other values; `method__control` stands for `method.control`."""
    copy = ConfigDict(config.copy_and_resolve_references())
    for name, value in values.items():
        *blocks, key = name.split("__")
        functools.reduce(getattr, blocks, copy)[key] = value
    return copy


def typed(name: str, default: Any, text: str) -> Any:
    """Returns the text of a flag as a value of the default's type."""
    try:
        return spec.parsed(type(default), text)
    except (KeyError, ValueError):
        kind = type(default).__name__
        raise UserError(f"{name}={text} is not of type {kind}", "command line", f"for example {default}") from None


def task(name: str, recorded: Mapping[str, Any], flags: Mapping[str, str]) -> Task:
    """Returns a task's settings: the defaults, over them what a model was trained with, over that the flags."""
    cls = task_class(name)
    known = {key: value for key, value in recorded.items() if key in spec.fields_of(cls)}
    values = known if recorded.get("name") == name else {}
    chosen = spec.read(cls, values, "task", lambda path: f"xlkd.json, {path}")
    changes = {}
    for flag in TASK_FLAGS:
        if flag in flags:
            if flag not in spec.fields_of(cls):
                raise UserError(f"--{flag} does not belong to the task {name}", "command line", "leave it out")
            changes[flag] = typed(f"--{flag}", getattr(chosen, flag), flags[flag])
    return spec.read(cls, spec.plain(chosen) | changes, "task", lambda path: f"--{path.removeprefix('task.')}")


def method(recorded: Mapping[str, Any]) -> Method:
    """Returns the settings of a method as a model's record holds them."""
    return spec.read(_method_module({"method": recorded}).Method, recorded, "method", lambda path: f"xlkd.json, {path}")


def plain(config: ConfigDict) -> dict[str, Any]:
    """Returns a config as config.json holds it: dicts, lists, strings, numbers and None."""
    return json.loads(json.dumps(config.copy_and_resolve_references().to_dict()))


def digest(config: Mapping[str, Any]) -> str:
    """Returns eight characters that name a plain config: runs of different configs get different folders."""
    relevant = {key: value for key, value in config.items() if key not in NEUTRAL}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:8]


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Returns the keys in which two plain configs mean different runs, blocks that may differ left out.

    What is compared is what stages read of them, so that a default which only one of them spells out is none.
    """
    try:
        flat_a, flat_b = _effective_values(a), _effective_values(b)
    except (UserError, KeyError):  # one of them is no config of this version
        flat_a, flat_b = (dict(spec.flat({k: v for k, v in c.items() if k not in NEUTRAL})) for c in (a, b))
    return sorted(key for key in flat_a.keys() | flat_b.keys() if flat_a.get(key) != flat_b.get(key))


def stages(config: ConfigDict) -> list[StageSettings[Any, Any]]:
    """Reads the stages to run, all or without the controls that were not asked for, and refuses what is impossible."""
    control = config.method.get("control", "all")
    if control != "all" and control not in config.controls:
        remedy = suggest_name(control, config.controls, f"known: {', '.join(('all', *config.controls))}")
        raise UserError(f"no control {control!r}", "config.method.control", remedy)
    values = plain(config)
    names = wanted_stages(values)
    if not names:
        raise UserError("no stages", "config.stages", "name at least one")
    return [stage_of(values, name) for name in names]


def wanted_stages(config: Mapping[str, Any]) -> list[str]:
    """Returns the stages of a plain config, without controls that were not asked for and what starts from them."""
    method = config.get("method") or {}
    controls, control = config.get("controls") or (), method.get("control", method.get("variant", "all"))
    left_out = {*controls} - {control} if control in controls else set()
    for name in config["stages"]:
        if (config.get(name) or {}).get("start", config.get("start")) in left_out:
            left_out.add(name)
    return [name for name in config["stages"] if name not in left_out]


def stage(config: ConfigDict, name: str) -> StageSettings[Any, Any]:
    """Reads one stage of a config."""
    return stage_of(plain(config), name)


def stage_of(config: Mapping[str, Any], name: str) -> StageSettings[Any, Any]:
    """Reads one stage of a plain config: the shared blocks with what the stage changes laid over them."""
    own = config.get(name) or {}
    blocks = _merged(config, name)
    module = _method_module(blocks)

    def locate(path: str) -> str:
        is_own = path in dict(spec.flat(own)) or path in own
        return f"config.{name}.{path}" if is_own else f"config.{path}"

    values: dict[str, Any] = {"name": name, "run": digest(config)}
    values["method"] = spec.read(module.Method, blocks.get("method") or {}, "method", locate)
    values["task"] = spec.read(_task_class_of(blocks, module), blocks.get("task") or {}, "task", locate)
    for block, cls in _shared_blocks().items():
        read = {key: value for key, value in (blocks.get(block) or {}).items() if _reads(module, f"{block}.{key}")}
        values[block] = spec.read(cls, read, block, locate)
    for key, known in spec.fields_of(StageSettings).items():
        if key in blocks and _reads(module, key):
            values[key] = spec.checked(known, spec.types_of(StageSettings)[key], blocks[key], locate(key))
    settings: StageSettings[Any, Any] = StageSettings(**values)
    if check := getattr(module, "check", None):
        check(settings)
    return settings


def describe_keys(config: ConfigDict) -> list[str]:
    """Returns a line for every key of a config: its type and range, its value, and what it means."""
    values = plain(config)
    rows = [("key", "type and range", "value", "meaning")]
    for key, known in RUN_KEYS.items():
        kind = "str" if key == "method.control" else "list of str"
        rows.append((f"config.{key}", kind, _shown(_value_at(values, key)), known.meaning))
    seen: dict[str, Any] = {}
    for name in values["stages"]:
        for key, (kind, known, value) in _keys_of_stage(values, name).items():
            if key not in seen:
                range_ = known.range()
                seen[key] = (f"config.{key}", spec.name_of(kind) + (f": {range_}" if range_ else ""), known.meaning)
            shared = _value_at(values, key)
            own = _value_at(values.get(name) or {}, key)
            at = f"config.{name}.{key}" if own is not None else f"config.{key}"
            shown = own if own is not None else value if shared is None else shared
            for where, content in {f"config.{key}": value if shared is None else shared, at: shown}.items():
                row = (where, seen[key][1], _shown(content), seen[key][2])
                if row not in rows:
                    rows.append(row)
    rows = [rows[0], *sorted(rows[1:])]
    widths = [min(max(len(row[i]) for row in rows), 48) for i in range(3)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, (*widths, 0), strict=True)) for row in rows]
    stage_names = ", ".join(values["stages"])
    return [*lines, "", f"Each key of a stage can be set for it alone: --config.STAGE.KEY=VALUE; stages: {stage_names}"]


# --- the keys of a stage


def _keys_of_stage(config: Mapping[str, Any], name: str) -> dict[str, tuple[Any, spec.Setting, Any]]:
    """Returns type, setting and value of every key that a stage reads."""
    blocks = _merged(config, name)
    module = _method_module(blocks)
    classes = {"method": module.Method, "task": _task_class_of(blocks, module), **_shared_blocks()}
    keys: dict[str, tuple[Any, spec.Setting, Any]] = {}

    def add(cls: type, prefix: str, values: Mapping[str, Any]) -> None:
        for key, known in spec.fields_of(cls).items():
            if _reads(module, prefix + key):
                value = values.get(key, spec.defaults(cls, (key,))[key] if prefix else None)
                keys[prefix + key] = (spec.types_of(cls)[key], known, value)
        for key, inner in spec.blocks_of(cls).items():
            if cls is not StageSettings and (key != "new" or values.get("path") == "new"):
                add(inner, f"{prefix}{key}.", values.get(key) or {})

    add(StageSettings, "", blocks)
    for block, cls in classes.items():
        add(cls, f"{block}.", blocks.get(block) or {})
    if blocks.get("start", "encoder") != "encoder":
        for key in ("encoder.path", "encoder.revision"):
            del keys[key]
    return keys


def _type_of_key(config: Mapping[str, Any], name: str) -> Any:
    """Returns the type of a key, shared or of one stage; refuses one that no stage reads, or not this stage."""
    if name in RUN_KEYS:
        return str if name == "method.control" else tuple[str, ...]
    names = [*config["stages"], *(config.get("controls") or ())]
    first, _, rest = name.partition(".")
    if first in names and rest:
        keys = _keys_of_stage(config, first)
        kind = _kind_in(keys, rest)
        if kind is None:
            others = [other for other in names if _kind_in(_keys_of_stage(config, other), rest) is not None]
            if others or rest in RUN_KEYS or _kind_in(_shared_keys(config), rest) is not None:
                what = f"stage {first} never reads {rest}"
                remedy = f"set it for {', '.join(dict.fromkeys(others))}" if others else "leave it out"
                raise UserError(what, f"config.{name}", remedy)
            raise _unknown_key(name, [f"{first}.{key}" for key in keys])
        return kind
    keys = _shared_keys(config)
    kind = _kind_in(keys, name)
    readers = [stage for stage in config["stages"] if name in _keys_of_stage(config, stage)]
    if readers and all(_value_at(config.get(stage) or {}, name) is not None for stage in readers):
        raise UserError("every stage sets it for itself", f"config.{name}", f"set it for {', '.join(readers)}")
    if kind is None:
        raise _unknown_key(name, [*keys, *RUN_KEYS, *(f"{stage}.{key}" for stage in names for key in keys)])
    return kind


def _shared_keys(config: Mapping[str, Any]) -> dict[str, tuple[Any, spec.Setting, Any]]:
    """Returns the keys that any stage of a config reads."""
    keys: dict[str, tuple[Any, spec.Setting, Any]] = {}
    for name in config["stages"]:
        keys = _keys_of_stage(config, name) | keys
    for key in ("encoder.path", "encoder.revision"):  # shared, though all stages of a sweep may start from another one
        cls = spec.types_of(StageSettings)["encoder"]
        part = key.partition(".")[2]
        keys.setdefault(key, (str, spec.fields_of(cls)[part], ""))
    return keys


def _kind_in(keys: Mapping[str, tuple[Any, spec.Setting, Any]], name: str) -> Any:
    """Returns the type of a key, also of one below a mapping by language; None where it is not among them."""
    if name in keys:
        kind = keys[name][0]
        return None if spec.name_of(kind) == "by language" else kind
    above, _, tag = name.rpartition(".")
    if tag and above in keys and spec.name_of(keys[above][0]) == "by language":
        return spec.value_type(keys[above][0])
    return None


def _unknown_key(name: str, known: Sequence[str]) -> UserError:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5) or [k for k in known if k.endswith("." + name)][:1]
    hint = f"did you mean config.{near[0]}?" if near else "--keys lists all keys"
    return UserError(f"unknown key config.{name}", "command line", hint)


def _refuse_unread_keys(config: Mapping[str, Any], path: str) -> None:
    """Refuses a config file with keys that nothing reads: a misspelt one would silently do nothing."""
    if not _are_names(config.get("stages")) or not config["stages"]:
        raise UserError("names no stages", path, "see configs/finetune.py for the form")
    known = {*_shared_keys(config), *RUN_KEYS, *_all_shared_keys()}
    blocks = {key.partition(".")[0] for key in known}
    names = [name for name, block in config.items() if isinstance(block, Mapping) and name not in blocks]
    for key, _ in spec.flat({name: block for name, block in config.items() if name not in names}):
        if key not in known and key.rpartition(".")[0] not in known:
            hint = suggest_name(key, known, "remove it")
            raise UserError(f"no stage reads the key {key}", path, hint)
    for name in names:
        keys = _keys_of_stage(config, name)
        for key, _ in spec.flat(config.get(name) or {}):
            if key not in keys and key.rpartition(".")[0] not in keys:
                raise UserError(f"stage {name} never reads {key}", path, suggest_name(key, keys, "remove it"))


def _all_shared_keys() -> Iterator[str]:
    """Yields the keys of the blocks that all configs share, whether or not a stage reads them."""
    yield from spec.fields_of(StageSettings)
    for block, cls in _shared_blocks().items():
        yield from (f"{block}.{key}" for key in spec.fields_of(cls))


def _shared_blocks() -> dict[str, type]:
    return spec.blocks_of(StageSettings)


def _merged(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns the shared blocks with those of a stage laid over them."""
    shared = {key: value for key, value in config.items() if key not in config["stages"]}
    return _laid_over(shared, config.get(name) or {})


def _laid_over(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(shared)
    for key, value in own.items():
        old = merged.get(key)
        merged[key] = _laid_over(old, value) if isinstance(value, Mapping) and isinstance(old, Mapping) else value
    return merged


def _reads(module: types.ModuleType, key: str) -> bool:
    """Returns whether a method reads a key of the shared blocks."""
    return key not in OPTIONAL or key in module.READS


def _method_module(blocks: Mapping[str, Any]) -> types.ModuleType:
    """Returns the module with the settings of a stage's method."""
    name = str((blocks.get("method") or {}).get("name", ""))
    others = ("optim", "stage", "tasks")
    known = sorted(m.name for m in pkgutil.iter_modules(xlkd.spec.__path__) if m.name not in others)
    if name not in known:
        raise UserError(
            f"no method {name!r}", "config.method.name", suggest_name(name, known, f"known: {', '.join(known)}")
        )
    return importlib.import_module(f"xlkd.spec.{name}")


def _task_class_of(blocks: Mapping[str, Any], module: types.ModuleType) -> type[Task]:
    """Returns the class of a stage's task settings; refuses a task that its method cannot train."""
    name = str((blocks.get("task") or {}).get("name", ""))
    if name in TASKS and name not in module.TASKS:
        what = f"the method {blocks['method']['name']} cannot train the task {name}"
        raise UserError(what, "config.task.name", f"choose one of {', '.join(module.TASKS)}")
    return task_class(name)


def _effective_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the stages of a plain config read, by key; by stage and key where stages differ."""
    config = _with_current_names(config)
    by_stage = {
        name: {
            key: value
            for key, value in spec.flat(spec.plain(stage_of(config, name)))
            if key.partition(".")[0] not in (*NEUTRAL, "name", "run")
        }
        for name in config["stages"]
    }
    values: dict[str, Any] = {key: _value_at(config, key) for key in RUN_KEYS if not key.startswith(NEUTRAL)}
    for key in {key for stage in by_stage.values() for key in stage}:
        own = {name: stage[key] for name, stage in by_stage.items() if key in stage}
        if all(value == next(iter(own.values())) for value in own.values()):
            values[key] = next(iter(own.values()))
        else:
            values |= {f"{name}.{key}": value for name, value in own.items()}
    return values


def _value_at(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


# --- saved configs and config files


def _read_saved(path: pathlib.Path) -> ConfigDict:
    remedy = "give the config.json that a run left in its work directory"
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError("no such config", str(path), remedy) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"is not valid JSON: {error}", str(path), remedy) from error
    if not isinstance(saved, dict) or not _are_names(saved.get("stages")) or not _are_names(saved.get("controls", [])):
        raise UserError("is not a config", str(path), remedy)
    config = _with_current_names(_fill_neutral(saved))
    if fault := _saved_fault(config):
        raise UserError(fault, str(path), remedy)
    try:
        return ConfigDict(_tuples(config))
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # a key that no config can have
        raise UserError(f"is not a config ({error})", str(path), remedy) from error


def _with_current_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a plain config with keys of version 0.1 under their names of today."""
    config = dict(config)
    for old, new in RENAMED.items():
        (block, old_key), new_key = old.split("."), new.partition(".")[2]
        values = config.get(block)
        if isinstance(values, dict) and old_key in values:
            config[block] = {new_key if key == old_key else key: value for key, value in values.items()}
    return config


def _current_name(name: str) -> str:
    """Returns the name of a key today, and says so where it has changed."""
    if name in RENAMED:
        print(f"note: config.{name} is called config.{RENAMED[name]} now", file=sys.stderr)
    return RENAMED.get(name, name)


def _fill_neutral(saved: dict[str, Any]) -> dict[str, Any]:
    """Adds keys that an older version did not know, in blocks that may differ between two starts of one run."""
    from xlkd.configs.base import base

    defaults = plain(base())
    blocks = {name: saved[name] for name in NEUTRAL if isinstance(saved.get(name), dict)}
    return saved | {name: defaults[name] | block for name, block in blocks.items()}


def _are_names(values: Any) -> bool:
    """Returns whether these can be names of stages: folders are called after them."""
    return isinstance(values, list) and all(
        isinstance(name, str) and re.fullmatch(r"\w[\w-]*", name) for name in values
    )


def _saved_fault(saved: dict[str, Any]) -> str:
    """Returns what in a saved config is not as every config has it."""
    from xlkd.configs.base import base

    flat = dict(spec.flat(saved))
    for key, default in spec.flat(plain(base())):
        if key not in flat:
            return f"lacks config.{key}"
        if not _alike(default, flat[key]):
            return f"config.{key}={flat[key]!r} is not of type {type(default).__name__}"
    if not isinstance(saved.get("teachers", {}), dict):
        return "config.teachers is in the place of another kind of value"
    if half := next((key for key, value in flat.items() if not _writable(f"{key} {value}")), None):
        return f"config.{half} holds half of a surrogate pair"
    for name in saved["stages"]:
        if fault := _block_fault(saved.get(name, {}), saved, name):
            return fault
    return ""


def _block_fault(own: Any, shared: Any, where: str) -> str:
    """Returns what a stage lays over a block that is no block, or over a value that is of another kind."""
    if isinstance(own, dict) != isinstance(shared, dict):
        return f"config.{where} is in the place of another kind of value"
    if not isinstance(own, dict):
        return "" if _alike(shared, own) else f"config.{where}={own!r} is not of type {type(shared).__name__}"
    pairs = ((key, value, shared[key]) for key, value in own.items() if key in shared)
    return next((fault for key, *pair in pairs if (fault := _block_fault(*pair, f"{where}.{key}"))), "")


def _alike(default: Any, value: Any) -> bool:
    if isinstance(default, float) or (isinstance(default, int) and not isinstance(default, bool)):
        whole = isinstance(default, int) and isinstance(value, float)  # 1 may stand where 1.0 was meant, not 0.5 for 1
        return type(value) in (int, float) and abs(value) < 2**63 and not whole
    if isinstance(default, (tuple, list)):
        return isinstance(value, (tuple, list)) and not any(isinstance(one, dict | list) for one in value)
    return type(value) is type(default)


def _writable(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def _load_config_module(path: pathlib.Path) -> types.ModuleType:
    if not path.is_file() or path.suffix != ".py":
        packaged = importlib.util.find_spec("xlkd.configs")
        folder = pathlib.Path(next(iter(packaged.submodule_search_locations)))
        ours = str(path.parent) in (".", "configs") and path.suffix == ".py"
        if not ours or not (folder / path.name).exists():
            known = ", ".join(f"configs/{p.name}" for p in sorted(folder.glob("[a-z]*.py")) if p.stem != "base")
            raise UserError("no such config", str(path), f"packaged configs: {known}")
        path = folder / path.name
    module_spec = importlib.util.spec_from_file_location(f"xlkd_config_{path.stem}", path)
    module = importlib.util.module_from_spec(module_spec)
    try:
        code = module_spec.loader.source_to_code(path.read_bytes(), str(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # a zero byte is no SyntaxError
        raise UserError(f"is not valid Python: {error}", str(path), "fix it") from error
    exec(code, module.__dict__)
    if not inspect.isfunction(getattr(module, "get_config", None)):
        raise UserError("has no function get_config(variant)", str(path), "see configs/finetune.py for the form")
    return module


def _split_flag(flag: str) -> tuple[str, str]:
    """Returns key and text of a `--config.KEY=VALUE` flag."""
    name, equals, value = flag.removeprefix("--config.").partition("=")
    if not flag.startswith("--config.") or not equals:
        known = () if flag.startswith("--config.") else ("--config", "--workdir", "--keys", "--help")
        near = difflib.get_close_matches(flag.partition("=")[0], known, n=1)
        hint = f"did you mean {near[0]}?" if near else "write --config.KEY=VALUE"
        raise UserError(f"cannot read {flag!r}", "command line", hint)
    return name, value


def _tuples(value: Any) -> Any:
    """Turns lists into tuples, which JSON does not know and by which flags are typed."""
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
