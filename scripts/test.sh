#!/usr/bin/env bash
# Sets up the environment and runs the tests. Arguments go to pytest: bash scripts/test.sh -k evaluation
set -euo pipefail
top="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$top/scripts/setup_env.sh" --dev
cd "$top"
exec .venv/bin/python -m pytest -q "$@"
