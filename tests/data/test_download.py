"""Fetching an archive, from a real server on this machine."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import http.server
import io
import itertools
import os
import stat
import subprocess
import sys
import threading
import time
import zipfile
from functools import partial
from pathlib import Path

import pytest

from clue_utils.data import download
from clue_utils.errors import UserError
from clue_utils.tasks import TASKS, Archive
from killing import kill_before_change

# Not compressible, so that the archive has many packets.
NOISE = os.urandom(600_000).hex()
FILES = {"train.json": NOISE, "dev.json": '{"sentence": "甲"}\n', "test.json": "{}\n"}


def make_zip(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def sha256(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Server:
    """Serves ``content``; the flags say how badly."""

    def __init__(self):
        self.content = make_zip(FILES)
        self.ranges = True  # Range is understood
        self.cuts = []  # bytes after which the connection of each next request is cut
        self.answers = []  # status (and address to go to) of each next request, before the content is served
        self.delay = 0.0  # seconds before each reply
        self.requests = []  # Range header of each request
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.reply(self)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/data.zip"

    def reply(self, handler):
        asked = handler.headers.get("Range")
        self.requests.append(asked)
        time.sleep(self.delay)
        if self.answers:
            status, location = self.answers.pop(0)
            handler.send_response(status)
            if location:
                handler.send_header("Location", location)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        begin, content = 0, self.content
        if asked and self.ranges:
            begin = int(asked.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(content):
                handler.send_response(416)
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        else:
            handler.send_response(200)
        handler.send_header("Content-Length", str(len(content) - begin))
        handler.end_headers()
        end = begin + self.cuts.pop(0) if self.cuts else len(content)
        handler.wfile.write(content[begin:end])


@pytest.fixture
def server(monkeypatch):
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setattr(download, "_PLAIN_HOSTS", frozenset({"127.0.0.1"}))
    monkeypatch.setattr(download, "_RETRY_DELAYS", (0.0, 0.0, 0.0))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


def task_for(server, *, urls=None, digests=None):
    archive = Archive(urls or (server.url,), digests or (sha256(server.content),))
    return dataclasses.replace(TASKS["AFQMC"], archive=archive)


def assert_fetched(folder, files=FILES):
    assert {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()} == files
    leftovers = {path.name for path in folder.parent.iterdir()} - {folder.name}
    assert leftovers <= {f".{folder.name}.lock"}


def assert_nothing_unpacked(cache):
    assert not [path for path in cache.rglob("*") if path.is_dir() or path.suffix == ".zip"]


def test_fetches_once(server, tmp_path):
    task = task_for(server)
    folder = download.fetch(task, tmp_path / "new" / "cache")
    assert folder == tmp_path / "new" / "cache" / "afqmc_public"
    assert_fetched(folder)
    assert download.fetch(task, folder.parent) == folder
    assert server.requests == [None]


def test_what_is_written_follows_the_umask(server, tmp_path):
    umask = os.umask(0o027)
    try:
        folder = download.fetch(task_for(server), tmp_path / "cache")
    finally:
        os.umask(umask)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    assert stat.S_IMODE((folder / "dev.json").stat().st_mode) == 0o640


def test_a_single_top_folder_and_what_macos_adds_are_left_out(server, tmp_path):
    server.content = make_zip(
        {f"cmnli_public/{name}": text for name, text in FILES.items()}
        | {"__MACOSX/cmnli_public/._dev.json": "x", "cmnli_public/.DS_Store": "x"}
    )
    assert_fetched(download.fetch(task_for(server), tmp_path))


def test_md5_digests_are_known_too(server, tmp_path):
    digests = ("sha256:00", "md5:" + hashlib.md5(server.content).hexdigest())
    assert_fetched(download.fetch(task_for(server, digests=digests), tmp_path))


def test_goes_on_after_a_cut(server, tmp_path):
    server.cuts = [400_000, 100_000]
    assert_fetched(download.fetch(task_for(server), tmp_path))
    assert server.requests == [None, "bytes=400000-", "bytes=500000-"]


def test_goes_on_in_a_later_run(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_RETRY_DELAYS", ())
    server.cuts = [400_000]
    with pytest.raises(UserError, match=r"ended after 400,000 of .* bytes\).* Run again .*--data_dir"):
        download.fetch(task_for(server), tmp_path)
    assert_nothing_unpacked(tmp_path)
    assert_fetched(download.fetch(task_for(server), tmp_path))
    assert server.requests == [None, "bytes=400000-"]


def test_starts_anew_where_the_server_knows_no_ranges(server, tmp_path):
    server.cuts, server.ranges = [400_000], False
    assert_fetched(download.fetch(task_for(server), tmp_path))
    assert server.requests == [None, "bytes=400000-"]


def test_starts_anew_when_the_content_changes_in_between(server, tmp_path, monkeypatch):
    """The checksum finds what was joined wrongly."""
    monkeypatch.setattr(download, "_RETRY_DELAYS", ())
    server.cuts = [400_000]
    with pytest.raises(UserError):
        download.fetch(task_for(server), tmp_path)
    server.content = make_zip(FILES | {"train.json": NOISE[::-1]})
    monkeypatch.setattr(download, "_RETRY_DELAYS", (0.0,))
    assert_fetched(download.fetch(task_for(server), tmp_path), FILES | {"train.json": NOISE[::-1]})
    assert server.requests == [None, "bytes=400000-", None]


def test_goes_on_at_another_address(server, tmp_path):
    server.cuts = [400_000, 0, 0, 0]
    task = task_for(server, urls=(server.url + "?first", server.url + "?second"))
    assert_fetched(download.fetch(task, tmp_path))
    assert server.requests == [None, *4 * ["bytes=400000-"]]


@pytest.mark.parametrize("change", [lambda content: content[1:], lambda content: content + bytes(10_000_000)])
def test_a_part_of_another_file_is_fetched_anew(server, tmp_path, change):
    (tmp_path / ".afqmc_public.zip.part").write_bytes(change(server.content))
    assert_fetched(download.fetch(task_for(server), tmp_path))
    assert len(server.requests) == 2


def test_an_archive_left_by_a_killed_run_is_used(server, tmp_path):
    (tmp_path / ".afqmc_public.zip.part").write_bytes(server.content)
    assert_fetched(download.fetch(task_for(server), tmp_path))
    assert server.requests == []


def test_a_kill_at_any_change_of_files_leaves_nothing(server, tmp_path):
    files = {"train.json": "{}\n", "dev.json": "{}\n"}
    server.content = make_zip(files)
    task = task_for(server)
    for number in itertools.count(1):
        cache = tmp_path / str(number)
        was_killed = kill_before_change(number, partial(download.fetch, task, cache))
        assert_fetched(download.fetch(task, cache), files)
        if not was_killed:
            break
    assert number > 10


def test_another_digest_is_refused_and_removed(server, tmp_path):
    expected, got = "sha256:" + 64 * "0", sha256(server.content)
    with pytest.raises(UserError) as error:
        download.fetch(task_for(server, digests=(expected,)), tmp_path)
    assert expected in str(error.value) and got in str(error.value) and "\n" not in str(error.value)
    assert {path.name for path in tmp_path.iterdir()} == {".afqmc_public.lock"}
    assert server.requests == [None]


def test_the_second_address_is_tried(server, tmp_path):
    server.answers = [(404, None)]
    task = task_for(server, urls=(server.url + "?first", server.url + "?second"))
    assert_fetched(download.fetch(task, tmp_path))


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.answers = [(503, None), (429, None)]
    assert_fetched(download.fetch(task_for(server), tmp_path))
    assert len(server.requests) == 3


def test_a_missing_file_is_not_asked_for_again(server, tmp_path):
    server.answers = [(404, None)]
    with pytest.raises(UserError, match=r"AFQMC: .*/data\.zip \(.* 404 .*DIR/afqmc_public/train\.json.*--data_dir"):
        download.fetch(task_for(server), tmp_path)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "location", ["http://localhost:{port}/data.zip", "file:///etc/passwd", "ftp://127.0.0.1/data.zip", "http://[x/"]
)
def test_a_redirect_away_from_https_is_refused(server, tmp_path, location):
    server.answers = [(302, location.format(port=server.http.server_port))]
    with pytest.raises(UserError, match="cannot download"):
        download.fetch(task_for(server), tmp_path)
    assert len(server.requests) == 1
    assert_nothing_unpacked(tmp_path)


def test_plain_http_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_PLAIN_HOSTS", frozenset())
    with pytest.raises(UserError, match="is not an https address"):
        download.fetch(task_for(server), tmp_path)
    assert server.requests == []


def test_all_addresses_of_the_registry_are_https():
    for task in TASKS.values():
        assert task.archive.urls and task.archive.digests
        for url in task.archive.urls:
            download._require_https(url)


def test_an_unreachable_server(server, tmp_path):
    server.http.server_close()
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:\d+/data\.zip \(.*[Rr]efused.*--data_dir DIR"):
        download.fetch(task_for(server), tmp_path)


def test_a_silent_server(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_TIMEOUT", 0.1)
    monkeypatch.setattr(download, "_RETRY_DELAYS", ())
    server.delay = 0.5
    with pytest.raises(UserError, match="timed out"):
        download.fetch(task_for(server), tmp_path)


def test_more_bytes_than_an_archive_can_have(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_MAX_ARCHIVE", 1000)
    with pytest.raises(UserError, match="more bytes than"):
        download.fetch(task_for(server), tmp_path)


def test_a_full_disk(server, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"No space left.*free some space.*CLUE_CACHE_DIR"):
        download.fetch(task_for(server), tmp_path)
    monkeypatch.undo()
    assert {path.name for path in tmp_path.iterdir()} == {".afqmc_public.lock", ".afqmc_public.zip.part"}


def test_a_cache_that_is_a_file(server, tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(UserError, match="CLUE_CACHE_DIR"):
        download.fetch(task_for(server), tmp_path / "cache")


def test_processes_at_once_fetch_once(server, tmp_path):
    server.delay = 0.5
    program = f"""
import dataclasses
from pathlib import Path
from clue_utils.data import download
from clue_utils.tasks import TASKS, Archive
download._PLAIN_HOSTS = {{"127.0.0.1"}}
archive = Archive(({server.url!r},), ({sha256(server.content)!r},))
print(download.fetch(dataclasses.replace(TASKS["AFQMC"], archive=archive), Path({str(tmp_path)!r})))
"""
    environment = os.environ | {"PYTHONPATH": str(Path(download.__file__).parents[2])}
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment, text=True)
        for _ in range(2)
    ]
    assert [process.communicate()[0].strip() for process in processes] == 2 * [str(tmp_path / "afqmc_public")]
    assert server.requests == [None]
    assert_fetched(tmp_path / "afqmc_public")
