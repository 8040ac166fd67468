#!/usr/bin/env bash
# Tries the nine published architectures at full size with random weights: see scripts/check_models.py --help.
set -euo pipefail
top="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-$top/.venv/bin/python}"
[ -n "${PYTHON:-}" ] || [ -x "$python" ] || python=python3
PYTHONPATH="$top${PYTHONPATH:+:$PYTHONPATH}" exec "$python" "$top/scripts/check_models.py" "$@"
