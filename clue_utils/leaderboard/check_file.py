"""Every reason for which the leaderboard would refuse a prediction file or score it 0, found before it does.

The leaderboard reads labels line by line and gives no reason for a 0, so formats and ids are all checked here.
Formats: the submission notes of the CLUE leaderboard (2021-09-04). ``check_zip`` checks a whole zip.
"""

from __future__ import annotations

import codecs
import difflib
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any

from clue_utils import strict_json
from clue_utils.errors import show
from clue_utils.language import later, say
from clue_utils.leaderboard.file_names import known_files
from clue_utils.strict_json import JsonObject, NotJson
from clue_utils.tasks import BLANK, MAX_CHOICES, NUM_CANDIDATES, Task

# Lines that are named for one kind of problem in one file; the rest is counted.
MAX_LINES = 10
# Bounds far above any file of the leaderboard (some hundred kilobytes, some 25,000 predictions) and far below
# what fills memory: beyond them a file is no prediction and is not looked at further.
MAX_FILE_BYTES = 8 * 2**20
MAX_PREDICTIONS = 50_000
# Commas and opening brackets of one JSON text: a bound on its values, for which Python takes some hundred bytes each.
_MAX_MARKS = 8 * MAX_PREDICTIONS
# Tasks whose official test ids are known to count from 0.
_IDS_FROM_ZERO = ("OCNLI", "C3")
# Why a value is no answer to a task, None if it is one.
_ValueCheck = Callable[[Task, Any], str | None]


@dataclass
class Findings:
    """What a check found.

    Attributes:
        problems: one line each, beginning with the file and where it is known the line.
        notes: what may be as it is.
        counts: file name -> number of predictions, of the files that could be read.
        compared: file name -> what ids or number were compared with.
    """

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    compared: dict[str, str] = field(default_factory=dict)


class _Problems:
    """Collects the problems of one file; of each kind the first ``MAX_LINES`` are named and the rest counted."""

    def __init__(self, name: str, findings: Findings) -> None:
        self._name, self._findings = name, findings
        self._kinds: Counter[str] = Counter()

    def add(self, kind: str, text: str, line: int | Callable[[], int | None] | None = None) -> None:
        """Add a problem; a line that takes a search is given as a function, asked only if the problem is named."""
        self._kinds[kind] += 1
        if self._kinds[kind] <= MAX_LINES:
            line = line() if callable(line) else line
            self._findings.problems.append(f"{self._name}{f':{line}' if line else ''}: {text}")

    def note_if_equal(self, answers: Sequence[Any]) -> None:
        """Say so where a file gives one answer to everything: the leaderboard takes it, but no model means it."""
        if len(answers) > 1 and all(answer == answers[0] for answer in answers):
            self._findings.notes.append(
                say(
                    "{name}: all {number:,} answers are {answer}: a model that has not learnt gives such",
                    name=self._name,
                    number=len(answers),
                    answer=show(answers[0]),
                )
            )

    def close(self) -> None:
        for kind, number in self._kinds.items():
            if number > MAX_LINES:
                more = say("{kind}: {number:,} more like these", kind=say(kind), number=number - MAX_LINES)
                self._findings.problems.append(f"{self._name}: {more}")


def read_prediction(stream: IO[bytes]) -> bytes:
    """The content of a prediction file, of one that is too large as much as ``check_prediction`` needs to say so."""
    return stream.read(MAX_FILE_BYTES + 1)


def check_prediction(
    name: str, content: bytes, place: str, findings: Findings, ids: Sequence[Any] | None = None, official: bool = False
) -> None:
    """Check the content of a prediction file and add what is found to ``findings``.

    Args:
        name: its name on the leaderboard.
        place: what the problems call the file.
        ids: the ids of the test set in order, if they are known.
        official: hold the file to the size of the official test set where ``ids`` is None.
    """
    task, split = known_files()[name]
    found = _Problems(place, findings)
    if len(content) > MAX_FILE_BYTES:
        found.add("size", say("more than {megabytes} MB: not a prediction file", megabytes=MAX_FILE_BYTES >> 20))
        return
    if content.startswith(codecs.BOM_UTF8):
        found.add("byte order mark", say("begins with a byte order mark; save it as UTF-8 without one"), 1)
        content = content.removeprefix(codecs.BOM_UTF8)
    if b"\r\n" in content:
        findings.notes.append(say("{place}: lines end as on Windows (CR LF), which JSON allows", place=place))
    if not content.strip():
        found.add("empty", say("empty"))
    else:
        form = _FORMATS[task.kind]
        answers = form.read(task, content, found)
        if answers is not None:
            findings.counts[name] = len(answers)
            if ids is not None:
                form.compare(answers, ids, found)
            elif official:
                form.compare_with_official(task, split, answers, found)
    found.close()


def _too_many(what: str) -> str:
    return say(
        "more than {number:,} {what}: no test set of the leaderboard is as large", number=MAX_PREDICTIONS, what=what
    )


def _parse(raw: bytes) -> tuple[Any, list[str]]:
    """The value of a JSON text, and the keys that one of its objects holds twice."""
    if sum(map(raw.count, (b",", b"[", b"{"))) > _MAX_MARKS:
        raise NotJson(_too_many(say("values")))
    return strict_json.parse(raw, later("JSON of a prediction"))


def _label_problem(task: Task, label: Any) -> str | None:
    """Why a value is not one of a task's labels."""
    if isinstance(label, str):
        if label in task.labels:
            return None
        # Of a text much longer than any label, none is close, and a comparison would take long.
        close = difflib.get_close_matches(label.strip().lower()[:100], task.labels, n=1, cutoff=0.8)
        meant = say("; did you mean {name}?", name=show(close[0])) if close else ""
        return say("{label} is not one of {name}'s{meant}", label=show(label), name=task.name, meant=meant)
    written = json.dumps(label) if isinstance(label, bool) else str(label) if isinstance(label, int) else ""
    if written in task.labels:
        return say('{label} is not a text: write "{written}" with quotes', label=show(label), written=written)
    index = type(label) is int and 0 <= label < len(task.labels)
    return say(
        "{label} is not one of {name}'s: a label is a text such as {example}{hint}",
        label=show(label),
        name=task.name,
        example=json.dumps(task.labels[0]),
        hint=say(' (the position of "{label}"?)', label=task.labels[label]) if index else "",
    )


def _choice_problem(number: int, task: Task, value: Any) -> str | None:
    """Why a value is not that of one of so many choices."""
    if type(value) is int and 0 <= value < number:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 3 and int(value) < number:
        return say("{value} is a text: write {number} without quotes", value=show(value), number=int(value))
    return say("{value} is not 0 to {largest}", value=show(value), largest=number - 1)


def _text_problem(task: Task, value: Any) -> str | None:
    """Why a value is not an answer in words."""
    if not isinstance(value, str):
        return say("{value} is not a text", value=show(value))
    return None if value.strip() else say("is empty")


def _check_count(task: Task, split: str, number: int, found: _Problems, at_least: bool = False) -> None:
    """Compare a number of lines or keys with the official test set's."""
    official = task.splits[split].num_examples
    if number < official or (number > official and not at_least):
        values = {"number": number, "split": split, "official": official}
        text = say("{number:,} predictions, but the official {split} set has {official:,}", **values)
        if at_least:
            text = say("{number:,} predictions, but the official {split} set has at least {official:,}", **values)
        found.add("number", text)


def _wrong_shape(content: bytes) -> str | None:
    """What a file that should hold one object a line holds as a whole instead."""
    try:
        whole, _ = _parse(content)
    except NotJson:
        return None
    if isinstance(whole, list):
        return say('not an object with "id" and "label" a line but a JSON array for the whole file')
    if isinstance(whole, dict) and (b"\n" in content.strip() or not {"id", "label"} & whole.keys()):
        return say('not an object with "id" and "label" a line but a single object for the whole file')
    return None


@dataclass(frozen=True)
class _Lines:
    """The format of classification and C3: a JSON object with "id" and "label" a line, in the order of the test set."""

    problem: _ValueCheck

    def read(self, task: Task, content: bytes, found: _Problems) -> dict[int, Any] | None:
        """Check line by line; line number -> id (None where there is none to read)."""
        if content.lstrip()[:1] in (b"[", b"{") and (shape := _wrong_shape(content)):
            found.add("shape", shape, 1)
            return None
        ids: dict[int, Any] = {}
        seen: dict[int, int] = {}
        labels = []
        # Split at line feeds only: a JSON text may hold other line separators, such as U+2028.
        for number, line in enumerate(io.BytesIO(content), 1):
            line = line.removesuffix(b"\n")
            if number > MAX_PREDICTIONS:
                found.add("number", _too_many(say("lines")))
                return None
            if not line.strip():
                found.add(later("blank line"), say("blank line; it shifts every line after it"), number)
                continue
            if b"\r" in line.removesuffix(b"\r"):
                text = say("a carriage return within the line, which many programs take for its end")
                found.add(later("carriage return"), text, number)
            ids[number] = None
            try:
                example, repeated = _parse(line)
            except NotJson as error:
                found.add(later("not JSON"), str(error), number)
                continue
            if not isinstance(example, dict):
                text = say('{example} is not an object with "id" and "label"', example=show(example))
                found.add(later("not an object"), text, number)
                continue
            for key in repeated:
                found.add(later("repeated key"), say("key {key} occurs twice in one object", key=show(key)), number)
            for key in ("id", "label"):
                if key not in example:
                    text = say('not an object with "id" and "label": no "{key}"', key=key)
                    found.add(say("no {key}", key=key), text, number)
            if "id" in example:
                id_ = example["id"]
                if type(id_) is not int or id_ < 0:
                    found.add(later("id"), say("id {id} is not an integer of at least 0", id=show(id_)), number)
                elif id_ in seen:
                    text = say("id {id} occurs twice, first in line {line}", id=show(id_), line=seen[id_])
                    found.add(later("repeated id"), text, number)
                else:
                    ids[number] = id_
                    seen[id_] = number
            if "label" in example:
                labels.append(example["label"])
                if problem := self.problem(task, example["label"]):
                    found.add(later("label"), say("label {problem}", problem=problem), number)
        found.note_if_equal(labels)
        return ids

    def compare(self, lines: dict[Any, Any], ids: Sequence[Any], found: _Problems) -> None:
        """Compare with the ids of a test set."""
        if len(lines) != len(ids):
            found.add(
                "number",
                say(
                    "{number:,} predictions, but the test file has {records:,} records",
                    number=len(lines),
                    records=len(ids),
                ),
            )
        self._compare_ids(lines, ids, found)

    def compare_with_official(self, task: Task, split: str, lines: dict[Any, Any], found: _Problems) -> None:
        """Compare with what is known of an official test set whose file is not there."""
        _check_count(task, split, len(lines), found)
        if task.name in _IDS_FROM_ZERO:
            self._compare_ids(lines, range(task.splits[split].num_examples), found)

    def _compare_ids(self, lines: dict[Any, Any], ids: Sequence[Any], found: _Problems) -> None:
        given = [id_ for id_ in lines.values() if id_ is not None]
        expected = set(ids)
        for number, id_ in lines.items():
            if id_ is not None and id_ not in expected:
                found.add(later("unknown id"), say("id {id} is not in the test file", id=show(id_)), number)
        is_given = set(given).__contains__
        for is_there, run in itertools.groupby(sorted(expected), is_given):
            if not is_there:
                first, *others = run
                text = say("id {id} is missing", id=first)
                if others:
                    values = {"first": first, "last": others[-1], "number": 1 + len(others)}
                    text = say("ids {first} to {last} are missing, {number:,} in all", **values)
                found.add(later("missing id"), text)
        if len(lines) == len(given) == len(ids) and expected == set(given):
            wrong = [line for (line, id_), right in zip(lines.items(), ids, strict=True) if id_ != right]
            if wrong:
                first, right = wrong[0], ids[list(lines).index(wrong[0])]
                text = say(
                    "id {id} stands where the test file has {right}: {number:,} lines out of order",
                    id=lines[first],
                    right=right,
                    number=len(wrong),
                )
                found.add("order", text, first)


@dataclass(frozen=True)
class _Object:
    """The format of CMRC2018 and CHID: one JSON object of id -> answer, in any order.

    ``id_pattern`` and ``id_example`` are of the official ids; ``several``: an example may ask for several answers.
    """

    id_name: str
    id_pattern: str
    id_example: str
    problem: _ValueCheck
    several: bool = False

    def read(self, task: Task, content: bytes, found: _Problems) -> JsonObject | None:
        """Check the object and its values; None where it is none."""
        try:
            answers, repeated = _parse(content)
        except NotJson as error:
            if "Extra data" in str(error):
                text = say("not one JSON object with all answers but several values, such as one a line")
                found.add("shape", text, 1)
            else:
                found.add(later("not JSON"), str(error), error.line)
            return None
        if not isinstance(answers, dict) or not answers:
            shape = say("a JSON array") if isinstance(answers, list) else show(answers)
            found.add("shape", say("not one JSON object with all answers but {shape}", shape=shape), 1)
            return None
        if len(answers) > MAX_PREDICTIONS:
            found.add("number", _too_many(say("answers")))
            return None
        for key in repeated:
            found.add(
                later("repeated key"), say("key {key} occurs twice", key=show(key)), partial(_line_of, content, key)
            )
        for key, value in answers.items():
            if problem := self.problem(task, value):
                text = say("answer {problem} ({key})", problem=problem, key=show(key))
                found.add(later("answer"), text, partial(_line_of, content, key))
        found.note_if_equal(list(answers.values()))
        return answers

    def compare(self, answers: dict[Any, Any], ids: Sequence[Any], found: _Problems) -> None:
        """Compare with the ids of a test set."""
        expected = set(ids)
        for key in answers:
            if key not in expected:
                text = say("{name} {key} is not in the test file", name=say(self.id_name), key=show(key))
                found.add(say("unknown {name}", name=say(self.id_name)), text)
        for key in ids:
            if key not in answers:
                text = say("{name} {key} of the test file is missing", name=say(self.id_name), key=show(key))
                found.add(say("missing {name}", name=say(self.id_name)), text)

    def compare_with_official(self, task: Task, split: str, answers: dict[Any, Any], found: _Problems) -> None:
        """Compare with what is known of an official test set whose file is not there."""
        _check_count(task, split, len(answers), found, at_least=self.several)
        for key in answers:
            if not re.fullmatch(self.id_pattern, key):
                names = {"name": say(self.id_name), "example": self.id_example}
                text = say("{key} is not a {name} such as {example}", key=show(key), **names)
                found.add(say("strange {name}", name=say(self.id_name)), text)


def _line_of(content: bytes, key: str) -> int | None:
    """The line in which a key is written, last where it is written twice."""
    for ascii_only in (False, True):
        written = json.dumps(key, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
        if (position := content.rfind(written)) >= 0:
            return content.count(b"\n", 0, position) + 1
    return None


# Kind of task -> format of its predictions.
_FORMATS: dict[str, _Lines | _Object] = {
    "classification": _Lines(_label_problem),
    "multiple_choice": _Lines(partial(_choice_problem, MAX_CHOICES)),
    "span": _Object(later("question id"), r"TEST_\d+_QUERY_\d+", "TEST_0_QUERY_0", _text_problem),
    "cloze": _Object(later("tag"), BLANK, "#idiom000001#", partial(_choice_problem, NUM_CANDIDATES), several=True),
}
