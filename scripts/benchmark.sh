#!/usr/bin/env bash
# Measures this project beside earlier scripts' ways and PyTorch: bash scripts/benchmark.sh (--help tells more).
set -euo pipefail
top="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-$top/.venv/bin/python}"
[ -n "${PYTHON:-}" ] || [ -x "$python" ] || python=python3
PYTHONPATH="$top/scripts:$top${PYTHONPATH:+:$PYTHONPATH}" exec "$python" "$top/scripts/dev/benchmark.py" "$@"
