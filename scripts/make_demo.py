#!/usr/bin/env python
"""Make demo data for the ten CLUE tasks and a tiny random ERNIE model, so that every script runs without a download.

The data is in the official folder layout and formats, see ``demo.records``; the model is an ordinary checkpoint
folder. The same parameters give the same bytes.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from clue_utils import outside

    outside.explain()

import hashlib
import json
from pathlib import Path
from typing import Any

from clue_utils import cli
from clue_utils.cli import Parser, non_negative_int, positive_int
from clue_utils.errors import UserError
from clue_utils.files import digest_of, put, scratch
from clue_utils.language import say
from clue_utils.tasks import TASKS, Task
from demo.model import make_model
from demo.records import make_data, sizes_for

MANIFEST = "demo.json"
PARTS = ("data", "model")


def training_flags(task: Task) -> list[str]:
    """Flags with which a demo model learns a demo task in less than a minute on one core."""
    flags = {"learning_rate": 1e-3, "batch_size": 16, "num_train_epochs": 3, "max_seq_length": 64, "logging_steps": 20}
    flags["save_steps"] = 50
    flags |= {
        "C3": {"num_train_epochs": 1},
        "CHID": {"batch_size": 8, "max_seq_length": 32, "save_steps": 150},
        "CMRC2018": {"num_train_epochs": 4, "max_seq_length": 128, "save_steps": 100},
    }.get(task.name, {})
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


def make_demo(output: Path, seed: int = 0, records: int | None = None) -> bool:
    """Make ``output/data``, ``output/model`` and the manifest ``output/demo.json``; other files there are left alone.

    Both folders are made whole beside their places and then moved. A demo made with the same parameters whose files
    are all as they were is kept.

    Returns:
        Whether anything was made.

    Raises:
        UserError: ``output`` holds a folder ``data`` or ``model`` that this script did not make.
    """
    sizes = sizes_for(records)
    parameters = {
        "seed": seed,
        "records": {name: size._asdict() for name, size in sizes.items()},
        # A demo of an earlier version of these scripts is made anew.
        "made_by": _digest_of_scripts(),
    }
    manifest = output / MANIFEST
    earlier = _read_manifest(manifest)
    if earlier is None:
        for path in (output / part for part in PARTS):
            if path.exists():
                raise UserError(
                    say("{path} was not made by this script: move it away or choose another --output", path=path)
                )
    elif earlier == {"parameters": parameters, "files": _digests(output)}:
        return False
    output.mkdir(parents=True, exist_ok=True)
    with scratch(output / "demo") as new:
        new.mkdir()
        make_data(new / "data", seed, sizes)
        make_model(new / "model", seed)
        text = json.dumps({"parameters": parameters, "files": _digests(new)}, indent=1) + "\n"
        (new / MANIFEST).write_text(text, encoding="utf-8")
        # The manifest first: its digests tell a demo that was cut off between two moves from a whole one.
        for name in (MANIFEST, *PARTS):
            put(new / name, output / name)
    return True


def _digest_of_scripts() -> str:
    scripts = [Path(__file__), *sorted(Path(__file__).with_name("demo").glob("*.py"))]
    return hashlib.sha256(b"".join(script.read_bytes() for script in scripts)).hexdigest()


def _read_manifest(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise UserError(
            say("{path} cannot be read as JSON: remove it, or choose another --output", path=path)
        ) from None


def _digests(output: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file of the demo."""
    files = sorted(path for part in PARTS for path in (output / part).rglob("*") if path.is_file())
    return {path.relative_to(output).as_posix(): digest_of(path) for path in files}


def main(argv: list[str] | None = None) -> None:
    parser = Parser(description=__doc__, epilog="example: python scripts/make_demo.py --output demo")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder to make (default: %(default)s)")
    parser.add_argument("--seed", type=non_negative_int, default=0, help="(default: %(default)s)")
    parser.add_argument(
        "--records",
        type=positive_int,
        help="training examples of each task, with a quarter for dev and an eighth for each test set "
        "(default: 480 to 1040, as the task needs to be learnt)",
    )
    args = parser.parse_args(argv)
    if make_demo(args.output, args.seed, args.records):
        print(
            say(
                "made {data} ({num_tasks} tasks) and {model}",
                data=args.output / "data",
                num_tasks=len(TASKS),
                model=args.output / "model",
            )
        )
    else:
        print(say("{output} is complete: left as it is", output=args.output))


if __name__ == "__main__":
    cli.run(main)
