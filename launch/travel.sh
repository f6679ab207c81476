# shellcheck shell=bash
# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
#
# For tpu_vm.sh and gce.sh: checks the places of code, data and results, and writes the start-up script of a machine.
#
# shellcheck disable=SC2154 # set by the scripts that source this one

check_travel() {
  plain name "$name"
  given zone "$zone" us-central1-a
  given bucket "$bucket" gs://BUCKET/xlkd
  bucket bucket "$bucket"
  [ -z "$data" ] || bucket data "$data"
  main_has --workdir && refuse "the command names a work directory" \
    "leave --workdir out: it is $bucket/$name/runs/$name"
  needs gcloud "install it from https://cloud.google.com/sdk, then gcloud auth login"
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

send_code() { # uploads the commit that is checked out
  do_it git -C "$here/.." archive --format=tar.gz -o "$scratch/code.tgz" HEAD ||
    refuse "this checkout cannot be packed" "make it with git clone: the commit that is checked out is uploaded"
  do_it gcloud storage cp "$scratch/code.tgz" "$bucket/$name/code.tgz"
}

write_start_up() { # EXTRA HOSTS GROUP FILE: writes the start-up script
  {
    echo '#!/usr/bin/env bash'
    echo "from=$bucket/$name extra=$1 data=$(quoted "$data") hosts=$2 group=$3 zone=$zone"
    echo "main=($(quoted "${main[@]:1}" "--workdir=$bucket/$name/runs/$name"))"
    sed 1d "$here/host.sh"
  } >"$4"
  [ -z "$dry_run" ] || sed -n '2,3s/^/  | /p' "$4"
}
