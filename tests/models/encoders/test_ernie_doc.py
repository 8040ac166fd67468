"""ERNIE-Doc against PaddleNLP's encoder, called as its examples call it at the beginning of a document."""

from __future__ import annotations

import numpy as np

from clue_utils import environment

environment.import_libraries()

import paddle  # noqa: E402
from paddlenlp import transformers  # noqa: E402

from clue_utils.models.encoders.ernie_doc import ErnieDocModel  # noqa: E402

SIZES = {
    "vocab_size": 40,
    "hidden_size": 12,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "task_type_vocab_size": 3,
}
WINDOW, MEMORY = 16, 5


def test_texts_are_as_in_windows_of_full_length():
    """Their places in the table of distances do not depend on the length that a batch is padded to."""
    paddle.seed(5)
    config = transformers.ErnieDocConfig(**SIZES, max_position_embeddings=WINDOW, memory_len=MEMORY, cls_token_idx=0)
    model = ErnieDocModel(config)
    model.eval()
    for parameter in model.parameters():
        parameter.set_value(paddle.randn(parameter.shape) * 0.5)
    rng, lengths = np.random.default_rng(0), np.array([[9], [6], [2]])
    mask = (np.arange(WINDOW) < lengths).astype(np.int64)
    ids, segments = rng.integers(1, 40, mask.shape) * mask, (np.arange(WINDOW) > 3) * mask
    positions = [*range(2 * WINDOW + MEMORY - 1, WINDOW - 1, -1), *range(WINDOW)]
    full = {"input_ids": ids, "token_type_ids": segments, "position_ids": np.tile(positions, (3, 1))}
    with paddle.no_grad():
        expected, expected_pooled, _ = transformers.ErnieDocModel.forward(
            model,
            memories=[paddle.zeros([3, MEMORY, SIZES["hidden_size"]]) for _ in range(SIZES["num_hidden_layers"])],
            attn_mask=paddle.to_tensor(mask[..., None].astype(np.float32)),
            **{name: paddle.to_tensor(array[..., None]) for name, array in full.items()},
        )
        short = [paddle.to_tensor(array[:, :9]) for array in (ids, segments, mask)]
        hidden, pooled = model(*short)
    for row, (length,) in enumerate(lengths):
        np.testing.assert_allclose(hidden[row, :length].numpy(), expected[row, :length].numpy(), atol=1e-5)
    np.testing.assert_allclose(pooled.numpy(), expected_pooled.numpy(), atol=1e-5)
