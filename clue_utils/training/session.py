"""What every script does once its flags are read: train, evaluate and predict with one method on one task."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from clue_utils import device, models, ranks
from clue_utils.data import examples
from clue_utils.data.examples import Records
from clue_utils.features import tokenization
from clue_utils.features.batches import collate
from clue_utils.features.build import build_features
from clue_utils.features.store import Features
from clue_utils.files import locked
from clue_utils.grid import pruning
from clue_utils.leaderboard import write
from clue_utils.models import cpu_layers
from clue_utils.models.heads import Tensors
from clue_utils.record import Run
from clue_utils.tasks import DIAGNOSTICS, DIAGNOSTICS_MODEL, TEST, Task
from clue_utils.training import checkpoints, ensemble
from clue_utils.training.loop import evaluate_and_log, fit
from clue_utils.training.method import Method
from clue_utils.training.predict import compute_logits

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """Checked records and their features; a record may have several."""

    records: Records
    features: Features


class Pipeline:
    """What a run works with: tokenizer, method, record (``run``) and padding (``collate``), and through them splits,
    models and predictions.

    Args:
        args: flags, completed by ``settings.resolve``.
        run: the record, which begins here, once a run has all that it needs but its model.
        build_method: tokenizer -> the script's method.

    Raises:
        UserError: a test set that is to be predicted is missing or faulty, or the members of an ensemble do not go
            together.
    """

    def __init__(self, args: Any, task: Task, run: Run, build_method: Callable[[Any], Method]) -> None:
        self.args, self.task, self.run = args, task, run
        # Read before anything is trained: rather refused now than after hours.
        self._tests = _load_tests(task, args.data_dir) if args.do_predict else []
        models.require_architecture(args.model_name_or_path)
        self.tokenizer = models.load_tokenizer(args.model_name_or_path, getattr(args, "do_lower_case", None))
        tokenization.require_support(self.tokenizer, task)
        self.method = build_method(self.tokenizer)
        self.collate = functools.partial(
            collate,
            pad_token_id=self.tokenizer.pad_token_id,
            # The matrix units of GPUs take half precision in multiples of 8.
            pad_to_multiple_of=1 if args.precision == "fp32" else 8,
            max_length=args.max_seq_length,
        )
        run.begin()
        if ranks.world_size() > 1:
            paddle.distributed.barrier()  # rank 0 may have cleared the folder
        if args.ensemble:
            ensemble.check_members(args, self.tokenizer, self.method.settings())
        self.run.record_members([args.model_name_or_path, *args.ensemble])

    def load_split(self, name: str) -> Split:
        """Read a split of the task, note its size and checksum, and build its features."""
        records = examples.load_records(self.task, name, self.args.data_dir)
        self.run.record_data(records)
        return self._with_features(records)

    def _with_features(self, records: Records) -> Split:
        cache = examples.cache_dir() / "features"
        args = self.args
        return Split(
            records,
            build_features(
                records,
                self.method,
                self.tokenizer,
                cache,
                args.num_proc,
                args.overwrite_cache,
                self.run.sign_of_life,
            ),
        )

    def load_model(self, name_or_path: str, training: bool) -> paddle.nn.Layer:
        """Load the encoder with the task's head, see ``models.load_model``, and see that it takes the inputs."""
        model = models.load_model(name_or_path, self.task, self.args.dropout, self.method.num_outputs, training)
        models.check_fit(model, self.tokenizer, self.args.max_seq_length)
        if paddle.get_device() == "cpu" and self.args.precision == "fp32":
            cpu_layers.speed_up(model)
        return model

    def _compute_loss(self, model: paddle.nn.Layer, batch: Tensors) -> paddle.Tensor:
        with device.autocast(self.args.precision):
            return self.method.compute_loss(model, batch)

    def _forward(self, model: paddle.nn.Layer, batch: Tensors) -> paddle.Tensor:
        self.run.sign_of_life()
        with device.autocast(self.args.precision):
            return self.method.forward(model, batch)

    def score(self, members: Sequence[paddle.nn.Layer], split: Split) -> dict[str, float]:
        """Metrics of a model, or of the mean of several, on a split with gold answers."""
        return self.method.score(self._logits(members, split), split.records, split.features)

    def predict(self, members: Sequence[paddle.nn.Layer]) -> None:
        """Write the predictions of every test set; with CMNLI, of the diagnostics set too where its data is there."""
        for records in self._tests:
            if records.task is self.task:
                self.run.record_data(records)
            split = self._with_features(records)
            answers = self.method.answer(self._logits(members, split), split.records, split.features)
            folder = Path(self.args.output_dir)
            for path in write.write_predictions(records.task, records.split, answers, folder):
                logger.info("%d predictions written to %s", len(answers), path)

    def _logits(self, members: Sequence[paddle.nn.Layer], split: Split) -> np.ndarray:
        """Logits float32 [len(split.features), width]."""
        batch_size, width = self.args.eval_batch_size, self.method.width
        logits = [
            compute_logits(model, split.features, self._forward, self.collate, batch_size, width) for model in members
        ]
        return logits[0] if len(logits) == 1 else ensemble.average_logits(logits, 2 if self.task.kind == "span" else 1)

    def train(self, dev: Split) -> None:
        """Fine-tune and keep the best checkpoint in the output folder."""
        train = self.load_split("train").features
        device.seed_all(self.args.seed)  # a new head is drawn at random
        model = self.load_model(self.args.model_name_or_path, training=True)
        fit(
            model,
            train,
            self.collate,
            self._compute_loss,
            lambda: self.score([model], dev),
            self.args,
            self.run,
            save_best=lambda: models.save_model(model, self.tokenizer, self.run.folder),
            reason_to_stop=self._reason_to_stop if self.args.prune else lambda: "",
        )
        self.run.write(status="trained")

    def _reason_to_stop(self) -> str:
        others = pruning.finished_trials(self.run.folder, self.task)
        return pruning.reason_to_stop(self.run.fields, others)


def execute(args: Any, task: Task, device: str, build_method: Callable[[Any], Method]) -> None:
    """Carry out ``--do_train``, ``--do_eval`` and ``--do_predict``, in this order.

    After training, evaluation and prediction use the best checkpoint. Arguments as of :class:`Pipeline`.
    """
    with locked(Path(args.output_dir)):
        run = Run(task.name, task.metric, args, device)
        with run.recorded():
            _execute(args, task, run, build_method)
            run.finish(device)


def _execute(args: Any, task: Task, run: Run, build_method: Callable[[Any], Method]) -> None:
    pipeline, checkpoint = Pipeline(args, task, run, build_method), args.model_name_or_path
    dev = pipeline.load_split("dev") if args.do_train or args.do_eval else None
    if args.do_train and dev:
        checkpoint = str(run.folder)
        if run.is_trained:
            logger.info("%s: trained already, best %s %.4f", run.folder, task.metric, run.fields["best_metric"])
        else:
            pipeline.train(dev)
        if ranks.rank() == 0:  # also after a run that was killed before it came to this
            checkpoints.remove_all(run.folder)
    if args.do_eval or args.do_predict:
        members = [pipeline.load_model(folder, training=False) for folder in (checkpoint, *args.ensemble)]
        if args.do_eval and dev:
            run.write(evaluation=evaluate_and_log(lambda: pipeline.score(members, dev)))
        if args.do_predict:
            pipeline.predict(members)


def _load_tests(task: Task, data_dir: str | None) -> list[Records]:
    """The test sets of a task, checked and packed, in the order in which they are predicted."""
    tests = [examples.load_records(task, name, data_dir) for name in task.test_splits]
    if task.name == DIAGNOSTICS_MODEL and (diagnostics := _load_diagnostics(data_dir)):
        tests.append(diagnostics)
    return tests


def _load_diagnostics(data_dir: str | None) -> Records | None:
    """The records of the diagnostics set under CMNLI's field names, or None where its folder is not among the data.

    Raises:
        UserError: the folder is there but not what it should be.
    """
    root = examples.data_root(data_dir)
    if not (root / DIAGNOSTICS.folder).is_dir():
        logger.info("%s: no %s in %s, not predicted", DIAGNOSTICS.name, DIAGNOSTICS.folder, root)
        return None
    records = examples.load_records(DIAGNOSTICS, TEST, root)
    rows = [{"id": row["id"], "sentence1": row["premise"], "sentence2": row["hypothesis"]} for row in records]
    return replace(records, rows=rows)
