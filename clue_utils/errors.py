"""What ends a run early: a user's mistake, or a signal. ``cli.run`` makes one line of either."""

import reprlib
import signal
from typing import Any

_brief = reprlib.Repr()
_brief.maxlevel = 2
_brief.maxstring = _brief.maxlong = 60


class UserError(Exception):
    """A mistake the user can mend: one line naming the file, line, flag or task, and the remedy."""


class Stopped(BaseException):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}"


def show(value: Any) -> str:
    """A value of a file or flag for a message, as Python writes it: one line of at most 80 characters."""
    return shorten(_brief.repr(value), 80)


def shorten(text: Any, limit: int = 80) -> str:
    """A text for a message: at most ``limit`` characters, the middle left out; what is not printable is escaped."""
    text = str(text)
    if len(text) <= limit:
        text = one_line(text)
    if len(text) > limit:
        tail = (limit - 3) // 3
        text = f"{one_line(text[:limit])[: limit - 3 - tail]}...{one_line(text[-limit:])[-tail:]}"
    return text


def one_line(text: str) -> str:
    """A text with its line breaks and other characters that are not printable as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def out_of_memory_line(error: BaseException) -> str:
    """What to tell a user whose memory ran out where no better advice is known."""
    return f"out of memory ({str(error).strip().splitlines()[0] if str(error).strip() else 'no details'})"
