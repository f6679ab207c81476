#!/usr/bin/env bash
# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
#
# One process of a run on several: launch/member.sh COMMAND…
#
# Passes output and signals on, and turns the stack trace with which JAX ends a process whose peer died (exit 134) into
# one line and exit 75: start me again. See member.py; the command's own Python runs it, or python3.

set -u
python=python3
case ${1:-} in python* | */python*) python=$1 ;; esac
command -v "$python" >/dev/null || { echo "error: launch/member.sh: $python is not there; name a Python" >&2; exit 2; }
exec "$python" "$(dirname "$0")/member.py" "$@"
