# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The memory that a process may use."""

import pytest

from xlkd import cli


@pytest.mark.parametrize("file", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_container_may_have_less_memory_than_its_machine(tmp_path, file):
    machine = cli.available_memory_bytes(str(tmp_path))
    limit = tmp_path / file
    limit.parent.mkdir(exist_ok=True)
    for text, memory in (("max\n", machine), (f"{2**62}\n", machine), ("4096\n", 4096)):
        limit.write_text(text)
        assert cli.available_memory_bytes(str(tmp_path)) == memory
