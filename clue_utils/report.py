"""What the grid searches of models came to: reads the record of every trial and sums it up.

A model's folder holds its trials as ``grid.Trial.folder`` names them, each with ``result.json`` and the log of its
process. Only finished trials compete. The winner of a task has the highest development score; between equals, the
first in the order of ``grid.list_trials`` wins (lower learning rate, smaller batch, higher dropout), and trials that
are not of that grid come after it, by the names of their folders.
Importing this module needs no PaddlePaddle.
"""

from __future__ import annotations

import math
import os
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clue_utils import grid, results, tasks
from clue_utils.errors import UserError
from clue_utils.tasks import Task

# What became of a trial. "unfinished" was killed or still runs; "missing" belongs to the grid and has no folder.
STATUSES = ("finished", "pruned", "unfinished", "failed", "missing")
# Tasks that were published by another rule than the scores here, and that rule's metrics in a run: PaddleNLP's looser
# EM and F1; the accuracy that counts the fillers of missing choices as choices.
PUBLISHED_RULES = {"CMRC2018": ("squad_em", "squad_f1"), "C3": ("accuracy_with_fillers",)}

# What the grid searches, and what changes no score.
_FREE_TO_DIFFER = ("learning_rate", "batch_size", "dropout", "seed", *results.FREE_TO_CHANGE)
_RUN_NAME = re.compile(r"([0-9.]+(?:e[+-]?[0-9]+)?)_([0-9]+)_([0-9.]+)_([0-9]+)")
_ERROR_LINE = re.compile(r"(rank [0-9]+: )?error:")
_LOG_TAIL = 1 << 16  # bytes at the end of a log that are read for its last line
_LONGEST_REASON = 300  # characters


@dataclass(frozen=True)
class Outcome:
    """One trial and what became of it.

    Attributes:
        folder: ``<task>/<run>`` within the model's folder.
        trial: its settings; None for a failed run whose folder has another kind of name.
        reason: why it failed or was pruned, in one line.
        fields: the content of ``result.json``; empty where there is none that can be read.
        score: the best development score so far, as a fraction, by the task's metric.
        metrics: all metrics at that step, as fractions (``loss`` is a loss).
        history: (step, score as a fraction) of each evaluation.
        num_dev: records of the development set.
        wall_time: seconds.
    """

    task: Task
    folder: str
    status: str
    trial: grid.Trial | None = None
    reason: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    score: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    history: tuple[tuple[int, float], ...] = ()
    num_dev: int | None = None
    num_processes: int = 1
    wall_time: float = 0.0

    @property
    def card_hours(self) -> float:
        return self.wall_time * self.num_processes / 3600

    @property
    def score_by_published_rule(self) -> float | None:
        """The score, a fraction, as the task's published scores were made; None where the run has no such metric."""
        rule = PUBLISHED_RULES.get(self.task.name)
        return self.metrics.get(rule[0]) if rule else self.score

    def standard_error(self, metric: str | None = None) -> float | None:
        """``sqrt(p (1 - p) / n)``, a fraction: what the size of the development set alone makes uncertain.

        CHID is scored by the blank and counted by the record, so its value errs on the high side.
        """
        p = self.metrics.get(metric) if metric else self.score
        return math.sqrt(p * (1 - p) / self.num_dev) if p is not None and self.num_dev else None


@dataclass(frozen=True)
class ModelReport:
    """The trials of one model, those that are missing included: the grid's in its order, then others by name.

    Attributes:
        damages: a line for each ``result.json`` that cannot be read; its trial counts as failed.
        doubts: lines about scores that were not made alike.
    """

    name: str
    folder: Path
    outcomes: tuple[Outcome, ...]
    published: tasks.PublishedModel | None
    damages: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    def of_task(self, task_name: str) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.task.name == task_name]

    def with_status(self, status: str) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.status == status]

    def winner(self, task_name: str) -> Outcome | None:
        """The finished trial with the highest score, the first of equals; None where none has finished."""
        finished = [outcome for outcome in self.of_task(task_name) if outcome.status == "finished"]
        return max(finished, key=lambda outcome: outcome.score or 0.0, default=None)

    def scores_over_seeds(self, winner: Outcome) -> list[float]:
        """Scores of the finished trials that differ from the winner in nothing but the seed, its own included."""
        return [
            outcome.score
            for outcome in self.of_task(winner.task.name)
            if outcome.status == "finished" and outcome.score is not None and _setting(outcome) == _setting(winner)
        ]

    def average(self, by_published_rule: bool = False) -> tuple[float, int] | None:
        """Mean of the winners' scores, a fraction, and over how many tasks; None without any."""
        winners = filter(None, map(self.winner, tasks.TASKS))
        scores = [winner.score_by_published_rule if by_published_rule else winner.score for winner in winners]
        found = [score for score in scores if score is not None]
        return (statistics.fmean(found), len(found)) if found else None

    def searches_dropout(self, task_name: str) -> bool:
        """Whether dropout is part of the task's grid, or was varied in this model's trials."""
        found = {outcome.trial.dropout for outcome in self.of_task(task_name) if outcome.trial is not None}
        return len(found) > 1 or len(tasks.TASKS[task_name].dropouts) > 1

    def is_comparable(self, outcome: Outcome) -> bool:
        """Whether the outcome was measured on as many development records as the release has."""
        return outcome.num_dev == outcome.task.splits["dev"].num_records


def clean(text: object) -> str:
    """Text for people: control, bidirectional and other invisible characters become U+FFFD, so one line stays one."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(text))


def setting_text(trial: grid.Trial | tasks.Best, with_dropout: bool) -> str:
    """``3e-5,32`` as in the published table, or with dropout ``3e-5,32,0.1``."""
    if isinstance(trial, tasks.Best):
        trial = grid.Trial("", *trial, seed=0, num_cards=1)
    return ",".join(trial.folder.rpartition("/")[2].split("_")[: 3 if with_dropout else 2])


def find_model(model: str, results_dir: Path) -> Path:
    """The folder of a model's trials: ``model`` itself, or the folder of that name within ``results_dir``.

    Raises:
        UserError: neither holds a task's folder.
    """
    places = [Path(model), grid.model_folder(results_dir, model)]
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
    found: list[Outcome] = []
    damages: list[str] = []
    for task in tasks.TASKS.values():
        runs = sorted((folder / task.name).iterdir()) if (folder / task.name).is_dir() else []
        found += filter(None, (_read_outcome(task, run, damages) for run in runs if run.is_dir()))
    if not found:
        raise UserError(f"{clean(folder)} holds no trial: run the grid search first, or give another folder")
    there = {outcome.trial[:5] for outcome in found if outcome.trial is not None}
    missing = [
        Outcome(tasks.TASKS[trial.task], trial.folder, "missing", trial)
        for trial in grid.list_trials()
        if trial[:5] not in there
    ]
    order = {trial.folder: number for number, trial in enumerate(grid.list_trials())}
    places = {name: number for number, name in enumerate(tasks.TASKS)}
    outcomes = sorted(found + missing, key=lambda o: (places[o.task.name], order.get(o.folder, len(order)), o.folder))
    recorded = next((str(o.fields["model"]) for o in found if "model" in o.fields), folder.name)
    doubts = [clean(line) for line in _doubts(outcomes)]
    return ModelReport(name, folder, tuple(outcomes), tasks.published_model(recorded), tuple(damages), tuple(doubts))


def _setting(outcome: Outcome) -> tuple[Any, ...] | None:
    return outcome.trial[:4] if outcome.trial is not None else None


def _read_outcome(task: Task, folder: Path, damages: list[str]) -> Outcome | None:
    """What became of the trial in a folder; None where no trial was ever started."""
    label = clean(f"{task.name}/{folder.name}")
    named = _trial_of_name(task, folder.name)
    try:
        last_line = _last_line(folder / grid.LOG_FILE)
        fields = results.read_result(folder)
        if fields is not None:
            return _ResultReader(task, folder / results.RESULT_FILE, fields).outcome(label, last_line)
    except (UserError, OSError) as error:
        damages.append(clean(error))
        return Outcome(task, label, "failed", named, reason=clean(str(error).replace(f"{folder}{os.sep}", "")))
    if last_line is None:
        return None
    return Outcome(task, label, "failed", named, reason=last_line or f"no {results.RESULT_FILE}, and an empty log")


def _trial_of_name(task: Task, name: str) -> grid.Trial | None:
    match = _RUN_NAME.fullmatch(name)
    try:
        rate, batch_size, dropout, seed = match.groups() if match else ()
        return grid.Trial(task.name, float(rate), int(batch_size), float(dropout), int(seed), task.num_cards)
    except ValueError:
        return None


def _last_line(path: Path) -> str | None:
    """The last line of a log that is not blank, "" for an empty log, None where there is no log."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_TAIL))
            lines = re.split(r"[\r\n]+", file.read().decode("utf-8", "replace"))
    except FileNotFoundError:
        return None
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return clean(last[:_LONGEST_REASON])


class _ResultReader:
    """Takes a trial's outcome from the fields of its ``result.json``, which may hold anything."""

    def __init__(self, task: Task, path: Path, fields: dict[str, Any]) -> None:
        self.task, self.path, self.fields = task, path, fields

    def outcome(self, label: str, last_line: str | None) -> Outcome:
        """The outcome; ``label`` is the trial's folder and ``last_line`` the end of its log.

        Raises:
            UserError: a field is not what the scripts write.
        """
        fields = self.fields
        if fields.get("task") != self.task.name:
            raise self._refuse(f"its task is {clean(fields.get('task'))[:40]}")
        best = fields.get("best_metric")
        score = None if best is None else self._fractions({self.task.metric: best}, "best_metric")[self.task.metric]
        status, reason = self._status(score, last_line)
        trial = self._trial()
        counts = fields.get("num_examples")
        num_dev = counts.get("dev") if isinstance(counts, dict) else None
        return Outcome(
            self.task,
            label,
            status,
            trial,
            clean(reason)[:_LONGEST_REASON],
            fields,
            score,
            self._fractions(fields.get("best_metrics") or {}, "best_metrics"),
            self._history(),
            num_dev if isinstance(num_dev, int) and 0 < num_dev < 1e15 else None,
            trial.num_cards,
            float(self._number("wall_time", fields, 0.0)),
        )

    def _trial(self) -> grid.Trial:
        settings = self.fields.get("hyper_parameters", {})
        num_processes = max(1, int(self._number("num_processes", self.fields, 1)))
        return grid.Trial(
            self.task.name,
            float(self._number("learning_rate", settings)),
            int(self._number("batch_size", settings)) * num_processes,
            float(self._number("dropout", settings)),
            int(self._number("seed", settings)),
            num_processes,
        )

    def _history(self) -> tuple[tuple[int, float], ...]:
        history = self.fields.get("history") or []
        if not isinstance(history, list):
            raise self._refuse("its history is not a list")
        lines = [self._fractions(line, "history") for line in history]
        metric = self.task.metric
        return tuple((int(self._number("step", line)), line[metric]) for line in lines if metric in line)

    def _status(self, score: float | None, last_line: str | None) -> tuple[str, str]:
        """One of ``STATUSES``, and the reason where the trial did not finish."""
        pruned, status = self.fields.get("pruned"), self.fields.get("status")
        if isinstance(pruned, dict):
            return "pruned", ", ".join(f"{name} {value}" for name, value in pruned.items())
        if pruned is not None:
            return "pruned", str(pruned)
        if status == "finished":
            if score is None:
                raise self._refuse("it is finished and has no score")
            return "finished", ""
        if last_line and _ERROR_LINE.match(last_line):
            return "failed", last_line
        return "unfinished", f"status {status}"

    def _refuse(self, what: str) -> UserError:
        return UserError(
            f"{self.path} is not a result of these scripts ({what}): remove the folder and run the trial again"
        )

    def _number(self, name: str, holder: Mapping[str, Any], default: float | None = None) -> Any:
        value = holder.get(name, default)
        if not _is_number(value) or value < 0:
            raise self._refuse(f"{name} is {clean(value)[:40]}")
        return value

    def _fractions(self, holder: Any, what: str) -> dict[str, float]:
        if not isinstance(holder, dict):
            raise self._refuse(f"{what} are {clean(holder)[:40]}")
        for name, value in holder.items():
            if name not in ("loss", "step") and not (_is_number(value) and 0 <= value <= 1):
                raise self._refuse(f"{clean(name)[:40]} in {what} is not between 0 and 1")
        return holder


def _is_number(value: object) -> bool:
    """Whether a value is a number that sums of such numbers can be made of."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15


def _doubts(outcomes: Sequence[Outcome]) -> list[str]:
    """Lines about scores that stand side by side and were not made alike."""
    lines = []
    scored = [outcome for outcome in outcomes if outcome.score is not None]
    models = sorted({str(outcome.fields.get("model")) for outcome in scored})
    if len(models) > 1:
        lines.append(f"the folder mixes trials of {len(models)} models: {', '.join(models)}")
    for name in tasks.TASKS:
        values: dict[str, set[Any]] = {}
        for outcome in scored:
            if outcome.task.name == name:
                digests = outcome.fields.get("data_sha256")
                alike = {"development data": digests.get("dev") if isinstance(digests, dict) else None}
                alike |= {"max_steps": outcome.fields.get("max_steps"), **outcome.fields["hyper_parameters"]}
                for what, value in alike.items():
                    values.setdefault(what, set()).add(str(value))
        lines += [
            f"{name}: its trials differ in {what} ({', '.join(sorted(value[:12] for value in found))}); "
            "their scores do not compare"
            for what, found in values.items()
            if len(found) > 1 and what not in _FREE_TO_DIFFER
        ]
    return lines
