#!/usr/bin/env bash
# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
#
# One process of a run on several: launch/member.sh COMMAND…
#
# Passes SIGTERM and SIGINT on, and turns the stack trace with which JAX ends a process whose peer died (exit 134)
# into one line and exit 75: start me again. Everything else goes through as it is.

set -u
[ $# -gt 0 ] || { echo "error: launch/member.sh: no command; give one, for example python -m xlkd.main …" >&2; exit 2; }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkfifo "$folder/out" "$folder/err"
: >"$folder/hidden"

quiet='/^\[Gloo\]/ { next }
/^[EWIF][0-9][0-9][0-9][0-9] .*\] |^\*\*\* Check failure|^    @ +0x|^RPC: \/|^Additional GRPC error|^:UNKNOWN:/ { print > hidden; fflush(hidden); next }
{ print; fflush() }'
awk -v hidden="$folder/hidden" "$quiet" <"$folder/out" &
awk -v hidden="$folder/hidden" "$quiet" <"$folder/err" >&2 &

set -m # else the shell would have its child ignore SIGINT
"$@" >"$folder/out" 2>"$folder/err" &
child=$!
set +m
trap 'kill -TERM $child 2>/dev/null' TERM
trap 'kill -INT $child 2>/dev/null' INT

wait $child
code=$?
while kill -0 $child 2>/dev/null; do # a signal ended the waiting, not the child
  wait $child
  code=$?
done
wait

if [ $code -eq 134 ] && grep -q -i 'distributed service\|coordination' "$folder/hidden"; then
  echo "stopped: another process of this run ended; the same command goes on from its last save" >&2
  exit 75
fi
[ $code -eq 0 ] || cat "$folder/hidden" >&2
exit $code
