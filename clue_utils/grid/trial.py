"""One trial of a grid search: its command line, the run, the retry where memory runs out, and how it ended.

How a trial ended is what its ``result.json`` says; the log is for people. Imports no PaddlePaddle.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from clue_utils import cli, environment, settings
from clue_utils.errors import SECONDS_TO_END, UserError
from clue_utils.files import Busy, locked_folder
from clue_utils.grid import outcomes, search_space
from clue_utils.grid.search_space import Trial
from clue_utils.language import say
from clue_utils.project import MODULES, TOP
from clue_utils.record import Record, trained_with, write_failure, write_start
from clue_utils.strict_json import JsonObject
from clue_utils.tasks import KNOWN, Task

_MICRO_BATCHES = "gradient_accumulation_steps"
# What a batch of so many examples takes in memory goes by these, beside the model.
_OF_MEMORY = ("batch_size", "max_seq_length", "precision")
# Tells whether GPUs can be used.
USE_GPU = TOP / "scripts/use_gpu.py"


def interpreter() -> str:
    """The Python to run the project's scripts with: ``PYTHON`` in the environment, else this one."""
    return os.environ.get("PYTHON") or sys.executable


def script_words(task: Task, model: object, output: object, *flags: object) -> list[str]:
    """A task's script and the words behind it."""
    words = [TOP / task.script, *task.words]
    words += ["--model_name_or_path", model, "--output_dir", output, *flags]
    return [str(word) for word in words]


def run_script(words: Sequence[str], log: Path, name: str, **variables: str) -> int:
    """Run a script with its output in a log, the end of which is shown if it fails; return its exit status.

    Args:
        name: what is said to have failed.
        variables: of the environment, beside those that are there.
    """
    words = [interpreter(), *words]
    with open(log, "w") as file:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=os.environ | variables)
    status = done.returncode if done.returncode >= 0 else 128 - done.returncode
    if status and status - 128 not in (signal.SIGINT, signal.SIGTERM):
        print(
            say("{name} failed; the end of {log}:", name=name, log=log), *last_lines(log, 20), sep="\n", file=sys.stderr
        )
    return status


def results_dir() -> Path:
    """The folder of all models: ``RESULTS_DIR`` in the environment, else ``results``."""
    return Path(os.environ.get("RESULTS_DIR") or search_space.RESULTS_DIR)


def is_dry_run() -> bool:
    """Whether trials are to print their commands instead of running them: ``DRY_RUN=1`` in the environment."""
    return os.environ.get("DRY_RUN") == "1"


def visible_gpus() -> tuple[str, ...]:
    """Ids of the GPUs to use: those of ``CUDA_VISIBLE_DEVICES``, else all of the machine; none with ``DEVICE=cpu``.

    Raises:
        UserError: ``DEVICE`` is neither gpu nor cpu, or gpu where no GPU is visible.
    """
    device, named = os.environ.get("DEVICE", ""), os.environ.get("CUDA_VISIBLE_DEVICES")
    if device == "xpu":
        raise UserError(
            say("DEVICE=xpu: a grid search knows GPUs and the CPU only; train by the tasks' scripts on an XPU")
        )
    if device not in ("", "cpu", "gpu"):
        raise UserError(say("DEVICE={device}: choose gpu or cpu", device=device))
    if device == "cpu":
        return ()
    gpus = (
        _gpus_of_the_machine() if named is None else tuple(i for i in named.split(",") if i not in environment.NO_GPU)
    )
    if device == "gpu" and not gpus:
        raise UserError(say("DEVICE=gpu, but no GPU is visible"))
    return gpus


def _gpus_of_the_machine() -> tuple[str, ...]:
    """The numbers of the GPUs as nvidia-smi lists them; of one that is divided (MIG), the names of its parts."""
    try:
        ask = ["nvidia-smi", "-L"]
        shown = subprocess.run(ask, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    except OSError:
        return ()
    gpus: list[str] = []
    for gpu, part in re.findall(r"^GPU (\d+):|^\s+MIG .*\(UUID: (MIG-[^)]+)\)", shown, re.MULTILINE):
        if part and gpus[-1:] and not is_part(gpus[-1]):
            gpus.pop()
        gpus.append(gpu or part)
    if gpus:
        number_as_nvidia_smi_does()
    return tuple(gpus)


def is_part(gpu: str) -> bool:
    """Whether an id is of a part of a divided GPU (MIG), of which a process sees one alone, and NCCL joins none."""
    return gpu.startswith("MIG-")


def num_together(gpus: Sequence[str]) -> int:
    """How many of the GPUs can share a batch: all, or one where there are parts of divided ones."""
    return 1 if any(map(is_part, gpus)) else len(gpus)


def number_as_nvidia_smi_does() -> None:
    """Have CUDA number the GPUs as nvidia-smi does, by their bus; it would begin with the fastest."""
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


def require_use(gpus: Sequence[str], remedy: str = "DEVICE=cpu") -> None:
    """Ask the PaddlePaddle that trials run with to use GPUs: rather one line than a failure of each trial.

    Args:
        remedy: what has trials run on the CPU.

    Raises:
        UserError: it cannot, or cannot be imported.
    """
    done = subprocess.run(
        [interpreter(), USE_GPU],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=_with_modules() | {"CUDA_VISIBLE_DEVICES": ",".join(gpus)},
        text=True,
    )
    if done.returncode:
        reason = reason_of(done.stderr) or say(
            "{program} ends with status {status}", program=USE_GPU.name, status=done.returncode
        )
        raise UserError(
            say(
                "GPUs {gpus} cannot be used: {reason}; or take the CPU: {remedy}",
                gpus=",".join(gpus),
                reason=reason,
                remedy=remedy,
            )
        )


def reason_of(said: str) -> str:
    """Why GPUs cannot be used, from what ``USE_GPU`` has said; "" where that is nothing."""
    *_, last = ["", *filter(str.strip, said.splitlines())]
    # What is around the reason in what clue_utils.device says.
    begin, end = say("--device {device}: {reason}, or pass --device cpu").replace("{device}", "gpu").split("{reason}")
    return last.removeprefix("error: ").removeprefix(begin).removesuffix(end)


def _with_modules() -> dict[str, str]:
    """The environment, and where the project's modules are."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(MODULES), os.environ.get("PYTHONPATH", "")])}


@dataclass(frozen=True)
class Plan:
    """How a trial runs on this machine.

    Attributes:
        folder: where its output and log go.
        flags: further ones for the task's script, as words; ``given`` holds their values.
        gpus: ids of the GPUs that share the batch out evenly, a process on each; none: one process on the CPU.
        note: what to say where there are fewer GPUs than the task takes, or "".
    """

    model: str
    trial: Trial
    folder: Path
    flags: Sequence[str]
    given: Mapping[str, Any]
    gpus: tuple[str, ...]
    note: str

    @property
    def log(self) -> Path:
        return self.folder / search_space.LOG_FILE

    @property
    def num_processes(self) -> int:
        return max(1, len(self.gpus))

    @property
    def batch_size(self) -> int:
        """Examples of each process."""
        return self.trial.batch_size // self.num_processes


def make_plan(model: str, trial: Trial, flags: Sequence[str], gpus: Sequence[str]) -> Plan:
    """Share a trial's batch out over the GPUs given, at most as many as its task takes.

    Raises:
        UserError: a flag that the trial sets itself; a model without a name.
        SystemExit: a mistyped flag, which is said.
    """
    given = settings.flags_of_trials(flags)
    number = settings.num_processes(trial.batch_size, max(1, min(trial.num_gpus, num_together(gpus))))
    note = ""
    if gpus and number < trial.num_gpus:
        shares = f"{number} of them with {trial.batch_size // number} examples each, {trial.batch_size} in all"
        note = f"{trial.num_gpus} GPUs wanted, {len(gpus)} given: {shares}"
    folder = search_space.model_folder(results_dir(), model) / trial.folder
    return Plan(model, trial, folder, flags, given, tuple(gpus[:number]), note)


def require_known_flags(model: str, trials: Sequence[Trial], flags: Sequence[str]) -> None:
    """Ask each script that runs one of the trials whether it knows the flags: rather one line than a failure of each.

    Raises:
        UserError: a script has no such flag.
    """
    variables = _with_modules()
    for task in {KNOWN[one.task].script: KNOWN[one.task] for one in trials}.values() if flags else ():
        words = [sys.executable, *script_words(task, model, "output", *flags, "--help")]
        done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=variables, text=True)
        if done.returncode:
            raise UserError(f"{task.script}: {done.stderr.strip().rpartition('error: ')[2]}")


def ending(plan: Plan) -> str:
    """How a finished trial ended, such as "accuracy 56.12 %"; "" for one that is not finished.

    Raises:
        UserError: it is finished with other settings, given or by default; or its record is damaged. What the folder's
            name says is not compared, nor what may change when a run goes on.
    """
    earlier = Record.read(plan.folder)
    if not earlier or not earlier.is_finished:
        return ""
    now = settings_of(plan)
    named = {*settings.SET_BY_TRIAL} - {"model_name_or_path"}
    one_sided = earlier.hyper_parameters.keys() ^ now.hyper_parameters().keys()
    for name, (there, here) in settings.differences(earlier.fields, now.description(), {*named, *one_sided}).items():
        flag = "model_name_or_path" if name == "model" else name
        raise UserError(
            say(
                "{folder} holds a finished run with --{flag} {there}, not {here}: choose another folder with "
                "--results, or remove this one",
                folder=plan.folder,
                flag=flag,
                there=there,
                here=here,
            )
        )
    ended = f"{earlier.metric} {cli.percent(earlier.score or 0.0)}"
    if earlier.status == "pruned":
        return say("{ended}, pruned at step {step}", ended=ended, step=earlier.fields["pruned"]["step"])
    return ended


def settings_of(plan: Plan) -> settings.Settings:
    """The settings of a trial, given or by default, but for those that its folder is named by."""
    flags = {"model_name_or_path": plan.model, "do_train": True, "batch_size": plan.batch_size}
    task = KNOWN[plan.trial.task]
    trained = trained_with(plan.model, task)
    return settings.Settings.resolve({**plan.given, **flags}, task, plan.num_processes, trained)


def command(plan: Plan, micro_batches: int = 1) -> list[str]:
    """The words that run a trial, or go on with it, with its batch computed in so many micro-batches."""
    trial = plan.trial
    flags = ["--do_train", "--do_eval", "--learning_rate", trial.learning_rate, "--batch_size", plan.batch_size]
    flags += ["--dropout", trial.dropout, "--seed", trial.seed, "--device", "gpu" if plan.gpus else "cpu"]
    flags += [*plan.flags, *([f"--{_MICRO_BATCHES}", micro_batches] if micro_batches > 1 else [])]
    # The launcher starts a process on each visible GPU. Its log of them warns every five seconds where nvidia-smi
    # answers "[N/A]", as of a divided GPU.
    launcher = ["-m", "paddle.distributed.launch", "--log_dir", str(plan.folder / "launch")]
    launcher += ["--enable_gpu_log", "False"]
    words = script_words(KNOWN[plan.trial.task], plan.model, plan.folder, *flags)
    return [interpreter(), *(launcher if plan.num_processes > 1 else []), *words]


def run(plan: Plan, asks: bool = True) -> int:
    """Run a trial to its end, or go on with it, and print the line that says how it ended.

    Another process that runs it is waited for. Where memory runs out, the trial goes on with as many
    micro-batches as its record advises; it begins with as many as a trial beside it needed for the same batch. With
    ``DRY_RUN=1`` its command is printed instead.

    Args:
        asks: ask first whether its GPUs can be used; a search has done so.

    Returns:
        Exit status: 0 only if it is finished.

    Raises:
        UserError: they cannot.
        SystemExit: after a signal, with 128 and its number.
    """
    begin, name = time.monotonic(), plan.trial.folder
    ended = ending(plan)
    if not ended and is_dry_run():
        if plan.note:
            print(f"{name}: {plan.note}")
        print(shlex.join(command(plan, _num_micro_batches(plan))))
        return 0
    status = 0
    if not ended:
        if plan.gpus and asks:
            require_use(plan.gpus)
        try:
            plan.folder.mkdir(parents=True, exist_ok=True)
            log = open(plan.log, "a", encoding="utf-8")  # noqa: SIM115
        except OSError:
            print(f"{name}: {say('failed: {folder} cannot be made or written to', folder=plan.folder)}")
            return 2
        with log:
            # Held by the training process too, whose output goes there: one that outlived a killed grid search is
            # waited for, not joined.
            if not lock(log, wait=False):
                if sys.stderr.isatty():
                    print(f"{name}: {say('waiting for another process that runs it')}", file=sys.stderr, flush=True)
                lock(log)
            ended = ending(plan)
            status = 0 if ended else _run_until_it_fits(plan, log)
    if ended:
        print(f"{name}: {say('finished already, {ended}', ended=ended)}")
    elif status == 0:
        seconds = time.monotonic() - begin
        print(f"{name}: {say('finished, {ending}, {seconds:.0f} s', ending=ending(plan), seconds=seconds)}")
    else:
        found = Record.read(plan.folder) or Record()
        reason = found.remark
        if found.status == "running":
            reason = say("another run is writing there: {remark}", remark=found.remark)
        how = say("failed with status {status}: {reason} (log: {log})", status=status, reason=reason, log=plan.log)
        print(f"{name}: {how}")
    return status


def lock(file: IO[Any], wait: bool = True) -> bool:
    """Take the lock of an open file, which every process that inherits it holds; return whether it was to be had."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _num_micro_batches(plan: Plan) -> int:
    """Micro-batches that the flags ask for, or more where the trial or one beside it needed them to fit memory."""
    earlier = Record.read(plan.folder) or Record()
    needed = [plan.given[_MICRO_BATCHES], *_micro_batches_of(earlier)]
    trials, _ = outcomes.read_trials(plan.folder.parent, KNOWN[plan.trial.task])
    beside = [outcome.record for outcome in trials if outcome.path != plan.folder]
    own = settings_of(plan).hyper_parameters() if beside else {}
    for record in beside:
        if _is_as_large(record, plan, own):
            needed += _micro_batches_of(record)
    return max(int(micro_batches or 1) for micro_batches in needed)


def _micro_batches_of(record: Record) -> list[Any]:
    return [fields.get(_MICRO_BATCHES) for fields in (record.hyper_parameters, record.advice)]


def _is_as_large(record: Record, plan: Plan, own: Mapping[str, Any]) -> bool:
    """Whether a process of a trial beside this one, which has ``own`` settings, holds as much in memory at a time."""
    there = record.hyper_parameters
    same = all(there.get(name, own[name]) == own[name] for name in _OF_MEMORY)
    on_gpu = str(record.fields.get("device", "gpu" if plan.gpus else "cpu")).startswith("gpu")
    return record.model == plan.model and same and on_gpu == bool(plan.gpus)


def _run_until_it_fits(plan: Plan, log: IO[str]) -> int:
    """Run a trial, again with more micro-batches as long as that is advised; return the last exit status."""
    micro_batches = _num_micro_batches(plan)
    while True:
        with contextlib.suppress(Busy), locked_folder(plan.folder):  # not over the record of another run
            write_start(plan.folder, **_described(plan, micro_batches))
        before = Record.read(plan.folder)
        status = _run_once(plan, micro_batches, log)
        after = Record.read(plan.folder) or Record()
        if after.is_finished:
            return 0
        if after.status not in ("failed", "stopped") or after == before:  # it had no time to say why
            is_killed = status - 128 in [*signal.Signals]
            reason = say("ended with status {status}", status=status)
            if is_killed:
                reason = say("killed by {signal}", signal=signal.Signals(status - 128).name)
            *_, said = filter(str.strip, last_lines(plan.log, 5))
            if status and not is_killed and said not in shlex.join(command(plan, micro_batches)):
                reason = said.removeprefix("error: ")  # such as of a flag that the script does not take
            with contextlib.suppress(Busy), locked_folder(plan.folder):
                write_failure(plan.folder, reason, status or 1, **_described(plan, micro_batches))
            return status or 1
        advised = int(after.advice.get(_MICRO_BATCHES, 0))
        if advised <= micro_batches:
            return status or 1
        micro_batches = advised


def _described(plan: Plan, micro_batches: int) -> JsonObject:
    """What the record of a trial says that had no time to begin one."""
    trial = plan.trial
    values = {"batch_size": plan.batch_size, "learning_rate": trial.learning_rate, "dropout": trial.dropout}
    values |= {"seed": trial.seed, _MICRO_BATCHES: micro_batches}
    of_task = {"task": trial.task, "metric": KNOWN[trial.task].metric, "model": plan.model}
    return of_task | {"num_processes": plan.num_processes, "hyper_parameters": values}


def _run_once(plan: Plan, micro_batches: int, log: IO[str]) -> int:
    """Run the task's script, its output added to the log; return its exit status as a shell tells it."""
    launch, words, variables = plan.folder / "launch", command(plan, micro_batches), dict(os.environ)
    shutil.rmtree(launch, ignore_errors=True)
    if plan.num_processes > 1:  # nobody else's business: the launcher writes down its whole environment there
        launch.mkdir(mode=0o700)
    where = f"{time.strftime('%Y-%m-%d %H:%M:%S')} on {platform.node()}"
    if plan.gpus:
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(plan.gpus)
        where += f", GPUs {variables['CUDA_VISIBLE_DEVICES']}" + (f"; {plan.note}" if plan.note else "")
    print(f"== {where}\n{shlex.join(words)}", file=log, flush=True)
    output = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "env": variables}
    # Not close_fds: what trains on GPUs holds their locks, see schedule.free_group.
    # The launcher is kept from the signals that a terminal or GNU parallel sends to all: see _stop.
    group = os.setpgrp if plan.num_processes > 1 else None
    with child(words, functools.partial(_stop, plan), group, **output, close_fds=False) as (process, signals):
        status = process.wait()
    # The launcher shows what its first process prints; what stopped another one stands in that one's own log.
    for path in sorted(launch.glob("workerlog.[!0]*")) if status else ():
        print(*last_lines(path, 5), sep="\n", file=log, flush=True)
    for path in launch.rglob("*"):
        if path.is_file() and not path.name.startswith("workerlog."):
            path.unlink()
    if signals:
        raise SystemExit(128 + signals[-1])
    return status if status >= 0 else 128 - status


def _stop(plan: Plan, process: subprocess.Popen[str]) -> None:
    """Have a training write a checkpoint and end.

    The launcher would kill its processes half a minute after a signal. So they are told rather than the launcher, which
    ends when they have; it is told where there are none yet, or if they do not end in time.
    """
    ranks = _children(process.pid) if plan.num_processes > 1 else []
    if not ranks:
        process.terminate()
        return
    for pid in ranks:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    signal.signal(signal.SIGALRM, lambda *_: process.terminate())
    signal.alarm(SECONDS_TO_END)


def _children(parent: int) -> list[int]:
    """The processes that a process has started; none where there is no /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            _, parent_of_it, *_ = path.read_text(errors="replace").rpartition(")")[2].split()
            if int(parent_of_it) == parent:
                found.append(int(path.parent.name))
    return found


def last_lines(path: Path, number: int) -> list[str]:
    """The last lines of a log, to be shown."""
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-number:] if path.is_file() else []


@contextlib.contextmanager
def child(
    words: Sequence[str],
    stop: Callable[[subprocess.Popen[str]], None],
    prepare: Callable[[], None] | None = None,
    **options: Any,
) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Start a program; at a hang-up, Ctrl-C or SIGTERM it is stopped, and its end waited for.

    Args:
        stop: has it end; called for each signal.
        prepare: called in the new process before the program begins.
        options: of ``subprocess.Popen``.

    Yields:
        The process; the numbers of the signals that came.
    """
    process: subprocess.Popen[str] | None = None
    came: list[int] = []

    def note(number: int, _: Any) -> None:
        came.append(number)
        if process:
            stop(process)

    def begin() -> None:
        # Ctrl-C in a terminal reaches it through this process alone.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if prepare:
            prepare()

    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    # What a parent has made us ignore, such as a hang-up under nohup, stays ignored.
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    handlers = {number: signal.signal(number, note) for number in heard}
    try:
        process = subprocess.Popen(words, text=True, preexec_fn=begin, **options)
        if came:
            stop(process)
        with process:
            yield process, came
    finally:
        signal.alarm(0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
