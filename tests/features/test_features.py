"""The cache of features: found again, found damaged, and built by processes that may die."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from clue_utils import files, tasks
from clue_utils.data.examples import Examples
from clue_utils.errors import UserError
from clue_utils.features import build as feature_cache
from clue_utils.features.batches import collate, length_ordered_batches
from clue_utils.features.build import build_features

TOP = Path(__file__).parents[2]


class Method:
    """Counts the examples it encodes in this process."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.dies_at, self.parent, self.calls = dies_at, os.getpid(), 0

    def settings(self):
        return {"method": "test"}

    def encode(self, example):
        self.calls += 1
        if example["number"] == self.dies_at and os.getpid() != self.parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return [{"input_ids": list(range(example["number"] % 7 + 1)), "label": example["number"]}]


@pytest.fixture
def build(tokenizer, tmp_path):
    def build(method, num_examples=3000, num_proc=1, overwrite=False):
        rows = [{"number": i} for i in range(num_examples)]
        examples = Examples(tasks.get_task("TNEWS"), "dev", rows, (), f"{num_examples}", 0)
        return build_features(examples, method, tokenizer, tmp_path / "cache", num_proc, overwrite)

    return build


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


def test_what_a_killed_build_left_is_cleared_away(build, tmp_path):
    build(Method())
    (path,) = (tmp_path / "cache").glob("*.arrow")
    leftover = path.with_name(f".{path.name.split('.')[0]}.{2**30}.tmp")
    path.rename(leftover)
    build(Method())
    assert path.exists() and not leftover.exists()


def test_batches_hold_a_limited_number_of_tokens():
    sizes = np.array([3, 90, 4, 40, 5, 39, 200, 3])
    batches = [batch.tolist() for batch in length_ordered_batches(sizes, batch_size=3, max_tokens=100)]
    assert batches == [[6], [1], [3, 5], [4, 2, 0], [7]]


def test_rows_are_padded_to_a_multiple_but_not_beyond_the_limit():
    rows = [{"input_ids": np.array([5, 6, 7]), "label": 1}, {"input_ids": np.array([8]), "label": 0}]
    plain, padded = collate(rows, 9), collate(rows, 9, pad_to_multiple_of=8, max_length=128)
    assert plain["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert padded["input_ids"].shape == padded["attention_mask"].shape == (2, 8)
    assert padded["input_ids"][1].tolist() == [8] + [9] * 7 and padded["attention_mask"].sum() == 4
    assert collate(rows, 9, pad_to_multiple_of=8, max_length=5)["input_ids"].shape == (2, 5)
    choices = [{"input_ids": [np.array([1, 2]), np.array([3])], "label": 0}]
    assert collate(choices, 0, pad_to_multiple_of=4, max_length=64)["input_ids"].tolist() == [
        [[1, 2, 0, 0], [3, 0, 0, 0]]
    ]


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
