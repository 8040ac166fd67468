"""What a task does with its examples, beside what all tasks share. Imports no PaddlePaddle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from clue_utils.data.examples import Examples
from clue_utils.features.sequences import Sequences
from clue_utils.features.store import Feature, Features
from clue_utils.features.tokenization import PieceIds
from clue_utils.leaderboard.write import Answers
from clue_utils.scores.accuracy import accuracy, cross_entropy, softmax
from clue_utils.strict_json import JsonObject
from clue_utils.tasks import Example


class Method:
    """How one kind of task is read and scored: what a script adds to the shared parts.

    Which head is trained follows from the task's kind, see ``heads.HEADS``. ``choose`` and ``score`` are here as they
    are for features with one "label" each.

    Attributes:
        name: of the method, part of the key of cached features.
        num_outputs: classes of the classifier or choices of a question.
        width: columns of the logits at the most.
        texts: what the texts of a sequence are called, in their order.
        has_segments: whether the features have ``token_type_ids``.
        losing: numbers of the texts, in the order in which equally long ones lose a token; () where no rule so simple
            says what is cut.
    """

    name: str
    num_outputs: int
    width: int
    texts: tuple[str, ...]
    has_segments: bool = True
    losing: tuple[int, ...] = ()

    def __init__(self, tokenizer: Any, max_seq_length: int) -> None:
        self.tokenizer, self.max_seq_length = tokenizer, max_seq_length
        self.sequences = Sequences(tokenizer)
        self._ids = PieceIds(tokenizer)
        self._known_cuts: tuple[Features | None, list[bool]] = (None, [])

    def settings(self) -> dict[str, Any]:
        """What the features depend on besides examples and tokenizer: part of the cache's key."""
        return {"method": self.name, "max_seq_length": self.max_seq_length}

    def description(self) -> JsonObject:
        """What a program without this project has to know to make the inputs of an exported model."""
        return {
            "texts": self.texts,
            "losing": self.losing,
            "max_seq_length": self.max_seq_length,
            "pad_token_id": self.sequences.pad_id,
            "sequence": self.sequences.form(len(self.texts)),
        }

    def encode(self, example: Example) -> list[Feature]:
        """Turn an example into its features."""
        raise NotImplementedError

    def choose(self, scores: np.ndarray, examples: Examples, features: Features) -> np.ndarray:
        """Class or choice that each row is answered with, int64 [len(features)]."""
        return scores.argmax(axis=1)

    def score(self, scores: np.ndarray, examples: Examples, features: Features) -> dict[str, float]:
        """Metrics of a split with gold answers, "loss" first; scores (logits) float32 [len(features), width]."""
        labels = features.column("label")
        chosen = self.choose(scores, examples, features)
        return {"loss": cross_entropy(scores, labels), "accuracy": accuracy(chosen, labels)}

    def answer(self, scores: np.ndarray, examples: Examples, features: Features) -> Answers:
        """The leaderboard's answers for a test split."""
        raise NotImplementedError

    def explain(self, scores: np.ndarray, examples: Examples, features: Features) -> Iterator[JsonObject]:
        """What was answered to each example of a split with gold answers, in order.

        One object at a time, with the fields that ``clue_utils.dev_predictions`` describes.
        """
        raise NotImplementedError

    def predictions(self, scores: np.ndarray, examples: Examples, features: Features) -> Iterator[JsonObject]:
        """What there is to say of each example that has no gold answer, in order, see ``clue_utils.predictor``."""
        raise NotImplementedError

    def figures(self, scores: np.ndarray, examples: Examples, features: Features) -> JsonObject:
        """What ``result.json`` says of an evaluation beside its metrics."""
        return {}

    def is_cut(self, example: Example) -> bool:
        """Whether tokens of an example are left out to fit the length."""
        raise NotImplementedError

    def cut_examples(self, examples: Examples, features: Features) -> list[bool]:
        """``is_cut`` of every example of a split; found out once for all evaluations."""
        if self._known_cuts[0] is not features:
            self._known_cuts = (features, self._find_cuts(examples, features))
        return self._known_cuts[1]

    def _find_cuts(self, examples: Examples, features: Features) -> list[bool]:
        """With a rule of what loses tokens, an example has one feature, and is tokenised again if that is full."""
        if not self.losing:
            return [self.is_cut(example) for example in examples]
        full = features.longest() == self.max_seq_length
        return [bool(may_be) and self.is_cut(example) for example, may_be in zip(examples, full, strict=True)]


def id_of(example: Example) -> JsonObject:
    """The ``id`` of a record that has one."""
    return {"id": example["id"]} if "id" in example else {}


def probabilities(logits: np.ndarray) -> list[float]:
    """The softmax of logits [n], with the six places that files have."""
    return [round(value, 6) for value in softmax(logits).tolist()]
