"""What makes a model fast on a processor, beside ``environment.tune_cpu`` and ``device.tune_cpu``.

Results change by no more than the rounding of sums, but for which units dropout picks. ``scripts/benchmark.sh``
measures what it is worth.
"""

from __future__ import annotations

import logging
import math
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
    layers = model.sublayers()
    for layer in layers:
        for kind in (PackedTransformerEncoder, TransformerEncoder, Linear, LayerNorm, Dropout):
            if kind.takes(layer):
                layer.__class__ = kind
    is_packed = any(type(layer) is PackedTransformerEncoder for layer in layers)
    logger.info("padding: %s", "left out of what is computed" if is_packed else "computed as if it were tokens")


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
        rows = x.reshape([-1, x.shape[-1]])
        # A sum of two shapes takes several times as long as it does here.
        return _C_ops.addmm(bias.unsqueeze(0), rows, weight, 1.0, 1.0).reshape([*x.shape[:-1], -1])

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

    def of_sum(self, x: paddle.Tensor, kept: Kept | None, residual: paddle.Tensor) -> paddle.Tensor:
        """What it makes of x with dropout plus ``residual``, float [rows, size] each."""
        return _LayerNormFunction.apply(x, self.weight, self.bias, self._epsilon, residual, kept)


class _LayerNormFunction(paddle.autograd.PyLayer):
    """x [..., n], weight [n], bias [n] -> weight * normalised x + bias [..., n]; of x with dropout plus a residual

    With h the normalised x, s its standard deviation and d the gradient by h, the gradient by x is
    (d - mean(d) - h * mean(d * h)) / s (Ba et al., "Layer Normalization", 2016, by the chain rule).
    """

    @staticmethod
    def forward(
        context: Any,
        x: paddle.Tensor,
        weight: paddle.Tensor,
        bias: paddle.Tensor,
        epsilon: float,
        residual: paddle.Tensor | None = None,
        kept: Kept | None = None,
    ) -> paddle.Tensor:
        context.epsilon, context.kept, context.has_residual = epsilon, kept, residual is not None
        inputs = (x, weight, bias) if residual is None else (x, weight, bias, residual)
        context.asked = _are_asked(*inputs)
        if residual is not None:
            x = kept.of(x).add_(residual) if kept else x + residual
        context.save_for_backward(x, weight)
        return F.layer_norm(x, weight.shape, weight, bias, epsilon)

    @staticmethod
    def backward(context: Any, gradient: paddle.Tensor) -> Gradients:
        x, weight = context.saved_tensor()
        asks_x, asks_weight, asks_bias, *asks_residual = context.asked
        size = weight.shape[0]
        rows, gradients = x.reshape([-1, size]), gradient.reshape([-1, size])
        # Products with ``mean`` are means over a row, with the ones sums and copies: each is several times as fast as
        # the reduction, or as an operation on two shapes.
        mean, ones = paddle.full([size, 1], 1 / size, x.dtype), paddle.ones([1, size], x.dtype)
        centred = rows - (rows @ mean) @ ones
        scale = paddle.rsqrt((centred * centred) @ mean + context.epsilon) @ ones
        normalised = centred.multiply_(scale)
        by_weight = _sum_of_rows(gradients * normalised) if asks_weight else None
        by_x = by_sum = None
        if asks_x or any(asks_residual):
            inner = (paddle.ones([len(rows), 1], x.dtype) @ weight.unsqueeze(0)).multiply_(gradients)
            along = ((inner * normalised) @ mean) @ ones
            inner = inner.subtract_((inner @ mean) @ ones).subtract_(normalised.multiply_(along))
            by_sum = inner.multiply_(scale).reshape(x.shape)
            by_x = context.kept.of(by_sum) if context.kept else by_sum
        found = (by_x if asks_x else None, by_weight, _sum_of_rows(gradients) if asks_bias else None)
        return (*found, by_sum if asks_residual[0] else None) if context.has_residual else found


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
        return kept.of(x)

    @staticmethod
    def backward(context: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        return context.kept.of(gradient)


# --- activation ---------------------------------------------------------------------------------------------------

_ROOT_OF_HALF, _LOG_OF_PEAK = math.sqrt(0.5), -math.log(2 * math.pi) / 2


def gelu(x: paddle.Tensor) -> paddle.Tensor:
    """As ``F.gelu``; where there will be gradients the slope is kept in the place of x, and takes less time to find."""
    return _GELUFunction.apply(x) if paddle.is_grad_enabled() and not x.stop_gradient else F.gelu(x)


class _GELUFunction(paddle.autograd.PyLayer):
    """x -> x P(x), whose slope is P(x) + x p(x), with p and P density and distribution of N(0, 1)

    (Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016.)
    """

    @staticmethod
    def forward(context: Any, x: paddle.Tensor) -> paddle.Tensor:
        share = paddle.erf(x * _ROOT_OF_HALF).scale_(0.5, 0.5)
        slope = paddle.square(x).scale_(-0.5, _LOG_OF_PEAK).exp_().multiply_(x).add_(share)
        context.save_for_backward(slope)
        return share.multiply_(x)

    @staticmethod
    def backward(context: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        (slope,) = context.saved_tensor()
        return slope * gradient


# --- the encoder --------------------------------------------------------------------------------------------------


class TransformerEncoder(paddle.nn.TransformerEncoder):
    """An encoder whose layers get the mask in the shape of the attention scores.

    Each layer adds it to its scores, and Paddle's sum of two shapes takes six times as long as that of one.
    """

    @staticmethod
    def takes(layer: paddle.nn.Layer) -> bool:
        """Whether this can take the place of a layer."""
        return type(layer) is paddle.nn.TransformerEncoder

    def forward(self, src: paddle.Tensor, src_mask: paddle.Tensor | None = None, *rest: Any, **more: Any) -> Any:
        is_exported = not paddle.in_dynamic_mode()
        if not is_exported and src_mask is not None and src_mask.ndim == 4 and src_mask.shape[1:3] == [1, 1]:
            batch, length = src.shape[:2]
            heads = self.layers[0].self_attn.num_heads
            column = paddle.ones([batch, heads * length, 1], src_mask.dtype)
            src_mask = (column @ src_mask.flatten(1, 2)).reshape([batch, heads, length, length])
        return super().forward(src, src_mask, *rest, **more)


class PackedTransformerEncoder(TransformerEncoder):
    """An encoder that computes nothing for padding, whose states are given as zeros.

    Attributes:
        reads_first: whether what comes after it reads the first state of each row alone: the last layer then computes
            no other after its attention.
        has_told: whether the log says that this does not hold, because of the mask.
    """

    reads_first = False
    has_told = False

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
            if not self.has_told:
                logger.info("padding: computed after all, since the mask says more than where the tokens are")
                self.has_told = True
            return super().forward(src, src_mask)
        layout = Layout(is_token, self.layers[0].self_attn.num_heads)
        reads_first = self.reads_first and layout.begins_rows
        x = layout.pack(src)
        for number, layer in enumerate(self.layers, 1):
            x = _through_layer(layer, x, layout, reads_first and number == len(self.layers))
        x = x if self.norm is None else self.norm(x)
        return layout.unpack_firsts(x) if reads_first else layout.unpack(x)


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


def _through_layer(layer: Any, x: paddle.Tensor, layout: Layout, only_firsts: bool) -> paddle.Tensor:
    """What ``paddle.nn.TransformerEncoderLayer`` computes, of tokens [tokens, size].

    Args:
        only_firsts: give of each sequence its first token alone, [batch, size].
    """
    attention = layer.self_attn
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    y = layer.norm1(x) if layer.normalize_before else x
    if all(type(each) is Linear for each in projections):
        heads = Projections.apply(y, *(each.weight for each in projections), *(each.bias for each in projections))
    else:  # with adapters beside them
        heads = paddle.concat([project(y) for project in projections], axis=1)
    y = Attention.apply(heads, layout, attention.dropout if attention.training else 0.0)
    if only_firsts:
        x, y = layout.take_firsts(x), layout.take_firsts(y)
    y = attention.out_proj(y)
    x = _add(x, layer.dropout1, y, None if layer.normalize_before else layer.norm1)
    y = layer.linear1(layer.norm2(x) if layer.normalize_before else x)
    y = layer.linear2(layer.dropout(gelu(y) if layer.activation is F.gelu else layer.activation(y)))
    return _add(x, layer.dropout2, y, None if layer.normalize_before else layer.norm2)


def _add(x: paddle.Tensor, dropout: paddle.nn.Layer, y: paddle.Tensor, norm: paddle.nn.Layer | None) -> paddle.Tensor:
    """x + dropout(y), and what a normalisation makes of it."""
    if type(norm) is LayerNorm and type(dropout) is Dropout:
        return norm.of_sum(y, dropout.draw(y.shape), x)
    x = x + dropout(y)
    return x if norm is None else norm(x)
