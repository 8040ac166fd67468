"""What makes a model fast on a processor, beside ``environment.tune_cpu`` and ``device.tune_cpu``.

Results change by no more than the rounding of sums, but for which units dropout picks. ``scripts/benchmark.sh``
measures what it is worth.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F

from clue_utils.models.dropout import Kept
from clue_utils.models.packed import OF_PADDING, Attention, Layout, Projections

logger = logging.getLogger(__name__)
_C_ops: Any = paddle._C_ops
Gradients = tuple[paddle.Tensor | None, ...]


def speed_up(model: paddle.nn.Layer) -> None:
    """Replace the layers of a float32 model by those below; parameters and their names stay."""
    num_packed = 0
    for layer in model.sublayers():
        if TransformerEncoder.takes(layer):
            layer.__class__ = TransformerEncoder
            num_packed += len(layer.layers)
    for layer in model.sublayers():
        for kind in (Linear, LayerNorm, Dropout):
            if kind.takes(layer):
                layer.__class__ = kind
    if num_packed:
        logger.debug("padding: nothing is computed for it in %d layers", num_packed)
    else:
        logger.info("padding: computed like tokens, since the layers are not Paddle's own")


# --- linear layers ------------------------------------------------------------------------------------------------


class Linear(paddle.nn.Linear):
    """A linear layer whose bias gets its gradient by a matrix product.

    Paddle's own kernel sums on one thread, which takes a quarter of a training step.
    """

    @staticmethod
    def takes(layer: paddle.nn.Layer) -> bool:
        """Whether this can take the place of a layer."""
        return type(layer) is paddle.nn.Linear and layer.bias is not None

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        if not paddle.in_dynamic_mode():  # while the model is exported
            return super().forward(x)
        return _LinearFunction.apply(x, self.weight, self.bias)


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
        return (
            paddle.matmul(gradient, weight, transpose_y=True) if by_x else None,
            paddle.matmul(x.reshape([-1, x.shape[-1]]), rows, transpose_x=True) if by_weight else None,
            _sum_of_rows(rows) if by_bias else None,
        )


def _sum_of_rows(rows: paddle.Tensor) -> paddle.Tensor:
    """[rows, size] -> [size], by a product, which is several times as fast as the reduction."""
    return (paddle.ones([1, rows.shape[0]], rows.dtype) @ rows).flatten()


# --- layer normalisation ------------------------------------------------------------------------------------------


class LayerNorm(paddle.nn.LayerNorm):
    """A layer normalisation whose gradients are made of matrix products and whole-tensor operations.

    Paddle's own kernel works on one thread and takes more than twice as long.
    """

    @staticmethod
    def takes(layer: paddle.nn.Layer) -> bool:
        """Whether this can take the place of a layer."""
        return type(layer) is paddle.nn.LayerNorm and layer.bias is not None and len(layer._normalized_shape) == 1

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


# --- dropout ------------------------------------------------------------------------------------------------------


class Dropout(paddle.nn.Dropout):
    """A dropout layer that draws its units many at a time, see ``dropout.Kept``."""

    @staticmethod
    def takes(layer: paddle.nn.Layer) -> bool:
        """Whether this can take the place of a layer."""
        is_plain = type(layer) is paddle.nn.Dropout and layer.axis is None and layer.mode == "upscale_in_train"
        return is_plain and layer.p < 1

    def draw(self, shape: Sequence[int]) -> Kept | None:
        """What is kept of units of this shape; None: all."""
        return Kept(shape, self.p) if self.training and self.p else None

    def forward(self, input: paddle.Tensor) -> paddle.Tensor:
        kept = self.draw(input.shape) if paddle.in_dynamic_mode() else None
        return super().forward(input) if kept is None else _DropoutFunction.apply(input, kept)


class _DropoutFunction(paddle.autograd.PyLayer):
    """x [...] -> scale * x where it is kept, else 0 [...]"""

    @staticmethod
    def forward(context: Any, x: paddle.Tensor, kept: Kept) -> paddle.Tensor:
        context.kept = kept
        return kept.ones().multiply_(x).scale_(kept.scale)

    @staticmethod
    def backward(context: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        kept = context.kept
        return kept.ones().multiply_(gradient).scale_(kept.scale)


# --- the encoder --------------------------------------------------------------------------------------------------


class TransformerEncoder(paddle.nn.TransformerEncoder):
    """An encoder that computes nothing for padding, whose states are given as zeros."""

    @staticmethod
    def takes(layer: paddle.nn.Layer) -> bool:
        """Whether this can take the place of a layer: an encoder of Paddle's all through."""
        return type(layer) is paddle.nn.TransformerEncoder and all(
            type(each) is paddle.nn.TransformerEncoderLayer and type(each.self_attn) is paddle.nn.MultiHeadAttention
            for each in layer.layers
        )

    def forward(self, src: paddle.Tensor, src_mask: paddle.Tensor | None = None, *rest: Any, **more: Any) -> Any:
        """As of Paddle's: float [batch, length, size], mask [batch, 1, 1, length] -> [batch, length, size]."""
        is_plain = not any([*rest, *more.values(), self.enable_recompute, getattr(self, "_use_cache", False)])
        if not paddle.in_dynamic_mode() or not is_plain:
            return super().forward(src, src_mask, *rest, **more)
        is_token = _find_tokens(src, src_mask)
        if is_token is None:
            return super().forward(src, src_mask, *rest, **more)
        layout = Layout(is_token, self.layers[0].self_attn.num_heads)
        x = layout.pack(src)
        for layer in self.layers:
            x = _through_layer(layer, x, layout)
        return layout.unpack(x if self.norm is None else self.norm(x))


def _find_tokens(src: paddle.Tensor, mask: paddle.Tensor | None) -> np.ndarray | None:
    """Where the tokens are, bool [batch, length]; None: the mask says more than that, or a row has none."""
    if mask is None:
        return np.ones(src.shape[:2], bool)
    if mask.ndim != 4 or mask.shape[1:3] != [1, 1]:
        return None
    values = mask.numpy()[:, 0, 0]
    if values.dtype.kind == "f":
        is_token, is_clear = values == 0, values <= OF_PADDING
    else:
        is_token, is_clear = values != 0, values == 0
    return is_token if is_token.any(axis=1).all() and (is_token | is_clear).all() else None


def _through_layer(layer: Any, x: paddle.Tensor, layout: Layout) -> paddle.Tensor:
    """What ``paddle.nn.TransformerEncoderLayer`` computes, of tokens [tokens, size]."""
    attention = layer.self_attn
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    y = layer.norm1(x) if layer.normalize_before else x
    if all(type(each) is Linear for each in projections):
        heads = Projections.apply(y, *(each.weight for each in projections), *(each.bias for each in projections))
    else:  # with adapters beside them
        heads = paddle.concat([project(y) for project in projections], axis=1)
    y = attention.out_proj(Attention.apply(heads, layout, attention.dropout if attention.training else 0.0))
    x = x + layer.dropout1(y)
    x = x if layer.normalize_before else layer.norm1(x)
    y = layer.norm2(x) if layer.normalize_before else x
    y = layer.linear2(layer.dropout(layer.activation(layer.linear1(y))))
    x = x + layer.dropout2(y)
    return x if layer.normalize_before else layer.norm2(x)
