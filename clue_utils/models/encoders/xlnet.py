"""XLNet (Yang et al., "XLNet: Generalized Autoregressive Pretraining for Language Understanding", 2019)."""

from __future__ import annotations

from typing import Any

import paddle
from paddlenlp import transformers

from clue_utils.models.encoders.masks import last_states, or_ones


class XLNetForSequenceClassification(transformers.XLNetForSequenceClassification):
    """PaddleNLP's takes the last column for the last token, and so padding where that is on the right."""

    def forward(self, input_ids: Any, token_type_ids: Any = None, attention_mask: Any = None) -> paddle.Tensor:
        """Logits float [batch, classes] of int64 tensors [batch, length]."""
        hidden = self.transformer(input_ids, token_type_ids=token_type_ids, attention_mask=attention_mask)[0]
        return self.classifier(last_states(hidden, or_ones(attention_mask, input_ids)).unsqueeze(1))
