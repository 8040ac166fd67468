"""What encoders make of a batch's mask, int64 [batch, length] with 1 for tokens and 0 for padding on either side."""

from __future__ import annotations

import paddle


def or_ones(attention_mask: paddle.Tensor | None, input_ids: paddle.Tensor) -> paddle.Tensor:
    """The mask, or where there is none that of rows without padding."""
    return paddle.ones_like(input_ids) if attention_mask is None else attention_mask


def positions(attention_mask: paddle.Tensor) -> paddle.Tensor:
    """The number of each token among those of its row from 0 on, int64 [batch, length]; 0 before the first."""
    return (attention_mask.cumsum(axis=1) - 1).clip(min=0)


def last_states(hidden: paddle.Tensor, attention_mask: paddle.Tensor) -> paddle.Tensor:
    """The state of the last token of each row, float [batch, hidden_size] of [batch, length, hidden_size]."""
    last = (attention_mask * paddle.arange(1, attention_mask.shape[1] + 1)).argmax(axis=1)
    return hidden[paddle.arange(hidden.shape[0]), last]


def to_add(attention_mask: paddle.Tensor) -> paddle.Tensor:
    """What to add to attention scores so that no token sees padding, float [batch, 1, 1, length].

    -1e4 as in PaddleNLP: half precision holds it.
    """
    return (1 - attention_mask).astype(paddle.get_default_dtype()).unsqueeze([1, 2]) * -1e4


def causal_mask(attention_mask: paddle.Tensor) -> paddle.Tensor:
    """What to add to attention scores so that a token sees itself and those before it.

    Returns:
        float32 [batch, 1, length, length]: 0 or a large negative number.
    """
    length = attention_mask.shape[1]
    seen = attention_mask.astype("float32").unsqueeze([1, 2]) * paddle.tril(paddle.ones([length, length]))
    return (1 - seen) * -1e9
