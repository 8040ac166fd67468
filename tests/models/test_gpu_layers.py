"""The layers that models get on a card; on a processor they compute the same bits, or the same to rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import ErnieConfig, ErnieForSequenceClassification

from clue_utils.models import cpu_layers, gpu_layers
from clue_utils.models.export import write_model
from clue_utils.models.heads import HEADS, logits, to_tensors

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}


def small_model(dropout: float = 0.0) -> paddle.nn.Layer:
    paddle.seed(0)
    rates = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"), dropout)
    model = ErnieForSequenceClassification(
        ErnieConfig(vocab_size=50, max_position_embeddings=16, initializer_range=0.3, pad_token_id=0, **rates, **SIZES)
    )
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.set_value(paddle.normal(0.0, 0.3, parameter.shape))
    return model


def batch() -> dict[str, paddle.Tensor]:
    ids = np.arange(48).reshape(3, 16) % 49 + 1
    mask = (np.arange(16) < np.array([[16], [9], [1]])).astype(np.int64)
    return to_tensors({"input_ids": ids * mask, "token_type_ids": ids * 0, "attention_mask": mask})


def outcome(model: paddle.nn.Layer) -> list[np.ndarray]:
    """Logits in training and of evaluation, and all gradients."""
    paddle.seed(3)
    model.train()
    trained = logits(model, batch())
    (trained * trained).sum().backward()
    gradients = [parameter.grad.numpy() for parameter in model.parameters()]
    model.clear_gradients()
    model.eval()
    with paddle.no_grad():
        return [trained.numpy(), logits(model, batch()).numpy(), *gradients]


def test_linear_layers_compute_the_bits_of_paddles_and_ask_for_no_flag(monkeypatch):
    model = small_model(dropout=0.1)
    names = [parameter.name for parameter in model.parameters()]
    expected = outcome(model)
    gpu_layers.speed_up(model)
    assert {type(layer) for layer in model.sublayers() if isinstance(layer, paddle.nn.Linear)} == {gpu_layers.Linear}
    assert [parameter.name for parameter in model.parameters()] == names

    def get_flags(flags: Any) -> None:
        raise AssertionError(f"asks for {flags}")

    monkeypatch.setattr(paddle, "get_flags", get_flags)
    for mine, theirs in zip(outcome(model), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("is_cuda", "flags", "expected"),
    [
        (False, (), "linear"),
        (True, (), "linear_v2"),
        (True, ("FLAGS_use_legacy_linear",), "linear"),
        (True, ("FLAGS_use_accuracy_compatible_kernel",), None),
        (True, ("FLAGS_use_legacy_linear", "FLAGS_use_accuracy_compatible_kernel"), "linear"),
    ],
)
def test_the_operation_of_a_linear_layer_is_that_which_paddle_takes(monkeypatch, is_cuda, flags, expected):
    """Under each of the flags, as ``F.linear`` itself says."""
    called = []
    for name in ("linear", "linear_v2"):
        monkeypatch.setattr(paddle._C_ops, name, lambda *inputs, name=name: called.append((name, inputs)))
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: is_cuda)
    monkeypatch.setattr(paddle, "get_flags", lambda name: {name: name in flags})
    layer = paddle.nn.Linear(2, 3)
    model = paddle.nn.Sequential(layer)
    x = paddle.ones([1, 2])
    if expected:
        layer(x)
    gpu_layers.speed_up(model)
    assert (type(layer) is gpu_layers.Linear) == (expected is not None)
    if expected:
        layer(x)
        assert len(called) == 2 and called[0] == called[1] and called[0][0] == expected


def test_a_linear_layer_without_bias_stays_as_it_is():
    model = paddle.nn.Sequential(paddle.nn.Linear(5, 7, bias_attr=False))
    gpu_layers.speed_up(model)
    assert type(model[0]) is paddle.nn.Linear


@pytest.mark.parametrize("speed_up", [cpu_layers.speed_up, gpu_layers.speed_up])
def test_attention_in_one_operation_goes_with_the_other_layers(speed_up):
    model = small_model()
    expected = outcome(model)
    gpu_layers.fuse_attention(model)
    speed_up(model)
    for mine, theirs in zip(outcome(model), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5 * max(1.0, float(np.abs(theirs).max())))


def test_attention_heeds_dropout_while_training_alone():
    model = small_model(dropout=0.5)
    for layer in model.sublayers():
        if isinstance(layer, paddle.nn.Dropout):
            layer.p = 0.0
    gpu_layers.fuse_attention(model)
    model.train()
    assert (logits(model, batch()) != logits(model, batch())).any()
    model.eval()
    assert (logits(model, batch()) == logits(model, batch())).all()


@pytest.mark.parametrize(("is_half", "has_flash", "heads"), [(False, True, 4), (True, False, 4), (True, True, 1)])
def test_the_layers_of_a_pass_share_one_mask(monkeypatch, is_half, has_flash, heads):
    """It is made once, in the type of the queries, for each head where the kernel wants that."""
    attend, masks = paddle.nn.functional.scaled_dot_product_attention, []
    kind = paddle.float16 if is_half else paddle.float32

    def attention(query, key, value, mask, *rest, **more):
        assert (query.dtype, mask.dtype) == (kind, kind)
        masks.append(mask)
        full = [tensor.astype("float32") for tensor in (query, key, value, mask)]
        return attend(*full, *rest, **more)

    class Halved(paddle.nn.Linear):
        """As under AMP."""

        def forward(self, x: paddle.Tensor) -> paddle.Tensor:
            return super().forward(x).astype(kind)

    monkeypatch.setattr("paddle.nn.functional.scaled_dot_product_attention", attention)
    monkeypatch.setattr(gpu_layers, "_has_flash_attention", lambda: has_flash)
    model = small_model()
    gpu_layers.fuse_attention(model)
    for name, layer in model.named_sublayers():
        if name.endswith(("q_proj", "k_proj", "v_proj")):
            layer.__class__ = Halved
    model.eval()
    logits(model, batch())
    assert len(masks) == 3 and masks[0] is masks[1] is masks[2]
    assert masks[0].shape == [3, heads, 16, 16]
    logits(model, batch())
    assert len(masks) == 6 and masks[3] is masks[5] is not masks[0]
    assert model.ernie.encoder.layers[0].self_attn.masks is None  # none is held between passes


def test_an_attention_by_itself_keeps_no_mask():
    layer = paddle.nn.MultiHeadAttention(8, 2)
    layer.eval()
    x = paddle.rand([2, 4, 8])
    masks = [paddle.zeros([2, 1, 1, 4]), paddle.to_tensor([[[[0.0, 0.0, -1e4, -1e4]]]] * 2)]
    expected = [layer(x, x, x, mask).numpy() for mask in masks]
    model = paddle.nn.Sequential(layer)
    gpu_layers.fuse_attention(model)
    for mask, theirs in zip(masks, expected, strict=True):
        np.testing.assert_allclose(layer(x, x, x, mask).numpy(), theirs, atol=1e-6)


def test_a_model_with_the_layers_of_a_card_is_exported(tmp_path):
    model = small_model()
    gpu_layers.fuse_attention(model)
    gpu_layers.speed_up(model)
    write_model(model, tmp_path / "model", HEADS["classification"], 0)  # which compares what it wrote
