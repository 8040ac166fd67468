"""Fetch, verify and unpack the archive of one task.

Only https is spoken, before and after redirects; nothing is unpacked whose digest is not that of a known release; and
the folder appears under its name only when it is complete.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import json
import logging
import os
import re
import shutil
import ssl
import stat
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from clue_utils.errors import UserError, shorten, show
from clue_utils.tasks import Task

logger = logging.getLogger(__name__)


# What macOS adds to the archives it makes.
MACOS_FOLDER = "__MACOSX"


_CHUNK = 1 << 18


_TIMEOUT = 20.0  # seconds without a byte


_RETRY_DELAYS = (1.0, 2.0, 4.0)  # seconds before each further attempt


# Archives are 0.3 to 139 MB, and JSON of this kind shrinks to a third at the most.
_MAX_ARCHIVE = 1 << 30


_MAX_EXPANDED = 4 << 30


_MAX_RATIO = 100


_MAX_ENTRIES = 1000


# Hosts that tests may reach over plain http.
_PLAIN_HOSTS: frozenset[str] = frozenset()


class _Interrupted(Exception):
    """A transfer that failed but may succeed if tried again."""


class _Refused(Exception):
    """An address that is of no use, however often it is tried."""


def fetch(task: Task, cache_dir: Path) -> Path:
    """Return ``cache_dir/<task.folder>``, downloading the task's archive if the folder is not there.

    A broken download goes on where it stopped, in this run or a later one. Processes that ask at the same time wait
    for the first, then use what it fetched.

    Raises:
        UserError: no address gives a known release of the archive, the archive is unsafe or damaged, or the folder
            cannot be written.
    """
    target = cache_dir / task.folder
    archive = cache_dir / f".{task.folder}.zip"
    try:
        if target.is_dir():
            _clear(archive)
            return target
        cache_dir.mkdir(parents=True, exist_ok=True)
        with _locked(cache_dir / f".{task.folder}.lock", task):
            if not target.is_dir():
                if not (archive.is_file() and _is_known(archive, task)):
                    _download(task, archive)
                _unpack(archive, target)
                _clear(archive)
    except OSError as error:
        remedy = "free some space" if error.errno == errno.ENOSPC else "make it writable"
        raise UserError(
            f"{task.name}: cannot keep the data in {cache_dir} ({error.strerror or error}): {remedy}, "
            "or name another folder in CLUE_CACHE_DIR"
        ) from None
    return target


def _clear(archive: Path) -> None:
    """Remove what the making of a complete folder leaves, in this process or in one that was killed at its end."""
    with contextlib.suppress(OSError):  # a cache that others have filled need not be writable
        _Part.of(archive, "").remove()
        archive.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path, task: Task) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("%s: waiting for the process that is fetching the data", task.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _download(task: Task, archive: Path) -> None:
    """Write a known release of the task's archive to ``archive``, from the first address that gives it."""
    problems = []
    for url in task.archive.urls:
        try:
            _download_from(url, task, archive)
            return
        except _Refused as error:
            problems.append(f"{url} ({error})")
    first_file = next(iter(task.splits.values())).files[0][0]
    raise UserError(
        f"{task.name}: cannot download {', '.join(problems)}. Run again to go on, or place the data by hand as "
        f"DIR/{task.folder}/{first_file} and so on, and pass --data_dir DIR or set CLUE_DATA_DIR"
    )


def _download_from(url: str, task: Task, archive: Path) -> None:
    """Try one address several times; raise _Refused in the end."""
    part = _Part.of(archive, url)
    if part.path.is_file() and _is_known(part.path, task):  # left whole by a run that was killed
        part.complete(archive)
        return
    for delay in (*_RETRY_DELAYS, None):
        try:
            resumed = _transfer(url, task, part)
            digests = _digests(part.path)
            if digests.isdisjoint(task.archive.digests):
                part.remove()
                known, got = " or ".join(task.archive.digests), " ".join(sorted(digests))
                problem = f"the file, removed now, is no known release: expected {known}, got {got}"
                # What was joined from two replies may be of two releases.
                raise _Interrupted(problem) if resumed else _Refused(problem)
            part.complete(archive)
            return
        except _Interrupted as error:
            if delay is None:
                raise _Refused(str(error)) from None
            logger.warning("%s: %s, trying again in %g s", url, error, delay)
            time.sleep(delay)


@dataclass(frozen=True)
class _Part:
    """An unfinished download, and beside it what tells whether the server still has the same file."""

    path: Path
    url: str

    @classmethod
    def of(cls, archive: Path, url: str) -> _Part:
        return cls(archive.with_name(f"{archive.name}.part"), url)

    @property
    def _note(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def resume_point(self) -> tuple[int, str]:
        """Bytes that are there, and the server's mark of that version; (0, "") to start anew."""
        try:
            note = json.loads(self._note.read_bytes())
            if note["url"] == self.url and isinstance(note["version"], str):
                return self.path.stat().st_size, note["version"]
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            pass  # there is none, or it is damaged
        return 0, ""

    def begin(self, version: str) -> None:
        """Forget the bytes that are there; the next ones are of this version."""
        self.remove()
        self.path.touch()
        temporary = self._note.with_name(f"{self._note.name}.tmp")
        temporary.write_text(json.dumps({"url": self.url, "version": version}), encoding="utf-8")
        os.replace(temporary, self._note)

    def complete(self, archive: Path) -> None:
        os.replace(self.path, archive)
        self.remove()

    def remove(self) -> None:
        # The note first: bytes without a note are never joined to others.
        self._note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def _transfer(url: str, task: Task, part: _Part) -> bool:
    """Complete ``part``; return whether it was resumed."""
    size, version = part.resume_point()
    request = urllib.request.Request(url)
    if size:
        request.add_header("Range", f"bytes={size}-")
        if version:
            request.add_header("If-Range", version)
    total: int | None = None
    with _open(request, part) as response:
        resumed: bool = response.status == http.client.PARTIAL_CONTENT
        if resumed:
            match = re.fullmatch(r"bytes ([0-9]{1,15})-[0-9]+/([0-9]{1,15})", response.headers.get("Content-Range", ""))
            if not match or not size or int(match[1]) != size:
                part.remove()
                raise _Interrupted("the server sent another range than the one asked for")
            total = int(match[2])
        else:
            size = 0
            length = response.headers.get("Content-Length", "")
            if re.fullmatch("[0-9]{1,15}", length):
                total = int(length)
            part.begin(_version(response.headers))
        if total is not None and total > _MAX_ARCHIVE:
            part.remove()
            raise _Refused(f"{total:,} bytes are too many for this archive")
        logger.info(
            "%s: downloading %s%s%s",
            task.name,
            url,
            "" if total is None else f" ({total / 1e6:.1f} MB)",
            f", going on at {size / 1e6:.1f} MB" if resumed else "",
        )
        progress = tqdm(desc=task.name, total=total, initial=size, unit="B", unit_scale=True, disable=None, leave=False)
        with progress, part.path.open("ab") as sink:
            for chunk in _chunks(response):
                size += len(chunk)
                if size > _MAX_ARCHIVE or (total is not None and size > total):
                    part.remove()
                    raise _Refused("the server sends more bytes than the archive can have")
                sink.write(chunk)
                progress.update(len(chunk))
    if total is not None and size < total:
        raise _Interrupted(f"the connection ended after {size:,} of {total:,} bytes")
    return resumed


def _version(headers: Any) -> str:
    """What If-Range may hold: a strong entity tag, else the date of the last change, else nothing."""
    tag: str = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _open(request: urllib.request.Request, part: _Part) -> Any:
    """Send the request; no network error leaves here but as _Interrupted or _Refused."""
    _require_https(request.full_url)
    try:
        return urllib.request.build_opener(_HttpsRedirects).open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        problem = f"the server answers {error.code} {shorten(error.reason)}"
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.remove()
            raise _Interrupted(problem) from None
        if error.code >= 500 or error.code in (http.client.REQUEST_TIMEOUT, http.client.TOO_MANY_REQUESTS):
            raise _Interrupted(problem) from None
        raise _Refused(problem) from None
    except ValueError as error:  # a redirect to what is no address
        raise _Refused(shorten(error)) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise _Refused(f"its certificate is not valid: {shorten(reason.verify_message)}") from None
        raise _Interrupted(shorten(reason) or type(reason).__name__) from None


def _chunks(response: Any) -> Iterator[bytes]:
    while True:
        try:
            # read1 gives what has arrived: nothing of it is lost when the connection breaks.
            chunk = response.read1(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _Interrupted(shorten(error) or type(error).__name__) from None
        if not chunk:
            return
        yield chunk


class _HttpsRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        _require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_https(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _PLAIN_HOSTS):
        raise _Refused(f"{shorten(url)} is not an https address")


def _digests(path: Path) -> set[str]:
    """Both digests of a file, written as in ``Archive.digests``."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            md5.update(chunk)
            sha256.update(chunk)
    return {f"md5:{md5.hexdigest()}", f"sha256:{sha256.hexdigest()}"}


def _is_known(path: Path, task: Task) -> bool:
    return not _digests(path).isdisjoint(task.archive.digests)


def _unpack(archive: Path, target: Path) -> None:
    """Unpack a zip to the new folder ``target``, all or nothing; a single top folder in the zip is left out.

    Raises:
        UserError: the zip is damaged, has an entry that is neither file nor folder or whose name leaves the target,
            or expands beyond what such data can.
    """
    # Nobody else writes here: the lock is held. What a killed run left is in the way.
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as stored:
            files = _check_entries(stored, archive.stat().st_size)
            if len({path.parts[0] for path in files}) == 1 and all(len(path.parts) > 1 for path in files):
                files = {PurePosixPath(*path.parts[1:]): entry for path, entry in files.items()}
            temporary.mkdir()
            for path, entry in files.items():
                _unpack_file(stored, entry, temporary / path)
        os.replace(temporary, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        # NotImplementedError: unknown compression; RuntimeError: a password is needed; ValueError: an odd header.
        archive.unlink(missing_ok=True)
        raise UserError(f"{target.name}.zip, removed now: damaged or unsafe archive ({shorten(error, 160)})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_entries(stored: zipfile.ZipFile, size: int) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The files to unpack by their relative path; raise BadZipFile for a zip that cannot be official data."""
    entries = stored.infolist()
    if len(entries) > _MAX_ENTRIES:
        raise zipfile.BadZipFile(f"{len(entries)} entries")
    expanded = sum(entry.file_size for entry in entries)
    if expanded > min(_MAX_EXPANDED, _MAX_RATIO * size):
        raise zipfile.BadZipFile(f"would expand from {size:,} to {expanded:,} bytes")
    files: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for entry in entries:
        # ZipInfo.filename is cut at a zero byte and has the system's separator replaced; the original is judged too.
        for name in (entry.filename, entry.orig_filename):
            path = PurePosixPath(name)
            if not path.parts or path.is_absolute() or ".." in path.parts or set(name) & set("\\:\0"):
                raise zipfile.BadZipFile(f"entry {show(name)} would leave the folder")
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise zipfile.BadZipFile(f"entry {show(entry.filename)} is a link or device")
        path = PurePosixPath(entry.filename)
        if entry.is_dir() or any(part == MACOS_FOLDER or part.startswith(".") for part in path.parts):
            continue
        if path in files:
            raise zipfile.BadZipFile(f"entry {show(entry.filename)} is there twice")
        files[path] = entry
    if not files:
        raise zipfile.BadZipFile("it holds no file")
    return files


def _unpack_file(stored: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    """Write one entry; reading stops at the size that the directory of the zip states, and checks the CRC."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with stored.open(entry) as source, path.open("xb") as sink:
        shutil.copyfileobj(source, sink, _CHUNK)
        sink.flush()
        os.fsync(sink.fileno())
