"""What makes a model fast on a card: layers that keep the host, which launches every operation, less busy.

``speed_up`` changes no bit of what is computed. ``fuse_attention`` computes the same to the rounding of sums, but draws
other units for dropout, so it is asked for by ``--fused_attention``.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import paddle
import paddle.nn.functional as F

from clue_utils.errors import UserError
from clue_utils.language import say

logger = logging.getLogger(__name__)
_C_ops: Any = paddle._C_ops
Operation = Callable[[paddle.Tensor, paddle.Tensor, paddle.Tensor], paddle.Tensor]


def speed_up(model: paddle.nn.Layer) -> None:
    """Replace the linear layers of a model by those below; parameters and their names stay."""
    operation = _linear_operation()
    for layer in model.sublayers() if operation else ():
        if type(layer) is paddle.nn.Linear and getattr(layer, "bias", None) is not None:
            layer.__class__ = Linear
            layer.operation = operation


class Linear(paddle.nn.Linear):
    """A linear layer that calls its operation at once.

    ``F.linear`` asks for two of Paddle's flags in every call, which takes the host as long as the operation itself.
    """

    operation: Operation

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        if not paddle.in_dynamic_mode():  # while the model is exported
            return super().forward(x)
        return self.operation(x, self.weight, self.bias)


def _linear_operation() -> Operation | None:
    """What ``F.linear`` ends with under the flags that are set; None where it does more than call one operation."""
    names = ("FLAGS_use_legacy_linear", "FLAGS_use_accuracy_compatible_kernel")
    is_legacy, is_compatible = (paddle.get_flags(name)[name] for name in names)
    if is_legacy or not paddle.is_compiled_with_cuda():
        return _C_ops.linear
    return None if is_compatible else lambda x, weight, bias: _C_ops.linear_v2(x, weight, bias, False)


def fuse_attention(model: paddle.nn.Layer) -> None:
    """Let Paddle choose the kernel of the attention; the scores of all pairs of tokens are then not kept in memory.

    On cards from compute capability 8.0 it takes FlashAttention for half precision, else its memory-efficient kernel,
    which wants sequences padded to a multiple of 8; on a processor it computes as without.

    Raises:
        UserError: the architecture has no attention of Paddle's own.
    """
    layers = model.sublayers()
    attentions = [layer for layer in layers if type(layer) is paddle.nn.MultiHeadAttention]
    if not attentions:
        raise UserError(
            say(
                "--fused_attention: a {model_type} has an attention of its own; leave the flag out",
                model_type=model.config.model_type,
            )
        )
    for layer in layers:
        if type(layer) is paddle.nn.MultiHeadAttention:
            layer.__class__ = MultiHeadAttention
        elif type(layer) is paddle.nn.TransformerEncoder:
            layer.__class__ = TransformerEncoder
    logger.info("attention: one operation in each of %d layers (--fused_attention)", len(attentions))


class TransformerEncoder(paddle.nn.TransformerEncoder):
    """An encoder whose layers share the masks that the kernels of the attention take."""

    def forward(self, *inputs: Any, **more: Any) -> Any:
        attentions = [layer.self_attn for layer in self.layers]
        masks: dict[Any, paddle.Tensor] = {}
        for attention in attentions:
            attention.masks = masks
        try:
            return super().forward(*inputs, **more)
        finally:
            for attention in attentions:
                attention.masks = None


class MultiHeadAttention(paddle.nn.MultiHeadAttention):
    """Attention in one operation, ``F.scaled_dot_product_attention``.

    Attributes:
        masks: of this pass through the encoder, by type: what is to be added to the scores; None between passes.
    """

    masks: dict[Any, paddle.Tensor] | None = None

    def forward(
        self,
        query: paddle.Tensor,
        key: paddle.Tensor | None = None,
        value: paddle.Tensor | None = None,
        attn_mask: paddle.Tensor | None = None,
        cache: Any = None,
    ) -> Any:
        if not paddle.in_dynamic_mode() or self.need_weights or cache is not None:
            return super().forward(query, key, value, attn_mask, cache)
        key = query if key is None else key
        value = query if value is None else value
        # [batch, length, heads, size of a head]
        q = self.q_proj(query).reshape([0, 0, self.num_heads, self.head_dim])
        k = self.k_proj(key).reshape([0, 0, self.num_heads, self.head_dim])
        v = self.v_proj(value).reshape([0, 0, self.num_heads, self.head_dim])
        mask = None if attn_mask is None else self._mask(attn_mask, q, k)
        out = F.scaled_dot_product_attention(q, k, v, mask, self.dropout, training=self.training)
        return self.out_proj(out.reshape([0, 0, self.embed_dim]))

    def _mask(self, mask: paddle.Tensor, query: paddle.Tensor, key: paddle.Tensor) -> paddle.Tensor:
        """The mask [batch, heads or 1, length, length] in the queries' type."""
        masks = {} if self.masks is None else self.masks
        if query.dtype not in masks:
            # Only the memory-efficient kernel wants it for each head, and Paddle would copy it anew in each layer.
            heads = 1 if query.dtype != paddle.float32 and _has_flash_attention() else self.num_heads
            shape = [query.shape[0], heads, query.shape[1], key.shape[1]]
            masks[query.dtype] = mask.astype(query.dtype).expand(shape).contiguous()
        return masks[query.dtype]


@functools.cache
def _has_flash_attention() -> bool:
    return paddle.get_device().startswith("gpu") and paddle.device.cuda.get_device_capability() >= (8, 0)
