"""``--keep best``: the weights of trials that have lost are dropped while a search goes on; all else of them stays.

A setting is a trial without its seed. It has lost once it cannot come to be the best of its task any more, neither by
its best score nor by the mean over its seeds: when all its trials that were asked for have ended, and another setting
leads by either. So the weights that stay, besides those of settings that are not done yet, are those of every seed of
the setting that leads, and of the one that leads by the mean if that is another. Only weights that are there are
compared: the best of them never goes. Imports no PaddlePaddle.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clue_utils.errors import UserError
from clue_utils.files import locked, locked_folder
from clue_utils.grid.outcomes import Outcome, read_plan, read_trials, trial_of_folder, winner
from clue_utils.grid.trial import Plan, is_dry_run
from clue_utils.record import WEIGHTS_FILE, Record
from clue_utils.tasks import KNOWN, Task

KEEP = ("all", "best")
_LOCK_FILE = ".keep.lock"
# Learning rate, batch size over all GPUs, dropout.
Setting = tuple[Any, ...]


def add_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keep",
        choices=KEEP,
        default=KEEP[0],
        help="best: when a trial has ended, drop the weights of those of its task that can no longer win; records, "
        "logs and predictions stay (default: all)",
    )


def after(plan: Plan, choice: str) -> None:
    """Do what ``--keep`` asks for when a trial has ended."""
    if choice == "best" and not is_dry_run():
        drop_losers(plan.folder.parents[1], KNOWN[plan.trial.task])


def drop_losers(model_folder: Path, task: Task) -> list[str]:
    """Drop the weights of the trials of a task that have lost; return their folders ``<task>/<run>``.

    Processes on any host may call it at once, for whoever holds the lock in the model's folder reads all records anew.
    A trial at which a run is at work, and one that is not finished, keep what they have. A call that is killed dropped
    some and not others, which the next one drops.
    """
    with locked(model_folder / _LOCK_FILE):
        trials, _ = read_trials(model_folder / task.name, task)
        try:
            planned = read_plan(model_folder)
        except UserError:  # it is not known which trials are still to come
            return []
        return [outcome.folder for outcome in losers(trials, planned) if _drop(outcome)]


def losers(trials: Sequence[Outcome], planned: Sequence[str] = ()) -> list[Outcome]:
    """The trials of a task that have weights and have lost.

    Args:
        trials: all that were started.
        planned: folders ``<task>/<run>`` of all that were asked for, of whatever tasks.
    """
    ended = [one for one in trials if one.status in ("finished", "pruned")]
    with_weights = [one for one in ended if one.has_checkpoint]
    best = winner(with_weights)
    if best is None:
        return []
    open_ones = {_setting(one) for one in trials if one not in ended}
    names = {one.folder for one in ended}
    asked = [trial_of_folder(folder) for folder in planned if folder not in names]
    open_ones |= {trial[1:4] for trial in asked if trial and trial.task == best.task.name}
    scores: dict[Setting | None, list[float]] = {}
    for one in ended:
        if one.status == "finished":  # a pruned one has no score to compare
            scores.setdefault(_setting(one), []).append(one.score or 0.0)
    done = {_setting(one) for one in with_weights if one.status == "finished"} - open_ones
    means = {setting: statistics.fmean(of_it) for setting, of_it in scores.items() if setting in done}
    kept = open_ones | {_setting(best)} | ({max(means, key=lambda setting: means[setting])} if means else set())
    return [one for one in with_weights if _setting(one) not in kept]


def _setting(outcome: Outcome) -> Setting | None:
    return outcome.trial[1:4] if outcome.trial else None


def _drop(outcome: Outcome) -> bool:
    """Remove the weights of a trial, unless a run is at work there."""
    if outcome.path is None:
        return False
    try:
        with locked_folder(outcome.path):
            now = Record.read(outcome.path)
            if not (now and now.is_finished):
                return False
            (outcome.path / WEIGHTS_FILE).unlink(missing_ok=True)
    except (UserError, OSError):  # such as another run there
        return False
    return True
