# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""One command for everything: `xlkd train` and its siblings, in the three forms in which they can be typed."""

import configparser
import importlib
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from xlkd import __main__ as front
from xlkd import cli, settings
from xlkd.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
SECONDS = 1.0  # of a processor, in which help appears
HEAVY = ("jax", "transformers", "torch", "numpy", "huggingface_hub")
SCRIPT = "import sys; from {module} import {function}; sys.exit({function}())\n"


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """Returns the script that an installer writes for the entry point in setup.cfg."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    name, _, target = setup["options.entry_points"]["console_scripts"].strip().partition(" = ")
    module, _, function = target.partition(":")
    path = tmp_path_factory.mktemp("bin") / name
    path.write_text(SCRIPT.format(module=module, function=function))
    return path


def run_form(form, *arguments, script=None):
    """Runs a command in a form: `script` is `xlkd NAME`, `package` `python -m xlkd NAME`, else `python -m xlkd.NAME`."""
    name, *flags = arguments
    words = {
        "script": [str(script), name, *flags],
        "package": ["-m", "xlkd", name, *flags],
        "module": ["-m", f"xlkd.{cli.COMMANDS.get(name, name)}", *flags],
    }[form]
    environment = {"PATH": "/usr/bin", "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=60, env=environment)


FORMS = {"script": "xlkd train", "package": "python -m xlkd train", "module": "python -m xlkd.main"}


@pytest.mark.parametrize("form", FORMS)
def test_help_and_messages_name_commands_as_they_were_typed(form, script):
    shown = run_form(form, "train", "--help", script=script)
    assert shown.returncode == 0
    assert shown.stdout.startswith(f"Trains a model: `{FORMS[form]} --config=")
    names = set(re.findall(r"\b(?:python -m )?xlkd[. ](?:train|main)\b", shown.stdout))
    assert names == {FORMS[form]}
    refused = run_form(form, "train", script=script)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "error: command line: no --config given" in refused.stderr


def test_messages_are_translated_into_the_typed_form(monkeypatch):
    message = "empty the cache: python -m xlkd.caches --delete_all"
    for program, expected in {
        "/usr/bin/xlkd": "empty the cache: xlkd caches --delete_all",
        "/lib/xlkd/__main__.py": "empty the cache: python -m xlkd caches --delete_all",
        "/lib/xlkd/report.py": message,
        "/lib/pytest/__main__.py": message,
    }.items():
        monkeypatch.setattr(sys, "argv", [program, "report"])
        assert cli.name_as_typed(message) == expected


def test_an_error_line_names_commands_as_they_were_typed(monkeypatch, capsys):
    def fail(arguments):
        raise UserError("stale", "cache", "empty the cache: python -m xlkd.caches --delete_all")

    monkeypatch.setattr(sys, "argv", ["/usr/bin/xlkd", "train"])
    assert cli.run(fail, []) == 2
    assert capsys.readouterr().err == "error: cache: stale; empty the cache: xlkd caches --delete_all\n"


def test_the_front_door_lists_every_command():
    listed = re.findall(r"^  (\w+)  +\w", front.__doc__, re.M)
    assert listed == list(cli.COMMANDS)
    assert all(callable(importlib.import_module(f"xlkd.{module}").main) for module in cli.COMMANDS.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["repor"], "no command 'repor'; did you mean 'report'?"),
        (["--config=x"], "no command '--config=x'; one of train, evaluate,"),
        ([], "no command given; one of train, evaluate,"),
    ],
)
def test_an_unknown_command_is_one_line_with_the_nearest(script, arguments, message):
    refused = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert refused.stderr.startswith(f"error: command line: {message}")


PROGRAM = """
import sys
sys.argv = ["xlkd", *sys.argv[1:]]
from xlkd.__main__ import start
code = start()
print(*(name for name in {heavy!r} if name in sys.modules), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize("name", ["", *cli.COMMANDS])
def test_help_appears_at_once_and_imports_nothing_heavy(name):
    arguments = [sys.executable, "-c", PROGRAM.format(heavy=HEAVY), *filter(None, [name]), "--help"]
    before = sum(os.times()[2:4])
    shown = subprocess.run(arguments, capture_output=True, text=True)
    assert (shown.returncode, shown.stderr.split()) == (0, [])
    assert sum(os.times()[2:4]) - before < SECONDS, "of a processor: other work on the machine does not count"


def test_the_wheel_has_every_folder_of_the_package():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    folders = {str(file.parent.relative_to(ROOT)) for file in (ROOT / "xlkd").rglob("__init__.py")}
    packages = {name for name in setup["options"]["packages"].split() if not name.startswith("xlkd.configs")}
    assert packages == {folder.replace("/", ".") for folder in folders if not folder.startswith("xlkd/configs")}


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_help_has_examples_with_flags_and_configs_that_exist(name):
    text = importlib.import_module(f"xlkd.{cli.COMMANDS[name]}").__doc__
    explained, _, examples = text.partition("\nExamples:\n")
    lines = re.findall(r"^  python -m xlkd\.(\w+)(.*)$", examples, re.M)
    assert lines
    for module, rest in lines:
        flags = [word for word in shlex.split(rest) if word.startswith("--")]
        assert module == cli.COMMANDS[name]
        known = set(re.findall(r"--([a-z_]+)", explained))
        assert {flag.removeprefix("--").partition("=")[0].partition(".")[0] for flag in flags} <= known | {"config"}
        for config in (flag.partition("=")[2] for flag in flags if flag.startswith("--config=")):
            overrides = [flag for flag in flags if flag.startswith("--config.")]
            assert settings.read_stages(settings.apply_flags(settings.read_config(config), overrides))
