"""Runs one part in this process; a part of ``gpu_check.__main__``.

usage: python -m gpu_check.part MODULE NAME DEVICE SCRATCH DESCRIPTOR

Each check is written, as a line of JSON, to the open file that DESCRIPTOR numbers.
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
    module, name, device, scratch, descriptor = sys.argv[1:]
    os.set_inheritable(int(descriptor), False)  # what a process that was left behind holds open is waited for
    with open(int(descriptor), "w", encoding="utf-8") as pipe:

        def send(check: Check) -> None:
            print(json.dumps(dataclasses.asdict(check), ensure_ascii=False), file=pipe, flush=True)

        importlib.import_module(module).check(Report(name, send), Bench(device, Path(scratch)))


if __name__ == "__main__":
    cli.run(main)
