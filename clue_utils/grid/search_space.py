"""The grid search: which trials a model has, and where each of them lives.

Everything comes from the registry; importing this module needs no PaddlePaddle.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from clue_utils import cli, published, settings, task_file, tasks
from clue_utils.errors import UserError
from clue_utils.language import say

# The folder of all models, unless told otherwise.
RESULTS_DIR = "results"
# What a trial prints, in its folder.
LOG_FILE = "trial.log"


class Trial(NamedTuple):
    """One run of the grid search; ``batch_size`` is the sum over ``num_gpus`` GPUs."""

    task: str
    learning_rate: float
    batch_size: int
    dropout: float
    seed: int
    num_gpus: int

    @property
    def folder(self) -> str:
        """``<task>/<lr>_<bs>_<dropout>_<seed>`` within the model's folder, such as ``TNEWS/3e-5_32_0.1_42``."""
        rate = cli.short_exponent(f"{self.learning_rate:g}")
        return f"{self.task}/{rate}_{self.batch_size}_{self.dropout:g}_{self.seed}"

    @property
    def words(self) -> tuple[str, ...]:
        """Task, learning rate, batch size, dropout and seed as the folder is named, and GPUs: what names a trial."""
        name, _, values = self.folder.partition("/")
        return (name, *values.split("_"), str(self.num_gpus))


def list_trials(
    task_names: Sequence[str] = (),
    learning_rates: Sequence[float] = (),
    batch_sizes: Sequence[int] = (),
    dropouts: Sequence[float] = (),
    seeds: Sequence[int] = (),
) -> list[Trial]:
    """List the trials of a model; an argument left empty takes the registry's values for each task.

    With the registry's values alone these are the 134 trials of the published grid.

    Raises:
        UserError: an unknown task.
    """
    trials = []
    for task in [tasks.get_task(name, takes_file=True) for name in task_names] or tasks.TASKS.values():
        values = itertools.product(
            learning_rates or task.learning_rates,
            batch_sizes or task.batch_sizes,
            dropouts or task.dropouts,
            seeds or (tasks.SEED,),
        )
        trials += [Trial(task.name, *value, task.num_gpus) for value in values]
    return list(dict.fromkeys(trials))


def published_trials(model_name_or_path: str, task_names: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[Trial]:
    """List the trials that a published row was made with: one setting a task, each with every seed.

    Args:
        model_name_or_path: the model of the row; a copy in a folder is known by the last part of its path.
        task_names: all ten if empty.
        seeds: that of the published runs if empty.

    Raises:
        UserError: the model has no published row; an unknown task.
    """
    row = published.published_model(model_name_or_path)
    if row is None:
        names = ", ".join(row.name for row in published.PUBLISHED_MODELS)
        raise UserError(
            say(
                "--published: no scores of {model_name_or_path} are published, only of {names}, or of a folder "
                "that is called so",
                model_name_or_path=model_name_or_path,
                names=names,
            )
        )
    trials = []
    for task in [tasks.get_task(name, takes_file=True) for name in task_names] or tasks.TASKS.values():
        if (best := row.best_runs.get(task.name)) is not None:
            trials += [Trial(task.name, *best, seed, task.num_gpus) for seed in seeds or (tasks.SEED,)]
    return list(dict.fromkeys(trials))


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that narrow the grid or widen it."""
    group = parser.add_argument_group("which trials (default: the published grid)")
    group.add_argument(
        "--published",
        action="store_true",
        help="only the setting that each of the model's ten scores was published with, to see if they are matched",
    )
    group.add_argument("--tasks", nargs="+", default=(), metavar="TASK", help="(default: all ten)")
    group.add_argument(
        "--task_file", metavar="FILE", help="a task of your own, described in JSON (default of --tasks: this one)"
    )
    for name, number, metavar in (
        ("learning_rates", cli.positive_float, "RATE"),
        ("batch_sizes", cli.positive_int, "SIZE"),
        ("dropouts", cli.proportion, "SHARE"),
        ("seeds", cli.non_negative_int, "SEED"),
    ):
        group.add_argument(
            f"--{name}", nargs="+", type=number, default=(), metavar=metavar, help="(default: those of the task)"
        )
    counts = sorted({task.num_gpus for task in tasks.TASKS.values()})
    group.add_argument("--cards", type=int, choices=counts, help="only the tasks that take so many GPUs")
    group.add_argument(
        "--shuffle",
        action="store_true",
        help="list the trials of each task in a random order, always the same: pruning compares a trial with those "
        "before it, which in the grid's order have a learning rate of their own",
    )


def chosen_trials(args: argparse.Namespace, flags: Sequence[str] = (), model: str | None = None) -> list[Trial]:
    """The trials that the flags of ``add_flags`` ask for, in their order.

    Args:
        flags: of every trial, as words.
        model: name or folder, which ``--published`` needs.

    Raises:
        UserError: an unknown task, no trial, adapters with the learning rates of whole models, or ``--published`` for
            a model without a published row or with flags that it leaves no room for.
    """
    names = args.tasks
    if args.task_file:
        own = task_file.register(args.task_file)
        names = names or (own.name,)
    if args.published:
        _require_published_alone(args, flags, model)
    elif settings.flags_of_trials(flags).get("lora_rank") and not args.learning_rates:
        raise UserError(
            say(
                "--lora_rank: the learning rates of the grid are far below those of adapters; pass "
                "--learning_rates, such as {rate:.0e} {higher:.0e}",
                rate=published.LORA_LEARNING_RATE,
                higher=3 * published.LORA_LEARNING_RATE,
            )
        )
    if args.published:
        trials = published_trials(str(model), names, args.seeds)
    else:
        trials = list_trials(names, args.learning_rates, args.batch_sizes, args.dropouts, args.seeds)
    chosen = [trial for trial in trials if args.cards in (None, trial.num_gpus)]
    if not chosen:
        raise UserError(say("no trial: none of {names} takes {cards} GPUs", names=" ".join(names), cards=args.cards))
    if args.shuffle:
        order = list(dict.fromkeys(trial.task for trial in chosen))
        random.Random(0).shuffle(chosen)
        chosen.sort(key=lambda trial: order.index(trial.task))
    return chosen


def _require_published_alone(args: argparse.Namespace, flags: Sequence[str], model: str | None) -> None:
    if not model:
        raise UserError(say("--published: name the model, whose published settings are meant"))
    for name in ("learning_rates", "batch_sizes", "dropouts"):
        if getattr(args, name):
            raise UserError(
                say("--published or --{name}, not both: each task has the setting that was published", name=name)
            )
    if settings.flags_of_trials(flags).get("lora_rank"):
        raise UserError(say("--published: the scores are of whole models, not of adapters; drop it or --lora_rank"))


def model_folder(root: Path, model_name_or_path: str) -> Path:
    """The folder of a model's trials: the last part of its name or path, ``rbt6`` for ``hfl/rbt6``, within ``root``.

    Raises:
        UserError: it has no such part.
    """
    name = os.path.basename(os.path.abspath(model_name_or_path))
    if not name:
        raise UserError(
            say(
                "{model_name_or_path!r} has no name for a folder of trials: give another model or folder",
                model_name_or_path=model_name_or_path,
            )
        )
    return root / name
