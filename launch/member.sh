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

noise='^\[Gloo\]|^[EWIF][0-9]{4} .*\] |^\*\*\* Check failure|^    @ +0x|^RPC: /|^Additional GRPC error|^:UNKNOWN:'
pass_on() { # line by line, at once; what JAX's C++ says is kept aside
  trap '' TERM INT
  local line
  while IFS= read -r line || [ -n "$line" ]; do
    if [[ $line =~ $noise ]]; then
      printf '%s\n' "$line" >>"$folder/hidden"
    else
      printf '%s\n' "$line"
    fi
  done
}
pass_on <"$folder/out" &
pass_on <"$folder/err" >&2 &

child='' told=''
trap 'told=TERM; [ -z "$child" ] || kill -TERM $child 2>/dev/null' TERM
trap 'told=INT; [ -z "$child" ] || kill -INT $child 2>/dev/null' INT
set -m # else the shell would have its child ignore SIGINT
"$@" >"$folder/out" 2>"$folder/err" &
child=$!
set +m
[ -z "$told" ] || kill "-$told" $child # it came before there was a child

{ # without the shell's own word on how it ended
  wait $child
  code=$?
  while kill -0 $child; do # a signal ended the waiting, not the child
    wait $child
    code=$?
  done
} 2>/dev/null
wait

if [ $code -eq 134 ] && grep -q -i 'distributed service\|coordination' "$folder/hidden"; then
  echo "stopped: another process of this run ended; the same command goes on from its last save" >&2
  exit 75
fi
case $code in 0 | 2 | 3 | 75) ;; *) cat "$folder/hidden" >&2 ;; esac
exit $code
