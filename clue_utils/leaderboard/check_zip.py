"""Every reason for which the leaderboard would refuse a zip, or score a file in it 0."""

from __future__ import annotations

import difflib
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Container, Iterator
from pathlib import Path

from clue_utils.errors import UserError, shorten
from clue_utils.language import say
from clue_utils.leaderboard.check_file import Findings, check_prediction, read_prediction
from clue_utils.leaderboard.file_names import expected_ids, known_files
from clue_utils.tasks import DIAGNOSTICS, TASKS

# Far more than fourteen prediction files take, far less than what listing a zip's members would fill memory for.
MAX_ZIP_BYTES = 16 * 2**20
MAX_MEMBERS = 1000
# Names that went round for these tasks at some time; the leaderboard takes the present ones only.
_FORMER_NAMES = {
    "wsc_predict.json": "CLUEWSC2020",
    "ocnli50k_predict.json": "OCNLI",
    "clue_diagnostics_predict.json": DIAGNOSTICS.name,
}
_NAMES_OF_OTHER_SYSTEMS = ("__MACOSX/", ".DS_Store", "Thumbs.db")


def check_zip(path: Path, data_dir: str | os.PathLike[str] | None = None) -> Findings:
    """Check a zip for the leaderboard: its names, and every file in it.

    Args:
        data_dir: folder with the official files, whose test ids the predictions are compared with. A task without
            test files is held to the sizes of the official ones.

    Raises:
        UserError: the zip, or a folder named as ``data_dir``, is not there.
    """
    if not path.is_file():
        raise UserError(
            say("{path}: not a file", path=path) if path.exists() else say("{path}: no such file", path=path)
        )
    if data_dir is not None and not Path(data_dir).is_dir():
        raise UserError(say("--data_dir {data_dir}: not a folder", data_dir=data_dir))
    findings = Findings()
    if path.stat().st_size > MAX_ZIP_BYTES:
        findings.problems.append(
            say(
                "{name}: more than {megabytes} MB: not a zip of prediction files alone",
                name=path.name,
                megabytes=MAX_ZIP_BYTES >> 20,
            )
        )
        return findings
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive, findings, data_dir)
    except (zipfile.BadZipFile, struct.error, OSError, ValueError, EOFError, NotImplementedError) as error:
        findings.problems.append(
            say("{name}: not a zip, or a damaged one ({error})", name=path.name, error=shorten(error))
        )
        return findings
    return findings


def _check_members(archive: zipfile.ZipFile, findings: Findings, data_dir: str | os.PathLike[str] | None) -> None:
    members = archive.infolist()
    if not members:
        findings.problems.append(say("the zip is empty"))
    if len(members) > MAX_MEMBERS:
        findings.problems.append(
            say("the zip holds {number:,} files: they cannot all be predictions", number=len(members))
        )
        return
    taken: dict[str, str] = {}
    for member in members:
        place = shorten(member.filename)
        for problem in _name_problems(member):
            findings.problems.append(f"{place}: {problem}")
        name = member.filename.replace("\\", "/").rsplit("/", 1)[-1]
        if _is_rubbish(member.filename) or name not in known_files():
            continue
        if name in taken:
            findings.problems.append(
                say(
                    "{place}: {name} is in the zip twice (the first is {first})",
                    place=place,
                    name=name,
                    first=taken[name],
                )
            )
            continue
        taken[name] = place
        content = _read(archive, member, place, findings)
        if content is None:
            continue
        task, split = known_files()[name]
        ids, source = expected_ids(task, split, data_dir)
        if ids is None and data_dir is not None:
            findings.notes.append(
                say("{place}: not compared with the test file ({reason})", place=place, reason=source)
            )
        findings.compared[name] = say("official size") if ids is None else say("ids of {file}", file=source)
        check_prediction(name, content, place, findings, ids, official=True)
    _check_completeness(taken, findings)


def _is_rubbish(name: str) -> bool:
    return any(part in name for part in _NAMES_OF_OTHER_SYSTEMS) or name.rsplit("/", 1)[-1].startswith("._")


def _name_problems(member: zipfile.ZipInfo) -> Iterator[str]:
    """What is wrong with a member's name and kind."""
    path = member.filename.replace("\\", "/")
    parts = path.rstrip("/").split("/")
    if _is_rubbish(member.filename):
        yield say("left behind by an operating system; zip the prediction files alone")
        return
    if path.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", path):
        yield say("a path that leads out of the zip; put the file at the top level")
    elif path.endswith("/"):
        yield say("a folder; put the files at the top level")
        return
    elif len(parts) > 1:
        yield say("in a folder; put the file at the top level")
    if stat.S_ISLNK(member.external_attr >> 16):
        yield say("a link in place of a file")
    if parts[-1] not in known_files():
        yield say("not a file name of the leaderboard{remedy}", remedy=suggest_name(parts[-1]))


def suggest_name(name: str) -> str:
    """What to do about a file name that the leaderboard does not know, to be put behind a message."""
    tidy = name.strip().lower()[:100]
    known = known_files()
    for task in (*TASKS.values(), DIAGNOSTICS):
        if tidy == task.plain_submission or _FORMER_NAMES.get(tidy) == task.name:
            right = task.submissions[task.test_splits[-1]]
            if len(task.submissions) > 1 and name == task.plain_submission:
                return say("; it is the plain copy of {name}: leave it out", name=right)
            return say("; name it {name}", name=right)
    if tidy in known:
        return say("; name it {name}", name=tidy)
    if close := difflib.get_close_matches(tidy, known, n=1, cutoff=0.85):
        return say("; did you mean {name}?", name=close[0])
    return say("; its names are those of <task>_predict.json with the version of the test set")


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, place: str, findings: Findings) -> bytes | None:
    """The content of a member, or None with the problem noted; cut where it is longer than any prediction."""
    if member.flag_bits & 1:
        findings.problems.append(say("{place}: encrypted; zip it without a password", place=place))
        return None
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without bound
        findings.problems.append(say("{place}: compressed in an unusual way; zip it as usual (deflate)", place=place))
        return None
    try:
        with archive.open(member) as stream:
            return read_prediction(stream)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError) as error:
        findings.problems.append(
            say("{place}: damaged, it cannot be unpacked ({error})", place=place, error=shorten(error))
        )
        return None


def _check_completeness(taken: Container[str], findings: Findings) -> None:
    """One of a task's two test sets without the other is a problem; a task left out altogether may be."""
    for task in TASKS.values():
        absent = [name for name in task.submissions.values() if name not in taken]
        if len(absent) == len(task.submissions):
            findings.notes.append(say("{name}: left out ({files})", name=task.name, files=", ".join(absent)))
        elif absent:
            there = next(name for name in task.submissions.values() if name not in absent)
            findings.problems.append(
                say(
                    "{absent}: missing, although {there} is there: {name} has two test sets",
                    absent=absent[0],
                    there=there,
                    name=task.name,
                )
            )
