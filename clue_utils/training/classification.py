"""The method of the seven classification tasks, for the plain script and the Trainer script."""

from __future__ import annotations

from typing import Any

import numpy as np

from clue_utils.data.examples import Examples
from clue_utils.features.method import Method
from clue_utils.features.store import Feature, Features
from clue_utils.leaderboard.write import Answers
from clue_utils.tasks import Example, Task


def text_and_pair(task_name: str, example: Example) -> tuple[str, str | None]:
    """The text, and the second text of a pair, that an example is judged by.

    As in CLUE's official processors: the keywords of CSL joined by blanks before the abstract; the noun of
    CLUEWSC2020 between underscores and the pronoun in square brackets; TNEWS and IFLYTEK by the sentence alone.
    """
    if task_name == "CSL":
        return " ".join(example["keyword"]), example["abst"]
    if task_name == "CLUEWSC2020":
        return _mark_spans(example["text"], example["target"]), None
    if "sentence1" in example:
        return example["sentence1"], example["sentence2"]
    return example["sentence"], None


def _mark_spans(text: str, target: dict[str, Any]) -> str:
    """The text with ``_`` on both sides of the noun and ``[ ]`` around the pronoun, which may lie in one another.

    Where marks meet, spans that end there are closed before others begin, and the longer span is outside; of equal
    spans the noun is.
    """
    marks = []
    for depth, (name, left, right) in enumerate((("span1", "_", "_"), ("span2", "[", "]"))):
        begin = target[f"{name}_index"]
        end = begin + len(target[f"{name}_text"])
        closes = 0 if begin < end else 2  # before what begins there; an empty span after its own beginning
        marks += [(end, closes, -begin, -depth, right), (begin, 1, -end, depth, left)]
    for position, *_, mark in sorted(marks, reverse=True):  # the last first, which leaves earlier positions valid
        text = text[:position] + mark + text[position:]
    return text


class Classification(Method):
    """One or two sentences, one label."""

    name = "classification"

    def __init__(self, task: Task, tokenizer: Any, max_seq_length: int) -> None:
        super().__init__(tokenizer, max_seq_length)
        self.task = task
        self.num_outputs = self.width = len(task.labels)

    def encode(self, example: Example) -> list[Feature]:
        text, text_pair = text_and_pair(self.task.name, example)
        ids, pair_ids = self._ids(text), None if text_pair is None else self._ids(text_pair)
        encoded = self.tokenizer.prepare_for_model(ids, pair_ids, max_length=self.max_seq_length, truncation=True)
        feature = {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}
        return [feature | {"label": example.get("label", -1)}]

    def answer(self, scores: np.ndarray, examples: Examples, features: Features) -> Answers:
        labels = self.task.labels
        return [(example["id"], labels[i]) for example, i in zip(examples, scores.argmax(axis=1), strict=True)]
