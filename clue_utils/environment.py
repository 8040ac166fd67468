"""What must be settled before PaddlePaddle is imported: threads, flags, the libraries' folders; and the import itself.

PaddlePaddle is imported by ``import_libraries`` alone.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import importlib
import io
import logging
import os
import platform
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from clue_utils import cli, outside
from clue_utils.data.examples import cache_dir
from clue_utils.errors import UserError, first_line, shorten
from clue_utils.language import later, say
from clue_utils.ranks import is_first, processes_on_this_machine

logger = logging.getLogger(__name__)
_LOCKED_SET = later("install the locked set: pip install --no-deps -r requirements.txt")
# The first major version of paddle2onnx that reads what Paddle 3 writes.
_PADDLE2ONNX = 2
# The distributions of PaddlePaddle: that for the CPU, and those that can use NVIDIA's GPUs and Kunlun's XPUs besides.
_CPU_BUILD, _GPU_BUILD, _XPU_BUILD = "paddlepaddle", "paddlepaddle-gpu", "paddlepaddle-xpu"
# How the names of variables begin that Paddle and the libraries below it take settings of their arithmetic from. Which
# card a process takes (FLAGS_selected_gpus, the launcher's) is none of them.
_DECISIVE = ("OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE", "FLAGS_", "NVIDIA_TF32_OVERRIDE", "CUBLAS_", "XPU_PADDLE_")
_NOT_DECISIVE = "FLAGS_selected_"


def num_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_settings(cpuinfo: str, num_cores: int, num_processes: int) -> dict[str, str]:
    """Environment settings with which PaddlePaddle's matrix products use the whole processor.

    Paddle starts with one thread, and the MKL it ships takes a slow path on processors that are not Intel's unless
    told the instruction set: 5 names AVX2, 7 names AVX-512. Neither changes the result of training by more than the
    low bits of a sum, and ``result.json`` records both.

    Args:
        cpuinfo: text of ``/proc/cpuinfo``, or "" where there is none.
        num_cores: cores this process may use.
        num_processes: processes of this run on this machine.
    """
    settings = {"OMP_NUM_THREADS": str(max(1, num_cores // num_processes))}
    flags = set(next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "").split())
    if "AuthenticAMD" in cpuinfo:
        if "avx512f" in flags:
            settings["MKL_DEBUG_CPU_TYPE"] = "7"
        elif "avx2" in flags:
            settings["MKL_DEBUG_CPU_TYPE"] = "5"
    return settings


def tune_cpu() -> None:
    """Apply ``cpu_settings``; what the user has set stays as it is. Must run before the first import of paddle."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            cpuinfo = file.read()
    except OSError:
        cpuinfo = ""
    for name, value in cpu_settings(cpuinfo, num_processors(), processes_on_this_machine()).items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("GLOG_minloglevel", "2")  # Paddle's C++ side prints banners and hints below "error"


# Flags that PaddlePaddle takes from the environment when it is imported, for a run on a GPU.
_GPU_FLAGS = {
    # Otherwise the gradients of an embedding are added up in whatever order the threads come (phi's embedding_grad.h):
    # a run that goes on would end with other bits. The second says the same to cuDNN and to attention's fused kernels.
    "FLAGS_embedding_deterministic": "1",
    "FLAGS_cudnn_deterministic": "1",
    # Milliseconds that the allocator waits for other threads to free memory before it says that it ran out. There are
    # none; 0 leaves the waiting out (phi's allocator_facade.cc).
    "FLAGS_gpu_allocator_retry_time": "0",
}


def tune_gpu(requested: str | None) -> None:
    """Set Paddle's flags for a run that may be on a GPU; what the user has set stays as it is.

    Args:
        requested: the device, as of ``--device``.
    """
    if requested in (None, "gpu") and _GPU_BUILD in versions():
        for name, value in _GPU_FLAGS.items():
            os.environ.setdefault(name, value)


def decisive_variables() -> dict[str, str]:
    """The variables of the environment that decide the low bits of what a run computes: name -> value."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(_DECISIVE) and not name.startswith(_NOT_DECISIVE)
    }


def restore_proxies() -> None:
    """Give back the proxies that Paddle's launcher keeps from its processes, for what they download."""
    for name in ("http_proxy", "https_proxy"):
        if original := os.environ.get(f"{name}_original"):
            os.environ.setdefault(name, original)


# What CUDA_VISIBLE_DEVICES may hold where there is no GPU; the last as old releases of Slurm set it.
NO_GPU = ("", "-1", "NoDevFiles")


def hides_gpus() -> bool:
    """Whether the environment says that there is no GPU for this process."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in NO_GPU


def has_gpu() -> bool:
    """Whether there is an NVIDIA GPU with its driver that this process may use, whatever Paddle is built for."""
    return not hides_gpus() and bool(glob.glob("/dev/nvidia[0-9]*"))


def why_no_card(kind: str, is_built: bool) -> str:
    """Why there is no card to compute on, "gpu" or "xpu", and the remedy.

    Args:
        is_built: whether the installed PaddlePaddle is built for such cards.
    """
    if is_built:
        variable = f"{'CUDA' if kind == 'gpu' else 'XPU'}_VISIBLE_DEVICES"
        return say("no card is visible; check {variable}", variable=variable)
    remedy = say("bash scripts/setup_env.sh --cuda installs one with it")
    if kind == "xpu":
        remedy = say("install paddlepaddle-xpu, from Paddle's own index, in the place of paddlepaddle")
    return say("the installed PaddlePaddle is built without {kind} support; {remedy}", kind=kind, remedy=remedy)


def require_device(requested: str | None) -> None:
    """Refuse a device that is certainly not there, by what is installed; ``device.set_device`` asks PaddlePaddle.

    Raises:
        UserError: it is not there.
    """
    builds = {"gpu": _GPU_BUILD, "xpu": _XPU_BUILD}
    if requested not in builds:
        return
    installed = versions()
    is_built = builds[requested] in installed or _CPU_BUILD not in installed  # none of them: a build of the user's own
    if not is_built or (requested == "gpu" and hides_gpus()):
        reason = why_no_card(requested, is_built)
        raise UserError(say("--device {device}: {reason}, or pass --device cpu", device=requested, reason=reason))


# What importing the libraries makes in the home folder: PaddleNLP, unless PPNLP_HOME is set; then Paddle and VisualDL.
_PADDLENLP_FOLDERS = ("models/embeddings", "datasets", "packages")
_OTHER_FOLDERS = (".cache/paddle/dataset", ".visualdl/conf", ".visualdl/fastdeployserver", ".visualdl/x2paddle")


@contextlib.contextmanager
def home_for_libraries() -> Iterator[bool]:
    """Let the libraries imported in the block keep their files in a folder that can be written; yield if not in home.

    Where the home folder cannot be written they are given ``home`` in the cache folder. The models that PaddleNLP has
    downloaded to a home folder that can only be read stay in use.

    Raises:
        UserError: neither can be written, or the folder that PPNLP_HOME names cannot.
    """
    home, before, given = Path(os.path.expanduser("~")), os.environ.get("HOME"), os.environ.get("PPNLP_HOME")
    models = home / ".paddlenlp" if given is None else Path(given)
    unknown = "" if home.is_absolute() else say("not known")
    models_problem = (given is None and unknown) or _make(models, _PADDLENLP_FOLDERS)
    if given is not None and models_problem:
        raise UserError(
            say(
                "PPNLP_HOME={given}: cannot be written ({models_problem}); let it name another folder",
                given=given,
                models_problem=models_problem,
            )
        )
    problem = models_problem or unknown or _make(home, _OTHER_FOLDERS)
    settings = home / ".visualdl/conf/config.json"
    if not problem and not settings.is_file() and not os.access(settings.parent, os.W_OK):
        problem = os.strerror(errno.EACCES)
    if not problem:
        yield False
        return
    place = cache_dir() / "home"
    if refused := _make(place, _OTHER_FOLDERS):
        raise UserError(
            say(
                "neither the home folder {home} ({problem}) nor {place} ({refused}) can be written: set "
                "CLUE_CACHE_DIR to a folder that can",
                home=home,
                problem=problem,
                place=place,
                refused=refused,
            )
        )
    logger.info("the home folder %s cannot be written (%s): PaddleNLP and VisualDL are given %s", home, problem, place)
    os.environ["HOME"] = str(place)
    if not models_problem:
        os.environ["PPNLP_HOME"] = str(models)
    try:
        yield True
    finally:
        del os.environ["HOME"]
        if before is not None:
            os.environ["HOME"] = before


def _make(top: Path, folders: Sequence[str]) -> str:
    """Make folders below ``top`` that are not there; return why that is not possible, or ""."""
    try:
        for folder in folders:
            (top / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def import_libraries() -> None:
    """Import paddle and paddlenlp, or raise UserError saying in one line which package stands in the way."""
    if not sys.stderr.isatty():
        os.environ.setdefault("NO_COLOR", "1")  # PaddleNLP's log lines are coloured otherwise
    try:
        # Paddle greets every thread setting but 1 with a two-line warning on standard error.
        with home_for_libraries() as is_elsewhere:
            with contextlib.redirect_stderr(io.StringIO()):
                importlib.import_module("paddle")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module("paddlenlp.transformers")
                if is_elsewhere:  # otherwise when it is first needed
                    importlib.import_module("visualdl")
    except UserError:
        raise
    except Exception as error:  # broken wheels raise more than ImportError
        if line := outside.missing(error):
            raise UserError(line) from error
        reason = shorten(first_line(error), 160) or type(error).__name__
        raise UserError(
            say(
                "PaddlePaddle or PaddleNLP cannot be imported ({reason}); {locked_set}",
                reason=reason,
                locked_set=say(_LOCKED_SET),
            )
        ) from error
    importlib.import_module("paddlenlp.utils.log").logger.set_level("ERROR")
    _restore_handlers()
    cli.check_stop()  # a library that tries what it can import may have kept to itself what a signal raised


def _restore_handlers() -> None:
    """Have signals go to their handlers again: PaddleNLP has them end the process, and Python does not know of it.

    A rank other than the first may wait for others where no handler can run: it is ended at once.
    """
    if threading.current_thread() is not threading.main_thread() or not is_first():
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        if (handler := signal.getsignal(number)) is not None:
            signal.signal(number, handler)


def require_paddle2onnx() -> None:
    """Raise UserError where what ``--export_onnx`` needs is not installed."""
    try:
        found = version("paddle2onnx")
    except PackageNotFoundError:
        found = ""
    if not found or int(found.split(".")[0]) < _PADDLE2ONNX:
        raise UserError(
            say(
                "--export_onnx needs paddle2onnx {paddle2onnx}, which Python 3.10 to 3.12 can have (installed: "
                "{found}); {locked_set}",
                paddle2onnx=_PADDLE2ONNX,
                found=found or say("none"),
                locked_set=say(_LOCKED_SET),
            )
        )


def load_libraries(device: str | None = None) -> None:
    """Settle threads and flags and import PaddlePaddle and PaddleNLP.

    Args:
        device: as of ``--device``, where that is known already.
    """
    tune_cpu()
    tune_gpu(device)
    if "paddle" not in sys.modules:
        logger.info("loading PaddlePaddle and PaddleNLP: some seconds, more the first time")
    import_libraries()


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide the numbers."""
    found = {"python": platform.python_version()}
    for package in (_CPU_BUILD, _GPU_BUILD, _XPU_BUILD, "paddlenlp", "numpy", "scipy"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def peak_memory_bytes() -> int:
    """Highest resident memory of this process so far."""
    with contextlib.suppress(OSError, StopIteration), open("/proc/self/status", encoding="utf-8") as file:
        # getrusage would count what the parent process held when it started this one.
        return 1024 * int(next(line for line in file if line.startswith("VmHWM:")).split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
