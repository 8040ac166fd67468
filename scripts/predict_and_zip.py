#!/usr/bin/env python
"""Predict the test sets of every task with the best checkpoint of a model, check and zip them for the leaderboard.

What is predicted goes to MODEL_DIR/predictions/, the folders of the training runs stay as they are. For each task the
checkpoint is the FOLDER that is named for it (several are an ensemble), else MODEL_DIR/<task> where that is a
checkpoint, else the best trained trial MODEL_DIR/<task>/*/, or with --ensemble several of these trials. A task without
one is left out. Beside the zip a manifest tells which checkpoints made each file, and what they scored.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from clue_utils import outside

    outside.explain()

from collections.abc import Sequence
from pathlib import Path

import check_submission
import zip_predictions
from clue_utils import cli, settings
from clue_utils.errors import UserError
from clue_utils.grid import trial
from clue_utils.grid.outcomes import Outcome, read_trials, winner
from clue_utils.language import say
from clue_utils.record import Record
from clue_utils.report.collect import setting_of
from clue_utils.tasks import TASKS, Task, get_task

USAGE = (
    "bash scripts/predict_and_zip.sh MODEL_DIR [--output FILE] [--ensemble K|seeds] [TASK=FOLDER[,FOLDER...] ...] "
    "[-- FLAG ...]"
)
SEEDS = "seeds"
MORE = """\
Flags behind -- go to every script, such as: -- --data_dir clue_data --device gpu

PYTHON in the environment names the interpreter (default: the project's .venv, else python3).

example: bash scripts/predict_and_zip.sh results/ernie-3.0-base-zh TNEWS=tnews_a,tnews_b -- --data_dir clue_data
"""


def named_folders(words: Sequence[str]) -> dict[str, list[Path]]:
    """Task -> checkpoints, from words such as ``TNEWS=FOLDER,FOLDER``.

    Raises:
        UserError: another kind of word, an unknown task or one that is named twice, a folder that is not there.
    """
    chosen: dict[str, list[Path]] = {}
    for word in words:
        name, _, folders = word.partition("=")
        if not (name and folders):
            raise UserError(say("{word} is not TASK=FOLDER (--help lists the arguments)", word=word))
        task = get_task(name)
        if task.name in chosen:
            raise UserError(say("{name} is named twice: join its folders with commas", name=task.name))
        # A folder whose name holds a comma is one folder.
        chosen[task.name] = [Path(part) for part in ([folders] if Path(folders).is_dir() else folders.split(","))]
        for folder in chosen[task.name]:
            if not folder.is_dir():
                raise UserError(
                    say("{name}={folders}: no such folder: {folder!r}", name=name, folders=folders, folder=str(folder))
                )
    return chosen


def size_of_ensemble(text: str) -> int | str:
    """``seeds``, or how many members an ensemble is to have."""
    return SEEDS if text == SEEDS else cli.positive_int(text)


def best_folders(folder: Path, task: Task, ensemble: int | str = 1) -> list[Path]:
    """The checkpoints of a task, the best first: the folder itself, or those of trials in it; none where there is none.

    Args:
        ensemble: how many trials, those of the highest scores; or ``seeds``, all that have the best one's setting.
            Those that kept no weights are passed over, and said.
    """
    if (folder / "config.json").is_file():
        return [folder]
    trials, damages = read_trials(folder, task)
    for damage in damages:
        print(say("{name}: passed over: {damage}", name=task.name, damage=damage), file=sys.stderr)
    asked = members_of(trials, ensemble)
    found = members_of([outcome for outcome in trials if outcome.has_checkpoint], ensemble)
    for outcome in asked:
        if not outcome.has_checkpoint and outcome.path:
            names = {"name": task.name, "checkpoint": describe(outcome.path)}
            said = say("{name}: {checkpoint} is a member but kept no checkpoint", **names)
            if asked == [outcome]:
                said = say("{name}: {checkpoint} is the best but kept no checkpoint", **names)
            print(said, file=sys.stderr)
    if ensemble != SEEDS and 0 < len(found) < int(ensemble):
        print(
            say(
                "{name}: {num_found} of {ensemble} members, no other trial kept its weights",
                name=task.name,
                num_found=len(found),
                ensemble=ensemble,
            ),
            file=sys.stderr,
        )
    return [outcome.path for outcome in found if outcome.path]


def members_of(trials: Sequence[Outcome], ensemble: int | str) -> list[Outcome]:
    """The finished trials of the highest scores, or of the winner's setting: the best first, the first of equals."""
    finished = [outcome for outcome in trials if outcome.status == "finished"]
    ranked = sorted(finished, key=lambda outcome: -(outcome.score or 0.0))
    if ensemble == SEEDS:
        best = winner(finished)
        return [one for one in ranked if best and (one is best or setting_of(one) == setting_of(best) is not None)]
    return ranked[: int(ensemble)]


def describe(folder: Path) -> str:
    """A checkpoint's folder and its score."""
    found = Record.read(folder) or Record()
    none = say("trained on the development set too") if found.learnt_dev else say("no score recorded")
    return f"{folder} ({none if found.score is None else f'{found.metric} {cli.percent(found.score)}'})"


def predict(task: Task, members: Sequence[Path], output: Path, flags: Sequence[str]) -> None:
    """Predict a task's test sets into a folder, with a log beside it; evaluate an ensemble too, and say its score.

    Raises:
        SystemExit: the script failed, with its exit status; the end of the log is shown.
    """
    ensemble = ["--ensemble", *members[1:]] if members[1:] else []
    is_evaluated = len(members) > 1 and not any(learnt_dev(member) for member in members)
    actions = ["--do_eval", "--do_predict"] if is_evaluated else ["--do_predict"]
    words = trial.script_words(task, members[0], output, *ensemble, *actions, *flags)
    output.parent.mkdir(exist_ok=True)
    if status := trial.run_script(words, output.with_name(f"{output.name}.log"), task.name):
        raise SystemExit(status)
    if is_evaluated:
        scores = [found.score for member in members if (found := Record.read(member))]
        alone = " ".join("?" if score is None else cli.percent(score) for score in scores)
        score = (Record.read(output) or Record()).evaluation[task.metric]
        print(
            say(
                "{name}: {metric} {score} of the {num_members} together, {alone} of each",
                name=task.name,
                metric=task.metric,
                score=cli.percent(score),
                num_members=len(members),
                alone=alone,
            ),
            flush=True,
        )


def learnt_dev(folder: Path) -> bool:
    """Whether a checkpoint was trained on the development set too, which it cannot be scored on then."""
    record = Record.read(folder)
    return record is not None and record.learnt_dev


def main(argv: list[str] | None = None) -> None:
    words, flags = cli.split_at_dashes(argv)
    parser = cli.Parser(usage=USAGE, description=__doc__, epilog=MORE)
    parser.behind_dashes = settings.flags_of_scripts()
    parser.add_argument("--output", default="submit.zip", metavar="FILE", help="the zip to make (default: %(default)s)")
    parser.add_argument(
        "--ensemble",
        type=size_of_ensemble,
        default=1,
        metavar="K|seeds",
        help="average the K best finished trials of each task, or all seeds of the best one's setting, of those that "
        "kept their weights (a search with --keep best keeps those of the best settings alone); their score together "
        "on the development set is said beside that of each (default: the best trial alone)",
    )
    args, rest = parser.parse_with_words(words)
    if not rest:
        raise UserError(say("MODEL_DIR is missing (--help lists the arguments)"))
    # The folder first, so that its own name may hold an equals sign.
    model_dir = Path(rest[0])
    if not model_dir.is_dir():
        raise UserError(say("{model_dir}: no such folder (--help lists the arguments)", model_dir=model_dir))
    chosen = named_folders(rest[1:])
    members = {
        task.name: chosen.get(task.name) or best_folders(model_dir / task.name, task, args.ensemble)
        for task in TASKS.values()
    }
    predicted, left_out = [], []
    for name, folders in members.items():
        left = say("no trained checkpoint in {folder}: left out", folder=model_dir / name)
        print(f"{name}: {say(' and ').join(map(describe, folders)) or left}", flush=True)
        if folders:
            predicted.append(str(model_dir / "predictions" / name))
            predict(TASKS[name], folders, Path(predicted[-1]), flags)
        else:
            left_out.append(name)
    if not predicted:
        raise UserError(
            say("no checkpoint of any task in {model_dir} (--help lists the arguments)", model_dir=model_dir)
        )
    print()
    zip_predictions.main([*predicted, "--output", args.output])
    print()
    # The data that the scripts have predicted is what the zip is compared with.
    data = cli.Parser()
    data.add_argument("--data_dir")
    data_dir = data.parse_known_args(flags)[0].data_dir
    check_submission.main([args.output, *(["--data_dir", data_dir] if data_dir else [])])
    if left_out:
        print(
            "\n"
            + say(
                "Left out: {left_out}. Under a model name that the leaderboard has already, a task left out loses its "
                "score.",
                left_out=" ".join(left_out),
            )
        )


if __name__ == "__main__":
    cli.run(main)
