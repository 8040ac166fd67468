"""Requests wait in a queue of bounded length; one thread, which owns the models, answers what waits, batch by batch.

No request waits for others to come: a batch is what waits at the moment when the thread is free. Under load batches
grow by themselves; a lone request is answered at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from clue_utils.strict_json import JsonObject
from clue_utils.tasks import Task


class Model(Protocol):
    """What is served: ``clue_utils.Predictor``, or anything with its call."""

    task: Task

    def __call__(self, inputs: Iterable[Any], /) -> list[JsonObject]: ...


class QueueFull(Exception):
    """More waits than is to wait; try again later."""


class Stopping(Exception):
    """Nothing is taken any more."""


@dataclass(eq=False)
class _Request:
    model: str
    inputs: Sequence[Any]
    answers: Future[list[JsonObject]] = field(default_factory=Future)


class Batcher:
    """The queue and its thread.

    Args:
        load: name -> model; called in the thread, which alone uses the models: what Paddle keeps for each thread is
            made where it is used.
        batch_size: inputs of a batch at the most, but for a request that has more by itself.
        max_waiting: inputs that wait at the most.

    Attributes:
        models: empty before ``start``.
        num_answered, num_batches: inputs that were answered, and the batches in which they were.
        num_given_up: inputs that were not waited for, as the server ended; who waits for answers counts them.
    """

    def __init__(self, load: Callable[[], Mapping[str, Model]], batch_size: int, max_waiting: int) -> None:
        self._load, self._batch_size, self._max_waiting = load, batch_size, max_waiting
        self._waiting: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._is_stopping = False
        self._loaded: Future[Mapping[str, Model]] = Future()
        # A daemon: a process that is ended by force does not wait for it.
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self.models: Mapping[str, Model] = {}
        self.num_answered = self.num_batches = self.num_given_up = 0

    def start(self) -> None:
        """Load the models, and take requests from then on; raises what ``load`` raises."""
        self._thread.start()
        self.models = self._loaded.result()

    def submit(self, model: str, inputs: Sequence[Any]) -> Future[list[JsonObject]]:
        """Queue a request for a model by its name.

        Returns:
            The answers to come, one for each input, or what the model raised. Cancelling it drops the request, as long
            as it waits.

        Raises:
            QueueFull: there is no room for it among what waits.
            Stopping: after ``stop``, or where the thread is no more.
        """
        request = _Request(model, inputs)
        with self._changed:
            if self._is_stopping or not self.is_alive:
                raise Stopping
            if self._num_waiting() + len(inputs) > self._max_waiting:
                raise QueueFull
            self._waiting.append(request)
            self._changed.notify()
        return request.answers

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def num_waiting(self) -> int:
        """Inputs that wait, those that are at work not counted."""
        with self._changed:
            return self._num_waiting()

    def stop(self, seconds: float) -> bool:
        """Take no more requests, answer what waits, and end the thread.

        Args:
            seconds: to wait for that at the most; what still waits then is cancelled.

        Returns:
            Whether the thread has ended; otherwise it is at work.
        """
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        self._thread.join(seconds)
        with self._changed:
            for request in self._waiting:
                request.answers.cancel()
            self._waiting.clear()
        return not self.is_alive

    def _num_waiting(self) -> int:
        return sum(len(request.inputs) for request in self._waiting if not request.answers.cancelled())

    def _run(self) -> None:
        try:
            models = self._load()
        except BaseException as error:
            self._loaded.set_exception(error)
            return
        self._loaded.set_result(models)
        while batch := self._next_batch():
            self._answer(models[batch[0].model], batch)

    def _next_batch(self) -> list[_Request]:
        """Wait for requests and take those of the next batch; none once nothing waits and nothing will come."""
        with self._changed:
            while True:
                if batch := self._take():
                    return batch
                if self._is_stopping:
                    return []
                self._changed.wait()

    def _take(self) -> list[_Request]:
        """The oldest request and, in their order, those for the same model that fit beside it; none if none waits.

        What was cancelled is dropped. Requests for other models keep their places, so that none is passed over twice:
        the oldest of them is next.
        """
        taken: list[_Request] = []
        others: deque[_Request] = deque()
        room, is_full = self._batch_size, False
        while self._waiting:
            request = self._waiting.popleft()
            if is_full or (taken and request.model != taken[0].model):
                others.append(request)
            elif taken and len(request.inputs) > room:
                is_full = True
                others.append(request)
            elif request.answers.set_running_or_notify_cancel():
                taken.append(request)
                room -= len(request.inputs)
        self._waiting = others
        return taken

    def _answer(self, model: Model, requests: list[_Request]) -> None:
        try:
            outputs = model([one for request in requests for one in request.inputs])
        except Exception as error:
            if len(requests) > 1:  # one request's fault is not the others'
                for request in requests:
                    self._answer(model, [request])
            else:
                requests[0].answers.set_exception(error)
            return
        self.num_batches += 1
        begin = 0
        for request in requests:
            end = begin + len(request.inputs)
            self.num_answered += end - begin
            request.answers.set_result(outputs[begin:end])
            begin = end
