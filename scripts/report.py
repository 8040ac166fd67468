#!/usr/bin/env python
"""Report on grid searches: the best score and setting of each task beside the published ones, and a page to show."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from clue_utils import cli, files
from clue_utils.grid import outcomes, search_space, trial
from clue_utils.report import collect, page, render, tables

PAGE = "report.html"

USAGE = "bash scripts/report.sh MODEL... [--results DIR] [--output DIR]"
EXAMPLE = """\
examples:
  bash scripts/report.sh rbt6 ernie-3.0-base-zh
  bash scripts/report.sh results/*/ --output report
"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.Parser(usage=USAGE, description=__doc__, epilog=EXAMPLE)
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="a folder with <task>/<run>/result.json, or a model's name"
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help=f"the folder of all models (default: RESULTS_DIR, else {search_space.RESULTS_DIR})",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="where the files go (default: the folder report beside the first model's)",
    )
    args = parser.parse_args(argv)
    # An earlier report is no model: results/* may be given though it lies among them.
    models = [model for model in args.models if not Path(model, PAGE).is_file()]
    reports = collect.read_models(models, args.results or trial.results_dir())
    output = args.output or reports[0].folder.parent / "report"
    for model in reports:
        for warning in model.damages + model.doubts:
            print(f"warning: {warning}", file=sys.stderr)

    for table in (tables.score_table(reports), tables.setting_table(reports)):
        print(render.as_text(table))
    for model in reports:
        for table in (tables.uncertainty_table(model), tables.cost_table(model)):
            if table.rows:
                print(render.as_text(table, model.name))
        open_ones = [o for status in ("running", "killed", "stopped", "failed") for o in model.with_status(status)]
        for outcome in open_ones:
            print(f"{outcome.status}: {model.name}/{outcome.folder}: {outcome.reason}")
        if open_ones:
            print()
    for note in tables.notes(reports):
        print(note)

    output.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("report.md", render.to_markdown(reports)),
        ("scores.csv", render.to_csv(reports)),
        (PAGE, page.to_html(reports)),
    ):
        files.write_text_atomically(output / name, text)
    print(f"\nreport.md, scores.csv and {PAGE} are in {outcomes.clean(output)}")


if __name__ == "__main__":
    cli.run(main)
