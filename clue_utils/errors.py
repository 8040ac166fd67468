"""What ends a run early: a user's mistake, or a signal; and what a user is told of it."""

from __future__ import annotations

import errno
import re
import reprlib
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clue_utils.language import later, say

_brief = reprlib.Repr()
_brief.maxlevel = 2
_brief.maxstring = _brief.maxlong = 60
# File-system errors that are the user's to mend, not the program's.
USER_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENOENT}
    | {errno.ENAMETOOLONG, errno.EEXIST, errno.ENOLCK}
)
# What a training that is told to stop may take, in seconds, before it is ended by force: the step it is at, and a
# checkpoint of a large model (3.9 GB) on a slow network disk.
SECONDS_TO_END = 300
# What Paddle raises where a card's memory is used up: its allocator, the CUDA runtime, the libraries that get memory of
# their own (which as often have none left to begin with), and the XPU's runtime.
_OUT_OF_MEMORY = re.compile(
    r"ResourceExhausted|out of memory|cudaErrorMemoryAllocation"
    r"|(CUBLAS|CUDNN|CUSOLVER|CUSPARSE)_STATUS_(ALLOC_FAILED|NOT_INITIALIZED)|CUBLAS error\([13]\)"
    r"|ncclUnhandledCudaError|NCCL error\(1\)"
    r"|XPUERR_NOMEM|device memory not enough|no enough (memory|workspace)",
    re.IGNORECASE,
)
# The heading above what matters in a text of Paddle with a C++ traceback, and the line with the error's type below it.
_SUMMARY = "Error Message Summary:"
_IS_TYPE = re.compile(r"\w+:")


class UserError(Exception):
    """A mistake the user can mend: one line naming the file, line, flag or task, and the remedy.

    Attributes:
        advice: flag (without dashes) -> the value to try, where a program can follow the remedy; else empty.
    """

    def __init__(self, message: str, advice: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.advice = dict(advice or {})


# What a run does that is started once more.
GOES_ON = later("the same command goes on from where it was")


class Stopped(BaseException):
    """A signal asked this process to end.

    Attributes:
        outlook: what the same command does when it is given again, in the reader's language or to be said in it.
    """

    def __init__(self, number: int, outlook: str = GOES_ON) -> None:
        super().__init__(number)
        self.number, self.outlook = number, outlook

    def __str__(self) -> str:
        return say("stopped by {signal}", signal=signal.Signals(self.number).name)


@dataclass(frozen=True)
class Ending:
    """How an exception ends a program.

    Attributes:
        reason: the line that a user is shown, without ``error: ``.
        is_stop: the program was told to stop; otherwise it failed.
        advice: as of :class:`UserError`.
    """

    reason: str
    exit_status: int
    is_stop: bool = False
    advice: Mapping[str, Any] = field(default_factory=dict)


def ending_of(error: BaseException) -> Ending | None:
    """How an exception ends a program with one line; None for a defect of ours, which keeps its traceback."""
    if isinstance(error, Stopped):
        line = say("{error}; {outlook}", error=error, outlook=say(error.outlook))
        return Ending(line, 128 + error.number, is_stop=True)
    if isinstance(error, KeyboardInterrupt):
        return Ending(say("interrupted"), 128 + signal.SIGINT, is_stop=True)
    if isinstance(error, BrokenPipeError):
        return Ending(say("the reader of its output has gone"), 128 + signal.SIGPIPE, is_stop=True)
    if isinstance(error, UserError):
        return Ending(one_line(str(error)), 2, advice=error.advice)
    if is_out_of_memory(error):
        return Ending(say("out of memory ({reason})", reason=one_line(first_line(error)) or say("no details")), 2)
    if isinstance(error, OSError) and error.errno in USER_ERRNOS:
        return Ending(one_line(f"{error.filename}: {error.strerror}" if error.filename else str(error)), 2)
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, be it the host's or a card's.

    Paddle has no type for that: MemoryError is its allocator's, libraries beside it (cuBLAS, cuDNN, NCCL) raise OSError
    or RuntimeError with a text.
    """
    is_from_system = isinstance(error, OSError) and error.errno == errno.ENOMEM
    is_said = not isinstance(error, UserError) and _OUT_OF_MEMORY.search(str(error))
    return isinstance(error, MemoryError) or is_from_system or bool(is_said)


def first_line(error: BaseException) -> str:
    """The line of an exception's text that says what happened, "" where it has none.

    That is the first, but for Paddle's texts with a C++ traceback, where it stands below a heading, after the type.
    """
    text = str(error).rpartition(_SUMMARY)[2]
    lines = [line.strip() for line in text.splitlines() if line.strip(" -")]
    return " ".join(lines[: 2 if lines and _IS_TYPE.fullmatch(lines[0]) else 1])


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
