"""Average several checkpoints of a task into one prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clue_utils import models
from clue_utils.errors import UserError
from clue_utils.features.build import tokenizer_fingerprint
from clue_utils.language import say
from clue_utils.model_names import require_member
from clue_utils.record import Record
from clue_utils.settings import Settings


def average_logits(members: Sequence[np.ndarray], num_distributions: int = 1) -> np.ndarray:
    """Logits of an ensemble, whose probabilities are the means of its members' probabilities.

    Each row and head is a distribution of its own, a softmax over its columns. Besides the distribution, a row has a
    level, the log of the sum of its exponentials, by which the windows of one context and the blanks of one example
    are compared with each other; the ensemble has the mean of its members' levels. Equal members thus give their own
    logits.

    Args:
        members: float32 [rows, width] of each member, -inf where a row has no column.
        num_distributions: how many share a row, their columns taking turns (2 for the start and end of a span).

    Returns:
        float32 [rows, width].
    """
    result = np.empty_like(members[0])
    for first in range(num_distributions):
        parts = [member[:, first::num_distributions].astype(np.float64) for member in members]
        levels = [np.logaddexp.reduce(part, axis=1, keepdims=True) for part in parts]
        log_sum = np.logaddexp.reduce([part - level for part, level in zip(parts, levels, strict=True)], axis=0)
        result[:, first::num_distributions] = log_sum - np.log(len(members)) + np.mean(levels, axis=0)
    return result


def combine(members: Sequence[np.ndarray], num_distributions: int) -> np.ndarray:
    """A single model's own logits, or those of an ensemble, see :func:`average_logits`."""
    return members[0] if len(members) == 1 else average_logits(members, num_distributions)


def refuse_training_run(output_dir: str) -> None:
    """Refuse the folder of a training run for an ensemble: its record would then tell of other models.

    Raises:
        UserError: it is one.
    """
    if (there := Record.read(output_dir)) and there.holds_training:
        raise UserError(
            say(
                "{output_dir} holds a training run: choose another --output_dir for the ensemble", output_dir=output_dir
            )
        )


def check_members(args: Settings, tokenizer: Any, settings: dict[str, Any]) -> None:
    """Refuse members of an ensemble that would read the same example differently.

    Raises:
        UserError: another tokenizer, or features built with another setting in training.
    """
    for folder in args.ensemble:
        require_member(folder)
        own = models.load_tokenizer(folder, args.lower_case)
        if tokenizer_fingerprint(own) != tokenizer_fingerprint(tokenizer):
            raise UserError(
                say(
                    "--ensemble {folder}: its tokenizer is not that of {model_name_or_path}; an ensemble needs one "
                    "vocabulary",
                    folder=folder,
                    model_name_or_path=args.model_name_or_path,
                )
            )
        trained = (Record.read(folder) or Record()).hyper_parameters
        for name, value in settings.items():
            if args.sources.get(name) != "command line" and trained.get(name, value) != value:
                raise UserError(
                    say(
                        "--ensemble {folder} was trained with {name} {trained}, {model_name_or_path} with {value}: "
                        "pass --{name} to use one for all",
                        folder=folder,
                        name=name,
                        trained=trained[name],
                        model_name_or_path=args.model_name_or_path,
                        value=value,
                    )
                )
