# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs a command on a machine that can be taken away: python3 launch/supervise.py [--upload=SHELL] [--again] COMMAND…

  --upload=SHELL   a bash command that uploads the results, run every minute and whenever COMMAND has ended
  --again          start COMMAND again after exit code 75 or a death by a signal, unless we got a signal ourselves
  --every=N        seconds between two uploads (default 60)
  --pause=N        seconds before COMMAND is started again, and before a failed upload is tried again (default 5)

A signal to us is passed on, once. Uploads never overlap, and the last one starts after COMMAND has ended. Ends with
COMMAND's exit code. Standard library only, Python 3.6 or later.
"""

import argparse
import subprocess
import sys
import time

import member

TRIES = 3  # of an upload after COMMAND has ended


def main(arguments):
    options = parse_arguments(arguments)
    signals = member.Signals()
    while True:
        code = run_once(options, signals)
        log_line(f"ended with {code}")
        for attempt in range(TRIES if options.upload else 0):
            if attempt:
                time.sleep(options.pause)
            if upload_results(options):
                break
        if not options.again or not (code == 75 or code > 128):
            return code
        if not signals.received:
            time.sleep(options.pause)
        if signals.received:  # during the pause
            return code
        log_line("started again")


def run_once(options, signals):
    """Runs the command once, and uploads meanwhile. Returns its exit code as a shell would."""
    process = member.start_process(options.command)
    signals.pass_to([process])
    while True:
        try:
            code = process.wait(timeout=options.every)
        except subprocess.TimeoutExpired:
            if options.upload:
                upload_results(options)
        else:
            signals.hold_back()
            return code if code >= 0 else 128 - code


def upload_results(options):
    """Uploads once, and prints the output of an upload that failed. Returns whether it succeeded."""
    process = member.start_process(["bash", "-c", options.upload], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = process.communicate()[0].decode(errors="replace")
    if process.returncode:
        log_line(f"upload failed (exit {process.returncode}): {options.upload}\n{output}")
    return process.returncode == 0


def log_line(line):
    print(time.strftime("%Y-%m-%dT%H:%M:%S"), line, flush=True)


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upload", default="")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--every", type=float, default=60)
    parser.add_argument("--pause", type=float, default=5)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    if not options.command:
        parser.error("no command; give one, for example launch/member.sh python3 -m xlkd.main …")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
