"""Read ``config.json`` of a checkpoint: the sizes of its encoder, held to what they can be."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clue_utils.errors import UserError, show
from clue_utils.models.families import FAMILIES, Family
from clue_utils.models.vocabulary import read_object
from clue_utils.strict_json import JsonObject

# PaddleNLP and Hugging Face; PaddleNLP before 2.5; google-research/bert.
CONFIG_FILES = ("config.json", "model_config.json", "bert_config.json")
# What the layers call their activation -> PaddleNLP's word for it. The two forms of GELU differ by up to 1e-3.
_ACTIVATIONS = {name: name for name in ("gelu", "relu", "silu", "tanh", "gelu_new")} | {
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu_new",
    "gelu_fast": "gelu_new",
}
_MAX_COUNT = 1 << 24
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
    "rotary_value": (None, False),
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
                f"id2label cannot be {show(self.values['id2label'])}: it gives the classes 0, 1, ... names"
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
    path = next((folder / name for name in CONFIG_FILES if (folder / name).is_file()), None)
    if path is None:
        raise UserError(f"{folder}: no config.json; it stands beside the weights where the model was published")
    config = Config(path, _flattened(read_object(path)))
    for name, neutral in _NEUTRAL.items():
        if config.values.get(name) not in neutral:
            raise config.error(f"{name} {show(config.values[name])} is not supported")
    return config


def _flattened(values: JsonObject) -> JsonObject:
    """Undo the nesting of PaddleNLP before 2.5: ``init_args`` holds the encoder's settings, ``init_class`` a class."""
    flat = {key: value for key, value in values.items() if key not in ("init_args", "init_class")}
    inner = values.get("init_args")
    for part in inner if isinstance(inner, list) else ():
        if isinstance(part, dict):
            flat = {key: value for key, value in part.items() if key != "init_class"} | flat
    if isinstance(values.get("init_class"), str):
        flat.setdefault("architectures", [values["init_class"]])
    return flat


def family_of(config: Config, prefixes: set[str]) -> Family:
    """The architecture of a checkpoint.

    ``config.json`` says it by ``model_type`` or ``architectures``. Between BERT and its like the names of the weights
    have the last word: Chinese RoBERTa is BERT, and so named, but says RoBERTa.

    Args:
        prefixes: first parts of the weights' names.

    Raises:
        UserError: it is none of those that the scripts know, or the names are those of another.
    """
    by_type = {family.model_type: family for family in FAMILIES}
    for each in FAMILIES:
        by_type.setdefault(each.base_class.config_class.model_type, each)  # PaddleNLP may call it otherwise
    said, names = config.values.get("model_type"), config.architectures()
    if said is None:
        # google-research/bert writes neither.
        family = _family_of_class(names[0]) if names else by_type["bert"]
    else:
        family = by_type.get(said) if isinstance(said, str) else None
    if family is None:
        supported = ", ".join(family.model_type for family in FAMILIES)
        what = f"architectures {show(names)}" if said is None else f"model_type {show(said)}"
        raise config.error(f"{what} is not supported; supported are {supported}")
    if prefixes & {family.torch_prefix, family.base_class.base_model_prefix}:
        return family
    found = next((other for other in FAMILIES if other.torch_prefix in prefixes), family)
    is_alike = {family.model_type, found.model_type} <= _ALIKE and found.model_type != "roberta"
    if found is not family and not is_alike and (said is not None or names):
        raise config.error(
            f"of {family.model_type}, but the weights are {found.model_type}'s: use the files of one model"
        )
    return found


def _family_of_class(name: str) -> Family | None:
    """The architecture of a class such as ErnieGramForMaskedLM."""
    fitting = [family for family in FAMILIES if name.startswith((f"{family.name}For", f"{family.name}Model"))]
    return fitting[0] if fitting else None


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
    for published in family.base_class.pretrained_init_configuration.values():
        for name, value in published.items():
            examples.setdefault(name, value)
    aliases = {old: new for old, new in config_class.attribute_map.items() if new in examples}
    aliases.update(family.setting_names)
    given = {aliases.get(name, name): value for name, value in config.values.items()}
    settings = {
        name: _checked(config, name, given[name], example)
        for name, example in examples.items()
        if name in given and (name == "pad_token_id" or not name.endswith("_token_id"))
    }
    for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"):
        if examples.get(name) is not None and name not in settings:
            raise config.error(f"no {name}, which the weights alone do not say: copy the file of the model anew")
    heads, hidden = settings.get("num_attention_heads"), settings.get("hidden_size")
    if heads and hidden and hidden % heads:
        raise config.error(f"num_attention_heads {heads} does not divide hidden_size {hidden}")
    if not 0 <= settings.get("pad_token_id", 0) < settings.get("vocab_size", _MAX_COUNT):
        raise config.error(f"pad_token_id {settings['pad_token_id']} is none of vocab_size tokens")
    return settings


def _checked(config: Config, name: str, value: Any, example: Any) -> Any:
    """``value`` if it can stand where ``example`` does."""
    if name.endswith(("_size", "_embeddings", "_heads", "_layers", "_groups", "_group_num")) or name == "num_layers":
        if value is None and example is None:
            return None
        if type(value) is not int or not 1 <= value <= _MAX_COUNT:
            raise config.error(f"{name} cannot be {show(value)}: it is a whole number from 1 to {_MAX_COUNT:,}")
        return value
    if name == "pool_act":
        if value not in ("tanh", "linear"):  # PaddleNLP takes any other word for "linear"
            raise config.error(f"pool_act {show(value)} is none of linear, tanh")
        return value
    if name.endswith("_act"):
        if not isinstance(value, str) or value not in _ACTIVATIONS:
            raise config.error(f"{name} {show(value)} is none of {', '.join(sorted(_ACTIVATIONS))}")
        return _ACTIVATIONS[value]
    if "dropout" in name or name in ("initializer_range", "layer_norm_eps"):
        # The scripts set dropouts themselves; null stands for "as the others".
        fits = value is None if "dropout" in name else False
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not fits and not (number and 0 <= value <= (1 if "dropout" in name else 100)):
            raise config.error(f"{name} cannot be {show(value)}")
        return value
    kinds = (int, float) if type(example) is float else (type(example),)
    free = example is None and (value is None or isinstance(value, (bool, int, float, str)))
    if not free and type(value) not in kinds:
        raise config.error(f"{name} cannot be {show(value)}: expected something like {show(example)}")
    if isinstance(value, (int, float)) and not abs(value) <= _MAX_COUNT:  # nor is NaN
        raise config.error(f"{name} cannot be {show(value)}")
    return value
