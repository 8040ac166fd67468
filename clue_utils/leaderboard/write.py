"""Write, check and zip predictions in the leaderboard's format.

What the leaderboard would not take is refused, see ``check_file``. Formats: the submission notes of the CLUE
leaderboard (2021-09-04).
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from clue_utils import ranks
from clue_utils.errors import UserError
from clue_utils.files import atomically, write_json_lines_atomically, write_text_atomically
from clue_utils.language import say
from clue_utils.leaderboard import manifest
from clue_utils.leaderboard.check_file import Findings, check_prediction, read_prediction
from clue_utils.leaderboard.file_names import expected_ids, known_files, submission_files
from clue_utils.strict_json import JsonObject
from clue_utils.tasks import DIAGNOSTICS, Task, probabilities_name

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
    if ranks.is_first():
        folder.mkdir(parents=True, exist_ok=True)
        text = format_predictions(task, answers)
        for path in paths:
            write_text_atomically(path, text)
    return paths


def write_probabilities(task: Task, split: str, lines: Iterable[JsonObject], folder: Path) -> Path:
    """Write what a test set's predictions were chosen by, beside them: ``<name>_probabilities.jsonl``.

    An object for each record, in the order of the test set, as ``clue_utils.predictor`` describes it; of an ensemble
    with the means of its members' probabilities. Returns the path.
    """
    path = folder / probabilities_name(task.submissions[split])
    write_json_lines_atomically(path, lines)
    return path


def zip_predictions(
    folders: Sequence[Path],
    output: Path,
    data_dir: str | os.PathLike[str] | None = None,
    with_diagnostics: bool = False,
) -> dict[str, int]:
    """Put every prediction file of the folders at the top level of a zip, and write its manifest beside it.

    Args:
        data_dir: folder with the official files, whose test ids the predictions are then compared with.
        with_diagnostics: take the predictions of the diagnostics set in too.

    Returns:
        File name -> number of predictions.

    Raises:
        UserError: a file fails its check, is there twice, or there is none.
    """
    found: dict[str, Path] = {}
    names = [*submission_files(), *(DIAGNOSTICS.submissions.values() if with_diagnostics else ())]
    for folder in folders:
        for name in names:
            path = folder / name
            if not path.is_file():
                continue
            if name in found:
                raise UserError(
                    say(
                        "{name} is in both {parent} and {folder}: name one folder for each task",
                        name=name,
                        parent=found[name].parent,
                        folder=folder,
                    )
                )
            found[name] = path
    if not found:
        raise UserError(
            say(
                "no prediction file in {folders}: run the scripts with --do_predict first",
                folders=", ".join(map(str, folders)),
            )
        )
    if with_diagnostics and (missing := {*DIAGNOSTICS.submissions.values()} - {*found}):
        raise UserError(
            say(
                "--with_diagnostics: no {missing} in {folders}: CMNLI's --do_predict writes it where the data has "
                "{folder}/",
                missing=say(" or ").join(sorted(missing)),
                folders=", ".join(map(str, folders)),
                folder=DIAGNOSTICS.folder,
            )
        )
    counts = _check_files(found, data_dir)
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomically(output) as written, zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in counts:
            archive.write(found[name], arcname=name)
    manifest.write(output, found, counts)
    return counts


def _check_files(found: dict[str, Path], data_dir: str | os.PathLike[str] | None) -> dict[str, int]:
    """Check files and return how many predictions each holds; UserError with the first problem otherwise."""
    findings = Findings()
    for name, path in sorted(found.items()):
        ids = None
        if data_dir is not None:
            ids, reason = expected_ids(*known_files()[name], data_dir)
            if ids is None:
                raise UserError(
                    say("{path}: cannot be compared with the test file ({reason})", path=path, reason=reason)
                )
        with path.open("rb") as stream:
            content = read_prediction(stream)
        check_prediction(name, content, str(path), findings, ids)
    if findings.problems:
        more = len(findings.problems) - 1
        first = findings.problems[0]
        raise UserError(say("{first} (and {more:,} more problems)", first=first, more=more) if more else first)
    return findings.counts
