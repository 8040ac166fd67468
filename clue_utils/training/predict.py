"""Run a model over features, shared out over the ranks, with the outputs in file order."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import paddle
from tqdm import tqdm

from clue_utils import cli, device, models, ranks
from clue_utils.errors import UserError, is_out_of_memory
from clue_utils.features.batches import Batch, Collate, collate, length_ordered_batches
from clue_utils.features.method import Method
from clue_utils.features.store import Features
from clue_utils.language import say
from clue_utils.models import cpu_layers, gpu_layers
from clue_utils.models.heads import Head, to_tensors
from clue_utils.settings import Settings

logger = logging.getLogger(__name__)
# Tokens of a batch in evaluation: what a processor's caches hold is quickest (three times as quick on C3 as sixty-four
# examples at a time, in a tenth of the memory); a GPU wants more, as its memory allows: 2^16 tokens in sequences of 512
# take 8 to 9 GB in a model of 24 layers, 16 heads and 1024 hidden units, three copies of the attention's scores
# (2^16 x 512 x 16 x 4 bytes) above all; beside them are weights and the optimizer's state, of 4 GB.
_MAX_TOKENS_CPU, _MAX_TOKENS_GPU, _MAX_TOKENS_SMALL_GPU = 1 << 12, 1 << 16, 1 << 14
# Bytes of a GPU that is sold as one of 24 GB, or more.
_LARGE_GPU = 22 << 30
# Rows of a batch where there is no card. There, what a batch costs beside the arithmetic is little.
_MAX_ROWS_CPU = 64


def max_tokens() -> int:
    """Tokens of a batch in evaluation and prediction at the most, padding included."""
    if paddle.get_device() == "cpu":
        return _MAX_TOKENS_CPU
    return _MAX_TOKENS_GPU if device.card_memory_bytes() >= _LARGE_GPU else _MAX_TOKENS_SMALL_GPU


def make_collate(args: Settings, method: Method) -> Collate:
    """How the batches of a run are padded."""
    return functools.partial(
        collate,
        pad_token_id=method.sequences.pad_id,
        # The matrix units of GPUs take half precision in multiples of 8, as a kernel of the attention does masks.
        pad_to_multiple_of=1 if args.precision == "fp32" and not args.fused_attention else 8,
        max_length=args.max_seq_length,
    )


def make_ready(model: paddle.nn.Layer, args: Settings, method: Method) -> paddle.nn.Layer:
    """See that a model takes a method's inputs, and have it compute as the settings say and as quickly as it can.

    Raises:
        UserError: it does not.
    """
    models.check_fit(model, method.tokenizer, args.max_seq_length)
    models.check_segments(model, method.sequences.num_segments)
    if args.fused_attention:
        gpu_layers.fuse_attention(model)
    if paddle.get_device() == "cpu" and args.precision == "fp32":
        cpu_layers.speed_up(model)
    else:
        gpu_layers.speed_up(model)
    return model


@dataclass
class BatchLimit:
    """How large a batch in evaluation and prediction may be, throughout a run.

    Attributes:
        rows, tokens: at the most, padding included; the same on all ranks, which form the batches together.
        fitting: tokens that this process takes of a batch at a time: fewer than ``tokens`` once memory ran out.
    """

    rows: int
    tokens: int
    fitting: int

    @classmethod
    def of(cls, eval_batch_size: int | None) -> BatchLimit:
        """The limit for this device; to be called by all ranks.

        Args:
            eval_batch_size: rows at the most; None: 64 on the CPU, any number on a card.
        """
        rows = eval_batch_size or (_MAX_ROWS_CPU if paddle.get_device() == "cpu" else sys.maxsize)
        tokens = min(int(of_rank[0]) for of_rank in device.gather(np.array([max_tokens()])))
        return cls(rows, tokens, tokens)


def compute_logits(
    model: paddle.nn.Layer,
    head: Head,
    features: Features,
    collate: Collate,
    limit: BatchLimit,
    width: int,
    precision: str,
    on_batch: Callable[[], None] = lambda: None,
    is_quiet: bool = False,
) -> np.ndarray:
    """Logits of every feature, in the features' order, on every rank.

    Dropout is off. Batches are formed in order of length from all features and dealt out to the ranks, so that the
    numbers do not depend on how many ranks there are.

    Args:
        limit: how large a batch may be; lowered for good where memory does not suffice.
        width: columns of the result; shorter rows are filled with -inf.
        on_batch: called after each batch.
        is_quiet: show no progress.

    Returns:
        float32 array [len(features), width].

    Raises:
        UserError: a score is not a number, or memory does not suffice for a single row.
    """
    sizes = features.sizes()
    batches = length_ordered_batches(sizes, limit.rows, limit.tokens)
    mine = batches[ranks.rank() :: ranks.world_size()]
    local = np.full((sum(map(len, mine)), width), -np.inf, np.float32)
    was_training = model.training
    model.eval()
    try:
        begin = 0
        with paddle.no_grad():
            quiet = None if ranks.is_first() and not is_quiet else True
            pulse = cli.Pulse("evaluating", len(mine), "batches")
            for rows in tqdm(mine, desc="evaluating", unit="batch", disable=quiet, leave=False):
                for output in _outputs(model, head, features, rows, int(sizes[rows].max()), collate, precision, limit):
                    local[begin : begin + len(output), : output.shape[1]] = output
                    begin += len(output)
                pulse.advance()
                on_batch()
    finally:
        if was_training:
            model.train()
    result = _gather(local, batches)
    if np.isnan(result).any():
        raise UserError(
            say(
                "the model's scores are not numbers: its weights are damaged, or training diverged (lower "
                "--learning_rate or raise --warmup_proportion; the best checkpoint is kept)"
            )
        )
    return result


def _outputs(
    model: paddle.nn.Layer,
    head: Head,
    features: Features,
    rows: np.ndarray,
    longest: int,
    collate: Collate,
    precision: str,
    limit: BatchLimit,
) -> Iterator[np.ndarray]:
    """Outputs of a batch, float32 [rows, ...]; in several pieces where memory has not sufficed for all at once.

    Args:
        longest: tokens of the longest of the rows.
    """
    while len(rows):
        piece = rows[: max(1, limit.fitting // max(1, longest))]
        batch = collate([features[i] for i in piece])
        output = _output(model, head, batch, precision)
        if output is not None:
            yield output
            rows = rows[len(piece) :]
            continue
        shape = list(batch["input_ids"].shape)
        if len(piece) == 1:
            raise UserError(
                say(
                    "out of memory in evaluation with one example of shape {shape}: lower --max_seq_length or take "
                    "a smaller model",
                    shape=shape,
                )
            )
        limit.fitting = len(piece) // 2 * longest
        logger.warning(
            say("out of memory in evaluation with a batch of shape {shape}: taking it in halves", shape=shape)
        )


def _output(model: paddle.nn.Layer, head: Head, batch: Batch, precision: str) -> np.ndarray | None:
    """Output of a batch, float32 [rows, ...], or None where memory does not suffice: what was computed is let go."""
    try:
        tensors = to_tensors(batch)
        with device.autocast(precision):
            logits = head.forward(model, tensors)
        output: np.ndarray = logits.astype("float32").numpy()
    except Exception as error:
        if is_out_of_memory(error):
            return None
        raise
    return output


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
