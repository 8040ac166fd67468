"""Parts of an operation on several threads.

Of Paddle's operations on a processor only matrix products take several threads by themselves. Others are done in parts
by Python's threads: while they compute, Paddle and NumPy leave the interpreter to the next thread.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import functools
import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import paddle

_C_ops: Any = paddle._C_ops
# Elements of a part at the least: below, to start a thread takes longer than what it computes.
_PART_SIZE = 1 << 17
# Two threads gain no more than it takes to part the work and put it together; many wait for the interpreter.
_FEWEST, _MOST = 3, 8


def count() -> int:
    """How many compute: as many as Paddle has for its matrix products, within bounds; 1: none but the caller's."""
    try:
        number = int(os.environ["OMP_NUM_THREADS"].partition(",")[0])
    except (KeyError, ValueError):
        return 1
    return min(number, _MOST) if number >= _FEWEST else 1


def run(function: Callable[..., Any], parts: Sequence[tuple[Any, ...]]) -> list[Any]:
    """``function(*part)`` of each part, in their order; nothing of it is recorded for gradients."""
    pool = _pool() if len(parts) > 1 else None
    if pool is None:
        return [_without_gradients(function, part) for part in parts]
    return list(pool.map(_without_gradients, [function] * len(parts), parts))


def by_rows(
    function: Callable[..., Any], num_outputs: int, first: paddle.Tensor, *others: paddle.Tensor | None
) -> list[paddle.Tensor]:
    """``function`` of tensors with as many rows each, computed in parts of the rows.

    Args:
        function: inputs [rows, columns] -> outputs of the shape and type of the first, of which each row depends on the
            same row of the inputs alone.
    """
    rows, columns = first.shape
    num_parts = min(count(), rows, rows * columns // _PART_SIZE)
    if num_parts <= 1:
        return list(_without_gradients(function, (first, *others)))
    outputs = [paddle.empty([rows, columns], first.dtype) for _ in range(num_outputs)]

    def compute(begin: int, end: int) -> None:
        found = function(*(None if each is None else each._slice(begin, end) for each in (first, *others)))
        for output, part in zip(outputs, found, strict=True):
            _C_ops.assign_out_(part, output._slice(begin, end))

    bounds = [rows * part // num_parts for part in range(num_parts + 1)]
    run(compute, list(itertools.pairwise(bounds)))
    return outputs


def _without_gradients(function: Callable[..., Any], part: tuple[Any, ...]) -> Any:
    with paddle.no_grad():  # which each thread has for itself
        return function(*part)


@functools.cache
def _pool() -> concurrent.futures.Executor | None:
    if count() == 1:
        return None
    # A thread of OpenMP's that has nothing left to do waits for more in a loop that keeps a processor from these
    # threads: not for 200 ms, as by default, but for 1.
    _call_openmp("kmp_set_blocktime", 1)
    return concurrent.futures.ThreadPoolExecutor(count(), "parts", _call_openmp, ("omp_set_num_threads", 1))


def _call_openmp(name: str, value: int) -> None:
    """Set something of this thread in the OpenMP that Paddle's matrix products use, where it is Intel's."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(str(Path(paddle.__file__).parent / "libs/libiomp5.so"))
        getattr(library, name)(ctypes.c_int(value))
