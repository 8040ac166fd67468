"""Writing files and folders whole, whenever the process is killed, and locks."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import subprocess
import threading
import time
from functools import partial

import pytest

from clue_utils.errors import UserError
from clue_utils.files import Busy, atomically, locked, os_errors, remove_folder, scratch, write_text_atomically
from killing import kill_before_change


def write_folder(folder, text):
    with atomically(folder) as written:
        (written / "inner").mkdir(parents=True)
        (written / "inner" / "a").write_text(text)
        (written / "b").write_text(text)


def content(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["[report].html", "*.zip"])
def test_a_kill_while_a_text_is_written_leaves_nothing(tmp_path, name):
    path = tmp_path / name
    for number in itertools.count(1):
        path.write_text("old")
        was_killed = kill_before_change(number, partial(write_text_atomically, path, "new"))
        assert path.read_text() in ("old", "new") and (was_killed or path.read_text() == "new")
        write_text_atomically(path, "newer")
        assert content(tmp_path) == {path.name: "newer"}
        if not was_killed:
            break
    assert number > 2


def test_a_kill_while_a_folder_is_replaced_leaves_no_mixture(tmp_path):
    path = tmp_path / "checkpoint-2"
    for number in itertools.count(1):
        write_folder(path, "old")
        was_killed = kill_before_change(number, partial(write_folder, path, "new"))
        found = content(path)
        assert found in ({}, *({"inner/a": text, "b": text} for text in ("old", "new")))
        assert was_killed or found["b"] == "new"
        write_folder(path, "newer")
        assert content(tmp_path) == {"checkpoint-2/inner/a": "newer", "checkpoint-2/b": "newer"}
        if not was_killed:
            break
    assert number > 8
    remove_folder(path)
    assert not list(tmp_path.iterdir())


def test_what_fails_leaves_what_was_there(tmp_path):
    write_folder(tmp_path / "folder", "old")
    with pytest.raises(ZeroDivisionError), atomically(tmp_path / "folder") as written:
        written.mkdir()
        (written / "b").write_text(str(1 // 0))
    with pytest.raises(IsADirectoryError):  # the user's folder under the name of a file
        write_text_atomically(tmp_path / "folder", "text")
    assert content(tmp_path) == {"folder/inner/a": "old", "folder/b": "old"}


def test_no_file_takes_the_place_of_a_device(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe: a device or pipe in place of a file"):
        write_text_atomically(tmp_path / "pipe", "text")
    assert (tmp_path / "pipe").is_fifo() and [*tmp_path.iterdir()] == [tmp_path / "pipe"]


def test_what_killed_processes_left_goes_and_nothing_else(tmp_path):
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    dead, alive = (tmp_path / f".*.zip.{pid}.tmp" for pid in (ended.pid, os.getppid()))
    others = [alive, tmp_path / ".a.zip.1.tmp", tmp_path / ".*.zip.lock.tmp"]
    for path in (dead, *others):
        path.touch()
    write_text_atomically(tmp_path / "*.zip", "text")
    assert not dead.exists() and all(path.exists() for path in others)


def test_what_a_library_made_private_follows_the_umask(tmp_path):
    umask = os.umask(0o022)
    try:
        with atomically(tmp_path / "folder") as written:
            written.mkdir()
            for name, mode in (("private", 0o600), ("shared", 0o640)):
                (written / name).touch()
                (written / name).chmod(mode)
    finally:
        os.umask(umask)
    modes = [stat.S_IMODE((tmp_path / "folder" / name).stat().st_mode) for name in ("", "private", "shared")]
    assert modes == [0o755, 0o644, 0o640]


def test_a_full_disk_is_told_by_what_safetensors_says(tmp_path):
    with pytest.raises(OSError) as error, scratch(tmp_path / "weights"):
        raise ValueError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(tmp_path))
    with pytest.raises(ValueError, match="another"), os_errors(tmp_path):
        raise ValueError("another")


def test_a_lock_refuses_or_waits_and_says_so(tmp_path, caplog):
    caplog.set_level("INFO", "clue_utils")
    path, order = tmp_path / "lock", []

    def wait():
        with locked(path, note="waiting for it"):
            order.append("second")

    with locked(path):
        with pytest.raises(Busy, match="in use"), locked(path, refusal="in use"):
            pass
        thread = threading.Thread(target=wait)
        thread.start()
        while "waiting for it" not in caplog.messages:
            time.sleep(0.01)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
