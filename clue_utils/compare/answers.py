"""What a run answered on the development set, record by record, as the statistics take it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clue_utils import dev_predictions
from clue_utils.errors import UserError
from clue_utils.language import say
from clue_utils.record import Record
from clue_utils.tasks import KNOWN

# F1 of a question may be written with six places.
_ROUNDING = 2e-6


@dataclass(frozen=True)
class Answers:
    """The answers of one run.

    Attributes:
        folder: of the run.
        data_sha256: checksum of the development data, where it was noted.
        ids: of the records, in their order.
        values: metric -> value of each record, float64 ``[records]``: 1 where it is right, else 0; CHID: its blanks
            that are right; CMRC2018: also F1.
        weights: of the records, float64 ``[records]``: CHID's blanks, otherwise 1.
    """

    folder: Path
    data_sha256: str | None
    ids: tuple[str, ...]
    values: dict[str, npt.NDArray[np.float64]]
    weights: npt.NDArray[np.float64]


def read_answers(record: Record) -> Answers:
    """Read the answers of a run and see that they are those that its scores were made of.

    Raises:
        UserError: there are none, or none that say anything; the file is damaged, or it is of other weights or data
            than ``result.json``.
    """
    if record.learnt_dev:
        raise UserError(
            say("{folder} was trained on the development set too: its answers there say nothing", folder=record.folder)
        )
    task, path = KNOWN[str(record.task)], record.folder / dev_predictions.FILE_NAME
    words = " ".join(["python", task.script, *task.words])
    command = f"{words} --do_eval --model_name_or_path {record.folder} --output_dir {record.folder}"
    lines = dev_predictions.read(record.folder)
    if lines is None:
        raise UserError(
            say(
                "{folder} holds no {file_name}: {command} writes it",
                folder=record.folder,
                file_name=dev_predictions.FILE_NAME,
                command=command,
            )
        )
    try:
        values = dev_predictions.units(lines, task)
        ids = tuple(str(line["id"]) for line in lines)
    except (KeyError, TypeError, ValueError) as error:  # a file of another task
        raise UserError(
            say(
                "{path} is no file of {name}'s answers ({error}): {command} writes it anew",
                path=path,
                name=task.name,
                error=error,
                command=command,
            )
        ) from None
    weights: npt.NDArray[np.float64] = np.ones(len(lines))
    if task.kind == "cloze":
        rights = values["accuracy"]
        values, weights = {"accuracy": rights[:, 0]}, rights[:, 1]
    recorded = [record.metrics, record.evaluation]
    for metric, of_records in values.items():
        score = float(of_records.sum() / weights.sum())
        known = [scores[metric] for scores in recorded if metric in scores]
        if not any(abs(score - one) < _ROUNDING for one in known):
            said = say(" and ").join(f"{one:.6f}" for one in known) or say("nothing")
            raise UserError(
                say(
                    "{path} is not of the weights or the data that result.json tells of ({metric} {score:.6f} by "
                    "its lines, {said} there): {command} writes it anew",
                    path=path,
                    metric=metric,
                    score=score,
                    said=said,
                    command=command,
                )
            )
    # Of the answers themselves where it is told: a training's record keeps the data that it was scored on.
    data_sha256 = record.dev_predictions.get("data_sha256") or record.data_sha256.get("dev")
    return Answers(record.folder, data_sha256, ids, values, weights)
