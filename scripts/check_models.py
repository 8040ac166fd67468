#!/usr/bin/env python
"""Try the architectures of the published models at full size: one update and one prediction for each kind of task.

The weights are random, from PaddleNLP's own configurations, so nothing is downloaded; what is shown is that every
architecture runs in every script on this machine, and the time and memory that it takes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import demo_data
import make_demo
from clue_utils import runtime, tasks
from clue_utils.arguments import Parser
from clue_utils.errors import UserError

TOP = Path(__file__).resolve().parent.parent
# One task for each kind of head: sequence classification, multiple choice, question answering.
TASK_NAMES = ("TNEWS", "C3", "CMRC2018")
FAMILIES = ("Ernie", "ErnieGram", "Roberta", "Bert")
# PaddleNLP has no configuration of this name; the model has the sizes of the other one.
SAME_SIZES = {"Langboat/mengzi-bert-base": "bert-base-chinese"}


def make_random_model(name: str, folder: Path) -> None:
    """Write the published model's architecture with random weights and the demo's vocabulary as a checkpoint folder."""
    import paddle
    from paddlenlp import transformers

    from clue_utils.models import save_model

    listed = SAME_SIZES.get(name, name)
    for family in FAMILIES:
        model_class = getattr(transformers, f"{family}Model")
        if listed in model_class.pretrained_init_configuration:
            break
    else:
        raise UserError(f"{name}: PaddleNLP has no configuration of this name")
    sizes = model_class.pretrained_init_configuration[listed]
    folder.mkdir(parents=True)
    vocab_file = folder / "vocab.txt"
    vocab_file.write_text("\n".join(make_demo.vocabulary()) + "\n", encoding="utf-8")
    # PaddleNLP's RobertaTokenizer reads Chinese checkpoints with this class.
    tokenizer_class = "RobertaChineseTokenizer" if family == "Roberta" else f"{family}Tokenizer"
    paddle.seed(0)
    model = model_class(getattr(transformers, f"{family}Config")(**sizes))
    save_model(model, getattr(transformers, tokenizer_class)(str(vocab_file)), folder)


def try_task(task_name: str, model: Path, data: Path, output: Path) -> tuple[float, float]:
    """One update and the predictions of every test set; return seconds and peak memory in GiB.

    Raises:
        UserError: the script failed; its last line is given.
    """
    task = tasks.TASKS[task_name]
    words = ["--task_name", task_name] if task.kind == "classification" else []
    words += ["--model_name_or_path", str(model), "--data_dir", str(data), "--output_dir", str(output)]
    words += ["--do_train", "--do_predict", "--max_steps", "1", "--batch_size", "8", "--logging_steps", "1"]
    with runtime.timed() as seconds:
        done = subprocess.run(
            [sys.executable, str(TOP / task.script), *words], capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise UserError(f"{task_name}: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}")
    result = json.loads((output / "result.json").read_text(encoding="utf-8"))
    return seconds(), result["peak_memory_bytes"] / 2**30


def main(argv: list[str] | None = None) -> None:
    parser = Parser(description=__doc__, epilog="example: bash scripts/check_models.sh --models ernie-3.0-base-zh")
    published = [model.name for model in tasks.PUBLISHED_MODELS]
    parser.add_argument("--models", nargs="+", default=published, metavar="NAME", help="(default: all nine)")
    args = parser.parse_args(argv)
    runtime.tune_cpu()
    runtime.import_libraries()
    print("| model | config | " + " | ".join(f"{name}: seconds, GiB" for name in TASK_NAMES) + " |")
    print("|---|---|" + "---|" * len(TASK_NAMES), flush=True)
    failures = []
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary, "data")
        demo_data.make_data(data, sizes=demo_data.sizes_for(8))
        os.environ["CLUE_CACHE_DIR"] = str(Path(temporary, "cache"))
        for name in args.models:
            config = next((model.config for model in tasks.PUBLISHED_MODELS if model.name == name), "")
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
            print(f"| {name} | {config} | " + " | ".join(cells) + " |", flush=True)
    if failures:
        raise UserError("; ".join(failures))


if __name__ == "__main__":
    runtime.run(main)
