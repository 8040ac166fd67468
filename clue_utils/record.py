"""What a run leaves behind for people and programs: ``result.json``, ``metrics.jsonl``, VisualDL scalars.

Reading imports nothing that takes long.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from clue_utils import environment, ranks, tasks
from clue_utils.device import peak_memory_bytes
from clue_utils.errors import UserError, shorten
from clue_utils.files import write_text_atomically
from clue_utils.settings import Settings, differences

RESULT_FILE = "result.json"


METRICS_FILE = "metrics.jsonl"


WEIGHTS_FILE = "model.safetensors"


# Written by PaddleNLP's Trainer besides.
TRAINER_FILES = ("all_results.json", "train_results.json", "eval_results.json", "trainer_state.json")


# Different settings that are named in one line.
_MOST_SHOWN = 4


# What ``Run.fields`` holds before the first evaluation, beside an empty history.
NO_EVALUATION = {"best_metric": None, "best_step": None, "best_metrics": None}


def read_result(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Read ``result.json`` of an output folder; None where there is none.

    Raises:
        UserError: the file is not what the scripts write.
    """
    path = Path(folder) / RESULT_FILE
    if not os.path.isfile(path):  # false also for what can be no path
        return None
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); remove it or choose another folder") from None
    if not isinstance(result, dict) or not isinstance(result.get("hyper_parameters", {}), dict):
        raise UserError(f"{path} is not a result of these scripts; remove it or choose another folder")
    return result


def _require_same_run(
    folder: Path,
    earlier: dict[str, Any],
    described: dict[str, Any],
    remedy: str = "choose another --output_dir, or start anew with --overwrite_output_dir",
) -> None:
    """Refuse to go on with a run that was started with other settings, be it with more or fewer of them."""
    different = [
        f"{name} {shorten(there)} there, {shorten(now)} now"
        for name, (there, now) in differences(earlier, described).items()
    ]
    if different:
        more = [f"{len(different) - _MOST_SHOWN} more"] if len(different) > _MOST_SHOWN else []
        shown = "; ".join(different[:_MOST_SHOWN] + more)
        raise UserError(f"{folder} holds a run with other settings ({shorten(shown, 160)}): {remedy}")


def _is_same_checkpoint(folder: Path, earlier: dict[str, Any], described: dict[str, Any]) -> bool:
    """Whether what a run without training finds in its output folder is of the same task and model.

    A record of evaluation or prediction alone may be replaced by another one's; that of a training run may not.
    """
    model, trained_here = described["model"], "history" in earlier
    in_place = os.path.isdir(model) and folder.is_dir() and os.path.samefile(model, folder)
    if earlier.get("task") == described["task"] and (in_place or (earlier.get("model") == model and not trained_here)):
        return True
    if trained_here:
        raise UserError(
            f"{folder} holds the training run of {shorten(earlier.get('task'))} from {shorten(earlier.get('model'))}: "
            f"choose another --output_dir for {described['task']} with {model}"
        )
    return False


class Run:
    """The record of one run in its output folder; only rank 0 writes.

    ``fields`` is the content of ``result.json``. A run in the folder of an earlier one adds to what is written there:
    training that was stopped goes on, training that is done (``is_trained``) is not done again.

    Raises:
        UserError: training is asked for in a folder that holds a run with other settings.
    """

    def __init__(self, task_name: str, metric: str, args: Settings, device: str) -> None:
        self.folder = Path(args.output_dir)
        self._begin = time.monotonic()
        self._writer: Any = None
        described = {
            "task": task_name,
            **args.description(),
            "num_processes": ranks.world_size(),
        }
        if args.do_train and args.overwrite_output_dir:
            self._start_anew(args.model_name_or_path, task_name)
        earlier = read_result(self.folder)
        if earlier and args.do_train and "history" not in earlier:
            earlier = None  # of an evaluation or prediction alone
        if earlier and args.do_train:
            _require_same_run(self.folder, earlier, described)
        elif earlier and not _is_same_checkpoint(self.folder, earlier, described):
            earlier = None
        self._settings = described
        self.is_trained = earlier is not None and earlier.get("status") in ("trained", "finished")
        self._trains = args.do_train and not self.is_trained
        variables = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE") if name in os.environ}
        here = {"device": device, "environment": variables, "versions": environment.versions(), **described}
        self.fields: dict[str, Any] = {"status": "running", "metric": metric, "num_examples": {}, "data_sha256": {}}
        self.fields |= here | (earlier or {})
        if self._trains:
            self.fields |= here

    def _start_anew(self, model: str, task_name: str) -> None:
        """Remove what an earlier run has left, so that none of it can be taken for the new one's.

        The record goes last: until then the folder is the earlier run's.
        """
        if ranks.rank() != 0:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        task = tasks.TASKS[task_name]
        for leftover in [*self.folder.glob("visualdl"), *self.folder.glob("checkpoint-*")]:
            shutil.rmtree(leftover)
        names = [task.plain_submission, *task.submissions.values(), *TRAINER_FILES, METRICS_FILE, RESULT_FILE]
        if not (os.path.isdir(model) and os.path.samefile(model, self.folder)):
            names.insert(0, WEIGHTS_FILE)
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def resume(self, fields: dict[str, Any], step: int, checkpoint: Path | None = None) -> None:
        """Go back to the evaluations recorded at a step: later lines of the metrics log are dropped.

        Args:
            fields: "history" and those of ``NO_EVALUATION``; "settings" of the run that recorded them, if known.
            checkpoint: what the user has named to go on from, if anything.

        Raises:
            UserError: those are not this run's settings.
        """
        recorded = fields.get("settings", self._settings)
        if checkpoint:
            _require_same_run(checkpoint, recorded, self._settings, "give the same, or drop --resume_from_checkpoint")
        else:
            _require_same_run(self.folder, recorded, self._settings)
        self.fields |= {name: fields[name] for name in ("history", *NO_EVALUATION)}
        evaluated = {entry["step"] for entry in self.fields["history"]}
        path = self.folder / METRICS_FILE
        if ranks.rank() == 0 and path.is_file():
            kept = []
            for line in path.read_bytes().splitlines(keepends=True):
                try:
                    entry = json.loads(line)
                    if entry["step"] in evaluated if entry["kind"] == "eval" else entry["step"] <= step:
                        kept.append(line.decode())
                except (ValueError, TypeError, KeyError):  # the machine stopped while it was written
                    continue
            write_text_atomically(path, "".join(kept))

    def state(self) -> dict[str, Any]:
        """What ``resume`` takes to come back to this moment."""
        return {"settings": self._settings} | {name: self.fields[name] for name in ("history", *NO_EVALUATION)}

    def add_evaluation(self, step: int, metrics: dict[str, float]) -> bool:
        """Add an evaluation to the history; return whether it is the best so far."""
        self.fields["history"].append({"step": step, **metrics})
        value, best = metrics[self.fields["metric"]], self.fields["best_metric"]
        if best is not None and value <= best:
            return False
        self.fields |= {"best_metric": value, "best_step": step, "best_metrics": metrics}
        return True

    def set_best(self, step: int) -> None:
        """Have ``best_metric`` and the like speak of the evaluation at a step: its checkpoint is what is kept."""
        for entry in self.fields["history"]:
            if entry["step"] == step:
                metrics = {name: value for name, value in entry.items() if name != "step"}
                self.fields |= {
                    "best_metric": metrics[self.fields["metric"]],
                    "best_step": step,
                    "best_metrics": metrics,
                }

    def record_members(self, members: list[str]) -> None:
        """Note the checkpoints of an ensemble; an evaluation of other members is forgotten."""
        if self.fields.pop("ensemble", members[:1]) != members:
            self.fields.pop("evaluation", None)
        if len(members) > 1:
            self.fields["ensemble"] = members

    def record_data(self, records: Any) -> None:
        """Note size and checksum of a split.

        Raises:
            UserError: an unfinished training run was started with other data.
        """
        before = self.fields["data_sha256"].get(records.split)
        if self._trains and before not in (None, records.sha256):
            raise UserError(
                f"{self.folder}: the {records.split} data is not what this run was started with; "
                "give the same --data_dir, or start anew with --overwrite_output_dir"
            )
        if not self._trains and "history" in self.fields and before is not None:
            return  # what the training was scored on stays on record
        self.fields["num_examples"][records.split] = len(records)
        self.fields["data_sha256"][records.split] = records.sha256

    def log(self, kind: str, step: int, values: dict[str, float]) -> None:
        """Append one line to ``metrics.jsonl`` and the scalars ``kind/name`` to VisualDL's log."""
        if ranks.rank() != 0:
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
        self._begin = time.monotonic()
        if ranks.rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(self.fields, ensure_ascii=False, indent=2)
            write_text_atomically(self.folder / RESULT_FILE, text + "\n")

    def finish(self, device: str) -> None:
        """Close the logs and mark the run as finished, unless it is a training that was only looked at."""
        if self._writer is not None:
            self._writer.close()
        unfinished = "history" in self.fields and self.fields["status"] == "running"
        status = {} if unfinished else {"status": "finished"}
        self.write(**status, peak_memory_bytes=peak_memory_bytes(device))
