#!/usr/bin/env python
"""Run a training script once and write what it cost as JSON; a part of scripts/dev/benchmark.py.

usage: benchmark_job.py {plain,ours} REPORT NUM_RECORDS [--no_model] SCRIPT FLAG...

``plain`` runs the same job the way earlier PaddleNLP-style scripts do, with everything taken out that this project does
for speed: Paddle's own thread settings and kernels; classification texts tokenised again whenever an example is read,
reading tasks encoded by one process at every start; evaluation in file order at the training batch size. Examples,
batches and weights are those of ``ours``, and so are the numbers at dropout 0. With ``--no_model`` neither computes
anything.
"""

from __future__ import annotations

import functools
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
    """Features that are encoded whenever they are read; for methods with one feature an example."""

    def __init__(self, examples: Any, method: Any) -> None:
        self.examples, self.method = examples, method

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: Any) -> Any:
        feature = self.method.encode(self.examples[index])[0]
        return {name: np.array(value) if isinstance(value, list) else value for name, value in feature.items()}

    def column(self, name: str) -> np.ndarray:
        return np.array([example.get(name, -1) for example in self.examples])

    def sizes(self) -> np.ndarray:
        return np.zeros(len(self), np.int64)

    longest = sizes  # no example counts as cut, for which all would be encoded once more


def swap(owner: Any, **functions: Any) -> None:
    """Put other functions in the place of those of a module or class."""
    for name, function in functions.items():
        setattr(owner, name, function)


def make_plain(batch_size: int) -> None:
    """Take out what this project does for speed."""
    from clue_utils import device
    from clue_utils.features import build, tokenization
    from clue_utils.models import cpu_layers
    from clue_utils.training import predict, session

    swap(device, tune_cpu=lambda: None)
    swap(cpu_layers, speed_up=lambda model: None)
    swap(tokenization.PieceIds, __call__=tokenization.PieceIds._ask)
    build_features = build.build_features

    def build_alone(examples: Any, method: Any, tokenizer: Any, cache: Path, *_: Any) -> Any:
        if method.settings()["method"] == "classification":
            return Encoded(examples, method)
        return build_features(examples, method, tokenizer, cache, 1, True)

    def file_order(sizes: np.ndarray, *_: int) -> list[np.ndarray]:
        return [np.arange(i, min(i + batch_size, len(sizes))) for i in range(0, len(sizes), batch_size)]

    swap(session, build_features=build_alone)
    swap(predict, length_ordered_batches=file_order)


def remove_model() -> None:
    """Let losses be one and logits zero at no cost, so that what remains is what the loops themselves cost."""
    import paddle

    from clue_utils.models.heads import HEADS
    from clue_utils.training import session

    def loss(model: Any, batch: Any) -> Any:
        return paddle.ones([len(batch["input_ids"])]) + 0 * model.parameters()[-1].sum()

    def forward(model: Any, batch: Any) -> Any:
        ids = batch["input_ids"]
        is_classified = "label" in batch and ids.ndim == 2
        columns = model.config.num_labels if is_classified else ids.shape[1]  # choices of a question, or tokens
        return paddle.zeros([len(ids), columns])

    swap(session, HEADS={kind: replace(head, loss=loss, forward=forward) for kind, head in HEADS.items()})


def main() -> None:
    mode, report, num_examples, script, *flags = sys.argv[1:]
    no_model = script == "--no_model"
    if no_model:
        script, *flags = flags
    sys.path[:0] = [str(TOP), str(TOP / "classification"), str(TOP / "mrc")]
    from clue_utils import environment, ranks

    if mode == "plain":
        swap(environment, cpu_settings=lambda *_: {"OMP_NUM_THREADS": "1"})
    environment.load_libraries()
    import paddle

    from clue_utils.training import session

    if mode == "plain":
        make_plain(int(flags[flags.index("--batch_size") + 1]))
    if no_model:
        remove_model()
    cost: dict[str, Any] = {"features": 0.0, "evaluations": []}
    cost |= dict.fromkeys(("tokens", "padded_tokens", "squared_lengths", "steps"), 0)

    load, execute = vars(session)["load_examples"], session.execute

    def load_some(task: Any, name: str, *rest: Any) -> Any:
        examples = load(task, name, *rest)
        return replace(examples, rows=examples.rows[: int(num_examples)])

    def watch(event: str, value: Any) -> None:
        if event == "features":
            cost["features"] += value
        elif event == "evaluation":
            cost["evaluations"].append(value)
        elif event == "batch":
            # Of this process, as many times as there are processes.
            lengths = value["attention_mask"].sum(axis=-1)
            cost["tokens"] += int(lengths.sum()) * ranks.world_size()
            cost["squared_lengths"] += int((lengths**2).sum()) * ranks.world_size()
            cost["padded_tokens"] += value["attention_mask"].size * ranks.world_size()
        elif event == "step":
            cost.setdefault("first_step", time.time() - BEGIN)
            cost["steps"] += 1

    swap(session, load_examples=load_some)
    swap(session, execute=functools.partial(execute, watch=watch))
    importlib.import_module(Path(script).stem).main(flags)

    if not ranks.is_first():
        return
    output = Path(flags[flags.index("--output_dir") + 1])
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["kind"] == "train"]
    cost |= {
        "seconds": time.time() - BEGIN,
        "steps_per_second": len(trained) / sum(1 / line["steps_per_second"] for line in trained),
        "peak_memory": environment.peak_memory_bytes(),
        "matrix_rate": measure_matrix_rate(paddle.ones([2048, 2048])),
        "losses": [line["loss"] for line in trained],
        "metrics": [
            {k: v for k, v in line.items() if k not in ("kind", "step")} for line in lines if line not in trained
        ],
        "predictions": {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(output.glob("*_predict.json"))
        },
    }
    Path(report).write_text(json.dumps(cost))


if __name__ == "__main__":
    main()
