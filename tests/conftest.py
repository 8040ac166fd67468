"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def clue_data_dir() -> Path:
    """The folder with real records, in the official layout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "clue"
    folder = Path(os.environ.get("CLUE_DATA_DIR") or beside)
    if not folder.is_dir():
        pytest.skip(f"needs real records: set CLUE_DATA_DIR ({folder} is not a folder)")
    return folder
