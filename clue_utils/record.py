"""What a run leaves behind for people and programs: ``result.json``, ``metrics.jsonl``, VisualDL scalars.

Reading imports nothing that takes long.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from clue_utils import cli, environment, ranks, task_file, tasks
from clue_utils.errors import Ending, Stopped, UserError, ending_of, first_line, one_line, shorten
from clue_utils.files import digest_of, write_text_atomically
from clue_utils.language import later, say
from clue_utils.settings import Settings, differences
from clue_utils.strict_json import JsonObject, NotJson, parse

T = TypeVar("T")
# What a record says, or a part of it: name -> value, as JSON has it.
Fields = Mapping[str, Any]
RESULT_FILE = "result.json"
METRICS_FILE = "metrics.jsonl"
WEIGHTS_FILE = "model.safetensors"
PREDICTIONS_FILE = "dev_predictions.jsonl"
# Written by PaddleNLP's Trainer besides.
TRAINER_FILES = ("all_results.json", "train_results.json", "eval_results.json", "trainer_state.json")
# Different settings that are named in one line.
_MOST_SHOWN = 4
# What ``Run.fields`` holds before the first evaluation, beside an empty history.
NO_EVALUATION = {"best_metric": None, "best_step": None, "best_metrics": None}
# What is told of the answers to the development set: which file holds them, and how classes were told apart.
_OF_ANSWERS = ("dev_predictions", "classes", "confusion")
# Seconds from one sign of life of a run to the next, and after how many without one a run on another machine counts as
# dead: loading a model, or the answers of a large test set, may take minutes.
SIGN_INTERVAL, LONGEST_SILENCE = 30.0, 600.0
# Fields that stand in a record only while its run is at work, and those that say how it ended if it did not finish.
_OF_WORK = ("progress", "last_seen", "process")
_OF_FAILURE = ("reason", "exit_status", "advice", "is_trained")


@dataclass(frozen=True)
class Record:
    """What ``result.json`` says of a run, checked once for all who read it.

    Attributes:
        folder: where it lies.
        fields: all that is in it.
        status: "finished"; "pruned" (finished, its training ended early); "running" (at work); "killed" (its process is
            gone, or was not seen for ``LONGEST_SILENCE`` on another machine); "stopped" (by a signal); or "failed".
        remark: what there is to say of that in one line: the reason of a failure with its advice, how far a run is.
        is_trained: training is done, whatever came after it.
        score: the best development score so far, a fraction, by ``metric``.
        metrics: all metrics at that step, fractions (``loss`` is a loss).
        history: (step, score) of each evaluation.
        classes: name of a class -> precision, recall, f1 (fractions) and num_gold, of a classification task.
        confusion: gold class -> class answered -> how often; zeros are left out.
        dev_predictions: what ``dev_predictions.read`` knows the file of answers by.
        progress: of a run at work or cut off: step and num_steps, and what ``Run.show_progress`` is told besides.
        num_steps: steps of the whole training, where that is known.
        num_dev: examples of the development set.
        data_sha256: split -> checksum.
        predictions: name of a file for the leaderboard -> its ``sha256``, the test set's ``data_sha256`` and the
            ``checkpoints`` that made it.
        evaluation: metrics of the last evaluation by itself, fractions (``loss`` is a loss).
        wall_time: seconds.
        last_seen: when a run that is at work, or was cut off, wrote its record last.
        begun, ended: when the newest part of the training began, imports and the model's loading behind it, and when
            it ended, be it by a failure.
        advice: flag (without dashes) -> the value with which a failed run may succeed.
    """

    folder: Path = Path()
    fields: Fields = field(default_factory=dict)
    status: str = ""
    remark: str = ""
    is_trained: bool = False
    task: str | None = None
    model: str | None = None
    metric: str | None = None
    hyper_parameters: Fields = field(default_factory=dict)
    num_processes: int = 1
    score: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    history: tuple[tuple[int, float], ...] = ()
    classes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    confusion: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    dev_predictions: Fields = field(default_factory=dict)
    progress: Mapping[str, float] = field(default_factory=dict)
    num_steps: int | None = None
    num_dev: int | None = None
    data_sha256: Fields = field(default_factory=dict)
    predictions: Fields = field(default_factory=dict)
    evaluation: Mapping[str, float] = field(default_factory=dict)
    wall_time: float = 0.0
    last_seen: datetime | None = None
    begun: datetime | None = None
    ended: datetime | None = None
    advice: Fields = field(default_factory=dict)

    @property
    def is_finished(self) -> bool:
        return self.status in ("finished", "pruned")

    @property
    def holds_training(self) -> bool:
        """Whether a training has begun there, be it done or not: it is no record of evaluation or prediction alone."""
        return "history" in self.fields

    @property
    def learnt_dev(self) -> bool:
        """Whether the development set was trained on, so that a score on it says nothing."""
        return self.hyper_parameters.get("train_on_dev") is True

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Record | None:
        """The record of an output folder; None where there is none.

        Raises:
            UserError: the file is damaged, or holds what the scripts never write.
        """
        path = Path(folder) / RESULT_FILE
        if not os.path.isfile(path):  # false also for what can be no path
            return None
        try:
            fields, _ = parse(path.read_bytes(), allow_nan=True)
        except FileNotFoundError:
            return None
        except NotJson as error:
            raise UserError(
                say("{path} is damaged ({error}); remove it or choose another folder", path=path, error=error)
            ) from None
        try:
            return cls._of(path.parent, fields)
        except _Impossible as error:
            raise cls(path.parent).refusal(str(error)) from None

    def refusal(self, what: str) -> UserError:
        """The error of a reader who cannot do with this record."""
        path = self.folder / RESULT_FILE
        return UserError(
            say(
                "{path} is not a result of these scripts ({what}); remove it or choose another folder",
                path=path,
                what=what,
            )
        )

    def number(self, name: str) -> float:
        """A hyper-parameter that has to be a number.

        Raises:
            UserError: it is not.
        """
        try:
            return _number(self.hyper_parameters, name)
        except _Impossible as error:
            raise self.refusal(str(error)) from None

    @classmethod
    def _of(cls, folder: Path, fields: Any) -> Record:
        if not isinstance(fields, dict):
            raise _Impossible(say("no object"))
        task, model, stage = (_text(fields, name) for name in ("task", "model", "status"))
        if "task_definition" in fields:
            try:
                task_file.know(fields["task_definition"], folder / RESULT_FILE)
            except ValueError as error:
                raise _Impossible(str(error)) from None
        metric = _text(fields, "metric") or ""
        best, num_steps, counts = fields.get("best_metric"), fields.get("num_steps"), _object(fields, "num_examples")
        score = None if best is None else _fractions({metric: best}, "best_metric")[metric]
        lines = [_fractions(line, "history") for line in _typed(fields, "history", list) or []]
        status, remark = _status(fields, stage)
        return cls(
            folder=folder,
            fields=fields,
            status=status,
            remark=remark,
            is_trained=_is_trained(fields),
            task=task,
            model=model,
            metric=metric or None,
            hyper_parameters=_object(fields, "hyper_parameters"),
            num_processes=max(1, int(_number(fields, "num_processes", 1))),
            score=score,
            metrics=_fractions(_object(fields, "best_metrics"), "best_metrics"),
            history=tuple((int(_number(line, "step")), line[metric]) for line in lines if metric in line),
            classes={name: _class_figures(value) for name, value in _object(fields, "classes").items()},
            confusion={name: _counts(value) for name, value in _object(fields, "confusion").items()},
            dev_predictions=_object(fields, "dev_predictions"),
            progress=_numbers(fields, "progress"),
            num_steps=None if num_steps is None else int(_number(fields, "num_steps")),
            num_dev=int(_number(counts, "dev")) if counts.get("dev") else None,
            data_sha256=_object(fields, "data_sha256"),
            predictions=_object(fields, "predictions"),
            evaluation=_metrics(_object(fields, "evaluation")),
            wall_time=float(_number(fields, "wall_time", 0.0)),
            last_seen=_time(fields, "last_seen"),
            begun=_time(fields, "begun"),
            ended=_time(fields, "ended"),
            advice=_object(fields, "advice"),
        )


class _Impossible(ValueError):
    """What the scripts never write."""


def _typed(holder: Fields, name: str, kind: type[T]) -> T | None:
    value = holder.get(name)
    if not (value is None or isinstance(value, kind)):
        raise _Impossible(say("{name} is {value}", name=name, value=shorten(value, 40)))
    return value


def _text(holder: Fields, name: str) -> str | None:
    return _typed(holder, name, str)


def _time(holder: Fields, name: str) -> datetime | None:
    value = _text(holder, name)
    if value is None:
        return None
    with contextlib.suppress(ValueError):
        if (found := datetime.fromisoformat(value)).tzinfo:
            return found
    raise _Impossible(say("{name} is {value}", name=name, value=shorten(value, 40)))


def _object(holder: Fields, name: str) -> JsonObject:
    return _typed(holder, name, dict) or {}


def _number(holder: Fields, name: str, default: float | None = None) -> Any:
    value = holder.get(name, default)
    if not _is_number(value) or value < 0:
        raise _Impossible(say("{name} is {value}", name=name, value=shorten(value, 40)))
    return value


def _numbers(holder: Fields, name: str) -> dict[str, float]:
    """The fields of an object that are numbers of at least 0: of a loss that is none, nothing is known."""
    values = _object(holder, name)
    return {key: value for key, value in values.items() if _is_number(value) and value >= 0}


def _fractions(holder: Any, what: str) -> dict[str, float]:
    if not isinstance(holder, dict):
        raise _Impossible(say("{what} holds {holder}", what=what, holder=shorten(holder, 40)))
    for name, value in holder.items():
        if name not in ("loss", "step") and not (_is_number(value) and 0 <= value <= 1):
            raise _Impossible(say("{name} in {what} is not between 0 and 1", name=shorten(name, 40), what=what))
    return holder


def _metrics(evaluation: JsonObject) -> dict[str, float]:
    """An evaluation without its size, which stands there where not all examples were used."""
    return _fractions({name: value for name, value in evaluation.items() if name != "num_examples"}, "evaluation")


def _class_figures(value: Any) -> dict[str, float]:
    if not isinstance(value, dict):
        raise _Impossible(say("classes holds {value}", value=shorten(value, 40)))
    figures = _fractions({name: v for name, v in value.items() if name != "num_gold"}, "classes")
    if missing := [name for name in ("precision", "recall", "f1") if name not in figures]:
        raise _Impossible(say("classes has no {missing}", missing=missing[0]))
    return {**figures, "num_gold": _number(value, "num_gold")}


def _counts(value: Any) -> dict[str, int]:
    if not isinstance(value, dict) or not all(type(count) is int and count >= 0 for count in value.values()):
        raise _Impossible(say("confusion holds {value}", value=shorten(value, 40)))
    return value


def _is_number(value: object) -> bool:
    """Whether a value is a number that sums of such numbers can be made of."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15


def _status(fields: Fields, stage: str | None) -> tuple[str, str]:
    """Status and remark of a record, from where its run was when it wrote last."""
    if stage == "finished":
        pruned = fields.get("pruned")
        if pruned is None:
            return "finished", ""
        return "pruned", _remark_of_pruned(pruned) if isinstance(pruned, dict) else str(pruned)
    if stage in ("failed", "stopped"):
        flags = " ".join(f"--{name} {value}" for name, value in _object(fields, "advice").items())
        reason = _text(fields, "reason") or say("no reason given")
        return stage, say("{reason} (advice: {flags})", reason=reason, flags=flags) if flags else reason
    if stage not in ("running", "trained", None):
        raise _Impossible(say("status is {stage}", stage=shorten(stage, 40)))
    process, progress, seen = _object(fields, "process"), _object(fields, "progress"), _time(fields, "last_seen")
    where = say(" on {host}", host=_text(process, "host")) if process else ""
    step = say("before the first step")
    if progress:
        numbers = {name: _number(progress, name) for name in ("step", "num_steps")}
        step = say("step {step:.0f} of {num_steps:.0f}", **numbers)
    if seen is None:
        return "killed", say("no sign of life; the same command goes on")
    silence = max(0.0, (datetime.now(timezone.utc) - seen).total_seconds())
    if _is_alive(process, silence):
        return "running", say("{step}, seen {silence:.0f} s ago{where}", step=step, silence=silence, where=where)
    time = seen.isoformat(timespec="seconds")
    return "killed", say("{step}, last seen {seen}{where}; the same command goes on", step=step, seen=time, where=where)


def _remark_of_pruned(pruned: Fields) -> str:
    where = say("at step {step}", step=pruned.get("step"))
    return say("{title}: {text}", title=where, text=pruned["rule"]) if "rule" in pruned else where


def _is_trained(fields: Fields) -> bool:
    return fields.get("status") in ("trained", "finished") or fields.get("is_trained") is True


def _is_alive(process: Fields, silence: float) -> bool:
    started = process.get("started")
    if started is not None and {name: process.get(name) for name in ("host", "namespace")} == _this_machine():
        return _start_of(int(_number(process, "pid"))) == started
    return silence < LONGEST_SILENCE


def _this_machine() -> JsonObject:
    """Where the number of a process is that of one; a host's name alone does not tell its containers apart."""
    namespace = None
    with contextlib.suppress(OSError):
        namespace = os.stat("/proc/self/ns/pid").st_ino
    return {"host": platform.node(), "namespace": namespace}


def _start_of(pid: int) -> int | None:
    """When a process of this machine was started, in its clock's ticks; None if it has ended or there is no /proc.

    With it, a number that was given to another process since is not taken for the same one.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()  # before it the program's name, which may hold anything
    return None if state in "ZX" else int(rest[18])


def _sign_of_life() -> JsonObject:
    process = {**_this_machine(), "pid": os.getpid(), "started": _start_of(os.getpid())}
    return {"last_seen": _now(), "process": process}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def write_start(folder: Path, **described: Any) -> None:
    """Record that a run is about to begin, and until it does that this process is at work on it.

    What has finished stays as it is, and so does advice, until the run has taken it. Arguments and errors as of
    ``write_failure``.
    """
    if (fields := _unfinished(folder, described)) is not None:
        gone = {*_OF_WORK, *_OF_FAILURE, "begun", "ended"} - {"advice"}
        kept = {name: value for name, value in fields.items() if name not in gone}
        _write(folder, kept | _done(fields) | {"status": "running"} | _sign_of_life())


def write_failure(folder: Path, reason: str, exit_status: int, advice: Fields | None = None, **described: Any) -> None:
    """Record that a run failed which cannot do so itself any more; one that has finished stays as it is.

    Args:
        reason: in one line.
        advice: flag (without dashes) -> the value with which it may succeed.
        described: fields of a record that has no training in it yet: task, model, hyper_parameters and the like.

    Raises:
        UserError: the record there is damaged.
    """
    if (fields := _unfinished(folder, described)) is not None:
        _write(folder, fields | _failure(fields, Ending(reason, exit_status, advice=advice or {})))


def _unfinished(folder: Path, described: Fields) -> JsonObject | None:
    """What the record of a folder says, with ``described`` where no training is in it; None of a finished run."""
    record = Record.read(folder) or Record(folder)
    return None if record.is_finished else {**record.fields, **({} if record.holds_training else described)}


def _done(fields: Fields) -> JsonObject:
    """The field that says of a run which is to end otherwise than finished that its training is done."""
    return {"is_trained": True} if _is_trained(fields) else {}


def _failure(fields: Fields, ending: Ending) -> JsonObject:
    """The fields that say how a run ended that did not finish."""
    return {
        "status": "stopped" if ending.is_stop else "failed",
        "reason": one_line(ending.reason),
        "exit_status": ending.exit_status,
        "advice": dict(ending.advice),
        "ended": _now(),
    } | _done(fields)


def _write(folder: Path, fields: Fields) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomically(folder / RESULT_FILE, json.dumps(fields, ensure_ascii=False, indent=2) + "\n")


def trained_with(name_or_path: str, task: tasks.Task) -> Fields:
    """The hyper-parameters that a checkpoint was trained with; none where it was not trained on this task here."""
    found = Record.read(name_or_path)
    return found.hyper_parameters if found and found.task == task.name else {}


def require_trained_for(name_or_path: str, task: tasks.Task) -> None:
    """Refuse a checkpoint that was fine-tuned for another task, where it is to answer.

    Raises:
        UserError: it was.
    """
    trained_on = record.task if (record := Record.read(name_or_path)) else None
    if trained_on not in (None, task.name):
        raise UserError(
            say(
                "{name_or_path} was fine-tuned for {trained_on}: it has no head for {name}; name a checkpoint "
                "fine-tuned for that, or fine-tune this one with --do_train",
                name_or_path=name_or_path,
                trained_on=shorten(trained_on),
                name=task.name,
            )
        )


def _require_same_run(
    folder: Path,
    earlier: JsonObject,
    described: JsonObject,
    remedy: str = later("choose another --output_dir, or start anew with --overwrite_output_dir"),
) -> None:
    """Refuse to go on with a run that was started with other settings, be it with more or fewer of them."""
    different = [
        say("{name} {there} there, {now} now", name=name, there=shorten(there), now=shorten(now))
        for name, (there, now) in differences(earlier, described).items()
    ]
    if different:
        number = len(different) - _MOST_SHOWN
        more = [say("{number} more", number=number)] if number > 0 else []
        shown = say("; ").join(different[:_MOST_SHOWN] + more)
        raise UserError(
            say(
                "{folder} holds a run with other settings ({shown}): {remedy}",
                folder=folder,
                shown=shorten(shown, 160),
                remedy=say(remedy),
            )
        )


def _is_same_checkpoint(folder: Path, earlier: JsonObject, described: JsonObject) -> bool:
    """Whether what a run without training finds in its output folder is of the same task and model.

    A record of evaluation or prediction alone may be replaced by another one's; that of a training run may not.
    """
    model, trained_here = described["model"], "history" in earlier
    in_place = _is_same_folder(model, folder)
    if earlier.get("task") == described["task"] and (in_place or (earlier.get("model") == model and not trained_here)):
        return True
    if trained_here:
        raise UserError(
            say(
                "{folder} holds the training run of {task_there} from {model_there}: choose another --output_dir for "
                "{task} with {model}",
                folder=folder,
                task_there=shorten(earlier.get("task")),
                model_there=shorten(earlier.get("model")),
                task=described["task"],
                model=model,
            )
        )
    return False


def _is_same_folder(model: str, folder: Path) -> bool:
    return os.path.isdir(model) and folder.is_dir() and os.path.samefile(model, folder)


class Run:
    """The record of one run in its output folder; only rank 0 writes.

    ``fields`` is the content of ``result.json``. A run in the folder of an earlier one adds to what is written there:
    training that was stopped goes on, training that is done (``is_trained``) is not done again.

    A training run tells there from ``begin`` on that it is at work, and with ``recorded`` how it ended. One without
    training, or whose training had finished before, leaves what is told of an earlier run alone until it has something
    to put in its place.

    Raises:
        UserError: training is asked for in a folder that holds a run with other settings.
    """

    def __init__(self, task_name: str, metric: str, args: Settings, device: str, card: Fields | None = None) -> None:
        self.folder = Path(args.output_dir)
        self._begin = time.monotonic()
        self._seen = -SIGN_INTERVAL
        self._writer: Any = None
        described = {"task": task_name, **args.description(), "num_processes": ranks.world_size()}
        self._replaces = args.do_train and args.overwrite_output_dir
        there = None if self._replaces else Record.read(self.folder)
        earlier = dict(there.fields) if there else None
        if earlier and args.do_train and "history" not in earlier:
            earlier = None  # of an evaluation or prediction alone, or it failed before it began to train
        if earlier and args.do_train:
            _require_same_run(self.folder, earlier, described)
        elif earlier and not _is_same_checkpoint(self.folder, earlier, described):
            earlier = None
        self._settings = described
        self._base_sha256: str | None = None
        self.is_trained = bool(earlier and there and there.is_trained)
        self._trains = args.do_train and not self.is_trained
        self._looks_on = not args.do_train and "history" in (earlier or {}) and not self.is_trained
        self._is_new = earlier is None
        is_kept = bool(there and there.is_finished) or (self._replaces and (self.folder / RESULT_FILE).exists())
        # In its model's folder a new run is told of when it trains: the model would be taken for trained as it says.
        in_place = self._is_new and _is_same_folder(args.model_name_or_path, self.folder)
        self._is_told = args.do_train and not is_kept and not in_place  # whether the record tells of this run
        variables = environment.decisive_variables()
        here = {"device": device, "environment": variables, "versions": environment.versions(), **described}
        here |= {"card": card} if card else {}
        if task_name in tasks.OWN:
            here["task_definition"] = task_file.description(tasks.OWN[task_name])
        self.fields: JsonObject = {"status": "running", "metric": metric, "num_examples": {}, "data_sha256": {}}
        self.fields |= here | (earlier or {})
        if self._trains:
            self._forget("card")  # of where an earlier part was trained
            self.fields |= here
        if self._is_told:
            self._forget(*_OF_WORK, *_OF_FAILURE)
            self.fields["status"] = "trained" if self.is_trained else "running"
        if self._trains or self._is_told:
            self._forget("ended")
            self.fields["begun"] = _now()

    def _forget(self, *names: str) -> None:
        for name in names:
            self.fields.pop(name, None)

    def begin(self) -> None:
        """Take the folder: remove an earlier run if it is to be replaced, and show that this one is at work."""
        if self._replaces:
            self._remove_earlier()
            self._is_told = not _is_same_folder(self.fields["model"], self.folder)
        if self._is_told:
            self.write()

    def _remove_earlier(self) -> None:
        """Remove what an earlier run has left, so that none of it can be taken for the new one's.

        The record goes last: until then the folder is the earlier run's.
        """
        if not ranks.is_first():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        task, model = tasks.KNOWN[self.fields["task"]], self.fields["model"]
        for leftover in [*self.folder.glob("visualdl"), *self.folder.glob("checkpoint-*")]:
            shutil.rmtree(leftover)
        names = [task.plain_submission, *task.submissions.values(), *TRAINER_FILES, PREDICTIONS_FILE]
        names += [tasks.probabilities_name(name) for name in task.submissions.values()]
        names += [METRICS_FILE, RESULT_FILE]
        if not _is_same_folder(model, self.folder):
            names.insert(0, WEIGHTS_FILE)
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def resume(self, fields: JsonObject, step: int, checkpoint: Path | None = None) -> None:
        """Go back to the evaluations recorded at a step: later lines of the metrics log are dropped.

        Where the record tells of another best, the run has none for now: the weights that are kept are of a later
        evaluation, which comes again.

        Args:
            fields: "history" and those of ``NO_EVALUATION``; "settings" of the run that recorded them, if known, and
                "base_sha256" where it trained adapters.
            checkpoint: what the user has named to go on from, if anything.

        Raises:
            UserError: those are not this run's settings, or another base of adapters.
        """
        recorded = fields.get("settings", self._settings)
        if checkpoint:
            _require_same_run(
                checkpoint, recorded, self._settings, later("give the same, or drop --resume_from_checkpoint")
            )
        else:
            _require_same_run(self.folder, recorded, self._settings)
        if step and fields.get("base_sha256") != self._base_sha256:
            raise UserError(
                say(
                    "{checkpoint}: its adapters were trained on other weights than those that they are to stand on "
                    "now: put back the former, or start anew with --overwrite_output_dir",
                    checkpoint=checkpoint or self.folder,
                )
            )
        kept_step = self.fields.get("best_step")
        self.fields |= {name: fields[name] for name in ("history", *NO_EVALUATION)}
        evaluated = {entry["step"] for entry in self.fields["history"]}
        if self.fields["best_step"] != kept_step:
            self.fields |= NO_EVALUATION
            self._forget(*_OF_ANSWERS)
        path = self.folder / METRICS_FILE
        if ranks.is_first() and path.is_file():
            kept = []
            for line in path.read_bytes().splitlines(keepends=True):
                try:
                    entry = json.loads(line)
                    if entry["step"] in evaluated if entry["kind"] == "eval" else entry["step"] <= step:
                        kept.append(line.decode())
                except (ValueError, TypeError, KeyError):  # the machine stopped while it was written
                    continue
            write_text_atomically(path, "".join(kept))

    def state(self) -> JsonObject:
        """What ``resume`` takes to come back to this moment."""
        kept = {name: self.fields[name] for name in ("history", *NO_EVALUATION)}
        return {"settings": self._settings, "base_sha256": self._base_sha256} | kept

    def add_evaluation(self, step: int, metrics: dict[str, float]) -> bool:
        """Add an evaluation to the history; return whether it is the best so far."""
        self.fields["history"].append({"step": step, **metrics})
        best = self.fields["best_metric"]
        if best is not None and metrics[self.fields["metric"]] <= best:
            return False
        self.set_best(step)
        return True

    def set_best(self, step: int) -> None:
        """Have ``best_metric`` and the like speak of the evaluation at a step: its checkpoint is what is kept."""
        for entry in self.fields["history"]:
            if entry["step"] == step:
                metrics = {name: value for name, value in entry.items() if name != "step"}
                best = {"best_metric": metrics[self.fields["metric"]], "best_step": step, "best_metrics": metrics}
                self.fields |= best

    def summary(self) -> str:
        """The best evaluation in one line."""
        metric, best, step = (self.fields[name] for name in ("metric", "best_metric", "best_step"))
        if best is None:
            return "the last weights are kept, and no score: the development set was trained on"
        return f"best {metric}: {cli.percent(best)} at step {step}"

    def record_members(self, members: list[str]) -> None:
        """Note the checkpoints of an ensemble; an evaluation of other members is forgotten."""
        if self.fields.pop("ensemble", members[:1]) != members:
            self._forget("evaluation", *_OF_ANSWERS)
        if len(members) > 1:
            self.fields["ensemble"] = members

    def record_predictions(self, paths: list[Path], made: JsonObject) -> None:
        """Note what made files that are written for the leaderboard; on rank 0."""
        of_files = {path.name: {"sha256": digest_of(path), **made} for path in paths}
        self.fields["predictions"] = self.fields.get("predictions", {}) | of_files

    def record_data(self, examples: Any) -> None:
        """Note size and checksum of a split.

        Raises:
            UserError: an unfinished training run was started with other data.
        """
        before = self.fields["data_sha256"].get(examples.split)
        if self._trains and before not in (None, examples.sha256):
            raise UserError(
                say(
                    "{folder}: the {split} data is not what this run was started with; give the same --data_dir, "
                    "or start anew with --overwrite_output_dir",
                    folder=self.folder,
                    split=examples.split,
                )
            )
        if not self._trains and "history" in self.fields and before is not None:
            return  # what the training was scored on stays on record
        self.fields["num_examples"][examples.split] = len(examples)
        self.fields["data_sha256"][examples.split] = examples.sha256

    def record_base(self, sha256: str | None) -> None:
        """Note what the adapters that are trained stand on, see ``lora.digest``; None: there are none."""
        self._base_sha256 = sha256

    def log(self, kind: str, step: int, values: dict[str, float]) -> None:
        """Append one line to ``metrics.jsonl`` and the scalars ``kind/name`` to VisualDL's log."""
        if not ranks.is_first():
            return
        with open(self.folder / METRICS_FILE, "a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        if self._writer is None:
            from visualdl import LogWriter

            self._writer = LogWriter(logdir=str(self.folder / "visualdl"))
        for name, value in values.items():
            self._writer.add_scalar(tag=f"{kind}/{name}", step=step, value=value)

    def write(self, **fields: Any) -> None:
        """Update ``result.json``."""
        self.fields |= fields
        self.fields["wall_time"] = self.fields.get("wall_time", 0.0) + time.monotonic() - self._begin
        self._begin = self._seen = time.monotonic()
        self._is_told = self._is_told or self._is_new
        if self._is_told and self.fields["status"] != "finished":
            self.fields |= _sign_of_life()
        if ranks.is_first():
            _write(self.folder, self.fields)

    def show_progress(self, step: int, num_steps: int, **pace: float | None) -> None:
        """Note how far the training is, for the next sign of life.

        Args:
            pace: what more is known: "loss", "steps_per_second", "seconds_left" (evaluations to come included).
        """
        known = {name: value for name, value in pace.items() if value is not None}
        self.fields["progress"] = {"step": step, "num_steps": num_steps, **known}
        self.sign_of_life()

    def sign_of_life(self) -> None:
        """Show that the run is still at work, if it is some time since it last did; to be called often."""
        if self._is_told and time.monotonic() - self._seen >= SIGN_INTERVAL:
            with contextlib.suppress(OSError):  # what comes of the run is written without fail
                self.write()

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Record how the block ended if an exception ends it, which goes on.

        A rank other than the first records its failure too, since that ends the first one before it knows why.
        """
        try:
            yield
        except (Exception, KeyboardInterrupt, Stopped) as error:
            with contextlib.suppress(OSError, UserError):
                self._record_end(error)
            raise

    def _record_end(self, error: BaseException) -> None:
        ending = ending_of(error) or Ending(f"{type(error).__name__}: {first_line(error)}", 1)
        if not self._is_told:
            return
        if not ranks.is_first():
            if not ending.is_stop:
                write_failure(self.folder, ending.reason, ending.exit_status, ending.advice, **self._settings)
            return
        there = Record.read(self.folder) if ranks.world_size() > 1 else None
        if not (there and there.status == "failed"):
            self.write(**_failure(self.fields, ending))

    def finish(self, peak_memory_bytes: int) -> None:
        """Close the logs and mark the run as finished, unless it is a training that was only looked at."""
        if self._writer is not None:
            self._writer.close()
        if not self._looks_on:
            self._forget(*_OF_WORK, *_OF_FAILURE)
            self.fields |= {"status": "finished"} | ({"ended": _now()} if self._is_told else {})
        self.write(peak_memory_bytes=peak_memory_bytes)
