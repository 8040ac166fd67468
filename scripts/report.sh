#!/usr/bin/env bash
# Reports on grid searches: bash scripts/report.sh MODEL... (--help tells more). MODEL is a folder or a model's name.
set -euo pipefail
# shellcheck source=scripts/python.sh
source "$(dirname "${BASH_SOURCE[0]}")/python.sh"
exec "$PYTHON" "$top/scripts/report.py" "$@"
