"""Several cards beside one: losses, evaluation, exchange, and how a run of several processes ends."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from gpu_check.checks import SLOW, Report
from gpu_check.jobs import NO_CARD, TINY, Bench

_LOSS_BOUND = 1e-5
_MEGABYTES = 25
# Ranks must be gone this many seconds after one was killed, and after SIGTERM: the launcher kills them after 30.
_GONE, _STOPPED = 10, 30


def check(report: Report, bench: Bench) -> None:
    cards = bench.num_cards
    device = "gpu" if cards > 1 else "cpu"
    why = NO_CARD if not bench.on_card else "one card"
    variables = {"OMP_NUM_THREADS": "1"} if device == "cpu" else {}
    flags = [*TINY, "--data_dir", bench.data, "--dropout", 0, "--save_steps", 100, "--device", device]
    trained = str(bench.folder("trained"))
    # What all call alike: the batch is shared out over the ranks.
    arguments: dict[str, Any] = {"model": str(bench.model), "trained": trained, "megabytes": _MEGABYTES}
    arguments["device_flags"] = ["--data_dir", bench.data, "--device", device, "--num_proc", 1]

    def flags_of(batch_size: int) -> list[object]:
        return [*flags, "--batch_size", batch_size, "--max_steps", 6]

    kind = "2 cards" if device == "gpu" else "2 processes on the CPU (gloo)"
    report.info("in place of two cards" if device == "cpu" else "ranks", kind)
    with report.failing("1 process beside 2 ranks"):
        bench.call(
            "train", variables=variables, task_name="TNEWS", model=str(bench.model), output=trained, flags=flags_of(8)
        )
        one = bench.call(
            "work_of_rank", variables=variables, output=bench.folder("one"), flags=flags_of(8), **arguments
        )
        folder = bench.folder("two")
        two, second = bench.call(
            "work_of_rank", num_ranks=2, variables=variables, output=folder, flags=flags_of(4), **arguments
        )
        report.at_most("losses of 2 ranks beside 1 process", largest(two["losses"], one["losses"]), _LOSS_BOUND)
        in_parts = largest(two["losses_in_parts"], one["losses"])
        report.at_most("losses of 2 ranks with 2 parts each", in_parts, _LOSS_BOUND)
        report.equal("logits of 2 ranks beside 1 process", two["logits"], one["logits"])
        report.equal("logits on the second rank", second["logits"], one["logits"])
        report.equal("weights of a second run of 2 ranks", two["weights"][1], two["weights"][0])
        report.info(f"all-reduce of {_MEGABYTES} MB", two["gb_per_second"], "GB/s")
        for is_on, seconds in two["seconds"].items():
            report.info(f"an update, find_unused_parameters {is_on}", 1000 * seconds, "ms")
    check_ends(report, bench, [*flags, "--batch_size", 4], variables)
    if device == "cpu":
        report.not_run("the same over NCCL", why)


def largest(found: list[float], expected: list[float]) -> float:
    """Largest difference of losses; infinite for lists of other lengths."""
    return float(np.abs(np.subtract(found, expected)).max()) if len(found) == len(expected) else float("inf")


def check_ends(report: Report, bench: Bench, flags: list[object], variables: dict[str, str]) -> None:
    """Kill a rank; ask the launcher to stop."""
    with report.failing("SIGKILL to rank 1"):
        process, pids, _ = started(bench, flags, variables)
        seconds = seconds_until_gone(process, pids, pids[1], signal.SIGKILL)
        report.at_most("SIGKILL to rank 1: all processes gone after", seconds, _GONE, "s")
    with report.failing("SIGTERM to the launcher"):
        process, pids, output = started(bench, flags, variables)
        seconds = seconds_until_gone(process, pids, process.pid, signal.SIGTERM)
        report.at_most("SIGTERM to the launcher: all gone after", seconds, _STOPPED, "s", otherwise=SLOW)
        found = [*output.glob("checkpoint-*/state.json")]
        report.equal("SIGTERM to the launcher: checkpoint", "there" if found else "missing", "there")


def started(bench: Bench, flags: list[object], variables: dict[str, str]) -> tuple[Any, list[int], Path]:
    """Start a run of two ranks that never ends; return launcher, the ranks' process numbers, its output folder."""
    folder = bench.folder("ended")
    program = bench.start_call(
        "train_until_killed", num_ranks=2, variables=variables, model=str(bench.model), output=folder, flags=flags
    )
    files = [folder / f"pid-{rank}" for rank in range(2)]
    program.wait_until(lambda: all(file.exists() and file.read_text() for file in files))
    return program.process, [int(file.read_text()) for file in files], folder / "run"


def seconds_until_gone(process: Any, pids: list[int], target: int, number: int) -> float:
    """Send a signal; return the seconds until launcher and ranks have ended."""
    begin = time.monotonic()
    os.kill(target, number)
    process.wait()
    while any(is_running(pid) for pid in pids):
        time.sleep(0.02)
    return time.monotonic() - begin


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
