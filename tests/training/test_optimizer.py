"""AdamW in two operations, and clipping in one: the bits of Paddle's own, which take one for each parameter."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import paddle
import pytest

from clue_utils.training import optimizer
from clue_utils.training.optimizer import AdamW, ClipGradByGlobalNorm, HostClipGradByGlobalNorm

OWN = (paddle.optimizer.AdamW, paddle.nn.ClipGradByGlobalNorm)
# Around the widths of vector registers, and what more than one thread or block takes.
SHAPES = [
    *([n] for n in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33)),
    [40, 13],
    [101, 97],
    [5, 1, 3],
    [1000, 131],
    [65537],
]
Step = Callable[[], object]


class Trained:
    """Parameters with an optimizer, which are given gradients."""

    def __init__(self, classes: tuple[Any, Any] = OWN, max_norm: float = 1.0, weight_decay: float = 0.01) -> None:
        optimizer_class, clip_class = classes
        rng = np.random.default_rng(1)
        with paddle.utils.unique_name.guard("trained_"):
            self.parameters = [
                paddle.create_parameter(
                    shape, "float32", default_initializer=paddle.nn.initializer.Assign(rng.normal(size=shape))
                )
                for shape in SHAPES
            ]
            decayed = {parameter.name for parameter in self.parameters[::2]}
            self.optimizer = optimizer_class(
                learning_rate=paddle.optimizer.lr.PolynomialDecay(1e-2, 10),
                epsilon=1e-8,
                parameters=self.parameters,
                weight_decay=weight_decay,
                apply_decay_param_fun=decayed.__contains__,
                grad_clip=clip_class(max_norm) if max_norm else None,
            )

    def learn(
        self,
        steps: Collection[int],
        scale: float = 1.0,
        without: Collection[int] = (),
        odd: float = 1.0,
        step: Step | None = None,
    ) -> None:
        """Steps of their numbers: gradients of a size, some parameters without, one entry multiplied by ``odd``."""
        for number in steps:
            rng = np.random.default_rng([number, 2])
            for i, parameter in enumerate(self.parameters):
                gradient = (rng.normal(size=parameter.shape) * scale).astype(np.float32)
                gradient.flat[0] *= odd if i == 3 and number == 2 else 1.0
                if i not in without:
                    parameter.grad = paddle.to_tensor(gradient)
            with paddle.utils.unique_name.guard("moments_"):  # numbered alike in all that are compared
                (step or self.optimizer.step)()
            self.optimizer.clear_grad(set_to_zero=False)
            self.optimizer._learning_rate.step()

    def state(self) -> dict[str, np.ndarray]:
        """Moments and powers by name."""
        return {name: value.numpy() for name, value in self.optimizer.state_dict().items() if name != "LR_Scheduler"}

    def require_bits_of(self, other: Trained) -> None:
        mine, theirs = self.state(), other.state()
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            assert value.tobytes() == theirs[name].tobytes(), name
        for one, two in zip(self.parameters, other.parameters, strict=True):
            assert one.numpy().tobytes() == two.numpy().tobytes(), one.name


@pytest.mark.parametrize("without", [(), (1, 2, 15)], ids=["all", "some without gradient"])
@pytest.mark.parametrize("max_norm", [0.0, 1.0, 0.3])
@pytest.mark.parametrize(("scale", "weight_decay"), [(1e-6, 0.01), (1e-3, 0.01), (1.0, 0.0), (1e3, 0.5)])
def test_steps_have_the_bits_of_paddles(scale, weight_decay, max_norm, without):
    """Without gradient a parameter neither decays nor has moments."""
    mine, theirs = (
        Trained(classes, max_norm, weight_decay) for classes in (optimizer.quickest_classes("cpu", max_norm), OWN)
    )
    assert type(mine.optimizer) is AdamW and type(mine.optimizer._grad_clip) is (
        HostClipGradByGlobalNorm if max_norm else type(None)
    )
    for trained in (mine, theirs):
        trained.learn(range(4), scale, without)
    mine.require_bits_of(theirs)
    assert len(mine.state()) == 4 * (len(SHAPES) - len(without))


def test_a_frozen_parameter_stays_as_it_is():
    mine = Trained((AdamW, OWN[1]))
    before = mine.parameters[0].numpy()
    mine.parameters[0].stop_gradient = True
    mine.learn(range(2))
    assert (mine.parameters[0].numpy() == before).all()
    assert len(mine.state()) == 4 * (len(SHAPES) - 1)


@pytest.mark.parametrize(("written_by", "read_by"), [(OWN, (AdamW, OWN[1])), ((AdamW, OWN[1]), OWN)])
def test_either_goes_on_from_the_state_of_the_other(written_by, read_by):
    unbroken, first, second = Trained(), Trained(written_by), Trained(read_by)
    unbroken.learn(range(5))
    first.learn(range(3))
    for parameter, trained in zip(second.parameters, first.parameters, strict=True):
        parameter.set_value(trained.numpy())
    second.optimizer.set_state_dict(first.optimizer.state_dict())
    second.learn(range(3, 5))
    second.require_bits_of(unbroken)


@pytest.mark.parametrize("odd", [1.0, np.inf, np.nan])
@pytest.mark.parametrize("clip", [OWN[1], ClipGradByGlobalNorm, HostClipGradByGlobalNorm])
def test_with_a_scaled_loss_steps_are_the_same_and_one_with_infinite_gradients_is_left_out(monkeypatch, clip, odd):
    """The real scaler, which is told that it is on a card; its operations are there on a processor too."""

    class Place:
        def is_gpu_place(self) -> bool:
            return True

    class Tracer:
        _expected_place = Place()

    monkeypatch.setattr("paddle.amp.grad_scaler._dygraph_tracer", Tracer)
    reads = []
    read = paddle.Tensor.__bool__
    monkeypatch.setattr(paddle.Tensor, "__bool__", lambda tensor: reads.append(1) or read(tensor))
    trained, counts = [Trained(), Trained((AdamW, clip))], []
    for one in trained:
        scaler = paddle.amp.GradScaler()
        assert scaler.is_enable()

        def step(one: Trained = one, scaler: Any = scaler) -> None:
            for parameter in one.parameters:
                parameter.grad.multiply_(scaler._scale)
            scaler.step(one.optimizer)
            scaler.update()

        reads.clear()
        one.learn(range(4), odd=odd, step=step)
        counts.append((len(reads), float(scaler._scale)))
    assert counts[0] == counts[1] and counts[0][0] <= 4
    trained[1].require_bits_of(trained[0])
    powers = [float(value[0]) for name, value in trained[1].state().items() if "beta1_pow" in name]
    assert powers == pytest.approx([0.9 ** (5 if odd == 1 else 4)] * len(SHAPES))


@pytest.mark.parametrize("scale", [1e-5, 1e-3, 1.0, 1e4])
@pytest.mark.parametrize("max_norm", [1.0, 2.0, 64.0])
def test_gradients_are_clipped_by_one_operation_to_the_same_bits(max_norm, scale):
    assert ClipGradByGlobalNorm.is_exact(max_norm)
    mine, theirs = Trained((AdamW, ClipGradByGlobalNorm), max_norm), Trained(max_norm=max_norm)
    for trained in (mine, theirs):
        trained.learn(range(4), scale)
    mine.require_bits_of(theirs)


@pytest.mark.parametrize("max_norm", [0.0, 0.3, 0.5, 3.0, 1.0000001, -1.0])
def test_other_norms_cannot_be_divided_by_without_rounding(max_norm):
    assert not ClipGradByGlobalNorm.is_exact(max_norm)


def test_the_quickest_classes_are_those_that_compute_the_same(monkeypatch, caplog):
    choose = optimizer.quickest_classes.__wrapped__
    assert choose("cpu", 1.0) == choose("cpu", 0.0) == choose("cpu", 0.3) == (AdamW, HostClipGradByGlobalNorm)
    assert choose("xpu:0", 1.0) == OWN  # has no such operation
    bits: dict[Any, list[bytes]] = {}

    def trial(optimizer_class: Any, clip_class: Any, max_norm: float) -> list[bytes]:
        found = bits.get((optimizer_class, clip_class), [b"own"])
        if not found:
            raise NotImplementedError("no such kernel")
        return found

    monkeypatch.setattr(optimizer, "_trial", trial)
    assert choose("gpu:0", 1.0) == (AdamW, ClipGradByGlobalNorm)
    assert choose("gpu:0", 0.3) == (AdamW, OWN[1])
    bits[AdamW, ClipGradByGlobalNorm] = []
    assert choose("gpu:0", 1.0) == (AdamW, OWN[1])
    with caplog.at_level("INFO", logger="clue_utils"):
        bits[AdamW, OWN[1]] = [b"others"]
        assert choose("gpu:0", 1.0) == OWN
    assert "parameters are updated one by one, since gpu:0 computes other bits for all at once" in caplog.text


def test_the_trial_leaves_no_trace_in_names_and_random_numbers():
    """A checkpoint goes by names that are numbered, and a run by what is drawn."""
    paddle.seed(5)
    number, names = float(paddle.rand([])), dict(paddle.base.unique_name.generator.ids)
    paddle.seed(5)
    optimizer._trial(*OWN, 1.0)
    assert dict(paddle.base.unique_name.generator.ids) == names
    assert float(paddle.rand([])) == number
