"""The models that are published for Chinese, alone or among other languages: which there are, and what they need."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import paddle
from paddlenlp.transformers.model_utils import no_init_weights

from clue_utils.errors import UserError, show
from clue_utils.language import say
from clue_utils.models.config import Config, encoder_settings
from clue_utils.models.families import FAMILIES, Family
from clue_utils.models.source import is_known_name
from clue_utils.models.tokenizer_kinds import find_published

# --- which there are ----------------------------------------------------------------------------------------------

# A name says that a model is for Chinese, or for many languages.
_SAYS_CHINESE = re.compile(r"chinese|multilingual|(?:^|[-_/])(?:zh|ch|cn|cpm|hfl|uer)(?:$|[-_/])", re.IGNORECASE)
# A name says that a model is for other languages.
_SAYS_OTHERS = re.compile(r"(?:^|[-_/])(?:en|english|marco|de|ende|enfr|enro|ro)(?:$|[-_/])", re.IGNORECASE)
# Architectures whose models are for Chinese or many languages where their names do not say otherwise; the models of
# any other are where they say so.
_CHINESE = frozenset(
    "ernie ernie_gram ernie_m ernie-ctm nezha ppminilm gau_alpha nystromformer unimo unified_transformer chinesebert "
    "rembert mbart".split()
)

# Models in PyTorch's form, to be brought as a folder: the name of a model of PaddleNLP of the same architecture and
# sizes, or the settings themselves.
_DEBERTA = {"vocab_size": 12800, "max_position_embeddings": 512, "type_vocab_size": 0}
_QWEN2 = {"vocab_size": 151936, "num_key_value_heads": 2}
_HUGGING_FACE: Mapping[str, Mapping[str, str | Mapping[str, Any]]] = {
    "bert": {
        "google-bert/bert-base-chinese": "bert-base-chinese",
        "google-bert/bert-base-multilingual-cased": "bert-base-multilingual-cased",
        "hfl/chinese-bert-wwm-ext": "bert-wwm-ext-chinese",
        "hfl/chinese-roberta-wwm-ext": "bert-base-chinese",
        "hfl/chinese-roberta-wwm-ext-large": "macbert-large-chinese",
        "hfl/chinese-macbert-base": "macbert-base-chinese",
        "hfl/chinese-macbert-large": "macbert-large-chinese",
        "Langboat/mengzi-bert-base": "bert-base-chinese",
    },
    "ernie": {f"nghuyong/{name}": name for name in ("ernie-1.0-base-zh", "ernie-3.0-base-zh", "ernie-3.0-nano-zh")},
    "electra": {"hfl/chinese-electra-180g-base-discriminator": "chinese-electra-base"},
    "albert": {
        f"voidful/albert_chinese_{size}": f"albert-chinese-{size}"
        for size in ("tiny", "small", "base", "large", "xlarge", "xxlarge")
    },
    "roformer": {
        "junnyu/roformer_chinese_base": "roformer-chinese-base",
        "junnyu/roformer_chinese_char_base": "roformer-chinese-char-base",
    },
    "nezha": {"sijunhe/nezha-cn-base": "nezha-base-chinese", "sijunhe/nezha-cn-large": "nezha-large-chinese"},
    "distilbert": {
        "distilbert/distilbert-base-multilingual-cased": {
            **{"vocab_size": 119547, "hidden_size": 768, "num_hidden_layers": 6, "num_attention_heads": 12},
            **{"intermediate_size": 3072, "max_position_embeddings": 512},
        },
    },
    "xlm-roberta": {
        "FacebookAI/xlm-roberta-base": {
            **{"vocab_size": 250002, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
            **{"intermediate_size": 3072, "max_position_embeddings": 514, "type_vocab_size": 1},
        },
        "FacebookAI/xlm-roberta-large": {
            **{"vocab_size": 250002, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
            **{"intermediate_size": 4096, "max_position_embeddings": 514, "type_vocab_size": 1},
        },
    },
    "xlnet": {"hfl/chinese-xlnet-base": "chinese-xlnet-base", "hfl/chinese-xlnet-mid": "chinese-xlnet-mid"},
    "rembert": {"google/rembert": "rembert"},
    "mbart": {"facebook/mbart-large-cc25": "mbart-large-cc25"},
    "deberta-v2": {
        "IDEA-CCNL/Erlangshen-DeBERTa-v2-97M-Chinese": {
            **{"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
            **_DEBERTA,
        },
        "IDEA-CCNL/Erlangshen-DeBERTa-v2-320M-Chinese": {
            **{"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
            **_DEBERTA,
        },
    },
    "gpt2": {
        "uer/gpt2-chinese-cluecorpussmall": {
            **{"vocab_size": 21128, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024},
        },
    },
    "modernbert": {
        "jhu-clsp/mmBERT-base": {
            **{"vocab_size": 256000, "hidden_size": 768, "num_hidden_layers": 22, "num_attention_heads": 12},
            **{"intermediate_size": 1152, "max_position_embeddings": 8192},
        },
    },
    "qwen3": {
        "Qwen/Qwen3-0.6B": {
            **{"vocab_size": 151936, "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16},
            **{"num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 3072},
        },
    },
    "qwen2": {
        f"Qwen/{name}": {
            **{"num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads},
            **{"intermediate_size": inner, **_QWEN2},
        }
        for names, layers, hidden, heads, inner in (
            (("Qwen2-0.5B", "Qwen2.5-0.5B"), 24, 896, 14, 4864),
            (("Qwen2-1.5B", "Qwen2.5-1.5B"), 28, 1536, 12, 8960),
        )
        for name in names
    },
}


@dataclass(frozen=True)
class Model:
    """A published model.

    Attributes:
        is_known: by its name, which downloads it; otherwise the folder with its files is to be brought.
        config: of PaddleNLP's class; None where it is published beside the weights alone.
    """

    name: str
    family: Family
    is_known: bool
    config: Any

    @property
    def layers(self) -> int:
        return int(self.config.num_hidden_layers)

    @property
    def hidden_size(self) -> int:
        return int(self.config.hidden_size)

    @functools.cached_property
    def num_parameters(self) -> int:
        """Of the encoder, pooler included: counted in the model itself, which is built without memory for them."""
        return _count_parameters(self.family, self.config.to_json_string())


@functools.cache
def _count_parameters(family: Family, settings: str) -> int:
    config = family.base_class.config_class(**json.loads(settings))
    with paddle.LazyGuard(), no_init_weights():
        return sum(math.prod(parameter.shape) for parameter in family.base_class(config).parameters())


def is_chinese(name: str, family: Family) -> bool:
    """Whether a model of PaddleNLP is published for Chinese, or for many languages, by its name and architecture."""
    if _SAYS_CHINESE.search(name):
        return True
    return family.model_type in _CHINESE and not _SAYS_OTHERS.search(name)


@functools.cache
def models_of(family: Family) -> Sequence[Model]:
    """The models for Chinese or many languages of an architecture: PaddleNLP's names, then Hugging Face's.

    Of PaddleNLP's names those that it has weights and a tokenizer for, and not settings alone.
    """
    published = family.base_class.pretrained_init_configuration
    weights = family.base_class.pretrained_resource_files_map.get("model_state", {})
    settings = {
        name: value
        for name, value in published.items()
        if is_chinese(name, family) and name in weights and find_published(name)
    }
    for name, sizes in _HUGGING_FACE.get(family.model_type, {}).items() if family.torch_prefix else ():
        settings[name] = published[sizes] if isinstance(sizes, str) else sizes
    return [Model(name, family, is_known_name(name), _config(family, value)) for name, value in settings.items()]


def models() -> list[Model]:
    """The models of every architecture."""
    return [model for family in FAMILIES for model in models_of(family)]


@functools.cache
def sized_models_of(family: Family) -> Sequence[Model]:
    """The models of an architecture whose sizes are known: those for Chinese or, where there are none, PaddleNLP's."""
    if sized := [model for model in models_of(family) if model.config is not None]:
        return sized
    published = family.base_class.pretrained_init_configuration.items()
    others = [Model(name, family, is_known_name(name), _config(family, value)) for name, value in published]
    return [model for model in others if model.config is not None]


@functools.cache
def find(name: str) -> Model:
    """A model whose size is known, by its name.

    Raises:
        UserError: there is none of the name, or its sizes stand beside its weights alone.
    """
    model = next((model for family in FAMILIES for model in sized_models_of(family) if model.name == name), None)
    if model is None:
        raise UserError(
            say("{name}: no model whose size is known; python scripts/list_models.py lists them", name=show(name))
        )
    return model


def _config(family: Family, settings: Any) -> Any:
    if isinstance(settings, str):  # an address
        return None
    read = encoder_settings(Config(family.model_type, dict(settings)), family)
    return family.base_class.config_class(**read)


# --- what they need -----------------------------------------------------------------------------------------------

# An update of AdamW holds weight, gradient and two moments of every parameter, four bytes each.
_BYTES_PER_PARAMETER = 16
_BYTES_PER_FROZEN_PARAMETER = 4
BATCH_SIZE, LENGTH = 16, 128


def update_bytes(model: Model, frozen: bool = False) -> float:
    """Bytes that one update of ``BATCH_SIZE`` texts of ``LENGTH`` tokens takes in fp32: an estimate.

    Beside what AdamW holds of the parameters these are the activations that the layers keep for the way back
    (Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", section 4.1, with four
    bytes a number in place of two, one byte for each number of a dropout's mask): of a token and layer
    ``34 * hidden_size + 8 * intermediate_size + 9 * heads * length``. What the program itself and the libraries take
    comes on top, and with LoRA (``frozen``) the adapters, some hundredth of the parameters.
    """
    config = model.config
    hidden = model.hidden_size
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    of_token = 34 * hidden + 8 * inner + 9 * int(config.num_attention_heads) * LENGTH
    activations = model.layers * BATCH_SIZE * LENGTH * of_token
    return activations + model.num_parameters * (_BYTES_PER_FROZEN_PARAMETER if frozen else _BYTES_PER_PARAMETER)
