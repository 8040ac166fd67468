"""RemBERT (Chung et al., "Rethinking Embedding Coupling in Pre-trained Language Models", 2021)."""

from __future__ import annotations

from typing import Any

import paddle
from paddlenlp import transformers

from clue_utils.models.encoders.masks import or_ones, to_add


class RemBertModel(transformers.RemBertModel):
    """PaddleNLP's hands a tuple from layer to layer where a tensor is due, and adds ones for tokens to the scores."""

    def forward(
        self, input_ids: Any = None, token_type_ids: Any = None, position_ids: Any = None, attention_mask: Any = None
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Hidden states float [batch, length, hidden_size] and what is pooled of the first token [batch, hidden_size].

        Of int64 tensors [batch, length].
        """
        mask = to_add(or_ones(attention_mask, input_ids))
        embedded = self.embeddings(input_ids, token_type_ids=token_type_ids, position_ids=position_ids)
        hidden = self.encoder.embedding_hidden_mapping_in(embedded)
        for layer in self.encoder.layer:
            context, _ = layer.attention.self(hidden, mask)
            hidden = layer.feed_forward_chunk(layer.attention.output(context, hidden))
        return hidden, self.pooler(hidden)
