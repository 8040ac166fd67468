"""What is refused of a run before PaddlePaddle is loaded."""

from __future__ import annotations

import json

import pytest

import run_c3
import run_clue_classifier
from clue_utils import environment
from clue_utils.tasks import TASKS


@pytest.fixture
def before_paddle(run_script, tmp_path, monkeypatch):
    """Run a script with these flags as far as to Paddle: its status and what it says last. "{}" is a folder."""
    monkeypatch.setattr(environment, "load_libraries", lambda *_: pytest.fail("Paddle is loaded"))
    monkeypatch.setattr(environment, "versions", lambda: {"paddlepaddle": "3.3.1"})
    monkeypatch.chdir(tmp_path)
    for name in ("model", "tnews"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    record = {"task": "TNEWS", "model": "m", "status": "finished", "history": [], "hyper_parameters": {}}
    (tmp_path / "tnews/result.json").write_text(json.dumps(record))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()

    def run(words, main=run_clue_classifier.main):
        task = ["--task_name", "AFQMC"] if main is run_clue_classifier.main else []
        status, _, err = run_script(main, *task, *words.format(tmp_path).split())
        assert err.count("\n") == 1
        return status, err

    return run


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--do_train --model_name_or_path {}/nowhere", "error: {}/nowhere: no such folder"),
        ("--do_eval --model_name_or_path model --ensemble none", "error: --ensemble none: no such folder"),
        ("--do_train --model_name_or_path {}/file", "error: {}/file: a file; name the folder that it is in"),
        ("--do_train --model_name_or_path {}/empty", "error: {}/empty: no config.json"),
        ("--do_train --model_name_or_path model --data_dir nowhere", "error: --data_dir nowhere: not a folder"),
        ("--do_eval --model_name_or_path model --data_dir empty", "error: --data_dir empty: no files of AFQMC"),
        (
            "--do_eval --model_name_or_path tnews --data_dir empty",
            "error: tnews was fine-tuned for TNEWS: it has no head",
        ),
        (
            "--do_eval --model_name_or_path model --ensemble tnews",
            "error: tnews was fine-tuned for TNEWS: it has no head",
        ),
        ("--do_train --model_name_or_path model --output_dir tnews", "error: tnews holds a run with other settings"),
        ("--do_train --model_name_or_path model --output_dir file/a", "error: file/a: Not a directory"),
        (
            "--do_train --model_name_or_path model --device gpu",
            "error: --device gpu: the installed PaddlePaddle is built",
        ),
        (
            "--do_train --model_name_or_path model --device xpu",
            "error: --device xpu: the installed PaddlePaddle is built",
        ),
    ],
)
def test_a_mistake_is_told_before_paddle_is_loaded(before_paddle, tmp_path, words, line):
    status, err = before_paddle(words)
    assert status == 2 and err.startswith(line.format(tmp_path))
    assert not (tmp_path / "best_afqmc_model").exists()


def test_only_what_the_run_reads_has_to_be_there(before_paddle, few_examples, tmp_path):
    """The files of the training set are not asked for where nothing is trained."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("d-dev.json", "m-dev.json"):
        (folder / name).write_bytes((few_examples / TASKS["C3"].folder / name).read_bytes())
    words = "--model_name_or_path model --data_dir data"
    with pytest.raises(pytest.fail.Exception, match="Paddle is loaded"):
        before_paddle(f"--do_eval {words}", run_c3.main)
    status, err = before_paddle(f"--do_train {words}", run_c3.main)
    assert status == 2 and "no d-train.json: the train split of C3 needs" in err


def test_a_card_that_is_hidden_is_refused_too(before_paddle, monkeypatch):
    monkeypatch.setattr(environment, "versions", lambda: {"paddlepaddle-gpu": "3.3.1"})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    status, err = before_paddle("--do_train --model_name_or_path model --device gpu")
    assert status == 2 and "no card is visible; check CUDA_VISIBLE_DEVICES, or pass --device cpu" in err
