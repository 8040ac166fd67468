#!/usr/bin/env python
"""Try the architectures of the published models at full size: one step and the predictions of four tasks.

The weights are random, from PaddleNLP's own configurations, so nothing is downloaded, and every text fills the task's
real length. What is shown is that every architecture runs in every script on this machine, and the time and memory
that it takes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from clue_utils import cli, environment, published, tasks
from clue_utils.errors import UserError
from clue_utils.grid import trial
from clue_utils.report.render import markdown_rows, markdown_table
from demo.model import make_model
from demo.records import make_data, sizes_for
from demo.words import FILLERS

# Every kind of head, and every length up to the models' last position: 128, 256, 512, 512 tokens.
TASK_NAMES = ("TNEWS", "CSL", "C3", "CMRC2018")
FAMILIES = ("Ernie", "ErnieGram", "Roberta", "Bert")
# PaddleNLP has no configuration of this name; the model has the sizes of the other one.
SAME_SIZES = {"Langboat/mengzi-bert-base": "bert-base-chinese"}


def make_random_model(name: str, folder: Path) -> None:
    """Write the published model's architecture with random weights and the demo's vocabulary as a checkpoint folder."""
    from paddlenlp import transformers

    listed = SAME_SIZES.get(name, name)
    for family in FAMILIES:
        model_class = getattr(transformers, f"{family}Model")
        if listed in model_class.pretrained_init_configuration:
            break
    else:
        raise UserError(f"{name}: PaddleNLP has no configuration of this name")
    make_model(folder, sizes=model_class.pretrained_init_configuration[listed], family=family)


def lengthen(data: Path) -> None:
    """Make every text of the four tasks longer than its task's length."""
    length = max(tasks.TASKS[name].max_seq_length for name in TASK_NAMES)
    text = ("".join(FILLERS) * length)[:length]  # a token for each character, about
    for name, field in (("TNEWS", "sentence"), ("CSL", "abst")):
        for path in (data / tasks.TASKS[name].folder).glob("t*.json"):
            examples = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
            lines = [json.dumps(example | {field: example[field] + text}, ensure_ascii=False) for example in examples]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for path in (data / tasks.TASKS["C3"].folder).glob("*.json"):
        documents = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps([[[*context, text], *rest] for context, *rest in documents]), encoding="utf-8")
    for path in (data / tasks.TASKS["CMRC2018"].folder).glob("*.json"):
        squad = json.loads(path.read_text(encoding="utf-8"))
        for article in squad["data"]:
            for paragraph in article["paragraphs"]:
                paragraph["context"] += text
        path.write_text(json.dumps(squad), encoding="utf-8")


def try_task(task_name: str, model: Path, data: Path, output: Path) -> tuple[float, float]:
    """One step and the predictions of every test set; return seconds and peak memory in GiB.

    Raises:
        UserError: the script failed; its last line is given.
    """
    task = tasks.TASKS[task_name]
    flags = ["--data_dir", data, "--do_train", "--do_predict", "--max_steps", "1", "--logging_steps", "1"]
    flags += ["--batch_size", "2", "--gradient_accumulation_steps", "2"]
    words = [trial.interpreter(), *trial.script_words(task, model, output, *flags)]
    with cli.timed() as seconds:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{task_name}: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}")
    result = json.loads((output / "result.json").read_text(encoding="utf-8"))
    return seconds(), result["peak_memory_bytes"] / 2**30


def main(argv: list[str] | None = None) -> None:
    parser = cli.Parser(description=__doc__, epilog="example: bash scripts/check_models.sh --models ernie-3.0-base-zh")
    every = [model.name for model in published.PUBLISHED_MODELS]
    parser.add_argument("--models", nargs="+", default=every, metavar="NAME", help="(default: all nine)")
    args = parser.parse_args(argv)
    environment.tune_cpu()
    environment.import_libraries()
    heads = [f"{name} at {tasks.TASKS[name].max_seq_length}: seconds, GiB" for name in TASK_NAMES]
    print(markdown_table(["model", "config", *heads]), end="", flush=True)
    failures = []
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary, "data")
        make_data(data, sizes=sizes_for(4))
        lengthen(data)
        os.environ["CLUE_CACHE_DIR"] = str(Path(temporary, "cache"))
        for name in args.models:
            config = next((model.config for model in published.PUBLISHED_MODELS if model.name == name), "")
            folder = Path(temporary, "model")
            make_random_model(name, folder)
            cells = []
            for task_name in TASK_NAMES:
                output = Path(temporary, "output")
                try:
                    cells.append("{:.0f}, {:.1f}".format(*try_task(task_name, folder, data, output)))
                except UserError as error:
                    cells.append("failed")
                    failures.append(f"{name}, {error}")
                shutil.rmtree(output, ignore_errors=True)
            shutil.rmtree(folder)
            print(markdown_rows([[name, config, *cells]]), end="", flush=True)
    if failures:
        raise UserError("; ".join(failures))


if __name__ == "__main__":
    cli.run(main)
