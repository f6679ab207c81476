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

send_code() { # the committed state of this checkout
  do_it git -C "$here/.." archive --format=tar.gz -o "${TMPDIR:-/tmp}/$name-code.tgz" HEAD
  do_it gcloud storage cp "${TMPDIR:-/tmp}/$name-code.tgz" "$bucket/$name/code.tgz"
}

start_up() { # HOSTS EXTRA GROUP: writes the start-up script and names its file
  local file=${TMPDIR:-/tmp}/$name-start.sh words=("${main[@]}") results=
  words[0]=/opt/xlkd/venv/bin/python
  [ -n "$share" ] || results=$bucket/$name/runs
  {
    echo '#!/usr/bin/env bash'
    echo "code=$bucket/$name/code.tgz extra=$2 data=$(quoted "$data") hosts=$1 group=$3 zone=$zone"
    echo "share=$(quoted "$share") results=$results"
    echo "main=$(quoted "$(quoted "${words[@]}" "--workdir=runs/$name")")"
    sed 1d "$here/host.sh"
  } >"$file"
  echo "$file"
}
