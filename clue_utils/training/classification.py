"""The method of the seven classification tasks, for the plain script and the Trainer script."""

from __future__ import annotations

from typing import Any

import numpy as np

from clue_utils.data.examples import Examples
from clue_utils.errors import UserError
from clue_utils.features.method import Method
from clue_utils.features.sequences import truncated_lengths
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


def num_texts(task: Task) -> int:
    """How many texts :func:`text_and_pair` gives of a task's example."""
    return 2 if task.name == "CSL" or "sentence1" in task.fields else 1


class Classification(Method):
    """One or two sentences, one label."""

    name = "classification"

    def __init__(self, task: Task, tokenizer: Any, max_seq_length: int) -> None:
        super().__init__(tokenizer, max_seq_length)
        least = self.sequences.num_special(num_texts(task)) + 1
        if max_seq_length < least:
            raise UserError(f"--max_seq_length {max_seq_length} leaves no room for text: pass at least {least}")
        self.task = task
        self.num_outputs = self.width = len(task.labels)

    def encode(self, example: Example) -> list[Feature]:
        texts = [self._ids(text) for text in text_and_pair(self.task.name, example) if text is not None]
        limit = self.max_seq_length - self.sequences.num_special(len(texts))
        lengths = truncated_lengths([*map(len, texts)], limit, losing=(1, 0)[-len(texts) :])
        input_ids, token_type_ids = self.sequences.build(*map(self._cut, texts, lengths))
        feature: Feature = {"input_ids": input_ids}
        if "token_type_ids" in self.tokenizer.model_input_names:
            feature["token_type_ids"] = token_type_ids
        return [feature | {"label": example.get("label", -1)}]

    def _cut(self, ids: list[int], length: int) -> list[int]:
        return ids[len(ids) - length :] if self.tokenizer.truncation_side == "left" else ids[:length]

    def answer(self, scores: np.ndarray, examples: Examples, features: Features) -> Answers:
        labels = self.task.labels
        return [(example["id"], labels[i]) for example, i in zip(examples, scores.argmax(axis=1), strict=True)]
