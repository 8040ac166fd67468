"""State of an unfinished training run on disk: enough to go on as if it had never stopped.

A checkpoint is a folder ``checkpoint-<step>`` in the output folder with weights and optimizer state (safetensors, so
that reading one runs no code) and ``state.json``. It is written under another name and renamed when complete, and the
one before it is kept, in case the disk damages the newest. Dropout and the order of records depend on seed and step
alone, so no random state needs to be kept.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from safetensors.numpy import load_file, save_file

from clue_utils import runtime
from clue_utils.results import flush_to_disk, sha256_of

logger = logging.getLogger(__name__)

_NAME = re.compile(r"checkpoint-(\d+)")
_STATE = "state.json"
_WEIGHTS = "weights.safetensors"
_OPTIMIZER = "optimizer.safetensors"
_NUM_KEPT = 2


def save(folder: Path, step: int, model: paddle.nn.Layer, optimizer: Any, state: dict[str, Any]) -> None:
    """Write the checkpoint of a step; keep it and the one before."""
    temporary = folder / f".checkpoint-{step}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        weights = {name: value.numpy() for name, value in model.state_dict().items()}
        with runtime.os_errors(folder):
            save_file(weights, str(temporary / _WEIGHTS))
            save_file(_optimizer_arrays(model, optimizer), str(temporary / _OPTIMIZER))
        digests = {name: sha256_of(temporary / name) for name in (_WEIGHTS, _OPTIMIZER)}
        text = json.dumps({"step": step, "sha256": digests, **state}, ensure_ascii=False)
        (temporary / _STATE).write_text(text, encoding="utf-8")
        flush_to_disk(temporary)
        target = folder / f"checkpoint-{step}"
        shutil.rmtree(target, ignore_errors=True)
        os.rename(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for earlier in _folders(folder)[_NUM_KEPT:]:
        shutil.rmtree(earlier)


def find_latest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest undamaged checkpoint and its state; a damaged one is passed over with a warning."""
    for candidate in _folders(folder):
        try:
            state = json.loads((candidate / _STATE).read_text(encoding="utf-8"))
            damaged = [name for name, digest in state["sha256"].items() if sha256_of(candidate / name) != digest]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            damaged = [f"{_STATE}: {error}"]
        if not damaged:
            return candidate, state
        logger.warning("%s is damaged (%s): looking for an earlier one", candidate, ", ".join(damaged))
    return None


def restore(checkpoint: Path, model: paddle.nn.Layer, optimizer: Any) -> None:
    """Set model and optimizer to what they were when the checkpoint was written."""
    weights = load_file(str(checkpoint / _WEIGHTS))
    model.set_state_dict({name: paddle.to_tensor(value) for name, value in weights.items()})
    names = {name: parameter.name for name, parameter in model.named_parameters()}
    state = {}
    for key, value in load_file(str(checkpoint / _OPTIMIZER)).items():
        parameter, accumulator = key.rsplit("|", 1)
        state[names[parameter] + accumulator] = paddle.to_tensor(value)
    optimizer.set_state_dict(state)


def remove_all(folder: Path) -> None:
    """Remove the checkpoints of a run that is finished; those of PaddleNLP's Trainer are not ours."""
    for checkpoint in _folders(folder):
        if any((checkpoint / name).exists() for name in (_STATE, _WEIGHTS, _OPTIMIZER)):
            shutil.rmtree(checkpoint)


def _folders(folder: Path) -> list[Path]:
    """Checkpoint folders, the newest first."""
    if not folder.is_dir():
        return []
    steps = {path: match for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)) and path.is_dir()}
    return sorted(steps, key=lambda path: int(steps[path][1]), reverse=True)


def _optimizer_arrays(model: paddle.nn.Layer, optimizer: Any) -> dict[str, np.ndarray]:
    """Moments by "parameter|accumulator": Paddle's own keys are numbered anew in each process."""
    arrays = {}
    state = optimizer.state_dict()
    for name, parameter in model.named_parameters():
        for key, value in state.items():
            if key.startswith(f"{parameter.name}_"):
                arrays[f"{name}|{key[len(parameter.name) :]}"] = value.numpy()
    return arrays
