"""``clue``: every program of the project under one name, wherever it is installed."""

from __future__ import annotations

import os
import sys

from clue_utils import outside, project
from clue_utils.language import say


def where(words: list[str]) -> int:
    """Print the path of a file of the project, by default the folder of its programs; return an exit status."""
    path = project.TOP.joinpath(*words)
    if len(words) > 1 or not path.exists():
        line = say("clue where {words}: no such file in {folder}", words=" ".join(words), folder=project.TOP)
        print(f"error: {line}", file=sys.stderr)
        return 2
    print(path)
    return 0


def main() -> None:
    """Run the command that the command line names; where packages are missing, say how to install them."""
    # These two answer before anything is installed: "where" tells what to install.
    if sys.argv[1:2] == ["where"]:
        sys.exit(where(sys.argv[2:]))
    if sys.argv[1:] == ["--version"]:
        print(f"clue-benchmark {project.version()}")
        return
    # What a search starts is run by this Python too, whether or not its environment is active.
    os.environ.setdefault("PYTHON", sys.executable)
    try:
        from clue_utils import commands

        commands.run()
    except ModuleNotFoundError as error:
        if not (line := outside.missing(error)):
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
