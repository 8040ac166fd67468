"""The leaderboard's file names."""

from __future__ import annotations

from clue_utils.tasks import DIAGNOSTICS, TASKS, Task


def submission_files() -> dict[str, tuple[Task, str]]:
    """Every file name of the leaderboard's ten tasks -> its task and test split."""
    return {name: (task, split) for task in TASKS.values() for split, name in task.submissions.items()}


def known_files() -> dict[str, tuple[Task, str]]:
    """``submission_files`` and the diagnostics set's."""
    return submission_files() | {name: (DIAGNOSTICS, split) for split, name in DIAGNOSTICS.submissions.items()}
