"""How far the size of a development set lets a score be trusted: the one place that says so.

Importing this module needs neither PaddlePaddle nor NumPy.
"""

from __future__ import annotations

import math
from statistics import NormalDist

LEVEL = 0.95


def interval(score: float, num: int) -> tuple[float, float]:
    """The two-sided 95 % interval of a share of ``num`` records by Wilson's formula, fractions.

    It keeps within 0 and 1, and has a width where all records are right, unlike the textbook's ``sqrt(p (1 - p) / n)``.
    CHID is scored by the blank; counted by the record, as here, its interval is on the wide side.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).

    Args:
        score: a fraction.
        num: records, at least 1.
    """
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    shrunk = 1 + z * z / num
    middle = (score + z * z / (2 * num)) / shrunk
    half = z / shrunk * math.sqrt(score * (1 - score) / num + z * z / (4 * num * num))
    return max(0.0, middle - half), min(1.0, middle + half)
