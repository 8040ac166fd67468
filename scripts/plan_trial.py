#!/usr/bin/env python
"""What run_trial.sh has to run, each value ended by a null, since a path may hold anything else.

The parts that an update was split into before ("" if it was not run before), a note for the log, how a finished trial
ended ("" if it is not), its name, folder, log, script, processes, and the records of each process.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from clue_utils import cli, record, settings, tasks
from clue_utils.errors import UserError
from clue_utils.grid import search_space


def require_same_settings(earlier: dict[str, Any], folder: Path, now: settings.Settings) -> None:
    """Refuse to take a finished trial for one that would have other settings, given or by default.

    Raises:
        UserError: it has; what the folder's name says is not compared, nor what may change when a run goes on.
    """
    named = {*settings.SET_BY_TRIAL} - {"model_name_or_path"}
    one_sided = earlier["hyper_parameters"].keys() ^ now.hyper_parameters().keys()
    for name, (there, here) in settings.differences(earlier, now.description(), {*named, *one_sided}).items():
        flag = "model_name_or_path" if name == "model" else name
        raise UserError(
            f"{folder} holds a finished run with --{flag} {there}, not {here}: "
            "choose another folder with --results, or remove this one"
        )


def main() -> None:
    """Words: the number of cards given, those of run_trial.sh, and after "--" the flags for the task's script."""
    begin = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    words, extra = sys.argv[1:begin], sys.argv[begin + 1 :]
    parser = cli.Parser(prog="run_trial.sh", description=__doc__)
    number: dict[str, Any] = {"batch_size": cli.positive_int, "seed": cli.non_negative_int, "cards": cli.positive_int}
    number |= {"learning_rate": cli.positive_float, "dropout": cli.proportion, "given": int}
    for name in "given model task learning_rate batch_size dropout seed cards".split():
        parser.add_argument(name, type=number.get(name, str))
    args = parser.parse_args(words)
    task = tasks.get_task(args.task)
    trial = search_space.Trial(task.name, args.learning_rate, args.batch_size, args.dropout, args.seed, args.cards)
    folder = (
        search_space.model_folder(Path(os.environ.get("RESULTS_DIR") or search_space.RESULTS_DIR), args.model)
        / trial.folder
    )

    flags = settings.flags_of_trials(extra)

    processes = search_space.num_processes(args.batch_size, max(1, min(args.cards, args.given)))
    note = ""
    if args.given and processes < args.cards:
        note = f"{args.cards} cards wanted, {args.given} given: "
        note += f"{processes} of them with {args.batch_size // processes} records each, {args.batch_size} in all"

    earlier = record.read_result(folder) or {}
    parts = earlier.get("hyper_parameters", {}).get("gradient_accumulation_steps", "")
    ending = ""
    if earlier.get("status") == "finished":
        flags |= {"model_name_or_path": args.model, "do_train": True, "batch_size": args.batch_size // processes}
        now = settings.Settings.resolve(flags, task, processes, record.read_result(args.model))
        require_same_settings(earlier, folder, now)
        ending = f"{earlier['metric']} {earlier['best_metric']:.4f}"
        if "pruned" in earlier:
            ending += f", pruned at step {earlier['pruned']['step']}"
    for value in (
        parts,
        note,
        ending,
        trial.folder,
        folder,
        folder / search_space.LOG_FILE,
        task.script,
        processes,
        args.batch_size // processes,
    ):
        print(value, end="\0")


if __name__ == "__main__":
    cli.run(main)
