"""What made the files of a zip: ``NAME.manifest.json`` beside ``NAME.zip``.

An object with ``zip`` (its name), ``sha256`` and ``files``: name -> ``task``, ``split``, ``predictions`` (how many),
``sha256``, ``folder`` (where it was taken from), and where the record there tells what made the file:

- ``checkpoints``: of each member ``path``, ``weights_sha256`` (of ``model.safetensors``), ``model`` (what was
  fine-tuned), ``score`` (development set, a fraction) and ``trained_on_dev``;
- ``metric`` and ``score``: of the members together, null where that was not evaluated;
- ``data_sha256``: of the test examples.

Imports no PaddlePaddle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clue_utils import cli
from clue_utils.columns import left
from clue_utils.errors import UserError
from clue_utils.files import digest_of, write_text_atomically
from clue_utils.language import say
from clue_utils.leaderboard.file_names import known_files
from clue_utils.record import WEIGHTS_FILE, Record
from clue_utils.strict_json import JsonObject, NotJson, parse

# The path of a model that is in the folder of the record which tells of it.
_OWN = "."
# Far more than any manifest takes.
_MAX_BYTES = 2**20


def describe_members(folders: Sequence[str], task_name: str, output: Path) -> list[JsonObject]:
    """What is known of each checkpoint that is about to predict, as the record in ``output`` has it.

    As in the manifest, but that a model in ``output`` itself is ".", so that the folder can be moved.
    """
    return [_describe_member(Path(folder), task_name, output) for folder in folders]


def _describe_member(folder: Path, task_name: str, output: Path) -> JsonObject:
    record = Record.read(folder) or Record()
    is_of_task = record.task == task_name
    weights = folder / WEIGHTS_FILE
    return {
        "path": _OWN if folder.resolve() == output.resolve() else str(folder),
        "weights_sha256": digest_of(weights) if weights.is_file() else None,
        "model": record.model if is_of_task else None,
        "score": record.score if is_of_task else None,
        "trained_on_dev": is_of_task and record.learnt_dev,
    }


def path_of(output: Path) -> Path:
    """Where the manifest of a zip lies."""
    return output.with_suffix(".manifest.json")


def write(output: Path, found: Mapping[str, Path], counts: Mapping[str, int]) -> Path:
    """Write the manifest of a zip that has just been made; return its path.

    Args:
        found: name on the leaderboard -> the file that was put into the zip.
        counts: name -> number of predictions.
    """
    files = {name: {"predictions": count, **_origin(name, found[name])} for name, count in counts.items()}
    manifest = {"zip": output.name, "sha256": digest_of(output), "files": files}
    path = path_of(output)
    write_text_atomically(path, json.dumps(manifest, ensure_ascii=False, indent=2) + "\n")
    return path


def _origin(name: str, path: Path) -> JsonObject:
    """Of a file what it is, and by the record beside it what made it, if it is still the file that the record means."""
    task, split = known_files()[name]
    known = {"task": task.name, "split": split, "sha256": digest_of(path), "folder": str(path.parent)}
    try:
        record = Record.read(path.parent) or Record()
    except UserError:  # a damaged record says nothing
        return known
    made = record.predictions.get(name)
    if not isinstance(made, dict) or made.get("sha256") != known["sha256"]:
        return known
    checkpoints = made.get("checkpoints")
    members = [one for one in checkpoints if isinstance(one, dict)] if isinstance(checkpoints, list) else []
    members = [one | {"path": str(path.parent)} if one.get("path") == _OWN else one for one in members]
    score = members[0].get("score") if len(members) == 1 else record.evaluation.get(str(record.metric))
    told = {"metric": record.metric, "score": score, "data_sha256": made.get("data_sha256"), "checkpoints": members}
    return known | told


def read(output: Path) -> JsonObject | None:
    """The manifest beside a zip; None where there is none.

    Raises:
        UserError: it is damaged, or tells of another zip than the one that is there now.
    """
    path = path_of(output)
    if not path.is_file():
        return None
    try:
        with path.open("rb") as stream:
            manifest, _ = parse(stream.read(_MAX_BYTES))
        files = manifest["files"]
        if not all(isinstance(one, dict) for one in files.values()):
            raise ValueError("no files")
    except (OSError, NotJson, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(say("{name} is damaged ({error})", name=path.name, error=error)) from None
    if manifest.get("sha256") != digest_of(output):
        raise UserError(
            say(
                "{name} tells of another zip: {output_name} was made or changed in another way since",
                name=path.name,
                output_name=output.name,
            )
        )
    return dict(manifest)


def rows(manifest: JsonObject) -> list[str]:
    """A line for each file of a manifest: its development score and the checkpoints that made it."""
    return [f"{str(name)[:40]:<25}{_score_and_members(entry)}" for name, entry in manifest["files"].items()]


def _score_and_members(entry: Mapping[str, Any]) -> str:
    members = [one for one in entry.get("checkpoints") or [] if isinstance(one, dict)]
    if not members:
        return say("of unknown origin: no record beside it tells of it")
    score, metric = entry.get("score"), entry.get("metric")
    shown = f"{metric} {cli.percent(score)}" if isinstance(score, (int, float)) else say("no score")
    names = ", ".join(f"{one.get('path')}{_remark(one)}" for one in members)
    if members[1:]:
        names = say("mean of {number}: {names}", number=len(members), names=names)
    return left(shown, 17) + names


def _remark(member: Mapping[str, Any]) -> str:
    return say(" (trained on the development set too)") if member.get("trained_on_dev") else ""
