#!/usr/bin/env bash
# Tries the nine published architectures at full size with random weights: see scripts/check_models.py --help.
set -euo pipefail
top="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="$top/.venv/bin/python"
[ -x "$python" ] || python=python
exec "$python" "$top/scripts/check_models.py" "$@"
