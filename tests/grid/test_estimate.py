"""What a search will cost: samples of the data, what is read of a trial on one, the sums. Training is stood in for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import grid_search
from clue_utils.data.examples import load_examples
from clue_utils.errors import UserError
from clue_utils.grid import estimate, schedule, trial
from clue_utils.grid.search_space import Trial
from clue_utils.tasks import TASKS

TNEWS = [Trial("TNEWS", 1e-5, size, 0.1, 42, 1) for size in (32, 16)]
C3 = [Trial("C3", 1e-5, 24, 0.1, seed, 4) for seed in (1, 2)]
MB = 10**6


@pytest.mark.parametrize("name", TASKS)
def test_a_sample_is_in_the_official_layout(tmp_path: Path, few_examples: Path, name: str) -> None:
    for split in ("train", "dev"):
        whole = load_examples(TASKS[name], split, few_examples)
        share = estimate.write_sample(TASKS[name], split, str(few_examples), tmp_path, 6)
        part = load_examples(TASKS[name], split, tmp_path)
        assert 0 < len(part) <= len(whole) and share >= 1
        # Records without an agreed answer are counted before they are left out.
        assert len(part) * share == pytest.approx(len(whole), rel=0.35)
        # All of what is there where that is not too much.
        (tmp_path / "all").mkdir(exist_ok=True)
        assert estimate.write_sample(TASKS[name], split, str(few_examples), tmp_path / "all", 10**6) == 1.0
        assert [*load_examples(TASKS[name], split, tmp_path / "all")] == [*whole]
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="no files of"):
        estimate.write_sample(TASKS[name], "train", str(tmp_path / "none"), tmp_path / "x", 6)


def leave(folder: Path, cache: Path, seconds_per_step: float = 0.5) -> None:
    """What a trial on a sample leaves: the first updates ten times as slow, the first evaluation too."""
    folder.mkdir(parents=True)
    (folder / "trial.log").write_text(
        "x train: 600 features built in y\nx dev: 120 features built in z\n"
        "eval loss: 1.0, acc: 0.5, eval done total : 3.0 s\neval loss: 1.0, acc: 0.5, eval done total : 2.0 s\n"
    )
    slow = seconds_per_step * 10
    lines = [{"kind": "train", "step": 5 * i, "steps_per_second": 1 / (slow if i == 1 else seconds_per_step)}
             for i in (1, 2, 3)]  # fmt: skip
    lines.insert(2, {"kind": "eval", "step": 15, "accuracy": 0.5})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "model.safetensors").write_bytes(bytes(MB))
    (folder / "vocab.txt").write_bytes(bytes(1000))
    for split, size in (("train", 100), ("dev", 10)):
        (cache / "features").mkdir(parents=True, exist_ok=True)
        (cache / "features" / f"task-{split}-ab.cd.arrow").write_bytes(bytes(size))


def test_what_is_read_of_a_trial(tmp_path: Path) -> None:
    leave(tmp_path / "run", tmp_path)
    found = estimate.read_measured(tmp_path / "run", 16, 30.0, {"train": 100.0, "dev": 20.0}, tmp_path)
    assert found.seconds_per_step == pytest.approx(0.5)  # without the first, slow ones
    assert found.seconds_per_evaluation == pytest.approx(2.0 * 20)
    assert found.overhead == pytest.approx(30.0 - 15 * 0.5 - 3.0 - 2.0)
    assert found.num_rows == 60000 and found.features == 100 * 100 + 10 * 20
    assert found.weights == MB and found.rest >= 1000


def measured(**more: Any) -> estimate.Measured:
    fields: dict[str, Any] = {"batch_size": 16, "seconds_per_step": 0.1, "seconds_per_evaluation": 5.0}
    fields |= {"overhead": 20.0, "num_rows": 1600, "weights": MB, "rest": 1000, "features": 100}
    return estimate.Measured(**fields | more)


def test_a_trial_costs_its_steps_and_evaluations() -> None:
    cost = estimate.cost_of(trial.make_plan("m", TNEWS[1], [], ()), measured())
    # Three epochs of 100 steps; an evaluation each 100, and one of the best.
    assert (cost.num_steps, cost.num_evaluations) == (300, 4)
    assert cost.seconds == pytest.approx(300 * 0.1 + 4 * 5 + 20) and cost.hours == cost.seconds / 3600
    double = estimate.cost_of(trial.make_plan("m", TNEWS[0], [], ()), measured())
    assert (double.num_steps, double.num_evaluations) == (150, 3)
    assert double.seconds == pytest.approx(300 * 0.1 + 3 * 5 + 20)
    # Reading comprehension is evaluated once an epoch; a trial on four GPUs costs four times its hours.
    read = estimate.cost_of(trial.make_plan("m", C3[0], [], "0123"), measured(batch_size=24, num_rows=240))
    assert (read.num_steps, read.num_evaluations) == (80, 9) and read.hours == pytest.approx(4 * read.seconds / 3600)
    few = estimate.cost_of(trial.make_plan("m", TNEWS[1], ["--max_steps", "7"], ()), measured())
    assert (few.num_steps, few.num_evaluations) == (7, 2)
    # Weights and one checkpoint of three times their size; of a long training three.
    assert cost.peak == 4 * MB + 1000
    long = estimate.cost_of(trial.make_plan("m", TNEWS[1], [], ()), measured(seconds_per_step=60))
    assert long.peak == 10 * MB + 1000


def test_jobs_take_the_first_slot_that_is_free() -> None:
    assert estimate.end_of([3, 1, 1, 2], 2) == 4
    assert estimate.end_of([5], 3) == 5 and estimate.end_of([1, 2, 3], 1) == 6


def stand_in(monkeypatch: pytest.MonkeyPatch, status: int = 0) -> list[trial.Plan]:
    ran = []

    def run(plan: trial.Plan, asks: bool = True) -> int:
        ran.append(plan)
        assert not asks and Path(plan.given["data_dir"]).is_dir() and plan.given["max_steps"] == 15
        assert not plan.given["do_predict"] and not plan.given["prune"]
        leave(plan.folder, Path(os.environ["CLUE_CACHE_DIR"]))
        print("TNEWS/1e-5: failed: no such thing")
        return status

    monkeypatch.setattr(trial, "run", run)
    return ran


def test_a_search_is_summed_up(tmp_path: Path, few_examples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("CLUE_CACHE_DIR", "as it was")
    ran = stand_in(monkeypatch)
    flags = ["--data_dir", str(few_examples), "--do_predict", "--prune"]
    done = tmp_path / "results" / "m" / Trial("TNEWS", 2e-5, 16, 0.1, 42, 1).folder
    done.mkdir(parents=True)
    fields = {"task": "TNEWS", "model": "m", "metric": "accuracy", "status": "finished", "best_metric": 0.5}
    (done / "result.json").write_text(json.dumps(fields | {"max_steps": -1}))
    trials = [*TNEWS, *C3, Trial("TNEWS", 2e-5, 16, 0.1, 42, 1)]
    said: list[str] = []
    found = estimate.estimate(schedule.Search("m", trials, flags, tuple("01234567")), said.append)
    assert said == ["[1/2] TNEWS", "[2/2] C3"] and os.environ["CLUE_CACHE_DIR"] == "as it was"
    # The smallest batch of each task that is not finished, on as many GPUs as its trials take.
    assert [(plan.trial.batch_size, len(plan.gpus)) for plan in ran] == [(16, 1), (24, 4)]
    assert not any(plan.folder.exists() for plan in ran) and found.num_finished == 1 and len(found.costs) == 4
    costs = {one: found.costs[one] for one in (*TNEWS, *C3)}
    # C3's two share the eight GPUs at once, then the two of TNEWS run at once.
    slower = max(costs[one].seconds for one in TNEWS)
    assert found.seconds == pytest.approx(max(costs[one].seconds for one in C3) + slower)
    rest = sum(one.features for one in found.measured.values()) + sum(
        found.measured[one.task].rest for one in found.costs
    )
    assert found.disk == 4 * MB + rest
    assert found.disk_of_best == 3 * MB + rest  # TNEWS one, C3 its two seeds
    assert found.peak == sum(costs[one].peak for one in C3)


def test_the_script_says_it_and_runs_nothing(
    tmp_path: Path, few_examples: Path, monkeypatch: pytest.MonkeyPatch, run_script: Any
) -> None:
    monkeypatch.setenv("RESULTS_DIR", "")
    monkeypatch.setattr(trial, "require_known_flags", lambda *_: None)
    monkeypatch.setattr(schedule, "require_parallel", lambda: None)
    words = ["m", "--cpu_slots", "2", "--results", tmp_path / "results", "--tasks", "TNEWS"]
    ran = stand_in(monkeypatch)
    status, out, err = run_script(grid_search.main, *words, "--estimate", "--", "--data_dir", few_examples)
    assert status == 0 and err == "" and len(ran) == 1 and not (tmp_path / "results").exists()
    for part in ("\ntrials: 12\n", "\nCPU slot hours: ", " hours in 2 slots of the CPU\n", " with --keep best; up to "):
        assert part in out
    assert " 0.500 " in out and "TNEWS/1e-5: failed" not in out
    stand_in(monkeypatch, status=2)
    status, _, err = run_script(grid_search.main, *words, "--estimate", "--", "--data_dir", few_examples)
    assert status == 2 and err.count("\n") == 1
    assert err.startswith("error: TNEWS: the trial that is measured failed: TNEWS/1e-5: failed: no such thing")
    monkeypatch.setenv("DRY_RUN", "1")
    assert run_script(grid_search.main, *words, "--estimate")[2].endswith("unset DRY_RUN\n")
