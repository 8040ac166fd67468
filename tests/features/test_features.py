"""The cache of features: found again by all that they depend on, found damaged, built by processes that may die."""

from __future__ import annotations

import functools
import gc
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clue_utils import files, tasks
from clue_utils.data.examples import Examples
from clue_utils.errors import UserError
from clue_utils.features import build as feature_cache
from clue_utils.features.build import build_features, tokenizer_fingerprint
from clue_utils.models import load_tokenizer

TOP = Path(__file__).parents[2]


class Method:
    """Counts the examples it encodes in this process."""

    def __init__(self, dies_at: int | None = None, length: int = 5) -> None:
        self.dies_at, self.length, self.parent, self.calls = dies_at, length, os.getpid(), 0

    def settings(self):
        return {"method": "test", "length": self.length}

    def encode(self, example):
        self.calls += 1
        if example["number"] == self.dies_at and os.getpid() != self.parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return [{"input_ids": list(range(example["number"] % 7 + 1)), "label": example["number"]}]


@pytest.fixture
def build(tokenizer, tmp_path):
    def build(method, num_examples=3000, num_proc=1, overwrite=False, task="TNEWS", split="dev", sha256="0"):
        rows = [{"number": i} for i in range(num_examples)]
        examples = Examples(tasks.get_task(task), split, rows, (), f"{num_examples}{sha256}", 0)
        return build_features(examples, method, tokenizer, tmp_path / "cache", num_proc, overwrite)

    return build


def test_processes_that_build_collect_nothing_of_the_process_that_has_the_gpu(build):
    class Counting(Method):
        @functools.cached_property
        def is_frozen(self):  # which takes a while to count
            return gc.get_freeze_count() > 0 and os.getpid() != self.parent

        def encode(self, example):
            return [{"input_ids": [1], "label": int(self.is_frozen)}]

    assert all(label == 1 for _, label in rows(build(Counting(), num_proc=2)))
    assert gc.get_freeze_count() == 0


def rows(features):
    return [(row["input_ids"].tolist(), row["label"]) for row in features]


def test_features_are_built_once_however_many_processes_build(build, tmp_path):
    method = Method()
    alone = rows(build(method))
    assert method.calls == 3000 and rows(build(method)) == alone and method.calls == 3000
    assert alone[8] == ([0, 1], 8)
    np.testing.assert_array_equal(build(method).sizes(), [i % 7 + 1 for i in range(3000)])
    for path in (tmp_path / "cache").glob("*.arrow"):
        path.unlink()
    assert rows(build(Method(), num_proc=2)) == alone


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_a_damaged_cache_is_said_and_built_again(build, tmp_path, caplog, monkeypatch, damage):
    monkeypatch.setattr(logging.getLogger("clue_utils"), "propagate", True)
    caplog.set_level(logging.WARNING, "clue_utils")  # whatever a script run before has set
    expected = rows(build(Method()))
    (path,) = (tmp_path / "cache").glob("*.arrow")
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    path.write_bytes(data[: {"flipped": len(data), "cut": len(data) // 2, "empty": 0}[damage]])
    method = Method()
    assert rows(build(method)) == expected and method.calls == 3000
    assert f"{path}: damaged" in caplog.text
    assert rows(build(method)) == expected and method.calls == 3000
    caplog.clear()
    assert rows(build(method, overwrite=True)) == expected and method.calls == 6000 and not caplog.text


def test_a_process_that_is_killed_is_one_line_and_leaves_nothing(build, tmp_path):
    with pytest.raises(UserError, match="a process that builds features was killed"):
        build(Method(dies_at=1800), num_proc=2)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]
    assert len(build(Method())) == 3000


WORKERS = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor

sys.path.insert(0, {top!r})
from clue_utils.features import build

def work(seconds):
    time.sleep(seconds)
    return os.getpid()

with ProcessPoolExecutor(2, multiprocessing.get_context("fork"), build._begin_worker) as pool:
    print(*pool.map(work, [0.5, 0.5]), flush=True)
    time.sleep(3600)
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    program = WORKERS.format(top=str(TOP))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        workers = process.stdout.readline().split()
        process.kill()
    assert len(set(workers)) == 2
    while any(is_alive(pid) for pid in workers):
        time.sleep(0.05)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_cache_that_others_have_filled_need_not_be_writable(build, tmp_path, monkeypatch):
    expected = rows(build(Method()))
    method = Method()

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "FileLock", refuse)
    assert rows(build(method)) == expected and method.calls == 0
    with pytest.raises(UserError, match=f"{tmp_path}/cache: cannot keep features there .*CLUE_CACHE_DIR"):
        build(method, num_examples=10)


def test_features_are_a_sequence(build):
    found = build(Method(), num_examples=1100)  # three chunks
    assert len(found) == 1100 and rows(found)[513] == ([0, 1, 2], 513)
    for index in (0, 511, 512, 513, 1099, np.int64(1024), -1, -588, np.int32(-1100)):
        assert found[index]["label"] == index % 1100 and len(found[index]["input_ids"]) == index % 1100 % 7 + 1
    for cut in (slice(510, 515), slice(-2, None), slice(5, 2), slice(None, None, -400), slice(1098, 9000)):
        assert [row["label"] for row in found[cut]] == list(range(1100))[cut]
    for index in (1100, -1101, np.int64(5000)):
        with pytest.raises(IndexError):
            found[index]
    with pytest.raises(TypeError):
        found["label"]
    assert next(reversed(found))["label"] == 1099


def test_features_of_an_earlier_format_are_not_used(build, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr(feature_cache, "_CACHE_FORMAT", feature_cache._CACHE_FORMAT - 1)
        build(Method())
    method = Method()
    build(method)
    assert method.calls == 3000


class Choices(Method):
    """Two features for each example, each of three sequences and another list."""

    def encode(self, example):
        i = example["number"]
        return [{"input_ids": [[7] * (i % 3 + 1), [8, 9], [1] * (i % 5)], "extra": [i], "label": i}] * 2


def test_features_come_back_as_they_were_encoded(build):
    found = build(Choices(), num_examples=1030)
    assert len(found) == 2060 and found.names == ["input_ids", "extra", "label"]
    for i in (0, 1, 1023, 1024, 2047, 2059):
        number, row = i // 2, found[i]
        assert [ids.tolist() for ids in row["input_ids"]] == [[7] * (number % 3 + 1), [8, 9], [1] * (number % 5)]
        assert row["extra"].tolist() == [number] and row["label"] == number and type(row["label"]) is int
    assert found.column("label").tolist() == [i // 2 for i in range(2060)]
    # Three sequences, padded to the longest of them.
    expected = [3 * max(i // 2 % 3 + 1, 2, i // 2 % 5) for i in range(2060)]
    assert found.sizes().tolist() == expected and found.sizes().dtype == np.int64


def test_features_are_found_again_by_all_that_they_depend_on(build, caplog):
    method = Method()
    caplog.set_level("INFO", logger="clue_utils")
    first = build(method, 9)
    assert method.calls == 9 and f"TNEWS dev: 9 features built in {first.path}" in caplog.messages
    assert re.fullmatch(r"tnews-dev-[0-9a-f]{24}\.[0-9a-f]{16}\.arrow", first.path.name)
    assert build(method, 9).path == first.path and method.calls == 9
    assert f"TNEWS dev: 9 features from cache {first.path}" in caplog.messages
    others = [build(method, 9, **other).path for other in ({"task": "IFLYTEK"}, {"split": "train"}, {"sha256": "1"})]
    assert len({first.path, *others, build(Method(length=6), 9).path}) == 5
    assert build(method, 9, overwrite=True).path == first.path and method.calls == 9 + 3 * 9 + 9


def test_what_killed_builds_left_is_removed(build):
    path = build(Method(), 5).path
    leftover, another = (path.with_name(f".{stem}.{2**30}.tmp") for stem in (path.name.split(".")[0], "another"))
    path.rename(leftover)
    another.touch()
    assert build(Method(), 5).path == path and another.exists() and not leftover.exists()


def test_a_tokenizer_that_writes_other_ids_has_another_fingerprint(demo, tokenizer):
    again, cased = (load_tokenizer(str(demo / "model"), lower) for lower in (None, False))
    assert tokenizer_fingerprint(again) == tokenizer_fingerprint(tokenizer) != tokenizer_fingerprint(cased)


class Words:
    """What a fingerprint is taken of."""

    def __init__(self, vocab=("a", "b"), mask="[MASK]", do_lower_case=True, **basic: Any) -> None:
        self._vocab, self.special_tokens_map, self.truncation_side = vocab, {"mask_token": mask}, "right"
        self.do_lower_case, self.basic_tokenizer = do_lower_case, SimpleNamespace(**basic)

    cls_token_id, sep_token_id = 2, 3
    between = [3]

    def get_vocab(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self._vocab)}

    def build_inputs_with_special_tokens(self, first: list[int], second: list[int]) -> list[int]:
        return [2, *first, *self.between, *second, 3]

    def create_token_type_ids_from_sequences(self, first: list[int], second: list[int]) -> list[int]:
        return [0] * (len(first) + 1 + len(self.between)) + [1] * (len(second) + 1)


class OtherWords(Words):
    pass


def test_a_fingerprint_is_of_class_vocabulary_and_every_setting():
    cut_on_the_left = Words()
    cut_on_the_left.truncation_side = "left"
    apart = Words()
    apart.between = [3, 3]  # as SKEP's English models set two texts apart
    tokenizers = [
        Words(),
        OtherWords(),
        Words(vocab=("b", "a")),
        Words(mask="<mask>"),
        Words(do_lower_case=False),
        Words(tokenize_chinese_chars=True),
        Words(tokenize_chinese_chars=False),
        cut_on_the_left,
        apart,
        Words(never_split={"x", "y"}),
    ]
    assert len({tokenizer_fingerprint(tokenizer) for tokenizer in tokenizers}) == len(tokenizers)
    assert tokenizer_fingerprint(Words(never_split={"y", "x"})) == tokenizer_fingerprint(tokenizers[-1])
    without = Words()
    del without.basic_tokenizer, without.do_lower_case  # as other kinds of tokenizers
    assert re.fullmatch("[0-9a-f]{64}", tokenizer_fingerprint(without))
    # What others have cached is found: the keys of BERT's kind are not to change.
    assert tokenizer_fingerprint(Words()) == "6c1a5f27e56fc9a91bca8a4c931eb63db3532a1b725fc6d9f0d10cfa4ff5e9b5"
