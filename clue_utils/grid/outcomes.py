"""The trials of a model as their records tell them: which have finished, and which of them won.

A model's folder holds its trials as ``search_space.Trial.folder`` names them, each with ``result.json`` and the log of
its process. Report, zip and pruning all read them here. Only finished trials compete. The winner of a task has the
highest development score; between equals, the first in the order of ``search_space.list_trials`` wins (lower learning
rate, smaller batch, higher dropout), and trials that are not of that grid come after it, by the names of their folders.
Importing this module needs no PaddlePaddle.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clue_utils import record
from clue_utils.errors import UserError
from clue_utils.grid import search_space
from clue_utils.tasks import Task

# What became of a trial. "unfinished" was killed or still runs; "missing" belongs to the grid and has no folder.
STATUSES = ("finished", "pruned", "unfinished", "failed", "missing")


# Tasks that were published by another rule than the scores here, and that rule's metrics in a run: PaddleNLP's looser
# EM and F1; the accuracy that counts the fillers of missing choices as choices.
PUBLISHED_RULES = {"CMRC2018": ("squad_em", "squad_f1"), "C3": ("accuracy_with_fillers",)}


_RUN_NAME = re.compile(r"([0-9.]+(?:e[+-]?[0-9]+)?)_([0-9]+)_([0-9.]+)_([0-9]+)")


_ERROR_LINE = re.compile(r"(rank [0-9]+: )?error:")


_LOG_TAIL = 1 << 16  # bytes at the end of a log that are read for its last line


_LONGEST_REASON = 300  # characters


@dataclass(frozen=True)
class Outcome:
    """One trial and what became of it.

    Attributes:
        folder: ``<task>/<run>`` within the model's folder, as it is shown.
        path: its folder; None for a trial that is missing.
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
    path: Path | None = None
    trial: search_space.Trial | None = None
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

    @property
    def has_checkpoint(self) -> bool:
        """Whether the trial kept the weights of its best evaluation."""
        return self.path is not None and (self.path / record.WEIGHTS_FILE).is_file()

    def standard_error(self, metric: str | None = None) -> float | None:
        """``sqrt(p (1 - p) / n)``, a fraction: what the size of the development set alone makes uncertain.

        CHID is scored by the blank and counted by the record, so its value errs on the high side.
        """
        p = self.metrics.get(metric) if metric else self.score
        return math.sqrt(p * (1 - p) / self.num_dev) if p is not None and self.num_dev else None


def clean(text: object) -> str:
    """Text for people: control, bidirectional and other invisible characters become U+FFFD, so one line stays one."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(text))


def read_trials(folder: Path, task: Task) -> tuple[list[Outcome], list[str]]:
    """Every trial in a task's folder that was ever started, the grid's in its order, then others by name.

    Returns:
        The trials; a line for each ``result.json`` that cannot be read, whose trial counts as failed.
    """
    runs = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    damages: list[str] = []
    found = [outcome for run in runs if (outcome := _read_outcome(task, run, damages)) is not None]
    return in_order(found, task), damages


def in_order(outcomes: Iterable[Outcome], task: Task) -> list[Outcome]:
    """Trials of a task in the order of its grid, then others by the names of their folders."""
    order = {trial.folder: number for number, trial in enumerate(search_space.list_trials([task.name]))}
    return sorted(outcomes, key=lambda outcome: (order.get(outcome.folder, len(order)), outcome.folder))


def winner(outcomes: Iterable[Outcome]) -> Outcome | None:
    """The finished trial of a task with the highest score, the first of equals; None where none has finished."""
    finished = [outcome for outcome in outcomes if outcome.status == "finished"]
    return max(finished, key=lambda outcome: outcome.score or 0.0, default=None)


def _read_outcome(task: Task, folder: Path, damages: list[str]) -> Outcome | None:
    """What became of the trial in a folder; None where no trial was ever started."""
    label = clean(f"{task.name}/{folder.name}")
    named = _trial_of_name(task, folder.name)
    try:
        last_line = _last_line(folder / search_space.LOG_FILE)
        fields = record.read_result(folder)
        if fields is not None:
            return _ResultReader(task, folder / record.RESULT_FILE, fields).outcome(label, last_line)
    except (UserError, OSError) as error:
        damages.append(clean(error))
        return Outcome(task, label, "failed", folder, named, reason=clean(str(error).replace(f"{folder}{os.sep}", "")))
    if last_line is None:
        return None
    return Outcome(
        task, label, "failed", folder, named, reason=last_line or f"no {record.RESULT_FILE}, and an empty log"
    )


def _trial_of_name(task: Task, name: str) -> search_space.Trial | None:
    match = _RUN_NAME.fullmatch(name)
    try:
        rate, batch_size, dropout, seed = match.groups() if match else ()
        return search_space.Trial(task.name, float(rate), int(batch_size), float(dropout), int(seed), task.num_cards)
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
            self.path.parent,
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

    def _trial(self) -> search_space.Trial:
        settings = self.fields.get("hyper_parameters", {})
        num_processes = max(1, int(self._number("num_processes", self.fields, 1)))
        return search_space.Trial(
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
