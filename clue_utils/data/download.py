"""Fetch, verify and unpack the archive of one task.

Only https is spoken, before and after redirects; nothing is unpacked whose digest is not that of a known release; and
the folder appears under its name only when it is complete.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import logging
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from clue_utils import cli
from clue_utils.errors import UserError, shorten
from clue_utils.files import digest_of, locked, put, scratch
from clue_utils.language import say
from clue_utils.tasks import Task

logger = logging.getLogger(__name__)
# What macOS adds to the archives it makes.
MACOS_FOLDER = "__MACOSX"
_CHUNK = 1 << 18
_TIMEOUT = 20.0  # seconds without a byte
_RETRY_DELAYS = (1.0, 2.0, 4.0)  # seconds before each further attempt
_MAX_ARCHIVE = 1 << 30  # bytes; archives have 0.3 to 139 MB
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
        UserError: no address gives a known release of the archive, or the folder cannot be written.
    """
    target = cache_dir / task.folder
    archive = cache_dir / f".{task.folder}.zip.part"
    try:
        if not target.is_dir():
            cache_dir.mkdir(parents=True, exist_ok=True)
            note = say("{name}: waiting for the process that is fetching the data", name=task.name)
            with locked(cache_dir / f".{task.folder}.lock", note=note):
                if not target.is_dir():
                    _download(task, archive)
                    _unpack(archive, target)
    except OSError as error:
        remedy = say("free some space") if error.errno == errno.ENOSPC else say("make it writable")
        raise UserError(
            say(
                "{name}: cannot keep the data in {cache_dir} ({strerror}): {remedy}, or name another folder in "
                "CLUE_CACHE_DIR",
                name=task.name,
                cache_dir=cache_dir,
                strerror=error.strerror or error,
                remedy=remedy,
            )
        ) from None
    with contextlib.suppress(OSError):  # a cache that others have filled need not be writable
        archive.unlink(missing_ok=True)
    return target


def _download(task: Task, archive: Path) -> None:
    """Complete ``archive`` to a known release of the task's archive, from the first address that gives one."""
    if archive.is_file() and _digests(archive) & {*task.archive.digests}:  # a run was killed while it was unpacked
        return
    problems = []
    for url in task.archive.urls:
        try:
            _download_from(url, task, archive)
            return
        except _Refused as error:
            problems.append(f"{url} ({error})")
    first_file = next(iter(task.splits.values())).files[0][0]
    raise UserError(
        say(
            "{name}: cannot download {problems}. Run again to go on, or place the data by hand as "
            "DIR/{folder}/{first_file} and so on, and pass --data_dir DIR or set CLUE_DATA_DIR",
            name=task.name,
            problems=", ".join(problems),
            folder=task.folder,
            first_file=first_file,
        )
    )


def _download_from(url: str, task: Task, archive: Path) -> None:
    """Try one address several times; raise _Refused in the end."""
    for delay in (*_RETRY_DELAYS, None):
        try:
            resumed = _transfer(url, task, archive)
            digests = _digests(archive)
            if digests & {*task.archive.digests}:
                return
            archive.unlink()
            problem = say(
                "the file, removed now, is no known release: expected {known}, got {got}",
                known=say(" or ").join(task.archive.digests),
                got=" ".join(sorted(digests)),
            )
            # What was joined from several replies may be of several releases.
            raise _Interrupted(problem) if resumed else _Refused(problem)
        except _Interrupted as error:
            if delay is None:
                raise _Refused(str(error)) from None
            logger.warning(say("{url}: {error}, trying again in {delay:g} s", url=url, error=error, delay=delay))
            time.sleep(delay)


def _digests(path: Path) -> set[str]:
    """Both digests of a file, written as in ``Archive.digests``."""
    return {f"{algorithm}:{digest_of(path, algorithm)}" for algorithm in ("md5", "sha256")}


def _transfer(url: str, task: Task, archive: Path) -> bool:
    """Complete ``archive``; return whether it was begun before."""
    begin = archive.stat().st_size if archive.is_file() else 0
    with _open(url, archive, begin) as response:
        resumed: bool = response.status == http.client.PARTIAL_CONTENT
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {begin}-"):
            archive.unlink()
            raise _Interrupted(say("the server sent another range than the one asked for"))
        size = begin if resumed else 0
        total = None if response.length is None else size + response.length
        logger.info(
            "%s: downloading %s%s%s",
            task.name,
            url,
            "" if total is None else f" ({total / 1e6:.1f} MB)",
            f", going on at {size / 1e6:.1f} MB" if resumed else "",
        )
        progress = tqdm(desc=task.name, total=total, initial=size, unit="B", unit_scale=True, disable=None, leave=False)
        pulse = cli.Pulse(f"downloading {task.name}", (total or 0) - size, "bytes")
        with progress, archive.open("ab" if resumed else "wb") as sink:
            while chunk := _read(response):
                size += len(chunk)
                if size > _MAX_ARCHIVE:
                    archive.unlink()
                    raise _Refused(say("more bytes than the archive can have"))
                sink.write(chunk)
                progress.update(len(chunk))
                if total is not None:
                    pulse.advance(len(chunk))
    if total is not None and size < total:
        raise _Interrupted(say("the connection ended after {size:,} of {total:,} bytes", size=size, total=total))
    return resumed


def _open(url: str, archive: Path, begin: int) -> Any:
    """Ask for what is behind ``begin``; no network error leaves here but as _Interrupted or _Refused."""
    _require_https(url)
    request = urllib.request.Request(url, headers={"Range": f"bytes={begin}-"} if begin else {})
    try:
        return urllib.request.build_opener(_HttpsRedirects).open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        problem = say("the server answers {code} {reason}", code=error.code, reason=shorten(error.reason))
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            archive.unlink(missing_ok=True)
            raise _Interrupted(problem) from None
        if error.code >= 500 or error.code in (http.client.REQUEST_TIMEOUT, http.client.TOO_MANY_REQUESTS):
            raise _Interrupted(problem) from None
        raise _Refused(problem) from None
    except ValueError as error:  # a redirect to what is no address
        raise _Refused(shorten(error)) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise _Refused(
                say("its certificate is not valid: {verify_message}", verify_message=shorten(reason.verify_message))
            ) from None
        raise _Interrupted(shorten(reason) or type(reason).__name__) from None


def _read(response: Any) -> bytes:
    """What has arrived, none of which is lost when the connection breaks; empty at the end."""
    try:
        chunk: bytes = response.read1(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(shorten(error) or type(error).__name__) from None
    return chunk


class _HttpsRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        _require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_https(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _PLAIN_HOSTS):
        raise _Refused(say("{url} is not an https address", url=shorten(url)))


def _unpack(archive: Path, target: Path) -> None:
    """Unpack a zip to the new folder ``target``, all or nothing; a single top folder in the zip is left out."""
    with scratch(target) as written, zipfile.ZipFile(archive) as stored:
        for name in stored.namelist():
            if not any(part == MACOS_FOLDER or part.startswith(".") for part in PurePosixPath(name).parts):
                stored.extract(name, written)
        inner = list(written.iterdir())
        put(inner[0] if len(inner) == 1 and inner[0].is_dir() else written, target)
