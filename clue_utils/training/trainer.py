"""PaddleNLP's Trainer with the plain script's order of examples, evaluation and way of going on.

A checkpoint is a folder ``checkpoint-<step>`` of the output folder: PaddleNLP's unified checkpoint (safetensors, so
that reading one runs no code) and ``run.json``. It is written elsewhere and renamed when complete.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle.io import DistributedBatchSampler
from paddlenlp.trainer import Trainer, TrainerCallback, TrainingArguments
from paddlenlp.trainer.trainer_callback import DefaultFlowCallback
from paddlenlp.trainer.trainer_utils import IntervalStrategy
from paddlenlp.trainer.utils.helper import broadcast_dp_optimizer

from clue_utils import models, ranks
from clue_utils.errors import UserError
from clue_utils.features.batches import batches_per_epoch, shuffled_batches
from clue_utils.features.store import Features
from clue_utils.files import os_errors, put, remove_folder, write_text_atomically
from clue_utils.language import say
from clue_utils.record import NO_EVALUATION, Run
from clue_utils.strict_json import JsonObject
from clue_utils.training.checkpoints import scaler_state, step_of
from clue_utils.training.loop import step_seed
from clue_utils.training.session import Dataset, Session
from clue_utils.training.stopping import StopRequest

# Where a checkpoint keeps PaddleNLP's state and ours: the run's record, how far the schedule is (updates that fp16 left
# out do not count), the scale of losses in fp16, and the losses that PaddleNLP's state forgets.
TRAINER_STATE_NAME = "trainer_state.json"
RUN_STATE_NAME = "run.json"
# How files end that PaddleNLP would unpickle.
PICKLES = (".pdparams", ".pdopt", ".pth", ".bin", ".pkl")
# A checkpoint comes into being in here; one that was cut off goes with it when the folder is next locked.
_TEMPORARY = ".checkpoint.tmp"


class SeededBatches(DistributedBatchSampler):
    """This rank's rows in the plain script's order, which depends on seed and epoch alone.

    An epoch ends with its last step: batches beyond that are too few for one, and would leave their gradients to the
    next epoch. The whole ends with the last step, too, beyond which the Trainer, going on from a checkpoint of just
    that one, would take one.

    Args:
        num_parts: batches of a step.
        steps_per_epoch: of every epoch.
        num_steps: steps of the whole training.
    """

    def __init__(
        self, features: Features, batch_size: int, seed: int, num_parts: int, steps_per_epoch: int, num_steps: int
    ) -> None:
        super().__init__(features, batch_size, ranks.world_size(), ranks.rank(), shuffle=True)
        self.total, self.seed, self.num_parts = batch_size * ranks.world_size(), seed, num_parts
        self.steps_per_epoch, self.num_steps = steps_per_epoch, num_steps

    def __iter__(self) -> Any:
        batches = shuffled_batches(len(self.dataset), self.total, self.seed, self.epoch)
        num_steps = min(self.steps_per_epoch, self.num_steps - self.epoch * self.steps_per_epoch)
        for number, rows in enumerate(batches):
            if number // self.num_parts >= num_steps:
                return
            share = np.array_split(rows, ranks.world_size())[ranks.rank()]
            yield (share if len(share) else rows[:1]).tolist()

    def __len__(self) -> int:
        return batches_per_epoch(len(self.dataset), self.total)


class ClueTrainer(Trainer):
    """PaddleNLP's Trainer with the plain script's order of examples and its evaluation.

    A run that was stopped, in whatever way, and gone on with leaves the same files as one that never was, but for times
    and, after a signal, the checkpoint written then.

    Args:
        session: the run that it is part of.
        dev: what is evaluated.
        settings: as of PaddleNLP's Trainer.

    Attributes:
        evaluated_step: the step of the last evaluation in training, None before there is one.
    """

    control: Any
    evaluated_step: int | None = None

    def __init__(self, session: Session, dev: Dataset | None, **settings: Any) -> None:
        self.session, self.dev = session, dev
        self._losses: JsonObject | None = None  # of the checkpoint gone on from, until the first step
        super().__init__(**settings)

    def fit(self, named: str | None, stop: StopRequest) -> dict[str, float]:
        """Train, from the newest checkpoint on if there is one; return PaddleNLP's metrics of the training.

        Args:
            named: the checkpoint to go on from instead.

        Raises:
            UserError: that is not a checkpoint of a run with these settings; or the loss is no longer a finite number.
            Stopped: SIGTERM or Ctrl-C came; a checkpoint of the last step was written first.
        """
        run = self.session.run
        checkpoint = Path(named) if named else find_checkpoint(run.folder)
        if checkpoint is None:
            run.resume(NO_EVALUATION | {"history": []}, 0)
        else:
            require_safe(checkpoint)
            state = _read_json(checkpoint, RUN_STATE_NAME, ("run", "losses"))
            run.resume(state["run"], _step_of(checkpoint), checkpoint if named else None)
            self._losses = state["losses"]
        run.write(num_steps=None)
        self.remove_callback(DefaultFlowCallback)
        for callback in (GoOn(self), SeedUpdates(), Schedule(self._steps_per_epoch(), stop, run)):
            self.add_callback(callback)
        metrics: dict[str, float] = self.train(resume_from_checkpoint=checkpoint and str(checkpoint)).metrics
        history, best = run.fields["history"], self.state.best_model_checkpoint
        if self.args.load_best_model_at_end and best:
            run.set_best(step_of(Path(best)))
        elif history:
            run.set_best(history[-1]["step"])
        return metrics

    def _steps_per_epoch(self) -> int:
        args: TrainingArguments = self.args
        total = args.per_device_train_batch_size * ranks.world_size()
        num_batches = batches_per_epoch(len(self.train_dataset), total)
        return max(1, num_batches // args.gradient_accumulation_steps)

    def _get_train_sampler(self) -> SeededBatches:
        args, per_epoch = self.args, self._steps_per_epoch()
        return SeededBatches(
            self.train_dataset,
            args.per_device_train_batch_size,
            args.seed,
            args.gradient_accumulation_steps,
            per_epoch,
            args.max_steps if args.max_steps > 0 else int(per_epoch * args.num_train_epochs),
        )

    def training_step(self, model: Any, inputs: Any, step_control: int = 0) -> paddle.Tensor:
        """The loss of a batch; that of the first takes up the sums that PaddleNLP begins anew when going on."""
        loss = super().training_step(model, inputs, step_control)
        if self._losses is not None:
            self._total_loss_scalar, self._globalstep_last_logged = self._losses["logged"], self._losses["logged_step"]
            loss = loss + paddle.to_tensor(self._losses["unlogged"], loss.dtype)
            self._losses = None
        return loss

    def _maybe_log_save_evaluate(self, tr_loss: paddle.Tensor, *words: Any, **settings: Any) -> None:
        """Note where PaddleNLP sums the losses since the last log line, for a checkpoint."""
        self._unlogged_loss = tr_loss
        super()._maybe_log_save_evaluate(tr_loss, *words, **settings)

    def _check_loss_valid(self, loss: paddle.Tensor) -> None:
        try:
            super()._check_loss_valid(loss)
        except ValueError as error:
            step = self.state.global_step + 1
            raise UserError(
                say("the loss is not finite at step {step}: lower --learning_rate or raise --warmup_ratio", step=step)
            ) from error

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Metrics of the development set, recorded in ``result.json`` during training."""
        run, dev = self.session.run, self.dev
        assert dev is not None
        metrics = self.session.evaluate([self.model], dev)
        if self.is_in_train:
            self.evaluated_step = self.state.global_step
            run.log("eval", self.state.global_step, metrics)
            run.add_evaluation(self.state.global_step, metrics)
            run.write()
        named = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        self.log(dict(named))  # which adds how far the training is, if there was one
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, named)
        return named

    def log(self, logs: dict[str, float], **settings: Any) -> None:
        """Log as the Trainer does, and add the loss to the run's own metrics."""
        if "train_loss" in logs and self._losses is not None:  # gone on from the last step
            logs["train_loss"] = (self._losses["logged"] + self._losses["unlogged"]) / self.state.global_step
        super().log(logs, **settings)
        if "loss" in logs:
            scalars: dict[str, float] = {name: logs[name] for name in ("loss", "learning_rate") if name in logs}
            self.session.run.log("train", self.state.global_step, scalars)

    def save_metrics(self, split: str, metrics: dict[str, float], combined: bool = True) -> None:
        """Write ``<split>_results.json`` and add it to ``all_results.json``, each as a whole."""
        if not self.args.should_save:
            return
        folder = self.session.run.folder
        files = {f"{split}_results.json": metrics}
        if combined:
            path = folder / "all_results.json"
            files[path.name] = (json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}) | metrics
        for name, values in files.items():
            write_text_atomically(folder / name, json.dumps(values, indent=4, sort_keys=True))

    def _save_checkpoint(self, model: Any, metrics: Any = None) -> None:
        """Save as the Trainer does, but keep none of its pickles: what they hold follows from the step."""
        args, state, folder = self.args, self.state, Path(self.args.output_dir)
        target = folder / f"checkpoint-{state.global_step}"
        written = folder / _TEMPORARY / target.name
        unlogged = self._nested_gather(self._unlogged_loss).mean().item()
        try:
            args.output_dir = args.output_signal_dir = str(written.parent)
            with os_errors(folder):
                super()._save_checkpoint(model, metrics)
            if state.best_model_checkpoint == str(written):
                state.best_model_checkpoint = str(target)
            if args.should_save:
                self._complete_checkpoint(written, unlogged)
                put(written, target)
                self.remove_old_checkpoints(target)
        finally:
            args.output_dir = args.output_signal_dir = str(folder)
            if args.should_save:
                shutil.rmtree(written.parent, ignore_errors=True)

    def _complete_checkpoint(self, checkpoint: Path, unlogged_loss: float) -> None:
        """Make what PaddleNLP has saved a checkpoint of ours."""
        for path in _pickles(checkpoint):
            path.unlink()
        self.state.save_to_json(str(checkpoint / TRAINER_STATE_NAME))
        losses = {
            "logged": self._total_loss_scalar,
            "logged_step": self._globalstep_last_logged,
            "unlogged": unlogged_loss,
        }
        state = {
            "run": self.session.run.state(),
            "losses": losses,
            "schedule": self.lr_scheduler.last_epoch,
            "scaler": scaler_state(self.scaler) if self.do_grad_scaling else {},
        }
        text = json.dumps(state, ensure_ascii=False)
        (checkpoint / RUN_STATE_NAME).write_text(text, encoding="utf-8")

    def _rotate_checkpoints(self, use_mtime: bool = False, output_dir: str | None = None) -> None:
        """Nothing: PaddleNLP would do it before the new checkpoint is complete, and in a single process never."""

    def remove_old_checkpoints(self, newest: Path) -> None:
        """Keep ``--save_total_limit`` checkpoints: the newest, the best, and the latest of the others."""
        limit, best = self.args.save_total_limit, Path(self.state.best_model_checkpoint or newest).name
        if not limit or limit < 0:
            return
        others = [path for path in _checkpoints(newest.parent) if path != newest]
        others.sort(key=lambda path: (path.name == best, step_of(path)), reverse=True)
        for path in others[max(limit - 1, best != newest.name) :]:
            remove_folder(path)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """The optimizer's state from safetensors, that of schedule and loss scaling from ours."""
        if checkpoint is None:
            return
        state = self.unified_checkpoint_handler.load_unified_optimizer(
            model=self.model, optimizer=self.optimizer, resume_from_checkpoint=checkpoint
        )
        self.optimizer.set_state_dict(broadcast_dp_optimizer(state))
        ours = json.loads(Path(checkpoint, RUN_STATE_NAME).read_text(encoding="utf-8"))
        self.lr_scheduler.step(ours.get("schedule", _step_of(Path(checkpoint))))  # earlier versions kept neither
        if self.do_grad_scaling and ours.get("scaler"):
            self.scaler.load_state_dict(ours["scaler"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing: each step is seeded by its number."""


class GoOn(TrainerCallback):
    """Brings the state and the folder to where a checkpoint leaves them.

    The best checkpoint so far is looked for in the output folder, by whatever path that was named when it was written.
    """

    def __init__(self, trainer: ClueTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        parts = args.gradient_accumulation_steps * args.dataset_world_size
        state.consumed_samples = state.global_step * args.per_device_train_batch_size * parts
        folder = Path(args.output_dir)
        if state.best_model_checkpoint is not None:
            here = folder / Path(state.best_model_checkpoint).name
            if here.is_dir():
                state.best_model_checkpoint = str(here)
            elif not Path(state.best_model_checkpoint).is_dir():
                raise UserError(
                    say(
                        "{here}: the best checkpoint so far is gone; pass --overwrite_output_dir to start anew",
                        here=here,
                    )
                )
        newest = folder / f"checkpoint-{state.global_step}"
        if ranks.is_first() and newest.is_dir():  # the run may have been killed before it did so
            self.trainer.remove_old_checkpoints(newest)


class SeedUpdates(TrainerCallback):
    """Seeds each step by its number, as the plain script does."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        paddle.seed(step_seed(args.seed, state.global_step, ranks.rank()))


class Schedule(TrainerCallback):
    """Says after which steps to log, to evaluate and to write a checkpoint, in the place of PaddleNLP's own callback.

    That is as the strategies say, and evaluation and checkpoint after the last step too. What is due at an epoch's
    end is due after the epoch's last step, before a checkpoint of that is written. SIGTERM and Ctrl-C end training
    with a checkpoint.
    """

    def __init__(self, steps_per_epoch: int, stop: StopRequest, run: Run) -> None:
        self.steps_per_epoch, self.stop, self.run = steps_per_epoch, stop, run

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step, is_last = state.global_step, state.global_step >= state.max_steps
        self.run.show_progress(step, state.max_steps)

        def is_due(strategy: IntervalStrategy, steps: int | None) -> bool:
            interval = self.steps_per_epoch if strategy == IntervalStrategy.EPOCH else steps
            return strategy != IntervalStrategy.NO and interval is not None and step % interval == 0

        control.should_log = (
            is_due(args.logging_strategy, args.logging_steps)
            or (step == 1 and args.logging_first_step)
            or (is_last and args.logging_strategy == IntervalStrategy.EPOCH)
        )
        for name, strategy, steps in (
            ("should_evaluate", args.evaluation_strategy, args.eval_steps),
            ("should_save", args.save_strategy, args.save_steps),
        ):
            setattr(control, name, is_due(strategy, steps) or (is_last and strategy != IntervalStrategy.NO))
        control.should_training_stop = is_last
        if self.stop.asked:
            control.should_save = control.should_training_stop = True


def find_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of the Trainer, if there is one."""
    return max(_checkpoints(folder), key=step_of, default=None)


def require_safe(checkpoint: Path) -> None:
    """Refuse a checkpoint that PaddleNLP would read pickles from.

    Raises:
        UserError: it holds some, or weights that are no safetensors, or is none.
    """
    _step_of(checkpoint)
    models.require_safe_shards(checkpoint)
    if found := _pickles(checkpoint):
        raise UserError(
            say("{found}: refused, a pickle may run code: go on from a checkpoint of this script", found=found[0])
        )


def _checkpoints(folder: Path) -> list[Path]:
    return [path.parent for path in folder.glob(f"checkpoint-*/{RUN_STATE_NAME}") if step_of(path.parent) > 0]


def _pickles(checkpoint: Path) -> list[Path]:
    return [path for path in checkpoint.iterdir() if path.suffix in PICKLES]


def _step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written, whatever its folder is called."""
    step: int = _read_json(checkpoint, TRAINER_STATE_NAME, ("global_step",))["global_step"]
    return step


def _read_json(checkpoint: Path, name: str, keys: tuple[str, ...]) -> JsonObject:
    """A file of a checkpoint.

    Raises:
        UserError: it is not a checkpoint of this script.
    """
    try:
        content = json.loads((checkpoint / name).read_text(encoding="utf-8"))
        return {key: content[key] for key in keys}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            say("{checkpoint}: not a checkpoint of the Trainer script ({error})", checkpoint=checkpoint, error=error)
        ) from None
