"""Answer the records of a file, of any length, into another."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from clue_utils import cli, environment, ranks
from clue_utils.errors import Stopped, UserError, show
from clue_utils.features.method import id_of
from clue_utils.files import atomically
from clue_utils.language import say
from clue_utils.predictor import Predictor
from clue_utils.settings import Settings
from clue_utils.strict_json import JsonObject
from clue_utils.tasks import Task
from clue_utils.training.inputs import STANDARD, read_records

logger = logging.getLogger(__name__)
Write = Callable[[str], object]


def predict_file(args: Settings, task: Task) -> JsonObject | None:
    """Answer ``--predict_file`` into ``--predict_output``, in the order of the records, with the model of a run.

    A line of the output has the record's ``id``, where it has one, the task's fields as ``inputs``, and what
    ``clue_utils.predictor`` describes. A file is there as a whole or not at all.

    Returns:
        What was done, None on ranks other than 0.

    Raises:
        UserError: a record is not as described; file and line are named.
    """
    assert args.predict_file is not None
    checkpoint = args.output_dir if args.do_train else args.model_name_or_path
    predictor = Predictor.of_run(args, task, [checkpoint, *args.ensemble])
    answers = predictor.answers(read_records(task, args.predict_file), cli.check_stop)
    if not ranks.is_first():  # computes its share, and has nothing to say
        for _ in answers:
            pass
        return None
    num_records = 0
    format_row = _as_csv() if args.predict_output.lower().endswith(".csv") else _as_json
    with _beginning_anew(args.predict_output), cli.timed() as elapsed, _writer_to(args.predict_output) as write:
        said = 0.0
        for example, answer in tqdm(answers, desc="answering", unit="record", disable=None, leave=False):
            cli.check_stop()
            read = {name: example[name] for name in task.fields}
            write(format_row(id_of(example) | {"inputs": read} | answer))
            num_records += 1
            if elapsed() - said >= cli.PULSE_INTERVAL and not sys.stderr.isatty():
                said = elapsed()
                logger.info("%s answering: %d records", time.strftime("%H:%M:%S"), num_records)
        seconds = elapsed()
    where = "standard output" if args.predict_output == STANDARD else args.predict_output
    logger.info("%d answers written to %s, %.0f a second", num_records, where, num_records / max(seconds, 1e-9))
    return {
        "task": task.name,
        "model": checkpoint,
        "predict_file": args.predict_file,
        "predict_output": args.predict_output,
        "num_records": num_records,
        "wall_time": seconds,
        "peak_memory_bytes": environment.peak_memory_bytes(),
    }


@contextlib.contextmanager
def _beginning_anew(name: str) -> Iterator[None]:
    """Have whoever stops it know that no later run goes on with these answers."""
    try:
        yield
    except Stopped as error:
        kept = say("the answers above are not all") if name == STANDARD else say("{name} is not written", name=name)
        error.outlook = say("{kept}, and the same command begins with the first record again", kept=kept)
        raise


@contextlib.contextmanager
def _writer_to(name: str) -> Iterator[Write]:
    if name == STANDARD:
        yield cli.print_whole
        return
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomically(path) as written, written.open("w", encoding="utf-8", newline="") as file:
        yield file.write


def _as_json(row: JsonObject) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _as_csv() -> Callable[[JsonObject], str]:
    """What writes rows of one form, the first below a header, with the mark by which spreadsheets know UTF-8.

    Each of the inputs has a column, ``inputs.name`` where the answer has a ``name``; lists and objects are written as
    JSON.

    Raises:
        UserError: a record has an ``id``, and the first has none.
    """
    text = io.StringIO()
    writer: csv.DictWriter[str] | None = None

    def format_row(row: JsonObject) -> str:
        nonlocal writer
        cells = {name: value for name, value in row.items() if name != "inputs"}
        inputs = {f"inputs.{name}" if name in cells else name: value for name, value in row["inputs"].items()}
        cells = {name: cells.pop(name) for name in ("id",) if name in cells} | inputs | cells
        cells = {
            name: json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value
            for name, value in cells.items()
        }
        text.seek(0)
        text.truncate()
        if writer is None:
            writer = csv.DictWriter(text, [*cells], lineterminator="\n")
            text.write("\ufeff")
            writer.writeheader()
        elif "id" in cells and "id" not in writer.fieldnames:
            raise UserError(
                say(
                    "record with id {id}: the first record has none, and so the CSV file no place for it: give all "
                    "records an id, or --predict_output a .jsonl file",
                    id=show(cells["id"]),
                )
            )
        writer.writerow(cells)
        return text.getvalue()

    return format_row
