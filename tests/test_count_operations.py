"""Operations of a step: how many there may be, which unlike seconds is the same on every machine."""

from __future__ import annotations

import paddle
import pytest

import count_operations


def test_what_is_counted():
    x = paddle.ones([2])
    flags = paddle.get_flags("FLAGS_low_precision_op_list")
    assert count_operations.count(lambda: paddle.tanh(x) + paddle.tanh(x) * x) == {
        "tanh": 2,
        "elementwise_mul": 1,
        "elementwise_add": 1,
    }
    assert count_operations.count(lambda: None) == {}
    with pytest.raises(ZeroDivisionError):
        count_operations.count(lambda: 1 / 0)
    assert paddle.get_flags("FLAGS_low_precision_op_list") == flags


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize(
    ("kind", "per_layer", "rest", "per_parameter"), [("paddle", 33, 34, 3), ("cpu", 53, 44, 2), ("card", 33, 34, 1)]
)
def test_a_step_has_no_more_operations_than_it_had(kind, per_layer, rest, per_parameter, num_layers):
    """For each parameter its norm, on a processor its clipping too, and few for all.

    A processor takes more operations than a card, each of which takes it less time.
    """
    found, num_parameters = count_operations.of_a_step(kind, num_layers)
    assert num_parameters == 16 * num_layers + 10
    assert found["batch"].total() <= 1
    assert found["forward"].total() <= per_layer * num_layers + rest
    assert found["optimizer"].total() <= per_parameter * num_parameters + 10
    assert found["optimizer"]["squared_l2_norm"] == num_parameters  # in the order in which Paddle adds them up
