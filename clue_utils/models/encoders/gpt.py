"""GPT, a decoder (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019)."""

from __future__ import annotations

import paddle
from paddlenlp import transformers

from clue_utils.models.encoders.masks import or_ones, positions


class GPTModel(transformers.GPTModel):
    """A decoder whose positions begin at a row's first token, wherever the padding is; PaddleNLP's begin at padding."""

    def forward(self, input_ids: paddle.Tensor, attention_mask: paddle.Tensor | None = None) -> paddle.Tensor:
        attention_mask = or_ones(attention_mask, input_ids)
        return super().forward(input_ids, positions(attention_mask), attention_mask)
