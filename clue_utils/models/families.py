"""The architectures that the scripts can fine-tune, as data: PaddleNLP's classes, and the names that PyTorch's have.

An architecture takes one row in ``FAMILIES``. Classes that PaddleNLP has wrong, or has not, lie in ``encoders``; heads
that are the same over any encoder in ``generic_heads``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any

import paddle
from paddlenlp import transformers

from clue_utils.models.encoders import chinesebert, glm, mbart, rembert, unimo, xlm_roberta, xlnet
from clue_utils.models.encoders.albert import AlbertForQuestionAnswering
from clue_utils.models.encoders.deberta_v2 import ContextPooler, DebertaV2Model
from clue_utils.models.encoders.distilbert import DistilBertNeck
from clue_utils.models.encoders.ernie_doc import ErnieDocModel
from clue_utils.models.encoders.ernie_gram import ErnieGramForMultipleChoice
from clue_utils.models.encoders.fnet import FNetModel
from clue_utils.models.encoders.gau_alpha import GAUAlphaModel
from clue_utils.models.encoders.gpt import GPTModel
from clue_utils.models.encoders.gpt2 import GPT2Model
from clue_utils.models.encoders.megatron_bert import MegatronBertModel
from clue_utils.models.encoders.modernbert import ModernBertModel, ModernBertNeck
from clue_utils.models.encoders.qwen2 import Qwen2Model, Qwen3Model
from clue_utils.models.encoders.roformer import RoFormerForSequenceClassification
from clue_utils.models.generic_heads import Neck, make_head_class
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
_ALL_HEADS = tuple(sorted({head.class_name for head in HEADS.values()}))
# A decoder's classifier, which has no bias.
_SCORE: Renames = (("score.", "classifier."),)
_GPT2: Renames = ((".ln_1.", ".norm1."), (".ln_2.", ".norm2."), ("ln_f.", "norm."), *_SCORE)
_NEZHA: Renames = (
    ("LayerNorm.", "layer_norm."),
    (".attention.self.", ".attention."),
    (".attention.output.", ".attention."),
    (".intermediate.dense.", ".ffn."),
    (".output.dense.", ".ffn_output."),
    (".output.layer_norm.", ".layer_norm."),
    ("qa_outputs.", "classifier."),
)
_REMBERT: Renames = (("LayerNorm.", "layer_norm."), ("qa_outputs.", "classifier."))
_XLNET: Renames = (("sequence_summary.summary.", "classifier.dense."), ("logits_proj.", "classifier.out_proj."))
_MBART: Renames = (
    ("encoder.layers.", "encoder.encoder.layers."),
    ("encoder.layer_norm.", "encoder.encoder.norm."),
    ("encoder.layernorm_embedding.", "encoder.encoder_layernorm_embedding."),
    ("encoder.embed_positions.", "encoder.encoder_embed_positions."),
    (".self_attn_layer_norm.", ".norm1."),
    (".final_layer_norm.", ".norm2."),
    (".fc1.", ".linear1."),
    (".fc2.", ".linear2."),
)


@dataclass(frozen=True, eq=False)
class Family:
    """One architecture.

    Attributes:
        model_type: what ``config.json`` calls it.
        name: what PaddleNLP's classes begin with.
        torch_prefix: the first part of an encoder's names in PyTorch; "": PyTorch's checkpoints cannot be read.
        renames: from PyTorch's names to Paddle's, beside the prefix.
        setting_names: Hugging Face's and common names of settings that PaddleNLP's configuration does not know as its
            own.
        assumed: settings that a config.json need not name, since Hugging Face's architecture has no other.
        sees_padding: a row's scores depend on the padding of its batch by design (convolutions or Fourier transforms
            over tokens).
        remark: what else users should know, said when a model is loaded.
        first_position: configuration -> rows of the position table before that of the first token.
        encoder_class: mends PaddleNLP's encoder: the model's encoder is made an instance of it.
        own_class: our encoder, where PaddleNLP has none or one that computes something else; built as PaddleNLP's are.
            PaddleNLP's heads are not for it.
        head_classes: of encoder and head, where PaddleNLP has none or a wrong one, by the end of PaddleNLP's name.
        torch_head_classes: heads of Hugging Face's that have other parameters than PaddleNLP's, by the end of the name;
            taken where a checkpoint has the tensor ``mark`` of the class.
        wrong_heads: ends of names of PaddleNLP's classes of encoder and head that compute something else: the generic
            head takes their place, as it does where there is none.
        pools: what the generic head takes of a text, see ``generic_heads``.
        necks: of the generic head, by the end of its name.
        torch_spans: what PyTorch's head for spans is called.
        complete: gives an encoder what a published checkpoint has in other files than its weights.
    """

    model_type: str
    name: str
    torch_prefix: str = ""
    renames: Renames = ()
    setting_names: Mapping[str, str] = field(default_factory=dict)
    assumed: Mapping[str, Any] = field(default_factory=dict)
    sees_padding: bool = False
    remark: str = ""
    first_position: Callable[[Any], int] = lambda _: 0
    encoder_class: type[paddle.nn.Layer] | None = None
    own_class: type[paddle.nn.Layer] | None = None
    head_classes: Mapping[str, type[paddle.nn.Layer]] = field(default_factory=dict)
    torch_head_classes: Mapping[str, type[paddle.nn.Layer]] = field(default_factory=dict)
    wrong_heads: tuple[str, ...] = ()
    pools: str | Callable[[Any], str] = "first"
    necks: Mapping[str, Neck] = field(default_factory=dict)
    torch_spans: str = "qa_outputs"
    complete: Callable[[Any, Any], None] | None = None

    @property
    def base_class(self) -> Any:
        """The class of the encoder alone, PaddleNLP's but for what is our own."""
        return self.own_class or getattr(transformers, f"{self.name}Model")

    @property
    def is_transformer_encoder(self) -> bool:
        """Whether its layers are Paddle's own, which take an activation by the name of a function of Paddle."""
        return self.renames is _BERT

    def head_class(self, kind: str, names: Container[str] = ()) -> Any:
        """The class of encoder and head for a kind of task, and for a checkpoint that has tensors of these names."""
        end = HEADS[kind].class_name
        of_torch: Any = self.torch_head_classes.get(end)
        if of_torch and of_torch.mark in names:
            return of_torch
        theirs = None if self.own_class or end in self.wrong_heads else getattr(transformers, self.name + end, None)
        return self.head_classes.get(end) or theirs or self._generic_head_class(end)

    @functools.cache  # noqa: B019, families live as long as the program
    def _generic_head_class(self, end: str) -> Any:
        return make_head_class(self.encoder_class or self.base_class, self.pools, self.name + end, self.necks.get(end))


def _of_texts(name: str, layer: Callable[[Any], paddle.nn.Layer]) -> dict[str, Neck]:
    """A neck for the heads that give a text or a choice a score."""
    return {"ForSequenceClassification": (name, layer), "ForMultipleChoice": (name, layer)}


FAMILIES = (
    Family("bert", "Bert", "bert", _BERT),
    Family("ernie", "Ernie", "ernie", _BERT),
    Family("roberta", "Roberta", "roberta", _BERT, first_position=lambda config: config.pad_token_id + 1),
    Family("electra", "Electra", "electra", _BERT),
    Family("ernie_gram", "ErnieGram", head_classes={"ForMultipleChoice": ErnieGramForMultipleChoice}),
    Family("albert", "Albert", "albert", _ALBERT, head_classes={"ForQuestionAnswering": AlbertForQuestionAnswering}),
    Family("megatron-bert", "MegatronBert", "bert", _MEGATRON, encoder_class=MegatronBertModel),
    Family(
        "roformer",
        "RoFormer",
        "roformer",
        _BERT,
        torch_head_classes={"ForSequenceClassification": RoFormerForSequenceClassification},
    ),
    Family("roformerv2", "RoFormerv2", "roformer", _BERT),
    Family("nezha", "NeZha", "nezha", _NEZHA, assumed={"use_relative_position": True}),
    Family("ernie_m", "ErnieM", first_position=lambda _: 2),
    Family("tinybert", "TinyBert"),
    Family("ppminilm", "PPMiniLM"),
    Family("skep", "Skep", pools="pooler"),
    Family("gau_alpha", "GAUAlpha", encoder_class=GAUAlphaModel),
    Family(
        "distilbert",
        "DistilBert",
        "distilbert",
        _DISTIL,
        setting_names={"activation": "hidden_act"},
        necks={"ForMultipleChoice": ("pre_classifier", DistilBertNeck)},
    ),
    Family("mobilebert", "MobileBert", pools="pooler"),
    Family("squeezebert", "SqueezeBert", wrong_heads=("ForQuestionAnswering",), pools="pooler"),
    Family("convbert", "ConvBert", sees_padding=True),
    Family("nystromformer", "Nystromformer", sees_padding=True),
    Family("fnet", "FNet", sees_padding=True, encoder_class=FNetModel, wrong_heads=_ALL_HEADS, pools="pooler"),
    Family(
        "ernie_doc",
        "ErnieDoc",
        remark="each text is read as the beginning of a document, without memory of others",
        encoder_class=ErnieDocModel,
        wrong_heads=_ALL_HEADS,
        pools="pooler",
    ),
    Family("ernie-ctm", "ErnieCtm", pools="pooler"),
    # PaddleNLP's heads tell padding by the id of the end of a text.
    Family("gpt", "GPT", encoder_class=GPTModel, wrong_heads=("ForSequenceClassification",), pools="last"),
    Family("gpt2", "GPT2", "transformer", _GPT2, own_class=GPT2Model, pools="last"),
    Family("qwen2", "Qwen2", "model", _SCORE, own_class=Qwen2Model, pools="last"),
    Family("qwen3", "Qwen3", "model", _SCORE, own_class=Qwen3Model, pools="last"),
    Family(
        "deberta-v2",
        "DebertaV2",
        "deberta",
        (("qa_outputs.", "classifier."),),
        own_class=DebertaV2Model,
        necks=_of_texts("pooler", ContextPooler),
    ),
    Family(
        "modernbert",
        "ModernBert",
        "model",
        own_class=ModernBertModel,
        pools=lambda config: {"cls": "first"}.get(config.classifier_pooling, config.classifier_pooling),
        necks=_of_texts("head", ModernBertNeck) | {"ForQuestionAnswering": ("head", ModernBertNeck)},
        torch_spans="classifier",
    ),
    Family(
        "chinesebert",
        "ChineseBert",
        "bert",
        _BERT,
        own_class=chinesebert.ChineseBertModel,
        pools="pooler",
        complete=chinesebert.give_readings,
    ),
    Family(
        "xlnet",
        "XLNet",
        "transformer",
        _XLNET,
        setting_names={"intermediate_size": "d_inner"},
        head_classes={"ForSequenceClassification": xlnet.XLNetForSequenceClassification},
        wrong_heads=("ForMultipleChoice",),  # as many scores for a choice as there are labels
        pools="last",
    ),
    Family("unimo", "UNIMO", encoder_class=unimo.UNIMOModel),
    Family("unified_transformer", "UnifiedTransformer", encoder_class=unimo.UnifiedTransformerModel),
    Family(
        "glm",
        "GLM",
        encoder_class=glm.GLMModel,
        setting_names={"max_position_embeddings": "max_sequence_length"},
        wrong_heads=("ForMultipleChoice",),  # it writes the choices
    ),
    Family(
        "rembert",
        "RemBert",
        "rembert",
        _REMBERT,
        encoder_class=rembert.RemBertModel,
        # Logits of spans [batch, length, 1]; a layer of another name than PyTorch's, over an encoder that cannot run.
        wrong_heads=("ForSequenceClassification", "ForQuestionAnswering"),
        pools="pooler",
    ),
    Family(
        "xlm-roberta",
        "XLMRoberta",
        "roberta",
        first_position=lambda config: config.pad_token_id + 1,
        encoder_class=xlm_roberta.XLMRobertaModel,
    ),
    # The last token is that of the language, or the end of the text.
    Family(
        "mbart", "MBart", "model", _MBART, assumed={"layer_norm_eps": 1e-5}, own_class=mbart.MBartModel, pools="last"
    ),
)
# By what config.json calls them.
BY_TYPE = {family.model_type: family for family in FAMILIES}
