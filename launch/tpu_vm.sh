#!/usr/bin/env bash
# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Cloud TPU machines, v4 to v6e, by the Cloud TPU API. That API is legacy: it gets only bug fixes, and does not serve TPU7x
# and later; use gke.sh for those.
#
#   launch/tpu_vm.sh --name=mine --zone=us-east5-b --type=v6e-8 --bucket=gs://BUCKET/xlkd --spot --keep -- --config=configs/gxlt.py
#
#   --name=NAME        of the run and of its TPU
#   --zone=ZONE        where the type is available
#   --type=TYPE        accelerator type, for example v5litepod-16 (four machines) or v6e-8 (one)
#   --bucket=gs://…    for the code, the results and the cache
#   --data=gs://…      copied to data/ on each machine before the start
#   --version=NAME     runtime (default: by type)
#   --spot             cheaper, but can be taken away at any time
#   --keep             stay until the run has ended: request a TPU again that was taken away, and delete it at the end
#   --dry_run          print the commands and start nothing
#
# Code: the commit that is checked out. Data: --data. Results: gs://BUCKET/xlkd/NAME/runs/NAME, the run's work directory.
# The run resumes whenever its machines start. With --keep this script may be ended and started again at any time, also on
# another computer; its exit code is that of the run. To look at the run, and to end it, see the last three lines printed.

set -u
name='' zone='' type='' bucket='' data='' version='' spot='' keep=''
flags="name zone type bucket data version" switches="spot keep"
# shellcheck source=launch/inputs.sh
. "$(dirname "$0")/inputs.sh"
# shellcheck source=launch/travel.sh
. "$here/travel.sh"

given name "$name" mine
given type "$type" v6e-8
case $type in
  v4-*) runtime='tpu-ubuntu2204-base' ;;
  v5litepod-*) runtime='v2-alpha-tpuv5-lite' ;;
  v5p-*) runtime='v2-alpha-tpuv5' ;;
  v6e-*) runtime='v2-alpha-tpuv6e' ;;
  tpu7x* | v7*) refuse "--type=$type is not served by the Cloud TPU API" "use launch/gke.sh" ;;
  *) refuse "--type=$type is not a type of TPU" "for example --type=v6e-8 or --type=v5litepod-16" ;;
esac
runtime=${version:-$runtime}
check_travel

tpu=(gcloud compute tpus queued-resources)
delete=("${tpu[@]}" delete "$name" --zone="$zone" --force --quiet)

read_state() { # sets state: empty where there is no TPU of that name
  state=
  [ -n "$dry_run" ] || state=$("${tpu[@]}" describe "$name" --zone="$zone" --format='value(state.state)' 2>/dev/null)
}

request_tpu() { # deletes what is left of a TPU that was taken away, and requests one
  local create=("${tpu[@]}" create "$name" --node-id="$name" --zone="$zone" --accelerator-type="$type"
    --runtime-version="$runtime" --metadata-from-file="startup-script=$scratch/start.sh"
    --scopes=https://www.googleapis.com/auth/cloud-platform)
  [ -z "$spot" ] || create+=(--spot)
  [ -z "$state" ] || do_it "${delete[@]}" || return
  do_it "${create[@]}"
}

read_end() { # sets ended: the exit code of the run; empty while it goes on
  ended=
  [ -n "$dry_run" ] || ended=$(gcloud storage cat "$bucket/$name/ended" 2>/dev/null)
}

finish() { # deletes the TPU of a run that has ended
  echo "$(date +%Y-%m-%dT%H:%M:%S) the run has ended with exit code $ended; the log of its last machine: $bucket/$name/ended.log"
  [ -z "$state" ] || "${delete[@]}" || echo "warning: the TPU $name cannot be deleted, and costs money" >&2
  exit "$ended"
}

keep_tpu() { # until the run has ended; a command of gcloud that fails is tried again in the next minute
  local former=$state
  while true; do
    sleep "${XLKD_PAUSE:-60}"
    read_state
    read_end
    [ -z "$ended" ] || finish
    [ "$state" = "$former" ] || echo "$(date +%Y-%m-%dT%H:%M:%S) the TPU $name: ${state:-none}"
    former=$state
    case $state in '' | SUSPENDED | FAILED) request_tpu ;; esac
  done
}

read_state
read_end
case $ended in
  '') ;;
  0)
    echo "the run $name is done: $bucket/$name/runs/$name; for another run give another --name"
    [ -z "$keep" ] || finish
    exit 0
    ;;
  *) # its machines do not start it again; the command or the code may have been corrected
    gcloud storage rm "$bucket/$name/ended" || exit 1
    [ -z "$state" ] || "${delete[@]}" || exit 1
    state=
    ;;
esac
case $state in
  SUSPENDING | DELETING)
    if [ -z "$keep" ]; then
      echo "stopped: the TPU $name is $state; start this script again in a minute, or with --keep" >&2
      exit 75
    fi
    ;;
esac
send_code || exit 1
write_start_up tpu 1 '' "$scratch/start.sh"
case $state in
  '' | SUSPENDED | FAILED) request_tpu || exit 1 ;;
  *) echo "the TPU $name exists ($state): its machines resume by themselves" ;;
esac
echo "# look at the queue:  gcloud compute tpus queued-resources describe $name --zone=$zone"
echo "# look at the run:    gcloud compute tpus tpu-vm ssh $name --zone=$zone --worker=0 --command='tail -f /var/log/xlkd.log'"
echo "# end it:             gcloud compute tpus queued-resources delete $name --zone=$zone --force"
[ -z "$keep" ] || [ -n "$dry_run" ] || keep_tpu
