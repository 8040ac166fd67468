"""The encoder of mBART (Liu et al., "Multilingual Denoising Pre-training for Neural Machine Translation", 2020)."""

from __future__ import annotations

from typing import Any, ClassVar

import paddle
from paddlenlp import transformers
from paddlenlp.transformers import register_base_model
from paddlenlp.transformers.mbart.modeling import MBartEncoder

from clue_utils.models.encoders.masks import or_ones, to_add


class MBartConfig(transformers.MBartConfig):
    """Its sizes by their common names too."""

    attribute_map: ClassVar[dict[str, str]] = transformers.MBartConfig.attribute_map | {
        "hidden_size": "d_model",
        "num_hidden_layers": "encoder_layers",
        "num_attention_heads": "encoder_attention_heads",
        "intermediate_size": "encoder_ffn_dim",
    }


class MBartPretrainedModel(transformers.MBartPretrainedModel):
    """What encoder and heads share; PaddleNLP's is its own of encoder and decoder."""

    config_class = MBartConfig
    base_model_prefix = "mbart"


@register_base_model
class MBartModel(MBartPretrainedModel):
    """The encoder by the names that it has in PaddleNLP's checkpoints of encoder and decoder."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.shared = paddle.nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = MBartEncoder(config, self.shared)
        self.encoder.embed_tokens = None  # saved once

    def forward(self, input_ids: Any, attention_mask: Any = None) -> Any:
        """Hidden states float [batch, length, hidden_size] of int64 tensors [batch, length]."""
        embedded = self.shared(input_ids) * self.encoder.embed_scale
        return self.encoder(attention_mask=to_add(or_ones(attention_mask, input_ids)), inputs_embeds=embedded)
