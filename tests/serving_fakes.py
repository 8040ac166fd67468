"""A model that stands in for a Predictor: it answers when it is let, and notes what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from clue_utils import tasks
from clue_utils.errors import UserError
from clue_utils.serving.batching import Batcher


class FakeModel:
    """Answers each input with itself; refuses "bad" by its place, and raises an input that is an exception.

    Attributes:
        batches: the inputs of each call.
        entered: is released by each call.
    """

    def __init__(self, task: str = "TNEWS", is_held: bool = False) -> None:
        self.task = tasks.get_task(task)
        self.batches: list[list[Any]] = []
        self.entered, self._may_leave = threading.Semaphore(0), threading.Event()
        if not is_held:
            self.leave()

    def __call__(self, inputs: Iterable[Any]) -> list[dict[str, Any]]:
        inputs = list(inputs)
        self.batches.append(inputs)
        self.entered.release()
        self._may_leave.wait()
        for number, one in enumerate(inputs):
            if one == "bad":
                raise UserError(f"inputs[{number}]: bad")
            if isinstance(one, dict) and "raise" in one:
                raise ERRORS[one["raise"]]
        return [{"label": one} for one in inputs]

    def leave(self) -> None:
        """Let this call and all others go on."""
        self._may_leave.set()


ERRORS = {"defect": ValueError("two\nlines"), "memory": MemoryError("no more")}


def start(*models: FakeModel, batch_size: int = 8, max_waiting: int = 32) -> Batcher:
    """A batcher that has been started, with models named "a", "b", ..."""
    batcher = Batcher(lambda: dict(zip("abc", models)), batch_size, max_waiting)  # noqa: B905
    batcher.start()
    return batcher


def hold(batcher: Batcher, model: FakeModel, name: str = "a") -> Any:
    """Have the thread work at an input, "first", until the model is let go on; the answers to come."""
    first = batcher.submit(name, ["first"])
    model.entered.acquire()
    return first
