"""How far a search is, against simulated searches whose truth is known."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import pytest

from clue_utils.grid import search_space
from clue_utils.grid.progress import START_SECONDS, Progress, assess
from clue_utils.grid.search_space import Trial
from clue_utils.record import Record
from clue_utils.tasks import TASKS

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
GRID = sorted(search_space.list_trials(), key=lambda trial: -trial.num_gpus)
# Trials at a time, by the cards that they take: of one card, of two, of eight, where a batch is shared out.
SLOTS = {1: {1: 1, 2: 1, 4: 1}, 2: {1: 2, 2: 1, 4: 1}, 8: {1: 8, 2: 4, 4: 2}}
START = 15.0  # seconds from the end of a trial before the next one is on record
# Where a card is not as the estimate takes it to be: tokens in a second, cost of a step and of an evaluation.
CARD, STEP_IN_TOKENS, TRAIN_TO_DEV = 9000.0, 600.0, 2.5
# Tokens of a sequence with its padding, which batches of a mixed set have more of; and sequences of an example.
LENGTHS = {"AFQMC": 36, "TNEWS": 28, "IFLYTEK": 122, "CMNLI": 66, "OCNLI": 45, "CLUEWSC2020": 70, "CSL": 240}
LENGTHS |= {"CMRC2018": 490, "CHID": 640, "C3": 4 * 140}
ROWS = {"CMRC2018": 1.6, "CHID": 6.8}


def steps_of(trial: Trial) -> int:
    task = TASKS[trial.task]
    per_epoch = -(-task.splits["train"].num_examples * ROWS.get(trial.task, 1) // trial.batch_size)
    return int(per_epoch * task.num_train_epochs)


def seconds_of(trial: Trial, cards: int) -> float:
    """What a trial takes on so many cards if it comes to its end, with some noise of its own."""
    task, steps = TASKS[trial.task], steps_of(trial)
    num_evaluations = 1 + (steps / 100 if task.kind == "classification" else task.num_train_epochs)
    tokens = steps * (trial.batch_size * LENGTHS[trial.task] + STEP_IN_TOKENS)
    dev = task.splits["dev"].num_examples * ROWS.get(trial.task, 1) * LENGTHS[trial.task]
    noise = random.Random(trial.folder).uniform(0.95, 1.05)
    return noise * (tokens + num_evaluations * dev / TRAIN_TO_DEV) / CARD / min(cards, trial.num_gpus)


@dataclass
class Run:
    """What becomes of a trial: when it begins and ends, how much of its steps were done before, and are at its end."""

    trial: Trial
    begin: float
    end: float
    before: float
    share: float
    whole: float
    status: str

    def record(self, second: float) -> Record | None:
        """Its record at some second of the search; it is written every half a minute."""
        steps, now = steps_of(self.trial), second - self.begin - self.start
        fields = {"max_steps": -1, "device": "gpu:0"}
        about = {"num_steps": steps, "num_processes": self.cards, "fields": fields}
        begun, ended = (BEGIN + timedelta(seconds=moment) for moment in (self.begin + self.start, self.end))
        if second >= self.end:
            if self.status == "pruned":
                fields["pruned"] = {"step": int(self.share * steps), "rule": "median"}
            failed = {"step": int(self.share * steps), "num_steps": steps}
            score = random.Random(self.trial.folder).random()
            about |= {"begun": begun, "ended": ended} if self.end else {}
            return Record(status=self.status, wall_time=self.share * self.whole, score=score, progress=failed, **about)
        at = {"step": int(self.before * steps), "num_steps": steps}
        if now < 0:
            stopped = {"status": "stopped", "wall_time": self.before * self.whole, "progress": at}
            return Record(**about, **stopped) if self.before else None
        seen = now // 30 * 30
        done = self.before + seen / self.whole
        guess = random.Random(f"{self.trial.folder} {seen}").uniform(0.9, 1.1)
        at |= {"step": int(done * steps), "seconds_left": guess * (1 - done) * self.whole, "loss": 0.5}
        about["last_seen"] = BEGIN + timedelta(seconds=second - now + seen)
        wall_time = self.before * self.whole + seen
        return Record(status="running", wall_time=wall_time, progress=at, begun=begun, **about)

    cards: int = 1
    start: float = START


def simulate(
    num_gpus: int, fates=lambda trial: ("finished", 1.0), before=lambda trial: 0.0, start=lambda trial: START
) -> list[Run]:
    """A search as GNU parallel runs it: those that take most cards first, the others after the last of them."""
    runs, clock = [], 0.0
    for cards in sorted({trial.num_gpus for trial in GRID}, reverse=True):
        free = [clock] * SLOTS[num_gpus][cards]
        for trial in (trial for trial in GRID if trial.num_gpus == cards):
            used = min(cards, num_gpus)
            (status, share), whole = fates(trial), seconds_of(trial, used)
            done = min(before(trial), share)
            seconds = start(trial) + (share - done) * whole if done < share else 1.0
            run = Run(trial, free[0], free[0] + seconds, done, share, whole, status, used, start(trial))
            if done >= share:
                run.end = 0.0  # ended before this search
            runs.append(run)
            heapq.heapreplace(free, free[0] + seconds)
        clock = max(free)
    return runs


def at(runs: list[Run], num_gpus: int, second: float) -> Progress:
    records = {run.trial.folder: run.record(second) for run in runs}
    ended = {run.trial.folder for run in runs if second >= run.end > 0}
    return assess(GRID, records, SLOTS[num_gpus], ended, BEGIN + timedelta(seconds=second))


def diverges(trial: Trial) -> tuple[str, float]:
    return ("failed", 0.1) if (trial.learning_rate, trial.task) == (3e-5, "CHID") else ("finished", 1.0)


def is_pruned(trial: Trial) -> tuple[str, float]:
    """A third of those after the first ones."""
    later = [one.folder for one in GRID if one.task == trial.task].index(trial.folder) >= 3
    return ("pruned", 0.4) if later and random.Random(trial.folder).random() < 0.33 else ("finished", 1.0)


def resumed(trial: Trial) -> float:
    """The trials of CHID have finished before, one of C3 is half done."""
    return 1.0 if trial.task == "CHID" else 0.5 * (trial.folder == "C3/1e-5_24_0.1_42")


def waits_long(trial: Trial) -> float:
    """Trials that wait longer for their turn than most of them train."""
    return random.Random(trial.folder).uniform(300, 500)


@pytest.mark.parametrize("num_gpus", [1, 2, 8])
@pytest.mark.parametrize(
    "more",
    [{}, {"fates": diverges}, {"fates": is_pruned}, {"before": resumed}, {"start": waits_long}],
    ids=["full", "diverges", "pruned", "resumed", "slow starts"],
)
def test_the_time_left_is_within_a_quarter_of_the_truth(num_gpus, more):
    runs = simulate(num_gpus, **more)
    total = max(run.end for run in runs)
    found = {}
    for percent in (10, 30, 60, 90):
        second = total * percent / 100
        found[percent] = at(runs, num_gpus, second).seconds_left / (total - second)
    assert 0.5 < found.pop(10) < 2
    assert all(0.75 < ratio < 1.25 for ratio in found.values()), found


def test_what_is_done_counts_the_starts_that_what_is_left_counts():
    trials = [Trial("TNEWS", 1e-5, 16, 0.1, seed, 1) for seed in range(4)]
    short = Record(status="finished", wall_time=2.0, progress={}, fields={"max_steps": 4})
    found = assess(trials, {trial.folder: short if trial.seed < 2 else None for trial in trials}, {1: 1})
    assert found.share == pytest.approx(0.5) and found.seconds_left == pytest.approx(2 * (2.0 + START_SECONDS))


TRIALS = [Trial("TNEWS", 1e-5, 16, 0.1, seed, 1) for seed in range(8)]


def moment(second: float) -> datetime:
    return BEGIN + timedelta(seconds=second)


def searched(start: float, train: float, second: float, **more) -> Progress:
    """A search of eight trials that take so long, two at a time, at a second of it."""
    records = {}
    for number, trial in enumerate(TRIALS):
        begun = number // 2 * (start + train) + start
        if second >= begun + train:
            ends = {"status": "finished", "begun": moment(begun), "ended": moment(begun + train)}
            records[trial.folder] = Record(wall_time=train, fields={"max_steps": 9}, **ends)
        elif second >= begun:
            seen = {"begun": moment(begun), "last_seen": moment(second)}
            records[trial.folder] = Record(status="running", wall_time=second - begun, progress={}, **seen)
        elif second >= begun - start:  # it imports what it needs
            records[trial.folder] = Record(status="running", last_seen=moment(begun - start))
    return assess(TRIALS, records | more, {1: 2}, now=moment(second))


@pytest.mark.parametrize("start", [1.0, 3.0, 40.0, 400.0])
def test_what_a_start_takes_is_measured_on_the_search(start):
    train, total = 6.0, 4 * (start + 6.0)
    for second in (start + train + start + 1, 2 * (start + train) + start / 2, 3 * (start + train) + start / 4):
        assert searched(start, train, second).seconds_left == pytest.approx(total - second, rel=0.01), second


def test_the_start_of_a_search_that_was_broken_off_is_none():
    of_yesterday = [Trial("TNEWS", 1e-5, 16, 0.1, seed, 1) for seed in range(100, 106)]
    ends = {"status": "finished", "wall_time": 6.0, "begun": moment(-86400), "ended": moment(-86000)}
    yesterday = {trial.folder: Record(fields={"max_steps": 9}, **ends) for trial in of_yesterday}
    assert searched(3.0, 6.0, 21.0, **yesterday).seconds_left == pytest.approx(15.0, rel=0.01)


def test_a_task_that_has_not_begun_is_as_large_as_the_part_of_it_that_is_used():
    trials = [Trial(task, 1e-5, 16, 0.1, 42, 1) for task in ("OCNLI", "CMNLI")]
    part = {"max_steps": -1, "max_train_samples": 320, "max_eval_samples": 80}

    def left(**fields) -> float:
        done = Record(status="finished", wall_time=100.0, fields=fields)
        return assess(trials, {trials[0].folder: done, trials[1].folder: None}, {1: 1}).seconds_left - START_SECONDS

    whole, small = left(max_steps=-1), left(**part)
    longer = 54 / 39  # tokens of a sequence
    assert small < 100 * longer * 3 / 5 * 1.1 and whole > 5 * small
