"""What is compared: the runs of each side by task, and two sides' differences. Imports no PaddlePaddle."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from clue_utils import published
from clue_utils.compare import statistics
from clue_utils.compare.answers import Answers, read_answers
from clue_utils.compare.statistics import Difference
from clue_utils.errors import UserError
from clue_utils.grid.outcomes import Outcome, clean, know_own_tasks, read_trials, winner
from clue_utils.language import say
from clue_utils.record import Record
from clue_utils.report.collect import ModelReport, find_model, places
from clue_utils.tasks import KNOWN, TASKS, Task

SIGNIFICANCE = 1 - statistics.LEVEL


@dataclass(frozen=True)
class Runs:
    """A side's runs of one task: one setting, one run a seed.

    Attributes:
        num_tried: settings among which it was chosen by its score on the very records that are compared.
    """

    task: Task
    records: tuple[Record, ...]
    num_tried: int = 1

    @functools.cached_property
    def answers(self) -> tuple[Answers, ...]:
        """Those of each run.

        Raises:
            UserError: they cannot be read, or the runs were not scored on the same data.
        """
        found = tuple(map(read_answers, self.records))
        for other in found[1:]:
            require_same_data(found[0], other, self.task)
        return found

    def values(self, metric: str) -> statistics.Array:
        """float64 ``[runs, records]``."""
        return np.stack([one.values[metric] for one in self.answers])


@dataclass(frozen=True)
class Side:
    """A model, a folder of runs, or one run: what is compared with another one, by task in the registry's order."""

    name: str
    folder: Path
    runs: Mapping[str, Runs]


@dataclass(frozen=True)
class TaskDifference:
    """Two sides' difference on a task, by the metric that chooses its checkpoints, and CMRC2018's F1 beside it.

    Attributes:
        adjusted_p: corrected for the number of tasks (Holm).
    """

    task: Task
    main: Difference
    f1: Difference | None
    num_runs: tuple[int, int]
    adjusted_p: float = 1.0

    @property
    def is_real(self) -> bool:
        return self.adjusted_p < SIGNIFICANCE


@dataclass(frozen=True)
class Pair:
    """Two sides compared; every difference is second minus first.

    Attributes:
        tasks: the compared ones, by name.
        not_compared: tasks that one side alone has.
        is_same: both are the same runs.
        draws: of the mean difference over the tasks, each drawn independently, float64 ``[draws]``.
    """

    first: Side
    second: Side
    tasks: Mapping[str, TaskDifference]
    not_compared: tuple[str, ...] = ()
    is_same: bool = False
    draws: statistics.Array = field(default_factory=lambda: np.zeros(1))

    @property
    def average(self) -> float:
        return float(np.mean([one.main.value for one in self.tasks.values()]))

    @property
    def average_interval(self) -> tuple[float, float]:
        return statistics.interval_of(self.draws)

    @property
    def better(self) -> list[TaskDifference]:
        """Tasks on which the second side is better, and that is no chance."""
        return [one for one in self.tasks.values() if one.is_real and one.main.value > 0]

    @property
    def worse(self) -> list[TaskDifference]:
        return [one for one in self.tasks.values() if one.is_real and one.main.value < 0]


def know_tasks(names: Sequence[str], results_dir: Path) -> None:
    """Have the users' tasks that sides are of known by name, before one is asked for."""
    for place in (place for name in names for place in places(name, results_dir)):
        know_own_tasks(place)
        for folder in (place, *place.glob("*/")):
            with contextlib.suppress(UserError):  # of what is wrong with it whoever reads it will speak
                Record.read(folder)


def read_sides(
    names: Sequence[str], results_dir: Path, task_names: Sequence[str] = (), by_published: bool = False
) -> list[Side]:
    """The sides, each named as for :func:`read_side`; those whose folders have the same name are called by the path."""
    sides = [read_side(name, results_dir, task_names, by_published) for name in names]
    short = [side.name for side in sides]
    paths = [clean(side.folder) for side in sides]
    return [
        Side(path if short.count(side.name) > 1 else side.name, side.folder, side.runs)
        for side, path in zip(sides, paths, strict=True)
    ]


def read_side(name: str, results_dir: Path, task_names: Sequence[str] = (), by_published: bool = False) -> Side:
    """Read a run's folder; one that holds runs' folders; or a model's trials, of which the winner of each task counts.

    With a winner go the finished runs that differ from it in nothing but the seed.

    Args:
        name: a folder, or of a model the folder of that name within ``results_dir``.
        task_names: only these, of which each has to be there; empty: all that there are.
        by_published: take the runs with the model's published settings instead of the winners.

    Raises:
        UserError: there are no such runs, or a record is damaged.
    """
    folder = Path(name)
    found: dict[str, list[Outcome]] = {}
    own = Record.read(folder)
    if own:
        found = _by_task([own])
    elif folder.is_dir() and (records := list(filter(None, map(Record.read, sorted(folder.iterdir()))))):
        found = _by_task(records)
    else:
        folder = find_model(name, results_dir)
        for task in (*TASKS.values(), *(KNOWN[own] for own in know_own_tasks(folder))):
            if not task_names or task.name in task_names:
                found[task.name], damages = read_trials(folder / task.name, task)
                if damages:  # it may be of the winner, or of one of its seeds
                    raise UserError(damages[0])
    found = {task: outcomes for task, outcomes in found.items() if not task_names or task in task_names}
    choose = _published if by_published else _best
    runs = {task: chosen for task in KNOWN if (chosen := choose(KNOWN[task], found.get(task, [])))}
    what = say("run with published settings") if by_published else say("run")
    if lacking := [task for task in task_names if task not in runs]:
        raise UserError(
            say(
                "{folder} holds no finished {what} of {lacking}: leave it out of --tasks",
                folder=clean(folder),
                what=what,
                lacking=", ".join(lacking),
            )
        )
    if not runs:
        raise UserError(
            say("{folder} holds no finished {what} with a development score", folder=clean(folder), what=what)
        )
    return Side(clean(folder.resolve().name), folder, runs)


def side_of(model: ModelReport) -> Side:
    """A report's model: its winner of each task, with the winner's other seeds.

    Raises:
        UserError: it has no finished run, or what its trials left cannot be read: that may be a winner.
    """
    if model.is_search and model.damages:
        raise UserError(model.damages[0])
    runs = {name: chosen for name, task in KNOWN.items() if (chosen := _best(task, model.of_task(name)))}
    if not runs:
        raise UserError(
            say(
                "{folder} holds no finished {what} with a development score",
                folder=clean(model.folder),
                what=say("run"),
            )
        )
    return Side(model.name, model.folder, runs)


def _by_task(records: Sequence[Record]) -> dict[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = {}
    for record in records:
        task = KNOWN.get(record.task or "")
        if task is None:
            raise record.refusal(say("its task is {task}", task=record.task))
        one = Outcome(task, clean(record.folder.name), record.status, record.folder, record=record)
        found.setdefault(task.name, []).append(one)
    return found


def _best(task: Task, outcomes: Sequence[Outcome]) -> Runs | None:
    """The winner and its seeds; of runs that were only evaluated, the one that there is."""
    scored = [one for one in outcomes if one.score is not None]
    best = winner(scored)
    if best:
        finished = [one.record for one in scored if one.status == "finished"]
        return _with_seeds(task, best.record, finished, len(set(map(_setting, finished))))
    evaluated = [one.record for one in outcomes if one.record.is_finished and one.record.evaluation]
    if len(evaluated) > 1:
        raise UserError(
            say(
                "{parent} holds several evaluations of {name}: name one's folder",
                parent=evaluated[0].folder.parent,
                name=task.name,
            )
        )
    return Runs(task, tuple(evaluated)) if evaluated else None


def _published(task: Task, outcomes: Sequence[Outcome]) -> Runs | None:
    """The runs with the settings that the model's published score of the task was made with."""
    finished = [one.record for one in outcomes if one.status == "finished" and one.score is not None]
    for record in finished:
        row = published.published_model(str(record.model))
        if row and task.name in row.best_runs and _setting(record)[1:] == (*row.best_runs[task.name], None):
            return _with_seeds(task, record, finished)
    return None


def _with_seeds(task: Task, best: Record, finished: Sequence[Record], num_tried: int = 1) -> Runs:
    alike = [record for record in finished if _setting(record) == _setting(best)]
    by_seed = {record.hyper_parameters.get("seed"): record for record in reversed([best, *alike])}
    return Runs(task, tuple(by_seed[seed] for seed in sorted(by_seed, key=str)), num_tried)


def _setting(record: Record) -> tuple[object, ...]:
    """What runs that differ in nothing but the seed have alike."""
    own = record.hyper_parameters
    batch_size = record.number("batch_size") * record.num_processes
    max_steps = record.fields.get("max_steps")
    return (
        record.model,
        own.get("learning_rate"),
        batch_size,
        own.get("dropout"),
        None if max_steps == -1 else max_steps,
    )


def require_same_data(first: Answers, second: Answers, task: Task) -> None:
    """Refuse answers to other records.

    Raises:
        UserError: the data's checksums or the records' ids differ.
    """
    if first.ids == second.ids and first.data_sha256 == second.data_sha256 and (first.weights == second.weights).all():
        return
    if first.data_sha256 != second.data_sha256:
        sums = [str(one.data_sha256)[:12] for one in (first, second)]
        how = say("checksums {first} and {second}", first=sums[0], second=sums[1])
    elif different := [(i, a, b) for i, (a, b) in enumerate(zip(first.ids, second.ids), 1) if a != b]:  # noqa: B905
        number, one, other = different[0]
        how = say("record {number} is {first} and {second}", number=number, first=one, second=other)
    else:
        how = say("{first:,} and {second:,} records", first=len(first.ids), second=len(second.ids))
    raise UserError(
        say(
            "{name}: {one} and {other} were not scored on the same development data ({how}): evaluate both with the "
            "same --data_dir (--do_eval)",
            name=task.name,
            one=first.folder,
            other=second.folder,
            how=how,
        )
    )


def compare_sides(first: Side, second: Side, with_f1: bool = True, num_draws: int = statistics.NUM_DRAWS) -> Pair:
    """Compare two sides on every task that both have.

    Args:
        with_f1: CMRC2018's F1 too, whose interval takes longer than all others.
        num_draws: as of :func:`statistics.compare`.

    Raises:
        UserError: there is no such task, answers cannot be read or are to other records.
    """
    common = [name for name in KNOWN if name in first.runs and name in second.runs]
    if not common:
        has = [say("{name} has {tasks}", name=side.name, tasks=", ".join(side.runs)) for side in (first, second)]
        raise UserError(say("no task in common: {has}", has=say("; ").join(has)))
    found = []
    for name in common:
        sides = first.runs[name], second.runs[name]
        require_same_data(sides[0].answers[0], sides[1].answers[0], KNOWN[name])
        found.append(_compare_task(KNOWN[name], *sides, with_f1, num_draws))
    adjusted = statistics.holm([one.main.p_value for one in found])
    tasks = {
        one.task.name: TaskDifference(one.task, one.main, one.f1, one.num_runs, p)
        for one, p in zip(found, adjusted, strict=True)
    }
    draws = np.mean([one.main.draws for one in found], axis=0)
    rest = tuple(name for name in KNOWN if (name in first.runs) != (name in second.runs))
    folders = [{run.folder.resolve() for name in common for run in side.runs[name].records} for side in (first, second)]
    return Pair(first, second, tasks, rest, folders[0] == folders[1], draws)


def _compare_task(task: Task, first: Runs, second: Runs, with_f1: bool, num_draws: int) -> TaskDifference:
    weights = first.answers[0].weights
    seed = [*KNOWN].index(task.name)  # the tasks' draws are independent of each other

    def compare(metric: str) -> Difference:
        return statistics.compare(first.values(metric), second.values(metric), weights, seed, num_draws)

    try:
        main = compare(task.metric)
    except UserError as error:
        raise UserError(f"{task.name}: {error}") from None
    f1 = compare("f1") if with_f1 and task.metric == "em" else None
    return TaskDifference(task, main, f1, (len(first.records), len(second.records)))


def compare_all(sides: Sequence[Side]) -> list[Pair]:
    """Every two of the sides, the later one as the second.

    Raises:
        UserError: as of :func:`compare_sides`, or fewer than two sides.
    """
    if len(sides) < 2:
        raise UserError(say("nothing to compare: name at least two folders or models"))
    return [compare_sides(first, second) for first, second in itertools.combinations(sides, 2)]


def counts_of_settings(pair: Pair) -> dict[str, tuple[int, int]]:
    """Task -> settings among which each side's was chosen, where those numbers differ."""
    counts = {name: (pair.first.runs[name].num_tried, pair.second.runs[name].num_tried) for name in pair.tasks}
    return {name: both for name, both in counts.items() if both[0] != both[1]}
