"""A few of the kills of tests/killing.py; ``python tests/killing.py --kills 50`` makes more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_killed_runs_end_as_if_they_never_were():
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("killing.py")), "--kills", "8"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| all | 8 | 8 |" in done.stdout
