#!/usr/bin/env python
"""Make models of transformers with random weights, and what they compute; a part of scripts/dev/compare_pytorch.py.

usage: random_pytorch.py FOLDER

FOLDER holds job.json and rows.npz, which that program wrote, and gets FOLDER/ARCHITECTURE/VARIANT/HEAD with
config.json, model.safetensors and reference.npz. Needs torch and transformers.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

PAD = 0


def make_config(model_type: str, sizes: dict[str, Any], more: dict[str, Any]) -> Any:
    """A configuration of the sizes that the architecture has, by its own names for them."""
    config_class = transformers.CONFIG_MAPPING[model_type]
    default = config_class()
    own_names = {config_class.attribute_map.get(name, name): value for name, value in (sizes | more).items()}
    settings = {name: value for name, value in own_names.items() if name in vars(default) or name in more}
    settings |= {name: PAD for name in vars(default) if name.endswith("_token_id")}
    if model_type in ("roberta", "xlm-roberta"):  # whose positions begin after it
        settings |= {"pad_token_id": 1, "type_vocab_size": 1}
    return config_class(**settings, attn_implementation="eager")


def randomise(model: torch.nn.Module) -> None:
    """Weights so large that whatever differs is seen."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                noise = torch.randn_like(parameter) * 0.2
                parameter.copy_(noise if parameter.ndim > 1 else parameter + noise)


def model_class_of(config: Any, end: str) -> Any:
    """The class with the head whose name ends so, None where there is none."""
    base = transformers.MODEL_MAPPING[type(config)]
    if end == "Model":
        return base
    names = [base.__name__.removesuffix("Model") + end + suffix for suffix in ("Simple", "")]  # XLNet has two for spans
    return next((getattr(transformers, name) for name in names if hasattr(transformers, name)), None)


def left_padded(x: np.ndarray, rows: dict[str, np.ndarray]) -> np.ndarray:
    """Rows [texts, length] with their padding before them."""
    return np.stack([np.roll(row, -mask.sum()) for row, mask in zip(x, rows["attention_mask"], strict=True)])


def compute(model: torch.nn.Module, inputs: dict[str, torch.Tensor], end: str) -> np.ndarray:
    accepted = inspect.signature(model.forward).parameters
    with torch.no_grad():
        output = model(**{name: value for name, value in inputs.items() if name in accepted})
    if end == "Model":
        return getattr(output, "encoder_last_hidden_state", output.last_hidden_state).numpy()
    if end == "ForQuestionAnswering":
        return torch.stack([output.start_logits, output.end_logits], -1).numpy()
    return output.logits.numpy()


def make(
    job: dict[str, Any], rows: dict[str, np.ndarray], model_type: str, more: dict[str, Any], end: str, folder: Path
) -> None:
    """Write a model and what it computes; nothing where there is no such head."""
    config = make_config(model_type, job["sizes"], more)
    if end == "ForSequenceClassification":
        config.num_labels = job["num_labels"]
    model_class = model_class_of(config, end)
    if model_class is None:
        return
    model = model_class(config).eval()
    randomise(model)
    inputs = {name: left_padded(x, rows) if model_type in job["padded_left"] else x for name, x in rows.items()}
    inputs["input_ids"] = np.where(inputs["attention_mask"] == 1, inputs["input_ids"], config.pad_token_id)
    if getattr(config, "type_vocab_size", 2) < 2:
        inputs["token_type_ids"] = inputs["token_type_ids"] * 0
    if model_type in job["without_segments"]:
        del inputs["token_type_ids"]
    if end == "ForMultipleChoice":
        inputs = {name: x.reshape(-1, job["num_choices"], x.shape[-1]) for name, x in inputs.items()}
    output = compute(model, {name: torch.tensor(x) for name, x in inputs.items()}, end)
    model.save_pretrained(folder)
    arrays: dict[str, Any] = inputs | {"output": output}
    np.savez(folder / "reference.npz", **arrays)


def main(top: Path) -> None:
    job = json.loads((top / "job.json").read_text(encoding="utf-8"))
    rows = dict(np.load(top / "rows.npz"))
    for model_type, variants in job["variants"].items():
        for number, more in enumerate(variants if model_type in transformers.CONFIG_MAPPING else ()):
            for end in ["Model"] if model_type in job["encoders_alone"] else job["ends"]:
                torch.manual_seed(number)
                try:
                    make(job, rows, model_type, more, end, top / model_type / str(number) / end)
                except Exception as error:  # whatever transformers makes of the settings
                    sys.exit(f"{model_type}{end} with {more}: {type(error).__name__}: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
