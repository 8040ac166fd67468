"""Read the official files of each kind of task and check every example.

Whatever is wrong with a file ends as one ``UserError`` that names file, line (or place in the document) and field.
"""

from __future__ import annotations

import codecs
import hashlib
import logging
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from clue_utils import strict_json
from clue_utils.data.packed_rows import PackedRows
from clue_utils.errors import UserError, shorten, show
from clue_utils.language import later, say
from clue_utils.tasks import BLANK, MAX_CHOICES, NO_LABEL, NUM_CANDIDATES, Example, Task

logger = logging.getLogger(__name__)
# Ids and numbers are kept as int64 further on.
_INT64 = range(-(2**63), 2**63)
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


def blanks(example: Mapping[str, Any]) -> list[str]:
    """Tags of all blanks of a CHID example, over all its passages, in order."""
    return [tag for passage in example["content"] for tag in re.findall(BLANK, passage)]


class _FieldError(Exception):
    """Something wrong with an example; whoever knows its place turns this into a UserError."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(say("field '{name}': {problem}", name=name, problem=problem) if name else problem)

    @classmethod
    def absent(cls, name: str) -> _FieldError:
        return cls("", say("field '{name}': missing", name=name))


class Reader:
    """Reads files from first to last byte, once, and keeps their digests.

    Attributes:
        sha256: over all files read so far.
        md5: hex digest of each file.
    """

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()
        self.md5: dict[Path, str] = {}

    def _raw_lines(self, path: Path) -> Iterator[bytes]:
        """Lines, split at line feeds only: the texts hold other line separators, such as U+2028."""
        md5 = hashlib.md5(usedforsecurity=False)
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise UserError(
                    say(
                        "{path}: {what} in place of a file",
                        path=path,
                        what=say("a folder") if path.is_dir() else say("a device or pipe"),
                    )
                )
            with path.open("rb") as stream:
                for number, line in enumerate(stream):
                    md5.update(line)
                    self.sha256.update(line)
                    yield line.removeprefix(codecs.BOM_UTF8) if number == 0 else line
        except OSError as error:
            raise UserError(say("{path}: cannot be read ({strerror})", path=path, strerror=error.strerror)) from None
        self.md5[path] = md5.hexdigest()

    def examples(self, path: Path) -> Iterator[tuple[int, Any]]:
        """Number from 1 and parsed content of each line; empty lines are accepted at the end only."""
        blank = 0
        number = 0
        for number, line in enumerate(self._raw_lines(path), 1):
            if not line.strip():
                blank = blank or number
                continue
            if blank:
                raise UserError(
                    say("{path}:{blank}: an empty line between examples; remove it", path=path, blank=blank)
                )
            if number == 1 and line.lstrip().startswith(b"["):
                raise UserError(say("{path}:1: a JSON array in place of one JSON object a line", path=path))
            yield number, _parse(path, number, line)
        if not number or blank == 1:
            raise UserError(say("{path}: empty", path=path))

    def document(self, path: Path) -> Any:
        """The file as one JSON value."""
        content = b"".join(self._raw_lines(path))
        if not content.strip():
            raise UserError(say("{path}: empty", path=path))
        return _parse(path, 1, content)


def _parse(path: Path, number: int, content: bytes) -> Any:
    """Parse the JSON text that begins in line ``number``."""
    try:
        value, repeated = strict_json.parse(content, later("an example"))
    except strict_json.NotJson as error:
        raise UserError(f"{path}:{number + (error.line or 1) - 1}: {error}") from None
    if repeated:
        raise UserError(
            say("{path}:{number}: field {repeated}: occurs twice", path=path, number=number, repeated=show(repeated[0]))
        )
    return value


_KINDS = {str: later("a string"), int: later("an integer"), list: later("a list"), dict: later("an object")}


def _check(value: Any, schema: Any, name: str) -> Any:
    """Return a value that fits a schema as in ``Task.fields``, without the keys that the schema does not name."""
    kind: type = schema if isinstance(schema, type) else dict if isinstance(schema, Mapping) else list
    fits = type(value) is kind  # a bool is no int
    if not fits:
        raise _FieldError(name, say("{value} is not {kind}", value=show(value), kind=say(_KINDS[kind])))
    if isinstance(schema, Mapping):
        return {key: _get(value, key, inner, f"{name}.{key}" if name else key) for key, inner in schema.items()}
    if isinstance(schema, list):
        return [_check(item, schema[0], f"{name}[{i}]") for i, item in enumerate(value)]
    if kind is int and value not in _INT64:
        raise _FieldError(name, say("{value} is out of range", value=show(value)))
    if kind is str:
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise _FieldError(name, say("holds half of a surrogate pair, which is no character")) from None
    return value


def _get(example: Any, key: str, schema: Any, name: str | None = None) -> Any:
    """Return the checked value of a key of an object."""
    if type(example) is not dict:
        raise _FieldError("", say("{example} is not an object", example=show(example)))
    if key not in example:
        raise _FieldError.absent(name or key)
    return _check(example[key], schema, name or key)


def _get_id(example: Any) -> int:
    """An integer of at least 0, or the same as a string: readers of C3's tests expect either."""
    value = example["id"]
    number = int(value) if type(value) is str and _DECIMAL.fullmatch(value) else value
    if type(number) is not int or number < 0 or number not in _INT64:
        raise _FieldError("id", say("{value} is not an integer of at least 0", value=show(value)))
    return number


class _Unique:
    """Refuses what it has seen before: predictions are told apart by these ids."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._seen: set[int | str] = set()

    def add(self, value: int | str) -> None:
        if value in self._seen:
            raise _FieldError(self._name, say("{value} occurs twice", value=show(value)))
        self._seen.add(value)


# Rows, with None for an example without a gold label.
Rows = Iterator[Example | None]


def _read_classification(reader: Reader, task: Task, has_answers: bool, files: tuple[Path, ...]) -> Rows:
    labels = {label: i for i, label in enumerate(task.labels)}
    ids = _Unique("id")
    have_ids: bool | None = None

    def convert(example: Any, position: int) -> Example | None:
        nonlocal have_ids
        row = _check_fields(task, example)
        have_id = "id" in example
        row["id"] = _get_id(example) if have_id else position
        if not has_answers:
            if have_id != have_ids and have_ids is not None:
                raise _FieldError.absent("id") if have_ids else _FieldError("id", say("the examples before have none"))
            have_ids = have_id
            ids.add(row["id"])
            return row
        label = _label(example, task.is_own)
        if label == NO_LABEL:
            return None
        if label not in labels:
            known = ", ".join(task.labels[:20]) + (" ..." if len(task.labels) > 20 else "")
            raise _FieldError(
                "label",
                say("{label} is none of {name}'s labels ({known})", label=show(label), name=task.name, known=known),
            )
        row["label"] = labels[label]
        return row

    for path in files:
        yield from _convert_lines(reader, path, convert)


def _label(example: Any, may_be_number: bool) -> str:
    """The label of a record; a number stands for its digits where a user's own records have it."""
    if may_be_number and type(example) is dict and type(example.get("label")) is int:
        return str(example["label"])
    return str(_get(example, "label", str))


def labels_in(files: Iterable[Path]) -> list[str]:
    """The different labels of classification files, in order: by number where all are, else by letter.

    Raises:
        UserError: a file cannot be read, or a line has no label.
    """
    labels: set[str] = set()
    for path in files:
        for number, example in Reader().examples(path):
            try:
                labels.add(_label(example, True))
            except _FieldError as error:
                raise UserError(f"{path}:{number}: {error}") from None
    labels.discard(NO_LABEL)
    return sorted(labels, key=int if all(map(_DECIMAL.fullmatch, labels)) else None)


def _check_spans(text: str, target: dict[str, Any]) -> None:
    """CLUEWSC2020: both spans must be where they are said to be, or the marks set around them would mislead."""
    for name in ("span1", "span2"):
        begin, span = target[f"{name}_index"], target[f"{name}_text"]
        if begin < 0 or not text.startswith(span, begin):
            raise _FieldError(
                f"target.{name}_index",
                say("{span} is not at character {begin} of the text", span=show(span), begin=begin),
            )


def _convert_lines(
    reader: Reader, path: Path, convert: Callable[[Any, int], Example | None]
) -> Iterator[Example | None]:
    """Rows of a file with one example a line; ``convert`` gets the example and its position from 0."""
    for number, example in reader.examples(path):
        try:
            # No line before an example is empty, so the line tells the position.
            row = convert(example, number - 1)
        except _FieldError as error:
            raise UserError(f"{path}:{number}: {error}") from None
        yield row


def check_record(task: Task, record: Any, place: str) -> Example:
    """The fields that a task reads of a record without gold answer, and its ``id`` (int or str) where it has one.

    As in test files: of a C3 question with more than four choices the first four count.

    Args:
        place: of the record, for the error.

    Raises:
        UserError: something in it is not as the task has it.
    """
    try:
        row = _check_fields(task, record)
        if task.kind == "multiple_choice":
            if len(row["choice"]) < 2:
                raise _FieldError(
                    "choice",
                    say(
                        "{num_choice} choices are not 2 to {max_choices}",
                        num_choice=len(row["choice"]),
                        max_choices=MAX_CHOICES,
                    ),
                )
            row["choice"] = row["choice"][:MAX_CHOICES]
        elif task.kind == "cloze":
            _check_cloze(row, _Unique("content"))
        elif task.kind == "span":
            row["answers"] = []
        if "id" in record:
            row["id"] = _check(record["id"], int if type(record["id"]) is int else str, "id")
    except _FieldError as error:
        raise UserError(f"{place}: {error}") from None
    return row


def _read_multiple_choice(reader: Reader, task: Task, has_answers: bool, files: tuple[Path, ...]) -> Rows:
    ids = _Unique("id")
    position = num_cut = 0
    for path in files:
        place = ""
        try:
            for d, document in enumerate(_check_list(reader.document(path), "")):
                place = f"[{d}]"
                if type(document) is not list or len(document) < 2:
                    raise _FieldError(
                        "", say("{document} is not a list of context, questions and name", document=show(document))
                    )
                context = _check(document[0], task.fields["context"], "context")
                for q, question in enumerate(_check_list(document[1], "")):
                    place = f"[{d}][1][{q}]"
                    row = {
                        "id": position,
                        "context": context,
                        "question": _get(question, "question", task.fields["question"]),
                        "choice": _get(question, "choice", task.fields["choice"]),
                    }
                    choices = row["choice"]
                    if len(choices) < 2 or (has_answers and len(choices) > MAX_CHOICES):
                        raise _FieldError(
                            "choice",
                            say(
                                "{num_choices} choices are not 2 to {max_choices}",
                                num_choices=len(choices),
                                max_choices=MAX_CHOICES,
                            ),
                        )
                    if has_answers:
                        answer = _get(question, "answer", str)
                        if answer not in choices:
                            raise _FieldError("answer", say("{answer} is not one of the choices", answer=show(answer)))
                        row["label"] = choices.index(answer)
                    else:
                        if "id" not in question:
                            raise _FieldError.absent("id")
                        row["id"] = _get_id(question)
                        ids.add(row["id"])
                        num_cut += len(choices) > MAX_CHOICES
                        row["choice"] = choices[:MAX_CHOICES]
                    position += 1
                    yield row
        except _FieldError as error:
            raise _at(path, place, error) from None
    if num_cut:
        names = ", ".join(map(str, files))
        logger.warning(
            say(
                "{names}: {num_cut} questions have more than {max_choices} choices; the rest is left out",
                names=names,
                num_cut=num_cut,
                max_choices=MAX_CHOICES,
            )
        )


def _read_span(reader: Reader, task: Task, has_answers: bool, files: tuple[Path, ...]) -> Rows:
    ids = _Unique("id")
    for path in files:
        place = ""
        try:
            document = reader.document(path)
            _require_squad_style(document)
            for a, article in enumerate(_get_list(document, "data")):
                place = f"data[{a}]"
                for p, paragraph in enumerate(_get_list(article, "paragraphs")):
                    place = f"data[{a}].paragraphs[{p}]"
                    context = _get(paragraph, "context", task.fields["context"])
                    for q, question in enumerate(_get_list(paragraph, "qas")):
                        place = f"data[{a}].paragraphs[{p}].qas[{q}]"
                        row = {
                            "id": _get(question, "id", str),
                            "context": context,
                            "question": _get(question, "question", task.fields["question"]),
                            # Test files have none, or fakes.
                            "answers": [],
                        }
                        ids.add(row["id"])
                        if has_answers:
                            row["answers"] = _get(question, "answers", [{"text": str, "answer_start": int}])
                            if not row["answers"]:
                                raise _FieldError("answers", say("empty, where the split needs gold answers"))
                        yield row
        except _FieldError as error:
            raise _at(path, place, error) from None


def _require_squad_style(document: Any) -> None:
    """CMRC 2018 was released in two forms, under the same names; only one of them says where the answers are."""
    if type(document) is dict and "data" in document:
        return
    found = show(document)
    if type(document) is list:
        found = say("a list")
        if document and type(document[0]) is dict and "context_text" in document[0]:
            found = say("the form of CMRC 2018's first release, a list with context_text and query_text")
    raise _FieldError(
        "", say('expected {{"data": [{{"paragraphs": ...}}]}}, the squad style, but this is {found}', found=found)
    )


def _read_cloze(reader: Reader, task: Task, has_answers: bool, files: tuple[Path, ...]) -> Rows:
    path = files[0]
    tags = _Unique("content")

    def convert(example: Any, _: int) -> Example:
        row: Example = _check(example, task.fields, "")
        own = _check_cloze(row, tags)
        if has_answers:
            row["answers"] = dict.fromkeys(own, -1)
        return row

    rows = _convert_lines(reader, path, convert)
    if not has_answers:
        yield from rows
        return
    checked = PackedRows(row for row in rows if row)  # all of the file before the next is read
    answers_path = files[1]
    answers = reader.document(answers_path)
    if type(answers) is not dict:
        raise UserError(
            say("{answers_path}: {answers} is not an object", answers_path=answers_path, answers=show(answers))
        )
    for number, row in enumerate(checked, 1):
        for tag in row["answers"]:
            if tag not in answers:
                raise UserError(
                    say(
                        "{path}:{number}: field 'content': {tag} has no answer in {answers_path}",
                        path=path,
                        number=number,
                        tag=shorten(tag),
                        answers_path=answers_path,
                    )
                )
            answer = answers[tag]
            if type(answer) is not int or not 0 <= answer < NUM_CANDIDATES:
                raise UserError(
                    say(
                        "{answers_path}: field {tag}: {answer} is not 0 to {num_candidates}",
                        answers_path=answers_path,
                        tag=show(tag),
                        answer=show(answer),
                        num_candidates=NUM_CANDIDATES - 1,
                    )
                )
            row["answers"][tag] = answer
        yield row


def _check_fields(task: Task, record: Any) -> Example:
    row: Example = _check(record, task.fields, "")
    if "target" in row:
        _check_spans(row["text"], row["target"])
    return row


def _check_cloze(row: Example, tags: _Unique) -> list[str]:
    """The tags of a CHID example, which has ten candidates and at least one blank; they are added to ``tags``."""
    if len(row["candidates"]) != NUM_CANDIDATES:
        raise _FieldError(
            "candidates",
            say(
                "{num_candidates} idioms are not {wanted}",
                num_candidates=len(row["candidates"]),
                wanted=NUM_CANDIDATES,
            ),
        )
    own = blanks(row)
    if not own:
        raise _FieldError("content", say("no blank, such as #idiom000001#"))
    for tag in own:
        tags.add(tag)
    return own


def _check_list(value: Any, name: str) -> list[Any]:
    if type(value) is not list:
        raise _FieldError(name, say("{value} is not a list", value=show(value)))
    return value


def _get_list(example: Any, key: str) -> list[Any]:
    if type(example) is not dict:
        raise _FieldError(key, say("{example} is not an object that holds it", example=show(example)))
    if key not in example:
        raise _FieldError.absent(key)
    return _check_list(example[key], key)


def _at(path: Path, place: str, error: _FieldError) -> UserError:
    """For a file that is one document: the line is not known, the place in it is."""
    if not place:
        return UserError(f"{path}: {error}")
    return UserError(say("{path}: at {place}: {error}", path=path, place=place, error=error))


# Kind of task -> reader of its files.
READERS = {
    "classification": _read_classification,
    "multiple_choice": _read_multiple_choice,
    "span": _read_span,
    "cloze": _read_cloze,
}
