#!/usr/bin/env bash
# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
#
# The start-up script of a cloud machine; tpu_vm.sh and gce.sh put a few settings before it. It prepares the machine
# once, fetches the results so far, and trains until the run is done.
#
#   from=gs://…/NAME (code.tgz in it, and runs/ of a single machine)  extra=tpu|cuda  data=gs://…  hosts=N
#   group=NAME  zone=ZONE  share=SERVER:/PATH (several machines)  main=(-m xlkd.main …)
#
# shellcheck disable=SC2154 # set by the lines that are put before this script

set -u
top=${XLKD_TOP:-/opt/xlkd}
mkdir -p "$top"
exec >>"${XLKD_LOG:-/var/log/xlkd.log}" 2>&1

# The service that runs start-up scripts (google-startup-scripts: KillMode=process) tells them nothing when the machine
# is stopped or taken away. So training runs in a service of its own, which gets SIGTERM while network, mounts and snaps
# (gcloud can be one) still work, and then has the time that the cloud allows to save and upload: 30 s on a spot machine,
# 90 s on others. systemd refuses to start the service twice.
if [ -z "${XLKD_SERVICE:-}" ]; then
  install -m 755 "$0" "$top/start.sh"
  exec systemd-run --unit=xlkd --collect --setenv=XLKD_SERVICE=1 --setenv="PATH=$PATH:/snap/bin" \
    --property=KillMode=mixed --property=TimeoutStopSec=300 \
    --property='After=network-online.target remote-fs.target snapd.mounts.target' bash "$top/start.sh"
fi
export HOME=${HOME:-/root} XLKD_CACHE=${XLKD_CACHE:-/var/cache/xlkd}

log_line() { echo "$(date +%Y-%m-%dT%H:%M:%S) $*" >&2; }

stop() { # WHAT
  log_line "stopped: $1; a restart of this machine tries again"
  exit 1
}

retry() { # COMMAND…
  local attempt pause=${XLKD_PAUSE:-10}
  for attempt in 1 2 3 4 5; do
    "$@" && return
    log_line "failed ($attempt of 5 attempts): $*"
    [ "$attempt" -eq 5 ] || sleep "$pause"
    pause=$((2 * pause))
  done
  return 1
}

install_packages() {
  # Automatic updates hold the lock for minutes after a machine has started
  apt-get -q -o DPkg::Lock::Timeout=300 update && apt-get -q -y -o DPkg::Lock::Timeout=300 install "$@"
}

prepare_machine() { # installs packages, code and environment
  local packages=()
  python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
  [ -z "$share" ] || command -v mount.nfs >/dev/null || packages+=(nfs-common)
  [ ${#packages[@]} -eq 0 ] || retry install_packages "${packages[@]}" || stop "${packages[*]} cannot be installed"
  retry gcloud storage cp "$from/code.tgz" "$top/code.tgz" || stop "$from/code.tgz cannot be read"
  mkdir -p "$top/code"
  tar -xzf "$top/code.tgz" -C "$top/code" || stop "$from/code.tgz is damaged"
  retry "$top/code/launch/install.sh" "$extra" "$top/venv" || stop "the code cannot be installed"
  touch "$top/ready"
}

# Once fetched, the results on this machine are never older than those in the bucket. A run that cannot be fetched must not
# start from the beginning: it would be uploaded over the results in the bucket.
fetch_results() {
  local listing
  listing=$(retry gcloud storage ls "$from/") || stop "$from cannot be listed"
  if grep -q -x -F "$from/runs/" <<<"$listing"; then
    retry gcloud storage rsync --recursive "$from/runs" runs || stop "$from/runs cannot be fetched"
  fi
  touch "$top/fetched"
}

log_line "$(hostname): start"
retry command -v gcloud >/dev/null || stop "gcloud was not found"
[ -e "$top/ready" ] || prepare_machine
cd "$top/code" || exit 1
mkdir -p runs data
[ -z "$data" ] || retry gcloud storage rsync --recursive "$data" data || stop "$data cannot be fetched"
if [ -n "$share" ]; then
  mountpoint -q runs || retry mount -t nfs "$share" runs || stop "$share cannot be mounted"
  upload=
else
  [ -e "$top/fetched" ] || fetch_results
  # Nothing is ever deleted in the bucket. Unfinished checkpoints are left out, and the files that mark a stage as done are
  # uploaded last.
  sync="gcloud storage rsync --recursive runs $from/runs --exclude"
  upload="$sync='.*orbax-checkpoint-tmp.*|(.*/)?done$' && $sync='.*orbax-checkpoint-tmp.*'"
fi
command=(launch/member.sh "$top/venv/bin/python" "${main[@]}")
[ "$hosts" -eq 1 ] || [ -z "$group" ] || command=(bash launch/group.sh "$group" "$zone" "$hosts" "${command[@]}")
exec "$top/venv/bin/python" launch/supervise.py --again --every="${XLKD_EVERY:-60}" --pause="${XLKD_PAUSE:-10}" \
  --upload="$upload" "${command[@]}"
