"""``--keep best``: whose weights are dropped, and whose never."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_grid import NARROW, TOP, needs_parallel, place  # noqa: F401
from test_outcomes import put

import grid_search
import predict_and_zip
import run_trial
import slurm_job
from clue_utils.files import locked_folder
from clue_utils.grid import keep, outcomes
from clue_utils.report import collect, tables
from clue_utils.tasks import TASKS

TNEWS = TASKS["TNEWS"]


def with_weights(model: Path) -> set[str]:
    return {path.parent.name for path in model.glob("TNEWS/*/model.safetensors")}


def drop(model: Path, *planned: str) -> set[str]:
    """What is left after a call, of a search that asked for these too."""
    if planned:
        outcomes.add_to_plan(model, [f"TNEWS/{name}" for name in planned])
    before = with_weights(model)
    dropped = keep.drop_losers(model, TNEWS)
    assert {f"TNEWS/{name}" for name in before - with_weights(model)} == set(dropped)
    return with_weights(model)


def test_the_losers_weights_go_and_all_else_stays(tmp_path: Path) -> None:
    for name, score in (("1e-5_16_0.1_42", 0.7), ("2e-5_16_0.1_42", 0.9), ("3e-5_16_0.1_42", 0.8)):
        put(tmp_path, name, score)
    (tmp_path / "TNEWS" / "1e-5_16_0.1_42" / "dev_predictions.jsonl").touch()
    assert drop(tmp_path, "5e-5_16_0.1_42") == {"2e-5_16_0.1_42"}
    left = {path.name for path in (tmp_path / "TNEWS" / "1e-5_16_0.1_42").iterdir()}
    assert left >= {"result.json", "dev_predictions.jsonl"}
    # A later winner takes its place, a later loser not; the winner by score is the same as before.
    put(tmp_path, "5e-5_16_0.1_42", 0.95)
    assert drop(tmp_path) == {"5e-5_16_0.1_42"}
    put(tmp_path, "5e-5_32_0.1_42", 0.5)
    assert drop(tmp_path) == drop(tmp_path) == {"5e-5_16_0.1_42"}
    assert predict_and_zip.best_folders(tmp_path / "TNEWS", TNEWS) == [tmp_path / "TNEWS" / "5e-5_16_0.1_42"]
    (model,) = collect.read_models([str(tmp_path)], tmp_path)
    note = "weights are kept of TNEWS/5e-5_16_0.1_42; those of 4 more finished trials are not there."
    assert any(line.endswith(note) for line in tables.notes([model]))


@pytest.mark.parametrize("status", ["running", "stopped", "failed", "trained"])
def test_an_unfinished_trial_is_not_touched_nor_taken_for_the_best(tmp_path: Path, status: str) -> None:
    put(tmp_path, "1e-5_16_0.1_42", 0.9, status=status)
    put(tmp_path, "2e-5_16_0.1_42", 0.8)
    put(tmp_path, "3e-5_16_0.1_42", 0.7)
    put(tmp_path, "5e-5_16_0.1_42", 0.99, pruned={"step": 1, "rule": "r"})
    assert drop(tmp_path) == {"1e-5_16_0.1_42", "2e-5_16_0.1_42"}


def test_seeds_stay_until_their_setting_is_done_and_then_with_the_leader(tmp_path: Path) -> None:
    first, second, third = ([f"{rate}_16_0.1_{seed}" for seed in (1, 2)] for rate in ("1e-5", "2e-5", "3e-5"))
    put(tmp_path, first[0], 0.60)
    put(tmp_path, second[0], 0.90)
    # The other seed of each is still to come, or is at work, and may make it the best by the mean.
    assert drop(tmp_path, *first, *second) == {first[0], second[0]}
    put(tmp_path, first[1], 0.80, status="running")
    assert drop(tmp_path) == {first[0], first[1], second[0]}
    (tmp_path / "TNEWS" / first[1] / "result.json").unlink()
    (tmp_path / "TNEWS" / first[1] / "model.safetensors").unlink()
    (tmp_path / "TNEWS" / first[1]).rmdir()
    put(tmp_path, first[1], 0.61)
    put(tmp_path, second[1], 0.50)
    assert drop(tmp_path) == {*second}  # leads by both
    # One leads by the best seed, another by the mean.
    put(tmp_path, third[0], 0.80)
    put(tmp_path, third[1], 0.81)
    assert drop(tmp_path) == {*second, *third}


def test_the_best_that_has_weights_never_goes(tmp_path: Path) -> None:
    put(tmp_path, "1e-5_16_0.1_42", 0.95, weights=False)
    put(tmp_path, "2e-5_16_0.1_42", 0.8)
    put(tmp_path, "3e-5_16_0.1_42", 0.7)
    assert drop(tmp_path) == {"2e-5_16_0.1_42"}
    # With seeds: the best with weights is of one setting, the best mean of another.
    put(tmp_path, "5e-5_32_0.1_1", 0.92)
    put(tmp_path, "5e-5_32_0.1_2", 0.10)
    assert drop(tmp_path) == {"2e-5_16_0.1_42", "5e-5_32_0.1_1", "5e-5_32_0.1_2"}


def test_the_mean_of_a_setting_that_is_not_done_beats_none(tmp_path: Path) -> None:
    put(tmp_path, "1e-5_16_0.1_1", 0.95)
    put(tmp_path, "2e-5_16_0.1_1", 0.80)
    put(tmp_path, "3e-5_16_0.1_1", 0.70)
    assert drop(tmp_path, "1e-5_16_0.1_1", "1e-5_16_0.1_2") == {"1e-5_16_0.1_1", "2e-5_16_0.1_1"}


def test_where_a_run_is_at_work_or_the_plan_is_damaged_nothing_goes(tmp_path: Path) -> None:
    put(tmp_path, "1e-5_16_0.1_42", 0.9)
    put(tmp_path, "2e-5_16_0.1_42", 0.8)
    both = with_weights(tmp_path)
    (tmp_path / "plan.json").write_text("{")
    assert drop(tmp_path) == both
    (tmp_path / "plan.json").write_text(json.dumps({"trials": []}))
    with locked_folder(tmp_path / "TNEWS" / "2e-5_16_0.1_42"):
        assert drop(tmp_path) == both
    assert drop(tmp_path) == {"1e-5_16_0.1_42"}


@needs_parallel
def test_a_search_hands_it_to_its_trials(place) -> None:  # noqa: F811
    put(place.folder / "results/m", "5e-5_64_0.1_42", 0.4)  # the stand-in scores 0.5 and keeps no weights
    put(place.folder / "results/m", "5e-5_32_0.1_42", 0.45)
    words = ["m", "--cpu_slots", "1", "--tasks", "TNEWS", *NARROW]
    assert place.call(grid_search, *words)[0] == 0
    assert len(with_weights(place.folder / "results/m")) == 2
    status, out, err = place.call(grid_search, *words, "--keep", "best")
    assert status == 0 and "2 finished, 0 failed" in out, err
    assert with_weights(place.folder / "results/m") == {"5e-5_32_0.1_42"}


def test_a_trial_and_a_slurm_job_drop_too(place) -> None:  # noqa: F811
    model = place.folder / "results/m"
    for number, best in enumerate(("2e-5_32_0.1_42", "3e-5_32_0.1_42")):
        put(model, f"{2 + number}e-5_64_0.1_42", 0.4)
        put(model, best, 0.6 + number / 10)
        if number:
            slurm = {"SLURM_SUBMIT_DIR": str(TOP), "MODEL": "m", "SLURM_ARRAY_TASK_ID": "0", "DEVICE": "cpu"}
            assert place.call(slurm_job, "--tasks", "TNEWS", "--keep", "best", *NARROW, **slurm)[0] == 0
        else:
            trial = "m TNEWS 1e-5 16 0.1 42 1".split()
            assert place.call(run_trial, "--keep", "best", *trial, DEVICE="cpu", DRY_RUN="1")[0] == 0
            assert len(with_weights(model)) == 2
            assert place.call(run_trial, "--keep", "best", *trial, DEVICE="cpu")[0] == 0
        assert with_weights(model) == {best}
