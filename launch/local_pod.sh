#!/usr/bin/env bash
# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
#
# A pod on one machine: a real run on several processes, over loopback, on virtual CPU devices.
#
#   launch/local_pod.sh --processes 2 --devices 4 -- python -m xlkd.main --config=configs/gxlt.py
#
#   --processes N   number of processes (default 2)
#   --devices N     virtual devices of each process (default 1): processes × devices in all
#   --dry_run       print the commands and start nothing
#
# The output of process 0 is shown, and the last lines of others that fail. Exit code: 0 when all processes ended with 0;
# 1, 2 or 3 when one of them did; else 75: the same command resumes from the last save, on any number of processes.

set -u
processes=2 devices=1
flags="processes devices" switches=""
# shellcheck source=launch/inputs.sh
. "$(dirname "$0")/inputs.sh"

whole processes "$processes"
whole devices "$devices"
command -v "${main[0]}" >/dev/null || refuse "${main[0]} was not found" "name a program after --, for example python -m xlkd.main …"

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
