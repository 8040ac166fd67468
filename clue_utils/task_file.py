"""Tasks of a user, described in a JSON file, which are trained, searched and reported on as CLUE's ten are.

A file is one object, with these keys (all but ``name`` and ``kind`` may be left out)::

    {
      "name": "MOOD",
      "kind": "classification",
      "fields": ["text"],
      "labels": {"0": "angry", "1": "glad"},
      "files": {"train": "train.json", "validation": "dev.json", "test": "test.json"},
      "hyper_parameters": {"num_train_epochs": 3, "learning_rates": [2e-5, 3e-5]}
    }

- ``kind``: "classification" (one or two texts, one label), "multiple_choice" (records in C3's form), "span"
  (CMRC2018's, the squad style) or "cloze" (CHID's: ten candidates a blank).
- ``fields``: of a classification task, the one or two fields of a record that hold its texts (``["sentence"]``);
  the label is in the field ``label``, an ``id`` may be there. The other kinds have fixed fields.
- ``labels``: of a classification task, the labels as they stand in the records: a list, an object with the name of
  each, or "from the training file" (the default), which takes those that occur there, in order.
- ``files``: paths relative to the file; a list is joined. CHID's answers stand beside ``x.json`` in ``x_answer.json``.
- ``hyper_parameters``: ``num_train_epochs``, ``max_seq_length``, ``warmup_proportion``, ``save_steps``, ``metric`` (of
  a span task "em" or "f1") and the grid: ``learning_rates``, ``batch_sizes``, ``dropouts``. What is left out is as of
  the CLUE task of the same form.

Importing this module needs nothing but the standard library.
"""

from __future__ import annotations

import difflib
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clue_utils import cli, strict_json, tasks
from clue_utils.errors import UserError, show
from clue_utils.language import say
from clue_utils.strict_json import JsonObject
from clue_utils.tasks import OWN, TASKS, TEST, Archive, Split, Task

# The CLUE task whose form, script and defaults a kind has.
FORMS = {kind: TASKS[name] for kind, name in (("classification", "TNEWS"), ("multiple_choice", "C3"))}
FORMS |= {"span": TASKS["CMRC2018"], "cloze": TASKS["CHID"]}
FROM_TRAINING = "from the training file"
METRICS = {"span": ("em", "f1")}
# What users call the splits -> what the registry does.
SPLITS = {"train": "train", "validation": "dev", "test": TEST}
_KEYS = ("name", "kind", "fields", "labels", "files", "hyper_parameters")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
_NOT_FIELDS = ("id", "label")
_NUMBERS = {
    "num_train_epochs": cli.positive_int,
    "max_seq_length": cli.positive_int,
    "warmup_proportion": cli.proportion,
    "save_steps": cli.non_negative_int,
}
_GRIDS = {"learning_rates": cli.positive_float, "batch_sizes": cli.positive_int, "dropouts": cli.proportion}
# A task file is written by hand.
_MAX_BYTES = 1 << 20
# Stands for the task file in commands that are shown for a task that only a record tells of.
_OF_RECORD = "FILE"


class _Wrong(Exception):
    """A value that cannot be; ``key`` is where it stands."""

    def __init__(self, key: str, problem: str, occurrence: int = 1) -> None:
        super().__init__(problem)
        self.key, self.occurrence = key, occurrence


def with_files(task: Task, flags: Mapping[str, Any]) -> Task:
    """The task with the files of --train_file, --validation_file and --test_file in place of its own.

    A file of tests is predicted in place of all test sets, to ``<task>_predict.json``.

    Raises:
        UserError: several files of a split that takes one.
    """
    given = {split: flags.get(f"{word}_file") for word, split in SPLITS.items()}
    if not any(given.values()):
        return task
    splits = {name: split for name, split in task.splits.items() if not (given[TEST] and name in task.test_splits)}
    try:
        splits |= {split: _split(task.kind, split, map(Path, paths)) for split, paths in given.items() if paths}
    except _Wrong as error:
        raise UserError(say("--{key}_file: {error}", key=error.key, error=error)) from None
    return replace(task, splits=splits, submissions={TEST: task.plain_submission} if given[TEST] else task.submissions)


def _split(kind: str, split: str, paths: Any) -> Split:
    """A split of files that are where their paths say, see ``examples.find_files``."""
    files = tuple(str(path.expanduser().absolute()) for path in paths)
    if kind == "cloze" and len(files) > 1:
        word = next(word for word, name in SPLITS.items() if name == split)
        raise _Wrong(word, say("a cloze task takes one file"))
    answers = None
    if kind == "cloze" and split != TEST and files:
        first = Path(files[0])
        answers = str(first.with_name(f"{first.stem}_answer{first.suffix}"))
    return Split((files,) if files else (), 0, answers)


def register(path: str) -> Task:
    """Read a task file and have its task known by name, its labels if they are written there."""
    task = read(path)
    OWN[task.name] = task
    return task


def read(path: str) -> Task:
    """The task of a file; its labels are empty where they are those of the training file.

    Raises:
        UserError: there is no such file, or something in it is not as described above; file, line and key are named.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise UserError(say("--task_file {path}: not a file", path=path))
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise UserError(
            say("--task_file {path}: cannot be read ({reason})", path=path, reason=getattr(error, "strerror", error))
        ) from None
    if len(content) > _MAX_BYTES:
        raise UserError(
            say(
                "--task_file {path}: {num_content:,} bytes are too many for a description: name it, not data",
                path=path,
                num_content=len(content),
            )
        )
    content = content.removeprefix(b"\xef\xbb\xbf")
    if not content.strip():
        raise UserError(say("{path}: empty", path=path))
    try:
        values, repeated = strict_json.parse(content)
        if repeated:
            raise _Wrong(repeated[0], say("occurs twice"), occurrence=2)
        return _task(values, path)
    except strict_json.NotJson as error:
        raise UserError(f"{path}:{error.line or 1}: {error}") from None
    except _Wrong as error:
        said = say("key '{key}': {problem}", key=error.key, problem=error) if error.key else error
        raise UserError(f"{path}:{_line(content, error)}: {said}") from None


def _line(content: bytes, error: _Wrong) -> int:
    """The line of a key, as often as it has to be found."""
    text = content.decode("utf-8")
    found = [*re.finditer(rf'"{re.escape(error.key)}"\s*:', text)] if error.key else []
    return text.count("\n", 0, found[min(error.occurrence, len(found)) - 1].start()) + 1 if found else 1


def _task(values: Any, source: str) -> Task:
    """The task of a description, from a file or a record."""
    if type(values) is not dict:
        raise _Wrong("", say("{values} is not an object with name, kind and so on", values=show(values)))
    _require_known(values, _KEYS)
    name, kind = (_get(values, key, str, say("a text")) for key in ("name", "kind"))
    if not _NAME.fullmatch(name):
        raise _Wrong(
            "name", say("{name} is not made of at most 40 letters, digits, _ and -, a letter first", name=show(name))
        )
    name = name.upper()
    if name in {*TASKS, tasks.DIAGNOSTICS.name}:
        raise _Wrong("name", say("{name} is one of CLUE's: choose another name", name=name))
    if kind not in FORMS:
        raise _Wrong(
            "kind",
            say(
                "{kind} is none of {forms}{meant}", kind=show(kind), forms=", ".join(FORMS), meant=_nearest(kind, FORMS)
            ),
        )
    form, is_classification = FORMS[kind], kind == "classification"
    for key in ("fields", "labels"):
        if key in values and not is_classification:
            raise _Wrong(
                key, say("a {kind} task has the fields of {name}'s records: leave it out", kind=kind, name=form.name)
            )
    texts = _fields(values.get("fields", ["sentence"])) if is_classification else ()
    labels = _labels(values.get("labels", FROM_TRAINING)) if is_classification else {}
    own = replace(
        form,
        name=name,
        folder=name.lower(),
        archive=Archive((), ()),
        fields=dict.fromkeys(texts, str) if is_classification else form.fields,
        splits=_files(kind, values.get("files", {}), Path(source).parent),
        submissions={},
        labels=tuple(labels),
        label_names=tuple(labels.values()) if [*labels] != [*labels.values()] else (),
        published_metrics=(),
        num_gpus=1,
        md5={},
        texts=texts,
        source=source,
    )
    return replace(own, submissions={TEST: own.plain_submission}, **_hyper_parameters(kind, values))


def _get(values: JsonObject, key: str, kind: type, what: str) -> Any:
    if key not in values:
        raise _Wrong("", say("no key '{key}': a task needs name and kind", key=key))
    if type(values[key]) is not kind:
        raise _Wrong(key, say("{values} is not {what}", values=show(values[key]), what=what))
    return values[key]


def _nearest(word: str, words: Any) -> str:
    close = difflib.get_close_matches(word, [*words], n=1)
    return say(": did you mean {name}?", name=close[0]) if close else ""


def _require_known(values: JsonObject, keys: Sequence[str]) -> None:
    for key in values:
        if key not in keys:
            choice = say(": choose among {names}", names=", ".join(keys))
            raise _Wrong(key, say("unknown{meant}", meant=_nearest(key, keys) or choice))


def _fields(value: Any) -> tuple[str, ...]:
    fields = [value] if type(value) is str else value
    if type(fields) is not list or not 1 <= len(fields) <= 2 or not all(type(name) is str and name for name in fields):
        raise _Wrong("fields", say("{value} is not a list of the names of one or two fields", value=show(value)))
    if len({*fields}) < len(fields) or {*fields} & {*_NOT_FIELDS}:
        raise _Wrong(
            "fields",
            say(
                "{value}: two different fields that hold texts, not {not_fields}",
                value=show(value),
                not_fields=say(" or ").join(_NOT_FIELDS),
            ),
        )
    return tuple(fields)


def _labels(value: Any) -> dict[str, str]:
    """Label -> its name; empty where the training file has them."""
    if value == FROM_TRAINING:
        return {}
    if type(value) is dict:
        labels = value
    elif type(value) is list:
        texts = [str(label) if type(label) is int else label for label in value]
        if not all(type(label) is str for label in texts):
            raise _Wrong("labels", say("{value} holds what is no text", value=show(value)))
        labels = dict(zip(texts, texts, strict=True))
        if len(labels) < len(texts):
            twice = next(label for label in texts if texts.count(label) > 1)
            raise _Wrong("labels", say("{twice} occurs twice", twice=show(twice)))
    else:
        raise _Wrong(
            "labels",
            say(
                '{value} is no list, no object of names, and not "{from_training}"',
                value=show(value),
                from_training=FROM_TRAINING,
            ),
        )
    names = [*labels.values()]
    if not all(type(name) is str and name for name in (*labels, *names)):
        raise _Wrong("labels", say("{value}: a label and its name are texts, not empty", value=show(value)))
    if len({*names}) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise _Wrong("labels", say("two labels are called {twice}", twice=show(twice)))
    _require_labels(labels)
    return labels


def _require_labels(labels: Any) -> None:
    if len(labels) < 2:
        raise _Wrong(
            "labels", say("{num_labels} labels: there must be two or more to tell apart", num_labels=len(labels))
        )
    if tasks.NO_LABEL in labels:
        raise _Wrong("labels", say('"{no_label}" marks a record without a label, and is none', no_label=tasks.NO_LABEL))


def _files(kind: str, value: Any, folder: Path) -> dict[str, Split]:
    if type(value) is not dict:
        raise _Wrong(
            "files", say("{value} is not an object with {splits}", value=show(value), splits=", ".join(SPLITS))
        )
    _require_known(value, (*SPLITS,))
    splits = {}
    for word, split in SPLITS.items():
        files = value.get(word, [])
        files = [files] if type(files) is str else files
        if type(files) is not list or not all(type(name) is str and name and "\0" not in name for name in files):
            raise _Wrong(word, say("{files} is not the path of a file, or a list of such", files=show(files)))
        splits[split] = _split(kind, split, (folder / Path(name).expanduser() for name in files))
    return splits


def _hyper_parameters(kind: str, values: JsonObject) -> JsonObject:
    given = values.get("hyper_parameters", {})
    if type(given) is not dict:
        raise _Wrong("hyper_parameters", say("{given} is not an object", given=show(given)))
    _require_known(given, (*_NUMBERS, *_GRIDS, "metric"))
    found: JsonObject = {}
    for name, number in _NUMBERS.items():
        if name in given:
            if not number.accepts(given[name]):
                raise _Wrong(
                    name, say("{given} is not {meaning}", given=show(given[name]), meaning=say(number.meaning))
                )
            found["evaluation_steps" if name == "save_steps" else name] = given[name]
    for name, number in _GRIDS.items():
        if name in given:
            grid = given[name] if type(given[name]) is list else [given[name]]
            for value in grid:
                if not number.accepts(value):
                    raise _Wrong(name, say("{value} is not {meaning}", value=show(value), meaning=say(number.meaning)))
            if not grid or len({*grid}) < len(grid):
                raise _Wrong(name, say("{grid} is not a list of different numbers", grid=show(grid)))
            found[name] = tuple(number.convert(value) for value in grid)
    if "metric" in given:
        metrics = METRICS.get(kind, ("accuracy",))
        if given["metric"] not in metrics:
            raise _Wrong(
                "metric",
                say(
                    "{metric} is not {metrics}, as of a {kind} task",
                    metric=show(given["metric"]),
                    metrics=say(" or ").join(metrics),
                    kind=kind,
                ),
            )
        found["metric"] = given["metric"]
    return found


def with_labels(task: Task, labels: Sequence[str], source: str) -> Task:
    """The task with the labels that its training file has; ``source`` names that for an error."""
    try:
        _require_labels(labels)
    except _Wrong as error:
        raise UserError(f"{source}: {error}") from None
    return replace(task, labels=tuple(labels))


def description(task: Task) -> JsonObject:
    """What a record or a plan keeps of a user's task: as in its file, complete, but for the paths of its data."""
    hyper: JsonObject = {name: getattr(task, name) for name in (*_NUMBERS, "metric")}
    hyper |= {name: [*getattr(task, name)] for name in _GRIDS}
    described: JsonObject = {"name": task.name, "kind": task.kind}
    if task.kind == "classification":
        labels = dict(zip(task.labels, task.names, strict=True)) or FROM_TRAINING
        described |= {"fields": [*task.texts], "labels": labels}
    return described | {"hyper_parameters": hyper}


def know(described: Any, where: object) -> Task:
    """The task that a record or a plan describes, known by its name from now on.

    Args:
        where: the description stands.

    Raises:
        ValueError: it is no description.
        UserError: a task of this name is known already that reads or answers other things.
    """
    try:
        task = _task(described, _OF_RECORD)
    except _Wrong as error:
        raise ValueError(say("the definition of its task: {key}: {problem}", key=error.key, problem=error)) from None
    known = OWN.get(task.name)
    if known is None:
        return OWN.setdefault(task.name, task)
    for name in ("kind", "texts", "labels", "names", "metric"):
        there, now = getattr(task, name), getattr(known, name)
        if there != now and not (name in ("labels", "names") and not known.labels):
            other = say("elsewhere") if known.source == _OF_RECORD else say("in {file}", file=known.source)
            raise UserError(
                say(
                    "{where}: {name} of its task {task_name}: {there}, but {now} {other}: choose another folder, "
                    "or give the task that has changed another name",
                    where=where,
                    name=name,
                    task_name=task.name,
                    there=show(there),
                    now=show(now),
                    other=other,
                )
            )
    return known
