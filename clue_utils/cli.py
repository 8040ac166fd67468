"""The command line: flags, log lines, and how a program ends, with errors a user can read."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import logging
import math
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from tqdm import tqdm

from clue_utils.columns import display_width, wrapped
from clue_utils.errors import GOES_ON, Ending, Stopped, ending_of, shorten, show
from clue_utils.language import later, say, using
from clue_utils.project import as_typed
from clue_utils.ranks import is_first, rank, world_size

logger = logging.getLogger(__name__)
# Seconds from one line to the next that says how far something is, where there is no terminal.
PULSE_INTERVAL = 60.0


class _LineHandler(logging.Handler):
    """Prints on standard output or standard error, above a progress bar if one is shown."""

    def __init__(self, on_stderr: bool) -> None:
        super().__init__()
        self._on_stderr = on_stderr

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if self._on_stderr else sys.stdout
        tqdm.write(self.format(record), file=stream)
        stream.flush()


class AboveBars:
    """What a handler of another library's log may write to: standard error, above a progress bar if one is shown."""

    def write(self, text: str) -> None:
        tqdm.write(text, file=sys.stderr, end="")

    def flush(self) -> None:
        sys.stderr.flush()


class _RankFilter(logging.Filter):
    """Lets rank 0 speak, and every rank warn."""

    def filter(self, record: logging.LogRecord) -> bool:
        return is_first() or record.levelno >= logging.WARNING


def configure_logging(level: str, on_stderr: bool = False) -> None:
    """Plain lines on standard output, unless that is for something else; progress bars go to standard error."""
    handler = _LineHandler(on_stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.addFilter(_RankFilter())
    root = logging.getLogger("clue_utils")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False


def print_whole(line: str) -> None:
    """Write to standard output all of a line or nothing, whatever signal comes meanwhile."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        sys.stdout.write(line)
        sys.stdout.flush()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


@contextlib.contextmanager
def timed() -> Iterator[Callable[[], float]]:
    """Yield a function that returns the seconds since the block was entered."""
    begin = time.perf_counter()
    yield lambda: time.perf_counter() - begin


def duration(seconds: float) -> str:
    """A time for people: "95 s", "12 min", "3 h 5 min"."""
    if seconds < 120:
        return say("{seconds:.0f} s", seconds=max(0.0, seconds))
    minutes = int(seconds) // 60
    if minutes < 120:
        return say("{minutes} min", minutes=minutes)
    return say("{hours} h {minutes} min", hours=minutes // 60, minutes=minutes % 60)


def for_terminal(paragraph: str) -> str:
    """A paragraph as standard output is to have it: in a terminal, lines of its width."""
    width = terminal_width()
    return paragraph if width is None else "\n".join(wrapped(paragraph, width))


def terminal_width() -> int | None:
    """Columns of the terminal that standard output is; None: it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def short_exponent(number: str) -> str:
    """3e-05 -> 3e-5, as tables and folders have it."""
    return number.replace("e-0", "e-")


def percent(fraction: float) -> str:
    """A score for people; result.json and the lines of an evaluation have fractions: "56.12 %"."""
    return f"{100 * fraction:.2f} %"


class Pulse:
    """Says once a minute how far a long piece of work is, where no terminal shows its bar.

    Args:
        what: is done, such as "evaluating".
        unit: of what ``advance`` counts, in the plural.
        clock: tells the time in seconds.
    """

    def __init__(self, what: str, total: int, unit: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._total, self._unit, self._clock = what, total, unit, clock
        self._done, self._begin = 0, clock()
        self._said = self._begin

    def advance(self, number: int = 1) -> None:
        self._done = min(self._total, self._done + number)
        now = self._clock()
        if now - self._said < PULSE_INTERVAL or sys.stdout.isatty():
            return
        self._said = now
        with using("en"):  # it is a log line
            left = duration((now - self._begin) * (self._total - self._done) / self._done)
        words = time.strftime("%H:%M:%S"), self._what, self._done, self._total, self._unit, left
        logger.info("%s %s: %d of %d %s, about %s left", *words)


# The signal that has asked this process to end, 0 before one came.
_asked = 0


def _stop(number: int, _: Any = None) -> NoReturn:
    global _asked
    _asked = number
    raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)


def check_stop() -> None:
    """Raise once more what a signal has raised; to be called now and then by what takes long.

    The exception of a signal that arrives in a destructor, or in a callback of a library that lets none pass, is lost.
    """
    if _asked:
        _stop(_asked)


def say_at_once(line: str) -> None:
    """Print a line on standard error; a signal's handler may call it, which must not wait for a lock nor a buffer."""
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""  # the bar that stands there
    with contextlib.suppress(OSError):
        os.write(2, f"{clear}{line}\n".encode())


def run(main: Callable[[], object]) -> None:
    """Run a script's ``main`` and end the process as a command-line user expects.

    A UserError or a file system's refusal becomes one line on standard error and exit status 2; a signal one line and
    128 and its number. Anything else is a defect of ours and keeps its traceback.
    """
    global _asked
    _asked = 0
    _never_refuse_a_character()
    for number in (signal.SIGTERM, signal.SIGINT):
        # What a parent has made us ignore, such as Ctrl-C in the background of a shell, stays ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    try:
        main()
        _leave_together()
    except BrokenPipeError:  # whoever read our output, such as "head", has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except (Exception, KeyboardInterrupt, Stopped) as error:
        if (ending := ending_of(error)) is None:
            raise
        _fail(ending)
    finally:
        _asked = 0


def _never_refuse_a_character() -> None:
    """Have a terminal that cannot show a character, such as a Chinese one in ASCII, show its number."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _leave_together() -> None:
    """End this rank once every rank is done, past Paddle's own teardown: its gloo threads now and then abort in it."""
    paddle = sys.modules.get("paddle")  # not where a run ends before it is needed
    if paddle and world_size() > 1 and paddle.distributed.is_initialized():
        paddle.distributed.barrier()
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _fail(ending: Ending) -> None:
    for bar in [*tqdm._instances]:  # the error holds on to what it has broken off: a line would begin behind the bar
        bar.close()
    prefix = f"rank {rank()}: " if world_size() > 1 else ""
    print(f"{prefix}{'' if ending.is_stop else 'error: '}{as_typed(ending.reason)}", file=sys.stderr, flush=True)
    if world_size() > 1:
        sys.stdout.flush()
        os._exit(ending.exit_status)  # others may be waiting in a collective; the launcher ends them when this one goes
    sys.exit(ending.exit_status)


def split_at_dashes(argv: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """A program's own words (default: of the command line), and those behind ``--``, which are for another one."""
    words = list(sys.argv[1:] if argv is None else argv)
    end = words.index("--") if "--" in words else len(words)
    return words[:end], words[end + 1 :]


# The ends of lines that are joined without a blank: between Chinese characters, and beside Chinese marks.
_NO_BLANK = re.compile(
    r"(?<=[\u3000-\uffef])\n(?=[\u3000-\uffef])|(?<=[\u3000-\u303f\uff00-\uffef])\n|\n(?=[\u3000-\u303f\uff00-\uffef])"
)
# What paragraphs of commands begin with, in each language.
_EXAMPLE = ("example", "示例")
# argparse has its own words translated when it says them, by gettext's catalogues: they stand in ours.
argparse._ = say  # type: ignore[attr-defined]


def _told(error: argparse.ArgumentError) -> str:
    """What argparse says of a flag, which Python 3.10 does not have translated."""
    words = {"argument_name": error.argument_name, "message": error.message}
    return say("argument %(argument_name)s: %(message)s") % words if error.argument_name else error.message


argparse.ArgumentError.__str__ = _told  # type: ignore[assignment]


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Flag and text on one line where the terminal is wide enough.

    Scripts give descriptions, headings and helps in English; here they are said in the present language.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=36)

    def start_section(self, heading: str | None) -> None:
        super().start_section(heading and say(heading))

    def _format_text(self, text: str) -> str:
        return super()._format_text(say(text))

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help and say(action.help)

    def _format_usage(self, usage: str | None, *others: Any) -> str:
        if usage is not None:
            return _hanging("", super()._format_usage(usage, *others), self._width) + "\n\n"
        # argparse wraps what it makes itself, and counts letters.
        title = say("usage: ")
        further = display_width(title) - len(title)
        self._width -= further
        text = super()._format_usage(usage, *others).rstrip("\n")
        self._width += further
        return text.replace("\n", "\n" + " " * further) + "\n\n"

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(_filled(part, width) for part in text.rstrip("\n").split("\n\n")) + "\n"

    def _split_lines(self, text: str, width: int) -> list[str]:
        is_wide = display_width(text) > len(text)
        return [*wrapped(text, width)] if is_wide else super()._split_lines(text, width)

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        return getattr(action.type, "metavar", None) or super()._get_default_metavar_for_optional(action)


def _filled(paragraph: str, width: int) -> str:
    """A paragraph of at most so many columns, but that commands stay on their lines, to be copied."""
    if paragraph.startswith(_EXAMPLE):
        return paragraph
    if "\n  " in f"\n{paragraph}":  # a list: names, and what they mean
        return "\n".join(_entry(line, width) for line in paragraph.split("\n"))
    return "\n".join(wrapped(_NO_BLANK.sub("", paragraph), width))


def _entry(line: str, width: int) -> str:
    found = re.match(r" *\S+ {2,}", line)
    return _hanging(found[0], line[found.end() :], width) if found else line


def _hanging(name: str, text: str, width: int) -> str:
    """A text behind a name, its further lines below its first, or four columns to the right where there is no name."""
    column = display_width(name) or 4
    return name + f"\n{' ' * column}".join(wrapped(text, width - column))


# What the flags of other programs, and the Trainer's, are called here, with a value where it decides: the first that a
# script has.
_OTHERS_NAMES = {
    "--lr": ("--learning_rate", "--learning_rates"),
    "--epoch": ("--num_train_epochs",),
    "--epochs": ("--num_train_epochs",),
    "--num_epochs": ("--num_train_epochs",),
    "--num_train_epoch": ("--num_train_epochs",),
    "--max_train_steps": ("--max_steps",),
    "--max_length": ("--max_seq_length",),
    "--max_len": ("--max_seq_length",),
    "--max_source_length": ("--max_seq_length",),
    "--model": ("--model_name_or_path",),
    "--model_name": ("--model_name_or_path",),
    "--model_path": ("--model_name_or_path",),
    "--task": ("--task_name", "--tasks", "--dataset"),
    "--dataset": ("--task_name",),
    "--task_name": ("--dataset", "--tasks"),
    "--train_file": ("--data_dir",),
    "--validation_file": ("--data_dir",),
    "--dev_file": ("--validation_file",),
    "--eval_file": ("--validation_file",),
    "--test_file": ("--data_dir",),
    "--max_train_examples": ("--max_train_samples",),
    "--max_eval_examples": ("--max_eval_samples",),
    "--train_batch_size": ("--batch_size", "--per_device_train_batch_size"),
    "--per_gpu_train_batch_size": ("--batch_size", "--per_device_train_batch_size"),
    "--bs": ("--batch_size", "--per_device_train_batch_size", "--batch_sizes"),
    "--batch_size": ("--per_device_train_batch_size", "--batch_sizes"),
    "--per_device_train_batch_size": ("--batch_size",),
    "--per_device_eval_batch_size": ("--eval_batch_size",),
    "--eval_batch_size": ("--per_device_eval_batch_size",),
    "--dev_batch_size": ("--eval_batch_size", "--per_device_eval_batch_size"),
    "--precision": ("--bf16",),
    "--fp16": ("--precision fp16",),
    "--bf16": ("--precision bf16",),
    "--tf32": ("--precision tf32",),
    "--use_amp": ("--precision fp16", "--fp16"),
    "--amp": ("--precision fp16", "--fp16"),
    "--use_fp16": ("--precision fp16", "--fp16"),
    "--gpu": ("--gpus", "--device gpu"),
    "--use_gpu": ("--device gpu",),
    "--no_cuda": ("--device cpu",),
    "--use_cpu": ("--device cpu",),
    "--n_gpu": ("--gpus",),
    "--save_dir": ("--output_dir", "--output"),
    "--do_test": ("--do_predict",),
    "--eval_steps": ("--save_steps",),
    "--valid_steps": ("--save_steps",),
    "--preprocessing_num_workers": ("--num_proc",),
    "--dropout_rate": ("--dropout",),
    "--hidden_dropout_prob": ("--dropout",),
    "--warmup_ratio": ("--warmup_proportion",),
    "--warmup_proportion": ("--warmup_ratio",),
}
_BY_SAVE_STEPS = later("--save_steps N evaluates every N steps, and 0 once an epoch")
_KEEPS_BEST = later("the checkpoint with the best development score is what is kept")
_OF_MODEL = later("that is read from the files of --model_name_or_path")
_IN_OUTPUT = later("the scalars are in visualdl/ in --output_dir, for visualdl --logdir")
_LAUNCHER = later('python -m paddle.distributed.launch --gpus "0,1" SCRIPT takes several, CUDA_VISIBLE_DEVICES=1 one')
_LESS_MEMORY = later("--gradient_accumulation_steps N saves memory, and the batch stays the same")
_MODEL_FIRST = later("the model comes first, its name or folder without a flag")
# What there is in place of flags of other programs that no flag here stands for.
_INSTEAD = {
    "--gpus": _LAUNCHER,
    "--n_gpu": _LAUNCHER,
    "--local_rank": _LAUNCHER,
    "--gradient_checkpointing": _LESS_MEMORY,
    "--recompute": _LESS_MEMORY,
    "--model": _MODEL_FIRST,
    "--model_name_or_path": _MODEL_FIRST,
    "--task_name": later("this script is for one task: leave it out"),
    "--lr_scheduler_type": later("the rate falls linearly; run_clue_classifier_trainer.py has other schedules"),
    "--do_lower_case": later("the model's own tokenizer_config.json says whether text is written in lower case"),
    "--evaluation_strategy": _BY_SAVE_STEPS,
    "--eval_strategy": _BY_SAVE_STEPS,
    "--save_strategy": _BY_SAVE_STEPS,
    "--load_best_model_at_end": _KEEPS_BEST,
    "--metric_for_best_model": _KEEPS_BEST,
    "--save_total_limit": _KEEPS_BEST,
    "--resume_from_checkpoint": GOES_ON,
    "--init_from_ckpt": GOES_ON,
    "--model_type": _OF_MODEL,
    "--config_name": _OF_MODEL,
    "--tokenizer_name": _OF_MODEL,
    "--tokenizer_name_or_path": _OF_MODEL,
    "--cache_dir": later("the environment's CLUE_CACHE_DIR names the folder"),
    "--report_to": _IN_OUTPUT,
    "--logging_dir": _IN_OUTPUT,
    "--pad_to_max_length": later("a batch is padded to its longest sequence"),
}


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line and which suggests the flag that was meant."""

    # Flags, with their dashes, that the program takes behind "--", for another one.
    behind_dashes: Collection[str] = ()

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(formatter_class=_HelpFormatter, allow_abbrev=False, **kwargs)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        parsed, rest = self.parse_with_words(args, namespace)
        if rest:
            self.error(self._explain(rest[0]))
        return parsed

    def parse_with_words(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As ``parse_args``, for a program whose words stand anywhere between its flags: these are returned too."""
        # A backslash followed by a blank, at the end of a pasted command, arrives as a blank argument.
        words = [word for word in (sys.argv[1:] if args is None else args) if word.strip()]
        # First, since a mistyped flag may be one that is required.
        for word in words:
            if word.startswith("--") and word.split("=")[0] not in {"--", *self._option_string_actions}:
                self.error(self._explain(word))
        parsed, rest = self.parse_known_args(words, namespace)
        if flag := next((word for word in rest if word.startswith("-")), None):
            self.error(self._explain(flag))
        return parsed, rest

    def _explain(self, word: str) -> str:
        flag = word.split("=")[0]
        known = [name for name in self._option_string_actions if name not in ("-h", "--help")]
        meant = [name for name in _OTHERS_NAMES.get(flag, ()) if name.split()[0] in known]
        unknown = say("unknown argument {word}", word=show(word))
        hint = _INSTEAD.get(flag, "")
        if word.lower() in ("true", "false"):
            hint = later("a switch takes no value: name it, or leave it out")
        if flag in self.behind_dashes:
            hint = later("a flag of the tasks' scripts goes to the end of the line, behind --")
        if hint and not meant:
            return say("{title}: {text}", title=unknown, text=say(hint))
        close = meant or difflib.get_close_matches(flag, known, n=1, cutoff=0.7)
        return unknown + (say(": did you mean {name}?", name=close[0]) if close else "")

    def format_help(self) -> str:
        # argparse puts a colon behind headings.
        return as_typed(re.sub(r"(?<=[\u3000-\uffef]):$", "：", super().format_help(), flags=re.MULTILINE))

    def error(self, message: str) -> NoReturn:
        line = say("{message} (--help lists the flags)", message=shorten(message, 240))
        print(f"error: {as_typed(line)}", file=sys.stderr)
        raise SystemExit(2)


@dataclass(frozen=True)
class Number:
    """The numbers that a flag takes: ``convert`` is int or float, ``meaning`` completes "... is not"."""

    convert: type[int] | type[float]
    accept: Callable[[float], bool]
    meaning: str

    @property
    def metavar(self) -> str:
        return "N" if self.convert is int else "X"

    def accepts(self, value: object) -> bool:
        """Whether a value, which a file may say, is such a number; a bool is none."""
        if isinstance(value, int) and not isinstance(value, bool):
            return abs(value) < 2**63 and self.accept(value)
        return self.convert is float and isinstance(value, float) and math.isfinite(value) and self.accept(value)

    def __call__(self, text: str) -> Any:
        with contextlib.suppress(ValueError):
            value = self.convert(text)
            if self.accepts(value):
                return value
        raise argparse.ArgumentTypeError(say("{text} is not {meaning}", text=show(text), meaning=say(self.meaning)))


positive_int = Number(int, lambda n: n >= 1, later("an integer of at least 1"))
non_negative_int = Number(int, lambda n: n >= 0, later("an integer of at least 0"))
positive_float = Number(float, lambda x: x > 0, later("a number above 0"))
non_negative_float = Number(float, lambda x: x >= 0, later("a number of at least 0"))
share = Number(float, lambda x: 0 < x <= 1, later("a number above 0 of at most 1"))
proportion = Number(float, lambda x: 0 <= x < 1, later("a number from 0 to below 1"))
steps_or_all = Number(int, lambda n: n == -1 or n >= 1, later("a number of steps of at least 1 (or -1: by epochs)"))
seed = Number(int, lambda n: n >= 0, later("an integer from 0 to below 2 ** 63"))


def boolean(text: str) -> bool:
    """Read true/false as the earlier scripts' flags do."""
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    try:
        return values[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(say("{text} is neither true nor false", text=show(text))) from None
