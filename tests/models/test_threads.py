"""Operations in parts, on several threads."""

from __future__ import annotations

import concurrent.futures
import threading

import numpy as np
import paddle
import pytest

from clue_utils.models import threads


@pytest.fixture
def three(monkeypatch):
    """Three threads, whatever this machine has, and parts of any size."""
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        monkeypatch.setattr(threads, "_pool", lambda: pool)
        monkeypatch.setattr(threads, "count", lambda: 3)
        monkeypatch.setattr(threads, "_PART_SIZE", 1)
        yield


def test_parts_are_done_at_the_same_time_and_found_in_their_order(three):
    all_there = threading.Barrier(3, timeout=60)

    def compute(number):
        all_there.wait()
        return number * 2

    assert threads.run(compute, [(1,), (2,), (3,)]) == [2, 4, 6]


def test_what_goes_wrong_in_a_part_is_told(three):
    def compute(number):
        if number == 2:
            raise MemoryError("of the second")

    with pytest.raises(MemoryError, match="of the second"):
        threads.run(compute, [(1,), (2,), (3,)])


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_rows_in_parts_are_what_they_are_together(three, rows):
    x, y = (paddle.to_tensor(np.random.default_rng(seed).normal(size=(rows, 5)).astype("float32")) for seed in (1, 2))
    x.stop_gradient = False
    seen = []

    def compute(x, nothing, y):
        seen.append(len(x))
        return x + y, x * y

    total, product = threads.by_rows(compute, 2, x, None, y)
    assert np.array_equal(total.numpy(), (x + y).numpy()) and np.array_equal(product.numpy(), (x * y).numpy())
    assert sum(seen) == rows and len(seen) == min(3, rows)
    assert total.stop_gradient  # recorded for no gradient, in whatever thread


@pytest.mark.parametrize(
    ("said", "expected"), [("4", 4), ("3,2", 3), ("2", 1), ("64", 8), ("", 1), ("many", 1), ("0", 1), (None, 1)]
)
def test_there_are_as_many_threads_as_pay_of_those_that_openmp_is_told(monkeypatch, said, expected):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert threads.count() == expected
