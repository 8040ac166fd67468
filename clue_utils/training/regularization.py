"""What keeps a small training set from being learnt by heart: FGM, R-Drop and averaged weights, each behind a flag."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import numpy as np
import paddle
import paddle.nn.functional as F

from clue_utils.errors import UserError
from clue_utils.language import say
from clue_utils.models.heads import Head, Tensors

# --- FGM ----------------------------------------------------------------------------------------------------------


def word_embeddings(model: paddle.nn.Layer) -> paddle.Tensor:
    """The weights of the word embeddings, float [vocabulary, size], which FGM moves.

    Raises:
        UserError: there is no such table, or training leaves it alone.
    """
    size = model.config.vocab_size
    tables = [layer.weight for layer in model.sublayers() if isinstance(layer, paddle.nn.Embedding)]
    found = next((weight for weight in tables if weight.shape[0] == size), None)
    if found is None:
        raise UserError(
            say(
                "--fgm: a {model_type} has no table of word embeddings; leave the flag out",
                model_type=model.config.model_type,
            )
        )
    if found.stop_gradient:
        raise UserError(say("--fgm moves the word embeddings, which --lora_rank leaves as they are: drop one of them"))
    return found


@contextlib.contextmanager
def moved_uphill(weight: paddle.Tensor, epsilon: float) -> Iterator[None]:
    """Add epsilon * g / |g| to a parameter with gradient g for the time of the block; its bits come back after it.

    The fast gradient method (Miyato et al., "Adversarial Training Methods for Semi-Supervised Text Classification",
    2017, section 3), with the whole table moved in place of each text's vectors. A factor of the loss cancels out, so
    gradients may be scaled as fp16 has them.
    """
    with paddle.no_grad():
        before = weight.clone()
        gradient = weight.grad
        norm = paddle.maximum(gradient.square().sum().sqrt(), paddle.full([], 1e-30))  # no move without a gradient
        weight.add_(gradient * (epsilon / norm))
    try:
        yield
    finally:
        with paddle.no_grad():
            paddle.assign(before, weight)


# --- R-Drop -------------------------------------------------------------------------------------------------------


def r_drop_loss(head: Head, model: paddle.nn.Layer, batch: Tensors, alpha: float) -> paddle.Tensor:
    """Loss of each row by two passes that differ in what dropout picks, float32 [batch].

    The mean of both cross-entropies, and alpha times half the sum of both Kullback-Leibler divergences between the two
    answers (Liang et al., "R-Drop: Regularized Dropout for Neural Networks", 2021, section 2.1; the mean in place of
    the sum, as in the authors' program). Of several distributions in a row, such as start and end of a span, the
    divergences' mean counts, as that of their cross-entropies does.
    """
    twice = {name: paddle.concat([value, value]) for name, value in batch.items()}
    logits = head.forward(model, twice).astype("float32")
    by_answer = head.losses(logits, twice).reshape([2, -1]).mean(axis=0)
    columns = [logits[:, first :: head.num_distributions] for first in range(head.num_distributions)]
    divergences = [_symmetric_divergence(*paddle.chunk(part, 2)) for part in columns]
    return by_answer + alpha * paddle.add_n(divergences) / len(divergences)


def _symmetric_divergence(one: paddle.Tensor, other: paddle.Tensor) -> paddle.Tensor:
    """(KL(p || q) + KL(q || p)) / 2 of the softmaxes p and q of logits [rows, columns]: [rows]."""
    log_p, log_q = F.log_softmax(one), F.log_softmax(other)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(axis=1) / 2


# --- averaged weights ---------------------------------------------------------------------------------------------


class Average:
    """Running mean of the weights that are trained, which is evaluated and kept in their place.

    After step t it is d * mean + (1 - d) * weights, where d = min(decay, (1 + t) / (10 + t)): the first steps would
    otherwise count for most of a short training (Polyak and Juditsky, 1992; the rule for d is TensorFlow's, of
    ``tf.train.ExponentialMovingAverage``).

    Args:
        decay: below 1; 0: there is no mean, and nothing changes.
    """

    def __init__(self, model: paddle.nn.Layer, decay: float) -> None:
        trained = [(name, weight) for name, weight in model.named_parameters() if not weight.stop_gradient]
        self._decay, self._is_in_place = decay, False
        self._pairs = {name: (weight, weight.detach().clone()) for name, weight in trained if decay}

    def update(self, step: int) -> None:
        """Take in the weights after a step, of which there were ``step`` in all."""
        if not self._pairs:
            return
        decay = min(self._decay, (1 + step) / (10 + step))
        share = paddle.full([], 1 - decay)
        with paddle.no_grad():
            for weight, mean in self._pairs.values():
                mean.lerp_(weight, share)

    @contextlib.contextmanager
    def in_place(self, is_wanted: bool = True) -> Iterator[None]:
        """Have the model hold the mean in the block, or without ``is_wanted`` the weights that are trained."""
        before = self._is_in_place
        self._put(is_wanted)
        try:
            yield
        finally:
            self._put(before)

    def _put(self, is_wanted: bool) -> None:
        if is_wanted == self._is_in_place:
            return
        with paddle.no_grad():
            for weight, mean in self._pairs.values():
                held = weight.clone()
                paddle.assign(mean, weight)
                paddle.assign(held, mean)
        self._is_in_place = is_wanted

    def state(self) -> dict[str, np.ndarray]:
        """Name of a parameter -> its mean, float32; while it is not in place."""
        return {name: mean.numpy() for name, (_, mean) in self._pairs.items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from what ``state`` gave."""
        for name, (_, mean) in self._pairs.items():
            paddle.assign(paddle.to_tensor(state[name]), mean)
