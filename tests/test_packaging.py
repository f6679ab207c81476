# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What is installed is complete."""

import configparser
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_every_package_is_installed():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    installed = set(config["options"]["packages"].split())
    packages = {".".join(file.parent.relative_to(ROOT).parts) for file in (ROOT / "xlkd").rglob("__init__.py")}
    assert len(packages) > 10
    assert packages <= installed
