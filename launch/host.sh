#!/usr/bin/env bash
# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
#
# What a cloud machine does each time it starts: tpu_vm.sh and gce.sh put it before a few settings as start-up script.
# It fetches code and data, mounts the shared folder, and runs until the run is done: 75 means start me again.
#
#   code=gs://…/code.tgz  extra=tpu|cuda  data=gs://…  hosts=N  group=NAME  zone=ZONE  main=COMMAND
#   share=SERVER:/PATH (several machines)  or  results=gs://… (one machine: sent there every minute)
#
# shellcheck disable=SC2154 # set by the lines that are put before this

set -u
exec >>/var/log/xlkd.log 2>&1
echo "$(date -Is) $(hostname): start"
export HOME=/root XLKD_CACHE=/var/cache/xlkd
top=/opt/xlkd

until command -v gcloud >/dev/null; do sleep 5; done
if [ ! -e $top/ready ]; then
  apt-get update -q && apt-get install -q -y python3-venv nfs-common
  if mkdir -p $top/code && gcloud storage cp "$code" $top/code.tgz && tar -xzf $top/code.tgz -C $top/code &&
    python3 -m venv $top/venv && $top/venv/bin/python -m pip install -q "$top/code[$extra]"; then
    touch $top/ready
  else
    echo "stopped: the machine could not be made ready"
    exit 1
  fi
fi
cd $top/code || exit 1
mkdir -p runs data
[ -z "$data" ] || gcloud storage rsync --recursive "$data" data
if [ -n "$share" ]; then
  mountpoint -q runs || mount -t nfs "$share" runs || { echo "stopped: $share cannot be mounted"; exit 1; }
else
  gcloud storage rsync --recursive "$results" runs 2>/dev/null
fi

place() { # three flags where JAX cannot know: the machines of the group in the order of their names
  local names
  names=$(gcloud compute instance-groups managed list-instances "$group" --zone="$zone" --format='value(instance.basename())' | sort)
  [ "$(grep -c . <<<"$names")" -eq "$hosts" ] || return 1
  echo "--coordinator=$(head -n 1 <<<"$names"):8476 --processes=$hosts" \
    "--process=$(grep -n -x "$(hostname -s)" <<<"$names" | awk -F: '{ print $1 - 1 }')"
}

send() { # what is half written is left out
  [ -z "$results" ] || gcloud storage rsync --recursive --exclude='.*orbax-checkpoint-tmp.*' runs "$results" >/dev/null 2>&1
}

while sleep 60; do send; done &
sender=$!
code=75
while [ $code -eq 75 ] || [ $code -ge 128 ]; do
  where=
  while [ -n "$group" ] && [ "$hosts" -gt 1 ] && [ -z "$where" ]; do where=$(place) || sleep 10; done
  eval "launch/member.sh $main $where" &
  child=$!
  trap 'kill -TERM $child' TERM
  wait $child
  code=$?
  while kill -0 $child 2>/dev/null; do # a signal ended the waiting, not the run
    wait $child
    code=$?
  done
  echo "$(date -Is) ended with $code"
  sleep 5
done
kill $sender
send
