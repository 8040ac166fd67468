"""ModernBERT: rotary positions, attention to all tokens or to those nearby in turn, gated feed-forward layers.

Warner et al., "Smarter, Better, Faster, Longer: A Modern Bidirectional Encoder", 2024; rotary positions: Su et al.,
"RoFormer", 2021; gates: Shazeer, "GLU Variants Improve Transformer", 2020. The parameters have Hugging Face's names,
behind a prefix of our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import paddle
import paddle.nn.functional as F
from paddlenlp.transformers import PretrainedConfig, register_base_model
from paddlenlp.transformers.activations import ACT2FN

from clue_utils.models.encoders.initial_weights import NormalWeights
from clue_utils.models.encoders.masks import or_ones, to_add
from clue_utils.models.encoders.rotary import Turns, rotate, rotations

_FULL, _SLIDING = "full_attention", "sliding_attention"


class ModernBertConfig(PretrainedConfig):
    """Sizes and settings by Hugging Face's names, but for those that all architectures share here.

    Args:
        layer_types: of each layer, "full_attention" or "sliding_attention"; none: every
            ``global_attn_every_n_layers``-th layer attends to all tokens, the first one begins.
        local_attention: tokens that a layer of sliding attention sees, half of them on each side.
        rope_parameters: bases of the rotary positions by type of layer, which win over the two below.

    Raises:
        ValueError: a setting has a value that it cannot have.
    """

    model_type = "modernbert"
    attribute_map = {
        "dropout": "classifier_dropout",
        "num_classes": "num_labels",
        "norm_eps": "layer_norm_eps",
        "hidden_activation": "hidden_act",
        "classifier_activation": "classifier_act",
    }

    def __init__(
        self,
        vocab_size: int = 50368,
        hidden_size: int = 768,
        intermediate_size: int = 1152,
        num_hidden_layers: int = 22,
        num_attention_heads: int = 12,
        hidden_act: str = "gelu",
        max_position_embeddings: int = 8192,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-5,
        norm_bias: bool = False,
        pad_token_id: int = 0,
        attention_bias: bool = False,
        mlp_bias: bool = False,
        layer_types: Sequence[str] = (),
        global_attn_every_n_layers: int = 3,
        local_attention: int = 128,
        rope_parameters: Mapping[str, Any] = {},  # noqa: B006, it is not changed
        global_rope_theta: float = 160_000.0,
        local_rope_theta: float = 10_000.0,
        classifier_pooling: str = "cls",
        classifier_bias: bool = False,
        classifier_act: str = "gelu",
        hidden_dropout_prob: float = 0.0,
        attention_probs_dropout_prob: float = 0.0,
        **others: Any,
    ) -> None:
        super().__init__(pad_token_id=pad_token_id, **others)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.hidden_act = hidden_act
        self.max_position_embeddings = max_position_embeddings
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.norm_bias = norm_bias
        self.attention_bias = attention_bias
        self.mlp_bias = mlp_bias
        every = _required("global_attn_every_n_layers", global_attn_every_n_layers, global_attn_every_n_layers >= 1)
        self.layer_types = list(layer_types) or [_SLIDING if i % every else _FULL for i in range(num_hidden_layers)]
        fits = len(self.layer_types) == num_hidden_layers and {*self.layer_types} <= {_FULL, _SLIDING}
        _required("layer_types", self.layer_types, fits)
        self.local_attention = _required("local_attention", local_attention, local_attention >= 1)
        self.global_rope_theta = _rope_theta(rope_parameters, _FULL, global_rope_theta)
        self.local_rope_theta = _rope_theta(rope_parameters, _SLIDING, local_rope_theta)
        self.classifier_pooling = _required(
            "classifier_pooling", classifier_pooling, classifier_pooling in ("cls", "mean")
        )
        self.classifier_bias = classifier_bias
        self.classifier_act = classifier_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob


def _required(name: str, value: Any, fits: bool) -> Any:
    if not fits:
        raise ValueError(f"{name} cannot be {value!r:.60}")
    return value


def _rope_theta(parameters: Mapping[str, Any], layer_type: str, default: float) -> float:
    """The base of the rotary positions of a type of layer."""
    said = parameters.get(layer_type) or {}
    is_plain = isinstance(said, Mapping) and said.get("rope_type", "default") == "default"
    theta: Any = said.get("rope_theta", default) if is_plain else None
    _required("rope_parameters", dict(parameters), type(theta) in (int, float) and 1 <= theta <= 1e12)
    return float(theta)


class _Attention(paddle.nn.Layer):
    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        size, bias = config.hidden_size, None if config.attention_bias else False
        self.num_heads = config.num_attention_heads
        self.Wqkv = paddle.nn.Linear(size, 3 * size, bias_attr=bias)
        self.Wo = paddle.nn.Linear(size, size, bias_attr=bias)
        self.dropout = paddle.nn.Dropout(config.attention_probs_dropout_prob)
        self.out_drop = paddle.nn.Dropout(config.attention_probs_dropout_prob)

    def forward(self, x: paddle.Tensor, mask: paddle.Tensor, turns: Turns) -> paddle.Tensor:
        # [batch, length, heads, size of a head], then heads before tokens
        query, key, value = self.Wqkv(x).reshape([0, 0, 3, self.num_heads, -1]).unbind(2)
        query, key = (rotate(each, *turns).astype(value.dtype) for each in (query, key))  # turned in float32
        query, key, value = (each.transpose([0, 2, 1, 3]) for each in (query, key, value))
        scores = paddle.matmul(query * query.shape[-1] ** -0.5, key, transpose_y=True) + mask
        attended = paddle.matmul(self.dropout(F.softmax(scores)), value)
        return self.out_drop(self.Wo(attended.transpose([0, 2, 1, 3]).flatten(2)))


class _FeedForward(paddle.nn.Layer):
    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        bias = None if config.mlp_bias else False
        self.Wi = paddle.nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias_attr=bias)
        self.act = ACT2FN[config.hidden_act]
        self.drop = paddle.nn.Dropout(config.hidden_dropout_prob)
        self.Wo = paddle.nn.Linear(config.intermediate_size, config.hidden_size, bias_attr=bias)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x, gate = self.Wi(x).chunk(2, axis=-1)
        return self.Wo(self.drop(self.act(x) * gate))


def _norm(config: ModernBertConfig) -> paddle.nn.LayerNorm:
    bias = None if config.norm_bias else False
    return paddle.nn.LayerNorm(config.hidden_size, config.layer_norm_eps, bias_attr=bias)


class _Layer(paddle.nn.Layer):
    def __init__(self, config: ModernBertConfig, number: int) -> None:
        super().__init__()
        self.is_local = config.layer_types[number] == _SLIDING
        # The embeddings are normalised already.
        self.attn_norm = _norm(config) if number else paddle.nn.Identity()
        self.attn = _Attention(config)
        self.mlp_norm = _norm(config)
        self.mlp = _FeedForward(config)

    def forward(self, x: paddle.Tensor, mask: paddle.Tensor, turns: Turns) -> paddle.Tensor:
        x = x + self.attn(self.attn_norm(x), mask, turns)
        return x + self.mlp(self.mlp_norm(x))


class _Embeddings(paddle.nn.Layer):
    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.tok_embeddings = paddle.nn.Embedding(config.vocab_size, config.hidden_size)
        self.norm = _norm(config)
        self.drop = paddle.nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: paddle.Tensor) -> paddle.Tensor:
        return self.drop(self.norm(self.tok_embeddings(input_ids)))


class ModernBertPretrainedModel(NormalWeights):
    """What encoder and heads share."""

    config_class = ModernBertConfig
    base_model_prefix = "modernbert"


@register_base_model
class ModernBertModel(ModernBertPretrainedModel):
    """The encoder."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__(config)
        self.embeddings = _Embeddings(config)
        self.layers = paddle.nn.LayerList([_Layer(config, i) for i in range(config.num_hidden_layers)])
        self.final_norm = _norm(config)

    def forward(self, input_ids: paddle.Tensor, attention_mask: paddle.Tensor | None = None) -> paddle.Tensor:
        """Last hidden states float [batch, length, hidden_size] of int64 tensors [batch, length]."""
        config, length = self.config, input_ids.shape[1]
        size = config.hidden_size // config.num_attention_heads
        positions = paddle.arange(length)
        thetas = config.global_rope_theta, config.local_rope_theta
        turns = [rotations(positions.unsqueeze(0), size, theta) for theta in thetas]
        x = self.embeddings(input_ids)
        # To be added to the scores [batch, heads, queries, keys]; in half precision too it leaves room below.
        full = to_add(or_ones(attention_mask, input_ids))
        is_far = (positions.unsqueeze(1) - positions).abs() > config.local_attention // 2
        masks = full, full + is_far.astype(full.dtype) * -1e4
        for layer in self.layers:
            x = layer(x, masks[layer.is_local], turns[layer.is_local])
        return self.final_norm(x)


class ModernBertNeck(paddle.nn.Layer):
    """Between encoder and classifier: float [..., hidden_size] -> the same shape."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        bias = None if config.classifier_bias else False
        self.dense = paddle.nn.Linear(config.hidden_size, config.hidden_size, bias_attr=bias)
        self.act = ACT2FN[config.classifier_act]
        self.norm = _norm(config)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.norm(self.act(self.dense(x)))
