"""GAU-alpha: layers of gated attention units (Hua et al. 2022, arXiv:2202.10447), published by ZhuiyiTechnology."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddlenlp import transformers

from clue_utils.models.encoders.masks import or_ones


class GAUAlphaModel(transformers.GAUAlphaModel):
    """An encoder whose rows are computed each from itself; PaddleNLP's layers add row 0's update to all of them."""

    def forward(
        self,
        input_ids: paddle.Tensor,
        attention_mask: paddle.Tensor | None = None,
        token_type_ids: paddle.Tensor | None = None,
    ) -> paddle.Tensor:
        """Hidden states float [batch, length, hidden_size] of int64 tensors [batch, length]."""
        mask = or_ones(attention_mask, input_ids).unsqueeze(1).astype(paddle.get_default_dtype())
        hidden = self.embeddings(input_ids, token_type_ids)
        for layer in self.encoder.layer:
            update = layer.gau(hidden, attention_mask=mask)
            hidden = layer.norm(hidden + F.dropout(update, p=layer.hidden_dropout, training=self.training))
        return hidden
