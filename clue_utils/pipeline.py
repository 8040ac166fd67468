"""What every script does once its flags are read: train, evaluate and predict with one method on one task."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import paddle

from clue_utils import checkpoints, data, models, runtime, submission
from clue_utils.data import Records
from clue_utils.errors import UserError
from clue_utils.features import Feature, Features, build_features, tokenizer_fingerprint
from clue_utils.inference import Tensors, compute_logits
from clue_utils.results import Run, read_result
from clue_utils.tasks import DIAGNOSTICS, DIAGNOSTICS_MODEL, TEST, Task
from clue_utils.training import evaluate_and_log, fit

logger = logging.getLogger(__name__)


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

    def answer(self, scores: np.ndarray, records: Records, features: Features) -> submission.Answers:
        """The leaderboard's answers for a test split."""


@dataclass(frozen=True)
class _Split:
    records: Records
    features: Features


def average_logits(members: Sequence[np.ndarray], num_heads: int = 1) -> np.ndarray:
    """Logits of an ensemble, whose probabilities are the means of its members' probabilities.

    Each row and head is a distribution of its own, a softmax over its columns. Besides the distribution, a row has a
    level, the log of the sum of its exponentials, by which the windows of one context and the blanks of one record
    are compared with each other; the ensemble has the mean of its members' levels. Equal members thus give
    their own logits.

    Args:
        members: float32 [rows, width] of each member, -inf where a row has no column.
        num_heads: distributions that share a row, their columns taking turns (2 for the start and end of a span).

    Returns:
        float32 [rows, width].
    """
    result = np.empty_like(members[0])
    for head in range(num_heads):
        parts = [member[:, head::num_heads].astype(np.float64) for member in members]
        levels = [np.logaddexp.reduce(part, axis=1, keepdims=True) for part in parts]
        log_sum = np.logaddexp.reduce([part - level for part, level in zip(parts, levels, strict=True)], axis=0)
        result[:, head::num_heads] = log_sum - np.log(len(members)) + np.mean(levels, axis=0)
    return result


def _check_members(args: Any, task: Task, tokenizer: Any, settings: dict[str, Any]) -> None:
    """Refuse members of an ensemble that would read the same record differently.

    Raises:
        UserError: another tokenizer, or features built with another setting in training; or the output folder is that
            of a training run, whose record would then tell of other models.
    """
    if "history" in (read_result(args.output_dir) or {}):
        raise UserError(f"{args.output_dir} holds a training run: choose another --output_dir for the ensemble")
    for folder in args.ensemble:
        if not os.path.isdir(folder):
            raise UserError(f"--ensemble {folder}: no such folder")
        own = models.load_tokenizer(folder, getattr(args, "do_lower_case", None))
        if tokenizer_fingerprint(own) != tokenizer_fingerprint(tokenizer):
            raise UserError(
                f"--ensemble {folder}: its tokenizer is not that of {args.model_name_or_path}; "
                "an ensemble needs one vocabulary"
            )
        trained = (read_result(folder) or {}).get("hyper_parameters", {})
        for name, value in settings.items():
            if args.sources.get(name) != "command line" and trained.get(name, value) != value:
                raise UserError(
                    f"--ensemble {folder} was trained with {name} {trained[name]}, {args.model_name_or_path} with "
                    f"{value}: pass --{name} to use one for all"
                )


def _load_diagnostics(data_dir: str | None) -> Records | None:
    """The records of the diagnostics set under CMNLI's field names, or None where its folder is not among the data.

    Raises:
        UserError: the folder is there but not what it should be.
    """
    root = Path(data_dir or os.environ.get("CLUE_DATA_DIR") or data.cache_dir() / "data").expanduser()
    if not (root / DIAGNOSTICS.folder).is_dir():
        logger.info("%s: no %s in %s, not predicted", DIAGNOSTICS.name, DIAGNOSTICS.folder, root)
        return None
    records = data.load_records(DIAGNOSTICS, TEST, root)
    rows = [{"id": row["id"], "sentence1": row["premise"], "sentence2": row["hypothesis"]} for row in records]
    return replace(records, rows=rows)


def execute(args: Any, task: Task, device: str, build_method: Callable[[Any], Method]) -> None:
    """Carry out ``--do_train``, ``--do_eval`` and ``--do_predict``, in this order.

    After training, evaluation and prediction use the best checkpoint.

    Args:
        args: flags, completed by ``arguments.resolve``.
        build_method: tokenizer -> the script's method.
    """
    tokenizer = models.load_tokenizer(args.model_name_or_path, getattr(args, "do_lower_case", None))
    method = build_method(tokenizer)
    run = Run(task.name, task.metric, args, device)

    if args.ensemble:
        _check_members(args, task, tokenizer, method.settings())
    members = [args.model_name_or_path, *args.ensemble]
    if run.fields.pop("ensemble", members[:1]) != members:
        run.fields.pop("evaluation", None)  # of other members
    if args.ensemble:
        run.fields["ensemble"] = members

    def load_split(name: str) -> _Split:
        records = data.load_records(task, name, args.data_dir)
        run.record_data(records)
        return build_split(records)

    def build_split(records: Records) -> _Split:
        cache = data.cache_dir() / "features"
        features = build_features(records, method, tokenizer, cache, args.num_proc, args.overwrite_cache)
        return _Split(records, features)

    def logits_of(model: paddle.nn.Layer, split: _Split) -> np.ndarray:
        return compute_logits(
            model, split.features, method.forward, args.eval_batch_size, tokenizer.pad_token_id, method.width
        )

    def score(model: paddle.nn.Layer, split: _Split) -> dict[str, float]:
        return method.score(logits_of(model, split), split.records, split.features)

    def load_model(name_or_path: str, training: bool) -> paddle.nn.Layer:
        model = models.load_model(name_or_path, task, args.dropout, method.num_outputs, training)
        models.check_fit(model, tokenizer, args.max_seq_length)
        return model

    checkpoint = args.model_name_or_path
    dev = load_split("dev") if args.do_train or args.do_eval else None
    if args.do_train and run.is_trained:
        logger.info("%s: trained already, best %s %.4f", run.folder, task.metric, run.fields["best_metric"])
    elif args.do_train:
        assert dev is not None
        train = load_split("train").features
        runtime.seed_all(args.seed)  # a new head is drawn at random
        model = load_model(checkpoint, training=True)
        fit(
            model,
            train,
            method.compute_loss,
            lambda: score(model, dev),
            args,
            run,
            tokenizer.pad_token_id,
            save_best=lambda: models.save_model(model, tokenizer, run.folder),
        )
        run.write(status="trained")
        checkpoints.remove_all(run.folder)
    if args.do_train:
        checkpoint = str(run.folder)
    if args.do_eval or args.do_predict:
        loaded = [load_model(folder, training=False) for folder in (checkpoint, *args.ensemble)]

        def final_logits(split: _Split) -> np.ndarray:
            if len(loaded) == 1:
                return logits_of(loaded[0], split)
            return average_logits([logits_of(model, split) for model in loaded], 2 if task.kind == "span" else 1)

        def predict(of: Task, name: str, split: _Split) -> None:
            answers = method.answer(final_logits(split), split.records, split.features)
            for path in submission.write_predictions(of, name, answers, Path(args.output_dir)):
                logger.info("%d predictions written to %s", len(answers), path)

        if args.do_eval:
            assert dev is not None
            run.write(evaluation=evaluate_and_log(lambda: method.score(final_logits(dev), dev.records, dev.features)))
        if args.do_predict:
            for name in task.test_splits:
                predict(task, name, load_split(name))
            if task.name == DIAGNOSTICS_MODEL and (diagnostics := _load_diagnostics(args.data_dir)):
                predict(DIAGNOSTICS, TEST, build_split(diagnostics))
    run.finish(device)
