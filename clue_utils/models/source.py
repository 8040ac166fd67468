"""Find a checkpoint by the name of a model or by its folder."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paddlenlp import transformers
from safetensors import SafetensorError

from clue_utils import tasks
from clue_utils.errors import UserError
from clue_utils.models.pickles import read_paddle_pickle, read_torch_pickle
from clue_utils.results import WEIGHTS_FILE as SAFETENSORS

SAFE_WEIGHTS = (SAFETENSORS, f"{SAFETENSORS}.index.json")
# Pickles, the preferred first: file, its reader, and the format that its safetensors are marked with.
PICKLES = (("model_state.pdparams", read_paddle_pickle, "np"), ("pytorch_model.bin", read_torch_pickle, "pt"))
WEIGHTS = (*SAFE_WEIGHTS, *(name for name, _, _ in PICKLES))


def has_weights(folder: Path) -> bool:
    return any((folder / name).is_file() for name in WEIGHTS)


def read_settings(name_or_path: str, file: str) -> dict[str, Any]:
    path = Path(name_or_path) / file
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if not isinstance(settings, dict):
        raise ValueError(f"{file} is not an object")
    return settings


@contextlib.contextmanager
def unshadowed(name: str) -> Iterator[str]:
    """Let a checkpoint's folder win over a model of that name, and the model over a folder without weights.

    Yields what to give to PaddleNLP. It takes files of a known name from the network, even where there is such a
    folder: a path is no known name. And it takes any folder of the name for a checkpoint, such as an output folder just
    made: seen from an empty working directory there is none.
    """
    if not os.path.isdir(name):
        yield name
        return
    if has_weights(Path(name)):
        yield os.path.abspath(name)
        return
    if not is_known_name(name):
        raise UserError(f"{name}: no weights in this folder (looked for {', '.join(WEIGHTS)})")
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as empty:
        os.chdir(empty)
        try:
            yield name
        finally:
            os.chdir(before)


def is_known_name(name: str) -> bool:
    known = {model.name for model in tasks.PUBLISHED_MODELS}
    for attribute in ("ErnieModel", "BertModel", "RobertaModel", "ErnieGramModel", "ElectraModel"):
        known |= set(getattr(transformers, attribute).pretrained_init_configuration)
    return name in known


@contextlib.contextmanager
def readable_errors(name_or_path: str) -> Iterator[None]:
    """Turn PaddleNLP's exceptions about a missing or broken model into one line."""
    if not os.path.isdir(name_or_path) and (name_or_path.startswith((".", "/", "~")) or name_or_path.count("/") > 1):
        raise UserError(f"{name_or_path}: no such folder")
    try:
        yield
    except UserError:
        raise
    except RuntimeError as error:
        if "Skip loading for" in str(error):
            detail = next(line.strip() for line in str(error).splitlines() if "Skip loading for" in line)
            raise UserError(
                f"{name_or_path}: the checkpoint does not fit the task ({detail}); pass --do_train"
            ) from error
        raise UserError(_cannot_load(name_or_path, error)) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise UserError(_cannot_load(name_or_path, error)) from error
    except Exception as error:  # network libraries have exceptions of their own
        if type(error).__module__.split(".")[0] not in ("requests", "urllib3", "huggingface_hub", "aistudio_sdk"):
            raise
        raise UserError(_cannot_load(name_or_path, error)) from error


def _cannot_load(name_or_path: str, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
    if os.path.isdir(name_or_path):
        if "vocab_file" in reason:  # PaddleNLP calls the tokenizer without the file it has not found
            reason = "no vocab.txt"
        return f"{name_or_path}: this checkpoint cannot be read ({reason}); it needs config.json, weights and vocab.txt"
    return f"{name_or_path}: neither a folder nor a model that could be downloaded ({reason})"
