"""The training loop of every script."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import paddle
from paddlenlp.transformers import LinearDecayWithWarmup
from tqdm import tqdm

from clue_utils import cli, device, ranks
from clue_utils.errors import UserError
from clue_utils.features.batches import Collate, batches_per_epoch, length_grouped_batches, shuffled_batches
from clue_utils.features.store import Features
from clue_utils.models.heads import Tensors
from clue_utils.record import NO_EVALUATION, Run
from clue_utils.training import checkpoints
from clue_utils.training.predict import to_tensors
from clue_utils.training.stopping import StopRequest

logger = logging.getLogger(__name__)


ComputeLoss = Callable[[paddle.nn.Layer, Tensors], paddle.Tensor]


Evaluate = Callable[[], dict[str, float]]


# Names of metrics in log lines, where they differ from those in result.json.
_LOG_NAMES = {"accuracy": "acc"}


def fit(
    model: paddle.nn.Layer,
    train: Features,
    collate: Collate,
    compute_loss: ComputeLoss,
    evaluate: Evaluate,
    args: Any,
    run: Run,
    save_best: Callable[[], None],
    reason_to_stop: Callable[[], str] = lambda: "",
) -> None:
    """Train a model; evaluate it every ``save_steps`` updates (0: every epoch) and at the end; keep the best.

    An update sees ``batch_size`` rows on each rank, in ``gradient_accumulation_steps`` parts. The loss is the mean
    over all of them, so neither the number of ranks nor that of parts changes what is learnt, but for the units that
    dropout picks. Its random state is set at each update from seed, update and rank, so that a run that is stopped and
    started again goes on from its last checkpoint to the same end.

    Args:
        collate: rows -> padded batch.
        compute_loss: model, batch -> float tensor [batch], the loss of each row.
        evaluate: () -> metrics of the development set, the same on every rank.
        args: the hyper-parameters of ``settings.HYPER_PARAMETERS`` and ``max_steps``.
        run: where metrics and ``result.json`` go; ``run.fields["metric"]`` chooses the best checkpoint.
        save_best: writes the checkpoint; called on rank 0.
        reason_to_stop: asked on rank 0 after an evaluation: why training should end there, "" if it should go on.

    Raises:
        UserError: the loss is no longer a finite number.
        Stopped: SIGTERM or Ctrl-C came; a checkpoint of the last update was written first.
    """
    rank, num_ranks = ranks.rank(), ranks.world_size()
    updates_per_epoch = batches_per_epoch(len(train), args.batch_size * num_ranks)
    num_steps = args.max_steps if args.max_steps > 0 else updates_per_epoch * args.num_train_epochs
    schedule = LinearDecayWithWarmup(args.learning_rate, num_steps, args.warmup_steps or args.warmup_proportion)
    optimizer = build_optimizer(model, schedule, args)
    scaler = paddle.amp.GradScaler(enable=args.precision == "fp16")
    step, is_due = _resume(model, optimizer, schedule, scaler, run)  # is_due: an evaluation, before the next update
    run.write(num_steps=num_steps)
    replica = paddle.DataParallel(model, find_unused_parameters=True) if num_ranks > 1 else model
    meter = _Meter(run, step, num_steps)
    batches: list[np.ndarray] = []

    def save_checkpoint() -> None:
        if rank == 0:
            state = {"is_due": is_due, "run": run.state(), "scaler": _scaler_state(scaler)}
            checkpoints.save(run.folder, step, model, optimizer, state)
        run.write()

    model.train()
    with StopRequest(save_checkpoint) as stop:
        while step < num_steps or is_due:
            stop.check()
            if is_due:
                with meter.paused():
                    with stop.at_once():
                        metrics = evaluate_and_log(evaluate)
                    is_due = False
                    run.log("eval", step, metrics)
                    if run.add_evaluation(step, metrics) and args.save_best_model and rank == 0:
                        save_best()
                    if step == num_steps or _stops_here(run, step, reason_to_stop):
                        break
                    save_checkpoint()
            epoch, index = divmod(step, updates_per_epoch)
            if index == 0 or not batches:
                batches = _batches(train, args, epoch)
            paddle.seed(step_seed(args.seed, step, rank))
            loss = _backward(
                replica, train, batches[index], collate, compute_loss, scaler, args.gradient_accumulation_steps
            )
            scaler.step(optimizer)
            scaler.update()
            optimizer.clear_grad(set_to_zero=False)
            schedule.step()
            step += 1
            meter.advance()
            run.show_progress(step, num_steps)
            if step % args.logging_steps == 0:
                meter.log(step, epoch, index, _mean_over_ranks(loss), optimizer.get_lr())
            is_due = step == num_steps or step % (args.save_steps or updates_per_epoch) == 0
            if is_due:
                _require_finite(_mean_over_ranks(loss), step, run)
        run.write()
    meter.close()
    logger.info("best %s: %.4f at step %d", *(run.fields[name] for name in ("metric", "best_metric", "best_step")))
    if num_ranks > 1:
        paddle.distributed.barrier()  # the best checkpoint is complete before any rank reads it


def _batches(train: Features, args: Any, epoch: int) -> list[np.ndarray]:
    """Row numbers of each update of an epoch, for all ranks together."""
    batch_size = args.batch_size * ranks.world_size()
    if args.group_by_length:
        return length_grouped_batches(train.sizes(), batch_size, args.seed, epoch)
    return shuffled_batches(len(train), batch_size, args.seed, epoch)


def _resume(
    model: paddle.nn.Layer,
    optimizer: paddle.optimizer.Optimizer,
    schedule: Any,
    scaler: paddle.amp.GradScaler,
    run: Run,
) -> tuple[int, bool]:
    """Go back to the newest checkpoint of the run; return its step and whether the evaluation there is due.

    Where there is no checkpoint the run begins at step 0.
    """
    found = checkpoints.find_latest(run.folder)
    step = found[1]["step"] if found else 0
    if ranks.world_size() > 1:
        steps: list[paddle.Tensor] = []
        paddle.distributed.all_gather(steps, paddle.to_tensor([step]))
        if len({int(value) for value in steps}) > 1:
            raise UserError(f"{run.folder}: not every process sees the same checkpoint; it must be on a shared disk")
    if found:
        path, state = found
        run.resume(state["run"], step)
        checkpoints.restore(path, model, optimizer)
        schedule.step(step)
        if state["scaler"]:
            scaler.load_state_dict(state["scaler"])
        logger.info("going on from %s", path)
    else:
        run.resume(NO_EVALUATION | {"history": []}, 0)
    return step, bool(found and found[1]["is_due"])


def _scaler_state(scaler: paddle.amp.GradScaler) -> dict[str, Any]:
    """State of the loss scaling in JSON's types; empty where losses are not scaled."""
    return {name: getattr(value, "tolist", lambda value=value: value)() for name, value in scaler.state_dict().items()}


def _stops_here(run: Run, step: int, reason_to_stop: Callable[[], str]) -> bool:
    """Ask rank 0 whether training ends at an evaluation; the answer is every rank's."""
    reason = reason_to_stop() if ranks.rank() == 0 else ""
    if ranks.world_size() > 1:
        answer = paddle.to_tensor([len(reason)])
        paddle.distributed.broadcast(answer, src=0)
        stops = bool(answer)
    else:
        stops = bool(reason)
    if stops:
        run.fields["pruned"] = {"step": step, "rule": reason}
        logger.info("stopped at step %d, %s", step, reason)
    return stops


class _Meter:
    """Progress bar, speed and memory of a training run, and its log lines.

    Time is taken from log line to log line, after the loss was read, since a GPU is behind the loop until then.
    Evaluation does not count.
    """

    def __init__(self, run: Run, step: int, num_steps: int) -> None:
        quiet = None if ranks.rank() == 0 else True
        self._bar = tqdm(total=num_steps, initial=step, desc="training", unit="step", disable=quiet, leave=False)
        self._run, self._num_steps = run, num_steps
        self._logged_step, self._begin, self._showed_memory = step, time.perf_counter(), False

    def advance(self) -> None:
        self._bar.update()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time of what is not training."""
        with cli.timed() as elapsed:
            yield
        self._begin += elapsed()

    def log(self, step: int, epoch: int, index: int, loss: float, learning_rate: float) -> None:
        _require_finite(loss, step, self._run)
        speed = (step - self._logged_step) / (time.perf_counter() - self._begin)
        memory = device.peak_memory_bytes(paddle.get_device())
        logger.info(
            "global step %d/%d, epoch: %d, batch: %d, rank_id: %d, loss: %f, lr: %.10f, speed: %.4f step/s",
            *(step, self._num_steps, epoch, index, ranks.rank(), loss, learning_rate, speed),
        )
        if not self._showed_memory:
            logger.info("memory: %.2f GiB at the peak so far", memory / 2**30)
            self._showed_memory = True
        scalars = {"loss": loss, "learning_rate": learning_rate, "steps_per_second": speed}
        self._run.log("train", step, scalars | {"peak_memory_bytes": memory})
        self._logged_step, self._begin = step, time.perf_counter()

    def close(self) -> None:
        self._bar.close()


def build_optimizer(model: paddle.nn.Layer, schedule: Any, args: Any) -> paddle.optimizer.Optimizer:
    """AdamW (Loshchilov and Hutter, 2019) without decay of biases and of layer normalisation's weights."""
    decayed = {
        p.name for name, p in model.named_parameters() if not name.endswith("bias") and "norm" not in name.lower()
    }
    return paddle.optimizer.AdamW(
        learning_rate=schedule,
        epsilon=args.adam_epsilon,
        parameters=model.parameters(),
        weight_decay=args.weight_decay,
        apply_decay_param_fun=lambda name: name in decayed,
        grad_clip=paddle.nn.ClipGradByGlobalNorm(args.max_grad_norm) if args.max_grad_norm else None,
    )


def evaluate_and_log(evaluate: Evaluate) -> dict[str, float]:
    """Evaluate and print the line that says so."""
    with cli.timed() as elapsed:
        metrics = evaluate()
    values = "".join(f"{_LOG_NAMES.get(name, name)}: {round(metrics[name], 6)}, " for name in metrics if name != "loss")
    logger.info("eval loss: %f, %seval done total : %s s", metrics["loss"], values, elapsed())
    return metrics


def _backward(
    model: paddle.nn.Layer,
    train: Features,
    rows: np.ndarray,
    collate: Collate,
    compute_loss: ComputeLoss,
    scaler: paddle.amp.GradScaler,
    num_parts: int,
) -> paddle.Tensor:
    """Add the gradients of this rank's share of an update; return that share's part of the mean loss, a scalar.

    Ranks average their gradients, so the sum over a share is scaled by ranks / rows. Gradients are exchanged with the
    last part only.
    """
    num_ranks = ranks.world_size()
    share = np.array_split(rows, num_ranks)[ranks.rank()]
    parts = [part for part in np.array_split(share, num_parts) if len(part)]
    weight = num_ranks / len(rows)
    if not parts:  # fewer rows than ranks at an epoch's end: take part in the exchange with a gradient of zero
        parts, weight = [rows[:1]], 0.0
    total = paddle.zeros([])
    for i, part in enumerate(parts):
        exchanges = i == len(parts) - 1
        with contextlib.nullcontext() if exchanges or num_ranks == 1 else model.no_sync():
            batch = to_tensors(collate([train[i] for i in part]))
            try:
                loss = compute_loss(model, batch).sum() * weight
                scaler.scale(loss).backward()
            except Exception as error:
                if device.is_out_of_memory(error):
                    raise _out_of_memory(len(share), len(parts), list(batch["input_ids"].shape)) from error
                raise
        total += loss.detach()
    return total


def _out_of_memory(num_rows: int, num_parts: int, shape: list[int]) -> UserError:
    if num_parts >= num_rows:
        return UserError(
            f"out of memory with one record of shape {shape} at a time: lower --max_seq_length or take a smaller model"
        )
    larger = min(num_rows, num_parts * 2)
    return UserError(
        f"out of memory with a batch of shape {shape}: pass --gradient_accumulation_steps {larger}; "
        "the batch stays the same",
        {"gradient_accumulation_steps": larger},
    )


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of what is drawn in the update after ``step`` others, so that no random state needs to be kept."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])


def _mean_over_ranks(value: paddle.Tensor) -> float:
    if ranks.world_size() > 1:
        value = value.clone()
        paddle.distributed.all_reduce(value)
    return float(value) / ranks.world_size()


def _require_finite(loss: float, step: int, run: Run) -> None:
    if math.isfinite(loss):
        return
    best = run.fields["best_step"]
    kept = f"the best checkpoint, of step {best}, is kept" if best else "no checkpoint has been kept yet"
    raise UserError(f"the loss is {loss} at step {step}: lower --learning_rate or raise --warmup_proportion; {kept}")
