#!/usr/bin/env python
"""Run one trial of the grid search: go on with one that was stopped, leave a finished one alone.

Output and trial.log go to <results>/<model>/<task>/<learning rate>_<batch size>_<dropout>_<seed>. One line on standard
output says how the trial ended; the exit status is 0 only if it is finished. Where memory runs out, the trial goes on
with the --gradient_accumulation_steps that the script advises: the batch stays the same. The next trial of the task
with that batch begins with them. Told to stop, a trial writes a checkpoint first, for which it has five minutes (under
Slurm what scripts/grid_search.slurm says).
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from clue_utils import outside

    outside.explain()

import contextlib

from clue_utils import cli, settings, task_file, tasks
from clue_utils.grid import keep, schedule, search_space, trial

MORE = """\
environment:
  RESULTS_DIR            folder of all models (default: results)
  CUDA_VISIBLE_DEVICES   the GPUs to use (default: those of the machine)
  DEVICE                 cpu: one process with the whole batch, as where there is no GPU; gpu: fail without one
  CUDA_DEVICE_ORDER      how GPUs are numbered (default where all are taken: PCI_BUS_ID, as nvidia-smi does)
  PYTHON                 the interpreter (default: the project's .venv, else python3)
  DRY_RUN                1: print the command instead of running it

A batch is the same examples however many processes share it, and however many micro-batches each computes it in; only
the units that dropout picks depend on these numbers, and so on the memory of a GPU. result.json tells both.
"""


def main(argv: list[str] | None = None) -> None:
    words, flags = cli.split_at_dashes(argv)
    values = "MODEL TASK LEARNING_RATE BATCH_SIZE DROPOUT SEED CARDS"
    usage = f"bash scripts/run_trial.sh {values} [-- FLAG OF THE TASK'S SCRIPT...]"
    parser = cli.Parser(usage=usage, description=__doc__, epilog=MORE)
    parser.behind_dashes = settings.flags_of_scripts()
    parser.add_argument("model", help="name, or folder of a checkpoint")
    parser.add_argument("task", help="this and what follows as scripts/list_trials.py prints them")
    parser.add_argument("learning_rate", type=cli.positive_float)
    parser.add_argument("batch_size", type=cli.positive_int, help="the sum over the GPUs, as in the published grid")
    parser.add_argument("dropout", type=cli.proportion)
    parser.add_argument("seed", type=cli.non_negative_int)
    parser.add_argument(
        "cards",
        type=cli.positive_int,
        help="how many GPUs the task takes; with fewer, those that are there and share out the batch evenly",
    )
    parser.add_argument("--task_file", metavar="FILE", help="of the task, where it is one of your own")
    keep.add_flag(parser)
    slot = parser.add_argument_group("in a job slot of grid_search.sh").add_mutually_exclusive_group()
    slot.add_argument("--gpu_groups", metavar="ID,ID:ID,ID", help="take one of these groups of GPUs, wait if need be")
    slot.add_argument("--cpu_slots", type=cli.positive_int, metavar="N", help="share the processors with N-1 others")
    args = parser.parse_args(words)
    if args.task_file:
        task_file.register(args.task_file)
    numbers = args.learning_rate, args.batch_size, args.dropout, args.seed, args.cards
    one = search_space.Trial(tasks.get_task(args.task).name, *numbers)
    with contextlib.ExitStack() as held:
        if args.gpu_groups:
            groups = [group.split(",") for group in args.gpu_groups.split(":")]
            gpus = held.enter_context(schedule.free_group(groups))
            os.environ |= {"CUDA_VISIBLE_DEVICES": ",".join(gpus), "DEVICE": "gpu"}
        elif args.cpu_slots:
            os.environ |= schedule.share_of_cpu(args.cpu_slots)
        plan = trial.make_plan(args.model, one, flags, trial.visible_gpus())
        status = trial.run(plan, asks=not args.gpu_groups)
    keep.after(plan, args.keep)
    sys.exit(status)


if __name__ == "__main__":
    cli.run(main)
