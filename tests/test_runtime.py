"""Settings of the processor, devices, and how a run ends."""

from __future__ import annotations

import errno
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from clue_utils import runtime
from clue_utils.errors import UserError

EPYC = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx avx2 {}\n"


@pytest.mark.parametrize(
    ("cpuinfo", "cores", "processes", "settings"),
    [
        (EPYC.format("avx512f"), 8, 1, {"OMP_NUM_THREADS": "8", "MKL_DEBUG_CPU_TYPE": "7"}),
        (EPYC.format(""), 8, 2, {"OMP_NUM_THREADS": "4", "MKL_DEBUG_CPU_TYPE": "5"}),
        ("vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx\n", 2, 1, {"OMP_NUM_THREADS": "2"}),
        ("vendor_id\t: GenuineIntel\nflags\t\t: avx2 avx512f\n", 4, 8, {"OMP_NUM_THREADS": "1"}),
        ("", 1, 1, {"OMP_NUM_THREADS": "1"}),
    ],
    ids=["AMD AVX-512", "AMD AVX2, two processes", "old AMD", "Intel", "unknown"],
)
def test_processor_settings(cpuinfo, cores, processes, settings):
    assert runtime.cpu_settings(cpuinfo, cores, processes) == settings


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    runtime.tune_cpu()
    assert runtime.os.environ["OMP_NUM_THREADS"] == "3"


def test_a_gpu_that_is_not_there_is_refused_not_replaced():
    with pytest.raises(UserError, match="--device gpu.*--device cpu"):
        runtime.set_device("gpu")


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("no such task"), 2, "error: no such task"),
        (OSError(errno.ENOSPC, "No space left on device", "out/result.json"), 2, "out/result.json: No space left"),
        (PermissionError(errno.EACCES, "Permission denied", "out"), 2, "error: out: Permission denied"),
        (MemoryError(), 2, "out of memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_a_users_mistake_ends_with_one_line(capsys, error, status, line):
    def main():
        raise error

    with pytest.raises(SystemExit) as end:
        runtime.run(main)
    printed = capsys.readouterr().err
    assert end.value.code == status and line in printed and printed.count("\n") == 1


def test_a_reader_that_goes_away_ends_the_run_quietly():
    program = "from clue_utils import runtime\nruntime.run(lambda: [print('line', flush=True) for _ in range(10**6)])"
    command = f"set -o pipefail; {shlex.quote(sys.executable)} -c {shlex.quote(program)} | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert (done.returncode, done.stdout, done.stderr) == (141, "line\n", "")


def test_our_own_defects_keep_their_traceback():
    def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        runtime.run(main)


def test_a_broken_installation_is_named(monkeypatch):
    def broken(name):
        raise ImportError("cannot import name 'download' from 'aistudio_sdk.hub'")

    monkeypatch.setattr(runtime.importlib, "import_module", broken)
    with pytest.raises(UserError, match="aistudio_sdk.hub.*requirements.txt"):
        runtime.import_libraries()
