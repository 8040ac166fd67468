"""DeBERTa-v2 and -v3: attention by what tokens are and by how far they are apart, each with vectors of its own.

He et al., "DeBERTa: Decoding-enhanced BERT with Disentangled Attention", 2021. The parameters have Hugging Face's
names, as they have in PaddleNLP, whose port gives no numbers where there is padding and knows one activation only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle.nn import LayerDict
from paddlenlp.transformers import PretrainedConfig, register_base_model
from paddlenlp.transformers.activations import ACT2FN

from clue_utils.models.encoders.initial_weights import NormalWeights
from clue_utils.models.encoders.masks import or_ones, to_add


class DebertaV2Config(PretrainedConfig):
    """Sizes and settings by Hugging Face's names.

    Args:
        embedding_size: of the embeddings' vectors; None: as hidden_size.
        attention_head_size: None: hidden_size over num_attention_heads.
        relative_attention: whether distances count at all.
        pos_att_type: kinds of scores beside that of two tokens, a list or divided by "|": "c2p", of a token and a
            distance; "p2c", of a distance and a token.
        max_relative_positions: the largest distance; below 1: max_position_embeddings.
        position_buckets: distances that are told apart on each side, the far ones together; below 1: every one.
        share_att_key: distances are projected by the queries' and keys' matrices, else by matrices of their own.
        norm_rel_ebd: "layer_norm": the vectors of distances are normalised; "none".
        position_biased_input: whether positions are embedded too.
        conv_kernel_size: tokens of the convolution beside the first layer; 0: there is none.

    Raises:
        ValueError: a setting has a value that it cannot have.
    """

    model_type = "deberta-v2"
    attribute_map = {"dropout": "classifier_dropout", "num_classes": "num_labels"}

    def __init__(
        self,
        vocab_size: int = 128100,
        hidden_size: int = 1536,
        embedding_size: int | None = None,
        attention_head_size: int | None = None,
        num_hidden_layers: int = 24,
        num_attention_heads: int = 24,
        intermediate_size: int = 6144,
        hidden_act: str = "gelu",
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 0,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-7,
        relative_attention: bool = False,
        pos_att_type: Sequence[str] | str = (),
        max_relative_positions: int = -1,
        position_buckets: int = -1,
        share_att_key: bool = False,
        norm_rel_ebd: str = "none",
        position_biased_input: bool = True,
        conv_kernel_size: int = 0,
        conv_groups: int = 1,
        conv_act: str = "tanh",
        pooler_hidden_act: str = "gelu",
        pad_token_id: int = 0,
        **others: Any,
    ) -> None:
        super().__init__(pad_token_id=pad_token_id, **others)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.embedding_size = embedding_size or hidden_size
        self.attention_head_size = attention_head_size or hidden_size // num_attention_heads
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.relative_attention = relative_attention
        words = pos_att_type.lower().split("|") if isinstance(pos_att_type, str) else pos_att_type
        self.pos_att_type = [word.strip() for word in words]
        self.max_relative_positions = max_relative_positions if max_relative_positions > 0 else max_position_embeddings
        self.position_buckets = position_buckets
        self.share_att_key = share_att_key
        self.norm_rel_ebd = norm_rel_ebd
        self.position_biased_input = position_biased_input
        self.conv_kernel_size = conv_kernel_size
        self.conv_groups = conv_groups
        self.conv_act = conv_act
        self.pooler_hidden_act = pooler_hidden_act
        near = position_buckets // 2
        for name, fits in (
            ("pos_att_type", {*self.pos_att_type} <= {"c2p", "p2c"}),
            ("norm_rel_ebd", norm_rel_ebd in ("layer_norm", "none")),
            ("position_buckets", position_buckets < 1 or 0 < near < self.max_relative_positions - 1),
            ("conv_kernel_size", conv_kernel_size % 2 == 1 or conv_kernel_size == 0),
        ):
            if not fits:
                raise ValueError(f"{name} cannot be {getattr(self, name)!r:.60}")

    @property
    def num_distances(self) -> int:
        """Distances that are told apart on each side."""
        return self.position_buckets if self.position_buckets > 0 else self.max_relative_positions


def bucket_of_distance(config: DebertaV2Config) -> np.ndarray:
    """The row of the table of distances for each from -(max_position_embeddings - 1) on, int64.

    Distances up to half of the buckets have one each; beyond, the buckets grow as the logarithm.
    """
    distances = np.arange(1 - config.max_position_embeddings, config.max_position_embeddings)
    buckets: np.ndarray = distances
    if config.position_buckets > 0:
        near = config.position_buckets // 2
        share = np.log(np.maximum(np.abs(distances), near) / near) / np.log((config.max_relative_positions - 1) / near)
        far = np.ceil(share * (near - 1)).astype(np.int64) + near
        buckets = np.where(np.abs(distances) <= near, distances, np.sign(distances) * far)
    return np.clip(buckets + config.num_distances, 0, 2 * config.num_distances - 1)


def _norm(config: DebertaV2Config) -> paddle.nn.LayerNorm:
    return paddle.nn.LayerNorm(config.hidden_size, config.layer_norm_eps)


class _Embeddings(paddle.nn.Layer):
    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__()
        size = config.embedding_size
        self.word_embeddings = paddle.nn.Embedding(config.vocab_size, size)
        if config.position_biased_input:
            self.position_embeddings = paddle.nn.Embedding(config.max_position_embeddings, size)
        if config.type_vocab_size:
            self.token_type_embeddings = paddle.nn.Embedding(config.type_vocab_size, size)
        if size != config.hidden_size:
            self.embed_proj = paddle.nn.Linear(size, config.hidden_size, bias_attr=False)
        self.LayerNorm = _norm(config)
        self.dropout = paddle.nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, input_ids: paddle.Tensor, token_type_ids: paddle.Tensor, attention_mask: paddle.Tensor
    ) -> paddle.Tensor:
        x = self.word_embeddings(input_ids)
        if hasattr(self, "position_embeddings"):
            x = x + self.position_embeddings(paddle.arange(input_ids.shape[1]))
        if hasattr(self, "token_type_embeddings"):
            x = x + self.token_type_embeddings(token_type_ids)
        if hasattr(self, "embed_proj"):
            x = self.embed_proj(x)
        x = self.LayerNorm(x)
        return self.dropout(x * attention_mask.unsqueeze(-1).astype(x.dtype))


class _SelfAttention(paddle.nn.Layer):
    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__()
        self.num_heads, self.size = config.num_attention_heads, config.attention_head_size
        sizes = config.hidden_size, self.num_heads * self.size
        self.query_proj, self.key_proj, self.value_proj = (paddle.nn.Linear(*sizes) for _ in range(3))
        kinds = config.pos_att_type if config.relative_attention else ()
        self.uses_keys_of_distances, self.uses_queries_of_distances = "c2p" in kinds, "p2c" in kinds
        if self.uses_keys_of_distances and not config.share_att_key:
            self.pos_key_proj = paddle.nn.Linear(*sizes)
        if self.uses_queries_of_distances and not config.share_att_key:
            self.pos_query_proj = paddle.nn.Linear(*sizes)
        self.scale = (self.size * (1 + len({*config.pos_att_type}))) ** -0.5
        self.pos_dropout = paddle.nn.Dropout(config.hidden_dropout_prob)
        self.dropout = paddle.nn.Dropout(config.attention_probs_dropout_prob)

    def _heads(self, x: paddle.Tensor) -> paddle.Tensor:
        """[..., length, heads * size] -> [..., heads, length, size]"""
        return x.reshape([0, 0, self.num_heads, self.size]).transpose([0, 2, 1, 3])

    def forward(
        self,
        x: paddle.Tensor,
        mask: paddle.Tensor,
        distances: paddle.Tensor | None,
        places: tuple[paddle.Tensor, ...],
    ) -> paddle.Tensor:
        """Attended values [batch, length, heads * size].

        Args:
            mask: to be added to the scores [batch, heads, length, length].
            distances: vectors of all distances, float [distances, hidden_size].
            places: for each query and key, flattened, where the products of queries and distances, and of keys and
                distances, have that of their distance.
        """
        query, key, value = (self._heads(each(x)) for each in (self.query_proj, self.key_proj, self.value_proj))
        query, scaled_key = query * self.scale, key * self.scale
        scores = paddle.matmul(query, key, transpose_y=True) + mask
        if distances is not None:
            distances = self.pos_dropout(distances).unsqueeze(0)
        for is_used, tokens, projection, of in (
            (self.uses_keys_of_distances, query, getattr(self, "pos_key_proj", self.key_proj), 0),
            (self.uses_queries_of_distances, scaled_key, getattr(self, "pos_query_proj", self.query_proj), 1),
        ):
            if is_used:
                products = paddle.matmul(tokens, self._heads(projection(distances)), transpose_y=True)
                scores = scores + paddle.index_select(products.flatten(2), places[of], axis=-1).reshape(scores.shape)
        attended = paddle.matmul(self.dropout(F.softmax(scores)), value)
        return attended.transpose([0, 2, 1, 3]).flatten(2)


class _Output(paddle.nn.Layer):
    def __init__(self, config: DebertaV2Config, size: int) -> None:
        super().__init__()
        self.dense = paddle.nn.Linear(size, config.hidden_size)
        self.LayerNorm = _norm(config)
        self.dropout = paddle.nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: paddle.Tensor, residual: paddle.Tensor) -> paddle.Tensor:
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class _Layer(paddle.nn.Layer):
    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__()
        inner = config.num_attention_heads * config.attention_head_size
        self.attention = LayerDict({"self": _SelfAttention(config), "output": _Output(config, inner)})
        self.intermediate = LayerDict({"dense": paddle.nn.Linear(config.hidden_size, config.intermediate_size)})
        self.act = ACT2FN[config.hidden_act]
        self.output = _Output(config, config.intermediate_size)

    def forward(self, x: paddle.Tensor, *how: Any) -> paddle.Tensor:
        x = self.attention["output"](self.attention["self"](x, *how), x)
        return self.output(self.act(self.intermediate["dense"](x)), x)


class _Convolution(paddle.nn.Layer):
    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__()
        size, width = config.hidden_size, config.conv_kernel_size
        self.conv = paddle.nn.Conv1D(size, size, width, padding=width // 2, groups=config.conv_groups)
        self.LayerNorm = _norm(config)
        self.act = ACT2FN[config.conv_act]
        self.dropout = paddle.nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: paddle.Tensor, residual: paddle.Tensor, is_token: paddle.Tensor) -> paddle.Tensor:
        x = self.conv(x.transpose([0, 2, 1])).transpose([0, 2, 1]) * is_token
        return self.LayerNorm(residual + self.act(self.dropout(x))) * is_token


class _Encoder(paddle.nn.Layer):
    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__()
        self.layer = paddle.nn.LayerList([_Layer(config) for _ in range(config.num_hidden_layers)])
        if config.relative_attention:
            self.rel_embeddings = paddle.nn.Embedding(2 * config.num_distances, config.hidden_size)
            rows = paddle.to_tensor(bucket_of_distance(config))
            self.register_buffer("rows", rows, persistable=False)
        if config.norm_rel_ebd == "layer_norm":
            self.LayerNorm = _norm(config)
        if config.conv_kernel_size:
            self.conv = _Convolution(config)

    def forward(self, x: paddle.Tensor, attention_mask: paddle.Tensor) -> paddle.Tensor:
        is_token = attention_mask.astype(x.dtype)
        mask = to_add(attention_mask)
        distances, places = None, ()
        if hasattr(self, "rel_embeddings"):
            distances = self.rel_embeddings.weight
            distances = self.LayerNorm(distances) if hasattr(self, "LayerNorm") else distances
            token = paddle.arange(x.shape[1])
            rows = self.rows[token.unsqueeze(1) - token + self.rows.shape[0] // 2]
            places = tuple((each * distances.shape[0] + rows).flatten() for each in (token.unsqueeze(1), token))
        embedded = x
        for i, layer in enumerate(self.layer):
            x = layer(x, mask, distances, places)
            if i == 0 and hasattr(self, "conv"):
                x = self.conv(embedded, x, is_token.unsqueeze(-1))
        return x


class DebertaV2PretrainedModel(NormalWeights):
    """What encoder and heads share."""

    config_class = DebertaV2Config
    base_model_prefix = "deberta"


@register_base_model
class DebertaV2Model(DebertaV2PretrainedModel):
    """The encoder."""

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__(config)
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)

    def forward(
        self,
        input_ids: paddle.Tensor,
        token_type_ids: paddle.Tensor | None = None,
        attention_mask: paddle.Tensor | None = None,
    ) -> paddle.Tensor:
        """Last hidden states float [batch, length, hidden_size] of int64 tensors [batch, length]."""
        token_type_ids = paddle.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        attention_mask = or_ones(attention_mask, input_ids)
        return self.encoder(self.embeddings(input_ids, token_type_ids, attention_mask), attention_mask)


class ContextPooler(paddle.nn.Layer):
    """Between encoder and classifier: float [..., hidden_size] -> the same shape."""

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__()
        self.dense = paddle.nn.Linear(config.hidden_size, config.hidden_size)
        self.act = ACT2FN[config.pooler_hidden_act]

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.act(self.dense(x))
