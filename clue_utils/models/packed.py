"""Batches without padding: their tokens one after another, [tokens, size], and the attention of those.

Sequences of similar length share their attention as a group, in which alone the shorter ones are padded to the longest.
Where the tokens are is worked out once a batch (``Layout``), as indices that any device can gather by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle

from clue_utils.models.dropout import Kept

_C_ops: Any = paddle._C_ops
# What one more group costs, in attention scores that are computed in the same time.
_GROUP_COST = 1 << 14
# Scores of a group at the most, unless it is a single sequence: evaluation holds those of one group at a time.
_GROUP_SCORES = 1 << 19
# Added to the scores of padding, as in PaddleNLP.
OF_PADDING = -1e4


@dataclass(frozen=True, eq=False)
class Group:
    """Sequences of similar length, whose attention is computed together.

    Attributes:
        shape: sequences, heads, length of the longest.
        projections: of queries, of keys and of values: where each head of each token is, int32 [sequences * heads *
            length], among [tokens * 3 * heads]. A place that is padding has that of its sequence's last token.
        outputs: the same among [tokens * heads]; a place that is padding has that of the row behind the last.
        mask: what is to be added to the scores, float [sequences, heads, length, length]; None: nothing.
    """

    shape: tuple[int, int, int]
    projections: tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]
    outputs: paddle.Tensor
    mask: paddle.Tensor | None


class Layout:
    """Where the tokens of a batch are: in the batch, one after another, and in the groups of the attention.

    Args:
        is_token: bool [batch, length], with a token in each row.

    Attributes:
        places: where each token is in the batch, int32 [tokens].
        rows: which token is at each place, int32 [batch * length]; the number behind the last where none is.
        begins_rows: whether each row of the batch begins with a token.
        outputs, projections: where each token's heads are in all groups' outputs, int32 [tokens * heads], and in all
            groups' queries, keys and values, [tokens * 3 * heads].
    """

    def __init__(self, is_token: np.ndarray, num_heads: int) -> None:
        self.shape, self.num_heads = is_token.shape, num_heads
        places, lengths = np.flatnonzero(is_token), is_token.sum(axis=1)
        self.num_tokens = len(places)
        self.is_whole = self.num_tokens == is_token.size
        rows = np.full(is_token.size, self.num_tokens, np.int32)
        rows[places] = np.arange(self.num_tokens)
        self.places, self.rows = paddle.to_tensor(places.astype(np.int32)), paddle.to_tensor(rows)
        firsts = np.cumsum(lengths) - lengths
        self.begins_rows = bool(is_token[:, 0].all())
        self._firsts, self._sequences = firsts.astype(np.int32), np.full(self.num_tokens, len(firsts), np.int32)
        self._sequences[firsts] = np.arange(len(firsts))
        outputs = np.empty(self.num_tokens * num_heads + 1, np.int32)
        projections = np.empty((self.num_tokens, 3, num_heads), np.int32)
        self.groups: list[Group] = []
        begin = 0
        for members in group_by_length(lengths, num_heads):
            length = int(lengths[members].max())
            steps = np.arange(length)
            is_padding = steps >= lengths[members, None]
            tokens = firsts[members, None] + np.minimum(steps, lengths[members, None] - 1)  # [sequences, length]
            token, head = tokens[:, None], np.arange(num_heads)[:, None]  # of [sequences, heads, length]
            inputs = [((3 * token + kind) * num_heads + head).astype(np.int32) for kind in range(3)]
            of_outputs = token * num_heads + head
            of_outputs = np.where(is_padding[:, None], self.num_tokens * num_heads, of_outputs).astype(np.int32)
            size = of_outputs.size
            outputs[of_outputs.ravel()] = np.arange(begin, begin + size)
            where = np.arange(size).reshape(of_outputs.shape).transpose(0, 2, 1)[~is_padding]  # [tokens, heads]
            for kind in range(3):
                projections[tokens[~is_padding], kind] = 3 * begin + kind * size + where
            self.groups.append(
                Group(
                    (len(members), num_heads, length),
                    tuple(paddle.to_tensor(index.ravel()) for index in inputs),
                    paddle.to_tensor(of_outputs.ravel()),
                    _mask(is_padding, num_heads),
                )
            )
            begin += size
        self.has_padding = any(group.mask is not None for group in self.groups)
        self.outputs = paddle.to_tensor(outputs[:-1])
        self.projections = paddle.to_tensor(projections.ravel())

    def pack(self, padded: paddle.Tensor) -> paddle.Tensor:
        """[batch, length, size] -> [tokens, size]"""
        rows = padded.flatten(0, 1)
        return rows if self.is_whole else _Gather.apply(rows, self.places, self.rows)

    def unpack(self, packed: paddle.Tensor) -> paddle.Tensor:
        """[tokens, size] -> [batch, length, size], with zeros for padding"""
        rows = packed if self.is_whole else _Gather.apply(packed, self.rows, self.places)
        return rows.reshape([*self.shape, packed.shape[-1]])

    def take_firsts(self, packed: paddle.Tensor) -> paddle.Tensor:
        """Of each sequence its first token: [tokens, size] -> [batch, size]"""
        return _Gather.apply(packed, paddle.to_tensor(self._firsts), paddle.to_tensor(self._sequences))

    def unpack_firsts(self, firsts: paddle.Tensor) -> paddle.Tensor:
        """[batch, size] -> [batch, length, size], where all others are no numbers, lest they be read unnoticed"""
        batch, length = self.shape
        states = firsts.unsqueeze(1)
        if length == 1:
            return states
        return paddle.concat([states, paddle.full([batch, length - 1, firsts.shape[1]], np.nan, firsts.dtype)], 1)


def _mask(is_padding: np.ndarray, num_heads: int) -> paddle.Tensor | None:
    if not is_padding.any():
        return None
    number, length = is_padding.shape
    row = paddle.to_tensor(np.where(is_padding[:, None], np.float32(OF_PADDING), np.float32(0)))
    # A product, since Paddle's sum of two shapes takes many times as long as that of one.
    return (paddle.ones([number, num_heads * length, 1]) @ row).reshape([number, num_heads, length, length])


def group_by_length(lengths: np.ndarray, num_heads: int) -> list[np.ndarray]:
    """Row numbers in groups, of all ways to cut the rows in order of length the one that takes the least time.

    A group takes as long as its scores, and some time of its own.
    """
    order = np.argsort(-lengths, kind="stable")
    scores = num_heads * lengths[order].astype(np.int64) ** 2  # of a row as the longest of a group
    best, begins = np.zeros(len(order) + 1), np.zeros(len(order) + 1, int)
    for end in range(1, len(order) + 1):
        of_group = (end - np.arange(end)) * scores[:end]
        costs = best[:end] + of_group + _GROUP_COST
        costs[:-1][of_group[:-1] > _GROUP_SCORES] = np.inf
        begins[end] = np.argmin(costs)
        best[end] = costs[begins[end]]
    groups, end = [], len(order)
    while end:
        groups.append(order[begins[end] : end])
        end = begins[end]
    return groups[::-1]


def _gather(rows: paddle.Tensor, index: paddle.Tensor) -> paddle.Tensor:
    return _C_ops.gather(rows, index, 0)


def _with_zeros(rows: paddle.Tensor) -> paddle.Tensor:
    """One row of zeros more."""
    return _C_ops.concat([rows, paddle.zeros([1, rows.shape[1]], rows.dtype)], 0)


class _Gather(paddle.autograd.PyLayer):
    """x [n, size], index [m] -> the rows of x, zeros where the index is n [m, size]

    Each row is taken once at the most: ``back`` [n] says where it went, m where it did not.
    """

    @staticmethod
    def forward(context: Any, x: paddle.Tensor, index: paddle.Tensor, back: paddle.Tensor) -> paddle.Tensor:
        context.back = back
        return _gather(x if len(index) <= len(x) else _with_zeros(x), index)

    @staticmethod
    def backward(context: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        back = context.back
        return _gather(gradient if len(back) <= len(gradient) else _with_zeros(gradient), back)


class Projections(paddle.autograd.PyLayer):
    """x [tokens, size], three weights [size, size] and biases [size] -> x by each of them [tokens, 3 * size]"""

    @staticmethod
    def forward(context: Any, x: paddle.Tensor, *parameters: paddle.Tensor) -> paddle.Tensor:
        weights, biases = parameters[:3], parameters[3:]
        context.save_for_backward(x, *weights)
        context.asked = [not each.stop_gradient for each in (x, *parameters)]
        return _C_ops.addmm(paddle.concat(biases).unsqueeze(0), x, paddle.concat(weights, 1), 1.0, 1.0)

    @staticmethod
    def backward(context: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        x, *weights = context.saved_tensor()
        by_x = by_weights = by_biases = None
        if context.asked[0]:
            by_x = _C_ops.matmul(gradient, paddle.concat(weights, 1), False, True)
        if any(context.asked[1:4]):
            by_weights = paddle.split(_C_ops.matmul(x, gradient, True, False), 3, 1)
        if any(context.asked[4:]):
            by_biases = paddle.split((paddle.ones([1, len(x)]) @ gradient).flatten(), 3)
        found = (by_x, *(by_weights or [None] * 3), *(by_biases or [None] * 3))
        return tuple(each if asked else None for each, asked in zip(found, context.asked, strict=True))


class Attention(paddle.autograd.PyLayer):
    """Queries, keys and values of all heads [tokens, 3 * size] -> what the heads attend to [tokens, size]

    With p the softmax of the scores and m what dropout makes of a one, the output is (p m) v. From its gradient g come
    those of v, (p m)^T g; of p, d = m (g v^T); and of the scores, p (d - sum(p d)).
    """

    @staticmethod
    def forward(context: Any, x: paddle.Tensor, layout: Layout, probability: float) -> paddle.Tensor:
        num_tokens, size = x.shape[0], x.shape[1] // 3 // layout.num_heads
        context.layout, context.size, context.factor = layout, size, size**-0.5
        heads = x.reshape([-1, size])
        outputs, saved, context.kept = [], [], []
        for group in layout.groups:
            q, k, v = (_gather(heads, index).reshape([*group.shape, size]) for index in group.projections)
            q = q.scale_(context.factor)
            scores = _C_ops.matmul(q, k, False, True)
            if group.mask is not None:
                scores = scores.add_(group.mask)
            weights = _C_ops.softmax_(scores, -1)
            kept = Kept(weights.shape, probability) if probability else None
            saved += [q, k, v, weights]
            context.kept.append(kept)
            if kept:
                weights = kept.ones().multiply_(weights)
            output = _C_ops.matmul(weights, v, False, False).reshape([-1, size])
            outputs.append(output.scale_(kept.scale) if kept else output)
        context.save_for_backward(*saved)
        return _gather(_together(outputs), layout.outputs).reshape([num_tokens, -1])

    @staticmethod
    def backward(context: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        layout, size, saved = context.layout, context.size, context.saved_tensor()
        heads = gradient.reshape([-1, size])
        if layout.has_padding:
            heads = _with_zeros(heads)
        found = []
        for i, (group, kept) in enumerate(zip(layout.groups, context.kept, strict=True)):
            q, k, v, weights = saved[4 * i : 4 * i + 4]
            of_output = _gather(heads, group.outputs).reshape(v.shape)
            used = weights
            if kept:
                of_output, ones = of_output.scale_(kept.scale), kept.ones()
                used = _C_ops.multiply(weights, ones)
            of_weights = _C_ops.matmul(of_output, v, False, True)
            of_scores = _C_ops.softmax_grad(weights, of_weights.multiply_(ones) if kept else of_weights, -1)
            for part in (
                _C_ops.matmul(of_scores, k, False, False).scale_(context.factor),
                _C_ops.matmul(of_scores, q, True, False),
                _C_ops.matmul(used, of_output, True, False),
            ):
                found.append(part.reshape([-1, size]))
        return _gather(_together(found), layout.projections).reshape([len(gradient), -1])


def _together(parts: Sequence[paddle.Tensor]) -> paddle.Tensor:
    return _C_ops.concat(list(parts), 0) if len(parts) > 1 else parts[0]
