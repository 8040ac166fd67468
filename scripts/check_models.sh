#!/usr/bin/env bash
# Tries the nine published architectures at full size with random weights: see scripts/dev/check_models.py --help.
set -euo pipefail
# shellcheck source=scripts/python.sh
source "$(dirname "${BASH_SOURCE[0]}")/python.sh"
PYTHONPATH="$top/scripts:$PYTHONPATH" exec "$PYTHON" "$top/scripts/dev/check_models.py" "$@"
