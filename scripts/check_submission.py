#!/usr/bin/env python
"""Check a zip for the CLUE leaderboard and name everything in it that would be refused or scored 0."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from clue_utils import outside

    outside.explain()

from pathlib import Path

from clue_utils import cli
from clue_utils.columns import left, right
from clue_utils.errors import UserError
from clue_utils.language import say
from clue_utils.leaderboard import check_zip, file_names, manifest


def main(argv: list[str] | None = None) -> None:
    parser = cli.Parser(
        description=__doc__, epilog="example: python scripts/check_submission.py submit.zip --data_dir clue_data"
    )
    parser.add_argument("zip", type=Path, help="the file that is to be submitted")
    parser.add_argument(
        "--data_dir",
        default=os.environ.get("CLUE_DATA_DIR") or None,
        help="folder that holds the official files: ids are then compared with the test files "
        "(default: $CLUE_DATA_DIR, else what has been downloaded, else the sizes of the official test sets)",
    )
    args = parser.parse_args(argv)
    cli.configure_logging("error")  # the output is about the zip, not about the data
    findings = check_zip.check_zip(args.zip, args.data_dir)
    made = None
    try:
        made = manifest.read(args.zip)
    except UserError as error:
        findings.notes.append(str(error))
    for line in findings.problems:
        print(line)
    for note in findings.notes:
        print(cli.for_terminal(say("note: {note}", note=note)))
    if findings.problems:
        number = len(findings.problems)
        text = say("{zip}: {number} problems, listed above; do not submit it", zip=args.zip, number=number)
        if number == 1:
            text = say("{zip}: 1 problem, listed above; do not submit it", zip=args.zip)
        if args.data_dir is None and say("official size") in findings.compared.values():
            text += say("; if other data than the official was predicted, such as the demo's, name it with --data_dir")
        raise UserError(text)
    heads = left(say("task"), 13), left(say("test set"), 10), right(say("predictions"), 11), left(say("file"), 25)
    print(f"{heads[0]}{heads[1]}{heads[2]}  {heads[3]}{say('compared with')}")
    for name, (task, split) in file_names.known_files().items():
        if name in findings.counts:
            print(f"{task.name:<13}{split:<10}{findings.counts[name]:>11,}  {name:<25}{findings.compared[name]}")
    if made:
        name = manifest.path_of(args.zip).name
        print("\n" + say("made by, as {name} tells, with the score on the development set:", name=name))
        print(*manifest.rows(made), "", sep="\n")
    print(say("{zip}: {num_counts} files, no problem found", zip=args.zip, num_counts=len(findings.counts)))


if __name__ == "__main__":
    cli.run(main)
