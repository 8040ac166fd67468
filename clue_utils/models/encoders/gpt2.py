"""GPT-2, a decoder: each token's state is of itself and of the tokens before it.

After Radford et al., "Language Models are Unsupervised Multitask Learners" (2019): blocks of the transformer that
normalise before each part, and a last normalisation. Below the prefix, parameters have Hugging Face's names but for
the normalisations.
"""

from __future__ import annotations

from typing import Any

import paddle
from paddlenlp.transformers import PretrainedConfig, register_base_model

from clue_utils.models.encoders.causal import ACTIVATIONS, attend
from clue_utils.models.encoders.initial_weights import NormalWeights
from clue_utils.models.encoders.masks import causal_mask, or_ones, positions


class GPT2Config(PretrainedConfig):
    """The sizes of an encoder, by their common names and by Hugging Face's.

    Attributes:
        intermediate_size: None: four times ``hidden_size``.
    """

    model_type = "gpt2"
    attribute_map = {
        "num_classes": "num_labels",
        "n_embd": "hidden_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_inner": "intermediate_size",
        "n_positions": "max_position_embeddings",
        "activation_function": "hidden_act",
        "layer_norm_epsilon": "layer_norm_eps",
        "resid_pdrop": "hidden_dropout_prob",
        "attn_pdrop": "attention_probs_dropout_prob",
    }

    def __init__(
        self,
        vocab_size: int = 21128,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int | None = None,
        hidden_act: str = "gelu_new",
        max_position_embeddings: int = 1024,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-5,
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        pad_token_id: int = 0,
        **more: Any,
    ) -> None:
        super().__init__(pad_token_id=pad_token_id, **more)
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.num_hidden_layers, self.num_attention_heads = num_hidden_layers, num_attention_heads
        self.intermediate_size, self.hidden_act = intermediate_size or 4 * hidden_size, hidden_act
        self.max_position_embeddings, self.initializer_range = max_position_embeddings, initializer_range
        self.layer_norm_eps, self.hidden_dropout_prob = layer_norm_eps, hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob


class Projection(paddle.nn.Linear):
    """A linear layer whose matrix lies in Hugging Face's checkpoints as in Paddle's."""

    is_turned_in_pytorch = False


class Attention(paddle.nn.Layer):
    """Attention whose queries, keys and values come of one projection."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.c_attn = Projection(config.hidden_size, 3 * config.hidden_size)
        self.c_proj = Projection(config.hidden_size, config.hidden_size)
        self.dropout = paddle.nn.Dropout(config.attention_probs_dropout_prob)

    def forward(self, x: paddle.Tensor, mask: paddle.Tensor) -> paddle.Tensor:
        query, key, value = self.c_attn(x).reshape([0, 0, 3, self.num_heads, -1]).unbind(2)
        return self.c_proj(attend(query, key, value, mask, self.dropout))


class FeedForward(paddle.nn.Layer):
    """Two linear layers with an activation between them."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.c_fc = Projection(config.hidden_size, config.intermediate_size)
        self.c_proj = Projection(config.intermediate_size, config.hidden_size)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.c_proj(self.activation(self.c_fc(x)))


class Block(paddle.nn.Layer):
    """Attention and feed-forward, each added to what it is given."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.norm1 = paddle.nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.attn = Attention(config)
        self.norm2 = paddle.nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = FeedForward(config)
        self.dropout = paddle.nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: paddle.Tensor, mask: paddle.Tensor) -> paddle.Tensor:
        x = x + self.dropout(self.attn(self.norm1(x), mask))
        return x + self.dropout(self.mlp(self.norm2(x)))


class GPT2PretrainedModel(NormalWeights):
    """What encoder and heads share."""

    config_class = GPT2Config
    base_model_prefix = "transformer"


@register_base_model
class GPT2Model(GPT2PretrainedModel):
    """The last hidden states, float [batch, length, hidden_size], of int64 tensors [batch, length]."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__(config)
        self.wte = paddle.nn.Embedding(config.vocab_size, config.hidden_size)
        self.wpe = paddle.nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.dropout = paddle.nn.Dropout(config.hidden_dropout_prob)
        self.h = paddle.nn.LayerList([Block(config) for _ in range(config.num_hidden_layers)])
        self.norm = paddle.nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, input_ids: paddle.Tensor, attention_mask: paddle.Tensor | None = None) -> paddle.Tensor:
        attention_mask = or_ones(attention_mask, input_ids)
        mask = causal_mask(attention_mask)
        x = self.dropout(self.wte(input_ids) + self.wpe(positions(attention_mask)))
        for block in self.h:
            x = block(x, mask)
        return self.norm(x)
