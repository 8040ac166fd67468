"""What a run computes on: device, number types, seeds, memory; and what its processes tell each other."""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import random
import warnings
from typing import Any

import numpy as np
import paddle

from clue_utils import cards, environment, ranks
from clue_utils.errors import UserError, first_line, shorten
from clue_utils.language import say
from clue_utils.settings import PRECISIONS

logger = logging.getLogger(__name__)
# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# Compute capability from which NVIDIA's cards know TF32 (Ampere), and what makes Paddle use it: the first flag for
# matmul, the second has F.linear go the same way instead of through cublasLt, which computes in fp32 whatever the first
# says (phi's blaslt_impl.cu.h).
_TF32_SINCE = (8, 0)
_TF32_FLAG = "FLAGS_cublas_allow_tf32"
_TF32_FLAGS = {_TF32_FLAG: True, "FLAGS_use_legacy_linear": True}
# What NVIDIA's libraries go by, whatever they are asked: 0 never, 1 always.
_TF32_OVERRIDE = "NVIDIA_TF32_OVERRIDE"


def start(requested: str | None, precision: str) -> None:
    """Choose device and number type for this process, and say so."""
    device = set_device(requested)
    environment.restore_proxies()  # only now: the ranks have found each other
    require_precision(precision)
    how = "--device" if requested else "chosen"
    processes = f", {ranks.world_size()} processes" if ranks.world_size() > 1 else ""
    threads = f", {os.environ['OMP_NUM_THREADS']} threads" if device == "cpu" else ""
    logger.info("device: %s (%s), %s%s%s", device, how, _arithmetic(precision), threads, processes)
    if requested is None and not _is_built_for("gpu") and environment.has_gpu() and ranks.is_first():
        reason = environment.why_no_card("gpu", is_built=False)
        logger.warning(say("there is a GPU, but {reason}", reason=reason))


def set_device(requested: str | None) -> str:
    """Choose the device for this process and join the other ranks.

    Args:
        requested: "gpu", "xpu", "cpu", or None for a GPU where there is one and the CPU otherwise.

    Returns:
        The device taken, such as "gpu:0" or "cpu".

    Raises:
        UserError: the requested device is not there, or this build of Paddle cannot use it.
    """
    device = requested or ("gpu" if _num_cards("gpu") else "cpu")
    if device == "cpu":
        if ranks.world_size() > 1:  # a build for cards would take one here, whatever was set before
            os.environ["PADDLE_DISTRI_BACKEND"] = "gloo"
    else:
        if not _num_cards(device):
            reason = environment.why_no_card(device, _is_built_for(device))
            raise UserError(say("--device {device}: {reason}, or pass --device cpu", device=device, reason=reason))
        index = int(os.environ.get(f"FLAGS_selected_{device}s", "0").split(",")[0])
        if device == "gpu":
            _require_machine_code(index)
        device = f"{device}:{index}" if ranks.world_size() > 1 else device
    paddle.set_device(device)
    if device == "cpu":
        tune_cpu()
    if ranks.world_size() > 1:
        # Paddle lists every flag that is not as it was shipped.
        with contextlib.redirect_stderr(io.StringIO()):
            paddle.distributed.init_parallel_env()
    taken = str(paddle.get_device())
    if not f"{taken}:".startswith(f"{device}:"):
        raise UserError(
            say(
                "--device {usage}: PaddlePaddle computes on {taken} instead of {device}; unset "
                "PADDLE_DISTRI_BACKEND and start again",
                usage=device.partition(":")[0],
                taken=taken,
                device=device,
            )
        )
    return taken


def _is_built_for(kind: str) -> bool:
    return bool(paddle.is_compiled_with_cuda() if kind == "gpu" else paddle.is_compiled_with_xpu())


def _num_cards(kind: str) -> int:
    """How many cards, "gpu" or "xpu", this process can use.

    Raises:
        UserError: there may be some, but something is wrong with them.
    """
    if not _is_built_for(kind) or (kind == "gpu" and environment.hides_gpus()):
        return 0
    try:
        return int((paddle.device.cuda if kind == "gpu" else paddle.device.xpu).device_count())
    except (OSError, RuntimeError) as error:  # such as a driver that is older than what Paddle was built with
        tool = "nvidia-smi" if kind == "gpu" else "xpu-smi"
        raise UserError(
            say(
                "PaddlePaddle cannot use a {kind} here ({reason}); see what {tool} says, or pass --device cpu",
                kind=kind,
                reason=shorten(first_line(error), 160),
                tool=tool,
            )
        ) from error


def _require_machine_code(index: int) -> None:
    """Refuse a GPU that this build of Paddle holds no machine code for; the first kernel would fail.

    Raises:
        UserError: so it is.
    """
    capability, built_for = _capability(index), paddle.version.cuda_archs()
    if cards.runs_on(built_for, capability):
        return
    installed = str(paddle.version.cuda())
    builds = say(" or ").join(build for build in cards.builds_for(capability) if build != installed)
    remedy = say("it needs another build")
    if builds:
        remedy = say("install the one for CUDA {builds} as README.md says", builds=builds)
    raise UserError(
        say(
            "--device gpu: {card} has compute capability {version}, but the installed PaddlePaddle (CUDA "
            "{installed}) holds code for {built_for} only; {remedy}, or pass --device cpu",
            card=paddle.device.cuda.get_device_name(index),
            version=_version(*capability),
            installed=installed,
            built_for=", ".join(_version(*divmod(n, 10)) for n in built_for),
            remedy=remedy,
        )
    )


def _version(*numbers: int) -> str:
    return ".".join(map(str, numbers))


def _capability(index: int | None = None) -> tuple[int, int]:
    """Compute capability of a GPU of this process, (major, minor); None: of the one that it computes on."""
    major, minor = paddle.device.cuda.get_device_capability(index)
    return int(major), int(minor)


def card() -> dict[str, Any] | None:
    """What ``result.json`` says of the card that this process computes on: name, memory in bytes, versions; or None."""
    kind = paddle.get_device().partition(":")[0]
    if kind == "gpu":
        return {
            "name": paddle.device.cuda.get_device_name(),
            "compute_capability": _version(*_capability()),
            "memory_bytes": card_memory_bytes(),
            "cuda": str(paddle.version.cuda()),
            "cudnn": str(paddle.version.cudnn()),
            "nccl": str(paddle.version.nccl()),
        }
    if kind == "xpu":
        return {"memory_bytes": card_memory_bytes(), "xre": str(paddle.version.xpu_xre())}
    return None


def card_memory_bytes() -> int:
    """Memory of the card that this process computes on, all of it; 0 on the CPU."""
    kind = paddle.get_device().partition(":")[0]
    if kind == "gpu":
        return int(paddle.device.cuda.get_device_properties().total_memory)
    return int(paddle.device.xpu.memory_total()) if kind == "xpu" else 0


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
    """Refuse a precision that the device of this process cannot compute with, and set what it takes.

    Raises:
        UserError: it cannot. That holds for every CPU: Paddle's AMP would go on with fp32 there.
    """
    if precision == "tf32" and os.environ.get(_TF32_OVERRIDE) == "0":
        raise UserError(
            say("--precision tf32: {tf32_override}=0 turns it off; unset that", tf32_override=_TF32_OVERRIDE)
        )
    if not _computes_with(precision):
        others = say(" or ").join(name for name in PRECISIONS if _computes_with(name))
        raise UserError(
            say(
                "--precision {precision}: {device} cannot compute with it; pass {others}",
                precision=precision,
                device=paddle.get_device(),
                others=others,
            )
        )
    if precision == "tf32":
        paddle.set_flags(_TF32_FLAGS)


def _computes_with(precision: str) -> bool:
    """Whether matrix products on this device come out as a precision says. For half precision they are asked.

    What ``paddle.amp`` says it supports is more than ``auto_cast`` does, which warns and goes on with fp32.
    """
    kind = paddle.get_device().partition(":")[0]
    if precision == "tf32":
        is_nvidia = kind == "gpu" and not paddle.is_compiled_with_rocm()
        return is_nvidia and _capability() >= _TF32_SINCE and _has_tf32_flags()
    if precision == "fp32" or kind == "cpu":
        return precision == "fp32"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with autocast(precision):
            square = paddle.ones([8, 8])
            return bool((square @ square).dtype == getattr(paddle, PRECISIONS[precision]))


def _has_tf32_flags() -> bool:
    """Whether this build of Paddle leaves the choice of TF32 to flags; builds before 3.3 do not."""
    try:
        paddle.get_flags(list(_TF32_FLAGS))
    except ValueError:
        return False
    return True


def _arithmetic(precision: str) -> str:
    """The precision as the log says it: TF32 may also be the environment's doing."""
    override = os.environ.get(_TF32_OVERRIDE)
    if precision != "fp32" or override == "0" or not _computes_with("tf32"):
        return precision
    says_so = {_TF32_OVERRIDE: override == "1", _TF32_FLAG: paddle.get_flags(_TF32_FLAG)[_TF32_FLAG]}
    name = next((name for name, is_so in says_so.items() if is_so), None)
    return f"fp32 with products in TF32, as {name} says" if name else precision


def autocast(precision: str) -> contextlib.AbstractContextManager[Any]:
    """Context in which matrix products take ``PRECISIONS[precision]``: Paddle's AMP of level O1."""
    if PRECISIONS[precision] == "float32":
        return contextlib.nullcontext()
    context: contextlib.AbstractContextManager[Any] = paddle.amp.auto_cast(level="O1", dtype=PRECISIONS[precision])
    return context


def seed_all(seed: int) -> None:
    """Seed the generators that weights and dropout are drawn from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    paddle.seed(seed)


def peak_memory_bytes() -> int:
    """Highest memory use of this process so far: of its card where it has one, resident memory otherwise."""
    kind = paddle.get_device().partition(":")[0]
    if kind == "gpu":
        return int(paddle.device.cuda.max_memory_allocated())
    if kind == "xpu":
        return int(paddle.device.xpu.max_memory_allocated())
    return environment.peak_memory_bytes()


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
