"""A run of the Trainer script that is killed, wherever that may be, and gone on with ends as one that never was."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from killing import in_a_process

TOP = Path(__file__).parents[2]
# Log lines, evaluations and checkpoints fall on different steps; an epoch has a batch too many for its steps.
FLAGS = "--dataset tnews --do_train --do_eval --do_predict --max_steps 7 --save_steps 2 --logging_steps 3"
FLAGS += " --save_total_limit 2 --per_device_train_batch_size 4 --gradient_accumulation_steps 2 --max_seq_length 16"
FLAGS += " --learning_rate 1e-3 --num_proc 1 --device cpu"
# What ends in these is a time, a speed or a size of memory.
MEASURED = re.compile(r".*(_runtime|_per_second|_seconds|wall_time|begun|ended|peak_memory_bytes)")
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate")


def work(demo: Path, folder: Path, *words: str) -> None:
    common = ("--model_name_or_path", demo / "model", "--data_dir", demo / "data", "--output_dir", folder)
    importlib.import_module("run_clue_classifier_trainer").main(
        [str(word) for word in (*FLAGS.split(), *common, *words)]
    )


def watch_changes(folder: Path, before: Callable[[int], None]) -> None:
    """Have ``before`` called with a number, from 1, before each change to a file or folder below ``folder``.

    For the rest of this process.
    """
    number = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal number
        writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
        if (writes or event in CHANGES) and str(args[0]).startswith(str(folder)):
            number += 1
            before(number)

    sys.addaudithook(hook)


def count_changes(demo: Path, folder: Path, *words: str) -> int:
    """Do a run unbroken; return how many changes to files and folders there were."""
    path = folder.with_name(folder.name + ".count")

    def counting() -> None:
        last = [0]
        watch_changes(folder, lambda number: last.__setitem__(0, number))
        work(demo, folder, *words)
        path.write_text(str(last[0]))

    assert in_a_process(counting) == 0
    return int(path.read_text())


def run_until(demo: Path, folder: Path, change: int, *words: str) -> int:
    """Do a run that is killed at a change; return its status."""

    def dying() -> None:
        def die(number: int) -> None:
            if number == change:
                os.kill(os.getpid(), signal.SIGKILL)

        watch_changes(folder, die)
        work(demo, folder, *words)

    return in_a_process(dying)


def without_measures(value: Any, folder: Path) -> Any:
    """A JSON value without times and sizes, and with the same words for the folder wherever it is."""
    if isinstance(value, dict):
        return {key: without_measures(item, folder) for key, item in value.items() if not MEASURED.fullmatch(key)}
    if isinstance(value, list):
        return [without_measures(item, folder) for item in value]
    return value.replace(str(folder), "FOLDER") if isinstance(value, str) else value


def outcome(folder: Path) -> dict[str, Any]:
    """Every file of a run but VisualDL's: JSON as its content without measures, others as their digest."""
    files: dict[str, Any] = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_dir():
            files[name] = "folder"
        elif "visualdl" in name or path.name == ".lock":
            continue
        elif path.suffix in (".json", ".jsonl") and "predict" not in name:
            text = path.read_text(encoding="utf-8")
            values = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
            files[name] = without_measures(values, folder)
        else:
            files[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return files


def check(demo: Path, folder: Path) -> None:
    """Kill a run in each of its thirds, at another place each time, and go on with it: it ends as an unbroken one."""
    whole = folder / "whole"
    num_changes = count_changes(demo, whole)
    expected = outcome(whole)
    assert {name for name in expected if "/" not in name and "checkpoint" in name} == {"checkpoint-6", "checkpoint-7"}
    for third in range(3):
        killed = folder / str(third)
        change = random.randint(*(1 + (third + end) * (num_changes - 1) // 3 for end in (0, 1)))
        assert run_until(demo, killed, change) == -signal.SIGKILL
        assert in_a_process(partial(work, demo, killed)) == 0
        found = outcome(killed)
        differing = {name for name in {*found, *expected} if found.get(name) != expected.get(name)}
        assert not differing, f"killed at change {change} of {num_changes}: {differing}"


def test_killed_runs_end_as_if_they_never_were(demo, tmp_path, warm_python):
    """In a process that has computed nothing: a fork of one that has may wait for threads that it does not have."""
    folders = (TOP, *(TOP / name for name in ("classification", "scripts", "tests")))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))}
    command = [warm_python, "-W", "ignore", __file__, demo, tmp_path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    check(Path(sys.argv[1]), Path(sys.argv[2]))
