# shellcheck shell=bash
# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
#
# What tpu_vm.sh and gce.sh share: checks of where code, data and results lie, and the start-up script of a machine.
#
# shellcheck disable=SC2154 # set by the scripts that read this

check_travel() { # HOSTS
  plain name "$name"
  given zone "$zone" us-central1-a
  given bucket "$bucket" gs://BUCKET/xlkd
  bucket bucket "$bucket"
  [ -z "$data" ] || bucket data "$data"
  if [ "$1" -gt 1 ]; then
    [[ $share =~ ^[^:/]+:/.+$ ]] || refuse "$1 machines need one work directory, and --share='$share' is none" \
      "give a folder by NFS, for example a Filestore instance: --share=10.0.0.2:/share"
  fi
  main_has --workdir && refuse "the command names a work directory" \
    "leave --workdir out: it is runs/$name, which travels"
  needs gcloud "install it from https://cloud.google.com/sdk, then gcloud auth login"
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

send_code() { # the committed state of this checkout
  do_it git -C "$here/.." archive --format=tar.gz -o "$scratch/code.tgz" HEAD ||
    refuse "this checkout cannot be packed" "git clone it: the commit that is checked out travels"
  do_it gcloud storage cp "$scratch/code.tgz" "$bucket/$name/code.tgz"
}

write_start_up() { # HOSTS EXTRA GROUP FILE
  {
    echo '#!/usr/bin/env bash'
    echo "from=$bucket/$name extra=$2 data=$(quoted "$data") hosts=$1 group=$3 zone=$zone share=$(quoted "$share")"
    echo "main=($(quoted "${main[@]:1}" "--workdir=runs/$name"))"
    sed 1d "$here/host.sh"
  } >"$4"
  [ -z "$dry_run" ] || sed -n '2,3s/^/  | /p' "$4"
}
