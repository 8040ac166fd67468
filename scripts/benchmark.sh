#!/usr/bin/env bash
# Measures this project beside earlier scripts' ways and PyTorch: bash scripts/benchmark.sh (--help tells more).
set -euo pipefail
# shellcheck source=scripts/python.sh
source "$(dirname "${BASH_SOURCE[0]}")/python.sh"
PYTHONPATH="$top/scripts:$PYTHONPATH" exec "$PYTHON" "$top/scripts/dev/benchmark.py" "$@"
