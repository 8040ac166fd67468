"""Batches: order of rows, padding, and what the cache of features goes by."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clue_utils import tasks
from clue_utils.data.examples import Examples
from clue_utils.features.batches import (
    batches_per_epoch,
    collate,
    length_grouped_batches,
    length_ordered_batches,
    shuffled_batches,
)
from clue_utils.features.build import build_features, tokenizer_fingerprint
from clue_utils.models import load_tokenizer


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


@pytest.mark.parametrize(
    ("multiple", "most", "width"), [(1, 99, 5), (8, 99, 8), (5, 99, 5), (4, 99, 8), (8, 6, 6), (8, 3, 5)]
)
def test_padding_goes_to_a_multiple_within_the_limit(multiple, most, width):
    rows = [{"input_ids": np.arange(5)}, {"input_ids": np.arange(2)}]
    batch = collate(rows, 1, multiple, most)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, width)
    assert batch["attention_mask"].sum() == 7


class Method:
    def __init__(self, **settings: Any) -> None:
        self._settings, self.calls = settings, 0

    def settings(self) -> dict[str, Any]:
        return self._settings

    def encode(self, example: dict[str, Any]) -> list[dict[str, Any]]:
        self.calls += 1
        rows = [[7] * (example["number"] % 3 + 1), [8, 9], [1] * (example["number"] % 5)]
        return [{"input_ids": rows, "extra": [example["number"]], "label": example["number"]}] * example.get("times", 1)


def examples(number: int, task: str = "TNEWS", split: str = "dev", sha256: str = "0", times: int = 1) -> Examples:
    rows = [{"number": i, "times": times} for i in range(number)]
    return Examples(tasks.get_task(task), split, rows, (), sha256, 0)


def test_the_cache_is_made_where_it_is_not_and_what_killed_builds_left_is_removed(tokenizer, tmp_path):
    cache = tmp_path / "a" / "b"
    method = Method()
    path = build_features(examples(5), method, tokenizer, cache).path
    assert path.parent == cache and method.calls == 5
    stem = path.name.split(".")[0]
    assert re.fullmatch(r"tnews-dev-[0-9a-f]{24}\.[0-9a-f]{16}\.arrow", path.name)
    path.rename(cache / f".{stem}.{2**30}.tmp")
    (cache / f".another.{2**30}.tmp").touch()
    assert build_features(examples(5), method, tokenizer, cache).path == path and method.calls == 10
    assert [name.name for name in cache.glob("*.tmp")] == [f".another.{2**30}.tmp"]


def test_features_come_back_as_they_were_encoded(tokenizer, tmp_path):
    found = build_features(examples(1030, times=2), Method(), tokenizer, tmp_path, num_proc=1)
    assert len(found) == 2060 and found.names == ["input_ids", "extra", "label"]
    for i in (0, 1, 1023, 1024, 2047, 2059):
        number = i // 2
        row = found[i]
        assert [ids.tolist() for ids in row["input_ids"]] == [[7] * (number % 3 + 1), [8, 9], [1] * (number % 5)]
        assert row["extra"].tolist() == [number] and row["label"] == number and type(row["label"]) is int
    assert found.column("label").tolist() == [i // 2 for i in range(2060)]
    # Three sequences, padded to the longest of them.
    expected = [3 * max(i // 2 % 3 + 1, 2, i // 2 % 5) for i in range(2060)]
    assert found.sizes().tolist() == expected and found.sizes().dtype == np.int64


def test_features_are_found_again_by_all_that_they_depend_on(tokenizer, tmp_path, caplog):
    method = Method(length=5)
    caplog.set_level("INFO", logger="clue_utils")
    first = build_features(examples(9), method, tokenizer, tmp_path)
    assert method.calls == 9 and f"TNEWS dev: 9 features built in {first.path}" in caplog.messages
    assert build_features(examples(9), method, tokenizer, tmp_path).path == first.path and method.calls == 9
    assert f"TNEWS dev: 9 features from cache {first.path}" in caplog.messages
    others = [
        (examples(9, task="IFLYTEK"), method),
        (examples(9, split="train"), method),
        (examples(9, sha256="1"), method),
        (examples(9), Method(length=6)),
    ]
    paths = {build_features(*other, tokenizer, tmp_path).path for other in others}
    assert len(paths | {first.path}) == 5
    assert build_features(examples(9), method, tokenizer, tmp_path, overwrite=True).path == first.path
    assert method.calls == 9 + 3 * 9 + 9
    assert not list(tmp_path.glob("*.tmp"))


def test_tokenizers_that_write_other_ids_have_another_fingerprint(demo, tokenizer, tmp_path):
    def other(**changes: Any) -> Any:
        return load_tokenizer(str(demo / "model"), **changes)

    same = tokenizer_fingerprint(tokenizer)
    assert tokenizer_fingerprint(other()) == same == tokenizer_fingerprint(load_tokenizer(copy(demo, tmp_path)))
    assert tokenizer_fingerprint(other(do_lower_case=False)) != same
    swapped = Path(copy(demo, tmp_path / "swapped"))
    words = (swapped / "vocab.txt").read_text(encoding="utf-8").split("\n")
    words[100], words[101] = words[101], words[100]
    (swapped / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    assert tokenizer_fingerprint(load_tokenizer(str(swapped))) != same


class Words:
    """What a fingerprint is taken of."""

    def __init__(self, vocab=("a", "b"), mask="[MASK]", do_lower_case=True, **basic: Any) -> None:
        self._vocab, self.special_tokens_map, self.truncation_side = vocab, {"mask_token": mask}, "right"
        self.do_lower_case, self.basic_tokenizer = do_lower_case, SimpleNamespace(**basic)

    def get_vocab(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self._vocab)}


class OtherWords(Words):
    pass


def test_a_fingerprint_is_of_class_vocabulary_and_every_setting():
    cut_on_the_left = Words()
    cut_on_the_left.truncation_side = "left"
    tokenizers = [
        Words(),
        OtherWords(),
        Words(vocab=("b", "a")),
        Words(mask="<mask>"),
        Words(do_lower_case=False),
        Words(tokenize_chinese_chars=True),
        Words(tokenize_chinese_chars=False),
        cut_on_the_left,
        Words(never_split={"x", "y"}),
    ]
    assert len({tokenizer_fingerprint(tokenizer) for tokenizer in tokenizers}) == len(tokenizers)
    assert tokenizer_fingerprint(Words(never_split={"y", "x"})) == tokenizer_fingerprint(tokenizers[-1])
    without = Words()
    del without.basic_tokenizer, without.do_lower_case  # as other kinds of tokenizers
    assert re.fullmatch("[0-9a-f]{64}", tokenizer_fingerprint(without))


def copy(demo: Path, folder: Path) -> str:
    return str(shutil.copytree(demo / "model", folder / "model"))
