"""A checkpoint used: from Python, of files of every form, and with the answers that --do_predict gives."""

from __future__ import annotations

import csv
import doctest
import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from types import SimpleNamespace

import pytest
from safetensors.numpy import load_file, save_file

import run_c3
import run_chid
import run_clue_classifier
import run_cmrc2018
from clue_utils.data.examples import find_files
from clue_utils.errors import UserError
from clue_utils.tasks import TASKS
from demo.records import Sizes, make_data
from test_signals import Sending

TOP = Path(__file__).parents[1]
MAINS = {"C3": run_c3.main, "CHID": run_chid.main, "CMRC2018": run_cmrc2018.main}
LENGTHS = {"CMRC2018": 96, "C3": 48}


def official(task, row):
    """What the prediction file has of an answer: key -> value."""
    if task.kind == "cloze":
        return {blank["tag"]: blank["index"] for blank in row["blanks"]}
    return {row["id"]: row[{"classification": "label", "multiple_choice": "index", "span": "answer"}[task.kind]]}


def written(path):
    """The content of a prediction file, key -> value."""
    text = path.read_text(encoding="utf-8")
    if text.startswith("{\n"):
        return json.loads(text)
    return {line["id"]: line["label"] for line in lines_of(text)}


def lines_of(text):
    """The objects of JSON lines, in texts of which other separators than line feeds stand."""
    return [json.loads(line) for line in text.removesuffix("\n").split("\n")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, demo, run_script):
    """Task -> folder of a model trained for a step; beside its predictions, answers to the same test file."""
    top = tmp_path_factory.mktemp("models")
    data = top / "data"
    make_data(data, sizes={name: Sizes(8, 4, 20) for name in TASKS})
    # Matrices of such a size that texts, too, have a say in the answers: otherwise all are answered alike.
    model = shutil.copytree(demo / "model", top / "model")
    weights = load_file(model / "model.safetensors")
    large = {name: value * 16 if value.ndim == 2 else value for name, value in weights.items()}
    save_file(large, model / "model.safetensors", {"format": "np"})

    def train(name):
        folder, task = top / name.lower(), TASKS[name]
        if not folder.exists():
            (test, *_) = find_files(task, task.test_splits[-1], data)
            words = ["--model_name_or_path", model, "--data_dir", data, "--device", "cpu"]
            words += ["--max_seq_length", LENGTHS.get(name, 24), "--do_train", "--max_steps", 1, "--batch_size", 8]
            words += ["--output_dir", folder, "--do_predict", "--predict_file", test]
            words += ["--predict_output", folder / "own/answers.jsonl"]
            words += [] if name in MAINS else ["--task_name", name]
            status, _, error = run_script(MAINS.get(name, run_clue_classifier.main), *words)
            assert status == 0, error
        return folder

    return train


@pytest.fixture(scope="module")
def tnews(trained):
    from clue_utils import Predictor

    return Predictor(trained("TNEWS"), device="cpu")


@pytest.mark.parametrize("name", TASKS)
def test_own_file_gets_the_answers_of_the_test_set(trained, name):
    folder, task = trained(name), TASKS[name]
    rows = lines_of((folder / "own/answers.jsonl").read_text(encoding="utf-8"))
    expected = written(folder / task.plain_submission)
    if not task.is_reading_comprehension and "id" not in rows[0]:  # as OCNLI's and CMNLI's: numbered by the reader
        rows = [{"id": number, **row} for number, row in enumerate(rows)]
    found = [pair for row in rows for pair in official(task, row).items()]
    assert found == [*expected.items()] and len(rows) > 9
    assert len({*map(str, expected.values())}) > 1
    assert all({*row["inputs"]} == {*task.fields} for row in rows)
    for row in rows:
        if task.kind == "span":
            shares = [span["probability"] for span in row["n_best"]]
            assert row["begin"] is None or row["inputs"]["context"][row["begin"] : row["end"]] == row["answer"]
        elif task.kind == "cloze":
            shares = row["blanks"][0]["probabilities"]
        else:
            shares = row["probabilities"]
            shares = [*shares.values()] if isinstance(shares, dict) else shares
        assert sum(shares) == pytest.approx(1, abs=1e-4)
        assert task.kind == "cloze" or row["probability"] == max(shares)


def test_the_example_of_the_docstring_runs(trained, tmp_path, monkeypatch):
    from clue_utils import Predictor

    (tmp_path / "models").mkdir()
    (tmp_path / "models/tnews").symlink_to(trained("TNEWS"))
    monkeypatch.chdir(tmp_path)
    (example,) = doctest.DocTestFinder(recurse=False).find(Predictor, "Predictor")
    result = doctest.DocTestRunner().run(example)
    assert result.attempted >= 4 and result.failed == 0


def test_inputs_of_every_form_are_one(trained, tnews):
    from clue_utils import Predictor

    text = "股票大涨"
    plain, record = tnews([text, {"sentence": text, "id": "a", "label": "100", "keywords": ""}])
    assert record == {"id": "a", **plain} and [*record][0] == "id"
    assert plain["name"] == TASKS["TNEWS"].names[TASKS["TNEWS"].labels.index(plain["label"])]
    pairs = Predictor(trained("AFQMC"), device="cpu", batch_size=1)
    one, other = pairs([("花呗", "借呗"), {"sentence1": "花呗", "sentence2": "借呗"}])
    assert one == other
    spans = Predictor(trained("CMRC2018"), device="cpu", max_seq_length=90)
    assert (
        len(
            {
                str(answer)
                for answer in spans([["文本在此。", "何处？"], {"context": "文本在此。", "question": "何处？"}])
            }
        )
        == 1
    )
    assert tnews([]) == []


@pytest.mark.parametrize(
    ("name", "inputs", "error"),
    [
        ("TNEWS", "一句", "one input alone"),
        ("TNEWS", ["好", 3], r"inputs\[1\]: 3 is neither a text"),
        ("TNEWS", ["好", ("一", "二")], r"inputs\[1\]: 2 texts where TNEWS has 1 \(sentence\)"),
        ("TNEWS", [{"text": "好"}], r"inputs\[0\]: field 'sentence': missing"),
        ("TNEWS", [{"sentence": "好", "id": 1.5}], r"inputs\[0\]: field 'id': 1.5 is not a string"),
        ("AFQMC", ["一句"], r"inputs\[0\]: 1 text where AFQMC has 2 \(sentence1, sentence2\)"),
        ("C3", ["一句"], r"inputs\[0\]: a text alone is no record of C3: give an object with the fields context, q"),
        ("C3", [{"context": ["一"], "question": "？", "choice": ["一"]}], r"field 'choice': 1 choices"),
        ("CHID", [{"content": ["无"], "candidates": ["一"] * 10}], r"inputs\[0\]: field 'content': no blank"),
        ("CHID", [{"content": ["#idiom1##idiom1#"], "candidates": ["一"] * 10}], "'#idiom1#' occurs twice"),
    ],
)
def test_a_wrong_input_is_named_by_its_number(trained, name, inputs, error):
    from clue_utils import Predictor

    with pytest.raises(UserError, match=error):
        Predictor(trained(name), device="cpu")(inputs)


def test_a_stream_reads_no_further_than_it_must(tnews, monkeypatch):
    monkeypatch.setattr("clue_utils.predictor._CHUNK_RECORDS", 4)
    numbers = itertools.count()
    texts = (f"第{next(numbers)}条" + "长" * (number % 7) for number in itertools.count())
    stream = tnews.stream(texts)
    first = [next(stream) for _ in range(9)]
    assert next(numbers) == 12
    again = [f"第{number}条" + "长" * (number % 7) for number in range(9)]
    assert [answer["label"] for answer in first] == [answer["label"] for answer in tnews(again)]


@pytest.fixture
def answer(trained, run_script, tmp_path):
    """Task, file, further flags -> status, standard output, standard error, with no data at hand."""

    def run(name, file, *words):
        main = MAINS.get(name, run_clue_classifier.main)
        task = [] if name in MAINS else ["--task_name", name]
        given = ("--model_name_or_path", trained(name), "--device", "cpu", "--predict_file", file)
        return run_script(main, *given, *task, "--output_dir", tmp_path / "none", *words)

    return run


def test_files_of_every_form_give_one_answer(answer, tmp_path, monkeypatch):
    texts = ["股票大涨", '他说"好"，走了', "今年的新车有哪些"]
    (tmp_path / "a.txt").write_text("\ufeff" + "\r\n".join(texts) + "\n\n", encoding="utf-8")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"sentence": text}) + "\n" for text in texts))
    with open(tmp_path / "a.csv", "w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([["note", "sentence"], *(["x\ny", text] for text in texts)])
    outputs = [answer("TNEWS", tmp_path / f"a.{form}") for form in ("txt", "jsonl", "csv")]
    for form in ("txt", "jsonl"):
        content = io.TextIOWrapper(io.BytesIO((tmp_path / f"a.{form}").read_bytes()))
        monkeypatch.setattr(sys, "stdin", content)
        outputs.append(answer("TNEWS", "-"))
    assert {out for _, out, _ in outputs} == {outputs[0][1]}  # and the log is elsewhere
    assert [row["inputs"] for row in lines_of(outputs[0][1])] == [{"sentence": text} for text in texts]
    assert "task: TNEWS" in outputs[0][2] and "3 answers written to standard output" in outputs[0][2]
    assert not (tmp_path / "none").exists()  # there is no run to keep a record of


def test_a_spreadsheet_comes_out_where_one_is_asked_for(answer, tmp_path):
    rows = [
        {"id": "a", "abst": "一种方法，", "keyword": ["方法", "研究"]},
        {"id": "b", "abst": "二", "keyword": ["三"]},
    ]
    (tmp_path / "a.csv").write_text(
        'id,keyword,abst\na,"[""方法"", ""研究""]","一种方法，"\nb,"[""三""]",二\n', encoding="utf-8"
    )
    (tmp_path / "a.txt").write_text("方法 研究\t一种方法，\n三\t二\n", encoding="utf-8")
    status, _, error = answer("CSL", tmp_path / "a.csv", "--predict_output", tmp_path / "new/b.csv")
    assert status == 0, error
    with open(tmp_path / "new/b.csv", encoding="utf-8-sig", newline="") as file:
        found = [*csv.DictReader(file)]
    assert [{**row, "keyword": json.loads(row["keyword"])} for row in found] == [
        row | {name: found[number][name] for name in ("label", "name", "probability", "probabilities")}
        for number, row in enumerate(rows)
    ]
    told = lines_of(answer("CSL", tmp_path / "a.txt")[1])
    assert [row["label"] for row in told] == [row["label"] for row in found]
    assert [row["inputs"]["keyword"] for row in told] == [row["keyword"] for row in rows]


def test_a_spreadsheet_loses_no_input_and_no_id():
    from clue_utils.training.predict_file import _as_csv

    format_row = _as_csv()
    text = format_row({"id": 1, "inputs": {"name": "甲"}, "name": "好"}) + format_row(
        {"inputs": {"name": "乙"}, "name": "坏"}
    )
    assert text == "\ufeffid,inputs.name,name\n1,甲,好\n,乙,坏\n"
    format_row = _as_csv()
    format_row({"inputs": {"name": "甲"}, "name": "好"})
    with pytest.raises(UserError, match="record with id 7: the first record has none"):
        format_row({"id": 7, "inputs": {"name": "乙"}, "name": "坏"})


@pytest.mark.parametrize(
    ("name", "file", "content", "error"),
    [
        ("TNEWS", "a.txt", "一\n\n二\n", r"a\.txt:2: an empty line between others; remove it"),
        ("TNEWS", "a.txt", "", r"a\.txt: empty"),
        ("TNEWS", "a.txt", "\n", r"a\.txt:1: empty"),
        ("TNEWS", "a.txt", "一\n二\t三\n", r"a\.txt:2: 2 texts where TNEWS has 1"),
        ("TNEWS", "a.txt", "新闻\n".encode("gbk"), r"a\.txt:1: not UTF-8"),
        ("TNEWS", "a.jsonl", '{"sentence": "一"}\n{"sentence": \n', r"a\.jsonl:2: not JSON"),
        ("TNEWS", "a.jsonl", '{"sentence": "一"}\n3\n', r"a\.jsonl:2: 3 is not an object"),
        ("TNEWS", "a.json", '[{"sentence": "一"}]\n', r"a\.json:1: a JSON array"),
        ("TNEWS", "a.jsonl", '{"sentence": "一", "sentence": "二"}\n', r"a\.jsonl:1: field 'sentence': occurs twice"),
        ("TNEWS", "a.csv", "text\n一\n", r"a\.csv:1: no sentence in the header; it names the fields sentence"),
        ("TNEWS", "a.csv", 'sentence,x\n"一\n二",3\n一\n', r"a\.csv:4: 1 cells where the header has 2"),
        ("TNEWS", "a.csv", 'sentence\n"一"二\n', r"a\.csv:2: not CSV"),
        ("TNEWS", "a.csv", "sentence\n一\n\n二\n", r"a\.csv:3: an empty line between others"),
        ("CSL", "a.csv", "abst,keyword\n一,二\n", r"a\.csv:2: field 'keyword': '二' is not JSON"),
        (
            "C3",
            "a.json",
            '[[["一"], [{"question": "？", "choice": ["一"], "id": 0}], "0"]]',
            r"a\.json: at .*1 choices",
        ),
        ("CMRC2018", "a.txt", "一\n", r"a\.txt:1: 1 text where CMRC2018 has 2 \(context, question\)"),
        ("TNEWS", "no.txt", None, r"--predict_file .*no\.txt: no such file"),
    ],
)
def test_a_faulty_file_is_refused_by_its_line_and_nothing_is_written(answer, tmp_path, name, file, content, error):
    path, output = tmp_path / file, tmp_path / "out.jsonl"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    output.write_text("earlier")
    status, out, err = answer(name, path, "--predict_output", output)
    last = err.splitlines()[-1]
    assert status == 2 and re.match(f"error: .*{error}", last), err
    assert output.read_text() == "earlier" and not [*tmp_path.glob(".*")]


@pytest.mark.parametrize(
    ("output", "kept"), [("out.jsonl", "out.jsonl is not written"), ("-", "the answers above are not all")]
)
def test_whoever_stops_it_is_told_what_is_left(run_script, demo, tmp_path, monkeypatch, output, kept):
    """The signal comes where the exception that its handler raises is lost."""
    from clue_utils.training import predict_file

    def answers(records, on_batch):
        for _, text in records:
            yield {"sentence": text}, {"label": "100"}
            Sending(signal.SIGTERM)

    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    monkeypatch.setattr(predict_file.Predictor, "of_run", lambda *_: SimpleNamespace(answers=answers))
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text("一\n二\n三\n")
    words = ("--task_name", "TNEWS", "--model_name_or_path", demo / "model", "--device", "cpu")
    words += ("--predict_file", "in.txt", "--predict_output", output)
    status, out, err = run_script(run_clue_classifier.main, *words)
    assert status == 143 and out.count("label") == (output == "-")
    assert err.endswith(f"stopped by SIGTERM; {kept}, and the same command begins with the first record again\n")
    assert os.listdir() == ["in.txt"]


def test_flags_that_do_not_go_together(answer, run_script, trained, tmp_path):
    (tmp_path / "a.txt").write_text("一\n")
    status, _, error = answer("TNEWS", tmp_path / "a.txt", "--predict_output", tmp_path)
    assert status == 2 and "a folder; name a file in it" in error
    status, _, error = answer("TNEWS", tmp_path / "a.txt", "--predict_output", tmp_path / "." / "a.txt")
    assert status == 2 and "is --predict_file: choose another name" in error
    os.mkfifo(tmp_path / "pipe")
    status, _, error = answer("TNEWS", tmp_path / "a.txt", "--predict_output", tmp_path / "pipe")
    assert status == 2 and "pipe: a device or pipe in place of a file; name another" in error
    assert (tmp_path / "pipe").is_fifo()
    words = ("--model_name_or_path", trained("C3"), "--do_predict", "--predict_output", "x")
    status, _, error = run_script(run_c3.main, *words)
    assert status == 2 and "no --predict_file to answer" in error


def test_members_of_an_ensemble_answer_together(answer, trained, tmp_path):
    (tmp_path / "a.txt").write_text("股票大涨\n")
    alone = answer("TNEWS", tmp_path / "a.txt")[1]
    status, twice, _ = answer("TNEWS", tmp_path / "a.txt", "--ensemble", trained("TNEWS"))
    assert status == 0
    (one,), (other,) = lines_of(alone), lines_of(twice)
    assert other.pop("probabilities") == pytest.approx(one.pop("probabilities"), abs=2e-6)
    assert other["label"] == one["label"]


def test_a_script_called_from_python_returns_its_record(trained, demo, few_examples, tmp_path):
    words = ["--task_name", "TNEWS", "--model_name_or_path", str(trained("TNEWS")), "--device", "cpu"]
    told = run_clue_classifier.main(
        [*words, "--data_dir", str(few_examples), "--do_eval", "--output_dir", str(tmp_path)]
    )
    assert told == json.loads((tmp_path / "result.json").read_text()) and "evaluation" in told
    (tmp_path / "a.txt").write_text("一\n二\n")
    own = ["--predict_file", str(tmp_path / "a.txt"), "--predict_output", str(tmp_path / "b.jsonl")]
    told = run_clue_classifier.main([*words, *own])
    assert (told["task"], told["num_records"], told["predict_output"]) == ("TNEWS", 2, str(tmp_path / "b.jsonl"))


def test_the_trainer_s_script_answers_files_too(trained, run_script, tmp_path, tnews):
    import run_clue_classifier_trainer

    (tmp_path / "a.txt").write_text("股票大涨\n")
    words = ("--dataset", "tnews", "--model_name_or_path", trained("TNEWS"), "--device", "cpu")
    words += ("--output_dir", tmp_path / "none", "--predict_file", tmp_path / "a.txt")
    status, out, error = run_script(run_clue_classifier_trainer.main, *words)
    assert status == 0, error
    assert lines_of(out) == [{"inputs": {"sentence": "股票大涨"}, **tnews(["股票大涨"])[0]}]


def test_a_checkpoint_without_a_record_says_itself_what_it_is_of(trained, tmp_path):
    from clue_utils import Predictor

    folder = tmp_path / "copy"
    folder.mkdir()
    for path in trained("AFQMC").glob("*"):
        if path.is_file() and path.name != "result.json":
            (folder / path.name).write_bytes(path.read_bytes())
    assert Predictor(folder, device="cpu").task.name == "AFQMC"
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"] == {"0": "different meaning", "1": "same meaning"}
    del config["finetuning_task"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="neither result.json nor config.json says which task"):
        Predictor(folder, device="cpu")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"batch_size": 0}, "batch_size cannot be 0"),
        ({"max_seq_length": "64"}, "max_seq_length cannot be '64'"),
        ({"precision": "int8"}, "precision cannot be 'int8'"),
        ({"folder": "nowhere"}, "nowhere: no such folder"),
    ],
)
def test_what_a_predictor_cannot_be_made_of(trained, given, error):
    from clue_utils import Predictor

    with pytest.raises(UserError, match=error):
        Predictor(**{"folder": trained("TNEWS"), "device": "cpu"} | given)


def test_the_package_loads_nothing_until_it_is_asked_to():
    code = "import sys, clue_utils; assert 'Predictor' in clue_utils.__all__; print('paddle' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=TOP, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_an_interrupt_leaves_no_half_line():
    """A line goes out whole though the interrupt comes while it waits for its reader."""
    code = "from clue_utils import cli; cli.print_whole('x' * 10**6 + chr(10)); cli.print_whole('never')"
    with subprocess.Popen([sys.executable, "-c", code], cwd=TOP, stdout=PIPE, stderr=PIPE) as process:
        head = process.stdout.read(1000)  # now it is at it, and the pipe is full
        process.send_signal(signal.SIGINT)
        assert head + process.stdout.read() == b"x" * 10**6 + b"\n"
        assert b"KeyboardInterrupt" in process.stderr.read()
