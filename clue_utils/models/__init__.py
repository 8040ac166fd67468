"""Pretrained encoders: found by name or folder, loaded with the head of a task, and saved. Imports PaddlePaddle."""

from clue_utils.models.load import check_fit, check_segments, load_model, require_architecture, save_model
from clue_utils.models.tokenizer import load_tokenizer
from clue_utils.models.weights import require_safe_shards

__all__ = [
    "check_fit",
    "check_segments",
    "load_model",
    "load_tokenizer",
    "require_architecture",
    "require_safe_shards",
    "save_model",
]
