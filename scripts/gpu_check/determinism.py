"""The same command gives the same bits: again, and after SIGKILL."""

from __future__ import annotations

import contextlib
from typing import Any

from clue_utils.errors import UserError
from gpu_check import jobs
from gpu_check.checks import Report
from gpu_check.jobs import NO_CARD, TINY, Bench

_STEPS, _KILLED_AT = 30, 15
_SWITCHED_OFF = {"FLAGS_embedding_deterministic": "0", "FLAGS_cudnn_deterministic": "0"}


def check(report: Report, bench: Bench) -> None:
    compare(report, bench, "fp32", "fp32")
    if not bench.on_card:
        report.not_run("fp16, whose loss scale is part of a checkpoint", NO_CARD)
        report.not_run("without Paddle's deterministic flags", NO_CARD)
        return
    compare(report, bench, "fp16", "fp16")
    with report.failing("without Paddle's deterministic flags"):
        digests = [train(bench, "fp32", variables=_SWITCHED_OFF)["weights"] for _ in range(2)]
        report.info("without Paddle's deterministic flags", "same bits" if digests[0] == digests[1] else "other bits")


def compare(report: Report, bench: Bench, name: str, precision: str) -> None:
    """Two runs, and one that is killed and goes on."""
    with report.failing(f"{name}, weights of a second run"):
        whole = train(bench, precision)
        report.equal(f"{name}, weights of a second run", train(bench, precision)["weights"], whole["weights"])
        check_killed(report, bench, name, precision, whole["weights"])
    with report.failing(f"{name}, weights of Paddle's own layers and optimizer"):
        plain = train(bench, precision, plain=True)
        report.equal(f"{name}, weights of Paddle's own layers and optimizer", plain["weights"], whole["weights"])


def check_killed(report: Report, bench: Bench, name: str, precision: str, expected: str) -> None:
    """A run that is killed and goes on ends with the expected weights."""
    folder = bench.folder("killed")
    with contextlib.suppress(UserError):
        train(bench, precision, str(folder), kill_at=_KILLED_AT)
    name = f"{name}, killed at step {_KILLED_AT} and resumed"
    if not [*folder.glob("checkpoint-*")]:
        report.fail(name, "no checkpoint was there to go on from")
        return
    report.equal(name, train(bench, precision, str(folder))["weights"], expected)
    if bench.on_card:
        card = jobs.result(folder).get("card")
        if card:
            report.holds("result.json names the card", str(card["name"]))
        else:
            report.fail("result.json names the card", "it names none")


def train(
    bench: Bench,
    precision: str,
    output: str = "",
    variables: dict[str, str] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A run of few steps with dropout, evaluations and checkpoints; see ``on_device.train``."""
    flags: list[object] = [*TINY, "--data_dir", bench.data, "--device", bench.device, "--precision", precision]
    flags += ["--dropout", 0.1, "--max_steps", _STEPS, "--save_steps", 10, "--checkpoint_minutes", 0]
    arguments: dict[str, Any] = {"model": bench.model, "output": output or bench.folder("whole"), "flags": flags}
    found: dict[str, Any] = bench.call("train", variables=variables, task_name="TNEWS", **arguments, **more)
    return found
