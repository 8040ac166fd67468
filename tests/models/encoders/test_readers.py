"""Encoders that PaddleNLP has with another interface compute of padded rows what it computes of each row alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from clue_utils import environment

environment.import_libraries()

import paddle  # noqa: E402
from paddlenlp import transformers  # noqa: E402

from clue_utils.models.encoders import glm, mbart, unimo  # noqa: E402

SIZES: dict[str, Any] = {"vocab_size": 40, "num_attention_heads": 2, "intermediate_size": 32, "type_vocab_size": 2}
SIZES |= {"hidden_size": 16, "num_hidden_layers": 2, "max_position_embeddings": 32}
GLM_SIZES = {"vocab_size": 40, "hidden_size": 16, "num_layers": 2, "num_attention_heads": 2, "max_sequence_length": 32}
MBART_SIZES = {
    "vocab_size": 40,
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
}
MBART_SIZES |= {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32}
# Sources of the names of positions, segments and masks: what PaddleNLP's own tokenizers write for one text.
CASES: dict[str, tuple[Any, Any, Any, Callable[[Any, Any, Any], Any]]] = {
    "unimo": (
        unimo.UNIMOModel,
        transformers.UNIMOModel,
        transformers.UNIMOConfig(**SIZES, pad_token_id=0),
        lambda model, ids, segments: model(ids, segments, position_ids=paddle.arange(ids.shape[1]).unsqueeze(0)),
    ),
    "unified_transformer": (
        unimo.UnifiedTransformerModel,
        transformers.UnifiedTransformerModel,
        transformers.UnifiedTransformerConfig(**SIZES, pad_token_id=0),
        lambda model, ids, segments: model(ids, segments, position_ids=paddle.arange(ids.shape[1]).unsqueeze(0)),
    ),
    "glm": (
        glm.GLMModel,
        transformers.GLMModel,
        transformers.GLMConfig(**GLM_SIZES),
        lambda model, ids, _: model(ids, attention_mask=paddle.ones([1, 1, 1, ids.shape[1]])).last_hidden_state,
    ),
    "mbart": (
        mbart.MBartModel,
        transformers.MBartModel,
        mbart.MBartConfig(**MBART_SIZES),
        lambda model, ids, _: model.encoder(ids, attention_mask=paddle.ones_like(ids)),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_padding_on_either_side_changes_nothing(case):
    ours_class, theirs_class, config, run = CASES[case]
    paddle.seed(2)
    theirs = theirs_class(config)
    for parameter in theirs.parameters():
        if parameter.ndim > 1:
            parameter.set_value(paddle.randn(parameter.shape) * 0.3)
    ours = ours_class(config)
    assert {name for name, _ in ours.named_parameters()} <= theirs.state_dict().keys()
    ours.set_state_dict({name: value for name, value in theirs.state_dict().items() if name in ours.state_dict()})
    theirs.eval()
    ours.eval()
    ids = np.arange(6, 30).reshape(3, 8)
    lengths = [8, 3, 1]
    pad = config.pad_token_id or 0
    is_left_padded_too = case in ("unimo", "unified_transformer", "glm")  # which count positions by the mask
    for left in (False, True) if is_left_padded_too else (False,):
        mask = np.arange(8) < np.array(lengths)[:, None]
        mask = mask[:, ::-1] if left else mask
        segments = np.where(mask, np.arange(8) % 2, 0)
        tensors = {"attention_mask": paddle.to_tensor(mask.astype(np.int64))}
        if ours_class.__module__.endswith("unimo"):
            tensors["token_type_ids"] = paddle.to_tensor(segments)
        with paddle.no_grad():
            hidden = ours(paddle.to_tensor(np.where(mask, ids, pad)), **tensors)
            hidden = (hidden[0] if isinstance(hidden, tuple) else hidden).numpy()
            for row in range(3):
                kept = mask[row]
                alone = run(
                    theirs, paddle.to_tensor(ids[row : row + 1, kept]), paddle.to_tensor(segments[row : row + 1, kept])
                )
                np.testing.assert_allclose(hidden[row, kept], alone.numpy()[0], atol=1e-5)
