#!/usr/bin/env bash
# Sets up the environment, checks style and types, and runs the tests. With arguments, which go to pytest, it runs those
# tests alone: bash scripts/test.sh -k evaluation
set -euo pipefail
top="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$top/scripts/setup_env.sh" --dev
cd "$top"
if [ $# -eq 0 ]; then
  .venv/bin/ruff check .
  .venv/bin/ruff format --check .
  .venv/bin/mypy
fi
# A worker for each processor; -n 0 runs all in one process.
exec .venv/bin/python -m pytest -q -rs -n auto --dist worksteal "$@"
