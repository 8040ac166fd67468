"""An eleventh task needs an entry in the registry and a line of preprocessing, nothing else."""

from __future__ import annotations

import json

import pytest

import run_clue_classifier
from clue_utils import tasks
from clue_utils.grid import search_space
from clue_utils.leaderboard.file_names import submission_files
from clue_utils.tasks import Archive, Split, Task
from clue_utils.training import classification

# What would stand in clue_utils/tasks.py.
REVIEWS = Task(
    name="REVIEWS",
    kind="classification",
    script="classification/run_clue_classifier.py",
    folder="reviews_public",
    archive=Archive(("https://example.org/reviews_public.zip",), ()),
    fields={"title": str, "review": str},
    splits={name: Split(((f"{name}.json",),), 0) for name in ("train", "dev", "test")},
    submissions={"test": "reviews_predict.json"},
    labels=("bad", "good"),
    num_train_epochs=6,
    max_seq_length=32,
)


@pytest.fixture
def reviews(monkeypatch, tmp_path):
    """The task, and made examples of it."""
    monkeypatch.setitem(tasks.TASKS, REVIEWS.name, REVIEWS)
    text_and_pair = classification.text_and_pair

    # What would be two lines of text_and_pair.
    def with_reviews(task_name, example):
        if task_name == "REVIEWS":
            return example["title"], example["review"]
        return text_and_pair(task_name, example)

    monkeypatch.setattr(classification, "text_and_pair", with_reviews)
    folder = tmp_path / "data/reviews_public"
    folder.mkdir(parents=True)
    for name, number in (("train", 400), ("dev", 60), ("test", 30)):
        examples = [
            {
                "title": f"第{i}条",
                "review": "很好看" if i % 3 else "很难看",
                "label": "good" if i % 3 else "bad",
                "id": i,
            }
            for i in range(number)
        ]
        lines = [{k: v for k, v in example.items() if name != "test" or k != "label"} for example in examples]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    return folder.parent


def test_it_is_trained_evaluated_and_predicted(reviews, run_script, demo, tmp_path):
    output = tmp_path / "out"
    status, _, error = run_script(
        run_clue_classifier.main,
        *("--task_name", "reviews", "--model_name_or_path", demo / "model", "--data_dir", reviews, "--device", "cpu"),
        *("--output_dir", output, "--do_train", "--do_eval", "--do_predict", "--learning_rate", 1e-3),
    )
    assert status == 0, error
    assert json.loads((output / "result.json").read_text())["best_metric"] > 0.9
    answers = [json.loads(line) for line in (output / "reviews_predict.json").read_text().splitlines()]
    assert len(answers) == 30 and {answer["label"] for answer in answers} <= {"bad", "good"}


def test_grid_and_submission_know_it(reviews):
    assert len(search_space.list_trials(["reviews"])) == 12
    assert submission_files()["reviews_predict.json"] == (REVIEWS, "test")
