#!/usr/bin/env bash
# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Installs this checkout in a new environment, with a suitable Python and CUDA: launch/install.sh EXTRA [FOLDER]
#
#   EXTRA    extras of setup.cfg, joined with commas: cuda (CUDA 13, or 12 where NVIDIA's driver is older than 580), tpu,
#            gcs (work directories in Cloud Storage)
#   FOLDER   the environment (default: .venv of this checkout); an existing one is replaced
#
# Where python3 (PYTHON=FILE names another) is older than 3.11, as on Ubuntu 22.04, uv from PyPI fetches Python 3.12.

set -eu
refuse() { # WHAT WHAT_TO_DO
  echo "error: launch/install.sh: $1; $2" >&2
  exit 2
}
checkout=$(cd "$(dirname "$0")/.." && pwd)
extra=${1:-} python=${PYTHON:-python3} venv=${2:-$checkout/.venv}
[ -n "$extra" ] || refuse "no extra" "for example launch/install.sh cuda or launch/install.sh tpu,gcs"

if [[ ,$extra, = *,cuda,* ]]; then
  driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | grep -m 1 -E '^[0-9]+\.') ||
    refuse "nvidia-smi names no driver" "install NVIDIA's driver, 580 or later"
  [ "${driver%%.*}" -ge 525 ] ||
    refuse "NVIDIA's driver $driver is too old: CUDA 12 needs 525, CUDA 13 needs 580" "install a later driver"
  [ "${driver%%.*}" -ge 580 ] || extra=${extra/cuda/cuda12}
fi
"$python" -c 'import ensurepip' 2>/dev/null || refuse "$python cannot make environments" "sudo apt-get install python3-venv"

if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  "$python" -m venv --clear "$venv"
else # the package python3.11 of Ubuntu 22.04 is a release candidate
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  "$python" -m venv "$scratch/uv"
  "$scratch/uv/bin/python" -m pip install -q uv
  "$scratch/uv/bin/uv" venv -q --clear --seed --python=3.12 "$venv"
fi
# In a checkout Python imports the package from there, and only an editable install adds the configs to it
"$venv/bin/python" -m pip install -q --editable "${checkout}[$extra]"
