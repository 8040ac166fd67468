#!/usr/bin/env bash
# Runs the trials of a model's grid search side by side: bash scripts/grid_search.sh MODEL (--help tells more).
set -euo pipefail
# shellcheck source=scripts/python.sh
source "$(dirname "${BASH_SOURCE[0]}")/python.sh"
exec "$PYTHON" "$top/scripts/grid_search.py" "$@"
