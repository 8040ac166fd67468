"""The statistics of comparisons, against published values, other computations and simulated models."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import check_statistics
from clue_utils.compare import statistics
from clue_utils.errors import UserError


def sides(first: list[float], second: list[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.array([first], float), np.array([second], float), np.ones(len(first))


def random_sides(num: int, runs: tuple[int, int] = (1, 1), seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    base = rng.random(num) < 0.7
    made = [np.where(rng.random((count, num)) < 0.1, ~base, base).astype(float) for count in runs]
    return made[0], made[1], np.ones(num)


def test_mcnemar_is_the_exact_binomial_test():
    # 2 * (1 + 10) / 2 ** 10: nine of ten discordant records on one side.
    assert statistics.mcnemar(1, 9) == pytest.approx(22 / 1024)
    assert statistics.mcnemar(9, 1) == statistics.mcnemar(1, 9)
    # The survey of Agresti, "Categorical Data Analysis", table 10.1: 150 and 86 changed their minds.
    assert (
        statistics.mcnemar(150, 86)
        == pytest.approx(2 * stats.binom.cdf(86, 236, 0.5))
        == pytest.approx(3.7e-5, rel=0.02)
    )
    assert statistics.mcnemar(0, 0) == statistics.mcnemar(5, 5) == 1


def test_holm_adjusts_each_p_by_its_rank_and_keeps_the_order():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])
    assert statistics.holm([0.7, 0.7]) == [1, 1]
    assert statistics.holm([]) == []


def test_sign_flips_are_those_of_all_coins():
    differences = np.array([3.0, 1, 1, -1, 2, 0, 0])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 5)).reshape(5, -1)
    exact = np.mean(np.abs(differences[:5] @ signs) >= 6)
    assert statistics.sign_flips(differences) == pytest.approx(exact, abs=0.02)
    assert statistics.sign_flips(-differences) == statistics.sign_flips(differences)
    assert statistics.sign_flips(np.zeros(3)) == 1


def test_the_interval_is_that_of_scipys_paired_bootstrap():
    first, second, weights = random_sides(400)
    own = statistics.compare(first, second, weights)
    assert own.value == pytest.approx(second.mean() - first.mean()) and own.test == "McNemar"
    assert all(
        check_statistics.is_near(own.interval, o) for o in check_statistics.computed_anew(first, second, weights)
    )
    wrong = own.interval[0], own.interval[1] + 0.2 * (own.interval[1] - own.interval[0])
    assert not check_statistics.is_near(own.interval, wrong)


@pytest.mark.parametrize("runs", [(1, 1), (3, 3), (2, 4)])
def test_the_other_way_round_has_the_other_sign(runs):
    first, second, weights = random_sides(200, runs)
    there, back = statistics.compare(first, second, weights), statistics.compare(second, first, weights)
    assert back.value == -there.value and back.p_value == pytest.approx(there.p_value)
    assert back.interval == pytest.approx((-there.interval[1], -there.interval[0]))
    assert (back.only_first, back.only_second) == (there.only_second, there.only_first)


@pytest.mark.parametrize("score", [0, 1])
def test_equal_answers_differ_by_nothing(score):
    found = statistics.compare(*sides([score] * 5, [score] * 5))
    assert (found.value, found.interval, found.p_value) == (0, (0, 0), 1)


def test_all_right_against_all_wrong_is_as_sure_as_the_number_of_records():
    few, more = (statistics.compare(*sides([0] * num, [1] * num)) for num in (5, 20))
    assert few.value == 1 and few.interval == (1, 1) and few.p_value == pytest.approx(2 / 2**5)
    assert more.p_value == pytest.approx(2 / 2**20)


def test_one_record_tells_nothing():
    with pytest.raises(UserError, match="a single development record"):
        statistics.compare(*sides([0], [1]))


def test_records_of_more_weight_count_more():
    first, second = np.array([[0.0, 1, 1]]), np.array([[6.0, 0, 0]])
    found = statistics.compare(first, second, np.array([8.0, 1, 1]))
    assert (found.first, found.second, found.test) == (0.2, 0.6, "sign flips")
    assert (found.only_first, found.only_second) == (2, 1)
    # Resampling the ratio: the record with 8 blanks alone has 6 of 8.
    assert found.interval[1] >= 0.75 and found.interval[0] <= -1 + 1e-9


def test_seeds_that_lie_apart_widen_the_interval():
    rng = np.random.default_rng(0)
    alike = [(rng.random((3, 2000)) < 0.7).astype(float) for _ in range(2)]
    apart = [(rng.random((3, 2000)) < np.array([[0.5], [0.7], [0.9]])).astype(float) for _ in range(2)]
    narrow, wide = (statistics.compare(*both, np.ones(2000)) for both in (alike, apart))
    width = [one.interval[1] - one.interval[0] for one in (narrow, wide)]
    assert width[1] > 4 * width[0] and wide.p_value > 0.3 and narrow.test == "t"


@pytest.mark.parametrize("num", [2, 4])
def test_runs_are_drawn_with_the_variance_of_their_mean(num):
    """Scores of 1 and 0 otherwise have the variance 1 / num, their mean that over num."""
    shares = statistics._shares_of_runs(num, np.random.default_rng(0), 20_000)
    assert shares.sum(axis=1) == pytest.approx(1)
    assert shares[:, 0].var() == pytest.approx(1 / num**2, rel=0.05)


def test_two_seeds_know_their_spread_worse_than_one_would_think():
    """A large difference of two pairs of seeds, each 0.1 apart, is no proof: with one degree of freedom a side."""
    first = np.repeat([[1.0] * 50 + [0] * 50, [1.0] * 60 + [0] * 40], 20, axis=1)
    second = np.repeat([[1.0] * 62 + [0] * 38, [1.0] * 72 + [0] * 28], 20, axis=1)
    found = statistics.compare(first, second, np.ones(2000))
    assert found.value == pytest.approx(0.12) and found.interval[0] < 0 < found.interval[1] and found.p_value > 0.05


def test_simulated_models_are_told_apart_as_often_as_they_should():
    lines = []
    for name, scenario, truth, power in (
        ("none", check_statistics.paired(300, 0.08, 0.08), 0.0, None),
        ("planted", check_statistics.paired(400, 0.05, 0.12), 0.07, check_statistics.mcnemar_power(400, 0.05, 0.12)),
        ("CHID", check_statistics.blanks(200, 0.0), 0.0, None),
        ("seeds", check_statistics.seeds(300, (3, 3), 0.1, 0.0), 0.0, None),
    ):
        lines += check_statistics.simulate(name, scenario, truth, 200, 0, 500, power)
    assert [line for line in lines if not line.is_right] == []
    assert len(lines) == 8


def test_the_check_sees_intervals_that_are_too_narrow(monkeypatch):
    monkeypatch.setattr(statistics, "interval_of", lambda draws: tuple(np.quantile(draws, [0.2, 0.8])))
    scenario = check_statistics.paired(300, 0.08, 0.08)
    assert not check_statistics.simulate("none", scenario, 0.0, 100, 0, 500)[0].is_right
