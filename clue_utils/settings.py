"""The settings of a run: what each flag takes and means, where its value comes from, and what is recorded of it.

To add a flag, add one field, to :class:`Settings` or to its subclass in the one script that has the flag: made by
``recorded``, or by ``flag`` where nothing that is learnt or scored depends on it. Parser, ``--help``, log,
``result.json``, the check of a checkpoint's values, the comparison with an earlier run, what a trial of the grid search
may be given and the READMEs' table follow. Imports no PaddlePaddle: ``--help`` and a mistyped flag answer at once.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, ParamSpec, TypeVar

from clue_utils import cli, published, ranks, tasks
from clue_utils.errors import UserError, show
from clue_utils.files import require_no_device
from clue_utils.language import say
from clue_utils.tasks import Task

logger = logging.getLogger(__name__)
# --precision -> Paddle's name of the type that matrix products are cast to. TF32 is a way to multiply numbers of fp32.
PRECISIONS = {"fp32": "float32", "tf32": "float32", "bf16": "bfloat16", "fp16": "float16"}
P = ParamSpec("P")
S = TypeVar("S", bound="Settings")


class Situation(NamedTuple):
    """What a default may depend on."""

    task: Task
    best: published.Best
    origin_of_best: str
    num_gpus: int
    lora_rank: int


class Lookup(NamedTuple):
    """A default that is not the same for all runs: in words, and how a flag's value and its origin are found."""

    words: str
    find: Callable[[str, Situation], tuple[object, str]]


@dataclass(frozen=True)
class Flag:
    """What is known of a flag beside its name and the type of its value.

    Attributes:
        group: its heading in ``--help``.
        takes: a number of ``cli``, the words to choose from, ``cli.boolean``, ``bool`` for a switch, ``str`` for text,
            ``list`` for several texts.
        help: its text in ``--help``. A default that is not nothing is added, where the text does not tell of it.
        default: None where the value is settled later.
        is_recorded: part of what a run is made of: kept in ``result.json``, and taken from there for a checkpoint.
        may_change: when a run goes on: what is learnt does not depend on it.
        by_trial: set by each trial of the grid search itself.
    """

    group: str
    takes: cli.Number | tuple[str, ...] | Callable[[str], object]
    help: str
    default: object = None
    metavar: str | None = None
    is_required: bool = False
    is_recorded: bool = False
    may_change: bool = False
    by_trial: bool = False

    @property
    def text(self) -> str:
        """The help with the default."""
        default = say(self.default.words) if isinstance(self.default, Lookup) else self.default
        if not default or "(default: " in self.help:
            return say(self.help)
        return say("{help} (default: {default})", help=say(self.help), default=default)

    def options(self) -> dict[str, Any]:
        """What ``argparse`` is told. A flag that is left out is None, whatever its default."""
        options = {"help": self.text, "metavar": self.metavar, "required": self.is_required}
        if isinstance(self.takes, tuple):
            return options | {"choices": self.takes}
        if self.takes is bool:
            return {"help": self.text, "action": "store_true", "default": None}
        if self.takes is cli.boolean:
            return options | {"type": cli.boolean, "nargs": "?", "const": True, "metavar": "{true,false}"}
        return options | ({"nargs": "+"} if self.takes is list else {"type": self.takes})

    def accepts(self, value: object) -> bool:
        """Whether a value read from a ``result.json`` is one that the flag may have."""
        if isinstance(self.takes, cli.Number):
            return self.takes.accepts(value)
        if isinstance(self.takes, tuple):
            return value in self.takes
        return isinstance(value, bool) or (value is None and self.takes is cli.boolean and self.default is None)


def _as_field(make: Callable[P, Flag]) -> Callable[P, Any]:
    return lambda *words, **more: dataclasses.field(metadata={"flag": make(*words, **more)})


# Fields of a dataclass, made of what :class:`Flag` takes.
flag, recorded = _as_field(Flag), _as_field(functools.partial(Flag, is_recorded=True))
_OF_TASK = Lookup("the task's", lambda name, at: (getattr(at.task, name), at.task.origin))
_BEST = Lookup("the model's best", lambda name, at: (getattr(at.best, name), at.origin_of_best))
_RATE = Lookup(
    f"the model's best; with --lora_rank {published.LORA_LEARNING_RATE:.0e}",
    lambda name, at: (published.LORA_LEARNING_RATE, "of adapters") if at.lora_rank else _BEST.find(name, at),
)
_SHARED_BEST = Lookup(
    "the model's best, shared out over the GPUs",
    lambda name, at: (
        max(1, at.best.batch_size // at.num_gpus),
        at.origin_of_best + (f": {at.best.batch_size} over all GPUs" if at.num_gpus > 1 else ""),
    ),
)
MODEL, ACTIONS, ENSEMBLE, TRAINING = "model and data", "what to do (at least one)", "ensemble", "training"
OUTPUT, DEVICE = "output", "device"
# The headings of --help in their order, before those of one script alone, and what is said below them.
GROUPS = {"task": None, MODEL: None, ACTIONS: None, ENSEMBLE: None} | {
    TRAINING: "A flag left out takes the value the checkpoint was trained with, else the registry's for the task.",
    OUTPUT: None,
    DEVICE: None,
}


def num_processes(batch_size: int, num_gpus: int) -> int:
    """The most of ``num_gpus`` GPUs (at least 1) that a batch can be shared out over evenly."""
    return max(n for n in range(1, num_gpus + 1) if batch_size % n == 0)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a run, each with its final value; None where the data or the machine decides.

    The order of the fields is that of the log and of ``result.json``; ``--help`` has its own, by groups.

    Attributes:
        num_train_epochs: a whole number but for the Trainer's runs.
        sources: flag -> where its value is from, in words.
    """

    model_name_or_path: str = flag(
        MODEL,
        str,
        "a PaddleNLP model name such as ernie-3.0-base-zh, or the folder of a checkpoint",
        metavar="NAME",
        is_required=True,
        by_trial=True,
    )
    data_dir: str | None = flag(
        MODEL,
        str,
        "folder that holds the official files, such as tnews_public/train.json "
        "(default: $CLUE_DATA_DIR, else a cache filled by download)",
        metavar="DIR",
    )
    task_file: str | None = flag(
        MODEL, str, "a task of your own in place of CLUE's, described in JSON", metavar="FILE", by_trial=True
    )
    train_file: Sequence[str] | None = flag(
        MODEL,
        list,
        "training examples in the task's form, in place of those of --data_dir; several files are joined; CHID "
        "takes one, x.json, with its answers in x_answer.json beside it",
        metavar="FILE",
    )
    validation_file: Sequence[str] | None = flag(MODEL, list, "the same for the development set", metavar="FILE")
    test_file: Sequence[str] | None = flag(
        MODEL, list, "one test set in place of all of --data_dir's, predicted to <task>_predict.json", metavar="FILE"
    )
    max_train_samples: int | None = flag(
        MODEL, cli.positive_int, "train on the first N examples only (default: all)", metavar="N"
    )
    max_eval_samples: int | None = flag(
        MODEL, cli.positive_int, "evaluate on the first N examples only (default: all)", metavar="N"
    )
    max_seq_length: int = recorded(MODEL, cli.positive_int, "tokens of a sequence, longer ones are cut", _OF_TASK)
    num_proc: int | None = flag(
        MODEL, cli.positive_int, "processes that build features (default: the processors of this machine)"
    )
    overwrite_cache: bool = flag(MODEL, bool, "build cached features again")

    do_train: bool = flag(ACTIONS, bool, "fine-tune, evaluate on the way, keep the best checkpoint", by_trial=True)
    do_eval: bool = flag(ACTIONS, bool, "evaluate on the development set", by_trial=True)
    do_predict: bool = flag(ACTIONS, bool, "write the predictions of every test set")
    do_export: bool = flag(
        ACTIONS, bool, "write the model to inference/ in --output_dir, for Paddle Inference and without this project"
    )
    export_onnx: bool = flag(ACTIONS, bool, "with --do_export: write model.onnx there too, for ONNX Runtime and others")
    predict_file: str | None = flag(
        ACTIONS,
        str,
        "answer the records of a file of your own, or of standard input (-); they are without labels: in .txt a text a "
        "line (a tab between two texts), in .jsonl an object with the task's fields a line, in .csv a row below a "
        "header with the fields, in .json as in the task's own test files",
        metavar="FILE",
    )
    predict_output: str = flag(
        ACTIONS,
        str,
        "file for the answers to --predict_file, a JSON object a line, or .csv; -: standard output, while the log goes "
        "to standard error",
        "-",
        metavar="FILE",
    )

    ensemble: Sequence[str] = flag(
        ENSEMBLE,
        list,
        "further checkpoints of the task, whose probabilities are averaged with those of --model_name_or_path in "
        "--do_eval and --do_predict; all are held in memory",
        (),
        metavar="DIR",
    )

    batch_size: int = recorded(TRAINING, cli.positive_int, "examples per GPU and step", _SHARED_BEST, by_trial=True)
    learning_rate: float = recorded(TRAINING, cli.positive_float, "peak learning rate", _RATE, by_trial=True)
    num_train_epochs: float = recorded(TRAINING, cli.positive_int, "passes over the training set", _OF_TASK)
    max_steps: int = flag(TRAINING, cli.steps_or_all, "stop after this many steps; -1: by epochs", -1)
    warmup_proportion: float = recorded(TRAINING, cli.proportion, "share of all steps spent warming up", _OF_TASK)
    warmup_steps: int = recorded(
        TRAINING, cli.non_negative_int, "steps spent warming up, above --warmup_proportion if not 0", 0
    )
    weight_decay: float = recorded(TRAINING, cli.non_negative_float, "of AdamW", 0.01)
    adam_epsilon: float = recorded(TRAINING, cli.positive_float, "of AdamW", 1e-8)
    max_grad_norm: float = recorded(TRAINING, cli.non_negative_float, "clip gradients; 0: never", 1.0)
    dropout: float = recorded(TRAINING, cli.proportion, "of every dropout in encoder and head", _BEST, by_trial=True)
    lora_rank: int = recorded(
        TRAINING,
        cli.non_negative_int,
        "train matrices of this rank beside those of the encoder (LoRA), which takes less memory and disk, and the "
        "model that they stand on whenever they are loaded; 0: train the encoder",
        0,
    )
    gradient_accumulation_steps: int = recorded(
        TRAINING,
        cli.positive_int,
        "micro-batches that a batch is computed in, to fit memory; it stays the same batch",
        1,
        may_change=True,
    )
    group_by_length: bool = recorded(
        TRAINING, bool, "train on batches of similar length, which has less padding but another order of examples"
    )
    fused_attention: bool = recorded(
        TRAINING,
        bool,
        "attention in one operation, which takes less memory but draws other units for dropout, and has not been tried "
        "on a card",
    )
    fgm: float = recorded(
        TRAINING,
        cli.non_negative_float,
        "learn each batch a second time with the word embeddings moved so far uphill (FGM, such as 1.0), which takes "
        "twice the time; 0: do not",
        0.0,
    )
    r_drop: float = recorded(
        TRAINING,
        cli.non_negative_float,
        "weight of the divergence between two passes with other dropout (R-Drop, such as 1.0), which take twice the "
        "time and memory; 0: one pass",
        0.0,
    )
    ema: float = recorded(
        TRAINING,
        cli.proportion,
        "evaluate and keep the running mean of the weights with this decay (such as 0.999); 0: the weights themselves",
        0.0,
    )
    layer_decay: float = recorded(
        TRAINING,
        cli.share,
        "learning rate of each layer as a share of that of the layer above it, the embeddings' being the lowest (such "
        "as 0.9); 1: the same for all",
        1.0,
    )
    train_on_dev: bool = recorded(
        TRAINING,
        cli.boolean,
        "train on the development set too, for a last submission: nothing is evaluated, the last weights are kept",
        False,
    )
    prune: bool = flag(
        TRAINING, bool, "end the run when it is clearly behind the finished runs beside --output_dir (median rule)"
    )

    device: str | None = flag(
        DEVICE, ("gpu", "xpu", "cpu"), "what to compute on (default: a GPU where there is one)", by_trial=True
    )
    precision: str = recorded(
        DEVICE,
        tuple(PRECISIONS),
        "of matrix products; weights and checkpoints stay fp32 (default: fp32, as published scores; "
        "the others need a GPU, tf32 and bf16 one of Ampere or later)",
        "fp32",
    )
    eval_batch_size: int | None = flag(
        DEVICE,
        cli.positive_int,
        "examples at a time in evaluation and prediction, fewer of long ones; scores do not depend on it "
        "(default: 64 on the CPU, on a GPU as many as fit)",
    )

    seed: int = recorded(TRAINING, cli.seed, "of everything drawn at random", tasks.SEED, by_trial=True)
    logging_steps: int = recorded(TRAINING, cli.positive_int, "steps between log lines", 100, may_change=True)
    save_steps: int = recorded(
        TRAINING,
        cli.non_negative_int,
        "steps between evaluations; 0: once an epoch",
        Lookup(
            "100 for classification, 0 for reading",
            lambda name, at: (at.task.save_steps, at.task.source or f"registry, {at.task.kind}"),
        ),
    )

    output_dir: str = flag(
        OUTPUT,
        str,
        "folder for checkpoint, result.json and predictions",
        Lookup("best_<task>_model", lambda name, at: (f"best_{at.task.name.lower()}_model", "default")),
        metavar="DIR",
        by_trial=True,
    )
    overwrite_output_dir: bool = flag(OUTPUT, bool, "start anew where --output_dir holds a training run")
    save_best_model: bool = flag(
        OUTPUT, cli.boolean, "keep the checkpoint with the best development score (default: true)", True
    )
    checkpoint_minutes: float = flag(
        OUTPUT,
        cli.non_negative_float,
        "minutes of training between checkpoints to go on from, which is what a kill loses at most; 0: after each step",
        10.0,
    )
    log_level: str = flag(OUTPUT, ("debug", "info", "warning", "error"), "how much is logged", "info")

    sources: Mapping[str, str]

    @classmethod
    def flags(cls) -> dict[str, Flag]:
        """Every flag by its name, in the order of the fields."""
        return {entry.name: entry.metadata["flag"] for entry in dataclasses.fields(cls) if entry.metadata}

    @classmethod
    def flags_by_group(cls) -> dict[str, dict[str, Flag]]:
        """The flags below each heading of ``--help``."""
        flags = cls.flags()
        groups = dict.fromkeys([*GROUPS, *(flag.group for flag in flags.values())])
        return {group: {name: flag for name, flag in flags.items() if flag.group == group} for group in groups}

    @classmethod
    def parser(cls, description: str | None = None, epilog: str | None = None) -> cli.Parser:
        """The parser of a script with these settings. What is left out is None until :meth:`resolve`."""
        parser = cli.Parser(description=description, epilog=epilog)
        required = []
        for group, flags in cls.flags_by_group().items():
            section = parser.add_argument_group(group, GROUPS.get(group))
            for name, flag in flags.items():
                section.add_argument(f"--{name}", **flag.options())
                required += [f"--{name} {flag.metavar}"] if flag.is_required else []
        parser.usage = f"%(prog)s {' '.join(required)} [--do_train] [--do_eval] [--do_predict] [--do_export] [FLAG ...]"
        return parser

    @classmethod
    def resolve(cls: type[S], given: Mapping[str, Any], task: Task, num_gpus: int, trained: Mapping[str, Any]) -> S:
        """Fill in what the command line leaves out, and check the whole.

        The order is: command line; ``result.json`` of the checkpoint, if it was trained on the same task; the registry.

        Args:
            given: flag -> value of the command line, None or absent where it was left out.
            num_gpus: processes of the run, over which a published batch is shared out.
            trained: what the model was trained with on this task, see ``record.trained_with``.

        Raises:
            UserError: flags that contradict each other, or a checkpoint's value that no flag could have.
        """
        model = given["model_name_or_path"]
        rank_before = trained.get("lora_rank", 0)
        lora_rank = rank_before if given.get("lora_rank") is None else given["lora_rank"]
        if bool(lora_rank) != bool(rank_before):  # what suits adapters is far too high for the whole, and vice versa
            trained = {name: value for name, value in trained.items() if name != "learning_rate"}
        situation = Situation(task, *published.best_run(model, task), num_gpus, lora_rank)
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for name, flag in cls.flags().items():
            if given.get(name) is not None:
                values[name], sources[name] = given[name], "command line"
            elif flag.is_recorded and name in trained:
                value = trained[name]
                # The Trainer may have trained on a part of an epoch, which only training here would need whole.
                may_be_part = name == "num_train_epochs" and not given.get("do_train")
                if not (flag.accepts(value) or (may_be_part and cli.positive_float.accepts(value))):
                    raise UserError(
                        say(
                            "{model}/result.json: hyper-parameter {name} cannot be {value}; pass --{name}",
                            model=model,
                            name=name,
                            value=show(value),
                        )
                    )
                values[name], sources[name] = value, "checkpoint"
            elif isinstance(flag.default, Lookup):
                values[name], sources[name] = flag.default.find(name, situation)
            else:
                values[name], sources[name] = False if flag.takes is bool else flag.default, "default"
        settings = cls(**values, sources=sources)
        settings.check()
        return settings

    @property
    def lower_case(self) -> bool | None:
        """Whether text is written in lower case; None: as the model's tokenizer does."""
        return None

    def hyper_parameters(self) -> dict[str, Any]:
        """What the run is made of, as ``result.json`` keeps it."""
        return {name: getattr(self, name) for name, flag in self.flags().items() if flag.is_recorded}

    def description(self) -> dict[str, Any]:
        """What ``result.json`` says of the settings, and :func:`differences` compares."""
        recorded = self.hyper_parameters()
        part = {"max_train_samples": self.max_train_samples, "max_eval_samples": self.max_eval_samples}
        described = {"model": self.model_name_or_path, "hyper_parameters": recorded, "max_steps": self.max_steps}
        return described | {name: number for name, number in part.items() if number is not None}

    def makes_a_run(self) -> bool:
        """Whether anything is done that ``--output_dir`` keeps a record of."""
        return self.do_train or self.do_eval or self.do_predict or self.do_export

    def does_something(self) -> bool:
        return self.makes_a_run() or self.predict_file is not None

    @property
    def answers_on_stdout(self) -> bool:
        """Whether standard output is for answers alone."""
        return self.predict_file is not None and self.predict_output == "-"

    def check(self) -> None:
        """Raise UserError where flags contradict each other."""
        if not self.does_something():
            raise UserError(
                say("nothing to do: pass --do_train, --do_eval, --do_predict, --do_export or --predict_file")
            )
        if self.gradient_accumulation_steps > self.batch_size:
            raise UserError(
                say(
                    "--gradient_accumulation_steps {gradient_accumulation_steps} is more than --batch_size "
                    "{batch_size}: a batch cannot be split into more micro-batches than it has examples",
                    gradient_accumulation_steps=self.gradient_accumulation_steps,
                    batch_size=self.batch_size,
                )
            )
        uses_best = self.do_eval or self.do_predict or self.do_export or self.predict_file
        if self.do_train and not self.save_best_model and uses_best:
            raise UserError(
                say(
                    "--save_best_model false keeps no checkpoint for --do_eval, --do_predict, --do_export or "
                    "--predict_file: drop one of them"
                )
            )
        self._check_predict_file()
        if self.train_on_dev and (self.do_eval or self.prune):
            raise UserError(
                say(
                    "with --train_on_dev the development set is learnt, and a score on it says nothing: drop "
                    "--{flag}, or pass --train_on_dev false",
                    flag="do_eval" if self.do_eval else "prune",
                )
            )
        if self.r_drop and not self.dropout and self.do_train:
            raise UserError(
                say("--r_drop compares passes with different dropout: pass a --dropout above 0, or drop it")
            )
        if self.ensemble and self.do_train:
            raise UserError(say("--ensemble averages checkpoints that are trained already: drop it or --do_train"))
        if self.export_onnx and not self.do_export:
            raise UserError(say("--export_onnx is for what --do_export writes: pass that too"))
        if self.ensemble and self.do_export:
            raise UserError(
                say("--do_export writes one model: drop --ensemble, and export each of its members for itself")
            )
        if (
            self.do_train
            and self.lora_rank
            and os.path.realpath(self.model_name_or_path) == os.path.realpath(self.output_dir)
        ):
            raise UserError(say("--lora_rank keeps no copy of the model that is adapted: choose another --output_dir"))
        if re.search(r"[\x00-\x1f]", self.output_dir):
            raise UserError(say("--output_dir holds a control character: choose another name"))

    def _check_predict_file(self) -> None:
        """Rather refused now than once a model is trained."""
        name, output = self.predict_file, self.predict_output
        if name is None and self.sources["predict_output"] == "command line":
            raise UserError(say("--predict_output {output}: no --predict_file to answer", output=output))
        if name == "-" and ranks.world_size() > 1:
            raise UserError(say("--predict_file -: several processes cannot share standard input; name a file"))
        if name not in (None, "-") and not os.path.exists(name):
            raise UserError(say("--predict_file {name}: no such file", name=name))
        if name not in (None, "-") and os.path.realpath(name) == os.path.realpath(output):
            raise UserError(say("--predict_output {output} is --predict_file: choose another name", output=output))
        for flag, path in (("predict_file", name), ("predict_output", output)):
            if path is not None and os.path.isdir(path):
                raise UserError(say("--{flag} {path}: a folder; name a file in it", flag=flag, path=path))
        if output != "-":
            require_no_device(output)

    def log(self, task: Task, num_gpus: int) -> None:
        """Say what the run is made of and where each value is from, and where the published batch cannot be shared."""
        output = self.output_dir if self.makes_a_run() else self.predict_output
        logger.info("task: %s, model: %s, output: %s", task.name, self.model_name_or_path, output)
        for name, flag in self.flags().items():
            if flag.is_recorded and (self.do_train or flag.group != TRAINING):
                value = getattr(self, name)
                shown = cli.short_exponent(repr(value)) if isinstance(value, float) else value
                logger.info("  %s: %s (%s)", name, shown, self.sources[name])
        best, _ = published.best_run(self.model_name_or_path, task)
        is_own = self.sources["batch_size"] in ("command line", "checkpoint")
        if self.do_train and not is_own and self.batch_size * num_gpus != best.batch_size:
            logger.warning(
                say(
                    "the published batch of {batch_size} examples cannot be shared out evenly over {num_gpus} GPUs: "
                    "{share} on each make {total}, so scores may differ from published ones; run on "
                    "{suitable} of the GPUs, or choose a batch size",
                    batch_size=best.batch_size,
                    num_gpus=num_gpus,
                    share=self.batch_size,
                    total=self.batch_size * num_gpus,
                    suitable=num_processes(best.batch_size, num_gpus),
                )
            )


# Flags that came later than others and without which runs were as their defaults have it.
_LATER = ("lora_rank", "max_train_samples", "max_eval_samples", "fgm", "r_drop", "ema", "layer_decay", "train_on_dev")
# What every run is made of, and what a trial of the grid search sets itself.
HYPER_PARAMETERS = tuple(name for name, flag in Settings.flags().items() if flag.is_recorded)
SET_BY_TRIAL = tuple(name for name, flag in Settings.flags().items() if flag.by_trial)


def flags_of_scripts() -> list[str]:
    """The flags, with their dashes, that the tasks' scripts take beside those that a trial sets itself."""
    kinds: list[type[Settings]] = [Settings, *Settings.__subclasses__()]
    return sorted({f"--{name}" for kind in kinds for name, flag in kind.flags().items() if not flag.by_trial})


def free_to_change() -> set[str]:
    """Settings that may change when a run goes on, those of the script that runs included."""
    kinds: list[type[Settings]] = [Settings, *Settings.__subclasses__()]
    return {name for kind in kinds for name, flag in kind.flags().items() if flag.may_change}


def flags_of_trials(words: Sequence[str]) -> dict[str, Any]:
    """Flags given for every trial of a grid search -> values, None where one is left out, for ``Settings.resolve``.

    One that only a single script knows is left to it.

    Raises:
        UserError: each trial sets one of them itself.
    """
    for name in SET_BY_TRIAL:
        if any(word.split("=")[0] == f"--{name}" for word in words):
            raise UserError(say("--{name} is set by the trial itself: leave it out after --", name=name))
    found = vars(Settings.parser().parse_known_args(["--model_name_or_path", "", *words])[0])
    if found["train_on_dev"]:
        raise UserError(
            say("--train_on_dev leaves no score to choose trials by: train the winner's setting with it alone")
        )
    return found


def differences(
    recorded: Mapping[str, Any], now: Mapping[str, Any], ignoring: Collection[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """Settings in which a recorded run and one to be done differ, be it with more or fewer of them.

    Args:
        recorded: the content of ``result.json``.
        now: the same of the run to be done, as :meth:`Settings.description` gives it; other names count too.
        ignoring: names that may differ beside those that are free to change.

    Returns:
        name -> value there and value now, None where it has none.
    """
    # A run of a version that did not know a switch ran without it.
    off: dict[str, Any] = {
        name: False for name, flag in Settings.flags().items() if flag.is_recorded and flag.takes is bool
    }
    off |= {name: Settings.flags()[name].default for name in _LATER}
    before, after = ({**off, **fields, **fields.get("hyper_parameters", {})} for fields in (recorded, now))
    names = dict.fromkeys([*after, *recorded.get("hyper_parameters", {})])
    return {
        name: (before.get(name), after.get(name))
        for name in names
        if name not in {"hyper_parameters", *ignoring, *free_to_change()} and before.get(name) != after.get(name)
    }
