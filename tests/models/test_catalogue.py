"""The models for Chinese: which names there are, their sizes, what an update takes, and what was tried of them."""

from __future__ import annotations

import pytest

from clue_utils import environment

environment.import_libraries()


from clue_utils.models.catalogue import BATCH_SIZE, LENGTH, is_chinese, models, update_bytes  # noqa: E402
from clue_utils.models.families import BY_TYPE, FAMILIES  # noqa: E402
from clue_utils.models.source import known_as, known_names  # noqa: E402
from clue_utils.models.tried import TRIED  # noqa: E402

MODELS = {model.name: model for model in models()}


def test_every_architecture_of_the_table_was_tried_and_nothing_else():
    assert list(TRIED) == [*BY_TYPE]


def test_names_without_weights_or_tokenizer_are_not_listed():
    for name, is_listed in {"ernie-health-chinese": True, "ernie-health-chinese-generator": False}.items():
        assert known_as(name) and (name in MODELS) == is_listed
    assert all(model.config is not None for model in MODELS.values())


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
def test_what_was_tried_is_possible(family):
    tried = TRIED[family.model_type]
    assert tried.pytorch is None or (family.torch_prefix and 0 < tried.pytorch < 1e-5)
    assert tried.learnt is None or 3 * 100 / 15 < tried.learnt <= 100
    names = {*family.base_class.pretrained_init_configuration, *MODELS}
    assert tried.full_size in {"", *names}


def test_names_tell_which_models_are_for_chinese():
    chinese = "bert-base-chinese bert-base-multilingual-cased uer/chinese-roberta-tiny hfl/rbt3 ernie-1.0 uie-base "
    chinese += "rocketqa-base-cross-encoder skep_ernie_1.0_large_ch tinybert-4l-312d-zh albert-chinese-tiny uie-m-base"
    others = (
        "bert-base-uncased ernie-2.0-base-en rocketqa-v1-marco-cross-encoder ernie-3.0-tiny-mini-v2-en albert-base-v1 "
    )
    others += "tinybert-4l-312d skep_roberta_large_en electra-small roformer-english-small-generator convbert-base"
    assert (
        {*chinese.split()}
        <= MODELS.keys()
        <= known_names() | {name for name, each in MODELS.items() if not each.is_known}
    )
    assert not {*others.split()} & MODELS.keys() and {*others.split()} <= known_names()
    assert not is_chinese("zhongwen-base", BY_TYPE["bert"])


def test_sizes_are_those_of_the_configuration():
    model = MODELS["ernie-3.0-base-zh"]
    assert (model.layers, model.hidden_size) == (12, 768)
    embeddings = (40000 + 2048 + 4 + 3) * 768 + 2 * 768
    layer = 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    assert model.num_parameters == embeddings + 12 * layer + 768 * 768 + 768
    # Shared layers count once; a mean of a billion numbers would take seconds, or memory, were they drawn.
    assert MODELS["albert-chinese-xxlarge"].num_parameters == pytest.approx(221.5e6, rel=0.01)


def test_memory_is_that_of_the_optimizer_and_of_activations():
    model = MODELS["ernie-3.0-base-zh"]
    tokens = BATCH_SIZE * LENGTH
    of_layer = tokens * (66 * 768 + 9 * 12 * LENGTH)  # the paper's 34 s b h + 5 a s^2 b, in fp32
    assert update_bytes(model) == 16 * model.num_parameters + 12 * of_layer
    assert update_bytes(model) - update_bytes(model, frozen=True) == 12 * model.num_parameters
