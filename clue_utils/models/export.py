"""Write a fine-tuned model so that it is used without this project."""

from __future__ import annotations

import functools
import json
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle.jit.dy2static.parameter_recorder import _global_inplace_map, _global_parameter_recorder

from clue_utils.errors import UserError
from clue_utils.features.batches import Batch
from clue_utils.features.method import Method
from clue_utils.files import atomically
from clue_utils.language import say
from clue_utils.models import onnx_model
from clue_utils.models.heads import CHOICES, HEADS, Head, input_names, to_tensors
from clue_utils.strict_json import JsonObject
from clue_utils.tasks import Task

logger = logging.getLogger(__name__)
# Where it is written, within an output folder: the folder, the model's files without their ends, and what tells of it.
FOLDER, MODEL_NAME, RECORD_FILE = "inference", "model", "task.json"
_TOLERANCE = 1e-4
_SEGMENTS = "token_type_ids"
# Tokens of the rows that are computed to compare.
_LENGTHS = (13, 1, 7)


class _WithoutMask(paddle.nn.Layer):
    """A model that tells padding by its id, for every architecture alike: PaddleNLP's do not agree on it."""

    def __init__(self, model: paddle.nn.Layer, head: Head, pad_id: int) -> None:
        super().__init__()
        self.model, self.head, self.pad_id = model, head, pad_id

    def forward(self, input_ids: paddle.Tensor, token_type_ids: paddle.Tensor | None = None) -> Any:
        batch = {"input_ids": input_ids, "attention_mask": (input_ids != self.pad_id).astype("int64")}
        if token_type_ids is not None:
            batch["token_type_ids"] = token_type_ids
        return self.head.outputs(self.model, batch)


def export(
    model: paddle.nn.Layer, folder: Path, task: Task, method: Method, tokenizer: Any, with_onnx: bool = False
) -> None:
    """Write a folder: the model (see ``write_model``), its tokenizer, and ``task.json``, which says how they are used.

    Raises:
        UserError: the architecture cannot be written so, or what was written computes something else. The folder is
            as it was.
    """
    sequences = method.sequences
    if sequences.pad_id in sequences.build([-1], [-2])[0]:
        raise _refusal(model, say("its tokenizer has one token for padding and for the end of a text"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomically(folder) as written:
        written.mkdir()
        num_choices = method.num_outputs if HEADS[task.kind] is CHOICES else 0
        words = (model, written / MODEL_NAME, HEADS[task.kind], sequences.pad_id)
        described = write_model(*words, num_choices, method.has_segments, with_onnx)
        tokenizer.save_pretrained(str(written))
        said = {"task": task.name, "kind": task.kind, "model_type": model.config.model_type}
        text = json.dumps(said | described | method.description(), ensure_ascii=False, indent=2)
        (written / RECORD_FILE).write_text(text + "\n", encoding="utf-8")
    logger.info("inference model written to %s, logits within %.0e", folder, described["largest_difference"])
    if with_onnx and not onnx_model.can_run():
        logger.warning(
            say(
                "{folder}.onnx is not compared with the model: onnxruntime is not installed", folder=folder / MODEL_NAME
            )
        )


def write_model(
    model: paddle.nn.Layer,
    path: Path,
    head: Head,
    pad_id: int,
    num_choices: int = 0,
    has_segments: bool = True,
    with_onnx: bool = False,
) -> JsonObject:
    """Write ``path``.json and ``path``.pdiparams for Paddle Inference, and see that they compute the same.

    Inputs are int64 ``input_ids`` and, where the model takes them, ``token_type_ids``, [batch, length], or
    [batch, num_choices, length] for a head for choices. Outputs are float32 logits [batch, classes or choices], for
    spans those of starts and of ends, [batch, length] each. Padding is recognised by its id: no mask is fed.

    Args:
        has_segments: whether ``token_type_ids`` are an input; otherwise the model takes its own.
        with_onnx: write ``path``.onnx too, with these inputs and outputs; where ONNX Runtime is installed, see that it
            computes the same.

    Returns:
        ``inputs`` (name -> shape) and ``outputs`` (names), in their order, and the ``largest_difference`` between the
        logits of the model and of what was written and has been run.

    Raises:
        UserError: the architecture cannot be written so, or what was written computes something else.
    """
    model.eval()
    names = [name for name in input_names(model) if name == "input_ids" or (name == _SEGMENTS and has_segments)]
    shape: list[Any] = ["batch", *([num_choices] if num_choices else []), "length"]
    sizes = [size if isinstance(size, int) else None for size in shape]
    specs = [paddle.static.InputSpec(sizes, "int64", name) for name in names]
    layer = _WithoutMask(model, head, pad_id)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Paddle's about its own way of tracing
            paddle.jit.save(paddle.jit.to_static(layer, input_spec=specs, full_graph=True), str(path))
        off = _largest_difference(layer, names, num_choices, functools.partial(_run, path))
    except Exception as error:  # whatever Paddle makes of a computation that it cannot write
        logger.debug("export", exc_info=error)
        _forget_programs()
        raise _refusal(
            model, say("Paddle cannot write down what it computes, {name}", name=type(error).__name__)
        ) from error
    if not off < _TOLERANCE:
        raise _refusal(model, say("its logits would be off by {off:.2g}", off=off))
    if with_onnx:
        try:
            onnx_model.write(path, shape, head.output_names)
            if onnx_model.can_run():
                run = functools.partial(onnx_model.run, path)
                off = max(off, _largest_difference(layer, names, num_choices, run))
        except onnx_model.ConversionError as error:
            raise _refusal(model, str(error), "--export_onnx") from error
        if not off < _TOLERANCE:
            raise _refusal(model, say("its logits would be off by {off:.2g}", off=off), "--export_onnx")
    return {
        "inputs": dict.fromkeys(names, shape),
        "outputs": head.output_names,
        "largest_difference": off,
    }


def _refusal(model: paddle.nn.Layer, reason: str, flag: str = "--do_export") -> UserError:
    remedy = say("; without the flag Paddle Inference's files are written") if flag == "--export_onnx" else ""
    return UserError(
        say(
            "{flag}: a {model_type} cannot be exported ({reason}){remedy}",
            flag=flag,
            model_type=model.config.model_type,
            reason=reason,
            remedy=remedy,
        )
    )


def _forget_programs() -> None:
    """Drop what Paddle keeps of a program that it could not trace to its end.

    Paddle (its ``graph_tracing_guard``) keeps a program's parameters and values by the program's ``id()`` and drops
    them only where tracing succeeds. A later program of the same id would be given values whose memory is freed, and
    the process would crash.
    """
    _global_parameter_recorder.params_dict.clear()
    _global_parameter_recorder.tensor2value.clear()
    _global_inplace_map.params_dict.clear()


def sample_inputs(names: Sequence[str], vocab_size: int, pad_id: int, num_choices: int = 0) -> Batch:
    """Rows of several lengths, int64 [3, length] or [3, num_choices, length], whose second halves are segment 1."""
    lengths = np.resize(_LENGTHS, (len(_LENGTHS), num_choices) if num_choices else len(_LENGTHS))
    positions = np.arange(max(_LENGTHS))
    is_token = positions < lengths[..., None]
    ids = np.arange(is_token.size).reshape(is_token.shape) % (vocab_size - 1)
    ids = np.where(is_token, ids + (ids >= pad_id), pad_id)
    segments = (is_token & (2 * positions > max(_LENGTHS))).astype(np.int64)
    return {name: segments if name == _SEGMENTS else ids for name in names}


def _largest_difference(
    layer: _WithoutMask, names: list[str], num_choices: int, run: Callable[[Batch], list[np.ndarray]]
) -> float:
    """Between the logits of a model, told by a mask what is padding, and of what was written of it.

    A span's are not those of padding. ``run`` gives the latter for the inputs.
    """
    batch = sample_inputs(names, layer.model.config.vocab_size, layer.pad_id, num_choices)
    tensors = to_tensors(batch)
    is_token = batch["input_ids"] != layer.pad_id
    with paddle.no_grad():
        mask = {"attention_mask": paddle.to_tensor(is_token.astype(np.int64))}
        expected = _as_arrays(layer.head.outputs(layer.model, tensors | mask))
    return max(
        float(np.abs(there - here)[is_token if here.shape == is_token.shape and not num_choices else ...].max())
        for there, here in zip(run(batch), expected, strict=True)
    )


def _run(path: Path, batch: Batch) -> list[np.ndarray]:
    """What was written computes, on a processor by Paddle Inference as users run it."""
    tensors = [paddle.to_tensor(array) for array in batch.values()]
    if paddle.get_device() != "cpu":
        return _as_arrays(paddle.jit.load(str(path))(*tensors))
    config = paddle.inference.Config(f"{path}.json", f"{path}.pdiparams")
    config.disable_mkldnn()  # which is on by default, with which TinyBERT's logits are wrong and MobileBERT crashes
    config.disable_glog_info()
    return _as_arrays(paddle.inference.create_predictor(config).run(tensors))


def _as_arrays(outputs: Any) -> list[np.ndarray]:
    return [output.numpy() for output in (outputs if isinstance(outputs, (tuple, list)) else [outputs])]
