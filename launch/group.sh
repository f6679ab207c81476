#!/usr/bin/env bash
# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
#
# One machine of a managed instance group on Compute Engine: launch/group.sh GROUP ZONE HOSTS COMMAND…
#
# Adds the flags --coordinator, --processes and --process to COMMAND; machines are numbered in the order of their names.

set -u
group=$1 zone=$2 hosts=$3
shift 3

while true; do
  names=$(gcloud compute instance-groups managed list-instances "$group" --zone="$zone" --format='value(instance.basename())' | sort)
  count=$(grep -c . <<<"$names")
  place=$(grep -n -x -F "$(hostname -s)" <<<"$names" | cut -d: -f1)
  [ "$count" -ne "$hosts" ] || [ -z "$place" ] || break
  echo "waiting: the group $group has $count of $hosts machines" >&2
  sleep "${XLKD_PAUSE:-10}"
done
exec "$@" "--coordinator=$(head -n 1 <<<"$names"):8476" "--processes=$hosts" "--process=$((place - 1))"
