"""Several checkpoints averaged into one prediction, the diagnostics set, and predicting and zipping a whole model."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import predict_and_zip
import run_clue_classifier
import run_cmrc2018
from clue_utils import cli
from clue_utils.record import Record
from clue_utils.tasks import DIAGNOSTICS, TASKS
from clue_utils.training import ensemble
from clue_utils.training.ensemble import average_logits

TOP = Path(__file__).parents[2]
LENGTH = ("--max_seq_length", 32)


@pytest.fixture(scope="module")
def data(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CMNLI and CMRC2018 of the demo, and a diagnostics set."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("cmnli_public", "cmrc2018_public"):
        (folder / name).symlink_to(demo / "data" / name)
    pairs = [json.loads(line) for line in (demo / "data" / "cmnli_public" / "dev.json").open(encoding="utf-8")]
    (folder / DIAGNOSTICS.folder).mkdir()
    with (folder / DIAGNOSTICS.folder / "diagnostics_test.json").open("w", encoding="utf-8") as file:
        for i, pair in enumerate(pairs[:9]):
            example = {"index": i, "premise": pair["sentence1"], "hypothesis": pair["sentence2"], "label": "neutral"}
            file.write(json.dumps(example, ensure_ascii=False) + "\n")
    return folder


@pytest.fixture(scope="module")
def model_dir(demo: Path, data: Path, run_script: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trials of CMNLI that differ in seed, and one of CMRC2018, in a folder with a blank in its name."""
    folder = tmp_path_factory.mktemp("results") / "my model"
    common = ("--model_name_or_path", demo / "model", "--data_dir", data, "--device", "cpu")
    for seed in (1, 2):
        words = (*LENGTH, *f"--task_name CMNLI --learning_rate 1e-3 --seed {seed} --max_steps 30 --do_train".split())
        output = folder / "CMNLI" / f"1e-3_16_0.1_{seed}"
        status, _, err = run_script(run_clue_classifier.main, *common, *words, "--output_dir", output)
        assert status == 0, err
    words = (*"--max_seq_length 128 --max_steps 2 --do_train --output_dir".split(), folder / "CMRC2018" / "a")
    status, _, err = run_script(run_cmrc2018.main, *common, *words)
    assert status == 0, err
    return folder


@pytest.fixture(scope="module")
def apply(data: Path, run_script: Any) -> Any:
    """Evaluate and predict with checkpoints: (status, standard output, error)."""

    def run(main: Any, output: Path, members: list[Path], *words: Any) -> tuple[int, str, str]:
        task = ("--task_name", "CMNLI") if main is run_clue_classifier.main else ()
        more = ("--ensemble", *members[1:]) if members[1:] else ()
        words = (*task, "--model_name_or_path", members[0], *more, "--output_dir", output, "--device", "cpu", *words)
        return run_script(main, *words, "--data_dir", data, "--do_eval", "--do_predict")

    return run


def evaluation(folder: Path) -> dict[str, float]:
    return json.loads((folder / "result.json").read_text())["evaluation"]


def test_the_mean_is_of_probabilities_and_keeps_each_row_s_level():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 3)).astype(np.float32) * 4
    probabilities = [np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (a, b)]
    mean = average_logits([a, b])
    shares = np.exp(mean) / np.exp(mean).sum(1, keepdims=True)
    np.testing.assert_allclose(shares, np.mean(probabilities, 0), rtol=1e-5)
    levels = [np.log(np.exp(x).sum(1)) for x in (a, b, mean)]
    np.testing.assert_allclose(levels[2], (levels[0] + levels[1]) / 2, rtol=1e-5)
    assert mean.dtype == np.float32


def test_equal_members_give_their_own_logits_and_missing_columns_stay_missing():
    rng = np.random.default_rng(1)
    logits = (rng.normal(size=(50, 8)) * 20).astype(np.float32)
    logits[::2, 4:] = -np.inf
    with np.errstate(all="raise"):
        for num_distributions in (1, 2):
            np.testing.assert_array_equal(average_logits([logits] * 3, num_distributions), logits)
    # What is added to one of two distributions leaves the other alone.
    moved = logits.copy()
    moved[:, 0::2] += 3
    np.testing.assert_array_equal(average_logits([logits, moved], 2)[:, 1::2], logits[:, 1::2])


@pytest.mark.parametrize("script", ["CMNLI", "CMRC2018"])
def test_a_checkpoint_with_itself_is_itself(tmp_path, model_dir, apply, script):
    main = run_clue_classifier.main if script == "CMNLI" else run_cmrc2018.main
    checkpoint = sorted((model_dir / script).iterdir())[0]
    for name, members in (("one", [checkpoint]), ("two", [checkpoint, checkpoint])):
        status, _, err = apply(main, tmp_path / name, members)
        assert status == 0, err
    files = sorted(path.name for path in (tmp_path / "one").glob("*_predict.json"))
    expected = {"CMNLI": ["cmnli_predict.json", "diagnostics_predict.json"], "CMRC2018": ["cmrc2018_predict.json"]}
    assert files == expected[script]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert evaluation(tmp_path / "two") == pytest.approx(evaluation(tmp_path / "one"), rel=1e-6)
    result = json.loads((tmp_path / "two" / "result.json").read_text())
    assert result["ensemble"] == [str(checkpoint)] * 2
    assert "ensemble" not in json.loads((tmp_path / "one" / "result.json").read_text())


def test_two_checkpoints_are_averaged(tmp_path, model_dir, apply, monkeypatch):
    averaged: list[list[np.ndarray]] = []

    def average_and_note(members: list[np.ndarray], num_distributions: int) -> np.ndarray:
        averaged.append(members)
        return average_logits(members, num_distributions)

    monkeypatch.setattr(ensemble, "average_logits", average_and_note)
    a, b = sorted((model_dir / "CMNLI").iterdir())
    for name, members in (("a", [a]), ("b", [b]), ("ab", [a, b]), ("ba", [b, a])):
        status, out, err = apply(run_clue_classifier.main, tmp_path / name, members)
        assert status == 0, err
    single = [evaluation(tmp_path / name)["loss"] for name in "ab"]
    # The logarithm is concave: the mean of probabilities loses less than the mean of the losses.
    assert min(single) - 0.2 < evaluation(tmp_path / "ab")["loss"] < sum(single) / 2
    assert evaluation(tmp_path / "ab") == pytest.approx(evaluation(tmp_path / "ba"), rel=1e-6)
    texts = {name: (tmp_path / name / "cmnli_predict.json").read_bytes() for name in ("a", "b", "ab", "ba")}
    assert texts["ab"] == texts["ba"] and texts["a"] != texts["b"]
    # What is written is the class of the highest mean probability: dev, test and diagnostics of two ensembles.
    assert len(averaged) == 6
    mean = sum(np.exp(logits) / np.exp(logits).sum(1, keepdims=True) for logits in averaged[1]) / 2
    rows = [json.loads(line) for line in texts["ab"].splitlines()]
    assert [row["label"] for row in rows] == [TASKS["CMNLI"].labels[i] for i in mean.argmax(1)]
    of = {}
    for name in ("a", "b", "ab"):
        path = tmp_path / name / "cmnli_probabilities.jsonl"
        of[name] = [json.loads(line) for line in path.read_text().splitlines()]
        labels = [json.loads(line)["label"] for line in texts[name].splitlines()]
        assert [line["label"] for line in of[name]] == labels
        assert [line["id"] for line in of[name]] == [row["id"] for row in rows]
    shares = {name: np.array([[*line["probabilities"].values()] for line in lines]) for name, lines in of.items()}
    np.testing.assert_allclose(shares["ab"], (shares["a"] + shares["b"]) / 2, atol=2e-6)
    # The same folder used without --ensemble again tells of the one model alone.
    assert apply(run_clue_classifier.main, tmp_path / "ab", [a])[0] == 0
    assert evaluation(tmp_path / "ab") == pytest.approx(evaluation(tmp_path / "a"))
    assert "ensemble" not in json.loads((tmp_path / "ab" / "result.json").read_text())


def test_the_diagnostics_are_predicted_where_they_are(tmp_path, model_dir, apply, run_script, demo):
    checkpoint = sorted((model_dir / "CMNLI").iterdir())[0]
    status, out, _ = apply(run_clue_classifier.main, tmp_path / "with", [checkpoint])
    assert status == 0
    (name,) = DIAGNOSTICS.submissions.values()
    rows = [json.loads(line) for line in (tmp_path / "with" / name).read_text().splitlines()]
    assert [row["id"] for row in rows] == list(range(9)) and {row["label"] for row in rows} <= set(DIAGNOSTICS.labels)
    words = ("--task_name", "CMNLI", "--model_name_or_path", checkpoint, "--device", "cpu", "--do_predict")
    words = (*words, "--data_dir", demo / "data", "--output_dir", tmp_path / "without")
    status, out, _ = run_script(run_clue_classifier.main, *words)
    assert status == 0 and not (tmp_path / "without" / name).exists()
    assert f"no {DIAGNOSTICS.folder} in {demo / 'data'}, not predicted" in out


def test_what_cannot_be_averaged_is_refused(tmp_path, model_dir, apply, run_script, data):
    a, b = sorted((model_dir / "CMNLI").iterdir())
    main = run_clue_classifier.main
    words = ("--task_name", "CMNLI", "--model_name_or_path", a, "--ensemble", b, "--do_train")
    assert "drop it or --do_train" in run_script(main, *words)[2]

    def refused(members: list[Path], *words: Any, output: Path = tmp_path / "out") -> str:
        status, out, err = apply(main, output, members, *words)
        assert status == 2 and err.count("\n") == 1 and not (tmp_path / "out").exists()
        return err

    assert f"--ensemble {tmp_path / 'none'}: no such folder" in refused([a, tmp_path / "none"])
    assert "holds a training run: choose another --output_dir" in refused([a, b], output=a)
    other = shutil.copytree(b, tmp_path / "other")
    vocabulary = (other / "vocab.txt").read_text().split("\n")
    vocabulary[100], vocabulary[101] = vocabulary[101], vocabulary[100]
    (other / "vocab.txt").write_text("\n".join(vocabulary))
    assert "its tokenizer is not that of" in refused([a, other])
    shutil.copy(b / "vocab.txt", other)
    result = json.loads((other / "result.json").read_text())
    result["hyper_parameters"]["max_seq_length"] = 64
    (other / "result.json").write_text(json.dumps(result))
    assert "was trained with max_seq_length 64" in refused([a, other])
    shutil.copy(b / "result.json", other)
    result["task"] = "OCNLI"
    (other / "result.json").write_text(json.dumps(result))
    assert "was fine-tuned for OCNLI" in refused([a, other], *LENGTH)


def test_a_whole_model_is_predicted_checked_and_zipped(tmp_path, model_dir, data, warm_python):
    before = {path: path.stat().st_mtime_ns for path in model_dir.rglob("*") if path.is_file()}
    a, b = sorted((model_dir / "CMNLI").iterdir())
    output = tmp_path / "my submit.zip"
    words = (model_dir, "--output", output, f"cmnli={a},{b}", "--", "--data_dir", data, "--device", "cpu")
    command = ["bash", str(TOP / "scripts" / "predict_and_zip.sh"), *map(str, words)]
    environment = os.environ | {"PYTHON": str(warm_python)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert sorted(zipfile.ZipFile(output).namelist()) == ["cmnli_predict.json", "cmrc2018_predict.json"]
    together = evaluation(model_dir / "predictions/CMNLI")["accuracy"]
    alone = [Record.read(folder).score for folder in (a, b)]
    said = f"CMNLI: accuracy {cli.percent(together)} of the 2 together, {' '.join(map(cli.percent, alone))} of each"
    assert said in done.stdout.splitlines()
    files = json.loads((tmp_path / "my submit.manifest.json").read_text())["files"]
    made = files["cmnli_predict.json"]
    assert (made["score"], [member["score"] for member in made["checkpoints"]]) == (together, alone)
    digests = [hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() for folder in (a, b)]
    assert [member["weights_sha256"] for member in made["checkpoints"]] == digests
    assert "evaluation" not in Record.read(model_dir / "predictions/CMRC2018").fields
    assert f"cmnli_predict.json       {f'accuracy {cli.percent(together)}':<17}mean of 2: {a}, {b}" in done.stdout
    assert f"CMNLI: {a} (accuracy " in done.stdout and f" and {b} (accuracy " in done.stdout
    assert f"CMRC2018: {model_dir / 'CMRC2018' / 'a'} (em " in done.stdout
    assert f"TNEWS: no trained checkpoint in {model_dir / 'TNEWS'}: left out" in done.stdout
    assert "2 files, no problem found" in done.stdout
    assert "Left out: AFQMC TNEWS IFLYTEK OCNLI CLUEWSC2020 CSL CHID C3." in done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in before}


def put_trial(folder: Path, score: float, status: str = "finished", has_weights: bool = True) -> Path:
    rate, batch_size, dropout, seed = folder.name.split("_")
    settings = {"learning_rate": float(rate), "batch_size": int(batch_size), "dropout": float(dropout)}
    settings["seed"] = int(seed)
    record = {"status": status, "task": folder.parent.name, "metric": "accuracy", "best_metric": score, "history": []}
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(record | {"hyper_parameters": settings}))
    if has_weights:
        (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_members_are_the_best_trials_or_the_seeds_of_the_best_setting(tmp_path, capsys):
    task, place = TASKS["TNEWS"], tmp_path / "TNEWS"
    second = put_trial(place / "1e-5_16_0.1_1", 0.5)
    best = put_trial(place / "1e-5_16_0.1_2", 0.6)
    third = put_trial(place / "2e-5_16_0.1_1", 0.4)
    last = put_trial(place / "1e-5_16_0.1_3", 0.1)
    put_trial(place / "3e-5_16_0.1_1", 0.9, status="failed")

    def found(ensemble: int | str) -> tuple[list[Path], str]:
        return predict_and_zip.best_folders(place, task, ensemble), capsys.readouterr().err

    assert found(1) == ([best], "") and found(3) == ([best, second, third], "")
    assert found("seeds") == ([best, second, last], "")
    assert found(9) == ([best, second, third, last], "TNEWS: 4 of 9 members, no other trial kept its weights\n")
    dropped = put_trial(place / "1e-5_16_0.1_4", 0.55, has_weights=False)
    line = f"TNEWS: {dropped} (accuracy 55.00 %) is a member but kept no checkpoint\n"
    assert found(2) == ([best, second], line) and found("seeds") == ([best, second, last], line)
    (best / "model.safetensors").unlink()
    line = f"TNEWS: {best} (accuracy 60.00 %) is the best but kept no checkpoint\n"
    assert found(1) == ([second], line)
    (place / "config.json").write_text("{}")
    assert found(3) == ([place], "")  # the task's folder is a checkpoint itself


def test_mistakes_of_predict_and_zip(tmp_path, run_script):
    for words, line in (
        ((), "error: MODEL_DIR is missing"),
        ((tmp_path / "none",), f"error: {tmp_path / 'none'}: no such folder"),
        ((tmp_path,), f"error: no checkpoint of any task in {tmp_path}"),
        ((tmp_path, "--outptu"), "error: unknown argument '--outptu': did you mean --output?"),
        ((tmp_path, "--output"), "error: argument --output: expected one argument"),
        ((tmp_path, "--ensemble", "0"), "error: argument --ensemble: '0' is not an integer of at least 1"),
        ((tmp_path, "--ensemble", "all"), "error: argument --ensemble: 'all' is not an integer of at least 1"),
        ((tmp_path, tmp_path), f"error: {tmp_path} is not TASK=FOLDER"),
        ((tmp_path, f"TNEW={tmp_path}"), "error: unknown task 'TNEW'"),
        ((tmp_path, f"TNEWS={tmp_path}", f"tnews={tmp_path}"), "error: TNEWS is named twice"),
        ((tmp_path, f"TNEWS={tmp_path / 'x'}"), f"error: TNEWS={tmp_path / 'x'}: no such folder"),
    ):
        status, _, err = run_script(predict_and_zip.main, *words)
        assert status == 2 and err.startswith(line) and err.count("\n") == 1, err


def test_a_task_whose_prediction_fails_is_named_with_the_end_of_its_log(tmp_path, monkeypatch, run_script):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho on the way\necho cannot >&2\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setenv("PYTHON", str(python))
    (tmp_path / "a,b").mkdir()
    status, out, err = run_script(predict_and_zip.main, tmp_path, f"CSL={tmp_path / 'a,b'}")
    log = tmp_path / "predictions/CSL.log"
    assert (status, err) == (3, f"CSL failed; the end of {log}:\non the way\ncannot\n")
    assert out.splitlines()[-1] == f"CSL: {tmp_path / 'a,b'} (no score recorded)"
