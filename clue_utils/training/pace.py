"""How long a training still takes, from what its steps and evaluations have taken. Imports no PaddlePaddle."""

from __future__ import annotations

import math
import statistics
from collections import deque

# What a step costs for each row beside what an evaluation does: forward and backward to forward alone (Kaplan et al.,
# "Scaling Laws for Neural Language Models", 2020, 2.1: 6 operations a parameter and token to 2).
_STEP_TO_FORWARD = 3.0
# Of the newest steps and evaluations the mean is taken: a machine's load changes.
_NUM_STEPS, _NUM_EVALUATIONS = 200, 3


class Pace:
    """The rate of a training run, and what is left of it.

    Args:
        num_steps: of the whole training.
        interval: steps from one evaluation to the next; there is one after the last step too.
        num_more: evaluations that come after the training.
        rows_of_step, rows_of_evaluation: sequences; they say what an evaluation may take until one was measured.
    """

    def __init__(
        self, num_steps: int, interval: int, num_more: int = 0, rows_of_step: int = 1, rows_of_evaluation: int = 0
    ) -> None:
        self.num_steps, self._interval, self._num_more = num_steps, interval, num_more
        self._steps_of_evaluation = rows_of_evaluation / rows_of_step / _STEP_TO_FORWARD
        self._num = 0
        self._steps: deque[float] = deque(maxlen=_NUM_STEPS)
        self._evaluations: deque[float] = deque(maxlen=_NUM_EVALUATIONS)

    @property
    def num_evaluations(self) -> int:
        """How many the whole training has."""
        return math.ceil(self.num_steps / self._interval)

    def add_step(self, seconds: float) -> None:
        if self._num == 1:  # the first takes longer: what is compiled or allocated for it stays
            self._steps.clear()
        self._num += 1
        self._steps.append(seconds)

    def add_evaluation(self, seconds: float) -> None:
        self._evaluations.append(seconds)

    @property
    def seconds_a_step(self) -> float | None:
        return statistics.fmean(self._steps) if self._steps else None

    def seconds_left(self, step: int, is_due: bool = False) -> float | None:
        """Seconds from after ``step`` on to the end of the run; None before the first step was measured.

        Args:
            is_due: the evaluation after that step is still to come.
        """
        of_step = self.seconds_a_step
        if of_step is None:
            return None
        done = self.num_evaluations if step >= self.num_steps else step // self._interval
        evaluations = self.num_evaluations - done + is_due + self._num_more
        of_evaluation = statistics.fmean(self._evaluations or [of_step * self._steps_of_evaluation])
        return (self.num_steps - step) * of_step + evaluations * of_evaluation
