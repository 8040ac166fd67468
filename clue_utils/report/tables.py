"""The report's tables, as text for the terminal, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import re
import statistics
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clue_utils import published, tasks
from clue_utils.grid.outcomes import STATUSES, Outcome, clean
from clue_utils.report.collect import ModelReport, setting_text

NOTHING = "–"


RULE_MARK = "†"


# Columns that a row's label may take in a terminal; a longer one loses its middle.
_LABEL_WIDTH = 40


# Characters with a meaning in Markdown or HTML.
_MARKUP = re.compile(r"([\\`*_\[\]|~#])")


# A spreadsheet takes a text that begins with one of these for a formula.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


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
    winner = model.winner(task.name)
    if winner is None or model.published is None or not model.is_comparable(winner):
        return None
    own = winner.score_by_published_rule
    return None if own is None else 100 * own - model.published.scores[task.name].value


def score_table(models: Sequence[ModelReport]) -> Table:
    """The winners' scores beside the published ones."""
    rows = []
    for model in models:
        winners = {name: model.winner(name) for name in tasks.TASKS}
        cells = [average_text(model), *map(own_score, winners.values())]
        rows.append(Row(model.name, tuple(cells), "own", _best_cells(model, models)))
        by_rule = [*map(rule_score, winners.values())]
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
        winners = [model.winner(name) for name in tasks.TASKS]
        scores = [None if winner is None else winner.score for winner in winners]
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
        winners = [(name, model.winner(name)) for name in tasks.TASKS]
        cells = [
            setting_text(winner.trial, model.searches_dropout(name)) if winner and winner.trial else NOTHING
            for name, winner in winners
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
    for task in tasks.TASKS.values():
        winner = model.winner(task.name)
        if winner is None:
            continue
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
    header = ("task", "score", "std. error", "dev records", "mean ± SD (seeds)", "published", "difference")
    return Table("Uncertainty", header, tuple(rows))


def _count(outcome: Outcome) -> str:
    return NOTHING if outcome.record.num_dev is None else str(outcome.record.num_dev)


def cost_table(model: ModelReport) -> Table:
    """Trials by status, time and card-hours of each task."""
    rows = []
    for name in tasks.TASKS:
        outcomes = model.of_task(name)
        if any(outcome.status != "missing" for outcome in outcomes):
            rows.append(Row(name, _costs(outcomes)))
    rows.append(Row("all tasks", _costs(model.outcomes), "total"))
    return Table("Trials and cost", ("task", *STATUSES, "time (h:m:s)", "card-hours"), tuple(rows))


def _costs(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    counts = [sum(outcome.status == status for outcome in outcomes) for status in STATUSES]
    seconds = sum(outcome.record.wall_time for outcome in outcomes)
    card_hours = sum(outcome.card_hours for outcome in outcomes)
    return (*(str(count) if count else NOTHING for count in counts), duration(seconds), f"{card_hours:.2f}")


def notes(models: Sequence[ModelReport]) -> list[str]:
    """What a reader has to know to read the tables rightly."""
    lines = [
        "Each score is that of the best finished trial on the development set it was chosen on, as published scores "
        "are: a little optimistic. Between equal scores the first in the grid's order wins: the lower learning rate, "
        "then the smaller batch, then the higher dropout; trials outside the published grid come after it.",
        "The standard error is what the size of the development set implies, sqrt(p(1-p)/n). CHID counts records "
        "where its score counts blanks, so its value is on the high side.",
    ]
    winners = [winner for model in models for name in tasks.TASKS if (winner := model.winner(name))]
    if any(winner.task.published_metrics for winner in winners) or any(model.published for model in models):
        lines.append(
            f"{RULE_MARK} CMRC2018 was very likely published with PaddleNLP's looser metric, which deletes Latin "
            "punctuation and compares no more than the first piece for F1; own scores are the official EM/F1. C3 was "
            "published with fillers, which stand in for choices that a question lacks, counted as choices; own scores "
            "leave them out. The published rules have a row of their own, and they alone, with the mean made with "
            "them, are compared with published numbers."
        )
    for model in models:
        odd = [w for name in tasks.TASKS if (w := model.winner(name)) and not model.is_comparable(w)]
        if odd and model.published:
            counts = ", ".join(f"{w.task.name} {_count(w)} for {w.task.splits['dev'].num_records}" for w in odd)
            lines.append(
                f"{model.name}: development sets that are not the release's are not compared with published scores "
                f"(records there for the release's: {counts})."
            )
    return lines


def as_text(table: Table, of_model: str = "") -> str:
    """A table for a terminal, columns aligned by the width of their characters there."""
    lines = [table.header]
    lines += [(("  " if _is_sub(row) else "") + _shortened(row.label), *row.cells) for row in table.rows]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    text = [f"{table.title}{': ' if of_model else ''}{of_model}"]
    for line in lines:
        cells = []
        for i, (cell, width) in enumerate(zip(line, widths, strict=True)):
            padding = " " * (width - _width(cell))
            cells.append(cell + padding if i <= table.num_texts else padding + cell)
        text.append("  ".join(cells).rstrip())
    return "\n".join(text) + "\n"


def _is_sub(row: Row) -> bool:
    return row.kind in ("rule", "published", "difference")


def _shortened(text: str) -> str:
    if _width(text) <= _LABEL_WIDTH:
        return text
    head, tail = text, text
    while _width(head) > _LABEL_WIDTH // 2 - 1:
        head = head[:-1]
    while _width(tail) > _LABEL_WIDTH // 2 - 1:
        tail = tail[1:]
    return f"{head}…{tail}"


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, in a table cell as elsewhere."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(r"\\\1", text)


def as_markdown(table: Table, level: int = 2) -> str:
    """A table in GitHub's Markdown, under a heading; the best of several models is bold."""
    lines = [[escape_markdown(name) for name in table.header]]
    lines.append([":--" if i <= table.num_texts else "--:" for i in range(len(table.header))])
    for row in table.rows:
        cells = [escape_markdown(cell) for cell in row.cells]
        cells = [f"**{cell}**" if i in row.best else cell for i, cell in enumerate(cells)]
        lines.append([escape_markdown(row.label), *cells])
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{'#' * level} {escape_markdown(table.title)}\n\n{text}"


def problems(model: ModelReport) -> dict[str, list[str]]:
    """One line for each trial that is not finished, by status; only statuses that occur."""
    return {
        status: [outcome.folder + (f": {outcome.reason}" if outcome.reason else "") for outcome in found]
        for status in STATUSES[1:]
        if (found := model.with_status(status))
    }


def to_markdown(models: Sequence[ModelReport]) -> str:
    """The whole report in Markdown."""
    parts = ["# CLUE results\n", as_markdown(score_table(models)), as_markdown(setting_table(models))]
    parts.append("\n".join(f"- {escape_markdown(note)}" for note in notes(models)) + "\n")
    for model in models:
        parts.append(f"## {escape_markdown(model.name)}\n")
        parts += [as_markdown(uncertainty_table(model), 3), as_markdown(cost_table(model), 3)]
        for title, lines in ({"warnings": list(model.doubts)} | problems(model)).items():
            if lines:
                listed = "".join(f"- {escape_markdown(line)}\n" for line in lines)
                parts.append(f"### {title.capitalize()}\n\n{listed}")
    return "\n".join(parts)


def to_csv(models: Iterable[ModelReport]) -> str:
    """One line for each trial with everything known of it but its history.

    What the report works out stands first; all of ``result.json`` follows, nested names joined by dots.
    A text that a spreadsheet would run as a formula gets an apostrophe before it.
    """
    rows = []
    for model in models:
        winners = {name: model.winner(name) for name in tasks.TASKS}
        for outcome in model.outcomes:
            trial = outcome.trial
            row: dict[str, Any] = {
                "report": model.name,
                "folder": outcome.folder,
                "task": outcome.task.name,
                "status": outcome.status,
                "reason": outcome.reason,
                "is_winner": int(outcome is winners[outcome.task.name]),
                "learning_rate": trial and trial.learning_rate,
                "batch_size_all_cards": trial and trial.batch_size,
                "dropout": trial and trial.dropout,
                "seed": trial and trial.seed,
                "score": outcome.score,
                "standard_error": outcome.standard_error(),
                "card_hours": outcome.card_hours if outcome.record.fields else None,
            }
            rows.append(row | {f"result.{name}": value for name, value in _flat(outcome.record.fields)})
    columns = dict.fromkeys(name for row in rows for name in row)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_csv_cell, columns))
    writer.writerows([_csv_cell(row.get(name)) for name in columns] for row in rows)
    return text.getvalue()


def _flat(fields: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif prefix or name != "history":
            yield f"{prefix}{name}", value


def _csv_cell(value: Any) -> Any:
    if value is None or isinstance(value, (int, float)):
        return value
    text = clean(value)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
