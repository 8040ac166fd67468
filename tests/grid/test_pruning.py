"""The median stopping rule, and runs that it ends."""

from __future__ import annotations

import json

import pytest

import run_clue_classifier
from clue_utils.grid import pruning
from clue_utils.record import Record
from clue_utils.tasks import TASKS


def trial(scores, num_steps=400):
    """A finished trial with evaluations at equal distances."""
    step = num_steps // len(scores)
    history = [{"step": step * (i + 1), "accuracy": score} for i, score in enumerate(scores)]
    fields = {"task": "TNEWS", "metric": "accuracy", "num_steps": num_steps, "status": "finished", "history": history}
    settings = {"learning_rate": 3e-5, "batch_size": 8, "dropout": 0.1, "seed": 42}
    return fields | {"best_metric": max(scores), "hyper_parameters": settings}


FINISHED = [trial([0.2, 0.4, 0.5, 0.6]), trial([0.3, 0.5, 0.6, 0.6]), trial([0.1, 0.2, 0.3, 0.4], num_steps=1600)]


@pytest.fixture
def others(tmp_path):
    """Their records, read."""
    for i, fields in enumerate(FINISHED):
        write(tmp_path / str(i), fields)
    return [Record.read(tmp_path / str(i)) for i in range(len(FINISHED))]


def write(folder, fields):
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(fields))


def partly(scores, num_steps=800):
    """A trial that has run for half of its steps."""
    return trial(scores, num_steps // 2) | {"num_steps": num_steps}


def test_behind_the_median_of_running_averages(others):
    # Half of the training: the averages of the others are 0.3, 0.4 and 0.15.
    assert pruning.reason_to_stop(partly([0.1, 0.29]), others).startswith("median rule: best accuracy 29.00 %")
    assert pruning.reason_to_stop(partly([0.1, 0.3]), others) == ""
    assert pruning.reason_to_stop(partly([0.3, 0.1]) | {"best_metric": 0.1}, others) == ""  # gone on with after a kill


def test_no_rule_without_enough_trials_or_before_a_quarter(others):
    assert pruning.reason_to_stop(partly([0.0, 0.0]), others[:2]) == ""
    early = trial([0.0], 100) | {"num_steps": 800}
    assert pruning.reason_to_stop(early, others) == ""


def test_only_finished_trials_of_the_task_beside_the_run_count(tmp_path):
    write(tmp_path / "a", FINISHED[0])
    write(tmp_path / "b", FINISHED[1] | {"status": "running"})
    write(tmp_path / "c", FINISHED[2] | {"pruned": {"step": 100}})
    write(tmp_path / "d", FINISHED[2] | {"task": "AFQMC"})
    write(tmp_path / "own", FINISHED[2])
    write(tmp_path / "evaluated", {"task": "TNEWS", "status": "finished", "evaluation": {"accuracy": 0.5}})
    (tmp_path / "e").mkdir()
    (tmp_path / "e/result.json").write_text("{")
    (found,) = pruning.finished_trials(tmp_path / "own", TASKS["TNEWS"])
    assert found.folder == tmp_path / "a" and found.num_steps == 400
    assert found.history == ((100, 0.2), (200, 0.4), (300, 0.5), (400, 0.6))


def test_a_run_that_is_behind_ends_and_says_so(run_on_demo, tmp_path):
    for i in range(3):
        write(tmp_path / f"other-{i}", trial([0.9] * 6, 6))
    flags = "--task_name TNEWS --do_train --do_eval --max_steps 6 --save_steps 1 --batch_size 8 --max_seq_length 16"
    status, out, error = run_on_demo(run_clue_classifier.main, tmp_path / "own", *flags.split(), "--prune")
    assert status == 0, error
    result = json.loads((tmp_path / "own/result.json").read_text())
    assert result["status"] == "finished" and result["pruned"]["step"] == 2 == result["history"][-1]["step"]
    assert "stopped at step 2, median rule" in out
    assert not list((tmp_path / "own").glob("checkpoint-*"))
    # Without the flag it runs to its end.
    assert run_on_demo(run_clue_classifier.main, tmp_path / "full", *flags.split())[0] == 0
    full = json.loads((tmp_path / "full/result.json").read_text())
    assert "pruned" not in full and full["history"][-1]["step"] == 6
