"""What a task does with its records, beside what all tasks share."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import paddle

from clue_utils.data.examples import Records
from clue_utils.features.store import Feature, Features
from clue_utils.leaderboard import write
from clue_utils.models.heads import Tensors


class Method(Protocol):
    """How one kind of task is learnt and scored: what a script adds to the shared parts.

    Attributes:
        num_outputs: classes of the classifier or choices of a question.
        width: columns of the logits, and so of ``forward``'s result at the most.
    """

    num_outputs: int
    width: int

    def settings(self) -> dict[str, Any]:
        """What the features depend on besides records and tokenizer: part of the cache's key."""

    def encode(self, record: dict[str, Any]) -> list[Feature]:
        """Turn a record into its features."""

    def compute_loss(self, model: paddle.nn.Layer, batch: Tensors) -> paddle.Tensor:
        """Loss of each row, float [batch]."""

    def forward(self, model: paddle.nn.Layer, batch: Tensors) -> paddle.Tensor:
        """Logits of each row, float [batch, at most width]."""

    def score(self, scores: np.ndarray, records: Records, features: Features) -> dict[str, float]:
        """Metrics of a split with gold answers, "loss" first; scores (logits) float32 [len(features), width]."""

    def answer(self, scores: np.ndarray, records: Records, features: Features) -> write.Answers:
        """The leaderboard's answers for a test split."""
