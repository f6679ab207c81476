#!/usr/bin/env bash
# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Cloud TPU machines, v4 to v6e, by the Cloud TPU API. That API is legacy: it gets only bug fixes, and does not serve TPU7x
# and later; use gke.sh for those.
#
#   launch/tpu_vm.sh --name=mine --zone=us-east5-b --type=v6e-8 --bucket=gs://BUCKET/xlkd -- --config=configs/gxlt.py
#
#   --name=NAME        of the run and of its TPU
#   --zone=ZONE        where the type is available
#   --type=TYPE        accelerator type, for example v5litepod-16 or v6e-8
#   --hosts=N          machines of that type (default 1): v5litepod-16 has 4; gcloud … describe shows it
#   --bucket=gs://…    for the code, and for the results of a single machine
#   --data=gs://…      copied to data/ on each machine before the start
#   --share=IP:/PATH   NFS, for example Filestore; several machines need it for their shared work directory
#   --version=NAME     runtime (default: by type)
#   --spot             cheaper, but can be taken away at any time
#   --dry_run          print the commands and start nothing
#
# Code: the commit that is checked out. Data: --data. Results: gs://BUCKET/xlkd/NAME/runs every minute (one machine),
# else on the share. The run resumes whenever its machines start; start this script again when a spot TPU was taken away.
# To look at the run, and to end it, see the last three lines that are printed.

set -u
name='' zone='' type='' hosts=1 bucket='' data='' share='' version='' spot=''
flags="name zone type hosts bucket data share version" switches="spot"
# shellcheck source=launch/inputs.sh
. "$(dirname "$0")/inputs.sh"
# shellcheck source=launch/travel.sh
. "$here/travel.sh"

given name "$name" mine
given type "$type" v6e-8
whole hosts "$hosts"
case $type in
  v4-*) runtime='tpu-ubuntu2204-base' ;;
  v5litepod-*) runtime='v2-alpha-tpuv5-lite' ;;
  v5p-*) runtime='v2-alpha-tpuv5' ;;
  v6e-*) runtime='v2-alpha-tpuv6e' ;;
  tpu7x* | v7*) refuse "--type=$type is not served by the Cloud TPU API" "use launch/gke.sh" ;;
  *) refuse "--type=$type is not a type of TPU" "for example --type=v6e-8 or --type=v5litepod-16" ;;
esac
runtime=${version:-$runtime}
check_travel "$hosts"

tpu=(gcloud compute tpus queued-resources)
state=
[ -n "$dry_run" ] || state=$("${tpu[@]}" describe "$name" --zone="$zone" --format='value(state.state)' 2>/dev/null)
case $state in
  SUSPENDING | DELETING)
    echo "stopped: the TPU $name is $state; start this script again in a minute" >&2
    exit 75
    ;;
  SUSPENDED | FAILED) do_it "${tpu[@]}" delete "$name" --zone="$zone" --force --quiet || exit 1 ;;
esac
send_code || exit 1
case $state in
  '' | SUSPENDED | FAILED)
    write_start_up "$hosts" tpu '' "$scratch/start.sh"
    create=("${tpu[@]}" create "$name" --node-id="$name" --zone="$zone" --accelerator-type="$type"
      --runtime-version="$runtime" --metadata-from-file="startup-script=$scratch/start.sh"
      --scopes=https://www.googleapis.com/auth/cloud-platform)
    [ -z "$spot" ] || create+=(--spot)
    do_it "${create[@]}" || exit 1
    ;;
  *) echo "the TPU $name exists ($state): its machines resume by themselves" ;;
esac
echo "# look at the queue:  gcloud compute tpus queued-resources describe $name --zone=$zone"
echo "# look at the run:    gcloud compute tpus tpu-vm ssh $name --zone=$zone --worker=0 --command='tail -f /var/log/xlkd.log'"
echo "# end it:             gcloud compute tpus queued-resources delete $name --zone=$zone --force"
