"""The flags that the scripts share, and where a flag left out takes its value from.

Imports no PaddlePaddle, so that ``--help`` and a mistyped flag answer at once.
"""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from clue_utils import device, published, tasks
from clue_utils.cli import (
    boolean,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
    proportion,
    seed,
    steps_or_all,
)
from clue_utils.errors import UserError, show
from clue_utils.grid import search_space
from clue_utils.record import Record
from clue_utils.tasks import Task

logger = logging.getLogger(__name__)


def add_model_and_data(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model and data")
    group.add_argument(
        "--model_name_or_path",
        required=True,
        metavar="NAME",
        help="a PaddleNLP model name such as ernie-3.0-base-zh, or the folder of a checkpoint",
    )
    group.add_argument(
        "--data_dir",
        metavar="DIR",
        help="folder that holds the official files, such as tnews_public/train.json "
        "(default: $CLUE_DATA_DIR, else a cache filled by download)",
    )
    group.add_argument(
        "--max_seq_length", type=positive_int, help="tokens of a sequence, longer ones are cut (default: the task's)"
    )
    group.add_argument(
        "--num_proc", type=positive_int, help="processes that build features (default: the processors of this machine)"
    )
    group.add_argument("--overwrite_cache", action="store_true", help="build cached features again")


def add_actions(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to do (at least one)")
    group.add_argument(
        "--do_train", action="store_true", help="fine-tune, evaluate on the way, keep the best checkpoint"
    )
    group.add_argument("--do_eval", action="store_true", help="evaluate on the development set")
    group.add_argument("--do_predict", action="store_true", help="write the predictions of every test set")


def add_ensemble(parser: argparse.ArgumentParser) -> None:
    parser.add_argument_group("ensemble").add_argument(
        "--ensemble",
        nargs="+",
        default=[],
        metavar="DIR",
        help="further checkpoints of the task, whose probabilities are averaged with those of --model_name_or_path in "
        "--do_eval and --do_predict; all are held in memory",
    )


def add_training(parser: argparse.ArgumentParser) -> None:
    defaults = tasks.COMMON_DEFAULTS
    group = parser.add_argument_group(
        "training", "A flag left out takes the value the checkpoint was trained with, else the registry's for the task."
    )
    group.add_argument(
        "--batch_size",
        type=positive_int,
        help="records per card and update (default: the model's best, shared out over the cards)",
    )
    group.add_argument("--learning_rate", type=positive_float, help="peak learning rate (default: the model's best)")
    group.add_argument(
        "--num_train_epochs", type=positive_int, help="passes over the training set (default: the task's)"
    )
    group.add_argument(
        "--max_steps", type=steps_or_all, default=-1, help="stop after this many updates; -1: by epochs (default: -1)"
    )
    group.add_argument(
        "--warmup_proportion", type=proportion, help="share of all updates spent warming up (default: the task's)"
    )
    group.add_argument(
        "--warmup_steps", type=non_negative_int, help="updates spent warming up, above --warmup_proportion if not 0"
    )
    group.add_argument(
        "--weight_decay", type=non_negative_float, help=f"of AdamW (default: {defaults['weight_decay']})"
    )
    group.add_argument("--adam_epsilon", type=positive_float, help=f"of AdamW (default: {defaults['adam_epsilon']})")
    group.add_argument(
        "--max_grad_norm",
        type=non_negative_float,
        help=f"clip gradients; 0: never (default: {defaults['max_grad_norm']})",
    )
    group.add_argument(
        "--dropout", type=proportion, help="of every dropout in encoder and head (default: the model's best)"
    )
    group.add_argument(
        "--gradient_accumulation_steps",
        type=positive_int,
        help="parts that a batch is computed in, to fit memory; it stays the same batch (default: 1)",
    )
    group.add_argument(
        "--group_by_length",
        action="store_true",
        default=None,
        help="train on batches of similar length, which has less padding but another order of records",
    )
    group.add_argument(
        "--prune",
        action="store_true",
        help="end the run when it is clearly behind the finished runs beside --output_dir (median rule)",
    )
    group.add_argument("--seed", type=seed, help=f"of everything drawn at random (default: {defaults['seed']})")
    group.add_argument(
        "--logging_steps", type=positive_int, help=f"updates between log lines (default: {defaults['logging_steps']})"
    )
    group.add_argument(
        "--save_steps",
        type=non_negative_int,
        help="updates between evaluations; 0: once an epoch (default: 100 for classification, 0 for reading)",
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--output_dir",
        metavar="DIR",
        help="folder for checkpoint, result.json and predictions (default: best_<task>_model)",
    )
    group.add_argument(
        "--overwrite_output_dir", action="store_true", help="start anew where --output_dir holds a training run"
    )
    group.add_argument(
        "--save_best_model",
        type=boolean,
        nargs="?",
        const=True,
        default=True,
        metavar="{true,false}",
        help="keep the checkpoint with the best development score (default: true)",
    )
    group.add_argument(
        "--log_level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="how much is logged (default: %(default)s)",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("device")
    group.add_argument(
        "--device", choices=("gpu", "xpu", "cpu"), help="what to compute on (default: a GPU where there is one)"
    )
    group.add_argument(
        "--precision",
        choices=tuple(device.PRECISIONS),
        help="of matrix products; weights and checkpoints stay fp32 (default: fp32, as published scores; "
        "bf16 and fp16 need a GPU)",
    )
    group.add_argument(
        "--eval_batch_size",
        type=positive_int,
        default=tasks.COMMON_DEFAULTS["eval_batch_size"],
        help="records at a time in evaluation and prediction, fewer of long ones; scores do not depend on it "
        "(default: %(default)s)",
    )


def add_shared(parser: argparse.ArgumentParser) -> None:
    """Add every flag that the plain scripts have in common."""
    for add in (add_model_and_data, add_actions, add_ensemble, add_training, add_output, add_device):
        add(parser)
    required = [f"{action.option_strings[0]} {action.metavar}" for action in parser._actions if action.required]
    parser.usage = f"%(prog)s {' '.join(required)} [--do_train] [--do_eval] [--do_predict] [FLAG ...]"


# What a run is made of: recorded in result.json, and taken from there for a checkpoint of ours.
HYPER_PARAMETERS = (
    "max_seq_length",
    "batch_size",
    "learning_rate",
    "num_train_epochs",
    "warmup_proportion",
    "warmup_steps",
    "weight_decay",
    "adam_epsilon",
    "max_grad_norm",
    "dropout",
    "gradient_accumulation_steps",
    "group_by_length",
    "precision",
    "seed",
    "logging_steps",
    "save_steps",
)


def _registry_values(task: Task, model_name_or_path: str, num_cards: int) -> dict[str, tuple[Any, str]]:
    """Value and origin of every hyper-parameter that neither command line nor checkpoint gives."""
    best, origin = published.best_run(model_name_or_path, task)
    values = {name: (value, "default") for name, value in tasks.COMMON_DEFAULTS.items()}
    values["warmup_steps"] = (0, "default")
    values["save_steps"] = (tasks.SAVE_STEPS[task.kind], f"registry, {task.kind}")
    for name in ("max_seq_length", "num_train_epochs", "warmup_proportion"):
        values[name] = (getattr(task, name), f"registry, {task.name}")
    values["learning_rate"] = (best.learning_rate, origin)
    values["dropout"] = (best.dropout, origin)
    values["batch_size"] = (max(1, best.batch_size // num_cards), f"{origin}: {best.batch_size} over all cards")
    return values


def _warn_of_another_batch(args: Any, task: Task, num_cards: int) -> None:
    """Say that the cards cannot share the published batch, whose size was not given on the command line."""
    best, _ = published.best_run(args.model_name_or_path, task)
    if args.batch_size * num_cards != best.batch_size:
        logger.warning(
            "the published batch of %d records cannot be shared out evenly over %d cards: %d on each make %d, so "
            "scores may differ from published ones; run on %d of the cards, or choose a batch size",
            *(best.batch_size, num_cards, args.batch_size, args.batch_size * num_cards),
            search_space.num_processes(best.batch_size, num_cards),
        )


def resolve(args: Any, task: Task, num_cards: int, extra: Mapping[str, Any] | None = None) -> None:
    """Fill in what the command line leaves out, check the whole, and log where each value came from.

    The order is: command line; ``result.json`` of the checkpoint, if it was trained on the same task; the registry.
    Sets ``args.sources`` (flag -> origin) and ``args.hyper_parameters`` (the names that make up the run).

    Args:
        num_cards: processes of the run, over which a published batch is shared out.
        extra: the script's own hyper-parameters with their defaults.

    Raises:
        UserError: flags that contradict each other.
    """
    names = HYPER_PARAMETERS + tuple(extra or {})
    record = Record.read(args.model_name_or_path)
    trained = record.hyper_parameters if record and record.task == task.name else {}
    fallback = _registry_values(task, args.model_name_or_path, num_cards)
    fallback |= {name: (value, "default") for name, value in (extra or {}).items()}
    args.sources = {}
    for name in names:
        if getattr(args, name) is not None:
            args.sources[name] = "command line"
        elif name in trained:
            setattr(args, name, _checked(args, name, trained[name], fallback[name][0]))
            args.sources[name] = "checkpoint"
        else:
            value, args.sources[name] = fallback[name]
            setattr(args, name, value)
    args.hyper_parameters = names
    args.output_dir = args.output_dir or f"best_{task.name.lower()}_model"
    _check(args)
    logger.info("task: %s, model: %s, output: %s", task.name, args.model_name_or_path, args.output_dir)
    for name in names:
        logger.info("  %s: %s (%s)", name, getattr(args, name), args.sources[name])
    if args.do_train and args.sources["batch_size"] not in ("command line", "checkpoint"):
        _warn_of_another_batch(args, task, num_cards)


# Hyper-parameters that are words -> what they may be.
_WORDS: Mapping[str, Sequence[str]] = {"precision": tuple(device.PRECISIONS), "assignment": tasks.ASSIGNMENT_RULES}


def _checked(args: Any, name: str, value: Any, example: Any) -> Any:
    """A value of a checkpoint's ``result.json``, held to what the flag of that name would take.

    ``example`` is a value of the right type; None stands for a flag that is true, false or left to the model.
    """
    if example is None:
        fits = value is None or isinstance(value, bool)
    elif isinstance(value, str):
        fits = value in _WORDS.get(name, ())
    else:
        # The Trainer may have trained on a part of an epoch, which only training here would need whole.
        may_be_part = name == "num_train_epochs" and not args.do_train
        kinds = (int, float) if isinstance(example, float) or may_be_part else (type(example),)
        fits = type(value) in kinds and 0 <= value < 2**63
    if not fits:
        folder = args.model_name_or_path
        raise UserError(f"{folder}/result.json: hyper-parameter {name} cannot be {show(value)}; pass --{name}")
    return value


def _check(args: Any) -> None:
    if not (args.do_train or args.do_eval or args.do_predict):
        raise UserError("nothing to do: pass --do_train, --do_eval or --do_predict")
    if args.gradient_accumulation_steps > args.batch_size:
        raise UserError(
            f"--gradient_accumulation_steps {args.gradient_accumulation_steps} is more than --batch_size "
            f"{args.batch_size}: a batch cannot be split into more parts than it has records"
        )
    if args.do_train and not args.save_best_model and (args.do_eval or args.do_predict):
        raise UserError("--save_best_model false keeps no checkpoint for --do_eval or --do_predict: drop one of them")
    if getattr(args, "ensemble", None) and args.do_train:
        raise UserError("--ensemble averages checkpoints that are trained already: drop it or --do_train")
    if re.search(r"[\x00-\x1f]", str(args.output_dir)):
        raise UserError("--output_dir holds a control character: choose another name")
