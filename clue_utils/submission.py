"""Write, check and zip predictions in the leaderboard's format.

The leaderboard compares labels line by line and scores a file with another name, order or format 0 without saying why,
so everything is checked before it is zipped. Formats: the submission notes of the CLUE leaderboard (2021-09-04).
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clue_utils import runtime, tasks
from clue_utils.errors import UserError
from clue_utils.results import write_text_atomically
from clue_utils.tasks import Task

# [(id, label)] in file order for classification and C3; question id or blank -> answer for CMRC2018 and CHID.
Answers = list[tuple[int, Any]] | dict[str, Any]


def format_predictions(task: Task, answers: Answers) -> str:
    """The text of a prediction file.

    Classification and C3: one ``{"id": int, "label": ...}`` a line, where a label is the official string, or for C3
    the number of the choice. CMRC2018 and CHID: one object for the file.
    """
    if isinstance(answers, dict):
        return json.dumps(answers, ensure_ascii=False, indent=4) + "\n"
    return "".join(json.dumps({"id": id_, "label": label}, ensure_ascii=False) + "\n" for id_, label in answers)


def write_predictions(task: Task, split: str, answers: Answers, folder: Path) -> list[Path]:
    """Write a test set's predictions under the leaderboard's name, and the newest set's under the plain name too.

    Only rank 0 writes. Returns the paths.
    """
    names = [task.submissions[split]]
    if split == task.test_splits[-1] and task.plain_submission not in names:
        names.append(task.plain_submission)
    paths = [folder / name for name in names]
    if runtime.rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        text = format_predictions(task, answers)
        for path in paths:
            write_text_atomically(path, text)
    return paths


def submission_files() -> dict[str, tuple[Task, str]]:
    """Every file name of the leaderboard -> its task and test split."""
    return {name: (task, split) for task in tasks.TASKS.values() for split, name in task.submissions.items()}


def check_file(path: Path) -> int:
    """Check a prediction file's format; return how many predictions it holds.

    Raises:
        UserError: the first thing in the file that the leaderboard would not take.
    """
    task, _ = submission_files()[path.name]
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error})") from None
    if task.kind in ("span", "cloze"):
        return _check_object(path, task, text)
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    if not lines:
        raise UserError(f"{path}: empty")
    seen = set()
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        record = _parse(where, line)
        if not isinstance(record, dict) or not {"id", "label"} <= record.keys():
            raise UserError(f'{where}: not an object with "id" and "label"')
        if type(record["id"]) is not int or record["id"] in seen:
            raise UserError(f"{where}: id {record['id']!r} is not a new integer")
        seen.add(record["id"])
        valid = (
            record["label"] in task.labels if task.labels else type(record["label"]) is int and 0 <= record["label"] < 4
        )
        if not valid:
            raise UserError(f"{where}: label {record['label']!r} is not one of {task.name}'s")
    return len(lines)


def _check_object(path: Path, task: Task, text: str) -> int:
    record = _parse(str(path), text)
    if not isinstance(record, dict) or not record:
        raise UserError(f"{path}: not one JSON object with all answers")
    for key, value in record.items():
        valid = isinstance(value, str) if task.kind == "span" else type(value) is int and 0 <= value < 10
        if not valid:
            raise UserError(f"{path}: answer {value!r} of {key} is not {'a text' if task.kind == 'span' else '0 to 9'}")
    return len(record)


def _parse(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error})") from None


def zip_predictions(folders: Sequence[Path], output: Path) -> dict[str, int]:
    """Put every prediction file of the folders at the top level of a zip.

    Returns:
        File name -> number of predictions.

    Raises:
        UserError: a file fails its check, is there twice, or there is none.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for name in submission_files():
            path = folder / name
            if not path.is_file():
                continue
            if name in found:
                raise UserError(f"{name} is in both {found[name].parent} and {folder}: name one folder for each task")
            found[name] = path
    if not found:
        raise UserError(
            f"no prediction file in {', '.join(map(str, folders))}: run the scripts with --do_predict first"
        )
    counts = {name: check_file(path) for name, path in sorted(found.items())}
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in counts:
                archive.write(found[name], arcname=name)
        os.replace(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)
    return counts
