"""Packed batches: the tokens of all sequences one after another, [tokens, size], without padding, and their attention.

Sequences of similar length share their attention as a group, in which alone the shorter ones are padded to the longest.
Where the tokens are is worked out once a batch (``Layout``), as indices that any device can gather by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle

from clue_utils.models import threads
from clue_utils.models.dropout import DropoutMask

_C_ops: Any = paddle._C_ops
# What one more group costs, in attention scores that are computed in the same time.
_GROUP_COST = 1 << 14
# Scores of a group at the most, unless it is a single sequence.
_GROUP_SCORES = 1 << 19
# Added to the scores of padding, as in PaddleNLP.
MASKED_SCORE = -1e4


# --- where the tokens are -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Group:
    """Sequences of similar length, whose attention is computed together: [sequences, heads, length, head size].

    Rows are those of one head of one token, in packed tensors that are looked at as [rows, head size]. Each field of
    rows is int32 [sequences * heads * length].

    Attributes:
        shape: sequences, heads, length of the longest.
        qkv: rows of the queries, of the keys and of the values, among [tokens * 3 * heads]; in the place of padding
            those of the sequence's last token.
        qkv_gradients: the same for what is written; in the place of padding the row behind the last.
        outputs: rows of the outputs among [tokens * heads]; in the place of padding the row behind the last.
        mask: what is added to the scores, float [sequences, heads, length, length]; None: nothing.
    """

    shape: tuple[int, int, int]
    qkv: list[paddle.Tensor]
    qkv_gradients: list[paddle.Tensor]
    outputs: paddle.Tensor
    mask: paddle.Tensor | None


class Layout:
    """Where the tokens of a padded batch [batch, length, size] are in the packed one [tokens, size], and back.

    Args:
        attention_mask: True for tokens, bool [batch, length], with a token in each row.

    Attributes:
        groups: of the sequences, each in one of them.
        starts_with_token: whether each row of the batch does.
    """

    def __init__(self, attention_mask: np.ndarray, num_heads: int) -> None:
        self.shape, self.num_heads = attention_mask.shape, num_heads
        self._attention_mask = attention_mask
        positions, lengths = np.flatnonzero(attention_mask), attention_mask.sum(axis=1)
        self.num_tokens = len(positions)
        self.starts_with_token = bool(attention_mask[:, 0].all())
        self._has_padding = self.num_tokens < attention_mask.size
        # Of each token its position in the batch; of each position its token, of padding the number behind the last.
        self._positions = _to_index(positions)
        self._tokens = _to_index(_inverse(positions, attention_mask.size))
        # Of each sequence its first token; of each token the sequence that it is the first of, of others one more.
        firsts = np.cumsum(lengths) - lengths
        self._first_tokens, self._sequences = _to_index(firsts), _to_index(_inverse(firsts, self.num_tokens))
        self.groups = [
            self._make_group(firsts[members], lengths[members]) for members in group_by_length(lengths, num_heads)
        ]

    def _make_group(self, firsts: np.ndarray, lengths: np.ndarray) -> Group:
        heads, length = self.num_heads, int(lengths.max())
        head, step = np.arange(heads)[:, None], np.arange(length)
        is_padding = (step >= lengths[:, None])[:, None]  # [sequences, 1, length], as what follows
        token = (firsts[:, None] + np.minimum(step, lengths[:, None] - 1))[:, None]
        qkv, outputs = [(3 * token + kind) * heads + head for kind in range(3)], token * heads + head
        num_rows = self.num_tokens * heads
        return Group(
            shape=(len(lengths), heads, length),
            qkv=[_to_index(rows) for rows in qkv],
            qkv_gradients=[_to_index(np.where(is_padding, 3 * num_rows, rows)) for rows in qkv],
            outputs=_to_index(np.where(is_padding, num_rows, outputs)),
            mask=_score_mask(is_padding, heads) if is_padding.any() else None,
        )

    def mask_first(self, scores: paddle.Tensor) -> paddle.Tensor:
        """Add to the scores of one query a sequence, float [batch, heads, 1, length], the mask of padding."""
        if not self._has_padding:
            return scores
        mask = np.where(self._attention_mask[:, None, None], np.float32(0), np.float32(MASKED_SCORE))
        return scores + paddle.to_tensor(mask)

    def pack(self, padded: paddle.Tensor) -> paddle.Tensor:
        """[batch, length, size] -> [tokens, size]"""
        rows = padded.flatten(0, 1)
        return _Gather.apply(rows, self._positions, self._tokens) if self._has_padding else rows

    def pad(self, packed: paddle.Tensor) -> paddle.Tensor:
        """[tokens, size] -> [batch, length, size], where padding has zeros"""
        rows = _Gather.apply(packed, self._tokens, self._positions) if self._has_padding else packed
        return rows.reshape([*self.shape, packed.shape[-1]])

    def take_first(self, packed: paddle.Tensor) -> paddle.Tensor:
        """Of each sequence its first token: [tokens, size] -> [batch, size]"""
        return _Gather.apply(packed, self._first_tokens, self._sequences)

    def pad_first(self, states: paddle.Tensor) -> paddle.Tensor:
        """[batch, size] -> [batch, length, size], where all but the first are NaN, lest they be read unnoticed"""
        batch, length = self.shape
        firsts = states.unsqueeze(1)
        if length == 1:
            return firsts
        return paddle.concat([firsts, paddle.full([batch, length - 1, states.shape[1]], np.nan, states.dtype)], 1)


def _to_index(rows: np.ndarray) -> paddle.Tensor:
    return paddle.to_tensor(rows.astype(np.int32).ravel())


def _inverse(index: np.ndarray, size: int) -> np.ndarray:
    """Of each number below ``size`` where it is in ``index``, or where it is not, how many are: [size]."""
    found = np.full(size, len(index))
    found[index] = np.arange(len(index))
    return found


def _score_mask(is_padding: np.ndarray, num_heads: int) -> paddle.Tensor:
    number, _, length = is_padding.shape
    of_keys = paddle.to_tensor(np.where(is_padding, np.float32(MASKED_SCORE), np.float32(0)))
    # A product, since Paddle's sum of two shapes takes many times as long as that of one.
    return (paddle.ones([number, num_heads * length, 1]) @ of_keys).reshape([number, num_heads, length, length])


def group_by_length(lengths: np.ndarray, num_heads: int) -> list[np.ndarray]:
    """Row numbers in groups, of all ways to cut the rows in order of length the one that takes the least time.

    A group takes as long as its scores, and some time of its own.
    """
    order = np.argsort(-lengths, kind="stable")
    scores = num_heads * lengths[order].astype(np.int64) ** 2  # of a row as the longest of a group
    largest = min(_GROUP_SCORES, max(_GROUP_COST, scores.sum() // threads.count()))  # for each thread to have one
    best, begins = np.zeros(len(order) + 1), np.zeros(len(order) + 1, int)
    for end in range(1, len(order) + 1):
        of_group = (end - np.arange(end)) * scores[:end]
        costs = best[:end] + of_group + _GROUP_COST
        costs[:-1][of_group[:-1] > largest] = np.inf
        begins[end] = np.argmin(costs)
        best[end] = costs[begins[end]]
    groups, end = [], len(order)
    while end:
        groups.append(order[begins[end] : end])
        end = begins[end]
    return groups[::-1]


class _Gather(paddle.autograd.PyLayer):
    """x [n, size], index [m] -> the rows of x, zeros where the index is n [m, size]

    Each row is taken once at the most: ``inverse`` [n] says where it went, m where it did not.
    """

    @staticmethod
    def forward(context: Any, x: paddle.Tensor, index: paddle.Tensor, inverse: paddle.Tensor) -> paddle.Tensor:
        context.inverse = inverse
        return _gather(x if len(index) <= len(x) else _with_zeros(x), index)

    @staticmethod
    def backward(context: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        inverse = context.inverse
        return _gather(gradient if len(inverse) <= len(gradient) else _with_zeros(gradient), inverse)


def _gather(rows: paddle.Tensor, index: paddle.Tensor) -> paddle.Tensor:
    return _C_ops.gather(rows, index, 0)


def _with_zeros(rows: paddle.Tensor) -> paddle.Tensor:
    """One row of zeros more."""
    return _C_ops.concat([rows, paddle.zeros([1, rows.shape[1]], rows.dtype)], 0)


# --- attention ----------------------------------------------------------------------------------------------------


class Attention(paddle.autograd.PyLayer):
    """Queries, keys and values of all heads [tokens, 3 * size] -> what the heads attend to [tokens, size]

    With p the softmax of the scores and m what dropout makes of a one, the output is (p m) v. From its gradient g come
    those of v, (p m)^T g; of p, d = m (g v^T); and of the scores, p (d - sum(p d)).
    """

    @staticmethod
    def forward(context: Any, qkv: paddle.Tensor, layout: Layout, dropout: float) -> paddle.Tensor:
        size = qkv.shape[1] // 3 // layout.num_heads
        num_rows = layout.num_tokens * layout.num_heads
        context.layout, context.size = layout, size
        heads, outputs = qkv.reshape([-1, size]), paddle.empty([num_rows + 1, size])
        context.masks = [
            DropoutMask([*group.shape, group.shape[2]], dropout) if dropout else None for group in layout.groups
        ]
        parts = zip(layout.groups, context.masks, strict=True)
        found = threads.run(_attend, [(heads, outputs, group, mask, not qkv.stop_gradient) for group, mask in parts])
        context.save_for_backward(*(tensor for of_group in found for tensor in of_group))
        return outputs._slice(0, num_rows).reshape([layout.num_tokens, -1])

    @staticmethod
    def backward(context: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        layout, size, saved = context.layout, context.size, context.saved_tensor()
        num_rows = 3 * layout.num_tokens * layout.num_heads
        heads, gradients = gradient.reshape([-1, size]), paddle.empty([num_rows + 1, size])
        if any(group.mask is not None for group in layout.groups):
            heads = _with_zeros(heads)
        parts = zip(layout.groups, context.masks, strict=True)
        threads.run(
            _attend_backward,
            [(heads, gradients, group, mask, *saved[4 * i : 4 * i + 4]) for i, (group, mask) in enumerate(parts)],
        )
        return gradients._slice(0, num_rows).reshape([layout.num_tokens, -1])


def _attend(
    heads: paddle.Tensor, outputs: paddle.Tensor, group: Group, mask: DropoutMask | None, learns: bool
) -> tuple[paddle.Tensor, ...]:
    """Write the outputs of a group into ``outputs`` [rows, head size]; return what its gradient is computed from.

    Where nothing is learnt that is not kept: evaluation holds the scores of few groups at a time.
    """
    size = heads.shape[1]
    q, k, v = (_gather(heads, rows).reshape([*group.shape, size]) for rows in group.qkv)
    q = q.scale_(size**-0.5)
    scores = _C_ops.matmul(q, k, False, True)
    if group.mask is not None:
        scores = scores.add_(group.mask)
    weights = _C_ops.softmax_(scores, -1)
    used = mask.to_float().multiply_(weights) if mask else weights
    output = _C_ops.matmul(used, v, False, False).reshape([-1, size])
    _C_ops.scatter_(outputs, group.outputs, output.scale_(mask.scale) if mask else output, True)
    return (q, k, v, weights) if learns else ()


def _attend_backward(
    heads: paddle.Tensor,
    gradients: paddle.Tensor,
    group: Group,
    mask: DropoutMask | None,
    q: paddle.Tensor,
    k: paddle.Tensor,
    v: paddle.Tensor,
    weights: paddle.Tensor,
) -> None:
    """Write the gradients of a group's queries, keys and values into ``gradients`` [rows, head size]."""
    size = heads.shape[1]
    by_output = _gather(heads, group.outputs).reshape(v.shape)
    by_output = by_output.scale_(mask.scale) if mask else by_output
    by_weights, used = _C_ops.matmul(by_output, v, False, True), weights
    if mask:
        keep = mask.to_float()
        by_weights, used = by_weights.multiply_(keep), keep.multiply_(weights)
    by_scores = _C_ops.softmax_grad(weights, by_weights, -1)
    parts = (
        _C_ops.matmul(by_scores, k, False, False).scale_(size**-0.5),
        _C_ops.matmul(by_scores, q, True, False),
        _C_ops.matmul(used, by_output, True, False),
    )
    for rows, part in zip(group.qkv_gradients, parts, strict=True):
        _C_ops.scatter_(gradients, rows, part.reshape([-1, size]), True)
