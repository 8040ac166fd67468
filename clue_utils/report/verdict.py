"""Whether a published row was matched: its settings' own runs beside its scores, with the noise of ours.

The runs compared are the finished ones of a model that have the published setting of their task, whatever else was
searched; scores are by the rule that they were published with. Importing this module needs no PaddlePaddle.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from clue_utils import published, tasks
from clue_utils.grid.outcomes import Outcome
from clue_utils.language import later, say
from clue_utils.report.collect import ModelReport, setting_text
from clue_utils.report.tables import NOTHING, RULE_MARK, Row, Table, percent, signed
from clue_utils.report.uncertainty import LEVEL, interval

WITHIN, ABOVE, BELOW = later("within noise"), later("above"), later("below")
HOW = later(
    "Published scores matched: a published score is within noise if it lies in the interval of ours; else ours is "
    "above or below. The interval is Wilson's of the development examples (95 %). With k seeds the score is their "
    "mean, and each side of the interval, of length w, becomes sqrt(w² + e²), where e = t · SD · sqrt(1 + 1/k) is how "
    "far one more run may lie from the mean of k by Student's t: two seeds say little of their spread (e is 15.6 SD), "
    "three more (5.0 SD). For AVG the sides of the ten tasks are added in squares and divided by ten. Published scores "
    "are of one run each, the best of a grid on this development set, and so a little optimistic; their own noise is "
    "not known and not counted."
)


@dataclass(frozen=True)
class Verdict:
    """Own score and a published one, fractions.

    Attributes:
        text: ``WITHIN``, ``ABOVE`` or ``BELOW``; else why there is no verdict, in the language of the report.
        score: mean over the seeds; None without a verdict.
        low: and ``high``: ends of the interval of the score.
        num_dev: examples that each run was scored on.
        num_seeds: runs.
    """

    text: str
    published: float
    score: float | None = None
    low: float = 0.0
    high: float = 1.0
    num_dev: int | None = None
    num_seeds: int = 0


def noise(scores: Sequence[float], num_dev: int) -> tuple[float, float]:
    """The interval of the mean of the runs of one setting: by the size of the data and by the spread of its seeds.

    Args:
        scores: of the seeds, fractions.
        num_dev: examples that each of them is of.

    Returns:
        Its ends, fractions from 0 to 1, see ``HOW``.
    """
    mean = statistics.fmean(scores)
    low, high = interval(mean, num_dev)
    if (num := len(scores)) > 1:
        from_seeds = _student(num - 1) * statistics.stdev(scores) * math.sqrt(1 + 1 / num)
        low, high = mean - math.hypot(mean - low, from_seeds), mean + math.hypot(high - mean, from_seeds)
    return max(0.0, low), min(1.0, high)


def _student(degrees: int) -> float:
    """The quantile of Student's t that bounds 95 % on both sides."""
    from scipy import stats

    return float(stats.t.ppf((1 + LEVEL) / 2, degrees))


def verdict(score: float, low: float, high: float, published_score: float) -> str:
    """Where a score lies beside a published one, all fractions: ``low`` to ``high`` is the interval of the score."""
    if low <= published_score <= high:
        return WITHIN
    return ABOVE if score > published_score else BELOW


def runs_of_row(model: ModelReport, task: tasks.Task) -> list[Outcome]:
    """The finished trials that have the published setting of the task, one a seed."""
    best = model.published.best_runs.get(task.name) if model.published else None
    finished = [outcome for outcome in model.of_task(task.name) if outcome.status == "finished"]
    return [outcome for outcome in finished if best and outcome.trial and outcome.trial[1:4] == tuple(best)]


def of_task(model: ModelReport, task: tasks.Task) -> Verdict | None:
    """The verdict on a task; None where no run has the published setting, or there is no published score."""
    runs = runs_of_row(model, task)
    if not (model.published and runs):
        return None
    wanted = model.published.scores[task.name].value / 100
    sizes = {run.record.num_dev for run in runs}
    found = [score for run in runs if (score := run.score_by_published_rule) is not None]
    official, reason = task.splits["dev"].num_examples, ""
    if sizes != {official}:
        there = ", ".join(say("unknown") if size is None else str(size) for size in sorted(sizes, key=str))
        reason = say("{there} development examples, the release has {official}", there=there, official=official)
    elif any(run.record.fields.get("max_train_samples") for run in runs):
        reason = say("trained on a part of the training set (--max_train_samples)")
    elif len({run.record.data_sha256.get("dev") for run in runs}) > 1:
        reason = say("the runs of its seeds have different development data")
    elif len(found) < len(runs):
        reason = say("a run of it has no score by the published rule: evaluate it again")
    if reason:
        return Verdict(say("none: {reason}", reason=reason), wanted, num_seeds=len(runs))
    mean, (low, high) = statistics.fmean(found), noise(found, official)
    return Verdict(verdict(mean, low, high, wanted), wanted, mean, low, high, official, len(runs))


def of_average(model: ModelReport) -> Verdict | None:
    """The verdict on the mean of the ten tasks; None unless each of them has one."""
    found = [one for task in tasks.TASKS.values() if (one := of_task(model, task)) and one.score is not None]
    if not model.published or len(found) < len(tasks.TASKS):
        return None
    mean = statistics.fmean(one.score or 0.0 for one in found)
    low = mean - math.hypot(*((one.score or 0.0) - one.low for one in found)) / len(found)
    high = mean + math.hypot(*(one.high - (one.score or 0.0) for one in found)) / len(found)
    wanted = model.published.average / 100
    return Verdict(verdict(mean, low, high, wanted), wanted, mean, low, high, num_seeds=min(o.num_seeds for o in found))


def verdict_table(model: ModelReport) -> Table:
    """A row for each task of which a trial has the published setting, and one for AVG where all ten have a verdict."""
    rows = []
    for task in tasks.TASKS.values():
        if (one := of_task(model, task)) and model.published:
            best: published.Best = model.published.best_runs[task.name]
            label = task.name + (RULE_MARK if task.published_metrics else "")
            rows.append(_row(label, one, setting_text(best, model.searches_dropout(task.name))))
    if (one := of_average(model)) is not None:
        rows.append(_row(f"AVG{RULE_MARK}", one, NOTHING, "total"))
    title = say("Published scores matched")
    header = (
        say("task"),
        say("verdict"),
        say("setting"),
        say("score"),
        say("95 % noise"),
        say("published"),
        say("difference"),
        say("dev records"),
        say("seeds"),
    )
    return Table(title, header, tuple(rows), num_texts=2)


def _row(label: str, one: Verdict, setting: str, kind: str = "") -> Row:
    cells = (
        one.text if one.score is None else say(one.text),  # a reason is in the report's language already
        setting,
        percent(one.score),
        NOTHING if one.score is None else f"{percent(one.low)}–{percent(one.high)}",
        percent(one.published),
        signed(None if one.score is None else 100 * (one.score - one.published)),
        NOTHING if one.num_dev is None else str(one.num_dev),
        str(one.num_seeds),
    )
    return Row(label, cells, kind)


def summary(model: ModelReport) -> str:
    """One sentence on all verdicts of a model; "" without any."""
    found = [(task, one) for task in tasks.TASKS.values() if (one := of_task(model, task))]
    if not (found and model.published):
        return ""
    counts = {text: [task.name for task, one in found if one.text == text] for text in (WITHIN, ABOVE, BELOW)}
    parts = [
        say("{count} {verdict}", count=len(names), verdict=say(text))
        + (say(" ({names})", names=", ".join(names)) if text != WITHIN else "")
        for text, names in counts.items()
        if names
    ]
    if none := sum(one.score is None for _, one in found):
        parts.append(say("{count} without a verdict", count=none))
    number = say("of 1 task") if len(found) == 1 else say("of {count} tasks", count=len(found))
    return say(
        "{model} beside {title} as published: {number} {parts}.",
        model=model.name,
        title=model.published.title,
        number=number,
        parts=say(", ").join(parts),
    )


def notes(models: Sequence[ModelReport]) -> list[str]:
    """The verdicts in a sentence a model, and how they are come to; none where there is no verdict."""
    lines = [line for line in map(summary, models) if line]
    return [*lines, say(HOW)] if lines else []
