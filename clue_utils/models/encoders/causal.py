"""What decoders of our own share: the attention itself and the activations of feed-forwards."""

from __future__ import annotations

import functools
from collections.abc import Callable

import paddle
import paddle.nn.functional as F

# What the activation of a feed-forward is called -> the function.
ACTIVATIONS: dict[str, Callable[[paddle.Tensor], paddle.Tensor]] = {
    "silu": F.silu,
    "relu": F.relu,
    "tanh": F.tanh,
    "gelu": F.gelu,
    "gelu_new": functools.partial(F.gelu, approximate=True),
}


def attend(
    query: paddle.Tensor, key: paddle.Tensor, value: paddle.Tensor, mask: paddle.Tensor, dropout: paddle.nn.Layer
) -> paddle.Tensor:
    """Scaled dot-product attention (Vaswani et al., "Attention Is All You Need", 2017).

    Args:
        query, key, value: float [batch, length, heads, size].
        mask: what is added to the scores, float32 [batch, 1, length, length].
        dropout: of the weights.

    Returns:
        float [batch, length, heads * size].
    """
    query, key, value = (each.transpose([0, 2, 1, 3]) for each in (query * query.shape[-1] ** -0.5, key, value))
    # In float32, as the scores of these models can be large.
    scores = paddle.matmul(query, key, transpose_y=True).astype("float32") + mask
    weights = dropout(F.softmax(scores, axis=-1).astype(value.dtype))
    return paddle.matmul(weights, value).transpose([0, 2, 1, 3]).flatten(2)
