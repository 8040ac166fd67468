"""What models got wrong, as text for a terminal of 80 columns and as one page without script or network."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from clue_utils import language
from clue_utils.columns import display_width, wrapped
from clue_utils.grid.outcomes import clean
from clue_utils.language import say
from clue_utils.report import mistakes, page
from clue_utils.report.mistakes import Answers, Mistake
from clue_utils.report.render import as_text
from clue_utils.report.tables import Row, Table, percent

COLUMNS = 80
# Lines of a text that a terminal shows, and characters of one that a page does.
_MOST_LINES, _MOST_CHARACTERS = 3, 1200


def to_text(runs: Sequence[Answers], most: int) -> str:
    """The whole report for a terminal: of one run its confusions and mistakes, of several the hardest records."""
    parts = [_table(mistakes.summary_table(runs))]
    if len(runs) == 1:
        (run,) = runs
        tables = [mistakes.matrix_table(run), mistakes.pair_table(run, most), mistakes.class_table(run, most)]
        shown = [_table(table) for table in tables if table and table.rows]
        parts += [text for text in shown if _fits(text)]
        parts.append(_listed(say("The mistakes it was surest of"), mistakes.worst_mistakes(run, most)))
    else:
        title = say("The hardest records (by how many were wrong, then by p, the mean probability of gold)")
        parts.append(_listed(title, mistakes.hardest(runs, most)))
    return "\n".join(parts)


def _fits(text: str) -> bool:
    return all(display_width(line) <= COLUMNS for line in text.splitlines())


def _table(table: Table) -> str:
    return as_text(_clean(table))


def _clean(table: Table) -> Table:
    rows = [Row(clean(row.label), tuple(map(clean, row.cells)), row.kind, row.best) for row in table.rows]
    return replace(table, rows=tuple(rows))


def _listed(title: str, found: Sequence[Mistake]) -> str:
    lines = [*wrapped(title, COLUMNS)]
    for number, mistake in enumerate(found, 1):
        remark = say("; ") + mistake.remark if mistake.remark else ""
        lines += ["", *_wrapped(f"{number}. id {mistake.id}: p {percent(mistake.share)} %{remark}", COLUMNS)]
        told = ((say("gold"), mistake.gold), (say("answer"), mistake.answer), *mistake.texts)
        for name, text in told:
            lines += _few([*_wrapped(say("{title}: {text}", title=name, text=text), COLUMNS - 3)])
    return "\n".join(lines if found else [*lines, say("none")]) + "\n"


def _wrapped(text: str, columns: int) -> Iterator[str]:
    """Lines of a text of the data."""
    return wrapped(clean(" ".join(text.split())), columns)


def _few(lines: list[str]) -> Iterator[str]:
    for number, line in enumerate(lines[:_MOST_LINES], 1):
        yield f"   {line}" if number < _MOST_LINES or len(lines) == _MOST_LINES else f"   {_without_end(line)}…"


def _without_end(line: str) -> str:
    while display_width(line) > COLUMNS - 4:
        line = line[:-1]
    return line


def to_html(runs: Sequence[Answers], most: int, now: datetime.datetime | None = None) -> str:
    """The whole page; ``now`` is the time it states, the present one if not given."""
    now = now or datetime.datetime.now(datetime.timezone.utc)
    return (
        page.environment()
        .get_template("mistakes.html.jinja")
        .render(
            # What the page that this one extends takes.
            light=page.LIGHT,
            dark=page.DARK,
            num_heats=page.NUM_HEATS,
            language=page.LANGUAGE_TAGS[language.current()],
            say=say,
            title=say("{task}: what was answered wrongly", task=runs[0].task.name),
            task=runs[0].task.name,
            summary=mistakes.summary_table(runs),
            hardest=[_shortened(m) for m in mistakes.hardest(runs, most)] if len(runs) > 1 else None,
            runs=[_run(run, most) for run in runs],
            now=now.strftime("%Y-%m-%d %H:%M UTC"),
        )
    )


def _run(run: Answers, most: int) -> dict[str, Any]:
    tables = [mistakes.pair_table(run, most), mistakes.class_table(run)]
    return {
        "name": mistakes.name_of(run),
        "matrix": _heats(run),
        "names": run.task.names,
        "tables": [table for table in tables if table.rows],
        "mistakes": [_shortened(mistake) for mistake in mistakes.worst_mistakes(run, most)],
    }


def _heats(run: Answers) -> list[dict[str, Any]] | None:
    """Rows of the matrix: each cell with its count and, by its share of the gold class, the step of the colours."""
    rows = mistakes.matrix(run)
    if rows is None:
        return None
    shown = []
    for number, (gold, counts) in enumerate(rows):
        total = sum(counts)
        cells = [
            {
                "count": count,
                "heat": min(page.NUM_HEATS - 1, -(-count * page.NUM_HEATS // total) - 1) if count else None,
                "is_right": column == number,
                "answer": run.task.names[column],
                "share": percent(count / total) if count else "",
            }
            for column, count in enumerate(counts)
        ]
        shown.append({"gold": gold, "cells": cells})
    return shown


def _shortened(mistake: Mistake) -> dict[str, Any]:
    def short(text: str) -> str:
        return text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + " …"

    return {
        "id": mistake.id,
        "gold": short(mistake.gold),
        "answer": short(mistake.answer),
        "share": percent(mistake.share),
        "remark": mistake.remark,
        "texts": [(name, short(text)) for name, text in mistake.texts],
    }
