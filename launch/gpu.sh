#!/usr/bin/env bash
# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
#
# One machine with one or more GPUs: one process drives them all.
#
#   launch/gpu.sh [--gpus=0,1] -- --config=configs/gxlt.py --workdir=runs/mine
#
#   --gpus=LIST   numbers as nvidia-smi has them (default: all)
#   --dry_run     print the command and start nothing
#
# Code: this checkout, installed with pip install -e '.[cuda]'. Data and results: folders of this machine.
# Look at it: tail -f WORKDIR/log.txt, tensorboard --logdir WORKDIR. Exit code 75: the same command goes on.

set -u
gpus=''
flags="gpus" switches=""
# shellcheck source=launch/inputs.sh
. "$(dirname "$0")/inputs.sh"

case $gpus in *[!0-9,]* | ,* | *, | *,,*) refuse "--gpus=$gpus is not a list of numbers" "for example --gpus=0,1" ;; esac
needs nvidia-smi "install NVIDIA's driver, or use launch/local_pod.sh for processors alone"
if [ -z "$dry_run" ]; then
  there=$(nvidia-smi --query-gpu=index --format=csv,noheader | tr -d ' ')
  for number in ${gpus//,/ }; do
    grep -q -x "$number" <<<"$there" || refuse "there is no GPU $number" "nvidia-smi names: $(tr '\n' ' ' <<<"$there")"
  done
  CUDA_VISIBLE_DEVICES=${gpus:-$(paste -sd, - <<<"$there")} "${main[0]}" -c 'import jax; jax.devices("gpu")' 2>/dev/null ||
    refuse "JAX finds no GPU" "pip install -e '.[cuda]' into the environment of ${main[0]}"
fi
[ -z "$gpus" ] || main=(env "CUDA_VISIBLE_DEVICES=$gpus" "${main[@]}")
do_it exec "${main[@]}"
