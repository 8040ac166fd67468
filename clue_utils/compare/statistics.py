"""The statistics of a comparison on the same records: interval of a difference, tests, correction for many tasks.

Scores are fractions; a score is the sum of its records' values over the sum of their weights (CHID: rights over blanks,
otherwise every weight is 1). A side may be several runs of one setting, which differ in the seed: its score is their
mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from clue_utils.errors import UserError
from clue_utils.language import say

Array = npt.NDArray[np.float64]
LEVEL = 0.95
NUM_DRAWS = 10_000
# Counts of one batch of draws, in numbers.
_BATCH = 4_000_000


@dataclass(frozen=True)
class Difference:
    """How the second side's score differs from the first one's.

    Attributes:
        first, second: the scores.
        draws: bootstrap draws of second minus first, float64 ``[draws]``, see :func:`draw_differences`.
        p_value: of the test that is named by ``test``: there is no difference.
        test: "McNemar", "sign flips" or "t".
        only_first, only_second: records on which that side alone is right or nearer to it, of its runs' mean.
        num_records: of the development set.
    """

    first: float
    second: float
    draws: Array
    p_value: float
    test: str
    only_first: int
    only_second: int
    num_records: int

    @property
    def value(self) -> float:
        return self.second - self.first

    @property
    def interval(self) -> tuple[float, float]:
        return interval_of(self.draws)


def compare(first: Array, second: Array, weights: Array, seed: int = 0, num_draws: int = NUM_DRAWS) -> Difference:
    """Compare two sides on the same records.

    The test is, with one run a side, McNemar's where a record is right or wrong, otherwise that of random sign flips;
    with several it is Welch's t, the one of the three that takes the seeds in: McNemar's on a majority vote would be
    about an ensemble that nobody scored.

    Args:
        first, second: values of each record by run, float64 ``[runs, records]``.
        weights: of the records, above 0, float64 ``[records]``.
        seed: of the draws; the same input always gives the same output.
        num_draws: of the bootstrap and of sign flips.

    Raises:
        UserError: there are fewer than two records.
        ValueError: shapes that do not fit.
    """
    num = len(weights)
    if first.ndim != 2 or second.ndim != 2 or first.shape[1:] != (num,) or second.shape[1:] != (num,):
        raise ValueError(f"values of shapes {first.shape} and {second.shape} for {num} records")
    if num < 2:
        raise UserError(say("a single development record tells nothing of a difference: at least two are needed"))
    differences = second.mean(axis=0) - first.mean(axis=0)
    only_first, only_second = int((differences < 0).sum()), int((differences > 0).sum())
    if len(first) > 1 or len(second) > 1:
        test, p_value = "t", _t_test(first, second, weights)
    elif (weights == 1).all() and np.isin((first, second), (0, 1)).all():
        test, p_value = "McNemar", mcnemar(only_first, only_second)
    else:
        test, p_value = "sign flips", sign_flips(differences, seed, num_draws)
    first_score, second_score = (float(side.mean(axis=0).sum() / weights.sum()) for side in (first, second))
    draws = draw_differences(first, second, weights, seed, num_draws)
    return Difference(first_score, second_score, draws, p_value, test, only_first, only_second, num)


def interval_of(draws: Array) -> tuple[float, float]:
    """The interval that holds ``LEVEL`` of the draws: percentiles."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def draw_differences(first: Array, second: Array, weights: Array, seed: int = 0, num_draws: int = NUM_DRAWS) -> Array:
    """Differences of the scores, second minus first, as other records and other seeds may have made them.

    A paired bootstrap: each draw takes the records anew, with replacement, the same ones for all runs (Efron and
    Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 6), and the runs of each side, independently of the
    records, since every run answers all of them (crossed factors: Owen, "The pigeonhole bootstrap", Annals of Applied
    Statistics 1, 2007). Of S runs, S - 1 are drawn, without which the variance of their mean would come out S - 1 to S
    too small (Rao and Wu, "Resampling inference with complex survey data", JASA 83, 1988). One run is always drawn:
    nothing is known of other seeds then. What a run does on a record of its own is drawn with both, so the interval of
    several runs errs on the wide side (Owen, there).

    Percentiles of draws are as narrow as if variances were known; a few runs tell theirs badly. So the draws are
    stretched about the difference by Student's over the normal quantile (Hesterberg, "What teachers should know about
    the bootstrap", American Statistician 69, 2015), with the degrees of freedom of the sum of the variances of records
    and runs (Welch and Satterthwaite). Percentiles rather than BCa: the difference of two means is hardly skewed, BCa
    has no value where no record differs, and draws of ten tasks have to be averaged.

    Equal records are drawn together: how often each kind is drawn is multinomial. That is the same distribution, in
    milliseconds.

    Args:
        first, second, weights, seed, num_draws: as of :func:`compare`.

    Returns:
        float64 ``[num_draws]``, each in [-1, 1].
    """
    if first.tobytes() > second.tobytes():  # the draws of (B, A) are those of (A, B) with the other sign
        return -draw_differences(second, first, weights, seed, num_draws)
    num_first, num = len(first), len(weights)
    kinds, counts = np.unique(np.vstack([first, second, weights]).T, axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    shares = np.hstack([_shares_of_runs(len(side), rng, num_draws) for side in (first, second)])
    shares[:, :num_first] *= -1
    draws = []
    for part in np.array_split(shares, max(1, num_draws * len(kinds) // _BATCH)):
        sums = rng.multinomial(num, counts / num, size=len(part)) @ kinds
        draws.append((sums[:, :-1] * part).sum(axis=1) / sums[:, -1])
    value = _score(second, weights).mean() - _score(first, weights).mean()
    _, freedom = _variance(first, second, weights)
    stretch = stats.t.ppf((1 + LEVEL) / 2, freedom) / stats.norm.ppf((1 + LEVEL) / 2)
    return np.clip(value + stretch * (np.concatenate(draws) - value), -1, 1)


def _shares_of_runs(num: int, rng: np.random.Generator, num_draws: int) -> Array:
    """What part each run has in a draw's mean, ``[num_draws, num]``."""
    drawn = max(1, num - 1)
    return rng.multinomial(drawn, np.full(num, 1 / num), size=num_draws) / drawn


def _score(values: Array, weights: Array) -> Array:
    return values.sum(axis=1) / weights.sum()


def _variance(first: Array, second: Array, weights: Array) -> tuple[float, float]:
    """Variance of the difference, and its degrees of freedom.

    The sum of that of the records (of a ratio, linearised) and of the mean over each side's runs.
    """
    num = len(weights)
    differences = second.mean(axis=0) - first.mean(axis=0)
    rest = differences - weights * differences.sum() / weights.sum()
    parts = [(num / (num - 1) * float((rest**2).sum()) / float(weights.sum()) ** 2, num - 1)]
    for side in (first, second):
        if len(side) > 1:
            parts.append((float(_score(side, weights).var(ddof=1)) / len(side), len(side) - 1))
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return 0.0, float(num - 1)
    return variance, variance**2 / sum(part**2 / freedom for part, freedom in parts)


def _t_test(first: Array, second: Array, weights: Array) -> float:
    variance, freedom = _variance(first, second, weights)
    value = abs(float(_score(second, weights).mean() - _score(first, weights).mean()))
    if value < 1e-12:
        return 1.0
    return float(2 * stats.t.sf(value / np.sqrt(variance), freedom)) if variance else 0.0


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p of McNemar's test (Psychometrika 12, 1947): discordant records are a fair coin's throws.

    Args:
        only_first, only_second: records that one side alone has right.
    """
    discordant = only_first + only_second
    return float(stats.binomtest(only_second, discordant).pvalue) if discordant else 1.0


def sign_flips(differences: Array, seed: int = 0, num_draws: int = NUM_DRAWS) -> float:
    """The two-sided p of the test of random sign flips: were the sides alike, each could have either's answer.

    Noreen, "Computer-Intensive Methods for Testing Hypotheses", 1989; with the difference as it is counted as one of
    the draws, so that p is never below ``1 / (num_draws + 1)``.

    Args:
        differences: of the records' values, float64 ``[records]``.
    """
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    # Of the records with a difference of one size, as many keep its sign as coins show heads.
    kept = np.random.default_rng(seed).binomial(counts, 0.5, size=(num_draws, len(sizes)))
    sums = np.abs((2 * kept - counts) @ sizes)
    extreme = int((sums >= abs(differences.sum()) - 1e-9).sum())
    return (1 + extreme) / (1 + num_draws)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for their number, in their order: at most 5 % of such lists hold a false one below 0.05.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted
