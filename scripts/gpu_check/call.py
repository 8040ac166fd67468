"""Calls one function of ``gpu_check.on_device`` in this process, which may be a rank; a part of ``gpu_check.jobs``.

usage: call.py FUNCTION FILE; FILE holds the keyword arguments as JSON. What the function returns is written beside it.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

sys.path.pop(0)  # this folder, whose modules are those of a package

from clue_utils import cli, environment, ranks  # noqa: E402
from clue_utils.files import write_text_atomically  # noqa: E402


def main() -> None:
    function, arguments = sys.argv[1], Path(sys.argv[2])
    environment.load_libraries()
    called = getattr(importlib.import_module("gpu_check.on_device"), function)
    answer = called(**json.loads(arguments.read_text(encoding="utf-8")))
    write_text_atomically(arguments.with_name(f"answer-{ranks.rank()}.json"), json.dumps(answer))


if __name__ == "__main__":
    cli.run(main)
