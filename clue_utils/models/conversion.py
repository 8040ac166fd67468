"""Which tensor of a checkpoint each parameter of a model takes its numbers from.

Paddle's checkpoints have the model's own names. PyTorch's have names of their own, by ``Family.renames``, and the
matrices of linear layers the other way round. Both come with and without the encoder's prefix, and behind further
prefixes that wrappers such as DataParallel put before every name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import paddle

from clue_utils.errors import UserError, shorten
from clue_utils.models.families import Family
from clue_utils.models.weights import Weights

# What wrappers of PyTorch and Paddle put before every name.
_WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod|_layers|model)\.)+")
# Layer normalisations converted from TensorFlow's older checkpoints.
_OLDER = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))


class Origin(NamedTuple):
    """A tensor of the checkpoint, and whether it lies the other way round."""

    name: str
    transposed: bool


def unwrapped(names: Iterable[str]) -> dict[str, str]:
    """Names without what wrappers put before every one of them -> the names as they are in the file."""
    names = list(names)
    if not all(_WRAPPERS.match(name) for name in names):
        return {name: name for name in names}
    return {_WRAPPERS.sub("", name): name for name in names}


def find_origins(model: paddle.nn.Layer, family: Family, weights: Weights) -> tuple[dict[str, Origin], bool]:
    """Where every parameter that the checkpoint has numbers for takes them from, whatever their shape.

    The names decide whether PyTorch or Paddle wrote them, since files do not always say.

    Returns:
        Parameter -> its origin; whether the checkpoint is PyTorch's.

    Raises:
        UserError: two tensors of PyTorch's checkpoint are the same parameter of the encoder.
    """
    paddles = _as_paddle(model, family, weights)
    torchs = _as_torch(model, family, weights) if family.torch_prefix else {}
    prefix = f"{model.base_model_prefix}."
    explained = [sum(name.startswith(prefix) for name in origins) for origins in (paddles, torchs)]
    is_torch = weights.format == "pt" if explained[0] == explained[1] else explained[0] < explained[1]
    return (torchs, True) if is_torch else (paddles, False)


def _as_paddle(model: paddle.nn.Layer, family: Family, weights: Weights) -> dict[str, Origin]:
    names = unwrapped(weights.shapes)
    by_target = dict(names)
    prefix = f"{model.base_model_prefix}."
    # Published Chinese RoBERTa checkpoints are BERT's with another prefix.
    for name, source in names.items():
        first, _, rest = name.partition(".")
        if first == "roberta" and family.model_type == "bert":
            by_target.setdefault(prefix + rest, source)
    if not any(name.startswith(prefix) for name in by_target):
        by_target |= {prefix + name: source for name, source in names.items()}
    return {name: Origin(by_target[name], False) for name, _ in model.named_parameters() if name in by_target}


def _as_torch(model: paddle.nn.Layer, family: Family, weights: Weights) -> dict[str, Origin]:
    theirs, ours = f"{family.torch_prefix}.", f"{model.base_model_prefix}."
    names = unwrapped(weights.shapes)
    is_bare = not any(name.startswith(theirs) for name in names)
    is_span = type(model).__name__.endswith("ForQuestionAnswering")
    by_target: dict[str, str] = {}
    for name, source in names.items():
        if name.startswith("classifier." if is_span else "qa_outputs."):
            continue  # the head of another kind of task
        renamed = name
        for old, new in (*_OLDER, *family.renames):
            renamed = renamed.replace(old, new)
        if renamed.startswith(theirs):
            renamed = ours + renamed.removeprefix(theirs)
        if renamed.startswith(ours) and renamed in by_target:
            both = f"{shorten(by_target[renamed])} and {shorten(source)}"
            raise UserError(f"{weights.files[0]}: {both} are the same parameter of the encoder; take one of them out")
        by_target[renamed] = source
        if is_bare:
            by_target.setdefault(ours + renamed, source)
    linear = {f"{name}.weight" for name, layer in model.named_sublayers() if isinstance(layer, paddle.nn.Linear)}
    return {name: Origin(by_target[name], name in linear) for name, _ in model.named_parameters() if name in by_target}


def stored_shape(origin: Origin, shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
    """The shape of a tensor as the model would take it."""
    shape = list(shapes[origin.name])
    return shape[::-1] if origin.transposed else shape
