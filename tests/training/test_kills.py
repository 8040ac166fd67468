"""A few of the kills of tests/killing.py; ``python tests/killing.py --kills 50`` makes more, each time others."""

from __future__ import annotations

import subprocess
from pathlib import Path


def test_killed_runs_end_as_if_they_never_were(warm_python):
    words = ["-W", "ignore", str(Path(__file__).parents[1] / "killing.py"), "--kills", "8", "--seed", "6"]
    done = subprocess.run([warm_python, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| all | 8 | 8 |" in done.stdout
