"""Text to ids of word pieces: exactly the reference tokenizer's, several times as fast."""

from __future__ import annotations

import functools
import re
from typing import Any

# The ideographs that a BERT tokenizer sets apart with blanks before it does anything else (google-research/bert,
# tokenization.py, BasicTokenizer).
_IDEOGRAPHS = (
    "\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002b81f\U0002b820-\U0002ceaf"
    "\uf900-\ufaff\U0002f800-\U0002fa1f"
)
_UNITS = re.compile(f"[{_IDEOGRAPHS}]|[^{_IDEOGRAPHS}]+")
# Chinese text has some 8,000 different ideographs; what lies between them (numbers, names, punctuation) repeats less.
_CACHED_UNITS = 1 << 16


class PieceIds:
    """Ids of the word pieces of a text, without special tokens.

    A BERT tokenizer works on what lies between ideographs and on each ideograph alone. So a text is cut there, and the
    tokenizer asked about each different part once. Any other kind of tokenizer is asked about whole texts.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        basic = getattr(tokenizer, "basic_tokenizer", None)
        self._sets_ideographs_apart = getattr(basic, "tokenize_chinese_chars", False) is True
        self._ids_of_unit = functools.lru_cache(_CACHED_UNITS)(self._ask)

    def __call__(self, text: str) -> list[int]:
        if not self._sets_ideographs_apart:
            return self._ask(text)
        return [id_ for unit in _UNITS.findall(text) for id_ in self._ids_of_unit(unit)]

    def _ask(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.convert_tokens_to_ids(self.tokenizer.tokenize(text))
        return ids
