#!/usr/bin/env bash
# One command from a bare machine with Python to zipped predictions: sets up the environment, makes demo data and a
# tiny demo model, then trains, evaluates and predicts every task on them. After the set-up nothing needs a network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/language.sh
source scripts/language.sh
[ $# -eq 0 ] || {
  say "error: quickstart.sh takes no arguments: bash scripts/quickstart.sh" \
    "error: quickstart.sh 不接受参数：bash scripts/quickstart.sh" >&2
  exit 2
}
bash scripts/setup_env.sh
# Not what PYTHON may name, which .venv was made with.
export PYTHON="$PWD/.venv/bin/python"
exec "$PYTHON" scripts/quickstart.py
