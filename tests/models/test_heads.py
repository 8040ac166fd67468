"""Encoders and heads of the published architectures: dropout, decay, what a head computes."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from paddlenlp import transformers

from clue_utils import models
from clue_utils.errors import UserError
from clue_utils.models.heads import to_tensors
from clue_utils.tasks import TASKS
from clue_utils.training.optimizer import build_optimizer

FAMILIES = ("Ernie", "ErnieGram", "Bert", "Roberta")
SIZES = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    "pad_token_id": 0,
    "embedding_size": 16,  # of ERNIE-Gram
}
HEADS = {"TNEWS": 15, "C3": 4, "CHID": 10, "CMRC2018": 2}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"中国人民abcdefghijklmnopqrstuvwxyz0123456789,.!?"]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of tiny random encoders with their tokenizers, by architecture."""
    folders = {}
    for family in FAMILIES:
        folder = tmp_path_factory.mktemp(family)
        (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
        paddle.seed(1)
        encoder = getattr(transformers, f"{family}Model")(getattr(transformers, f"{family}Config")(**SIZES))
        for parameter in encoder.parameters():  # those of a new model leave most of its parts without effect
            parameter.set_value(paddle.randn(parameter.shape) * 0.5)
        tokenizer_class = "RobertaChineseTokenizer" if family == "Roberta" else f"{family}Tokenizer"
        tokenizer = getattr(transformers, tokenizer_class)(str(folder / "vocab.txt"))
        models.save_model(encoder, tokenizer, folder)
        folders[family] = str(folder)
    return folders


def load(folder: str, task: str, dropout: float = 0.0) -> paddle.nn.Layer:
    return models.load_model(folder, TASKS[task], dropout, HEADS[task], training=True)


def batch(*shape: int) -> dict[str, paddle.Tensor]:
    """Random ids, two segments and a mask of every other row's second half, which only the mask tells from text."""
    rng = np.random.default_rng(0)
    ids, types, mask = rng.integers(5, 40, shape), np.zeros(shape, np.int64), np.ones(shape, np.int64)
    types[..., shape[-1] // 4 :] = 1
    flat = mask.reshape(-1, shape[-1])
    flat[1::2, shape[-1] // 2 :] = 0
    arrays = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
    return {name: paddle.to_tensor(value) for name, value in arrays.items()}


of_every_head = pytest.mark.parametrize(("family", "task"), [(family, task) for family in FAMILIES for task in HEADS])


def outputs(model: paddle.nn.Layer, inputs: dict[str, paddle.Tensor]) -> np.ndarray:
    """Logits [batch, classes or choices], or of starts and ends [batch, length, 2]."""
    found = model(**inputs)
    return (paddle.stack(list(found), axis=-1) if isinstance(found, tuple) else found).numpy()


# --- dropout --------------------------------------------------------------------------------------------------------


@of_every_head
def test_dropout_reaches_embeddings_layers_attention_and_head(encoders, family, task):
    model = load(encoders[family], task, dropout=0.25)
    layers = {name: layer.p for name, layer in model.named_sublayers() if isinstance(layer, paddle.nn.Dropout)}
    within = [name for name in layers if re.fullmatch(r".*layers\.\d+\.dropout", name)]
    assert [layers.pop(name) for name in within] == [0.0, 0.0]  # between the two feed-forward layers: never
    assert set(layers.values()) == {0.25}
    assert len([name for name in layers if ".embeddings." in name]) == 1
    assert len([name for name in layers if ".layers." in name]) == 4  # after attention and after feed-forward
    if task != "CMRC2018":
        assert [name for name in layers if not name.startswith(f"{model.base_model_prefix}.")]
    attention = [layer.dropout for layer in model.sublayers() if isinstance(layer, paddle.nn.MultiHeadAttention)]
    assert attention == [0.25, 0.25]


@of_every_head
def test_dropout_is_at_work_where_it_should_be(encoders, family, task):
    inputs = batch(2, HEADS[task], 8) if task in ("C3", "CHID") else batch(4, 8)

    def differs(model: paddle.nn.Layer) -> bool:
        return bool((outputs(model, inputs) != outputs(model, inputs)).any())

    model = load(encoders[family], task, dropout=0.5)
    model.train()
    assert differs(model)
    getattr(model, model.base_model_prefix).eval()
    assert differs(model) == (task != "CMRC2018")  # a head for spans has none in any of the architectures
    model.eval()
    assert not differs(model)
    model = load(encoders[family], task, dropout=0.0)
    model.train()
    assert not differs(model)


# --- weight decay ---------------------------------------------------------------------------------------------------


@of_every_head
def test_matrices_decay_but_no_bias_and_no_layer_normalisation(encoders, family, task):
    model = load(encoders[family], task)
    spared = {id(layer.bias) for layer in model.sublayers() if getattr(layer, "bias", None) is not None}
    spared |= {id(layer.weight) for layer in model.sublayers() if isinstance(layer, paddle.nn.LayerNorm)}
    for parameter in model.parameters():
        parameter.set_value(paddle.ones(parameter.shape))
    sum((parameter * 0).sum() for parameter in model.parameters()).backward()
    args = SimpleNamespace(adam_epsilon=1e-8, weight_decay=0.5, max_grad_norm=1.0, layer_decay=1.0)
    build_optimizer(model, 0.1, args).step()
    found = {name: float(parameter.numpy().mean(dtype=float)) for name, parameter in model.named_parameters()}
    decayed = {name for name, parameter in model.named_parameters() if id(parameter) not in spared}
    assert found == {name: pytest.approx(0.95 if name in decayed else 1.0) for name in found}
    # Embeddings (3), six matrices of each of two layers, and those of pooler and head.
    assert len(decayed) in (3 + 12 + 1, 3 + 12 + 2)


# --- tensors of a batch ---------------------------------------------------------------------------------------------


def test_arrays_of_one_shape_and_type_go_to_the_device_together(monkeypatch):
    arrays: dict[str, np.ndarray] = {name: np.arange(6).reshape(2, 3) + i for i, name in enumerate("abc")}
    arrays |= {"start": np.array([4, 5]), "x": np.ones([2, 3], np.float32), "end": np.array([6, 7]), "one": np.array(3)}
    copies = []
    to_tensor = paddle.to_tensor
    monkeypatch.setattr(paddle, "to_tensor", lambda array: copies.append(array.shape) or to_tensor(array))
    tensors = to_tensors(arrays)
    assert copies == [(3, 2, 3), (2, 2), (2, 3), ()]
    assert tensors.keys() == arrays.keys()
    for name, array in arrays.items():
        assert tensors[name].numpy().dtype == array.dtype and tensors[name].shape == list(array.shape)
        np.testing.assert_array_equal(tensors[name].numpy(), array)


# --- what a head computes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["C3", "CHID"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_choice_is_scored_by_its_pooled_output_alone(encoders, family, task):
    model, inputs = load(encoders[family], task), batch(3, HEADS[task], 8)
    model.eval()
    found = outputs(model, inputs)
    assert found.shape == (3, HEADS[task])
    weight, bias = (model.state_dict()[f"classifier.{name}"].numpy() for name in ("weight", "bias"))
    assert weight.shape == (16, 1) and bias.shape == (1,)
    encoder = getattr(model, model.base_model_prefix)
    for i in range(HEADS[task]):
        row = {name: value[:, i] for name, value in inputs.items()}
        pooled = encoder(**row)[1].numpy()
        np.testing.assert_allclose(found[:, i], (pooled @ weight + bias)[:, 0], atol=1e-5)


@pytest.mark.parametrize("family", ["Ernie", "ErnieGram", "Bert"])
def test_a_class_is_scored_by_the_pooled_output(encoders, family):
    model, inputs = load(encoders[family], "TNEWS"), batch(3, 8)
    model.eval()
    weight, bias = (model.state_dict()[f"classifier.{name}"].numpy() for name in ("weight", "bias"))
    pooled = getattr(model, model.base_model_prefix)(**inputs)[1].numpy()
    np.testing.assert_allclose(outputs(model, inputs), pooled @ weight + bias, atol=1e-5)


@of_every_head
def test_padding_and_segments_are_heeded(encoders, family, task):
    model = load(encoders[family], task)
    model.eval()
    if task in ("C3", "CHID"):
        inputs = batch(2, HEADS[task], 8)
        found = outputs(model, inputs)[:, 1]  # every other choice is padded
        cut = {name: value[:, :, :4] for name, value in inputs.items()}
        np.testing.assert_allclose(found, outputs(model, cut)[:, 1], atol=1e-5)
    else:
        inputs = batch(4, 8)
        cut = {name: value[1::2, :4] for name, value in inputs.items()}
        found, short = outputs(model, inputs)[1::2], outputs(model, cut)
        np.testing.assert_allclose(found[:, :4] if task == "CMRC2018" else found, short, atol=1e-5)
    one_segment = inputs | {"token_type_ids": paddle.zeros_like(inputs["token_type_ids"])}
    assert np.abs(outputs(model, inputs) - outputs(model, one_segment)).max() > 1e-3


class Embedding(paddle.nn.Layer):
    """A model that takes segments."""

    def __init__(self, **settings):
        super().__init__()
        self.config = SimpleNamespace(**settings)

    def forward(self, input_ids, token_type_ids=None):
        raise NotImplementedError


def test_no_segment_beyond_those_that_the_model_embeds():
    for sizes in ({"type_vocab_size": 3}, {"type_vocab_size": 1}, {}):  # one alone is not given; XLNet embeds none
        models.check_segments(Embedding(**sizes), 3)
    with pytest.raises(UserError, match="numbers 3 segments but the model embeds 2: tokenizer_config.json and weights"):
        models.check_segments(Embedding(type_vocab_size=2), 3)
