"""Which units dropout keeps on a processor."""

from __future__ import annotations

import concurrent.futures

import numpy as np
import paddle
import pytest

from clue_utils.models import dropout, threads
from clue_utils.models.cpu_layers import Dropout, speed_up
from clue_utils.models.dropout import DropoutMask


def draw(seed, *shape, probability=0.1):
    paddle.seed(seed)
    return DropoutMask(shape, probability).keep.numpy().astype(bool)


@pytest.mark.parametrize("probability", [0.1, 0.5, 1e-3, 0.999])
def test_as_many_are_kept_as_asked_for_and_the_mean_stays(probability):
    paddle.seed(7)
    number = 1 << 22
    mask = DropoutMask([number], probability)
    share = mask.keep.numpy().mean()
    # Five standard deviations, and the sixteen bits that a probability has.
    assert abs(share - (1 - probability)) < 5 * np.sqrt(probability * (1 - probability) / number) + 2**-17
    assert mask.scale == pytest.approx(1 / (1 - probability), rel=0.01)
    x = mask.apply(paddle.ones([number])).numpy()
    assert set(np.unique(x)) == {0, np.float32(mask.scale)}
    assert x.mean() == pytest.approx(1, abs=6 * np.sqrt(probability / (1 - probability) / number) + 1e-5)


def test_a_seed_decides_the_bits_and_threads_do_not(monkeypatch):
    shape = (3, dropout._BLOCK_SIZE - 5)  # blocks that end within a row, the last of them short
    expected = draw(1, *shape)
    for number in (1, 3):
        with concurrent.futures.ThreadPoolExecutor(number) as pool:
            monkeypatch.setattr(threads, "_pool", lambda pool=pool: pool)
            assert np.array_equal(draw(1, *shape), expected)
    monkeypatch.setattr(threads, "_pool", lambda: None)
    assert np.array_equal(draw(1, *shape), expected)
    assert not np.array_equal(draw(2, *shape), expected)


def test_what_is_drawn_is_independent():
    """Of the next draw, as another layer's; of another seed, as another step's or rank's; of its neighbours."""
    paddle.seed(3)
    layers = [DropoutMask([1 << 20], 0.25).keep.numpy().astype(float) for _ in range(4)]
    steps = [draw(seed, 1 << 20, probability=0.25).astype(float) for seed in range(4, 8)]
    shifted = [np.roll(layers[0], places) for places in (1, 2, 4, 1 << 10, dropout._BLOCK_SIZE)]
    correlations = np.corrcoef([*layers, *steps, *shifted])
    assert np.abs(correlations - np.eye(len(correlations))).max() < 5 / np.sqrt(1 << 20)


def test_runs_are_as_long_as_of_independent_units():
    """Chi-square of the lengths of runs of units that are dropped: geometric."""
    units = draw(5, 1 << 20, probability=0.5)
    ends = np.flatnonzero(np.diff(units.astype(np.int8)))
    lengths = np.diff(ends)[~units[ends[1:]]]
    counts = np.bincount(np.minimum(lengths, 12))[1:]
    expected = len(lengths) * np.append(0.5 ** np.arange(1, 12), 0.5**11)
    assert ((counts - expected) ** 2 / expected).sum() < 11 + 5 * np.sqrt(2 * 11)


def test_a_layer_drops_in_training_alone_and_so_does_its_gradient():
    model = paddle.nn.Sequential(paddle.nn.Dropout(0.5), paddle.nn.Dropout(0.0), paddle.nn.Dropout(0.5, axis=0))
    speed_up(model)
    assert [type(layer) for layer in model] == [Dropout, Dropout, paddle.nn.Dropout]
    x = paddle.ones([50, 40])
    x.stop_gradient = False
    y = model[0](x)
    (y * 3).sum().backward()
    assert set(np.unique(y.numpy())) == {0, 2} and np.array_equal(x.grad.numpy(), 3 * y.numpy())
    assert np.array_equal(model[1](x).numpy(), x.numpy())
    model.eval()
    assert np.array_equal(model[0](x).numpy(), x.numpy())
