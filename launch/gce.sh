#!/usr/bin/env bash
# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Compute Engine: a managed instance group of machines with GPUs, which replaces a machine that is lost.
#
#   launch/gce.sh --name=mine --zone=us-central1-a --machine=a3-highgpu-8g --bucket=gs://BUCKET/xlkd -- --config=configs/gxlt.py
#
#   --name=NAME        of the run, its template and its group
#   --zone=ZONE        where the machines are available
#   --machine=TYPE     machine type (default g2-standard-8: one L4)
#   --gpu=TYPE:N       for machine types without GPUs, such as n1-standard-8: --gpu=nvidia-tesla-t4:1
#   --hosts=N          machines (default 1)
#   --bucket=gs://…    for the code, the results and the cache
#   --data=gs://…      copied to data/ on each machine before the start
#   --image=FAMILY     of project deeplearning-platform-release (default: one with driver 580, which CUDA 13 needs, and
#                      Python 3.12); with an older driver, from 525, the machines install JAX for CUDA 12
#   --disk=N           GB (default 200)
#   --spot             cheaper, but can be taken away at any time
#   --dry_run          print the commands and start nothing
#
# Code: the commit that is checked out. Data: --data. Results: gs://BUCKET/xlkd/NAME/runs/NAME, the run's work directory.
# Machines need a firewall rule for port 8476 among themselves (the default network has one).
# To look at the run, see the last lines that are printed. A group costs money until it is deleted: the last line says how.

set -u
name='' zone='' machine=g2-standard-8 gpu='' hosts=1 bucket='' data='' image=common-cu129-ubuntu-2404-nvidia-580 disk=200 spot=''
flags="name zone machine gpu hosts bucket data image disk" switches="spot"
# shellcheck source=launch/inputs.sh
. "$(dirname "$0")/inputs.sh"
# shellcheck source=launch/travel.sh
. "$here/travel.sh"

given name "$name" mine
whole hosts "$hosts"
whole disk "$disk"
[[ -z $gpu || $gpu =~ ^[a-z0-9-]+:[1-9][0-9]*$ ]] || refuse "--gpu=$gpu is not TYPE:NUMBER" "for example --gpu=nvidia-tesla-t4:1"
check_travel

group=(gcloud compute instance-groups managed)
known=
[ -n "$dry_run" ] || known=$("${group[@]}" describe "$name" --zone="$zone" --format='value(name)' 2>/dev/null)
send_code || exit 1
if [ -n "$known" ]; then
  echo "the group $name exists: its machines resume by themselves"
else
  templates=(gcloud compute instance-templates)
  if [ -z "$dry_run" ] && "${templates[@]}" describe "$name" >/dev/null 2>&1; then # left over from a group that was deleted
    do_it "${templates[@]}" delete "$name" --quiet || exit 1
  fi
  write_start_up cuda "$hosts" "$name" "$scratch/start.sh"
  create=("${templates[@]}" create "$name" --machine-type="$machine" --boot-disk-size="${disk}GB"
    --image-family="$image" --image-project=deeplearning-platform-release --maintenance-policy=TERMINATE
    --metadata=install-nvidia-driver=True --metadata-from-file="startup-script=$scratch/start.sh" --scopes=cloud-platform)
  [ -z "$gpu" ] || create+=(--accelerator="type=${gpu%:*},count=${gpu#*:}")
  [ -z "$spot" ] || create+=(--provisioning-model=SPOT --instance-termination-action=STOP)
  do_it "${create[@]}" || exit 1
  do_it "${group[@]}" create "$name" --zone="$zone" --template="$name" --size="$hosts" || exit 1
fi
echo "# look at the group:  gcloud compute instance-groups managed list-instances $name --zone=$zone"
echo "# look at the run:    gcloud compute ssh INSTANCE --zone=$zone --command='tail -f /var/log/xlkd.log'"
echo "# end it:             gcloud compute instance-groups managed delete $name --zone=$zone && gcloud compute instance-templates delete $name"
