"""Use a fine-tuned checkpoint: label texts and answer questions, from Python or of a file.

What is answered to a record, by the kind of the task, besides the ``id`` of a record that has one:

- classification: ``label``, the official string; ``name``, what people call it; ``probability``; ``probabilities`` of
  all classes by their names;
- C3: ``answer``, ``index`` among the choices, ``probability``, ``probabilities`` in the order of the choices;
- CHID: ``blanks``, of each ``tag``, ``answer``, ``index`` among the candidates, ``probability``, ``probabilities`` in
  their order (an idiom that is likelier may have been given to another blank);
- CMRC2018: ``answer``, ``probability`` among the ``n_best`` texts, ``begin`` and ``end`` in characters of the context
  (None where no span is allowed), ``n_best``: ``text``, ``probability``, ``begin`` and ``end`` of each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import paddle

from clue_utils import device as devices
from clue_utils import models, tasks
from clue_utils.data.examples import Examples
from clue_utils.errors import UserError, show
from clue_utils.features.build import features_in_memory
from clue_utils.features.method import id_of
from clue_utils.features.store import Feature
from clue_utils.language import say
from clue_utils.models.config import read_config
from clue_utils.models.heads import HEADS
from clue_utils.record import Record, trained_with
from clue_utils.settings import Settings
from clue_utils.strict_json import JsonObject
from clue_utils.tasks import Example, Task
from clue_utils.training import ensemble
from clue_utils.training.inputs import Placed, to_example
from clue_utils.training.methods import KINDS, make_method
from clue_utils.training.predict import BatchLimit, compute_logits, make_collate, make_ready

# How much is computed at a time, in order of length: whichever is reached first.
_CHUNK_RECORDS, _CHUNK_TOKENS = 1 << 12, 1 << 20


def task_of(folder: str | os.PathLike[str]) -> Task:
    """The task that a checkpoint was fine-tuned for, as its ``result.json`` or else its ``config.json`` says.

    Raises:
        UserError: there is no such folder, or neither file says so.
    """
    if not os.path.isdir(folder):
        raise UserError(say("{folder}: no such folder; name that of a fine-tuned checkpoint", folder=folder))
    record = Record.read(folder)
    name = record.task if record else None
    name = name or read_config(Path(folder)).values.get("finetuning_task")
    if not isinstance(name, str):
        raise UserError(
            say("{folder}: neither result.json nor config.json says which task it was fine-tuned for", folder=folder)
        )
    return tasks.get_task(name)


class Predictor:
    """A fine-tuned checkpoint that answers.

    An input is a text; a pair of texts, for a task that has two (for CMRC2018 context and question); or a dict with the
    task's fields as in its data files, without a label, with an ``id`` if that is to be in the answer. Of the choices
    of a C3 question the first four count.

        >>> from clue_utils import Predictor
        >>> predict = Predictor("models/tnews")
        >>> answer = predict(["今年的新车有哪些"])[0]
        >>> sorted(answer)
        ['label', 'name', 'probabilities', 'probability']

    Args:
        folder: of the checkpoint.
        device: "gpu", "xpu" or "cpu"; None: a GPU where there is one.
        batch_size: records at a time at the most; fewer of long ones.
        precision: of matrix products, as of ``--precision``.
        max_seq_length: tokens of a sequence; None: as in training.

    Attributes:
        task: that the checkpoint was fine-tuned for.

    Raises:
        UserError: no such checkpoint, or one that cannot be used; or an argument that cannot be.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        device: str | None = None,
        batch_size: int = 64,
        precision: str = "fp32",
        max_seq_length: int | None = None,
    ) -> None:
        folder = os.fspath(folder)
        task = task_of(folder)
        settings = KINDS[task.kind].settings
        given = {"device": device, "eval_batch_size": batch_size, "precision": precision}
        given |= {"max_seq_length": max_seq_length}
        for name, value in given.items():
            if value is not None and not settings.flags()[name].accepts(value):
                raise UserError(
                    say(
                        "{name} cannot be {value}",
                        name="batch_size" if name == "eval_batch_size" else name,
                        value=show(value),
                    )
                )
        named = {"model_name_or_path": folder, "do_predict": True}
        args = settings.resolve(given | named, task, 1, trained_with(folder, task))
        devices.start(args.device, args.precision)
        self._open(args, task, [args.model_name_or_path])

    @classmethod
    def of_run(cls, args: Settings, task: Task, folders: Sequence[str]) -> Predictor:
        """What answers with the settings of a run; of several checkpoints by the means of their probabilities."""
        predictor = cls.__new__(cls)
        predictor._open(args, task, folders)
        return predictor

    def _open(self, args: Settings, task: Task, folders: Sequence[str]) -> None:
        self.task, self._args, self._head = task, args, HEADS[task.kind]
        models.require_architecture(folders[0])
        tokenizer = models.load_tokenizer(folders[0], args.lower_case)
        self._method = make_method(args, task, tokenizer)
        if len(folders) > 1:
            ensemble.check_members(args, tokenizer, self._method.settings())
        self._collate, self._limit = make_collate(args, self._method), BatchLimit.of(args.eval_batch_size)
        self._members = [self._load(folder) for folder in folders]

    def _load(self, folder: str) -> paddle.nn.Layer:
        args, num_outputs = self._args, self._method.num_outputs
        model = models.load_model(folder, self.task, args.dropout, num_outputs, False, args.lora_rank)
        return make_ready(model, args, self._method)

    def __call__(self, inputs: Iterable[Any]) -> list[JsonObject]:
        """The answers to inputs, in their order.

        Raises:
            UserError: an input is not as described; its number, from 0, is named.
        """
        return [*self.stream(inputs)]

    def stream(self, inputs: Iterable[Any]) -> Iterator[JsonObject]:
        """As a call, but one answer at a time, of any number of inputs; some thousand are in memory at a time."""
        if isinstance(inputs, (str, bytes, Mapping)):
            raise UserError(say("one input alone: give a list of inputs"))
        records = ((f"inputs[{number}]", value) for number, value in enumerate(inputs))
        return (answer for _, answer in self.answers(records))

    def answers(
        self, records: Iterable[Placed], on_batch: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[Example, JsonObject]]:
        """Each record as it was read, and what is answered to it.

        Args:
            records: of each its place, which an error begins with, and the input.
            on_batch: called after each batch.

        Raises:
            UserError: an input is not as described, or the model's scores are not numbers.
        """
        for examples, features in self._chunks(records):
            known = Examples(self.task, "inputs", examples, (), "", 0)
            encoded = features_in_memory(features)
            how = (self._collate, self._limit, self._method.width, self._args.precision, on_batch)
            logits = [compute_logits(each, self._head, encoded, *how, is_quiet=True) for each in self._members]
            scores = ensemble.combine(logits, self._head.num_distributions)
            for example, answer in zip(examples, self._method.predictions(scores, known, encoded), strict=True):
                yield example, id_of(example) | answer

    def _chunks(self, records: Iterable[Placed]) -> Iterator[tuple[list[Example], list[Feature]]]:
        examples: list[Example] = []
        features: list[Feature] = []
        num_tokens = 0
        for place, value in records:
            example = to_example(self.task, value, place)
            encoded = self._method.encode(example)
            examples.append(example)
            features += encoded
            num_tokens += sum(_num_tokens(feature["input_ids"]) for feature in encoded)
            if len(examples) == _CHUNK_RECORDS or num_tokens >= _CHUNK_TOKENS:
                yield examples, features
                examples, features, num_tokens = [], [], 0
        if examples:
            yield examples, features


def _num_tokens(ids: list[Any]) -> int:
    return sum(map(len, ids)) if ids and isinstance(ids[0], list) else len(ids)
