"""What every script does once its flags are read: train, evaluate and predict with one method on one task."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from clue_utils import cli, device, models, ranks
from clue_utils.data.examples import Examples, cache_dir, data_root, load_examples
from clue_utils.features.batches import collate
from clue_utils.features.build import build_features
from clue_utils.features.method import Method
from clue_utils.features.store import Features
from clue_utils.files import locked_folder
from clue_utils.grid import pruning
from clue_utils.leaderboard import write
from clue_utils.models import cpu_layers, gpu_layers, lora
from clue_utils.models.heads import HEADS
from clue_utils.record import Run
from clue_utils.settings import Settings
from clue_utils.tasks import DIAGNOSTICS, DIAGNOSTICS_MODEL, TEST, Task
from clue_utils.training import checkpoints, ensemble
from clue_utils.training.loop import Job, Watch, fit, no_watch
from clue_utils.training.predict import BatchLimit, compute_logits

logger = logging.getLogger(__name__)
# Names of metrics in log lines, where they differ from those in result.json.
_LOG_NAMES = {"accuracy": "acc"}


@dataclass(frozen=True)
class Dataset:
    """Checked examples of a split and their features; an example may have several."""

    examples: Examples
    features: Features


class Session:
    """What a run works with: tokenizer, method, head, record (``run``) and padding (``collate``), and through them
    data, models and predictions.

    Args:
        args: the settings of the run.
        run: the record, which begins here, once a run has all that it needs but its model.
        build_method: tokenizer -> the script's method.
        watch: told of what is measured, see ``loop.Watch``.

    Raises:
        UserError: a test set that is to be predicted is missing or faulty, or the members of an ensemble do not go
            together.
    """

    def __init__(
        self, args: Settings, task: Task, run: Run, build_method: Callable[[Any], Method], watch: Watch = no_watch
    ) -> None:
        self.args, self.task, self.run, self.head, self.watch = args, task, run, HEADS[task.kind], watch
        self._limit = BatchLimit.of(args.eval_batch_size)
        # Read before anything is trained: rather refused now than after hours.
        self._tests = _load_tests(task, args.data_dir) if args.do_predict else []
        models.require_architecture(args.model_name_or_path, args.output_dir if args.do_train else None)
        self.tokenizer = models.load_tokenizer(args.model_name_or_path, args.lower_case)
        self.method = build_method(self.tokenizer)
        self.collate = functools.partial(
            collate,
            pad_token_id=self.method.sequences.pad_id,
            # The matrix units of GPUs take half precision in multiples of 8, as a kernel of the attention does masks.
            pad_to_multiple_of=1 if args.precision == "fp32" and not args.fused_attention else 8,
            max_length=args.max_seq_length,
        )
        run.begin()
        device.barrier()  # rank 0 may have cleared the folder
        if args.ensemble:
            ensemble.check_members(args, self.tokenizer, self.method.settings())
        self.run.record_members([args.model_name_or_path, *args.ensemble])

    def load_split(self, name: str) -> Dataset:
        """Read a split of the task, note its size and checksum, and build its features."""
        examples = load_examples(self.task, name, self.args.data_dir)
        self.run.record_data(examples)
        return self._with_features(examples)

    def _with_features(self, examples: Examples) -> Dataset:
        cache, args, on_progress = cache_dir() / "features", self.args, self.run.sign_of_life
        with cli.timed() as elapsed:
            features = build_features(
                examples, self.method, self.tokenizer, cache, args.num_proc, args.overwrite_cache, on_progress
            )
        self.watch("features", elapsed())
        return Dataset(examples, features)

    def load_model(self, name_or_path: str, training: bool) -> paddle.nn.Layer:
        """Load the encoder with the task's head, see ``models.load_model``, and see that it takes the inputs."""
        args, num_outputs = self.args, self.method.num_outputs
        model = models.load_model(name_or_path, self.task, args.dropout, num_outputs, training, args.lora_rank)
        models.check_fit(model, self.tokenizer, self.args.max_seq_length)
        models.check_segments(model, self.method.sequences.num_segments)
        if training:
            self.run.record_base(adapters.sha256 if (adapters := lora.of_model(model)) else None)
        if self.args.fused_attention:
            gpu_layers.fuse_attention(model)
        if paddle.get_device() == "cpu" and self.args.precision == "fp32":
            cpu_layers.speed_up(model)
        else:
            gpu_layers.speed_up(model)
        return model

    def evaluate(self, members: Sequence[paddle.nn.Layer], dev: Dataset) -> dict[str, float]:
        """Metrics of a model, or of the mean of several, on data with gold answers; print the line that says so."""
        with cli.timed() as elapsed:
            metrics = self.method.score(self._logits(members, dev), dev.examples, dev.features)
            seconds = elapsed()
        names = [name for name in metrics if name != "loss"]
        values = "".join(f"{_LOG_NAMES.get(name, name)}: {round(metrics[name], 6)}, " for name in names)
        logger.info("eval loss: %f, %seval done total : %s s", metrics["loss"], values, seconds)
        self.watch("evaluation", seconds)
        return metrics

    def predict(self, members: Sequence[paddle.nn.Layer]) -> None:
        """Write the predictions of every test set; with CMNLI, of the diagnostics set too where its data is there."""
        for examples in self._tests:
            if examples.task is self.task:
                self.run.record_data(examples)
            test = self._with_features(examples)
            answers = self.method.answer(self._logits(members, test), test.examples, test.features)
            folder = Path(self.args.output_dir)
            for path in write.write_predictions(examples.task, examples.split, answers, folder):
                logger.info("%d predictions written to %s", len(answers), path)

    def _logits(self, members: Sequence[paddle.nn.Layer], data: Dataset) -> np.ndarray:
        """Logits float32 [len(data.features), width]."""
        how = (self.collate, self._limit, self.method.width, self.args.precision, self.run.sign_of_life)
        logits = [compute_logits(model, self.head, data.features, *how) for model in members]
        return logits[0] if len(logits) == 1 else ensemble.average_logits(logits, self.head.num_distributions)

    def train(self, dev: Dataset) -> None:
        """Fine-tune and keep the best checkpoint in the output folder."""
        train = self.load_split("train").features
        device.seed_all(self.args.seed)  # a new head is drawn at random
        model = self.load_model(self.args.model_name_or_path, training=True)
        job = Job(
            model,
            self.head,
            train,
            self.collate,
            evaluate=lambda: self.evaluate([model], dev),
            save_best=lambda: models.save_model(model, self.tokenizer, self.run.folder),
            reason_to_stop=self._reason_to_stop if self.args.prune else lambda: "",
            watch=self.watch,
        )
        fit(job, self.args, self.run)
        self.run.write(status="trained")

    def _reason_to_stop(self) -> str:
        others = pruning.finished_trials(self.run.folder, self.task)
        return pruning.reason_to_stop(self.run.fields, others)


def execute(args: Settings, task: Task, build_method: Callable[[Any], Method], watch: Watch = no_watch) -> None:
    """Carry out ``--do_train``, ``--do_eval`` and ``--do_predict``, in this order.

    After training, evaluation and prediction use the best checkpoint. Arguments as of :class:`Session`.
    """
    device.start(args.device, args.precision)
    with recorded_run(args, task) as run:
        _execute(args, Session(args, task, run, build_method, watch))


@contextlib.contextmanager
def recorded_run(args: Settings, task: Task) -> Iterator[Run]:
    """Hold the output folder for a run, yield its record, and note there how it ended.

    Raises:
        UserError: another run is at work there, or what is there is not to be gone on with.
    """
    with locked_folder(Path(args.output_dir)):
        device.barrier()  # no rank writes there, be it why it failed, before rank 0 holds the folder
        run = Run(task.name, task.metric, args, paddle.get_device(), device.card())
        with run.recorded():
            yield run
            run.finish(device.peak_memory_bytes())


def _execute(args: Settings, session: Session) -> None:
    run, checkpoint = session.run, args.model_name_or_path
    dev = session.load_split("dev") if args.do_train or args.do_eval else None
    if args.do_train and dev:
        checkpoint = str(run.folder)
        if run.is_trained:
            logger.info("%s: trained already, best %s %.4f", run.folder, session.task.metric, run.fields["best_metric"])
        else:
            session.train(dev)
        if ranks.is_first():  # also after a run that was killed before it came to this
            checkpoints.remove_all(run.folder)
    if args.do_eval or args.do_predict:
        members = [session.load_model(folder, training=False) for folder in (checkpoint, *args.ensemble)]
        if args.do_eval and dev:
            run.write(evaluation=session.evaluate(members, dev))
        if args.do_predict:
            session.predict(members)


def _load_tests(task: Task, data_dir: str | None) -> list[Examples]:
    """The test sets of a task, checked and packed, in the order in which they are predicted."""
    tests = [load_examples(task, name, data_dir) for name in task.test_splits]
    if task.name == DIAGNOSTICS_MODEL and (diagnostics := _load_diagnostics(data_dir)):
        tests.append(diagnostics)
    return tests


def _load_diagnostics(data_dir: str | None) -> Examples | None:
    """The examples of the diagnostics set under CMNLI's field names, or None where its folder is not among the data.

    Raises:
        UserError: the folder is there but not what it should be.
    """
    root = data_root(data_dir)
    if not (root / DIAGNOSTICS.folder).is_dir():
        logger.info("%s: no %s in %s, not predicted", DIAGNOSTICS.name, DIAGNOSTICS.folder, root)
        return None
    examples = load_examples(DIAGNOSTICS, TEST, root)
    rows = [{"id": row["id"], "sentence1": row["premise"], "sentence2": row["hypothesis"]} for row in examples]
    return replace(examples, rows=rows)
