# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Configs: a file with `get_config(variant)` or a saved config.json, overridden by typed flags, read into stages."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import importlib.util
import inspect
import json
import pathlib
import re
import sys
import traceback
import types
from collections.abc import Collection, Generator, Mapping, Sequence
from typing import Any, Literal, overload

from ml_collections import ConfigDict

from xlkd import files, spec
from xlkd.errors import UserError, suggest_name
from xlkd.spec import reading
from xlkd.spec.stage import AnySettings, Method, list_starts
from xlkd.spec.tasks import Classify, QuestionAnswering, Task, find_task_class

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # OWNER/NAME, as opposed to a stage or a path
_LARGEST_CONFIG = 10_000_000  # bytes of a config.json

TASK_FLAGS = (  # settings of tasks that commands accept as flags
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


def read_config(name: str) -> ConfigDict:
    """Reads a config file as `configs/gxlt.py:paper`, else the packaged one of that name, or a run's `config.json`."""
    if name.endswith(".json"):
        return _read_saved(files.expand_path(name))
    path, _, variant = name.partition(":")
    module = _load_config_module(files.expand_path(path))
    with _explain_fault(module):
        try:
            config = module.get_config(variant)
        except KeyError as error:
            variants = tuple(getattr(module, "VARIANTS", ()))
            if error.args != (variant,) or variant in variants:
                raise
            known = ", ".join(name or "none" for name in variants)
            raise UserError(f"unknown variant {variant!r}", path, f"known: {known}") from error
    if not isinstance(config, ConfigDict):
        what = f"get_config returns {type(config).__name__}, not a ConfigDict"
        raise UserError(what, path, "see configs/finetune.py for an example")
    values = to_plain(config)
    reading.check_form(values, path)
    reading.refuse_unread_keys(values, path)
    _replace_sources(config, values)
    return config


def apply_flags(config: ConfigDict, flags: Sequence[str]) -> ConfigDict:
    """Applies `--config.KEY=VALUE` flags to the config, each typed as its setting is."""
    for flag in flags:
        name, text = _split_flag(flag)
        name = _use_current_name(name)
        name, option = reading.split_option(name)
        kind = reading.find_key_type(to_plain(config), name)
        if option:
            text = reading.set_option(to_plain(config), name, option, text)
        try:
            value = spec.parse_value(kind, text)
        except (KeyError, ValueError):
            what = f"config.{name}={spec.shorten(text)} is not of type {spec.describe_type(kind)}"
            raise UserError(what, "command line", "see --keys for type and range") from None
        _set_value(config, name, value)
    return config


def replace_values(config: ConfigDict, **values: Any) -> ConfigDict:
    """Returns a copy of the config with other values; `method__control` stands for `method.control`."""
    copy = config.copy_and_resolve_references()
    for name, value in values.items():
        *blocks, key = name.split("__")
        functools.reduce(getattr, blocks, copy)[key] = value
    return copy


def parse_flag(name: str, default: Any, text: str) -> Any:
    """Returns the text of a flag as a value of the default's type."""
    try:
        return spec.parse_value(type(default), text)
    except (KeyError, ValueError):
        kind = type(default).__name__
        raise UserError(
            f"{name}={spec.shorten(text)} is not of type {kind}", "command line", f"for example {default}"
        ) from None


@overload
def read_task(name: Literal["qa"], recorded: Mapping[str, Any], flags: Mapping[str, str]) -> QuestionAnswering: ...
@overload
def read_task(name: Literal["classify"], recorded: Mapping[str, Any], flags: Mapping[str, str]) -> Classify: ...
@overload
def read_task(name: str, recorded: Mapping[str, Any], flags: Mapping[str, str]) -> Task: ...
def read_task(name: str, recorded: Mapping[str, Any], flags: Mapping[str, str]) -> Task:
    """Returns a task's settings: the defaults, overridden by those that a model was trained with, then by flags."""
    cls = find_task_class(name)
    known = {key: value for key, value in recorded.items() if key in spec.list_settings(cls)}
    values = known if recorded.get("name") == name else {}
    chosen = spec.read_block(cls, values, "task", lambda path: f"xlkd.json, {path}")
    changes = {}
    for flag in TASK_FLAGS:
        if flag in flags:
            if flag not in spec.list_settings(cls):
                raise UserError(f"--{flag} does not belong to the task {name}", "command line", "leave it out")
            changes[flag] = parse_flag(f"--{flag}", getattr(chosen, flag), flags[flag])
    task = spec.read_block(cls, spec.to_plain(chosen) | changes, "task", lambda path: f"--{path.removeprefix('task.')}")
    task.check("--")
    return task


def read_method(recorded: Mapping[str, Any]) -> Method:
    """Returns the settings of a method from a model's record."""
    return spec.read_block(
        reading.load_method_settings({"method": recorded}).Method, recorded, "method", lambda path: f"xlkd.json, {path}"
    )


def to_plain(config: ConfigDict) -> dict[str, Any]:
    """Returns a config in the form of config.json: dicts, lists, strings, numbers and None; sources are strings."""
    try:
        plain = json.loads(json.dumps(config.copy_and_resolve_references().to_dict(), default=_unpack_block))
    except (TypeError, ValueError, RecursionError) as error:
        what = f"contains a value that JSON cannot express: {error}"
        raise UserError(what, "the config", "use blocks, lists, texts, numbers and booleans") from error
    return reading.write_sources(plain)


def list_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Returns the keys whose difference makes two plain configs different runs.

    What is compared is what stages read of them, so that a default which only one of them spells out is none.
    """
    try:
        flat_a, flat_b = reading.list_effective_values(a), reading.list_effective_values(b)
    except (UserError, KeyError):  # one of them is no config of this version
        flat_a, flat_b = (dict(spec.flatten({k: v for k, v in c.items() if k not in reading.NEUTRAL})) for c in (a, b))
    return sorted(key for key in flat_a.keys() | flat_b.keys() if flat_a.get(key) != flat_b.get(key))


def read_stages(config: ConfigDict) -> list[AnySettings]:
    """Reads the stages to run, which `method.control` may restrict, and refuses impossible settings."""
    values = to_plain(config)
    reading.check_form(values, "the config")
    control = values["method"].get("control", "all")
    if control != "all" and control not in config.controls:
        remedy = suggest_name(control, config.controls, f"known: {', '.join(('all', *config.controls))}")
        raise UserError(f"no control {control!r}", "config.method.control", remedy)
    if control not in ("all", *values["stages"]):
        stages = ",".join([*(name for name in values["stages"] if name not in config.controls), control])
        what = f"config.stages does not name the control {control}"
        raise UserError(what, "config.method.control", f"add it, for example --config.stages={stages}")
    names = reading.list_wanted_stages(values)
    if not names:
        raise UserError("no stages", "config.stages", "name at least one")
    return [reading.read_stage(values, name) for name in names]


def read_stage(config: ConfigDict, name: str) -> AnySettings:
    """Reads one stage of a config."""
    return reading.read_stage(to_plain(config), name)


def check_start(settings: AnySettings, earlier: Collection[str]) -> None:
    """Refuses a stage without data, and one that starts from neither an encoder, an earlier stage, nor a model."""
    needed = {"data.train": settings.data.train, "start": settings.start}
    if settings.start == "encoder":
        needed["encoder.path"] = settings.encoder.path
    for key, value in needed.items():
        if not value:
            raise UserError("is empty", f"config.{key} of stage {settings.name}", "see --keys for its meaning")
    if settings.start == "encoder":
        return
    known = f"known: {', '.join(['encoder', *earlier])}, or give a folder or a hub id OWNER/NAME"
    for name in list_starts(settings.start):
        if name not in earlier and not files.expand_path(name).is_dir() and not is_model_name(name):
            raise UserError(f"no stage {name!r} before this one", f"config.start of stage {settings.name}", known)


def is_model_name(name: str) -> bool:
    """Returns whether a name can be a hub id, or is that of a packaged model."""
    return name.startswith("package:") or bool(_HUB_ID.fullmatch(name))


def describe_keys(config: ConfigDict) -> list[str]:
    """Returns a line for every key of a config: its type and range, its value, and its meaning."""
    values = to_plain(config)
    rows: set[tuple[str, ...]] = set()

    def add(key: str, kind: str, value: Any, meaning: str) -> None:
        rows.add((f"config.{key}", kind, _format_value(value), meaning))

    for key, known in reading.RUN_KEYS.items():
        kind = reading.find_key_type(values, key)
        add(key, spec.describe_type(kind), reading.get_value(values, key), known.meaning)
    for name in values["stages"]:
        for key, (kind, known, value) in reading.list_stage_keys(values, name).items():
            limits = known.describe_range()
            shown = spec.describe_type(kind) + (f": {limits}" if limits else "")
            shared = reading.get_value(values, key)
            is_own = reading.get_value(values.get(name) or {}, key) is not None
            if is_own:
                add(f"{name}.{key}", shown, value, known.meaning)
            if shared is not None or not is_own:
                add(key, shown, value if shared is None else shared, known.meaning)
    table = [("key", "type and range", "value", "meaning"), *sorted(rows)]
    widths = [min(max(len(row[i]) for row in table), 48) for i in range(3)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, (*widths, 0), strict=True)) for row in table]
    stage_names = ", ".join(values["stages"])
    return [*lines, "", f"Each key of a stage can be set for it alone: --config.STAGE.KEY=VALUE; stages: {stage_names}"]


def _format_value(value: Any) -> str:
    """Formats a value as in a flag; a mapping as `en=DIR,de=DIR`."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}={_format_value(inner)}" for name, inner in value.items())
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


# --- saved configs and config files


def _read_saved(path: pathlib.Path) -> ConfigDict:
    """Reads the config.json of a run, or refuses a file that is no such config."""
    remedy = "give the config.json that a run left in its work directory"
    if not path.is_file():
        raise UserError("no such config", str(path), remedy)
    if path.stat().st_size > _LARGEST_CONFIG:
        raise UserError(f"is not a config: it has {path.stat().st_size:,} bytes", str(path), remedy)
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", str(path), "correct the permissions") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"is not valid JSON: {error}", str(path), remedy) from error
    if not isinstance(saved, dict) or not isinstance(saved.get("stages"), list):
        raise UserError("is not a config", str(path), remedy)
    try:
        reading.check_form(saved, str(path))
        config = reading.write_sources(reading.use_current_names(_fill_neutral(saved)))
        if fault := _find_fault(config):
            raise UserError(fault, str(path), remedy)
        return ConfigDict(_make_tuples(config))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:  # a key that no config can have
        raise UserError(f"is not a config ({error})", str(path), remedy) from error


def _unpack_block(value: Any) -> dict[str, Any]:
    """Returns a block that stands in a list, where ml_collections leaves it as it is, as a dict."""
    if isinstance(value, ConfigDict):
        return value.to_dict()
    raise TypeError(f"an object of type {type(value).__name__}")


def _replace_sources(config: ConfigDict, values: Mapping[str, Any]) -> None:
    """Replaces the dicts and lists of sources in a config by the strings of its plain form."""
    prefixes = ("", *(f"{name}." for name, block in values.items() if isinstance(block, Mapping)))
    for key in (prefix + key for prefix in prefixes for key in reading.list_source_keys()):
        text = reading.get_value(values, key)
        if text is not None and not isinstance(config[key], str):
            _set_value(config, key, text)


def _set_value(config: ConfigDict, name: str, value: Any) -> None:
    """Sets a key such as `optim.lr`; its value may be of another type than before, as 1 for a setting of type float."""
    *blocks, key = name.split(".")
    with config.unlocked(), config.ignore_type():
        block = config
        for part in blocks:
            if part not in block:
                block[part] = ConfigDict()
            block = block[part]
        block[key] = value


def _use_current_name(name: str) -> str:
    """Returns the current name of a key, and prints it where it has changed."""
    if name in reading.RENAMED:
        print(f"note: config.{name} is called config.{reading.RENAMED[name]} now", file=sys.stderr)
    return reading.RENAMED.get(name, name)


def _fill_neutral(saved: dict[str, Any]) -> dict[str, Any]:
    """Adds keys that an older version did not know, in blocks that may differ between two starts of one run."""
    from xlkd.configs.base import base

    defaults = to_plain(base())
    blocks = {name: saved[name] for name in reading.NEUTRAL if isinstance(saved.get(name), dict)}
    return saved | {name: defaults[name] | block for name, block in blocks.items()}


def _find_fault(saved: dict[str, Any]) -> str:
    """Finds what no config of this version can have; returns a description, or an empty string."""
    from xlkd.configs.base import base

    flat = dict(spec.flatten(saved))
    for key, default in spec.flatten(to_plain(base())):
        if key not in flat:
            return f"lacks config.{key}"
        if not _is_alike(default, flat[key]):
            return f"config.{key}={flat[key]!r} is not of type {type(default).__name__}"
    if not isinstance(saved.get("teachers", {}), dict):
        return "config.teachers is a block in place of a value, or the reverse"
    if half := next((key for key, value in flat.items() if not _is_writable(f"{key} {value}")), None):
        return f"config.{half} contains half of a surrogate pair"
    for name in saved["stages"]:
        if fault := _find_block_fault(saved.get(name, {}), saved, name):
            return fault
    return ""


def _find_block_fault(own: Any, shared: Any, where: str) -> str:
    """Finds a value of a stage that is of another kind than the shared value that it overrides."""
    if isinstance(own, dict) != isinstance(shared, dict):
        return f"config.{where} is a block in place of a value, or the reverse"
    if not isinstance(own, dict):
        return "" if _is_alike(shared, own) else f"config.{where}={own!r} is not of type {type(shared).__name__}"
    pairs = ((key, value, shared[key]) for key, value in own.items() if key in shared)
    return next(
        (fault for key, value, default in pairs if (fault := _find_block_fault(value, default, f"{where}.{key}"))), ""
    )


def _is_alike(default: Any, value: Any) -> bool:
    """Returns whether a saved value has the same kind as its default."""
    if isinstance(default, float) or (isinstance(default, int) and not isinstance(default, bool)):
        # 1 may replace 1.0, but 0.5 may not replace 1
        loses_fraction = isinstance(default, int) and isinstance(value, float)
        return type(value) in (int, float) and abs(value) < 2**63 and not loses_fraction
    if isinstance(default, (tuple, list)):
        return isinstance(value, (tuple, list)) and not any(isinstance(item, dict | list) for item in value)
    return type(value) is type(default)


def _is_writable(text: str) -> bool:
    """Returns whether a text can be encoded: half of a surrogate pair cannot."""
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def _load_config_module(path: pathlib.Path) -> types.ModuleType:
    """Runs a config file and returns it as a module; the packaged file of that name where none exists."""
    if not path.is_file() or path.suffix != ".py":
        folder = pathlib.Path(next(iter(importlib.import_module("xlkd.configs").__path__)))
        place = path.relative_to("configs") if path.parts[:1] == ("configs",) else path
        if place.is_absolute() or ".." in place.parts or path.suffix != ".py" or not (folder / place).exists():
            known = ", ".join(f"configs/{p.name}" for p in sorted(folder.glob("[a-z]*.py")) if p.stem != "base")
            raise UserError("no such config", str(path), f"packaged configs: {known}")
        path = folder / place
    module = types.ModuleType(f"xlkd_config_{path.stem}")
    module.__file__ = str(path)
    try:
        code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # a zero byte is no SyntaxError
        raise UserError(f"is not valid Python: {error}", str(path), "fix it") from error
    with _explain_fault(module):
        exec(code, module.__dict__)
    if not inspect.isfunction(getattr(module, "get_config", None)):
        raise UserError("has no function get_config(variant)", str(path), "see configs/finetune.py for an example")
    return module


@contextlib.contextmanager
def _explain_fault(module: types.ModuleType) -> Generator[None, None, None]:
    """Turns any error that the code of a config file raises into one line with its place in that file."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == module.__file__
        ]
        message = f": {spec.shorten(error)}" if str(error) else ""
        where = f"{module.__file__}, line {lines[-1]}" if lines else str(module.__file__)
        raise UserError(f"the config raises {type(error).__name__}{message}", where, "fix it") from error


def _split_flag(flag: str) -> tuple[str, str]:
    """Returns key and text of a `--config.KEY=VALUE` flag."""
    name, equals, value = flag.removeprefix("--config.").partition("=")
    if not flag.startswith("--config.") or not equals:
        known = () if flag.startswith("--config.") else ("--config", "--workdir", "--keys", "--help")
        near = difflib.get_close_matches(flag.partition("=")[0], known, n=1)
        hint = f"did you mean {near[0]}?" if near else "write --config.KEY=VALUE"
        raise UserError(f"cannot read {flag!r}", "command line", hint)
    return name, value


def _make_tuples(value: Any) -> Any:
    """Turns lists into tuples, which JSON does not know and by which flags are typed."""
    if isinstance(value, dict):
        return {key: _make_tuples(inner) for key, inner in value.items()}
    return tuple(map(_make_tuples, value)) if isinstance(value, list) else value
