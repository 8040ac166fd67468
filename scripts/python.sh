# shellcheck shell=bash
# Sourced by the scripts beside it: sets top, the project's folder, and PYTHON, the interpreter to hand over to, unless
# that is set already (default: the project's .venv, else python3), and lets it find the project's modules.
top="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
[ -n "${PYTHON:-}" ] || [ ! -x "$top/.venv/bin/python" ] || PYTHON="$top/.venv/bin/python"
export PYTHON="${PYTHON:-python3}" PYTHONPATH="$top${PYTHONPATH:+:$PYTHONPATH}"
command -v "$PYTHON" >/dev/null || {
  echo "error: PYTHON=$PYTHON: no such program; bash scripts/setup_env.sh makes one" >&2
  exit 2
}
