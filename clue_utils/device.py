"""What a run computes on: device, number types, seeds, memory."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

from clue_utils.errors import UserError
from clue_utils.ranks import world_size

# --precision -> Paddle's name of the number type.
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


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
        from clue_utils.models import cpu_layers

        cpu_layers.tune()
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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception from Paddle says that memory ran out (it raises no type of its own)."""
    text = str(error)
    return isinstance(error, MemoryError) or "ResourceExhausted" in text or "Out of memory" in text
