"""What a run computes on: device, number types, seeds, memory; and what its processes tell each other."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import random
from typing import Any

import numpy as np
import paddle

from clue_utils import environment, ranks
from clue_utils.errors import UserError
from clue_utils.settings import PRECISIONS

logger = logging.getLogger(__name__)
# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def start(requested: str | None, precision: str) -> None:
    """Choose device and number type for this process, and say so."""
    device = set_device(requested)
    require_precision(precision)
    how = "--device" if requested else "chosen"
    processes = f", {ranks.world_size()} processes" if ranks.world_size() > 1 else ""
    threads = f", {os.environ['OMP_NUM_THREADS']} threads" if device == "cpu" else ""
    logger.info("device: %s (%s), %s%s%s", device, how, precision, threads, processes)


def set_device(requested: str | None) -> str:
    """Choose the device for this process and join the other ranks.

    Args:
        requested: "gpu", "xpu", "cpu", or None for a GPU where there is one and the CPU otherwise.

    Returns:
        The device taken, such as "gpu:0" or "cpu".

    Raises:
        UserError: the requested device is not there, or this build of Paddle cannot use it.
    """
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
    if device != "cpu" and ranks.world_size() > 1:
        device = f"{device}:{os.environ.get('FLAGS_selected_' + device + 's', '0').split(',')[0]}"
    paddle.set_device(device)
    if device == "cpu":
        tune_cpu()
    if ranks.world_size() > 1:
        paddle.distributed.init_parallel_env()
    return str(paddle.get_device())


def tune_cpu() -> None:
    """Settings for a process that computes on the CPU, beside ``environment.tune_cpu`` and ``cpu_layers``."""
    # A transposition as a view makes every later operation copy, element by element, what it reads.
    paddle.set_flags({"FLAGS_use_stride_kernel": False})
    # Paddle returns each tensor's memory to the system at once, which then zeroes it, page by page, for the next one.
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def require_precision(precision: str) -> None:
    """Refuse a number type that the device of this process cannot compute with.

    Raises:
        UserError: it cannot. That holds for every CPU: Paddle's AMP would go on with fp32 there.
    """
    on_gpu = paddle.get_device() != "cpu"
    supported = {
        "fp32": True,
        "bf16": on_gpu and paddle.amp.is_bfloat16_supported(),
        "fp16": on_gpu and paddle.amp.is_float16_supported(),
    }
    if not supported[precision]:
        others = " or ".join(name for name in PRECISIONS if supported[name])
        raise UserError(f"--precision {precision}: {paddle.get_device()} cannot compute with it; pass {others}")


def autocast(precision: str) -> contextlib.AbstractContextManager[Any]:
    """Context in which matrix products take ``PRECISIONS[precision]``: Paddle's AMP of level O1."""
    if precision == "fp32":
        return contextlib.nullcontext()
    context: contextlib.AbstractContextManager[Any] = paddle.amp.auto_cast(level="O1", dtype=PRECISIONS[precision])
    return context


def seed_all(seed: int) -> None:
    """Seed the generators that weights and dropout are drawn from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    paddle.seed(seed)


def peak_memory_bytes() -> int:
    """Highest memory use of this process so far: of the GPU on gpu, resident memory otherwise."""
    if paddle.get_device().startswith("gpu"):
        return int(paddle.device.cuda.max_memory_allocated())
    return environment.peak_memory_bytes()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception from Paddle says that memory ran out (it raises no type of its own)."""
    text = str(error)
    return isinstance(error, MemoryError) or "ResourceExhausted" in text or "Out of memory" in text


# --- between the ranks; each of these is called by all of them -----------------------------------------------------


def barrier() -> None:
    """Wait for every rank to come here."""
    if ranks.world_size() > 1:
        paddle.distributed.barrier()


def gather(array: np.ndarray) -> list[np.ndarray]:
    """The arrays of all ranks, which are of one shape and type, in the ranks' order."""
    if ranks.world_size() == 1:
        return [array]
    parts: list[paddle.Tensor] = []
    paddle.distributed.all_gather(parts, paddle.to_tensor(array))
    return [part.numpy() for part in parts]


def mean_over_ranks(value: paddle.Tensor) -> float:
    """Mean of the ranks' scalars."""
    if ranks.world_size() > 1:
        value = value.clone()
        paddle.distributed.all_reduce(value)
    return float(value) / ranks.world_size()


def of_first_rank(answer: bool) -> bool:
    """What rank 0 answers."""
    if ranks.world_size() == 1:
        return answer
    tensor = paddle.to_tensor([int(answer)])
    paddle.distributed.broadcast(tensor, src=0)
    return bool(tensor)
