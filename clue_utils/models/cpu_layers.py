"""What makes a model fast on a processor, beside ``environment.tune_cpu`` and ``device.tune_cpu``.

Results change by no more than the rounding of sums. ``scripts/benchmark.sh`` measures what it is worth.
"""

from __future__ import annotations

from typing import Any

import paddle
import paddle.nn.functional as F


def speed_up(model: paddle.nn.Layer) -> None:
    """Replace the layers of a float32 model by those below; parameters and their names stay."""
    for layer in model.sublayers():
        has_bias = getattr(layer, "bias", None) is not None
        if type(layer) is paddle.nn.Linear and has_bias:
            layer.__class__ = Linear
        elif type(layer) is paddle.nn.LayerNorm and has_bias and len(layer._normalized_shape) == 1:
            layer.__class__ = LayerNorm
        elif type(layer) is paddle.nn.TransformerEncoder:
            layer.__class__ = TransformerEncoder


class Linear(paddle.nn.Linear):
    """A linear layer whose bias gets its gradient by a matrix product.

    Paddle's own kernel sums on one thread, which takes a quarter of a training step.
    """

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        if not paddle.in_dynamic_mode():  # while the model is exported
            return super().forward(x)
        return _LinearFunction.apply(x, self.weight, self.bias)


Gradients = tuple[paddle.Tensor | None, paddle.Tensor | None, paddle.Tensor | None]


def _are_asked(*inputs: paddle.Tensor) -> list[bool]:
    """Whether there is to be a gradient of each; Paddle wants None for the others."""
    return [not each.stop_gradient for each in inputs]


class _LinearFunction(paddle.autograd.PyLayer):
    """x [..., in], weight [in, out], bias [out] -> x @ weight + bias [..., out]"""

    @staticmethod
    def forward(context: Any, x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor) -> paddle.Tensor:
        context.save_for_backward(x, weight)
        context.asked = _are_asked(x, weight, bias)
        return paddle.matmul(x, weight).add_(bias)

    @staticmethod
    def backward(context: Any, gradient: paddle.Tensor) -> Gradients:
        x, weight = context.saved_tensor()
        by_x, by_weight, by_bias = context.asked
        rows = gradient.reshape([-1, gradient.shape[-1]])
        ones = paddle.ones([1, rows.shape[0]], rows.dtype)
        return (
            paddle.matmul(gradient, weight, transpose_y=True) if by_x else None,
            paddle.matmul(x.reshape([-1, x.shape[-1]]), rows, transpose_x=True) if by_weight else None,
            paddle.matmul(ones, rows).flatten() if by_bias else None,
        )


class LayerNorm(paddle.nn.LayerNorm):
    """A layer normalisation whose gradients are made of matrix products and whole-tensor operations.

    Paddle's own kernel works on one thread and takes more than twice as long.
    """

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        if not paddle.in_dynamic_mode() or not paddle.is_grad_enabled():
            return super().forward(x)
        return _LayerNormFunction.apply(x, self.weight, self.bias, self._epsilon)


class _LayerNormFunction(paddle.autograd.PyLayer):
    """x [..., n], weight [n], bias [n] -> weight * normalised x + bias [..., n]

    With h the normalised x, s its standard deviation and d the gradient by h, the gradient by x is
    (d - mean(d) - h * mean(d * h)) / s (Ba et al., "Layer Normalization", 2016, by the chain rule).
    """

    @staticmethod
    def forward(
        context: Any, x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor, epsilon: float
    ) -> paddle.Tensor:
        context.save_for_backward(x, weight)
        context.epsilon, context.asked = epsilon, _are_asked(x, weight, bias)
        return F.layer_norm(x, weight.shape, weight, bias, epsilon)

    @staticmethod
    def backward(context: Any, gradient: paddle.Tensor) -> Gradients:
        x, weight = context.saved_tensor()
        asks_x, asks_weight, asks_bias = context.asked
        size = weight.shape[0]
        rows, gradients = x.reshape([-1, size]), gradient.reshape([-1, size])
        # Products with these are means over a row and sums over the rows, several times as fast as the reductions.
        mean, ones = paddle.full([size, 1], 1 / size, x.dtype), paddle.ones([1, rows.shape[0]], x.dtype)
        centred = rows - rows @ mean
        scale = paddle.rsqrt((centred * centred) @ mean + context.epsilon)
        normalised = centred.multiply_(scale)
        by_x = None
        if asks_x:
            inner = gradients * weight
            by_x = (inner - inner @ mean - normalised * ((inner * normalised) @ mean)).multiply_(scale).reshape(x.shape)
        return (
            by_x,
            (ones @ (gradients * normalised)).flatten() if asks_weight else None,
            (ones @ gradients).flatten() if asks_bias else None,
        )


class TransformerEncoder(paddle.nn.TransformerEncoder):
    """An encoder whose layers get the mask in the shape of the attention scores.

    Each layer adds it to its scores, and Paddle's sum of two shapes takes six times as long as that of one.
    """

    def forward(self, src: paddle.Tensor, src_mask: paddle.Tensor | None = None, *rest: Any, **more: Any) -> Any:
        is_exported = not paddle.in_dynamic_mode()
        if not is_exported and src_mask is not None and src_mask.ndim == 4 and src_mask.shape[1:3] == [1, 1]:
            batch, length = src.shape[:2]
            heads = self.layers[0].self_attn.num_heads
            column = paddle.ones([batch, heads * length, 1], src_mask.dtype)
            src_mask = (column @ src_mask.flatten(1, 2)).reshape([batch, heads, length, length])
        return super().forward(src, src_mask, *rest, **more)
