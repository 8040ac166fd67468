"""What the runs of models came to, grid searches or single ones: side by side, with winners, averages, doubts.

Importing this module needs no PaddlePaddle.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clue_utils import published, tasks
from clue_utils.errors import UserError
from clue_utils.grid import search_space
from clue_utils.grid.outcomes import (
    Outcome,
    clean,
    in_order,
    know_own_tasks,
    read_plan,
    read_run,
    read_trials,
    trial_of_folder,
    winner,
)
from clue_utils.language import say
from clue_utils.record import RESULT_FILE, Record
from clue_utils.report.uncertainty import interval
from clue_utils.settings import SET_BY_TRIAL, free_to_change

# How a task's winner is chosen: the single best trial, as published scores are, or the best mean over seeds.
CHOICES = ("best", "mean")


@dataclass(frozen=True)
class ModelReport:
    """The trials of one model, those included that were asked for and are missing: in the grid's order, then by name.

    Attributes:
        folder: of its trials; of single runs the one around the first of them.
        damages: a line for each ``result.json`` that cannot be read, whose trial counts as failed, and for such a plan.
        doubts: lines about scores that were not made alike.
        choice: one of ``CHOICES``.
        is_search: whether the folder holds trials as a grid search lays them out, not single runs.
    """

    name: str
    folder: Path
    outcomes: tuple[Outcome, ...]
    published: published.PublishedModel | None
    damages: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    choice: str = "best"
    is_search: bool = True

    @property
    def report_folder(self) -> Path:
        """Where a report on it goes by default."""
        return (self.folder.parent if self.is_search else self.folder) / "report"

    def of_task(self, task_name: str) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.task.name == task_name]

    def with_status(self, status: str) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.status == status]

    @functools.cached_property
    def winners(self) -> dict[str, Outcome | None]:
        """Task -> its winner, see :func:`outcomes.winner`; by the mean it is the best seed of the best setting.

        Of the settings those compete by their means that ran to the end with the most seeds: a single lucky seed is not
        to win against the mean of five.
        """
        return {name: self._winner(self.of_task(name)) for name in tasks.KNOWN}

    def _winner(self, outcomes: list[Outcome]) -> Outcome | None:
        if self.choice == "mean":
            groups = list(by_setting(one for one in outcomes if one.status == "finished").values())
            most = max(map(len, groups), default=0)
            groups = [group for group in groups if len(group) == most]
            outcomes = max(groups, key=lambda group: statistics.fmean(one.score or 0.0 for one in group), default=[])
        return winner(outcomes)

    @property
    def tasks_with_trials(self) -> list[str]:
        """Tasks of which a trial was started."""
        return [name for name in tasks.KNOWN if any(one.status != "missing" for one in self.of_task(name))]

    def same_setting(self, winner: Outcome) -> list[Outcome]:
        """The finished trials that differ from the winner in nothing but the seed, itself included."""
        groups = by_setting(one for one in self.of_task(winner.task.name) if one.status == "finished")
        return groups.get(setting_of(winner), [winner])

    def value(self, winner: Outcome | None, metric: str | None = None) -> float | None:
        """A winner's score, or another metric of it, a fraction: its own, or the mean over seeds if that chose it."""
        if winner is None:
            return None
        chosen = self.same_setting(winner) if self.choice == "mean" else [winner]
        values = [one.record.metrics.get(metric) if metric else one.score for one in chosen]
        known = [value for value in values if value is not None]
        return statistics.fmean(known) if len(known) == len(values) else None

    def value_by_published_rule(self, winner: Outcome | None) -> float | None:
        """As :meth:`value`, by the rule that the task's scores were published with; None without such a metric."""
        rule = winner.task.published_metrics if winner else ()
        return self.value(winner, rule[0] if rule else None)

    def interval(self, winner: Outcome, metric: str | None = None) -> tuple[float, float] | None:
        """The 95 % interval of :meth:`value` that the size of the development set implies; None if that is unknown."""
        value, num = self.value(winner, metric), winner.record.num_dev
        return interval(value, num) if value is not None and num else None

    @property
    def averaged(self) -> list[str]:
        """The tasks that its mean is over: CLUE's ten, or those of a user where there are no others."""
        own = [name for name in tasks.OWN if self.of_task(name)]
        return [*tasks.TASKS] if not own or any(not one.task.is_own for one in self.outcomes) else own

    def average(self, by_published_rule: bool = False, over: Iterable[str] | None = None) -> tuple[float, int] | None:
        """Mean of the winners' scores, a fraction, and over how many of the tasks; None without any."""
        over = self.averaged if over is None else over
        value = self.value_by_published_rule if by_published_rule else self.value
        found = [score for name in over if (score := value(self.winners[name])) is not None]
        return (statistics.fmean(found), len(found)) if found else None

    def winners_gpu_hours(self, over: Iterable[str] = tasks.TASKS) -> float:
        """What it takes to train the winners alone, in GPU-hours."""
        return math.fsum(winner.gpu_hours for name in over if (winner := self.winners[name]))

    def searches_dropout(self, task_name: str) -> bool:
        """Whether dropout is part of the task's grid, or was varied in this model's trials."""
        found = {outcome.trial.dropout for outcome in self.of_task(task_name) if outcome.trial is not None}
        return len(found) > 1 or len(tasks.KNOWN[task_name].dropouts) > 1

    def is_comparable(self, outcome: Outcome) -> bool:
        """Whether the outcome is of the whole training set and of as many development examples as the release has."""
        if outcome.task.is_own or outcome.record.fields.get("max_train_samples"):
            return False
        return outcome.record.num_dev == outcome.task.splits["dev"].num_examples


def setting_text(trial: search_space.Trial | published.Best, with_dropout: bool) -> str:
    """``3e-5,32`` as in the published table, or with dropout ``3e-5,32,0.1``."""
    if isinstance(trial, published.Best):
        trial = search_space.Trial("", *trial, seed=0, num_gpus=1)
    return ",".join(trial.folder.rpartition("/")[2].split("_")[: 3 if with_dropout else 2])


def _holds_trials(folder: Path) -> bool:
    """Whether a folder holds tasks' folders of trials; one called as a task is may be a single run."""

    def holds(names: Iterable[str]) -> bool:
        return any((folder / name).is_dir() and not (folder / name / RESULT_FILE).is_file() for name in names)

    return holds(tasks.TASKS) or holds(know_own_tasks(folder))


def _runs_in(folder: Path) -> list[Path]:
    """The single runs that a folder is or holds."""
    if (folder / RESULT_FILE).is_file():
        return [folder]
    return sorted(path.parent for path in folder.glob(f"*/{RESULT_FILE}")) if folder.is_dir() else []


def places(model: str, results_dir: Path) -> list[Path]:
    """Where a model's trials may be: in ``model`` itself, or in the folder of that name within ``results_dir``."""
    return [Path(model), search_space.model_folder(results_dir, model)]


def find_model(model: str, results_dir: Path) -> Path:
    """The folder of trials or of single runs: ``model`` itself, or the folder of that name within ``results_dir``.

    Raises:
        UserError: neither holds any.
    """
    for place in places(model, results_dir):
        if _holds_trials(place) or _runs_in(place):
            return place
    looked = say(" and ").join(clean(place) for place in dict.fromkeys(places(model, results_dir)))
    raise UserError(
        say(
            "no trials of {model!r} (looked for <task>/<run> and for {result_file} in {looked}): give a folder of "
            "trials, the folder of a run, or the name of a model and --results",
            model=clean(model),
            result_file=RESULT_FILE,
            looked=looked,
        )
    )


def read_models(models: Sequence[str], results_dir: Path, choice: str = "best") -> list[ModelReport]:
    """Read the runs of models, each folder given as for :func:`find_model`; one that is named twice is read once.

    Trials of a folder make one model, named as the folder; single runs make one for each model that they trained. What
    has no result among several folders is passed over, so that ``models/*/`` may hold other things.

    Raises:
        UserError: no model, an unknown one, or one without a single trial.
    """
    if not models:
        raise UserError(say("no MODEL: name a folder of trials or runs, or a model whose folder is in --results"))
    searches: dict[Path, None] = {}
    runs: dict[Path, None] = {}
    refused: list[UserError] = []
    for model in models:
        try:
            folder = find_model(model, results_dir).resolve()
        except UserError as error:
            if not Path(model).is_dir() or any((Path(model) / name).is_dir() for name in tasks.TASKS):
                raise
            refused.append(error)
            continue
        if _holds_trials(folder):
            searches[folder] = None
        else:
            runs |= dict.fromkeys(_runs_in(folder))
    names = [folder.name for folder in searches]
    found = [
        read_model(folder, clean(folder if names.count(name) > 1 else name), choice)
        for folder, name in zip(searches, names, strict=True)
    ]
    found += _read_runs(list(runs), {model.name for model in found}, choice)
    if not found:
        raise (
            refused[0]
            if refused
            else UserError(say("{models}: no run there has trained a model", models=clean(models[0])))
        )
    return found


def _read_runs(folders: Sequence[Path], taken: set[str], choice: str) -> list[ModelReport]:
    """Single runs as one report for each model that they trained, in the order of their first runs."""
    outcomes: dict[str, list[Outcome]] = {}
    damages: dict[str, list[str]] = {}
    for folder in folders:
        try:
            record = Record.read(folder)
            if record is None or not record.holds_training and record.is_finished:
                continue  # of an evaluation or prediction alone: it says nothing of how the model was trained
            outcome = read_run(record)
            outcomes.setdefault(record.model or folder.parent.name, []).append(outcome)
        except UserError as error:
            damages.setdefault(folder.parent.name, []).append(clean(error))
    if damages and not outcomes:
        raise UserError(next(iter(damages.values()))[0])
    lines = [line for found in damages.values() for line in found]
    names = [Path(model).name for model in outcomes]
    reports = []
    for model, name in zip(outcomes, names, strict=True):
        found = [one for task in tasks.KNOWN.values() for one in in_order(_of(outcomes[model], task), task)]
        first = next(one.path for one in found if one.path)
        shown = clean(model if names.count(name) > 1 or name in taken else name)
        row = published.published_model(model)
        doubts = tuple(map(clean, _doubts(found)))
        reports.append(ModelReport(shown, first.parent, tuple(found), row, tuple(lines), doubts, choice, False))
        lines = []
    return reports


def _of(outcomes: Iterable[Outcome], task: tasks.Task) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.task is task]


def read_model(folder: Path, name: str, choice: str = "best") -> ModelReport:
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
    for task in (*tasks.TASKS.values(), *(tasks.OWN[name] for name in know_own_tasks(folder))):
        found, damaged = read_trials(folder / task.name, task)
        damages += damaged
        there = {outcome.trial[:5] for outcome in found if outcome.trial is not None}
        asked = [trial for trial in map(trial_of_folder, planned) if trial and trial.task == task.name]
        missing = [trial for trial in asked if trial[:5] not in there]
        found += [Outcome(task, trial.folder, "missing", trial=trial) for trial in missing]
        outcomes += in_order(found, task)
    found = [outcome for outcome in outcomes if outcome.status != "missing"]
    if not found:
        raise UserError(
            say("{folder} holds no trial: run the grid search first, or give another folder", folder=clean(folder))
        )
    recorded = next((o.record.model for o in found if o.record.model), folder.name)
    doubts = tuple(map(clean, _doubts(outcomes)))
    row = published.published_model(recorded)
    return ModelReport(name, folder, tuple(outcomes), row, tuple(damages), doubts, choice)


def setting_of(outcome: Outcome) -> tuple[Any, ...] | None:
    """What seeds of one setting share: task, learning rate, batch size and dropout; None where that is unknown."""
    return outcome.trial[:4] if outcome.trial is not None else None


def by_setting(outcomes: Iterable[Outcome]) -> dict[tuple[Any, ...] | None, list[Outcome]]:
    """Setting -> its outcomes, in their order; those without one are left out."""
    groups: dict[tuple[Any, ...] | None, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.trial is not None:
            groups.setdefault(setting_of(outcome), []).append(outcome)
    return groups


def _doubts(outcomes: Sequence[Outcome]) -> list[str]:
    """Lines about scores that stand side by side and were not made alike."""
    lines = []
    scored = [outcome for outcome in outcomes if outcome.score is not None]
    models = sorted({str(outcome.record.model) for outcome in scored})
    if len(models) > 1:
        text = say("the folder mixes trials of {count} models: {models}", count=len(models), models=", ".join(models))
        lines.append(text)
    for name in tasks.KNOWN:
        values: dict[str, set[Any]] = {}
        for outcome in scored:
            if outcome.task.name == name:
                record = outcome.record
                alike = {say("development data"): record.data_sha256.get("dev")}
                alike |= {name: record.fields.get(name) for name in ("max_steps", "max_train_samples")}
                alike |= record.hyper_parameters
                for what, value in alike.items():
                    values.setdefault(what, set()).add(str(value))
        lines += [
            say(
                "{task}: its trials differ in {what} ({values}); their scores do not compare",
                task=name,
                what=what,
                values=", ".join(sorted(value[:12] for value in found)),
            )
            for what, found in values.items()
            if len(found) > 1 and what not in {*SET_BY_TRIAL, *free_to_change()}
        ]
    return lines
