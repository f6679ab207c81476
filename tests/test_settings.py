# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Configs: typed flags, suggestions, saved configs that run again, stages over shared blocks."""

import json
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from xlkd import settings, spec
from xlkd.errors import UserError
from xlkd.spec import reading
from xlkd.spec.optim import Optim


def make_config() -> ConfigDict:
    """Returns a config of two stages, the second with a learning rate of its own."""
    c = settings.read_config("configs/finetune.py:classify")
    c = settings.replace_values(c, stages=("one", "two"), start="encoder", optim__lr=1e-3)
    c.two = ConfigDict({"optim": {"lr": 5e-4}, "start": "one"})
    return c


@pytest.mark.parametrize(
    ("flag", "key", "value"),
    [
        ("optim.lr=3", "optim.lr", 3.0),
        ("optim.lr=3e-5", "optim.lr", 3e-5),
        ("budget.steps=7", "budget.steps", 7),
        ("data.train=a=b,c", "data.train", "a=b,c"),
        ("data.dev=", "data.dev", ""),
        ("task.ordered=false", "task.ordered", False),
        ("task.ordered=True", "task.ordered", True),
        ("task.labels=3", "task.labels", ("3",)),
        ("task.labels=(3, 4,)", "task.labels", ("3", "4")),
        ("two.data.buckets=1", "two.data.buckets", 1),  # the file does not mention it for this stage
        ("two.optim.lr=1", "two.optim.lr", 1.0),
    ],
)
def test_flags_have_the_type_of_their_setting(flag, key, value):
    block = settings.apply_flags(make_config(), [f"--config.{flag}"])
    for part in key.split("."):
        block = block[part]
    assert block == value
    assert type(block) is type(value)


def test_a_flag_can_fill_an_empty_tuple_and_the_last_flag_applies():
    assert settings.apply_flags(make_config(), ["--config.task.languages=de,fr"]).task.languages == ("de", "fr")
    assert settings.apply_flags(make_config(), ["--config.seed=1", "--config.seed=2"]).seed == 2


@pytest.mark.parametrize(
    "flag",
    ["budget.steps=2.5", "budget.steps=many", "optim.lr=abc", "optim.lr=nan", "optim.lr=-inf", "task.ordered=maybe",
     "two.seed=x"],
)  # fmt: skip
def test_a_value_of_another_type_is_refused(flag):
    with pytest.raises(UserError, match="is not of type"):
        settings.apply_flags(make_config(), [f"--config.{flag}"])


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.optim.lrr=1", "did you mean config.optim.lr?"),
        ("--config.lr=1", "did you mean config.optim.lr?"),
        ("--config.two.optim.lrr=1", "did you mean config.two.optim.lr?"),
        ("--config.xyzzy=1", "--keys lists all keys"),
        ("--config.optim=1", "unknown key config.optim"),
        ("--config.seed", "write --config.KEY=VALUE"),
        ("--confg=x", "did you mean --config?"),
        ("whatever", "write --config.KEY=VALUE"),
    ],
)
def test_an_unreadable_flag_gets_a_hint(flag, message):
    with pytest.raises(UserError) as error:
        settings.apply_flags(make_config(), [flag])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("english.method.alpha_ce=1", "stage english never reads method.alpha_ce; set it for zs, ce, skd"),
        ("english.data.ntl=1", "stage english never reads data.ntl"),
        ("skd.encoder.path=x", "stage skd never reads encoder.path; set it for english"),
        ("skd.method.control=ce", "stage skd never reads method.control; leave it out"),
        ("english.encoder.new.layers=2", "unknown key config.english.encoder.new.layers"),
    ],
)
def test_a_key_that_a_stage_never_reads_is_refused(flag, message):
    with pytest.raises(UserError) as error:
        settings.apply_flags(settings.read_config("configs/gxlt.py"), [f"--config.{flag}"])
    assert message in str(error.value)


def test_a_config_file_with_a_key_that_nothing_reads_is_refused(tmp_path):
    file = tmp_path / "own.py"
    for line, message in (
        ("c.optim.lrr = 1", "optim.lr"),
        ("c.one.method.kl = 'x'", "stage one never reads method.kl"),
    ):
        file.write_text(
            "from ml_collections import ConfigDict\nfrom xlkd.configs import base, finetune\n"
            "def get_config(variant):\n    c = finetune.atlas(base.base())\n    c.stages = ('one',)\n"
            f"    c.one = ConfigDict({{'method': {{}}}})\n    {line}\n    return c\n"
        )
        with pytest.raises(UserError) as error:
            settings.read_config(str(file))
        assert message in str(error.value)


@pytest.mark.parametrize(
    "flag",
    ["optim.lr=-0.001", "optim.b1=2", "optim.clip=-1", "encoder.dropout=2", "data.pad_to=-1", "eval.keep=first",
     "mesh.fsdp=0", "method.temperature=0", "method.kd=other", "two.optim.eps=0"],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_when_stages_are_read(flag):
    name = "configs/mblm.py" if flag.startswith("method") else ""
    values = settings.read_config(name) if name else make_config()
    with pytest.raises(UserError, match=r"is not possible; (give|choose one of) ") as error:
        settings.read_stages(settings.apply_flags(values, [f"--config.{flag}"]))
    assert f"config.{flag.partition('=')[0]}" in str(error.value)


def test_a_shared_key_that_every_stage_sets_for_itself_is_refused():
    with pytest.raises(UserError, match="STAGE=single or single_kd or branches or mblm"):
        settings.apply_flags(settings.read_config("configs/mblm.py"), ["--config.method.weight_s=2"])


def test_a_config_without_stages_is_refused():
    with pytest.raises(UserError, match="no stages"):
        settings.read_stages(settings.apply_flags(make_config(), ["--config.stages="]))


def test_the_old_name_of_a_key_is_accepted_and_announced(capsys):
    values = settings.apply_flags(settings.read_config("configs/gxlt.py"), ["--config.method.variant=ce"])
    assert [stage.name for stage in settings.read_stages(values)] == ["english", "ce"]
    assert "config.method.variant is called config.method.control now" in capsys.readouterr().err


def test_every_key_is_listed_with_type_range_value_and_meaning():
    lines = settings.describe_keys(settings.read_config("configs/gxlt.py"))
    listed = {line.split()[0]: " ".join(line.split()) for line in lines if line.startswith("config.")}
    assert (
        listed["config.optim.b1"] == "config.optim.b1 float: 0 to 0.999999 0.9 Adam's decay rate of the first moment."
    )
    assert "linear, cosine linear Shape" in listed["config.optim.schedule"]
    values = settings.to_plain(settings.read_config("configs/gxlt.py"))
    named = {f"config.{key}" for key, _ in spec.flatten(values)}
    assert named <= {*listed, "config.teacher.path", "config.teacher.revision"}
    assert "config.skd_map.method.coefficient" in listed


def test_a_saved_config_equals_the_original(tmp_path):
    """Tuples survive, so that the config can be overridden and run again; its digest is the same."""
    original = settings.apply_flags(make_config(), ["--config.optim.lr=0.25", "--config.task.labels=a,b"])
    path = tmp_path / "config.json"
    path.write_text(json.dumps(settings.to_plain(original)))
    loaded = settings.read_config(str(path))
    assert loaded == original
    assert loaded.task.labels == ("a", "b")
    assert reading.compute_digest(settings.to_plain(loaded)) == reading.compute_digest(settings.to_plain(original))
    assert settings.apply_flags(loaded, ["--config.task.labels=c"]).task.labels == ("c",)


@pytest.mark.parametrize("name", ["pretrain", "finetune", "gxlt", "mblm", "mmkd"])
def test_every_variant_of_every_config_survives_being_saved(name, tmp_path):
    module = settings._load_config_module(settings.pathlib.Path(f"configs/{name}.py"))
    for variant in module.VARIANTS:
        original = settings.read_config(f"configs/{name}.py:{variant}")
        (tmp_path / "config.json").write_text(json.dumps(settings.to_plain(original)))
        assert settings.read_config(str(tmp_path / "config.json")) == original, variant
        assert [stage.name for stage in settings.read_stages(original)] == list(original.stages)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such config"),
        ("{", "is not valid JSON"),
        ("[1]", "is not a config"),
        ('{"model_type": "bert"}', "not a config"),
    ],
)
def test_a_json_file_that_is_not_a_config_is_refused(tmp_path, text, message):
    if text:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=message):
        settings.read_config(str(tmp_path / "config.json"))


def test_a_config_saved_by_an_older_version_gets_new_keys_that_change_no_result(tmp_path):
    """A config without `mesh.dcn_data` can be run again, and its work directory resumes."""
    config = settings.read_config("configs/gxlt.py:paper")
    saved = settings.to_plain(config)
    del saved["mesh"]["dcn_data"]
    saved["mesh"]["fsdp"] = 4
    assert settings.list_differences(settings.to_plain(config), saved) == []
    (tmp_path / "config.json").write_text(json.dumps(saved))
    loaded = settings.read_config(str(tmp_path / "config.json"))
    assert (loaded.mesh.dcn_data, loaded.mesh.fsdp) == (-1, 4)
    del saved["optim"]["clip"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match=r"lacks config\.optim\.clip"):
        settings.read_config(str(tmp_path / "config.json"))


def test_a_stage_overrides_the_shared_blocks():
    c = make_config()
    one, two = settings.read_stage(c, "one"), settings.read_stage(c, "two")
    assert (one.optim.lr, one.start, one.name) == (1e-3, "encoder", "one")
    assert (two.optim.lr, two.start, two.name) == (5e-4, "one", "two")
    assert two.data == one.data, "what the stage does not change stays"
    assert c == make_config(), "the config itself is left alone"


def compute_digest(*flags: str) -> str:
    return reading.compute_digest(settings.to_plain(settings.apply_flags(make_config(), list(flags))))


def test_the_digest_ignores_the_mesh_and_logging():
    plain = compute_digest()
    for flag in ("mesh.data=4", "log.every=1"):
        assert compute_digest(f"--config.{flag}") == plain
    for flag in ("seed=1", "task.labels=b,a", "two.optim.lr=0.1"):
        assert compute_digest(f"--config.{flag}") != plain


def test_differences_are_named_by_key():
    changes = ["--config.mesh.data=4", "--config.seed=1", "--config.two.optim.clip=0", "--config.task.ordered=1"]
    other = settings.to_plain(settings.apply_flags(make_config(), changes))
    differences = settings.list_differences(settings.to_plain(make_config()), other)
    assert differences == ["one.optim.clip", "optim.clip", "seed", "task.ordered", "two.optim.clip"]
    assert settings.list_differences({"a": {"b": 1}}, {"a": {}, "c": 2}) == ["a.b", "c"]


def test_a_default_that_only_one_config_contains_is_no_difference():
    saved = settings.to_plain(settings.read_config("configs/gxlt.py"))
    older = json.loads(json.dumps(saved))
    older["method"]["variant"] = older["method"].pop("control")
    older["english"]["data"]["ntl"] = -1
    del older["optim"]["clip"]
    assert settings.list_differences(saved, older) == []


def test_a_packaged_config_is_found_from_another_folder(tmp_path, monkeypatch):
    expected = settings.read_config("configs/finetune.py")
    monkeypatch.chdir(tmp_path)
    assert settings.read_config("configs/finetune.py") == expected
    assert settings.read_config("finetune.py") == expected


def test_a_config_in_the_current_folder_precedes_the_packaged_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    own = "from xlkd.configs import base, finetune\ndef get_config(variant=''):\n    c = finetune.qa(base.base())\n"
    (tmp_path / "configs" / "finetune.py").write_text(f"{own}    c.data.train = variant\n    return c\n")
    assert settings.read_config("configs/finetune.py:x").data.train == "x"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("configs/finetune.py:sqad", "unknown variant 'sqad'; known: none, squad, classify"),
        ("configs/fintune.py", "configs/finetune.py"),
        ("/no/such/folder/finetune.py", "no such config"),  # not the packaged one of that name
        ("README.md", "no such config"),
        ("configs", "no such config"),
        ("configs/base.py", "has no function get_config"),
    ],
)
def test_a_missing_config_is_refused(name, message):
    with pytest.raises(UserError) as error:
        settings.read_config(name)
    assert message in str(error.value)


def test_reading_configs_needs_no_jax():
    code = "import sys\nfrom xlkd import settings\nsettings.read_config('configs/gxlt.py')\nprint('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_task_settings_come_from_flags_then_the_model_then_defaults():
    recorded = {"name": "qa", "max_length": 160, "doc_stride": 64}
    task = settings.read_task("qa", recorded, {"doc_stride": "32"})
    assert (task.max_length, task.doc_stride, task.max_query_length) == (160, 32, 64)
    assert settings.read_task("qa", {"name": "masked", "max_length": 7}, {}).max_length == 384, (
        "another task's are not taken"
    )
    with pytest.raises(UserError, match="does not belong to the task classify"):
        settings.read_task("classify", {}, {"doc_stride": "32"})


def test_a_config_without_a_block_has_its_keys_with_their_defaults():
    config = settings.to_plain(settings.read_config("configs/gxlt.py"))
    complete = reading.list_stage_keys(config, "english")
    keys = reading.list_stage_keys({name: value for name, value in config.items() if name != "save"}, "english")
    assert keys.keys() == complete.keys()
    assert keys["save.every"].value == 200


def test_a_new_encoder_without_settings_has_their_defaults():
    config = settings.to_plain(settings.read_config("configs/pretrain.py"))
    encoder = {name: value for name, value in config["encoder"].items() if name != "new"}
    keys = reading.list_stage_keys(config | {"encoder": encoder}, config["stages"][0])
    assert keys.keys() == reading.list_stage_keys(config, config["stages"][0]).keys()
    assert keys["encoder.new.model_type"].value == "xlm-roberta"


def test_the_digest_of_a_config_does_not_depend_on_the_order_of_its_keys():
    config = settings.to_plain(settings.read_config("configs/gxlt.py"))
    reordered = {name: dict(reversed(v.items())) if isinstance(v, dict) else v for name, v in reversed(config.items())}
    assert list(reordered) != list(config)
    assert reading.compute_digest(reordered) == reading.compute_digest(config)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10**400])
def test_a_number_that_is_not_finite_is_refused(value):
    with pytest.raises(UserError, match=r"weight_decay"):
        spec.read_block(Optim, {"weight_decay": value}, "optim")
