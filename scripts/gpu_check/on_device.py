"""What parts have computed in processes of their own: each function is called by ``call``, alone or by every rank.

Arguments and what is returned are of JSON's types. ``requested`` is what ``--device`` takes, or None.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import hashlib
import importlib
import json
import logging
import math
import os
import runpy
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle.inference
import paddle.nn.functional as F
import paddle.profiler

import try_architectures
from clue_utils import cli, device, models, ranks, tasks
from clue_utils.errors import Stopped, UserError
from clue_utils.features.batches import Batch
from clue_utils.grid import trial
from clue_utils.models import gpu_layers
from clue_utils.models.heads import HEADS
from clue_utils.training import checkpoints, optimizer, predict, session
from demo.architectures import make_published
from gpu_check import jobs

Watch = Callable[[str, Any], None]
_PROFILED_STEPS = 3


# --- the project's scripts in this process -------------------------------------------------------------------------


def run_script(task_name: str, model: object, output: object, *flags: object) -> None:
    """What the command line of a task's script does, without what ends the process.

    Raises:
        UserError, Stopped: as the script.
    """
    script, *words = trial.script_words(tasks.TASKS[task_name], model, output, *flags)
    importlib.import_module(Path(script).stem).main(words)


@contextlib.contextmanager
def swapped(owner: Any, **values: Any) -> Iterator[None]:
    """A block in which attributes of a module or class are others."""
    before = {name: getattr(owner, name) for name in values}
    try:
        for name, value in values.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


def watched(watch: Watch) -> contextlib.AbstractContextManager[None]:
    """A block in which the scripts' runs are watched, see ``loop.Watch``."""
    return swapped(session, execute=functools.partial(session.execute, watch=watch))


def score_dev(task_name: str, model: object, output: object, *flags: object) -> tuple[np.ndarray, float]:
    """Logits of the development set, float32 [features, width], as ``--do_eval`` computes them, and the seconds."""
    logits, seconds = np.zeros(0), 0.0

    def keep(*words: Any, **more: Any) -> np.ndarray:
        nonlocal logits, seconds
        with cli.timed() as elapsed:
            logits = predict.compute_logits(*words, **more)
            seconds = elapsed()
        return logits

    with swapped(session, compute_logits=keep):
        run_script(task_name, model, output, *flags, "--do_eval")
    return logits, seconds


# --- which device --------------------------------------------------------------------------------------------------


def place(requested: str | None) -> dict[str, Any]:
    """Where ``device.set_device`` leads: Paddle's device, what a tensor lies on, the card's UUID, the ranks' back end.

    What the project refuses is ``refusal``.
    """
    try:
        device.set_device(requested)
    except UserError as error:
        return {"refusal": str(error)}
    name = paddle.get_device()
    card = name.partition(":")[2] if name.startswith("gpu") else ""
    return {
        "device": name,
        "place": str(paddle.ones([1]).place),
        "uuid": card_uuid(int(card or 0)) if name.startswith("gpu") else "",
        "backend": str(paddle.distributed.get_backend()).lower() if ranks.world_size() > 1 else "",
    }


def card_uuid(number: int) -> str:
    """UUID, as nvidia-smi writes it, of the card of this number among those that this process sees; "" if not known.

    The driver's own answer (CUDA driver API: cuDeviceGetUuid), which no setting of Paddle's has a part in.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ""
    handle, found = ctypes.c_int(), (ctypes.c_ubyte * 16)()
    steps: tuple[Callable[[], int], ...] = (
        lambda: driver.cuInit(0),
        lambda: driver.cuDeviceGet(ctypes.byref(handle), number),
        lambda: driver.cuDeviceGetUuid(found, handle),
    )
    if any(step() for step in steps):
        return ""
    digits = bytes(found).hex()
    parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return f"GPU-{'-'.join(parts)}"


def build() -> dict[str, Any]:
    """What this build of Paddle is for and what it has loaded: versions as text, compute capabilities as integers."""
    core, on_card = paddle.base.core, paddle.is_compiled_with_cuda()
    answer: dict[str, Any] = {
        "is_for_cuda": on_card,
        "version": paddle.version.full_version,
        "cuda": str(paddle.version.cuda()),
        "cudnn": str(paddle.version.cudnn()),
        "nccl": str(paddle.version.nccl()),
        "architectures": [int(number) for number in paddle.version.cuda_archs() or []],
    }
    if on_card and paddle.device.cuda.device_count():
        answer["loaded_cudnn"] = str(paddle.device.get_cudnn_version())
        nccl = getattr(core, "nccl_version", None)  # such as 22703 for 2.27.3
        answer["loaded_nccl"] = str(nccl()) if nccl else ""
        answer["capabilities"] = [
            list(paddle.device.cuda.get_device_capability(number))
            for number in range(paddle.device.cuda.device_count())
        ]
    names = "cublas_allow_tf32 use_legacy_linear embedding_deterministic cudnn_deterministic use_stride_kernel"
    flags: dict[str, Any] = {}
    for name in f"{names} gpu_allocator_retry_time allocator_strategy".split():
        with contextlib.suppress(ValueError):  # not one of this build
            flags |= paddle.get_flags(f"FLAGS_{name}")
    return answer | {"flags": {name.removeprefix("FLAGS_"): str(value) for name, value in flags.items()}}


# --- numbers -------------------------------------------------------------------------------------------------------


def product_errors(requested: str | None, precision: str, size: int) -> dict[str, float]:
    """Root mean square error of products of float32 matrices [size, size] beside float64, relative to the products'.

    Of a product, of a linear layer, and of the gradient of its weight. About 1e-7 times a small factor for IEEE
    float32; 2e-4 to 5e-4 where TF32 cuts the factors to 10 bits.
    """
    device.start(requested, precision)
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((size, size)).astype(np.float32) for _ in range(2))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    x, y = paddle.to_tensor(a), paddle.to_tensor(b, stop_gradient=False)
    linear = F.linear(x, y)
    linear.backward(paddle.to_tensor(b))
    exact_gradient = a.T.astype(np.float64) @ b.astype(np.float64)

    def error(found: Any, true: np.ndarray) -> float:
        difference = found.detach().numpy().astype(np.float64) - true
        return float(np.sqrt(np.mean(difference**2) / np.mean(true**2)))

    return {
        "matmul": error(paddle.matmul(x, y), exact),
        "linear, forward": error(linear, exact),
        "linear, backward": error(y.grad, exact_gradient),
    }


def train(
    task_name: str, model: str, output: str, flags: Sequence[Any], kill_at: int = 0, plain: bool = False
) -> dict[str, Any]:
    """Train with a task's script; return its logged losses and the weights' digest.

    Args:
        kill_at: the step after which this process is killed by SIGKILL, 0: never.
        plain: with Paddle's own linear layers and optimizer, where the project has quicker ones.
    """

    def watch(event: str, value: Any) -> None:
        if event == "step" and value == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    with watched(watch), paddles_own() if plain else contextlib.nullcontext():
        run_script(task_name, model, output, *flags, "--do_train")
    return {"losses": jobs.losses(Path(output)), "weights": jobs.weights_digest(Path(output))}


@contextlib.contextmanager
def paddles_own() -> Iterator[None]:
    """A block in which models and optimizers are Paddle's own, wherever the project has others of the same bits."""
    own = (paddle.optimizer.AdamW, paddle.nn.ClipGradByGlobalNorm)
    with swapped(optimizer, quickest_classes=lambda *_: own), swapped(gpu_layers, speed_up=lambda model: None):
        yield


def evaluate(model: str, output: str, flags: Sequence[Any], batch_sizes: Sequence[int]) -> list[dict[str, Any]]:
    """``logits`` of TNEWS's development set, as nested lists, and ``seconds``, for each ``--eval_batch_size``."""
    answers = []
    for size in batch_sizes:
        logits, seconds = score_dev("TNEWS", model, Path(output, str(size)), *flags, "--eval_batch_size", size)
        answers.append({"logits": logits.tolist(), "seconds": seconds})
    return answers


# --- several ranks -------------------------------------------------------------------------------------------------


def work_of_rank(
    model: str, trained: str, output: str, flags: Sequence[Any], device_flags: Sequence[Any], megabytes: int
) -> dict[str, Any]:
    """What a rank computes; the same call in one process gives what it is compared with.

    Returns:
        ``losses`` of a few steps, those with each batch in two parts (``losses_in_parts``) and the digest of the
        development set's ``logits``. Of several ranks also the digests of the ``weights`` of two runs; ``seconds`` of a
        step with find_unused_parameters off and on; and ``gb_per_second`` of an all-reduce of so many megabytes: bytes
        times 2 (n - 1) / n over the time, which is what a link carries in a ring of n ranks.
    """
    answer: dict[str, Any] = {}
    top = Path(output)
    for name, more in (("losses", []), ("losses_in_parts", ["--gradient_accumulation_steps", 2])):
        run_script("TNEWS", model, top / name, *flags, *device_flags, *more, "--do_train")
        answer[name] = jobs.losses(top / name)
    logits, _ = score_dev("TNEWS", trained, top / "evaluation", *device_flags)
    answer["logits"] = hashlib.sha256(logits.tobytes()).hexdigest()[:16]
    if ranks.world_size() == 1:
        return answer
    run_script("TNEWS", model, top / "again", *flags, *device_flags, "--do_train")
    answer["weights"] = [jobs.weights_digest(top / name) for name in ("losses", "again")]
    parallel = paddle.DataParallel
    answer["seconds"] = {}
    for is_on in (False, True):

        def replica(layer: Any, is_on: bool = is_on, **more: Any) -> Any:
            return parallel(layer, **{**more, "find_unused_parameters": is_on})

        with swapped(paddle, DataParallel=replica):
            cost = updates("TNEWS", model, str(top / f"unused-{is_on}"), [*flags, *device_flags], 2, 8)
        answer["seconds"]["on" if is_on else "off"] = cost["seconds"]
    array = paddle.ones([megabytes * 10**6 // 4])
    paddle.distributed.all_reduce(array)
    finish()
    device.barrier()
    begin, times = time.perf_counter(), 5
    for _ in range(times):
        paddle.distributed.all_reduce(array)
    finish()
    seconds = (time.perf_counter() - begin) / times
    size = ranks.world_size()
    answer["gb_per_second"] = megabytes / 1000 * 2 * (size - 1) / size / seconds
    return answer


def train_until_killed(model: str, output: str, flags: Sequence[Any]) -> None:
    """Train for ever; after five steps each rank says its process's number in ``output/pid-<rank>``."""
    numbers = Path(output)

    def watch(event: str, value: Any) -> None:
        if event == "step" and value == 5:
            (numbers / f"pid-{ranks.rank()}").write_text(str(os.getpid()))

    with watched(watch):
        run_script("TNEWS", model, numbers / "run", *flags, "--do_train", "--max_steps", 10**6)


def finish() -> None:
    """Wait for what this process has asked of a card."""
    if paddle.get_device() != "cpu":
        paddle.device.synchronize()


# --- memory --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def limited(tokens: int) -> Iterator[None]:
    """A block in which the scripts' models run out of memory, in Paddle's words, with more than so many tokens."""

    def with_limit(function: Callable[..., Any]) -> Callable[..., Any]:
        def limited_function(model: Any, batch: Any) -> Any:
            if math.prod(batch["input_ids"].shape) > tokens:
                raise MemoryError("ResourceExhaustedError: \n\nOut of memory error on GPU 0. (a simulation)")
            return function(model, batch)

        return limited_function

    heads = {
        kind: replace(head, forward=with_limit(head.forward), loss=with_limit(head.loss))
        for kind, head in HEADS.items()
    }
    with swapped(session, HEADS=heads):
        yield


def run_limited(tokens: int, words: Sequence[str]) -> None:
    """Run one of the project's programs, as ``python`` does, with memory for so many tokens."""
    script = words[0]
    sys.argv = list(words)
    sys.path.insert(0, str(Path(script).parent))
    with limited(tokens):
        runpy.run_path(script, run_name="__main__")


def evaluate_limited(task_name: str, model: str, output: str, flags: Sequence[Any], tokens: int) -> int:
    """How many lines say that an evaluation ran out of memory where so many tokens fit (0: what memory takes)."""
    lines: list[str] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, handler = logging.getLogger(predict.__name__), Keeping(logging.WARNING)
    logger.addHandler(handler)
    limit: Any = limited(tokens) if tokens else contextlib.nullcontext()
    with limit:
        score_dev(task_name, model, output, *flags)
    logger.removeHandler(handler)
    return sum("out of memory" in line for line in lines)


def make_random_model(name: str, folder: str) -> None:
    """A published model's architecture with random weights, as a checkpoint folder."""
    device.set_device("cpu")
    make_published(name, Path(folder))


def lengthen(data: str) -> None:
    """Make every text longer than its task's length."""
    try_architectures.lengthen(Path(data))


def peaks(batch_sizes: Mapping[str, int], model: str, output: str, flags: Sequence[Any]) -> dict[str, Any]:
    """What one update and one evaluation of each task take on a card.

    Args:
        batch_sizes: task -> examples of an update.

    Returns:
        task -> ``parts`` that the batch had to be computed in, peak GiB of ``update`` and ``evaluation``; or ``error``.
    """
    answer: dict[str, Any] = {}
    for name, batch_size in batch_sizes.items():
        parts, peak = 1, {"update": 0.0, "evaluation": 0.0}

        def watch(event: str, _: Any, peak: dict[str, float] = peak) -> None:
            what = {"step": "update", "evaluation": "evaluation"}.get(event)
            if what:
                finish()
                peak[what] = device.peak_memory_bytes() / 2**30
                paddle.device.cuda.reset_max_memory_allocated()

        while name not in answer:
            more = ["--batch_size", batch_size, "--gradient_accumulation_steps", parts, "--overwrite_output_dir"]
            more += ["--do_train", "--max_steps", 1, "--save_best_model", "false"]
            paddle.device.cuda.reset_max_memory_allocated()
            try:
                with watched(watch), swapped(checkpoints, save=lambda *_: None):  # gigabytes that nobody reads
                    run_script(name, model, Path(output, name), *flags, *more)
                answer[name] = {"parts": parts, **peak}
            except UserError as error:
                advised = int(error.advice.get("gradient_accumulation_steps", 0))
                if advised <= parts:
                    answer[name] = {"error": str(error)}
                parts = advised
            gc.collect()  # what a failed run held is let go in cycles
            paddle.device.cuda.empty_cache()
    return answer


# --- speed ---------------------------------------------------------------------------------------------------------


def updates(
    task_name: str,
    model: str,
    output: str,
    flags: Sequence[Any],
    warm: int,
    steps: int,
    profiled: bool = False,
    saved: bool = True,
) -> dict[str, Any]:
    """What an update costs after ``warm`` others, with what comes behind the last one.

    Args:
        saved: write the checkpoint that a run ends with, which is measured then.

    Returns:
        ``seconds`` of an update from end to end (a card has finished); ``host_seconds`` until the host has asked for
        it; ``records`` and ``tokens`` of an update (all ranks'); ``padded`` share; seconds of the ``evaluation`` and of
        the ``checkpoint``, and ``checkpoint_bytes`` (0: none was written); with ``profiled`` what ``profile_counts``
        says.
    """
    count: Counter[str] = Counter()
    clock: dict[str, float] = {"evaluation": 0.0, "checkpoint": 0.0}
    on_card = paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
    profiler = paddle.profiler.Profiler(
        targets=[paddle.profiler.ProfilerTarget.CPU, *([paddle.profiler.ProfilerTarget.GPU] if on_card else [])],
        on_trace_ready=lambda _: None,  # by default it writes a trace into the working folder
    )
    last = warm + steps

    def watch(event: str, value: Any) -> None:
        if event == "evaluation":
            clock["evaluation"] = value
        elif event == "batch" and "begin" in clock and "host" not in clock:
            mask = value["attention_mask"]
            count.update(records=len(mask), tokens=int(mask.sum()), padded_tokens=mask.size)
        elif event == "step" and value == warm:
            finish()
            clock["begin"] = time.perf_counter()
        elif event == "step" and value == last:
            clock["host"] = time.perf_counter()
            finish()
            clock["end"] = time.perf_counter()
            if profiled:
                profiler.start()
        elif event == "step" and value == last + _PROFILED_STEPS and profiled:
            finish()
            profiler.stop()

    save = checkpoints.save

    def timed_save(*words: Any, **more: Any) -> Any:
        if not saved:
            return None
        finish()
        with cli.timed() as elapsed:
            answer = save(*words, **more)
            clock["checkpoint"] = elapsed()
        newest = max(Path(output).glob("checkpoint-*"), key=checkpoints.step_of, default=None)
        count["checkpoint_bytes"] = sum(path.stat().st_size for path in newest.iterdir()) if newest else 0
        return answer

    num_steps = last + (_PROFILED_STEPS if profiled else 0)
    # No line, evaluation or checkpoint comes between the updates that are timed.
    more = ["--do_train", "--max_steps", num_steps, "--logging_steps", 10 * num_steps, "--save_steps", 10 * num_steps]
    with watched(watch), swapped(checkpoints, save=timed_save):
        run_script(task_name, model, output, *flags, *more, "--save_best_model", "false")
    found = profile_counts(profiler.profiler_result.get_data().values(), _PROFILED_STEPS) if profiled else {}
    return found | {
        "seconds": (clock["end"] - clock["begin"]) / steps,
        "host_seconds": (clock["host"] - clock["begin"]) / steps,
        "records": count["records"] * ranks.world_size() / steps,
        "tokens": count["tokens"] * ranks.world_size() / steps,
        "padded": 1 - count["tokens"] / count["padded_tokens"],
        "evaluation": clock["evaluation"],
        "checkpoint": clock["checkpoint"],
        "checkpoint_bytes": count["checkpoint_bytes"],
    }


def updates_of_tasks(
    model: str, output: str, flags: Sequence[Any], shapes: Mapping[str, Any], profiled: bool = False
) -> dict[str, Any]:
    """``updates`` of several tasks, one after the other.

    Args:
        shapes: task -> its ``flags``, ``warm``, ``steps``, and ``saved``.
    """
    answer = {}
    for name, shape in shapes.items():
        more = shape | {"flags": [*flags, *shape["flags"]]}
        answer[name] = updates(name, model, str(Path(output, name)), profiled=profiled, **more)
        shutil.rmtree(Path(output, name), ignore_errors=True)  # its checkpoints are large
    return answer


_COPIES = ("cudaMemcpy", "cudaMemcpyAsync")
_WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def profile_counts(trees: Any, steps: int) -> dict[str, float]:
    """What ``paddle.profiler`` has seen, per update.

    Args:
        trees: host nodes, a tree for each thread, as ``profiler_result.get_data()`` gives them: ``children_node``;
            ``runtime_node``, the calls of the CUDA runtime, each with ``name`` and ``device_node``, what it had done on
            the card, with ``type`` and times in nanoseconds.

    Returns:
        ``kernels``; ``kernel_seconds``, the sum of their times; ``copies`` and ``waits``, calls of the runtime.
    """
    count: Counter[str] = Counter()
    nanoseconds = 0
    stack = list(trees)
    while stack:
        node = stack.pop()
        stack += node.children_node
        for call in node.runtime_node:
            name = call.name.rpartition("::")[2].partition("_v")[0]  # such as cudaMemcpyAsync_v3020
            count["copies"] += name in _COPIES
            count["waits"] += name in _WAITS
            for done in call.device_node:
                if str(done.type).endswith("Kernel"):
                    count["kernels"] += 1
                    nanoseconds += done.end_ns - done.start_ns
    counts = {name: count[name] / steps for name in ("kernels", "copies", "waits")}
    return counts | {"kernel_seconds": nanoseconds / 1e9 / steps}


def resumed_speed(model: str, output: str, flags: Sequence[Any], steps: int) -> dict[str, float]:
    """Median seconds of a step of TNEWS before a run is stopped by SIGTERM, and after it has gone on."""
    seconds: dict[str, list[float]] = {"before": [], "after": []}
    which, latest = "before", time.perf_counter()

    def watch(event: str, value: Any) -> None:
        nonlocal latest
        if event == "step":
            finish()
            seconds[which].append(time.perf_counter() - latest)
            if which == "before" and value == steps:
                os.kill(os.getpid(), signal.SIGTERM)
            latest = time.perf_counter()

    words = ("TNEWS", model, output, *flags, "--do_train", "--max_steps", 2 * steps)
    with watched(watch):
        try:
            run_script(*words)
        except Stopped:
            which = "after"
        run_script(*words)
    return {name: float(np.median(values[2:])) for name, values in seconds.items()}


# --- Trainer -------------------------------------------------------------------------------------------------------


def stop_trainer(words: Sequence[Any], step: int) -> None:
    """Run the Trainer's script until it is stopped by SIGTERM in an update."""
    trainer = importlib.import_module("clue_utils.training.trainer").ClueTrainer
    training_step, count = trainer.training_step, 0

    def stopping(self: Any, *inputs: Any, **more: Any) -> Any:
        nonlocal count
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return training_step(self, *inputs, **more)

    with swapped(trainer, training_step=stopping), contextlib.suppress(Stopped):
        importlib.import_module("run_clue_classifier_trainer").main([str(word) for word in words])


def exported_difference(folder: str, data: str, requested: str) -> float:
    """Largest difference of logits between a Trainer's checkpoint and the inference model exported beside it."""
    device.set_device(requested)
    config = paddle.inference.Config(str(Path(folder, "inference")), "model")
    config.disable_mkldnn()  # which is on by default on a CPU, and computes some architectures wrong
    if requested == "gpu":
        config.enable_use_gpu(100, 0)
    predictor = paddle.inference.create_predictor(config)
    tokenizer = models.load_tokenizer(folder)
    lines = Path(data, "tnews_public/dev.json").read_text(encoding="utf-8").split("\n")[:8]
    batch: Batch = tokenizer([json.loads(line)["sentence"] for line in lines], padding=True)
    inputs = [paddle.to_tensor(np.array(batch[name], np.int64)) for name in predictor.get_input_names()]
    (logits,) = predictor.run(inputs)
    model = models.load_model(folder, tasks.TASKS["TNEWS"], 0.0, len(tasks.TASKS["TNEWS"].labels), training=False)
    model.eval()
    with paddle.no_grad():
        return float(np.abs(logits.numpy() - model(*inputs).numpy()).max())
