"""UNIMO (Li et al., "UNIMO: Towards Unified-Modal Understanding and Generation", 2021) and UnifiedTransformer (PLATO).

Both are one stack of layers that reads or writes by its mask. PaddleNLP's take the mask that is added to the scores,
and count positions as of rows that are padded on the left.
"""

from __future__ import annotations

from typing import Any

from paddlenlp import transformers

from clue_utils.models.encoders.masks import or_ones, positions, to_add


class UNIMOModel(transformers.UNIMOModel):
    """UNIMO as a reader: every token sees every other."""

    def forward(self, input_ids: Any, token_type_ids: Any = None, attention_mask: Any = None) -> Any:
        """Hidden states float [batch, length, hidden_size] of int64 tensors [batch, length]."""
        attention_mask = or_ones(attention_mask, input_ids)
        mask = to_add(attention_mask)
        return super().forward(input_ids, token_type_ids, positions(attention_mask), mask, use_cache=False)


class UnifiedTransformerModel(transformers.UnifiedTransformerModel):
    """UnifiedTransformer as a reader: every token sees every other, and nobody has a role."""

    def forward(self, input_ids: Any, token_type_ids: Any = None, attention_mask: Any = None) -> Any:
        """Hidden states float [batch, length, hidden_size] of int64 tensors [batch, length]."""
        attention_mask = or_ones(attention_mask, input_ids)
        mask = to_add(attention_mask)
        return super().forward(input_ids, token_type_ids, positions(attention_mask), mask, use_cache=False)
