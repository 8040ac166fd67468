"""The nine published models: their scores and best runs, as plain data.

Source: the tables of PaddleNLP's CLUE benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import NamedTuple

from clue_utils.size_class import size_class
from clue_utils.tasks import TASKS, Task


class Score(NamedTuple):
    """A published development score in percent: accuracy, or for CMRC2018 EM with F1 beside it."""

    value: float
    f1: float | None = None


class Best(NamedTuple):
    """The published winner of the grid search for one model and task."""

    learning_rate: float
    batch_size: int
    dropout: float


@dataclass(frozen=True)
class PublishedModel:
    """A row of the published tables.

    Attributes:
        title: the name in the table.
        name: what ``--model_name_or_path`` takes.
        config: layers and hidden size, such as "12L768H".
        average: published mean over the ten tasks (EM for CMRC2018).
    """

    title: str
    name: str
    config: str
    average: float
    scores: Mapping[str, Score]
    best_runs: Mapping[str, Best]


# The models whose published best learning rate and batch size are the defaults for a model without a row of its own, by
# the class of its size. A huge model's learning rate is the lowest of the task's grid; epochs are the task's for all.
REFERENCE_MODEL = "ernie-3.0-base-zh"
LARGE_REFERENCE_MODEL = "hfl/roberta-wwm-ext-large"
# Adapters want a higher one, whatever the model (Hu et al. 2021, "LoRA": 2e-4 to 5e-4 where all of RoBERTa has 1e-5 to
# 3e-5).
LORA_LEARNING_RATE = 1e-4
_REFERENCES = {"": REFERENCE_MODEL, "large": LARGE_REFERENCE_MODEL, "huge": LARGE_REFERENCE_MODEL}
# Of the published best runs, but for those that say 0.
DROPOUT = 0.1


def _published(
    title: str, name: str, config: str, average: float, scores: str, best: str, no_dropout: tuple[str, ...] = ()
) -> PublishedModel:
    """Read a row of the two published tables; both list the tasks in the registry's order."""
    score_row = {task: Score(*map(float, cell.split("/"))) for task, cell in zip(TASKS, scores.split(), strict=True)}
    best_row = {}
    for task, cell in zip(TASKS, best.split(), strict=True):
        learning_rate, batch_size = cell.split(",")
        dropout = 0.0 if task in no_dropout else DROPOUT
        best_row[task] = Best(float(learning_rate), int(batch_size), dropout)
    return PublishedModel(title, name, config, average, score_row, best_row)


# Columns: AFQMC TNEWS IFLYTEK CMNLI OCNLI CLUEWSC2020 CSL CMRC2018(EM/F1) CHID C3.
PUBLISHED_MODELS = (
    _published(
        "RoBERTa-wwm-ext-large",
        "hfl/roberta-wwm-ext-large",
        "24L1024H",
        average=76.61,
        scores="76.00  59.33  62.02  83.88  78.81  90.79  83.67  70.58/89.82  85.72  75.26",
        best="1e-5,32  3e-5,32  2e-5,32  1e-5,16  1e-5,16  2e-5,16  2e-5,16  3e-5,32  1e-5,24  2e-5,24",
    ),
    _published(
        "ERNIE 3.0-Base-zh",
        "ernie-3.0-base-zh",
        "12L768H",
        average=76.05,
        scores="75.93  58.26  61.56  83.02  80.10  86.18  82.63  70.71/90.41  84.26  77.88",
        best="3e-5,16  3e-5,32  5e-5,32  3e-5,32  2e-5,64  2e-5,16  2e-5,32  2e-5,24  3e-5,24  3e-5,32",
        no_dropout=("IFLYTEK", "CLUEWSC2020"),
    ),
    _published(
        "ERNIE-Gram-zh",
        "ernie-gram-zh",
        "12L768H",
        average=75.72,
        scores="75.28  57.88  60.87  82.90  79.08  88.82  82.83  71.82/90.38  84.04  73.69",
        best="1e-5,16  5e-5,16  5e-5,16  2e-5,32  2e-5,64  3e-5,16  3e-5,64  3e-5,32  2e-5,24  2e-5,24",
        no_dropout=("IFLYTEK", "CLUEWSC2020"),
    ),
    _published(
        "Mengzi-Bert-Base",
        "Langboat/mengzi-bert-base",
        "12L768H",
        average=74.69,
        scores="75.35  57.76  61.64  82.41  77.93  88.16  82.20  67.04/88.35  83.74  70.70",
        best="3e-5,32  5e-5,32  5e-5,16  2e-5,16  2e-5,16  3e-5,8  1e-5,16  3e-5,24  3e-5,24  2e-5,32",
        no_dropout=("IFLYTEK",),
    ),
    _published(
        "ERNIE-1.0",
        "ernie-1.0",
        "12L768H",
        average=74.17,
        scores="74.84  58.91  62.25  81.68  76.58  85.20  82.77  67.32/87.83  82.47  69.68",
        best="3e-5,16  3e-5,32  5e-5,16  5e-5,32  3e-5,16  2e-5,8  2e-5,16  3e-5,32  3e-5,24  3e-5,24",
        no_dropout=("IFLYTEK", "CLUEWSC2020"),
    ),
    _published(
        "RoBERTa-wwm-ext",
        "hfl/roberta-wwm-ext",
        "12L768H",
        average=74.11,
        scores="74.60  58.08  61.23  81.11  76.92  88.49  80.77  68.39/88.50  83.43  68.03",
        best="3e-5,32  3e-5,64  5e-5,16  3e-5,32  2e-5,32  3e-5,32  2e-5,32  3e-5,32  2e-5,32  3e-5,24",
    ),
    _published(
        "BERT-Base-Chinese",
        "bert-base-chinese",
        "12L768H",
        average=72.57,
        scores="74.63  57.13  61.29  80.97  75.22  81.91  81.90  65.30/86.53  82.01  65.38",
        best="2e-5,16  5e-5,16  5e-5,16  5e-5,64  3e-5,16  3e-5,16  1e-5,16  3e-5,24  2e-5,32  3e-5,24",
    ),
    _published(
        "ERNIE 3.0-Medium-zh",
        "ernie-3.0-medium-zh",
        "6L768H",
        average=72.49,
        scores="73.37  57.00  60.67  80.64  76.88  79.28  81.60  65.83/87.30  79.91  69.73",
        best="3e-5,32  3e-5,64  5e-5,32  2e-5,32  1e-5,64  3e-5,16  2e-5,32  3e-5,24  2e-5,24  1e-5,24",
        no_dropout=("CLUEWSC2020",),
    ),
    _published(
        "RBT6, Chinese",
        "hfl/rbt6",
        "6L768H",
        average=69.74,
        scores="73.15  56.62  59.68  79.26  73.15  75.00  80.04  62.26/84.72  78.26  59.93",
        best="3e-5,16  5e-5,16  5e-5,16  5e-5,64  3e-5,32  3e-5,32  3e-5,16  3e-5,32  3e-5,24  3e-5,24",
        no_dropout=("IFLYTEK",),
    ),
)


def published_model(model_name_or_path: str) -> PublishedModel | None:
    """The published row of a model, or None; a copy in a folder is known by the last part of its path."""
    last_part = PurePath(model_name_or_path).name
    return next((row for row in PUBLISHED_MODELS if PurePath(row.name).name == last_part), None)


def best_run(model_name_or_path: str, task: Task) -> tuple[Best, str]:
    """Return the published best run for a model and task, and where it is from, in words.

    A model without a published row takes the run of the reference model of its size; a task without published runs the
    middle of its grid.
    """
    found = published_model(model_name_or_path)
    size = "" if found else size_class(model_name_or_path)
    model = found or next(row for row in PUBLISHED_MODELS if row.name == _REFERENCES[size])
    if task.name not in model.best_runs:
        rates, sizes = task.learning_rates, task.batch_sizes
        return Best(rates[len(rates) // 2], sizes[len(sizes) // 2], task.dropouts[0]), f"middle of {task.name}'s grid"
    best, origin = model.best_runs[task.name], f"published best of {model.name}"
    if size == "huge":
        best = best._replace(learning_rate=min(task.learning_rates))
        origin += " with the lowest learning rate of the grid"
    if found is None:
        origin += f"; this {size} model has none" if size else "; this model has none"
    elif model_name_or_path != model.name:
        origin += ", known by the last part of the path"
    return best, origin
