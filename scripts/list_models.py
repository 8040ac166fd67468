#!/usr/bin/env python
"""List the models for Chinese, alone or among other languages, that --model_name_or_path takes.

Names are downloaded; of a model marked with * the folder with its files is to be brought. Columns: layers x hidden
size; millions of parameters; GiB that an update of 16 texts of 128 tokens takes (an estimate, see update_bytes in
clue_utils/models/catalogue.py), and for what a card of 16 GiB has no room for, that of --lora_rank; how the
architecture was tried with random weights (on all ten tasks, tiny; "learns": accuracy on the demo's TNEWS, where chance
has 6.7; at full size; "PyTorch": the largest difference to what that computes); the published average score.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from clue_utils import outside

    outside.explain()

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clue_utils import cli, environment
from clue_utils.columns import display_width, left, right
from clue_utils.errors import UserError, show
from clue_utils.language import later, say
from clue_utils.published import PUBLISHED_MODELS
from clue_utils.report.render import markdown_table

if TYPE_CHECKING:
    from clue_utils.models.catalogue import Model
    from clue_utils.models.families import Family

EXAMPLE = """\
examples:
  python scripts/list_models.py
  python scripts/list_models.py large --architecture ernie
"""
HEADER = (
    *(later("model"), later("architecture"), later("size"), later("parameters (M)"), later("memory (GiB)")),
    *(later("tried"), later("score")),
)
NUMBERS = ("size", "parameters (M)", "score")
# GiB of a card of the smaller kind: what takes more is advised to train adapters alone.
CARD = 16


def how_tried(family: Family) -> str:
    """What was tried of an architecture, in words."""
    from clue_utils.models.tried import TRIED

    tried, words = TRIED[family.model_type], [say("ten tasks")]
    words += [say("learns {percent:.0f}", percent=tried.learnt)] if tried.learnt is not None else []
    words += [say("full size")] if tried.full_size else []
    words += [f"PyTorch {tried.pytorch:.0e}"] if tried.pytorch is not None else []
    return say(", ").join(words)


def needed(model: Model) -> str:
    """GiB of an update; of one that a smaller card has no room for, also with LoRA."""
    from clue_utils.models.catalogue import update_bytes

    whole = update_bytes(model) / 2**30
    return f"{whole:.1f}" + (f" (LoRA {update_bytes(model, frozen=True) / 2**30:.1f})" if whole > CARD else "")


def row(model: Model) -> tuple[str, ...]:
    """The cells of a model."""
    found = next((row for row in PUBLISHED_MODELS if row.name == model.name), None)
    sizes: Sequence[str] = ("", "", "")
    if model.config is not None:
        sizes = f"{model.layers} x {model.hidden_size}", f"{model.num_parameters / 1e6:.1f}", needed(model)
    name = model.name if model.is_known else f"{model.name} *"
    score = f"{found.average:.2f}" if found else ""
    return name, model.family.model_type, *sizes, how_tried(model.family), score


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """Rows with aligned columns, the numbers to the right."""
    widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for cells in rows:
        aligned = [
            right(cell, width) if name in NUMBERS else left(cell, width)
            for name, cell, width in zip(HEADER, cells, widths, strict=True)
        ]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    parser = cli.Parser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("word", nargs="?", default="", help="list the models whose names contain it")
    parser.add_argument("--architecture", metavar="NAME", help="list its models, as config.json calls it (model_type)")
    parser.add_argument("--markdown", action="store_true", help="print a table in Markdown")
    args = parser.parse_args(argv)
    if sys.stderr.isatty():  # whoever looks on is told what is waited for
        cli.configure_logging("info", on_stderr=True)
    environment.load_libraries("cpu")
    from clue_utils.models import catalogue
    from clue_utils.models.families import BY_TYPE

    if args.architecture not in (None, *BY_TYPE):
        raise UserError(
            say(
                "--architecture {architecture}: choose one of {by_type}",
                architecture=show(args.architecture),
                by_type=", ".join(BY_TYPE),
            )
        )
    models = [model for model in catalogue.models() if args.architecture in (None, model.family.model_type)]
    chosen = [model for model in models if args.word.lower() in model.name.lower()]
    if not chosen and args.word:
        raise UserError(
            say(
                "no model's name contains {word}: leave the word out to see all {num_models}",
                word=show(args.word),
                num_models=len(models),
            )
        )
    rows = [row(model) for model in chosen]
    if rows:
        header = [*map(say, HEADER)]
        print(markdown_table(header, rows) if args.markdown else as_text([header, *rows]), end="")
    unnamed = {*BY_TYPE} - {model.family.model_type for model in models} if not args.word else set()
    others = [name for name in BY_TYPE if name in unnamed and args.architecture in (None, name)]
    if others:
        print(
            "\n"
            + say("No Chinese model has a name here, but a folder of one is read: {others}", others=", ".join(others))
        )


if __name__ == "__main__":
    cli.run(main)
