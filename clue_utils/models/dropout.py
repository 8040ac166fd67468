"""Dropout on a processor: which units are kept is drawn many at a time, several blocks of them at once.

Paddle draws each unit from one serial generator, which takes longer than all else that is done to it.
"""

from __future__ import annotations

import concurrent.futures
import functools
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import paddle
from paddle.utils.dlpack import from_dlpack

_C_ops: Any = paddle._C_ops
_core: Any = paddle.base.core
# Units that one generator draws for, 16 bits each.
_BLOCK_SIZE = 1 << 18
_LEVELS = 1 << 16


class Kept:
    """Units to be kept, each with a probability of 1 - ``probability`` to 1 / 65536.

    The bits follow from the next number of Paddle's generator, which the seed of a step decides, and from nothing else:
    each block is drawn by an SFC64 of its own (Doty-Humphrey, PractRand) that is seeded with that number and the
    block's (``numpy.random.SeedSequence``), so neither threads nor what was drawn before count.

    Attributes:
        units: bool tensor of the shape asked for.
        scale: by which what is kept is multiplied, so that the mean stays.
    """

    def __init__(self, shape: Sequence[int], probability: float) -> None:
        num_dropped = min(round(probability * _LEVELS), _LEVELS - 1)
        self.scale = _LEVELS / (_LEVELS - num_dropped)
        key = _core.default_cpu_generator().random()
        units = np.empty(math.prod(shape), bool)
        blocks = [units[begin : begin + _BLOCK_SIZE] for begin in range(0, units.size, _BLOCK_SIZE)]
        fill = functools.partial(_fill, key, np.uint16(num_dropped))
        threads = _threads() if len(blocks) > 1 else None
        for _ in (threads.map if threads else map)(fill, range(len(blocks)), blocks):
            pass
        self.units: paddle.Tensor = from_dlpack(units.view(np.uint8).reshape(shape))

    def ones(self) -> paddle.Tensor:
        """1 for the units that are kept and 0 for the others, float32."""
        return _C_ops.cast(self.units, paddle.float32)

    def of(self, x: paddle.Tensor) -> paddle.Tensor:
        """What dropout makes of x, whose gradient it makes of a gradient, too."""
        return self.ones().multiply_(x).scale_(self.scale)


def _fill(key: int, num_dropped: np.uint16, number: int, block: np.ndarray) -> None:
    generator = np.random.SFC64(np.random.SeedSequence(key, spawn_key=(number,)))
    words = generator.random_raw(-(-block.size // 4)).view(np.uint16)[: block.size]
    np.greater_equal(words, num_dropped, out=block)


@functools.cache
def _threads() -> concurrent.futures.Executor | None:
    """As many threads as Paddle has; NumPy lets them draw at the same time."""
    number = int(os.environ.get("OMP_NUM_THREADS", "1").partition(",")[0])
    return concurrent.futures.ThreadPoolExecutor(number, "dropout") if number > 1 else None
