"""Write a classifier as an inference model that needs no code of this project."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import paddle
from paddle.jit.dy2static.parameter_recorder import _global_inplace_map, _global_parameter_recorder

from clue_utils.errors import UserError
from clue_utils.features.sequences import Sequences
from clue_utils.models.heads import input_names, logits

logger = logging.getLogger(__name__)
_TOLERANCE = 1e-4


class _WithoutMask(paddle.nn.Layer):
    """A classifier that tells padding by its id, for every architecture alike: PaddleNLP's do not agree on it."""

    def __init__(self, model: paddle.nn.Layer, pad_id: int) -> None:
        super().__init__()
        self.model, self.pad_id = model, pad_id

    def forward(self, input_ids: paddle.Tensor, token_type_ids: paddle.Tensor | None = None) -> paddle.Tensor:
        batch = {
            "input_ids": input_ids,
            "attention_mask": (input_ids != self.pad_id).astype("int64"),
        }
        if token_type_ids is not None:
            batch["token_type_ids"] = token_type_ids
        return logits(self.model, batch)


def export(model: paddle.nn.Layer, path: Path, sequences: Sequences | None = None) -> None:
    """Write an inference model: int64 ``input_ids`` and ``token_type_ids`` [batch, length] -> logits [batch, labels].

    Padding is recognised by its id, so no attention mask is fed. An architecture without segments takes ``input_ids``
    alone.

    Args:
        sequences: of the tokenizer, whose id of padding it is; None: it is that of the model's configuration.

    Raises:
        UserError: the architecture cannot be written so, or what was written computes something else.
    """
    pad_id, reason = sequences.pad_id if sequences else model.config.pad_token_id, ""
    if pad_id is None:
        raise UserError(
            f"--do_export: a {model.config.model_type} cannot be exported (its config.json does not say which id is "
            "padding)"
        )
    model.eval()
    names = [name for name in input_names(model) if name != "attention_mask"]
    specs = [paddle.static.InputSpec([None, None], "int64", name) for name in names]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        paddle.jit.save(paddle.jit.to_static(_WithoutMask(model, pad_id), input_spec=specs, full_graph=True), str(path))
        off = _largest_difference(model, names, path, pad_id)
        if not off < _TOLERANCE:
            reason = f"its logits would be off by {off:.2g}"
    except Exception as error:  # whatever Paddle makes of a computation that it cannot write
        logger.debug("export", exc_info=error)
        reason = f"Paddle cannot write down what it computes, {type(error).__name__}"
        _forget_programs()
    if sequences and pad_id in sequences.build([-1], [-2])[0]:
        reason = "its tokenizer has one token for padding and for the end of a text"
    if reason:
        shutil.rmtree(path.parent)
        raise UserError(f"--do_export: a {model.config.model_type} cannot be exported ({reason})")
    logger.info("inference model written to %s", path.parent)


def _forget_programs() -> None:
    """Drop what Paddle keeps of a program that it could not trace to its end.

    Paddle (its ``graph_tracing_guard``) keeps a program's parameters and values by the program's ``id()`` and drops
    them only where tracing succeeds. A later program of the same id would be given values whose memory is freed, and
    the process would crash.
    """
    _global_parameter_recorder.params_dict.clear()
    _global_parameter_recorder.tensor2value.clear()
    _global_inplace_map.params_dict.clear()


def _largest_difference(model: paddle.nn.Layer, names: list[str], path: Path, pad: int) -> float:
    """Between the logits of a model and of what was written of it, on rows of several lengths."""
    vocab_size = model.config.vocab_size
    lengths = np.array([13, 1, 7])
    ids = np.arange(3 * 13).reshape(3, 13) % (vocab_size - 1)
    ids = np.where(np.arange(13) < lengths[:, None], ids + (ids >= pad), pad)
    batch = {"input_ids": ids, "token_type_ids": ids * 0, "attention_mask": (ids != pad).astype(np.int64)}
    tensors = {name: paddle.to_tensor(array) for name, array in batch.items()}
    with paddle.no_grad():
        written = paddle.jit.load(str(path))(*(tensors[name] for name in names))
        return float((written - logits(model, tensors)).abs().max())
