# shellcheck shell=bash
# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Reads the flags of every script here, and refuses bad ones in one line (exit 2). Works in bash 3.2, the version of macOS.
# A script sets the defaults of its variables, and names those that are flags:
#
#   nodes=1 partition= spot=
#   flags="nodes partition" switches="spot"
#   . inputs.sh                  # $nodes, $partition, $spot, $dry_run and the array main=(python -m xlkd.main …)
#
# shellcheck disable=SC2154,SC2034 # set and used by the scripts that source this one

here=$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)
script=launch/$(basename "${BASH_SOURCE[1]}")

refuse() { # WHAT WHAT_TO_DO
  echo "error: $script: $1; $2" >&2
  exit 2
}

whole() { # NAME VALUE: refuses what is not a whole number above 0
  case $2 in '' | *[!0-9]* | 0*) refuse "--$1=$2 is not a whole number above 0" "for example --$1=2" ;; esac
}

plain() { # NAME VALUE: refuses what clouds do not accept as a name
  local pattern='^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$'
  [[ $2 =~ $pattern ]] || refuse "--$1='$2' is not a name of small letters, digits and hyphens" "for example --$1=my-run"
}

bucket() { # NAME VALUE: refuses what is not a gs:// URL
  case $2 in gs://?*) ;; *) refuse "--$1='$2' is not a place in Cloud Storage" "for example --$1=gs://BUCKET/my-run" ;; esac
}

given() { # NAME VALUE EXAMPLE: refuses an empty value
  [ -n "$2" ] || refuse "--$1 is missing" "for example --$1=$3"
}

needs() { # PROGRAM REMEDY: refuses to start without the program; a dry run does not need it
  [ -n "$dry_run" ] || command -v "$1" >/dev/null || refuse "$1 was not found" "$2"
}

do_it() { # COMMAND…: prints the command in a dry run, runs it otherwise
  if [ -n "$dry_run" ]; then
    quoted "$@"
    echo
  else
    "$@"
  fi
}

quoted() { # WORD…: prints the words quoted for a shell
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
    *) refuse "unknown word $1" "put the flags of xlkd.main after --" ;;
  esac
  shift
done
[ $# -gt 1 ] || refuse "nothing to run" "for example $script … -- --config=configs/gxlt.py"
shift
find_python() { # prints $PYTHON, else python on the path, else that of this checkout, else python3
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

main_has() { # FLAG: tells whether the command has the flag
  local word
  for word in "${main[@]}"; do case $word in "$1" | "$1"=*) return 0 ;; esac; done
  return 1
}
main_has --config || refuse "the command names no config" "add --config=FILE after --"
