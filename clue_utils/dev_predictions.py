"""What a model answered to each record of the development set: ``dev_predictions.jsonl`` in a run's output folder.

One JSON object a line, in the order of the development file. Every line has

- ``id``: as in the data, or as the reader numbers it;
- ``inputs``: field -> text as the model is given it before tokenisation (a list of texts where a field holds several);
- ``is_cut``: whether tokens were left out to fit the length;
- ``gold``, ``answer``, ``is_right``.

Further, by the kind of task:

- classification: the names of classes (``Task.names``), and ``probabilities`` of all: name -> number;
- C3: the texts of choices; ``gold_index`` and ``answer_index`` among them, ``probabilities``: a list in their order;
- CHID: a list of idioms each; ``blanks``: of each blank ``tag``, ``gold``, ``answer``, ``probabilities`` (in the
  order of the candidates), ``is_right``; a record is right if all of its blanks are;
- CMRC2018: a list of gold texts, and one answer; ``em`` (0 or 1) and ``f1`` (fraction); ``n_best``: the best texts with
  ``probability`` among themselves and, in characters of the context, ``begin`` and ``end`` (null: no allowed span).

Reading imports nothing that takes long.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from clue_utils import tasks
from clue_utils.errors import UserError, shorten
from clue_utils.files import digest_of, write_json_lines_atomically
from clue_utils.language import later, say
from clue_utils.record import PREDICTIONS_FILE, Record
from clue_utils.strict_json import JsonObject, NotJson, parse

FILE_NAME = PREDICTIONS_FILE
_REMEDY = later("run the script again with --do_eval")
_LINE = {"inputs": dict, "is_cut": bool, "is_right": bool}
_FIELDS: dict[str, dict[str, Any]] = {
    "classification": {"gold": str, "answer": str, "probabilities": dict},
    "multiple_choice": {
        "gold": str,
        "answer": str,
        "gold_index": int,
        "answer_index": int,
        "probabilities": list,
    },
    "cloze": {"gold": list, "answer": list, "blanks": list},
    "span": {"gold": list, "answer": str, "em": int, "f1": (int, float), "n_best": list},
}
_BLANK = {"tag": str, "gold": str, "answer": str, "probabilities": list, "is_right": bool}
_SPAN = {"text": str, "probability": (int, float)}


def write(folder: Path, lines: Iterable[JsonObject]) -> JsonObject:
    """Write the file as a whole, a line at a time; return the ``sha256`` that it has, which the record keeps."""
    write_json_lines_atomically(folder / FILE_NAME, lines)
    return {"sha256": digest_of(folder / FILE_NAME)}


def read(folder: str | os.PathLike[str]) -> list[JsonObject] | None:
    """The lines of a run's folder, each checked; None where there is no such file.

    Raises:
        UserError: the folder's record is missing or damaged; the file does not belong to what the record tells of; or a
            line is not as described.
    """
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        return None
    record = Record.read(folder)
    task = tasks.KNOWN.get(record.task or "") if record else None
    if record is None or task is None:
        raise UserError(
            say("{path}: no result.json beside it says which task it is of; {remedy}", path=path, remedy=say(_REMEDY))
        )
    content = path.read_bytes()
    told = record.dev_predictions
    best_step = record.fields.get("best_step")
    if told.get("sha256") != hashlib.sha256(content).hexdigest() or told.get("step") != best_step:
        raise UserError(
            say(
                "{path}: not the answers of the model that result.json tells of; {remedy}",
                path=path,
                remedy=say(_REMEDY),
            )
        )
    lines = []
    for number, text in enumerate(content.removesuffix(b"\n").split(b"\n"), 1):
        try:
            line, _ = parse(text, allow_nan=True)
            _check(line, {**_LINE, **_FIELDS[task.kind]}, "")
            for blank in line.get("blanks", []):
                _check(blank, _BLANK, "blanks: ")
            for span in line.get("n_best", []):
                _check(span, _SPAN, "n_best: ")
        except (NotJson, _Wrong) as error:
            raise UserError(f"{path}:{number}: {error}; {_REMEDY}") from None
        lines.append(line)
    return lines


class _Wrong(ValueError):
    pass


def _check(value: Any, kinds: dict[str, Any], where: str) -> None:
    if not isinstance(value, dict):
        raise _Wrong(say("{where}{value} is not an object", where=where, value=shorten(value, 40)))
    for name, kind in kinds.items():
        found = value.get(name)
        if not isinstance(found, kind) or (isinstance(found, bool) and kind is not bool):
            raise _Wrong(say("{where}{name} is {found}", where=where, name=name, found=shorten(found, 40)))


def units(lines: list[JsonObject], task: tasks.Task) -> dict[str, np.ndarray]:
    """What each record adds to the scores, float64 by metric.

    [records], whose mean is the score; of CHID [records, 2], blanks that are right and blanks: the score is the one sum
    over the other.
    """
    if task.kind == "span":
        return {name: np.array([line[name] for line in lines], np.float64) for name in ("em", "f1")}
    if task.kind == "cloze":
        counts = [(sum(blank["is_right"] for blank in line["blanks"]), len(line["blanks"])) for line in lines]
        return {"accuracy": np.array(counts, np.float64)}
    return {"accuracy": np.array([line["is_right"] for line in lines], np.float64)}
