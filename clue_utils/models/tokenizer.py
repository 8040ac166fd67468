"""Load the tokenizer of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from paddlenlp import transformers
from paddlenlp.transformers import AutoTokenizer

from clue_utils.models.source import readable_errors, unshadowed


def load_tokenizer(name_or_path: str, do_lower_case: bool | None = None) -> Any:
    """Load the reference (Python) tokenizer of a model.

    Args:
        do_lower_case: write text in lower case; None: as the model's own setting says.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    with readable_errors(name_or_path), unshadowed(name_or_path) as source:
        settings = {} if do_lower_case is None else {"do_lower_case": do_lower_case}
        return _tokenizer_class(source).from_pretrained(source, **settings)


def _tokenizer_class(name_or_path: str) -> Any:
    """AutoTokenizer, or the tokenizer of Chinese RoBERTa, which AutoTokenizer does not find by name or in a folder."""
    chinese = transformers.RobertaChineseTokenizer
    settings = read_settings(name_or_path, "tokenizer_config.json")
    named = chinese.__name__ in (settings.get("tokenizer_class"), settings.get("init_class"))
    return chinese if named or name_or_path in chinese.pretrained_init_configuration else AutoTokenizer


def read_settings(name_or_path: str, file: str) -> dict[str, Any]:
    path = Path(name_or_path) / file
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if not isinstance(settings, dict):
        raise ValueError(f"{file} is not an object")
    return settings
