#!/usr/bin/env python
"""Fine-tune, evaluate, predict and export on CLUE's seven classification tasks with PaddleNLP's Trainer."""

from __future__ import annotations

import argparse
import functools
import json
import logging
import math
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from clue_utils import arguments, runtime, tasks
from clue_utils.errors import UserError

# Paddle reads these settings when it is imported, and PaddleNLP's TrainingArguments is where the flags come from.
runtime.tune_cpu()
runtime.run(runtime.import_libraries)

import numpy as np  # noqa: E402
import paddle  # noqa: E402
from paddle.distributed import fleet  # noqa: E402
from paddle.io import DistributedBatchSampler  # noqa: E402
from paddlenlp.trainer import PdArgumentParser, Trainer, TrainerCallback, TrainingArguments  # noqa: E402
from paddlenlp.trainer.utils.helper import broadcast_dp_optimizer  # noqa: E402
from paddlenlp.utils.log import logger as paddlenlp_logger  # noqa: E402

from clue_utils import models  # noqa: E402
from clue_utils.checkpoints import step_of  # noqa: E402
from clue_utils.classification import Classification  # noqa: E402
from clue_utils.features import Collate, Features, batches_per_epoch, shuffled_batches  # noqa: E402
from clue_utils.pipeline import Pipeline, Split  # noqa: E402
from clue_utils.results import locked  # noqa: E402
from clue_utils.stopping import StopRequest  # noqa: E402
from clue_utils.training import evaluate_and_log, step_seed  # noqa: E402

logger = logging.getLogger("clue_utils.trainer")

EXAMPLE = """\
example:
  python run_clue_classifier_trainer.py --dataset "clue tnews" --model_name_or_path ernie-3.0-base-zh \\
      --output_dir tnews_model --do_train --do_eval --metric_for_best_model eval_accuracy --load_best_model_at_end
"""
# Where --do_export writes, within the output folder.
EXPORT_NAME = "inference/model"
# Written last into a checkpoint of the Trainer: one without it was cut off.
COMPLETE = "complete"

# Where a checkpoint of the Trainer keeps its step.
TRAINER_STATE_NAME = "trainer_state.json"
# How files end that PaddleNLP would unpickle.
PICKLES = (".pdparams", ".pdopt", ".pth", ".bin", ".pkl")

# What --metric_for_best_model chooses from, with or without "eval_" before it.
METRICS = ("accuracy", "loss")

# Flags of TrainingArguments that go by another name in the plain script, and what they must be.
PLAIN_NAMES = {"warmup_ratio": "warmup_proportion", "per_device_eval_batch_size": "eval_batch_size"}
ACCEPTED = {
    "per_device_train_batch_size": arguments.positive_int,
    "per_device_eval_batch_size": arguments.positive_int,
    "gradient_accumulation_steps": arguments.positive_int,
    "learning_rate": arguments.positive_float,
    "num_train_epochs": arguments.positive_float,
    "max_steps": arguments.steps_or_all,
    "warmup_ratio": arguments.proportion,
    "warmup_steps": arguments.non_negative_int,
    "weight_decay": arguments.non_negative_float,
    "adam_epsilon": arguments.positive_float,
    "max_grad_norm": arguments.non_negative_float,
    "dropout": arguments.proportion,
    "max_seq_length": arguments.positive_int,
    "logging_steps": arguments.positive_int,
    "save_steps": arguments.positive_int,
    "num_proc": arguments.positive_int,
}


@dataclass
class ClueArguments:
    """Flags beside PaddleNLP's TrainingArguments."""

    model_name_or_path: str = field(
        metadata={"help": "a PaddleNLP model name such as ernie-3.0-base-zh, or the folder of a checkpoint"}
    )
    dataset: str = field(metadata={"help": 'the task, such as "clue tnews", in any letter case'})
    data_dir: Optional[str] = field(default=None, metadata={"help": "folder that holds the official files"})
    max_seq_length: Optional[int] = field(default=None, metadata={"help": "tokens of a sequence (the task's)"})
    dropout: Optional[float] = field(default=None, metadata={"help": "of every dropout (the model's best)"})
    num_proc: Optional[int] = field(default=None, metadata={"help": "processes that build features"})
    overwrite_cache: bool = field(default=False, metadata={"help": "build cached features again"})


class Parser(arguments.Parser, PdArgumentParser):
    """PaddleNLP's parser with one-line errors and suggestions."""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """All flags, None where one that the registry has a value for is left out."""
    parser = Parser(dataclass_types=(ClueArguments, TrainingArguments), description=__doc__, epilog=EXAMPLE)
    parser.set_defaults(**dict.fromkeys(ACCEPTED), **dict.fromkeys(("device", "eval_steps", "disable_tqdm", "seed")))
    # The run's own VisualDL log holds the scalars; PaddleNLP's writer fails with today's protobuf.
    parser.set_defaults(max_steps=-1, metric_for_best_model="eval_accuracy", report_to=["none"])
    # Safetensors in the checkpoints to go on from; and what the output folder keeps is the best, as the record says.
    parser.set_defaults(unified_checkpoint=True, load_best_model_at_end=True)
    flags = parser.parse_args(argv)
    if not flags.unified_checkpoint:
        parser.error("--unified_checkpoint false would keep pickles as checkpoints: leave it out")
    for name, accept in ACCEPTED.items():
        if getattr(flags, name) is not None:
            try:
                accept(str(getattr(flags, name)))
            except argparse.ArgumentTypeError as error:
                parser.error(f"argument --{name}: {error}")
    return flags


def task_of(dataset: str) -> tasks.Task:
    """The task of ``--dataset``: "clue tnews" or "tnews", in any letter case."""
    words = dataset.lower().split()
    if words[:1] == ["clue"]:
        words = words[1:]
    if len(words) != 1:
        raise UserError(f'--dataset {dataset!r} is not of the form "clue tnews"')
    task = tasks.get_task(words[0])
    if task.kind != "classification":
        raise UserError(f"--dataset {dataset!r} is a reading task: run {task.script}")
    return task


def as_plain_arguments(flags: argparse.Namespace) -> argparse.Namespace:
    """The same run in the plain script's terms, in which ``result.json`` and the registry's defaults are kept.

    The Trainer's batch is one of ``gradient_accumulation_steps`` parts of an update, the plain script's the whole.
    """
    args = argparse.Namespace(**vars(flags), ensemble=[], save_best_model=True)
    for theirs, ours in PLAIN_NAMES.items():
        setattr(args, ours, getattr(flags, theirs))
    args.eval_batch_size = args.eval_batch_size or tasks.COMMON_DEFAULTS["eval_batch_size"]
    parts = flags.gradient_accumulation_steps or 1
    per_device = flags.per_device_train_batch_size
    args.batch_size = per_device and per_device * parts
    args.precision = "bf16" if flags.bf16 else "fp16" if flags.fp16 else None
    args.group_by_length = False
    if args.num_train_epochs is not None and args.num_train_epochs.is_integer():
        args.num_train_epochs = int(args.num_train_epochs)
    if flags.do_export and not (flags.do_train or flags.do_eval or flags.do_predict):
        args.do_eval = True  # resolve() wants something to do; exporting alone is enough for this script
    return args


def training_arguments(flags: argparse.Namespace, args: argparse.Namespace, device: str) -> TrainingArguments:
    """The Trainer's own arguments, completed by what ``args`` has been resolved to."""
    values = vars(flags) | {name: getattr(args, name) for name in args.hyper_parameters if hasattr(flags, name)}
    values |= {theirs: getattr(args, ours) for theirs, ours in PLAIN_NAMES.items()}
    values["per_device_train_batch_size"] = math.ceil(args.batch_size / args.gradient_accumulation_steps)
    if flags.metric_for_best_model.removeprefix("eval_") not in METRICS:
        raise UserError(f"--metric_for_best_model {flags.metric_for_best_model}: choose one of {', '.join(METRICS)}")
    values |= {"bf16": args.precision == "bf16", "fp16": args.precision == "fp16"}
    values["device"] = device.split(":")[0]
    # Evaluated whenever a checkpoint is written, so that the best of them is known.
    values["eval_steps"] = flags.eval_steps or values["save_steps"]
    values["evaluation_strategy"] = "steps" if flags.do_train else "no"
    values["load_best_model_at_end"] = flags.load_best_model_at_end and flags.do_train
    values["disable_tqdm"] = not sys.stderr.isatty() if flags.disable_tqdm is None else flags.disable_tqdm
    try:
        return PdArgumentParser(TrainingArguments).parse_dict(values)[0]
    except (ValueError, AssertionError) as error:
        raise UserError(" ".join(str(error).split())) from error


class SeededBatches(DistributedBatchSampler):
    """This rank's rows in the plain script's order, which depends on seed and epoch alone.

    It ends with the last update, beyond which the Trainer, going on from a checkpoint of just that one, would take one.

    Args:
        num_parts: batches of an update; those that an epoch has left over make none.
        max_steps: updates of the whole training, or -1.
    """

    def __init__(self, features: Features, batch_size: int, seed: int, num_parts: int, max_steps: int) -> None:
        super().__init__(features, batch_size, runtime.world_size(), runtime.rank(), shuffle=True)
        self.total, self.seed = batch_size * runtime.world_size(), seed
        self.num_parts, self.max_steps = num_parts, max_steps

    def __iter__(self) -> Any:
        batches = shuffled_batches(len(self.dataset), self.total, self.seed, self.epoch)
        first_update = self.epoch * max(1, len(self) // self.num_parts)
        for number, rows in enumerate(batches):
            if 0 < self.max_steps <= first_update + number // self.num_parts:
                return
            share = np.array_split(rows, runtime.world_size())[runtime.rank()]
            yield (share if len(share) else rows[:1]).tolist()

    def __len__(self) -> int:
        return batches_per_epoch(len(self.dataset), self.total)


class ClueTrainer(Trainer):
    """PaddleNLP's Trainer with the plain script's order of records and its evaluation."""

    control: Any

    def __init__(self, pipeline: Pipeline, dev: Split | None, **settings: Any) -> None:
        self.pipeline, self.dev = pipeline, dev
        super().__init__(**settings)

    def _get_train_sampler(self) -> SeededBatches:
        args = self.args
        return SeededBatches(
            self.train_dataset,
            args.per_device_train_batch_size,
            args.seed,
            args.gradient_accumulation_steps,
            args.max_steps,
        )

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Metrics of the development set, recorded in ``result.json`` during training."""
        run, dev = self.pipeline.run, self.dev
        assert dev is not None
        metrics = evaluate_and_log(lambda: self.pipeline.score([self.model], dev))
        if self.is_in_train:
            run.log("eval", self.state.global_step, metrics)
            run.add_evaluation(self.state.global_step, metrics)
            run.write()
        named = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        self.log(named)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, named)
        return named

    def log(self, logs: dict[str, float], **settings: Any) -> None:
        """Log as the Trainer does, and add the loss to the run's own metrics."""
        super().log(logs, **settings)
        if "loss" in logs:
            scalars: dict[str, float] = {name: logs[name] for name in ("loss", "learning_rate") if name in logs}
            self.pipeline.run.log("train", self.state.global_step, scalars)

    def _save_checkpoint(self, model: Any, metrics: Any = None) -> None:
        """Save as the Trainer does, but keep none of its pickles: what they hold follows from the step."""
        super()._save_checkpoint(model, metrics)
        if self.args.should_save:
            checkpoint = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            for path in _pickles(checkpoint):
                path.unlink()
            (checkpoint / COMPLETE).touch()
            self._remove_old_checkpoints(checkpoint)

    def _rotate_checkpoints(self, use_mtime: bool = False, output_dir: str | None = None) -> None:
        """Nothing: PaddleNLP would do it before the new checkpoint is complete, and in a single process never."""

    def _remove_old_checkpoints(self, newest: Path) -> None:
        """Keep ``--save_total_limit`` checkpoints: the newest, the best, and the latest of the others."""
        limit, best = self.args.save_total_limit, Path(self.state.best_model_checkpoint or newest).name
        if not limit or limit < 0:
            return
        others = [path for path in newest.parent.glob("checkpoint-*") if step_of(path) > 0 and path != newest]
        others.sort(key=lambda path: (path.name == best, (path / COMPLETE).exists(), step_of(path)), reverse=True)
        for path in others[max(limit - 1, best != newest.name) :]:
            (path / COMPLETE).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """The optimizer's state from safetensors, the schedule from the step."""
        if checkpoint is None:
            return
        state = self.unified_checkpoint_handler.load_unified_optimizer(
            model=self.model, optimizer=self.optimizer, resume_from_checkpoint=checkpoint
        )
        self.optimizer.set_state_dict(broadcast_dp_optimizer(state))
        self.lr_scheduler.step(_step_of(checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing: each update is seeded by its number."""


class FindBest(TrainerCallback):
    """Finds the best checkpoint so far in the output folder, by whatever path that was named when it was written."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.best_model_checkpoint is None:
            return
        here = Path(args.output_dir) / Path(state.best_model_checkpoint).name
        if here.is_dir():
            state.best_model_checkpoint = str(here)
        elif not Path(state.best_model_checkpoint).is_dir():
            raise UserError(f"{here}: the best checkpoint so far is gone; pass --overwrite_output_dir to start anew")


class SeedUpdates(TrainerCallback):
    """Seeds each update by its number, as the plain script does."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        paddle.seed(step_seed(args.seed, state.global_step, runtime.rank()))


class StopWithCheckpoint(TrainerCallback):
    """Ends training with a checkpoint where SIGTERM or Ctrl-C asked for it."""

    def __init__(self, stop: StopRequest) -> None:
        self.stop = stop

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.stop.asked:
            control.should_save = control.should_training_stop = True


def _step_of(checkpoint: str | Path) -> int:
    """The update after which a checkpoint of the Trainer was written, whatever its folder is called.

    Raises:
        UserError: it is none.
    """
    try:
        return int(json.loads((Path(checkpoint) / TRAINER_STATE_NAME).read_text(encoding="utf-8"))["global_step"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{checkpoint}: not a checkpoint of the Trainer ({error})") from None


def _pickles(checkpoint: Path) -> list[Path]:
    return [path for path in checkpoint.iterdir() if path.suffix in PICKLES]


def require_safe(checkpoint: Path) -> None:
    """Refuse a checkpoint that PaddleNLP would read pickles from.

    Raises:
        UserError: it holds some, or weights that are no safetensors.
    """
    models.require_safe_shards(checkpoint)
    if found := _pickles(checkpoint):
        raise UserError(f"{found[0]}: refused, a pickle may run code: go on from a checkpoint of this script")


def find_checkpoint(output_dir: Path) -> str | None:
    """The newest complete checkpoint of the Trainer, if there is one."""
    complete = [path.parent for path in output_dir.glob(f"checkpoint-*/{COMPLETE}") if step_of(path.parent) > 0]
    return str(max(complete, key=step_of)) if complete else None


def to_batch(rows: list[dict[str, Any]], collate: Collate) -> dict[str, np.ndarray]:
    batch = collate(rows)
    batch["labels"] = batch.pop("label")
    return batch


def export(model: paddle.nn.Layer, path: Path) -> None:
    """Write an inference model: int64 ``input_ids`` and ``token_type_ids`` [batch, length] -> logits [batch, labels].

    Padding is recognised by its id, so no attention mask is fed.
    """
    model.eval()
    inputs = [paddle.static.InputSpec([None, None], "int64", name) for name in ("input_ids", "token_type_ids")]
    path.parent.mkdir(parents=True, exist_ok=True)
    paddle.jit.save(paddle.jit.to_static(model, input_spec=inputs, full_graph=True), str(path))
    logger.info("inference model written to %s", path.parent)


def main(argv: list[str] | None = None) -> None:
    flags = parse_arguments(argv)
    runtime.configure_logging("info")
    task = task_of(flags.dataset)
    args = as_plain_arguments(flags)
    arguments.resolve(args, task, runtime.world_size())
    device = runtime.start(args)
    if runtime.world_size() > 1:
        # PaddleNLP's safetensors checkpoints go by the groups of processes that fleet makes.
        fleet.init(is_collective=True, strategy=fleet.DistributedStrategy())
    with locked(Path(args.output_dir)):
        carry_out(flags, args, task, device)


def carry_out(flags: argparse.Namespace, args: argparse.Namespace, task: tasks.Task, device: str) -> None:
    """Train, evaluate, predict and export, as far as the flags say."""
    pipeline = Pipeline(args, task, device, lambda tokenizer: Classification(task, tokenizer, args.max_seq_length))
    run = pipeline.run
    trains = flags.do_train and not run.is_trained
    dev = pipeline.load_split("dev") if flags.do_train or flags.do_eval else None
    train = pipeline.load_split("train").features if trains else None
    runtime.seed_all(args.seed)  # a new head is drawn at random
    source = str(run.folder) if run.is_trained and flags.do_train else args.model_name_or_path
    model = pipeline.load_model(source, training=trains)
    paddlenlp_logger.set_level("INFO")
    trainer = ClueTrainer(
        pipeline,
        dev,
        model=model,
        criterion=paddle.nn.CrossEntropyLoss(),
        args=training_arguments(flags, args, device),
        data_collator=functools.partial(to_batch, collate=pipeline.collate),
        train_dataset=train,
        eval_dataset=dev and dev.features,
    )
    if trains:
        found = flags.resume_from_checkpoint or find_checkpoint(run.folder)
        step = _step_of(found) if found else 0
        if found:
            require_safe(Path(found))
        run.keep_evaluations(step)
        run.write(num_steps=None)
        with StopRequest() as stop:
            trainer.add_callback(FindBest())
            trainer.add_callback(SeedUpdates())
            trainer.add_callback(StopWithCheckpoint(stop))
            result = trainer.train(resume_from_checkpoint=found)
        trainer.save_metrics("train", result.metrics)
        trainer.save_state()
        if runtime.rank() == 0:
            models.save_model(model, pipeline.tokenizer, run.folder)
        run.write(status="trained", num_steps=trainer.state.max_steps)
    elif flags.do_train:
        logger.info("%s: trained already, best %s %s", run.folder, task.metric, run.fields["best_metric"])
    if flags.do_eval:
        metrics = trainer.evaluate()
        trainer.save_metrics("eval", metrics)
        run.write(evaluation={name.removeprefix("eval_"): value for name, value in metrics.items()})
    if flags.do_predict:
        pipeline.predict([model])
    if flags.do_export and runtime.rank() == 0:
        export(model, run.folder / EXPORT_NAME)
    run.finish(device)


if __name__ == "__main__":
    runtime.run(main)
