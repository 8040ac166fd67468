"""The method of C3: multiple choice over a dialogue or a text."""

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
from clue_utils.scores.accuracy import accuracy
from clue_utils.strict_json import JsonObject
from clue_utils.tasks import MAX_CHOICES, Example

# What official code puts in the place of choices that a question does not have.
MISSING_CHOICE = "无效答案"
# Of context, question and choice together.
_LEAST_TEXT_TOKENS = 4


class C3(Method):
    """``[CLS] context [SEP] question [SEP] choice [SEP]``, or as the tokenizer has it, for each of four choices."""

    name = "c3"
    num_outputs = width = MAX_CHOICES
    texts = ("context", "question", "choice")
    losing = (0, 2, 1)  # the official rule

    def __init__(self, tokenizer: Any, max_seq_length: int) -> None:
        super().__init__(tokenizer, max_seq_length)
        self.max_text_tokens = max_seq_length - self.sequences.num_special(3)
        if self.max_text_tokens < _LEAST_TEXT_TOKENS:
            least = max_seq_length - self.max_text_tokens + _LEAST_TEXT_TOKENS
            raise UserError(
                say(
                    "--max_seq_length {max_seq_length} leaves no room for a question: pass at least {least}",
                    max_seq_length=max_seq_length,
                    least=least,
                )
            )

    def description(self) -> JsonObject:
        return super().description() | {"num_choices": MAX_CHOICES, "missing_choice": MISSING_CHOICE}

    def encode(self, example: Example) -> list[Feature]:
        """One feature: ``input_ids`` and ``token_type_ids`` of four rows, ``label``, ``num_choices``.

        Every choice is cut to fit on its own. Ids are built from word pieces, which are never tokenised again.
        """
        read = self._read(example)
        context, question = self._ids(read["context"]), self._ids(read["question"])
        choices = read["choice"] + [MISSING_CHOICE] * (MAX_CHOICES - len(example["choice"]))
        rows = [self._pack(context, question, self._ids(choice)) for choice in choices]
        return [
            {
                "input_ids": [ids for ids, _ in rows],
                "token_type_ids": [types for _, types in rows],
                "label": example.get("label", -1),
                "num_choices": len(example["choice"]),
            }
        ]

    def _read(self, example: Example) -> JsonObject:
        """The texts as they are tokenised."""
        return {
            "context": "\n".join(example["context"]).lower(),
            "question": example["question"].lower(),
            "choice": [choice.lower() for choice in example["choice"]],
        }

    def is_cut(self, example: Example) -> bool:
        read = self._read(example)
        longest = max(len(self._ids(choice)) for choice in [*read["choice"], MISSING_CHOICE][:MAX_CHOICES])
        return len(self._ids(read["context"])) + len(self._ids(read["question"])) + longest > self.max_text_tokens

    def _pack(self, context: list[int], question: list[int], choice: list[int]) -> tuple[list[int], list[int]]:
        lengths = (len(context), len(question), len(choice))
        c, q, o = truncated_lengths(lengths, self.max_text_tokens, self.losing)
        return self.sequences.build(context[:c], question[:q], choice[:o])

    def score(self, scores: np.ndarray, examples: Examples, features: Features) -> dict[str, float]:
        """Loss, ``accuracy`` among the choices that a question has, and ``accuracy_with_fillers`` among all four rows.

        The latter is the rule of the official script and of the published scores: a filler may be taken for the answer.
        """
        with_fillers = accuracy(scores.argmax(axis=1), features.column("label"))
        return super().score(scores, examples, features) | {"accuracy_with_fillers": with_fillers}

    def choose(self, scores: np.ndarray, examples: Examples, features: Features) -> np.ndarray:
        """Highest-scored choice that each question really has."""
        missing = np.arange(MAX_CHOICES) >= features.column("num_choices")[:, None]
        return np.where(missing, -np.inf, scores).argmax(axis=1)

    def answer(self, scores: np.ndarray, examples: Examples, features: Features) -> Answers:
        return [(r["id"], int(i)) for r, i in zip(examples, self.choose(scores, examples, features), strict=True)]

    def predictions(self, scores: np.ndarray, examples: Examples, features: Features) -> Iterator[JsonObject]:
        chosen = self.choose(scores, examples, features).tolist()
        for example, row, index in zip(examples, scores, chosen, strict=True):
            choices = example["choice"]
            shares = probabilities(row[: len(choices)])
            yield {
                "answer": choices[index],
                "index": index,
                "probability": shares[index],
                "probabilities": shares,
            }

    def explain(self, scores: np.ndarray, examples: Examples, features: Features) -> Iterator[JsonObject]:
        chosen, cut = self.choose(scores, examples, features).tolist(), self.cut_examples(examples, features)
        for example, row, answer, is_cut in zip(examples, scores, chosen, cut, strict=True):
            choices = example["choice"]
            yield {
                "id": example["id"],
                "inputs": self._read(example),
                "is_cut": is_cut,
                "gold": choices[example["label"]],
                "answer": choices[answer],
                "gold_index": example["label"],
                "answer_index": answer,
                "probabilities": probabilities(row[: len(choices)]),
                "is_right": answer == example["label"],
            }
