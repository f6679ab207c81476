# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Configs: typed flags, suggestions, saved configs that run again, stages over shared blocks."""

import json
import subprocess
import sys

import pytest
from ml_collections import ConfigDict
from xlkd.configs.base import base

from xlkd import settings
from xlkd.errors import UserError


def config() -> ConfigDict:
    c = ConfigDict({"seed": 0, "stages": ("one", "two"), "start": "encoder"})
    c.optim = ConfigDict(
        {"lr": 1e-3, "steps": 100, "clip": 1.0, "name": "adam", "nested": {"on": True, "sizes": (1, 2)}}
    )
    c.langs = ()
    c.mesh, c.log = ConfigDict({"data": -1}), ConfigDict({"every": 20})
    c.two = ConfigDict({"optim": {"lr": 5e-4}, "start": "one"})
    return c


@pytest.mark.parametrize(
    ("flag", "key", "value"),
    [
        ("optim.lr=3", "lr", 3.0),
        ("optim.lr=3e-5", "lr", 3e-5),
        ("optim.steps=-7", "steps", -7),
        ("optim.name=a=b,c", "name", "a=b,c"),
        ("optim.name=", "name", ""),
        ("optim.nested.on=false", "nested.on", False),
        ("optim.nested.on=True", "nested.on", True),
        ("optim.nested.sizes=3", "nested.sizes", (3,)),
        ("optim.nested.sizes=(3, 4,)", "nested.sizes", (3, 4)),
    ],
)
def test_flags_are_typed_as_the_default_is(flag, key, value):
    found = settings.override(config(), [f"--config.{flag}"]).optim
    for part in key.split("."):
        found = found[part]
    assert found == value
    assert type(found) is type(value)


def test_strings_go_into_an_empty_tuple_and_the_last_flag_holds():
    assert settings.override(config(), ["--config.langs=de,fr"]).langs == ("de", "fr")
    assert settings.override(config(), ["--config.seed=1", "--config.seed=2"]).seed == 2


@pytest.mark.parametrize(
    "flag",
    ["optim.steps=2.5", "optim.steps=many", "optim.lr=abc", "optim.lr=nan", "optim.lr=-inf", "optim.nested.on=maybe",
     "optim.nested.sizes=1,x"],
)  # fmt: skip
def test_a_value_of_another_type_is_refused(flag):
    with pytest.raises(UserError, match="is not of type"):
        settings.override(config(), [f"--config.{flag}"])


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--config.optim.lrr=1", "did you mean config.optim.lr?"),
        ("--config.lr=1", "did you mean config.optim.lr?"),
        ("--config.xyzzy=1", "config.json in a work directory lists all keys"),
        ("--config.optim=1", "unknown key config.optim"),
        ("--config.seed", "write --config.KEY=VALUE"),
        ("--confg=x", "did you mean --config?"),
        ("whatever", "write --config.KEY=VALUE"),
    ],
)
def test_what_cannot_be_read_gets_a_hint(flag, says):
    with pytest.raises(UserError) as error:
        settings.override(config(), [flag])
    assert says in str(error.value)


def test_a_saved_config_is_the_same_config(tmp_path):
    """Tuples and all, so that it can be overridden and run again; the folder it names is the same."""
    one = base()
    with one.ignore_type():
        one.update(config())
    one = settings.override(one, ["--config.optim.lr=0.25"])
    path = tmp_path / "config.json"
    path.write_text(json.dumps(settings.plain(one)))
    again = settings.read(str(path))
    assert again == one
    assert again.optim.nested.sizes == (1, 2)
    assert settings.digest(settings.plain(again)) == settings.digest(settings.plain(one))
    assert settings.override(again, ["--config.optim.nested.sizes=5"]).optim.nested.sizes == (5,)


@pytest.mark.parametrize("name", ["pretrain", "finetune", "gxlt"])
def test_every_variant_of_every_config_survives_being_saved(name, tmp_path):
    module = settings._module(settings.pathlib.Path(f"configs/{name}.py"))
    for variant in module.VARIANTS:
        one = settings.read(f"configs/{name}.py:{variant}")
        (tmp_path / "config.json").write_text(json.dumps(settings.plain(one)))
        assert settings.read(str(tmp_path / "config.json")) == one, variant
        assert all(settings.stage(one, stage).stage == stage for stage in one.stages)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "no such config"),
        ("{", "is no JSON"),
        ("[1]", "holds no config"),
        ('{"model_type": "bert"}', "no config"),
    ],
)
def test_a_json_that_is_no_config(tmp_path, text, says):
    if text:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=says):
        settings.read(str(tmp_path / "config.json"))


def test_a_config_that_an_older_version_saved_gets_the_keys_that_change_no_run(tmp_path):
    """Such as `mesh.dcn_data`: its work directory resumes, and its config.json can be run again."""
    config = settings.read("configs/gxlt.py:paper")
    saved = settings.plain(config)
    del saved["mesh"]["dcn_data"]
    saved["mesh"]["fsdp"] = 4
    assert settings.differences(settings.plain(config), saved) == []
    (tmp_path / "config.json").write_text(json.dumps(saved))
    found = settings.read(str(tmp_path / "config.json"))
    assert (found.mesh.dcn_data, found.mesh.fsdp) == (-1, 4)
    del saved["optim"]["clip"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match=r"lacks config\.optim\.clip"):
        settings.read(str(tmp_path / "config.json"))


def test_a_stage_lies_over_the_shared_blocks():
    c = config()
    one, two = settings.stage(c, "one"), settings.stage(c, "two")
    assert (one.optim.lr, one.start, one.stage) == (1e-3, "encoder", "one")
    assert (two.optim.lr, two.start, two.stage) == (5e-4, "one", "two")
    assert two.optim.steps == 100, "what the stage does not change stays"
    assert two.optim.nested.sizes == (1, 2)
    assert "two" not in two
    assert c == config(), "the config itself is left alone"


@pytest.mark.parametrize("key", settings.ONE_OR_MORE)
def test_what_has_to_be_one_or_more(key):
    """Zero would divide somewhere in the middle of a run."""
    zero = settings.override(settings.read("configs/finetune.py"), [f"--config.{key}=0"])
    with pytest.raises(UserError, match=f"config of stage finetune: {key}=0 is not possible"):
        settings.stage(zero, "finetune")


def digest(*flags: str) -> str:
    return settings.digest(settings.plain(settings.override(config(), list(flags))))


def test_the_digest_leaves_out_where_and_how_loudly_a_run_is_run():
    plain = digest()
    for flag in ("mesh.data=4", "log.every=1"):
        assert digest(f"--config.{flag}") == plain
    for flag in ("seed=1", "optim.nested.sizes=2,1", "two.optim.lr=0.1"):
        assert digest(f"--config.{flag}") != plain


def test_differences_are_named_by_key():
    other = settings.override(config(), ["--config.mesh.data=4", "--config.seed=1", "--config.optim.nested.on=0"])
    assert settings.differences(settings.plain(config()), settings.plain(other)) == ["optim.nested.on", "seed"]
    assert settings.differences({"a": {"b": 1}}, {"a": {}, "c": 2}) == ["a.b", "c"]


def test_a_packaged_config_is_found_from_another_folder(tmp_path, monkeypatch):
    here = settings.read("configs/finetune.py")
    monkeypatch.chdir(tmp_path)
    assert settings.read("configs/finetune.py") == here
    assert settings.read("finetune.py") == here


def test_a_file_of_ones_own_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    own = "from ml_collections import ConfigDict\ndef get_config(variant=''): return ConfigDict({'own': variant})\n"
    (tmp_path / "configs" / "finetune.py").write_text(own)
    assert settings.read("configs/finetune.py:x").own == "x"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("configs/finetune.py:sqad", "unknown variant 'sqad'; known: none, squad, classify"),
        ("configs/fintune.py", "configs/finetune.py"),
        ("/no/such/folder/finetune.py", "no such config"),  # not the packaged one of that name
        ("README.md", "no such config"),
        ("configs", "no such config"),
        ("configs/base.py", "has no function get_config"),
    ],
)
def test_a_config_that_is_not_there(name, says):
    with pytest.raises(UserError) as error:
        settings.read(name)
    assert says in str(error.value)


def test_reading_configs_needs_no_jax():
    code = "import sys\nfrom xlkd import settings\nsettings.read('configs/gxlt.py')\nprint('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_tasks_settings_defaults_then_the_model_then_flags():
    recorded = {"name": "qa", "max_length": 160, "doc_stride": 64}
    found = settings.task("qa", recorded, {"doc_stride": "32"})
    assert (found.max_length, found.doc_stride, found.max_query_length) == (160, 32, 64)
    assert settings.task("qa", {"name": "masked", "max_length": 7}, {}).max_length == 384, (
        "another task's are not taken"
    )
    with pytest.raises(UserError, match="does not belong to the task classify"):
        settings.task("classify", {}, {"doc_stride": "32"})
