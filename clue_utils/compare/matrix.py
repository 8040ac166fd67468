"""The comparison of every model with every other one, as data for a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clue_utils.compare.pairs import Side, compare_sides, side_of
from clue_utils.errors import UserError
from clue_utils.report.collect import ModelReport

# Fewer than of a comparison of its own, as nine models make 36 pairs: ends of intervals move by some 2 % of the width.
_NUM_DRAWS = 2_000


@dataclass(frozen=True)
class Cell:
    """A model beside another one: its scores minus the other's, fractions.

    Attributes:
        average, low, high: mean difference over the compared tasks and its 95 % interval.
        better, worse: tasks on which it is better or worse than the other, and that is no chance.
        num_tasks: compared.
        reason: why there is no comparison, in one line; "" where there is one.
    """

    average: float = 0.0
    low: float = 0.0
    high: float = 0.0
    better: tuple[str, ...] = ()
    worse: tuple[str, ...] = ()
    num_tasks: int = 0
    reason: str = ""

    def reversed(self) -> Cell:
        """The other model beside this one."""
        return Cell(-self.average, -self.high, -self.low, self.worse, self.better, self.num_tasks, self.reason)


def matrix(models: Sequence[ModelReport]) -> dict[tuple[str, str], Cell]:
    """Compare a report's models, each with all others; what cannot be compared says why instead of ending the report.

    Returns:
        (model, other) -> cell, for every two different names.
    """
    sides: dict[str, Side | str] = {}
    for model in models:
        try:
            sides[model.name] = side_of(model)
        except UserError as error:
            sides[model.name] = str(error)
    cells: dict[tuple[str, str], Cell] = {}
    names = [*sides]
    for i, name in enumerate(names):
        for other in names[i + 1 :]:
            cells[name, other] = _cell(sides[name], sides[other])
            cells[other, name] = cells[name, other].reversed()
    return cells


def _cell(side: Side | str, other: Side | str) -> Cell:
    if isinstance(side, str) or isinstance(other, str):
        return Cell(reason=side if isinstance(side, str) else str(other))
    try:
        pair = compare_sides(other, side, with_f1=False, num_draws=_NUM_DRAWS)
    except UserError as error:
        return Cell(reason=str(error))
    better, worse = (tuple(one.task.name for one in found) for found in (pair.better, pair.worse))
    return Cell(pair.average, *pair.average_interval, better, worse, len(pair.tasks))
