"""The flags of the Trainer script: PaddleNLP's TrainingArguments, and what becomes of each of them."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from paddlenlp.trainer import PdArgumentParser, TrainingArguments

from clue_utils import cli, settings
from clue_utils.errors import UserError
from clue_utils.language import later, say
from clue_utils.settings import Settings
from clue_utils.tasks import TASKS, Task

logger = logging.getLogger(__name__)
EXAMPLE = """\
example:
  python run_clue_classifier_trainer.py --dataset "clue tnews" --model_name_or_path ernie-3.0-base-zh \\
      --output_dir tnews_model --do_train --do_eval --metric_for_best_model eval_accuracy --load_best_model_at_end
"""
# What --metric_for_best_model chooses by, with or without "eval_" before it -> whether the greater is the better.
METRICS = {"accuracy": True, "loss": False}
# Words that PaddleNLP's Trainer makes something of; it takes others, and fails or passes them over later.
WORDS = {
    "optim": ("adamw", "adamw_mini", "adamw_custom", "adamw_16bit_moment"),
    "lr_scheduler_type": ("linear", "cosine", "constant", "constant_with_warmup", "polynomial"),
    "fp16_opt_level": ("O0", "O1", "O2"),
    "metric_for_best_model": (*METRICS, *(f"eval_{name}" for name in METRICS)),
}
# Flags of TrainingArguments that go by another name in the plain script.
PLAIN_NAMES = {"warmup_ratio": "warmup_proportion", "per_device_eval_batch_size": "eval_batch_size"}
# Flags that stand for a --precision of the plain script.
_PRECISIONS = ("bf16", "fp16", "tf32")
# Numbers that the plain script has not, or takes more or fewer of.
_OWN_NUMBERS = {
    "per_device_train_batch_size": cli.positive_int,
    "num_train_epochs": cli.positive_float,
    "adam_beta1": cli.proportion,
    "adam_beta2": cli.proportion,
    "num_cycles": cli.positive_float,
    "lr_end": cli.non_negative_float,
    "power": cli.positive_float,
    "scale_loss": cli.positive_float,
    "save_steps": cli.positive_int,
    "eval_steps": cli.positive_int,
    "dataloader_num_workers": cli.non_negative_int,
}
# Flags of TrainingArguments that have no effect here, or would break what a run promises, by the reason. They are
# refused rather than passed over, and not in --help.
_REFUSED = {
    later("this script trains data-parallel only"): """
        sharding sharding_degree sharding_parallel_degree sharding_parallel_mesh_dimension sharding_comm_buffer_size_MB
        sharding_parallel_config save_sharded_model load_sharded_model save_sharding_stage1_model_include_freeze_params
        tensor_parallel_degree tensor_parallel_config pipeline_parallel_degree pipeline_parallel_config
        force_reshard_pp sep_parallel_degree context_parallel_degree split_inputs_sequence_dim sequence_parallel
        sequence_parallel_config fuse_sequence_parallel_allreduce expert_parallel_degree expert_tensor_parallel_degree
        use_expert_parallel expert_max_capacity expert_min_capacity enable_auto_parallel distributed_dataloader
        auto_parallel_resume_form_hybrid_parallel hybrid_parallel_topo_order data_parallel_config""",
    later("evaluation is the plain script's, on the whole development set"): """
        prediction_loss_only eval_accumulation_steps max_evaluate_steps bf16_full_eval fp16_full_eval""",
    later("when to evaluate is --eval_steps alone"): "minimum_eval_times",
    later("batches are the plain script's, every example of an epoch"): """
        dataloader_drop_last skip_data_intervals remove_unused_columns label_names past_index lazy_data_processing
        count_trained_tokens pad_token_id""",
    later("a run that is gone on with would end otherwise than one that was never stopped"): """
        ignore_data_skip ignore_load_lr_and_optim ignore_save_lr_and_optim ckpt_quant_stage unified_checkpoint_config
        use_async_save ordered_save_group_size""",
    later("checkpoints are kept in --output_dir, by the first process"): """
        output_signal_dir save_on_each_node pdc_download_ckpt pdc_download_timeout""",
    later("the log of a run is visualdl/ in --output_dir"): "logging_dir",
    later("only for large language models"): "refined_recompute",
    later("only for NPUs"): "flatten_param_grads",
    later("pass --device cpu"): "no_cuda",
}
REFUSED = {name: reason for reason, names in _REFUSED.items() for name in names.split()}
# Flags of TrainingArguments that result.json does not keep as hyper-parameters, by the reason. Every other one is kept
# and compared when a run is gone on with, one that a later PaddleNLP adds too.
_NOT_RECORDED = {
    "kept under the plain script's name, or beside the hyper-parameters": """
        warmup_ratio bf16 fp16 max_steps""",
    "what to do, where, and what is said about it": """
        output_dir overwrite_output_dir do_train do_eval do_predict do_export resume_from_checkpoint device local_rank
        logging_strategy logging_first_step log_on_each_node disable_tqdm report_to run_name wandb_api_key
        wandb_http_proxy metrics_output_path skip_memory_metrics skip_profile_timer""",
    "how much of the run stays on disk": "save_total_limit unified_checkpoint",
    "time and memory for the same sums": """
        per_device_eval_batch_size dataloader_num_workers recompute release_grads offload_optim
        ddp_find_unused_parameters""",
    "follows from metric_for_best_model": "greater_is_better",
}
NOT_RECORDED = {name: reason for reason, names in _NOT_RECORDED.items() for name in names.split()}
_DEFAULTS = {entry.name: entry.default for entry in dataclasses.fields(TrainingArguments)}
# Hyper-parameters of this script beside the plain ones: which of the checkpoints is kept depends on some of them.
RECORDED = tuple(sorted(_DEFAULTS.keys() - REFUSED.keys() - NOT_RECORDED.keys() - {*settings.HYPER_PARAMETERS}))


@dataclass
class ClueArguments:
    """Flags beside PaddleNLP's TrainingArguments."""

    model_name_or_path: str = field(
        metadata={"help": later("a PaddleNLP model name such as ernie-3.0-base-zh, or the folder of a checkpoint")}
    )
    dataset: str = field(metadata={"help": later('the task, such as "clue tnews", in any letter case')})
    data_dir: Optional[str] = field(default=None, metadata={"help": later("folder that holds the official files")})
    max_seq_length: Optional[int] = field(default=None, metadata={"help": later("tokens of a sequence (the task's)")})
    dropout: Optional[float] = field(default=None, metadata={"help": later("of every dropout (the model's best)")})
    lora_rank: Optional[int] = field(
        default=None,
        metadata={"help": later("train matrices of this rank beside the encoder's (LoRA); 0: the encoder (0)")},
    )
    predict_file: Optional[str] = field(
        default=None, metadata={"help": later("answer the records of a file of your own, as the plain script does")}
    )
    predict_output: Optional[str] = field(
        default=None, metadata={"help": later("file for the answers, JSON lines or .csv; -: standard output (-)")}
    )
    num_proc: Optional[int] = field(default=None, metadata={"help": later("processes that build features")})
    tf32: bool = field(default=False, metadata={"help": later("matrix products in TF32, on GPUs of Ampere or later")})
    overwrite_cache: bool = field(default=False, metadata={"help": later("build cached features again")})


# Flags of the plain script that nothing here stands for.
_PLAIN_ONLY = (
    Settings.flags().keys()
    - {entry.name for entry in (*dataclasses.fields(ClueArguments), *dataclasses.fields(TrainingArguments))}
    - {*PLAIN_NAMES.values(), "batch_size", "precision"}
)
_PLAIN_NUMBERS = {name: flag.takes for name, flag in Settings.flags().items() if isinstance(flag.takes, cli.Number)}
# Flags that are numbers -> what they must be.
NUMBERS = {
    entry.name: _PLAIN_NUMBERS[PLAIN_NAMES.get(entry.name, entry.name)]
    for entry in (*dataclasses.fields(ClueArguments), *dataclasses.fields(TrainingArguments))
    if PLAIN_NAMES.get(entry.name, entry.name) in _PLAIN_NUMBERS
} | _OWN_NUMBERS


class Parser(cli.Parser, PdArgumentParser):
    """PaddleNLP's parser with one-line errors and suggestions."""

    def _explain(self, word: str) -> str:
        name = word.split("=")[0].removeprefix("--")
        if name in _PLAIN_ONLY:
            return say("--{name}: not with the Trainer: run {script}", name=name, script=TASKS["TNEWS"].script)
        return super()._explain(word)


def parse_arguments(argv: list[str] | None, description: str | None) -> argparse.Namespace:
    """All flags, None where one that is completed later is left out."""
    parser = Parser(dataclass_types=(ClueArguments, TrainingArguments), description=description, epilog=EXAMPLE)
    for action in parser._actions:
        if action.dest in REFUSED:
            action.help = argparse.SUPPRESS
    completed = (*NUMBERS, *RECORDED, "device", "disable_tqdm")
    # The run's own VisualDL log holds the scalars; PaddleNLP's writer fails with today's protobuf. Safetensors in the
    # checkpoints to go on from.
    parser.set_defaults(
        **dict.fromkeys(completed) | {"max_steps": -1, "report_to": ["none"], "unified_checkpoint": True}
    )
    flags = parser.parse_args(argv)
    if not flags.unified_checkpoint:
        parser.error(say("--unified_checkpoint false would keep pickles as checkpoints: leave it out"))
    for name, reason in REFUSED.items():
        if getattr(flags, name) != _DEFAULTS[name]:
            parser.error(
                say(
                    "--{name} {value}: {reason}; leave it out",
                    name=name,
                    value=getattr(flags, name),
                    reason=say(reason),
                )
            )
    for name, number in NUMBERS.items():
        if getattr(flags, name) is not None:
            try:
                number(str(getattr(flags, name)))
            except argparse.ArgumentTypeError as error:
                parser.error(say("argument --{name}: {error}", name=name, error=error))
    for name, words in WORDS.items():
        if getattr(flags, name) not in (None, *words):
            parser.error(
                say(
                    "--{name} {value}: choose one of {words}",
                    name=name,
                    value=getattr(flags, name),
                    words=", ".join(words),
                )
            )
    if len(precisions := [name for name in _PRECISIONS if getattr(flags, name)]) > 1:
        parser.error(
            say(
                "--{one} and --{other} exclude each other: drop one of them",
                one=precisions[0],
                other=precisions[1],
            )
        )
    return flags


@dataclass(frozen=True, kw_only=True)
class TrainerSettings(Settings):
    """The settings of a run in the plain script's terms, in which ``result.json`` and the registry's defaults are kept.

    The Trainer's batch is one of ``gradient_accumulation_steps`` micro-batches of a step, ``batch_size`` is the whole.

    Attributes:
        given: the flags as they were given.
        trainer: PaddleNLP's TrainingArguments, completed.
    """

    given: Mapping[str, Any] = field(default_factory=dict)
    trainer: Mapping[str, Any] = field(default_factory=dict)

    def hyper_parameters(self) -> dict[str, Any]:
        return super().hyper_parameters() | {name: self.trainer[name] for name in RECORDED}

    def log(self, task: Task, num_gpus: int) -> None:
        super().log(task, num_gpus)
        for name in RECORDED:
            if self.given[name] is not None:
                logger.info("  %s: %s (command line)", name, self.given[name])
        for name, strategy in (("eval_steps", "evaluation_strategy"), ("save_steps", "save_strategy")):
            steps, kind = self.given[name], self.trainer[strategy]
            if self.do_train and steps and kind != "steps":
                logger.info("--%s %d has no effect: that goes by the strategy %s", name, steps, kind)


# What the plain script has flags for, and this one has not.
_OFF = {"group_by_length": False, "fgm": 0.0, "r_drop": 0.0, "ema": 0.0, "layer_decay": 1.0}


def resolve(flags: argparse.Namespace, task: Task, num_gpus: int, trained: Mapping[str, Any]) -> TrainerSettings:
    """What the flags come to, see :meth:`Settings.resolve`.

    Of this script's own hyper-parameters, ``RECORDED``, one that is left out takes PaddleNLP's default, but for those
    that say when to evaluate and what to keep.

    Raises:
        UserError: flags that contradict each other.
    """
    given = vars(flags)
    per_device, epochs = flags.per_device_train_batch_size, flags.num_train_epochs
    plain = given | {ours: given[theirs] for theirs, ours in PLAIN_NAMES.items()}
    plain |= {
        "batch_size": per_device and per_device * (flags.gradient_accumulation_steps or 1),
        "precision": next((name for name in _PRECISIONS if given[name]), None),
        **_OFF,
        "train_on_dev": False if flags.do_train else None,
        "num_train_epochs": int(epochs) if epochs is not None and epochs.is_integer() else epochs,
    }
    args = TrainerSettings.resolve(plain, task, num_gpus, trained)
    sources = {**args.sources, **dict.fromkeys((*_OFF, "train_on_dev"), "default")}
    trainer = given | {name: getattr(args, name) for name in settings.HYPER_PARAMETERS if name in given}
    trainer |= {theirs: getattr(args, ours) for theirs, ours in PLAIN_NAMES.items()}
    trainer |= {"bf16": args.precision == "bf16", "fp16": args.precision == "fp16"}
    trainer |= {name: _DEFAULTS[name] for name in {*NUMBERS, *RECORDED} & _DEFAULTS.keys() if trainer[name] is None}
    trainer["per_device_train_batch_size"] = math.ceil(args.batch_size / args.gradient_accumulation_steps)
    if trainer["lr_scheduler_type"] == "polynomial" and trainer["lr_end"] >= args.learning_rate:
        raise UserError(
            say(
                "--lr_end {lr_end} must be below --learning_rate {learning_rate}",
                lr_end=trainer["lr_end"],
                learning_rate=args.learning_rate,
            )
        )
    metric = (flags.metric_for_best_model or "accuracy").removeprefix("eval_")
    if flags.greater_is_better not in (None, METRICS[metric]):
        raise UserError(
            say(
                "--greater_is_better {greater_is_better} would keep the worst {metric}: leave it out",
                greater_is_better=flags.greater_is_better,
                metric=metric,
            )
        )
    trainer["metric_for_best_model"] = f"eval_{metric}"
    return dataclasses.replace(args, sources=sources, given=given, trainer=trainer | _strategies(flags, args))


def _strategies(flags: argparse.Namespace, args: Settings) -> dict[str, Any]:
    """When to evaluate and to write a checkpoint, and whether to keep the best.

    Of --evaluation_strategy and --save_strategy one that is left out follows the other; both left out, an evaluation
    and a checkpoint come every --save_steps steps (once an epoch where a checkpoint of the plain script was trained
    so). Where something is evaluated, the best is kept unless --load_best_model_at_end is false.

    Raises:
        UserError: the best is to be kept where not every checkpoint is evaluated.
    """
    evaluates, saves = flags.evaluation_strategy, flags.save_strategy
    if evaluates is None:
        evaluates = "steps" if flags.eval_steps else saves or ("steps" if args.save_steps else "epoch")
    if saves is None:
        saves = "steps" if flags.save_steps or (evaluates == "no" and args.save_steps) else evaluates
        saves = "epoch" if saves == "no" else saves
    keeps_best = flags.load_best_model_at_end
    if keeps_best is None:
        keeps_best = evaluates != "no"
    eval_steps = flags.eval_steps or args.save_steps
    for name, strategy, steps in (("save", saves, args.save_steps), ("evaluation", evaluates, eval_steps)):
        if args.do_train and strategy == "steps" and not steps:
            raise UserError(
                say("--{name}_strategy steps: the model was trained by epochs, so pass --save_steps too", name=name)
            )
    reason = ""
    if evaluates == "no" and flags.evaluation_strategy is None:
        reason = say("--save_strategy no leaves no checkpoint to evaluate")
    elif evaluates == "no":
        reason = say("--evaluation_strategy no evaluates none")
    elif saves == "no":
        reason = say("--save_strategy no writes none")
    elif evaluates != saves:
        one = f"--evaluation_strategy {evaluates}" if flags.evaluation_strategy else f"--eval_steps {eval_steps}"
        other = f"--save_strategy {saves}" if flags.save_strategy else f"--save_steps {args.save_steps}"
        reason = say("{one} and {other} differ", one=one, other=other)
    elif saves == "steps" and args.save_steps % eval_steps:
        reason = say(
            "--save_steps {save_steps} is not a multiple of --eval_steps {eval_steps}",
            save_steps=args.save_steps,
            eval_steps=eval_steps,
        )
    if args.do_train and keeps_best and reason:
        raise UserError(
            say(
                "the best of the checkpoints is kept (--load_best_model_at_end), so each must be evaluated, but "
                "{reason}: change that, or pass --load_best_model_at_end false to keep the last",
                reason=reason,
            )
        )
    return {
        "evaluation_strategy": evaluates,
        "save_strategy": saves,
        "load_best_model_at_end": keeps_best,
        "eval_steps": eval_steps if evaluates == "steps" else None,
    }


def training_arguments(args: TrainerSettings, device: str) -> TrainingArguments:
    """The Trainer's own arguments.

    Raises:
        UserError: PaddleNLP does not take them.
    """
    values = {**args.trainer, "device": device.split(":")[0]}
    values["do_eval"] = False  # a true one would change the strategy
    if not args.do_train:
        values |= {"evaluation_strategy": "no", "load_best_model_at_end": False}
    if values["disable_tqdm"] is None:
        values["disable_tqdm"] = not sys.stderr.isatty()
    try:
        return PdArgumentParser(TrainingArguments).parse_dict(values)[0]
    except (ValueError, AssertionError) as error:
        raise UserError(" ".join(str(error).split())) from error
