"""An exported model as one ONNX file, which paddle2onnx makes of Paddle Inference's."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clue_utils import environment
from clue_utils.errors import first_line, shorten
from clue_utils.features.batches import Batch
from clue_utils.language import say

logger = logging.getLogger(__name__)
# The first version with LayerNormalization as one operator.
OPSET = 17
# Of one file, by Protocol Buffers.
_MOST_BYTES = 2**31 - 1
_ERROR = re.compile(r"\[ERROR\](?:\[Paddle2ONNX\])?\s*([^\x1b\n]+)")


class ConversionError(Exception):
    """A model has no form in ONNX; the text says why."""


def write(path: Path, shape: Sequence[int | str], output_names: Sequence[str]) -> None:
    """Make ``path``.onnx of ``path``.json and ``path``.pdiparams, with the same inputs and outputs.

    Args:
        shape: of each input: a number, or the name of a dimension that may have any size. The first is the batch's,
            the last the length.
        output_names: as they are to be called there, in their order.

    Raises:
        ConversionError: there is no ONNX for it.
    """
    import onnx  # slow, and hardly ever needed

    if os.path.getsize(f"{path}.pdiparams") > _MOST_BYTES:
        raise ConversionError(say("its weights are more than the 2 GB that the file may have"))
    _convert(path)
    # paddle2onnx has numbers for names.
    model = onnx.load(f"{path}.onnx")
    graph = model.graph
    for value in graph.input:
        for dimension, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
            if isinstance(size, str):
                dimension.dim_param = size
    names = {value.name: name for value, name in zip(graph.output, output_names, strict=True)}
    for value in graph.output:
        value.name = names[value.name]
        for dimension, size in zip(value.type.tensor_type.shape.dim, (shape[0], shape[-1]), strict=True):
            if dimension.dim_param:
                dimension.dim_param = size
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    # It also leaves constants that nothing needs, of each of which ONNX Runtime warns.
    needed = {value.name for value in graph.output}
    for number, node in reversed([*enumerate(graph.node)]):
        if needed.isdisjoint(node.output):
            del graph.node[number]
        else:
            needed.update(_inputs([node]))
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # of classes that have no other in common
        raise ConversionError(
            say("paddle2onnx wrote what is no ONNX: {reason}", reason=shorten(first_line(error), 160))
        ) from error
    onnx.save(model, f"{path}.onnx")


def _inputs(nodes: Iterable[Any]) -> Iterator[str]:
    """Names of what nodes take, with those of the graphs within."""
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            yield from _inputs(attribute.g.node)


def _convert(path: Path) -> None:
    """In a process of its own: where paddle2onnx does not know an operator, it aborts the process that it is in."""
    words = ["--model_dir", ".", "--model_filename", f"{path.name}.json", "--params_filename", f"{path.name}.pdiparams"]
    words += ["--save_file", f"{path.name}.onnx", "--opset_version", str(OPSET), "--optimize_tool", "None"]
    with environment.home_for_libraries():  # it imports Paddle
        done = subprocess.run(
            [sys.executable, "-m", "paddle2onnx.command", *words],
            cwd=path.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    logger.debug("paddle2onnx: %s", done.stdout)
    if done.returncode:
        lines = done.stdout.strip().splitlines() or [say("status {status}", status=done.returncode)]
        raise ConversionError(f"paddle2onnx: {shorten((_ERROR.findall(done.stdout) or lines)[-1], 160)}")


def can_run() -> bool:
    """Whether ONNX Runtime is installed."""
    return importlib.util.find_spec("onnxruntime") is not None


def run(path: Path, batch: Batch) -> list[np.ndarray]:
    """What ``path``.onnx gives for a batch, by ONNX Runtime on a processor.

    Raises:
        ConversionError: ONNX Runtime cannot compute it.
    """
    import onnxruntime  # for the tests alone it is among the requirements

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(f"{path}.onnx", options, providers=["CPUExecutionProvider"])
        return list(session.run(None, batch))
    except Exception as error:  # each status of ONNX Runtime has a class of its own, below none but this
        raise ConversionError(f"ONNX Runtime: {shorten(first_line(error), 160)}") from error
