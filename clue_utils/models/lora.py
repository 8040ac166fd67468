"""LoRA: small matrices are trained beside those of the encoder (Hu et al., "Low-Rank Adaptation", 2021).

Beside each linear layer x W + b of attention and feed-forward stands an adapter, 2 x A B, of a rank far below that of
W. Adapters, head and pooler are trained; W and all else of the encoder stay as they are. A checkpoint holds what is
trained, and in ``config.json`` which model it stands on: the base, whose numbers a checksum tells from others'.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from typing import Any, NamedTuple

import numpy as np
import paddle
from paddlenlp.peft import LoRAConfig, LoRAModel
from paddlenlp.peft.lora.lora_model import LoRALinear

from clue_utils.errors import UserError, show
from clue_utils.language import say
from clue_utils.models import source as sources
from clue_utils.models.config import Config, encoder_settings
from clue_utils.models.conversion import may_be_missing
from clue_utils.models.families import Family

# What config.json calls it; also the name of the attribute of the model's configuration.
KEY = "clue_lora"
_TYPES = {"rank": int, "base": str, "sha256": str}
# Settings that are no part of every configuration that PaddleNLP has.
_EPSILONS = ("layer_norm_eps", "clue_layer_norm_eps")
# Attribute of a model with adapters: the names of the parameters that are trained.
_TRAINED = "lora_trained_names"
# The layers of an encoder that come again and again are numbered, as in "encoder.layers.0.linear1".
_NUMBERED = re.compile(r"\.\d+\.")


class Lora(NamedTuple):
    """What a checkpoint says of its adapters.

    Attributes:
        rank: of the matrices.
        base: the model that they stand on: the absolute path of a folder, or a published name.
        sha256: of what is the base's, see ``digest``.
    """

    rank: int
    base: str
    sha256: str


def of_config(config: Config) -> Lora | None:
    """What a checkpoint's configuration says of adapters; None: it is a whole model.

    Raises:
        UserError: it says what is never written.
    """
    said = config.values.get(KEY)
    if said is None:
        return None
    is_whole = isinstance(said, dict) and {name: type(value) for name, value in said.items()} == _TYPES
    if not is_whole or said["rank"] < 1:
        raise config.error(say("{key} cannot be {said}", key=KEY, said=show(said)))
    # A relative path would be another folder wherever the script is called.
    if not (os.path.isabs(said["base"]) or sources.is_known_name(said["base"])):
        raise config.error(
            say(
                '"base" in {key} cannot be {base}: it is an absolute path, or the name of a published model',
                key=KEY,
                base=show(said["base"]),
            )
        )
    return Lora(**said)


def of_model(model: paddle.nn.Layer) -> Lora | None:
    """The adapters that a model has; None: it has none."""
    said = getattr(model.config, KEY, None)
    return Lora(**said) if said else None


def adapt(model: paddle.nn.Layer, family: Family, lora: Lora, dropout: float, said_by: str = "--lora_rank") -> None:
    """Put adapters beside the linear layers of an encoder's numbered layers; nothing else of it gets gradients.

    Args:
        dropout: probability, for what goes into the adapters.
        said_by: where the rank is from, for the error.

    Raises:
        UserError: the architecture has no such layers, or smaller ones.
    """
    prefix = f"{model.base_model_prefix}."
    targets = {
        name: min(layer.weight.shape)
        for name, layer in model.named_sublayers()
        if name.startswith(prefix) and _NUMBERED.search(name) and isinstance(layer, paddle.nn.Linear)
    }
    if not targets:
        raise UserError(
            say(
                "{said_by}: a {model_type} has no linear layers in attention and feed-forward",
                said_by=said_by,
                model_type=family.model_type,
            )
        )
    if not 1 <= lora.rank <= min(targets.values()):
        raise UserError(
            say(
                "{said_by} cannot be {rank}: the model has layers of size {values}",
                said_by=said_by,
                rank=lora.rank,
                values=min(targets.values()),
            )
        )
    names = "|".join(map(re.escape, targets))
    LoRAModel(model, LoRAConfig(r=lora.rank, lora_alpha=2 * lora.rank, lora_dropout=dropout, target_modules=names))
    trained = []
    for name, parameter in model.named_parameters():
        is_own = not name.startswith(prefix) or ".lora_" in name or may_be_missing(name)
        parameter.stop_gradient = not is_own
        trained += [name] if is_own else []
    setattr(model, _TRAINED, frozenset(trained))
    setattr(model.config, KEY, lora._asdict())


def merge(model: paddle.nn.Layer) -> None:
    """Add the adapters to the layers beside which they stand, and ask gradients of all parameters."""
    for layer in model.sublayers():
        if isinstance(layer, LoRALinear):
            layer.merge()
            del layer.lora_A, layer.lora_B, layer.lora_dropout
            layer.__class__ = paddle.nn.Linear
    for parameter in model.parameters():
        parameter.stop_gradient = False
    delattr(model, _TRAINED)
    delattr(model.config, KEY)


def own_state(model: paddle.nn.Layer) -> dict[str, paddle.Tensor]:
    """What has to be saved of a model, by name: all, but for what is the base's where it has adapters."""
    state: dict[str, Any] = model.state_dict()
    return {name: state[name] for name in state if name in getattr(model, _TRAINED, state)}


def digest(model: paddle.nn.Layer, family: Family, config: Config) -> str:
    """SHA-256 of what a base computes with.

    That is the encoder's parameters but for those that fine-tuning can begin anew, in float32, and the settings of its
    architecture, dropout aside.
    """
    said = {name: value for name, value in encoder_settings(config, family).items() if "dropout" not in name}
    said |= {name: config.values[name] for name in _EPSILONS if name in config.values}
    checksum = hashlib.sha256(json.dumps([family.model_type, said], sort_keys=True).encode())
    prefix = f"{model.base_model_prefix}."
    for name, parameter in sorted(model.named_parameters(), key=lambda named: named[0]):
        if name.startswith(prefix) and not may_be_missing(name):
            checksum.update(f"{name} {list(parameter.shape)}\n".encode())
            checksum.update(np.ascontiguousarray(parameter.numpy()).data)
    return checksum.hexdigest()
