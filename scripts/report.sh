#!/usr/bin/env bash
# Reports on grid searches: bash scripts/report.sh MODEL... (--help tells more). MODEL is a folder or a model's name.
set -euo pipefail
top="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-$top/.venv/bin/python}"
[ -n "${PYTHON:-}" ] || [ -x "$python" ] || python=python3
PYTHONPATH="$top${PYTHONPATH:+:$PYTHONPATH}" exec "$python" "$top/scripts/report.py" "$@"
