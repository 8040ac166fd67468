#!/usr/bin/env python
"""Fine-tune, evaluate, predict and export on CLUE's seven classification tasks with PaddleNLP's Trainer."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from clue_utils import outside

    outside.explain()

import functools
import logging
from typing import Any

from clue_utils import cli, environment, preflight, ranks, tasks
from clue_utils.errors import UserError
from clue_utils.language import say

# Paddle reads these settings when it is imported, and PaddleNLP's TrainingArguments is where the flags come from.
cli.configure_logging("info", on_stderr=True)
cli.run(environment.load_libraries)

import numpy as np  # noqa: E402
import paddle  # noqa: E402
from paddle.distributed import fleet  # noqa: E402
from paddlenlp.utils.log import logger as paddlenlp_logger  # noqa: E402

from clue_utils import device, models  # noqa: E402
from clue_utils.features.batches import Collate  # noqa: E402
from clue_utils.models.heads import input_names  # noqa: E402
from clue_utils.record import Run, trained_with  # noqa: E402
from clue_utils.strict_json import JsonObject  # noqa: E402
from clue_utils.training.predict_file import predict_file  # noqa: E402
from clue_utils.training.session import Session, recorded_run  # noqa: E402
from clue_utils.training.stopping import StopRequest  # noqa: E402
from clue_utils.training.trainer import ClueTrainer  # noqa: E402
from clue_utils.training.trainer_arguments import (  # noqa: E402
    TrainerSettings,
    parse_arguments,
    resolve,
    training_arguments,
)

logger = logging.getLogger("clue_utils.trainer")


def task_of(dataset: str) -> tasks.Task:
    """The task of ``--dataset``: "clue tnews" or "tnews", in any letter case."""
    words = dataset.lower().split()
    if words[:1] == ["clue"]:
        words = words[1:]
    if len(words) != 1:
        raise UserError(say('--dataset {dataset!r} is not of the form "clue tnews"', dataset=dataset))
    task = tasks.get_task(words[0], "classification")
    if task.kind != "classification":
        raise UserError(
            say("--dataset {dataset!r} is a reading task: run {script}", dataset=dataset, script=task.script)
        )
    return task


def to_batch(rows: list[dict[str, Any]], collate: Collate, inputs: list[str]) -> dict[str, np.ndarray]:
    """A batch as the Trainer gives it to the model: what it takes, and the labels."""
    batch = collate(rows)
    return {name: batch[name] for name in inputs if name in batch} | {"labels": batch["label"]}


def main(argv: list[str] | None = None) -> JsonObject | None:
    """Run the script with these words, by default those of the command line.

    Returns:
        What ``result.json`` holds, or of --predict_file alone what was done; None on ranks other than 0.
    """
    flags = parse_arguments(argv, __doc__)
    task = task_of(flags.dataset)
    args = resolve(flags, task, ranks.world_size(), trained_with(flags.model_name_or_path, task))
    preflight.start(args, task)
    device.start(args.device, args.precision)
    if ranks.world_size() > 1:
        # PaddleNLP's safetensors checkpoints go by the groups of processes that fleet makes.
        fleet.init(is_collective=True, strategy=fleet.DistributedStrategy())
    if not args.makes_a_run():
        return predict_file(args, task)
    with recorded_run(args, task) as run:
        carry_out(args, task, run)
    if args.predict_file:
        predict_file(args, task)
    return run.fields if ranks.is_first() else None


def show_log_of_paddlenlp() -> None:
    """Have PaddleNLP say what its Trainer does, above the bars, but for what it says at each checkpoint."""
    paddlenlp_logger.handler.setStream(cli.AboveBars())
    paddlenlp_logger.logger.addFilter(is_news)
    paddlenlp_logger.set_level("INFO")


def is_news(record: logging.LogRecord) -> bool:
    """Whether a line of PaddleNLP's log is none that says the same of every checkpoint, and of no use here."""
    return not record.getMessage().startswith("Asynchronous saving is not supported")


def carry_out(args: TrainerSettings, task: tasks.Task, run: Run) -> None:
    """Train, evaluate, predict and export, as far as the settings say."""
    session = Session(args, task, run)
    trains = args.do_train and not run.is_trained
    dev = session.load_split("dev") if args.do_train or args.do_eval else None
    train = session.load_split("train").features if trains else None
    device.seed_all(args.seed)  # a new head is drawn at random
    source = str(run.folder) if run.is_trained and args.do_train else args.model_name_or_path
    model = session.load_model(source, training=trains)
    show_log_of_paddlenlp()
    trainer = ClueTrainer(
        session,
        dev,
        model=model,
        criterion=paddle.nn.CrossEntropyLoss(),
        args=training_arguments(args, paddle.get_device()),
        data_collator=functools.partial(to_batch, collate=session.collate, inputs=input_names(model)),
        train_dataset=train,
        eval_dataset=dev and dev.features,
    )
    if trains:
        with StopRequest() as stop:
            metrics = trainer.fit(args.trainer["resume_from_checkpoint"], stop)
        trainer.save_metrics("train", metrics)
        trainer.save_state()
        if ranks.is_first():
            models.save_model(model, session.tokenizer, run.folder)
        if dev and run.fields["history"] and not args.do_eval:
            if trainer.evaluated_step != run.fields["best_step"]:  # the weights that are kept are others
                session.evaluate([model], dev)
            session.keep_answers(dev)
        run.write(status="trained", num_steps=trainer.state.max_steps)
    elif args.do_train:
        logger.info("%s: trained already, best %s %s", run.folder, task.metric, run.fields["best_metric"])
    if args.do_eval:
        metrics = trainer.evaluate()
        trainer.save_metrics("eval", metrics)
        run.write(evaluation={name.removeprefix("eval_"): value for name, value in metrics.items()})
        if dev:
            session.keep_answers(dev)
    if args.do_predict:
        session.predict([model], [str(run.folder) if args.do_train else args.model_name_or_path])
    if args.do_export:
        session.export(model)


if __name__ == "__main__":
    cli.run(main)
