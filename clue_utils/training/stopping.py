"""SIGTERM and Ctrl-C while training: a checkpoint first, then the end."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

from clue_utils import cli, ranks
from clue_utils.errors import SECONDS_TO_END, Stopped
from clue_utils.language import say


class StopRequest:
    """Keeps SIGTERM and Ctrl-C back while training, until it can end with a checkpoint.

    Rank 0 decides. The other ranks go on until they lose it, since a step needs them all, but not longer than a
    checkpoint takes: without it they may wait for it for ever. A second Ctrl-C ends the process as it is.

    Args:
        save: writes the checkpoint.

    Attributes:
        asked: the signal's number, 0 before one came.
    """

    def __init__(self, save: Callable[[], None] = lambda: None) -> None:
        self._save, self.asked, self._at_once = save, 0, False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGTERM, signal.SIGINT):
            # What a parent has made us ignore, such as Ctrl-C in the background of a shell, stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, _: Any) -> None:
        if self.asked == number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.asked and ranks.is_first():
            again = say("; Ctrl-C again ends it as it is") if number == signal.SIGINT else ""
            cli.say_at_once(say("stopping after this step and a checkpoint") + again)
        self.asked = number
        if not ranks.is_first():
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process even where Python code cannot run
            signal.alarm(SECONDS_TO_END)
        elif self._at_once:
            raise Stopped(number)

    def check(self) -> None:
        """Write a checkpoint and raise Stopped if a signal came."""
        if self.asked and ranks.is_first():
            self._save()
            raise Stopped(self.asked)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """A block that may be broken off to write a checkpoint."""
        self.check()
        self._at_once = True
        try:
            yield
        except Stopped:
            self._at_once = False
            self._save()
            raise
        finally:
            self._at_once = False

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        lost_rank_0 = not ranks.is_first() and isinstance(error, Exception)
        if self.asked and (error is None or lost_rank_0):
            raise Stopped(self.asked) from None
