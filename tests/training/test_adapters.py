"""Adapters in the scripts: trained, gone on with, and loaded again with the model that they stand on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_resume import Killed, outcome

import run_c3
import run_chid
import run_clue_classifier
import run_clue_classifier_trainer
import run_cmrc2018
from clue_utils.training import checkpoints
from clue_utils.training.trainer import ClueTrainer

FLAGS = "--task_name TNEWS --do_train --do_eval --max_steps 16 --save_steps 8 --logging_steps 4 --batch_size 8"
FLAGS += " --max_seq_length 24 --learning_rate 1e-2 --checkpoint_minutes 0 --lora_rank 4"
TRAINER = "--dataset tnews --do_train --do_eval --max_steps 8 --save_steps 4 --per_device_train_batch_size 8"
TRAINER += " --max_seq_length 24 --learning_rate 1e-2 --lora_rank 4"
ADAPTED = ("q_proj", "k_proj", "v_proj", "out_proj", "linear1", "linear2")
PREDICT = ("--task_name", "TNEWS", "--do_eval", "--do_predict")


@pytest.fixture(scope="module")
def base(demo, tmp_path_factory) -> Path:
    """The demo model, in a folder that may be moved."""
    folder = tmp_path_factory.mktemp("base") / "model"
    shutil.copytree(demo / "model", folder)
    return folder


@pytest.fixture(scope="module")
def train(run_on_demo, few_examples, base):
    flags = (*FLAGS.split(), "--data_dir", few_examples)
    return lambda output, *words, model=base: run_on_demo(run_clue_classifier.main, output, *flags, *words, model=model)


@pytest.fixture(scope="module")
def predict(run_on_demo, few_examples):
    return lambda model, output, *words: run_on_demo(
        run_clue_classifier.main, output, *PREDICT, "--data_dir", few_examples, *words, model=model
    )


@pytest.fixture(scope="module")
def trained(train, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    status, _, error = train(folder, "--do_predict")
    assert status == 0, error
    return folder


def test_a_checkpoint_is_small_and_predicts_what_the_run_did(trained, base, predict, tmp_path):
    size, full = ((path / "model.safetensors").stat().st_size for path in (trained, base))
    assert size < full / 2
    assert {".".join(name.split(".")[-2:]) for name in load_file(str(trained / "model.safetensors"))} == {
        *(f"{layer}.lora_{part}" for layer in ADAPTED for part in "AB"),
        *(f"{layer}.{part}" for layer in ("dense", "classifier") for part in ("weight", "bias")),
    }
    result = json.loads((trained / "result.json").read_text())
    assert result["hyper_parameters"]["lora_rank"] == 4
    assert result["evaluation"]["accuracy"] == result["best_metric"]
    status, _, error = predict(trained, tmp_path)
    assert status == 0, error
    assert (tmp_path / "tnews_predict.json").read_bytes() == (trained / "tnews_predict.json").read_bytes()
    assert json.loads((tmp_path / "result.json").read_text())["evaluation"] == result["evaluation"]


def test_a_run_that_was_killed_ends_with_the_same_numbers(trained, train, tmp_path, monkeypatch):
    save = checkpoints.save

    def save_and_die(folder, step, *rest):
        save(folder, step, *rest)
        if step == 10:
            raise Killed

    monkeypatch.setattr(checkpoints, "save", save_and_die)
    with pytest.raises(Killed):
        train(tmp_path, "--do_predict")
    monkeypatch.undo()
    own = {*load_file(str(trained / "model.safetensors"))}
    assert {*load_file(str(tmp_path / "checkpoint-10/weights.safetensors"))} == own
    moments = {name.split("|")[0] for name in load_file(str(tmp_path / "checkpoint-10/optimizer.safetensors"))}
    assert moments == own
    status, out, error = train(tmp_path, "--do_predict")
    assert status == 0, error
    assert "checkpoint-10" in out
    assert outcome(tmp_path) == outcome(trained)


def test_the_base_must_be_what_it_was(trained, base, predict, tmp_path):
    weights = load_file(str(base / "model.safetensors"))
    moved = shutil.move(base, tmp_path / "elsewhere")
    status, _, error = predict(trained, tmp_path / "output")
    assert status == 2 and error.count("\n") == 1
    assert str(base) in error and 'name its folder as "base" in clue_lora' in error
    name = next(name for name in weights if name.endswith("q_proj.weight"))
    base.mkdir()
    shutil.copytree(moved, base, dirs_exist_ok=True)
    save_file(weights | {name: weights[name] + np.float32(1e-3)}, str(base / "model.safetensors"))
    status, _, error = predict(trained, tmp_path / "output")
    assert status == 2 and error.count("\n") == 1 and "its adapters were trained on other weights than those" in error
    shutil.rmtree(base)
    shutil.move(moved, base)


def change(base: Path) -> None:
    weights = load_file(str(base / "model.safetensors"))
    name = next(name for name in weights if name.endswith("q_proj.weight"))
    save_file(weights | {name: weights[name] + np.float32(1e-3)}, str(base / "model.safetensors"))


@pytest.mark.parametrize("script", [run_clue_classifier, run_clue_classifier_trainer], ids=lambda one: one.__name__)
def test_a_run_does_not_go_on_over_another_base(script, run_on_demo, few_examples, base, tmp_path, monkeypatch):
    is_plain = script is run_clue_classifier
    model, output = shutil.copytree(base, tmp_path / "model"), tmp_path / "output"
    words = (*(FLAGS if is_plain else TRAINER).split(), "--data_dir", few_examples)

    def run():
        return run_on_demo(script.main, output, *words, model=model)

    saver, name = (checkpoints, "save") if is_plain else (ClueTrainer, "_save_checkpoint")
    save = getattr(saver, name)

    def save_and_die(*rest, **more):
        save(*rest, **more)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(saver, name, save_and_die)
        run()
    assert [*output.glob("checkpoint-*")]
    change(model)
    status, _, error = run()
    *_, said = error.splitlines()  # the Trainer's library logs above it
    assert status == 2 and said.startswith("error: ")
    assert "its adapters were trained on other weights than those" in said


@pytest.mark.parametrize("rank", [4, 0])
def test_no_run_takes_the_folder_of_its_adapters_base(rank, trained, train, base):
    before = (base / "model.safetensors").read_bytes()
    status, _, error = train(base, "--overwrite_output_dir", "--lora_rank", rank, model=trained)
    assert status == 2 and error.count("\n") == 1
    assert "is the model that the adapters of" in error and "choose another" in error
    assert (base / "model.safetensors").read_bytes() == before


def test_training_on_from_adapters(trained, train, predict, tmp_path):
    before = json.loads((trained / "result.json").read_text())["evaluation"]
    status, _, error = train(tmp_path / "other", "--lora_rank", 3, model=trained)
    assert status == 2 and "has adapters of rank 4; pass that to train them on" in error
    status, _, error = train(trained, model=trained)
    assert status == 2 and "choose another --output_dir" in error
    steps = ("--learning_rate", 1e-9, "--max_steps", 1)
    for rank, is_whole in ((4, False), (0, True)):
        folder = tmp_path / f"{rank}"
        status, _, error = train(folder, *steps, "--lora_rank", rank, model=trained)
        assert status == 0, error
        names = load_file(str(folder / "model.safetensors"))
        assert any("word_embeddings" in name for name in names) == is_whole
        after = json.loads((folder / "result.json").read_text())["evaluation"]
        assert after["accuracy"] == before["accuracy"] and after["loss"] == pytest.approx(before["loss"], abs=1e-5)


@pytest.mark.parametrize("script", [run_c3, run_chid, run_cmrc2018], ids=lambda script: script.__name__)
def test_every_script_trains_adapters(script, run_on_demo, few_examples, demo, tmp_path):
    words = "--do_train --do_predict --max_steps 2 --batch_size 4 --max_seq_length 80 --lora_rank 2".split()
    status, _, error = run_on_demo(script.main, tmp_path, *words, "--data_dir", few_examples)
    assert status == 0, error
    assert not any("embeddings" in name for name in load_file(str(tmp_path / "model.safetensors")))


def test_the_trainer_script_trains_adapters_and_goes_on(run_on_demo, few_examples, predict, tmp_path, monkeypatch):
    def run(folder):
        return run_on_demo(run_clue_classifier_trainer.main, folder, *TRAINER.split(), "--data_dir", few_examples)

    assert run(tmp_path / "whole")[0] == 0
    save = ClueTrainer._save_checkpoint

    def cut_off(self, model, metrics=None):
        if self.state.global_step == 8:
            raise KeyboardInterrupt
        save(self, model, metrics)

    with monkeypatch.context() as patch:
        patch.setattr(ClueTrainer, "_save_checkpoint", cut_off)
        assert run(tmp_path / "cut")[0] == 130
    assert run(tmp_path / "cut")[0] == 0
    weights = [load_file(str(tmp_path / name / "model.safetensors")) for name in ("whole", "cut")]
    assert weights[0].keys() == weights[1].keys() and not any("embeddings" in name for name in weights[0])
    for name, array in weights[0].items():
        np.testing.assert_array_equal(array, weights[1][name], name)
    assert predict(tmp_path / "cut", tmp_path / "output")[0] == 0
    records = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("cut", "output")]
    assert records[0]["evaluation"]["accuracy"] == records[1]["evaluation"]["accuracy"]
