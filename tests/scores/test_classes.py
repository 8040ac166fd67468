"""Probabilities, losses and figures of classes, against their definitions and values that were worked out by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from clue_utils.scores.accuracy import cross_entropy, softmax
from clue_utils.scores.classes import class_scores


def test_a_softmax_is_along_the_last_axis_in_double_precision() -> None:
    logits = np.log(np.array([[[1, 3], [2, 2]], [[1, 1], [1, 4]]], np.float32))
    found = softmax(logits)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [[[1 / 4, 3 / 4], [1 / 2, 1 / 2]], [[1 / 2, 1 / 2], [1 / 5, 4 / 5]]], atol=1e-7)
    np.testing.assert_allclose(softmax(np.array([1000, 1000 + np.log(3), -np.inf])), [1 / 4, 3 / 4, 0], atol=1e-12)
    # What is subtracted before the exponential is not rounded as the logits are.
    np.testing.assert_allclose(softmax(np.array([3e4, -1e-4], np.float32) / 1e3), softmax(np.array([30.0, 0])))


def test_a_cross_entropy_is_the_mean_over_rows_whatever_is_added_to_one() -> None:
    logits = np.log([[1, 3, 4], [2, 2, 4]])
    expected = -(np.log(3 / 8) + np.log(4 / 8)) / 2
    for shift in (0, 1000, -1000):
        assert cross_entropy(logits + [[shift], [0]], np.array([1, 2])) == pytest.approx(expected, abs=1e-12)
    found = cross_entropy(np.array([[20, 0], [0, 20]], np.float32), np.array([0, 1]))
    assert found == pytest.approx(np.log1p(np.exp(-20)), rel=1e-6)  # single precision would say 0


def test_figures_of_each_class_and_what_is_taken_for_what() -> None:
    chosen, labels = np.array([0, 2, 1, 1]), np.array([0, 0, 1, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is said of the class without an answer, or without an example
        found = class_scores(chosen, labels, ("a", "b", "c", "d"))
    assert found == {
        "classes": {
            "a": {"precision": 1.0, "recall": pytest.approx(1 / 3), "f1": 0.5, "num_gold": 3},
            "b": {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "num_gold": 1},
            "c": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "num_gold": 0},
            "d": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "num_gold": 0},
        },
        "confusion": {"a": {"a": 1, "b": 1, "c": 1}, "b": {"b": 1}},
    }
    assert [*found["confusion"]["a"]] == ["a", "b", "c"]
    assert {type(value) for value in found["classes"]["a"].values()} == {float, int}  # which JSON can hold
