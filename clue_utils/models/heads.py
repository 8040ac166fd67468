"""What a model takes of a batch, and what its head gives."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

import paddle
import paddle.nn.functional as F

Tensors = dict[str, paddle.Tensor]

# What encoders take as input; everything else in a batch is for loss and metrics.
_MODEL_INPUTS = ("input_ids", "token_type_ids", "attention_mask")


@functools.cache
def _parameters(forward: Callable[..., object]) -> frozenset[str]:
    return frozenset(inspect.signature(forward).parameters)


def input_names(model: paddle.nn.Layer) -> list[str]:
    """What the model takes of a batch: segments only where it has more than one kind of them."""
    model = getattr(model, "_layers", model)  # of a DataParallel
    has_segments = getattr(model.config, "type_vocab_size", 2) > 1
    accepted = _parameters(type(model).forward)
    return [name for name in _MODEL_INPUTS if name in accepted and (has_segments or name != "token_type_ids")]


def model_inputs(model: paddle.nn.Layer, batch: Tensors) -> Tensors:
    """The part of a batch that the model takes."""
    return {name: batch[name] for name in input_names(model) if name in batch}


def logits(model: paddle.nn.Layer, batch: Tensors) -> paddle.Tensor:
    """Logits of a model with one score for each class or choice, float [batch, classes]."""
    output = model(**model_inputs(model, batch))
    return output[0] if isinstance(output, (tuple, list)) else output


def span_logits(model: paddle.nn.Layer, batch: Tensors) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Logits of the starts and of the ends of an answer, float [batch, length] each."""
    start, end = model(**model_inputs(model, batch))[:2]
    return start, end


def cross_entropy_loss(model: paddle.nn.Layer, batch: Tensors) -> paddle.Tensor:
    """Cross-entropy of each row against ``batch["label"]``, float [batch]."""
    return F.cross_entropy(logits(model, batch), batch["label"], reduction="none").flatten()
