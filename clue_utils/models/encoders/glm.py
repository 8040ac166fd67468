"""GLM as an encoder (Du et al., "General Language Model Pretraining with Autoregressive Blank Infilling", 2022)."""

from __future__ import annotations

from typing import Any

import paddle
from paddlenlp import transformers

from clue_utils.models.encoders.masks import or_ones, positions


class GLMModel(transformers.GLMModel):
    """The text is what GLM calls part A: every token sees every other, and none is in a span to be filled in.

    PaddleNLP's gives scores of the vocabulary, and takes a mask [batch, 1, 1 or length, length].
    """

    def forward(self, input_ids: Any, attention_mask: Any = None) -> paddle.Tensor:
        """Hidden states float [batch, length, hidden_size] of int64 tensors [batch, length]."""
        attention_mask = or_ones(attention_mask, input_ids)
        position_ids = positions(attention_mask)
        if self.config.block_position_encoding:  # the place in the text, and that within a span
            position_ids = paddle.stack([position_ids, paddle.zeros_like(position_ids)], axis=1)
        mask = attention_mask.unsqueeze([1, 2])
        return self.transformer(self.word_embeddings(input_ids), position_ids, mask, return_dict=False)[0]
