"""Which tensor of a checkpoint each parameter of a model takes its numbers from.

Paddle's checkpoints have the model's own names. PyTorch's have names of their own, by ``Family.renames``, and the
matrices of linear layers the other way round. Both come with and without the encoder's prefix, and behind further
prefixes that wrappers such as DataParallel put before every name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import paddle

from clue_utils.errors import UserError, shorten
from clue_utils.language import say
from clue_utils.models.families import Family
from clue_utils.models.weights import Weights

# What wrappers of PyTorch and Paddle put before every name.
_WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod|_layers|model)\.)+")
# Layer normalisations converted from TensorFlow's older checkpoints.
_OLDER = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))


class Origin(NamedTuple):
    """Where a parameter takes its numbers from.

    Attributes:
        name: of the tensor in the checkpoint.
        transposed: the parameter is the tensor's transpose: the matrix of a linear layer in PyTorch.
        flattened: all dimensions of the tensor but the first are one of the parameter: a table of images, a convolution
            over single tokens.
    """

    name: str
    transposed: bool
    flattened: bool = False


def may_be_missing(name: str) -> bool:
    """Whether a checkpoint may lack a parameter of the encoder: the pooler's, which fine-tuning can begin anew."""
    return re.search(r"\bpooler\.", name) is not None


def unwrapped(names: Iterable[str]) -> dict[str, str]:
    """Names without what wrappers put before every one of them -> the names as they are in the file."""
    names = list(names)
    if not all(_WRAPPERS.match(name) for name in names):
        return {name: name for name in names}
    return {_WRAPPERS.sub("", name): name for name in names}


def find_origins(model: paddle.nn.Layer, family: Family, weights: Weights) -> tuple[dict[str, Origin], bool]:
    """Where every parameter that the checkpoint has numbers for takes them from, whatever their shape.

    Shapes and names decide whether PyTorch or Paddle wrote them, since files do not always say.

    Returns:
        Parameter -> its origin; whether the checkpoint is PyTorch's.

    Raises:
        UserError: two tensors of PyTorch's checkpoint are the same parameter of the encoder.
    """
    paddles = _as_paddle(model, family, weights)
    torchs = _as_torch(model, family, weights) if family.torch_prefix else {}
    prefix = f"{model.base_model_prefix}."
    shapes = {name: list(value.shape) for name, value in model.named_parameters() if name.startswith(prefix)}

    def explained(origins: dict[str, Origin]) -> tuple[int, int]:
        """Parameters of the encoder that are there: in the shape that they should have, and in any."""
        found = [name for name in shapes if name in origins]
        return sum(stored_shape(origins[name], weights.shapes) == shapes[name] for name in found), len(found)

    of_paddle, of_torch = explained(paddles), explained(torchs)
    is_torch = weights.format == "pt" if of_paddle == of_torch else of_paddle < of_torch
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
    of_other_kinds = "classifier." if is_span and family.torch_spans != "classifier" else "qa_outputs."
    by_target: dict[str, str] = {}
    for name, source in names.items():
        if name.startswith(of_other_kinds):
            continue
        renamed = name
        for old, new in (*_OLDER, *family.renames):
            renamed = renamed.replace(old, new)
        if renamed.startswith(theirs):
            renamed = ours + renamed.removeprefix(theirs)
        if renamed.startswith(ours) and renamed in by_target:
            both = say(" and ").join((shorten(by_target[renamed]), shorten(source)))
            raise UserError(
                say(
                    "{files}: {both} are the same parameter of the encoder; take one of them out",
                    files=weights.files[0],
                    both=both,
                )
            )
        by_target[renamed] = source
        if is_bare:
            by_target.setdefault(ours + renamed, source)
    linear = {
        f"{name}.weight"
        for name, layer in model.named_sublayers()
        if isinstance(layer, paddle.nn.Linear) and getattr(layer, "is_turned_in_pytorch", True)
    }
    return {
        name: Origin(by_target[name], name in linear, len(weights.shapes[by_target[name]]) > parameter.ndim == 2)
        for name, parameter in model.named_parameters()
        if name in by_target
    }


def stored_shape(origin: Origin, shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
    """The shape of a tensor as the model would take it."""
    shape = list(shapes[origin.name])
    if origin.flattened:
        shape = [shape[0], math.prod(shape[1:])]
    return shape[::-1] if origin.transposed else shape
