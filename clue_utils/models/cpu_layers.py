"""What makes a model fast on a processor, beside ``environment.tune_cpu`` and ``device.tune_cpu``.

``speed_up`` gives the layers of a model other classes, which compute the same to the rounding of sums, but for which
units dropout picks. Above all, encoders made of Paddle's own classes (``PackedTransformerEncoder.can_replace``) compute
nothing for padding: the tokens of a batch go through them one after another, see ``packed``. An architecture whose
encoder PaddleNLP wrote itself, such as ALBERT's, is computed with its padding, and so is a batch whose mask says more
than where the tokens are. The log says which. ``scripts/benchmark.sh`` measures what it is worth.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F

from clue_utils.models import threads
from clue_utils.models.dropout import DropoutMask, apply_dropout
from clue_utils.models.packed import MASKED_SCORE, Attention, Layout

logger = logging.getLogger(__name__)
_C_ops: Any = paddle._C_ops
Gradients = tuple[paddle.Tensor | None, ...]


def speed_up(model: paddle.nn.Layer) -> None:
    """Replace the layers of a float32 model by those below; parameters and their names stay."""
    layers = model.sublayers()
    for layer in layers:
        for kind in (PackedTransformerEncoder, TransformerEncoder, Linear, LayerNorm, Dropout):
            if kind.can_replace(layer):
                layer.__class__ = kind
                break
    if any(type(layer) is PackedTransformerEncoder for layer in layers):
        _tell("left out, the encoder computes tokens alone")
    else:
        _tell("computed like tokens, since the encoder is not made of Paddle's own layers")


@functools.cache
def _tell(way: str) -> None:
    """Log once which way padding goes: a run that trains and predicts loads its model twice."""
    logger.info("padding: %s", way)


# --- linear layers ------------------------------------------------------------------------------------------------


class Linear(paddle.nn.Linear):
    """A linear layer whose bias gets its gradient by a matrix product.

    Paddle's own kernel sums on one thread, which takes a quarter of a training step.
    """

    @staticmethod
    def can_replace(layer: paddle.nn.Layer) -> bool:
        """Whether a layer may be made one of these."""
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


class _QKVFunction(paddle.autograd.PyLayer):
    """x [tokens, size], three weights [size, size] and biases [size] -> x by each of them [tokens, 3 * size]"""

    @staticmethod
    def forward(context: Any, x: paddle.Tensor, *parameters: paddle.Tensor) -> paddle.Tensor:
        weights, biases = parameters[:3], parameters[3:]
        context.save_for_backward(x, *weights)
        context.asked = _are_asked(x, *parameters)
        return _C_ops.addmm(paddle.concat(biases).unsqueeze(0), x, paddle.concat(weights, 1), 1.0, 1.0)

    @staticmethod
    def backward(context: Any, gradient: paddle.Tensor) -> Gradients:
        x, *weights = context.saved_tensor()
        by_x = by_weights = by_biases = None
        if context.asked[0]:
            by_x = _C_ops.matmul(gradient, paddle.concat(weights, 1), False, True)
        if any(context.asked[1:4]):
            by_weights = paddle.split(_C_ops.matmul(x, gradient, True, False), 3, 1)
        if any(context.asked[4:]):
            by_biases = paddle.split(_sum_of_rows(gradient), 3)
        found = (by_x, *(by_weights or [None] * 3), *(by_biases or [None] * 3))
        return tuple(each if asked else None for each, asked in zip(found, context.asked, strict=True))


def _sum_of_rows(rows: paddle.Tensor) -> paddle.Tensor:
    """[rows, size] -> [size], by a product, which is several times as fast as the reduction."""
    return (_full(1, rows.shape[0]) @ rows).flatten()


def _full(rows: int, columns: int, value: float = 1.0) -> paddle.Tensor:
    """As ``paddle.full``, in a fraction of the time."""
    return _C_ops.full([rows, columns], value, paddle.float32, paddle.CPUPlace())


# --- layer normalisation ------------------------------------------------------------------------------------------


class LayerNorm(paddle.nn.LayerNorm):
    """A layer normalisation whose gradients are made of matrix products and whole-tensor operations.

    Paddle's own kernel works on one thread and takes more than twice as long.
    """

    @staticmethod
    def can_replace(layer: paddle.nn.Layer) -> bool:
        """Whether a layer may be made one of these."""
        return type(layer) is paddle.nn.LayerNorm and layer.bias is not None and len(layer._normalized_shape) == 1

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        if not paddle.in_dynamic_mode() or not paddle.is_grad_enabled():
            return super().forward(x)
        return _LayerNormFunction.apply(x, self.weight, self.bias, self._epsilon)

    def after_residual(self, x: paddle.Tensor, mask: DropoutMask | None, residual: paddle.Tensor) -> paddle.Tensor:
        """What it makes of dropout(x) + ``residual``, float [rows, size] each; without a mask nothing is dropped."""
        return _LayerNormFunction.apply(x, self.weight, self.bias, self._epsilon, residual, mask)


class _LayerNormFunction(paddle.autograd.PyLayer):
    """x [..., n], weight [n], bias [n] -> weight * normalised x + bias [..., n]; or of dropout(x) + residual

    With h the normalised x, s its standard deviation and d the gradient by the output, the gradient by x is
    (weight * d - mean(weight * d) - h * mean(weight * d * h)) / s (Ba et al., "Layer Normalization", 2016, by the chain
    rule).
    """

    @staticmethod
    def forward(
        context: Any,
        x: paddle.Tensor,
        weight: paddle.Tensor,
        bias: paddle.Tensor,
        epsilon: float,
        residual: paddle.Tensor | None = None,
        mask: DropoutMask | None = None,
    ) -> paddle.Tensor:
        context.epsilon, context.has_residual = epsilon, residual is not None
        context.keep, context.scale = keep, scale = (mask.keep, mask.scale) if mask else (None, 1.0)
        inputs = (x, weight, bias) if residual is None else (x, weight, bias, residual)
        context.asked = _are_asked(*inputs)

        def normalise(x: paddle.Tensor) -> paddle.Tensor:
            return F.layer_norm(x, weight.shape, weight, bias, epsilon)

        def add_and_normalise(
            x: paddle.Tensor, residual: paddle.Tensor, keep: paddle.Tensor | None
        ) -> tuple[paddle.Tensor, paddle.Tensor]:
            x = x + residual if keep is None else apply_dropout(x, keep, scale).add_(residual)
            return x, normalise(x)

        if residual is None:
            y = normalise(x)
        else:
            x, y = threads.by_rows(add_and_normalise, 2, x, residual, keep)
        context.save_for_backward(x, weight)
        return y

    @staticmethod
    def backward(context: Any, gradient: paddle.Tensor) -> Gradients:
        x, weight = context.saved_tensor()
        asks_x, asks_weight, asks_bias, *asks_residual = context.asked
        size = weight.shape[0]
        # Products with ``mean`` are means over a row, with the ones sums and copies: each is several times as fast as
        # the reduction, or as an operation on two shapes.
        mean, ones = _full(size, 1, 1 / size), _full(1, size)
        row, column = weight.unsqueeze(0), weight.unsqueeze(1) / size

        def compute(x: paddle.Tensor, d: paddle.Tensor, keep: paddle.Tensor | None) -> tuple[paddle.Tensor, ...]:
            h = x - (x @ mean) @ ones
            inverse = paddle.rsqrt((h * h) @ mean + context.epsilon)
            h = h.multiply_(inverse @ ones)
            by_weight = d * h
            along = ((inverse * (by_weight @ column)) @ ones).multiply_(h)
            by_x = (inverse @ row).multiply_(d).subtract_(along)
            by_x = _C_ops.addmm_(by_x, inverse * (d @ column), ones, 1.0, -1.0)
            return by_weight, by_x, by_x if keep is None else apply_dropout(by_x, keep, context.scale)

        rows, gradients = x.reshape([-1, size]), gradient.reshape([-1, size])
        by_weight, by_sum, by_x = threads.by_rows(compute, 3, rows, gradients, context.keep)
        found = (
            by_x.reshape(x.shape) if asks_x else None,
            _sum_of_rows(by_weight) if asks_weight else None,
            _sum_of_rows(gradients) if asks_bias else None,
        )
        return (*found, by_sum if asks_residual[0] else None) if context.has_residual else found


# --- dropout ------------------------------------------------------------------------------------------------------


class Dropout(paddle.nn.Dropout):
    """A dropout layer whose mask is a ``dropout.DropoutMask``."""

    @staticmethod
    def can_replace(layer: paddle.nn.Layer) -> bool:
        """Whether a layer may be made one of these."""
        is_plain = type(layer) is paddle.nn.Dropout and layer.axis is None and layer.mode == "upscale_in_train"
        return is_plain and layer.p < 1

    def draw_mask(self, shape: Sequence[int]) -> DropoutMask | None:
        """The next mask of a shape; None where nothing is dropped."""
        return DropoutMask(shape, self.p) if self.training and self.p else None

    def forward(self, input: paddle.Tensor) -> paddle.Tensor:
        mask = self.draw_mask(input.shape) if paddle.in_dynamic_mode() else None
        return super().forward(input) if mask is None else _DropoutFunction.apply(input, mask)


class _DropoutFunction(paddle.autograd.PyLayer):
    """x [...] -> scale * x where the mask keeps it, else 0 [...]"""

    @staticmethod
    def forward(context: Any, x: paddle.Tensor, mask: DropoutMask) -> paddle.Tensor:
        context.mask = mask
        return mask.apply(x)

    @staticmethod
    def backward(context: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        return context.mask.apply(gradient)


# --- activation ---------------------------------------------------------------------------------------------------

_ROOT_OF_HALF, _LOG_OF_PEAK = math.sqrt(0.5), -math.log(2 * math.pi) / 2


def gelu(x: paddle.Tensor) -> paddle.Tensor:
    """As ``F.gelu``, of float [rows, size], for what hands its gradient to nothing else.

    Where there will be gradients the slope is kept in the place of x, and takes less time to find.
    """
    if paddle.is_grad_enabled() and not x.stop_gradient:
        return _GELUFunction.apply(x)
    (y,) = threads.by_rows(lambda x: [F.gelu(x)], 1, x)
    return y


class _GELUFunction(paddle.autograd.PyLayer):
    """x -> x P(x), whose slope is P(x) + x p(x), with p and P density and distribution of N(0, 1)

    (Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016.)
    """

    @staticmethod
    def forward(context: Any, x: paddle.Tensor) -> paddle.Tensor:
        y, slope = threads.by_rows(_gelu_and_slope, 2, x)
        context.save_for_backward(slope)
        return y

    @staticmethod
    def backward(context: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        (slope,) = context.saved_tensor()
        return gradient.multiply_(slope)  # in its place, which takes half the time


def _gelu_and_slope(x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
    share = paddle.erf(x * _ROOT_OF_HALF).scale_(0.5, 0.5)
    slope = paddle.square(x).scale_(-0.5, _LOG_OF_PEAK).exp_().multiply_(x).add_(share)
    return share.multiply_(x), slope


# --- the encoder --------------------------------------------------------------------------------------------------


class TransformerEncoder(paddle.nn.TransformerEncoder):
    """An encoder whose layers get the mask in the shape of the attention scores.

    Each layer adds it to its scores, and Paddle's sum of two shapes takes six times as long as that of one.
    """

    @staticmethod
    def can_replace(layer: paddle.nn.Layer) -> bool:
        """Whether a layer may be made one of these."""
        return type(layer) is paddle.nn.TransformerEncoder

    def forward(self, src: paddle.Tensor, src_mask: paddle.Tensor | None = None, *rest: Any, **more: Any) -> Any:
        is_exported = not paddle.in_dynamic_mode()
        if not is_exported and src_mask is not None and src_mask.ndim == 4 and src_mask.shape[1:3] == [1, 1]:
            batch, length = src.shape[:2]
            heads = self.layers[0].self_attn.num_heads
            column = paddle.ones([batch, heads * length, 1], src_mask.dtype)
            src_mask = (column @ src_mask.flatten(1, 2)).reshape([batch, heads, length, length])
        # By name: where Paddle writes a model down, super() of a class and of those derived from it is the same.
        return paddle.nn.TransformerEncoder.forward(self, src, src_mask, *rest, **more)


class PackedTransformerEncoder(TransformerEncoder):
    """An encoder that computes nothing for padding, whose states are given as zeros.

    Attributes:
        is_read_first_only: whether what comes after it reads the first state of each row alone. The last layer then
            computes no other after its attention; ``models.load`` finds out.
    """

    is_read_first_only = False

    @staticmethod
    def can_replace(layer: paddle.nn.Layer) -> bool:
        """Whether a layer may be made one of these: it is Paddle's, and so are its layers and their attention."""
        return type(layer) is paddle.nn.TransformerEncoder and all(
            type(each) is paddle.nn.TransformerEncoderLayer and type(each.self_attn) is paddle.nn.MultiHeadAttention
            for each in layer.layers
        )

    def forward(self, src: paddle.Tensor, src_mask: paddle.Tensor | None = None, *rest: Any, **more: Any) -> Any:
        """As of Paddle's: float [batch, length, size], mask [batch, 1, 1, length] -> [batch, length, size]."""
        # Whoever asks for the states of all layers, for a cache or for recomputation gets them from Paddle's.
        is_plain = not any([*rest, *more.values(), self.enable_recompute, getattr(self, "_use_cache", False)])
        if not paddle.in_dynamic_mode() or not is_plain:
            return TransformerEncoder.forward(self, src, src_mask, *rest, **more)
        attention_mask = _attention_mask(src, src_mask)
        if attention_mask is None:
            _tell("computed after all, since the mask says more than where the tokens are")
            return TransformerEncoder.forward(self, src, src_mask)
        layout = Layout(attention_mask, self.layers[0].self_attn.num_heads)
        first_only = self.is_read_first_only and layout.starts_with_token
        x = layout.pack(src)
        for number, layer in enumerate(self.layers, 1):
            x = _compute_layer(layer, x, layout, first_only and number == len(self.layers))
        x = x if self.norm is None else self.norm(x)
        return layout.pad_first(x) if first_only else layout.pad(x)


def _attention_mask(src: paddle.Tensor, src_mask: paddle.Tensor | None) -> np.ndarray | None:
    """True for tokens, bool [batch, length]; None: ``src_mask`` says more than that, or a row has no token."""
    if src_mask is None:
        return np.ones(src.shape[:2], bool)
    if src_mask.ndim != 4 or src_mask.shape[1:3] != [1, 1]:
        return None
    values = src_mask.numpy()[:, 0, 0]
    if values.dtype.kind == "f":  # to be added to the scores
        is_token, is_padding = values == 0, values <= MASKED_SCORE
    else:
        is_token, is_padding = values != 0, values == 0
    return is_token if is_token.any(axis=1).all() and (is_token | is_padding).all() else None


def _compute_layer(layer: Any, x: paddle.Tensor, layout: Layout, first_only: bool) -> paddle.Tensor:
    """What ``paddle.nn.TransformerEncoderLayer`` computes, of packed tokens [tokens, size].

    Args:
        first_only: give of each sequence its first token alone, [batch, size].
    """
    attention = layer.self_attn
    y = layer.norm1(x) if layer.normalize_before else x
    if first_only:
        x, y = layout.take_first(x), _attend_from_first(attention, y, layout)
    else:
        y = Attention.apply(_project(attention, y), layout, attention.dropout if attention.training else 0.0)
    y = attention.out_proj(y)
    x = _add(x, layer.dropout1, y, None if layer.normalize_before else layer.norm1)
    y = layer.linear1(layer.norm2(x) if layer.normalize_before else x)
    y = layer.linear2(layer.dropout(gelu(y) if layer.activation is F.gelu else layer.activation(y)))
    return _add(x, layer.dropout2, y, None if layer.normalize_before else layer.norm2)


def _project(attention: paddle.nn.MultiHeadAttention, x: paddle.Tensor) -> paddle.Tensor:
    """Queries, keys and values: [tokens, size] -> [tokens, 3 * size]"""
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    if not all(type(each) is Linear for each in projections):  # with adapters beside them
        return paddle.concat([project(x) for project in projections], axis=1)
    return _QKVFunction.apply(x, *(each.weight for each in projections), *(each.bias for each in projections))


def _attend_from_first(attention: paddle.nn.MultiHeadAttention, x: paddle.Tensor, layout: Layout) -> paddle.Tensor:
    """What the first token of each sequence attends to, [tokens, size] -> [batch, size]; no other query is computed."""
    batch = layout.shape[0]

    def by_head(states: paddle.Tensor) -> paddle.Tensor:
        """[batch * tokens, size] -> [batch, heads, tokens, head size]"""
        return states.reshape([batch, -1, attention.num_heads, attention.head_dim]).transpose([0, 2, 1, 3])

    q = by_head(attention.q_proj(layout.take_first(x)))
    k, v = (by_head(layout.pad(project(x))) for project in (attention.k_proj, attention.v_proj))
    scores = paddle.matmul(q * attention.head_dim**-0.5, k, transpose_y=True)
    weights = F.softmax(layout.mask_first(scores))
    if attention.training and attention.dropout:
        weights = _DropoutFunction.apply(weights, DropoutMask(weights.shape, attention.dropout))
    return (weights @ v).reshape([batch, -1])


def _add(x: paddle.Tensor, dropout: paddle.nn.Layer, y: paddle.Tensor, norm: paddle.nn.Layer | None) -> paddle.Tensor:
    """x + dropout(y), and what a normalisation makes of it."""
    if type(norm) is LayerNorm and type(dropout) is Dropout:
        return norm.after_residual(y, dropout.draw_mask(y.shape), x)
    x = x + dropout(y)
    return x if norm is None else norm(x)
