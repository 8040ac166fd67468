"""Intervals of scores."""

from __future__ import annotations

import pytest
from scipy import stats

from clue_utils.report.uncertainty import interval


@pytest.mark.parametrize(("rights", "num"), [(0, 304), (304, 304), (120, 120), (5832, 10000), (1, 1), (83, 150)])
def test_interval_is_wilson_s(rights: int, num: int) -> None:
    expected = stats.binomtest(rights, num).proportion_ci(0.95, method="wilson")
    assert interval(rights / num, num) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_perfect_score_is_not_certain() -> None:
    low, high = interval(1.0, 120)
    assert 0.968 < low < 0.970 and high == 1.0
