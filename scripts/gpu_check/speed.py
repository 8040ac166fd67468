"""How long updates, evaluations and checkpoints take, and whether the card or the host is waited for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpu_check.checks import SLOW, Report
from gpu_check.jobs import NO_CARD, TINY, Bench

# The published shapes: 32 x 40, 24 x 512, 6 x 4 x 512.
SHAPES: dict[str, dict[str, Any]] = {
    "TNEWS": {"flags": ["--batch_size", 32, "--max_seq_length", 40], "warm": 5, "steps": 30, "saved": True},
    "CMRC2018": {"flags": ["--batch_size", 24, "--max_seq_length", 512], "warm": 3, "steps": 8, "saved": False},
    "C3": {"flags": ["--batch_size", 6, "--max_seq_length", 512], "warm": 3, "steps": 8, "saved": False},
}
_BASE = "ernie-3.0-base-zh"
# Below this share of the time of an update in kernels, the card waits for the host.
_BUSY = 0.8
# Of the arrays of a batch (CMRC2018 has five) and of the learning rate; nothing else goes to the card or is waited for.
_COPIES = 6
_FLAGS = {
    "FLAGS_use_stride_kernel=0": {"FLAGS_use_stride_kernel": "0"},
    "FLAGS_cublas_allow_tf32=1": {"FLAGS_cublas_allow_tf32": "1"},
    "FLAGS_use_legacy_linear=1 too": {"FLAGS_cublas_allow_tf32": "1", "FLAGS_use_legacy_linear": "1"},
}


def check(report: Report, bench: Bench) -> None:
    if bench.on_card:
        check_card(report, bench)
    else:
        flags = [*TINY, "--data_dir", bench.data, "--device", "cpu"]
        with report.failing("demo model, TNEWS"):
            shapes = {"TNEWS": {"flags": [], "warm": 3, "steps": 17, "saved": True}}
            describe(report, "demo model, TNEWS", updates(bench, bench.model, flags, shapes)["TNEWS"])
        report.not_run("kernels, copies and waits of an update", NO_CARD)
        report.not_run("12L768H at real shapes, each precision", NO_CARD)
    check_evaluation(report, bench)
    check_resume(report, bench)


def updates(bench: Bench, model: Path, flags: Any, shapes: Any, **more: Any) -> dict[str, dict[str, Any]]:
    """See ``on_device.updates_of_tasks``."""
    output = bench.folder("timed")
    costs: dict[str, dict[str, Any]] = bench.call(
        "updates_of_tasks", model=model, output=output, flags=flags, shapes=shapes, **more
    )
    return costs


def describe(report: Report, name: str, cost: dict[str, Any]) -> None:
    """The lines of a measured run."""
    seconds = cost["seconds"]
    report.info(f"{name}, updates", 1 / seconds, "1/s")
    report.info(f"{name}, records", cost["records"] / seconds, "1/s")
    report.info(f"{name}, tokens", cost["tokens"] / seconds, "1/s")
    report.info(f"{name}, padding", 100 * cost["padded"], "%")
    if cost.get("kernels"):
        busy = cost["kernel_seconds"] / seconds
        kind = "the card is kept busy" if busy >= _BUSY else "launch-bound"
        report.info(f"{name}, {kind}: time in kernels", 100 * busy, "%")
        report.info(f"{name}, kernels of an update", cost["kernels"])
        report.info(f"{name}, host until all is asked for", 1000 * cost["host_seconds"], "ms")
        report.at_most(f"{name}, copies of an update", cost["copies"], _COPIES, otherwise=SLOW)
        report.at_most(f"{name}, waits of an update", cost["waits"], _COPIES, otherwise=SLOW)
    elif "kernels" in cost:
        report.not_run(f"{name}, kernels of an update", "Paddle's profiler saw none: no CUPTI")
    if cost["evaluation"]:
        report.info(f"{name}, an evaluation", cost["evaluation"], "s")
    if cost["checkpoint"]:
        report.info(f"{name}, a checkpoint", cost["checkpoint"], "s")
        report.info(f"{name}, size of a checkpoint", cost["checkpoint_bytes"] / 1e6, "MB")
        report.info(f"{name}, a checkpoint beside 100 updates", cost["checkpoint"] / seconds, "%")


def check_card(report: Report, bench: Bench) -> None:
    """The base model at real shapes."""
    model, flags = bench.random_model(_BASE), ["--data_dir", bench.long_data, "--device", "gpu", "--dropout", 0.1]
    for precision in ("fp32", "tf32", "bf16"):
        with report.failing(f"12L768H {precision}"):
            more = [*flags, "--precision", precision]
            found = updates(bench, model, more, SHAPES, profiled=True)
            for task, cost in found.items():
                describe(report, f"{task} {precision}", cost)
            found = updates(bench, model, [*more, "--fused_attention"], {"C3": SHAPES["C3"]})
            report.info(f"C3 {precision} with --fused_attention, updates", 1 / found["C3"]["seconds"], "1/s")
    for name, variables in _FLAGS.items():
        with report.failing(name):
            shapes = {"TNEWS": SHAPES["TNEWS"] | {"saved": False}}
            found = updates(bench, model, flags, shapes, variables=variables)
            report.info(f"TNEWS fp32 with {name}, updates", 1 / found["TNEWS"]["seconds"], "1/s")


def check_evaluation(report: Report, bench: Bench) -> None:
    """Records scored a second, by 64 rows and by tokens alone; of the base model on a card."""
    with report.failing("evaluation"):
        model, data = (bench.random_model(_BASE), bench.long_data) if bench.on_card else (bench.model, bench.data)
        trained, name = bench.folder("trained"), "12L768H" if bench.on_card else "demo model"
        common = ["--data_dir", data, "--device", bench.device, "--num_proc", 1, "--max_seq_length", 40]
        flags = [*common, "--max_steps", 1, "--batch_size", 8]
        bench.call("train", task_name="TNEWS", model=model, output=trained, flags=flags)
        sizes = (64, 64, 4096)  # the first warms up
        answers = bench.call("evaluate", model=trained, output=bench.folder("scored"), flags=common, batch_sizes=sizes)
        for size, answer in list(zip(sizes, answers, strict=True))[1:]:
            rate = len(answer["logits"]) / answer["seconds"]
            report.info(f"{name}, records of TNEWS by --eval_batch_size {size}", rate, "1/s")


def check_resume(report: Report, bench: Bench) -> None:
    """A run that goes on is as fast as before."""
    with report.failing("speed after a resume"):
        flags = [*TINY, "--data_dir", bench.data, "--device", bench.device, "--save_steps", 10**6]
        found = bench.call("resumed_speed", model=bench.model, output=bench.folder("resumed"), flags=flags, steps=30)
        share = found["before"] / found["after"]
        report.at_least("speed of a resumed run, of that before", 100 * share, 80, "%", otherwise=SLOW)
