"""A script that is started outside the project's environment says so in one line.

Imports the standard library alone, as all that runs before it has to; ``language`` and ``project`` do so too.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import signal
import sys
from pathlib import Path
from types import TracebackType

from clue_utils import project
from clue_utils.language import say

# The oldest Python that the project's own modules can be read by.
_OLDEST = (3, 10)


def explain() -> None:
    """Have a package that is missing end this program with one line, and Ctrl-C while modules are imported.

    So does a Python that is too old, at once.
    """
    if sys.version_info < _OLDEST:
        versions = {"version": sys.version.split()[0], "oldest": ".".join(map(str, _OLDEST))}
        words = {"python": sys.executable, "remedy": remedy()}
        _fail(say("{python} is Python {version}, and {oldest} is needed: {remedy}", **versions, **words))
    sys.excepthook = _hook


def missing(error: BaseException) -> str:
    """What to say of an error that a package is not installed, with the remedy; "" for any other error."""
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or not package or importlib.util.find_spec(package):
        return ""
    return say("{python} has no package {package}: {remedy}", python=sys.executable, package=package, remedy=remedy())


def remedy() -> str:
    """How to get into an environment that has what the project needs, or in a wheel's own, what to install there."""
    if project.IS_INSTALLED:
        return f"pip install --no-deps -r {shlex.quote(str(project.TOP / 'requirements.txt'))}"
    environment = project.TOP / ".venv"
    if Path(sys.prefix).resolve() == environment.resolve():
        return say("make the environment whole: bash scripts/setup_env.sh")
    activate = os.path.relpath(environment / "bin/activate")
    if (environment / "bin/python").exists():
        return say("enter the project's environment: source {activate}", activate=activate)
    return say(
        "make the project's environment, bash scripts/setup_env.sh, and enter it: source {activate}", activate=activate
    )


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if line := missing(error):
        _fail(line)
    if issubclass(kind, KeyboardInterrupt):
        print(say("interrupted"), file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    sys.__excepthook__(kind, error, trace)


def _fail(line: str) -> None:
    print(f"error: {line}", file=sys.stderr)
    sys.exit(2)
