"""Batches: order of rows, and padding."""

from __future__ import annotations

import numpy as np
import pytest

from clue_utils.features.batches import (
    batches_per_epoch,
    collate,
    length_grouped_batches,
    length_ordered_batches,
    shuffled_batches,
)


@pytest.mark.parametrize(("num_rows", "batch_size", "sizes"), [(20, 8, [8, 8, 4]), (16, 8, [8, 8]), (3, 8, [3])])
def test_an_epoch_is_a_permutation_by_seed_and_epoch(num_rows, batch_size, sizes):
    batches = shuffled_batches(num_rows, batch_size, seed=42, epoch=3)
    assert [len(batch) for batch in batches] == sizes and len(sizes) == batches_per_epoch(num_rows, batch_size)
    # The very order of the published commands' seed: another one would be another run.
    expected = np.random.default_rng([42, 3]).permutation(num_rows)
    assert np.concatenate(batches).tolist() == expected.tolist()


def test_rows_of_similar_length_are_sorted_within_fifty_batches():
    sizes = np.random.default_rng(0).integers(1, 500, 450)
    batches = length_grouped_batches(sizes, 4, seed=1, epoch=2)
    rng = np.random.default_rng([1, 2])
    order = rng.permutation(450)
    pools = [order[:200], order[200:400], order[400:]]
    by_length = [row for pool in pools for row in sorted(pool, key=lambda row: -sizes[row])]
    cut = [by_length[i : i + 4] for i in range(0, 450, 4)]
    assert len(cut[-1]) == 2 and batches[-1].tolist() == cut[-1]  # the incomplete one stays last
    assert [batch.tolist() for batch in batches[:-1]] == [cut[i] for i in rng.permutation(112)]


def test_evaluation_takes_the_longest_first_and_equal_ones_in_order():
    batches = length_ordered_batches(np.array([2, 5, 2, 5, 9, 0]), batch_size=2, max_tokens=10)
    assert [batch.tolist() for batch in batches] == [[4], [1, 3], [0, 2], [5]]
    assert length_ordered_batches(np.zeros(0, np.int64), 2, 10) == []
    assert np.concatenate(length_ordered_batches(np.arange(90) % 3, 7, 999)).tolist() == sorted(
        range(90), key=lambda row: (-(row % 3), row)
    )
    # Exactly as many tokens as allowed, and a single row beyond that.
    assert [batch.tolist() for batch in length_ordered_batches(np.array([5, 5, 5, 11]), 9, 10)] == [[3], [0, 1], [2]]


def test_rows_are_padded_to_the_longest_and_masked():
    rows = [
        {"input_ids": np.array([5, 6, 7]), "token_type_ids": np.array([1, 0, 1]), "label": 4, "start": 2},
        {"input_ids": np.array([8]), "token_type_ids": np.array([1]), "label": -1, "start": 0},
    ]
    batch = collate(rows, pad_token_id=9)
    assert {name: array.tolist() for name, array in batch.items()} == {
        "input_ids": [[5, 6, 7], [8, 9, 9]],
        "token_type_ids": [[1, 0, 1], [1, 0, 0]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
        "label": [4, -1],
        "start": [2, 0],
    }
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int64)}


def test_choices_are_padded_to_the_longest_of_all():
    rows = [
        {"input_ids": [np.array([1, 2]), np.array([3])], "label": 0},
        {"input_ids": [np.array([4]), np.array([5, 6, 7])], "label": 1},
    ]
    batch = collate(rows, pad_token_id=0)
    assert batch["input_ids"].tolist() == [[[1, 2, 0], [3, 0, 0]], [[4, 0, 0], [5, 6, 7]]]
    assert batch["attention_mask"].tolist() == [[[1, 1, 0], [1, 0, 0]], [[1, 0, 0], [1, 1, 1]]]
    assert "token_type_ids" not in batch and batch["label"].tolist() == [0, 1]
    assert collate(rows, 0, 4)["input_ids"].tolist()[0] == [[1, 2, 0, 0], [3, 0, 0, 0]]


@pytest.mark.parametrize(
    ("multiple", "most", "width"), [(1, 99, 5), (8, 99, 8), (5, 99, 5), (4, 99, 8), (8, 6, 6), (8, 3, 5)]
)
def test_padding_goes_to_a_multiple_within_the_limit(multiple, most, width):
    rows = [{"input_ids": np.arange(5)}, {"input_ids": np.arange(2)}]
    batch = collate(rows, 1, multiple, most)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, width)
    assert batch["attention_mask"].sum() == 7
