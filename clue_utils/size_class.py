"""How large a model is, before anything of it is loaded: what its defaults depend on. Imports no PaddlePaddle."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from clue_utils import strict_json
from clue_utils.strict_json import JsonObject

# What a configuration is called: by PaddleNLP and Hugging Face; PaddleNLP before 2.5; google-research/bert.
CONFIG_FILES = ("config.json", "model_config.json", "bert_config.json")
# Parameters of the layers, from which on a model is large, and huge: between those of 12 layers of 768 (85 million),
# 24 of 1024 (302 million) and 24 of 2048 (1.2 billion).
_LARGE, _HUGE = 200e6, 600e6
# Architectures that read from left to right. They are pretrained to go on, not to answer: a high rate spoils them.
_DECODERS = ("qwen", "gpt", "llama")
# What configurations call the number of layers, and their width.
_LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
_WIDTH = ("hidden_size", "d_model", "n_embd", "dim")
# What the names of published models say of their size.
_HUGE_NAME = re.compile(r"xlarge|plato-xl|gpt-cpm|qwen|-\d+b\b|-\d+\.\d+b\b", re.IGNORECASE)
_LARGE_NAME = re.compile(r"(?<!mbart-)large|xbase|rembert", re.IGNORECASE)


def size_class(model_name_or_path: str) -> str:
    """ "" for models up to the size of BERT base, "large", or "huge", as decoders of any size are.

    A folder's configuration tells; of a name, or a folder that has no such file, the name.
    """
    found = (_settings(Path(model_name_or_path, name)) for name in CONFIG_FILES)
    settings = next((settings for settings in found if settings is not None), None)
    if settings is None:
        name = PurePath(model_name_or_path).name
        is_huge, is_large = _HUGE_NAME.search(name), _LARGE_NAME.search(name)
        return "huge" if is_huge else "large" if is_large else ""
    return class_of_settings(settings)


def class_of_settings(settings: Mapping[str, Any]) -> str:
    """The same of a configuration: by the parameters that so many layers of a BERT of this width have."""
    layers, width = (
        next((value for name in names if type(value := settings.get(name)) is int), 0) for names in (_LAYERS, _WIDTH)
    )
    num_parameters = 12 * layers * width**2
    if num_parameters >= _HUGE or str(settings.get("model_type", "")).startswith(_DECODERS):
        return "huge"
    return "large" if num_parameters >= _LARGE else ""


def _settings(path: Path) -> Mapping[str, Any] | None:
    """The object in a file; None where there is none, which is for those to say who load the model."""
    try:
        value, _ = strict_json.parse(path.read_bytes(), allow_nan=True)
    except (OSError, ValueError, strict_json.NotJson):
        return None
    return flattened(value) if isinstance(value, dict) else None


def flattened(values: JsonObject) -> JsonObject:
    """Undo the nesting of PaddleNLP before 2.5: ``init_args`` holds the encoder's settings, ``init_class`` a class."""
    flat = {key: value for key, value in values.items() if key not in ("init_args", "init_class")}
    inner = values.get("init_args")
    for part in inner if isinstance(inner, list) else ():
        if isinstance(part, dict):
            flat = {key: value for key, value in part.items() if key != "init_class"} | flat
    if isinstance(values.get("init_class"), str):
        flat.setdefault("architectures", [values["init_class"]])
    return flat
