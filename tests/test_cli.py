# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Commands with unusual standard streams, and the memory that a process may use."""

import json
import os
import subprocess
import sys

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


COMMAND = """
import json, sys
from xlkd import cli

def main(arguments):
    cli.print_lines([json.dumps("é安🍎\\ud800", ensure_ascii=False)] * int(arguments[0]))
    print("fault 安", file=sys.stderr)
    return 2

sys.exit(cli.run(main))
"""
FAILURES = {
    ">&-": "error: standard output is closed",
    ">/dev/full": "error: standard output: cannot be written: No space left on device",
}


def run_command(lines: int, redirections: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs a small command that prints some lines and a fault, and returns 2."""
    shell = ["bash", "-c", f'"$0" "$@" {redirections}', sys.executable, "-c", COMMAND, str(lines)]
    done = subprocess.run(shell, env=os.environ | environment, capture_output=True)
    assert b"Traceback" not in done.stderr
    assert b"ignored" not in done.stderr
    return done


FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")


@pytest.mark.parametrize(("lines", "buffered"), [(1, ""), (10_000, "1")])
@pytest.mark.parametrize("redirection", [">&-", pytest.param(">/dev/full", marks=FULL)])
def test_a_standard_output_that_cannot_be_written_is_one_line(redirection, lines, buffered):
    done = run_command(lines, redirection, PYTHONUNBUFFERED=buffered)
    assert done.returncode == 2
    assert done.stderr.decode().splitlines()[-1].startswith(FAILURES[redirection])
    assert run_command(lines, f"{redirection} 2>&-").returncode == 2


@pytest.mark.parametrize("redirection", ["2>&-", pytest.param("2>/dev/full", marks=FULL), "2> >(true)", "0<&-"])
def test_other_streams_do_not_change_what_is_printed(redirection):
    done = run_command(1, redirection)
    assert (done.returncode, json.loads(done.stdout)) == (2, "é安🍎\ud800")


@pytest.mark.parametrize("lines", [1, 10_000])
def test_a_reader_that_ends_does_not_change_the_exit_code(lines):
    done = run_command(lines, "| true; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr.decode().strip()) == (2, "fault 安")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "ascii:strict"])
def test_characters_that_a_terminal_lacks_are_escapes_of_json(encoding):
    done = run_command(1, "", PYTHONIOENCODING=encoding)
    assert json.loads(done.stdout.decode(encoding.partition(":")[0])) == "é安🍎\ud800"
