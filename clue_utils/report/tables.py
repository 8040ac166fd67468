"""What the report's tables say."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from clue_utils import published, tasks
from clue_utils.grid.outcomes import STATUSES, Outcome
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


def own_score(winner: Outcome | None) -> str:
    """A winner's score as the table shows it: accuracy, or EM/F1."""
    if winner is None:
        return NOTHING
    return _pair(winner.score, winner.record.metrics.get("f1"))


def rule_score(winner: Outcome | None) -> str:
    """A winner's score by the rule it was published with, "" where that is the rule of every score."""
    if winner is None or not winner.task.published_metrics:
        return ""
    first, *second = map(winner.record.metrics.get, winner.task.published_metrics)
    return _pair(first, *(second or [None]))


def average_text(model: ModelReport, by_published_rule: bool = False) -> str:
    """The mean over the ten tasks, or ``72.10 (7 of 10)`` where some are not there."""
    average = model.average(by_published_rule)
    if average is None:
        return NOTHING
    mean, count = average
    return percent(mean) + (f" ({count} of {len(tasks.TASKS)})" if count < len(tasks.TASKS) else "")


def difference(model: ModelReport, task: tasks.Task) -> float | None:
    """Own minus published score in percentage points, by the rule it was published with; None if not comparable."""
    winner = model.winners[task.name]
    if winner is None or model.published is None or not model.is_comparable(winner):
        return None
    own = winner.score_by_published_rule
    return None if own is None else 100 * own - model.published.scores[task.name].value


def score_table(models: Sequence[ModelReport]) -> Table:
    """The winners' scores beside the published ones."""
    rows = []
    for model in models:
        winners = model.winners.values()
        cells = [average_text(model), *map(own_score, winners)]
        rows.append(Row(model.name, tuple(cells), "own", _best_cells(model, models)))
        by_rule = [*map(rule_score, winners)]
        if any(by_rule):
            cells = [average_text(model, by_published_rule=True), *by_rule]
            rows.append(Row(f"by the published rules{RULE_MARK}", tuple(cells), "rule"))
        if model.published:
            published = [_published(model.published.scores[task.name], task) for task in tasks.TASKS.values()]
            average = f"{model.published.average:.2f}{RULE_MARK}"
            rows.append(Row(f"published: {model.published.title}", (average, *published), "published"))
            differences = [difference(model, task) for task in tasks.TASKS.values()]
            own = model.average(by_published_rule=True)
            whole = own is not None and all(value is not None for value in differences)
            of_average = 100 * own[0] - model.published.average if own and whole else None
            cells = [signed(of_average) + (RULE_MARK if whole else "")]
            for task, value in zip(tasks.TASKS.values(), differences, strict=True):
                cells.append(signed(value) + (RULE_MARK if task.published_metrics and value is not None else ""))
            rows.append(Row("difference", tuple(cells), "difference"))
    return Table("Development scores in percent", ("model", "AVG", *tasks.TASKS), tuple(rows))


def _best_cells(model: ModelReport, models: Sequence[ModelReport]) -> frozenset[int]:
    """Columns of the score table in which a model leads the others; the mean counts where all have all tasks."""

    def values(model: ModelReport) -> list[float | None]:
        mean, count = model.average() or (0.0, 0)
        scores = [winner.score if winner else None for winner in model.winners.values()]
        return [mean if count == len(tasks.TASKS) else None, *scores]

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
    for model in models:
        cells = [
            setting_text(winner.trial, model.searches_dropout(name)) if winner and winner.trial else NOTHING
            for name, winner in model.winners.items()
        ]
        rows.append(Row(model.name, tuple(cells), "own"))
        if model.published:
            best = model.published.best_runs
            published = [setting_text(best[name], model.searches_dropout(name)) for name in tasks.TASKS]
            rows.append(Row(f"published: {model.published.title}", tuple(published), "published"))
    title = "Best learning rate, batch size and, where it was searched, dropout"
    return Table(title, ("model", *tasks.TASKS), tuple(rows), num_texts=len(tasks.TASKS))


def uncertainty_table(model: ModelReport) -> Table:
    """How far to trust each winner: what the size of the development set implies, and the spread over seeds."""
    rows = []
    for winner in filter(None, model.winners.values()):
        task = winner.task
        published = model.published.scores[task.name].value if model.published else None
        published_text = NOTHING if published is None else f"{published:.2f}"
        seeds = model.scores_over_seeds(winner)
        over_seeds = NOTHING
        if len(seeds) > 1:
            over_seeds = f"{percent(statistics.fmean(seeds))} ± {percent(statistics.stdev(seeds))} ({len(seeds)})"
        num_dev = _count(winner)
        compared = (published_text, signed(difference(model, task)))
        rule = task.published_metrics
        own = (percent(winner.score), percent(winner.standard_error()), num_dev, over_seeds)
        label = task.name if task.metric == "accuracy" else f"{task.name} {task.metric.upper()}"
        rows.append(Row(label, own + ((NOTHING, NOTHING) if rule else compared)))
        if rule:
            by_rule = percent(winner.record.metrics.get(rule[0]))
            own = (by_rule, percent(winner.standard_error(rule[0])), num_dev, NOTHING)
            rows.append(Row(f"{label}, published rule{RULE_MARK}", own + compared))
    header = ("task", "score", "std. error", "dev examples", "mean ± SD (seeds)", "published", "difference")
    return Table("Uncertainty", header, tuple(rows))


def _count(outcome: Outcome) -> str:
    return NOTHING if outcome.record.num_dev is None else str(outcome.record.num_dev)


def cost_table(model: ModelReport) -> Table:
    """Trials by status, time and GPU-hours of each task."""
    rows = [Row(name, _costs(model.of_task(name))) for name in model.tasks_with_trials]
    rows.append(Row("all tasks", _costs(model.outcomes), "total"))
    return Table("Trials and cost", ("task", *STATUSES, "time (h:m:s)", "GPU-hours"), tuple(rows))


def _costs(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    counts = [sum(outcome.status == status for outcome in outcomes) for status in STATUSES]
    seconds = sum(outcome.record.wall_time for outcome in outcomes)
    gpu_hours = sum(outcome.gpu_hours for outcome in outcomes)
    return (*(str(count) if count else NOTHING for count in counts), duration(seconds), f"{gpu_hours:.2f}")


def notes(models: Sequence[ModelReport]) -> list[str]:
    """What a reader has to know to read the tables rightly."""
    lines = [
        "Each score is that of the best finished trial on the development set it was chosen on, as published scores "
        "are: a little optimistic. Between equal scores the first in the grid's order wins: the lower learning rate, "
        "then the smaller batch, then the higher dropout; trials outside the published grid come after it.",
        "The standard error is what the size of the development set implies, sqrt(p(1-p)/n). CHID counts examples "
        "where its score counts blanks, so its value is on the high side.",
    ]
    winners = [winner for model in models for winner in model.winners.values() if winner]
    if any(winner.task.published_metrics for winner in winners) or any(model.published for model in models):
        lines.append(
            f"{RULE_MARK} CMRC2018 was very likely published with PaddleNLP's looser metric, which deletes Latin "
            "punctuation and compares no more than the first piece for F1; own scores are the official EM/F1. C3 was "
            "published with fillers, which stand in for choices that a question lacks, counted as choices; own scores "
            "leave them out. The published rules have a row of their own, and they alone, with the mean made with "
            "them, are compared with published numbers."
        )
    for model in models:
        odd = [w for w in model.winners.values() if w and not model.is_comparable(w)]
        if odd and model.published:
            counts = ", ".join(f"{w.task.name} {_count(w)} for {w.task.splits['dev'].num_examples}" for w in odd)
            lines.append(
                f"{model.name}: development sets that are not the release's are not compared with published scores "
                f"(examples there for the release's: {counts})."
            )
    return lines


def problems(model: ModelReport) -> dict[str, list[str]]:
    """One line for each trial that is not finished, by status; only statuses that occur."""
    return {
        status: [outcome.folder + (f": {outcome.reason}" if outcome.reason else "") for outcome in found]
        for status in STATUSES[1:]
        if (found := model.with_status(status))
    }
