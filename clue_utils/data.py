"""Find the official files of a task, read them, and check every record.

Where they are looked for: the folder given, else ``$CLUE_DATA_DIR``, else a cache that is filled by download. The
files are described in the CLUE repository (https://github.com/CLUEbenchmark/CLUE); names, fields and labels stand in
``tasks``. Whatever is wrong with a file ends as one ``UserError`` that names file, line (or place in the document) and
field.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import reprlib
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clue_utils.download import MACOS_FOLDER, fetch
from clue_utils.errors import UserError
from clue_utils.tasks import NO_LABEL, TASKS, Split, Task

logger = logging.getLogger(__name__)

# The tag of a blank in a CHID passage.
BLANK = re.compile(r"#idiom\d+#")
# A CHID row offers this many idioms.
NUM_CANDIDATES = 10
# A C3 question has at most this many choices, and at least two.
MAX_CHOICES = 4

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Ids and numbers are kept as int64 further on.
_INT64 = range(-(2**63), 2**63)
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True)
class Records(Sequence[dict[str, Any]]):
    """The checked records of one split, see :func:`load_records`.

    Attributes:
        files: what was read, in order; a file of answers comes last.
        sha256: hex digest over the bytes of ``files``, one after the other.
        num_dropped: records left out because their gold label is "-".
    """

    task: Task
    split: str
    rows: list[dict[str, Any]] = field(repr=False)
    files: tuple[Path, ...]
    sha256: str
    num_dropped: int

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)


def cache_dir() -> Path:
    """Folder for what can be made again: ``$CLUE_CACHE_DIR``, else ``clue_benchmark`` in the user's cache folder."""
    if given := os.environ.get("CLUE_CACHE_DIR"):
        return Path(given).expanduser()
    # The XDG base directory specification has relative paths ignored.
    if os.path.isabs(given := os.environ.get("XDG_CACHE_HOME", "")):
        return Path(given) / "clue_benchmark"
    try:
        return Path.home() / ".cache" / "clue_benchmark"
    except RuntimeError:
        raise UserError("no home folder to keep a cache in: set CLUE_CACHE_DIR") from None


def load_records(task: Task, split: str, data_dir: str | os.PathLike[str] | None = None) -> Records:
    """Read one split of a task.

    ``data_dir`` (else ``$CLUE_DATA_DIR``) holds the task's folder (``tnews_public/``), or is that folder; the files
    may be one folder deeper, as some archives unpack. Given neither, the data is downloaded to ``cache_dir()/"data"``.
    A given folder is taken whatever its files' checksums, and the log says which known release they are.

    Rows by ``task.kind``; in test splits, gold answers are ignored and left out where there are any:

    - classification: the fields of ``task.fields``; ``id``, the record's own or else its position in the file from 0;
      ``label``, the position in ``task.labels`` (int). Records with gold label "-" are left out and counted.
    - multiple_choice: ``id`` (int; in tests the question's own, else a running number), ``context`` (list of str),
      ``question``, ``choice`` (list of 2 to 4 str), ``label``: position of the answer in ``choice``. Where the choices
      repeat the answer, as in two official training questions, it is the first of these positions: equal choices get
      equal scores and the first highest is what is predicted. A test question with more than four choices keeps the
      first four, as in the published runs, with a warning.
    - span: ``id`` (str), ``context``, ``question``, ``answers``: list of ``{"text": str, "answer_start": int}``, the
      start in characters as in the file, which may be wrong or negative; empty in tests.
    - cloze: ``content`` (list of str), ``candidates`` (list of 10 str), and ``answers``: position in ``candidates``
      (int) by tag, for each tag of the row in order.

    Raises:
        UserError: the folder or a file is missing, or something in a file is not as described.
    """
    given = data_dir if data_dir is not None else os.environ.get("CLUE_DATA_DIR")
    if given:
        folder = _find_folder(task, Path(given), "CLUE_DATA_DIR" if data_dir is None else "--data_dir")
    else:
        folder = fetch(task, cache_dir() / "data")
    files = _find_files(folder, task, split)
    reader = _Reader()
    has_answers = split not in task.test_splits
    read = _READERS[task.kind](reader, task, has_answers, files)
    rows = [row for row in read if row is not None]
    num_dropped = len(read) - len(rows)
    del read
    names = ", ".join(map(str, files))
    if not rows:
        raise UserError(f"{names}: no record" + (f' with a gold label other than "{NO_LABEL}"' if num_dropped else ""))
    logger.info(
        "%s %s: %d records%s from %s; %s",
        task.name,
        split,
        len(rows),
        f" ({num_dropped} without a gold label left out)" if num_dropped else "",
        names,
        _describe_release(task, task.splits[split], reader.md5) if given else "from the verified archive",
    )
    return Records(task, split, rows, files, reader.sha256.hexdigest(), num_dropped)


# --- finding files -----------------------------------------------------------------------------------------------


def _find_folder(task: Task, root: Path, source: str) -> Path:
    """The folder with the task's files; ``source`` is what named ``root``."""
    names = {name for split in task.splits.values() for files in split.files for name in files}
    # The folder of another task has files of the same names: never take those.
    others = {other.folder for other in TASKS.values()} - {task.folder}
    try:
        root = root.expanduser()
        if not root.is_dir():
            raise UserError(f"{source} {root}: not a folder")
        own = root / task.folder
        deeper = [path for path in sorted(own.iterdir()) if path.is_dir()] if own.is_dir() else []
        deeper = [path for path in deeper if path.name != MACOS_FOLDER and not path.name.startswith(".")]
        for candidates in ([own], deeper, [root] if root.resolve().name not in others else []):
            found = [folder for folder in candidates if any((folder / name).exists() for name in names)]
            if len(found) > 1:
                raise UserError(f"{source}: {task.name}'s files are in both {found[0]} and {found[1]}: name one")
            if found:
                return found[0]
    except (OSError, RuntimeError) as error:
        raise UserError(f"{source} {root}: cannot be read ({error})") from None
    raise UserError(
        f"{source} {root}: no files of {task.name}; looked for {task.folder}/ with {', '.join(sorted(names))}, "
        "and for these files in the folder itself"
    )


def _find_files(folder: Path, task: Task, split: str) -> tuple[Path, ...]:
    """The files of a split in a folder, in reading order."""
    spec = task.splits[split]
    alternatives = [names + ((spec.answers,) if spec.answers else ()) for names in spec.files]
    missing = [[name for name in names if not (folder / name).exists()] for names in alternatives]
    for names, absent in zip(alternatives, missing, strict=True):
        if not absent:
            return tuple(folder / name for name in names)
    accepted = " or ".join(" with ".join(names) for names in alternatives)
    raise UserError(f"{folder}: no {missing[0][0]}: the {split} split of {task.name} needs {accepted}")


def _describe_release(task: Task, spec: Split, md5: Mapping[Path, str]) -> str:
    """What the files' checksums say; warns of files that a known release has under another split."""
    own_names = {name for names in spec.files for name in names}
    known = {path: task.md5[digest] for path, digest in md5.items() if digest in task.md5}
    for path, name in known.items():
        if name not in own_names:
            logger.warning("%s: by its checksum this is the official %s", path, name)
    if len(known) == len(md5):
        return "checksum of the known release"
    official = f"the official split has {spec.num_records:,} records"
    if not own_names & set(task.md5.values()):
        return f"no checksum of a release is known, {official}"
    return f"checksum of no known release (a subset or another one), {official}"


# --- reading files -----------------------------------------------------------------------------------------------


class _FieldError(Exception):
    """Something wrong with a record; whoever knows its place turns this into a UserError."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"field '{name}': {problem}" if name else problem)


class _Reader:
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
                raise UserError(f"{path}: {'a folder' if path.is_dir() else 'a device or pipe'} in place of a file")
            with path.open("rb") as stream:
                for number, line in enumerate(stream):
                    md5.update(line)
                    self.sha256.update(line)
                    yield line.removeprefix(_BYTE_ORDER_MARK) if number == 0 else line
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        self.md5[path] = md5.hexdigest()

    def records(self, path: Path) -> Iterator[tuple[int, Any]]:
        """Number from 1 and parsed content of each line; empty lines are accepted at the end only."""
        blank = 0
        number = 0
        for number, line in enumerate(self._raw_lines(path), 1):
            if not line.strip():
                blank = blank or number
                continue
            if blank:
                raise UserError(f"{path}:{blank}: an empty line between records; remove it")
            yield number, _parse(path, number, line)
        if not number or blank == 1:
            raise UserError(f"{path}: empty")

    def document(self, path: Path) -> Any:
        """The file as one JSON value."""
        content = b"".join(self._raw_lines(path))
        if not content.strip():
            raise UserError(f"{path}: empty")
        return _parse(path, 1, content)


def _parse(path: Path, number: int, content: bytes) -> Any:
    """Parse the JSON text that begins in line ``number``."""
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except UnicodeDecodeError as error:
        number += content.count(b"\n", 0, error.start)
        raise UserError(f"{path}:{number}: not UTF-8 ({error.reason}); save the file in UTF-8") from None
    except json.JSONDecodeError as error:
        # The column of a line break at the end would be in the line after it.
        number += min(error.lineno - 1, content.rstrip().count(b"\n"))
        raise UserError(f"{path}:{number}: not JSON ({error.msg}, column {error.colno})") from None
    except RecursionError:
        raise UserError(f"{path}:{number}: not a record (nested too deeply)") from None
    except ValueError as error:  # a number of thousands of digits
        raise UserError(f"{path}:{number}: not a record ({error})") from None
    except _FieldError as error:
        raise UserError(f"{path}:{number}: {error}") from None


def _refuse_constant(constant: str) -> None:
    raise _FieldError("", f"not JSON ({constant} is not a JSON number)")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        keys: set[str] = set()
        for key, _ in pairs:
            if key in keys:
                raise _FieldError("", f"field {_show(key)}: occurs twice")
            keys.add(key)
    return record


# --- checking values ---------------------------------------------------------------------------------------------

_KINDS = {str: "a string", int: "an integer", list: "a list", dict: "an object"}


_limited = reprlib.Repr()
_limited.maxstring = _limited.maxlong = 60
# A value for an error message: on one line, not too long, not too deep.
_show = _limited.repr


def _check(value: Any, schema: Any, name: str) -> Any:
    """Return a value that fits a schema as in ``Task.fields``, without the keys that the schema does not name."""
    kind: type = schema if isinstance(schema, type) else dict if isinstance(schema, Mapping) else list
    fits = type(value) is kind  # a bool is no int
    if not fits:
        raise _FieldError(name, f"{_show(value)} is not {_KINDS[kind]}")
    if isinstance(schema, Mapping):
        return {key: _get(value, key, inner, f"{name}.{key}" if name else key) for key, inner in schema.items()}
    if isinstance(schema, list):
        return [_check(item, schema[0], f"{name}[{i}]") for i, item in enumerate(value)]
    if kind is int and value not in _INT64:
        raise _FieldError(name, f"{_show(value)} is out of range")
    if kind is str:
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise _FieldError(name, "holds half of a surrogate pair, which is no character") from None
    return value


def _get(record: Any, key: str, schema: Any, name: str | None = None) -> Any:
    """Return the checked value of a key of an object."""
    if type(record) is not dict:
        raise _FieldError("", f"{_show(record)} is not an object")
    if key not in record:
        raise _FieldError(name or key, "missing")
    return _check(record[key], schema, name or key)


def _get_id(record: Any) -> int:
    """An integer of at least 0, or the same as a string: readers of C3's tests expect either."""
    value = record["id"]
    number = int(value) if type(value) is str and _DECIMAL.fullmatch(value) else value
    if type(number) is not int or number < 0 or number not in _INT64:
        raise _FieldError("id", f"{_show(value)} is not an integer of at least 0")
    return number


class _Unique:
    """Refuses what it has seen before: predictions are told apart by these ids."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._seen: set[int | str] = set()

    def add(self, value: int | str) -> None:
        if value in self._seen:
            raise _FieldError(self._name, f"{_show(value)} occurs twice")
        self._seen.add(value)


# --- the four kinds ----------------------------------------------------------------------------------------------

# A row, or None for a record without a gold label.
_Rows = list[dict[str, Any] | None]


def _read_classification(reader: _Reader, task: Task, has_answers: bool, files: tuple[Path, ...]) -> _Rows:
    labels = {label: i for i, label in enumerate(task.labels)}
    ids = _Unique("id")
    have_ids: bool | None = None

    def convert(record: Any, position: int) -> dict[str, Any] | None:
        nonlocal have_ids
        row: dict[str, Any] = _check(record, task.fields, "")
        if "target" in row:
            _check_spans(row["text"], row["target"])
        have_id = "id" in record
        row["id"] = _get_id(record) if have_id else position
        if not has_answers:
            if have_id != have_ids and have_ids is not None:
                raise _FieldError("id", "missing" if have_ids else "the records before have none")
            have_ids = have_id
            ids.add(row["id"])
            return row
        label = _get(record, "label", str)
        if label == NO_LABEL:
            return None
        if label not in labels:
            known = ", ".join(task.labels[:20]) + (" ..." if len(task.labels) > 20 else "")
            raise _FieldError("label", f"{_show(label)} is none of {task.name}'s labels ({known})")
        row["label"] = labels[label]
        return row

    return [row for path in files for row in _convert_lines(reader, path, convert)]


def _check_spans(text: str, target: dict[str, Any]) -> None:
    """CLUEWSC2020: both spans must be where they are said to be, or the marks set around them would mislead."""
    for name in ("span1", "span2"):
        begin, span = target[f"{name}_index"], target[f"{name}_text"]
        if begin < 0 or not text.startswith(span, begin):
            raise _FieldError(f"target.{name}_index", f"{_show(span)} is not at character {begin} of the text")


def _convert_lines(
    reader: _Reader, path: Path, convert: Callable[[Any, int], dict[str, Any] | None]
) -> Iterator[dict[str, Any] | None]:
    """Rows of a file with one record a line; ``convert`` gets the record and its position from 0."""
    for number, record in reader.records(path):
        try:
            # No line before a record is empty, so the line tells the position.
            row = convert(record, number - 1)
        except _FieldError as error:
            raise UserError(f"{path}:{number}: {error}") from None
        yield row


def _read_multiple_choice(reader: _Reader, task: Task, has_answers: bool, files: tuple[Path, ...]) -> _Rows:
    rows: _Rows = []
    ids = _Unique("id")
    num_cut = 0
    for path in files:
        place = ""
        try:
            for d, document in enumerate(_check_list(reader.document(path), "")):
                place = f"[{d}]"
                if type(document) is not list or len(document) < 2:
                    raise _FieldError("", f"{_show(document)} is not a list of context, questions and name")
                context = _check(document[0], task.fields["context"], "context")
                for q, question in enumerate(_check_list(document[1], "")):
                    place = f"[{d}][1][{q}]"
                    row = {
                        "id": len(rows),
                        "context": context,
                        "question": _get(question, "question", task.fields["question"]),
                        "choice": _get(question, "choice", task.fields["choice"]),
                    }
                    choices = row["choice"]
                    if len(choices) < 2 or (has_answers and len(choices) > MAX_CHOICES):
                        raise _FieldError("choice", f"{len(choices)} choices are not 2 to {MAX_CHOICES}")
                    if has_answers:
                        answer = _get(question, "answer", str)
                        if answer not in choices:
                            raise _FieldError("answer", f"{_show(answer)} is not one of the choices")
                        row["label"] = choices.index(answer)
                    else:
                        if "id" not in question:
                            raise _FieldError("id", "missing")
                        row["id"] = _get_id(question)
                        ids.add(row["id"])
                        num_cut += len(choices) > MAX_CHOICES
                        row["choice"] = choices[:MAX_CHOICES]
                    rows.append(row)
        except _FieldError as error:
            raise _at(path, place, error) from None
    if num_cut:
        names = ", ".join(map(str, files))
        logger.warning("%s: %d questions have more than %d choices; the rest is left out", names, num_cut, MAX_CHOICES)
    return rows


def _read_span(reader: _Reader, task: Task, has_answers: bool, files: tuple[Path, ...]) -> _Rows:
    rows: _Rows = []
    ids = _Unique("id")
    for path in files:
        place = ""
        try:
            for a, article in enumerate(_get_list(reader.document(path), "data")):
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
                                raise _FieldError("answers", "empty, where the split needs gold answers")
                        rows.append(row)
        except _FieldError as error:
            raise _at(path, place, error) from None
    return rows


def _read_cloze(reader: _Reader, task: Task, has_answers: bool, files: tuple[Path, ...]) -> _Rows:
    path = files[0]
    tags = _Unique("content")

    def convert(record: Any, _: int) -> dict[str, Any]:
        row: dict[str, Any] = _check(record, task.fields, "")
        if len(row["candidates"]) != NUM_CANDIDATES:
            raise _FieldError("candidates", f"{len(row['candidates'])} idioms are not {NUM_CANDIDATES}")
        own = [tag for passage in row["content"] for tag in BLANK.findall(passage)]
        if not own:
            raise _FieldError("content", "no blank, such as #idiom000001#")
        for tag in own:
            tags.add(tag)
        if has_answers:
            row["answers"] = dict.fromkeys(own, -1)
        return row

    rows = list(_convert_lines(reader, path, convert))
    if not has_answers:
        return rows
    answers_path = files[1]
    answers = reader.document(answers_path)
    if type(answers) is not dict:
        raise UserError(f"{answers_path}: {_show(answers)} is not an object")
    for number, row in enumerate(rows, 1):
        assert row is not None
        for tag in row["answers"]:
            if tag not in answers:
                raise UserError(f"{path}:{number}: field 'content': {tag} has no answer in {answers_path}")
            answer = answers[tag]
            if type(answer) is not int or not 0 <= answer < NUM_CANDIDATES:
                raise UserError(f"{answers_path}: field '{tag}': {_show(answer)} is not 0 to {NUM_CANDIDATES - 1}")
            row["answers"][tag] = answer
    return rows


def _check_list(value: Any, name: str) -> list[Any]:
    if type(value) is not list:
        raise _FieldError(name, f"{_show(value)} is not a list")
    return value


def _get_list(record: Any, key: str) -> list[Any]:
    if type(record) is not dict or key not in record:
        raise _FieldError(key, "missing" if type(record) is dict else f"{_show(record)} is not an object that holds it")
    return _check_list(record[key], key)


def _at(path: Path, place: str, error: _FieldError) -> UserError:
    """For a file that is one document: the line is not known, the place in it is."""
    return UserError(f"{path}: {f'at {place}: ' if place else ''}{error}")


_READERS = {
    "classification": _read_classification,
    "multiple_choice": _read_multiple_choice,
    "span": _read_span,
    "cloze": _read_cloze,
}
