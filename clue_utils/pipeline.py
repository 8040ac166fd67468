"""What every script does once its flags are read: train, evaluate and predict with one method on one task."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import paddle

from clue_utils import checkpoints, data, models, runtime, submission
from clue_utils.data import Records
from clue_utils.features import Feature, Features, build_features
from clue_utils.inference import Tensors, compute_logits
from clue_utils.results import Run
from clue_utils.tasks import Task
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

    def load_split(name: str) -> _Split:
        records = data.load_records(task, name, args.data_dir)
        run.record_data(records)
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
        model = load_model(checkpoint, training=False)
        if args.do_eval:
            assert dev is not None
            run.write(evaluation=evaluate_and_log(lambda: score(model, dev)))
        if args.do_predict:
            for name in task.test_splits:
                split = load_split(name)
                answers = method.answer(logits_of(model, split), split.records, split.features)
                for path in submission.write_predictions(task, name, answers, Path(args.output_dir)):
                    logger.info("%d predictions written to %s", len(answers), path)
    run.finish(device)
