#!/usr/bin/env python
"""Fine-tune, evaluate and predict with a pretrained model on CMRC2018: answers as spans of a text."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from clue_utils import outside

    outside.explain()

from clue_utils import cli, preflight, ranks
from clue_utils.data.chosen import chosen
from clue_utils.record import trained_with
from clue_utils.strict_json import JsonObject
from clue_utils.training.span import Cmrc2018Settings

EXAMPLE = """\
example:
  python run_cmrc2018.py --model_name_or_path ernie-3.0-base-zh --output_dir cmrc_model --do_train --do_predict
"""


def main(argv: list[str] | None = None) -> JsonObject | None:
    """Run the script with these words, by default those of the command line; return what ``session.execute`` does."""
    flags = Cmrc2018Settings.parser(__doc__, EXAMPLE).parse_args(argv)
    task = chosen(vars(flags), "span", "CMRC2018")
    args = Cmrc2018Settings.resolve(vars(flags), task, ranks.world_size(), trained_with(flags.model_name_or_path, task))
    preflight.start(args, task)
    from clue_utils.training.session import execute  # after the settings that Paddle reads when it is imported

    return execute(args, task)


if __name__ == "__main__":
    cli.run(main)
