"""What the checks say of README.md's claims, and what takes longest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clue_utils.errors import shorten
from gpu_check.checks import FAIL, NOT_RUN, OK, WIDTH, Check

# Claim of README.md -> part and what the names of the checks begin with that tell whether it holds.
CLAIMS: dict[str, tuple[tuple[str, str], ...]] = {
    "a GPU is taken where there is one, --device is kept": (("device", ""),),
    "fp32 is IEEE float32, and the scores are the CPU's": (
        ("precision", "--precision fp32"),
        ("precision", "fp32"),
    ),
    "bf16 and fp16 train": (("precision", "bf16"), ("precision", "fp16")),
    "scores do not depend on --eval_batch_size": (("precision", "CPU, logits in batches"),),
    "the same command gives the same weights": (
        ("determinism", "fp32, weights of a second"),
        ("determinism", "fp16, weights of a second"),
    ),
    "what makes it quick changes no score": (
        ("determinism", "fp32, weights of Paddle's"),
        ("determinism", "fp16, weights of Paddle's"),
    ),
    "after kill -9 it ends with bit-identical weights": (
        ("determinism", "fp32, killed"),
        ("determinism", "fp16, killed"),
    ),
    "results do not depend on the number of GPUs": (("cards", "losses of 2 ranks beside"), ("cards", "logits")),
    "--gradient_accumulation_steps keeps the batch": (("cards", "losses of 2 ranks with 2 parts"),),
    "SIGTERM writes a checkpoint first": (("cards", "SIGTERM"),),
    "out of memory: one line says what to pass": (("memory", "training that does not fit"),),
    "run_trial.sh goes on where memory runs out": (("memory", "run_trial.sh"),),
    "a grid search runs, and its predictions are zipped": (("processes", "grid"), ("processes", "predict_and_zip")),
    "the Trainer trains, goes on and exports": (("processes", "Trainer"),),
}


def claims(checks: Sequence[Check]) -> list[dict[str, str]]:
    """Each claim with ``status`` and what was ``measured``; those that nothing was asked about are left out.

    A claim holds if none of its checks failed and at least one was run.
    """
    found = []
    for claim, sources in CLAIMS.items():
        mine = [check for check in checks if any(check.part == p and check.name.startswith(n) for p, n in sources)]
        run = [check for check in mine if check.status != NOT_RUN]
        failed = [check for check in mine if check.status == FAIL]
        if not mine:
            continue
        held = [check for check in run if check.bound is not None or check.status == OK]
        if failed:
            measured = f"{failed[0].name}: {failed[0].shown_value or failed[0].note}"
        else:
            measured = f"{len(held)} check{'s' if held[1:] else ''}, {held[0].shown_value}" if held else ""
        status = FAIL if failed else OK if held else NOT_RUN
        found.append({"claim": claim, "status": status, "measured": measured})
    return found


def slowest(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """The three things that take longest of 100 updates of a run, each with the flag to try; in seconds."""
    values = {(check.name, check.unit): check.value for check in checks if check.part == "speed"}
    items: list[dict[str, Any]] = []
    for (name, unit), value in values.items():
        if not isinstance(value, (int, float)) or value <= 0:
            continue
        if name.endswith(", updates") and unit == "1/s":
            run = name.removesuffix(", updates")
            is_bound = any(other.startswith(f"{run}, launch-bound") for other, _ in values)
            hint = "a larger --batch_size, or more trials at a time" if is_bound else _hint(run)
            items.append({"what": f"100 updates, {run}", "value": 100 / value, "unit": "s", "try": hint})
        elif name.endswith("a checkpoint") and unit == "s":
            hint = "--checkpoint_minutes, or a faster disk for --output_dir"
            items.append({"what": name, "value": value, "unit": "s", "try": hint})
        elif "by --eval_batch_size" in name:
            what = f"1,000 {name.partition(', ')[2]}"
            items.append({"what": what, "value": 1e3 / value, "unit": "s", "try": "fewer evaluations: --save_steps"})
    return sorted(items, key=lambda item: -float(item["value"]))[:3]


def _hint(run: str) -> str:
    if run.endswith("fp32"):
        return "--precision tf32 or bf16"
    return "--precision bf16" if run.endswith("tf32") else "--group_by_length"


def text(claimed: Sequence[dict[str, str]], slow: Sequence[dict[str, Any]]) -> str:
    """Both for a terminal."""
    lines = ["what README.md says"] if claimed else []
    lines += [shorten(f"  {one['status']:<9}{one['claim']:<53}{one['measured']}", WIDTH) for one in claimed]
    lines += ["", "slowest"] if slow else []
    lines += [
        shorten(f"  {one['value']:>7.3g} {one['unit']}  {one['what']:<46} try {one['try']}", WIDTH) for one in slow
    ]
    return "\n".join([*lines, ""]) if lines else ""
