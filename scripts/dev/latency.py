#!/usr/bin/env python
"""Measure exported models on a processor: size, and milliseconds a record of each way to run them.

The ways are the checkpoint's model in Paddle, as --do_predict runs it; the inference model in Paddle Inference without
and with oneDNN (with which some architectures come out wrong, see docs/inference.md); and the same as ONNX in ONNX
Runtime. They take turns, on one thread; given are medians of the processor's time, which is what passes on a machine
that does nothing else, and the largest difference of the logits. Weights are random, which takes as long as any others.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clue_utils import cli, environment
from clue_utils.report.render import markdown_rows, markdown_table
from clue_utils.tasks import TASKS
from demo.architectures import make_encoder

EXAMPLE = """\
example:
  PYTHONPATH=scripts python scripts/dev/latency.py --models ernie-3.0-base-zh --length 128
"""
BATCH_SIZES = (1, 32)
WAYS = ("Paddle", "Paddle Inference", "with oneDNN", "ONNX Runtime")
LABELS = len(TASKS["TNEWS"].labels)


def loaded(path: Path, with_onednn: bool) -> Callable[[Sequence[Any]], Any]:
    """What runs an exported model: tensors -> logits."""
    import paddle

    config = paddle.inference.Config(f"{path}.json", f"{path}.pdiparams")
    if with_onednn:
        config.enable_mkldnn()
    else:
        config.disable_mkldnn()
    config.set_cpu_math_library_num_threads(1)
    config.disable_glog_info()
    run: Callable[[Sequence[Any]], Any] = paddle.inference.create_predictor(config).run
    return run


def loaded_onnx(path: Path, names: Sequence[str]) -> Callable[[Sequence[Any]], list[Any]]:
    """The same for ``path``.onnx: tensors, in the order of the names of inputs -> logits."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(f"{path}.onnx", options, providers=["CPUExecutionProvider"])

    def run(tensors: Sequence[Any]) -> list[Any]:
        arrays = [tensor.numpy() for tensor in tensors]
        return list(session.run(None, dict(zip(names, arrays, strict=True))))

    return run


def measure(name: str, folder: Path, length: int, rounds: int) -> list[str]:
    """A row of the table: the model's size, and a column for each way and size of batch."""
    import numpy as np
    import paddle

    from clue_utils import models
    from clue_utils.models import catalogue, cpu_layers
    from clue_utils.models.export import write_model
    from clue_utils.models.heads import HEADS, input_names

    published, head = catalogue.find(name), HEADS["classification"]
    encoder = make_encoder(published.family, folder / "encoder", published.config, spread=None)
    model = models.load_model(str(encoder), TASKS["TNEWS"], 0.1, LABELS, training=True)
    cpu_layers.speed_up(model)
    path = folder / "model"
    described = write_model(model, path, head, model.config.pad_token_id, with_onnx=True)
    in_onnx = path.with_suffix(".onnx").stat().st_size
    size = sum(file.stat().st_size for file in folder.glob("model.*")) - in_onnx
    without, with_it = (loaded(path, with_onednn) for with_onednn in (False, True))

    def in_paddle(tensors: Sequence[Any]) -> list[Any]:
        batch = dict(zip(described["inputs"], tensors, strict=True))
        if "attention_mask" in input_names(model):
            batch["attention_mask"] = paddle.ones_like(tensors[0])
        with paddle.no_grad():
            return [head.forward(model, batch)]

    ways = [in_paddle, without, with_it, loaded_onnx(path, list(described["inputs"]))]
    cells, off = [], [0.0] * len(ways)
    for batch_size in BATCH_SIZES:
        ids = np.random.default_rng(batch_size).integers(5, model.config.vocab_size, (batch_size, length))
        tensors = [paddle.to_tensor(ids if name == "input_ids" else ids * 0) for name in described["inputs"]]
        given = [np.asarray(way(tensors)[0]) for way in ways]  # the first time prepares, and is not counted
        off = [max(so_far, float(np.abs(logits - given[0]).max())) for so_far, logits in zip(off, given, strict=True)]
        times: list[list[float]] = [[] for _ in ways]
        for _ in range(rounds):
            for way, taken in zip(ways, times, strict=True):
                begin = time.process_time()
                np.asarray(way(tensors)[0])
                taken.append(time.process_time() - begin)
        cells += [f"{1000 * statistics.median(taken) / batch_size:.1f}" for taken in times]
    return [name, f"{size / 1e6:.0f}", f"{in_onnx / 1e6:.0f}", *cells, *(f"{most:.0e}" for most in off[1:])]


def main(argv: list[str] | None = None) -> None:
    parser = cli.Parser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--models", nargs="+", metavar="NAME", default=["ernie-3.0-nano-zh", "ernie-3.0-base-zh"])
    parser.add_argument("--length", type=cli.positive_int, default=128, help="tokens of a record (default: 128)")
    parser.add_argument("--rounds", type=cli.positive_int, default=7, help="of which medians are taken (default: 7)")
    args = parser.parse_args(argv)
    environment.load_libraries("cpu")
    environment.require_paddle2onnx()
    heads = [f"{way}, batch {batch_size}" for batch_size in BATCH_SIZES for way in WAYS]
    heads += [f"{way} is off by" for way in WAYS[1:]]
    print(f"milliseconds a record of {args.length} tokens, one thread\n")
    print(markdown_table(["model", "MB", "MB of ONNX", *heads]), end="", flush=True)
    for name in args.models:
        with tempfile.TemporaryDirectory() as folder:
            print(markdown_rows([measure(name, Path(folder), args.length, args.rounds)]), end="", flush=True)


if __name__ == "__main__":
    cli.run(main)
