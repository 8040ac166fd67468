"""What a grid search asks the Python of its trials before them: to take the first visible GPU as a training does.

Why that is not possible is one line, as of a training; the exit status is 0 if it is.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from clue_utils import outside

    outside.explain()

from clue_utils import cli, environment


def main() -> None:
    environment.load_libraries()
    from clue_utils import device

    device.set_device("gpu")


if __name__ == "__main__":
    cli.run(main)
