"""mBART's encoder out of a checkpoint of encoder and decoder."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from clue_utils import environment, models
from clue_utils.errors import UserError
from clue_utils.tasks import TASKS

environment.import_libraries()

import paddle  # noqa: E402
from paddlenlp import transformers  # noqa: E402

SIZES = {"vocab_size": 40, "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
SIZES |= {"decoder_layers": 3, "decoder_attention_heads": 2, "decoder_ffn_dim": 48, "max_position_embeddings": 32}


def test_the_decoder_is_left_out_and_so_is_a_head_over_its_states(tmp_path):
    paddle.seed(1)
    task = TASKS["CMRC2018"]
    theirs = transformers.MBartForQuestionAnswering(transformers.MBartConfig(**SIZES))
    theirs.save_pretrained(tmp_path / "theirs", safe_serialization=True)
    ours = models.load_model(str(tmp_path / "theirs"), task, 0.0, 0, training=True)
    for name, parameter in ours.mbart.named_parameters():
        np.testing.assert_array_equal(parameter.numpy(), theirs.mbart.state_dict()[name].numpy(), err_msg=name)
    assert np.abs(ours.classifier.weight.numpy() - theirs.classifier.weight.numpy()).max() > 1e-3
    with pytest.raises(UserError, match="has no trained head for CMRC2018"):
        models.load_model(str(tmp_path / "theirs"), task, 0.0, 0, training=False)
    ours.save_pretrained(tmp_path / "ours", safe_serialization=True)
    again = models.load_model(str(tmp_path / "ours"), task, 0.0, 0, training=False)
    np.testing.assert_array_equal(again.classifier.weight.numpy(), ours.classifier.weight.numpy())


def test_the_embedding_is_written_once(tmp_path):
    transformers.MBartModel(transformers.MBartConfig(**SIZES)).save_pretrained(tmp_path / "a", safe_serialization=True)
    models.load_model(str(tmp_path / "a"), TASKS["TNEWS"], 0.0, 15, training=True).save_pretrained(
        tmp_path / "b", safe_serialization=True
    )
    saved = load_file(tmp_path / "b/model.safetensors")
    assert [name for name, array in saved.items() if len(array) == SIZES["vocab_size"]] == ["mbart.shared.weight"]
