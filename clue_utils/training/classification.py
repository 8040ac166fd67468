"""The method of the seven classification tasks, for the plain script and the Trainer script."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from clue_utils.data.examples import Examples
from clue_utils.errors import UserError
from clue_utils.features.method import Method, probabilities
from clue_utils.features.sequences import truncated_lengths
from clue_utils.features.store import Feature, Features
from clue_utils.language import say
from clue_utils.leaderboard.write import Answers
from clue_utils.scores.classes import class_scores
from clue_utils.strict_json import JsonObject
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


def texts_of(task: Task, example: Example) -> tuple[str, str | None]:
    """As :func:`text_and_pair`, also of a task that names the fields of its texts."""
    if task.texts:
        first, *second = (example[name] for name in task.texts)
        return first, *(second or [None])
    return text_and_pair(task.name, example)


def text_fields(task: Task) -> tuple[str, ...]:
    """The fields that the texts of :func:`texts_of` are made of, in their order."""
    if task.texts:
        return task.texts
    if task.name == "CSL":
        return "keyword", "abst"
    if "sentence1" in task.fields:
        return "sentence1", "sentence2"
    return ("text",) if task.name == "CLUEWSC2020" else ("sentence",)


class Classification(Method):
    """One or two sentences, one label."""

    name = "classification"

    def __init__(self, task: Task, tokenizer: Any, max_seq_length: int) -> None:
        super().__init__(tokenizer, max_seq_length)
        self.task, self.texts = task, text_fields(task)
        least = self.sequences.num_special(len(self.texts)) + 1
        if max_seq_length < least:
            raise UserError(
                say(
                    "--max_seq_length {max_seq_length} leaves no room for text: pass at least {least}",
                    max_seq_length=max_seq_length,
                    least=least,
                )
            )
        self.losing = (1, 0)[-len(self.texts) :]
        self.has_segments = "token_type_ids" in tokenizer.model_input_names
        self.num_outputs = self.width = len(task.labels)

    def settings(self) -> dict[str, Any]:
        own = {"texts": self.task.texts, "labels": self.task.labels} if self.task.is_own else {}
        return super().settings() | own

    def description(self) -> JsonObject:
        return super().description() | {"labels": self.task.labels, "names": self.task.names}

    def encode(self, example: Example) -> list[Feature]:
        texts, limit = self._pieces(example)
        lengths = truncated_lengths([*map(len, texts)], limit, self.losing)
        input_ids, token_type_ids = self.sequences.build(*map(self._cut, texts, lengths))
        feature: Feature = {"input_ids": input_ids}
        if self.has_segments:
            feature["token_type_ids"] = token_type_ids
        return [feature | {"label": example.get("label", -1)}]

    def _pieces(self, example: Example) -> tuple[list[list[int]], int]:
        """The ids of each text, and how many of all of them there is room for."""
        texts = [self._ids(text) for text in texts_of(self.task, example) if text is not None]
        return texts, self.max_seq_length - self.sequences.num_special(len(texts))

    def _cut(self, ids: list[int], length: int) -> list[int]:
        return ids[len(ids) - length :] if self.tokenizer.truncation_side == "left" else ids[:length]

    def answer(self, scores: np.ndarray, examples: Examples, features: Features) -> Answers:
        labels = self.task.labels
        return [(example["id"], labels[i]) for example, i in zip(examples, scores.argmax(axis=1), strict=True)]

    def explain(self, scores: np.ndarray, examples: Examples, features: Features) -> Iterator[JsonObject]:
        names = self.task.names
        chosen, cut = self.choose(scores, examples, features).tolist(), self.cut_examples(examples, features)
        for example, row, answer, is_cut in zip(examples, scores, chosen, cut, strict=True):
            yield {
                "id": example["id"],
                "inputs": dict(zip(self.texts, texts_of(self.task, example), strict=False)),
                "is_cut": is_cut,
                "gold": names[example["label"]],
                "answer": names[answer],
                "probabilities": dict(zip(names, probabilities(row), strict=True)),
                "is_right": answer == example["label"],
            }

    def predictions(self, scores: np.ndarray, examples: Examples, features: Features) -> Iterator[JsonObject]:
        labels, names = self.task.labels, self.task.names
        for row, chosen in zip(scores, self.choose(scores, examples, features).tolist(), strict=True):
            shares = probabilities(row)
            yield {
                "label": labels[chosen],
                "name": names[chosen],
                "probability": shares[chosen],
                "probabilities": dict(zip(names, shares, strict=True)),
            }

    def figures(self, scores: np.ndarray, examples: Examples, features: Features) -> JsonObject:
        return class_scores(self.choose(scores, examples, features), features.column("label"), self.task.names)

    def is_cut(self, example: Example) -> bool:
        texts, limit = self._pieces(example)
        return sum(map(len, texts)) > limit
