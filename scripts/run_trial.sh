#!/usr/bin/env bash
# Runs one trial of the grid search: bash scripts/run_trial.sh --help tells more.
set -euo pipefail
# shellcheck source=scripts/python.sh
source "$(dirname "${BASH_SOURCE[0]}")/python.sh"
exec "$PYTHON" "$top/scripts/run_trial.py" "$@"
