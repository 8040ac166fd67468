#!/usr/bin/env python
"""List the trials of a grid search, one a line: task, learning rate, batch size, dropout, seed, cards.

Without flags these are the trials of the published grid. The batch size is the sum over the cards.
"""

from __future__ import annotations

import random

from clue_utils import cli, tasks
from clue_utils.cli import Parser, non_negative_int, positive_float, positive_int, proportion
from clue_utils.errors import UserError
from clue_utils.grid import search_space

EXAMPLE = """\
examples:
  python scripts/list_trials.py --tasks TNEWS CLUEWSC2020
  python scripts/list_trials.py --tasks C3 --learning_rates 1e-5 2e-5 --batch_sizes 24 --seeds 1 2 3
"""


def main(argv: list[str] | None = None) -> None:
    parser = Parser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--tasks", nargs="+", default=(), metavar="TASK", help="(default: all ten)")
    for name, number, metavar in (
        ("learning_rates", positive_float, "RATE"),
        ("batch_sizes", positive_int, "SIZE"),
        ("dropouts", proportion, "SHARE"),
        ("seeds", non_negative_int, "SEED"),
    ):
        parser.add_argument(
            f"--{name}", nargs="+", type=number, default=(), metavar=metavar, help="(default: those of the task)"
        )
    counts = sorted({task.num_cards for task in tasks.TASKS.values()})
    parser.add_argument("--cards", type=int, choices=counts, help="only the tasks that take so many cards")
    parser.add_argument(
        "--shuffle",
        action="store_true",
        help="list the trials of each task in a random order, always the same: pruning compares a trial with those "
        "before it, which in the grid's order have a learning rate of their own",
    )
    args = parser.parse_args(argv)
    trials = search_space.list_trials(args.tasks, args.learning_rates, args.batch_sizes, args.dropouts, args.seeds)
    chosen = [trial for trial in trials if args.cards in (None, trial.num_cards)]
    if not chosen:
        raise UserError(f"no trial: none of {' '.join(args.tasks)} takes {args.cards} cards")
    if args.shuffle:
        order = list(dict.fromkeys(trial.task for trial in chosen))
        random.Random(0).shuffle(chosen)
        chosen.sort(key=lambda trial: order.index(trial.task))
    lines = [" ".join((trial.task, *_settings(trial), str(trial.num_cards))) for trial in chosen]
    print("\n".join(lines))


def _settings(trial: search_space.Trial) -> list[str]:
    """Learning rate, batch size, dropout and seed as the trial's folder is named."""
    return trial.folder.partition("/")[2].split("_")


if __name__ == "__main__":
    cli.run(main)
