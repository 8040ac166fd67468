"""Accuracy and cross-entropy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clue_utils.errors import UserError
from clue_utils.language import say


def accuracy(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Share of equal class ids (micro accuracy), in [0, 1].

    Args:
        predictions: predicted class ids, integers ``[num_examples]``.
        labels: true class ids, integers ``[num_examples]``.

    Raises:
        UserError: there are no examples.
        ValueError: the two differ in shape or are not integers.
    """
    predicted, true = np.asarray(predictions), np.asarray(labels)
    if predicted.shape != true.shape:
        raise ValueError(f"predictions have shape {predicted.shape}, labels {true.shape}")
    if true.size == 0:
        raise UserError(say("nothing to score: the development file holds no labelled example; check --data_dir"))
    for name, values in (("predictions", predicted), ("labels", true)):
        # Comparing ids with texts or logits would answer "all different" instead of failing.
        if not np.issubdtype(values.dtype, np.integer):
            raise ValueError(f"{name} must be integer class ids, not {values.dtype}")
    return float(np.mean(predicted == true))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of float logits [..., classes] along the last axis, in float64."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy of float logits [n, classes] and int labels [n], in float64."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    return float((log_sum - shifted[np.arange(len(labels)), labels]).mean())
