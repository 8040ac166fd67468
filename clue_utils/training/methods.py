"""The kinds of tasks: which settings a run of each has, and how its method is made. Imports no PaddlePaddle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from clue_utils.features.method import Method
from clue_utils.settings import Settings
from clue_utils.tasks import Task
from clue_utils.training.classification import Classification
from clue_utils.training.cloze import Chid, ChidSettings
from clue_utils.training.multiple_choice import C3
from clue_utils.training.span import Cmrc2018, Cmrc2018Settings


class Kind(NamedTuple):
    """Settings of a run, and tokenizer, settings, task -> method."""

    settings: type[Settings]
    make: Callable[[Any, Any, Task], Method]


def _make_span(tokenizer: Any, args: Any, _: Task) -> Method:
    own = (args.doc_stride, args.max_query_length, args.n_best_size, args.max_answer_length)
    return Cmrc2018(tokenizer, args.max_seq_length, *own)


KINDS = {
    "classification": Kind(
        Settings, lambda tokenizer, args, task: Classification(task, tokenizer, args.max_seq_length)
    ),
    "multiple_choice": Kind(Settings, lambda tokenizer, args, _: C3(tokenizer, args.max_seq_length)),
    "cloze": Kind(ChidSettings, lambda tokenizer, args, _: Chid(tokenizer, args.max_seq_length, args.assignment)),
    "span": Kind(Cmrc2018Settings, _make_span),
}


def make_method(args: Settings, task: Task, tokenizer: Any) -> Method:
    """The method of a task with the settings of a run, which are of the task's kind."""
    return KINDS[task.kind].make(tokenizer, args, task)
