#!/usr/bin/env python
"""Show what a model got wrong on its development set, or which records several models find the hardest."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from clue_utils import outside

    outside.explain()

from collections.abc import Sequence
from pathlib import Path

from clue_utils import cli, files
from clue_utils.grid.outcomes import clean
from clue_utils.language import say
from clue_utils.report import mistakes, mistakes_render

PAGE = "errors.html"
USAGE = "python scripts/errors.py FOLDER... [--num N] [--output DIR]"
EXAMPLE = """\
examples:
  python scripts/errors.py models/tnews
  python scripts/errors.py results/rbt6/TNEWS/* --num 50 --output report
"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.Parser(usage=USAGE, description=__doc__, epilog=EXAMPLE)
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="the output folder of a run that was evaluated")
    parser.add_argument(
        "--num", type=cli.positive_int, default=20, metavar="N", help="rows of a list at the most (default: 20)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help=say("where {page} goes (default: the first folder)", page=PAGE)
    )
    args = parser.parse_args(argv)
    runs = mistakes.read_all(args.folders)
    print(mistakes_render.to_text(runs, args.num))
    output = args.output or Path(args.folders[0])
    output.mkdir(parents=True, exist_ok=True)
    files.write_text_atomically(output / PAGE, mistakes_render.to_html(runs, args.num))
    print(say("{page} is in {output}", page=PAGE, output=clean(output)))


if __name__ == "__main__":
    cli.run(main)
