"""Runs one of the project's programs with memory for a few tokens; a part of ``gpu_check.memory``.

usage: limited.py TOKENS SCRIPT FLAG...
"""

from __future__ import annotations

import importlib
import sys

sys.path.pop(0)  # this folder, whose modules are those of a package

from clue_utils import environment  # noqa: E402

if __name__ == "__main__":
    environment.load_libraries()
    importlib.import_module("gpu_check.on_device").run_limited(int(sys.argv[1]), sys.argv[2:])
