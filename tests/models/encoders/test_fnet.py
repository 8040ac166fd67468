"""FNet against the formulas of its paper."""

from __future__ import annotations

import numpy as np

from clue_utils import environment
from numpy_encoders import IDS, SEGMENTS, draw_weights

environment.import_libraries()

import paddle  # noqa: E402
from paddlenlp.transformers import FNetConfig  # noqa: E402

from clue_utils.models.encoders.fnet import FNetModel  # noqa: E402

SIZES = {"vocab_size": 40, "hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "type_vocab_size": 2}


def test_every_row_is_as_its_formulas_say():
    model = FNetModel(FNetConfig(**SIZES, max_position_embeddings=16, pad_token_id=0))
    weights = draw_weights(model)

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    with paddle.no_grad():
        hidden, pooled = (output.numpy() for output in model(paddle.to_tensor(IDS), paddle.to_tensor(SEGMENTS)))
    for row in range(3):
        x = (
            weights["embeddings.word_embeddings.weight"][IDS[row]]
            + weights["embeddings.position_embeddings.weight"][:9]
        )
        x += weights["embeddings.token_type_embeddings.weight"][SEGMENTS[row]]
        x = linear("embeddings.projection", norm("embeddings.layer_norm", x))
        for i in range(SIZES["num_hidden_layers"]):
            layer = f"encoder.layers.{i}"
            x = norm(f"{layer}.fourier.output.layer_norm", x + np.fft.fft2(x).real)
            inner = linear(f"{layer}.intermediate.dense", x)
            inner *= 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
            x = norm(f"{layer}.output.layer_norm", x + linear(f"{layer}.output.dense", inner))
        np.testing.assert_allclose(hidden[row], x, atol=2e-5)
        np.testing.assert_allclose(pooled[row], np.tanh(linear("pooler.dense", x[0])), atol=1e-5)
