"""The one exception that a user is meant to see."""


class UserError(Exception):
    """A mistake the user can mend: one line naming the file, line, flag or task, and the remedy.

    ``runtime.run`` prints it without a traceback and ends with exit status 2.
    """
