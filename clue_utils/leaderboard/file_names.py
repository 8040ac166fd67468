"""The leaderboard's files: what they are called, and which ids they must have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from clue_utils.data.examples import cache_dir, load_examples
from clue_utils.data.readers import blanks
from clue_utils.errors import UserError
from clue_utils.language import say
from clue_utils.tasks import DIAGNOSTICS, TASKS, Task


def submission_files() -> dict[str, tuple[Task, str]]:
    """Every file name of the leaderboard's ten tasks -> its task and test split."""
    return {name: (task, split) for task in TASKS.values() for split, name in task.submissions.items()}


def known_files() -> dict[str, tuple[Task, str]]:
    """``submission_files`` and the diagnostics set's."""
    return submission_files() | {name: (DIAGNOSTICS, split) for split, name in DIAGNOSTICS.submissions.items()}


def expected_ids(task: Task, split: str, data_dir: str | os.PathLike[str] | None) -> tuple[list[Any] | None, str]:
    """The ids of a test set in file order (tags of the blanks for CHID), and where they are from.

    Looked up in ``data_dir``, or else in what has been downloaded already; None with the reason where the files are
    not there or not readable.
    """
    root = Path(data_dir) if data_dir is not None else cache_dir() / "data"
    if data_dir is None and not (root / task.folder).is_dir():
        return None, say("no data of {name} here", name=task.name)
    try:
        examples = load_examples(task, split, root)
    except UserError as error:
        return None, str(error)
    source = examples.files[-1].name
    if task.kind == "cloze":
        return [tag for row in examples for tag in blanks(row)], source
    return [row["id"] for row in examples], source
