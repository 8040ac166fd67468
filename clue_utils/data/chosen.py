"""The task that a command line asks for: one of CLUE's ten, or that of a user's task file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clue_utils import task_file, tasks
from clue_utils.data.examples import find_files
from clue_utils.data.readers import labels_in
from clue_utils.errors import UserError
from clue_utils.language import say
from clue_utils.record import Record
from clue_utils.tasks import Task


def chosen(flags: Mapping[str, Any], kind: str, name: str | None) -> Task:
    """The task of a script's command line; a user's is known by its name from now on.

    Args:
        flags: flag -> value: --task_file, and --train_file and the like, whose files take the place of the task's own.
        kind: that the script runs.
        name: of the CLUE task, where no task file is given.

    Raises:
        UserError: there is no such task, its file is wrong, or it is for another script.
    """
    path = flags.get("task_file")
    task = task_file.read(path) if path else tasks.get_task(name or "")
    if task.kind != kind:
        raise UserError(
            say("--task_file {path}: its kind is {kind}: run {script}", path=path, kind=task.kind, script=task.script)
        )
    task = task_file.with_files(task, flags)
    if task.is_own:
        tasks.OWN.pop(task.name, None)  # what an earlier call in this process was told
        if kind == "classification" and not task.labels:
            task = _with_labels(task, flags)
        tasks.OWN[task.name] = task
    return task


def _with_labels(task: Task, flags: Mapping[str, Any]) -> Task:
    """The task with the labels of the checkpoint that is not to be trained any more, else of its training file."""
    model = flags.get("model_name_or_path")
    record = Record.read(model) if model and not flags.get("do_train") else None
    if record and record.task == task.name and task.name in tasks.OWN:
        return replace(task, labels=tasks.OWN[task.name].labels)
    files = find_files(task, "train", None)
    return task_file.with_labels(task, labels_in(files), ", ".join(map(str, files)))
