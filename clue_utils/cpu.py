"""What makes PaddlePaddle fast on a processor, beside the environment of ``runtime.cpu_settings``.

Results change by no more than the rounding of sums. ``scripts/benchmark.sh`` measures what it is worth.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any

import paddle

# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def tune() -> None:
    """Settings for a process that computes on the CPU."""
    # A transposition as a view makes every later operation copy, element by element, what it reads.
    paddle.set_flags({"FLAGS_use_stride_kernel": False})
    # Paddle returns each tensor's memory to the system at once, which then zeroes it, page by page, for the next one.
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def speed_up(model: paddle.nn.Layer) -> None:
    """Replace the linear layers of a float32 model by :class:`Linear`; parameters and their names stay."""
    for layer in model.sublayers():
        if type(layer) is paddle.nn.Linear and layer.bias is not None:
            layer.__class__ = Linear


class Linear(paddle.nn.Linear):
    """A linear layer whose bias gets its gradient by a matrix product.

    Paddle's own kernel sums on one thread, which takes a quarter of a training step.
    """

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        if not paddle.in_dynamic_mode():  # while the model is exported
            return super().forward(x)
        return _LinearFunction.apply(x, self.weight, self.bias)


class _LinearFunction(paddle.autograd.PyLayer):
    """x [..., in], weight [in, out], bias [out] -> x @ weight + bias [..., out]"""

    @staticmethod
    def forward(context: Any, x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor) -> paddle.Tensor:
        context.save_for_backward(x, weight)
        return paddle.matmul(x, weight).add_(bias)

    @staticmethod
    def backward(context: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
        x, weight = context.saved_tensor()
        rows = gradient.reshape([-1, gradient.shape[-1]])
        ones = paddle.ones([1, rows.shape[0]], rows.dtype)
        return (
            paddle.matmul(gradient, weight, transpose_y=True),
            paddle.matmul(x.reshape([-1, x.shape[-1]]), rows, transpose_x=True),
            paddle.matmul(ones, rows).flatten(),
        )
