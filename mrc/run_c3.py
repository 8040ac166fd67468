#!/usr/bin/env python
"""Fine-tune, evaluate and predict with a pretrained model on C3: multiple choice over a dialogue or a text."""

from __future__ import annotations

from typing import Any

import numpy as np

from clue_utils import cli, environment, ranks, tasks
from clue_utils.data.examples import Examples
from clue_utils.errors import UserError
from clue_utils.features.method import Method
from clue_utils.features.sequences import truncated_lengths
from clue_utils.features.store import Feature, Features
from clue_utils.leaderboard.write import Answers
from clue_utils.record import trained_with
from clue_utils.scores.accuracy import accuracy
from clue_utils.settings import Settings
from clue_utils.tasks import MAX_CHOICES, Example

# What official code puts in the place of choices that a question does not have.
MISSING_CHOICE = "无效答案"
# Of context, question and choice together.
_LEAST_TEXT_TOKENS = 4
# At a tie the context loses its last token first, then the choice (the official rule).
_LOSING = (0, 2, 1)
EXAMPLE = """\
example:
  python -m paddle.distributed.launch --gpus "0,1,2,3" run_c3.py --model_name_or_path ernie-3.0-base-zh \\
      --batch_size 6 --learning_rate 2e-5 --output_dir c3_model --do_train --do_predict
"""


class C3(Method):
    """``[CLS] context [SEP] question [SEP] choice [SEP]``, or as the tokenizer has it, for each of four choices."""

    name = "c3"
    num_outputs = width = MAX_CHOICES

    def __init__(self, tokenizer: Any, max_seq_length: int) -> None:
        super().__init__(tokenizer, max_seq_length)
        self.max_text_tokens = max_seq_length - self.sequences.num_special(3)
        if self.max_text_tokens < _LEAST_TEXT_TOKENS:
            least = max_seq_length - self.max_text_tokens + _LEAST_TEXT_TOKENS
            raise UserError(f"--max_seq_length {max_seq_length} leaves no room for a question: pass at least {least}")

    def encode(self, example: Example) -> list[Feature]:
        """One feature: ``input_ids`` and ``token_type_ids`` of four rows, ``label``, ``num_choices``.

        Every choice is cut to fit on its own. Ids are built from word pieces, which are never tokenised again.
        """
        context = self._ids("\n".join(example["context"]).lower())
        question = self._ids(example["question"].lower())
        choices = example["choice"] + [MISSING_CHOICE] * (MAX_CHOICES - len(example["choice"]))
        rows = [self._pack(context, question, self._ids(choice.lower())) for choice in choices]
        return [
            {
                "input_ids": [ids for ids, _ in rows],
                "token_type_ids": [types for _, types in rows],
                "label": example.get("label", -1),
                "num_choices": len(example["choice"]),
            }
        ]

    def _pack(self, context: list[int], question: list[int], choice: list[int]) -> tuple[list[int], list[int]]:
        lengths = (len(context), len(question), len(choice))
        c, q, o = truncated_lengths(lengths, self.max_text_tokens, _LOSING)
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


def main(argv: list[str] | None = None) -> None:
    flags = Settings.parser(__doc__, EXAMPLE).parse_args(argv)
    task = tasks.get_task("C3")
    args = Settings.resolve(vars(flags), task, ranks.world_size(), trained_with(flags.model_name_or_path, task))
    environment.start(args, task)
    from clue_utils.training.session import execute  # after the settings that Paddle reads when it is imported

    execute(args, task, lambda tokenizer: C3(tokenizer, args.max_seq_length))


if __name__ == "__main__":
    cli.run(main)
