"""What ``result.json`` tells of a run: that it is at work, how it ended, and what of it can be read."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

import run_clue_classifier
import run_clue_classifier_trainer
from clue_utils import ranks, record
from clue_utils.errors import Stopped, UserError
from clue_utils.grid import outcomes
from clue_utils.models.heads import HEADS
from clue_utils.record import Record, Run, write_failure
from clue_utils.settings import Settings
from clue_utils.tasks import TASKS
from clue_utils.training import session

HEAD = HEADS["classification"]
TEMPORARY = {"process", "progress", "last_seen", "reason", "exit_status", "advice", "is_trained"}
FLAGS = "--task_name TNEWS --do_train --max_steps 6 --save_steps 2 --batch_size 8 --max_seq_length 16".split()


def content(folder):
    return json.loads((folder / "result.json").read_text())


def put(folder, **fields):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(fields))


def ago(seconds):
    return (datetime.now(timezone.utc) - timedelta(seconds=seconds)).isoformat(timespec="seconds")


def process(**other):
    return record._sign_of_life()["process"] | other


# "last_seen" is so many seconds ago.
AT_120 = {"progress": {"step": 120, "num_steps": 500}, "last_seen": 40}


@pytest.mark.parametrize(
    ("fields", "status", "remark"),
    [
        ({"status": "finished"}, "finished", ""),
        ({"status": "finished", "pruned": {"step": 9, "rule": "median"}}, "pruned", "at step 9: median"),
        ({"status": "running", "process": process(), **AT_120}, "running", "step 120 of 500, seen "),
        ({"status": "trained", "process": process(), "last_seen": 9999}, "running", "before the first step, seen"),
        ({"status": "running", "process": process(started=1), **AT_120}, "killed", "step 120 of 500, last seen 20"),
        ({"status": "running", "process": process(host="other"), **AT_120}, "running", "s ago on other"),
        ({"status": "running", "process": process(namespace=1, pid=1), **AT_120}, "running", "s ago"),
        ({"status": "running", "process": process(host="other"), "last_seen": 601}, "killed", "on other; the same"),
        ({"status": "running", "process": process(started=None), "last_seen": 601}, "killed", "last seen"),
        ({"status": "running", "process": process(), "last_seen": -3600}, "running", "seen 0 s ago"),
        ({"status": "running"}, "killed", "no sign of life"),
        ({}, "killed", "no sign of life"),
        ({"status": "stopped", "reason": "interrupted", "exit_status": 130}, "stopped", "interrupted"),
        ({"status": "failed", "reason": "x", "advice": {"a": 4}, "process": process()}, "failed", "x (advice: --a 4)"),
    ],
)
def test_status_and_remark_come_from_the_record_alone(tmp_path, fields, status, remark):
    seen = {"last_seen": ago(fields["last_seen"])} if "last_seen" in fields else {}
    put(tmp_path, **fields | seen)
    found = Record.read(tmp_path)
    assert found.status == status and remark in found.remark
    assert (found.last_seen and found.last_seen.isoformat()) == seen.get("last_seen")


@pytest.mark.parametrize("reap", [True, False])
def test_a_process_that_has_ended_is_not_alive(tmp_path, reap):
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    started = record._start_of(child.pid)
    put(tmp_path, status="running", process=process(pid=child.pid, started=started), last_seen=ago(40))
    assert Record.read(tmp_path).status == "running"
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | (0 if reap else os.WNOWAIT))
    assert Record.read(tmp_path).status == "killed"
    child.communicate()


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "done"},
        {"status": ["running"]},
        {"status": "running", "last_seen": "yesterday"},
        {"status": "running", "last_seen": "2026-01-01T00:00:00"},
        {"status": "running", "process": process(pid="1"), "last_seen": ago(1)},
        {"status": "running", "progress": {"step": 1}, "last_seen": ago(1)},
        {"status": "failed", "reason": ["no"]},
        {"begun": "yesterday"},
        {"ended": "2026-01-01T00:00:00"},
        {"hyper_parameters": [1]},
        {"metric": 1},
        {"best_metric": -0.1},
        {"num_examples": {"dev": -1}},
    ],
)
def test_an_impossible_record_is_one_error_for_all_readers(tmp_path, fields):
    put(tmp_path, **fields)
    with pytest.raises(UserError, match=r"result.json is not a result of these scripts \(.*\); remove it or choose"):
        Record.read(tmp_path)


def replace_loss(monkeypatch, loss):
    monkeypatch.setattr(session, "HEADS", {"classification": replace(HEAD, loss=loss)})


def fail_at(call, error):
    """A loss that fails at one of its calls."""
    loss, calls = HEAD.loss, []

    def failing(model, batch):
        calls.append(1)
        if len(calls) == call:
            raise error
        return loss(model, batch)

    return failing


@pytest.fixture
def train(run_on_demo, tmp_path):
    """Train on TNEWS for six steps, evaluating after every second: (status, standard output, standard error)."""
    return lambda *words, **more: run_on_demo(run_clue_classifier.main, tmp_path, *FLAGS, *words, **more)


def test_out_of_memory_is_on_record_with_advice_and_gone_on_from(train, tmp_path, monkeypatch):
    error = RuntimeError("ResourceExhaustedError: Out of memory error on GPU 0.\nMore.")
    replace_loss(monkeypatch, fail_at(6, error))
    status, _, said = train()
    found = Record.read(tmp_path)
    assert (status, found.status, found.advice) == (2, "failed", {"gradient_accumulation_steps": 2})
    assert found.begun < found.ended
    assert said == f"error: {found.fields['reason']}\n" and found.fields["exit_status"] == 2
    assert [step for step, _ in found.history] == [2, 4] and {
        "step": 5,
        "num_steps": 6,
    }.items() <= found.progress.items()
    status, out, said = train(*(f"--{name}={value}" for name, value in found.advice.items()))
    assert status == 0 and "checkpoint-5" in out, said
    again = Record.read(tmp_path)
    assert again.status == "finished" and found.ended < again.begun < again.ended
    assert not TEMPORARY & {*content(tmp_path)}


def test_a_defect_is_on_record_and_keeps_its_traceback(train, tmp_path, monkeypatch):
    replace_loss(monkeypatch, fail_at(1, ZeroDivisionError("odd\nlines")))
    with pytest.raises(ZeroDivisionError):
        train()
    found = content(tmp_path)
    assert (found["status"], found["reason"], found["exit_status"]) == ("failed", "ZeroDivisionError: odd", 1)


def test_a_signal_is_on_record_and_gone_on_from(train, tmp_path, monkeypatch):
    replace_loss(monkeypatch, lambda *words: os.kill(os.getpid(), signal.SIGTERM) or HEAD.loss(*words))
    assert train()[0] == 143
    found = Record.read(tmp_path)
    remark = "stopped by SIGTERM; the same command goes on from where it was"
    assert (found.status, found.remark) == ("stopped", remark)
    monkeypatch.undo()
    status, out, said = train()
    assert status == 0 and "checkpoint-1" in out, said
    assert not TEMPORARY & {*content(tmp_path)}


def spoil_data(folder, demo):
    shutil.copytree(demo / "data/tnews_public", folder / "data/tnews_public")
    (folder / "data/tnews_public/train.json").write_text("{\n")
    return "--data_dir", folder / "data"


def test_a_failure_before_training_is_on_record_and_binds_nothing(train, demo, tmp_path):
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/config.json").write_text("{\n")
    for words, reason in (
        (spoil_data(tmp_path, demo), "train.json:1"),
        (("--model_name_or_path", tmp_path / "damaged"), "config.json"),
    ):
        assert train(*words)[0] == 2
        found = Record.read(tmp_path)
        assert found.status == "failed" and reason in found.remark and found.task == "TNEWS"
    status, _, said = train("--learning_rate", "1e-3")
    assert status == 0, said
    # Nor does a failure undo what has finished, as long as that has not been removed.
    before = content(tmp_path)
    assert train("--overwrite_output_dir", model=tmp_path / "none")[0] == 2
    assert content(tmp_path) == before
    assert train("--overwrite_output_dir", *spoil_data(tmp_path / "again", demo))[0] == 2
    assert content(tmp_path)["status"] == "failed"


def test_the_trainer_script_records_its_end_too(run_on_demo, tmp_path, monkeypatch):
    flags = "--dataset tnews --do_train --do_eval --max_steps 2 --max_seq_length 16 --evaluation_strategy steps".split()
    flags += ["--eval_steps", "1"]
    seen = []
    monkeypatch.setattr(record, "SIGN_INTERVAL", 0.0)
    advance = Run.show_progress
    monkeypatch.setattr(
        Run, "show_progress", lambda run, *words: advance(run, *words) or seen.append(content(run.folder)["progress"])
    )
    with monkeypatch.context() as patch:
        patch.setattr(session.Session, "evaluate", lambda *_: (_ for _ in ()).throw(UserError("no score")))
        assert run_on_demo(run_clue_classifier_trainer.main, tmp_path, *flags)[0] == 2
    assert Record.read(tmp_path).remark == "no score"
    status, _, said = run_on_demo(run_clue_classifier_trainer.main, tmp_path, *flags)
    assert status == 0, said
    assert seen[-2:] == [{"step": 1, "num_steps": 2}, {"step": 2, "num_steps": 2}]
    assert Record.read(tmp_path).status == "finished" and not TEMPORARY & {*content(tmp_path)}


def test_a_run_is_seen_at_work_in_all_it_does(train, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "SIGN_INTERVAL", 0.0)
    seen, signs = [], []

    def look(function):
        def looking(*words):
            if function is HEAD.forward or not seen:  # a sign for each batch, or while features were built
                assert signs
            signs.clear()
            found = Record.read(tmp_path)
            seen.append((found.status, found.fields["status"], found.fields.get("progress", {}).get("step")))
            return function(*words)

        return looking

    changed = replace(HEAD, forward=look(HEAD.forward), loss=look(HEAD.loss))
    monkeypatch.setattr(session, "HEADS", {"classification": changed})
    show = Run.sign_of_life
    monkeypatch.setattr(Run, "sign_of_life", lambda run: signs.append(1) or show(run))
    assert train("--do_predict", "--overwrite_cache")[0] == 0
    assert {status for status, _, _ in seen} == {"running"}
    assert [*dict.fromkeys(seen)] == [
        *(("running", "running", step) for step in (None, 1, 2, 3, 4, 5, 6)),
        ("running", "trained", 6),
    ]
    assert not TEMPORARY & {*content(tmp_path)}


def test_a_finished_training_is_not_undone_by_what_comes_after(train, run_on_demo, tmp_path, monkeypatch):
    def fail(*_):
        raise UserError("no answers")

    with monkeypatch.context() as patch:
        patch.setattr(session.Session, "predict", fail)
        assert train("--do_eval", "--do_predict")[0] == 2
    failed = Record.read(tmp_path)
    assert (failed.status, failed.remark, failed.is_trained) == ("failed", "no answers", True)
    status, out, said = train("--do_eval", "--do_predict")
    assert status == 0 and "trained already" in out and "global step" not in out, said
    before = content(tmp_path)
    assert before["status"] == "finished" and not TEMPORARY & {*before}
    monkeypatch.setattr(session.Session, "predict", fail)
    assert train("--do_predict")[0] == 2
    words = "--task_name TNEWS --do_predict --max_seq_length 16".split()
    assert run_on_demo(run_clue_classifier.main, tmp_path, *words, model=tmp_path)[0] == 2
    assert content(tmp_path) == before


def test_a_training_that_is_interrupted_as_it_ends_is_not_done_again(train, tmp_path, monkeypatch):
    write = Run.write

    def interrupted(run, **fields):
        write(run, **fields)
        if run.fields["status"] == "finished":
            raise Stopped(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "write", interrupted)
        assert train()[0] == 143
    assert Record.read(tmp_path).is_trained
    status, out, said = train()
    assert status == 0 and "trained already" in out, said
    assert Record.read(tmp_path).status == "finished"


def test_a_rank_records_nothing_before_the_first_one_holds_the_folder(tmp_path, monkeypatch):
    def barrier():
        raise RuntimeError("the first rank has found the folder in use, and gone")

    put(tmp_path, status="running", task="TNEWS", model="m", last_seen=ago(1))
    before = content(tmp_path)
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    monkeypatch.setattr(session.device, "barrier", barrier)
    with pytest.raises(RuntimeError), session.recorded_run(settings_of(tmp_path), TASKS["TNEWS"]):
        pass
    assert content(tmp_path) == before


def test_a_failed_prediction_leaves_nothing_in_the_model_s_folder(run_on_demo, demo, tmp_path):
    shutil.copytree(demo / "model", tmp_path / "model")
    before = {path.name for path in (tmp_path / "model").iterdir()}
    for action in ("--do_predict", "--do_train"):
        words = ["--task_name", "TNEWS", action, *map(str, spoil_data(tmp_path / action, demo))]
        (tmp_path / action / "data/tnews_public/test.json").write_text("{\n")
        assert run_on_demo(run_clue_classifier.main, tmp_path / "model", *words, model=tmp_path / "model")[0] == 2
        assert {path.name for path in (tmp_path / "model").iterdir()} - {".lock"} == before


def settings_of(folder, **other):
    given = {"output_dir": str(folder), "model_name_or_path": "m", "do_train": True, **other}
    return Settings.resolve(given, TASKS["TNEWS"], 1, {})


def new_run(folder, **other):
    return Run("TNEWS", "accuracy", settings_of(folder, **other), "cpu")


def test_card_and_flags_are_those_of_where_the_run_was_last(tmp_path, monkeypatch):
    monkeypatch.setenv("FLAGS_cudnn_deterministic", "1")
    monkeypatch.setenv("FLAGS_selected_gpus", "3")  # says nothing of what is computed
    card = {"name": "NVIDIA Test", "compute_capability": "8.0", "memory_bytes": 24 << 30}
    run = Run("TNEWS", "accuracy", settings_of(tmp_path, precision="tf32"), "gpu:3", card)
    run.write(history=[], status="stopped")
    found = content(tmp_path)
    assert found["card"] == card and found["hyper_parameters"]["precision"] == "tf32"
    assert found["environment"].keys() & {"FLAGS_cudnn_deterministic", "FLAGS_selected_gpus"} == {
        "FLAGS_cudnn_deterministic"
    }
    monkeypatch.delenv("FLAGS_cudnn_deterministic")
    Run("TNEWS", "accuracy", settings_of(tmp_path, precision="tf32"), "cpu").write()
    found = content(tmp_path)
    assert found["device"] == "cpu" and "card" not in found and "FLAGS_cudnn_deterministic" not in found["environment"]


def test_the_rank_that_failed_first_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(ranks, "world_size", lambda: 2)
    first = new_run(tmp_path)
    first.begin()
    with monkeypatch.context() as patch, pytest.raises(UserError):
        patch.setattr(ranks, "rank", lambda: 1)
        with new_run(tmp_path).recorded():
            raise UserError("memory", {"gradient_accumulation_steps": 2})
    with pytest.raises(Stopped), first.recorded():  # the launcher ends it then
        raise Stopped(signal.SIGTERM)
    found = Record.read(tmp_path)
    assert (found.status, found.advice) == ("failed", {"gradient_accumulation_steps": 2})


@pytest.mark.parametrize("status", [None, "failed", "stopped", "finished"])
def test_a_run_that_is_about_to_begin_is_at_work(tmp_path, status):
    history = [{"step": 2, "accuracy": 0.5}]
    if status:
        of_end = {"reason": "x", "advice": {"a": 2}, "exit_status": 2, "begun": ago(9)}
        put(tmp_path, status=status, metric="accuracy", history=history, **of_end)
    record.write_start(tmp_path, task="TNEWS", model="m")
    found = Record.read(tmp_path)
    assert found.status == ("finished" if status == "finished" else "running")
    assert (found.task, found.history) == ((None, ((2, 0.5),)) if status else ("TNEWS", ()))
    if status in ("failed", "stopped"):
        assert "reason" not in found.fields and found.advice == {"a": 2}
    assert (found.begun is None) == (status != "finished")


def test_a_failure_is_written_from_outside(tmp_path):
    write_failure(tmp_path / "new", "no room\nleft", 137, {"a": 1}, task="TNEWS", model="m")
    expected = {"task": "TNEWS", "model": "m", "status": "failed", "reason": "no room\\nleft", "exit_status": 137}
    found = content(tmp_path / "new")
    assert found.pop("ended") and found == expected | {"advice": {"a": 1}}
    history = [{"step": 1, "accuracy": 0.5}]
    put(tmp_path / "begun", status="trained", task="TNEWS", model="m", history=history)
    write_failure(tmp_path / "begun", "killed", 137, model="other")
    found = content(tmp_path / "begun")
    assert (found["status"], found["model"], found["history"], found["is_trained"]) == ("failed", "m", history, True)
    put(tmp_path / "done", status="finished", task="TNEWS")
    write_failure(tmp_path / "done", "killed", 137)
    assert content(tmp_path / "done") == {"status": "finished", "task": "TNEWS"}


def test_the_plan_is_the_union_of_all_that_was_asked_for(tmp_path):
    assert outcomes.read_plan(tmp_path / "m") == ()
    outcomes.add_to_plan(tmp_path / "m", ["TNEWS/3e-5_32_0.1_42", "C3/1e-5_24_0.1_42"])
    outcomes.add_to_plan(tmp_path / "m", ["C3/1e-5_24_0.1_42", "C3/2e-5_24_0.1_42"])
    expected = ("TNEWS/3e-5_32_0.1_42", "C3/1e-5_24_0.1_42", "C3/2e-5_24_0.1_42")
    assert outcomes.read_plan(tmp_path / "m") == expected
    for text in ("{", "[]", '{"trials": 5}', '{"trials": ["TNEWS"]}', '{"trials": [["TNEWS/3e-5_32_0.1_42"]]}'):
        (tmp_path / "m/plan.json").write_text(text)
        with pytest.raises(UserError, match="plan.json is damaged"):
            outcomes.read_plan(tmp_path / "m")
    assert outcomes.trial_of_folder("TNEWS/3e-5_32_0.1_42").task == TASKS["TNEWS"].name
