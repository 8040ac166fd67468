"""What a run leaves behind for people and programs: ``result.json``, ``metrics.jsonl``, VisualDL scalars.

Reading needs the standard library alone.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from clue_utils import runtime
from clue_utils.errors import UserError

RESULT_FILE = "result.json"
METRICS_FILE = "metrics.jsonl"


def write_text_atomically(path: Path, text: str) -> None:
    """Write a file under another name and rename it, so that readers see the old or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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


class Run:
    """The record of one run in its output folder; only rank 0 writes.

    ``fields`` is the content of ``result.json``. A run that evaluates or predicts in the folder of its own checkpoint
    adds to what training wrote there.

    Raises:
        UserError: training is asked for in a folder that holds a finished training run.
    """

    def __init__(self, task_name: str, metric: str, args: Any, device: str) -> None:
        self.folder = Path(args.output_dir)
        self._begin = time.time()
        self._writer: Any = None
        earlier = read_result(self.folder)
        if args.do_train and not args.overwrite_output_dir and earlier and earlier.get("status") == "finished":
            raise UserError(
                f"{self.folder} holds a finished run of {earlier.get('task')}: "
                "choose another --output_dir, or start anew with --overwrite_output_dir"
            )
        if runtime.rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            if args.do_train:
                (self.folder / METRICS_FILE).unlink(missing_ok=True)
        keep = earlier is not None and not args.do_train
        self.fields: dict[str, Any] = (earlier or {}) if keep else {}
        if not keep:
            self.fields |= {
                "status": "running",
                "task": task_name,
                "model": args.model_name_or_path,
                "metric": metric,
                "hyper_parameters": {name: getattr(args, name) for name in args.hyper_parameters},
                "max_steps": args.max_steps,
                "num_processes": runtime.world_size(),
                "device": device,
                "environment": {
                    name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE") if name in os.environ
                },
                "versions": runtime.versions(),
                "num_examples": {},
                "data_sha256": {},
            }

    def record_data(self, records: Any) -> None:
        """Note size and checksum of a split."""
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
        self.fields["wall_time"] = self.fields.get("wall_time", 0.0) + time.time() - self._begin
        self._begin = time.time()
        if runtime.rank() == 0:
            text = json.dumps(self.fields, ensure_ascii=False, indent=2)
            write_text_atomically(self.folder / RESULT_FILE, text + "\n")

    def finish(self, device: str) -> None:
        """Close the logs and mark the run as finished."""
        if self._writer is not None:
            self._writer.close()
        self.write(status="finished", peak_memory_bytes=runtime.peak_memory_bytes(device))
