"""The commands of ``clue``: listed, and run as their scripts are. Imports no PaddlePaddle itself."""

from __future__ import annotations

import ast
import difflib
import importlib
import shutil
import sys
from collections.abc import Callable

from clue_utils import cli, project
from clue_utils.columns import wrapped
from clue_utils.errors import UserError, show
from clue_utils.language import later, say

USAGE = "clue COMMAND [FLAG...]"
DESCRIPTION = later("Fine-tune, evaluate and predict on the ten CLUE tasks with Chinese models.")
MORE = later("""\
clue COMMAND --help tells more of each. On several GPUs:
  python -m paddle.distributed.launch --gpus 0,1 clue c3 ...

example:
  clue demo
  clue classify --task_name TNEWS --model_name_or_path demo/model \\
      --data_dir demo/data --output_dir tnews --do_train --do_eval --do_predict
""")


def docstring(command: project.Command) -> str:
    """What a program says of itself, as its --help has it; it is not imported."""
    path = command.folder.joinpath(*command.module_name.split(".")).with_suffix(".py")
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")), clean=False) or ""


def summary(command: project.Command) -> str:
    """The first line of what a program says of itself; of one whose --help is English for all, that alone is said."""
    return say(say(docstring(command)).partition("\n")[0])


def listing() -> str:
    """The commands, each with what it does, as wide as the terminal."""
    told = {name: summary(command) for name, command in project.COMMANDS.items()}
    told["where"] = say("Print the path of a file of the project: clue where requirements.txt")
    width = shutil.get_terminal_size().columns - 2  # as argparse wraps
    lines = []
    for name, text in told.items():
        first, *rest = wrapped(text, width - 13)
        lines += [f"  {name:<10} {first}", *(" " * 13 + line for line in rest)]
    return "\n".join(lines) + "\n"


def program(name: str) -> Callable[[], object]:
    """The ``main`` of a command.

    Raises:
        UserError: there is no such command.
    """
    command = project.COMMANDS.get(name)
    if command is None:
        close = difflib.get_close_matches(name, [*project.COMMANDS, "where"], n=1)
        meant = say(": did you mean {name}?", name=close[0]) if close else ""
        raise UserError(
            say("unknown command {name}{meant} (clue --help lists the commands)", name=show(name), meant=meant)
        )
    # As where a script is run: modules beside it are found first.
    sys.path.insert(0, str(command.folder))
    main: Callable[[], object] = importlib.import_module(command.module_name).main
    return main


def _dispatch() -> None:
    _, *words = sys.argv
    name, rest = (words[0], words[1:]) if words else ("--help", [])
    if name.startswith("-"):
        cli.Parser(usage=USAGE, description=f"{say(DESCRIPTION)}\n\n{listing()}\n{say(MORE)}").parse_args([name])
    else:
        sys.argv = [f"clue {name}", *rest]  # what --help calls the program
        program(name)()


def run() -> None:
    """Run the command that the command line names, and end the process as its script does."""
    cli.run(_dispatch)
