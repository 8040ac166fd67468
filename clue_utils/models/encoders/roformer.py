"""The classifier that Hugging Face has for RoFormer, whose encoder has no pooler."""

from __future__ import annotations

from typing import Any

import paddle
from paddlenlp.transformers import RoFormerModel, RoFormerPretrainedModel
from paddlenlp.transformers.activations import ACT2FN


class _Classifier(paddle.nn.Layer):
    """Two layers: float [batch, hidden_size] -> logits float [batch, classes]."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dropout = paddle.nn.Dropout(config.classifier_dropout)
        self.dense = paddle.nn.Linear(config.hidden_size, config.hidden_size)
        self.act = ACT2FN[config.hidden_act]
        self.out_proj = paddle.nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.out_proj(self.dropout(self.act(self.dense(self.dropout(x)))))


class RoFormerForSequenceClassification(RoFormerPretrainedModel):
    """A score for each class of a text, from the state of its first token."""

    mark = "classifier.out_proj.weight"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.roformer = RoFormerModel(config)
        self.roformer.pooler = paddle.nn.Identity()
        self.classifier = _Classifier(config)

    def forward(self, input_ids: Any, token_type_ids: Any = None, attention_mask: Any = None) -> paddle.Tensor:
        """Logits float [batch, classes] of int64 tensors [batch, length]."""
        hidden = self.roformer(input_ids, token_type_ids=token_type_ids, attention_mask=attention_mask)[0]
        return self.classifier(hidden[:, 0])
