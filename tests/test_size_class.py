"""The size of a model, by its configuration or its name, and the defaults that follow from it."""

from __future__ import annotations

import json

import pytest

from clue_utils.published import LARGE_REFERENCE_MODEL, LORA_LEARNING_RATE, REFERENCE_MODEL, best_run
from clue_utils.settings import Settings
from clue_utils.size_class import class_of_settings, size_class
from clue_utils.tasks import TASKS

CONFIGS = {
    "": [{"num_hidden_layers": 12, "hidden_size": 768}, {"num_hidden_layers": 3, "hidden_size": 1024}, {}],
    "large": [
        {"num_hidden_layers": 24, "hidden_size": 1024},
        {"num_hidden_layers": 20, "hidden_size": 1024},
        {"n_layer": 24, "d_model": 1024, "model_type": "xlnet"},
    ],
    "huge": [
        {"num_hidden_layers": 24, "hidden_size": 2048},
        {"num_hidden_layers": 24, "hidden_size": 896, "model_type": "qwen2"},
        {"n_layer": 12, "n_embd": 768, "model_type": "gpt2"},
    ],
}
RUNS = {"": (3e-5, 32), "large": (2e-5, 24), "huge": (1e-5, 24)}


@pytest.mark.parametrize(("size", "settings"), [(size, each) for size, all_ in CONFIGS.items() for each in all_])
def test_a_folder_s_configuration_decides_its_defaults(tmp_path, size, settings):
    folder = tmp_path / "a-large-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings))
    assert size_class(str(folder)) == size
    best, origin = best_run(str(folder), TASKS["C3"])
    assert (best.learning_rate, best.batch_size) == RUNS[size]
    reference = LARGE_REFERENCE_MODEL if size else REFERENCE_MODEL
    assert origin.startswith(f"published best of {reference}")
    assert origin.endswith(f"; this {size} model has none" if size else "; this model has none")
    assert ("lowest learning rate" in origin) == (size == "huge")


def test_configurations_of_other_names_and_nested_ones_are_read(tmp_path):
    inner = {"num_hidden_layers": 24, "hidden_size": 1024, "init_class": "ErnieModel"}
    for name, content in {
        "model_config.json": {"init_args": [inner], "init_class": "ErnieForSequenceClassification"},
        "bert_config.json": {"num_hidden_layers": 24, "hidden_size": 1024},
    }.items():
        folder = tmp_path / name / "model"
        folder.mkdir(parents=True)
        (folder / name).write_text(json.dumps(content))
        assert size_class(str(folder)) == "large"


def test_of_a_path_the_last_part_alone_is_a_name():
    assert size_class("/mnt/large-disk/qwen/my-bert") == "" and size_class("/mnt/disk/my-large") == "large"


def test_the_defaults_go_down_with_the_size():
    for task in TASKS.values():
        rates = [best_run(name, task)[0].learning_rate for name in ("my-large", "my-xlarge")]
        assert rates[0] >= rates[1] == min(task.learning_rates)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"hidden_size": "wide", "num_hidden_layers": true}', None])
def test_what_cannot_be_read_is_left_to_who_loads_the_model(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    assert size_class(str(tmp_path)) == ""
    assert size_class("a\0b") == ""


def test_a_published_model_keeps_its_own_best_run_whatever_its_size():
    assert best_run(LARGE_REFERENCE_MODEL, TASKS["TNEWS"]) == (
        (3e-5, 32, 0.1),
        "published best of " + LARGE_REFERENCE_MODEL,
    )


def test_names_say_what_paddlenlp_s_configurations_do():
    from clue_utils import environment

    environment.import_libraries()
    from clue_utils.models.catalogue import models

    # Others are brought as folders, whose configurations decide.
    named = [model for model in models() if model.is_known or model.family.model_type == "qwen2"]
    sizes = {model.name: class_of_settings(model.config.to_dict()) for model in named if model.config is not None}
    assert {name: size for name, size in sizes.items() if size_class(name) != size} == {}
    assert {*sizes.values()} == {"", "large", "huge"}


def test_adapters_have_a_learning_rate_of_their_own():
    def resolved(*words: str) -> Settings:
        flags = Settings.parser().parse_args(["--model_name_or_path", "my-large", "--do_train", *words])
        return Settings.resolve(vars(flags), TASKS["C3"], 1, {})

    with_lora = resolved("--lora_rank", "8")
    assert (with_lora.learning_rate, with_lora.sources["learning_rate"]) == (LORA_LEARNING_RATE, "of adapters")
    assert with_lora.batch_size == 24 and resolved("--lora_rank", "0").learning_rate == 2e-5
    assert resolved("--lora_rank", "8", "--learning_rate", "1e-5").learning_rate == 1e-5


@pytest.mark.parametrize(
    ("trained_rank", "words", "rate", "source"),
    [
        (8, (), 3e-4, "checkpoint"),
        (8, ("--lora_rank", "4"), 3e-4, "checkpoint"),
        (8, ("--lora_rank", "0"), 2e-5, ""),
        (0, ("--lora_rank", "8"), LORA_LEARNING_RATE, "of adapters"),
        (None, ("--lora_rank", "8"), LORA_LEARNING_RATE, "of adapters"),
        (None, (), 3e-4, "checkpoint"),
    ],
)
def test_a_learning_rate_is_not_taken_from_adapters_for_the_whole_nor_the_other_way(trained_rank, words, rate, source):
    trained = {"learning_rate": 3e-4} | ({} if trained_rank is None else {"lora_rank": trained_rank})
    flags = Settings.parser().parse_args(["--model_name_or_path", "my-large", "--do_train", *words])
    settings = Settings.resolve(vars(flags), TASKS["C3"], 1, trained)
    assert settings.learning_rate == rate and source in settings.sources["learning_rate"]


def test_a_checkpoint_of_adapters_that_lacks_a_rate_has_that_of_adapters():
    flags = Settings.parser().parse_args(["--model_name_or_path", "my-large", "--do_train"])
    assert Settings.resolve(vars(flags), TASKS["C3"], 1, {"lora_rank": 8}).learning_rate == LORA_LEARNING_RATE
