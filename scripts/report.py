#!/usr/bin/env python
"""Report on grid searches and single runs: each task's best score and setting beside the published, and a page."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from clue_utils import outside

    outside.explain()

from collections.abc import Sequence
from pathlib import Path

from clue_utils import cli, files, language
from clue_utils.compare import matrix
from clue_utils.errors import UserError
from clue_utils.grid import outcomes, progress, screen, search_space, trial
from clue_utils.language import say
from clue_utils.report import collect, page, render, tables, verdict

PAGE = "report.html"

USAGE = "bash scripts/report.sh MODEL... [FLAG...] | MODEL --watch"
EXAMPLE = """\
examples:
  bash scripts/report.sh rbt6 ernie-3.0-base-zh
  bash scripts/report.sh results/*/ --output report
  bash scripts/report.sh models/*/ --language zh
  bash scripts/report.sh ernie-3.0-base-zh --watch
"""


def watch(models: Sequence[str], results: Path) -> None:
    """Show the search of a model, see ``screen.watch``.

    Raises:
        UserError: not one model, or one without a search.
    """
    if len(models) != 1:
        raise UserError(say("--watch: give one model"))
    plans = [place / outcomes.PLAN_FILE for place in collect.places(models[0], results)]
    plan = next(filter(Path.is_file, plans), None)
    if plan is None:
        raise UserError(
            say(
                "--watch: no search of {models!r} (looked for {looked}): start it first",
                models=outcomes.clean(models[0]),
                looked=say(" and ").join(map(outcomes.clean, plans)),
            )
        )
    screen.watch(plan.parent.resolve().name, progress.Reader(plan.parent).read)


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.Parser(usage=USAGE, description=__doc__, epilog=EXAMPLE)
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="a folder with <task>/<run>/result.json, the output folder of a run, or a model's name",
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help=say("the folder of all models (default: RESULTS_DIR, else {folder})", folder=search_space.RESULTS_DIR),
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="where the files go (default: the folder report beside the first model's)",
    )
    parser.add_argument(
        "--choose",
        choices=collect.CHOICES,
        default=collect.CHOICES[0],
        help="what wins a task: the best single trial, as published scores do, or the setting whose mean over seeds is "
        "the highest, of those with the most seeds (default: best)",
    )
    parser.add_argument(
        "--language",
        choices=language.LANGUAGES,
        help=say("of tables and page (default: {variable}, else that of the locale)", variable=language.VARIABLE),
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="show how far the model's search is, as long as it runs, whatever runs it: no report is written",
    )
    args = parser.parse_args(argv)
    if args.watch:
        watch(args.models, args.results or trial.results_dir())
        return
    with language.using(args.language or language.default_language()):
        _report(args.models, args.results or trial.results_dir(), args.output, args.choose)


def _report(given: Sequence[str], results_dir: Path, output: Path | None, choice: str) -> None:
    # An earlier report is no model: results/* may be given though it lies among them.
    models = [model for model in given if not Path(model, PAGE).is_file()]
    reports = collect.read_models(models, results_dir, choice)
    output = output or reports[0].report_folder
    for model in reports:
        for warning in model.damages + model.doubts:
            print(say("warning: {warning}", warning=warning), file=sys.stderr)

    for table in (tables.score_table(reports), tables.setting_table(reports), tables.model_table(reports)):
        print(render.as_text(table))
    for model in reports:
        for table in (verdict.verdict_table(model), tables.uncertainty_table(model), tables.cost_table(model)):
            if table.rows:
                print(render.as_text(table, model.name))
        open_ones = [o for status in ("running", "killed", "stopped", "failed") for o in model.with_status(status)]
        for outcome in open_ones:
            place = f"{model.name}/{outcome.folder}"
            text = say("{title}: {text}", title=place, text=outcome.reason)
            print(cli.for_terminal(say("{title}: {text}", title=say(outcome.status), text=text)))
        if open_ones:
            print()
    comparisons = []
    if len(reports) > 1:
        cells = matrix.matrix(reports)
        comparisons.append(tables.pair_table([model.name for model in reports], cells))
        print(render.as_text(comparisons[0]))
    for note in tables.notes(reports) + verdict.notes(reports):
        print(cli.for_terminal(note))

    output.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("report.md", render.to_markdown(reports, comparisons)),
        ("scores.tex", render.to_latex(reports, comparisons)),
        ("scores.csv", render.to_csv(reports)),
        (PAGE, page.to_html(reports, comparisons=comparisons)),
    ):
        files.write_text_atomically(output / name, text)
    names = f"report.md, scores.tex, scores.csv, {PAGE}"
    print("\n" + say("{names} are in {folder}", names=names, folder=outcomes.clean(output)))


if __name__ == "__main__":
    cli.run(main)
