# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Print the lowest release that setup.cfg allows of each requirement, as constraints for pip.

    python tests/lowest_versions.py setup.cfg > lowest.txt && pip install --constraint lowest.txt --editable '.[dev]'

A requirement without a lower bound is an error: the versions it works with are then unknown.
"""

import configparser
import re
import sys

REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)(?:\[[^]]*\])?\s*(?:>=|==)\s*(?P<version>[0-9][0-9A-Za-z.]*)")
UNBOUNDED = {"jax[tpu]", "jax[cuda13]", "jax[cuda12]"}  # bounded above, by jax itself


def list_lowest_versions(path: str) -> list[str]:
    """Returns `name==version` for each requirement of the package and its extras."""
    settings = configparser.ConfigParser()
    with open(path, encoding="utf-8") as file:
        settings.read_file(file)
    listed = [settings["options"]["install_requires"], *settings["options.extras_require"].values()]
    requirements = [
        line.strip() for lines in listed for line in lines.splitlines() if line.strip()[:1] not in ("", "#")
    ]
    pinned = []
    for requirement in requirements:
        bound = REQUIREMENT.match(requirement)
        if bound:
            pinned.append(f"{bound['name']}=={bound['version']}")
        elif requirement not in UNBOUNDED:
            sys.exit(f"error: {path}: {requirement} has no lower bound; write {requirement}>=VERSION")
    return pinned


if __name__ == "__main__":
    print("\n".join(list_lowest_versions(sys.argv[1])))
