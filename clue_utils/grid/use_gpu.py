"""Take the first visible GPU as a training does, or say in one line why that is not possible: a program of its own.

A search has the Python of its trials run it before them, since importing PaddlePaddle is left to that.
"""

from __future__ import annotations

from clue_utils import cli, environment


def main() -> None:
    environment.load_libraries()
    from clue_utils import device

    device.set_device("gpu")


if __name__ == "__main__":
    cli.run(main)
