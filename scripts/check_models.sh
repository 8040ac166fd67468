#!/usr/bin/env bash
# Tries the nine published architectures at full size with random weights: see scripts/dev/check_models.py --help.
set -euo pipefail
top="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-$top/.venv/bin/python}"
[ -n "${PYTHON:-}" ] || [ -x "$python" ] || python=python3
PYTHONPATH="$top/scripts:$top${PYTHONPATH:+:$PYTHONPATH}" exec "$python" "$top/scripts/dev/check_models.py" "$@"
