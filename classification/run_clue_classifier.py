#!/usr/bin/env python
"""Fine-tune, evaluate and predict with a pretrained model on CLUE's seven classification tasks."""

from __future__ import annotations

from dataclasses import dataclass

from clue_utils import cli, environment, ranks, tasks
from clue_utils.errors import UserError
from clue_utils.record import trained_with
from clue_utils.settings import Settings, flag
from clue_utils.training.classification import Classification

EXAMPLE = """\
example:
  python run_clue_classifier.py --task_name TNEWS --model_name_or_path ernie-3.0-base-zh \\
      --output_dir tnews_model --do_train --do_eval --do_predict
"""


@dataclass(frozen=True, kw_only=True)
class ClassifierSettings(Settings):
    """The settings of a run on a classification task."""

    task_name: str = flag(
        "task",
        str,
        f"one of {', '.join(tasks.CLASSIFICATION_TASKS)}, in any letter case",
        metavar="TASK",
        is_required=True,
    )


def main(argv: list[str] | None = None) -> None:
    flags = ClassifierSettings.parser(__doc__, EXAMPLE).parse_args(argv)
    task = tasks.get_task(flags.task_name)
    if task.kind != "classification":
        raise UserError(f"--task_name {task.name} is a reading task: run {task.script}")
    args = ClassifierSettings.resolve(
        vars(flags), task, ranks.world_size(), trained_with(flags.model_name_or_path, task)
    )
    environment.start(args, task)
    from clue_utils.training.session import execute  # after the settings that Paddle reads when it is imported

    execute(args, task, lambda tokenizer: Classification(task, tokenizer, args.max_seq_length))


if __name__ == "__main__":
    cli.run(main)
