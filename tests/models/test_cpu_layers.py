"""The layers that models get on a CPU."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from clue_utils.models import cpu_layers


@pytest.mark.parametrize("shape", [(6, 5), (2, 3, 5), (2, 2, 3, 5)])
def test_the_linear_layer_is_paddles_to_the_rounding_of_sums(shape):
    paddle.seed(0)
    model = paddle.nn.Sequential(paddle.nn.Linear(5, 7), paddle.nn.GELU(), paddle.nn.Linear(7, 4))
    names = [parameter.name for parameter in model.parameters()]

    def run():
        x = paddle.to_tensor(np.random.default_rng(0).normal(size=shape).astype("float32"), stop_gradient=False)
        y = model(x)
        (y * y).mean().backward()
        gradients = [tensor.grad.numpy() for tensor in (x, *model.parameters())]
        model.clear_gradients()
        with paddle.no_grad():
            return [y.numpy(), model(x).numpy(), *gradients]

    expected = run()
    cpu_layers.speed_up(model)
    found = run()
    assert [type(layer) for layer in model] == [cpu_layers.Linear, paddle.nn.GELU, cpu_layers.Linear]
    assert [parameter.name for parameter in model.parameters()] == names
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-7)


def test_a_model_learns_as_with_paddles_layers():
    """An encoder with padding: loss and all gradients."""
    from paddlenlp.transformers import ErnieConfig, ErnieForSequenceClassification

    paddle.seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    model = ErnieForSequenceClassification(ErnieConfig(vocab_size=50, max_position_embeddings=16, **sizes))
    for name, parameter in model.named_parameters():  # no weight at its first value of 1 or 0
        parameter.set_value(paddle.normal(1.0 if "norm" in name else 0.0, 0.3, parameter.shape))
    ids = paddle.randint(1, 50, [3, 16])
    mask = (paddle.arange(16) < paddle.to_tensor([[16], [9], [1]])).astype("int64")
    model.eval()

    def run():
        loss = paddle.nn.functional.cross_entropy(model(ids, attention_mask=mask), paddle.to_tensor([0, 1, 1]))
        loss.backward()
        gradients = {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
        model.clear_gradients()
        with paddle.no_grad():
            return float(loss), model(ids, attention_mask=mask).numpy(), gradients

    expected_loss, expected_logits, expected = run()
    cpu_layers.speed_up(model)
    loss, logits, gradients = run()
    kinds = {type(layer) for layer in model.sublayers()}
    assert {cpu_layers.Linear, cpu_layers.LayerNorm, cpu_layers.PackedTransformerEncoder} <= kinds
    assert loss == pytest.approx(expected_loss, abs=1e-6)
    np.testing.assert_allclose(logits, expected_logits, atol=1e-5)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_layer_without_bias_stays_as_it_is():
    model = paddle.nn.Sequential(paddle.nn.Linear(5, 7, bias_attr=False))
    cpu_layers.speed_up(model)
    assert type(model[0]) is paddle.nn.Linear
