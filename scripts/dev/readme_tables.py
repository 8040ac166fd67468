#!/usr/bin/env python
"""Write what the registry and the scripts know into README.md and README_en.md: scores, hyper-parameters, flags.

Each table stands between a pair of comments such as <!-- scores --> and <!-- /scores -->.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from clue_utils import cli, language, published, tasks
from clue_utils.errors import UserError
from clue_utils.files import write_text_atomically
from clue_utils.report.collect import setting_text
from clue_utils.report.render import markdown_table
from clue_utils.settings import Settings
from clue_utils.training.cloze import ChidSettings
from clue_utils.training.span import Cmrc2018Settings

TOP = Path(__file__).resolve().parents[2]
# README -> its language, in which the flags are told, and the heads of their table.
READMES = {"README.md": "zh", "README_en.md": "en"}
_HEADS = {"zh": ("参数", "说明"), "en": ("flag", "meaning")}


def scores() -> str:
    """The published scores: accuracy, and EM/F1 of the looser metric for CMRC2018, in percent."""
    rows = []
    for model in published.PUBLISHED_MODELS:
        cells = [
            f"{score.value:.2f}" + (f"/{score.f1:.2f}" if score.f1 is not None else "")
            for score in model.scores.values()
        ]
        rows.append([f"`{model.name}`", model.config, f"{model.average:.2f}", *cells])
    return markdown_table(["model", "size", "AVG", *tasks.TASKS], rows)


def hyper_parameters() -> str:
    """Learning rate and batch size, and dropout where the grid searches it, of the published scores."""
    searched = {task.name for task in tasks.TASKS.values() if len(task.dropouts) > 1}
    rows = [
        [f"`{model.name}`", *(setting_text(best, task in searched) for task, best in model.best_runs.items())]
        for model in published.PUBLISHED_MODELS
    ]
    return markdown_table(["model", *tasks.TASKS], rows)


def kinds() -> dict[str, type[Settings]]:
    """Script -> its settings, of the four plain scripts."""
    for folder in ("classification", "mrc"):
        sys.path.insert(0, str(TOP / folder))
    import run_clue_classifier

    return {
        "run_clue_classifier.py": run_clue_classifier.ClassifierSettings,
        "run_c3.py": Settings,
        "run_chid.py": ChidSettings,
        "run_cmrc2018.py": Cmrc2018Settings,
    }


def flags() -> str:
    """Every flag of the four scripts, by group; what one script alone has names it."""
    texts: dict[str, str] = {}
    owners: dict[str, list[str]] = {}
    for script, kind in kinds().items():
        for group in kind.flags_by_group().values():
            for name, flag in group.items():
                words = f"{' '.join(flag.takes)}. " if isinstance(flag.takes, tuple) else ""
                texts[name] = words + flag.text
                owners.setdefault(name, []).append(f"`{script}`")
    rows = [
        [f"`--{name}`", text + ("" if len(owners[name]) == len(kinds()) else f" ({', '.join(owners[name])})")]
        for name, text in texts.items()
    ]
    return markdown_table(_HEADS[language.current()], rows)


TABLES = {"scores": scores, "hyper_parameters": hyper_parameters, "flags": flags}


def updated(text: str, path: Path) -> str:
    """A README with the tables as they should be.

    Raises:
        UserError: a table has no place in it.
    """
    for name, table in TABLES.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise UserError(f"{path}: no place for a table: put <!-- {name} --> and <!-- /{name} --> into it")
        with language.using(READMES[path.name]):
            content = table()
        text = pattern.sub(lambda found, content=content: f"{found[1]}{content}{found[2]}", text)  # type: ignore[misc]
    return text


def main(argv: list[str] | None = None) -> None:
    parser = cli.Parser(description=__doc__, epilog="example: python scripts/dev/readme_tables.py --check")
    parser.add_argument("--check", action="store_true", help="write nothing, fail where a table is not up to date")
    args = parser.parse_args(argv)
    for name in READMES:
        path = TOP / name
        text = path.read_text(encoding="utf-8")
        new = updated(text, path)
        if new == text:
            continue
        if args.check:
            raise UserError(f"{name} is not up to date: run python scripts/dev/readme_tables.py")
        write_text_atomically(path, new)
        print(f"{name} brought up to date")


if __name__ == "__main__":
    cli.run(main)
