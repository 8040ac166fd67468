"""Files and folders that readers see whole or not at all and that outlive a power cut, and locks."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from clue_utils import ranks
from clue_utils.errors import UserError
from clue_utils.language import say

logger = logging.getLogger(__name__)
_LOCK_FILE = ".lock"


def write_text_atomically(path: Path, text: str) -> None:
    """Write a file under another name and rename it, so that readers see the old or the new one, never a part."""
    with atomically(path) as written:
        written.write_text(text, encoding="utf-8")


def write_json_lines_atomically(path: Path, lines: Iterable[Any]) -> None:
    """The same for a file with an object a line, which are taken one at a time."""
    with atomically(path) as written, written.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def atomically(target: Path) -> Iterator[Path]:
    """Yield a name beside ``target`` to write a file or folder under, which then takes its place (see ``put``).

    If the block fails, ``target`` is as it was and what was written is removed.
    """
    with scratch(target) as written:
        yield written
        put(written, target)


@contextlib.contextmanager
def scratch(target: Path) -> Iterator[Path]:
    """Yield a name beside ``target`` for a file or folder that is removed in the end, unless it was ``put`` elsewhere.

    What processes that were killed while they wrote the same have left is removed.
    """
    require_no_device(target)
    own = _beside(target)
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
        pid = leftover.name.split(".")[-2]
        if pid.isdecimal() and (leftover == own or not _is_running(int(pid))):
            _delete(leftover)
    try:
        with os_errors(target.parent):
            yield own
    finally:
        _delete(own)


def require_no_device(path: str | os.PathLike[str]) -> None:
    """Raise UserError for /dev/null and the like, whose place no file is to take."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise UserError(say("{path}: a device or pipe in place of a file; name another", path=path))


def put(written: Path, target: Path) -> None:
    """Give what was written beside ``target``, a file or a folder, that name, once all of it is on disk.

    Files that a library made private get the permissions that the umask leaves. A folder of this name is moved out of
    the way first: a kill in between leaves none, never a mixture.
    """
    for place in (*written.rglob("*"), written):
        _require_default_permissions(place)
        _flush(place)
    aside = _set_aside(target) if written.is_dir() and target.is_dir() else None
    os.replace(written, target)
    _flush(target.parent)
    if aside:
        _delete(aside)


def remove_folder(folder: Path) -> None:
    """Remove a folder under another name: no part of it ever goes by its own."""
    _delete(_set_aside(folder))


def _set_aside(folder: Path) -> Path:
    """Rename a folder to what is removed, if not at once, then as what a killed process has left."""
    aside = _beside(folder, ".removed")
    _delete(aside)
    os.replace(folder, aside)
    return aside


def _beside(target: Path, more: str = "") -> Path:
    return target.with_name(f".{target.name}{more}.{os.getpid()}.tmp")


def _delete(path: Path) -> None:
    """Remove a file or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _flush(path: Path) -> None:
    """Return when a file's content, or which files a folder has under which names, would outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _require_default_permissions(path: Path) -> None:
    mode = path.stat().st_mode
    if path.is_file() and not mode & 0o077:
        os.chmod(path, mode | _default_permissions())


def _default_permissions() -> int:
    """What the umask leaves of a new file's permissions."""
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


@contextlib.contextmanager
def os_errors(folder: Path) -> Iterator[None]:
    """Turn the safetensors library's report of a failed write, such as a full disk, into the OSError that it was."""
    try:
        yield
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if isinstance(error, OSError) or not number:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(folder)) from error


def digest_of(path: Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class Busy(UserError):
    """Another process holds a lock."""


@contextlib.contextmanager
def locked(path: Path, *, refusal: str = "", note: str = "") -> Iterator[None]:
    """Hold the lock that the file ``path`` is, which is made if need be; a process that dies gives it up.

    Args:
        refusal: what ``Busy`` says if another process holds it; without one, wait.
        note: what the log says before waiting.

    Raises:
        Busy: another process holds the lock and there is a ``refusal``.
    """
    lock = FileLock(path, mode=_default_permissions())
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if refusal:
            raise Busy(refusal) from None
        if note:
            logger.info(note)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep other runs out of an output folder, which is made if need be, and clear it of what killed ones have left.

    Raises:
        Busy: another run is at work there.
    """
    if not ranks.is_first():
        yield
        return
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    refusal = say("{folder}: another run is writing there; wait for it or choose another --output_dir", folder=folder)
    with locked(folder / _LOCK_FILE, refusal=refusal):
        try:
            for leftover in folder.glob(".*.tmp"):
                _delete(leftover)
            yield
        finally:
            if is_new and os.listdir(folder) == [_LOCK_FILE]:  # nothing came of it
                (folder / _LOCK_FILE).unlink()
                folder.rmdir()
