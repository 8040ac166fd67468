"""How requests become batches: by what waits when the model is free, never by a clock."""

from __future__ import annotations

import pytest

from clue_utils.errors import UserError
from clue_utils.serving.batching import Batcher, QueueFull, Stopping
from serving_fakes import FakeModel, hold, start


def test_a_batch_is_what_waits_when_the_model_is_free():
    model = FakeModel(is_held=True)
    batcher = start(model, batch_size=4)
    answers = [hold(batcher, model), *(batcher.submit("a", [str(i), f"{i}'"]) for i in range(3))]
    assert batcher.num_waiting == 6
    model.leave()
    assert batcher.stop(60)
    assert model.batches == [["first"], ["0", "0'", "1", "1'"], ["2", "2'"]]
    assert [one.result() for one in answers][1:] == [[{"label": str(i)}, {"label": f"{i}'"}] for i in range(3)]
    assert (batcher.num_answered, batcher.num_batches, batcher.num_waiting) == (7, 3, 0)


def test_a_request_larger_than_a_batch_is_one_by_itself():
    model = FakeModel(is_held=True)
    batcher = start(model, batch_size=2)
    hold(batcher, model)
    for inputs in (["small"], ["1", "2", "3"], ["last"]):
        batcher.submit("a", inputs)
    model.leave()
    batcher.stop(60)
    # None overtakes it, though "last" would fit beside "small".
    assert model.batches == [["first"], ["small"], ["1", "2", "3"], ["last"]]


def test_models_take_turns_by_the_oldest_request():
    models = [FakeModel(is_held=True), FakeModel()]
    batcher = start(*models)
    hold(batcher, models[0])
    answers = [batcher.submit(name, [f"{name}{i}"]) for i, name in enumerate("bab")]
    models[0].leave()
    batcher.stop(60)
    assert models[0].batches == [["first"], ["a1"]] and models[1].batches == [["b0", "b2"]]
    assert [one.result()[0]["label"] for one in answers] == ["b0", "a1", "b2"]


def test_what_is_cancelled_while_it_waits_is_never_computed():
    model = FakeModel(is_held=True)
    batcher = start(model)
    first = hold(batcher, model)
    gone = [batcher.submit("a", ["gone"]) for _ in range(2)]
    stays = batcher.submit("a", ["stays"])
    assert [one.cancel() for one in gone] == [True, True] and not first.cancel()
    assert batcher.num_waiting == 1
    model.leave()
    assert stays.result() == [{"label": "stays"}]
    batcher.stop(60)
    assert model.batches == [["first"], ["stays"]]


def test_the_queue_is_bounded_in_inputs():
    model = FakeModel(is_held=True)
    batcher = start(model, max_waiting=3)
    hold(batcher, model)
    waits = batcher.submit("a", ["1", "2"])
    with pytest.raises(QueueFull):
        batcher.submit("a", ["3", "4"])
    batcher.submit("a", ["3"])
    waits.cancel()
    batcher.submit("a", ["4", "5"])
    model.leave()
    batcher.stop(60)


def test_one_requests_fault_is_not_the_others():
    model = FakeModel(is_held=True)
    batcher = start(model)
    hold(batcher, model)
    good, bad, other = (batcher.submit("a", inputs) for inputs in (["1"], ["2", "bad"], ["3"]))
    model.leave()
    assert (good.result(), other.result()) == ([{"label": "1"}], [{"label": "3"}])
    with pytest.raises(UserError, match=r"^inputs\[1\]: bad$"):  # by its place in its own request
        bad.result()
    assert batcher.submit("a", ["still there"]).result()
    batcher.stop(60)


def test_the_end_answers_what_waits_and_takes_no_more():
    model = FakeModel(is_held=True)
    batcher = start(model)
    answers = [hold(batcher, model), batcher.submit("a", ["waits"])]
    model.leave()
    assert batcher.stop(60) and not batcher.is_alive
    assert [one.result() for one in answers] == [[{"label": "first"}], [{"label": "waits"}]]
    with pytest.raises(Stopping):
        batcher.submit("a", ["late"])


def test_an_end_at_once_cancels_what_waits():
    model = FakeModel(is_held=True)
    batcher = start(model)
    first = hold(batcher, model)
    waits = batcher.submit("a", ["1", "2"])
    assert not batcher.stop(0) and waits.cancelled() and not first.cancelled()
    model.leave()
    assert batcher.stop(60) and model.batches == [["first"]]


def test_what_loading_raises_is_raised():
    def load():
        raise UserError("no such checkpoint")

    with pytest.raises(UserError, match="no such checkpoint"):
        Batcher(load, 1, 1).start()
