"""What the grid searches of models came to: their trials side by side, winners, averages, doubts.

Importing this module needs no PaddlePaddle.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clue_utils import published, tasks
from clue_utils.errors import UserError
from clue_utils.grid import search_space
from clue_utils.grid.outcomes import Outcome, clean, in_order, read_plan, read_trials, trial_of_folder, winner
from clue_utils.settings import SET_BY_TRIAL, free_to_change


@dataclass(frozen=True)
class ModelReport:
    """The trials of one model, those included that were asked for and are missing: in the grid's order, then by name.

    Attributes:
        damages: a line for each ``result.json`` that cannot be read, whose trial counts as failed, and for such a plan.
        doubts: lines about scores that were not made alike.
    """

    name: str
    folder: Path
    outcomes: tuple[Outcome, ...]
    published: published.PublishedModel | None
    damages: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    def of_task(self, task_name: str) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.task.name == task_name]

    def with_status(self, status: str) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.status == status]

    @functools.cached_property
    def winners(self) -> dict[str, Outcome | None]:
        """Task -> its winner, see :func:`outcomes.winner`."""
        return {name: winner(self.of_task(name)) for name in tasks.TASKS}

    @property
    def tasks_with_trials(self) -> list[str]:
        """Tasks of which a trial was started."""
        return [name for name in tasks.TASKS if any(one.status != "missing" for one in self.of_task(name))]

    def scores_over_seeds(self, winner: Outcome) -> list[float]:
        """Scores of the finished trials that differ from the winner in nothing but the seed, its own included."""
        return [
            outcome.score
            for outcome in self.of_task(winner.task.name)
            if outcome.status == "finished" and outcome.score is not None and _setting(outcome) == _setting(winner)
        ]

    def average(self, by_published_rule: bool = False) -> tuple[float, int] | None:
        """Mean of the winners' scores, a fraction, and over how many tasks; None without any."""
        winners = filter(None, self.winners.values())
        scores = [winner.score_by_published_rule if by_published_rule else winner.score for winner in winners]
        found = [score for score in scores if score is not None]
        return (statistics.fmean(found), len(found)) if found else None

    def searches_dropout(self, task_name: str) -> bool:
        """Whether dropout is part of the task's grid, or was varied in this model's trials."""
        found = {outcome.trial.dropout for outcome in self.of_task(task_name) if outcome.trial is not None}
        return len(found) > 1 or len(tasks.TASKS[task_name].dropouts) > 1

    def is_comparable(self, outcome: Outcome) -> bool:
        """Whether the outcome was measured on as many development examples as the release has."""
        return outcome.record.num_dev == outcome.task.splits["dev"].num_examples


def setting_text(trial: search_space.Trial | published.Best, with_dropout: bool) -> str:
    """``3e-5,32`` as in the published table, or with dropout ``3e-5,32,0.1``."""
    if isinstance(trial, published.Best):
        trial = search_space.Trial("", *trial, seed=0, num_gpus=1)
    return ",".join(trial.folder.rpartition("/")[2].split("_")[: 3 if with_dropout else 2])


def find_model(model: str, results_dir: Path) -> Path:
    """The folder of a model's trials: ``model`` itself, or the folder of that name within ``results_dir``.

    Raises:
        UserError: neither holds a task's folder.
    """
    places = [Path(model), search_space.model_folder(results_dir, model)]
    for place in places:
        if any((place / name).is_dir() for name in tasks.TASKS):
            return place
    looked = " and ".join(clean(place) for place in dict.fromkeys(places))
    raise UserError(
        f"no trials of {clean(model)!r} (looked for <task>/<run> in {looked}): give a folder of trials, "
        "or the name of a model and --results"
    )


def read_models(models: Sequence[str], results_dir: Path) -> list[ModelReport]:
    """Read the trials of models, each given as for :func:`find_model`; a folder named twice is read once.

    Raises:
        UserError: no model, an unknown one, or one without a single trial.
    """
    if not models:
        raise UserError("no MODEL: name a folder of trials, or a model whose folder is in --results")
    folders = list({find_model(model, results_dir).resolve(): None for model in models})
    names = [folder.name for folder in folders]
    return [
        read_model(folder, clean(folder if names.count(name) > 1 else name))
        for folder, name in zip(folders, names, strict=True)
    ]


def read_model(folder: Path, name: str) -> ModelReport:
    """Read every trial in a model's folder.

    Raises:
        UserError: there is no trial.
    """
    outcomes: list[Outcome] = []
    damages: list[str] = []
    try:
        planned = read_plan(folder)
    except UserError as error:
        planned = ()
        damages.append(clean(error))
    for task in tasks.TASKS.values():
        found, damaged = read_trials(folder / task.name, task)
        damages += damaged
        there = {outcome.trial[:5] for outcome in found if outcome.trial is not None}
        asked = [trial for trial in map(trial_of_folder, planned) if trial and trial.task == task.name]
        missing = [trial for trial in asked if trial[:5] not in there]
        found += [Outcome(task, trial.folder, "missing", trial=trial) for trial in missing]
        outcomes += in_order(found, task)
    found = [outcome for outcome in outcomes if outcome.status != "missing"]
    if not found:
        raise UserError(f"{clean(folder)} holds no trial: run the grid search first, or give another folder")
    recorded = next((o.record.model for o in found if o.record.model), folder.name)
    doubts = [clean(line) for line in _doubts(outcomes)]
    return ModelReport(
        name, folder, tuple(outcomes), published.published_model(recorded), tuple(damages), tuple(doubts)
    )


def _setting(outcome: Outcome) -> tuple[Any, ...] | None:
    return outcome.trial[:4] if outcome.trial is not None else None


def _doubts(outcomes: Sequence[Outcome]) -> list[str]:
    """Lines about scores that stand side by side and were not made alike."""
    lines = []
    scored = [outcome for outcome in outcomes if outcome.score is not None]
    models = sorted({str(outcome.record.model) for outcome in scored})
    if len(models) > 1:
        lines.append(f"the folder mixes trials of {len(models)} models: {', '.join(models)}")
    for name in tasks.TASKS:
        values: dict[str, set[Any]] = {}
        for outcome in scored:
            if outcome.task.name == name:
                record = outcome.record
                alike = {"development data": record.data_sha256.get("dev")}
                alike |= {"max_steps": record.fields.get("max_steps"), **record.hyper_parameters}
                for what, value in alike.items():
                    values.setdefault(what, set()).add(str(value))
        lines += [
            f"{name}: its trials differ in {what} ({', '.join(sorted(value[:12] for value in found))}); "
            "their scores do not compare"
            for what, found in values.items()
            if len(found) > 1 and what not in {*SET_BY_TRIAL, *free_to_change()}
        ]
    return lines
