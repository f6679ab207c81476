#!/usr/bin/env bash
# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Runs one process of a run with several processes: launch/member.sh COMMAND…
#
# Passes output and signals on, and turns the stack trace with which JAX ends a process whose peer died (exit 134) into
# one line and exit code 75. See member.py, which the command's own Python runs, or python3.

set -u
python=python3
case ${1:-} in python* | */python*) python=$1 ;; esac
command -v "$python" >/dev/null || { echo "error: launch/member.sh: $python was not found; name a Python" >&2; exit 2; }
exec "$python" "$(dirname "$0")/member.py" "$@"
