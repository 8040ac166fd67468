# shellcheck shell=bash
# Sourced by shell scripts: the reader's language, chosen as in clue_utils/language.py.
speaks_chinese() {
  local locale="${LC_ALL:-${LC_MESSAGES:-${LANG:-C}}}" named name IFS=:
  case "${locale%%.*}" in
    C | POSIX) named="$locale" ;;
    *) named="${LANGUAGE:-$locale}" ;;
  esac
  for name in ${CLUE_LANG:-$named}; do
    case "$name" in
      [zZ][hH]*) return 0 ;;
      [eE][nN]*) return 1 ;;
    esac
  done
  return 1
}

say() { # ENGLISH CHINESE
  if speaks_chinese; then echo "$2"; else echo "$1"; fi
}
