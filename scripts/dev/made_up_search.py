"""A made-up grid search of a model, for a picture of the report: no model is trained."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from clue_utils import published, tasks
from clue_utils.grid import outcomes, search_space

EVALUATIONS = 10


def make_search(folder: Path, row: published.PublishedModel, chance: random.Random) -> None:
    """Write the records of the published grid of a model, three seeds of each task's best setting, and unfinished ones.

    Args:
        folder: of the model; it must not hold any yet.
        row: of the published scores, around which those of the search are drawn.
    """
    for task in tasks.TASKS.values():
        best = row.best_runs[task.name]
        trials = search_space.list_trials([task.name])
        seeds = search_space.list_trials([task.name], [best[0]], [best[1]], [best[2]], [1, 2])
        outcomes.add_to_plan(folder, [trial.folder for trial in [*trials, *seeds]])
        for number, trial in enumerate([*trials, *seeds]):
            distance = abs(math.log2(trial.learning_rate / best[0])) + abs(math.log2(trial.batch_size / best[1])) / 2
            top = row.scores[task.name].value / 100 - 0.004 * distance + chance.gauss(0, 0.002)
            if task.name in ("AFQMC", "CMNLI") and number == 3:
                top = 0.34  # diverged
            _write(folder / trial.folder, _record(row, trial, top, chance, _fate(task.name, number)))


def _fate(task: str, number: int) -> str:
    fates = {("CMRC2018", 2): "failed", ("CHID", 5): "killed", ("CHID", 7): "missing", ("C3", 5): "running"}
    pruned = task in ("TNEWS", "IFLYTEK") and number in (2, 11)
    return "pruned" if pruned else fates.get((task, number), "finished")


def _record(
    row: published.PublishedModel, trial: search_space.Trial, top: float, chance: random.Random, fate: str
) -> dict[str, Any] | None:
    """The fields of ``result.json``; None for a trial that is missing."""
    if fate == "missing":
        return None
    task = tasks.TASKS[trial.task]
    num_train = task.splits["train"].num_examples
    num_steps = math.ceil(num_train / trial.batch_size) * task.num_train_epochs
    history = []
    for number in range(1, EVALUATIONS + 1):
        share = number / EVALUATIONS
        score = max(0.05, top * (1 - 0.25 * math.exp(-5 * share)) + chance.gauss(0, 0.0015))
        metrics = {"loss": 1.0, task.metric: min(score, 1.0)}
        if task.metric == "em":
            metrics |= {"f1": min(1.0, score + 0.19), "squad_em": score + 0.01, "squad_f1": min(1.0, score + 0.22)}
        if trial.task == "C3":
            metrics |= {"accuracy_with_fillers": score - 0.01}
        history.append({"step": round(num_steps * share), **metrics})
    if fate != "finished":
        history = history[:4]
    best = max(history, key=lambda line: line[task.metric])
    fields: dict[str, Any] = {
        "status": "running" if fate == "killed" else "finished" if fate == "pruned" else fate,
        "task": trial.task,
        "model": row.name,
        "metric": task.metric,
        "device": "gpu",
        "card": {"name": "Tesla V100-SXM2-32GB"},
        "versions": {"paddlepaddle-gpu": "3.3.1", "paddlenlp": "2.8.1"},
        "hyper_parameters": {
            "learning_rate": trial.learning_rate,
            "batch_size": trial.batch_size // trial.num_gpus,
            "dropout": trial.dropout,
            "seed": trial.seed,
            "num_train_epochs": task.num_train_epochs,
            "precision": "fp32",
        },
        "num_processes": trial.num_gpus,
        "num_examples": {"train": num_train, "dev": task.splits["dev"].num_examples},
        "num_steps": num_steps,
        "data_sha256": {"dev": "0"},
        "best_metric": best[task.metric],
        "best_step": best["step"],
        "best_metrics": {name: value for name, value in best.items() if name != "step"},
        "history": history,
        "wall_time": num_steps * 0.012 * int(row.config.partition("L")[0]) * len(history) / EVALUATIONS,
    }
    if fate == "pruned":
        fields["pruned"] = {"step": history[-1]["step"], "rule": "below the median"}
    elif fate == "failed":
        fields |= {"reason": "out of memory", "exit_status": 1, "advice": {"gradient_accumulation_steps": 2}}
    elif fate in ("killed", "running"):
        seen = "2026-01-02T03:04:05+00:00" if fate == "killed" else "2999-01-01T00:00:00+00:00"
        fields |= {"last_seen": seen, "progress": {"step": history[-1]["step"], "num_steps": num_steps}}
    return fields


def _write(folder: Path, fields: dict[str, Any] | None) -> None:
    if fields is not None:
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(fields), encoding="utf-8")
