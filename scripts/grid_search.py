#!/usr/bin/env python
"""Run the trials of a model's grid search side by side, with GNU parallel.

Tasks that take four GPUs come first, on groups of four, then those that take two, then the others; with fewer GPUs
than that, a group is what there is. The batch is the published one however many share it. What concurrent trials both
need is made once: features and downloads are locked. A finished trial is never run again and one that was stopped
goes on, so the same command continues a search that was interrupted. A trial that fails does not stop the others.
results/<model>/joblog has a line for each trial that ended, <trial>/trial.log the output of each.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from clue_utils import outside

    outside.explain()

import argparse
import re
from pathlib import Path

from clue_utils import cli, model_names, published, settings
from clue_utils.errors import UserError
from clue_utils.grid import estimate, keep, schedule, search_space, trial
from clue_utils.language import say
from clue_utils.report import collect, render, tables, verdict

USAGE = "bash scripts/grid_search.sh MODEL [FLAG...] [-- FLAG OF EVERY TRIAL...]"
MORE = """\
MODEL is a name or the folder of a checkpoint. Flags behind -- go to the script of every trial, such as --data_dir.
GPUs are those of nvidia-smi, under its numbers; there is no search on XPUs.

Environment: PYTHON, as in scripts/run_trial.sh; PYTHON, CLUE_DATA_DIR, CLUE_CACHE_DIR, CLUE_LANG and OMP_NUM_THREADS
are passed on to the hosts. Exit status: 0 all finished, 1 some failed, 2 a wrong flag, 128 and the signal's number
interrupted.

example: bash scripts/grid_search.sh ernie-3.0-base-zh --gpus 0,1,2,3 --tasks TNEWS C3 -- --data_dir clue_data
"""


def gpu_ids(text: str) -> list[str]:
    if not re.fullmatch(r"[A-Za-z0-9/-]+(,[A-Za-z0-9/-]+)*", text):
        raise argparse.ArgumentTypeError(say("{text}: write ids such as 0,1,2,3", text=text))
    return text.split(",")


def add_flags(parser: argparse.ArgumentParser) -> None:
    gpus = "the GPUs to use (default: CUDA_VISIBLE_DEVICES, else all of this machine; DEVICE=cpu: none)"
    slots = "no GPU: N trials at a time that share the processors (default where there is no GPU: 2)"
    hosts = """run on these machines, one a line, as GNU parallel's --sshloginfile reads them; each has the GPUs of
        --gpus or the slots of --cpu_slots, bash as login shell, and this folder, which all share, the project and its
        Python under the same paths"""
    retries = "run a trial that fails up to N times more, on another of the hosts if there are (default: 0)"
    results = say("the folder of all models (default: RESULTS_DIR, else {folder})", folder=search_space.RESULTS_DIR)
    prune = """end trials that are clearly behind the finished ones of their task (median rule), which run in a random
        order then; report.sh names them. The published table is of the full grid"""
    listing = "list the trials: task, learning rate, batch size, dropout, seed, GPUs"
    parser.add_argument("--gpus", type=gpu_ids, metavar="0,1,2,3", help=gpus)
    parser.add_argument("--cpu_slots", type=cli.positive_int, help=slots)
    parser.add_argument("--hosts", type=Path, metavar="FILE", help=hosts)
    parser.add_argument("--retries", type=cli.non_negative_int, default=0, help=retries)
    parser.add_argument("--results", metavar="DIR", help=results)
    parser.add_argument("--prune", action="store_true", help=prune)
    keep.add_flag(parser)
    parser.add_argument(
        "--estimate",
        action="store_true",
        help="run no trial: measure a few updates and a part of an evaluation of each task on this machine, and say "
        "the GPU hours, the hours and the disk that the search will take",
    )
    parser.add_argument("--dry_run", action="store_true", help=listing)


def main(argv: list[str] | None = None) -> None:
    words, flags = cli.split_at_dashes(argv)
    parser = cli.Parser(usage=USAGE, description=__doc__, epilog=MORE)
    parser.behind_dashes = settings.flags_of_scripts()
    add_flags(parser)
    search_space.add_flags(parser)
    args, rest = parser.parse_with_words(words)
    if not rest:
        usage = USAGE.partition(" [--")[0]
        if flag := next((word for word in words if word.startswith("-")), None):
            parser.error(say("no model before {flag}: {usage}", flag=flag, usage=usage))
        parser.error(say("no model given: {usage}", usage=usage))
    if len(rest) > 1:
        parser.error(say("{word} is no flag's value: give one model", word=rest[1]))
    if args.gpus and args.cpu_slots:
        raise UserError(say("--gpus or --cpu_slots, not both"))
    if args.hosts and not os.access(args.hosts, os.R_OK):
        raise UserError(say("--hosts {hosts}: no such file", hosts=args.hosts))
    if args.hosts and not (args.gpus or args.cpu_slots):
        raise UserError(say("--hosts: say with --gpus or --cpu_slots what each of them has"))
    if args.published and args.prune:
        raise UserError(say("--published or --prune, not both: a run that ends early has no score to compare"))
    if args.estimate and trial.is_dry_run():
        raise UserError(say("--estimate runs a trial of each task for a moment: unset DRY_RUN"))
    args.shuffle |= args.prune
    trials = search_space.chosen_trials(args, flags, rest[0])
    if args.dry_run:
        print("\n".join(" ".join(one.words) for one in trials))
        return
    if args.prune:
        flags.append("--prune")
    os.environ["RESULTS_DIR"] = str(args.results or trial.results_dir())
    trial.ending(trial.make_plan(rest[0], trials[0], flags, ()))  # a flag that no trial could take is said once
    trial.require_known_flags(rest[0], trials, flags)
    if not trial.is_dry_run():
        model_names.require_possible(rest[0], [row.name for row in published.PUBLISHED_MODELS])
    schedule.require_parallel()
    gpus = args.gpus or (() if args.cpu_slots else trial.visible_gpus())
    if args.gpus:
        trial.number_as_nvidia_smi_does()
    if args.hosts:
        schedule.require_hosts(args.hosts, gpus)
    elif gpus and not trial.is_dry_run():
        trial.require_use(gpus, say("DEVICE=cpu, or --cpu_slots N"))
    search = schedule.Search(rest[0], trials, flags, gpus, args.cpu_slots or 2, args.hosts, args.retries, args.keep)
    if args.estimate:
        show_estimate(search)
        return
    status = schedule.run(search)
    if args.published and not trial.is_dry_run():
        show_verdicts(search)
    sys.exit(status)


def show_estimate(search: schedule.Search) -> None:
    """Print what a search will cost, by task and in all."""
    print(say("measuring a trial of each task of {model} on a sample of its data", model=search.model), flush=True)
    found = estimate.estimate(search, lambda line: print(line, flush=True))
    unit = say("GPU hours") if search.gpus else say("CPU slot hours")
    rows = []
    for name, measured in found.measured.items():
        of_task = [(one, cost) for one, cost in found.costs.items() if one.task == name]
        costs = [cost for _, cost in of_task]
        first = next(cost for one, cost in of_task if one.batch_size == measured.batch_size)
        cells = (
            *(str(measured.batch_size), f"{measured.seconds_per_step:.3f}", str(first.num_steps)),
            *(f"{measured.seconds_per_evaluation:.1f}", str(first.num_evaluations)),
            f"{sum(cost.seconds for cost in costs) / len(costs) / 3600:.2f}",
            *(str(len(costs)), f"{sum(cost.hours for cost in costs):.2f}"),
        )
        rows.append(tables.Row(name, cells))
    header = (
        *(say("task"), say("batch"), say("s a step"), say("steps"), say("s an evaluation"), say("evaluations")),
        *(say("hours a trial"), say("trials"), unit),
    )
    print("", render.as_text(tables.Table(say("Estimate"), header, tuple(rows))), sep="\n")
    hours = sum(cost.hours for cost in found.costs.values())
    where = say("in {slots} slots of the CPU", slots=search.cpu_slots)
    if search.gpus:
        where = say("on GPUs {gpus}", gpus=",".join(search.gpus))
    if search.hosts:
        where = say("{where} of each of {number} hosts", where=where, number=schedule.num_hosts(search.hosts))
    finished = say(", beside {number} that are finished", number=found.num_finished) if found.num_finished else ""
    print(say("trials: {num_costs}{finished}", num_costs=len(found.costs), finished=finished))
    print(say("{unit}: {hours:.2f}", unit=unit, hours=hours))
    print(say("time: {seconds:.2f} hours {where}", seconds=found.seconds / 3600, where=where))
    print(
        say(
            "disk: {size} at the end, {least} with --keep best; up to {more} more for checkpoints of trials at work",
            size=_gigabytes(found.disk),
            least=_gigabytes(found.disk_of_best),
            more=_gigabytes(found.peak),
        )
    )
    print(
        say(
            "Steps and evaluations are of the smallest batch, which was measured. Expect the time to be right "
            "within about a third: larger batches are faster on a GPU, a machine that others use is slower, trials "
            "side by side on the CPU slow each other, and what --prune saves and the first encoding of the data "
            "takes are not counted."
        )
    )


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB"


def show_verdicts(search: schedule.Search) -> None:
    """Print the table that says which published scores were matched, if any run has finished."""
    try:
        model = collect.read_model(search.folder, search.folder.name)
    except UserError:  # no trial has come as far as to leave anything
        return
    if (table := verdict.verdict_table(model)).rows:
        print("", render.as_text(table), *verdict.notes([model]), sep="\n")


if __name__ == "__main__":
    cli.run(main)
