"""The architectures that the scripts can fine-tune, as data: PaddleNLP's classes, and the names that PyTorch's have.

An architecture with encoder and heads in PaddleNLP takes one row in ``FAMILIES``; what is wrong in PaddleNLP's own
classes is put right by the classes below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import paddle
from paddlenlp import transformers
from paddlenlp.transformers import ErnieGramModel, ErnieGramPretrainedModel

from clue_utils.models.heads import HEADS

Renames = tuple[tuple[str, str], ...]
# Names in PyTorch (Hugging Face) of a BERT-type encoder -> those of an encoder of ``paddle.nn.TransformerEncoder``.
# Applied in this order to every name, as plain replacements.
_BERT: Renames = (
    ("LayerNorm.", "layer_norm."),
    ("encoder.layer.", "encoder.layers."),
    (".attention.self.query.", ".self_attn.q_proj."),
    (".attention.self.key.", ".self_attn.k_proj."),
    (".attention.self.value.", ".self_attn.v_proj."),
    (".attention.output.dense.", ".self_attn.out_proj."),
    (".attention.output.layer_norm.", ".norm1."),
    (".intermediate.dense.", ".linear1."),
    (".output.dense.", ".linear2."),
    (".output.layer_norm.", ".norm2."),
    ("sequence_summary.summary.", "sequence_summary.dense."),
    ("qa_outputs.", "classifier."),
)
# ALBERT and Megatron's BERT keep PyTorch's names but for the layer normalisations.
_ALBERT: Renames = (("LayerNorm.", "layer_norm."),)
_DISTIL: Renames = (
    ("LayerNorm.", "layer_norm."),
    ("transformer.layer.", "encoder.layers."),
    (".attention.q_lin.", ".self_attn.q_proj."),
    (".attention.k_lin.", ".self_attn.k_proj."),
    (".attention.v_lin.", ".self_attn.v_proj."),
    (".attention.out_lin.", ".self_attn.out_proj."),
    (".sa_layer_norm.", ".norm1."),
    (".ffn.lin1.", ".linear1."),
    (".ffn.lin2.", ".linear2."),
    (".output_layer_norm.", ".norm2."),
    ("qa_outputs.", "classifier."),
)
_MEGATRON: Renames = ((".ln.", ".layer_norm."),)


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        model_type: what ``config.json`` calls it.
        name: what PaddleNLP's classes begin with.
        torch_prefix: the first part of an encoder's names in PyTorch; "": PyTorch's checkpoints cannot be read.
        renames: from PyTorch's names to Paddle's, beside the prefix.
        setting_names: Hugging Face's names of settings that PaddleNLP's configuration does not know as its own.
        may_be_missing: regular expression of the encoder's parameters that a checkpoint may lack: the pooler, which
            fine-tuning can begin anew, and what takes no part in the computation.
        sees_padding: a row's scores depend on the padding of its batch by design (convolutions over tokens).
        first_position: configuration -> rows of the position table before that of the first token.
        encoder_class: mends PaddleNLP's encoder: the model's encoder is made an instance of it.
        head_classes: of encoder and head, where PaddleNLP has none or a wrong one, by the end of PaddleNLP's name.
    """

    model_type: str
    name: str
    torch_prefix: str = ""
    renames: Renames = ()
    setting_names: Mapping[str, str] = field(default_factory=dict)
    may_be_missing: str = r"\bpooler\."
    sees_padding: bool = False
    first_position: Callable[[Any], int] = lambda _: 0
    encoder_class: type[paddle.nn.Layer] | None = None
    head_classes: Mapping[str, type[paddle.nn.Layer]] = field(default_factory=dict)

    @property
    def base_class(self) -> Any:
        """PaddleNLP's class of the encoder alone."""
        return getattr(transformers, f"{self.name}Model")

    @property
    def is_transformer_encoder(self) -> bool:
        """Whether its layers are Paddle's own, which take an activation by the name of a function of Paddle."""
        return self.renames is _BERT

    def head_class(self, kind: str) -> Any:
        """The class of encoder and head for a kind of task, or None where there is none."""
        end = HEADS[kind].class_name
        return self.head_classes.get(end) or getattr(transformers, self.name + end, None)


class ErnieGramForMultipleChoice(ErnieGramPretrainedModel):
    """A score for each choice from the pooled output, which PaddleNLP has for ERNIE and BERT but not for ERNIE-Gram."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.ernie_gram = ErnieGramModel(config)
        self.dropout = paddle.nn.Dropout(config.classifier_dropout)
        self.classifier = paddle.nn.Linear(config.hidden_size, 1)

    def forward(self, input_ids: Any, token_type_ids: Any = None, attention_mask: Any = None) -> paddle.Tensor:
        """Logits float [batch, choices] of int64 tensors [batch, choices, length]."""
        flat = [x if x is None else x.flatten(0, 1) for x in (input_ids, token_type_ids, attention_mask)]
        pooled = self.ernie_gram(flat[0], token_type_ids=flat[1], attention_mask=flat[2])[1]
        return self.classifier(self.dropout(pooled)).reshape([input_ids.shape[0], -1])


class AlbertForQuestionAnswering(transformers.AlbertForQuestionAnswering):
    """Start and end logits; PaddleNLP's class gives the start logits twice."""

    def forward(
        self, input_ids: Any, token_type_ids: Any = None, attention_mask: Any = None
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Logits of starts and of ends, float [batch, length] each, of int64 tensors [batch, length]."""
        hidden = self.transformer(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)[0]
        start, end = self.qa_outputs(hidden).unbind(axis=-1)
        return start, end


class MegatronBertModel(transformers.MegatronBertModel):
    """An encoder that takes a mask of ones and zeros; PaddleNLP's adds those to the attention scores as they are."""

    def forward(
        self, input_ids: Any = None, token_type_ids: Any = None, position_ids: Any = None, attention_mask: Any = None
    ) -> Any:
        if attention_mask is not None:
            padding = 1 - attention_mask.astype(self.pooler.dense.weight.dtype)
            attention_mask = padding.unsqueeze([1, 2]) * -1e4
        return super().forward(input_ids, token_type_ids, position_ids, attention_mask)


FAMILIES = (
    Family("bert", "Bert", "bert", _BERT),
    Family("ernie", "Ernie", "ernie", _BERT),
    Family("roberta", "Roberta", "roberta", _BERT, first_position=lambda config: config.pad_token_id + 1),
    Family("electra", "Electra", "electra", _BERT),
    Family("ernie_gram", "ErnieGram", head_classes={"ForMultipleChoice": ErnieGramForMultipleChoice}),
    Family("albert", "Albert", "albert", _ALBERT, head_classes={"ForQuestionAnswering": AlbertForQuestionAnswering}),
    Family("megatron-bert", "MegatronBert", "bert", _MEGATRON, encoder_class=MegatronBertModel),
    Family("roformer", "RoFormer", "roformer", _BERT),
    Family("roformerv2", "RoFormerv2"),
    Family("nezha", "NeZha"),
    Family("ernie_m", "ErnieM", first_position=lambda _: 2),
    Family("tinybert", "TinyBert"),
    Family("ppminilm", "PPMiniLM"),
    Family("skep", "Skep"),
    Family("gau_alpha", "GAUAlpha"),
    Family("distilbert", "DistilBert", "distilbert", _DISTIL, setting_names={"activation": "hidden_act"}),
    Family("mobilebert", "MobileBert"),
    Family("squeezebert", "SqueezeBert"),
    Family("convbert", "ConvBert", sees_padding=True),
    Family("nystromformer", "Nystromformer", sees_padding=True),
)
