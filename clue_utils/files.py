"""Files and folders that readers see whole or not at all, what outlives a power cut, and the lock of a run's folder."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from clue_utils import ranks
from clue_utils.errors import UserError

_LOCK_FILE = ".lock"


def write_text_atomically(path: Path, text: str) -> None:
    """Write a file under another name and rename it, so that readers see the old or the new one, never a part."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a name beside ``path`` to write a file under, which then takes its place; not if the block fails.

    What processes that were killed while they wrote the same file have left is removed.
    """
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        pid = leftover.name.split(".")[-2]
        if pid.isdecimal() and not _is_running(int(pid)):
            leftover.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        flush_to_disk(temporary)
        os.replace(temporary, path)
        flush_names(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def flush_to_disk(path: Path) -> None:
    """Return when a file, or a folder with all in it, would outlive a power cut."""
    for place in (*path.rglob("*"), path):
        flush_names(place)


def flush_names(path: Path) -> None:
    """Return when a file's content, or which files a folder has under which names, would outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def default_permissions() -> int:
    """What the umask leaves of a new file's permissions."""
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def give_default_permissions(path: Path) -> None:
    """Give a file that a library made private the permissions that the umask leaves."""
    os.chmod(path, default_permissions())


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of an output folder, which is made if need be; a process that dies gives it up.

    Raises:
        UserError: another run is at work there.
    """
    if ranks.rank() != 0:
        yield
        return
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{folder}: another run is writing there; wait for it or choose another --output_dir") from None
    try:
        for leftover in folder.glob(".*.tmp"):  # of a run that was killed
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        yield
    finally:
        if is_new and os.listdir(folder) == [_LOCK_FILE]:  # nothing came of it
            (folder / _LOCK_FILE).unlink()
            folder.rmdir()
        lock.release()
