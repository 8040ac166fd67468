"""Which rows a batch has, and the arrays that it is made of."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from clue_utils.features.store import Feature

Batch = dict[str, np.ndarray]
Collate = Callable[[Sequence[Feature]], Batch]
# How many batches are formed at a time from rows in order of length.
_BATCHES_TO_SORT = 50


def collate(
    features: Sequence[Feature], pad_token_id: int, pad_to_multiple_of: int = 1, max_length: int = sys.maxsize
) -> Batch:
    """Pad rows to the longest sequence among them.

    Args:
        pad_to_multiple_of: pad further, to such a multiple, but not beyond ``max_length``.

    Returns:
        int64 arrays: ``input_ids``, ``token_type_ids`` (if the features have them) and ``attention_mask`` of shape
        [batch, length], or [batch, choices, length] for rows that hold several sequences; every scalar as [batch].
    """
    batch: Batch = {}
    lengths = np.array([_sequence_lengths(feature["input_ids"]) for feature in features])
    longest = int(lengths.max())
    width = max(longest, min(math.ceil(longest / pad_to_multiple_of) * pad_to_multiple_of, max_length))
    for name, value in features[0].items():
        if isinstance(value, int):
            batch[name] = np.array([feature[name] for feature in features], np.int64)
        elif name in ("input_ids", "token_type_ids"):
            padding = pad_token_id if name == "input_ids" else 0
            batch[name] = _pad([feature[name] for feature in features], padding, width)
    batch["attention_mask"] = (np.arange(width) < lengths[..., None]).astype(np.int64)
    return batch


def _sequence_lengths(sequences: Any) -> Any:
    return [len(sequence) for sequence in sequences] if isinstance(sequences, list) else len(sequences)


def _pad(rows: Sequence[Any], value: int, width: int) -> np.ndarray:
    nested = isinstance(rows[0], list)
    sequences = [sequence for row in rows for sequence in row] if nested else rows
    padded = np.full((len(sequences), width), value, np.int64)
    for line, sequence in zip(padded, sequences, strict=True):
        line[: len(sequence)] = sequence
    return padded.reshape(len(rows), len(rows[0]), -1) if nested else padded


def length_ordered_batches(sizes: np.ndarray, batch_size: int, max_tokens: int) -> list[np.ndarray]:
    """Row numbers in batches of similar length, longest first, so that little is padded and memory peaks at once.

    Args:
        sizes: tokens of each row, see ``Features.sizes``.
        batch_size: rows of a batch at the most.
        max_tokens: tokens of a batch at the most, padding included; a longer row is a batch of its own.
    """
    order = np.argsort(-sizes, kind="stable")
    batches = []
    begin = 0
    while begin < len(order):
        fitting = max_tokens // max(1, int(sizes[order[begin]]))
        end = begin + min(batch_size, max(1, fitting))
        batches.append(order[begin:end])
        begin = end
    return batches


def shuffled_batches(num_rows: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Row numbers of one epoch in an order that depends on seed and epoch alone; the last batch may be smaller."""
    order = np.random.default_rng([seed, epoch]).permutation(num_rows)
    return [order[i : i + batch_size] for i in range(0, num_rows, batch_size)]


def length_grouped_batches(sizes: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """As ``shuffled_batches``, with rows of similar length in a batch.

    Some fifty batches' worth of shuffled rows at a time are put in order of length and cut into batches, as in
    fairseq and transformers; the order of the batches is shuffled again. Only the last batch may be smaller.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(sizes))
    pool = _BATCHES_TO_SORT * batch_size
    parts = [order[i : i + pool] for i in range(0, len(order), pool)]
    order = np.concatenate([part[np.argsort(-sizes[part], kind="stable")] for part in parts])
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    num_full = len(order) // batch_size
    return [batches[i] for i in rng.permutation(num_full)] + batches[num_full:]


def batches_per_epoch(num_rows: int, batch_size: int) -> int:
    return math.ceil(num_rows / batch_size)
