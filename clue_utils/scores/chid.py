"""How the candidates of CHID are given to its blanks."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from clue_utils.tasks import ASSIGNMENT_RULES


def assign_candidates(logits: npt.ArrayLike, rule: str = "joint") -> npt.NDArray[np.int64]:
    """Give each blank of one CHID example a candidate, using no candidate twice.

    With more blanks than candidates none can be spared repetition: each candidate then serves at most
    ``ceil(num_blanks / num_candidates)`` blanks. One blank gets its best candidate under either rule.

    Args:
        logits: finite, ``[num_blanks, num_candidates]``: all blanks of all passages of ONE example.
        rule: ``"joint"``: the assignment with the highest total log-probability (softmax over the candidates of a
            blank), found by ``scipy.optimize.linear_sum_assignment`` (Kuhn-Munkres assignment problem).
            ``"greedy"``: the older rule of the CLUE baseline: all cells by falling logit, each taken if its blank
            and its candidate are still free; of equal logits the earlier blank, then the earlier candidate first.

    Returns:
        int64 ``[num_blanks]``, columns of ``logits``. The same input always gives the same output.

    Raises:
        ValueError: wrong shape, a value that is not finite, or an unknown rule.
    """
    scores = np.asarray(logits, dtype=np.float64)
    if scores.ndim != 2 or (scores.shape[0] > 0 and scores.shape[1] == 0):
        raise ValueError(f"logits must be [num_blanks, num_candidates], not of shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("logits hold a NaN or an infinity: the model diverged or its weights are damaged")
    if rule not in ASSIGNMENT_RULES:
        raise ValueError(f"unknown assignment rule {rule!r}; known: {', '.join(ASSIGNMENT_RULES)}")
    blanks, candidates = scores.shape
    if blanks == 0:
        return np.zeros(0, dtype=np.int64)
    uses = math.ceil(blanks / candidates)
    if rule == "joint":
        from scipy.optimize import linear_sum_assignment

        shifted = scores - scores.max(axis=1, keepdims=True)
        log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        # One column per use of a candidate; with at least as many columns as rows, every row is assigned, in order.
        _, columns = linear_sum_assignment(np.tile(log_probabilities, (1, uses)), maximize=True)
        return np.asarray(columns % candidates, dtype=np.int64)
    assigned = np.full(blanks, -1, dtype=np.int64)
    uses_left = np.full(candidates, uses)
    for cell in np.argsort(-scores, axis=None, kind="stable"):
        blank, candidate = divmod(int(cell), candidates)
        if assigned[blank] < 0 and uses_left[candidate] > 0:
            assigned[blank] = candidate
            uses_left[candidate] -= 1
    return assigned
