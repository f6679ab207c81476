# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Nonsense in settings, flags, configs and the environment: refused in one line that names the key, or used as given.

Property tests: whatever is drawn, a command or a reader returns a value of the stated range or raises a `UserError`.
"""

import contextlib
import dataclasses
import importlib
import json
import math
import os
import pkgutil

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from ml_collections import ConfigDict

import xlkd.spec
from xlkd import caches, cli, files, settings, spec, sweep
from xlkd.data import cache
from xlkd.errors import UserError
from xlkd.planning import machine
from xlkd.spec import reading

QUICK = hypothesis_settings(max_examples=30, deadline=None, derandomize=True)
LONG = hypothesis_settings(max_examples=2000, deadline=None)


def list_settings_classes() -> list[type]:
    modules = [importlib.import_module(f"xlkd.spec.{m.name}") for m in pkgutil.iter_modules(xlkd.spec.__path__)]
    classes = {cls for module in modules for cls in vars(module).values() if isinstance(cls, type)}
    return sorted((c for c in classes if dataclasses.is_dataclass(c) and spec.list_settings(c)), key=str)


FIELDS = [(cls, name) for cls in list_settings_classes() for name in spec.list_settings(cls)]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 1, 2, 2**31, 2**32, 2**63, 2**64, -(2**63), 10**400, 10**12]),
    st.integers(),
    st.floats(),
    st.sampled_from([1e-320, 1e-300, 1e300, -0.0, 0.9999999999999999, 1e12]),
    st.text(max_size=8),
    st.sampled_from(["", "nan", "\0", "\ud800", "a\nb", "~nosuchuser/x", "x" * 5000, "../x", "en", "float32"]),
)
nonsense = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=6,
)  # fmt: skip
flag_texts = st.one_of(
    st.sampled_from(["", " ", "0x10", "1_000", "١٢", "1e400", "1e-400", "inf", "-5", "1e12", "2" * 5000, "(1,2", ",", "a,,b",
                     "9223372036854775808", "true", "None", "²", " 5", "5 ", "+5", "1e3", "\ud800", "--", "en,en"]),
    st.text(max_size=8),
    st.integers().map(str),
    st.floats().map(str),
)  # fmt: skip


def test_every_numeric_setting_has_a_lowest_and_a_highest_value():
    numbers = [(cls, name) for cls, name in FIELDS if spec.resolve_types(cls)[name] in (int, float, tuple[int, int])]
    limits = {f"{cls.__name__}.{name}": spec.list_settings(cls)[name] for cls, name in numbers}
    assert len(limits) > 60
    assert not [name for name, known in limits.items() if math.isinf(known.at_least) or math.isinf(known.at_most)]


def read_field(cls: type, name: str, value):
    return spec.check_value(spec.list_settings(cls)[name], spec.resolve_types(cls)[name], value, f"config.block.{name}")


def check_field(cls: type, name: str, value) -> None:
    """Reads one setting: its value is in the range, or the error names its key."""
    message, limits = "", spec.list_settings(cls)[name]
    try:
        read = read_field(cls, name, value)
    except UserError as error:
        message = str(error)
    if message:
        assert message.startswith(f"config.block.{name}: ")
        assert "\n" not in message
        assert len(message) < 1000
        return
    for number in read if isinstance(read, tuple) else (read,):
        if isinstance(number, int | float) and not isinstance(number, bool) and number not in limits.also:
            assert limits.at_least <= number <= limits.at_most
    json.dumps(read, allow_nan=False, ensure_ascii=False).encode()


@QUICK
@given(st.sampled_from(FIELDS), nonsense)
def test_a_setting_is_within_its_range_or_refused_by_its_key(field, value):
    check_field(*field, value)


@pytest.mark.long
@LONG
@given(st.sampled_from(FIELDS), nonsense)
def test_any_value_of_any_setting_is_within_its_range_or_refused_by_its_key(field, value):
    check_field(*field, value)


@pytest.mark.parametrize(("cls", "name"), FIELDS, ids=lambda part: getattr(part, "__name__", part))
def test_a_setting_refuses_values_of_another_type_and_beyond_its_range(cls, name):
    kind, limits = spec.resolve_types(cls)[name], spec.list_settings(cls)[name]
    if kind in (int, float):
        wrong = [math.nan, math.inf, -math.inf, True, "1", None, 10**400, limits.at_least - 5, limits.at_most * 2 + 1]
        wrong += [2**63, 1.5, 1.0] if kind is int else [1e300]
    elif kind is bool:
        wrong = [0, 1, "true", None]
    elif kind in (str, spec.SourceText) or spec.list_choices(kind):
        wrong = [0, None, True, ("a",), "a\0", "a\nb", "\ud800"]
    elif spec.describe_type(kind) == "by language":
        wrong = [0, "a", ("a",), {"en": 3}]
    else:
        wrong = [0, "a", None, (1.5,), ({},), ("", ""), ("a", "a")]
    for value in wrong:
        with pytest.raises(UserError, match=f"config.block.{name}"):
            read_field(cls, name, value)


CONTRADICTIONS = {
    "a warm-up longer than the training": (["optim.warmup=11", "budget.steps=10"], "config.optim.warmup"),
    "a decay that changes the sign": (["optim.lr=1", "optim.weight_decay=1"], "config.optim: lr × weight_decay"),
    "an overlap without advance": (["task.doc_stride_means=overlap", "task.max_length=64"], "task.doc_stride"),
    "a stage twice": (["stages=finetune,finetune"], "config.stages contains a name twice"),
    "a stage outside the folder": (["stages=../x"], "cannot be the name of a stage"),
    "a stage with the name of a key": (["stages=optim"], "cannot be the name of a stage"),
    "a control that does not exist": (["controls=x"], "config.controls names 'x'"),
    "a comparison with itself": (["report.compare=finetune:finetune"], "config.report.compare"),
    "a comparison of one": (["report.compare=finetune"], "config.report.compare"),
    "a head too many": (["encoder.path=new", "encoder.new.texts=x", "encoder.new.heads=3"], "3 heads do not divide"),
    "a tokenizer without texts": (["encoder.path=new"], "config.encoder.new.texts"),
}


@pytest.mark.parametrize(("flags", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_settings_that_contradict_each_other_are_refused(flags, message):
    with pytest.raises(UserError) as error:
        settings.read_stages(apply_flags("configs/finetune.py", *flags))
    assert message in str(error.value)


@pytest.mark.parametrize("flag", ["word_layers=", "sentence_layers=a", "structure_layers=1", "word_layers=1:1:1"])
def test_layers_that_are_no_pairs_are_refused(flag):
    with pytest.raises(UserError, match="are not pairs of student and teacher layers"):
        settings.read_stages(apply_flags("configs/mmkd.py", f"method.{flag}"))


def test_teachers_of_unknown_languages_are_refused():
    with pytest.raises(UserError, match=r"config\.teachers: unknown language 'xyz'"):
        settings.read_stages(apply_flags("configs/mblm.py", "mblm.teachers.xyz=a"))


@pytest.mark.parametrize("flag", ["labels=a", "labels=1,one", "languages=en,EN"])
def test_labels_and_languages_that_contradict_the_task_are_refused(flag):
    with pytest.raises(UserError, match=r"config\.task"):
        settings.read_stages(apply_flags("configs/finetune.py:classify", "task.ordered=true", f"task.{flag}"))


@pytest.mark.parametrize("key", ["start", "encoder.path", "data.train"])
def test_a_stage_that_names_nothing_is_refused(key):
    (stage,) = settings.read_stages(apply_flags("configs/finetune.py", f"{key}="))
    with pytest.raises(UserError, match=f"config.{key} of stage finetune: is empty"):
        settings.check_start(stage, [])


def apply_flags(name: str, *flags: str) -> ConfigDict:
    return settings.apply_flags(settings.read_config(name), [f"--config.{flag}" for flag in flags])


KEYS = sorted(reading.list_stage_keys(settings.to_plain(settings.read_config("configs/finetune.py")), "finetune"))


@QUICK
@given(st.sampled_from([*KEYS, *reading.RUN_KEYS]), flag_texts)
def test_a_flag_with_any_text_gives_stages_or_one_line(key, text):
    with contextlib.suppress(UserError):
        for stage in settings.read_stages(apply_flags("configs/finetune.py", f"{key}={text}")):
            assert json.loads(json.dumps(spec.to_plain(stage), allow_nan=False))


@pytest.mark.parametrize("text", ["0x10", "1_000", "١٢", " 5", "5 ", "²", "2" * 5000])
def test_numbers_in_flags_are_plain_digits(text):
    with pytest.raises(UserError, match="not of type int"):
        apply_flags("configs/finetune.py", f"data.batch={text}")
    with pytest.raises(UserError, match=r"whole number above 0|more than 7"):
        cli.parse_count({"batch": text}, "batch", 1, 7)


@pytest.mark.parametrize("text", ["1_0.5", "٠.٥", "1e400", "1e-400", "0x1p3", "infinity", "1,5"])
def test_numbers_with_a_fraction_are_neither_rounded_to_0_nor_to_infinity(text):
    with pytest.raises(UserError, match="not of type float"):
        apply_flags("configs/finetune.py", f"optim.lr={text}")


@pytest.mark.parametrize("text", ["٥G", "9" * 5000, "inf", "-1G", "1e9", "1P", "nan", " "])
def test_a_size_of_the_cache_is_plain_digits_with_a_unit(text):
    with pytest.raises(UserError, match="is not a size"):
        caches.parse_size(text)


def test_an_empty_flag_is_refused():
    for arguments in (["--model="], ["--model", ""]):
        with pytest.raises(UserError, match="--model is empty"):
            cli.split_flags(arguments, ("model",))


@pytest.mark.parametrize(
    ("over", "message"),
    [("seed=1,1", "twice"), ("seed=1 seed=2", "twice"), ("data.eval=a/../../b", "'..' in a value"), ("seed=../x", "'..'"),
     (" ".join(f"a{n}=1,2" for n in range(20)), "more than 1000"), ("optim.lr=1,-5", "lr=-5.0 is not possible")],
)  # fmt: skip
def test_a_sweep_that_cannot_run_to_its_end_does_not_begin(over, message, tmp_path):
    with pytest.raises(UserError, match=message):
        sweep.main(["--config=configs/gxlt.py", f"--over={over}", f"--workdir={tmp_path / 'runs'}"])
    assert not (tmp_path / "runs").exists()


# --- config files and saved configs

CODES = {
    "an error": ("raise ValueError('no')", r"own.py, line 2: the config raises ValueError: no; "),
    "an error in a function": ("def get_config(v):\n    return 1 / 0", "line 3: the config raises ZeroDivisionError"),
    "an exit": ("import sys\ndef get_config(v):\n    sys.exit(3)", "line 4: the config raises SystemExit: 3"),
    "a recursion": ("def get_config(v):\n    return get_config(v)", "the config raises RecursionError"),
    "a missing key": ("def get_config(v):\n    return {}['x']", "line 3: the config raises KeyError: 'x'"),
    "no parameter": ("def get_config():\n    return 1", "the config raises TypeError"),
    "nothing": ("def get_config(v):\n    pass", "get_config returns NoneType, not a ConfigDict"),
    "a dict": ("def get_config(v):\n    return {}", "get_config returns dict, not a ConfigDict"),
    "an empty config": ("def get_config(v):\n    return ConfigDict()", "names no stages"),
    "a path": ("import pathlib\n{start}c.data.train = pathlib.Path('x')\n    return c", "JSON cannot express"),
    "a cycle": ("{start}c.data.train = c\n    return c", "JSON cannot express"),
    "a text for stages": ("{start}c.stages = 'ab'\n    return c", "config.stages is not a list of names"),
    "a number for a block": ("{start}c.optim = 3\n    return c", "config.optim is a value in place of a block"),
    "no block": ("{start}c.optim = None\n    return c", "config.optim is a value in place of a block"),
    "a number for a stage": ("{start}c.finetune = 3\n    return c", "config.finetune is a value in place of"),
}


@pytest.mark.parametrize(("code", "message"), CODES.values(), ids=CODES)
def test_a_config_file_that_fails_is_explained_with_its_line(code, message, tmp_path):
    start = "from xlkd.configs import base, finetune\ndef get_config(v):\n    c = finetune.qa(base.base())\n"
    start += "    with c.ignore_type():\n        "
    file = tmp_path / "own.py"
    file.write_text("from ml_collections import ConfigDict\n" + code.replace("{start}", start))
    with pytest.raises(UserError, match=message):
        settings.read_stages(settings.read_config(str(file)))


def test_a_whole_number_in_a_config_file_can_be_overridden_by_a_fraction(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        "from xlkd.configs import base, finetune\ndef get_config(v):\n    c = finetune.qa(base.base())\n"
        "    c.optim = {**c.optim.to_dict(), 'lr': 1}\n    c.lock()\n    return c\n"
    )
    assert apply_flags(str(file), "optim.lr=0.5").optim.lr == 0.5


SAVED = settings.to_plain(settings.read_config("configs/mblm.py"))
PATHS = [(key,) for key in SAVED] + [(a, b) for a, block in SAVED.items() if isinstance(block, dict) for b in block]


def mutate(path, kind: str, value):
    """Returns the saved config with one value removed, replaced, renamed or nested."""
    config = json.loads(json.dumps(SAVED))
    *blocks, key = path
    block = config
    for name in blocks:
        block = block[name]
    old = block.pop(key)
    if kind == "replace":
        block[key] = value
    elif kind == "rename":
        block[f"{key}{value}"] = old
    elif kind == "nest":
        block[key] = {key: old}
    elif kind == "add":
        block |= {key: old, "unknown": value}
    return config


def check_saved(tmp_path_factory, path, kind, value) -> None:
    file = tmp_path_factory.getbasetemp() / "mutated.json"
    file.write_text(json.dumps(mutate(path, kind, value)))
    with contextlib.suppress(UserError):
        for stage in settings.read_stages(settings.read_config(str(file))):
            json.dumps(spec.to_plain(stage), allow_nan=False)


mutations = (st.sampled_from(PATHS), st.sampled_from(["remove", "replace", "rename", "nest", "add"]), nonsense)


@QUICK
@given(*mutations)
def test_a_damaged_saved_config_gives_stages_or_one_line(tmp_path_factory, path, kind, value):
    check_saved(tmp_path_factory, path, kind, value)


@pytest.mark.long
@LONG
@given(*mutations)
def test_any_damaged_saved_config_gives_stages_or_one_line(tmp_path_factory, path, kind, value):
    check_saved(tmp_path_factory, path, kind, value)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"null", b"3", b'"x"', b"\xff", b'{"stages": ["a"]', b"[" * 100_000, b'{"stages": [], "a":' * 900,
     b'{"stages": ["a"], "a": {"optim": 3}}', b'{"stages": ["a"], "seed": 1' + b"0" * 5000 + b"}"],
)  # fmt: skip
def test_a_file_that_is_no_saved_config_is_refused(content, tmp_path):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json"):
        settings.read_stages(settings.read_config(str(tmp_path / "config.json")))


def test_a_pipe_in_place_of_a_config_is_refused(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(UserError, match="no such config"):
        settings.read_config(str(tmp_path / "config.json"))


# --- flags of commands, paths and the environment

COMMANDS = ("main", "check", "evaluate", "predict", "report", "plan", "trim", "caches", "sweep")
FLAGS = ("config", "workdir", "model", "data", "json", "out", "texts", "layers", "batch", "n_best", "predictions", "chips",
         "topology", "device", "slices", "efficiency", "prune", "over", "tolerance", "labels", "task", "coordinator")  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_path_below_the_home_of_nobody_is_refused(command, monkeypatch, capsys):
    required = {"config": "configs/finetune.py", "model": "~nosuchuser/x", "data": "squad:~nosuchuser/x",
                "texts": "~nosuchuser/x", "workdir": "~nosuchuser/x", "out": "~nosuchuser/x", "over": "seed=1"}  # fmt: skip
    wanted = {"main": ("config", "workdir"), "check": ("data",), "evaluate": ("data", "model"), "predict": ("model",),
              "report": (), "plan": ("config", "json"), "trim": ("model", "texts", "out"), "caches": (), "sweep": ("config", "over", "workdir")}[command]  # fmt: skip
    arguments = [f"--{name}={required.get(name, '~nosuchuser/x')}" for name in wanted]
    if command == "report":
        arguments = ["~nosuchuser/x"]
    if command == "caches":
        monkeypatch.setenv("XLKD_CACHE", "~nosuchuser/x")
    monkeypatch.setattr("sys.argv", ["xlkd", *arguments])
    assert cli.run(importlib.import_module(f"xlkd.{command}").main) == 2
    assert capsys.readouterr().err.startswith("error: ")


@QUICK
@given(st.sampled_from(COMMANDS), st.lists(st.tuples(st.sampled_from(FLAGS), flag_texts), max_size=3))
def test_a_command_with_any_flags_ends_with_one_line(command, flags):
    if command in ("caches", "report"):
        flags = [("unknown", ""), *flags]  # they would work on the real cache, and on folders here
    with pytest.raises(UserError):
        importlib.import_module(f"xlkd.{command}").main(
            [f"--{name}={text}" for name, text in flags if name != "device"]
        )


@pytest.mark.parametrize(
    "topology",
    ["", "v5e", "v5e:0x0", "v5e:", "v5e:2x0", "v5e-0", "v5e-7", "v5e:2", "v5e:٢x٢", "v9-8", "h100:2x2", "v5e:1x1x1x1",
     "v5e:999999999999x9", "v5e-" + "9" * 5000, "v5p:2x2", "V5E-8", " v5e-8", "tpu7x-8", "v5e:9999x9"],
)  # fmt: skip
def test_a_topology_that_cannot_exist_is_refused(topology):
    with pytest.raises(UserError, match="--topology"):
        machine._describe_pod(topology, 1, 0.35, print)


@pytest.mark.parametrize("text", ["inf", "nan", "-1", "x", "1e400", "1e30", "٢", "1_0"])
def test_a_limit_of_the_cache_that_is_no_size_is_refused(text, monkeypatch):
    monkeypatch.setenv("XLKD_CACHE_GIB", text)
    with pytest.raises(UserError, match="XLKD_CACHE_GIB"):
        cache.size_limit_bytes()


def test_an_empty_limit_of_the_cache_is_the_default(monkeypatch):
    monkeypatch.setenv("XLKD_CACHE_GIB", "")
    assert cache.size_limit_bytes() == 50 * 2**30


@pytest.mark.parametrize("name", ["~nosuchuser/x", "x" * 300, "a\0b"])
def test_what_cannot_be_a_path_is_refused(name):
    with pytest.raises(UserError, match="is not a path"):
        files.expand_path(name)


@pytest.fixture
def shared_temporary(tmp_path, monkeypatch):
    """Sets a temporary directory that everybody can write to, and no home; returns the place of the cache."""
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    monkeypatch.setattr("tempfile.tempdir", str(shared))
    monkeypatch.delenv("XLKD_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "no absolute path")
    return shared / f"cache-{os.getuid()}"


def test_the_cache_in_a_shared_folder_is_made_for_its_user_alone(shared_temporary, monkeypatch):
    assert cache.get_folder() == shared_temporary / "xlkd"
    assert shared_temporary.stat().st_mode & 0o777 == 0o700
    assert cache.get_folder() == shared_temporary / "xlkd", "its own folder is used again"
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared_temporary.parent))
    cache.get_folder()
    assert (shared_temporary.parent / "xlkd").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kind", ["writable by others", "a symlink", "a file", "of another user"])
def test_a_cache_that_somebody_else_can_write_is_refused(kind, shared_temporary, tmp_path, monkeypatch):
    if kind == "a symlink":
        shared_temporary.symlink_to(tmp_path)
    elif kind == "a file":
        shared_temporary.touch()
    else:
        shared_temporary.mkdir(mode=0o700)
    if kind == "writable by others":
        shared_temporary.chmod(0o777)
    elif kind == "of another user":
        monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
    with pytest.raises(UserError, match="another user owns or can write to"):
        cache.get_folder()
