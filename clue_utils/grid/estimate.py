"""What a search will cost, before it begins: a trial of each task on a sample of its data, by the task's own script.

Of each task the trial with the smallest batch makes a few updates on a part of the training records and evaluates a
part of the development records, both spread evenly over the files, so that texts are as long as those of the whole.
Time of updates is taken as proportional to the examples, and time of an evaluation too; what is left of the process's
time, such as its start, belongs to every trial. The first updates are left out, which are slower. Imports no
PaddlePaddle.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clue_utils import task_file
from clue_utils.data.examples import find_files
from clue_utils.data.readers import Reader
from clue_utils.errors import UserError
from clue_utils.grid import schedule, trial
from clue_utils.grid.progress import end_of
from clue_utils.grid.search_space import Trial
from clue_utils.language import say
from clue_utils.record import METRICS_FILE, WEIGHTS_FILE, Record
from clue_utils.tasks import KNOWN, Task

# Updates that are made, and those of them in each line of the log; the first line is left out.
_STEPS, _LOGGED = 15, 5
# Records of a sample. A card takes many texts at a time, which few would not fill.
_NUM_TRAIN, _NUM_DEV, _NUM_DEV_OF_CARD = 512, 128, 1024
# What a checkpoint to go on from holds: weights and AdamW's two moments.
_WEIGHTS_OF_CHECKPOINT = 3
_FEATURES = re.compile(r" train: (\d+) features ")
_EVALUATION = re.compile(r"eval done total : ([0-9.e+-]+) s")


@dataclass(frozen=True)
class Measured:
    """What a trial on a sample took, and how many times as large the whole is.

    Attributes:
        batch_size: over all GPUs, of the trial that was measured.
        seconds_per_step: of it.
        seconds_per_evaluation: of the whole development set.
        overhead: seconds of a trial beside its updates and evaluations.
        num_rows: rows of features of the whole training set.
        weights: bytes of the weights that a trial keeps; ``rest`` those of its other files.
        features: bytes of the encoded training and development set.
    """

    batch_size: int
    seconds_per_step: float
    seconds_per_evaluation: float
    overhead: float
    num_rows: int
    weights: int
    rest: int
    features: int


@dataclass(frozen=True)
class Cost:
    """What a trial will take.

    Attributes:
        seconds: from its start to its end, on ``num_processes`` GPUs, or on the CPU.
        peak: bytes of its folder at most, with the checkpoints that it can go on from.
    """

    num_steps: int
    num_evaluations: int
    seconds: float
    num_processes: int
    peak: int

    @property
    def hours(self) -> float:
        """GPU hours, or on the CPU hours of a slot."""
        return self.seconds * self.num_processes / 3600


@dataclass(frozen=True)
class Estimate:
    """What a search will cost.

    Attributes:
        measured: by task.
        costs: of each trial that is not finished already.
        num_finished: trials that are.
        seconds: of the whole search on its GPUs or slots.
        disk: bytes when it has ended, of all weights; ``disk_of_best`` with ``--keep best``.
        peak: bytes that trials at work take besides.
    """

    measured: Mapping[str, Measured]
    costs: Mapping[Trial, Cost]
    num_finished: int
    seconds: float
    disk: int
    disk_of_best: int
    peak: int


def estimate(search: schedule.Search, report: Callable[[str], None] = lambda _: None) -> Estimate:
    """Measure a trial of each task that is not done, and reckon with it what all of them will take.

    Args:
        report: told what is measured now.

    Raises:
        UserError: a trial that is measured failed; all trials are finished; the data is missing.
    """
    plans = [plan for plan in search.plans() if not trial.ending(plan)]
    if not plans:
        raise UserError(
            say(
                "{folder}: all {num_trials} trials are finished, nothing is left to estimate",
                folder=search.folder,
                num_trials=len(search.trials),
            )
        )
    by_task: dict[str, list[trial.Plan]] = {}
    for plan in plans:
        by_task.setdefault(plan.trial.task, []).append(plan)
    measured: dict[str, Measured] = {}
    costs: dict[Trial, Cost] = {}
    with tempfile.TemporaryDirectory(prefix="clue-estimate-") as folder:
        for i, (name, of_task) in enumerate(by_task.items(), 1):
            report(f"[{i}/{len(by_task)}] {name}")
            plan = min(of_task, key=lambda plan: plan.trial.batch_size)
            measured[name] = _measure(search, plan, Path(folder, name))
            costs |= {plan.trial: cost_of(plan, measured[name]) for plan in of_task}
    return _sum_up(search, measured, costs)


def _measure(search: schedule.Search, plan: trial.Plan, folder: Path) -> Measured:
    """Run a trial on a sample of its data, all of which goes to ``folder``."""
    task = task_file.with_files(KNOWN[plan.trial.task], plan.given)
    num_dev = _NUM_DEV_OF_CARD if plan.gpus else _NUM_DEV
    data, cache = folder / "data", folder / "cache"
    shares = {
        split: write_sample(task, split, plan.given["data_dir"], data, num)
        for split, num in (("train", _NUM_TRAIN), ("dev", num_dev))
    }
    flags = [word for word in plan.flags if word not in ("--do_predict", "--prune")]
    flags += ["--data_dir", str(data)]
    for word, split in (("train", "train"), ("validation", "dev")):
        if task.splits[split].is_placed:
            flags += [f"--{word}_file", *(str(data / split / Path(name).name) for name in task.splits[split].files[0])]
    flags += ["--max_steps", str(_STEPS), "--logging_steps", str(_LOGGED)]
    flags += ["--save_steps", str(_STEPS), "--checkpoint_minutes", "600"]
    variables = {"CLUE_CACHE_DIR": str(cache)} | ({} if plan.gpus else schedule.share_of_cpu(search.cpu_slots))
    with contextlib.ExitStack() as held:
        held.enter_context(_environment(variables))
        given = plan.gpus
        if given:  # those that another search works on are waited for
            given = tuple(held.enter_context(schedule.free_group(search.groups(plan.trial.num_gpus))))
        of_sample = dataclasses.replace(
            trial.make_plan(plan.model, plan.trial, flags, given), folder=folder / "output" / plan.trial.folder
        )
        begin = time.monotonic()
        with contextlib.redirect_stdout(io.StringIO()) as said:
            status = trial.run(of_sample, asks=False)
        seconds = time.monotonic() - begin
    if status:
        found = Record.read(of_sample.folder)
        reason = (
            found.remark if found and found.remark else said.getvalue().strip() or say("status {status}", status=status)
        )
        raise UserError(say("{name}: the trial that is measured failed: {reason}", name=task.name, reason=reason))
    return read_measured(of_sample.folder, plan.trial.batch_size, seconds, shares, cache)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Have these variables in the environment for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def read_measured(folder: Path, batch_size: int, seconds: float, shares: Mapping[str, float], cache: Path) -> Measured:
    """What a trial on a sample tells of one on the whole.

    Args:
        seconds: of its process.
        shares: split -> records of the whole for each of the sample.
        cache: where its features are.
    """
    log = (folder / "trial.log").read_text(encoding="utf-8", errors="replace")
    lines = map(json.loads, (folder / METRICS_FILE).read_text(encoding="utf-8").splitlines())
    speeds = [line["steps_per_second"] for line in lines if line["kind"] == "train"][-(_STEPS // _LOGGED) :]
    *_, num_rows = map(int, _FEATURES.findall(log))
    evaluations = [*map(float, _EVALUATION.findall(log))]
    per_step = sum(1 / speed for speed in speeds[1:]) / len(speeds[1:])
    files = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    weights = files.get(folder / WEIGHTS_FILE, 0)
    features = sum(
        path.stat().st_size * share for split, share in shares.items() for path in cache.rglob(f"*-{split}-*.arrow")
    )
    return Measured(
        batch_size=batch_size,
        seconds_per_step=per_step,
        # The last is of a model that was loaded anew; the first of a process is slower.
        seconds_per_evaluation=evaluations[-1] * shares["dev"],
        overhead=max(0.0, seconds - _STEPS * per_step - sum(evaluations)),
        num_rows=round(num_rows * shares["train"]),
        weights=weights,
        rest=sum(files.values()) - weights,
        features=round(features),
    )


def cost_of(plan: trial.Plan, measured: Measured) -> Cost:
    """What a trial will take, by one of its task that was measured."""
    settings, batch_size = trial.settings_of(plan), plan.batch_size * plan.num_processes
    per_epoch = math.ceil(measured.num_rows / batch_size)
    num_steps = settings.max_steps if settings.max_steps > 0 else per_epoch * int(settings.num_train_epochs)
    # The last is after the last step, whatever the interval, and one more is of the best checkpoint.
    num_evaluations = math.ceil(num_steps / (settings.save_steps or per_epoch)) + 1
    training = num_steps * batch_size * measured.seconds_per_step / measured.batch_size
    seconds = training + num_evaluations * measured.seconds_per_evaluation + measured.overhead
    # Two checkpoints are kept while a third is written.
    interval = 60 * settings.checkpoint_minutes
    num_checkpoints = min(3, 1 + int(training / interval)) if interval else 3
    peak = measured.weights * (1 + _WEIGHTS_OF_CHECKPOINT * num_checkpoints) + measured.rest
    return Cost(num_steps, num_evaluations, seconds, plan.num_processes, peak)


def _sum_up(search: schedule.Search, measured: Mapping[str, Measured], costs: Mapping[Trial, Cost]) -> Estimate:
    seconds, peak, slots = 0.0, 0, search.slots()
    for num_gpus in sorted({one.num_gpus for one in costs}, reverse=True):
        of_phase = [cost for one, cost in costs.items() if one.num_gpus == num_gpus]
        seconds += end_of([cost.seconds for cost in of_phase], slots[num_gpus])
        peak = max(peak, sum(sorted((cost.peak for cost in of_phase), reverse=True)[: slots[num_gpus]]))
    features = sum(one.features for one in measured.values())
    rest = features + sum(measured[one.task].rest for one in costs)
    num_seeds = {name: len({one.seed for one in costs if one.task == name}) for name in measured}
    return Estimate(
        measured,
        costs,
        len(search.trials) - len(costs),
        seconds,
        disk=rest + sum(measured[one.task].weights for one in costs),
        disk_of_best=rest + sum(one.weights * num_seeds[name] for name, one in measured.items()),
        peak=peak,
    )


def write_sample(task: Task, split: str, data_dir: str | None, folder: Path, number: int) -> float:
    """Write some ``number`` records of a split, spread evenly over its files, in the official layout; of
    files with places of their own, to the folder ``split``.

    Returns:
        How many records the whole has for each of the sample, at least 1.

    Raises:
        UserError: the files are missing or damaged.
    """
    files = find_files(task, split, data_dir)
    target = folder / (split if task.splits[split].is_placed else task.folder)
    target.mkdir(parents=True, exist_ok=True)
    if task.kind in ("classification", "cloze"):
        try:
            with files[0].open("rb") as stream:  # lines end at line feeds only
                lines = [line for line in stream if line.strip()]
        except OSError as error:
            raise UserError(
                say("{files}: cannot be read ({strerror})", files=files[0], strerror=error.strerror)
            ) from None
        chosen = _spread(lines, number)
        (target / files[0].name).write_bytes(b"".join(chosen))
        for path in files[1:]:  # answers by tag, of which there may be more than are asked for
            shutil.copyfile(path, target / path.name)
        return len(lines) / max(1, len(chosen))
    total = written = 0
    for path in files:
        document = Reader().document(path)
        try:
            documents = document["data"] if task.kind == "span" else document
            counts = [*map(_num_questions, documents)]
            share = min(1.0, number / len(files) / max(1, sum(counts)))
            chosen = _spread([*range(len(documents))], max(1, round(share * len(documents))))
            total, written = total + sum(counts), written + sum(counts[i] for i in chosen)
            kept: Any = [documents[i] for i in chosen]
        except (TypeError, KeyError, IndexError):
            raise UserError(say("{path}: not in the form of the official file", path=path)) from None
        text = json.dumps({**document, "data": kept} if task.kind == "span" else kept, ensure_ascii=False)
        (target / path.name).write_text(text, encoding="utf-8")
    return total / max(1, written)


def _num_questions(document: Any) -> int:
    """Questions of a document of C3, or of an article of CMRC2018."""
    if isinstance(document, dict):
        return sum(len(paragraph["qas"]) for paragraph in document["paragraphs"])
    return len(document[1])


def _spread(items: Sequence[Any], number: int) -> list[Any]:
    """At most so many of the items, at even distances."""
    if len(items) <= number:
        return [*items]
    return [items[i * len(items) // number] for i in range(number)]
