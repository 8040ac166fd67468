"""run_clue_classifier.py as users run it, on the demo model and data."""

from __future__ import annotations

import json
import re

import pytest

import run_clue_classifier
from clue_utils import tasks
from clue_utils.data.examples import load_examples
from clue_utils.tasks import TASKS
from clue_utils.training.classification import text_and_pair
from make_demo import training_flags


@pytest.fixture(scope="module")
def classify(run_on_demo):
    """Run the script on a task of the demo data: (status, standard output, standard error)."""
    return lambda task, output, *words, model=None: run_on_demo(
        run_clue_classifier.main, output, "--task_name", task, *words, model=model
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory, classify):
    """A TNEWS checkpoint of a few steps with a length of its own."""
    output = tmp_path_factory.mktemp("tnews")
    flags = "--do_train --max_steps 6 --save_steps 2 --logging_steps 2 --max_seq_length 24 --batch_size 8"
    status, out, err = classify("tnews", output, *flags.split(), "--learning_rate", "1e-3")
    assert status == 0, err
    return output


def losses(log: str) -> list[float]:
    return [float(loss) for loss in re.findall(r"global step .*, loss: (\d+\.\d{6}), lr: ", log)]


def test_what_a_run_leaves_behind(trained):
    folder = trained
    result = json.loads((folder / "result.json").read_text())
    told = [result[name] for name in ("status", "task", "metric", "num_steps")]
    assert told == ["finished", "TNEWS", "accuracy", 6]
    assert [entry["step"] for entry in result["history"]] == [2, 4, 6]
    assert result["best_metric"] == max(entry["accuracy"] for entry in result["history"])
    assert result["hyper_parameters"]["max_seq_length"] == 24
    assert set(result["data_sha256"]) == {"train", "dev"} == set(result["num_examples"])
    assert {"model.safetensors", "config.json", "vocab.txt", "metrics.jsonl", "visualdl"} <= {
        p.name for p in folder.iterdir()
    }
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(m["kind"], m["step"]) for m in metrics] == [
        (kind, step) for step in (2, 4, 6) for kind in ("train", "eval")
    ]
    assert not [p for p in folder.rglob("*") if p.name.endswith(".tmp") or p.name.startswith(".saving")]


def test_evaluation_alone_gives_the_best_checkpoint_s_score(classify, trained, tmp_path):
    status, out, err = classify("TNEWS", tmp_path, "--do_eval", model=trained)
    best = json.loads((trained / "result.json").read_text())["best_metric"]
    assert status == 0, err
    assert "max_seq_length: 24 (checkpoint)" in out
    assert json.loads((tmp_path / "result.json").read_text())["evaluation"]["accuracy"] == best


def test_two_predictions_give_the_same_bytes_under_all_names(classify, trained, tmp_path, demo):
    for name in ("first", "second"):
        status, _, err = classify("TNEWS", tmp_path / name, "--do_predict", model=trained)
        assert status == 0, err
    files = ("tnews10_predict.json", "tnews11_predict.json", "tnews_predict.json")
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    assert (tmp_path / "first" / files[1]).read_bytes() == (tmp_path / "first" / files[2]).read_bytes()
    predictions = [json.loads(line) for line in (tmp_path / "first" / files[1]).read_text().splitlines()]
    examples = [json.loads(line) for line in (demo / "data/tnews_public/test.json").read_text().split("\n") if line]
    assert [p["id"] for p in predictions] == [r["id"] for r in examples]
    assert {p["label"] for p in predictions} <= set(TASKS["TNEWS"].labels)


def test_predicting_in_the_checkpoint_s_folder_keeps_its_training_record(classify, trained):
    before = json.loads((trained / "result.json").read_text())
    assert classify("TNEWS", trained, "--do_predict", model=trained)[0] == 0
    after = json.loads((trained / "result.json").read_text())
    assert after["history"] == before["history"] and after["hyper_parameters"] == before["hyper_parameters"]


def test_predictions_do_not_depend_on_the_evaluation_batch_size(classify, trained, tmp_path):
    for size in (1, 7, 64):
        words = ("--do_predict", "--eval_batch_size", size)
        assert classify("TNEWS", tmp_path / str(size), *words, model=trained)[0] == 0
    texts = {(tmp_path / str(size) / "tnews10_predict.json").read_bytes() for size in (1, 7, 64)}
    assert len(texts) == 1


def test_accumulation_changes_nothing(classify, tmp_path):
    """Though each micro-batch is padded for itself."""
    flags = "--do_train --max_steps 4 --logging_steps 1 --batch_size 8 --dropout 0 --learning_rate 1e-3".split()
    _, whole, _ = classify("AFQMC", tmp_path / "whole", *flags)
    _, split, _ = classify("AFQMC", tmp_path / "split", *flags, "--gradient_accumulation_steps", 3)
    assert len(losses(whole)) == 4
    assert losses(split) == pytest.approx(losses(whole), abs=1e-5)


def test_same_command_same_numbers(classify, tmp_path):
    flags = "--do_train --max_steps 4 --logging_steps 1 --batch_size 8 --learning_rate 1e-3".split()
    logs = [classify("CSL", tmp_path / name, *flags)[1] for name in "ab"]
    assert losses(logs[0]) == losses(logs[1])
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


@pytest.mark.parametrize("task", tasks.CLASSIFICATION_TASKS)
def test_the_demo_model_learns(classify, tmp_path, task):
    status, _, err = classify(task, tmp_path, "--do_train", *training_flags(TASKS[task]))
    assert status == 0, err
    assert json.loads((tmp_path / "result.json").read_text())["best_metric"] > 0.8


def wsc_text(text: str, noun: tuple[int, str], pronoun: tuple[int, str]) -> str:
    spans = zip(("span1_index", "span1_text", "span2_index", "span2_text"), (*noun, *pronoun), strict=True)
    return text_and_pair("CLUEWSC2020", {"text": text, "target": dict(spans)})[0]


@pytest.mark.parametrize(
    ("noun", "pronoun", "marked"),
    [
        ((0, "A"), (3, "D"), "_A_BC[D]E"),
        ((3, "DE"), (0, "A"), "[A]BC_DE_"),
        ((0, "AB"), (2, "C"), "_AB_[C]DE"),
        ((2, "C"), (0, "AB"), "[AB]_C_DE"),
        ((0, "ABC"), (1, "B"), "_A[B]C_DE"),
        ((0, "ABC"), (0, "A"), "_[A]BC_DE"),
        ((0, "ABC"), (2, "C"), "_AB[C]_DE"),
        ((1, "B"), (0, "ABC"), "[A_B_C]DE"),
        ((2, "C"), (0, "ABC"), "[AB_C_]DE"),
        ((1, "BC"), (1, "BC"), "A_[BC]_DE"),
        ((0, "AB"), (1, "BC"), "_A[B_C]DE"),
        ((1, ""), (1, "B"), "A[__B]CDE"),
        ((1, "B"), (2, ""), "A_B_[]CDE"),
    ],
)
def test_marked_spans_may_meet_and_overlap(noun, pronoun, marked):
    assert wsc_text("ABCDE", noun, pronoun) == marked


def test_spans_of_real_examples_are_marked_as_the_official_reader_does(clue_data_dir):
    number = 0
    for split in TASKS["CLUEWSC2020"].splits:
        for example in load_examples(TASKS["CLUEWSC2020"], split, clue_data_dir):
            spans = ((example["target"][f"span{i}_index"], len(example["target"][f"span{i}_text"])) for i in (1, 2))
            letters = list(example["text"])
            for (begin, length), (left, right) in zip(spans, ("__", "[]"), strict=True):
                letters[begin] = left + letters[begin]
                letters[begin + length - 1] += right
            assert text_and_pair("CLUEWSC2020", example)[0] == "".join(letters)
            number += 1
    assert number > 1000
