#!/usr/bin/env python
"""Fine-tune, evaluate and predict with a pretrained model on CLUE's seven classification tasks."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from clue_utils import outside

    outside.explain()

from dataclasses import dataclass

from clue_utils import cli, preflight, ranks, tasks
from clue_utils.data.chosen import chosen
from clue_utils.errors import UserError
from clue_utils.language import say
from clue_utils.record import trained_with
from clue_utils.settings import Settings, flag
from clue_utils.strict_json import JsonObject

EXAMPLE = """\
example:
  python run_clue_classifier.py --task_name TNEWS --model_name_or_path ernie-3.0-base-zh \\
      --output_dir tnews_model --do_train --do_eval --do_predict
"""


@dataclass(frozen=True, kw_only=True)
class ClassifierSettings(Settings):
    """The settings of a run on a classification task."""

    task_name: str | None = flag(
        "task",
        str,
        f"one of {', '.join(tasks.CLASSIFICATION_TASKS)}, in any letter case; else give --task_file",
        metavar="TASK",
    )


def main(argv: list[str] | None = None) -> JsonObject | None:
    """Run the script with these words, by default those of the command line; return what ``session.execute`` does."""
    flags = ClassifierSettings.parser(__doc__, EXAMPLE).parse_args(argv)
    if bool(flags.task_name) == bool(flags.task_file):
        raise UserError(
            say("pass --task_name with one of CLUE's tasks, or --task_file with one of your own, and not both")
        )
    if flags.task_name and (task := tasks.get_task(flags.task_name, "classification", True)).kind != "classification":
        raise UserError(say("--task_name {name} is a reading task: run {script}", name=task.name, script=task.script))
    task = chosen(vars(flags), "classification", flags.task_name)
    args = ClassifierSettings.resolve(
        vars(flags), task, ranks.world_size(), trained_with(flags.model_name_or_path, task)
    )
    preflight.start(args, task)
    from clue_utils.training.session import execute  # after the settings that Paddle reads when it is imported

    return execute(args, task)


if __name__ == "__main__":
    cli.run(main)
