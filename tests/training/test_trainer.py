"""run_clue_classifier_trainer.py beside the plain script: the same checkpoint gives the same numbers and files."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from test_trainer_kills import outcome

import run_clue_classifier
import run_clue_classifier_trainer
from clue_utils import device, tasks
from clue_utils.errors import UserError
from clue_utils.training import trainer
from clue_utils.training.session import Session
from clue_utils.training.trainer import ClueTrainer
from run_clue_classifier_trainer import task_of

TRAINING = (
    *("--do_train", "--do_eval", "--max_steps", 12, "--logging_steps", 4, "--save_steps", 4, "--learning_rate", 1e-3),
    *("--metric_for_best_model", "eval_accuracy", "--load_best_model_at_end", "--save_total_limit", 3),
    *("--per_device_train_batch_size", 8, "--max_seq_length", 24),
)


@pytest.fixture(scope="module")
def run(run_on_demo):
    """Run the Trainer script on demo data: (status, standard output, standard error)."""
    return lambda task, output, *words, model=None: run_on_demo(
        run_clue_classifier_trainer.main, output, "--dataset", f"clue {task}", *words, model=model
    )


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    output = tmp_path_factory.mktemp("trainer")
    status, _, error = run("TNEWS", output, *TRAINING)
    assert status == 0, error
    return output


def train_loss(folder):
    return json.loads((folder / "all_results.json").read_text())["train_loss"]


@pytest.mark.parametrize("dataset", ["clue TNEWS", "clue tnews", "CLUE Tnews", "tnews"])
def test_the_dataset_is_named_in_any_letter_case(dataset):
    assert task_of(dataset) is tasks.TASKS["TNEWS"]


@pytest.mark.parametrize(
    ("dataset", "line"), [("clue", "not of the form"), ("clue c3", "run mrc/run_c3.py"), ("clue tnew", "unknown task")]
)
def test_another_dataset_is_refused(dataset, line):
    with pytest.raises(UserError, match=line):
        task_of(dataset)


def test_what_training_leaves_behind(trained):
    result = json.loads((trained / "result.json").read_text())
    assert (result["status"], result["num_steps"], result["task"]) == ("finished", 12, "TNEWS")
    assert [entry["step"] for entry in result["history"]] == [4, 8, 12]
    assert result["evaluation"]["accuracy"] == result["best_metric"] == max(e["accuracy"] for e in result["history"])
    assert result["hyper_parameters"]["batch_size"] == 8
    kinds = [json.loads(line)["kind"] for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert kinds == ["train", "eval"] * 3


def test_a_run_that_was_cut_off_ends_with_the_same_weights(run, trained, tmp_path, monkeypatch):
    save, calls = ClueTrainer._save_checkpoint, []

    def cut_off(self, model, metrics=None):
        calls.append(self.state.global_step)
        if self.state.global_step == 12:
            raise KeyboardInterrupt
        save(self, model, metrics)

    monkeypatch.setattr(ClueTrainer, "_save_checkpoint", cut_off)
    assert run("TNEWS", tmp_path, *TRAINING)[0] == 130
    monkeypatch.undo()
    status, out, error = run("TNEWS", tmp_path, *TRAINING)
    assert status == 0, error
    assert calls == [4, 8, 12]
    assert outcome(tmp_path) == outcome(trained)


def test_half_precision_goes_on_with_its_scale_and_its_schedule(run, scalers, tmp_path, monkeypatch):
    """Both change with an update that is left out, and neither follows from the number of steps then."""
    compute_loss, save = ClueTrainer.compute_loss, ClueTrainer._save_checkpoint
    monkeypatch.setattr(device, "require_precision", lambda precision: None)

    def loss(self, *words, **more):
        value = compute_loss(self, *words, **more)
        return value * 1e36 if self.state.global_step == 2 else value  # finite, but not with the scale

    def cut_off(self, model, metrics=None):
        if self.state.global_step == 12:
            raise KeyboardInterrupt
        save(self, model, metrics)

    monkeypatch.setattr(ClueTrainer, "compute_loss", loss)
    words = (*TRAINING, "--fp16")
    status, _, error = run("TNEWS", tmp_path / "unbroken", *words)
    assert status == 0, error
    with monkeypatch.context() as patch:
        patch.setattr(ClueTrainer, "_save_checkpoint", cut_off)
        assert run("TNEWS", tmp_path / "broken", *words)[0] == 130
    assert run("TNEWS", tmp_path / "broken", *words)[0] == 0
    assert outcome(tmp_path / "broken") == outcome(tmp_path / "unbroken")
    assert scalers[0].taken == [True, True, False, *[True] * 9] and scalers[-1].taken == [True] * 4
    state = json.loads((tmp_path / "broken/checkpoint-12/run.json").read_text())
    assert state["schedule"] == 11 and state["scaler"]["scale"] == [scalers[0]._init_loss_scaling / 2]


def test_a_checkpoint_of_a_version_that_kept_no_schedule_is_gone_on_from(run, tmp_path, monkeypatch):
    save = ClueTrainer._save_checkpoint

    def cut_off(self, model, metrics=None):
        if self.state.global_step == 12:
            raise KeyboardInterrupt
        save(self, model, metrics)

    assert run("TNEWS", tmp_path / "unbroken", *TRAINING)[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(ClueTrainer, "_save_checkpoint", cut_off)
        assert run("TNEWS", tmp_path / "broken", *TRAINING)[0] == 130
    path = tmp_path / "broken/checkpoint-8/run.json"
    text = path.read_text()
    path.write_text(json.dumps({name: json.loads(text)[name] for name in ("run", "losses")}))
    assert run("TNEWS", tmp_path / "broken", *TRAINING)[0] == 0
    path.write_text(text)
    assert outcome(tmp_path / "broken") == outcome(tmp_path / "unbroken")


@pytest.mark.parametrize("task", tasks.CLASSIFICATION_TASKS)
def test_evaluation_and_prediction_are_the_plain_script_s(run, run_script, demo, tmp_path, task):
    common = ("--data_dir", demo / "data", "--device", "cpu", "--max_seq_length", 32)
    plain = ("--task_name", task, *common)
    model = tmp_path / "model"
    status, _, error = run_script(
        run_clue_classifier.main,
        *(*plain, "--model_name_or_path", demo / "model", "--output_dir", model),
        *("--do_train", "--max_steps", 2, "--batch_size", 8),
    )
    assert status == 0, error
    act = ("--do_eval", "--do_predict")
    flags = (*plain, "--model_name_or_path", model, "--output_dir", tmp_path / "plain", *act)
    assert run_script(run_clue_classifier.main, *flags)[0] == 0
    status, _, error = run(task, tmp_path / "trainer", *act, "--max_seq_length", 32, model=model)
    assert status == 0, error
    evaluations = [json.loads((tmp_path / n / "result.json").read_text())["evaluation"] for n in ("plain", "trainer")]
    assert evaluations[0] == evaluations[1]
    for name in [*tasks.TASKS[task].submissions.values(), tasks.TASKS[task].plain_submission]:
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "trainer" / name).read_bytes()


def test_the_exported_model_gives_the_same_logits(run, trained, tmp_path, demo):
    import paddle.inference

    from clue_utils.models import load_model, load_tokenizer

    status, _, error = run("TNEWS", tmp_path, "--do_export", model=trained)
    assert status == 0, error
    config = paddle.inference.Config(str(tmp_path / "inference"), "model")
    predictor = paddle.inference.create_predictor(config)
    assert predictor.get_input_names() == ["input_ids", "token_type_ids"]
    lines = (demo / "data/tnews_public/dev.json").read_text().split("\n")[:40]
    tokenizer = load_tokenizer(str(trained))
    batch = tokenizer([json.loads(line)["sentence"] for line in lines], padding=True, truncation=True, max_length=24)
    inputs = [np.array(batch[name], np.int64) for name in predictor.get_input_names()]
    (logits,) = predictor.run([paddle.to_tensor(x) for x in inputs])
    model = load_model(str(trained), tasks.TASKS["TNEWS"], 0.1, 15, training=False)
    model.eval()
    expected = model(*[paddle.to_tensor(x) for x in inputs]).numpy()
    np.testing.assert_allclose(logits.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("limit", "best", "kept"), [(1, 2, [2, 8]), (1, 8, [8]), (3, 2, [2, 6, 8]), (None, 2, [2, 4, 6, 8])]
)
def test_old_checkpoints_are_removed_but_never_the_best(run, tmp_path, monkeypatch, limit, best, kept):
    # The kept weights are evaluated again, for their answers, where they are not the last.
    scores = iter([{"accuracy": float(step == best), "loss": 1.0} for step in (2, 4, 6, 8, best)])
    monkeypatch.setattr(Session, "evaluate", lambda *_: next(scores))
    (tmp_path / "checkpoint-mine").mkdir()
    words = "--do_train --max_steps 8 --save_steps 2 --max_seq_length 16 --per_device_train_batch_size 4"
    status, _, error = run("TNEWS", tmp_path, *words.split(), *(("--save_total_limit", limit) if limit else ()))
    assert status == 0, error
    names = {path.name for path in tmp_path.glob("checkpoint-*")}
    assert names == {"checkpoint-mine", *(f"checkpoint-{step}" for step in kept)}


def test_the_best_is_found_where_the_folder_is_now(run, trained, tmp_path):
    folder = tmp_path / "moved"
    shutil.copytree(trained, folder)
    (folder / "result.json").write_text((folder / "result.json").read_text().replace("finished", "running"))
    shutil.rmtree(folder / "checkpoint-12")
    (folder / "model.safetensors").unlink()
    state = json.loads((folder / "checkpoint-8/trainer_state.json").read_text())
    gone = Path(state["best_model_checkpoint"]).name
    state["best_model_checkpoint"] = f"elsewhere/{gone}"
    (folder / "checkpoint-8/trainer_state.json").write_text(json.dumps(state))
    status, _, error = run("TNEWS", folder, *TRAINING)
    assert status == 0, error
    assert (folder / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


@pytest.mark.parametrize("step", [2, 12])
def test_a_signal_leaves_a_checkpoint_to_go_on_from(run, trained, tmp_path, monkeypatch, step):
    training_step, calls = ClueTrainer.training_step, []

    def sending(self, *words):
        calls.append(1)
        if len(calls) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return training_step(self, *words)

    monkeypatch.setattr(ClueTrainer, "training_step", sending)
    status, _, error = run("TNEWS", tmp_path, *TRAINING)
    assert status == 143 and "stopped by SIGTERM; the same command goes on" in error
    assert (tmp_path / f"checkpoint-{step}/run.json").is_file()
    monkeypatch.undo()
    assert run("TNEWS", tmp_path, *TRAINING)[0] == 0
    assert outcome(tmp_path) == outcome(trained)


def test_checkpoints_hold_no_pickle_and_one_that_does_is_refused(run, trained, tmp_path):
    assert list(trained.glob("checkpoint-*/optimizer*.safetensors"))
    suffixes = {path.suffix for path in trained.glob("checkpoint-*/*")}
    assert not suffixes & set(trainer.PICKLES)
    hostile = tmp_path / "checkpoint-8"
    shutil.copytree(trained / "checkpoint-8", hostile)
    (hostile / "scheduler.pdparams").write_bytes(b"cos\nabort\n(tR.")
    status, _, error = run("TNEWS", tmp_path, *TRAINING)
    line = error.splitlines()[-1]  # above it PaddleNLP's own
    assert status == 2 and line.startswith(f"error: {hostile}/scheduler.pdparams: refused, a pickle may run code")
    status, _, error = run("TNEWS", tmp_path / "other", *TRAINING, "--unified_checkpoint", "false")
    assert status == 2 and "would keep pickles" in error


def test_a_checkpoint_of_another_name_is_gone_on_from_at_its_own_step(run, trained, tmp_path):
    shutil.copytree(trained / "checkpoint-8", tmp_path / "saved")
    words = (*TRAINING, "--resume_from_checkpoint", tmp_path / "saved")
    status, _, error = run("TNEWS", tmp_path / "out", *words)
    assert status == 0, error
    resumed, unbroken = (
        load_file(str(next(folder.glob("checkpoint-12/model*.safetensors")))) for folder in (tmp_path / "out", trained)
    )
    assert all((resumed[name] == unbroken[name]).all() for name in unbroken)
    assert train_loss(tmp_path / "out") == train_loss(trained)
    status, _, error = run("TNEWS", tmp_path / "other", *words, "--adam_beta2", 0.9)
    assert (
        status == 2 and f"{tmp_path}/saved holds a run with other settings (adam_beta2 0.999 there, 0.9 now)" in error
    )
    status, _, error = run("TNEWS", tmp_path / "other", *TRAINING, "--resume_from_checkpoint", tmp_path / "nowhere")
    assert status == 2 and f"{tmp_path}/nowhere: not a checkpoint of the Trainer" in error
    assert {path.name for path in (tmp_path / "other").iterdir()} - {".lock"} == {"result.json"}
