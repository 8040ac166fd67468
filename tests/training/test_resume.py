"""A run that is stopped and started again ends as one that never was."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import paddle
import pytest

import run_c3
import run_chid
import run_clue_classifier
import run_clue_classifier_trainer
import run_cmrc2018
from clue_utils.files import locked_folder
from clue_utils.models.heads import HEADS
from clue_utils.training import checkpoints, session
from demo.records import make_data, sizes_for
from killing import kill_before_change

HEAD = HEADS["classification"]
FLAGS = "--task_name TNEWS --do_train --max_steps 60 --save_steps 10 --logging_steps 5 --batch_size 8"
FLAGS += " --max_seq_length 24 --learning_rate 1e-3 --checkpoint_minutes 0"


@pytest.fixture(scope="module")
def train(run_on_demo, tmp_path_factory):
    """Eight steps an epoch, and evaluations of one batch."""
    data = tmp_path_factory.mktemp("data") / "data"
    make_data(data, sizes=sizes_for(64))
    flags = (*FLAGS.split(), "--data_dir", data)
    return lambda output, *words: run_on_demo(run_clue_classifier.main, output, *flags, *words)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, train):
    output = tmp_path_factory.mktemp("unbroken")
    assert train(output)[0] == 0
    return output


class Killed(BaseException):
    """Stands for a SIGKILL: nothing catches it."""


@pytest.fixture
def stopped(train, tmp_path, monkeypatch):
    """An output folder whose run was killed just after the checkpoint of step 40, before its evaluation."""
    save = checkpoints.save

    def save_and_die(folder: Path, step, *rest):
        save(folder, step, *rest)
        if step == 40:
            raise Killed

    monkeypatch.setattr(checkpoints, "save", save_and_die)
    with pytest.raises(Killed):
        train(tmp_path)
    monkeypatch.undo()
    return tmp_path


def outcome(folder: Path) -> tuple:
    result = json.loads((folder / "result.json").read_text())
    for name in ("wall_time", "begun", "ended", "peak_memory_bytes"):
        del result[name]
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    curves = [(m["kind"], m["step"], m["loss"]) for m in metrics]
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    return weights, curves, result


def test_going_on_ends_with_the_same_numbers(train, stopped, unbroken):
    status, out, err = train(stopped)
    assert status == 0, err
    assert "going on from" in out and "checkpoint-40" in out and "global step 45/60" in out and "step 35/" not in out
    assert outcome(stopped) == outcome(unbroken)
    assert ("train", 60) in {(kind, step) for kind, step, _ in outcome(stopped)[1]}  # losses compared to the last digit
    assert not list(stopped.glob("checkpoint-*"))


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(train, stopped, unbroken, file, damage):
    path = stopped / "checkpoint-40" / file
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
    else:
        path.unlink()
    status, out, err = train(stopped)
    assert status == 0, err
    assert "checkpoint-40 is damaged" in out and "going on from" in out and "checkpoint-39" in out
    assert outcome(stopped) == outcome(unbroken)


def names_of_checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint-*"))


def signal_at(call, number, times=1):
    """A function of a model and a batch that also sends this process a signal, at one of its calls."""
    calls = []

    def wrap(function):
        def sending(model, batch):
            calls.append(1)
            if call <= len(calls) < call + times:
                os.kill(os.getpid(), number)
            return function(model, batch)

        return sending

    return wrap


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize(
    ("function", "call", "step"),
    [("loss", 1, 1), ("loss", 17, 17), ("loss", 20, 20), ("forward", 2, 20)],
    ids=["first step", "step", "step before an evaluation", "evaluation"],
)
def test_a_signal_leaves_a_checkpoint_to_go_on_from(
    train, unbroken, tmp_path, monkeypatch, function, call, step, number
):
    changed = replace(HEAD, **{function: signal_at(call, number)(getattr(HEAD, function))})
    monkeypatch.setattr(session, "HEADS", {"classification": changed})
    status, out, err = train(tmp_path)
    assert status == 128 + number, err
    assert err == f"stopped by {number.name}; the same command goes on from where it was\n"
    # The checkpoint before this one is kept too.
    assert names_of_checkpoints(tmp_path) == sorted(f"checkpoint-{s}" for s in (step - 1, step) if s)
    monkeypatch.undo()
    assert train(tmp_path)[0] == 0
    assert outcome(tmp_path) == outcome(unbroken)


def test_a_second_ctrl_c_ends_at_once(train, tmp_path, monkeypatch):
    loss = signal_at(17, signal.SIGINT, times=2)(signal_at(17, signal.SIGINT)(HEAD.loss))
    monkeypatch.setattr(session, "HEADS", {"classification": replace(HEAD, loss=loss)})
    status, _, err = train(tmp_path)
    assert status == 130 and err == "interrupted\n"
    assert names_of_checkpoints(tmp_path) == ["checkpoint-15", "checkpoint-16"]


def test_a_clock_that_jumps_back_changes_nothing(train, unbroken, tmp_path, monkeypatch):
    now = iter(range(2_000_000_000, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    assert train(tmp_path)[0] == 0
    assert outcome(tmp_path) == outcome(unbroken)
    assert 0 < json.loads((tmp_path / "result.json").read_text())["wall_time"] < 600


def test_other_settings_are_refused_with_the_difference(train, stopped):
    status, _, err = train(stopped, "--learning_rate", "2e-3")
    assert status == 2 and "learning_rate 0.001 there, 0.002 now" in err and "--overwrite_output_dir" in err
    status, out, _ = train(stopped, "--learning_rate", "2e-3", "--overwrite_output_dir", "--max_steps", "2")
    assert status == 0 and "going on" not in out


def test_checkpoints_that_a_kill_left_behind_are_removed(train, tmp_path, monkeypatch):
    def die(_: Path) -> None:
        raise Killed

    monkeypatch.setattr(checkpoints, "remove_all", die)
    with pytest.raises(Killed):
        train(tmp_path)
    monkeypatch.undo()
    assert names_of_checkpoints(tmp_path)
    (tmp_path / "checkpoint-7").mkdir()  # as of the Trainer
    status, out, _ = train(tmp_path)
    assert status == 0 and "trained already" in out
    assert names_of_checkpoints(tmp_path) == ["checkpoint-7"]


def test_a_kill_at_any_change_of_checkpoints_leaves_none_that_is_not_whole(tmp_path):
    model = paddle.nn.Linear(1, 1)
    optimizer = paddle.optimizer.AdamW(parameters=model.parameters())

    def job(folder):
        checkpoints.save(folder, 6, model, optimizer, {"is_due": False, "run": {}, "scaler": {}})
        checkpoints.remove_all(folder)

    for number in itertools.count(1):
        folder = tmp_path / str(number)
        foreign = folder / "checkpoint-900"
        foreign.mkdir(parents=True)
        for step in (2, 4, 6):
            checkpoints.save(folder, step, model, optimizer, {"is_due": False, "run": {}, "scaler": {}})
        was_killed = kill_before_change(number, partial(job, folder))
        with locked_folder(folder):
            there = {path for path in folder.iterdir() if path.name not in (".lock", foreign.name)}
            found = checkpoints.find_latest(folder)
            assert there <= {folder / "checkpoint-4", folder / "checkpoint-6"} and foreign.is_dir()
            assert found is not None or not there
            checkpoints.remove_all(folder)
        assert {path.name for path in folder.iterdir()} == {".lock", foreign.name}
        if not was_killed:
            break
    assert number > 15


def test_a_finished_run_is_not_done_again(train, unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "model.safetensors").stat().st_mtime_ns
    status, out, _ = train(tmp_path, "--do_predict")
    assert status == 0 and "trained already" in out and "global step" not in out
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == before
    assert (tmp_path / "tnews11_predict.json").is_file()


def test_another_task_s_training_is_not_overwritten_by_a_prediction(run_script, demo, unbroken, tmp_path):
    words = f"--task_name CSL --device cpu --do_train --max_steps 1 --output_dir {tmp_path} --data_dir {demo / 'data'}"
    assert run_script(run_clue_classifier.main, *words.split(), "--model_name_or_path", demo / "model")[0] == 0
    words = f"--task_name CSL --device cpu --do_predict --output_dir {unbroken} --data_dir {demo / 'data'}"
    status, _, err = run_script(run_clue_classifier.main, *words.split(), "--model_name_or_path", tmp_path)
    assert status == 2 and "holds the training run of TNEWS" in err


def test_a_second_run_in_the_same_folder_is_refused(train, tmp_path):
    with locked_folder(tmp_path / "output"):
        status, _, err = train(tmp_path / "output")
    line = f"error: {tmp_path}/output: another run is writing there; wait for it or choose another --output_dir\n"
    assert (status, err) == (2, line)
    assert not (tmp_path / "output").exists()


def test_a_look_at_an_unfinished_run_does_not_finish_it(run_on_demo, train, stopped, unbroken):
    words = "--task_name TNEWS --do_eval --max_seq_length 24".split()
    status, _, error = run_on_demo(run_clue_classifier.main, stopped, *words, model=stopped)
    assert status == 0, error
    looked_at = json.loads((stopped / "result.json").read_text())
    assert looked_at["status"] == "running" and "accuracy" in looked_at["evaluation"]
    status, out, _ = train(stopped)
    assert status == 0 and "checkpoint-40" in out
    resumed, expected = outcome(stopped), outcome(unbroken)
    del resumed[2]["evaluation"]
    assert resumed == expected


def test_a_folder_that_holds_an_evaluation_alone_can_be_trained_in(run_on_demo, train, unbroken, tmp_path):
    words = "--task_name TNEWS --do_eval".split()
    assert run_on_demo(run_clue_classifier.main, tmp_path, *words, model=unbroken)[0] == 0
    status, _, error = train(tmp_path)
    assert status == 0, error
    assert outcome(tmp_path) == outcome(unbroken)


def test_a_run_goes_on_in_more_micro_batches(train, stopped):
    status, out, error = train(stopped, "--gradient_accumulation_steps", "2", "--logging_steps", "10")
    assert status == 0, error
    assert "checkpoint-40" in out and "global step 50/60" in out and "global step 45/60" not in out
    settings = json.loads((stopped / "result.json").read_text())["hyper_parameters"]
    assert (settings["gradient_accumulation_steps"], settings["logging_steps"]) == (2, 10)


def test_a_line_that_a_power_cut_has_emptied_is_dropped(train, stopped, unbroken):
    with open(stopped / "metrics.jsonl", "ab") as file:
        file.write(b"\0" * 40 + b"\n" + b'{"kind": "tr')
    assert train(stopped)[0] == 0
    assert outcome(stopped) == outcome(unbroken)


def test_starting_anew_removes_what_was_there(run_on_demo, unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path, dirs_exist_ok=True)
    (tmp_path / "result.json").write_text("{")
    (tmp_path / "tnews11_predict.json").write_text("{}")
    words = [*FLAGS.split(), "--overwrite_output_dir", "--save_best_model", "false", "--max_steps", "2"]
    status, _, error = run_on_demo(run_clue_classifier.main, tmp_path, *words)
    assert status == 0, error
    assert not (tmp_path / "model.safetensors").exists() and not (tmp_path / "tnews11_predict.json").exists()


def test_a_faulty_test_file_is_said_before_training(run_script, demo, tmp_path):
    """For every script, and in the newest of a task's test sets."""
    for script, flags, folder, name in (
        (run_clue_classifier, ["--task_name", "TNEWS"], "tnews_public", "test.json"),
        (run_clue_classifier, ["--task_name", "CMNLI"], "clue_diagnostics_public", "diagnostics_test.json"),
        (run_clue_classifier_trainer, ["--dataset", "clue csl"], "csl_public", "test.json"),
        (run_c3, [], "c3_public", "test1.1.json"),
        (run_chid, [], "chid_public", "test1.1.json"),
        (run_cmrc2018, [], "cmrc2018_public", "test.json"),
    ):
        output, copy = tmp_path / folder / "out", tmp_path / folder / "data"
        shutil.copytree(demo / "data", copy)
        path = copy / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("[7]\n")
        words = [*flags, "--do_train", "--do_predict", "--max_steps", "1", "--device", "cpu"]
        words += ["--model_name_or_path", demo / "model", "--data_dir", copy]
        status, out, err = run_script(script.main, *words, "--output_dir", output)
        assert status == 2 and str(path) in err and "eval" not in out
        assert {path.name for path in output.iterdir()} - {".lock"} == {"result.json"}
        assert str(path) in json.loads((output / "result.json").read_text())["reason"]


def test_rotation_leaves_other_checkpoints_and_drops_damaged_ones(train, stopped, unbroken):
    """Beside a Trainer's checkpoint, and with the newest one damaged, the last good one is never removed."""
    (stopped / "checkpoint-900").mkdir()
    (stopped / "checkpoint-900/trainer_state.json").write_text("{}")
    (stopped / "checkpoint-40/weights.safetensors").write_bytes(b"")
    save, seen = checkpoints.save, []

    def save_and_look(folder, step, *rest):
        save(folder, step, *rest)
        seen.append(names_of_checkpoints(folder))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "save", save_and_look)
        assert train(stopped)[0] == 0
    assert seen[0] == ["checkpoint-39", "checkpoint-40", "checkpoint-900"]
    assert outcome(stopped) == outcome(unbroken) and names_of_checkpoints(stopped) == ["checkpoint-900"]


def test_a_checkpoint_of_other_settings_is_not_gone_on_from(train, stopped):
    (stopped / "result.json").unlink()
    status, _, err = train(stopped, "--learning_rate", "2e-3")
    assert status == 2 and "learning_rate 0.001 there, 0.002 now" in err
