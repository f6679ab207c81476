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

export JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=$devices

if [ -n "$dry_run" ]; then
  for ((i = 0; i < processes; i++)); do
    do_it env JAX_PLATFORMS=cpu "JAX_NUM_CPU_DEVICES=$devices" "$here/member.sh" "${main[@]}" \
      --coordinator=127.0.0.1:8476 "--processes=$processes" "--process=$i"
  done
  exit 0
fi
python=python3
case $(basename "${main[0]}") in python*) python=${main[0]} ;; esac
exec "$python" "$here/local_pod.py" "$processes" "${main[@]}"
