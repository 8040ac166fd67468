"""What a task does with its examples, beside what all tasks share. Imports no PaddlePaddle."""

from __future__ import annotations

from typing import Any

import numpy as np

from clue_utils.data.examples import Examples
from clue_utils.features.sequences import Sequences
from clue_utils.features.store import Feature, Features
from clue_utils.features.tokenization import PieceIds
from clue_utils.leaderboard.write import Answers
from clue_utils.scores.accuracy import accuracy, cross_entropy
from clue_utils.tasks import Example


class Method:
    """How one kind of task is read and scored: what a script adds to the shared parts.

    Which head is trained follows from the task's kind, see ``heads.HEADS``. ``choose`` and ``score`` are here as they
    are for features with one "label" each.

    Attributes:
        name: of the method, part of the key of cached features.
        num_outputs: classes of the classifier or choices of a question.
        width: columns of the logits at the most.
    """

    name: str
    num_outputs: int
    width: int

    def __init__(self, tokenizer: Any, max_seq_length: int) -> None:
        self.tokenizer, self.max_seq_length = tokenizer, max_seq_length
        self.sequences = Sequences(tokenizer)
        self._ids = PieceIds(tokenizer)

    def settings(self) -> dict[str, Any]:
        """What the features depend on besides examples and tokenizer: part of the cache's key."""
        return {"method": self.name, "max_seq_length": self.max_seq_length}

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
