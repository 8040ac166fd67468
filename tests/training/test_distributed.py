"""Several processes (gloo on the CPU) give the numbers of one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
# The order in which a sum is taken, and with it the last bits, goes by the threads that each process has.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(TOP), "OMP_NUM_THREADS": "1"}
STEP = re.compile(r"global step (\d+)/.* loss: (\d+\.\d+),")


@pytest.fixture(scope="module")
def launch(warm_python, demo, few_examples):
    """Run a script with one process or several; return its log and ``result.json``."""

    def run(script: str, processes: int, output: Path, *words: str) -> tuple[str, dict]:
        command = command_line(warm_python, script, processes, output, *words)
        done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd=output.parent)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout, json.loads((output / "result.json").read_text())

    def command_line(python: Path, script: str, processes: int, output: Path, *words: str) -> list[str]:
        program = [str(python), "-W", "ignore"]
        if processes > 1:
            program += ["-m", "paddle.distributed.launch", "--nproc_per_node", str(processes)]
            program += ["--log_dir", str(output) + "-log"]
        model = [] if "--model_name_or_path" in words else ["--model_name_or_path", str(demo / "model")]
        data = ["--data_dir", str(few_examples), "--device", "cpu", "--output_dir", str(output)]
        return [*program, str(TOP / script), *model, *data, *words]

    run.command_line = command_line
    return run


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            "classification/run_clue_classifier.py",
            "--task_name AFQMC --max_seq_length 32 --fgm 0.5 --ema 0.9 --layer_decay 0.8",
        ),
        ("mrc/run_c3.py", "--max_seq_length 32"),
        ("mrc/run_chid.py", "--max_seq_length 32"),
        ("mrc/run_cmrc2018.py", "--max_seq_length 96"),
    ],
    ids=["classifier", "c3", "chid", "cmrc2018"],
)
def test_two_processes_train_evaluate_and_predict_as_one(launch, tmp_path, script, words):
    flags = (
        f"{words} --do_train --do_eval --do_predict --max_steps 3 --logging_steps 1 --dropout 0 --learning_rate 1e-3"
    )
    one, single = launch(script, 1, tmp_path / "one", *flags.split(), "--batch_size", "8")
    two, double = launch(script, 2, tmp_path / "two", *flags.split(), "--batch_size", "4")
    losses = [[float(match[2]) for match in STEP.finditer(log)] for log in (one, two)]
    assert len(losses[0]) == 3 and losses[1] == pytest.approx(losses[0], abs=1e-5)
    # After three steps scores are near ties, which the low bits of a sum may decide: the loss is compared.
    assert double["evaluation"]["loss"] == pytest.approx(single["evaluation"]["loss"], abs=1e-5)
    # The same checkpoint, evaluated by one process and by two with as many threads each: nothing at all may differ.
    predict = f"{words} --do_eval --do_predict".split()
    again = []
    for processes in (1, 2):
        output = tmp_path / f"again-{processes}"
        command = [*predict, "--model_name_or_path", str(tmp_path / "one")]
        again.append((launch(script, processes, output, *command)[1]["evaluation"], output))
    assert again[0][0] == again[1][0]
    files = sorted(path.name for path in again[0][1].glob("*_predict.json"))
    assert files
    for name in files:
        assert (again[0][1] / name).read_bytes() == (again[1][1] / name).read_bytes()


def test_the_trainer_goes_on_in_two_processes_to_the_same_end(launch, tmp_path):
    words = "--dataset tnews --per_device_train_batch_size 4 --max_seq_length 16 --max_steps 12 --save_steps 4"
    flags = (*words.split(), "--learning_rate", "1e-3", "--do_train", "--do_eval", "--do_predict")
    script, whole, resumed = "classification/run_clue_classifier_trainer.py", tmp_path / "whole", tmp_path / "resumed"
    launch(script, 2, whole, *flags)
    shutil.copytree(whole, resumed)
    for path in (resumed / "checkpoint-12", resumed / "checkpoint-8"):
        shutil.rmtree(path)
    (resumed / "model.safetensors").unlink()
    (resumed / "result.json").write_text((whole / "result.json").read_text().replace("finished", "running"))
    _, result = launch(script, 2, resumed, *flags, "--save_total_limit", "1")
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert (resumed / "tnews11_predict.json").read_bytes() == (whole / "tnews11_predict.json").read_bytes()
    kept = {path.name for path in resumed.glob("checkpoint-*")}
    assert kept == {"checkpoint-12", f"checkpoint-{result['best_step']}"}


def test_a_process_that_stops_ends_the_others_with_a_clear_line(launch, warm_python, few_examples, tmp_path):
    """The second rank finds a broken line: the first, waiting for it, is ended by the launcher."""
    broken = tmp_path / "broken"
    shutil.copytree(few_examples, broken)
    (broken / "afqmc_public/train.json").write_text('{"sentence1": "只有一句"}\n')
    program = tmp_path / "one_rank_fails.py"
    program.write_text(
        "import os, sys\n"
        f"sys.path[:0] = [{str(TOP)!r}, {str(TOP / 'classification')!r}]\n"
        "import run_clue_classifier\nfrom clue_utils import cli\n"
        "words = sys.argv[1:]\n"
        f"if os.environ['PADDLE_TRAINER_ID'] == '1': words[words.index('--data_dir') + 1] = {str(broken)!r}\n"
        "cli.run(lambda: run_clue_classifier.main(words))\n"
    )
    words = "--task_name AFQMC --do_train --max_steps 2".split()
    command = launch.command_line(warm_python, str(program), 2, tmp_path / "out", *words)
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT)
    log = (tmp_path / "out-log/workerlog.1").read_text()
    assert done.returncode != 0
    assert "rank 1: error: " in log and "train.json:1" in log and "Traceback" not in log
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result["status"] == "failed" and "train.json:1" in result["reason"]


def processes_in(folder: Path) -> list[int]:
    """Running processes whose working folder this is."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if path.readlink() == folder:
                found.append(int(path.parent.name))
    return found


def test_two_processes_are_stopped_and_killed_and_end_as_if_they_never_were(launch, warm_python, tmp_path):
    script = "classification/run_clue_classifier.py"
    words = "--task_name TNEWS --do_train --max_steps 300 --save_steps 100 --logging_steps 5 --batch_size 4".split()
    words += ["--max_seq_length", "24"]
    _, unbroken = launch(script, 2, tmp_path / "unbroken", *words)

    output = tmp_path / "stopped"
    command = launch.command_line(warm_python, script, 2, output, *words)

    def last_step() -> int:
        """The newest step in the metrics log, which is written at once; the launcher prints lines late."""
        try:
            lines = (output / "metrics.jsonl").read_text().split("\n")[:-1]
        except FileNotFoundError:
            return 0
        return max((json.loads(line)["step"] for line in lines), default=0)

    def end_after(num_steps: int, number: int, all_processes: bool) -> None:
        """Start the run; after so many more steps, send a signal to the launcher, or to every process of the run."""
        begin = last_step()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=ENVIRONMENT, cwd=tmp_path) as launcher:
            while last_step() < begin + num_steps:
                assert launcher.poll() is None, "the run ended before it was stopped"
                time.sleep(0.01)
            for pid in processes_in(tmp_path) if all_processes else [launcher.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        while processes_in(tmp_path):
            time.sleep(0.01)

    end_after(15, signal.SIGTERM, all_processes=False)  # the launcher passes it on
    stopped_at = max(int(path.name.partition("-")[2]) for path in output.glob("checkpoint-*"))
    assert 15 <= stopped_at < 300
    end_after(40, signal.SIGKILL, all_processes=True)
    assert stopped_at < last_step() < 300
    _, resumed = launch(script, 2, output, *words)
    for result in (unbroken, resumed):
        for name in ("wall_time", "begun", "ended", "peak_memory_bytes"):
            del result[name]
    assert resumed == unbroken
    assert (output / "model.safetensors").read_bytes() == (tmp_path / "unbroken/model.safetensors").read_bytes()
