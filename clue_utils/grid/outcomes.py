"""The trials of a model as their records tell them: which have finished, and which of them won.

A model's folder holds its trials as ``search_space.Trial.folder`` names them, each with ``result.json`` and the log of
its process. Report, zip and pruning all read them here. Only finished trials compete. The winner of a task has the
highest development score; between equals, the first in the order of ``search_space.list_trials`` wins (lower learning
rate, smaller batch, higher dropout), and trials that are not of that grid come after it, by the names of their folders.
Importing this module needs no PaddlePaddle.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from clue_utils import task_file
from clue_utils.errors import UserError
from clue_utils.files import locked, write_text_atomically
from clue_utils.grid import search_space
from clue_utils.language import later, say
from clue_utils.record import RESULT_FILE, WEIGHTS_FILE, Record
from clue_utils.strict_json import JsonObject
from clue_utils.tasks import KNOWN, OWN, TASKS, Task

# What became of a trial: as of ``Record.status``; "missing" is in the grid's plan and has no folder.
STATUSES = (
    *(later("finished"), later("pruned"), later("running"), later("killed"), later("stopped"), later("failed")),
    later("missing"),
)
# The trials that were asked for of a model, in its folder.
PLAN_FILE = "plan.json"
_RUN_NAME = re.compile(r"([0-9.]+(?:e[+-]?[0-9]+)?)_([0-9]+)_([0-9.]+)_([0-9]+)")
_LONGEST_REASON = 300  # characters


@dataclass(frozen=True)
class Outcome:
    """One trial and what became of it.

    Attributes:
        folder: ``<task>/<run>`` within the model's folder, as it is shown.
        path: its folder; None for a trial that is missing.
        trial: its settings; None for a failed run whose folder has another kind of name.
        reason: why it is not finished or how far it is, in one line.
        record: an empty one where there is none that can be read.
    """

    task: Task
    folder: str
    status: str
    path: Path | None = None
    trial: search_space.Trial | None = None
    reason: str = ""
    record: Record = Record()  # noqa: RUF009

    @property
    def score(self) -> float | None:
        return self.record.score

    @property
    def gpu_hours(self) -> float:
        return self.record.wall_time * self.record.num_processes / 3600

    @property
    def score_by_published_rule(self) -> float | None:
        """The score, a fraction, as the task's published scores were made; None where the run has no such metric."""
        rule = self.task.published_metrics
        return self.record.metrics.get(rule[0]) if rule else self.score

    @property
    def has_checkpoint(self) -> bool:
        """Whether the trial kept the weights of its best evaluation."""
        return self.path is not None and (self.path / WEIGHTS_FILE).is_file()


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
    named = trial_of_folder(label)
    try:
        record = Record.read(folder)
        if record is not None:
            trial = _trial_of(task, record)
            return Outcome(task, label, record.status, folder, trial, clean(record.remark)[:_LONGEST_REASON], record)
        if not (folder / search_space.LOG_FILE).is_file():
            return None
        reason = say(
            "no {result_file}: it ended before it began; see {log_file}",
            result_file=RESULT_FILE,
            log_file=search_space.LOG_FILE,
        )
    except (UserError, OSError) as error:
        damages.append(clean(error))
        reason = clean(str(error).replace(f"{folder}{os.sep}", ""))
    return Outcome(task, label, "failed", folder, named, reason)


def read_run(record: Record) -> Outcome:
    """What became of a run in a folder of any name: the settings are the record's, and so is the task.

    Raises:
        UserError: the record is not one of a run of a task.
    """
    task = KNOWN.get(record.task or "")
    if task is None:
        raise record.refusal(say("its task is {task}", task=record.task))
    remark = clean(record.remark)[:_LONGEST_REASON]
    trial = _trial_of(task, record)
    return Outcome(task, clean(record.folder.name), record.status, record.folder, trial, remark, record)


def _trial_of(task: Task, record: Record) -> search_space.Trial:
    """The trial that a record is of.

    Raises:
        UserError: the record is not one of a trial of this task.
    """
    if record.task != task.name or record.metric not in (None, task.metric):
        raise record.refusal(say("its task is {task}, its metric {metric}", task=record.task, metric=record.metric))
    if record.learnt_dev:
        raise UserError(
            say("{folder} was trained on the development set too: it has no score to compare", folder=record.folder)
        )
    if record.is_finished and record.score is None:
        raise record.refusal(say("it is finished and has no score"))
    rate, batch_size, dropout, seed = map(record.number, ("learning_rate", "batch_size", "dropout", "seed"))
    gpus = record.num_processes
    return search_space.Trial(task.name, float(rate), int(batch_size) * gpus, float(dropout), int(seed), gpus)


def trial_of_folder(folder: str) -> search_space.Trial | None:
    """The trial whose folder is called ``<task>/<run>``; None where none is."""
    name, _, run = folder.partition("/")
    match = _RUN_NAME.fullmatch(run)
    try:
        rate, batch_size, dropout, seed = match.groups() if match else ()
        gpus = KNOWN[name].num_gpus
        return search_space.Trial(name, float(rate), int(batch_size), float(dropout), int(seed), gpus)
    except (ValueError, KeyError):
        return None


def know_own_tasks(model_folder: Path) -> list[str]:
    """Have the tasks of users that a model's trials are of known by name; return their names, in order.

    The plan tells of them, or a record does.
    """
    with contextlib.suppress(UserError):
        read_plan(model_folder)
    runs = sorted(path.parent for path in model_folder.glob(f"*/*/{RESULT_FILE}"))
    names = {run.parent.name for run in runs if _RUN_NAME.fullmatch(run.name)} - {*TASKS}
    for run in runs:
        if run.parent.name in names - {*OWN}:
            with contextlib.suppress(UserError, OSError):
                Record.read(run)
    planned = {*_plan_of(model_folder).get("tasks", {})}
    return sorted((names | planned) & {*OWN})


def _plan_of(model_folder: Path) -> JsonObject:
    """The plan as it is written; empty where there is none that can be read."""
    try:
        plan = json.loads((model_folder / PLAN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return plan if isinstance(plan, dict) and isinstance(plan.get("tasks", {}), dict) else {}


def read_plan(model_folder: Path) -> tuple[str, ...]:
    """The folders ``<task>/<run>`` of all trials that were asked for of a model; none where no plan was written.

    Raises:
        UserError: the plan is damaged.
    """
    path = model_folder / PLAN_FILE
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        folders = plan["trials"]
        for described in plan.get("tasks", {}).values():
            task_file.know(described, path)
        if not all(trial_of_folder(folder) for folder in folders):
            raise ValueError(say("a name that no trial has"))
    except FileNotFoundError:
        return ()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            say(
                "{path} is damaged ({error}): remove it, and the next grid search writes it anew",
                path=path,
                error=error,
            )
        ) from None
    return tuple(dict.fromkeys(folders))


def read_slots(model_folder: Path) -> dict[int, int]:
    """How many trials run at a time, by the GPUs that they take; empty where the engine that runs them says it not."""
    try:
        slots = _plan_of(model_folder).get("slots", {})
        return {int(num_gpus): max(1, int(number)) for num_gpus, number in slots.items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def add_to_plan(model_folder: Path, folders: Iterable[str], slots: Mapping[int, int] | None = None) -> None:
    """Add trials, by their folders ``<task>/<run>``, to those that were asked for of a model.

    What their tasks are stands there too, where users have described them.

    Args:
        slots: how many of them run at a time, by the GPUs that they take; None: the engine decides.

    Raises:
        UserError: the plan that is there is damaged, or has another task of the same name.
    """
    model_folder.mkdir(parents=True, exist_ok=True)
    with locked(model_folder / f".{PLAN_FILE}.lock"):
        trials = [*dict.fromkeys([*read_plan(model_folder), *folders])]
        names = dict.fromkeys(folder.partition("/")[0] for folder in trials)
        own = {name: task_file.description(OWN[name]) for name in names if name in OWN}
        plan = {"trials": trials, **({"slots": slots} if slots else {}), **({"tasks": own} if own else {})}
        write_text_atomically(model_folder / PLAN_FILE, json.dumps(plan, ensure_ascii=False, indent=2) + "\n")
