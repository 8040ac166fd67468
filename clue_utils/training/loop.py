"""The training loop of every script, from a batch to a checkpoint.

A step leads to few other files: the loss of a batch to ``models.heads``, an evaluation through ``session`` to
``predict``, and what is written to ``checkpoints``.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from paddlenlp.transformers import LinearDecayWithWarmup
from tqdm import tqdm

from clue_utils import cli, device, ranks
from clue_utils.errors import UserError, is_out_of_memory
from clue_utils.features.batches import Collate, batches_per_epoch, length_grouped_batches, shuffled_batches
from clue_utils.features.store import Features
from clue_utils.language import say, using
from clue_utils.models.heads import Head, freeze_unused, to_tensors
from clue_utils.record import NO_EVALUATION, Run
from clue_utils.settings import Settings
from clue_utils.training import checkpoints
from clue_utils.training.optimizer import build_optimizer
from clue_utils.training.pace import Pace
from clue_utils.training.regularization import Average, moved_uphill, r_drop_loss, word_embeddings
from clue_utils.training.stopping import StopRequest

logger = logging.getLogger(__name__)
# Told of what a run does, for measurements: "features" and "evaluation" with the seconds that they took, "batch" with
# each batch that is learnt from, "step" with the number of those done.
Watch = Callable[[str, Any], None]


def no_watch(event: str, value: Any) -> None:
    """Takes no note of anything."""


@dataclass
class Job:
    """What is trained, and what the loop asks of its owner.

    Attributes:
        head: gives the loss of each row of a batch.
        collate: rows -> padded batch.
        evaluate: () -> metrics of the development set, the same on every rank.
        save_best: writes what is kept of the best evaluation, which is the last; called on rank 0.
        reason_to_stop: asked on rank 0 after an evaluation: why training should end there, "" if it should go on.
        num_dev: sequences of the development set, for the time that its first evaluation may take.
    """

    model: paddle.nn.Layer
    head: Head
    train: Features
    collate: Collate
    evaluate: Callable[[], dict[str, float]]
    save_best: Callable[[], None]
    reason_to_stop: Callable[[], str] = lambda: ""
    watch: Watch = no_watch
    num_dev: int = 0


def fit(job: Job, args: Settings, run: Run) -> None:
    """Train a model; evaluate it every ``save_steps`` steps (0: every epoch) and at the end; keep the best.

    A step sees ``batch_size`` rows on each rank, in ``gradient_accumulation_steps`` micro-batches. The loss is the
    mean over all of them, so neither the number of ranks nor that of micro-batches changes what is learnt, but for the
    units that dropout picks. Its random state is set at each step from seed, step and rank, so that a run that is
    stopped and started again goes on from its last checkpoint to the same end.

    With ``ema`` the running mean of the weights is what is evaluated and kept. With ``train_on_dev`` nothing is
    evaluated, and the weights after the last step are kept.

    A checkpoint to go on from is written every ``checkpoint_minutes``, after the last step, and when the run is stopped
    or memory runs out.

    Args:
        args: the settings of the run.
        run: where metrics and ``result.json`` go; ``run.fields["metric"]`` chooses the best checkpoint.

    Raises:
        UserError: the loss is no longer a finite number.
        Stopped: SIGTERM or Ctrl-C came; a checkpoint of the last step was written first.
    """
    batch_size = args.batch_size * ranks.world_size()
    steps_per_epoch = batches_per_epoch(len(job.train), batch_size)
    num_steps = args.max_steps if args.max_steps > 0 else steps_per_epoch * int(args.num_train_epochs)
    state = TrainingState(job.model, num_steps, args, run)
    state.resume()
    run.write(num_steps=num_steps)
    attacked = word_embeddings(job.model) if args.fgm else None
    replica = _replica(job)
    interval = args.save_steps or steps_per_epoch
    if args.train_on_dev:
        interval = num_steps  # what is due then is that the weights are kept
    pace = Pace(num_steps, interval, int(args.do_eval), batch_size, 0 if args.train_on_dev else job.num_dev)
    logger.info(
        "training: examples %d, epochs %.4g, updates %d (of %d examples), evaluations %d",
        *(len(job.train), num_steps / steps_per_epoch, num_steps, batch_size),
        0 if args.train_on_dev else pace.num_evaluations,
    )
    meter = _Meter(run, state.step, pace)
    batches: list[np.ndarray] = []
    job.model.train()
    with StopRequest(state.save) as stop:
        while state.step < num_steps or state.is_due:
            stop.check()
            if state.is_save_due():
                with meter.paused():
                    state.save()
            if state.is_due:
                # Outside of what a signal may break off, so that weights are never exchanged by half.
                with meter.paused(), state.average.in_place():
                    is_best = True
                    if not args.train_on_dev:
                        with stop.at_once(), cli.timed() as elapsed:
                            metrics = job.evaluate()
                        pace.add_evaluation(elapsed())
                        run.log("eval", state.step, metrics)
                        is_best = run.add_evaluation(state.step, metrics)
                    state.is_due = False
                    run.write()  # before the weights: see ``Run.resume``
                    if is_best and ranks.is_first():
                        job.save_best()
                    if state.step == num_steps or _stops_here(run, state.step, job.reason_to_stop):
                        break
            epoch, index = divmod(state.step, steps_per_epoch)
            if index == 0 or not batches:
                batches = _batches(job.train, args, epoch)
            paddle.seed(step_seed(args.seed, state.step, ranks.rank()))
            try:
                loss = _backward(job, replica, batches[index], state.scaler, args, attacked)
            except UserError:  # memory ran out: the weights are as they were
                with contextlib.suppress(Exception):  # what is left of the device may refuse
                    state.save()
                raise
            state.update()
            state.is_due = state.step == num_steps or state.step % interval == 0
            meter.advance(state.step, state.is_due)
            job.watch("step", state.step)
            if state.step % args.logging_steps == 0:
                meter.log(state.step, epoch, index, device.mean_over_ranks(loss), state.optimizer.get_lr())
            if state.is_due:
                _require_finite(device.mean_over_ranks(loss), state.step, run)
        run.write()
    meter.close()
    logger.info(run.summary())
    device.barrier()  # the best checkpoint is complete before any rank reads it


class TrainingState:
    """All that a step changes, and what becomes of it on disk.

    Attributes:
        step: steps done.
        is_due: whether the evaluation after them is still to be done, before the next step.
    """

    def __init__(self, model: paddle.nn.Layer, num_steps: int, args: Settings, run: Run) -> None:
        self.model, self.run, self.step, self.is_due = model, run, 0, False
        self._num_steps, self._interval = num_steps, 60 * args.checkpoint_minutes
        self._saved, self._saved_at = (0, False), time.monotonic()  # step and is_due of the newest checkpoint; when
        warmup = args.warmup_steps or args.warmup_proportion
        self.schedule = LinearDecayWithWarmup(args.learning_rate, num_steps, warmup)
        self.optimizer = build_optimizer(model, self.schedule, args)
        self.scaler = paddle.amp.GradScaler(enable=args.precision == "fp16")
        self.average = Average(model, args.ema)

    def update(self) -> None:
        """Take the step that the gradients say."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.clear_grad(set_to_zero=False)
        self.schedule.step()
        self.step += 1
        self.average.update(self.step)

    def is_save_due(self) -> bool:
        """Whether a checkpoint is due: by time, whatever the task, and after the last step, before its evaluation."""
        is_last, passed = self.step == self._num_steps, time.monotonic() - self._saved_at
        return self.step > self._saved[0] and (is_last or passed >= self._interval)

    def save(self) -> None:
        """Write a checkpoint if anything has changed since the newest, and the record."""
        if ranks.is_first() and self._saved != (self.step, self.is_due):
            scaler = checkpoints.scaler_state(self.scaler)
            state = {"is_due": self.is_due, "run": self.run.state(), "scaler": scaler}
            with self.average.in_place(False):  # also when an evaluation is broken off
                average = self.average.state()
                checkpoints.save(self.run.folder, self.step, self.model, self.optimizer, state, average)
        self._saved, self._saved_at = (self.step, self.is_due), time.monotonic()
        self.run.write()

    def resume(self) -> None:
        """Go back to the newest checkpoint of the run; where there is none it begins at step 0."""
        found, run = checkpoints.find_latest(self.run.folder), self.run
        self.step = found[1]["step"] if found else 0
        if len({int(step) for (step,) in device.gather(np.array([self.step]))}) > 1:
            raise UserError(
                say(
                    "{folder}: not every process sees the same checkpoint; it must be on a shared disk",
                    folder=run.folder,
                )
            )
        if not found:
            run.resume(NO_EVALUATION | {"history": []}, 0)
            return
        path, state = found
        run.resume(state["run"], self.step)
        checkpoints.restore(path, self.model, self.optimizer)
        self.average.restore(checkpoints.read_average(path))
        self.schedule.step(self.step)
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.is_due = bool(state["is_due"])
        self._saved = self.step, self.is_due
        logger.info("going on from %s", path)


def _replica(job: Job) -> paddle.nn.Layer:
    """The model, which with several ranks averages its gradients over them."""
    if ranks.world_size() == 1:
        return job.model
    # Parameters without gradient are known beforehand: to look for them has the host wait for the card in each step.
    freeze_unused(job.model, job.head, to_tensors(job.collate([job.train[0]])))
    return paddle.DataParallel(job.model, find_unused_parameters=False)


def _batches(train: Features, args: Settings, epoch: int) -> list[np.ndarray]:
    """Row numbers of each step of an epoch, for all ranks together."""
    batch_size = args.batch_size * ranks.world_size()
    if args.group_by_length:
        return length_grouped_batches(train.sizes(), batch_size, args.seed, epoch)
    return shuffled_batches(len(train), batch_size, args.seed, epoch)


def _backward(
    job: Job,
    replica: paddle.nn.Layer,
    rows: np.ndarray,
    scaler: paddle.amp.GradScaler,
    args: Settings,
    attacked: paddle.Tensor | None = None,
) -> paddle.Tensor:
    """Add the gradients of this rank's share of a step; return what that share adds to the mean loss, a scalar.

    Args:
        attacked: the parameter that ``fgm`` moves by the gradient of the whole step, all ranks' and micro-batches',
            for gradients of a second loss to be added; that loss is not part of what is returned.
    """
    loss = _add_gradients(job, replica, rows, scaler, args)
    if attacked is not None:
        with moved_uphill(attacked, args.fgm):
            _add_gradients(job, replica, rows, scaler, args)
    return loss


def _add_gradients(
    job: Job, replica: paddle.nn.Layer, rows: np.ndarray, scaler: paddle.amp.GradScaler, args: Settings
) -> paddle.Tensor:
    """Add the gradients of one pass over this rank's share; return what the share adds to the mean loss.

    Ranks average their gradients, so the sum over a share is scaled by ranks / rows. Gradients are exchanged with the
    last micro-batch only, those of an earlier pass along with them: being equal on all ranks, they stay as they are.
    """
    num_ranks = ranks.world_size()
    share = np.array_split(rows, num_ranks)[ranks.rank()]
    micro_batches = [some for some in np.array_split(share, args.gradient_accumulation_steps) if len(some)]
    weight = num_ranks / len(rows)
    if not micro_batches:  # fewer rows than ranks at an epoch's end: take part in the exchange with a gradient of zero
        micro_batches, weight = [rows[:1]], 0.0
    total = paddle.zeros([])
    for i, micro_batch in enumerate(micro_batches):
        exchanges = i == len(micro_batches) - 1
        with contextlib.nullcontext() if exchanges or num_ranks == 1 else replica.no_sync():
            arrays = job.collate([job.train[i] for i in micro_batch])
            job.watch("batch", arrays)
            try:
                batch = to_tensors(arrays)
                with device.autocast(args.precision):
                    losses = (
                        r_drop_loss(job.head, replica, batch, args.r_drop)
                        if args.r_drop
                        else job.head.loss(replica, batch)
                    )
                loss = losses.sum() * weight
                scaler.scale(loss).backward()
            except Exception as error:
                if is_out_of_memory(error):
                    raise _out_of_memory(len(share), len(micro_batches), list(arrays["input_ids"].shape)) from error
                raise
        total += loss.detach()
    return total


def _out_of_memory(num_rows: int, num_micro_batches: int, shape: list[int]) -> UserError:
    if num_micro_batches >= num_rows:
        return UserError(
            say(
                "out of memory with one example of shape {shape} at a time: lower --max_seq_length or take a "
                "smaller model",
                shape=shape,
            )
        )
    larger = min(num_rows, num_micro_batches * 2)
    return UserError(
        say(
            "out of memory with a batch of shape {shape}: pass --gradient_accumulation_steps {larger}; the batch "
            "stays the same",
            shape=shape,
            larger=larger,
        ),
        {"gradient_accumulation_steps": larger},
    )


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of what is drawn in the step after ``step`` others, so that no random state needs to be kept."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])


def _stops_here(run: Run, step: int, reason_to_stop: Callable[[], str]) -> bool:
    """Ask rank 0 whether training ends at an evaluation; the answer is every rank's."""
    reason = reason_to_stop() if ranks.is_first() else ""
    stops = device.of_first_rank(bool(reason))
    if stops:
        run.fields["pruned"] = {"step": step, "rule": reason}
        logger.info("stopped at step %d, %s", step, reason)
    return stops


def _require_finite(loss: float, step: int, run: Run) -> None:
    if math.isfinite(loss):
        return
    best = run.fields["best_step"]
    kept = say("no checkpoint has been kept yet")
    if best:
        kept = say("the best checkpoint, of step {step}, is kept", step=best)
    raise UserError(
        say(
            "the loss is {loss} at step {step}: lower --learning_rate or raise --warmup_proportion; {kept}",
            loss=loss,
            step=step,
            kept=kept,
        )
    )


class _Bar(tqdm):
    """A bar whose time left is that of the whole run, its evaluations included."""

    left = "?"

    @property
    def format_dict(self) -> Any:
        return super().format_dict | {"left": self.left}


class _Meter:
    """Progress bar, speed and memory of a training run, its log lines, and what its record says of them.

    The speed in log lines is taken from line to line, after the loss was read, since a GPU is behind the loop until
    then. Evaluation does not count. The loss that is shown is that of the newest log line: to read it costs a GPU's
    queue.
    """

    def __init__(self, run: Run, step: int, pace: Pace) -> None:
        quiet = None if ranks.is_first() else True
        layout = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{left}, {rate_fmt}{postfix}]"
        bar = {"desc": "training", "unit": "step", "disable": quiet, "leave": False, "bar_format": layout}
        self._bar = _Bar(total=pace.num_steps, initial=step, **bar)
        self._run, self._pace, self._said = run, pace, -math.inf
        self._loss: float | None = None
        self._logged_step, self._begin, self._showed_memory = step, time.perf_counter(), False
        self._stepped = self._begin

    def advance(self, step: int, is_due: bool) -> None:
        """Note a step that was done, and whether an evaluation comes after it."""
        now = time.perf_counter()
        self._pace.add_step(now - self._stepped)
        self._stepped = now
        left, of_step = self._pace.seconds_left(step, is_due), self._pace.seconds_a_step
        speed = 1 / of_step if of_step else None
        self._run.show_progress(step, self._pace.num_steps, loss=self._loss, steps_per_second=speed, seconds_left=left)
        if not self._bar.disable:
            self._bar.left = tqdm.format_interval(left or 0)
            self._bar.set_postfix_str(", ".join(self._loss_and_best()), refresh=False)
            self._bar.update()

    def _loss_and_best(self) -> list[str]:
        best, loss = self._run.fields.get("best_metric"), self._loss
        shown = [None if loss is None else f"loss {loss:.4f}", None if best is None else f"best {100 * best:.2f}"]
        return [text for text in shown if text]

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time of what is not training."""
        with cli.timed() as elapsed:
            yield
        self._begin += elapsed()
        self._stepped += elapsed()

    def log(self, step: int, epoch: int, index: int, loss: float, learning_rate: float) -> None:
        _require_finite(loss, step, self._run)
        speed = (step - self._logged_step) / (time.perf_counter() - self._begin)
        memory = device.peak_memory_bytes()
        self._loss = loss
        logger.info(
            "global step %d/%d, epoch: %d, batch: %d, rank_id: %d, loss: %f, lr: %.10f, speed: %.4f step/s",
            *(step, self._pace.num_steps, epoch, index, ranks.rank(), loss, learning_rate, speed),
        )
        if not self._showed_memory:
            logger.info("memory: %.2f GiB at the peak so far", memory / 2**30)
            self._showed_memory = True
        scalars = {"loss": loss, "learning_rate": learning_rate, "steps_per_second": speed}
        self._run.log("train", step, scalars | {"peak_memory_bytes": memory})
        self._logged_step, self._begin = step, time.perf_counter()
        if self._begin - self._said >= cli.PULSE_INTERVAL and not sys.stdout.isatty():
            self._say_time(step)

    def _say_time(self, step: int) -> None:
        """Clock and time left in a line of their own, where no terminal shows the bar."""
        self._said = self._begin
        with using("en"):  # it is a log line
            left = cli.duration(self._pace.seconds_left(step) or 0)
        best = [text for text in self._loss_and_best() if text.startswith("best")]
        words = [f"{100 * step / self._pace.num_steps:.0f} %", f"about {left} left", *best]
        logger.info("%s training: %s", time.strftime("%H:%M:%S"), ", ".join(words))

    def close(self) -> None:
        self._bar.close()
