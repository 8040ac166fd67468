"""The heads: what a model takes of a batch, the logits that its head gives, and the loss that it learns from."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import paddle
import paddle.nn.functional as F

from clue_utils.features.batches import Batch

Tensors = dict[str, paddle.Tensor]
# What encoders take as input; everything else in a batch is for loss and metrics.
_MODEL_INPUTS = ("input_ids", "token_type_ids", "attention_mask")


def to_tensors(batch: Batch) -> Tensors:
    """The arrays on the device, in one copy for all of one shape and type: at each the host waits for a card."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, array in batch.items():
        groups.setdefault((array.shape, array.dtype), []).append(name)
    tensors: Tensors = {}
    for names in groups.values():
        if len(names) == 1:
            tensors[names[0]] = paddle.to_tensor(batch[names[0]])
        else:
            together = paddle.to_tensor(np.stack([batch[name] for name in names]))
            tensors.update(zip(names, paddle.unbind(together), strict=True))
    return tensors


@functools.cache
def parameter_names(forward: Callable[..., object]) -> frozenset[str]:
    """What a method takes."""
    return frozenset(inspect.signature(forward).parameters)


def input_names(model: paddle.nn.Layer) -> list[str]:
    """What the model takes of a batch: segments only where it has more than one kind of them."""
    model = getattr(model, "_layers", model)  # of a DataParallel
    has_segments = getattr(model.config, "type_vocab_size", 2) > 1
    accepted = parameter_names(getattr(model, "encoder_class", type(model)).forward)  # a generic head takes more
    return [name for name in _MODEL_INPUTS if name in accepted and (has_segments or name != "token_type_ids")]


def model_inputs(model: paddle.nn.Layer, batch: Tensors) -> Tensors:
    """The part of a batch that the model takes."""
    return {name: batch[name] for name in input_names(model) if name in batch}


# --- a score for each class or choice -----------------------------------------------------------------------------


def logits(model: paddle.nn.Layer, batch: Tensors) -> paddle.Tensor:
    """Logits of a model with one score for each class or choice, float [batch, classes]."""
    output = model(**model_inputs(model, batch))
    return output[0] if isinstance(output, (tuple, list)) else output


def label_losses(scores: paddle.Tensor, batch: Tensors) -> paddle.Tensor:
    """Cross-entropy of each row of ``logits`` against ``batch["label"]``, float [batch]."""
    return F.cross_entropy(scores, batch["label"], reduction="none").flatten()


def label_loss(model: paddle.nn.Layer, batch: Tensors) -> paddle.Tensor:
    """``label_losses`` of what the model gives."""
    return label_losses(logits(model, batch), batch)


# --- the start and the end of a span ------------------------------------------------------------------------------


def span_logits(model: paddle.nn.Layer, batch: Tensors) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Logits of starts and ends, float [batch, length] each; padding has probability 0, however long the others are."""
    padding = (1 - batch["attention_mask"]).astype("float32") * -1e4
    start, end = model(**model_inputs(model, batch))[:2]
    return start + padding, end + padding


def paired_span_logits(model: paddle.nn.Layer, batch: Tensors) -> paddle.Tensor:
    """Start and end logit of each token side by side, float [batch, 2 * length]."""
    return paddle.stack(span_logits(model, batch), axis=-1).flatten(1)


def paired_span_losses(pairs: paddle.Tensor, batch: Tensors) -> paddle.Tensor:
    """As ``span_loss``, of ``paired_span_logits``."""
    return _span_losses(pairs[:, ::2], pairs[:, 1::2], batch)


def span_loss(model: paddle.nn.Layer, batch: Tensors) -> paddle.Tensor:
    """Mean of the cross-entropies of each row against ``batch["start"]`` and ``batch["end"]``, float [batch]."""
    return _span_losses(*span_logits(model, batch), batch)


def _span_losses(start_logits: paddle.Tensor, end_logits: paddle.Tensor, batch: Tensors) -> paddle.Tensor:
    start_loss = F.cross_entropy(start_logits, batch["start"], reduction="none")
    end_loss = F.cross_entropy(end_logits, batch["end"], reduction="none")
    return (start_loss + end_loss).flatten() / 2


# --- which head a task has ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Head:
    """What a kind of task has on top of the encoder.

    Attributes:
        class_name: what the names of PaddleNLP's classes of encoder and this head end with.
        forward: model, batch -> logits of each row, float [batch, columns].
        loss: model, batch -> loss of each row, float [batch].
        losses: what ``forward`` gives, batch -> the same.
        num_distributions: softmaxes that share a row of logits, their columns taking turns.
        outputs: model, batch -> what an exported model gives: the logits, each distribution for itself.
        output_names: of ``outputs``.
    """

    class_name: str
    forward: Callable[[paddle.nn.Layer, Tensors], paddle.Tensor]
    loss: Callable[[paddle.nn.Layer, Tensors], paddle.Tensor]
    losses: Callable[[paddle.Tensor, Tensors], paddle.Tensor]
    num_distributions: int = 1
    outputs: Callable[[paddle.nn.Layer, Tensors], paddle.Tensor | tuple[paddle.Tensor, ...]] = logits
    output_names: tuple[str, ...] = ("logits",)


CHOICES = Head("ForMultipleChoice", logits, label_loss, label_losses)
# Kind of task -> its head.
HEADS = {
    "classification": Head("ForSequenceClassification", logits, label_loss, label_losses),
    "multiple_choice": CHOICES,
    "cloze": CHOICES,
    "span": Head(
        "ForQuestionAnswering",
        paired_span_logits,
        span_loss,
        paired_span_losses,
        num_distributions=2,
        outputs=span_logits,
        output_names=("start_logits", "end_logits"),
    ),
}


def freeze_unused(model: paddle.nn.Layer, head: Head, batch: Tensors) -> list[str]:
    """Ask no gradients of the parameters that the loss of a batch does not depend on; return their names.

    They are such as a pooler below a head for spans: no step changes them with or without this. But processes that
    average their gradients would have to tell each other at every step which of them have none.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if not parameter.stop_gradient]
    gradients = paddle.grad(head.loss(model, batch).sum(), [p for _, p in named], allow_unused=True)
    unused = [pair for pair, gradient in zip(named, gradients, strict=True) if gradient is None]
    for _, parameter in unused:
        parameter.stop_gradient = True
    return [name for name, _ in unused]
