#!/usr/bin/env bash
# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
#
# SkyPilot: one machine with GPUs on the cheapest cloud, replaced by another when it is taken away.
#
#   launch/skypilot.sh --name=mine --gpus=H100:1 --bucket=gs://BUCKET -- --config=configs/gxlt.py
#
#   --name=NAME       of the run and of the job
#   --gpus=KIND:N     a name that sky show-gpus lists (default L4:1)
#   --bucket=gs://…   the run's work directory is runs/NAME in it, and its data/ is found at /results/data
#   --spot            cheaper, but can be taken away at any time
#   --dry_run         print the command and start nothing
#
# Code: this checkout as it is. Look at it: sky jobs queue; sky jobs logs -n NAME; end it: sky jobs cancel -n NAME.

set -u
name='' gpus=L4:1 bucket='' spot=''
flags="name gpus bucket" switches="spot"
# shellcheck source=launch/inputs.sh
. "$(dirname "$0")/inputs.sh"

given name "$name" mine
plain name "$name"
[[ $gpus =~ ^[A-Za-z0-9-]+:[1-9][0-9]*$ ]] || refuse "--gpus=$gpus is not KIND:NUMBER" "for example --gpus=H100:1"
bucket bucket "$bucket"
main_has --workdir && refuse "the command names a work directory" "leave --workdir out: it is runs/$name in the bucket"
[ "${main[1]:-} ${main[2]:-}" = "-m xlkd.main" ] || refuse "the command is not python -m xlkd.main" "give its flags after --"
needs sky "pip install 'skypilot[gcp]', then sky check"

launch=(sky jobs launch --yes --name "$name" --gpus "$gpus" --env "RUN=$name" --env "BUCKET=$bucket"
  --env "MAIN=$(quoted "${main[@]:3}")")
[ -z "$spot" ] || launch+=(--use-spot)
do_it cd "$here/.." || exit 2
do_it "${launch[@]}" launch/skypilot.yaml
