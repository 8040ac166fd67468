"""One reading of a trial's record, and one winner, for the report, the zip and pruning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import predict_and_zip
from clue_utils.grid import pruning
from clue_utils.grid.outcomes import read_trials, winner
from clue_utils.report import collect
from clue_utils.tasks import TASKS

BEST, SECOND = "1e-5_16_0.1_42", "2e-5_16_0.1_42"


def put(model: Path, name: str, score: float, /, weights: bool = True, **more: Any) -> None:
    folder = model / "TNEWS" / name
    folder.mkdir(parents=True)
    rate, batch_size, dropout, seed = map(float, name.split("_"))
    settings = {"learning_rate": rate, "batch_size": int(batch_size), "dropout": dropout, "seed": int(seed)}
    fields = {
        "task": "TNEWS",
        "model": "m",
        "metric": "accuracy",
        "status": "finished",
        "num_steps": 3,
        "hyper_parameters": settings,
        "num_processes": 1,
        "num_examples": {"dev": 100},
        "data_sha256": {"dev": "d"},
        "history": [{"step": 3, "accuracy": score, "loss": 1.0}],
        "best_metric": score,
        "best_metrics": {"accuracy": score, "loss": 1.0},
        "wall_time": 1.0,
    }
    (folder / "result.json").write_text(json.dumps(fields | more))
    if weights:
        (folder / "model.safetensors").write_bytes(b"")


def damage(model: Path, name: str) -> None:
    (model / "TNEWS" / name / "result.json").write_text("{")


# What is in the folder -> its winner, the trial that the zip is made of, and what the zip says of it.
CASES: dict[str, tuple[Any, str | None, str | None, str]] = {
    "both are whole": (lambda m: (put(m, BEST, 0.9), put(m, SECOND, 0.8)), BEST, BEST, ""),
    "the best kept no checkpoint": (
        lambda m: (put(m, BEST, 0.9, weights=False), put(m, SECOND, 0.8)),
        BEST,
        SECOND,
        f"{BEST} (accuracy 90.00 %) is the best but kept no checkpoint",
    ),
    "the best's time is a text": (
        lambda m: (put(m, BEST, 0.9, wall_time="long"), put(m, SECOND, 0.8)),
        SECOND,
        SECOND,
        f"{BEST}/result.json is not a result of these scripts (wall_time is long)",
    ),
    "an impossible score": (
        lambda m: (put(m, BEST, 1.5), put(m, SECOND, 0.8)),
        SECOND,
        SECOND,
        "best_metric is not between 0 and 1",
    ),
    "a damaged record": (
        lambda m: (put(m, BEST, 0.9), put(m, SECOND, 0.95), damage(m, SECOND)),
        BEST,
        BEST,
        f"{SECOND}/result.json is damaged",
    ),
    "the development set was learnt": (
        lambda m: (
            put(m, BEST, 0.9, best_metric=None, hyper_parameters={"train_on_dev": True}),
            put(m, SECOND, 0.8),
        ),
        SECOND,
        SECOND,
        f"{BEST} was trained on the development set too: it has no score to compare",
    ),
    "equals": (lambda m: (put(m, "5e-5_64_0.1_7", 0.9), put(m, SECOND, 0.9), put(m, BEST, 0.9)), BEST, BEST, ""),
    "another task's": (lambda m: (put(m, BEST, 0.9, task="CSL"), put(m, SECOND, 0.8)), SECOND, SECOND, "its task is"),
    "unfinished and pruned": (
        lambda m: (
            put(m, BEST, 0.9, status="running"),
            put(m, "3e-5_16_0.1_42", 0.9, status="trained"),
            put(m, "5e-5_16_0.1_42", 0.9, pruned={"step": 1, "rule": "r"}),
            put(m, SECOND, 0.8),
        ),
        SECOND,
        SECOND,
        "",
    ),
    "none has finished": (lambda m: put(m, BEST, 0.9, status="running"), None, None, ""),
}


@pytest.mark.parametrize("case", CASES)
def test_report_zip_and_pruning_go_by_one_reading(tmp_path, capsys, case):
    build, best, zipped, said = CASES[case]
    build(tmp_path)
    folder, task = tmp_path / "TNEWS", TASKS["TNEWS"]
    found, damages = read_trials(folder, task)
    won = winner(found)
    assert (won and won.path.name) == best
    (model,) = collect.read_models([str(tmp_path)], tmp_path)
    reported = model.winners["TNEWS"]
    assert (reported and reported.path) == (won and won.path) and list(model.damages) == damages
    finished = [trial for trial in found if trial.status == "finished"]
    assert len(pruning.finished_trials(folder / "own", task)) == len(finished)
    # The zip says what it passes over.
    assert predict_and_zip.best_folders(folder, task) == ([folder / zipped] if zipped else [])
    err = capsys.readouterr().err
    assert said in err if said else not err
    if zipped:
        assert predict_and_zip.describe(folder / zipped).startswith(f"{folder / zipped} (accuracy ")
