#!/usr/bin/env python
"""Run a trial of a grid search as a job of a Slurm array: what grid_search.slurm hands over to, which tells more."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from clue_utils import outside

    outside.explain()


from clue_utils import cli
from clue_utils.errors import UserError
from clue_utils.grid import keep, outcomes, search_space, trial
from clue_utils.language import say


def main(argv: list[str] | None = None) -> None:
    words, flags = cli.split_at_dashes(argv)
    model, number, cards = (os.environ.get(name) for name in ("MODEL", "SLURM_ARRAY_TASK_ID", "CARDS"))
    if not model:
        raise UserError(say("no model given: MODEL=ernie-3.0-base-zh sbatch ... scripts/grid_search.slurm"))
    if not number:
        raise UserError(say("no array: pass --array=0-133 to sbatch"))
    parser = cli.Parser(description=__doc__)
    search_space.add_flags(parser)
    keep.add_flag(parser)
    args = parser.parse_args([*words, *(["--cards", cards] if cards else [])])
    trials = search_space.chosen_trials(args, flags, model)
    if int(number) >= len(trials):
        print(say("no trial {number} among {count}", number=number, count=len(trials)))
        return
    # GPUs are those of the allocation; where there is none, the variable is unset and the node's must not be taken.
    if "CUDA_VISIBLE_DEVICES" not in os.environ:
        os.environ["DEVICE"] = os.environ.get("DEVICE") or "cpu"
        if os.environ["DEVICE"] == "gpu":
            raise UserError(say("DEVICE=gpu, but the job was given no GPU: pass --gres=gpu:N to sbatch"))
    if threads := os.environ.get("OMP_NUM_THREADS") or os.environ.get("SLURM_CPUS_PER_TASK"):
        os.environ["OMP_NUM_THREADS"] = threads
    plan = trial.make_plan(model, trials[int(number)], flags, trial.visible_gpus())
    if not trial.is_dry_run():
        outcomes.add_to_plan(search_space.model_folder(trial.results_dir(), model), [one.folder for one in trials])
    status = trial.run(plan)
    keep.after(plan, args.keep)
    sys.exit(status)


if __name__ == "__main__":
    cli.run(main)
