"""ChineseBERT: the readings of its vocabulary, wherever they come from, reach its embeddings and are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import hugging_face as hf
from clue_utils import environment, models
from clue_utils.errors import UserError
from clue_utils.models import source as sources
from clue_utils.tasks import TASKS

environment.import_libraries()

import paddle  # noqa: E402
from paddlenlp import transformers  # noqa: E402

TASK = TASKS["TNEWS"]
VOCAB_SIZE = 30
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
    "type_vocab_size": 2,
    "glyph_embedding_dim": 12,
    "pinyin_embedding_size": 8,
    "pinyin_map_len": 32,
}
# Tokens from 5 on have readings; the second of a token is never taken.
READINGS = {5 + i: [[i + 1, 31 - i, i % 6, 0, 0, 0, 0, 0], [9] * 8] for i in range(VOCAB_SIZE - 5)}
TABLE = {"0": [[0] * 8]} | {str(token): readings for token, readings in READINGS.items()}
IDS = np.array([[2, 7, 12, 29, 3], [2, 5, 3, 0, 0]])


@pytest.fixture(scope="module")
def reference() -> Any:
    """PaddleNLP's encoder, which is given the readings of a text."""
    paddle.seed(1)
    model = transformers.ChineseBertModel(transformers.ChineseBertConfig(**SIZES))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.set_value(paddle.randn(parameter.shape) * 0.3)
    model.eval()
    return model


@pytest.fixture
def folder(tmp_path, reference) -> Path:
    """The model as its authors publish it: PyTorch's weights, and a configuration that says BERT."""
    weights = {f"bert.{name}": array for name, array in hf.as_pytorch(reference, hf.LAYER_NAMES).items()}
    folder = tmp_path / "MODEL"
    (folder / "config").mkdir(parents=True)
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    config = SIZES | {"model_type": "bert", "architectures": ["BertForMaskedLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def load(folder: Path, training: bool = True) -> Any:
    model = models.load_model(str(folder), TASK, 0.0, len(TASK.labels), training=training)
    model.eval()
    return model


def states(model: Any) -> np.ndarray:
    """Of the tokens of ``IDS`` that are no padding."""
    mask = (IDS != 0).astype(np.int64)
    with paddle.no_grad():
        hidden, _ = model.chinesebert(paddle.to_tensor(IDS), attention_mask=paddle.to_tensor(mask))
    kept: np.ndarray = hidden.numpy()[mask == 1]
    return kept


def test_the_first_reading_of_each_token_is_embedded_and_kept(folder, tmp_path, reference):
    (folder / "config/id2pinyin.json").write_text(json.dumps(TABLE))
    model = load(folder)
    rows = np.zeros((VOCAB_SIZE, 8), np.int64)
    for token, readings in READINGS.items():
        rows[token] = readings[0]
    with paddle.no_grad():
        expected, _ = reference(paddle.to_tensor(IDS), paddle.to_tensor(rows[IDS]))
    np.testing.assert_allclose(states(model), expected.numpy()[IDS != 0], atol=1e-5)
    model.save_pretrained(tmp_path / "saved", safe_serialization=True)
    again = load(tmp_path / "saved", training=False)
    np.testing.assert_array_equal(states(again), states(model))


@pytest.mark.parametrize("place", ["id2pinyin.json", "tokenizer_config.json"])
def test_other_places_where_the_readings_are_published(folder, place):
    (folder / "config/id2pinyin.json").write_text(json.dumps(TABLE))
    expected = states(load(folder))
    (folder / "config/id2pinyin.json").unlink()
    (folder / place).write_text(json.dumps({"id2pinyin": TABLE} if place == "tokenizer_config.json" else TABLE))
    np.testing.assert_array_equal(states(load(folder)), expected)


@pytest.mark.parametrize(
    ("table", "line"),
    [
        (None, r"MODEL: no id2pinyin\.json, by which a ChineseBERT knows how its tokens are read; it stands in"),
        ({}, r"no id2pinyin\.json"),
        ({"30": [[0] * 8]}, "'30': .* is no list of readings of one of 30 tokens, 8 numbers below 32 each: use"),
        ({"x": [[0] * 8]}, "'x': .* is no list of readings"),
        ({"5": [[0] * 7]}, "'5': .* is no list of readings"),
        ({"5": [0] * 8}, "'5': .* is no list of readings"),
        ({"5": []}, "'5': .* is no list of readings"),
        ({"5": [["a"] * 8]}, "'5': .* is no list of readings"),
        ({"5": [[32] * 8]}, "'5': .* is no list of readings"),
        ({"5": [[-3] * 8]}, "'5': .* is no list of readings"),
        ({"5": [[10**30] * 8]}, "'5': .* is no list of readings"),
    ],
)
def test_readings_that_are_none(folder, table, line):
    if table is not None:
        (folder / "config/id2pinyin.json").write_text(json.dumps(table))
    with pytest.raises(UserError, match=line):
        load(folder)


def test_a_model_by_name_is_downloaded_with_its_readings(folder, monkeypatch):
    asked = []

    def fetch(name: str, files: list[str]) -> str:
        asked.extend(files)
        return str(folder / "model.safetensors")

    monkeypatch.setattr(sources, "fetch", fetch)
    found = sources.find("ChineseBERT-base")
    assert {address.rpartition("/")[2] for address in asked} == {"model_state.pdparams", "tokenizer_config.json"}
    assert found.weights.files == [folder / "model.safetensors"] and found.config.values["pinyin_map_len"] == 32
