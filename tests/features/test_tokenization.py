"""Ids of word pieces: the reference tokenizer's, to the last one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from clue_utils import tasks
from clue_utils.data.examples import load_examples
from clue_utils.features.tokenization import PieceIds

TEXTS = [
    "",
    " \t\n",
    "今天天气不错，我们去公园吧。",
    "7×9等于63",
    "iPhone 12的価格は？Ａｐｐｌｅ",
    "[MASK]中[SEP] [unused1]x[cls]",
    "ΣΑΣ大ΑΣ",  # a final sigma is written otherwise in lower case
    "中\u0301文e\u0301é",  # combining marks behind an ideograph and behind a letter
    "a\u200bb中\u0000文\ufffd字",
    "😀中😀😀文 👨‍👩‍👧",
    "\ufeff豈\U00020000\U0002f800㐀",
    "שלום中مرحبا",
    "x" * 150 + "中",
    "a中b文" * 500,
]


def texts(value: Any) -> Iterator[str]:
    """Every text within an example."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from texts(list(value.values()))
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)


def reference(tokenizer: Any, text: str) -> list[int]:
    return tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text))


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_hard_texts(tokenizer, text):
    assert PieceIds(tokenizer)(text) == reference(tokenizer, text)


def test_real_examples(tokenizer, clue_data_dir):
    piece_ids, number = PieceIds(tokenizer), 0
    for task in tasks.TASKS.values():
        for example in load_examples(task, "dev", clue_data_dir).rows[::20]:
            for text in texts(example):
                assert piece_ids(text) == reference(tokenizer, text)
                number += 1
    assert number > 3000


def test_a_tokenizer_of_another_kind_sees_whole_texts():
    class Whole:
        def tokenize(self, text: str) -> list[str]:
            return [text]

        def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
            return [len(token) for token in tokens]

    assert PieceIds(Whole())("中文ab") == [4]
