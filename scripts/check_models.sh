#!/usr/bin/env bash
# Tries the published models, and one of each other architecture, at full size with random weights: see
# scripts/dev/try_architectures.py --help.
set -euo pipefail
# shellcheck source=scripts/python.sh
source "$(dirname "${BASH_SOURCE[0]}")/python.sh"
PYTHONPATH="$top/scripts:$PYTHONPATH" exec "$PYTHON" "$top/scripts/dev/try_architectures.py" --full "$@"
