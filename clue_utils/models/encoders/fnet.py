"""FNet: Fourier transforms in the place of attention (Lee-Thorp et al. 2021, arXiv:2105.03824)."""

from __future__ import annotations

import paddle
from paddlenlp import transformers


class FNetModel(transformers.FNetModel):
    """An encoder that transforms along tokens and features; PaddleNLP's transforms along the rows of the batch too."""

    def forward(
        self, input_ids: paddle.Tensor, token_type_ids: paddle.Tensor | None = None
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Hidden states float [batch, length, hidden_size] and pooler's output of int64 tensors [batch, length].

        Padding counts as tokens do: the architecture has no mask.
        """
        hidden = self.embeddings(input_ids, token_type_ids)
        for layer in self.encoder.layers:
            waves = paddle.fft.fftn(hidden.astype("float32"), axes=(1, 2))  # of half precision there are none
            mixed = layer.fourier.output(waves.real(), hidden)
            hidden = layer.output(layer.intermediate(mixed), mixed)
        return hidden, self.pooler(hidden)
