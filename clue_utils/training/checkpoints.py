"""State of an unfinished training run on disk: enough to go on as if it had never stopped.

A checkpoint is a folder ``checkpoint-<step>`` in the output folder with weights, optimizer state and, where there is
one, the mean of the weights (safetensors, so that reading one runs no code) and ``state.json``. It is written under
another name and renamed when complete, renamed again before it is removed (``files.locked_folder`` clears such names),
and the one before it is kept, in case the disk damages the newest. Dropout and the order of examples depend on seed and
step alone: no random state needs to be kept.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from safetensors.numpy import load_file, save_file

from clue_utils.files import atomically, digest_of, remove_folder
from clue_utils.language import say
from clue_utils.models.lora import own_state
from clue_utils.strict_json import JsonObject

logger = logging.getLogger(__name__)
_NAME = re.compile(r"checkpoint-([0-9]{1,18})")
_STATE = "state.json"
_WEIGHTS = "weights.safetensors"
_OPTIMIZER = "optimizer.safetensors"
_AVERAGE = "average.safetensors"
_NUM_KEPT = 2


def save(
    folder: Path,
    step: int,
    model: paddle.nn.Layer,
    optimizer: Any,
    state: JsonObject,
    average: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write the checkpoint of a step; keep it and the one before."""
    target = folder / f"checkpoint-{step}"
    with atomically(target) as written:
        written.mkdir(parents=True)
        save_file({name: _array(value) for name, value in own_state(model).items()}, str(written / _WEIGHTS))
        save_file(_optimizer_arrays(model, optimizer), str(written / _OPTIMIZER))
        names = [_WEIGHTS, _OPTIMIZER]
        if average:
            save_file(dict(average), str(written / _AVERAGE))
            names.append(_AVERAGE)
        digests = {name: digest_of(written / name) for name in names}
        text = json.dumps({"step": step, "sha256": digests, **state}, ensure_ascii=False)
        (written / _STATE).write_text(text, encoding="utf-8")
    # Later ones were passed over as damaged.
    others = [path for path in _folders(folder) if path != target]
    earlier = [path for path in others if step_of(path) < step]
    for path in {*others} - {*earlier[: _NUM_KEPT - 1]}:
        remove_folder(path)


def find_latest(folder: Path) -> tuple[Path, JsonObject] | None:
    """The newest undamaged checkpoint and its state; a damaged one is passed over with a warning."""
    for candidate in _folders(folder):
        try:
            state = json.loads((candidate / _STATE).read_text(encoding="utf-8"))
            digests = state["sha256"]
            names = [_WEIGHTS, _OPTIMIZER, *([_AVERAGE] if _AVERAGE in digests else [])]
            damaged = [name for name in names if digest_of(candidate / name) != digests[name]]
            if state["step"] != step_of(candidate) or not {"is_due", "run", "scaler"} <= state.keys():
                damaged.append(_STATE)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            damaged = [f"{_STATE}: {error}"]
        if not damaged:
            return candidate, state
        logger.warning(
            say(
                "{candidate} is damaged ({damaged}): looking for an earlier one",
                candidate=candidate,
                damaged=", ".join(damaged),
            )
        )
    return None


def restore(checkpoint: Path, model: paddle.nn.Layer, optimizer: Any) -> None:
    """Set model and optimizer to what they were when the checkpoint was written."""
    weights = load_file(str(checkpoint / _WEIGHTS))
    model.set_state_dict(model.state_dict() | {name: paddle.to_tensor(value) for name, value in weights.items()})
    names = {name: parameter.name for name, parameter in model.named_parameters()}
    state = {}
    for key, value in load_file(str(checkpoint / _OPTIMIZER)).items():
        parameter, accumulator = key.rsplit("|", 1)
        state[names[parameter] + accumulator] = paddle.to_tensor(value)
    optimizer.set_state_dict(state)


def read_average(checkpoint: Path) -> dict[str, np.ndarray]:
    """The mean of the weights that a checkpoint was given, by the names of parameters; none where there was none."""
    path = checkpoint / _AVERAGE
    return load_file(str(path)) if path.is_file() else {}


def scaler_state(scaler: paddle.amp.GradScaler) -> JsonObject:
    """State of a loss scaler in JSON's types, as its ``load_state_dict`` takes it; empty where it does not scale."""
    return {name: getattr(value, "tolist", lambda v=value: v)() for name, value in scaler.state_dict().items()}


def remove_all(folder: Path) -> None:
    """Remove the checkpoints of a run that is finished; those of PaddleNLP's Trainer are not ours."""
    for checkpoint in _folders(folder):
        remove_folder(checkpoint)


def step_of(checkpoint: Path) -> int:
    """The step that a folder ``checkpoint-<step>`` is named for; 0 for another name."""
    match = _NAME.fullmatch(checkpoint.name)
    return int(match[1]) if match else 0


def _folders(folder: Path) -> list[Path]:
    """Checkpoint folders of ours, the newest first."""
    ours = [
        path
        for path in folder.glob("checkpoint-*")
        if _NAME.fullmatch(path.name) and any((path / name).exists() for name in (_STATE, _WEIGHTS, _OPTIMIZER))
    ]
    return sorted(ours, key=step_of, reverse=True)


def _optimizer_arrays(model: paddle.nn.Layer, optimizer: Any) -> dict[str, np.ndarray]:
    """Moments by "parameter|accumulator": Paddle's own keys are numbered anew in each process."""
    arrays = {}
    state = optimizer.state_dict()
    for name, parameter in model.named_parameters():
        for key, value in state.items():
            if key.startswith(f"{parameter.name}_"):
                arrays[f"{name}|{key[len(parameter.name) :]}"] = _array(value)
    return arrays


def _array(tensor: paddle.Tensor) -> np.ndarray:
    """On a processor the tensor's own memory: copies of all of them would take that much more."""
    return np.from_dlpack(tensor.detach()) if tensor.place.is_cpu_place() else tensor.numpy()
