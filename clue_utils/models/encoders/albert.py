"""ALBERT (Lan et al., "ALBERT: A Lite BERT for Self-supervised Learning of Language Representations", 2020)."""

from __future__ import annotations

from typing import Any

import paddle
from paddlenlp import transformers


class AlbertForQuestionAnswering(transformers.AlbertForQuestionAnswering):
    """Start and end logits; PaddleNLP's class gives the start logits twice."""

    def forward(
        self, input_ids: Any, token_type_ids: Any = None, attention_mask: Any = None
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Logits of starts and of ends, float [batch, length] each, of int64 tensors [batch, length]."""
        hidden = self.transformer(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)[0]
        start, end = self.qa_outputs(hidden).unbind(axis=-1)
        return start, end
