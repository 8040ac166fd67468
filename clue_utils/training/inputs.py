"""What a user gives to predict from: texts and records, from Python or a file of any length. Imports no PaddlePaddle.

A file is read a line at a time, by what its name ends with:

- ``.txt``: a text a line; of a task with two texts these are set apart by a tab (CSL: the keywords, in one text, and
  the abstract; CMRC2018: the context and the question);
- ``.jsonl``: an object with the task's fields a line;
- ``.json``: as the task's own test files, which are one document for C3 and CMRC2018 and else the same as ``.jsonl``;
- ``.csv``: a header with the task's fields, then a record a row; a field that is no text is written as JSON;
- anything else, and ``-``, standard input: as ``.jsonl`` where the first line begins with ``{``, else as ``.txt``.

Records may have an ``id``, a whole number or text. Other fields, gold answers too, are left alone.
"""

from __future__ import annotations

import codecs
import csv
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from clue_utils import strict_json
from clue_utils.data.readers import READERS, Reader, check_record
from clue_utils.errors import UserError, show
from clue_utils.language import later, say
from clue_utils.tasks import Example, Task
from clue_utils.training.classification import text_fields

STANDARD = "-"
# A record as it is given, and where it is from, for errors.
Placed = tuple[str, Any]
# Kinds of tasks whose files are one JSON document.
_OF_DOCUMENTS = ("multiple_choice", "span")


def plain_texts(task: Task) -> tuple[str, ...]:
    """The fields that plain texts stand for; none of a task whose records hold more than one or two texts."""
    if task.kind == "span":
        return "context", "question"
    names = text_fields(task) if task.kind == "classification" else ()
    return names if {*names} == {*task.fields} else ()


def to_example(task: Task, value: Any, place: str) -> Example:
    """The checked fields of what was given: a text, a pair of texts, or a mapping of the task's fields.

    Raises:
        UserError: something in it is not as the task has it; the line begins with ``place``.
    """
    if isinstance(value, str) or (isinstance(value, Sequence) and not isinstance(value, bytes)):
        value = _with_names(task, [value] if isinstance(value, str) else [*value], place)
    elif type(value) is not dict:
        raise UserError(
            say(
                "{place}: {value} is neither a text, nor a pair of texts, nor {fields}",
                place=place,
                value=show(value),
                fields=_fields_of(task),
            )
        )
    return check_record(task, value, place)


def _with_names(task: Task, texts: list[Any], place: str) -> Example:
    names = plain_texts(task)
    if not names:
        raise UserError(
            say(
                "{place}: a text alone is no record of {name}: give {fields}",
                place=place,
                name=task.name,
                fields=_fields_of(task),
            )
        )
    if len(texts) != len(names):
        found = say("1 text") if len(texts) == 1 else say("{number} texts", number=len(texts))
        raise UserError(
            say(
                "{place}: {found} where {name} has {num_names} ({names})",
                place=place,
                found=found,
                name=task.name,
                num_names=len(names),
                names=", ".join(names),
            )
        )
    record: Example = {}
    for name, text in zip(names, texts, strict=True):
        is_list = isinstance(task.fields[name], list)  # the keywords of CSL, which are read as one text
        record[name] = text.split(" ") if is_list and isinstance(text, str) else text
    return record


def _fields_of(task: Task) -> str:
    return say("an object with the fields {fields}", fields=", ".join(task.fields))


def read_records(task: Task, name: str) -> Iterator[Placed]:
    """The records of a file, each with its place, such as ``news.txt:12``.

    Raises:
        UserError: the file cannot be read, or a line is not what its form has; the line is named.
    """
    suffix = Path(name).suffix.lower()
    if suffix == ".json" and task.kind in _OF_DOCUMENTS:
        path = Path(name)
        for number, row in enumerate(READERS[task.kind](Reader(), task, False, (path,))):
            yield f"{path}: record {number}", row
        return
    shown = "standard input" if name == STANDARD else name
    try:
        if name == STANDARD:
            yield from _records_of(task, sys.stdin.buffer, shown, suffix)
        else:
            with open(name, "rb") as file:
                yield from _records_of(task, file, shown, suffix)
    except OSError as error:
        raise UserError(say("{shown}: cannot be read ({strerror})", shown=shown, strerror=error.strerror)) from None


def _records_of(task: Task, raw: Iterable[bytes], shown: str, suffix: str) -> Iterator[Placed]:
    lines = _lines(raw, shown)
    if suffix == ".csv":
        yield from _csv_records(task, lines, shown)
        return
    first = next(lines, None)
    if first is None:
        raise UserError(say("{shown}: empty", shown=shown))
    begin = first[1].lstrip()[:1]
    is_json = suffix in (".json", ".jsonl") or (suffix != ".txt" and begin == "{")
    if is_json and begin == "[":
        raise UserError(say("{first}: a JSON array in place of one JSON object a line", first=first[0]))
    for place, line in _without_gaps(itertools.chain([first], lines)):
        yield place, _parse(line, place) if is_json else _texts(line)


def _lines(raw: Iterable[bytes], shown: str) -> Iterator[tuple[str, str]]:
    """Place and text of each line, its end included; split at line feeds alone, as texts hold other separators."""
    for number, line in enumerate(raw, 1):
        place = f"{shown}:{number}"
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        try:
            yield place, line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                say("{place}: not UTF-8 ({reason}); save the file in UTF-8", place=place, reason=error.reason)
            ) from None


def _without_gaps(lines: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The lines without their ends; empty ones are accepted at the end only, so that answers stand line by line."""
    gap = ""
    for place, line in lines:
        if not line.strip():
            gap = gap or place
            continue
        if gap:
            raise UserError(say("{gap}: an empty line between others; remove it", gap=gap))
        yield place, line.removesuffix("\n").removesuffix("\r")
    if gap.endswith(":1"):
        raise UserError(say("{gap}: empty", gap=gap))


def _texts(line: str) -> str | list[str]:
    texts = line.split("\t")
    return texts if len(texts) > 1 else line


def _parse(text: str, place: str) -> Any:
    try:
        value, repeated = strict_json.parse(text.encode(), later("a record"))
    except strict_json.NotJson as error:
        raise UserError(f"{place}: {error}") from None
    if repeated:
        raise UserError(say("{place}: field {repeated}: occurs twice", place=place, repeated=show(repeated[0])))
    if type(value) is not dict:
        raise UserError(say("{place}: {value} is not an object", place=place, value=show(value)))
    return value


def _csv_records(task: Task, lines: Iterable[tuple[str, str]], shown: str) -> Iterator[Placed]:
    rows = csv.reader((line for _, line in lines), strict=True)
    header: list[str] | None = None
    gap = ""
    while True:
        place = f"{shown}:{rows.line_num + 1}"
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise UserError(
                say("{shown}:{line_num}: not CSV ({error})", shown=shown, line_num=rows.line_num, error=error)
            ) from None
        if row is None:
            break
        if header is None:
            header = row
            _check_header(task, header, place)
        elif not row:
            gap = gap or place
        elif gap:
            raise UserError(say("{gap}: an empty line between others; remove it", gap=gap))
        else:
            if len(row) != len(header):
                raise UserError(
                    say(
                        "{place}: {num_row} cells where the header has {num_header}",
                        place=place,
                        num_row=len(row),
                        num_header=len(header),
                    )
                )
            yield place, _record_of(task, dict(zip(header, row, strict=True)), place)
    if header is None:
        raise UserError(say("{shown}: empty", shown=shown))


def _check_header(task: Task, header: list[str], place: str) -> None:
    missing = [name for name in task.fields if name not in header]
    if missing or len({*header}) < len(header):
        problem = say("no {names}", names=", ".join(missing)) if missing else say("a name occurs twice")
        raise UserError(
            say(
                "{place}: {problem} in the header; it names the fields {fields}",
                place=place,
                problem=problem,
                fields=", ".join(task.fields),
            )
        )


def _record_of(task: Task, cells: dict[str, str], place: str) -> Example:
    record: Example = {}
    for name, text in cells.items():
        if task.fields.get(name, str) is str:
            record[name] = text
            continue
        try:
            record[name], _ = strict_json.parse(text.encode())
        except strict_json.NotJson:
            raise UserError(
                say(
                    "{place}: field {name!r}: {text} is not JSON, which a list or object is in",
                    place=place,
                    name=name,
                    text=show(text),
                )
            ) from None
    return record
