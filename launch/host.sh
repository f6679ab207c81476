#!/usr/bin/env bash
# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
#
# The start-up script of a cloud machine; tpu_vm.sh and gce.sh put a few settings before it. It prepares the machine once,
# and trains until the run is done. The run keeps everything in the bucket.
#
#   from=gs://…/NAME (code.tgz in it; runs/ and cache/ of the run; the file ended)  extra=tpu|cuda  data=gs://…
#   hosts=N  group=NAME  zone=ZONE (several machines of a group)  main=(-m xlkd.main … --workdir=gs://…)
#
# shellcheck disable=SC2154 # set by the lines that are put before this script

set -u
top=${XLKD_TOP:-/opt/xlkd} log=${XLKD_LOG:-/var/log/xlkd.log}
mkdir -p "$top"
exec >>"$log" 2>&1

log_line() { echo "$(date +%Y-%m-%dT%H:%M:%S) $*" >&2; }

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

# The service that runs start-up scripts (google-startup-scripts: KillMode=process) tells them nothing when the machine
# is stopped or taken away. So training is the main process of a service of its own: systemd sends it SIGTERM while
# network, mounts and snaps (gcloud can be one) still work, and it then has the time that the cloud allows to save: 30 s on
# a spot machine, 90 s on others. systemd starts it again after exit code 75 or a kill, but not once the service was told
# to stop, nor after 0 to 3, after which it would end the same way. It refuses to start the service twice.
if [ -z "${XLKD_SERVICE:-}" ]; then
  install -m 755 "$0" "$top/start.sh"
  exec systemd-run --unit=xlkd --collect --setenv=XLKD_SERVICE=1 --setenv="PATH=$PATH:/snap/bin" \
    --property=KillMode=mixed --property=TimeoutStopSec=300 --property=LimitCORE=0 \
    --property=Restart=on-failure --property="RestartSec=${XLKD_PAUSE:-10}" --property='RestartPreventExitStatus=1 2 3' \
    --property="ExecStopPost=/bin/bash $top/start.sh ended" \
    --property='After=network-online.target remote-fs.target snapd.mounts.target' bash "$top/start.sh"
fi
export HOME=${HOME:-/root} XLKD_CACHE=${XLKD_CACHE:-$from/cache}

if [ "${1:-}" = ended ]; then # systemd gives the exit code, or the name of a signal
  log_line "ended with ${EXIT_STATUS:-?}"
  case ${EXIT_STATUS:-} in [0-3])
    retry gcloud storage cp "$log" "$from/ended.log" # why, for whoever finds the machine gone
    echo "$EXIT_STATUS" >"$top/ended"
    retry gcloud storage cp "$top/ended" "$from/ended" # tpu_vm.sh --keep waits for it
    ;;
  esac
  exit 0
fi

stop() { # WHAT
  log_line "stopped: $1; a restart of this machine tries again"
  exit 1
}

install_packages() {
  # Automatic updates hold the lock for minutes after a machine has started
  apt-get -q -o DPkg::Lock::Timeout=300 update && apt-get -q -y -o DPkg::Lock::Timeout=300 install "$@"
}

prepare_machine() { # installs packages, code and environment
  python3 -c 'import ensurepip' 2>/dev/null || retry install_packages python3-venv || stop "python3-venv cannot be installed"
  retry gcloud storage cp "$from/code.tgz" "$top/code.tgz" || stop "$from/code.tgz cannot be read"
  mkdir -p "$top/code"
  tar -xzf "$top/code.tgz" -C "$top/code" || stop "$from/code.tgz is damaged"
  retry "$top/code/launch/install.sh" "$extra,gcs" "$top/venv" || stop "the code cannot be installed"
  touch "$top/ready"
}

log_line "$(hostname): start"
retry command -v gcloud >/dev/null || stop "gcloud was not found"
[ -e "$top/ready" ] || prepare_machine
cd "$top/code" || exit 1
mkdir -p data
[ -z "$data" ] || retry gcloud storage rsync --recursive "$data" data || stop "$data cannot be fetched"
command=("$top/venv/bin/python" "${main[@]}")
[ "$hosts" -eq 1 ] || command=(bash launch/group.sh "$group" "$zone" "$hosts" "${command[@]}")
exec "${command[@]}"
