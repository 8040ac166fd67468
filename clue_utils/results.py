"""What a run leaves behind for people and programs: ``result.json``, ``metrics.jsonl``, VisualDL scalars.

Reading imports nothing that takes long.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from clue_utils import runtime
from clue_utils.errors import UserError

RESULT_FILE = "result.json"
METRICS_FILE = "metrics.jsonl"
_LOCK_FILE = ".lock"
# What ``Run.fields`` holds before the first evaluation, beside an empty history.
NO_EVALUATION = {"best_metric": None, "best_step": None, "best_metrics": None}


def write_text_atomically(path: Path, text: str) -> None:
    """Write a file under another name and rename it, so that readers see the old or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        flush_to_disk(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Return when a file, or a folder with all in it, would outlive a power cut."""
    for place in (*path.rglob("*"), path):
        descriptor = os.open(place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of an output folder, which is made if need be; a process that dies gives it up.

    Raises:
        UserError: another run is at work there.
    """
    if runtime.rank() != 0:
        yield
        return
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / _LOCK_FILE, timeout=0):
            for leftover in folder.glob(".*.tmp"):  # of a run that was killed
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            yield
    except Timeout:
        raise UserError(f"{folder}: another run is writing there; wait for it or choose another --output_dir") from None
    finally:
        if is_new and os.listdir(folder) == [_LOCK_FILE]:  # nothing came of it
            (folder / _LOCK_FILE).unlink()
            folder.rmdir()


def read_result(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Read ``result.json`` of an output folder; None where there is none.

    Raises:
        UserError: the file is not what the scripts write.
    """
    path = Path(folder) / RESULT_FILE
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); remove it or choose another folder") from None
    if not isinstance(result, dict) or not isinstance(result.get("hyper_parameters", {}), dict):
        raise UserError(f"{path} is not a result of these scripts; remove it or choose another folder")
    return result


def _require_same_run(folder: Path, earlier: dict[str, Any], described: dict[str, Any]) -> None:
    """Refuse to go on with a run that was started with other settings."""
    before = earlier | earlier.get("hyper_parameters", {})
    now = described | described["hyper_parameters"]
    different = [
        f"{name} {before.get(name)} there, {now[name]} now"
        for name in now
        if name != "hyper_parameters" and before.get(name) != now[name]
    ]
    if different:
        raise UserError(
            f"{folder} holds a run with other settings ({'; '.join(different)}): "
            "choose another --output_dir, or start anew with --overwrite_output_dir"
        )


def _is_same_checkpoint(folder: Path, earlier: dict[str, Any], described: dict[str, Any]) -> bool:
    """Whether what a run without training finds in its output folder is of the same task and model.

    A record of evaluation or prediction alone may be replaced by another one's; that of a training run may not.
    """
    model = described["model"]
    own = earlier.get("model") == model or (
        os.path.isdir(model) and folder.is_dir() and os.path.samefile(model, folder)
    )
    if own and earlier.get("task") == described["task"]:
        return True
    if "history" in earlier:
        raise UserError(
            f"{folder} holds the training run of {earlier.get('task')} from {earlier.get('model')}: "
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

    def __init__(self, task_name: str, metric: str, args: Any, device: str) -> None:
        self.folder = Path(args.output_dir)
        self._begin = time.monotonic()
        self._writer: Any = None
        earlier = read_result(self.folder)
        described = {
            "task": task_name,
            "model": args.model_name_or_path,
            "hyper_parameters": {name: getattr(args, name) for name in args.hyper_parameters},
            "max_steps": args.max_steps,
            "num_processes": runtime.world_size(),
        }
        if args.do_train and args.overwrite_output_dir:
            self._start_anew()
            earlier = None
        if earlier and args.do_train:
            _require_same_run(self.folder, earlier, described)
        elif earlier and not _is_same_checkpoint(self.folder, earlier, described):
            earlier = None
        self.is_trained = earlier is not None and earlier.get("status") in ("trained", "finished")
        self._trains = args.do_train and not self.is_trained
        self.fields: dict[str, Any] = earlier or {
            "status": "running",
            "metric": metric,
            "device": device,
            "environment": {
                name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE") if name in os.environ
            },
            "versions": runtime.versions(),
            "num_examples": {},
            "data_sha256": {},
            **described,
        }

    def _start_anew(self) -> None:
        if runtime.rank() != 0:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in (METRICS_FILE, RESULT_FILE):
            (self.folder / name).unlink(missing_ok=True)
        for leftover in [self.folder / "visualdl", *self.folder.glob("checkpoint-*")]:
            shutil.rmtree(leftover, ignore_errors=True)

    def resume(self, fields: dict[str, Any], step: int) -> None:
        """Go back to what was recorded at a step: later lines of the metrics log are dropped."""
        self.fields |= fields
        evaluated = {entry["step"] for entry in self.fields["history"]}
        path = self.folder / METRICS_FILE
        if runtime.rank() == 0 and path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            entries = [(line, json.loads(line)) for line in lines if line.endswith("\n")]
            kept = [
                line
                for line, entry in entries
                if (entry["step"] in evaluated if entry["kind"] == "eval" else entry["step"] <= step)
            ]
            write_text_atomically(path, "".join(kept))

    def keep_evaluations(self, step: int) -> None:
        """Go back to the evaluations up to a step, and to the best of them."""
        history = [entry for entry in self.fields.get("history", []) if entry["step"] <= step]
        self.resume(NO_EVALUATION | {"history": history}, step)
        self.fields["history"] = []
        for entry in history:
            self.add_evaluation(entry["step"], {name: value for name, value in entry.items() if name != "step"})

    def add_evaluation(self, step: int, metrics: dict[str, float]) -> bool:
        """Add an evaluation to the history; return whether it is the best so far."""
        self.fields["history"].append({"step": step, **metrics})
        value, best = metrics[self.fields["metric"]], self.fields["best_metric"]
        if best is not None and value <= best:
            return False
        self.fields |= {"best_metric": value, "best_step": step, "best_metrics": metrics}
        return True

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
        self.fields["num_examples"][records.split] = len(records)
        self.fields["data_sha256"][records.split] = records.sha256

    def log(self, kind: str, step: int, values: dict[str, float]) -> None:
        """Append one line to ``metrics.jsonl`` and the scalars ``kind/name`` to VisualDL's log."""
        if runtime.rank() != 0:
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
        if runtime.rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(self.fields, ensure_ascii=False, indent=2)
            write_text_atomically(self.folder / RESULT_FILE, text + "\n")

    def finish(self, device: str) -> None:
        """Close the logs and mark the run as finished."""
        if self._writer is not None:
            self._writer.close()
        self.write(status="finished", peak_memory_bytes=runtime.peak_memory_bytes(device))
