"""What ends a run early: a user's mistake, or a signal. ``runtime.run`` makes one line of either."""

import signal


class UserError(Exception):
    """A mistake the user can mend: one line naming the file, line, flag or task, and the remedy."""


class Stopped(BaseException):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}"
