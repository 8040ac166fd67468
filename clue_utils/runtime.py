"""Process set-up and end: CPU settings, device, ranks, seeds, logging, and errors a user can read.

PaddlePaddle is imported inside functions, after the settings that it reads from the environment are made.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import logging
import os
import platform
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from clue_utils.errors import Stopped, UserError, one_line, shorten

logger = logging.getLogger(__name__)

# --precision -> Paddle's name of the number type.
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}

_LOCKED_SET = "install the locked set: pip install --no-deps -r requirements.txt"


def rank() -> int:
    """This process's number among all processes of the run; 0 outside ``paddle.distributed.launch``."""
    return int(os.environ.get("PADDLE_TRAINER_ID", "0"))


def world_size() -> int:
    """How many processes take part in the run."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))


def _processes_on_this_machine() -> int:
    """How many ranks share this machine's processors (ranks of one host listen on one address)."""
    endpoints = os.environ.get("PADDLE_TRAINER_ENDPOINTS", "").split(",")
    host = os.environ.get("PADDLE_CURRENT_ENDPOINT", "").rpartition(":")[0]
    return max(1, sum(endpoint.rpartition(":")[0] == host for endpoint in endpoints))


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
    for name, value in cpu_settings(cpuinfo, num_processors(), _processes_on_this_machine()).items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("GLOG_minloglevel", "2")  # Paddle's C++ side prints banners and hints below "error"


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
    unknown = "" if home.is_absolute() else "not known"
    models_problem = (given is None and unknown) or _make(models, _PADDLENLP_FOLDERS)
    if given is not None and models_problem:
        raise UserError(f"PPNLP_HOME={given}: cannot be written ({models_problem}); let it name another folder")
    problem = models_problem or unknown or _make(home, _OTHER_FOLDERS)
    settings = home / ".visualdl/conf/config.json"
    if not problem and not settings.is_file() and not os.access(settings.parent, os.W_OK):
        problem = os.strerror(errno.EACCES)
    if not problem:
        yield False
        return
    from clue_utils.data import cache_dir

    place = cache_dir() / "home"
    if refused := _make(place, _OTHER_FOLDERS):
        raise UserError(
            f"neither the home folder {home} ({problem}) nor {place} ({refused}) can be written: "
            "set CLUE_CACHE_DIR to a folder that can"
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
        reason = shorten(str(error).strip().splitlines()[0], 160) if str(error).strip() else type(error).__name__
        raise UserError(f"PaddlePaddle or PaddleNLP cannot be imported ({reason}); {_LOCKED_SET}") from error
    from paddlenlp.utils.log import logger as paddlenlp_logger

    paddlenlp_logger.set_level("ERROR")


def set_device(requested: str | None) -> str:
    """Choose the device for this process and join the other ranks.

    Args:
        requested: "gpu", "xpu", "cpu", or None for a GPU where there is one and the CPU otherwise.

    Returns:
        The device taken, such as "gpu:0" or "cpu".

    Raises:
        UserError: the requested device is not there, or this build of Paddle cannot use it.
    """
    import paddle

    counts = {"gpu": 0, "xpu": 0}
    if paddle.is_compiled_with_cuda():
        counts["gpu"] = paddle.device.cuda.device_count()
    if paddle.is_compiled_with_xpu():
        counts["xpu"] = paddle.device.xpu.device_count()
    device = requested or ("gpu" if counts["gpu"] else "cpu")
    if device != "cpu" and not counts[device]:
        built = paddle.is_compiled_with_cuda() if device == "gpu" else paddle.is_compiled_with_xpu()
        reason = "no card is visible" if built else f"the installed PaddlePaddle is built without {device} support"
        remedy = "check CUDA_VISIBLE_DEVICES" if built else "install requirements-gpu.txt as README.md says"
        raise UserError(f"--device {device}: {reason}; {remedy}, or pass --device cpu")
    if device != "cpu" and world_size() > 1:
        device = f"{device}:{os.environ.get('FLAGS_selected_' + device + 's', '0').split(',')[0]}"
    paddle.set_device(device)
    if device == "cpu":
        from clue_utils import cpu

        cpu.tune()
    if world_size() > 1:
        paddle.distributed.init_parallel_env()
    return str(paddle.get_device())


def require_precision(precision: str) -> None:
    """Refuse a number type that the device of this process cannot compute with.

    Raises:
        UserError: it cannot. That holds for every CPU: Paddle's AMP would go on with fp32 there.
    """
    import paddle

    on_card = paddle.get_device() != "cpu"
    supported = {
        "fp32": True,
        "bf16": on_card and paddle.amp.is_bfloat16_supported(),
        "fp16": on_card and paddle.amp.is_float16_supported(),
    }
    if not supported[precision]:
        others = " or ".join(name for name in PRECISIONS if supported[name])
        raise UserError(f"--precision {precision}: {paddle.get_device()} cannot compute with it; pass {others}")


def autocast(precision: str) -> contextlib.AbstractContextManager[Any]:
    """Context in which matrix products take ``PRECISIONS[precision]``: Paddle's AMP of level O1."""
    import paddle

    if precision == "fp32":
        return contextlib.nullcontext()
    context: contextlib.AbstractContextManager[Any] = paddle.amp.auto_cast(level="O1", dtype=PRECISIONS[precision])
    return context


def seed_all(seed: int) -> None:
    """Seed the generators that weights and dropout are drawn from."""
    import random

    import numpy as np
    import paddle

    random.seed(seed)
    np.random.seed(seed % 2**32)
    paddle.seed(seed)


def start(args: Any) -> str:
    """Set the process up for a run: CPU settings, libraries, device. Returns the device taken."""
    tune_cpu()
    import_libraries()
    device = set_device(args.device)
    require_precision(args.precision)
    if rank() == 0:
        how = "--device" if args.device else "chosen"
        ranks = f", {world_size()} processes" if world_size() > 1 else ""
        threads = f", {os.environ['OMP_NUM_THREADS']} threads" if device == "cpu" else ""
        logger.info("device: %s (%s), %s%s%s", device, how, args.precision, threads, ranks)
    return device


class _LineHandler(logging.Handler):
    """Prints on standard output, above a progress bar if one is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


class _RankFilter(logging.Filter):
    """Lets rank 0 speak, and every rank warn."""

    def filter(self, record: logging.LogRecord) -> bool:
        return rank() == 0 or record.levelno >= logging.WARNING


def configure_logging(level: str) -> None:
    """Plain lines on standard output; progress bars go to standard error."""
    handler = _LineHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.addFilter(_RankFilter())
    root = logging.getLogger("clue_utils")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide the numbers."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in ("paddlepaddle", "paddlepaddle-gpu", "paddlenlp", "numpy", "scipy"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def peak_memory_bytes(device: str) -> int:
    """Highest memory use of this process so far: of the card on gpu, resident memory on cpu."""
    if device.startswith("gpu"):
        import paddle

        return int(paddle.device.cuda.max_memory_allocated())
    with contextlib.suppress(OSError, StopIteration), open("/proc/self/status", encoding="utf-8") as file:
        # getrusage would count what the parent process held when it started this one.
        return 1024 * int(next(line for line in file if line.startswith("VmHWM:")).split()[1])
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(usage) * (1 if sys.platform == "darwin" else 1024)


@contextlib.contextmanager
def timed() -> Iterator[Callable[[], float]]:
    """Yield a function that returns the seconds since the block was entered."""
    begin = time.perf_counter()
    yield lambda: time.perf_counter() - begin


# File-system errors that are the user's to mend, not the program's.
USER_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENOENT}
    | {errno.ENAMETOOLONG, errno.EEXIST, errno.ENOLCK}
)


@contextlib.contextmanager
def os_errors(folder: Any) -> Iterator[None]:
    """Turn the safetensors library's report of a failed write, such as a full disk, into the OSError that it was."""
    try:
        yield
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if isinstance(error, OSError) or not number:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(folder)) from error


def _raise_stopped(number: int, _: Any) -> None:
    raise Stopped(number)


def run(main: Callable[[], None]) -> None:
    """Run a script's ``main`` and end the process as a command-line user expects.

    A UserError or a file system's refusal becomes one line on standard error and exit status 2; a signal one line and
    128 and its number. Anything else is a defect of ours and keeps its traceback.
    """
    signal.signal(signal.SIGTERM, _raise_stopped)
    try:
        main()
        _leave_together()
    except Stopped as stopped:
        _fail(f"{stopped}; the same command goes on from where it was", 128 + stopped.number, "")
    except UserError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted", 128 + signal.SIGINT, "")
    except MemoryError as error:
        _fail(out_of_memory_line(error))
    except BrokenPipeError:  # whoever read our output, such as "head", has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.errno not in USER_ERRNOS:
            raise
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _leave_together() -> None:
    """End this rank once every rank is done, past Paddle's own teardown: its gloo threads now and then abort in it."""
    if world_size() == 1:
        return
    import paddle

    if paddle.distributed.is_initialized():
        paddle.distributed.barrier()
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _fail(message: str, status: int = 2, kind: str = "error: ") -> None:
    prefix = f"rank {rank()}: " if world_size() > 1 else ""
    print(f"{prefix}{kind}{one_line(message)}", file=sys.stderr, flush=True)
    if world_size() > 1:
        sys.stdout.flush()
        os._exit(status)  # the other ranks may be waiting in a collective; the launcher ends them when this one is gone
    sys.exit(status)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception from Paddle says that memory ran out (it raises no type of its own)."""
    text = str(error)
    return isinstance(error, MemoryError) or "ResourceExhausted" in text or "Out of memory" in text


def out_of_memory_line(error: BaseException) -> str:
    """What to tell a user whose memory ran out where no better advice is known."""
    return f"out of memory ({str(error).strip().splitlines()[0] if str(error).strip() else 'no details'})"
