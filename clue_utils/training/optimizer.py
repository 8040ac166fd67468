"""AdamW with clipped gradients, in as few operations as give the bits of one operation for each parameter.

A card waits for the host where a step is made of many small operations, and Paddle's AdamW has three for each
parameter: the norm of its gradient, its clipping and its update.
"""

from __future__ import annotations

import collections
import functools
import logging
import math
import re
from typing import Any

import numpy as np
import paddle

from clue_utils.errors import UserError
from clue_utils.language import say
from clue_utils.settings import Settings

logger = logging.getLogger(__name__)
_C_ops: Any = paddle._C_ops
Pairs = list[tuple[paddle.Tensor, paddle.Tensor]]
# Elements of a parameter that a block of a card's threads takes at a time.
_CHUNK_SIZE = 1 << 16
# The layers of an encoder that come again and again are numbered, as in "encoder.layers.0.linear1".
_NUMBER = re.compile(r"\.(\d+)\.")


def build_optimizer(model: paddle.nn.Layer, schedule: Any, args: Settings) -> paddle.optimizer.Optimizer:
    """AdamW (Loshchilov and Hutter, 2019) without decay of biases and of layer normalisation's weights.

    Raises:
        UserError: ``layer_decay`` is asked of an architecture without numbered layers.
    """
    if args.layer_decay != 1:
        shares = shares_of_rate(model, args.layer_decay)
        for name, parameter in model.named_parameters():
            parameter.optimize_attr = {"learning_rate": shares[name]}  # what Paddle multiplies the schedule's rate by
        logger.info("learning rate: from %.3g of it in the embeddings to all of it in the head", min(shares.values()))
    optimizer, clip = quickest_classes(str(paddle.get_device()), args.max_grad_norm)
    return optimizer(
        learning_rate=schedule,
        epsilon=args.adam_epsilon,
        parameters=model.parameters(),
        weight_decay=args.weight_decay,
        apply_decay_param_fun=decayed_parameters(model).__contains__,
        grad_clip=clip(args.max_grad_norm) if args.max_grad_norm else None,
    )


def decayed_parameters(model: paddle.nn.Layer) -> set[str]:
    """Paddle's names of all parameters but biases and the weights of layer normalisation."""
    named = model.named_parameters()
    return {p.name for name, p in named if not name.endswith("bias") and "norm" not in name.lower()}


def shares_of_rate(model: paddle.nn.Layer, decay: float) -> dict[str, float]:
    """Name of each parameter -> the share of the learning rate that it takes.

    That is ``decay`` to the power of the layers above it: 0 for the head and what an encoder has above its layers, 1
    for its last layer, as many as it has layers for the first, and one more for the embeddings (the discriminative
    fine-tuning of Howard and Ruder, 2018, with the exponents of Bao et al., "BEiT", 2021). Layers that share their
    weights, as ALBERT's do, are one.

    Raises:
        UserError: no layers can be told from each other.
    """
    prefix, names = f"{model.base_model_prefix}.", [name for name, _ in model.named_parameters()]
    tables = {f"{name}.weight" for name, layer in model.named_sublayers() if isinstance(layer, paddle.nn.Embedding)}
    numbers = {name: match for name in names if name.startswith(prefix) and (match := _NUMBER.search(name))}
    stacks = collections.Counter(name[: match.start()] for name, match in numbers.items())
    if not stacks:
        raise UserError(
            say(
                "--layer_decay: a {model_type} has no numbered layers; leave the flag out",
                model_type=model.config.model_type,
            )
        )
    ((stack, _),) = stacks.most_common(1)  # besides the layers, something small may be numbered
    layers = {name: int(match[1]) for name, match in numbers.items() if name.startswith(f"{stack}.")}
    top = max(layers.values()) + 1
    depths = {name: top - layer for name, layer in layers.items()}
    for name in names:
        is_below = name.startswith(prefix) and (name in tables or "emb" in name.removeprefix(prefix).lower())
        depths.setdefault(name, top + 1 if is_below else 0)
    return {name: decay ** depths[name] for name in names}


class AdamW(paddle.optimizer.AdamW):
    """AdamW in two operations, one for the parameters that decay and one for the others, for each learning rate.

    Moments, learning rate and what a ``GradScaler`` found stay Paddle's matter, and so does the form of the state.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._pairs: Pairs = []

    def _append_optimize_op(self, block: Any, param_and_grad: tuple[paddle.Tensor, paddle.Tensor]) -> None:
        self._pairs.append(param_and_grad)

    def _finish_update(self, block: Any, parameters_and_grads: Any) -> None:
        pairs, self._pairs = self._pairs, []
        groups: dict[tuple[bool, float], Pairs] = {}
        for pair in pairs:
            decays, share = self._apply_decay_param_fun(pair[0].name), pair[0].optimize_attr["learning_rate"]
            groups.setdefault((decays, share), []).append(pair)
        for (decays, _), group in groups.items():
            self._update_together(group, decays)

    def _update_together(self, pairs: Pairs, decays: bool) -> None:
        names = (self._moment1_acc_str, self._moment2_acc_str, self._beta1_pow_acc_str, self._beta2_pow_acc_str)
        first, second, *powers = ([self._get_accumulator(name, p) for p, _ in pairs] for name in names)
        _C_ops.fused_adam_(
            *([p for p, _ in pairs], [gradient for _, gradient in pairs]),
            *(self._create_param_lr(pairs[0]), first, second, None, *powers),
            *(None, None),  # no master weights, no flag that the step is to be skipped
            *(self._beta1, self._beta2, self._epsilon, _CHUNK_SIZE, self._weight_decay if decays else 0.0),
            *(decays, False, False, False),
        )


class ClipGradByGlobalNorm(paddle.nn.ClipGradByGlobalNorm):
    """Clipping by one operation: that which undoes the scaling of a loss, by the inverse of a number."""

    @staticmethod
    def is_exact(max_norm: float) -> bool:
        """Whether 1 / (norm / max_norm) is max_norm / norm to the bit: division by a power of two does not round."""
        return max_norm >= 1 and math.frexp(max_norm)[0] == 0.5

    def _dygraph_clip(self, params_grads: Pairs) -> Pairs:
        gradients = [gradient for _, gradient in params_grads]
        if gradients:
            with paddle.no_grad():
                limit = paddle.full([1], self.clip_norm)
                self._scale(gradients, paddle.maximum(_global_norm(gradients), limit), limit)
        return params_grads

    @staticmethod
    def _scale(gradients: list[paddle.Tensor], norm: paddle.Tensor, limit: paddle.Tensor) -> None:
        _C_ops.check_finite_and_unscale_(gradients, norm / limit)


class HostClipGradByGlobalNorm(ClipGradByGlobalNorm):
    """Clipping by a number that is read first, which a processor has at hand, and by 1 not at all.

    There a tensor times a number takes a tenth of the time that it takes times a tensor of one number.
    """

    @staticmethod
    def _scale(gradients: list[paddle.Tensor], norm: paddle.Tensor, limit: paddle.Tensor) -> None:
        factor = float(limit / norm)
        for gradient in gradients if factor != 1 else ():
            gradient.scale_(factor)


def _global_norm(gradients: list[paddle.Tensor]) -> paddle.Tensor:
    """Added up as Paddle's clip does it: the squares of each, then their sums. A scalar."""
    return paddle.stack([_C_ops.squared_l2_norm(gradient) for gradient in gradients]).sum().sqrt()


@functools.cache
def quickest_classes(device: str, max_norm: float) -> tuple[Any, Any]:
    """The classes of optimizer and clip with the fewest operations that compute what Paddle's own compute, to the bit.

    A device may have a kernel of its own for many tensors, so whether it does is tried, on small parameters.
    """
    own = (paddle.optimizer.AdamW, paddle.nn.ClipGradByGlobalNorm)
    if device.startswith("xpu"):  # where Paddle would take the processor's kernel
        return own
    candidates = [(AdamW, HostClipGradByGlobalNorm)] if device == "cpu" else []
    candidates += [(AdamW, ClipGradByGlobalNorm)] if ClipGradByGlobalNorm.is_exact(max_norm) else []
    candidates.append((AdamW, own[1]))
    expected = _trial(*own, max_norm)
    for classes in candidates:
        try:
            if _trial(*classes, max_norm) == expected:
                return classes
        except Exception as error:  # whatever a device says that lacks the operation
            logger.debug("%s cannot be used on %s", classes, device, exc_info=error)
    logger.info("optimizer: parameters are updated one by one, since %s computes other bits for all at once", device)
    return own


def _trial(optimizer_class: Any, clip_class: Any, max_norm: float) -> list[bytes]:
    """Weights and moments after each of five steps: gradients below and above the limit, infinite, not a number."""
    rng = np.random.default_rng(0)
    shapes = [[1], [3], [129, 67], [_CHUNK_SIZE + 5], [16, 8], [1000]]
    with paddle.utils.unique_name.guard("trial_"):  # numbers the names of nothing else
        parameters = [
            paddle.create_parameter(
                shape, "float32", default_initializer=paddle.nn.initializer.Assign(rng.normal(size=shape))
            )
            for shape in shapes
        ]
        decayed = {parameter.name for parameter in parameters[::2]}
        optimizer = optimizer_class(
            learning_rate=1e-3,
            parameters=parameters,
            weight_decay=0.01,
            apply_decay_param_fun=lambda name: name in decayed,
            grad_clip=clip_class(max_norm) if max_norm else None,
        )
        found = []
        for scale, first in ((1e-3, 1.0), (1.0, 1.0), (30.0, -1.0), (1.0, np.inf), (1.0, np.nan)):
            for parameter in parameters:
                gradient = rng.normal(size=parameter.shape) * scale
                gradient.flat[0] *= first
                parameter.grad = paddle.to_tensor(gradient.astype(np.float32))
            optimizer.step()
            optimizer.clear_grad(set_to_zero=False)
            state = [value for name, value in optimizer.state_dict().items() if name != "LR_Scheduler"]
            found += [value.numpy() for value in (*parameters, *state)]
    return [np.where(np.isnan(array), np.float32(np.nan), array).tobytes() for array in found]
