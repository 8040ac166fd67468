"""ERNIE-Gram (Xiao et al., "ERNIE-Gram: Pre-Training with Explicitly N-Gram Masked Language Modeling", 2021)."""

from __future__ import annotations

from typing import Any

import paddle
from paddlenlp.transformers import ErnieGramModel, ErnieGramPretrainedModel


class ErnieGramForMultipleChoice(ErnieGramPretrainedModel):
    """A score for each choice from the pooled output, which PaddleNLP has for ERNIE and BERT but not for ERNIE-Gram."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.ernie_gram = ErnieGramModel(config)
        self.dropout = paddle.nn.Dropout(config.classifier_dropout)
        self.classifier = paddle.nn.Linear(config.hidden_size, 1)

    def forward(self, input_ids: Any, token_type_ids: Any = None, attention_mask: Any = None) -> paddle.Tensor:
        """Logits float [batch, choices] of int64 tensors [batch, choices, length]."""
        flat = [x if x is None else x.flatten(0, 1) for x in (input_ids, token_type_ids, attention_mask)]
        pooled = self.ernie_gram(flat[0], token_type_ids=flat[1], attention_mask=flat[2])[1]
        return self.classifier(self.dropout(pooled)).reshape([input_ids.shape[0], -1])
