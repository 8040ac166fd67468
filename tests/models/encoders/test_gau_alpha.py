"""GAU-alpha against the formulas of its paper."""

from __future__ import annotations

import numpy as np

from clue_utils import environment
from numpy_encoders import IDS, SEGMENTS, draw_weights

environment.import_libraries()

import paddle  # noqa: E402
from paddlenlp.transformers import GAUAlphaConfig  # noqa: E402

from clue_utils.models.encoders.gau_alpha import GAUAlphaModel  # noqa: E402

SIZES = {"vocab_size": 40, "hidden_size": 12, "intermediate_size": 20, "attention_key_size": 8, "num_hidden_layers": 3}
Weights = dict[str, np.ndarray]


def reference(weights: Weights, ids: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Hidden states float64 [length, hidden_size] of one text without padding."""
    length, inner, key = len(ids), SIZES["intermediate_size"], SIZES["attention_key_size"]

    def norm(x: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12)

    def rotate(x: np.ndarray) -> np.ndarray:
        angles = np.arange(length)[:, None] / 10000 ** (np.arange(0, key, 2) / key)
        turned = (x[:, 0::2] + 1j * x[:, 1::2]) * np.exp(1j * angles)
        return np.stack([turned.real, turned.imag], -1).reshape(x.shape)

    x = norm(
        weights["embeddings.word_embeddings.weight"][ids] + weights["embeddings.token_type_embeddings.weight"][segments]
    )
    for i in range(SIZES["num_hidden_layers"]):
        part = {name: weights[f"encoder.layer.{i}.gau.{name}.weight"] for name in ("i_dense", "o_dense")}
        scale = {name: weights[f"encoder.layer.{i}.gau.{name}_scaleoffset.weight"] for name in ("q", "k")}
        projected = x @ part["i_dense"]
        u, v, z = np.split(projected / (1 + np.exp(-projected)), [inner, 2 * inner], axis=-1)
        scores = rotate(z * scale["q"]) @ rotate(z * scale["k"]).T / np.sqrt(key)
        attention = np.exp(scores * np.log(length) / np.log(512))
        attention /= attention.sum(-1, keepdims=True)
        x = norm(x + (u * (attention @ v)) @ part["o_dense"])
    return x


def test_every_row_is_as_its_formulas_say():
    model = GAUAlphaModel(GAUAlphaConfig(**SIZES, type_vocab_size=2, max_position_embeddings=16))
    weights = draw_weights(model)
    lengths = (9, 6, 2)
    mask = (np.arange(9) < np.array(lengths)[:, None]).astype(np.int64)
    inputs = {"input_ids": IDS * mask, "token_type_ids": SEGMENTS * mask, "attention_mask": mask}
    with paddle.no_grad():
        hidden = model(**{name: paddle.to_tensor(array) for name, array in inputs.items()}).numpy()
    for row, length in enumerate(lengths):
        expected = reference(weights, IDS[row, :length], SEGMENTS[row, :length])
        np.testing.assert_allclose(hidden[row, :length], expected, atol=1e-5)
