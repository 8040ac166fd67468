"""How far a search is: what each trial is at, and how long the rest takes, from its plan and its trials' records alone.

A trial that runs says itself how long it still takes. One that is to come takes what others of its task took, or will
take; before any of them has begun, what its sequences, counted in tokens, take at the rate of the other tasks. The
search takes what list scheduling of all that on its slots takes (Graham, "Bounds on Multiprocessing Timing Anomalies",
1969): whenever a slot is free it gets the next trial, as GNU parallel does it. Imports no PaddlePaddle.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import math
import statistics
import time
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from clue_utils.errors import UserError
from clue_utils.grid import outcomes
from clue_utils.grid.pruning import MIN_TRIALS
from clue_utils.grid.search_space import Trial
from clue_utils.language import say
from clue_utils.record import RESULT_FILE, Record
from clue_utils.tasks import KNOWN, MAX_CHOICES, NUM_CANDIDATES

# What a step costs beside its examples, in tokens of training; and a token in training, in tokens of evaluation:
# forward and backward to forward alone. A guess will do: what is measured takes its place.
_STEP_IN_TOKENS, _TRAIN_TO_DEV = 300.0, 3.0
# Tokens of a sequence, counted on development sets of the release under the task's length; sequences of an example:
# CMRC2018's windows, CHID's blanks (577,157 in 84,709 examples); and choices, each a sequence of its own.
_TOKENS = {"AFQMC": 29, "TNEWS": 24, "IFLYTEK": 117, "CMNLI": 54, "OCNLI": 39, "CLUEWSC2020": 78, "CSL": 234}
_TOKENS |= {"CMRC2018": 464, "CHID": 64, "C3": 121}
_ROWS_PER_EXAMPLE = {"span": 1.8, "cloze": 6.8}
# Examples of a user's task, which no release tells.
_USUAL_SIZES = {"train": 10_000, "dev": 1_000}
# Flags that have a search do with a part of them.
_LIMITS = {"train": "max_train_samples", "dev": "max_eval_samples"}
_CHOICES = {"multiple_choice": MAX_CHOICES, "cloze": NUM_CANDIDATES}
# Seconds from the end of a trial until its successor's record counts, which imports what it needs first: before two
# trials have followed one another; and a longer time than any of them takes, as of a search that was broken off.
START_SECONDS, _LONGEST_START = 10.0, 600.0
# Seconds for which a slot is remembered where running trials alone tell of it: between two of them none is on record.
_SLOT_SECONDS = 60.0
# Of a run that broke off before this share of its steps, what its start took is too large a part.
_LEAST_SHARE = 0.05


@dataclass(frozen=True)
class State:
    """What a trial is at.

    Attributes:
        status: as of ``Outcome``, but "waiting" for one that is to run, or to go on, yet.
        seconds_left: None where nothing is known.
        score: the best so far, a fraction.
        loss: of its newest log line.
    """

    trial: Trial
    status: str
    seconds_left: float | None = None
    score: float | None = None
    step: int | None = None
    num_steps: int | None = None
    loss: float | None = None


@dataclass(frozen=True)
class Progress:
    """What a search is at: its trials in their order.

    Attributes:
        seconds_left: None before anything was measured.
        share: of the time of all trials, a fraction.
    """

    states: tuple[State, ...]
    seconds_left: float | None
    share: float | None

    @property
    def running(self) -> list[State]:
        return [state for state in self.states if state.status == "running"]

    @property
    def counts(self) -> Counter[str]:
        """How many trials of each status."""
        return Counter(state.status for state in self.states)

    @property
    def num_ended(self) -> int:
        return sum(state.status not in ("running", "waiting") for state in self.states)

    def best(self) -> dict[str, State]:
        """Task -> the trial with the best score so far, finished or not; of equals the first."""
        found: dict[str, State] = {}
        for state in self.states:
            best = found.get(state.trial.task)
            if state.score is not None and (best is None or state.score > (best.score or 0.0)):
                found[state.trial.task] = state
        return found


class Reader:
    """Reads how far a search is, again and again; what has finished is read once.

    Args:
        folder: of the model.
        trials: that were asked for; None: those of the model's plan, with the slots that stand there.
        slots: cards of a trial -> how many such trials run at a time. None: what runs tells, as under Slurm.
    """

    def __init__(
        self, folder: Path, trials: Sequence[Trial] | None = None, slots: Mapping[int, int] | None = None
    ) -> None:
        self.folder, self._trials, self._slots = folder, trials, slots
        self._finished: dict[str, tuple[int, Record]] = {}
        self._at_work: deque[tuple[float, int]] = deque()

    def read(self, ended: Collection[str] | None = None) -> Progress:
        """What the search is at now.

        Args:
            ended: folders ``<task>/<run>`` of the trials that have had their turn, if that is known: the others will
                run, whatever became of them earlier. None: what has failed stays so.

        Raises:
            UserError: the plan is damaged, or there is none.
        """
        trials, slots = self._trials, self._slots
        if trials is None:
            trials = [trial for name in outcomes.read_plan(self.folder) if (trial := outcomes.trial_of_folder(name))]
            slots = outcomes.read_slots(self.folder)
            if not trials:
                raise UserError(
                    say(
                        "{folder} holds no {plan_file}: start the grid search first",
                        folder=self.folder,
                        plan_file=outcomes.PLAN_FILE,
                    )
                )
        records = {trial.folder: self._record(trial.folder) for trial in trials}
        return assess(trials, records, slots, ended, num_slots=1 if slots else self._most_at_work(records.values()))

    def _most_at_work(self, records: Iterable[Record | None]) -> int:
        """How many trials ran at a time lately."""
        now = time.monotonic()
        self._at_work.append((now, sum(record is not None and record.status == "running" for record in records)))
        while now - self._at_work[0][0] > _SLOT_SECONDS:
            self._at_work.popleft()
        return max(number for _, number in self._at_work)

    def _record(self, name: str) -> Record | None:
        path = self.folder / name
        changed = 0
        with contextlib.suppress(OSError):
            changed = (path / RESULT_FILE).stat().st_mtime_ns
        known = self._finished.get(name)
        if known and known[0] == changed:
            return known[1]
        try:
            record = Record.read(path)
        except (UserError, OSError):
            return Record(status="failed")
        if record and record.is_finished:
            self._finished[name] = changed, record
        return record


def assess(
    trials: Sequence[Trial],
    records: Mapping[str, Record | None],
    slots: Mapping[int, int] | None,
    ended: Collection[str] | None = None,
    now: datetime | None = None,
    num_slots: int = 1,
) -> Progress:
    """What a search is at, from its trials' records.

    Args:
        trials: in the order in which they run, but that those that take most cards come first.
        records: ``<task>/<run>`` -> its record, None where there is none.
        slots, ended: as of ``Reader``.
        now: the time; by default that of the machine's clock.
        num_slots: how many trials run at a time, or more, where ``slots`` does not say it.
    """
    now = now or datetime.now(timezone.utc)
    costs = _Costs(trials, records, now)
    states = [_state(one, records.get(one.folder), costs, ended, now) for one in trials]
    open_ones = [state for state in states if state.status in ("running", "waiting")]
    if any(state.seconds_left is None for state in open_ones):
        return Progress(tuple(states), None, None)
    rest = sum(state.seconds_left or 0.0 for state in open_ones)
    done = sum(costs.start + record.wall_time for record in records.values() if record and record.wall_time)
    return Progress(
        tuple(states), _seconds_left(open_ones, slots, num_slots), done / (done + rest) if done + rest else None
    )


def _seconds_left(open_ones: Iterable[State], slots: Mapping[int, int] | None, num_slots: int) -> float:
    """How long what is left takes: trials that take most cards first, the others after them."""
    groups: dict[int, list[State]] = defaultdict(list)
    for state in open_ones:
        groups[state.trial.num_gpus if slots else 1].append(state)
    total = 0.0
    for num_gpus, states in groups.items():
        running = [state.seconds_left or 0.0 for state in states if state.status == "running"]
        number = max(1, slots.get(num_gpus, 1) if slots else num_slots)
        total += end_of([state.seconds_left or 0.0 for state in states if state.status == "waiting"], number, running)
    return total


def end_of(seconds: Iterable[float], num_slots: int, busy: Sequence[float] = ()) -> float:
    """When the last of some jobs ends, each of which takes the first slot that is free, in their order.

    Args:
        busy: when the slots are free that are not so now.
    """
    slots = [*busy, *[0.0] * (num_slots - len(busy))]
    heapq.heapify(slots)
    for one in seconds:
        heapq.heapreplace(slots, slots[0] + one)
    return max(slots)


def _state(trial: Trial, found: Record | None, costs: _Costs, ended: Collection[str] | None, now: datetime) -> State:
    record = found or Record()
    status = record.status or "refused"  # one that has had its turn and left no record
    has_ended = status == "failed" if ended is None else trial.folder in ended
    if status not in ("running", "finished", "pruned") and not has_ended:
        status = "waiting"
    step, num_steps = record.progress.get("step"), record.progress.get("num_steps")
    to_do = 1 - step / num_steps if step and num_steps else 1.0
    whole, silence, left = costs.of(trial), _silence(record, now), None
    to_start = 0.0 if record.begun else max(0.0, costs.start - silence)
    if status == "running" and "seconds_left" in record.progress:
        left = max(0.0, record.progress["seconds_left"] - silence)
    elif status == "running" and whole is not None:
        passed = 0.0 if step or not record.begun else record.wall_time + silence
        left = max(0.0, whole * to_do - passed) + to_start
    elif status == "waiting" and whole is not None:
        left = whole * to_do + costs.start
    loss = record.progress.get("loss")
    counts = [None if number is None else int(number) for number in (step, num_steps)]
    return State(trial, status, left, record.score, counts[0], counts[1], loss)


def _silence(record: Record, now: datetime) -> float:
    """Seconds since a run that is at work was last seen; 0 for another one."""
    if record.status != "running" or record.last_seen is None:
        return 0.0
    return max(0.0, (now - record.last_seen).total_seconds())


def _start_seconds(records: Iterable[Record]) -> float:
    """How long a slot waits for its next trial: the median time from an end to the start that took its place.

    In the order in which they come, a start takes the place of the first trial that has ended and was not replaced.
    """
    times = [(record.begun, "begun") for record in records if record.begun]
    times += [(record.ended, "ended") for record in records if record.ended]
    free: deque[datetime] = deque()
    waits = []
    for moment, event in sorted(times):
        while free and (moment - free[0]).total_seconds() > _LONGEST_START:
            free.popleft()
        if event == "ended":
            free.append(moment)
        elif free:
            waits.append((moment - free.popleft()).total_seconds())
    return statistics.median(waits or [START_SECONDS])


class _Costs:
    """What trials take, measured on those that have begun.

    Attributes:
        start: seconds from the end of a trial until its successor's record counts.
    """

    def __init__(self, trials: Sequence[Trial], records: Mapping[str, Record | None], now: datetime) -> None:
        self._of_task: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        self._shares: dict[str, list[float]] = defaultdict(list)
        self._cards: dict[str, int] = {}
        self._max_steps = 0
        self._most = dict.fromkeys(_USUAL_SIZES, math.inf)
        self._longest = math.inf
        self.start = _start_seconds([record for record in records.values() if record])
        self._intervals: dict[str, int] = {}
        number: Counter[str] = Counter()
        self._first: set[str] = set()
        for trial in trials:
            number[trial.task] += 1
            if number[trial.task] <= MIN_TRIALS:
                self._first.add(trial.folder)
            record = records.get(trial.folder)
            if record is None:
                continue
            self._max_steps = max(self._max_steps, _whole(record.fields.get("max_steps")))
            for split, flag in _LIMITS.items():
                self._most[split] = _whole(record.fields.get(flag)) or math.inf
            if (length := _whole(record.hyper_parameters.get("max_seq_length"))) != KNOWN[trial.task].max_seq_length:
                self._longest = length or math.inf  # it was given, and so for all tasks
            self._intervals[trial.task] = _whole(
                record.hyper_parameters.get("save_steps"), KNOWN[trial.task].save_steps
            )
            self._cards[trial.task] = record.num_processes
            share = _share_done(record)
            if record.is_finished and trial.folder not in self._first:
                self._shares[trial.task].append(share)
            silence, left = _silence(record, now), record.progress.get("seconds_left")
            if record.status == "running" and left is not None:
                seconds = record.wall_time + max(silence, left)
            elif share >= _LEAST_SHARE:
                seconds = (record.wall_time + silence) / share
            else:
                continue
            self._of_task[trial.task][trial.batch_size].append(seconds)

    def of(self, trial: Trial) -> float | None:
        """Seconds that a trial will take; None where nothing was measured.

        Of its task, trials with its batch size tell it, else those with the next one. Where some were pruned, so will
        others be.
        """
        sizes = self._of_task.get(trial.task)
        if not sizes:
            if not self._of_task:
                return None
            fixed, rate = self._rates
            cards = min(trial.num_gpus, max(self._cards.values()))
            return (fixed + rate * self._work(trial.task, trial.batch_size) / cards) * self._usual_share(trial)
        size = min(sizes, key=lambda size: abs(math.log(size / trial.batch_size)))
        ratio = self._work(trial.task, trial.batch_size) / self._work(trial.task, size)
        return statistics.fmean(sizes[size]) * ratio * self._usual_share(trial)

    @functools.cached_property
    def _rates(self) -> tuple[float, float]:
        """Seconds of a trial whatever it computes, and those of a token on a card, over all that was measured.

        The former is the intercept of the line that leaves the least squares of relative errors. Of trials alike the
        line may lie anyhow: half of the shortest bounds it, and what a start takes, which is of the same kind.
        """
        works, seconds, counts = [], [], []
        for task, sizes in self._of_task.items():
            for size, wholes in sizes.items():
                works.append(self._work(task, size) / self._cards[task])
                seconds.append(statistics.fmean(wholes))
                counts.append(len(wholes))
        fixed = 0.0
        if len(works) > 1:
            relative = np.array([(1.0, work) for work in works]) / np.array(seconds)[:, None]
            line, *_ = np.linalg.lstsq(relative, np.ones(len(works)), rcond=None)
            fixed = float(np.clip(line[0], 0.0, min(self.start, min(seconds) / 2)))
        of_tokens = np.dot(counts, np.array(seconds) - fixed)
        return fixed, float(of_tokens / np.dot(counts, works))

    def _work(self, name: str, batch_size: int) -> float:
        """What a trial computes, in tokens of training: those of its steps and of its evaluations."""
        task = KNOWN[name]
        rows = _ROWS_PER_EXAMPLE.get(task.kind, 1.0)
        num_train, num_dev = (
            min(self._most[split], task.splits[split].num_examples or usual) for split, usual in _USUAL_SIZES.items()
        )
        length = min(self._longest, _TOKENS.get(name, task.max_seq_length)) * _CHOICES.get(task.kind, 1)
        steps_per_epoch = math.ceil(num_train * rows / batch_size)
        steps = self._max_steps or steps_per_epoch * task.num_train_epochs
        evaluations = math.ceil(steps / (self._intervals.get(name, task.save_steps) or steps_per_epoch)) + 1
        dev = num_dev * rows * evaluations / _TRAIN_TO_DEV
        return steps * (batch_size * length + _STEP_IN_TOKENS) + dev * length

    def _usual_share(self, trial: Trial) -> float:
        """How much of their steps trials do where some are pruned; the first ones of a task never are."""
        if trial.folder in self._first:
            return 1.0
        shares = self._shares.get(trial.task) or [share for of_task in self._shares.values() for share in of_task]
        return statistics.fmean(shares or [1.0])


def _whole(value: object, default: int = 0) -> int:
    """A value of a record that should be a whole number of at least 0."""
    return value if isinstance(value, int) and value >= 0 else default


def _share_done(record: Record) -> float:
    """How much of its steps a run has done."""
    if record.status == "finished":
        return 1.0
    step, num_steps = record.progress.get("step"), record.progress.get("num_steps") or record.num_steps
    if record.status == "pruned":
        pruned = record.fields.get("pruned")
        step = pruned.get("step") if isinstance(pruned, dict) else None
    return min(1.0, step / num_steps) if isinstance(step, (int, float)) and num_steps else 0.0
