"""What the report's tables say."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from clue_utils import published, tasks
from clue_utils.grid.outcomes import STATUSES, Outcome, clean
from clue_utils.language import say
from clue_utils.record import RESULT_FILE, WEIGHTS_FILE
from clue_utils.report.collect import ModelReport, setting_text

NOTHING = "–"
RULE_MARK = "†"


@dataclass(frozen=True)
class Row:
    """``kind`` says how the row is set off: "own", "rule", "published", "difference", "total" or "".

    ``best`` are the positions of cells that no other model's exceed.
    """

    label: str
    cells: tuple[str, ...]
    kind: str = ""
    best: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Table:
    """``header`` names the labels' column and those of the cells; ``num_texts`` first cells are text, not numbers."""

    title: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    num_texts: int = 0


def percent(fraction: float | None) -> str:
    """A fraction as a percentage with two decimals."""
    return NOTHING if fraction is None else f"{100 * fraction:.2f}"


def signed(points: float | None) -> str:
    """Percentage points with a sign; the minus is typographic."""
    return NOTHING if points is None else f"{points:+.2f}".replace("-", "\N{MINUS SIGN}")


def duration(seconds: float) -> str:
    """``1:05:09`` (hours, minutes, seconds)."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _pair(first: float | None, second: float | None) -> str:
    return percent(first) if second is None else f"{percent(first)}/{percent(second)}"


def own_score(model: ModelReport, winner: Outcome | None) -> str:
    """A winner's score as the table shows it: accuracy, or EM/F1."""
    return _pair(model.value(winner), model.value(winner, "f1") if winner and winner.task.metric == "em" else None)


def rule_score(model: ModelReport, winner: Outcome | None) -> str:
    """A winner's score by the rule it was published with, marked where that is not the rule of every score."""
    if winner is None or not winner.task.published_metrics:
        return own_score(model, winner)
    first, *second = (model.value(winner, metric) for metric in winner.task.published_metrics)
    return _pair(first, *(second or [None])) + (RULE_MARK if first is not None else "")


def shown_tasks(models: Sequence[ModelReport]) -> list[tasks.Task]:
    """The tasks of the tables: CLUE's ten, but where all trials are of users' tasks, and these."""
    outcomes = [outcome for model in models for outcome in model.outcomes]
    own = [task for name, task in tasks.OWN.items() if any(outcome.task.name == name for outcome in outcomes)]
    has_ten = not own or any(not outcome.task.is_own for outcome in outcomes)
    return [*(tasks.TASKS.values() if has_ten else ()), *own]


def average_text(model: ModelReport, by_published_rule: bool = False) -> str:
    """The mean over the tasks, or ``72.10 (7 of 10)`` where some are not there."""
    average = model.average(by_published_rule)
    if average is None:
        return NOTHING
    mean, count = average
    number = len(model.averaged)
    return percent(mean) + ("" if count == number else say(" ({count} of {all})", count=count, all=number))


def difference(model: ModelReport, task: tasks.Task) -> float | None:
    """Own minus published score in percentage points, by the rule it was published with; None if not comparable."""
    winner = model.winners[task.name]
    if winner is None or model.published is None or not model.is_comparable(winner):
        return None
    own = model.value_by_published_rule(winner)
    return None if own is None else 100 * own - model.published.scores[task.name].value


def score_table(models: Sequence[ModelReport]) -> Table:
    """The winners' scores beside the published ones.

    What a difference is taken from stands in the two rows above it.
    """
    rows = []
    shown = shown_tasks(models)
    for model in models:
        winners = [model.winners[task.name] for task in shown]
        cells = [average_text(model), *(own_score(model, winner) for winner in winners)]
        rows.append(Row(model.name, tuple(cells), "own", _best_cells(model, models)))
        if any(winner and winner.task.published_metrics for winner in winners):
            cells = [average_text(model, by_published_rule=True), *(rule_score(model, winner) for winner in winners)]
            rows.append(Row(say("by the published rules") + RULE_MARK, tuple(cells), "rule"))
        if model.published and any(not task.is_own for task in shown):
            scores = model.published.scores
            published = [_published(scores[task.name], task) if task.name in scores else NOTHING for task in shown]
            average = f"{model.published.average:.2f}{RULE_MARK}"
            label = say("published: {title}", title=model.published.title)
            rows.append(Row(label, (average, *published), "published"))
            differences = [difference(model, task) for task in shown]
            own = model.average(by_published_rule=True)
            of_ten = [value for task, value in zip(shown, differences, strict=True) if not task.is_own]
            whole = own is not None and all(value is not None for value in of_ten)
            of_average = 100 * own[0] - model.published.average if own and whole else None
            cells = [signed(of_average) + (RULE_MARK if whole else "")]
            for task, value in zip(shown, differences, strict=True):
                cells.append(signed(value) + (RULE_MARK if task.published_metrics and value is not None else ""))
            rows.append(Row(say("difference of the two rows above"), tuple(cells), "difference"))
    title = say("Development scores in percent: the best trial of each task")
    if any(model.choice == "mean" for model in models):
        title = say("Development scores in percent: the mean over seeds of the best setting of each task")
    return Table(title, (say("model"), "AVG", *(task.name for task in shown)), tuple(rows))


def _best_cells(model: ModelReport, models: Sequence[ModelReport]) -> frozenset[int]:
    """Columns of the score table in which a model leads the others; the mean counts where all have all tasks."""

    def values(model: ModelReport) -> list[float | None]:
        mean, count = model.average() or (0.0, 0)
        scores = [model.value(model.winners[task.name]) for task in shown_tasks(models)]
        return [mean if count == len(model.averaged) else None, *scores]

    columns = zip(values(model), *map(values, models), strict=True)
    best = set()
    for i, (own, *all_scores) in enumerate(columns):
        known = [score for score in all_scores if score is not None]
        if len(models) > 1 and len(known) == len(models) and own == max(known):
            best.add(i)
    return frozenset(best)


def _published(score: published.Score, task: tasks.Task) -> str:
    text = f"{score.value:.2f}" + (f"/{score.f1:.2f}" if score.f1 is not None else "")
    return text + (RULE_MARK if task.published_metrics else "")


def setting_table(models: Sequence[ModelReport]) -> Table:
    """The winners' hyper-parameters beside the published ones."""
    rows = []
    names = [task.name for task in shown_tasks(models)]
    for model in models:
        cells = [
            setting_text(winner.trial, model.searches_dropout(name)) if winner and winner.trial else NOTHING
            for name in names
            for winner in [model.winners[name]]
        ]
        rows.append(Row(model.name, tuple(cells), "own"))
        if model.published and any(name in model.published.best_runs for name in names):
            best = model.published.best_runs
            published = [
                setting_text(best[name], model.searches_dropout(name)) if name in best else NOTHING for name in names
            ]
            rows.append(Row(say("published: {title}", title=model.published.title), tuple(published), "published"))
    title = say("Best learning rate, batch size and, where it was searched, dropout")
    return Table(title, (say("model"), *names), tuple(rows), num_texts=len(names))


def uncertainty_table(model: ModelReport) -> Table:
    """How far to trust each winner: what the size of the development set implies, and the spread over seeds."""
    rows = []
    for winner in filter(None, model.winners.values()):
        task = winner.task
        scores = model.published.scores if model.published else {}
        published = scores[task.name].value if task.name in scores else None
        published_text = NOTHING if published is None else f"{published:.2f}"
        compared = (published_text, signed(difference(model, task)))
        rule = task.published_metrics
        label = task.name if task.metric == "accuracy" else f"{task.name} {task.metric.upper()}"
        own = _trust(model, winner, task.metric)
        rows.append(Row(label, own + ((NOTHING, NOTHING) if rule else compared)))
        if rule:
            label = say("{task}, published rule", task=label) + RULE_MARK
            rows.append(Row(label, _trust(model, winner, rule[0]) + compared))
    header = (
        say("task"),
        say("score"),
        say("95 % interval"),
        say("dev records"),
        say("mean ± SD (seeds)"),
        say("published"),
        say("difference"),
    )
    return Table(say("Uncertainty"), header, tuple(rows))


def _trust(model: ModelReport, winner: Outcome, metric: str) -> tuple[str, ...]:
    """Score, interval, records, and mean over seeds of a winner."""
    interval = model.interval(winner, metric)
    seeds = [one.record.metrics.get(metric) for one in model.same_setting(winner)]
    known = [value for value in seeds if value is not None]
    over_seeds = NOTHING
    if len(known) > 1:
        over_seeds = f"{percent(statistics.fmean(known))} ± {percent(statistics.stdev(known))} ({len(known)})"
    interval_text = f"{percent(interval[0])}–{percent(interval[1])}" if interval else NOTHING
    return percent(model.value(winner, metric)), interval_text, _count(winner), over_seeds


def _count(outcome: Outcome) -> str:
    return NOTHING if outcome.record.num_dev is None else str(outcome.record.num_dev)


def cost_table(model: ModelReport) -> Table:
    """Trials by status, of those that occur, time and GPU-hours of each task."""
    statuses = [status for status in STATUSES if status == "finished" or model.with_status(status)]
    rows = [Row(name, _costs(model.of_task(name), statuses)) for name in model.tasks_with_trials]
    rows.append(Row(say("all tasks"), _costs(model.outcomes, statuses), "total"))
    header = (say("task"), *map(say, statuses), say("time (h:m:s)"), say("GPU-hours"))
    return Table(say("Trials and cost"), header, tuple(rows))


def model_table(models: Sequence[ModelReport]) -> Table:
    """What each model is and was trained with, as the records of its runs say; several values where they differ."""
    header = (
        say("model"),
        say("size"),
        say("weights"),
        say("precision"),
        say("card"),
        "PaddlePaddle",
        "PaddleNLP",
        say("commit"),
        say("date"),
        say("GPU-hours"),
    )
    rows = tuple(Row(model.name, _facts(model)) for model in models)
    return Table(say("Models and machines"), header, rows, num_texts=len(header) - 2)


class Pair(Protocol):
    """A model beside another one: mean difference and 95 % interval, fractions, and tasks with a real difference."""

    @property
    def average(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def better(self) -> Sequence[str]: ...
    @property
    def worse(self) -> Sequence[str]: ...
    @property
    def reason(self) -> str: ...


def pair_table(names: Sequence[str], pairs: Mapping[tuple[str, str], Pair]) -> Table:
    """Each model minus each other one.

    Args:
        names: of the models, in the order of rows and columns.
        pairs: (row, column) -> the comparison; one with a ``reason`` was not possible.
    """

    def cell(row: str, column: str) -> str:
        pair = pairs.get((row, column))
        if pair is None or pair.reason:
            return NOTHING
        average, low, high = (signed(100 * value) for value in (pair.average, pair.low, pair.high))
        real = "" if pair.low <= 0 <= pair.high else "*"
        return f"{average}{real} [{low},\N{NO-BREAK SPACE}{high}] {len(pair.better)}:{len(pair.worse)}"

    rows = tuple(Row(name, tuple(cell(name, other) for other in names)) for name in names)
    title = say(
        "Row minus column in points: mean difference [95 % interval], tasks on which the row is better : worse beyond "
        "chance. *: the interval leaves out 0."
    )
    return Table(title, (say("model"), *names), rows)


def _facts(model: ModelReport) -> tuple[str, ...]:
    records = [one.record for one in model.outcomes if one.record.fields]
    winners = [winner for winner in model.winners.values() if winner and winner.has_checkpoint and winner.path]
    sizes = [(winner.path / WEIGHTS_FILE).stat().st_size for winner in winners if winner.path]
    dates = sorted(
        datetime.datetime.fromtimestamp((record.folder / RESULT_FILE).stat().st_mtime).date().isoformat()
        for record in records
        if (record.folder / RESULT_FILE).is_file()
    )
    span = f"{dates[0]} – {dates[-1]}" if dates and dates[0] != dates[-1] else (dates or [NOTHING])[0]

    def versions(*names: str) -> str:
        found = [_within(record.fields, "versions") for record in records]
        return _values([version[name] for version in found for name in names if name in version])

    return (
        model.published.config if model.published else NOTHING,
        f"{max(sizes) / 1e6:,.0f} MB" if sizes else NOTHING,
        _values([record.hyper_parameters.get("precision") for record in records]),
        _values([_within(record.fields, "card").get("name") or record.fields.get("device") for record in records]),
        versions("paddlepaddle", "paddlepaddle-gpu", "paddlepaddle-xpu"),
        versions("paddlenlp"),
        _values([str(record.fields.get("commit") or "")[:8] for record in records]),
        span,
        f"{sum(outcome.gpu_hours for outcome in model.outcomes):.2f}",
    )


def _within(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = fields.get(name)
    return value if isinstance(value, dict) else {}


def _values(found: Iterable[object]) -> str:
    """The different values that records hold, in their order."""
    return clean(", ".join(dict.fromkeys(str(value) for value in found if value))) or NOTHING


def _costs(outcomes: Sequence[Outcome], statuses: Sequence[str]) -> tuple[str, ...]:
    counts = [sum(outcome.status == status for outcome in outcomes) for status in statuses]
    seconds = sum(outcome.record.wall_time for outcome in outcomes)
    gpu_hours = sum(outcome.gpu_hours for outcome in outcomes)
    return (*(str(count) if count else NOTHING for count in counts), duration(seconds), f"{gpu_hours:.2f}")


def notes(models: Sequence[ModelReport]) -> list[str]:
    """What a reader has to know to read the tables rightly."""
    if any(model.choice == "mean" for model in models):
        first = say(
            "Each score is the mean over seeds of the setting whose mean is the highest, on the development set it was "
            "chosen on. Only settings that finished with the most seeds compete. --choose best takes the single best "
            "trial, as published scores do."
        )
    else:
        first = say(
            "Each score is that of the best finished trial on the development set it was chosen on, as published "
            "scores are: a little optimistic, the more so the more seeds there are. --choose mean takes the setting "
            "whose mean over seeds is the highest."
        )
    lines = [
        first,
        say(
            "Between equal scores the first in the grid's order wins: the lower learning rate, then the smaller batch, "
            "then the higher dropout; trials outside the published grid come after it."
        ),
        say(
            "Intervals are Wilson's, two-sided 95 %: what the size of the development set implies for one score. Two "
            "models that read the same records differ more surely than their intervals suggest: compare them record "
            "by record. CHID counts records where its score counts blanks, so its interval is on the wide side."
        ),
    ]
    winners = [winner for model in models for winner in model.winners.values() if winner]
    if any(winner.task.published_metrics for winner in winners) or any(
        model.published and any(not winner.task.is_own for winner in winners) for model in models
    ):
        lines.append(
            RULE_MARK
            + " "
            + say(
                "CMRC2018 was very likely published with PaddleNLP's looser metric, which deletes Latin punctuation "
                "and compares no more than the first piece for F1; own scores are the official EM/F1. C3 was published "
                "with fillers, which stand in for choices that a question lacks, counted as choices; own scores leave "
                "them out. The published rules have a row of their own, and it alone is compared with published "
                "numbers."
            )
        )
    lines += filter(None, map(_kept_weights, models))
    for model in models:
        of_ten = [w for w in model.winners.values() if w and not w.task.is_own]
        part = [w.task.name for w in of_ten if w.record.fields.get("max_train_samples")]
        if part and model.published:
            lines.append(
                say(
                    "{model}: trained on a part of the training set (--max_train_samples), not compared with published "
                    "scores: {tasks}.",
                    model=model.name,
                    tasks=", ".join(part),
                )
            )
        odd = [w for w in of_ten if w.task.name not in part and not model.is_comparable(w)]
        if odd and model.published:
            counts = ", ".join(
                say(
                    "{task} {count} for {released}",
                    task=w.task.name,
                    count=_count(w),
                    released=w.task.splits["dev"].num_examples,
                )
                for w in odd
            )
            lines.append(
                say(
                    "{model}: development sets that are not the release's are not compared with published scores "
                    "(records there for the release's: {counts}).",
                    model=model.name,
                    counts=counts,
                )
            )
    return lines


def _kept_weights(model: ModelReport) -> str:
    """Which finished trials still have their weights, where others do not; "" where all have them."""
    finished = model.with_status("finished")
    kept = [outcome.folder for outcome in finished if outcome.has_checkpoint]
    gone = len(finished) - len(kept)
    if not (gone and kept):
        return ""
    return say(
        "{model}: weights are kept of {kept}; those of {gone} more finished trials are not there.",
        model=model.name,
        kept=", ".join(kept),
        gone=gone,
    )


def problems(model: ModelReport) -> dict[str, list[str]]:
    """One line for each trial that is not finished, by status; only statuses that occur."""
    return {
        status: [_with_reason(outcome) for outcome in found]
        for status in STATUSES[1:]
        if (found := model.with_status(status))
    }


def _with_reason(outcome: Outcome) -> str:
    return say("{title}: {text}", title=outcome.folder, text=outcome.reason) if outcome.reason else outcome.folder
