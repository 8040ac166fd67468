"""Read ``config.json`` of a checkpoint: the sizes of its encoder, held to what they can be."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from clue_utils.errors import UserError, show
from clue_utils.language import say
from clue_utils.model_names import config_file
from clue_utils.models.families import BY_TYPE, FAMILIES, Family
from clue_utils.models.vocabulary import read_object
from clue_utils.size_class import flattened
from clue_utils.strict_json import JsonObject

# What the layers call their activation -> PaddleNLP's word for it. The two forms of GELU differ by up to 1e-3.
_ACTIVATIONS = {name: name for name in ("gelu", "relu", "silu", "tanh", "gelu_new")} | {
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu_new",
    "gelu_fast": "gelu_new",
}
# Settings for which PaddleNLP takes any other word, and computes something.
_WORDS = {
    "pool_act": ("linear", "tanh"),
    "normalization": ("softmax", "softmax_plus", "squared_relu"),
    "hidden_activation": ("gelu",),
}
_MAX_COUNT = 1 << 24
# What the names of settings that count something end with.
_SIZES = ("_size", "_embeddings", "_heads", "_layers", "_groups", "_group_num")
# Architectures that checkpoints are published as one another of: they differ in their embeddings alone.
_ALIKE = {"bert", "ernie", "roberta"}
# Settings of Hugging Face that change what a model computes, and their values that change nothing here.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "quantization_config": (None, {}),
    "pruned_heads": (None, {}, []),
    "is_decoder": (None, False),
    "add_cross_attention": (None, False),
    "position_embedding_type": (None, "absolute"),
    "embedding_act": (None,),
    "add_pooling_layer": (None, True),
    "use_sliding_window": (None, False),
    "use_fast_layer_norm": (None, False),
    "scale_attn_weights": (None, True),
    "scale_attn_by_inverse_layer_idx": (None, False),
}


class Config:
    """The settings of one checkpoint's ``config.json``.

    Attributes:
        path: the file, or the model's name where PaddleNLP has the settings itself.
        values: the file's object, PaddleNLP's older nesting undone.
    """

    def __init__(self, path: Path | str, values: JsonObject) -> None:
        self.path, self.values = path, values

    def error(self, message: str) -> UserError:
        return UserError(f"{self.path}: {message}")

    def architectures(self) -> list[str]:
        """The names of the classes that the checkpoint was written by."""
        names = self.values.get("architectures")
        return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []

    def labels(self) -> list[str] | None:
        """The names of the classes in order of their ids, or None where they say nothing (LABEL_0, 0).

        Raises:
            UserError: they are no names of classes from 0 on.
        """
        names, ids = self.values.get("id2label"), self.values.get("label2id")
        if (
            not names
            and isinstance(ids, dict)
            and sorted(map(repr, ids.values())) == sorted(map(repr, range(len(ids))))
        ):
            names = sorted(ids, key=ids.__getitem__)
        if not names:
            return None
        if isinstance(names, dict):
            names = [names.get(str(i)) for i in range(len(names))]
        if not isinstance(names, list) or not all(type(name) in (str, int) for name in names):
            raise self.error(
                say(
                    "id2label cannot be {id2label}: it gives the classes 0, 1, ... names",
                    id2label=show(self.values["id2label"]),
                )
            )
        texts = [str(name) for name in names]
        numbers = [str(i) for i in range(len(texts))]
        says_nothing = [text.removeprefix("LABEL_").removeprefix("label_") for text in texts] == numbers
        return None if says_nothing else texts


def read_config(folder: Path) -> Config:
    """Read the configuration in a folder.

    Raises:
        UserError: there is none, or it is not what it should be.
    """
    path = config_file(folder)
    config = Config(path, flattened(read_object(path)))
    for name, neutral in _NEUTRAL.items():
        if config.values.get(name) not in neutral:
            raise config.error(say("{name} {values} is not supported", name=name, values=show(config.values[name])))
    _flatten_rotations(config)
    return config


def _flatten_rotations(config: Config) -> None:
    """Put ``rope_theta`` where it was before transformers 5, and refuse positions that are stretched for long texts."""
    for name in ("rope_parameters", "rope_scaling"):
        rope = config.values.get(name)
        if isinstance(rope, dict):
            kind = rope.get("rope_type", rope.get("type", "default"))
            if kind != "default":
                raise config.error(say("{name} of type {kind} is not supported", name=name, kind=show(kind)))
            if "rope_theta" in rope:
                config.values["rope_theta"] = rope["rope_theta"]


def family_of(config: Config, names: Collection[str]) -> Family:
    """The architecture of a checkpoint.

    ``config.json`` says it by ``model_type`` or ``architectures``. Between BERT and its like the names of the weights
    have the last word: Chinese RoBERTa is BERT, and so named, but says RoBERTa.

    Args:
        names: of the weights, without what wrappers put before them; none: the configuration alone is judged. Where
            they tell that RoBERTa is PyTorch's, ``config`` gets the ``pad_token_id`` that it has there by default.

    Raises:
        UserError: it is none of those that the scripts know, or the names are those of another.
    """
    family = _family_by_name(config, {name.partition(".")[0] for name in names})
    # hfl's Chinese RoBERTa is BERT trained longer: PaddleNLP keeps it under the name of RoBERTa, whose positions begin
    # after the padding's id, where these begin at 0. In PyTorch's form it is called "bert", and RoBERTa is RoBERTa.
    is_torch = any("LayerNorm" in name for name in names)
    if family.model_type == "roberta" and not is_torch and config.values.get("pad_token_id", 0) == 0:
        return BY_TYPE["bert"]
    # RoFormerV2 goes by the name of its first version in PyTorch; it normalises without parameters.
    if family.model_type == "roformer" and names and not any("norm" in name.lower() for name in names):
        return BY_TYPE["roformerv2"]
    if family.model_type == "roberta" and is_torch:
        config.values.setdefault("pad_token_id", 1)  # Hugging Face's default, where PaddleNLP has 0
    # ChineseBERT says "bert" in PyTorch's form, whose parameters it has all.
    if family.model_type == "bert" and any(".pinyin_embeddings." in f".{name}" for name in names):
        return BY_TYPE["chinesebert"]
    return family


def _family_by_name(config: Config, prefixes: set[str]) -> Family:
    """The architecture that configuration and first parts of the weights' names say."""
    # PaddleNLP may call it otherwise.
    by_type = {family.base_class.config_class.model_type: family for family in reversed(FAMILIES)} | BY_TYPE
    said, names = config.values.get("model_type"), config.architectures()
    if said is None:
        # google-research/bert writes neither.
        family = _family_of_class(names[0]) if names else by_type["bert"]
    else:
        family = by_type.get(said) if isinstance(said, str) else None
    if family is None:
        what = f"architectures {show(names)}" if said is None else f"model_type {show(said)}"
        raise config.error(
            say("{what} is not supported; supported are {by_type}", what=what, by_type=", ".join(BY_TYPE))
        )
    if prefixes & {family.torch_prefix, family.base_class.base_model_prefix}:
        return family
    # "model" and "transformer" say nothing: many wrappers call so what they wrap.
    found = next((other for other in FAMILIES if other.torch_prefix in prefixes - {"model", "transformer"}), family)
    is_alike = {family.model_type, found.model_type} <= _ALIKE and found.model_type != "roberta"
    if found is not family and not is_alike and (said is not None or names):
        raise config.error(
            say(
                "of {model_type}, but the weights are {found_model_type}'s: use the files of one model",
                model_type=family.model_type,
                found_model_type=found.model_type,
            )
        )
    return found


def _family_of_class(name: str) -> Family | None:
    """The architecture of a class such as ErnieGramForMaskedLM."""
    return next((each for each in FAMILIES if name.startswith((f"{each.name}For", f"{each.name}Model"))), None)


def encoder_settings(config: Config, family: Family) -> JsonObject:
    """What PaddleNLP's configuration of the family is made with, each value held to what it can be.

    Raises:
        UserError: a value is impossible; the message names it.
    """
    config_class = family.base_class.config_class
    examples = {
        name: parameter.default
        for name, parameter in inspect.signature(config_class.__init__).parameters.items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and name != "self"
    }
    published = [each for each in family.base_class.pretrained_init_configuration.values() if isinstance(each, dict)]
    for each in published:
        for name, value in each.items():
            examples.setdefault(name, value)
    aliases = _own_names(family)
    given = dict(family.assumed) | {aliases.get(name, name): value for name, value in config.values.items()}
    common = {own: name for name, own in aliases.items() if name.endswith(_SIZES)}
    settings = {
        name: _checked(config, name, given[name], example, common.get(name, name))
        for name, example in examples.items()
        if name in given and (name == "pad_token_id" or not name.endswith("_token_id"))
        if given[name] is not None or name != "pad_token_id"  # decoders may have none
    }
    for common_name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"):
        name = aliases.get(common_name, common_name)
        is_needed = all(name in each for each in published)  # else PaddleNLP's default is the published models' too
        if examples.get(name) is not None and name not in settings and is_needed:
            raise config.error(
                say("no {name}, which the weights alone do not say: copy the file of the model anew", name=name)
            )
    sizes = with_common_names(settings, family)
    heads, hidden = sizes.get("num_attention_heads"), sizes.get("hidden_size")
    if heads and hidden and hidden % heads:
        raise config.error(
            say("num_attention_heads {heads} does not divide hidden_size {hidden}", heads=heads, hidden=hidden)
        )
    if not 0 <= settings.get("pad_token_id", 0) < settings.get("vocab_size", _MAX_COUNT):
        raise config.error(
            say("pad_token_id {pad_token_id} is none of vocab_size tokens", pad_token_id=settings["pad_token_id"])
        )
    return settings


def _own_names(family: Family) -> dict[str, str]:
    """Names of settings -> those that PaddleNLP's configuration of the family has for them, where they differ."""
    config_class = family.base_class.config_class
    known = inspect.signature(config_class.__init__).parameters
    return {name: own for name, own in config_class.attribute_map.items() if own in known} | dict(family.setting_names)


def with_common_names(settings: Mapping[str, Any], family: Family) -> JsonObject:
    """Settings of a family by the names that most configurations have for them too: ``hidden_size`` for ``d_model``."""
    return {name: settings[own] for name, own in _own_names(family).items() if own in settings} | dict(settings)


def _checked(config: Config, name: str, value: Any, example: Any, common_name: str) -> Any:
    """``value`` if it can stand where ``example`` does."""
    if (common_name.endswith(_SIZES) and type(example) is not bool) or name == "num_layers":
        if value == example and value in (None, 0) and value is not False:
            return value  # which stands for "none"
        least = 0 if name == "type_vocab_size" else 1
        if type(value) is not int or not least <= value <= _MAX_COUNT:
            raise config.error(
                say(
                    "{name} cannot be {value}: it is a whole number from {least} to {max_count:,}",
                    name=name,
                    value=show(value),
                    least=least,
                    max_count=_MAX_COUNT,
                )
            )
        return value
    if name in _WORDS:
        if value not in _WORDS[name]:
            raise config.error(
                say("{name} {value} is none of {words}", name=name, value=show(value), words=", ".join(_WORDS[name]))
            )
        return value
    if name.endswith("_act"):
        if not isinstance(value, str) or value not in _ACTIVATIONS:
            raise config.error(
                say(
                    "{name} {value} is none of {activations}",
                    name=name,
                    value=show(value),
                    activations=", ".join(sorted(_ACTIVATIONS)),
                )
            )
        return _ACTIVATIONS[value]
    if "dropout" in name or name in ("initializer_range", "layer_norm_eps"):
        # The scripts set dropouts themselves; null stands for "as the others".
        fits = value is None if "dropout" in name else False
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not fits and not (number and 0 <= value <= (1 if "dropout" in name else 100)):
            raise config.error(say("{name} cannot be {value}", name=name, value=show(value)))
        return value
    if name == "mem_len":  # how much XLNet remembers of earlier texts, which are none here
        return None
    if value is None and example in ((), {}):
        return example
    if isinstance(example, tuple):  # words
        if not isinstance(value, (list, str)) or not all(isinstance(word, str) for word in value):
            raise config.error(say("{name} cannot be {value}: expected a list of words", name=name, value=show(value)))
        return value
    kinds = (int, float) if type(example) is float else (type(example),)
    free = example is None and (value is None or isinstance(value, (bool, int, float, str)))
    if not free and type(value) not in kinds:
        raise config.error(
            say(
                "{name} cannot be {value}: expected something like {example}",
                name=name,
                value=show(value),
                example=show(example),
            )
        )
    if isinstance(value, (int, float)) and not abs(value) <= _MAX_COUNT:  # nor is NaN
        raise config.error(say("{name} cannot be {value}", name=name, value=show(value)))
    return value
