"""Stop trials of a grid search that are clearly behind the others.

The median stopping rule (Golovin et al., "Google Vizier: A Service for Black-Box Optimization", KDD 2017, 3.2.2): a
trial ends when its best score so far is below the median of what the finished trials had scored on average up to the
same point. Points are shares of the training rather than steps, since trials differ in batch size. Trials beside
the run's own folder, of the same task, are compared. Imports no PaddlePaddle.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clue_utils import cli
from clue_utils.grid.outcomes import read_trials
from clue_utils.language import say
from clue_utils.record import Record
from clue_utils.tasks import Task

# Fewer finished trials say nothing about what is usual.
MIN_TRIALS = 3
# Scores are noise while the learning rate warms up and the head is new.
MIN_SHARE = 0.25


def finished_trials(folder: Path, task: Task) -> list[Record]:
    """The records of the trials of the task beside ``folder`` that ran to their end; damaged ones are left out."""
    own = folder.absolute()
    outcomes, _ = read_trials(own.parent, task)
    return [outcome.record for outcome in outcomes if outcome.status == "finished" and outcome.path != own]


def reason_to_stop(own: Mapping[str, Any], others: Sequence[Record]) -> str:
    """Why a trial should end at its last evaluation, or "" if it should go on.

    Args:
        own: fields of the trial's ``result.json``: metric, num_steps, history.
        others: records of the finished trials.
    """
    metric, share = own["metric"], own["history"][-1]["step"] / own["num_steps"]
    averages = []
    for other in others:
        scores = [score for step, score in other.history if step <= share * (other.num_steps or 0)]
        if scores:
            averages.append(statistics.fmean(scores))
    if share < MIN_SHARE or len(averages) < MIN_TRIALS:
        return ""
    median = statistics.median(averages)
    best = max(entry[metric] for entry in own["history"])
    # Means are rounded: an equal score is not behind.
    if best > median or math.isclose(best, median):
        return ""
    return say(
        "median rule: best {metric} {best}, median of {number} trials {median}",
        metric=metric,
        best=cli.percent(best),
        number=len(averages),
        median=cli.percent(median),
    )
