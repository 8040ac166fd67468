"""The numbers that each --precision gives, beside those of the CPU: scores of one checkpoint, and losses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpu_check.checks import Report
from gpu_check.jobs import NO_CARD, TINY, Bench

# Largest difference of a logit, relative to the largest one where that is above 1.
BOUNDS = {"fp32": 1e-4, "tf32": 5e-3, "bf16": 3e-2, "fp16": 1e-2}
_CURVE = 0.02
# Relative errors of products: IEEE float32 stays below the first, TF32 below the second.
_FP32, _TF32 = 2e-5, 1.5e-3
_DROPOUT_OFF = (*TINY, "--dropout", 0)


def kind_of(error: float) -> str:
    """Which number type a relative error of matrix products tells of."""
    return "fp32" if error < _FP32 else "TF32" if error < _TF32 else "half"


def difference(found: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]) -> float:
    """Largest difference of logits, relative to the largest expected one where that is above 1."""
    a, b = np.array(found), np.array(expected)
    return float(np.abs(a - b).max() / max(1.0, np.abs(b).max()))


def agreement(found: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]) -> float:
    """Share of rows with the same label."""
    return float((np.array(found).argmax(axis=1) == np.array(expected).argmax(axis=1)).mean())


def curve_difference(found: Sequence[float], expected: Sequence[float]) -> float:
    """Mean distance of two loss curves, relative to the expected mean; infinite for curves of other lengths."""
    if len(found) != len(expected) or not found:
        return float("inf")
    return float(np.abs(np.array(found) - expected).mean() / np.mean(expected))


def check(report: Report, bench: Bench) -> None:
    check_products(report, bench)
    model, flags = str(bench.model), [*_DROPOUT_OFF, "--data_dir", bench.data, "--save_steps", 100]

    def learn(device: str, precision: str, steps: int, output: str) -> list[float]:
        more = ["--device", device, "--precision", precision, "--max_steps", steps, "--task_name", "TNEWS"]
        found = bench.call("train", task_name="TNEWS", model=model, output=output, flags=[*flags, *more])
        losses: list[float] = found["losses"]
        return losses

    def scores(
        device: str, precision: str, sizes: Sequence[int] = (64,), flags: Sequence[object] = ()
    ) -> list[list[list[float]]]:
        more = ["--data_dir", bench.data, "--device", device, "--precision", precision, *flags]
        output = bench.folder("scores")
        found = bench.call("evaluate", model=trained, output=output, flags=more, batch_sizes=sizes)
        return [answer["logits"] for answer in found]

    trained = str(bench.folder("trained"))
    with report.failing("50 updates on the CPU"):
        expected = learn("cpu", "fp32", 50, trained)
        report.at_most(
            "CPU, mean loss of the last 10 of 50 updates", float(np.mean(expected[-10:])), float(np.mean(expected[:10]))
        )
        logits, alone = scores("cpu", "fp32", (64, 5))
        report.at_most("CPU, logits in batches of 5 beside 64", difference(alone, logits), BOUNDS["fp32"])
        if not bench.on_card:
            report.not_run("fp32, tf32, bf16, fp16 of a card beside the CPU", NO_CARD)
            return
        for precision, bound in BOUNDS.items():
            with report.failing(f"{precision} beside the CPU"):
                (found,) = scores("gpu", precision)
                report.at_most(f"{precision}, logits beside the CPU's", difference(found, logits), bound)
                report.info(f"{precision}, same labels as the CPU", 100 * agreement(found, logits), "%")
                (fused,) = scores("gpu", precision, flags=["--fused_attention"])
                report.at_most(f"{precision} with --fused_attention", difference(fused, logits), bound)
                losses = learn("gpu", precision, 50, str(bench.folder("learnt")))
                report.at_most(
                    f"{precision}, loss curve beside the CPU's",
                    100 * curve_difference(losses, expected),
                    100 * _CURVE,
                    "%",
                )


def check_products(report: Report, bench: Bench) -> None:
    """Whether fp32 is IEEE float32, and tf32 TF32, in each kind of product."""
    size = 2048 if bench.on_card else 512
    kinds = [("fp32", "fp32")] + ([("tf32", "TF32")] if bench.on_card else [])
    for precision, expected in kinds:
        with report.failing(f"products of --precision {precision}"):
            found = bench.call("product_errors", requested=bench.device, precision=precision, size=size)
            for name, error in found.items():
                report.equal(f"--precision {precision}, {name} ({error:.0e} off)", kind_of(error), expected)
