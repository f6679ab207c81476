#!/usr/bin/env bash
# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
#
# One machine with one or more GPUs: one process drives them all.
#
#   launch/gpu.sh [--gpus=0,1] -- --config=configs/gxlt.py --workdir=runs/mine
#
#   --gpus=LIST   numbers as nvidia-smi shows them (default: all)
#   --dry_run     print the command and start nothing
#
# Code: this checkout, installed with launch/install.sh cuda. Data and results: folders of this machine.
# Look at it: tail -f WORKDIR/log.txt, tensorboard --logdir WORKDIR. Exit code 75: the same command resumes.

set -u
gpus=''
flags="gpus" switches=""
# shellcheck source=launch/inputs.sh
. "$(dirname "$0")/inputs.sh"

case $gpus in *[!0-9,]* | ,* | *, | *,,*) refuse "--gpus=$gpus is not a list of numbers" "for example --gpus=0,1" ;; esac
needs nvidia-smi "install NVIDIA's driver, or use launch/local_pod.sh on CPUs"

check_driver() { # refuses a driver that is too old for the CUDA of the environment
  local driver cuda needed
  driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1)
  cuda=$("${main[0]}" -c 'if True:
    from importlib import metadata
    names = {distribution.metadata["Name"] for distribution in metadata.distributions()}
    print(next((cuda for cuda in ("13", "12") if f"jax-cuda{cuda}-plugin" in names), ""))')
  case $cuda in
    13) needed=580 ;;
    12) needed=525 ;;
    *) refuse "the environment of ${main[0]} has no CUDA for JAX" "launch/install.sh cuda" ;;
  esac
  [[ $driver =~ ^([0-9]+)\. ]] || refuse "nvidia-smi names no driver" "it says: $driver"
  [ "${BASH_REMATCH[1]}" -ge "$needed" ] || refuse "NVIDIA's driver $driver is too old for CUDA $cuda, which needs $needed" \
    "install a later driver$([ "$cuda" = 12 ] || echo ', or JAX for CUDA 12: launch/install.sh cuda')"
}

if [ -z "$dry_run" ]; then
  check_driver
  numbers=$(nvidia-smi --query-gpu=index --format=csv,noheader | tr -d ' ')
  for number in ${gpus//,/ }; do
    grep -q -x "$number" <<<"$numbers" || refuse "there is no GPU $number" "nvidia-smi names: $(tr '\n' ' ' <<<"$numbers")"
  done
  CUDA_VISIBLE_DEVICES=${gpus:-$(paste -sd, - <<<"$numbers")} "${main[0]}" -c 'import jax; jax.devices("gpu")' 2>/dev/null ||
    refuse "JAX finds no GPU" "${main[0]} -c 'import jax; print(jax.devices())' says why"
fi
[ -z "$gpus" ] || main=(env "CUDA_VISIBLE_DEVICES=$gpus" "${main[@]}")
do_it exec "${main[@]}"
