# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Configs: a file with `get_config(variant)` or a saved config.json, overridden by typed flags."""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib.util
import inspect
import json
import math
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from xlkd.errors import UserError, suggest_name

NEUTRAL = ("mesh", "log", "report")  # blocks that may differ between two starts of one run
ONE_OR_MORE = ("data.batch", "data.buckets", "optim.micro_batches", "eval.batch", "save.every", "log.every")
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
    """`configs/gxlt.py`, `configs/gxlt.py:paper` or a run's `config.json`; the packaged file where there is none."""
    if name.endswith(".json"):
        return _saved(pathlib.Path(name))
    path, _, variant = name.partition(":")
    module = _module(pathlib.Path(path))
    try:
        return module.get_config(variant)
    except KeyError as error:
        known = ", ".join(name or "none" for name in getattr(module, "VARIANTS", ()))
        raise UserError(f"unknown variant {variant!r}", path, f"known: {known}") from error


def override(config: ConfigDict, flags: Sequence[str]) -> ConfigDict:
    """The config with `--config.KEY=VALUE` flags applied, each typed as the key's default is."""
    keys = dict(_flat(config))
    for flag in flags:
        name, value = _named(flag, keys)
        *blocks, key = name.split(".")
        block = functools.reduce(getattr, blocks, config)
        block[key] = typed(f"config.{name}", keys[name], value)
    return config


def typed(name: str, default: Any, text: str) -> Any:
    """The text as a value of the default's type."""
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "false": False, "0": False}[text.casefold()]
        if isinstance(default, tuple):
            kind = type(default[0]) if default else str
            return tuple(kind(part.strip()) for part in text.strip("()").split(",") if part.strip())
        value = type(default)(text)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(text)
        return value
    except (KeyError, ValueError):
        kind = type(default).__name__
        raise UserError(f"{name}={text} is not of type {kind}", "command line", f"for example {default}") from None


def task(name: str, recorded: dict[str, Any], flags: dict[str, str]) -> ConfigDict:
    """A task's settings: the defaults, over them what a model was trained with, over that what the flags say."""
    if name == "qa":
        from xlkd.configs import base, finetune

        chosen = finetune.qa(base.base()).task
    else:
        chosen = ConfigDict({"name": name, "max_length": 128})
    known = recorded if recorded.get("name") == name else {}
    for key, value in known.items():
        if key in chosen and not _alike(chosen[key], value):
            raise UserError(f"the model's record says {key}={value!r}", "xlkd.json", f"for example {chosen[key]}")
    with chosen.ignore_type():
        chosen.update(known)
    for flag in TASK_FLAGS:
        if flag in flags:
            if flag not in chosen:
                raise UserError(f"--{flag} does not belong to the task {name}", "command line", "leave it out")
            chosen[flag] = typed(f"--{flag}", chosen[flag], flags[flag])
    return chosen


def plain(config: ConfigDict) -> dict[str, Any]:
    """Nothing but dicts, lists, strings, numbers and None, as config.json holds it."""
    return json.loads(json.dumps(config.copy_and_resolve_references().to_dict()))


def digest(config: Mapping[str, Any]) -> str:
    """Eight characters that name a plain config: runs of different configs get different folders."""
    kept = {key: value for key, value in config.items() if key not in NEUTRAL}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """The keys in which two plain configs differ, blocks that may differ left out."""
    flat_a, flat_b = (dict(_flat({k: v for k, v in c.items() if k not in NEUTRAL})) for c in (a, b))
    return sorted(key for key in flat_a.keys() | flat_b.keys() if flat_a.get(key) != flat_b.get(key))


def stages(config: ConfigDict) -> list[str]:
    """The stages to run: all, or without the controls that were not asked for."""
    wanted = config.method.variant
    if wanted != "all" and wanted not in config.controls:
        remedy = suggest_name(wanted, config.controls, f"known: {', '.join(('all', *config.controls))}")
        raise UserError(f"no variant {wanted!r}", "config.method.variant", remedy)
    return wanted_of(plain(config))


def wanted_of(config: Mapping[str, Any]) -> list[str]:
    """The stages of a plain config, without controls that were not asked for and what starts from them."""
    controls, variant = config.get("controls") or (), (config.get("method") or {}).get("variant", "all")
    left_out = {*controls} - {variant} if variant in controls else set()
    for name in config["stages"]:
        if (config.get(name) or {}).get("start", config.get("start")) in left_out:
            left_out.add(name)
    return [name for name in config["stages"] if name not in left_out]


def stage(config: ConfigDict, name: str) -> ConfigDict:
    """The shared blocks with what the stage changes laid over them."""
    merged = ConfigDict({key: _tuples(value) for key, value in plain(config).items() if key not in config.stages})
    with merged.ignore_type():
        merged.update(config.get(name, ConfigDict()))
    merged.stage, merged.run = name, digest(plain(config))
    for key in ONE_OR_MORE:
        block, inner = key.split(".")
        value = merged.get(block, ConfigDict()).get(inner, 1)
        if value < 1:
            raise UserError(f"{key}={value} is not possible", f"config of stage {name}", "give 1 or more")
    return merged


def _saved(path: pathlib.Path) -> ConfigDict:
    remedy = "give the config.json that a run left in its work directory"
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError("no such config", str(path), remedy) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"is no JSON: {error}", str(path), remedy) from error
    if not isinstance(saved, dict) or not _names(saved.get("stages")) or not _names(saved.get("controls", [])):
        raise UserError("holds no config", str(path), remedy)
    config = _fill_neutral(saved)
    if fault := _saved_fault(config):
        raise UserError(fault, str(path), remedy)
    try:
        return ConfigDict(_tuples(config))
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # a key that no config can have
        raise UserError(f"holds no config ({error})", str(path), remedy) from error


def _fill_neutral(saved: dict[str, Any]) -> dict[str, Any]:
    """Adds keys that an older version did not know, in blocks that may differ between two starts of one run."""
    from xlkd.configs.base import base

    defaults = plain(base())
    blocks = {name: saved[name] for name in NEUTRAL if isinstance(saved.get(name), dict)}
    return saved | {name: defaults[name] | block for name, block in blocks.items()}


def _names(values: Any) -> bool:
    """Of stages: folders are called after them."""
    return isinstance(values, list) and all(
        isinstance(name, str) and re.fullmatch(r"\w[\w-]*", name) for name in values
    )


def _saved_fault(found: dict[str, Any]) -> str:
    """What in a saved config is not as every config has it."""
    from xlkd.configs.base import base

    flat = dict(_flat(found))
    for key, default in _flat(base()):
        if key not in flat:
            return f"lacks config.{key}"
        if not _alike(default, flat[key]):
            return f"config.{key}={flat[key]!r} is not of type {type(default).__name__}"
    if not isinstance(found.get("teachers", {}), dict):
        return "config.teachers is in the place of another kind of value"
    if half := next((key for key, value in flat.items() if not _writable(f"{key} {value}")), None):
        return f"config.{half} holds half of a surrogate pair"
    for name in found["stages"]:
        if fault := _block_fault(found.get(name, {}), found, name):
            return fault
    return ""


def _block_fault(own: Any, shared: Any, where: str) -> str:
    """What a stage lays over a block must be a block, and what it lays over a value a value of its kind."""
    if isinstance(own, dict) != isinstance(shared, dict):
        return f"config.{where} is in the place of another kind of value"
    if not isinstance(own, dict):
        return "" if _alike(shared, own) else f"config.{where}={own!r} is not of type {type(shared).__name__}"
    both = ((key, value, shared[key]) for key, value in own.items() if key in shared)
    return next((fault for key, *pair in both if (fault := _block_fault(*pair, f"{where}.{key}"))), "")


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


def _module(path: pathlib.Path):
    if not path.is_file() or path.suffix != ".py":
        packaged = importlib.util.find_spec("xlkd.configs")
        folder = pathlib.Path(next(iter(packaged.submodule_search_locations)))
        ours = str(path.parent) in (".", "configs") and path.suffix == ".py"
        if not ours or not (folder / path.name).exists():
            known = ", ".join(f"configs/{p.name}" for p in sorted(folder.glob("[a-z]*.py")) if p.stem != "base")
            raise UserError("no such config", str(path), f"packaged configs: {known}")
        path = folder / path.name
    spec = importlib.util.spec_from_file_location(f"xlkd_config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        code = spec.loader.source_to_code(path.read_bytes(), str(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # a zero byte is no SyntaxError
        raise UserError(f"is no Python: {error}", str(path), "mend it") from error
    exec(code, module.__dict__)
    if not inspect.isfunction(getattr(module, "get_config", None)):
        raise UserError("has no function get_config(variant)", str(path), "see configs/finetune.py for the form")
    return module


def _named(flag: str, keys: dict[str, Any]) -> tuple[str, str]:
    name, equals, value = flag.removeprefix("--config.").partition("=")
    if not flag.startswith("--config.") or not equals:
        known = () if flag.startswith("--config.") else ("--config", "--workdir", "--help")
        near = difflib.get_close_matches(flag.partition("=")[0], known, n=1)
        hint = f"did you mean {near[0]}?" if near else "write --config.KEY=VALUE"
        raise UserError(f"cannot read {flag!r}", "command line", hint)
    if name not in keys:
        near = difflib.get_close_matches(name, keys, n=1, cutoff=0.5) or [k for k in keys if k.endswith("." + name)][:1]
        hint = f"did you mean config.{near[0]}?" if near else "config.json in a work directory lists all keys"
        raise UserError(f"unknown key config.{name}", "command line", hint)
    return name, value


def _flat(value: ConfigDict | dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, ConfigDict | dict):
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield prefix + key, inner


def _tuples(value: Any) -> Any:
    """JSON knows no tuples, and a list could not be overridden by a flag; before it is a ConfigDict, which turns them
    back."""
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
