#!/usr/bin/env python
"""Tell which of two or more models is better, task by task, and whether the difference is more than chance."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from clue_utils import outside

    outside.explain()

from collections.abc import Sequence
from pathlib import Path

from clue_utils import cli, tasks
from clue_utils.compare import pairs, words
from clue_utils.grid import search_space, trial
from clue_utils.language import say
from clue_utils.report import render

USAGE = "python scripts/compare.py A B [C ...] [--tasks TASK ...] [--published] [--markdown] [--results DIR]"
EXAMPLE = """\
examples:
  python scripts/compare.py rbt6 ernie-3.0-base-zh
  python scripts/compare.py models/tnews-rbt6 models/tnews-ernie
  python scripts/compare.py results/rbt6 results/rbt3 --tasks TNEWS CSL --markdown
"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.Parser(usage=USAGE, description=__doc__, epilog=EXAMPLE)
    parser.add_argument(
        "sides",
        nargs="*",
        metavar="A",
        help="a run's folder, a folder of runs, or a model's trials (its folder or its name): of these the best of "
        "each task, with all of its seeds; B is compared with A",
    )
    parser.add_argument("--tasks", nargs="+", default=(), metavar="TASK", help="(default: all that both have)")
    parser.add_argument(
        "--published", action="store_true", help="of a model's trials, those with its published settings"
    )
    parser.add_argument("--markdown", action="store_true", help="tables in Markdown")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help=say("the folder of all models (default: RESULTS_DIR, else {folder})", folder=search_space.RESULTS_DIR),
    )
    args = parser.parse_args(argv)
    results = args.results or trial.results_dir()
    if args.tasks:
        pairs.know_tasks(args.sides, results)
    names = [tasks.get_task(name).name for name in args.tasks]
    sides = pairs.read_sides(args.sides, results, names, args.published)
    found = pairs.compare_all(sides)
    for pair in found:
        table, sentence = words.table(pair), words.sentence(pair)
        print(render.as_markdown(table) if args.markdown else render.as_text(table))
        print(f"{render.escape_markdown(sentence) if args.markdown else cli.for_terminal(sentence)}\n")
    for note in words.notes(found):
        print(f"- {render.escape_markdown(note)}" if args.markdown else cli.for_terminal(note))


if __name__ == "__main__":
    cli.run(main)
