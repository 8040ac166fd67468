#!/usr/bin/env python
"""Make the demo in the folder demo; train, evaluate and predict every task on it; zip the predictions."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from clue_utils import outside

    outside.explain()

import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from clue_utils import cli, project
from clue_utils.columns import left, right
from clue_utils.grid import trial
from clue_utils.language import later, say
from clue_utils.leaderboard import write
from clue_utils.record import Record
from clue_utils.tasks import TASKS, Task
from make_demo import training_flags

AT_ONCE = 2  # tasks side by side, one thread each
DEMO = Path("demo")
OUTPUT = DEMO / "output"
ENDING = later("""
Made in {seconds} s, all in demo/: checkpoints and predictions in output/<task>/,
logs in output/<task>.log, predictions zipped for the leaderboard in submit.zip.
Scores are in percent. The data is made up, so they say only that it works.

What to type next:
  source .venv/bin/activate     # the environment of all that follows
  python classification/run_clue_classifier.py --task_name TNEWS \\
      --model_name_or_path ernie-3.0-base-zh --output_dir models/tnews \\
      --do_train --do_eval --do_predict     # TNEWS, for real
  less README.md                # read on
  bash scripts/test.sh          # run the tests""")


def run_task(place: str, task: Task) -> float:
    """Train, evaluate and predict a task, with a line before and after; return seconds.

    Raises:
        SystemExit: the script failed; the end of its log is shown.
    """
    print(say("{place}: train, evaluate, predict", place=place), flush=True)
    flags = ["--data_dir", DEMO / "data", "--overwrite_output_dir", "--device", "cpu", *training_flags(task)]
    words = trial.script_words(
        task, DEMO / "model", OUTPUT / task.name, *flags, "--do_train", "--do_eval", "--do_predict"
    )
    with cli.timed() as seconds:
        status = trial.run_script(words, OUTPUT / f"{task.name}.log", place, OMP_NUM_THREADS="1")
    if status:
        raise SystemExit(1)
    result = Record.read(OUTPUT / task.name) or Record()
    took = say("{seconds:.0f} s", seconds=seconds())
    score = f"{result.metric} {cli.percent(result.score or 0.0)}"
    print(say("{place}: {score}, {took}", place=place, score=score, took=took), flush=True)
    return seconds()


def main(argv: list[str] | None = None) -> None:
    cli.Parser(description=__doc__).parse_args(argv)
    begin = time.monotonic()
    print("\n" + say("Making the demo model and data"), flush=True)
    subprocess.run([trial.interpreter(), project.TOP / "scripts/make_demo.py", "--output", DEMO], check=True)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        runs = {
            task.name: pool.submit(run_task, f"[{number}/{len(TASKS)}] {task.name}", task)
            for number, task in enumerate(TASKS.values(), 1)
        }
        try:
            for run in as_completed(runs.values()):
                run.result()
        except BaseException as error:
            pool.shutdown(cancel_futures=True)  # no further task is begun
            if isinstance(error, KeyboardInterrupt):
                print(say("interrupted: bash scripts/quickstart.sh begins again"), file=sys.stderr)
                sys.exit(128 + signal.SIGINT)
            raise
    cli.configure_logging("error")
    counts = write.zip_predictions([OUTPUT / name for name in TASKS], DEMO / "submit.zip")
    print(f"\n{say('{num_counts} files in {path}', num_counts=len(counts), path=DEMO / 'submit.zip')}\n")
    heads = left(say("task"), 12), left(say("metric"), 9), right(say("score"), 6), right(say("time"), 7)
    print(f"{''.join(heads)} {say('prediction files')}")  # 80 columns with the longest names
    for name, task in TASKS.items():
        result = Record.read(OUTPUT / name) or Record()
        files = " ".join(file for file in task.submissions.values() if (OUTPUT / name / file).is_file())
        took = right(say("{seconds:.0f} s", seconds=runs[name].result()), 7)
        print(f"{name:<12}{result.metric:<9}{100 * (result.score or 0.0):>6.2f}{took} {files}")
    print(say(ENDING, seconds=int(time.monotonic() - begin)))


if __name__ == "__main__":
    cli.run(main)
