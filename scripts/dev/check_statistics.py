#!/usr/bin/env python
"""Check what comparisons rest on: simulated models whose true difference is known, and intervals computed anew.

Each scenario draws data sets and the answers of two models many times. Without a difference, the test may call one in
5 % at most; a planted one has to be found as often as the exact power says where there is such a formula; and the
interval has to hold the true difference in 95 %, each within what chance allows (99.9 %). With --sides, the intervals
of a real comparison are computed anew, by resampling the records one by one and by scipy's BCa bootstrap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from clue_utils import cli
from clue_utils.compare import pairs, statistics
from clue_utils.compare.statistics import Array, Difference
from clue_utils.errors import UserError
from clue_utils.grid import search_space

ALPHA = 1 - statistics.LEVEL
NUM_TASKS = 10
_SURE = 0.999
# Ends of two computations of one interval differ by less than this part of its width.
_PART_OF_WIDTH = 0.1
# With fewer records on which two runs differ, BCa and percentiles are too coarse to be compared.
_FEWEST_DISCORDANT = 20

# Two models' answers to one set of records, and the records' weights.
Answers = tuple[Array, Array, Array]
Scenario = Callable[[np.random.Generator], Answers]


class Line(NamedTuple):
    """How often something happened in ``number`` simulations, and its expected share or the bound of that."""

    name: str
    what: str
    times: int
    number: int
    expected: float
    bound: str = ""  # "≥", "≤"

    @property
    def is_right(self) -> bool:
        low, high = stats.binom.interval(_SURE, self.number, self.expected)
        return bool((self.bound == "≤" or self.times >= low) and (self.bound == "≥" or self.times <= high))


def paired(num: int, only_first: float, only_second: float) -> Scenario:
    """Accuracy: records that both have right, that one has, or none, at known rates."""

    def draw(rng: np.random.Generator) -> Answers:
        kinds = rng.choice(4, size=num, p=[only_first, only_second, 0.6, 0.4 - only_first - only_second])
        first, second = np.isin(kinds, (0, 2)), np.isin(kinds, (1, 2))
        return first[None].astype(float), second[None].astype(float), np.ones(num)

    return draw


def blanks(num: int, plus: float) -> Scenario:
    """CHID: records of 1 to 8 blanks, some easier than others; each blank is right at the record's rate."""

    def draw(rng: np.random.Generator) -> Answers:
        weights = rng.integers(1, 9, size=num)
        ease = rng.uniform(0.4, 0.9, size=num)
        first, second = (rng.binomial(weights, rate).astype(float) for rate in (ease, ease + plus))
        return first[None], second[None], weights.astype(float)

    return draw


def fractions(num: int, plus: float) -> Scenario:
    """F1: fractions by the question's difficulty; on some questions the second model alone finds the better half."""

    def draw(rng: np.random.Generator) -> Answers:
        ease = rng.uniform(1, 4, size=num)
        first, second = (rng.beta(ease, 1.5) for _ in range(2))
        is_planted, half = rng.random(num) < 2 * plus, rng.beta(2, 2, size=num) / 2
        first, second = np.where(is_planted, half, first), np.where(is_planted, half + 0.5, second)
        return first[None], second[None], np.ones(num)

    return draw


def seeds(num: int, runs: tuple[int, int], spread: float, plus: float) -> Scenario:
    """Accuracy of several seeds: the rate of a run varies with its seed, and runs agree on most records."""

    def draw(rng: np.random.Generator) -> Answers:
        ease = rng.normal(0.6, 1.0, size=num)
        sides = []
        for count, shift in zip(runs, (0.0, plus), strict=True):
            own = ease + shift + rng.normal(0, 0.3, size=num)  # a model's strengths
            level = own + rng.normal(0, spread, size=(count, 1)) + rng.normal(0, 0.5, size=(count, num))
            sides.append((level > 0).astype(float))
        return sides[0], sides[1], np.ones(num)

    return draw


def seeds_truth(spread: float, plus: float) -> float:
    """The true difference of ``seeds``: normal levels' shares above 0."""
    deviation = np.sqrt(1 + 0.3**2 + spread**2 + 0.5**2)
    return float(stats.norm.cdf((0.6 + plus) / deviation) - stats.norm.cdf(0.6 / deviation))


def mcnemar_power(num: int, only_first: float, only_second: float) -> float:
    """How often the exact test finds this difference: over all numbers of discordant records and their shares."""
    rate, power = only_first + only_second, 0.0
    for discordant in range(1, num + 1):
        chance = stats.binom.pmf(discordant, num, rate)
        if chance > 1e-9:
            counts = np.arange(discordant + 1)
            tail = stats.binom.cdf(np.minimum(counts, discordant - counts), discordant, 0.5)
            share = stats.binom.pmf(counts, discordant, only_second / rate)
            power += chance * float(share[np.minimum(1.0, 2 * tail) < ALPHA].sum())
    return power


def simulate(
    name: str, scenario: Scenario, truth: float, number: int, seed: int, num_draws: int, power: float | None = None
) -> list[Line]:
    """False alarms or power, and coverage, of one scenario."""
    rng = np.random.default_rng(seed)
    found = [statistics.compare(*scenario(rng), i, num_draws) for i in range(number)]
    covered = sum(one.interval[0] <= truth <= one.interval[1] for one in found)
    called = sum(one.p_value < ALPHA for one in found)
    # With several seeds the bootstrap errs on the wide side, see draw_differences.
    bound = "≥" if found[0].test == "t" else ""
    lines = [Line(name, "interval holds the truth", covered, number, statistics.LEVEL, bound)]
    if truth == 0:
        lines.append(Line(name, "false alarms", called, number, ALPHA, "≤"))
    elif power is not None:
        lines.append(Line(name, "found, by exact power", called, number, power))
    return lines


def simulate_tasks(number: int, seed: int, num_draws: int) -> list[Line]:
    """Ten tasks without a difference: a false alarm on any after Holm's correction; and the interval of their mean."""
    rng, called, covered = np.random.default_rng(seed), 0, 0
    scenarios = [paired(num, 0.06, 0.06) for num in (300, 600, 1200)] + [blanks(300, 0.0)]
    for i in range(number):
        found = [
            statistics.compare(*scenarios[task % len(scenarios)](rng), NUM_TASKS * i + task, num_draws)
            for task in range(NUM_TASKS)
        ]
        called += min(statistics.holm([one.p_value for one in found])) < ALPHA
        low, high = statistics.interval_of(np.mean([one.draws for one in found], axis=0))
        covered += low <= 0 <= high
    return [
        Line("ten tasks", "a false alarm on any", called, number, ALPHA, "≤"),
        Line("ten tasks", "mean's interval holds 0", covered, number, statistics.LEVEL),
    ]


def all_lines(number: int, num_draws: int = 1000, seed: int = 0) -> list[Line]:
    """Every scenario, each simulated ``number`` times."""
    lines = []
    for name, scenario, truth, power in (
        ("accuracy, 300 records", paired(300, 0.06, 0.06), 0.0, None),
        ("accuracy, 3000 records", paired(3000, 0.06, 0.06), 0.0, None),
        ("accuracy +4.00", paired(600, 0.04, 0.08), 0.04, mcnemar_power(600, 0.04, 0.08)),
        ("accuracy +1.00", paired(3000, 0.045, 0.055), 0.01, mcnemar_power(3000, 0.045, 0.055)),
        ("CHID", blanks(400, 0.0), 0.0, None),
        ("CHID +3.00", blanks(400, 0.03), 0.03, None),
        ("F1", fractions(400, 0.0), 0.0, None),
        ("F1 +2.00", fractions(400, 0.02), 0.02, None),
        ("2 + 2 seeds", seeds(800, (2, 2), 0.05, 0.0), 0.0, None),
        ("3 + 3 seeds", seeds(800, (3, 3), 0.05, 0.0), 0.0, None),
        ("5 + 3 seeds, far apart", seeds(800, (5, 3), 0.15, 0.0), 0.0, None),
        ("5 + 5 seeds +3", seeds(800, (5, 5), 0.1, 0.12), seeds_truth(0.1, 0.12), None),
    ):
        lines += simulate(name, scenario, truth, number, seed, num_draws, power)
    return lines + simulate_tasks(number, seed, num_draws)


def computed_anew(first: Array, second: Array, weights: Array, num_draws: int = 4000) -> list[tuple[float, float]]:
    """The interval by drawing records and runs one by one, and of single runs by scipy's BCa too."""
    rng, num, draws = np.random.default_rng(1), len(weights), []
    for _ in range(num_draws):
        records = rng.integers(num, size=num)
        means = []
        for side in (first, second):
            runs = rng.integers(len(side), size=max(1, len(side) - 1))
            means.append(side[runs].mean(axis=0)[records].sum() / weights[records].sum())
        draws.append(means[1] - means[0])
    intervals = [statistics.interval_of(np.array(draws))]
    if len(first) == len(second) == 1:
        bca = stats.bootstrap(
            (second[0] - first[0], weights),
            lambda d, w, axis: d.sum(axis=axis) / w.sum(axis=axis),
            n_resamples=num_draws,
            batch=500,
            paired=True,
            method="BCa",
            rng=rng,
        )
        intervals.append((float(bca.confidence_interval.low), float(bca.confidence_interval.high)))
    return intervals


def is_near(found: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether two intervals are the same but for the draws."""
    width = max(found[1] - found[0], 1e-9)
    return all(abs(a - b) <= _PART_OF_WIDTH * width for a, b in zip(found, other, strict=True))


def check_sides(names: Sequence[str], results_dir: Path) -> bool:
    """Compute the intervals of a real comparison anew and print them; return whether they agree."""
    good = True
    for pair in pairs.compare_all(pairs.read_sides(names, results_dir)):
        for name, one in pair.tasks.items():
            first, second = pair.first.runs[name], pair.second.runs[name]
            values = first.values(one.task.metric), second.values(one.task.metric)
            own: Difference = one.main
            others = computed_anew(*values, first.answers[0].weights)
            # Stretched for few runs, see draw_differences; the plain draws are not.
            comparable = max(one.num_runs) == 1 and own.only_first + own.only_second >= _FEWEST_DISCORDANT
            agree = all(is_near(own.interval, other) for other in others) or not comparable
            good &= agree
            verdict = ("ok" if agree else "WRONG") if comparable else "not to be compared"
            shown = "  ".join(f"[{100 * low:.2f}, {100 * high:.2f}]" for low, high in (own.interval, *others))
            print(f"{pair.second.name} - {pair.first.name}, {name}: {shown}  {verdict}")
    return good


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--number", type=cli.positive_int, default=1000, help="simulations a scenario (default: 1000)")
    parser.add_argument("--seed", type=cli.non_negative_int, default=0)
    parser.add_argument("--sides", nargs="+", default=(), metavar="A", help="of a real comparison, as of compare.py")
    parser.add_argument("--results", type=Path, metavar="DIR", default=Path(search_space.RESULTS_DIR))
    args = parser.parse_args(argv)
    good = check_sides(args.sides, args.results) if args.sides else True
    if not args.sides:
        print(f"{'scenario':<24}{'what':<28}{'counted':>9}{'expected':>10}")
        for line in all_lines(args.number, seed=args.seed):
            expected = f"{line.bound} {100 * line.expected:.1f} %".strip()
            verdict = "ok" if line.is_right else "WRONG"
            print(f"{line.name:<24}{line.what:<28}{100 * line.times / line.number:>7.1f} %{expected:>10}  {verdict}")
            good &= line.is_right
    if not good:
        raise UserError("a line above is WRONG: intervals or tests do not hold what they promise")


if __name__ == "__main__":
    cli.run(main)
