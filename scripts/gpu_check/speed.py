"""How long updates, evaluations and checkpoints take, and whether the card or the host is waited for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clue_utils.settings import PRECISIONS
from gpu_check import jobs
from gpu_check.checks import SLOW, Report
from gpu_check.jobs import NO_CARD, TINY, Bench

# Task -> flags of its published shape: TNEWS 32 x 40, CMRC2018 24 x 512, C3 6 x 4 x 512.
SHAPES = {
    "TNEWS": ("--batch_size", 32, "--max_seq_length", 40),
    "CMRC2018": ("--batch_size", 24, "--max_seq_length", 512),
    "C3": ("--batch_size", 6, "--max_seq_length", 512),
}
_BASE = "ernie-3.0-base-zh"
# Below this share of the time of an update in kernels, the card waits for the host.
_BUSY = 0.8
_FLAGS = {
    "FLAGS_use_stride_kernel=0": {"FLAGS_use_stride_kernel": "0"},
    "FLAGS_cublas_allow_tf32=1": {"FLAGS_cublas_allow_tf32": "1"},
    "and FLAGS_use_legacy_linear=1": {"FLAGS_cublas_allow_tf32": "1", "FLAGS_use_legacy_linear": "1"},
}


def check(report: Report, bench: Bench) -> None:
    if bench.on_card:
        check_card(report, bench)
    else:
        flags = [*TINY, "--data_dir", bench.data, "--device", "cpu", "--save_steps", 10]
        with report.failing("updates of the demo model"):
            cost = measure(bench, "TNEWS", bench.model, [*flags, *save_always()], 3, 17)
            describe(report, "demo model, TNEWS", cost)
        report.not_run("kernels, copies and waits of an update", NO_CARD)
        report.not_run("12L768H at real shapes, each precision", NO_CARD)
    check_evaluation(report, bench)
    check_resume(report, bench)


def measure(bench: Bench, task: str, model: Path, flags: Any, warm: int, steps: int, **more: Any) -> dict[str, Any]:
    """See ``on_device.updates``."""
    variables = more.pop("variables", None)
    arguments = {"task_name": task, "model": model, "output": bench.folder("timed"), "flags": flags}
    cost: dict[str, Any] = bench.call("updates", variables=variables, warm=warm, steps=steps, **arguments, **more)
    return cost


def save_always() -> list[object]:
    """Flags with which a checkpoint is written within a few steps, so that it can be timed."""
    return ["--checkpoint_minutes", 0] if jobs.knows_flag("checkpoint_minutes") else []


def describe(report: Report, name: str, cost: dict[str, Any]) -> None:
    """The lines of a measured run."""
    seconds = cost["seconds"]
    report.info(f"{name}, updates", 1 / seconds, "1/s")
    report.info(f"{name}, records", cost["records"] / seconds, "1/s")
    report.info(f"{name}, tokens", cost["tokens"] / seconds, "1/s")
    report.info(f"{name}, padding", 100 * cost["padded"], "%")
    if "kernels" in cost:
        busy = cost["kernel_seconds"] / seconds
        kind = "the card is kept busy" if busy >= _BUSY else "launch-bound"
        report.info(f"{name}, {kind}: time in kernels", 100 * busy, "%")
        report.info(f"{name}, kernels of an update", cost["kernels"])
        report.info(f"{name}, host until all is asked for", 1000 * cost["host_seconds"], "ms")
        # A batch is at most five arrays, each copied by itself for each part.
        report.at_most(f"{name}, copies of an update", cost["copies"], 5, otherwise=SLOW)
        report.at_most(f"{name}, waits of an update", cost["waits"], 5, otherwise=SLOW)
    if cost["checkpoint"]:
        report.info(f"{name}, a checkpoint", cost["checkpoint"], "s")
        report.info(f"{name}, a checkpoint", cost["checkpoint_bytes"] / 1e6, "MB")


def check_card(report: Report, bench: Bench) -> None:
    """The base model at real shapes."""
    model, top = bench.folder("base"), bench.folder("long")
    data = top / "data"
    with report.failing("12L768H"):
        bench.call("make_base_model", name=_BASE, folder=model)
        bench.run([Path(__file__).parents[1] / "make_demo.py", "--output", top, "--records", 400])
        bench.call("lengthen", data=data)
    flags = ["--data_dir", data, "--device", "gpu", "--dropout", 0.1, "--save_steps", 10**6]
    for precision in [name for name in ("fp32", "tf32", "bf16") if name in PRECISIONS]:
        for task, shape in SHAPES.items():
            name = f"{task} {precision}"
            with report.failing(name):
                more = [*flags, *shape, "--precision", precision]
                more += save_always() if (task, precision) == ("TNEWS", "fp32") else []
                warm, steps = (5, 30) if task == "TNEWS" else (3, 8)
                describe(report, name, measure(bench, task, model, more, warm, steps, profiled=True))
    for name, variables in _FLAGS.items():
        with report.failing(name):
            cost = measure(bench, "TNEWS", model, [*flags, *SHAPES["TNEWS"]], 5, 30, variables=variables)
            report.info(f"TNEWS fp32 with {name}", 1 / cost["seconds"], "1/s")


def check_evaluation(report: Report, bench: Bench) -> None:
    """Records scored a second, by 64 rows and by tokens alone."""
    with report.failing("evaluation"):
        trained = bench.folder("trained")
        common = ["--data_dir", bench.data, "--device", bench.device, "--num_proc", 1]
        flags = [*TINY, *common, "--max_steps", 1]
        bench.call("train", task_name="TNEWS", model=bench.model, output=trained, flags=flags)
        sizes = (64, 64, 4096)  # the first warms up
        answers = bench.call("evaluate", model=trained, output=bench.folder("scored"), flags=common, batch_sizes=sizes)
        for size, answer in list(zip(sizes, answers, strict=True))[1:]:
            report.info(
                f"demo model, dev set, --eval_batch_size {size}", len(answer["logits"]) / answer["seconds"], "1/s"
            )


def check_resume(report: Report, bench: Bench) -> None:
    """A run that goes on is as fast as before."""
    with report.failing("speed after a resume"):
        flags = [*TINY, "--data_dir", bench.data, "--device", bench.device, "--save_steps", 10**6]
        found = bench.call("resumed_speed", model=bench.model, output=bench.folder("resumed"), flags=flags, steps=30)
        share = found["before"] / found["after"]
        report.at_least("speed of a resumed run, of that before", 100 * share, 80, "%", otherwise=SLOW)
