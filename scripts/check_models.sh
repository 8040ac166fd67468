#!/usr/bin/env bash
# Tries the nine published architectures at full size with random weights: see scripts/check_models.py --help.
set -euo pipefail
# shellcheck source=scripts/python.sh
source "$(dirname "${BASH_SOURCE[0]}")/python.sh"
exec "$PYTHON" "$top/scripts/check_models.py" "$@"
