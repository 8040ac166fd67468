"""The initial weights of an encoder and of the heads over it, where no checkpoint has them."""

from __future__ import annotations

import paddle
from paddlenlp.transformers import PretrainedModel


class NormalWeights(PretrainedModel):
    """Draws matrices and embeddings from a normal distribution of deviation ``initializer_range``.

    What has other weights, such as a normalisation, keeps Paddle's own.
    """

    def _init_weights(self, layer: paddle.nn.Layer) -> None:
        if isinstance(layer, (paddle.nn.Linear, paddle.nn.Embedding)):
            layer.weight.set_value(paddle.normal(0.0, self.config.initializer_range, layer.weight.shape))
