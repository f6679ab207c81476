#!/usr/bin/env bash
# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
#
# A pod on one machine: a real run on several processes, over loopback, on virtual CPU devices.
#
#   launch/local_pod.sh --processes 2 --devices 4 -- python -m xlkd.main --config=configs/gxlt.py
#
#   --processes N   how many (default 2)
#   --devices N     virtual devices of each process (default 1): processes × devices in all
#   --dry_run       print the commands and start nothing
#
# Process 0 speaks; of the others the last lines are shown where they fail. Exit code: 0 when all ended well; 2, 3 or 1
# when one ended so; else 75, start me again: the same command goes on from the last save, on any number of processes.

set -u
processes=2 devices=1
flags="processes devices" switches=""
# shellcheck source=launch/inputs.sh
. "$(dirname "$0")/inputs.sh"

whole processes "$processes"
whole devices "$devices"
command -v "${main[0]}" >/dev/null || refuse "${main[0]} is not there" "name a program behind --, as python -m xlkd.main …"

python=${main[0]}
case $(basename "$python") in python*) ;; *) python=python3 ;; esac
port=8476
[ -n "$dry_run" ] || port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
export JAX_PLATFORMS=cpu
XLA_FLAGS="$(printf '%s' "${XLA_FLAGS:-}" | sed 's/--xla_force_host_platform_device_count=[0-9]*//') --xla_force_host_platform_device_count=$devices"
XLA_FLAGS=${XLA_FLAGS# }
export XLA_FLAGS

if [ -n "$dry_run" ]; then
  for ((i = 0; i < processes; i++)); do
    do_it env JAX_PLATFORMS=cpu "XLA_FLAGS=$XLA_FLAGS" "$here/member.sh" "${main[@]}" \
      "--coordinator=127.0.0.1:$port" "--processes=$processes" "--process=$i"
  done
  exit 0
fi

folder=$(mktemp -d)
members=()
# shellcheck disable=SC2329 # by the traps
tell() { for pid in ${members[@]+"${members[@]}"}; do kill "-$1" "$pid" 2>/dev/null; done; }
told=''
trap 'told=TERM; tell TERM' TERM
trap 'told=INT; tell INT' INT
trap 'rm -rf "$folder"' EXIT

set -m # each in a group of its own: a Ctrl-C reaches them through us, once
for ((i = 0; i < processes; i++)); do
  place=("--coordinator=127.0.0.1:$port" "--processes=$processes" "--process=$i")
  if [ "$i" -eq 0 ]; then
    "$here/member.sh" "${main[@]}" "${place[@]}" &
  else
    "$here/member.sh" "${main[@]}" "${place[@]}" >"$folder/$i" 2>&1 &
  fi
  members+=($!)
done
set +m
[ -z "$told" ] || tell "$told" # it came before all were there

# They find out by themselves that one is gone, within half a minute; who has not after a minute is not asked again.
codes=() left=$processes failed=
while [ "$left" -gt 0 ]; do
  for ((i = 0; i < processes; i++)); do
    if [ -z "${codes[i]:-}" ] && ! kill -0 "${members[i]}" 2>/dev/null; then
      wait "${members[i]}" 2>/dev/null
      codes[i]=$?
      left=$((left - 1))
      [ "${codes[i]}" -eq 0 ] || failed=${failed:-$SECONDS}
    fi
  done
  if [ -n "$failed" ] && [ $((SECONDS - failed)) -ge 50 ]; then
    tell KILL
  fi
  sleep 0.2
done

result=0
for ((i = 0; i < processes; i++)); do
  code=${codes[i]}
  case $code in
    0) continue ;;
    2 | 3 | 1) case $result in 0 | 75) result=$code ;; esac ;;
    *) [ "$result" -ne 0 ] || result=75 ;;
  esac
  [ "$code" -le 128 ] || echo "stopped: process $i of $processes was killed (signal $((code - 128)))" >&2
  [ "$i" -eq 0 ] || tail -n 30 "$folder/$i" | sed "s/^/process $i: /" >&2
done
exit "$result"
