#!/usr/bin/env python
"""Try every architecture that the scripts know, with random weights, so that nothing is downloaded.

Without a mode: on all ten tasks a tiny model is trained for a few updates, evaluated, predicts, is loaded again and
predicts the same. With --learn: a small model learns the demo's TNEWS from nothing. With --full: models of full size
take one update of each task with texts that fill its length, and predict the test set: of the architectures the models
with published scores, or else one. What comes out is a table; what failed is said below it, and the exit status is 2.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clue_utils import cli, environment, project
from clue_utils.errors import UserError, ending_of, first_line, one_line, shorten, show
from clue_utils.grid import trial
from clue_utils.published import PUBLISHED_MODELS
from clue_utils.report.render import markdown_rows, markdown_table
from clue_utils.tasks import TASKS, Task
from demo.architectures import SIZES, make_checkpoint, make_published
from demo.model import SIZES as DEMO_SIZES
from demo.records import make_data, sizes_for
from demo.words import FILLERS
from make_demo import training_flags

if TYPE_CHECKING:
    from clue_utils.models.families import Family

EXAMPLE = """\
examples:
  bash scripts/check_models.sh --models ernie-3.0-base-zh   (with --full)
  PYTHONPATH=scripts python scripts/dev/try_architectures.py --architectures bert ernie_m --tasks C3
  PYTHONPATH=scripts python scripts/dev/try_architectures.py --architectures nezha --full
"""
# What a tiny model's runs need to be short, with texts and windows that are cut all the same.
LENGTH = 48
FLAGS: Mapping[str, Sequence[object]] = {"CMRC2018": ("--max_query_length", 16, "--doc_stride", 12)}
RECORDS = 8
# What a model needs to learn in a minute.
LEARNING_SIZES = {**DEMO_SIZES, "embedding_size": DEMO_SIZES["hidden_size"]}
# What single architectures need to learn at that size, where weights that are drawn as for a large model are too small.
LEARNING_EXTRAS: Mapping[str, Mapping[str, Any]] = {
    # Nothing is normalised between its layers, so their matrices have to keep the size of what goes through them.
    "mobilebert": {"initializer_range": 0.1, "intra_bottleneck_size": 64},
    # Three new layers stand over the encoder; each has now the gain that 0.02 gives a layer of 768 units.
    "convbert": {"initializer_range": 0.05},
}
# Times the accuracy of chance that is learnt at least.
LEARNT = 3.0
# Every kind of head, and every length up to the models' last position: 128, 256, 512, 512 tokens.
FULL_TASKS = ("TNEWS", "CSL", "C3", "CMRC2018")
# Layers x hidden size squared, which work goes by, of a base model.
BASE = 12 * 768**2


# --- all ten tasks ------------------------------------------------------------------------------------------------


def run_here(task: Task, model: Path, output: Path, *flags: object) -> None:
    """Run a task's script in this process, with nothing shown.

    Raises:
        UserError: its one line, or for any other end the exception, which is a defect.
    """
    for folder in ("classification", "mrc"):
        if str(project.TOP / folder) not in sys.path:
            sys.path.append(str(project.TOP / folder))
    _, *words = trial.script_words(task, model, output, *flags)
    script = importlib.import_module(Path(task.script).stem)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
            script.main(words)
    except SystemExit:  # flags that cannot be
        raise UserError(errors.getvalue().strip()) from None
    except Exception as error:
        ending = ending_of(error)
        raise UserError(
            ending.reason if ending else f"{type(error).__name__}: {one_line(first_line(error))}"
        ) from error


@contextlib.contextmanager
def few_examples(number: int) -> Iterator[None]:
    """Let the scripts that run in this process see so many examples of each split."""
    session = importlib.import_module("clue_utils.training.session")
    load = vars(session)["load_examples"]

    def load_few(*words: Any) -> Any:
        examples = load(*words)
        return replace(examples, rows=examples.rows[:number])

    vars(session)["load_examples"] = load_few
    try:
        yield
    finally:
        vars(session)["load_examples"] = load


def predictions(task: Task, folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in task.submissions.values()}


def try_task(task: Task, model: Path, data: Path, scratch: Path) -> None:
    """Train for two updates, evaluate and predict; load what was saved, and predict the same.

    Raises:
        UserError: it could not, or the predictions are others.
    """
    output, again = scratch / "output", scratch / "again"
    common = ["--data_dir", data, "--device", "cpu", "--num_proc", 1, "--max_seq_length", LENGTH]
    common += FLAGS.get(task.name, ())
    training = ["--do_train", "--do_eval", "--max_steps", 2, "--save_steps", 1, "--batch_size", 2]
    try:
        run_here(task, model, output, *common, *training, "--do_predict", "--overwrite_output_dir")
        run_here(task, output, again, *common, "--do_predict")
        if predictions(task, output) != predictions(task, again):
            raise UserError("predicts otherwise when it is loaded again")
    finally:
        for folder in (output, again):
            shutil.rmtree(folder, ignore_errors=True)


def try_tasks(families: Sequence[Family], task_names: Sequence[str], data: Path, scratch: Path) -> list[str]:
    """Print the table of architectures and tasks; return what failed."""
    print(markdown_table(["architecture", *task_names]), end="", flush=True)
    failures = []
    for family in families:
        cells = []
        for task in map(TASKS.__getitem__, task_names):
            try:
                model = scratch / family.model_type
                if not (model / "config.json").exists():
                    make_checkpoint(family, model, SIZES)
                with few_examples(RECORDS):
                    try_task(task, model, data, scratch)
                cells.append("ok")
            except UserError as error:
                cells.append(shorten(error, 160))
                failures.append(f"{family.model_type} on {task.name}: {error}")
        print(markdown_rows([[family.model_type, *cells]]), end="", flush=True)
    return failures


# --- learning -----------------------------------------------------------------------------------------------------


def learn(families: Sequence[Family], scratch: Path) -> list[str]:
    """Print what each architecture learns of the demo's TNEWS from random weights; return those that do not."""
    task = TASKS["TNEWS"]
    data, chance = scratch / "demo", 100 / len(task.labels)
    make_data(data)
    heads = ["architecture", "accuracy", "seconds"]
    print(
        f"TNEWS of the demo, from random weights; chance is {chance:.1f}\n\n{markdown_table(heads)}", end="", flush=True
    )
    failures = []
    for family in families:
        output, model = scratch / "output", scratch / family.model_type
        try:
            with cli.timed() as seconds:
                make_checkpoint(family, model, LEARNING_SIZES, LEARNING_EXTRAS.get(family.model_type))
                flags = ["--data_dir", data, "--device", "cpu", "--do_train", *training_flags(task)]
                run_here(task, model, output, *flags)
            result = json.loads((output / "result.json").read_text(encoding="utf-8"))
            score = 100 * result["best_metric"]
            cells = [f"{score:.1f}", f"{seconds():.0f}"]
            failures += [f"{family.model_type}: learnt no more than {score:.1f}"] if score < LEARNT * chance else []
        except UserError as error:
            cells = [shorten(error, 160), ""]
            failures.append(f"{family.model_type}: {error}")
        for folder in (output, model):
            shutil.rmtree(folder, ignore_errors=True)
        print(markdown_rows([[family.model_type, *cells]]), end="", flush=True)
    return failures


# --- full size ----------------------------------------------------------------------------------------------------


def full_models(families: Sequence[Family]) -> list[str]:
    """The models of architectures that have published scores, and of each other one the largest up to a base model."""
    from clue_utils.models import catalogue

    published = [catalogue.find(model.name) for model in PUBLISHED_MODELS]
    names = [model.name for model in published if model.family in families]
    taken = {model.family for model in published}
    for family in families:
        if family not in taken:
            models = {model.name: model.layers * model.hidden_size**2 for model in catalogue.sized_models_of(family)}
            size = max((size for size in models.values() if size <= BASE), default=min(models.values()))
            names.append(next(name for name in models if models[name] == size))
    return names


def lengthen(data: Path) -> None:
    """Make every text of ``FULL_TASKS`` longer than its task's length."""
    length = max(TASKS[name].max_seq_length for name in FULL_TASKS)
    text = ("".join(FILLERS) * length)[:length]  # a token for each character, about
    for name, field in (("TNEWS", "sentence"), ("CSL", "abst")):
        for path in (data / TASKS[name].folder).glob("t*.json"):
            examples = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
            lines = [json.dumps(example | {field: example[field] + text}, ensure_ascii=False) for example in examples]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for path in (data / TASKS["C3"].folder).glob("*.json"):
        documents = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps([[[*context, text], *rest] for context, *rest in documents]), encoding="utf-8")
    for path in (data / TASKS["CMRC2018"].folder).glob("*.json"):
        squad = json.loads(path.read_text(encoding="utf-8"))
        for article in squad["data"]:
            for paragraph in article["paragraphs"]:
                paragraph["context"] += text
        path.write_text(json.dumps(squad), encoding="utf-8")


def update(task: Task, model: Path, data: Path, output: Path) -> tuple[float, float]:
    """One update and the predictions of every test set; return seconds and peak memory in GiB.

    Raises:
        UserError: the script failed; its last line is given, and the signal that killed it.
    """
    flags = ["--data_dir", data, "--do_train", "--do_predict", "--max_steps", "1", "--logging_steps", "1"]
    # A row at a time: what large models need of 24 GiB for four choices of 512 tokens.
    flags += ["--batch_size", "2", "--gradient_accumulation_steps", "2"]
    words = [trial.interpreter(), *trial.script_words(task, model, output, *flags)]
    with cli.timed() as seconds:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    if status := done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        killed = [f"killed by {signal.Signals(-status).name}"] if status < 0 else []  # which says nothing more
        raise UserError("; its last line: ".join(killed + last) or f"ended with status {status}")
    result = json.loads((output / "result.json").read_text(encoding="utf-8"))
    return seconds(), result["peak_memory_bytes"] / 2**30


def try_full(names: Sequence[str], task_names: Sequence[str], scratch: Path) -> list[str]:
    """Print seconds and memory of models at full size; return what failed."""
    from clue_utils.models import catalogue

    models = [catalogue.find(name) for name in names]
    heads = [f"{name} at {TASKS[name].max_seq_length}: seconds, GiB" for name in task_names]
    print(markdown_table(["model", "architecture", "size", *heads]), end="", flush=True)
    data, failures = scratch / "long", []
    make_data(data, sizes=sizes_for(4))
    lengthen(data)
    for model in models:
        folder, output = scratch / "model", scratch / "output"
        cells = []
        make_published(model.name, folder)
        for task in map(TASKS.__getitem__, task_names):
            try:
                cells.append("{:.0f}, {:.1f}".format(*update(task, folder, data, output)))
            except UserError as error:
                cells.append("failed")
                failures.append(f"{model.name} on {task.name}: {error}")
            shutil.rmtree(output, ignore_errors=True)
        shutil.rmtree(folder)
        size = f"{model.layers} x {model.hidden_size}"
        print(markdown_rows([[model.name, model.family.model_type, size, *cells]]), end="", flush=True)
    return failures


def main(argv: list[str] | None = None) -> None:
    parser = cli.Parser(description=__doc__, epilog=EXAMPLE)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--learn", action="store_true", help="try to learn TNEWS of the demo, for about a minute each")
    mode.add_argument(
        "--full", action="store_true", help="try full size: seconds and memory of an update and predictions"
    )
    parser.add_argument("--architectures", nargs="+", metavar="NAME", help="these alone, by model_type (default: all)")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="with --full: these, of whatever architecture")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="(default: all ten; with --full TNEWS and C3)")
    parser.add_argument("--data_dir", metavar="DIR", help="real examples (default: $CLUE_DATA_DIR, else the demo's)")
    args = parser.parse_args(argv)
    task_names = [name.upper() for name in args.tasks or (("TNEWS", "C3") if args.full else TASKS)]
    possible = FULL_TASKS if args.full else tuple(TASKS)
    if unknown := [name for name in task_names if name not in possible]:
        raise UserError(f"--tasks {show(unknown[0])}: choose of {', '.join(possible)}")
    environment.load_libraries("cpu")
    from clue_utils.models.families import BY_TYPE

    if unknown := [name for name in args.architectures or () if name not in BY_TYPE]:
        raise UserError(f"--architectures {show(unknown[0])}: choose of {', '.join(BY_TYPE)}")
    families = [BY_TYPE[name] for name in args.architectures or BY_TYPE]
    before = os.environ.get("CLUE_CACHE_DIR")
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        os.environ["CLUE_CACHE_DIR"] = str(scratch / "cache")
        try:
            if args.learn:
                failures = learn(families, scratch)
            elif args.full:
                failures = try_full(args.models or full_models(families), task_names, scratch)
            else:
                data = Path(args.data_dir or os.environ.get("CLUE_DATA_DIR") or scratch / "data")
                if data == scratch / "data":
                    make_data(data, sizes=sizes_for(4 * RECORDS))
                failures = try_tasks(families, task_names, data, scratch)
        finally:
            os.environ.pop("CLUE_CACHE_DIR")
            if before is not None:
                os.environ["CLUE_CACHE_DIR"] = before
    if failures:
        raise UserError("; ".join(failures))


if __name__ == "__main__":
    cli.run(main)
