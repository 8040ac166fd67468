"""The list of models as a user sees it."""

from __future__ import annotations

import pytest

import list_models
from clue_utils import environment
from clue_utils.columns import display_width
from clue_utils.published import PUBLISHED_MODELS

environment.import_libraries()


@pytest.fixture(scope="module")
def listed(run_script):
    """The words of each line, by the model's name, of all models or of some; standard output and error."""

    def run(*words):
        status, out, err = run_script(list_models.main, *words)
        assert status in (0, 2) and (status == 0) == (err == "")
        return {line.split()[0]: line.split() for line in out.splitlines()[1:] if line.strip()}, out, err

    return run


def test_every_published_model_is_listed_with_its_score_and_size(listed):
    rows, out, _ = listed()
    for model in PUBLISHED_MODELS:
        cells = rows[model.name]
        layers, hidden = model.config.removesuffix("H").split("L")
        if model.name != "Langboat/mengzi-bert-base":  # the row begins like the others, but PyTorch's files are read
            assert cells[2:5] == [layers, "x", hidden] and cells[-1] == f"{model.average:.2f}"
    assert rows["ernie-3.0-base-zh"][5:7] == ["117.9", "3.2"]
    assert "*" in rows["hfl/chinese-roberta-wwm-ext"] and "*" not in rows["hfl/roberta-wwm-ext"]
    assert "a folder of one is read: " in out and "convbert" in out


def test_models_are_chosen_by_architecture_and_by_a_word(listed):
    rows, out, _ = listed("LARGE", "--architecture", "ernie")
    assert {"ernie-1.0-large-zh-cw", "ernie-2.0-large-zh", "utc-large"} == rows.keys()
    assert len({line.index(" ernie ") for line in out.splitlines()[1:]}) == 1  # aligned
    assert "convbert" in listed("--architecture", "convbert")[1]


def test_the_table_is_aligned_in_chinese_too(listed, chinese):
    _, out, _ = listed("LARGE", "--architecture", "ernie")
    head, *lines = out.splitlines()
    assert head.split()[:3] == ["模型", "结构", "规模"] and len(lines) > 1
    assert len({display_width(line.partition("十个任务")[0]) for line in lines}) == 1


def test_a_table_in_markdown(listed):
    _, out, _ = listed("rbt3", "--markdown")
    header, marks, row = out.splitlines()
    assert header.startswith("| model | architecture | size | parameters (M) | memory (GiB) |") and set(marks) == set(
        "| -"
    )
    assert row.startswith("| hfl/rbt3 | roberta | 3 x 768 | 38.5 |") and row.count("|") == header.count("|")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nothing-of-the-kind"], "error: no model's name contains 'nothing-of-the-kind': leave the word out"),
        (["--architecture", "bertt"], "error: --architecture 'bertt': choose one of bert, ernie"),
    ],
)
def test_what_is_not_there_is_one_line(listed, words, line):
    _, out, err = listed(*words)
    assert out == "" and err.startswith(line) and err.count("\n") == 1


def test_memory_beyond_a_card_is_given_with_lora_too():
    from clue_utils.models.catalogue import Model
    from clue_utils.models.families import BY_TYPE

    family = BY_TYPE["megatron-bert"]
    sizes = {"num_hidden_layers": 24, "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 16}
    model = Model("x", family, False, family.base_class.config_class(**sizes))
    whole, _, lora = list_models.needed(model).removesuffix(")").partition(" (LoRA ")
    assert float(whole) > list_models.CARD > float(lora)
