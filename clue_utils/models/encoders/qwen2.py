"""Qwen2 and Qwen3, decoders of text: each token's state is of itself and of the tokens before it.

After Yang et al., "Qwen2 Technical Report" (2024) and "Qwen3 Technical Report" (2025): blocks that normalise before
each part by the root of the mean square (Zhang and Sennrich, 2019), attention with rotary positions (Su et al.,
"RoFormer", 2021) whose keys and values several heads share (Ainslie et al., "GQA", 2023), and SwiGLU (Shazeer, 2020).
Below the prefix, parameters have Hugging Face's names.
"""

from __future__ import annotations

from typing import Any

import paddle
from paddlenlp.transformers import PretrainedConfig, register_base_model

from clue_utils.models.encoders.causal import ACTIVATIONS, attend
from clue_utils.models.encoders.initial_weights import NormalWeights
from clue_utils.models.encoders.masks import causal_mask, or_ones, positions
from clue_utils.models.encoders.rotary import Turns, rotate, rotations


class Qwen2Config(PretrainedConfig):
    """The sizes of an encoder, by Hugging Face's names.

    Attributes:
        num_key_value_heads: keys and values for each token; None: as many as there are heads.
        head_dim: size of a head; None: ``hidden_size / num_attention_heads``.
        rope_theta: the longest wave of the positions has about 2 pi times as many tokens.
        attention_bias: whether the projections to queries, keys and values have a bias; None: as the model has it.
        normalises_heads: whether each head's query and key are normalised.
    """

    model_type = "qwen2"
    attribute_map = {"num_classes": "num_labels", "attention_dropout": "attention_probs_dropout_prob"}
    has_bias, normalises_heads = True, False

    def __init__(
        self,
        vocab_size: int = 151936,
        hidden_size: int = 896,
        intermediate_size: int = 4864,
        num_hidden_layers: int = 24,
        num_attention_heads: int = 14,
        num_key_value_heads: int | None = None,
        head_dim: int | None = None,
        hidden_act: str = "silu",
        max_position_embeddings: int = 32768,
        initializer_range: float = 0.02,
        rms_norm_eps: float = 1e-6,
        rope_theta: float = 10000.0,
        attention_bias: bool | None = None,
        attention_probs_dropout_prob: float = 0.0,
        pad_token_id: int = 0,
        **more: Any,
    ) -> None:
        super().__init__(pad_token_id=pad_token_id, **more)
        self.vocab_size, self.hidden_size, self.intermediate_size = vocab_size, hidden_size, intermediate_size
        self.num_hidden_layers, self.num_attention_heads = num_hidden_layers, num_attention_heads
        self.num_key_value_heads = num_key_value_heads or num_attention_heads
        self.head_dim = head_dim or hidden_size // num_attention_heads
        self.hidden_act, self.max_position_embeddings = hidden_act, max_position_embeddings
        self.initializer_range, self.rms_norm_eps, self.rope_theta = initializer_range, rms_norm_eps, rope_theta
        self.attention_bias = self.has_bias if attention_bias is None else attention_bias
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        if num_attention_heads % self.num_key_value_heads:
            raise ValueError(f"num_key_value_heads {num_key_value_heads} does not divide num_attention_heads")
        if self.head_dim % 2 or not 0 < num_attention_heads * self.head_dim <= 8 * hidden_size:
            raise ValueError(f"head_dim cannot be {self.head_dim}")


class Qwen3Config(Qwen2Config):
    """The sizes of an encoder of Qwen3, see ``Qwen2Config``."""

    model_type = "qwen3"
    has_bias, normalises_heads = False, True


class RMSNorm(paddle.nn.Layer):
    """x [..., size] -> x / sqrt(mean of x squared + epsilon) * weight, in float32."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = self.create_parameter([size], default_initializer=paddle.nn.initializer.Constant(1.0))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = x.astype("float32")
        return x * paddle.rsqrt((x * x).mean(axis=-1, keepdim=True) + self.epsilon) * self.weight


class Attention(paddle.nn.Layer):
    """Attention of heads that share keys and values in groups."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.num_heads, self.num_shared = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = config.head_dim
        bias = None if config.attention_bias else False  # Paddle's words for yes and no
        self.q_proj = paddle.nn.Linear(config.hidden_size, self.num_heads * self.head_dim, bias_attr=bias)
        self.k_proj = paddle.nn.Linear(config.hidden_size, self.num_shared * self.head_dim, bias_attr=bias)
        self.v_proj = paddle.nn.Linear(config.hidden_size, self.num_shared * self.head_dim, bias_attr=bias)
        self.o_proj = paddle.nn.Linear(self.num_heads * self.head_dim, config.hidden_size, bias_attr=False)
        if config.normalises_heads:
            self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
            self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
        self.dropout = paddle.nn.Dropout(config.attention_probs_dropout_prob)
        self.normalises_heads = config.normalises_heads

    def forward(self, x: paddle.Tensor, mask: paddle.Tensor, turns: Turns) -> paddle.Tensor:
        # [batch, length, heads, size of a head]
        query = self.q_proj(x).reshape([0, 0, self.num_heads, self.head_dim])
        key = self.k_proj(x).reshape([0, 0, self.num_shared, self.head_dim])
        value = self.v_proj(x).reshape([0, 0, self.num_shared, self.head_dim])
        if self.normalises_heads:
            query, key = self.q_norm(query), self.k_norm(key)
        query, key = rotate(query, *turns), rotate(key, *turns)
        if self.num_shared < self.num_heads:
            key, value = (each.repeat_interleave(self.num_heads // self.num_shared, axis=2) for each in (key, value))
        return self.o_proj(attend(query, key, value, mask, self.dropout))


class FeedForward(paddle.nn.Layer):
    """down(activation(gate(x)) * up(x))"""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.gate_proj = paddle.nn.Linear(config.hidden_size, config.intermediate_size, bias_attr=False)
        self.up_proj = paddle.nn.Linear(config.hidden_size, config.intermediate_size, bias_attr=False)
        self.down_proj = paddle.nn.Linear(config.intermediate_size, config.hidden_size, bias_attr=False)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))


class Block(paddle.nn.Layer):
    """Attention and feed-forward, each added to what it is given."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(config), FeedForward(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: paddle.Tensor, mask: paddle.Tensor, turns: Turns) -> paddle.Tensor:
        x = x + self.self_attn(self.input_layernorm(x), mask, turns)
        return x + self.mlp(self.post_attention_layernorm(x))


def _add_layers(model: paddle.nn.Layer, config: Qwen2Config) -> None:
    model.embed_tokens = paddle.nn.Embedding(config.vocab_size, config.hidden_size)
    model.layers = paddle.nn.LayerList([Block(config) for _ in range(config.num_hidden_layers)])
    model.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Qwen2PretrainedModel(NormalWeights):
    """What encoder and heads share."""

    config_class = Qwen2Config
    base_model_prefix = "qwen2"


@register_base_model
class Qwen2Model(Qwen2PretrainedModel):
    """The last hidden states, float [batch, length, hidden_size], of int64 tensors [batch, length]."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config)
        _add_layers(self, config)

    def forward(self, input_ids: paddle.Tensor, attention_mask: paddle.Tensor | None = None) -> paddle.Tensor:
        attention_mask = or_ones(attention_mask, input_ids)
        mask = causal_mask(attention_mask)
        turns = rotations(positions(attention_mask), self.config.head_dim, self.config.rope_theta)
        x = self.embed_tokens(input_ids)
        for layer in self.layers:
            x = layer(x, mask, turns)
        return self.norm(x)


class Qwen3PretrainedModel(Qwen2PretrainedModel):
    """What encoder and heads of Qwen3 share."""

    config_class = Qwen3Config
    base_model_prefix = "qwen3"


@register_base_model
class Qwen3Model(Qwen3PretrainedModel):
    """As ``Qwen2Model``, from which PaddleNLP's bookkeeping by prefix keeps it apart."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__(config)
        _add_layers(self, config)

    forward = Qwen2Model.forward
