"""What every script does once its flags are read: train, evaluate and predict with one method on one task."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import paddle

from clue_utils import cli, dev_predictions, device, models, ranks
from clue_utils.data.examples import Examples, cache_dir, data_root, load_examples
from clue_utils.features.build import build_features
from clue_utils.features.method import id_of
from clue_utils.features.store import Features
from clue_utils.files import locked_folder
from clue_utils.grid import pruning
from clue_utils.leaderboard import manifest, write
from clue_utils.models import export, lora
from clue_utils.models.heads import HEADS
from clue_utils.record import Run
from clue_utils.settings import Settings
from clue_utils.strict_json import JsonObject
from clue_utils.tasks import DIAGNOSTICS, DIAGNOSTICS_MODEL, TEST, Task
from clue_utils.training import checkpoints, ensemble
from clue_utils.training.loop import Job, Watch, fit, no_watch
from clue_utils.training.methods import make_method
from clue_utils.training.predict import BatchLimit, compute_logits, make_collate, make_ready
from clue_utils.training.predict_file import predict_file

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
        watch: told of what is measured, see ``loop.Watch``.

    Raises:
        UserError: a test set that is to be predicted is missing or faulty, or the members of an ensemble do not go
            together.
    """

    def __init__(self, args: Settings, task: Task, run: Run, watch: Watch = no_watch) -> None:
        self.args, self.task, self.run, self.head, self.watch = args, task, run, HEADS[task.kind], watch
        self._limit = BatchLimit.of(args.eval_batch_size)
        self._evaluated: np.ndarray | None = None  # logits of the last evaluation
        # Read before anything is trained: rather refused now than after hours.
        self._tests = _load_tests(task, args) if args.do_predict else []
        models.require_architecture(args.model_name_or_path, args.output_dir if args.do_train else None)
        self.tokenizer = models.load_tokenizer(args.model_name_or_path, args.lower_case)
        self.method = make_method(args, task, self.tokenizer)
        self.collate = make_collate(args, self.method)
        run.begin()
        device.barrier()  # rank 0 may have cleared the folder
        if args.ensemble:
            ensemble.refuse_training_run(args.output_dir)
            ensemble.check_members(args, self.tokenizer, self.method.settings())
        self.run.record_members([args.model_name_or_path, *args.ensemble])

    def load_split(self, name: str) -> Dataset:
        """Read a split of the task, note its size and checksum, and build its features."""
        limit = {"train": self.args.max_train_samples, "dev": self.args.max_eval_samples}[name]
        examples = load_examples(self.task, name, self.args.data_dir, limit)
        self.run.record_data(examples)
        return self._with_features(examples)

    def _with_features(self, examples: Examples) -> Dataset:
        cache, args, on_progress = cache_dir() / "features", self.args, self._be_seen
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
        if training:
            self.run.record_base(adapters.sha256 if (adapters := lora.of_model(model)) else None)
        return make_ready(model, args, self.method)

    def evaluate(self, members: Sequence[paddle.nn.Layer], dev: Dataset) -> dict[str, float]:
        """Metrics of a model, or of the mean of several, on data with gold answers; print the line that says so."""
        with cli.timed() as elapsed:
            self._evaluated = None  # lest there are two in memory
            self._evaluated = self._logits(members, dev)
            metrics = self.method.score(self._evaluated, dev.examples, dev.features)
            seconds = elapsed()
        names = [name for name in metrics if name != "loss"]
        values = "".join(f"{_LOG_NAMES.get(name, name)}: {round(metrics[name], 6)}, " for name in names)
        logger.info("eval loss: %f, %seval done total : %s s", metrics["loss"], values, seconds)
        self.watch("evaluation", seconds)
        return metrics

    def keep_answers(self, dev: Dataset) -> None:
        """Write what the last evaluation answered, and note it in the record; on rank 0, once its weights are kept."""
        if not ranks.is_first() or self._evaluated is None:
            return
        with cli.timed() as elapsed:
            given = (self._evaluated, dev.examples, dev.features)
            written = dev_predictions.write(self.run.folder, self.method.explain(*given))
            written |= {"step": self.run.fields.get("best_step"), "data_sha256": dev.examples.sha256}
            self.run.write(dev_predictions=written, **self.method.figures(*given))
            self.watch("answers", elapsed())

    def predict(self, members: Sequence[paddle.nn.Layer], folders: Sequence[str]) -> None:
        """Write the predictions of every test set; with CMNLI, of the diagnostics set too where its data is there.

        Args:
            folders: of the members, which the record then names as what made each file.
        """
        described = manifest.describe_members(folders, self.task.name, self.run.folder) if ranks.is_first() else []
        for examples in self._tests:
            if examples.task is self.task:
                self.run.record_data(examples)
            test = self._with_features(examples)
            given = (self._logits(members, test), test.examples, test.features)
            answers = self.method.answer(*given)
            folder = Path(self.args.output_dir)
            paths = write.write_predictions(examples.task, examples.split, answers, folder)
            for path in paths:
                logger.info("%d predictions written to %s", len(answers), path)
            if ranks.is_first():
                said = zip(test.examples, self.method.predictions(*given), strict=True)
                lines = (id_of(example) | line for example, line in said)
                path = write.write_probabilities(examples.task, examples.split, lines, folder)
                logger.info("their probabilities written to %s", path)
                self.run.record_predictions(paths, {"data_sha256": examples.sha256, "checkpoints": described})

    def export(self, model: paddle.nn.Layer) -> None:
        """Write a model, its tokenizer and what is to be known of them to ``inference/``; on rank 0."""
        if ranks.is_first():
            words = (self.task, self.method, self.tokenizer, self.args.export_onnx)
            export.export(model, self.run.folder / export.FOLDER, *words)

    def _be_seen(self) -> None:
        """What is done now and then in what takes long."""
        cli.check_stop()
        self.run.sign_of_life()

    def _logits(self, members: Sequence[paddle.nn.Layer], data: Dataset) -> np.ndarray:
        """Logits float32 [len(data.features), width]."""
        how = (self.collate, self._limit, self.method.width, self.args.precision, self._be_seen)
        logits = [compute_logits(model, self.head, data.features, *how) for model in members]
        return ensemble.combine(logits, self.head.num_distributions)

    def train(self, dev: Dataset) -> None:
        """Fine-tune and keep the best checkpoint in the output folder, or with ``train_on_dev`` the last one."""
        train = self.load_split("train").features
        if self.args.train_on_dev:
            train = train.followed_by(dev.features)
        device.seed_all(self.args.seed)  # a new head is drawn at random
        model = self.load_model(self.args.model_name_or_path, training=True)
        job = Job(
            model,
            self.head,
            train,
            self.collate,
            evaluate=lambda: self.evaluate([model], dev),
            save_best=lambda: self._save_best(model, dev),
            reason_to_stop=self._reason_to_stop if self.args.prune else lambda: "",
            watch=self.watch,
            num_dev=len(dev.features),
        )
        fit(job, self.args, self.run)
        self.run.write(status="trained")

    def _save_best(self, model: paddle.nn.Layer, dev: Dataset) -> None:
        if self.args.save_best_model:
            models.save_model(model, self.tokenizer, self.run.folder)
        self.keep_answers(dev)

    def _reason_to_stop(self) -> str:
        others = pruning.finished_trials(self.run.folder, self.task)
        return pruning.reason_to_stop(self.run.fields, others)


def execute(args: Settings, task: Task, watch: Watch = no_watch) -> JsonObject | None:
    """Carry out ``--do_train``, ``--do_eval``, ``--do_predict``, ``--do_export`` and ``--predict_file``, in this order.

    After training, the others use the best checkpoint. Arguments as of :class:`Session`.

    Returns:
        What ``result.json`` holds; of ``--predict_file`` alone, which has none, what was answered to how many records.
        None on ranks other than 0.
    """
    device.start(args.device, args.precision)
    if not args.makes_a_run():
        return predict_file(args, task)
    with recorded_run(args, task) as run:
        _execute(args, Session(args, task, run, watch))
    if args.predict_file:
        predict_file(args, task)
    return run.fields if ranks.is_first() else None


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
            logger.info("%s: trained already, %s", run.folder, run.summary())
        else:
            session.train(dev)
        if ranks.is_first():  # also after a run that was killed before it came to this
            checkpoints.remove_all(run.folder)
    if args.do_eval or args.do_predict or args.do_export:
        folders = [checkpoint, *args.ensemble]
        members = [session.load_model(folder, training=False) for folder in folders]
        if args.do_eval and dev:
            part = {"num_examples": len(dev.examples)} if args.max_eval_samples else {}
            run.write(evaluation=session.evaluate(members, dev) | part)
            session.keep_answers(dev)
        if args.do_predict:
            session.predict(members, folders)
        if args.do_export:
            session.export(members[0])


def _load_tests(task: Task, args: Settings) -> list[Examples]:
    """The test sets of a task, checked and packed, in the order in which they are predicted."""
    tests = [load_examples(task, name, args.data_dir) for name in task.test_splits]
    if task.name == DIAGNOSTICS_MODEL and not args.test_file and (diagnostics := _load_diagnostics(args.data_dir)):
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
