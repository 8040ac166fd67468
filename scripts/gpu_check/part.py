"""Runs one part in this process; a part of ``gpu_check.__main__``.

usage: python -m gpu_check.part MODULE NAME DEVICE SCRATCH

Each check is a line of JSON on standard output; all else that is printed goes to standard error.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
from pathlib import Path

from clue_utils import cli
from gpu_check.checks import Check, Report
from gpu_check.jobs import Bench


def main() -> None:
    module, name, device, scratch = sys.argv[1:]
    with open(os.dup(1), "w", encoding="utf-8") as pipe:
        os.dup2(2, 1)

        def send(check: Check) -> None:
            print(json.dumps(dataclasses.asdict(check), ensure_ascii=False), file=pipe, flush=True)

        importlib.import_module(module).check(Report(name, send), Bench(device, Path(scratch)))


if __name__ == "__main__":
    cli.run(main)
