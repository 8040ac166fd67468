"""A Python that has imported Paddle already, for tests that start programs by the command line.

Importing Paddle costs seconds of processor time, which a test that starts ten processes pays ten times. A server
imports it once and computes nothing, so that it may be forked; ``WarmPython.path`` is a program that takes the words
that ``python`` takes and has a fork of the server run them, in its own working folder, environment and open files.
Signals, exit status, and a death by SIGKILL go through. The project's own modules are never imported by the server.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import io
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from pathlib import Path
from typing import Any

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# The client is a program of its own, that a bare interpreter starts within milliseconds.
CLIENT = """\
#!{python} -IS
import array, json, os, signal, socket, struct, sys

if not sys.argv[1:] or sys.argv[1] not in ("-c", "-m", "-u", "-W") and sys.argv[1].startswith("-"):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])  # such as --version
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
request = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
files = array.array("i", [0, 1, 2])
server.sendmsg([struct.pack("!I", len(request))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
server.sendall(request)
answers = server.makefile("rb")
signals = {signals!r}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
pid = int(answers.readline())
for number in signals:
    signal.signal(number, lambda number, _: os.kill(pid, number))
signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
status = os.waitstatus_to_exitcode(int(answers.readline() or 256))
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


class WarmPython:
    """The server and its client; end it with ``close``."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="warm-"))
        self.path = self._folder / "python"
        """Takes the words of ``python``: ``-c``, ``-m`` or a script, with ``-u`` and ``-W`` before."""
        address = str(self._folder / "socket")
        signals = tuple(map(int, PASSED_ON))
        self.path.write_text(CLIENT.format(python=sys.executable, address=address, signals=signals))
        self.path.chmod(0o755)
        command = [sys.executable, str(Path(__file__).resolve()), address, str(self.path)]
        # It ends with the tests, however they end: at the end of what it reads.
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._server.stdout
        assert self._server.stdout.readline() == b"ready\n"

    def close(self) -> None:
        assert self._server.stdin
        self._server.stdin.close()
        self._server.wait()
        shutil.rmtree(self._folder)


def _receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        if not (part := connection.recv(size - len(received))):
            raise EOFError
        received += part
    return received


def _attend(connection: socket.socket, executable: str) -> None:
    """Run what one client asks for, in a fork; tell it the process's number, then how it ended."""
    header, files, _, _ = socket.recv_fds(connection, 4, 3)
    words, folder, environment = json.loads(_receive(connection, struct.unpack("!I", header)[0]))
    pid = os.fork()
    if pid == 0:
        connection.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        _be_python(words, folder, environment, executable)
    for file in files:
        os.close(file)

    def kill_when_the_client_dies() -> None:
        with contextlib.suppress(OSError):
            if not connection.recv(1):
                os.kill(pid, signal.SIGKILL)

    threading.Thread(target=kill_when_the_client_dies, daemon=True).start()
    connection.sendall(b"%d\n" % pid)
    # Still a child of ours while it is waited for, so that the thread cannot hit another process.
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with contextlib.suppress(OSError):
        connection.sendall(b"%d\n" % os.waitpid(pid, 0)[1])
    os._exit(0)


def _be_python(words: list[str], folder: str, environment: dict[str, str], executable: str) -> None:
    """What the interpreter does with its words; ends this process."""
    for number in (*PASSED_ON, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    unbuffered = False
    while words[0] in ("-u", "-W"):
        unbuffered |= words[0] == "-u"
        words = words[1:] if words[0] == "-u" else words[2:]
    for name, number, errors in (("stdout", 1, "strict"), ("stderr", 2, "backslashreplace")):
        line_buffering = unbuffered or name == "stderr" or os.isatty(number)
        raw = open(number, "wb", closefd=False)  # noqa: SIM115
        stream = io.TextIOWrapper(raw, "utf-8", errors, line_buffering=line_buffering, write_through=unbuffered)
        setattr(sys, name, stream)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.executable = executable
    script = words[0] not in ("-c", "-m")
    sys.argv = words if script else [words[0], *words[2:]]
    first = str(Path(words[0]).resolve().parent) if script else folder if words[0] == "-m" else ""
    sys.path[:1] = [first, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    status: Any = 0
    try:
        if script:
            runpy.run_path(words[0], run_name="__main__")
        elif words[0] == "-m":
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        status = end.code
        if isinstance(status, str):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(int(status or 0))


def main() -> None:
    address, executable = sys.argv[1:]
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen(64)

    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        for name in ("paddle", "paddlenlp.transformers", "paddlenlp.trainer", "visualdl"):
            importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who attend to the clients
    print("ready", flush=True)
    with selectors.DefaultSelector() as selector:
        selector.register(server, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)
        while all(key.fileobj is server for key, _ in selector.select()):
            connection, _ = server.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for number in PASSED_ON:
                    signal.signal(number, signal.SIG_IGN)
                server.close()
                _attend(connection, executable)
            connection.close()


if __name__ == "__main__":
    main()
