#!/usr/bin/env python
"""Run a training script once and write what it cost as JSON; a part of scripts/dev/benchmark.py.

usage: benchmark_job.py {plain,ours} REPORT NUM_RECORDS [--no_model] SCRIPT FLAG...

``plain`` runs the same job the way earlier PaddleNLP-style scripts do, with everything taken out that this project does
for speed: Paddle's own thread settings and kernels; classification texts tokenised again whenever a record is read,
reading tasks encoded by one process at every start; evaluation in file order at the training batch size. Records,
batches, weights and dropout are those of ``ours``. With ``--no_model`` neither computes anything.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

BEGIN = time.time()
TOP = Path(__file__).resolve().parents[2]
# How often 2048 x 2048 float32 matrices are multiplied to find the machine's rate, and operations of one product.
PRODUCTS, PRODUCT_OPERATIONS = 10, 2 * 2048**3


def measure_matrix_rate(matrix: Any) -> float:
    """Operations per second of products of a float32 tensor [2048, 2048] in this process's settings."""
    seconds = []
    for _ in range(PRODUCTS):
        begin = time.perf_counter()
        float((matrix @ matrix)[0, 0])
        seconds.append(time.perf_counter() - begin)
    return PRODUCT_OPERATIONS / float(np.median(seconds))


class Encoded(Sequence[Any]):
    """Features that are encoded whenever they are read; for methods with one feature a record."""

    def __init__(self, records: Any, method: Any) -> None:
        self.records, self.method = records, method

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: Any) -> Any:
        feature = self.method.encode(self.records[index])[0]
        return {name: np.array(value) if isinstance(value, list) else value for name, value in feature.items()}

    def column(self, name: str) -> np.ndarray:
        return np.array([record.get(name, -1) for record in self.records])

    def sizes(self) -> np.ndarray:
        return np.zeros(len(self), np.int64)


def swap(owner: Any, **functions: Any) -> None:
    """Put other functions in the place of those of a module or class."""
    for name, function in functions.items():
        setattr(owner, name, function)


def make_plain(batch_size: int) -> None:
    """Take out what this project does for speed."""
    from clue_utils.features import build, tokenization
    from clue_utils.models import cpu_layers
    from clue_utils.training import predict, session

    swap(cpu_layers, tune=lambda: None, speed_up=lambda model: None)
    swap(tokenization.PieceIds, __call__=tokenization.PieceIds._ask)
    build_features = build.build_features

    def build_alone(records: Any, method: Any, tokenizer: Any, cache: Path, *_: Any) -> Any:
        if method.settings()["method"] == "classification":
            return Encoded(records, method)
        return build_features(records, method, tokenizer, cache, 1, True)

    def file_order(sizes: np.ndarray, *_: int) -> list[np.ndarray]:
        return [np.arange(i, min(i + batch_size, len(sizes))) for i in range(0, len(sizes), batch_size)]

    swap(session, build_features=build_alone)
    swap(predict, length_ordered_batches=file_order)


def remove_model() -> None:
    """Let losses be one and logits zero at no cost, so that what remains is what the loops themselves cost."""
    import paddle

    from clue_utils.training import session

    def compute_loss(_: Any, model: Any, batch: Any) -> Any:
        return paddle.ones([len(batch["input_ids"])]) + 0 * model.parameters()[-1].sum()

    def forward(owner: Any, _: Any, batch: Any) -> Any:
        columns = batch["input_ids"].shape[1]  # choices of a question, or tokens
        return paddle.zeros([len(batch["input_ids"]), min(columns, owner.method.width)])

    swap(session.Pipeline, _compute_loss=compute_loss, _forward=forward)


def main() -> None:
    mode, report, num_records, script, *flags = sys.argv[1:]
    no_model = script == "--no_model"
    if no_model:
        script, *flags = flags
    sys.path[:0] = [str(TOP), str(TOP / "classification"), str(TOP / "mrc")]
    from clue_utils import cli, device, environment, ranks

    if mode == "plain":
        swap(cli, cpu_settings=lambda *_: {"OMP_NUM_THREADS": "1"})
    environment.tune_cpu()
    environment.import_libraries()
    import paddle

    from clue_utils.data import examples
    from clue_utils.training import loop, session

    if mode == "plain":
        make_plain(int(flags[flags.index("--batch_size") + 1]))
    if no_model:
        remove_model()
    cost: dict[str, Any] = {"features": 0.0, "evaluations": [], "tokens": 0, "padded_tokens": 0, "updates": 0}

    load, evaluate, advance = examples.load_records, loop.evaluate_and_log, loop._Meter.advance
    build, fit = vars(session)["build_features"], vars(session)["fit"]

    def load_some(task: Any, name: str, *rest: Any) -> Any:
        records = load(task, name, *rest)
        return replace(records, rows=records.rows[: int(num_records)])

    def timed_build(*args: Any) -> Any:
        begin = time.perf_counter()
        features = build(*args)
        cost["features"] += time.perf_counter() - begin
        return features

    def timed_evaluate(*args: Any) -> Any:
        begin = time.perf_counter()
        metrics = evaluate(*args)
        cost["evaluations"].append(time.perf_counter() - begin)
        return metrics

    def counted_fit(model: Any, train: Any, collate: Any, *rest: Any, **more: Any) -> None:
        def counted_collate(rows: Any) -> Any:
            batch = collate(rows)
            # Of this process, as many times as there are processes.
            cost["tokens"] += int(batch["attention_mask"].sum()) * ranks.world_size()
            cost["padded_tokens"] += batch["attention_mask"].size * ranks.world_size()
            return batch

        fit(model, train, counted_collate, *rest, **more)

    def noted_advance(meter: Any) -> None:
        cost.setdefault("first_step", time.time() - BEGIN)
        cost["updates"] += 1
        advance(meter)

    swap(examples, load_records=load_some)
    swap(session, build_features=timed_build, evaluate_and_log=timed_evaluate, fit=counted_fit)
    swap(loop, evaluate_and_log=timed_evaluate)
    swap(loop._Meter, advance=noted_advance)
    importlib.import_module(Path(script).stem).main(flags)

    if ranks.rank() != 0:
        return
    output = Path(flags[flags.index("--output_dir") + 1])
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["kind"] == "train"]
    cost |= {
        "seconds": time.time() - BEGIN,
        "steps_per_second": len(trained) / sum(1 / line["steps_per_second"] for line in trained),
        "peak_memory": device.peak_memory_bytes("cpu"),
        "matrix_rate": measure_matrix_rate(paddle.ones([2048, 2048])),
        "losses": [line["loss"] for line in trained],
        "metrics": [
            {k: v for k, v in line.items() if k not in ("kind", "step")} for line in lines if line not in trained
        ],
        "predictions": {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(output.glob("*predict*"))
        },
    }
    Path(report).write_text(json.dumps(cost))


if __name__ == "__main__":
    main()
