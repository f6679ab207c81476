# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs a command as several processes over loopback: python3 launch/local_pod.py PROCESSES COMMAND…

local_pod.sh checks its flags and starts this. Standard library only, Python 3.6 or later.
"""

import collections
import random
import socket
import sys

import member

PORTS = range(
    20000, 32000
)  # below the range from which systems choose the ports of connections, so that none of them takes ours
SECONDS_TO_FOLLOW = 50  # processes notice within half a minute that another one ended
SHOWN_LINES = 30  # of a process that failed


def main(processes, command):
    port = find_free_port()
    place = [f"--coordinator=127.0.0.1:{port}", f"--processes={processes}"]
    signals = member.Signals()
    members, tails = [], []
    for i in range(processes):
        tail = collections.deque(maxlen=SHOWN_LINES)
        sinks = (tail.append, tail.append) if i else (member.Sink(1), member.Sink(2))
        members.append(member.Member([*command, *place, f"--process={i}"], *sinks))
        tails.append(tail)
    signals.pass_to([each.process for each in members])
    member.wait_for_members(members, SECONDS_TO_FOLLOW)
    report_failures(members, tails)
    return combine_codes([each.code for each in members])


def find_free_port():
    """Returns a port that is free at the moment."""
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as attempt:
            try:
                attempt.bind(("", port))
            except OSError:
                continue
            return port
    print("error: launch/local_pod.sh: no port is free on this machine; end programs that listen", file=sys.stderr)
    sys.exit(2)


def report_failures(members, tails):
    """Prints which processes were killed, and the last lines of those that failed."""
    for i, tail in enumerate(tails):
        code = members[i].code
        if code > 128:
            print(f"stopped: process {i} of {len(members)} was killed (signal {code - 128})", file=sys.stderr)
        if code:
            for line in tail:
                print(f"process {i}: " + line.decode(errors="replace").rstrip("\n"), file=sys.stderr)


def combine_codes(codes):
    """Returns one exit code for all processes: 1, 2 or 3 where a process ended with it, else 75 or 0."""
    failures = [code for code in codes if code]
    return next((code for code in failures if code in (1, 2, 3)), 75 if failures else 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
