"""The linear layer that models get on a CPU."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from clue_utils import cpu


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
    cpu.speed_up(model)
    found = run()
    assert [type(layer) for layer in model] == [cpu.Linear, paddle.nn.GELU, cpu.Linear]
    assert [parameter.name for parameter in model.parameters()] == names
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-7)


def test_a_layer_without_bias_stays_as_it_is():
    model = paddle.nn.Sequential(paddle.nn.Linear(5, 7, bias_attr=False))
    cpu.speed_up(model)
    assert type(model[0]) is paddle.nn.Linear
