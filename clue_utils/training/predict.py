"""Run a model over features, shared out over the ranks, with the outputs in file order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import numpy as np
import paddle
from tqdm import tqdm

from clue_utils import device, ranks
from clue_utils.errors import UserError
from clue_utils.features.batches import Collate, length_ordered_batches
from clue_utils.features.store import Features
from clue_utils.models.heads import Head, to_tensors

logger = logging.getLogger(__name__)
# Tokens of a batch in evaluation: what a processor's caches hold is quickest (three times as quick on C3 as sixty-four
# examples at a time, in a tenth of the memory); a GPU wants more, and its memory allows it.
_MAX_TOKENS_CPU, _MAX_TOKENS_GPU = 1 << 12, 1 << 16


def max_tokens() -> int:
    """Tokens of a batch in evaluation and prediction at the most, padding included."""
    return _MAX_TOKENS_CPU if paddle.get_device() == "cpu" else _MAX_TOKENS_GPU


def compute_logits(
    model: paddle.nn.Layer,
    head: Head,
    features: Features,
    collate: Collate,
    batch_size: int,
    width: int,
    precision: str,
    on_batch: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Logits of every feature, in the features' order, on every rank.

    Dropout is off. Batches are formed in order of length from all features and dealt out to the ranks, so that the
    numbers do not depend on how many ranks there are.

    Args:
        batch_size: rows of a batch at the most; fewer where they are long.
        width: columns of the result; shorter rows are filled with -inf.
        on_batch: called after each batch.

    Returns:
        float32 array [len(features), width].

    Raises:
        UserError: a score is not a number, or memory does not suffice for a single row.
    """
    batches = length_ordered_batches(features.sizes(), batch_size, max_tokens())
    mine = batches[ranks.rank() :: ranks.world_size()]
    local = np.full((sum(map(len, mine)), width), -np.inf, np.float32)
    was_training = model.training
    model.eval()
    try:
        begin = 0
        with paddle.no_grad():
            quiet = None if ranks.is_first() else True
            for rows in tqdm(mine, desc="evaluating", unit="batch", disable=quiet, leave=False):
                for output in _outputs(model, head, features, rows, collate, precision):
                    local[begin : begin + len(output), : output.shape[1]] = output
                    begin += len(output)
                on_batch()
    finally:
        if was_training:
            model.train()
    result = _gather(local, batches)
    if np.isnan(result).any():
        raise UserError(
            "the model's scores are not numbers: its weights are damaged, or training diverged "
            "(lower --learning_rate or raise --warmup_proportion; the best checkpoint is kept)"
        )
    return result


def _outputs(
    model: paddle.nn.Layer, head: Head, features: Features, rows: np.ndarray, collate: Collate, precision: str
) -> Iterator[np.ndarray]:
    """Outputs of a batch, float32 [rows, ...]; in several pieces where memory does not suffice for all at once."""
    batch = to_tensors(collate([features[i] for i in rows]))
    try:
        with device.autocast(precision):
            logits = head.forward(model, batch)
        output = logits.astype("float32").numpy()
    except Exception as error:
        if not device.is_out_of_memory(error):
            raise
        shape = list(batch["input_ids"].shape)
        if len(rows) == 1:
            raise UserError(
                f"out of memory in evaluation with one example of shape {shape}: "
                "lower --max_seq_length or take a smaller model"
            ) from error
    else:
        yield output
        return
    logger.warning("out of memory in evaluation with a batch of shape %s: taking it in halves", shape)
    del batch
    for half in np.array_split(rows, 2):
        yield from _outputs(model, head, features, half, collate, precision)


def _gather(local: np.ndarray, batches: list[np.ndarray]) -> np.ndarray:
    """Put the ranks' rows back into file order."""
    size = ranks.world_size()
    order = [np.concatenate(batches[rank::size]) if batches[rank::size] else np.zeros(0, int) for rank in range(size)]
    result = np.empty((sum(map(len, order)), local.shape[1]), local.dtype)
    padded = np.zeros((max(map(len, order)), local.shape[1]), local.dtype)
    padded[: len(local)] = local
    for rows, part in zip(order, device.gather(padded), strict=True):
        result[rows] = part[: len(rows)]
    return result
