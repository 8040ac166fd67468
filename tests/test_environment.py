"""Settings of the processor, devices, and how a run ends."""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from clue_utils import cli, device, environment
from clue_utils.errors import UserError, ending_of, is_out_of_memory, shorten, show

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
    assert environment.cpu_settings(cpuinfo, cores, processes) == settings


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    environment.tune_cpu()
    assert os.environ["OMP_NUM_THREADS"] == "3"


GPU_FLAGS = {
    "FLAGS_embedding_deterministic": "1",
    "FLAGS_cudnn_deterministic": "1",
    "FLAGS_gpu_allocator_retry_time": "0",
}


@pytest.fixture
def no_flags():
    """An environment without settings of Paddle's arithmetic; what is set there goes with the test."""
    with mock.patch.dict(os.environ, {"OMP_NUM_THREADS": "1"}, clear=True):
        yield


@pytest.mark.parametrize(
    ("package", "requested", "flags"),
    [
        ("paddlepaddle-gpu", None, GPU_FLAGS),
        ("paddlepaddle-gpu", "gpu", GPU_FLAGS),
        ("paddlepaddle-gpu", "cpu", {}),
        ("paddlepaddle-gpu", "xpu", {}),
        ("paddlepaddle", None, {}),
        ("paddlepaddle-xpu", None, {}),
    ],
)
def test_flags_of_a_gpu_are_set_where_one_may_be_used(no_flags, monkeypatch, package, requested, flags):
    monkeypatch.setattr(environment, "versions", lambda: {package: "3.3.1"})
    environment.tune_gpu(requested)
    assert environment.decisive_variables() == {"OMP_NUM_THREADS": "1"} | flags


def test_flags_that_the_user_has_set_stay_and_are_recorded(no_flags, monkeypatch):
    monkeypatch.setattr(environment, "versions", lambda: {"paddlepaddle-gpu": "3.3.1"})
    own = {"FLAGS_cudnn_deterministic": "0", "FLAGS_check_nan_inf": "1", "NVIDIA_TF32_OVERRIDE": "0"}
    os.environ.update(own | {"FLAGS_selected_gpus": "1", "HOME": "/root"})
    environment.tune_gpu("gpu")
    assert environment.decisive_variables() == {"OMP_NUM_THREADS": "1"} | GPU_FLAGS | own


def test_flags_are_set_before_paddle_is_imported(no_flags, monkeypatch):
    found = []
    monkeypatch.setattr(environment, "versions", lambda: {"paddlepaddle-gpu": "3.3.1"})
    monkeypatch.setattr(environment, "import_libraries", lambda: found.append(environment.decisive_variables()))
    environment.load_libraries("gpu")
    assert found[0].items() >= GPU_FLAGS.items()


@pytest.mark.parametrize(
    ("given", "restored"),
    [
        ({"http_proxy_original": "a:1", "https_proxy_original": "b:2"}, {"http_proxy": "a:1", "https_proxy": "b:2"}),
        ({"https_proxy_original": "b:2", "https_proxy": "c:3"}, {"https_proxy": "c:3"}),
        ({}, {}),
    ],
    ids=["kept back", "given again", "none"],
)
def test_proxies_that_the_launcher_kept_back_are_there_for_downloads(no_flags, given, restored):
    os.environ.update(given)
    environment.restore_proxies()
    assert {name: value for name, value in os.environ.items() if name in ("http_proxy", "https_proxy")} == restored


@pytest.mark.parametrize(
    ("visible", "nodes", "found"),
    [
        (None, ["/dev/nvidia0"], True),
        ("1", ["/dev/nvidia0", "/dev/nvidia1"], True),
        (None, [], False),
        ("", ["/dev/nvidia0"], False),
        ("-1", ["/dev/nvidia0"], False),
        ("NoDevFiles", ["/dev/nvidia0"], False),
    ],
)
def test_whether_there_is_a_gpu(no_flags, monkeypatch, visible, nodes, found):
    monkeypatch.setattr(environment.glob, "glob", lambda pattern: nodes)
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    assert environment.has_gpu() is found


def test_a_gpu_that_is_not_there_is_refused_not_replaced():
    with pytest.raises(UserError, match="--device gpu.*--device cpu"):
        device.set_device("gpu")


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
        cli.run(main)
    printed = capsys.readouterr().err
    assert end.value.code == status and line in printed and printed.count("\n") == 1


def test_a_reader_that_goes_away_ends_the_run_quietly():
    program = "from clue_utils import cli\ncli.run(lambda: [print('line', flush=True) for _ in range(10**6)])"
    command = f"set -o pipefail; {shlex.quote(sys.executable)} -c {shlex.quote(program)} | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert (done.returncode, done.stdout, done.stderr) == (141, "line\n", "")


ALLOCATOR = """

--------------------------------------
C++ Traceback (most recent call last):
--------------------------------------
0   egr::Backward(std::vector<paddle::Tensor> const&, bool)
1   paddle::memory::allocation::Allocator::Allocate(unsigned long)

----------------------
Error Message Summary:
----------------------
ResourceExhaustedError:

Out of memory error on GPU 0. Cannot allocate 2.000000GB memory on GPU 0, 15.7GB memory has been allocated.

Please check whether there is any other process using GPU 0.
 (at ../paddle/phi/core/memory/allocation/cuda_allocator.cc:71)
"""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(ALLOCATOR), "ResourceExhaustedError: Out of memory error on GPU 0. Cannot allocate 2.000000GB"),
        (RuntimeError(ALLOCATOR), "ResourceExhaustedError: Out of memory error on GPU 0. Cannot allocate 2.000000GB"),
        (OSError("(External) CUDA error(2), out of memory. \n  [Hint: ...] (at x.cc:2)"), "CUDA error(2), out of"),
        (OSError("(External) CUBLAS error(3). \n  [Hint: 'CUBLAS_STATUS_ALLOC_FAILED'.  ...]"), "CUBLAS error(3)."),
        (OSError("(External) CUBLAS error(1). \n  [Hint: 'CUBLAS_STATUS_NOT_INITIALIZED'. ]"), "CUBLAS error(1)."),
        (RuntimeError("(External) CUDNN error(4000), CUDNN_STATUS_ALLOC_FAILED. "), "CUDNN error(4000), CUDNN_ST"),
        (OSError("(External) NCCL error(1), unhandled cuda error (run with NCCL_DEBUG=INFO). "), "NCCL error(1), unh"),
        (OSError("(External) XPU API error: 705, Device memory not enough"), "Device memory not enough"),
        (OSError("(External) XPU API return wrong value[-705], no enough memory\n  [Hint: ..."), "no enough memory"),
        (OSError("XPU conv kernel return wrong value[3 xpu api no enough workspace]"), "no enough workspace"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Cannot allocate memory"),
        (MemoryError(), "no details"),
    ],
)
def test_memory_that_ran_out_is_known_by_every_text(error, reason):
    assert is_out_of_memory(error)
    ending = ending_of(error)
    assert ending.reason.startswith("out of memory (") and reason in ending.reason and ending.reason.isprintable()
    assert "---" not in ending.reason and "Traceback" not in ending.reason and ending.exit_status == 2


@pytest.mark.parametrize(
    "error",
    [
        OSError("(External) CUDA error(700), an illegal memory access was encountered. "),
        OSError("(External) CUBLAS error(13). \n  [Hint: 'CUBLAS_STATUS_EXECUTION_FAILED'. ]"),
        OSError("(External) NCCL error(12), ncclInvalidUsage"),
        OSError(errno.ENOSPC, "No space left on device", "out"),
        UserError("out of memory with one example of shape [1, 16] at a time: lower --max_seq_length"),
        ValueError("no memory of this"),
    ],
)
def test_other_errors_are_not_for_want_of_memory(error):
    assert not is_out_of_memory(error)


def test_our_own_defects_keep_their_traceback():
    def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.run(main)


def test_a_broken_installation_is_named(monkeypatch):
    def broken(name):
        raise ImportError("cannot import name 'download' from 'aistudio_sdk.hub'")

    monkeypatch.setattr(environment.importlib, "import_module", broken)
    with pytest.raises(UserError, match="aistudio_sdk.hub.*requirements.txt"):
        environment.import_libraries()


@pytest.fixture
def homes(tmp_path, monkeypatch):
    """A function that says which HOME and PPNLP_HOME the libraries are given in a home folder."""
    monkeypatch.setenv("CLUE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("PPNLP_HOME", raising=False)

    def given(home):
        monkeypatch.setenv("HOME", str(home))
        with environment.home_for_libraries() as is_elsewhere:
            found = os.environ["HOME"], os.environ.get("PPNLP_HOME")
        assert os.environ["HOME"] == str(home) and is_elsewhere == (found[0] != str(home))
        return found

    return given


def test_libraries_keep_to_a_home_that_can_be_written(homes, tmp_path):
    assert homes(tmp_path / "home") == (str(tmp_path / "home"), None)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("home", ["/proc/nobody", "/dev/null", "~"])
def test_libraries_are_given_the_cache_for_a_home_that_cannot_be_written(homes, tmp_path, monkeypatch, home):
    monkeypatch.chdir(tmp_path)
    assert homes(home) == (str(tmp_path / "cache/home"), None)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_downloaded_models_stay_in_use_where_the_home_can_be_read(homes, tmp_path):
    homes(tmp_path)
    shutil.rmtree(tmp_path / ".visualdl")
    (tmp_path / ".visualdl").touch()  # cannot be made
    assert homes(tmp_path) == (str(tmp_path / "cache/home"), str(tmp_path / ".paddlenlp"))


def test_neither_home_nor_cache_is_one_line_with_the_remedy(homes, monkeypatch):
    monkeypatch.setenv("CLUE_CACHE_DIR", "/proc/cache")
    with pytest.raises(UserError, match=r"home folder /proc/nobody .* nor /proc/cache/home .*: set CLUE_CACHE_DIR to"):
        homes("/proc/nobody")
    monkeypatch.setenv("PPNLP_HOME", "/proc/models")
    with pytest.raises(UserError, match=r"PPNLP_HOME=/proc/models: cannot be written .*name another folder"):
        homes("/proc/nobody")


def test_trains_and_logs_without_a_home(demo, tmp_path):
    words = f"--task_name TNEWS --data_dir {demo}/data --model_name_or_path {demo}/model --output_dir {tmp_path}/out"
    words += " --do_train --max_steps 1 --logging_steps 1 --batch_size 8 --max_seq_length 16 --device cpu"
    script = Path(__file__).parents[1] / "classification/run_clue_classifier.py"
    environment = {name: value for name, value in os.environ.items() if name != "PPNLP_HOME"}
    environment |= {"HOME": "/proc/nobody", "CLUE_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, str(script), *words.split()], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    line = f"the home folder /proc/nobody cannot be written .*: .* are given {tmp_path}/cache/home"
    assert re.search(line, done.stdout) and list(tmp_path.glob("out/visualdl/*"))


def test_an_error_is_one_line_whatever_it_holds(capsys):
    def main():
        raise UserError("a\nb\x1b[31m\u2028\u202e 甲")

    with pytest.raises(SystemExit):
        cli.run(main)
    assert capsys.readouterr().err == "error: a\\nb\\x1b[31m\\u2028\\u202e 甲\n"


@pytest.mark.parametrize(
    "value", ["甲" * 10**6, ["\n" * 99] * 99, {"a": {"b": [{"c": {}}] * 9}}, 10**4000, [[[[[[]]]]]]]
)
def test_a_value_is_shown_on_one_short_line(value):
    for text in (show(value), shorten(value if isinstance(value, str) else repr(value)[:9999])):
        assert text.isprintable() and len(text) <= 80
    assert show("a\u2028b") == r"'a\u2028b'" and shorten("a\nb") == r"a\nb" and shorten("甲") == "甲"
    assert shorten("a" * 70 + "b" * 70, 20) == "aaaaaaaaaaaa...bbbbb"
