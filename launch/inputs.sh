# shellcheck shell=bash
# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
#
# How every script here reads its flags, refuses bad ones in one line (exit 2), and prints or does a thing.
# Works in bash 3.2, which is what a Mac has. A script gives its variables their defaults and says which are flags:
#
#   nodes=1 partition= spot=
#   flags="nodes partition" switches="spot"
#   . inputs.sh                  # $nodes, $partition, $spot, $dry_run and the array main=(python -m xlkd.main …)
#
# shellcheck disable=SC2154,SC2034 # set and used by the scripts that read this

here=$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)
script=launch/$(basename "${BASH_SOURCE[1]}")

refuse() { # WHAT WHAT_TO_DO
  echo "error: $script: $1; $2" >&2
  exit 2
}

whole() { # NAME VALUE: a whole number above 0
  case $2 in '' | *[!0-9]* | 0*) refuse "--$1=$2 is not a whole number above 0" "for example --$1=2" ;; esac
}

plain() { # NAME VALUE: what clouds take as a name
  local pattern='^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$'
  [[ $2 =~ $pattern ]] || refuse "--$1='$2' is not a name of small letters, digits and hyphens" "for example --$1=my-run"
}

bucket() { # NAME VALUE
  case $2 in gs://?*) ;; *) refuse "--$1='$2' is not a place in Cloud Storage" "for example --$1=gs://BUCKET/my-run" ;; esac
}

given() { # NAME VALUE EXAMPLE
  [ -n "$2" ] || refuse "--$1 is missing" "for example --$1=$3"
}

needs() { # PROGRAM WHERE_TO_GET_IT; a dry run starts nothing
  [ -n "$dry_run" ] || command -v "$1" >/dev/null || refuse "$1 is not there" "$2"
}

do_it() { # COMMAND…: printed in a dry run, done otherwise
  if [ -n "$dry_run" ]; then
    quoted "$@"
    echo
  else
    "$@"
  fi
}

quoted() { # WORD…: as a shell reads them again
  local word space='' quote="'\\''"
  for word in "$@"; do
    case $word in
      *[!-A-Za-z0-9_./:=,@%+]* | '') printf "%s'%s'" "$space" "${word//"'"/"$quote"}" ;;
      *) printf '%s%s' "$space" "$word" ;;
    esac
    space=' '
  done
}

dry_run=
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      sed -n '5,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[1]}"
      exit 0
      ;;
    --) break ;;
    --*)
      _flag=${1%%=*} _flag=${_flag#--}
      case " ${switches:-} dry_run " in
        *" $_flag "*) printf -v "$_flag" '%s' 1 ;;
        *)
          case " $flags " in *" $_flag "*) ;; *) refuse "unknown flag $1" "$script --help lists the flags" ;; esac
          case $1 in
            *=*) printf -v "$_flag" '%s' "${1#*=}" ;;
            *)
              [ $# -gt 1 ] || refuse "$1 needs a value" "$1=VALUE"
              printf -v "$_flag" '%s' "$2"
              shift
              ;;
          esac
          ;;
      esac
      ;;
    *) refuse "unknown word $1" "what xlkd.main is to get stands behind --" ;;
  esac
  shift
done
[ $# -gt 1 ] || refuse "nothing to run" "for example $script … -- --config=configs/gxlt.py"
shift
find_python() { # what `python` is here: $PYTHON, else python on the path, else of this checkout, else python3
  if [ -n "${PYTHON:-}" ]; then
    echo "$PYTHON"
  elif command -v python >/dev/null; then
    echo python
  elif [ -x "$here/../.venv/bin/python" ]; then
    echo "$(cd "$here/.." && pwd)/.venv/bin/python"
  else
    echo python3
  fi
}
case $1 in
  --*) main=("$(find_python)" -m xlkd.main "$@") ;;
  python) main=("$(find_python)" "${@:2}") ;;
  *) main=("$@") ;;
esac

main_has() { # FLAG: whether the command already says it
  local word
  for word in "${main[@]}"; do case $word in "$1" | "$1"=*) return 0 ;; esac; done
  return 1
}
main_has --config || refuse "the command names no config" "add --config=FILE behind --"
