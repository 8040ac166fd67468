#!/usr/bin/env bash
# Predicts, checks and zips with a model's best checkpoints: bash scripts/predict_and_zip.sh --help tells more.
set -euo pipefail
# shellcheck source=scripts/python.sh
source "$(dirname "${BASH_SOURCE[0]}")/python.sh"
exec "$PYTHON" "$top/scripts/predict_and_zip.py" "$@"
