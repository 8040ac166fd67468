# shellcheck shell=bash
# Sourced by the scripts beside it: sets top, the project's folder, and PYTHON, the interpreter to hand over to, unless
# that is set already (default: the project's .venv, else python3), and lets it find the project's modules.
# shellcheck source=scripts/language.sh
source "$(dirname "${BASH_SOURCE[0]}")/language.sh"
top="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
[ -n "${PYTHON:-}" ] || [ ! -x "$top/.venv/bin/python" ] || PYTHON="$top/.venv/bin/python"
export PYTHON="${PYTHON:-python3}" PYTHONPATH="$top${PYTHONPATH:+:$PYTHONPATH}"
command -v "$PYTHON" >/dev/null || {
  say "error: PYTHON=$PYTHON: no such program; bash scripts/setup_env.sh makes one" \
    "error: PYTHON=$PYTHON：没有这个程序；可用 bash scripts/setup_env.sh 安装" >&2
  exit 2
}
