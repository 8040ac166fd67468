#!/usr/bin/env python
"""Fine-tune, evaluate and predict with a pretrained model on C3: multiple choice over a dialogue or a text."""

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
from clue_utils.settings import Settings
from clue_utils.strict_json import JsonObject

EXAMPLE = """\
example:
  python -m paddle.distributed.launch --gpus "0,1,2,3" run_c3.py --model_name_or_path ernie-3.0-base-zh \\
      --batch_size 6 --learning_rate 2e-5 --output_dir c3_model --do_train --do_predict
"""


def main(argv: list[str] | None = None) -> JsonObject | None:
    """Run the script with these words, by default those of the command line; return what ``session.execute`` does."""
    flags = Settings.parser(__doc__, EXAMPLE).parse_args(argv)
    task = chosen(vars(flags), "multiple_choice", "C3")
    args = Settings.resolve(vars(flags), task, ranks.world_size(), trained_with(flags.model_name_or_path, task))
    preflight.start(args, task)
    from clue_utils.training.session import execute  # after the settings that Paddle reads when it is imported

    return execute(args, task)


if __name__ == "__main__":
    cli.run(main)
