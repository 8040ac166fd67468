#!/usr/bin/env python
"""List the trials of a grid search, one a line: task, learning rate, batch size, dropout, seed, GPUs.

Without flags these are the trials of the published grid. The batch size is the sum over the GPUs.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from clue_utils import outside

    outside.explain()

from clue_utils import cli
from clue_utils.grid import search_space

EXAMPLE = """\
examples:
  python scripts/list_trials.py --tasks TNEWS CLUEWSC2020
  python scripts/list_trials.py --tasks C3 --learning_rates 1e-5 2e-5 --batch_sizes 24 --seeds 1 2 3
  python scripts/list_trials.py hfl/rbt6 --published
"""


def main(argv: list[str] | None = None) -> None:
    parser = cli.Parser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("model", nargs="?", metavar="MODEL", help="name or folder, which --published needs")
    search_space.add_flags(parser)
    args = parser.parse_args(argv)
    print("\n".join(" ".join(trial.words) for trial in search_space.chosen_trials(args, model=args.model)))


if __name__ == "__main__":
    cli.run(main)
