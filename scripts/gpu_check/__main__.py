#!/usr/bin/env python
"""Try on this machine's GPUs what the project promises: device, numbers, equal bits, several cards, memory, speed.

Takes less than ten minutes and no network: weights are random, the data is that of scripts/make_demo.py. Each check is
a line: ok, FAIL, slow (a bound on time is missed) or not run, its name, the value, the bound. Where there is no GPU
the same is tried on the CPU, as far as it goes. The output folder then holds gpu-check.md, to paste into an issue,
gpu-check.json with the same for programs, and the log of each part.

Exit status: 0 if nothing failed, 1 if something did, 2 for a wrong flag.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clue_utils import cli, language
from clue_utils.errors import UserError
from clue_utils.grid import trial
from clue_utils.language import later, say
from gpu_check import document, verdict
from gpu_check.checks import FAIL, Check, anonymous

# Marks the processes of a check in their environment: Paddle's launcher gives each rank a session of its own.
_MARK = "CLUE_GPU_CHECK"
# How often they are killed: what waits for a driver that hangs cannot be ended by anyone.
_KILLS = 250


@dataclass(frozen=True)
class Part:
    """A part of the check.

    Attributes:
        seconds: limit, after which it is ended with all that it has started.
    """

    name: str
    title: str
    module: str
    seconds: float


PARTS = (
    Part("machine", later("cards, driver, build of Paddle, disk"), "gpu_check.machine", 60),
    Part("device", later("what --device chooses, alone and under the launcher"), "gpu_check.device_choice", 180),
    Part("precision", later("numbers of each --precision beside the CPU's"), "gpu_check.precision", 180),
    Part("determinism", later("the same bits again, and after kill -9"), "gpu_check.determinism", 240),
    Part("cards", later("several cards beside one"), "gpu_check.several_cards", 240),
    Part("memory", later("when it runs out, and what real sizes take"), "gpu_check.memory", 360),
    Part("speed", later("updates, evaluation, checkpoints"), "gpu_check.speed", 300),
    Part("processes", later("new test set, grid, zip, Trainer"), "gpu_check.processes", 240),
)


@dataclass(frozen=True)
class Ended:
    """How long a part took, in seconds, and what cut it short, "" for nothing."""

    part: Part
    seconds: float
    cut_short: str


def run_part(part: Part, device: str, scratch: Path, log: Path, take: Callable[[Check], None]) -> Ended:
    """Run a part in a process of its own; ``take`` each check as it comes. None of its processes is left."""
    mark = f"{os.getpid()}-{secrets.token_hex(8)}"
    begin = time.monotonic()
    # Of a wheel this package is found by no one else.
    python_path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    variables = {_MARK: mark, "PYTHONPATH": python_path, language.VARIABLE: "en"}  # what it says is for developers
    words = [sys.executable, "-m", "gpu_check.part", part.module, part.name, device, str(scratch)]
    is_over = threading.Event()

    def end() -> None:
        is_over.set()
        kill_marked(mark)

    with open(log, "w", encoding="utf-8") as output:
        # Ctrl-C in a terminal reaches it through this process alone.
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            env=os.environ | variables,
            start_new_session=True,
            text=True,
            encoding="utf-8",
        )
        timer = threading.Timer(part.seconds, end)
        timer.start()
        try:
            for line in process.stdout or ():
                with contextlib.suppress(ValueError):  # the last one, of a process that was killed
                    take(Check(**json.loads(line)))
            status = process.wait()
        finally:
            timer.cancel()
            kill_marked(mark)
            process.wait()
    seconds = time.monotonic() - begin
    *_, last = "", *filter(str.strip, trial.last_lines(log, 50))
    if is_over.is_set():
        cut_short = f"not done after {part.seconds:g} s; its last line: {last.strip()}"
    elif status < 0:
        cut_short = f"ended by {signal.Signals(-status).name}; its last line: {last.strip()}"
    else:
        cut_short = last.strip() or f"ended with status {status}" if status else ""
    return Ended(part, seconds, anonymous(cut_short))


def kill_marked(mark: str) -> None:
    """Kill the processes that a part has started, and itself."""
    entry = f"{_MARK}={mark}".encode()
    for _ in range(_KILLS):  # one may start another while this goes on
        found = False
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                if entry in (path / "environ").read_bytes().split(b"\0"):
                    os.kill(int(path.name), signal.SIGKILL)
                    found = True
        if not found:
            return
        time.sleep(0.02)


def default_device() -> str:
    """What is tried without ``--device``: a GPU where there is one."""
    return "gpu" if trial.visible_gpus() else "cpu"


def main(argv: list[str] | None = None) -> None:
    names = [part.name for part in PARTS]
    parser = cli.Parser(
        usage="bash scripts/check_gpu.sh [--output_dir DIR] [--device gpu|cpu] [--only PART...]",
        description=__doc__,
        epilog="\n".join([say("parts:"), *(f"  {part.name:<22}  {say(part.title)}" for part in PARTS)]),
    )
    parser.add_argument(
        "--output_dir", type=Path, default=Path("gpu-check"), metavar="DIR", help="folder (default: %(default)s)"
    )
    parser.add_argument("--device", choices=("gpu", "cpu"), help="what to try (default: gpu where there is one)")
    parser.add_argument("--only", nargs="+", choices=names, metavar="PART", help="only these parts (default: all)")
    args = parser.parse_args(argv)
    device = args.device or default_device()
    if device == "gpu" and not trial.visible_gpus():
        raise UserError(
            say("--device gpu: no GPU is visible (nvidia-smi lists none, or CUDA_VISIBLE_DEVICES hides it)")
        )
    chosen = [part for part in PARTS if part.name in (args.only or names)]
    output: Path = args.output_dir.absolute()
    logs = output / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".scratch-", dir=output))
    checks: list[Check] = []
    ended: list[Ended] = []

    def take(check: Check) -> None:
        checks.append(check)
        print(check.line(), flush=True)

    try:
        print(
            f"{'GPU' if device == 'gpu' else 'No GPU: on the CPU'}, {len(chosen)} parts; logs: {args.output_dir}/logs"
        )
        for part in chosen:
            print(f"\n{part.name}: {part.title}", flush=True)
            ended.append(run_part(part, device, scratch, logs / f"{part.name}.log", take))
            if ended[-1].cut_short:
                take(Check(part.name, "the whole part", FAIL, note=ended[-1].cut_short))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    outcome = document.outcome(device, checks, ended)
    document.write(output, outcome)
    print(f"\n{verdict.text(outcome['verdict'], outcome['slowest'])}")
    for check in checks:
        if check.status == FAIL:
            print(f"{FAIL} {check.part}: {check.name}")
    print(f"{document.summary(outcome)}; {args.output_dir}/gpu-check.md is to paste into an issue")
    sys.exit(1 if outcome["counts"][FAIL] else 0)


if __name__ == "__main__":
    cli.run(main)
