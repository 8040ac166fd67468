"""XLM-R (Conneau et al., "Unsupervised Cross-lingual Representation Learning at Scale", 2020)."""

from __future__ import annotations

from typing import Any

import paddle
import paddle.nn.functional as F
from paddlenlp import transformers

from clue_utils.models.encoders.masks import or_ones, positions, to_add


class XLMRobertaModel(transformers.XLMRobertaModel):
    """PaddleNLP's computes the same, but in words that Paddle never ends to rewrite when a model is exported."""

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        **_: Any,
    ) -> tuple[paddle.Tensor, paddle.Tensor | None]:
        """Hidden states float [batch, length, hidden_size] and what is pooled of the first token [batch, hidden_size].

        Of int64 tensors [batch, length]. Nothing is pooled below heads that do without.
        """
        attention_mask = or_ones(attention_mask, input_ids)
        mask = to_add(attention_mask)
        if position_ids is None:
            position_ids = positions(attention_mask) + self.config.pad_token_id + 1
        hidden = self.embeddings(input_ids, token_type_ids, position_ids)
        for layer in self.encoder.layer:
            attended = layer.attention.output(_attend(layer.attention.self, hidden, mask), hidden)
            hidden = layer.output(layer.intermediate(attended), attended)
        return hidden, None if self.pooler is None else self.pooler(hidden)


def _attend(layer: Any, hidden: paddle.Tensor, mask: paddle.Tensor) -> paddle.Tensor:
    """What the heads of a layer see, float [batch, length, hidden_size]."""
    shape = [0, 0, layer.num_attention_heads, layer.attention_head_size]
    query, key, value = (
        part(hidden).reshape(shape).transpose([0, 2, 1, 3]) for part in (layer.query, layer.key, layer.value)
    )
    scores = paddle.matmul(query, key, transpose_y=True) / layer.scale
    weights = layer.dropout(F.softmax(scores + mask.astype(scores.dtype), axis=-1))
    seen = paddle.matmul(weights, value)
    return seen.transpose([0, 2, 1, 3]).reshape([0, 0, layer.all_head_size])
