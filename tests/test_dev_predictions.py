"""What a model answered to each record of the development set, as runs write it and as it is read."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import run_c3
import run_chid
import run_clue_classifier
import run_clue_classifier_trainer
import run_cmrc2018
from clue_utils import dev_predictions
from clue_utils.data.examples import load_examples
from clue_utils.errors import UserError
from clue_utils.features.build import build_features, features_in_memory
from clue_utils.record import Record
from clue_utils.tasks import CLASSIFICATION_TASKS, TASKS, get_task
from clue_utils.training.classification import Classification

SCRIPTS = {"C3": run_c3, "CHID": run_chid, "CMRC2018": run_cmrc2018}
# The demo's texts are longer: some are cut.
LENGTHS = {"C3": 48, "CHID": 24, "CMRC2018": 72, "IFLYTEK": 32}
FLAGS = "--device cpu --max_steps 2 --save_steps 1 --batch_size 4 --learning_rate 1e-3".split()


def flags_of(name: str) -> list[str]:
    more = ["--task_name", name] if name in CLASSIFICATION_TASKS else []
    return [*more, "--max_seq_length", str(LENGTHS.get(name, 64))]


@pytest.fixture
def run(run_script, demo, few_examples):
    """Run a task's script on a few examples; what was said on standard error if it failed."""

    def of(name: str, output: Path, *words: object, model: Path | None = None) -> None:
        main = SCRIPTS.get(name, run_clue_classifier).main
        common = ["--model_name_or_path", model or demo / "model", "--data_dir", few_examples, *FLAGS]
        status, _, said = run_script(main, *common, "--output_dir", output, *flags_of(name), *words)
        assert status == 0, said

    return of


def test_a_file_is_a_line_for_each_record_and_its_checksum_is_told(tmp_path):
    told = dev_predictions.write(tmp_path, iter([{"id": 1, "answer": "是"}, {"id": 0, "answer": "否"}]))
    content = (tmp_path / "dev_predictions.jsonl").read_bytes()
    assert content.decode() == '{"id": 1, "answer": "是"}\n{"id": 0, "answer": "否"}\n'
    assert told == {"sha256": hashlib.sha256(content).hexdigest()} and len([*tmp_path.iterdir()]) == 1


def test_what_each_record_adds_to_a_score():
    of = {
        "TNEWS": [{"is_right": True}, {"is_right": False}],
        "C3": [{"is_right": False}],
        "CHID": [{"blanks": [{"is_right": True}, {"is_right": False}, {"is_right": True}]}, {"blanks": []}],
        "CMRC2018": [{"em": 1, "f1": 1.0}, {"em": 0, "f1": 0.25}],
    }
    expected = {
        "TNEWS": {"accuracy": [1, 0]},
        "C3": {"accuracy": [0]},
        "CHID": {"accuracy": [[2, 3], [0, 0]]},
        "CMRC2018": {"em": [1, 0], "f1": [1, 0.25]},
    }
    for name, lines in of.items():
        found = dev_predictions.units(lines, TASKS[name])
        assert {metric: array.tolist() for metric, array in found.items()} == expected[name]
        assert {array.dtype for array in found.values()} == {np.dtype(np.float64)}


@pytest.mark.parametrize("name", TASKS)
def test_every_task_writes_what_its_score_is_made_of(name, run, tmp_path, few_examples, demo):
    task = get_task(name)
    run(name, tmp_path, "--do_train", "--save_best_model", "false")
    lines = dev_predictions.read(tmp_path)
    record = Record.read(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    examples = load_examples(task, "dev", few_examples)
    assert [line["id"] for line in lines] == [row.get("id", i) for i, row in enumerate(examples)]
    units = dev_predictions.units(lines, task)
    means = {name: v[:, 0].sum() / v[:, 1].sum() if v.ndim == 2 else v.mean() for name, v in units.items()}
    assert means == pytest.approx({name: record.metrics[name] for name in means}, abs=1e-12) and means
    assert record.dev_predictions["data_sha256"] == examples.sha256
    for line, row in zip(lines, examples, strict=True):
        assert line["is_right"] in (True, False) and line["is_cut"] in (True, False)
        if task.kind == "classification":
            check_class(line, row, task)
        elif name == "C3":
            choices, shares = row["choice"], line["probabilities"]
            assert (line["gold"], line["answer"]) == (choices[row["label"]], choices[line["answer_index"]])
            assert len(shares) == len(choices) and np.argmax(shares) == line["answer_index"]
        elif name == "CHID":
            assert [blank["tag"] for blank in line["blanks"]] == list(row["answers"])
            assert line["gold"] == [row["candidates"][i] for i in row["answers"].values()]
            assert line["is_right"] == all(blank["is_right"] for blank in line["blanks"])
        else:
            check_span(line, row)
    if task.kind == "classification":
        assert sum(figures["num_gold"] for figures in record.classes.values()) == len(lines)
        right = sum(counts.get(gold, 0) for gold, counts in record.confusion.items())
        assert right == sum(line["is_right"] for line in lines)
        assert list(record.classes) == list(task.names)
    assert any(line["is_cut"] for line in lines) or name not in ("C3", "CHID", "IFLYTEK")


def check_class(line, row, task):
    shares = line["probabilities"]
    assert list(shares) == list(task.names) and sum(shares.values()) == pytest.approx(1, abs=1e-3)
    assert max(shares, key=shares.get) == line["answer"] and line["gold"] == task.names[row["label"]]
    assert line["is_right"] == (line["gold"] == line["answer"])
    assert all(isinstance(text, str) and text for text in line["inputs"].values())


def check_span(line, row):
    assert line["gold"] == [answer["text"] for answer in row["answers"]]
    best = line["n_best"]
    assert best[0]["text"] == line["answer"] and 1 <= len(best) <= 20
    assert len({span["text"] for span in best}) == len(best)
    shares = [span["probability"] for span in best]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1, abs=1e-4)
    assert all(
        row["context"][span["begin"] : span["end"]] == span["text"] for span in best if span["begin"] is not None
    )


@pytest.fixture(scope="module")
def trained(run_script, demo, few_examples, tmp_path_factory):
    """Two models of OCNLI; and what the Trainer script keeps, whose best evaluation need not be its last."""
    folder = tmp_path_factory.mktemp("trained")
    common = ["--model_name_or_path", demo / "model", "--data_dir", few_examples, "--device", "cpu", "--do_train"]
    for seed in (1, 2):
        words = [*common, *FLAGS, *flags_of("OCNLI"), "--seed", seed, "--output_dir", folder / str(seed)]
        status, _, said = run_script(run_clue_classifier.main, *words)
        assert status == 0, said
    words = "--dataset ocnli --max_steps 4 --save_steps 1 --learning_rate 1e-2 --load_best_model_at_end".split()
    words += ["--metric_for_best_model", "eval_accuracy", "--max_seq_length", "32", "--output_dir", folder / "trainer"]
    status, _, said = run_script(run_clue_classifier_trainer.main, *common, *words)
    assert status == 0, said
    return folder


def accuracy_of(folder: Path) -> float:
    return float(np.mean([line["is_right"] for line in dev_predictions.read(folder)]))


@pytest.mark.parametrize("name", ["1", "trainer"])
def test_the_answers_are_those_of_the_weights_that_are_kept(trained, name, run, tmp_path):
    record = Record.read(trained / name)
    assert accuracy_of(trained / name) == record.score
    assert record.dev_predictions["step"] == record.fields["best_step"]
    copy = shutil.copytree(trained / name, tmp_path / name)
    (copy / dev_predictions.FILE_NAME).unlink()
    run("OCNLI", copy, "--do_eval", "--max_seq_length", "64" if name == "1" else "32", model=copy)
    assert (copy / dev_predictions.FILE_NAME).read_bytes() == (trained / name / dev_predictions.FILE_NAME).read_bytes()


def test_an_ensemble_writes_its_own_answers(trained, run, tmp_path):
    run("OCNLI", tmp_path, "--do_eval", "--ensemble", trained / "2", model=trained / "1")
    lines = [dev_predictions.read(folder) for folder in (trained / "1", trained / "2", tmp_path)]
    assert accuracy_of(tmp_path) == Record.read(tmp_path).fields["evaluation"]["accuracy"]
    for one, two, both in zip(*lines, strict=True):
        for name, share in both["probabilities"].items():
            mean = (one["probabilities"][name] + two["probabilities"][name]) / 2
            assert share == pytest.approx(mean, abs=2e-6)


def test_answers_of_another_model_are_refused(trained, tmp_path):
    folder = shutil.copytree(trained / "1", tmp_path / "stale")
    shutil.copy(trained / "2" / dev_predictions.FILE_NAME, folder)
    with pytest.raises(UserError, match="not the answers of the model that result.json tells of; run .* --do_eval"):
        dev_predictions.read(folder)
    shutil.copy(trained / "1" / dev_predictions.FILE_NAME, folder)
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"best_step": 99}))  # killed before it wrote the answers
    with pytest.raises(UserError, match="not the answers of the model"):
        dev_predictions.read(folder)
    (folder / "result.json").unlink()
    with pytest.raises(UserError, match="no result.json beside it"):
        dev_predictions.read(folder)
    (folder / dev_predictions.FILE_NAME).unlink()
    assert dev_predictions.read(folder) is None


@pytest.mark.parametrize(
    "line", [{}, [], {"gold": 1}, {"is_right": 1}, {"probabilities": [0.5]}, {"inputs": "text"}, {"answer": None}]
)
def test_a_line_that_is_not_as_described_is_named(tmp_path, line):
    good = {"id": 0, "inputs": {"sentence": "天"}, "is_cut": False, "gold": "a", "answer": "a", "is_right": True}
    wrong = {**good, "probabilities": {"a": 1.0}, **line} if line else line
    written = dev_predictions.write(tmp_path, [{**good, "probabilities": {"a": 1.0}}, wrong])
    (tmp_path / "result.json").write_text(json.dumps({"task": "TNEWS", "dev_predictions": written}))
    with pytest.raises(UserError, match=rf"{dev_predictions.FILE_NAME}:2: .*; run the script again with --do_eval"):
        dev_predictions.read(tmp_path)


def test_texts_are_only_tokenised_again_where_they_may_be_cut(few_examples, tokenizer, monkeypatch, tmp_path):
    """And once, however often a model is evaluated."""
    task = get_task("TNEWS")
    examples = load_examples(task, "dev", few_examples)
    lengths = [len(tokenizer.tokenize(example["sentence"])) + 2 for example in examples]
    limit = sorted(lengths)[1]
    method = Classification(task, tokenizer, limit)
    features = build_features(examples, method, tokenizer, tmp_path, 1)
    asked = []
    is_cut = method.is_cut
    monkeypatch.setattr(method, "is_cut", lambda example: asked.append(example["id"]) or is_cut(example))
    cut = [method.cut_examples(examples, features) for _ in range(3)][-1]
    assert cut == [length > limit for length in lengths] and True in cut
    assert asked == [row["id"] for row, length in zip(examples, lengths, strict=True) if length >= limit]
    assert len(asked) < len(cut)


def test_cuts_are_those_of_the_features_that_are_asked_about(few_examples, tokenizer):
    """Features in memory have no file to tell them apart by."""
    task = get_task("TNEWS")
    examples = load_examples(task, "dev", few_examples)
    method = Classification(task, tokenizer, min(len(tokenizer.tokenize(row["sentence"])) for row in examples) + 2)
    emptied, found = replace(examples, rows=[{**row, "sentence": ""} for row in examples]), []
    for each in (examples, emptied):
        features = features_in_memory([feature for row in each for feature in method.encode(row)])
        found.append(any(method.cut_examples(each, features)))
    assert found == [True, False]


def test_names_tell_classes_apart():
    for task in TASKS.values():
        assert len(set(task.names)) == len(task.labels)
    assert TASKS["TNEWS"].names[TASKS["TNEWS"].labels.index("109")] == "news_tech"
    assert TASKS["IFLYTEK"].names[110] == "社区超市" and TASKS["OCNLI"].names == TASKS["OCNLI"].labels
