# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sources as values of configs: dicts and lists are read as the strings that mean the same, and refusals name keys."""

import copy
import json
import shlex

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xlkd import check, main, settings
from xlkd.data import sources
from xlkd.errors import UserError
from xlkd.spec import SourceText, reading, to_plain
from xlkd.spec.source import Source, parse, write_value
from xlkd.train.run import run

SQUAD = {"data": [{"paragraphs": [{"context": "Anna wrote.", "qas": [
    {"id": str(i), "question": f"Who wrote {i}?", "answers": [{"text": "Anna", "answer_start": 0}]} for i in range(3)
]}]}]}  # fmt: skip


def write_config(folder, *lines: str) -> str:
    """Writes a config file for question answering with these lines, and returns its name."""
    file = folder / "own.py"
    body = "\n    ".join(("c = finetune.qa(base.base())", "c.encoder.path = 'package:multilingual'", *lines))
    file.write_text(f"from xlkd.configs import base, finetune\ndef get_config(variant):\n    {body}\n    return c\n")
    return str(file)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("xquad:DIR?languages=en&limit=3", "xquad:DIR?languages=en&limit=3"),
        ({"source": "atlas"}, "atlas"),
        ({"source": "xquad", "path": "DIR", "languages": ["en", "de"]}, "xquad:DIR?languages=en,de"),
        ({"source": "mlqa", "path": "DIR", "split": "test", "limit": 5}, "mlqa:DIR?limit=5&split=test"),
        ({"source": "tsv", "path": "t.tsv", "source_": 0, "target": 1}, "tsv:t.tsv?source=0&target=1"),
        ([{"source": "squad", "path": "a"}, "atlas?size=3"], "squad:a+atlas?size=3"),
        ({"source": "squad", "path": "ä b+c=d#.json"}, "squad:ä b+c=d#.json"),
        ({"source": "squad", "path": "50%.json"}, "squad:50%.json"),
        ({"source": "squad", "path": "a?limit=1.json"}, "squad%:a%3Flimit=1.json"),
        ({"source": "tsv", "path": "t.tsv", "text": "Q&A", "id": "1+1?"}, "tsv%:t.tsv?id=1%2B1%3F&text=Q%26A"),
        ([], ""),
    ],
)
def test_a_value_is_read_as_the_string_that_means_the_same(value, text):
    assert write_value(value, "config.data.train") == text


@given(
    st.lists(
        st.builds(
            Source,
            st.sampled_from(["squad", "tsv", "atlas"]),
            st.text(st.sampled_from("aZ0é:+?&=%,#/. '\"~-") | st.characters(codec="utf-8", exclude_categories=["C"]), max_size=12)
            .filter(lambda path: not path.startswith("~")),
            st.dictionaries(st.sampled_from(["limit", "text", "languages"]), st.text("aé+?&=%,#: squad", max_size=12))
            .map(lambda options: tuple(sorted(options.items()))),
        ),
        min_size=1,
        max_size=3,
    )
)  # fmt: skip
@example([Source("squad", "a+"), Source("squad", "+tsv:b")])
def test_every_path_and_value_survives_being_written(parts):
    values = [{"source": part.name, "path": part.path, **dict(part.options)} for part in parts]
    text = write_value(values, "config.data.train")
    assert parse(text) == parts
    assert "+".join(map(str, parse(text))) == text


def test_percent_signs_of_an_ordinary_string_are_characters_of_the_path():
    assert parse("squad:c%2B%2B.json?languages=en")[0].path == "c%2B%2B.json"
    with pytest.raises(UserError, match="not percent-encoded UTF-8"):
        parse("squad%:%FF")


WRONG = {
    "no source": ({"path": "x"}, "config.data.eval: names no source"),
    "a misspelt source key": ({"sorce": "squad"}, "did you mean 'source' in place of 'sorce'?"),
    "a misspelt name": ({"source": "sqad"}, "config.data.eval.source: unknown source 'sqad'; did you mean 'squad'?"),
    "a name that is no text": ({"source": 3}, "config.data.eval.source: 3 is not of type str"),
    "a path that is no text": ({"source": "squad", "path": 3}, "config.data.eval.path: 3 is not of type str"),
    "an option without text": (
        {"source": "squad", "path": "x", "languages": {"a": 1}},
        "config.data.eval.languages: {'a': 1} is not of type str, int, float, bool or a list of these",
    ),
    "an item without text": (
        ["atlas", {"source": "squad", "languages": ["en", None]}],
        "config.data.eval[1].languages[1]: None is not of type",
    ),
    "a comma": ({"source": "tsv", "languages": ["en,de"]}, "config.data.eval.languages: 'en,de' in a list contains a"),
    "a name of an option": ({"source": "squad", "a-b": 1}, "config.data.eval: 'a-b' cannot be the name of an option"),
    "a number": (3, "config.data.eval: 3 is not of type source"),
    "a number in a list": (["atlas", 3], "config.data.eval[1]: 3 is not of type source"),
    "two sources in one item": (["atlas+squad:x"], "config.data.eval[0]: names 2 sources"),
    "a misspelt string in a list": (["atlas", "sqad:x"], "config.data.eval[1]: unknown source 'sqad'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_refused_by_the_key_of_the_config(name, tmp_path):
    value, message = WRONG[name]
    with pytest.raises(UserError) as error:
        settings.read_stages(settings.read_config(write_config(tmp_path, f"c.data.eval = {value!r}")))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            ["atlas?split=test", {"source": "xquad", "path": "x", "langages": "en"}],
            "config.data.train[1].langages: unknown option 'langages'; did you mean 'languages'?; in a shell quote it: "
            "--config.data.train='atlas?split=test+xquad:x?langages=en'",
        ),
        ({"source": "squad", "pth": "x"}, "config.data.train.pth: unknown option 'pth'; did you mean 'path'?"),
        ("squad:it's?limt=3", """--config.data.train='squad:it'"'"'s?limt=3'"""),
        ("sqad:x", "did you mean 'squad'?; in a shell quote it: --config.data.train='sqad:x'"),
    ],
)
def test_a_source_with_a_fault_is_refused_before_a_work_directory_is_made(value, message, tmp_path):
    config = settings.read_config(write_config(tmp_path, f"c.data.train = {value!r}"))
    with pytest.raises(UserError) as error:
        run(config, str(tmp_path / "run"), [])
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


def test_the_flag_of_a_stage_is_the_one_to_quote(tmp_path):
    lines = ("c.stages = ('one',)", "c.one = dict(data=dict(train=dict(source='squad', path='x', limt=1)))")
    config = settings.read_config(write_config(tmp_path, *lines))
    with pytest.raises(
        UserError, match=r"^config\.one\.data\.train\.limt: .*--config\.one\.data\.train='squad:x\?limt=1'"
    ):
        run(config, str(tmp_path / "run"), [])


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("squad:{}?limit=few", "limit=few is not a whole number"),
        ("squad:{}?languages=qqq", "unknown language 'qqq'"),
        ("squad:{}?limit=1&limit=2", "two options 'limit'"),
        ("squad:{}?split=test", "unknown option 'split'"),
        ("squad:{}.none", "no such file"),
        ("atlas?split=none", "split=none is not possible"),
        ("squad:{0}+xnli:{0}", "the sources have no task in common"),
        ("tmx:{}?languages=en", "no language pair given"),
    ],
)
def test_a_refusal_of_a_source_string_says_how_to_quote_it(text, refusal, tmp_path, capsys):
    (tmp_path / "a b.json").write_text(json.dumps(SQUAD))
    text = text.format(tmp_path / "a b.json")
    try:
        check.main([f"--data={text}", *(["--task=qa"] if "atlas" in text else [])])
        message = capsys.readouterr().err
    except UserError as error:
        message = str(error)
    assert refusal in message
    assert message.rstrip().endswith(f"in a shell quote it: --data={shlex.quote(text)}")


def test_a_fault_of_a_file_says_nothing_of_quoting(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError) as error:
        sources.read(f"squad:{tmp_path / 'x.json'}?limit=1", "qa")
    assert "in a shell" not in str(error.value)


def test_a_config_reads_files_whose_names_no_plain_string_could_contain(tmp_path):
    for name in ("a?limit=1", "b+squad:c&d=e", "f%41 ü#="):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(SQUAD))
        value = {"source": "squad", "path": str(tmp_path / name), "languages": ["en"], "limit": 2}
        (stage,) = settings.read_stages(settings.read_config(write_config(tmp_path, f"c.data.train = {value!r}")))
        assert [row.id for row in sources.read(stage.data.train, "qa")] == ["0", "1"]


def test_dicts_and_strings_are_the_same_config(tmp_path):
    lines = (
        "block = type(c)(dict(source='squad', path='t.json', languages=('sw',), limit=3))",
        "c.data.train = [block, 'squad:u.json']",
        "c.data.eval = dict(source='atlas', split='test')",
    )
    dicts = settings.to_plain(settings.read_config(write_config(tmp_path, *lines)))
    text = "c.data.train, c.data.eval = 'squad:t.json?languages=sw&limit=3+squad:u.json', 'atlas?split=test'"
    strings = settings.to_plain(settings.read_config(write_config(tmp_path, text)))
    assert dicts == strings
    (tmp_path / "config.json").write_text(
        json.dumps(strings | {"data": strings["data"] | {"eval": {"source": "atlas", "split": "test"}}})
    )
    saved = settings.read_config(str(tmp_path / "config.json"))  # as somebody may edit it
    assert reading.compute_digest(settings.to_plain(saved)) == reading.compute_digest(strings)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ([], "xquad:DIR?languages=en,de"),
        (["--config.data.train=squad:x"], "squad:x"),
        (["--config.data.train.limit=100"], "xquad:DIR?languages=en,de&limit=100"),
        (["--config.data.train.languages=sw", "--config.data.train.path=a?limit=1"], "xquad%:a%3Flimit=1?languages=sw"),
        (["--config.data.train=squad:x?limit=1", "--config.data.train.limit=2"], "squad:x?limit=2"),
        (["--config.finetune.data.train.limit=7"], "xquad:DIR?languages=en,de&limit=7"),
    ],
)
def test_the_command_line_replaces_a_source_or_one_option_of_it(flags, text, tmp_path, capsys):
    name = write_config(tmp_path, "c.data.train = dict(source='xquad', path='DIR', languages=['en', 'de'])")
    main.main([f"--config={name}", "--keys", *flags])
    key = "config.finetune.data.train" if "finetune" in "".join(flags) else "config.data.train"
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{key} ")]
    assert line.split()[1:3] == ["source", text]


def test_an_option_of_several_sources_or_of_none_is_refused(tmp_path):
    config = settings.read_config(write_config(tmp_path, "c.data.train = ['atlas', 'squad:x']"))
    with pytest.raises(
        UserError, match=r"config\.data\.train: names 2 sources; .*--config\.data\.train='atlas\+squad:x'"
    ):
        settings.apply_flags(config, ["--config.data.train.limit=1"])
    with pytest.raises(UserError, match=r"unknown source ''.*--config\.data\.dev=''"):
        settings.apply_flags(config, ["--config.data.dev.limit=1"])


def test_a_tokenizer_and_links_of_words_take_values_too(tmp_path):
    lines = (
        "c = pretrain.get_config('')",
        "c.encoder.new.texts = dict(source='atlas', kind='same', size=40)",
        "c.data.dev = [dict(source='atlas', split='validation', kind='mixed')]",
    )
    config = settings.read_config(write_config(tmp_path, "from xlkd.configs import pretrain", *lines))
    (stage,) = settings.read_stages(config)
    assert (stage.encoder.new.texts, stage.encoder.new.texts.place) == (
        "atlas?kind=same&size=40",
        "config.encoder.new.texts",
    )
    assert len(sources.read(stage.encoder.new.texts, "masked")) == 40
    lines = (
        "from xlkd.configs import mmkd",
        "c = mmkd.get_config('own')",
        "c.data.alignment = dict(source='align', path='x')",
    )
    (stage, *_) = settings.read_stages(settings.read_config(write_config(tmp_path, *lines)))
    assert stage.data.alignment == "align:x"


def test_a_source_of_settings_is_an_ordinary_string_that_knows_its_key():
    text = SourceText("atlas?size=3", "config.data.train")
    copied = copy.deepcopy(text)
    assert (copied, copied.place) == (text, text.place)
    stage = settings.read_stage(settings.read_config("configs/finetune.py"), "finetune")
    assert stage.data.eval.place == "config.data.eval"
    assert json.loads(json.dumps(to_plain(stage)))["data"]["eval"] == stage.data.eval
