"""What happens where memory runs out, and what the published sizes take."""

from __future__ import annotations

import math
import shlex
import time
from pathlib import Path
from typing import Any

from clue_utils import project
from clue_utils.errors import UserError
from clue_utils.grid import trial
from clue_utils.tasks import TASKS
from gpu_check import jobs
from gpu_check.checks import Report
from gpu_check.jobs import NO_CARD, TINY, Bench

# Enough for weights, gradients and moments of the medium model, not for its batch of 64 texts of 128 tokens.
LIMIT_MB = 2000
_LIMIT = {"FLAGS_gpu_memory_limit_mb": str(LIMIT_MB)}
# In place of that, without a card: between four and eight rows of the demo's texts.
_TOKENS = 120
_MEDIUM, _BASE, _LARGE = "ernie-3.0-medium-zh", "ernie-3.0-base-zh", "hfl/roberta-wwm-ext-large"
_SIZES = {_BASE: "12L768H", _LARGE: "24L1024H"}
# Examples of an update on one card: the published batches of C3 and CHID are shared out over four.
_BATCH_SIZES = {"TNEWS": 32, "CMRC2018": 24, "C3": 6, "CHID": 6}


def check(report: Report, bench: Bench) -> None:
    if bench.on_card:
        check_limited_card(report, bench)
        check_sizes(report, bench)
    else:
        check_simulated(report, bench)
        report.not_run("peak memory of the published sizes", NO_CARD)


def check_simulated(report: Report, bench: Bench) -> None:
    """Without a card: the models raise Paddle's error for more tokens than a limit."""
    python = bench.scratch / "python"
    call = Path(__file__).with_name("limited.py")
    words = shlex.join([trial.interpreter(), str(call), str(_TOKENS)])
    python.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    python.chmod(0o755)
    flags = ["--max_steps", 3, "--max_seq_length", 24, "--data_dir", bench.data, "--num_proc", 1]
    report.info("in place of a full card", f"{_TOKENS} tokens at a time (simulated)")
    with report.failing("training that does not fit"):
        begin = time.monotonic()
        words_of_run = trial.script_words(
            TASKS["TNEWS"], bench.model, bench.folder("full"), *flags, "--batch_size", 8, "--device", "cpu"
        )
        check_refusal(report, bench, [call, _TOKENS, *words_of_run, "--do_train"], {}, begin)
    check_ladder(report, bench, bench.model, 8, flags, {"PYTHON": str(python), "DEVICE": "cpu"})
    flags = [*TINY, "--data_dir", bench.data, "--device", "cpu"]
    check_evaluation(report, bench, "TNEWS", bench.model, flags, {}, eval_batch_size=8, tokens=_TOKENS // 2)


def check_limited_card(report: Report, bench: Bench) -> None:
    """On a card: Paddle is told to take no more than a part of its memory."""
    model, data = bench.random_model(_MEDIUM), bench.long_data
    flags = ["--max_steps", 3, "--data_dir", data]
    report.info("Paddle's limit on the card", LIMIT_MB, "MB")
    with report.failing("training that does not fit"):
        begin = time.monotonic()
        words = trial.script_words(
            TASKS["TNEWS"], model, bench.folder("full"), *flags, "--batch_size", 64, "--device", "gpu"
        )
        check_refusal(report, bench, [*words, "--do_train"], _LIMIT, begin)
    check_ladder(report, bench, model, 64, flags, _LIMIT | {"CUDA_VISIBLE_DEVICES": trial.visible_gpus()[0]})
    check_evaluation(report, bench, "C3", model, ["--data_dir", data, "--device", "gpu"], _LIMIT)


def check_refusal(report: Report, bench: Bench, words: Any, variables: dict[str, str], begin: float) -> None:
    """A run ends with status 2 and one line that says what to pass."""
    program = bench.start(words, **variables)
    said = ""
    try:
        program.finish()
    except UserError as error:
        said = str(error)
    report.equal("training that does not fit: exit status", program.process.returncode, 2)
    advice = "pass --gradient_accumulation_steps"
    report.equal("training that does not fit: last line", "advice" if advice in said else said or "nothing", "advice")
    report.info("training that does not fit: ends after", time.monotonic() - begin, "s")


def check_ladder(
    report: Report, bench: Bench, model: Path, batch_size: int, flags: Any, variables: dict[str, str]
) -> None:
    """run_trial.sh goes on with more micro-batches until they fit."""
    results = bench.folder("results")
    with report.failing("run_trial.sh where a batch does not fit"):
        environment = {"PYTHON": trial.interpreter(), **variables, "RESULTS_DIR": str(results)}
        words = [project.TOP / "scripts/run_trial.py", model, "TNEWS", 1e-4, batch_size, 0.1, 42, 1, "--", *flags]
        bench.run(words, **environment)
        (path,) = results.rglob("result.json")
        parts = jobs.result(path.parent)["hyper_parameters"]["gradient_accumulation_steps"]
        report.at_least("run_trial.sh finishes, with micro-batches", parts, 2)


def check_evaluation(
    report: Report,
    bench: Bench,
    task: str,
    model: Path,
    flags: Any,
    variables: dict[str, str],
    eval_batch_size: int = 64,
    tokens: int = 0,
) -> None:
    """Evaluation goes on with smaller batches, and does not try again what did not fit.

    Args:
        tokens: what fits; 0: as much as memory takes.
    """
    name = "evaluation that does not fit: times it ran out"
    with report.failing(name):
        trained = bench.folder("trained")
        more = [*flags, "--max_steps", 1, "--batch_size", 4, "--eval_batch_size", 2]
        bench.call("train", task_name=task, model=model, output=trained, flags=more)
        arguments: dict[str, Any] = {"task_name": task, "model": trained, "output": bench.folder("evaluated")}
        more = [*flags, "--eval_batch_size", eval_batch_size]
        times = bench.call("evaluate_limited", variables=variables, flags=more, tokens=tokens, **arguments)
        if times:
            report.at_most(name, times, math.log2(eval_batch_size))
        else:
            report.not_run(name, "it did fit")


def check_sizes(report: Report, bench: Bench) -> None:
    """One update and one evaluation of each task with the published batch, at full length."""
    for name, size in _SIZES.items():
        with report.failing(size):
            model, flags = bench.random_model(name), ["--data_dir", bench.long_data, "--device", "gpu"]
            found = bench.call(
                "peaks", batch_sizes=_BATCH_SIZES, model=model, output=bench.folder("peaks"), flags=flags
            )
            for task, peak in found.items():
                if "error" in peak:
                    report.fail(f"{size} {task}", peak["error"])
                    continue
                report.info(f"{size} {task}, an update", peak["update"], "GiB")
                report.info(f"{size} {task}, an evaluation", peak["evaluation"], "GiB")
                report.info(f"{size} {task}, parts that a batch needs here", peak["parts"])
