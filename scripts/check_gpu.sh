#!/usr/bin/env bash
# Tries on this machine's GPUs what the project promises, without network: see scripts/gpu_check/__main__.py --help.
set -euo pipefail
# shellcheck source=scripts/python.sh
source "$(dirname "${BASH_SOURCE[0]}")/python.sh"
PYTHONPATH="$top/scripts:$PYTHONPATH" exec "$PYTHON" -m gpu_check "$@"
