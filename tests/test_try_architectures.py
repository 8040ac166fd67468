"""The trials of architectures: what they show, and that the texts of full size fill the lengths that they say."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

import run_c3
import try_architectures
from clue_utils import environment
from clue_utils.data.examples import load_examples
from clue_utils.errors import UserError
from clue_utils.published import PUBLISHED_MODELS
from clue_utils.tasks import TASKS
from clue_utils.training.classification import Classification
from clue_utils.training.multiple_choice import C3
from clue_utils.training.span import Cmrc2018
from demo.architectures import make_checkpoint, make_tokenizer
from demo.records import make_data, sizes_for

environment.import_libraries()

from clue_utils.models import catalogue, load_tokenizer  # noqa: E402
from clue_utils.models.families import FAMILIES  # noqa: E402

BY_TYPE = {family.model_type: family for family in FAMILIES}
SETTINGS = {"doc_stride": 128, "max_query_length": 64, "n_best_size": 20, "max_answer_length": 50}


def test_every_text_fills_its_task_s_length(tokenizer, tmp_path):
    make_data(tmp_path, sizes=sizes_for(4))
    try_architectures.lengthen(tmp_path)
    for name in try_architectures.FULL_TASKS:
        task = TASKS[name]
        length = task.max_seq_length
        method = {
            "C3": lambda n=length: C3(tokenizer, n),
            "CMRC2018": lambda n=length: Cmrc2018(tokenizer, n, **SETTINGS),
        }.get(name, lambda n=length, task=task: Classification(task, tokenizer, n))()
        for split in ("train", *task.test_splits):
            for example in load_examples(task, split, tmp_path):
                ids = method.encode(example)[0]["input_ids"]
                rows = ids if name == "C3" else [ids]
                assert [len(row) for row in rows] == [length] * len(rows), (name, split)


def test_an_architecture_trains_and_predicts_the_same_once_it_is_loaded_again(run_script):
    words = "--architectures bert --tasks tnews CMRC2018".split()
    status, out, err = run_script(try_architectures.main, *words)
    assert (status, err) == (0, "")
    assert out.splitlines() == ["| architecture | TNEWS | CMRC2018 |", "| --- | --- | --- |", "| bert | ok | ok |"]


def test_what_fails_is_in_the_table_and_ends_in_one_line(run_script, monkeypatch):
    folders = itertools.count()
    monkeypatch.setattr(try_architectures, "predictions", lambda *_: next(folders))
    status, out, err = run_script(try_architectures.main, *"--architectures bert --tasks TNEWS".split())
    assert status == 2 and "| bert | predicts otherwise when it is loaded again |" in out
    assert err == "error: bert on TNEWS: predicts otherwise when it is loaded again\n"


def test_an_architecture_learns_from_nothing(run_script):
    """The one that learns nothing from weights that are drawn as for its full size."""
    status, out, err = run_script(try_architectures.main, "--learn", "--architectures", "mobilebert")
    assert (status, err) == (0, "")
    *_, name, accuracy, _ = out.splitlines()[-1].replace("|", "").split()
    assert name == "mobilebert" and float(accuracy) > 60


@pytest.mark.parametrize("score", [0.1, 0.3])
def test_what_learns_no_more_than_chance_fails(run_script, monkeypatch, score):
    def train(_: object, model: Path, output: Path, *flags: object) -> None:
        output.mkdir()
        (output / "result.json").write_text(json.dumps({"best_metric": score}))

    monkeypatch.setattr(try_architectures, "run_here", train)
    status, out, err = run_script(try_architectures.main, "--learn", "--architectures", "bert")
    assert f"| bert | {100 * score:.1f} |" in out
    assert (status, err) == ((2, "error: bert: learnt no more than 10.0\n") if score == 0.1 else (0, ""))


@pytest.mark.parametrize("model_type", try_architectures.LEARNING_EXTRAS)
def test_what_an_architecture_needs_to_learn_is_set(tmp_path, model_type):
    extras = try_architectures.LEARNING_EXTRAS[model_type]
    default = json.loads(make_checkpoint(BY_TYPE[model_type], tmp_path / "a").joinpath("config.json").read_text())
    folder = make_checkpoint(BY_TYPE[model_type], tmp_path / "b", try_architectures.LEARNING_SIZES, extras)
    config = json.loads((folder / "config.json").read_text())
    assert {name: config[name] for name in extras} == extras
    assert all(default[name] != config[name] for name in extras)


@pytest.mark.parametrize(
    ("program", "line"),
    [
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL"),
        ("import os; print('step 1', flush=True); os.kill(os.getpid(), 9)", "killed by SIGKILL; its last line: step 1"),
        ("import sys; print('step 1'); sys.exit('error: too long')", "error: too long"),
        ("import sys; sys.exit(3)", "ended with status 3"),
    ],
)
def test_an_update_that_fails_says_what_it_ended_with(monkeypatch, tmp_path, program, line):
    monkeypatch.setattr(try_architectures.trial, "script_words", lambda *_: ["-c", program])
    with pytest.raises(UserError) as error:
        try_architectures.update(TASKS["TNEWS"], tmp_path, tmp_path, tmp_path)
    assert str(error.value) == line


def test_a_defect_is_told_by_its_type(monkeypatch, tmp_path):
    def fail(_: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr(run_c3, "main", fail)
    with pytest.raises(UserError, match="^KeyError: 'x'$"):
        try_architectures.run_here(TASKS["C3"], tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--architectures bertt", "error: --architectures 'bertt': choose of bert, ernie, "),
        ("--tasks TNWES", "error: --tasks 'TNWES': choose of AFQMC, TNEWS, "),
        ("--full --tasks CHID", "error: --tasks 'CHID': choose of TNEWS, CSL, C3, CMRC2018"),
        ("--full --models nobody/nothing", "error: 'nobody/nothing': no model whose size is known"),
        ("--full --learn", "error: argument --learn: not allowed with argument --full"),
    ],
)
def test_what_cannot_be_tried_is_one_line(run_script, words, line):
    status, _, err = run_script(try_architectures.main, *words.split())
    assert status == 2 and err.startswith(line) and err.count("\n") == 1


def test_full_size_is_tried_of_the_published_models_and_of_each_other_architecture():
    names = try_architectures.full_models(FAMILIES)
    assert names[:9] == [model.name for model in PUBLISHED_MODELS]
    chosen = [catalogue.find(name) for name in names[9:]]
    types = [model.family.model_type for model in chosen]
    assert len({*types}) == len(types) and not {"bert", "ernie", "roberta", "ernie_gram"} & {*types}
    # Where none is for Chinese, an English one has the published size.
    assert {*types} == {family.model_type for family in FAMILIES} - {"bert", "ernie", "roberta", "ernie_gram"}
    assert "mobilebert-uncased" in names
    for model in chosen:
        others = catalogue.sized_models_of(model.family)
        assert (model.layers, model.hidden_size) <= (12, 768) or model.layers == min(other.layers for other in others)


def test_full_size_is_tried_of_the_architectures_that_are_named(run_script, monkeypatch):
    tried = []
    monkeypatch.setattr(try_architectures, "try_full", lambda names, *_: tried.append(names) or [])
    for words, names in [
        ("--architectures nezha", ["nezha-base-chinese"]),
        ("--architectures tinybert ernie_gram", ["ernie-gram-zh", "tinybert-6l-768d-zh"]),
        ("--architectures nezha --models hfl/rbt6", ["hfl/rbt6"]),
    ]:
        status, _, err = run_script(try_architectures.main, "--full", *words.split())
        assert (status, err, tried.pop()) == (0, "", names)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
def test_every_architecture_has_a_small_tokenizer_of_its_kind(tmp_path, family):
    num_ids = make_tokenizer(family, tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    ids = tokenizer.convert_tokens_to_ids(tokenizer.tokenize("今天天气不错"))
    assert len(ids) >= 3 and max(ids) < num_ids
    assert tokenizer.unk_token_id not in ids or family.model_type == "gpt"
