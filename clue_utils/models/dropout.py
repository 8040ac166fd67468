"""Dropout on a processor: the mask is drawn many units at a time, by several threads.

Paddle draws each unit from one serial generator, which takes longer than all else that is done to it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import paddle
from paddle.utils.dlpack import from_dlpack

from clue_utils.models import threads

_C_ops: Any = paddle._C_ops
_core: Any = paddle.base.core
# Units that one generator draws for, 16 bits each.
_BLOCK_SIZE = 1 << 18
_LEVELS = 1 << 16


class DropoutMask:
    """Which units dropout keeps, each with a probability of 1 - ``probability`` to 1 / 65536.

    The bits follow from the next number of Paddle's generator, which the seed of a step decides, and from nothing else:
    each block is drawn by an SFC64 of its own (Doty-Humphrey, PractRand) that is seeded with that number and the
    block's (``numpy.random.SeedSequence``), so neither threads nor what was drawn before count.

    Attributes:
        keep: 1 for the units that are kept and 0 for the others, uint8 of the shape asked for.
        scale: by which what is kept is multiplied, so that the mean stays.
    """

    def __init__(self, shape: Sequence[int], probability: float) -> None:
        num_dropped = min(round(probability * _LEVELS), _LEVELS - 1)
        self.scale = _LEVELS / (_LEVELS - num_dropped)
        key = _core.default_cpu_generator().random()
        keep = np.empty(math.prod(shape), bool)
        blocks = [keep[begin : begin + _BLOCK_SIZE] for begin in range(0, keep.size, _BLOCK_SIZE)]
        draw = functools.partial(_draw, key, np.uint16(num_dropped))
        threads.run(draw, list(enumerate(blocks)))
        self.keep: paddle.Tensor = from_dlpack(keep.view(np.uint8).reshape(shape))

    def to_float(self) -> paddle.Tensor:
        """``keep`` as float32."""
        return _C_ops.cast(self.keep, paddle.float32)

    def apply(self, x: paddle.Tensor) -> paddle.Tensor:
        """What dropout makes of x, and, of a gradient by that, the gradient by x."""
        return apply_dropout(x, self.keep, self.scale)


def apply_dropout(x: paddle.Tensor, keep: paddle.Tensor, scale: float) -> paddle.Tensor:
    """x [...], uint8 ``keep`` [...] -> scale * x where it is kept, else 0 [...]"""
    return _C_ops.cast(keep, paddle.float32).multiply_(x).scale_(scale)


def _draw(key: int, num_dropped: np.uint16, number: int, block: np.ndarray) -> None:
    generator = np.random.SFC64(np.random.SeedSequence(key, spawn_key=(number,)))
    words = generator.random_raw(-(-block.size // 4)).view(np.uint16)[: block.size]
    np.greater_equal(words, num_dropped, out=block)
