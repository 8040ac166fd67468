#!/usr/bin/env python
"""Fine-tune, evaluate and predict with a pretrained model on CLUE's seven classification tasks."""

from __future__ import annotations

from clue_utils import cli, environment, ranks, settings, tasks
from clue_utils.errors import UserError
from clue_utils.training.classification import Classification

EXAMPLE = """\
example:
  python run_clue_classifier.py --task_name TNEWS --model_name_or_path ernie-3.0-base-zh \\
      --output_dir tnews_model --do_train --do_eval --do_predict
"""


def build_parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__, epilog=EXAMPLE)
    group = parser.add_argument_group("task")
    group.add_argument(
        "--task_name",
        required=True,
        metavar="TASK",
        help=f"one of {', '.join(tasks.CLASSIFICATION_TASKS)}, in any letter case",
    )
    settings.add_shared(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    cli.configure_logging(args.log_level)
    task = tasks.get_task(args.task_name)
    if task.kind != "classification":
        raise UserError(f"--task_name {task.name} is a reading task: run {task.script}")
    settings.resolve(args, task, ranks.world_size())
    environment.start()
    from clue_utils.training.session import execute  # after the settings that Paddle reads when it is imported

    execute(args, task, lambda tokenizer: Classification(task, tokenizer, args.max_seq_length))


if __name__ == "__main__":
    cli.run(main)
