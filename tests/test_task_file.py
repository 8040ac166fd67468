"""A user's task: from a description in JSON to prediction, grid and report, no line of the project changed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

import compare
import errors
import list_trials
import report
import run_c3
import run_chid
import run_clue_classifier
import run_cmrc2018
from clue_utils import task_file, tasks
from clue_utils.data.examples import load_examples
from clue_utils.errors import UserError
from clue_utils.grid import estimate, outcomes, schedule, trial
from clue_utils.record import Record
from clue_utils.tasks import TASKS

WORDS = {"joy": "高兴", "anger": "生气", "sadness": "难过", "fear": "害怕"}
MOOD = {
    "name": "Mood",
    "kind": "classification",
    "fields": ["comment"],
    "labels": {"joy": "高兴", "anger": "愤怒", "sadness": "难过", "fear": "害怕"},
    "files": {"train": "train.json", "validation": "dev.json", "test": "test.json"},
    "hyper_parameters": {
        "num_train_epochs": 2,
        "max_seq_length": 16,
        "learning_rates": [1e-3, 3e-3],
        "batch_sizes": [16],
        "save_steps": 20,
    },
}


@pytest.fixture(autouse=True)
def no_other_tasks():
    """What one test tells this process, no other knows."""
    tasks.OWN.clear()
    yield
    tasks.OWN.clear()


def write_lines(path: Path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def make(folder: Path, **changes) -> Path:
    """A task file with the data that it names; a change to None leaves a key out."""
    labels = [*WORDS]
    for name, number in (("train", 320), ("dev", 40), ("test", 12)):
        rows = [
            {"id": i, "comment": f"第{i}次让我{WORDS[labels[i % 4]]}", "label": labels[i % 4]} for i in range(number)
        ]
        write_lines(
            folder / f"{name}.json", [{k: v for k, v in r.items() if name != "test" or k != "label"} for r in rows]
        )
    path = folder / "mood.json"
    described = {key: value for key, value in (MOOD | changes).items() if value is not None}
    path.write_text(json.dumps(described, ensure_ascii=False, indent=2), encoding="utf-8")
    return path


def test_from_the_file_to_a_report(run_script, demo, tmp_path, monkeypatch):
    """Two trials as a grid lays them out, their report, mistakes, comparison and predictions."""
    path = make(tmp_path)
    monkeypatch.chdir(tmp_path)
    status, out, error = run_script(list_trials.main, "--task_file", path)
    assert status == 0, error
    assert out == "MOOD 0.001 16 0.1 42 1\nMOOD 0.003 16 0.1 42 1\n"
    folders = []
    for line in out.splitlines():
        _, rate, batch, dropout, seed, _ = line.split()
        folders.append(tmp_path / f"results/m/MOOD/{rate}_{batch}_{dropout}_{seed}")
        status, out, error = run_script(
            run_clue_classifier.main,
            *("--task_file", path, "--model_name_or_path", demo / "model", "--output_dir", folders[-1]),
            *("--device", "cpu", "--do_train", "--do_eval", "--do_predict", "--learning_rate", rate),
        )
        assert status == 0, error
    assert f"max_seq_length: 16 ({path})" in out
    answers = [json.loads(line) for line in (folders[-1] / "mood_predict.json").read_text().splitlines()]
    assert [answer["label"] for answer in answers] == [[*WORDS][i % 4] for i in range(12)]
    record = Record.read(folders[-1])
    assert record and record.score == 1.0 and record.classes.keys() == {"高兴", "愤怒", "难过", "害怕"}

    tasks.OWN.clear()  # another process, which was told nothing
    status, out, error = run_script(report.main, "results/m", "--output", "report")
    assert status == 0, error
    assert re.search(r"^model +AVG +MOOD\nm +100\.00 +100\.00$", out, re.MULTILINE) and "TNEWS" not in out
    assert "MOOD" in Path("report/report.html").read_text(encoding="utf-8")
    assert run_script(report.main, "results/m", "--output", "report", "--language", "zh")[0] == 0
    tasks.OWN.clear()
    status, out, error = run_script(errors.main, folders[-1])
    assert status == 0 and "愤怒" in out, error
    tasks.OWN.clear()
    status, out, error = run_script(compare.main, *folders, "--tasks", "mood")
    assert status == 0 and "MOOD" in out, error

    # Another model beside it, with a task of CLUE: the ten have their columns, and this one comes last.
    shutil.copytree(folders[-1], tmp_path / "results/m/TNEWS/1e-5_16_0.1_42")
    changed = json.loads((folders[-1] / "result.json").read_text()) | {"task": "TNEWS"}
    del changed["task_definition"]
    (tmp_path / "results/m/TNEWS/1e-5_16_0.1_42/result.json").write_text(json.dumps(changed))
    tasks.OWN.clear()
    out = run_script(report.main, "results/m", "--output", "report")[1]
    assert re.search(r"^model +AVG " + " +".join(["", *TASKS, "MOOD"]), out, re.MULTILINE)
    assert "100.00 (1 of 10)" in out  # the mean is CLUE's


def test_a_changed_task_is_not_gone_on_with(run_script, demo, tmp_path):
    words = ("--model_name_or_path", demo / "model", "--output_dir", tmp_path / "out", "--device", "cpu", "--do_train")
    path = make(tmp_path)
    assert run_script(run_clue_classifier.main, "--task_file", path, *words, "--max_steps", 1)[0] == 0
    path = make(tmp_path, hyper_parameters={**MOOD["hyper_parameters"], "learning_rates": [1e-3, 3e-3, 5e-3]})
    given = ("--learning_rate", 3e-3, "--max_steps", 1)
    status, _, error = run_script(run_clue_classifier.main, "--task_file", path, *words, *given)
    assert status == 0, error  # a wider grid is the same task
    path = make(tmp_path, labels=["anger", "joy", "sadness", "fear"])
    status, _, error = run_script(run_clue_classifier.main, "--task_file", path, *words, *given)
    assert status == 2 and error.count("\n") == 1
    assert "result.json: labels of its task MOOD: ('joy', " in error and "give the task that has changed" in error
    status, _, error = run_script(
        run_clue_classifier.main, "--task_file", path, *words, *given, "--overwrite_output_dir", "--do_predict"
    )
    assert status == 0, error


def test_labels_from_the_training_file(run_script, demo, tmp_path):
    """Numbers count as numbers; a checkpoint brings its labels along where there is no training file any more."""
    from clue_utils import Predictor

    path = make(tmp_path, labels=None)
    for name in ("train", "dev"):
        rows = map(json.loads, (tmp_path / f"{name}.json").read_text().splitlines())
        write_lines(tmp_path / f"{name}.json", [row | {"label": 9 + [*WORDS].index(row["label"])} for row in rows])
    words = ("--task_file", path, "--output_dir", tmp_path / "out", "--device", "cpu", "--max_steps", 1)
    status, _, error = run_script(
        run_clue_classifier.main, *words, "--model_name_or_path", demo / "model", "--do_train"
    )
    assert status == 0, error
    assert tasks.OWN["MOOD"].labels == ("9", "10", "11", "12")
    (tmp_path / "train.json").unlink()
    status, _, error = run_script(
        run_clue_classifier.main, *words, "--model_name_or_path", tmp_path / "out", "--do_predict"
    )
    assert status == 0, error
    answers = [json.loads(line) for line in (tmp_path / "out/mood_predict.json").read_text().splitlines()]
    assert {answer["label"] for answer in answers} <= {"9", "10", "11", "12"}

    texts = [json.loads(line)["comment"] for line in (tmp_path / "test.json").read_text().splitlines()]
    (tmp_path / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    status, out, error = run_script(
        run_clue_classifier.main,
        *("--task_file", path, "--model_name_or_path", tmp_path / "out", "--device", "cpu"),
        *("--output_dir", tmp_path / "other", "--predict_file", tmp_path / "texts.txt"),
    )
    assert status == 0, error
    tasks.OWN.clear()  # another process, which was told nothing
    for told in (map(json.loads, out.splitlines()), Predictor(tmp_path / "out", device="cpu")(texts)):
        assert [answer["label"] for answer in told] == [answer["label"] for answer in answers]


def test_cached_features_know_labels_and_fields(demo, tokenizer, tmp_path):
    """Classes in another order, or another field read, are other features of the same file."""
    from clue_utils.training.classification import Classification

    (tmp_path / "other").mkdir()
    described = (make(tmp_path), make(tmp_path / "other", labels=[*WORDS][::-1]))
    tasks_ = [task_file.read(str(path)) for path in described]
    settings = [Classification(task, tokenizer, 16).settings() for task in tasks_]
    assert settings[0] != settings[1]
    assert Classification(TASKS["TNEWS"], tokenizer, 16).settings() == {
        "method": "classification",
        "max_seq_length": 16,
    }


READING = {
    "multiple_choice": (run_c3, ["d-{}.json", "m-{}.json"], "test1.1.json"),
    "span": (run_cmrc2018, ["{}.json"], "test.json"),
    "cloze": (run_chid, ["{}.json"], "test1.1.json"),
}


@pytest.mark.parametrize("kind", READING)
def test_reading_tasks(run_script, few_examples, demo, tmp_path, kind):
    script, names, test = READING[kind]
    form = task_file.FORMS[kind]
    folder = few_examples / form.folder
    files = {
        word: [str(folder / name.format(split)) for name in names]
        for word, split in (("train", "train"), ("validation", "dev"))
    }
    described = {"name": "own", "kind": kind, "files": files | {"test": str(folder / test)}}
    described["hyper_parameters"] = {"max_seq_length": 128} if kind != "cloze" else {}
    (tmp_path / "own.json").write_text(json.dumps(described))
    status, _, error = run_script(
        script.main,
        *("--task_file", tmp_path / "own.json", "--model_name_or_path", demo / "model", "--device", "cpu"),
        *("--output_dir", tmp_path / "out", "--do_train", "--do_predict", "--max_steps", 1, "--batch_size", 2),
        *("--max_eval_samples", 2),
    )
    assert status == 0, error
    record = Record.read(tmp_path / "out")
    assert record and record.task == "OWN" and record.metric == form.metric and record.num_dev == 2
    assert (tmp_path / "out/own_predict.json").stat().st_size
    assert task_file.know(record.fields["task_definition"], "").kind == kind


def test_parts_and_files_in_the_place_of_the_official_ones(run_script, few_examples, demo, tmp_path):
    """As with Hugging Face's examples: the first N, and files of the task's form."""
    folder = few_examples / "tnews_public"
    for name in ("train", "dev"):
        shutil.copy(folder / f"{name}.json", tmp_path / f"my_{name}.json")
    write_lines(tmp_path / "new.json", [{"sentence": "一句话"}, {"sentence": "又一句"}])
    words = ("--task_name", "tnews", "--device", "cpu", "--max_steps", 1, "--output_dir", tmp_path / "out")
    words += ("--model_name_or_path", demo / "model", "--do_train", "--do_eval", "--do_predict", "--data_dir", tmp_path)
    words += ("--train_file", tmp_path / "my_train.json", "--validation_file", tmp_path / "my_dev.json")
    words += ("--test_file", tmp_path / "new.json", "--max_train_samples", 5, "--max_eval_samples", 3)
    status, out, error = run_script(run_clue_classifier.main, *words)
    assert status == 0, error
    assert "TNEWS train: 5 examples, the first of 16, from" in out
    record = Record.read(tmp_path / "out")
    assert record and record.fields["num_examples"] == {"dev": 3, "train": 5, "test": 2}
    assert (record.fields["max_train_samples"], record.fields["max_eval_samples"]) == (5, 3)
    assert record.fields["evaluation"]["num_examples"] == 3 and record.evaluation.keys() == {"accuracy", "loss"}
    assert [path.name for path in (tmp_path / "out").glob("*_predict.json")] == ["tnews_predict.json"]
    assert not outcomes.read_run(record).task.is_own
    status, _, error = run_script(run_clue_classifier.main, *words[:-4], "--max_train_samples", 4)
    assert status == 2 and "other settings (max_train_samples 5 there, 4 now" in error


def test_a_part_has_a_checksum_of_its_own(few_examples):
    whole = load_examples(TASKS["TNEWS"], "dev", few_examples)
    first, other = (load_examples(TASKS["TNEWS"], "dev", few_examples, number) for number in (2, 3))
    assert [*first] == whole[:2] and len({whole.sha256, first.sha256, other.sha256}) == 3
    assert load_examples(TASKS["TNEWS"], "dev", few_examples, len(whole)).sha256 == whole.sha256


def test_chid_s_answers_are_beside_its_records(few_examples, tmp_path):
    for name in ("dev.json", "dev_answer.json"):
        shutil.copy(few_examples / "chid_public" / name, tmp_path / f"my_{name}")
    task = task_file.with_files(TASKS["CHID"], {"validation_file": [str(tmp_path / "my_dev.json")]})
    found = load_examples(task, "dev", few_examples)
    assert [path.name for path in found.files] == ["my_dev.json", "my_dev_answer.json"]
    assert task.splits["train"] == TASKS["CHID"].splits["train"] and task.test_splits == TASKS["CHID"].test_splits


@pytest.mark.parametrize("word", task_file.SPLITS)
def test_a_second_file_of_chid_is_not_left_out(run_script, demo, tmp_path, word):
    words = ("--model_name_or_path", demo / "model", "--output_dir", tmp_path / "out", "--do_predict")
    status, _, error = run_script(run_chid.main, *words, f"--{word}_file", "a.json", "b.json")
    assert (status, error) == (2, f"error: --{word}_file: a cloze task takes one file\n")
    assert not (tmp_path / "out").exists()


def test_jobs_of_a_search_get_the_file(tmp_path, monkeypatch):
    path = str(make(tmp_path))
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "results"))
    task_file.register(path)
    (one,) = (trial_ for trial_ in estimate.trial.search_space.list_trials(["mood"]) if trial_.learning_rate == 1e-3)
    job = schedule.Search("m", [one], []).job(one)
    assert job[job.index("--task_file") + 1] == path and job.index("--task_file") < job.index("--")
    words = trial.command(trial.make_plan("m", one, [], ()))
    assert words[words.index("--task_file") + 1] == path and "--task_name" not in words
    with pytest.raises(UserError, match="--task_file is set by the trial itself"):
        trial.make_plan("m", one, ["--task_file", path], ())
    outcomes.add_to_plan(tmp_path / "results/m", [one.folder])
    tasks.OWN.clear()
    assert outcomes.know_own_tasks(tmp_path / "results/m") == ["MOOD"]
    assert outcomes.read_plan(tmp_path / "results/m") == (one.folder,)
    assert tasks.OWN["MOOD"].learning_rates == (1e-3, 3e-3)


def text(**changes) -> str:
    return json.dumps({key: v for key, v in (MOOD | changes).items() if v is not None}, ensure_ascii=False, indent=2)


def hyper(**values) -> str:
    return text(hyper_parameters=values)


WRONG = {
    "empty": ("", r"mood\.json: empty"),
    "no JSON": (text()[:-3], r"mood\.json:28: not JSON \("),
    "an array": ("[]", r"mood\.json:1: \[\] is not an object with name, kind"),
    "a key twice": ('{\n"name": "a",\n"name": "b"}', r"mood\.json:3: key 'name': occurs twice"),
    "a mistyped key": (text(label=[]), r"mood\.json:30: key 'label': unknown: did you mean labels\?"),
    "no kind": (text(kind=None), r"mood\.json:1: no key 'kind': a task needs name and kind"),
    "no such kind": (text(kind="clasification"), r"mood\.json:3: .*did you mean classification\?"),
    "a name with a path": (text(name="../x"), r"mood\.json:2: key 'name': '\.\./x' is not made of"),
    "a name of CLUE's": (text(name="tnews"), r"mood\.json:2: key 'name': TNEWS is one of CLUE's"),
    "three fields": (text(fields=["a", "b", "c"]), r"mood\.json:4: key 'fields': .*one or two fields"),
    "the label as a text": (text(fields=["label"]), r"mood\.json:4: key 'fields': .*not id or label"),
    "fields of another kind": (
        text(kind="span"),
        r"mood\.json:4: key 'fields': a span task has the fields of CMRC2018",
    ),
    "a label twice": (text(labels=["a", "b", "a"]), r"mood\.json:7: key 'labels': 'a' occurs twice"),
    "one label": (text(labels=["a"]), r"mood\.json:7: key 'labels': 1 labels: there must be two"),
    "a name twice": (text(labels={"a": "x", "b": "x"}), r"mood\.json:7: key 'labels': two labels are called 'x'"),
    "a split of another name": (text(files={"valid": "x"}), r"key 'valid': unknown: did you mean validation\?"),
    "a file that is a number": (
        text(files={"train": 3}),
        r"mood\.json:14: key 'train': 3 is not the path",
    ),
    "a mistyped hyper-parameter": (hyper(learning_rate=1), r"mood\.json:19: .*did you mean learning_rates\?"),
    "a rate of 0": (hyper(learning_rates=[0]), r"mood\.json:19: key 'learning_rates': 0 is not a number above 0"),
    "half an epoch": (hyper(num_train_epochs=0.5), r"mood\.json:19: key 'num_train_epochs': 0\.5 is not an integer"),
    "a metric of another kind": (hyper(metric="em"), r"mood\.json:19: key 'metric': 'em' is not accuracy"),
    "a kind of another script": (
        '{"name": "x", "kind": "span"}',
        r"mood\.json: its kind is span: run mrc/run_cmrc2018\.py",
    ),
    "no training file": (text(files={}, labels=None), r'mood\.json: no train file: name it in "files", or pass'),
    "a training file that is not there": (text(files={"train": "no.json"}, labels=None), r"no\.json: no such file, of"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_end_with_one_line(run_script, tmp_path, case):
    content, expected = WRONG[case]
    (tmp_path / "mood.json").write_text(content, encoding="utf-8")
    words = ("--task_file", tmp_path / "mood.json", "--model_name_or_path", "x", "--do_train")
    status, out, error = run_script(run_clue_classifier.main, *words)
    assert (status, out) == (2, "") and re.fullmatch(r"error: [^\n]+\n", error), error
    assert re.search(expected, error), error


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((), "pass --task_name with one of CLUE's tasks, or --task_file"),
        (("--task_name", "tnews", "--task_file", "x"), "and not both"),
        (("--task_file", "/nowhere.json"), "--task_file /nowhere.json: cannot be read"),
        (("--task_file", "/"), "--task_file /: not a file"),
    ],
)
def test_which_task(run_script, words, line):
    status, _, error = run_script(run_clue_classifier.main, "--model_name_or_path", "x", "--do_train", *words)
    assert status == 2 and line in error and error.count("\n") == 1


def test_what_a_record_says_is_checked(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({"task": "X", "task_definition": {"name": "x", "kind": "?"}}))
    with pytest.raises(UserError, match=r"result\.json is not a result of these scripts \(the definition of its task"):
        Record.read(tmp_path)


@pytest.mark.parametrize("kind", task_file.FORMS)
def test_a_description_is_read_as_it_was_written(tmp_path, kind):
    (tmp_path / "t.json").write_text(json.dumps({"name": "t", "kind": kind}))
    task = task_file.read(str(tmp_path / "t.json"))
    again = task_file.know(task_file.description(task), "")
    assert task_file.description(again) == task_file.description(task)
    assert again.script == task_file.FORMS[kind].script and again.num_gpus == 1
