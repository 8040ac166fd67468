"""ERNIE-Doc (Ding et al. 2021, arXiv:2012.15688) as an encoder of single texts."""

from __future__ import annotations

import paddle
from paddlenlp import transformers

from clue_utils.models.encoders.masks import or_ones, to_add


class ErnieDocModel(transformers.ErnieDocModel):
    """An encoder to which every row is the beginning of a document: what it remembers of earlier segments are zeros.

    PaddleNLP's takes memory and positions from its caller, and pools the last token. Here [CLS] comes first, as in
    PaddleNLP's fine-tuning on C3.
    """

    def forward(
        self,
        input_ids: paddle.Tensor,
        token_type_ids: paddle.Tensor | None = None,
        attention_mask: paddle.Tensor | None = None,
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Hidden states float [batch, length, hidden_size] and pooler's output of int64 tensors [batch, length]."""
        config, (batch_size, length) = self.config, input_ids.shape
        if token_type_ids is None:
            token_type_ids = paddle.zeros_like(input_ids)
        # Row d of the table is of a token d places behind. Those before come after all of these, at whatever length, in
        # order of distance; the attention wants the farthest first.
        before = config.max_position_embeddings - 1 + paddle.arange(config.memory_len + length, 0, -1)
        position_ids = paddle.concat([before, paddle.arange(length)]).unsqueeze([0, 2])
        memory = paddle.zeros([batch_size, config.memory_len, config.hidden_size], self.pooler.dense.weight.dtype)
        hidden, _, _ = super().forward(
            input_ids.unsqueeze(-1),
            [memory] * config.num_hidden_layers,
            token_type_ids.unsqueeze(-1),
            position_ids,
            or_ones(attention_mask, input_ids).unsqueeze(-1),
        )
        return hidden, self.pooler(hidden[:, :1])

    def _create_n_head_attn_mask(self, attn_mask: paddle.Tensor, batch_size: int) -> paddle.Tensor:
        """What is added to the scores, [batch, 1, 1, memory and length], of a mask [batch, length, 1].

        Unlike PaddleNLP's, it leaves tokens to attend to even to padding, and overflows in no precision.
        """
        memory = paddle.ones([batch_size, self.memory_len, 1], attn_mask.dtype)
        return to_add(paddle.concat([memory, attn_mask], axis=1).squeeze(-1))
