"""Random mistakes in flags, data, results, predictions and zips: a clear refusal or a right answer, nothing else.

``FUZZ=2000`` in the environment tries as many examples of each test; the default is quick.
"""

from __future__ import annotations

import copy
import json
import os
import random
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import report as report_script
from clue_utils import tasks
from clue_utils.data.examples import load_examples
from clue_utils.errors import UserError
from clue_utils.leaderboard import check_file, check_zip, file_names, write
from clue_utils.settings import Settings
from clue_utils.training.cloze import Chid, ChidSettings
from clue_utils.training.multiple_choice import C3
from clue_utils.training.span import Cmrc2018, Cmrc2018Settings
from demo.records import make_data, sizes_for
from run_clue_classifier import ClassifierSettings

EXAMPLES = int(os.environ.get("FUZZ", "25"))
quick = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="FUZZ" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# Text of every kind: unknown and control characters, emoji, right to left, a byte-order mark, line ends, very long.
TEXTS = st.one_of(
    st.text(max_size=20),
    st.text(st.characters(categories=["Cc", "Cf", "Co", "Zs"]), max_size=20),
    st.sampled_from(
        ["", " ", "\ufeff中", "a\r\nb", "\u2028", "שלום", "مرحبا", "😀👨‍👩‍👧", "\x00", "#idiom1#", "[MASK]"]
    ),
    st.integers(1, 1 << 20).map(lambda n: "中a " * (n // 3)),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)
# Two lines of a terminal and some more: so much a message may take, beside the folder that a test works in.
LONGEST = 300


def places(value, path=()):
    """Paths of all values within a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(value, path, new):
    """A copy with another value at a path; without it, where ``new`` is the type ``list`` itself."""
    if not path:
        return new
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    if new is list:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return value


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make_data(folder, sizes=sizes_for(16))
    return folder


def method_of(task, tokenizer):
    from clue_utils.training.classification import Classification

    if task.kind == "classification":
        return Classification(task, tokenizer, 32)
    if task.kind == "multiple_choice":
        return C3(tokenizer, 32)
    if task.kind == "cloze":
        return Chid(tokenizer, 32, "joint")
    return Cmrc2018(tokenizer, 64, 16, 16, 5, 10)


@pytest.mark.parametrize("name", tasks.TASKS)
@quick
@given(choice=st.randoms(use_true_random=False), new=st.one_of(VALUES, st.just(list)))
def test_examples(name, folder, tokenizer, tmp_path_factory, choice: random.Random, new):
    task = tasks.TASKS[name]
    target = tmp_path_factory.mktemp("changed") / task.folder
    target.mkdir()
    source = sorted((folder / task.folder).iterdir())
    for path in source:
        (target / path.name).write_bytes(path.read_bytes())
    split = choice.choice([*task.splits])
    files = [path for path in source if split.split("1")[0] in path.name] or source
    path = target / choice.choice(files).name
    text = path.read_text(encoding="utf-8")
    by_line = not text.lstrip().startswith(("[", "{\n")) and len(text.splitlines()) > 1
    if by_line:
        lines = text.splitlines()
        number = choice.randrange(len(lines))
        try:
            example = json.loads(lines[number])
        except ValueError:
            example = lines[number]
        where = choice.choice([*places(example)]) if isinstance(example, dict) else ()
        lines[number] = json.dumps(changed(example, where, new if new is not list or where else None))
        path.write_text("\n".join(lines), encoding="utf-8")
    else:
        document = json.loads(text)
        where = choice.choice([*places(document)])
        path.write_text(json.dumps(changed(document, where, new if new is not list or where else None)), "utf-8")
    try:
        examples = load_examples(task, split, target.parent)
    except UserError as error:
        line = str(error).replace(str(target.parent), "")
        assert line.isprintable() and path.name in line and len(line) <= LONGEST, line
        return
    method = method_of(task, tokenizer)
    for example in examples:
        for feature in method.encode(example):
            rows = feature["input_ids"]
            for row in rows if isinstance(rows[0], list) else [rows]:
                assert 0 < len(row) <= method.max_seq_length


@quick
@given(words=st.lists(st.one_of(st.sampled_from(
    ["--do_train", "--task_name", "TNEWS", "--batch_size", "-1", "0", "1e9", "nan", "--learning_rate", "--max_steps",
     "--model_name_or_path", "m", "--ensemble", "--save_best_model", "--dropout=2", "--seed", "--precision", "--do_evl"]
), st.text(max_size=6), TEXTS), max_size=8))  # fmt: skip
def test_flags(words, capsys):
    kinds = (ClassifierSettings, Settings, ChidSettings, Cmrc2018Settings)
    for kind in kinds:
        try:
            kind.parser().parse_args(words)
        except SystemExit as end:
            error = capsys.readouterr().err
            assert end.code in (0, 2) and (end.code == 0 or (error.startswith("error: ") and error.count("\n") == 1))
            assert end.code == 0 or len(error) <= LONGEST


@pytest.fixture(scope="module")
def result():
    history = [{"step": step, "loss": 1.0, "accuracy": step / 10} for step in (1, 2, 3)]
    best = {"best_metric": 0.3, "best_step": 3, "best_metrics": history[2]}
    return {
        "status": "finished",
        "task": "TNEWS",
        "model": "m",
        "metric": "accuracy",
        "num_steps": 3,
        "history": history,
        "hyper_parameters": {"learning_rate": 3e-5, "batch_size": 32, "dropout": 0.1, "seed": 42},
        "num_examples": {"dev": 100},
        "data_sha256": {"dev": "0"},
        "wall_time": 1.0,
        "begun": "2026-01-01T00:00:00+00:00",
        "ended": "2026-01-01T00:00:01+00:00",
        "num_processes": 1,
        **best,
    }


@quick
@given(choice=st.randoms(use_true_random=False), new=st.one_of(VALUES, st.just(list)))
def test_results_in_a_report(result, run_script, tmp_path_factory, choice, new):
    top = tmp_path_factory.mktemp("results")
    trial = top / "m/TNEWS/3e-5_32_0.1_42"
    trial.mkdir(parents=True)
    where = choice.choice([*places(result)])
    (trial / "result.json").write_text(json.dumps(changed(result, where, new if new is not list or where else None)))
    status, out, err = run_script(report_script.main, str(top / "m"), "--output", str(top / "report"))
    assert status in (0, 2), err
    assert status == 0 or (err.count("\n") == 1 and len(err.replace(str(top), "")) <= LONGEST)
    page = top / "report/report.html"
    assert status or "<script>alert" not in page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def predictions(folder):
    """File name -> content and answers by id, of valid prediction files."""
    files = {}
    for name, (task, split) in file_names.submission_files().items():
        ids, _ = file_names.expected_ids(task, split, folder)
        label = {"classification": task.labels[:1], "multiple_choice": [1], "span": ["甲"], "cloze": [3]}[task.kind][0]
        answers = [(id_, label) for id_ in ids]
        answers = dict(answers) if task.kind in ("span", "cloze") else answers
        files[name] = (write.format_predictions(task, answers).encode(), ids)
    return files


@quick
@given(choice=st.randoms(use_true_random=False), noise=st.binary(max_size=6), new=st.one_of(VALUES, st.just(list)))
def test_prediction_files(predictions, choice, noise, new):
    name = choice.choice([*predictions])
    content, ids = predictions[name]
    if choice.random() < 0.5:  # bytes
        begin = choice.randrange(len(content) + 1)
        broken = content[:begin] + noise + content[choice.randrange(begin, min(len(content), begin + 9) + 1) :]
    else:  # a value
        lines = content.splitlines()
        number = choice.randrange(len(lines))
        try:
            value = json.loads(lines[number])
            where = choice.choice([*places(value)])
            lines[number] = json.dumps(changed(value, where, new if new is not list or where else None)).encode()
        except ValueError:  # a file of one object over several lines
            value = json.loads(content)
            where = choice.choice([*places(value)])
            lines = [json.dumps(changed(value, where, new if new is not list or where else None)).encode()]
        broken = b"\n".join(lines) + b"\n"
    findings = check_file.Findings()
    check_file.check_prediction(name, broken, name, findings, ids)
    assert all(line.isprintable() and len(line) <= LONGEST for line in findings.problems), findings.problems
    if not findings.problems:  # accepted: then all it may have changed is answers, for other allowed ones
        task, _ = file_names.submission_files()[name]
        if task.kind in ("span", "cloze"):
            answers = json.loads(broken)
        else:
            answers = {str(i): json.loads(line)["label"] for i, line in enumerate(broken.splitlines())}
        assert len(answers) == len(ids)
        for answer in answers.values():
            if task.kind == "classification":
                assert answer in task.labels
            elif task.kind == "span":
                assert isinstance(answer, str)
            else:
                assert answer in range(10 if task.kind == "cloze" else 4) and not isinstance(answer, bool)


@quick
@given(choice=st.randoms(use_true_random=False), noise=st.binary(min_size=1, max_size=40))
def test_zips(predictions, tmp_path_factory, choice, noise):
    path = tmp_path_factory.mktemp("zip") / "submit.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (content, _) in predictions.items():
            archive.writestr(name, content)
    good = path.read_bytes()
    begin = choice.randrange(len(good))
    path.write_bytes(good[:begin] + noise + good[begin + choice.choice([0, len(noise)]) :])
    try:
        findings = check_zip.check_zip(path)
    except UserError as error:
        assert str(path) in str(error)
        return
    # Accepted only if every file in it is still what it was.
    if not findings.problems:
        with zipfile.ZipFile(path) as archive:
            for name, (content, _) in predictions.items():
                assert archive.read(name) == content
