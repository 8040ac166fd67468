"""Rotary positions (Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021)."""

from __future__ import annotations

import paddle

# Cosines and sines.
Turns = tuple[paddle.Tensor, paddle.Tensor]


def rotations(position_ids: paddle.Tensor, size: int, theta: float) -> Turns:
    """Cosines and sines of the angles that pairs of a head's units are turned by, [batch, length, 1, size / 2] each.

    Pair i turns by ``position * theta ** (-2 i / size)``.

    Args:
        position_ids: int64 [batch, length].
        size: of a head.
    """
    speeds = theta ** (paddle.arange(0, size, 2, dtype="float32") / -size)
    angles = position_ids.astype("float32").unsqueeze([2, 3]) * speeds
    return angles.cos(), angles.sin()


def rotate(x: paddle.Tensor, cosines: paddle.Tensor, sines: paddle.Tensor) -> paddle.Tensor:
    """Turn the pairs (x[i], x[i + size / 2]) of heads [batch, length, heads, size]."""
    first, second = x.chunk(2, axis=-1)
    return paddle.concat([first * cosines - second * sines, second * cosines + first * sines], axis=-1)
