#!/usr/bin/env python
"""Run the trials of a model's grid search side by side, with GNU parallel.

Tasks that take four GPUs come first, on groups of four, then those that take two, then the others; with fewer GPUs
than that, a group is what there is. The batch is the published one however many share it. What concurrent trials both
need is made once: features and downloads are locked. A finished trial is never run again and one that was stopped
goes on, so the same command continues a search that was interrupted. A trial that fails does not stop the others.
results/<model>/joblog has a line for each trial that ended, <trial>/trial.log the output of each.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

from clue_utils import cli
from clue_utils.errors import UserError
from clue_utils.grid import schedule, search_space, trial

USAGE = "bash scripts/grid_search.sh MODEL [FLAG...] [-- FLAG OF EVERY TRIAL...]"
MORE = """\
MODEL is a name or the folder of a checkpoint. Flags behind -- go to the script of every trial, such as --data_dir.
GPUs are those of nvidia-smi, under its numbers; there is no search on XPUs.

Environment: PYTHON, as in scripts/run_trial.sh; PYTHON, CLUE_DATA_DIR, CLUE_CACHE_DIR and OMP_NUM_THREADS are passed
on to the hosts. Exit status: 0 all finished, 1 some failed, 2 a wrong flag, 128 and the signal's number interrupted.

example: bash scripts/grid_search.sh ernie-3.0-base-zh --gpus 0,1,2,3 --tasks TNEWS C3 -- --data_dir clue_data
"""


def gpu_ids(text: str) -> list[str]:
    if not re.fullmatch(r"[A-Za-z0-9/-]+(,[A-Za-z0-9/-]+)*", text):
        raise argparse.ArgumentTypeError(f"{text}: write ids such as 0,1,2,3")
    return text.split(",")


def add_flags(parser: argparse.ArgumentParser) -> None:
    gpus = "the GPUs to use (default: CUDA_VISIBLE_DEVICES, else all of this machine; DEVICE=cpu: none)"
    slots = "no GPU: N trials at a time that share the processors (default where there is no GPU: 2)"
    hosts = """run on these machines, one a line, as GNU parallel's --sshloginfile reads them; each has the GPUs of
        --gpus or the slots of --cpu_slots, bash as login shell, and this folder, which all share, the project and its
        Python under the same paths"""
    retries = "run a trial that fails up to N times more, on another of the hosts if there are (default: 0)"
    results = f"folder of all models (default: RESULTS_DIR, else {search_space.RESULTS_DIR})"
    prune = """end trials that are clearly behind the finished ones of their task (median rule), which run in a random
        order then; report.sh names them. The published table is of the full grid"""
    listing = "list the trials: task, learning rate, batch size, dropout, seed, GPUs"
    parser.add_argument("--gpus", type=gpu_ids, metavar="0,1,2,3", help=gpus)
    parser.add_argument("--cpu_slots", type=cli.positive_int, help=slots)
    parser.add_argument("--hosts", type=Path, metavar="FILE", help=hosts)
    parser.add_argument("--retries", type=cli.non_negative_int, default=0, help=retries)
    parser.add_argument("--results", metavar="DIR", help=results)
    parser.add_argument("--prune", action="store_true", help=prune)
    parser.add_argument("--dry_run", action="store_true", help=listing)


def main(argv: list[str] | None = None) -> None:
    words, flags = cli.split_at_dashes(argv)
    parser = cli.Parser(usage=USAGE, description=__doc__, epilog=MORE)
    add_flags(parser)
    search_space.add_flags(parser)
    args, rest = parser.parse_with_words(words)
    if not rest:
        before = next((f"before {word}" for word in words if word.startswith("-")), "given")
        parser.error(f"no model {before}: {USAGE.partition(' [--')[0]}")
    if len(rest) > 1:
        parser.error(f"{rest[1]} is no flag's value: give one model")
    if args.gpus and args.cpu_slots:
        raise UserError("--gpus or --cpu_slots, not both")
    if args.hosts and not os.access(args.hosts, os.R_OK):
        raise UserError(f"--hosts {args.hosts}: no such file")
    if args.hosts and not (args.gpus or args.cpu_slots):
        raise UserError("--hosts: say with --gpus or --cpu_slots what each of them has")
    args.shuffle |= args.prune
    trials = search_space.chosen_trials(args, flags)
    if args.dry_run:
        print("\n".join(" ".join(one.words) for one in trials))
        return
    if args.prune:
        flags.append("--prune")
    os.environ["RESULTS_DIR"] = str(args.results or trial.results_dir())
    trial.ending(trial.make_plan(rest[0], trials[0], flags, ()))  # a flag that no trial could take is said once
    trial.require_known_flags(rest[0], trials, flags)
    schedule.require_parallel()
    gpus = args.gpus or (() if args.cpu_slots else trial.visible_gpus())
    if args.gpus:
        trial.number_as_nvidia_smi_does()
    if args.hosts:
        schedule.require_hosts(args.hosts, gpus)
    elif gpus and not trial.is_dry_run():
        trial.require_use(gpus, "DEVICE=cpu, or --cpu_slots N")
    search = schedule.Search(rest[0], trials, flags, gpus, args.cpu_slots or 2, args.hosts, args.retries)
    sys.exit(schedule.run(search))


if __name__ == "__main__":
    cli.run(main)
