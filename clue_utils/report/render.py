"""The report as text for a terminal, as Markdown, as LaTeX and as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clue_utils.cli import for_terminal, terminal_width
from clue_utils.columns import display_width
from clue_utils.grid.outcomes import clean
from clue_utils.language import say
from clue_utils.report import tables, verdict
from clue_utils.report.collect import ModelReport
from clue_utils.report.tables import Row, Table
from clue_utils.report.uncertainty import interval

# Columns that a row's label may take in a terminal; a longer one loses its middle.
_LABEL_WIDTH = 40
# Characters with a meaning in Markdown or HTML.
_MARKUP = re.compile(r"([\\`*_\[\]|~#])")
# Characters with a meaning in LaTeX, and others that its fonts may lack -> what stands for them.
_LATEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "\N{MINUS SIGN}": "$-$",
    "\N{NO-BREAK SPACE}": "~",
    "±": r"$\pm$",
    "–": "--",
    tables.RULE_MARK: r"\textsuperscript{\dag}",
}
# A spreadsheet takes a text that begins with one of these for a formula.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def as_text(table: Table, of_model: str = "") -> str:
    """A table for a terminal, columns aligned by the width of their characters there.

    One that is wider than the terminal is in parts, one below the other, each with the labels of its rows.
    """
    lines = [table.header]
    lines += [(("  " if _is_sub(row) else "") + _shortened(row.label), *row.cells) for row in table.rows]
    widths = [max(map(display_width, column)) for column in zip(*lines, strict=True)]
    text = [for_terminal(say("{title}: {text}", title=table.title, text=of_model) if of_model else table.title)]
    for number, columns in enumerate(_parts(widths)):
        text += [""] * (number > 0)
        for line in lines:
            cells = []
            for i in columns:
                padding = " " * (widths[i] - display_width(line[i]))
                cells.append(line[i] + padding if i <= table.num_texts else padding + line[i])
            text.append("  ".join(cells).rstrip())
    return "\n".join(text) + "\n"


def _parts(widths: Sequence[int]) -> list[list[int]]:
    """Numbers of columns of given widths in parts that fit the terminal, the first column in each."""
    room = terminal_width()
    parts = [[0]]
    for i, width in enumerate(widths[1:], 1):
        taken = sum(widths[column] + 2 for column in parts[-1])
        if room is not None and taken + width > room and len(parts[-1]) > 1:
            parts.append([0])
        parts[-1].append(i)
    return parts


def _is_sub(row: Row) -> bool:
    return row.kind in ("rule", "published", "difference")


def _shortened(text: str) -> str:
    if display_width(text) <= _LABEL_WIDTH:
        return text
    head, tail = text, text
    while display_width(head) > _LABEL_WIDTH // 2 - 1:
        head = head[:-1]
    while display_width(tail) > _LABEL_WIDTH // 2 - 1:
        tail = tail[1:]
    return f"{head}…{tail}"


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, in a table cell as elsewhere."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(r"\\\1", text)


def markdown_rows(rows: Iterable[Iterable[str]]) -> str:
    """Rows of a table in GitHub's Markdown, of cells that are Markdown already."""
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def markdown_table(header: Sequence[str], rows: Iterable[Iterable[str]] = (), marks: Sequence[str] = ()) -> str:
    """A table in GitHub's Markdown; ``marks`` align the columns, as ``--:`` does to the right."""
    return markdown_rows([header, marks or ["---"] * len(header), *rows])


def as_markdown(table: Table, level: int = 2) -> str:
    """A table in GitHub's Markdown, under a heading; the best of several models is bold."""
    rows = []
    for row in table.rows:
        cells = [escape_markdown(cell) for cell in row.cells]
        cells = [f"**{cell}**" if i in row.best else cell for i, cell in enumerate(cells)]
        rows.append([escape_markdown(row.label), *cells])
    marks = [":--" if i <= table.num_texts else "--:" for i in range(len(table.header))]
    text = markdown_table([escape_markdown(name) for name in table.header], rows, marks)
    return f"{'#' * level} {escape_markdown(table.title)}\n\n{text}"


def to_markdown(models: Sequence[ModelReport], comparisons: Sequence[Table] = ()) -> str:
    """The whole report in Markdown; ``comparisons`` as of ``page.to_html``."""
    first = [tables.score_table(models), tables.setting_table(models), tables.model_table(models)]
    parts = [f"# {say('CLUE results')}\n", *map(as_markdown, [*first, *comparisons])]
    notes = tables.notes(models) + verdict.notes(models)
    parts.append("\n".join(f"- {escape_markdown(note)}" for note in notes) + "\n")
    for model in models:
        parts.append(f"## {escape_markdown(model.name)}\n")
        if (matched := verdict.verdict_table(model)).rows:
            parts.append(as_markdown(matched, 3))
        parts += [as_markdown(tables.uncertainty_table(model), 3), as_markdown(tables.cost_table(model), 3)]
        for title, lines in ({"warnings": list(model.doubts)} | tables.problems(model)).items():
            if lines:
                listed = "".join(f"- {escape_markdown(line)}\n" for line in lines)
                parts.append(f"### {say(title).capitalize()}\n\n{listed}")
    return "\n".join(parts)


def escape_latex(text: str) -> str:
    """Text that LaTeX shows as it is."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def as_latex(table: Table) -> str:
    """A table for the package booktabs; the best of several models is bold, and models are set apart by a rule."""
    rows = []
    for i, row in enumerate(table.rows):
        cells = [escape_latex(cell) for cell in row.cells]
        cells = [rf"\textbf{{{cell}}}" if j in row.best else cell for j, cell in enumerate(cells)]
        label = (r"\quad " if _is_sub(row) else "") + escape_latex(row.label)
        rule = r"\midrule" + "\n" if row.kind in ("own", "total") and i else ""
        rows.append(rule + " & ".join([label, *cells]) + r" \\" + "\n")
    columns = "l" * (1 + table.num_texts) + "r" * (len(table.header) - 1 - table.num_texts)
    header = " & ".join(map(escape_latex, table.header))
    return (
        rf"""\begin{{table*}}
\centering\small
\caption{{{escape_latex(table.title)}}}
\resizebox{{\textwidth}}{{!}}{{%
\begin{{tabular}}{{{columns}}}
\toprule
{header} \\
\midrule
"""
        + "".join(rows)
        + r"""\bottomrule
\end{tabular}}
\end{table*}
"""
    )


def to_latex(models: Sequence[ModelReport], comparisons: Sequence[Table] = ()) -> str:
    """The tables of scores and settings as LaTeX to be included in a paper, the notes as comments."""
    head = "% \\usepackage{booktabs,graphicx}" + "\n" + "% Chinese: \\usepackage{ctex} or xeCJK" + "\n"
    notes = "".join(f"% {clean(note)}\n" for note in tables.notes(models))
    chosen = [tables.score_table(models), tables.setting_table(models), *comparisons]
    return "\n".join([head + notes, *map(as_latex, chosen)])


def to_csv(models: Iterable[ModelReport]) -> str:
    """One line for each trial with everything known of it but its history.

    What the report works out stands first; all of ``result.json`` follows, nested names joined by dots.
    A text that a spreadsheet would run as a formula gets an apostrophe before it.
    """
    rows = []
    for model in models:
        for outcome in model.outcomes:
            trial, num_dev = outcome.trial, outcome.record.num_dev
            bounds: tuple[float | None, float | None] = (
                interval(outcome.score, num_dev) if outcome.score is not None and num_dev else (None, None)
            )
            row: dict[str, Any] = {
                "report": model.name,
                "folder": outcome.folder,
                "task": outcome.task.name,
                "status": outcome.status,
                "reason": outcome.reason,
                "is_winner": int(outcome is model.winners[outcome.task.name]),
                "learning_rate": trial and trial.learning_rate,
                "batch_size_all_cards": trial and trial.batch_size,
                "dropout": trial and trial.dropout,
                "seed": trial and trial.seed,
                "score": outcome.score,
                "has_weights": int(outcome.has_checkpoint) if outcome.path else None,
                "interval_low": bounds[0],
                "interval_high": bounds[1],
                "card_hours": outcome.gpu_hours if outcome.record.fields else None,
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
