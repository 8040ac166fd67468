"""MegatronBERT (Shoeybi et al., "Megatron-LM: Training Multi-Billion Parameter Language Models", 2019)."""

from __future__ import annotations

from typing import Any

from paddlenlp import transformers

from clue_utils.models.encoders.masks import to_add


class MegatronBertModel(transformers.MegatronBertModel):
    """An encoder that takes a mask of ones and zeros; PaddleNLP's adds those to the attention scores as they are."""

    def forward(
        self, input_ids: Any = None, token_type_ids: Any = None, position_ids: Any = None, attention_mask: Any = None
    ) -> Any:
        mask = None if attention_mask is None else to_add(attention_mask)
        return super().forward(input_ids, token_type_ids, position_ids, mask)
