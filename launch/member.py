# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs one process of a run with several processes: python3 launch/member.py COMMAND…

Passes on its output line by line and each signal once. Turns the stack trace with which JAX ends a process whose peer
died (exit 134) into one line and exit code 75. Everything else is passed on unchanged.

Standard library only, Python 3.6 or later, so that the system's own Python can run it.
"""

import collections
import contextlib
import ctypes
import os
import re
import selectors
import signal
import socket
import subprocess
import sys

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
READ = 65536  # bytes at a time, and what a pipe holds
PIPE_READS = 16  # 1 MiB: the largest pipe that a process may ask for
NOISE = re.compile(rb"\[Gloo\]|[EWIF]\d{4} .*\] |\*\*\* Check failure|    @ +0x|RPC: |Additional GRPC error|:UNKNOWN:")
PEER_DIED = re.compile(rb"distributed service|coordination", re.IGNORECASE)
PEER_DIED_LINE = b"stopped: another process of this run ended; the same command resumes from its last save\n"
PR_SET_PDEATHSIG = 1  # Linux: the signal that a process gets when its parent dies


class Sink:
    """Writes lines to a file descriptor until its reader is gone."""

    def __init__(self, descriptor):
        self.descriptor, self.open = descriptor, True

    def __call__(self, line):
        try:
            while self.open and line:
                line = line[os.write(self.descriptor, line) :]
        except BrokenPipeError:
            self.open = False


class Member:
    """A running command; `code` is its exit code once it has ended, above 128 for signals as in shells."""

    def __init__(self, command, write_out, write_error):
        self.code = None
        self._hidden = collections.deque(maxlen=10000)
        self._write_error = write_error
        self.process = start_process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._rest = {self.process.stdout: b"", self.process.stderr: b""}
        self._writers = {self.process.stdout: write_out, self.process.stderr: write_error}
        for pipe in self._rest:
            os.set_blocking(pipe.fileno(), False)

    @property
    def pipes(self):
        return list(self._rest)

    def pass_on(self, pipe):
        """Passes on the complete lines in a pipe. Returns False at its end, and None where it is empty."""
        try:
            text = os.read(pipe.fileno(), READ)
        except BlockingIOError:
            return None
        lines = (self._rest[pipe] + text).split(b"\n")
        self._rest[pipe] = lines.pop()
        for line in lines:
            self._pass_on_line(pipe, line + b"\n")
        return bool(text)

    def has_ended(self):
        """Tells whether the process has ended. Its output has then been passed on, even if its pipes are still open."""
        if self.code is None and self.process.poll() is not None:
            for pipe in self.pipes:
                for _ in range(PIPE_READS):
                    if not self.pass_on(pipe):
                        break
                rest, self._rest[pipe] = self._rest[pipe], b""
                self._pass_on_line(pipe, rest)
            self.code = self._translate_code(self.process.returncode)
        return self.code is not None

    def _pass_on_line(self, pipe, line):
        if NOISE.match(line):
            self._hidden.append(line)
        elif line:
            self._writers[pipe](line)

    def _translate_code(self, code):
        code = code if code >= 0 else 128 - code
        if code == 128 + signal.SIGABRT and any(PEER_DIED.search(line) for line in self._hidden):
            self._write_error(PEER_DIED_LINE)
            return 75
        if code not in (0, 2, 3, 75):
            for line in self._hidden:
                self._write_error(line)
        return code


def start_process(command, **pipes):
    """Starts a command in its own process group, so that we pass Ctrl-C on to it once; on Linux it dies with us."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None

    def prepare():
        os.setpgid(0, 0)
        if library:
            library.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    try:
        return subprocess.Popen(command, preexec_fn=prepare, **pipes)
    except OSError as error:
        print(f"error: {command[0]} cannot be started: {error.strerror}; name a program that exists", file=sys.stderr)
        sys.exit(2)


class Signals:
    """Passes each signal on to the processes exactly once; signals between two processes wait for the next one.

    A signal that is ignored stays ignored, as `nohup` and background jobs of shells need it.
    """

    def __init__(self, numbers=PASSED_ON):
        self.received, self._waiting, self._processes = [], [], None
        for number in numbers:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._receive)

    def hold_back(self):
        """Keeps the signals that arrive from now on."""
        self._processes = None

    def pass_to(self, processes):
        """Sends the kept signals to these processes, and from now on all that arrive."""
        self._processes = processes
        while self._waiting:
            self._send(self._waiting.pop(0))

    def _receive(self, number, _):
        self.received.append(number)
        if self._processes is None:
            self._waiting.append(number)
        else:
            self._send(number)

    def _send(self, number):
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)


def wait_for_members(members, seconds_to_follow=None):
    """Passes output on until all have ended; after a failure the others are killed after `seconds_to_follow`."""
    with selectors.DefaultSelector() as selector:
        wake_on_exit(selector)
        for member in members:
            for pipe in member.pipes:
                selector.register(pipe, selectors.EVENT_READ, member)
        signal.signal(signal.SIGALRM, lambda *_: kill_members(members))
        alarm_is_set = False
        while not all([member.has_ended() for member in members]):
            if seconds_to_follow and not alarm_is_set and any(member.code for member in members):
                signal.alarm(seconds_to_follow)
                alarm_is_set = True
            for key, _ in selector.select():
                if key.data is None:
                    key.fileobj.recv(READ)
                elif key.data.pass_on(key.fileobj) is False:
                    selector.unregister(key.fileobj)
        signal.alarm(0)


def kill_members(members):
    for member in members:
        if member.process.poll() is None:
            member.process.kill()


def wake_on_exit(selector):
    """Lets a selector return when a child ends, which its pipes do not show while another process has them open."""
    receiver, sender = socket.socketpair()
    receiver.setblocking(False)
    sender.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(sender.fileno())
    wake_on_exit.sender = sender  # kept alive: the interpreter has only its number
    selector.register(receiver, selectors.EVENT_READ, None)


def main(command):
    if not command:
        print("error: launch/member.sh: no command; give one, for example python3 -m xlkd.main …", file=sys.stderr)
        return 2
    signals = Signals()
    member = Member(command, Sink(1), Sink(2))
    signals.pass_to([member.process])
    wait_for_members([member])
    return member.code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
