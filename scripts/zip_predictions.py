#!/usr/bin/env python
"""Check prediction files and put them into one zip for the CLUE leaderboard."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from clue_utils import outside

    outside.explain()

from pathlib import Path

from clue_utils import cli
from clue_utils.errors import UserError
from clue_utils.language import say
from clue_utils.leaderboard import manifest, write


def main(argv: list[str] | None = None) -> None:
    parser = cli.Parser(
        description=__doc__, epilog="example: python scripts/zip_predictions.py results/* --output submit.zip"
    )
    parser.add_argument("folders", nargs="+", type=Path, help="output folders of runs with --do_predict")
    parser.add_argument("--output", type=Path, default=Path("submit.zip"), help="(default: %(default)s)")
    parser.add_argument(
        "--data_dir", help="folder that holds the official files: ids are then compared with the test files"
    )
    parser.add_argument(
        "--with_diagnostics", action="store_true", help="put the predictions of the diagnostics set in too"
    )
    args = parser.parse_args(argv)
    cli.configure_logging("error")  # the output is about the zip, not about the data
    for path in args.folders:
        if not path.exists():
            raise UserError(say("{path}: no such folder", path=path))
    folders = [path for path in args.folders if path.is_dir()]  # results/* names files beside them, too
    counts = write.zip_predictions(folders, args.output, args.data_dir, args.with_diagnostics)
    for name, count in counts.items():
        print(say("{name}: {count} predictions", name=name, count=count))
    print(
        say(
            "{num_counts} files in {output}, what made them in {manifest}",
            num_counts=len(counts),
            output=args.output,
            manifest=manifest.path_of(args.output),
        )
    )


if __name__ == "__main__":
    cli.run(main)
