"""Several processes (gloo on the CPU) give the numbers of one."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
STEP = re.compile(r"global step (\d+)/.* loss: (\d+\.\d+),")


def launch(script: str, processes: int, output: Path, demo: Path, *words: str) -> tuple[str, dict]:
    """Run a script with one process or several; return its log and ``result.json``."""
    program = [sys.executable, "-W", "ignore"]
    if processes > 1:
        program += ["-m", "paddle.distributed.launch", "--nproc_per_node", str(processes)]
        program += ["--log_dir", str(output) + "-log"]
    command = [*program, str(TOP / script), "--model_name_or_path", str(demo / "model"), "--device", "cpu"]
    command += ["--data_dir", str(demo / "data"), "--output_dir", str(output), *words]
    environment = os.environ | {"PYTHONPATH": str(TOP)}
    environment.pop("OMP_NUM_THREADS", None)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=output.parent, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout, json.loads((output / "result.json").read_text())


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("classification/run_clue_classifier.py", "--task_name AFQMC --max_seq_length 32"),
        ("mrc/run_c3.py", "--max_seq_length 32"),
        ("mrc/run_chid.py", "--max_seq_length 32"),
        ("mrc/run_cmrc2018.py", "--max_seq_length 96"),
    ],
    ids=["classifier", "c3", "chid", "cmrc2018"],
)
def test_two_processes_train_evaluate_and_predict_as_one(demo, tmp_path, script, words):
    flags = (
        f"{words} --do_train --do_eval --do_predict --max_steps 3 --logging_steps 1 --dropout 0 --learning_rate 1e-3"
    )
    one, single = launch(script, 1, tmp_path / "one", demo, *flags.split(), "--batch_size", "8")
    two, double = launch(script, 2, tmp_path / "two", demo, *flags.split(), "--batch_size", "4")
    losses = [[float(match[2]) for match in STEP.finditer(log)] for log in (one, two)]
    assert len(losses[0]) == 3 and losses[1] == pytest.approx(losses[0], abs=1e-5)
    # After three updates scores are near ties, which the low bits of a sum may decide: the loss is compared.
    assert double["evaluation"]["loss"] == pytest.approx(single["evaluation"]["loss"], abs=1e-5)
    # The same checkpoint, evaluated by one process and by two: nothing at all may differ.
    predict = f"{words} --do_eval --do_predict".split()
    again = []
    for processes in (1, 2):
        output = tmp_path / f"again-{processes}"
        command = [*predict, "--model_name_or_path", str(tmp_path / "one")]
        again.append((launch(script, processes, output, demo, *command)[1]["evaluation"], output))
    assert again[0][0] == again[1][0]
    files = sorted(path.name for path in again[0][1].glob("*_predict.json"))
    assert files
    for name in files:
        assert (again[0][1] / name).read_bytes() == (again[1][1] / name).read_bytes()


def test_the_trainer_goes_on_in_two_processes_to_the_same_end(demo, tmp_path):
    words = "--dataset tnews --per_device_train_batch_size 4 --max_seq_length 16 --max_steps 12 --save_steps 4"
    flags = (*words.split(), "--learning_rate", "1e-3", "--do_train", "--do_eval", "--do_predict")
    script, whole, resumed = "classification/run_clue_classifier_trainer.py", tmp_path / "whole", tmp_path / "resumed"
    launch(script, 2, whole, demo, *flags)
    shutil.copytree(whole, resumed)
    for path in (resumed / "checkpoint-12", resumed / "checkpoint-8"):
        shutil.rmtree(path)
    (resumed / "model.safetensors").unlink()
    (resumed / "result.json").write_text((whole / "result.json").read_text().replace("finished", "running"))
    _, result = launch(script, 2, resumed, demo, *flags, "--save_total_limit", "1")
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert (resumed / "tnews11_predict.json").read_bytes() == (whole / "tnews11_predict.json").read_bytes()
    kept = {path.name for path in resumed.glob("checkpoint-*")}
    assert kept == {"checkpoint-12", f"checkpoint-{result['best_step']}"}


def test_a_process_that_stops_ends_the_others_with_a_clear_line(demo, tmp_path):
    """The second rank finds no data: the first, waiting for it, is ended by the launcher."""
    program = tmp_path / "one_rank_fails.py"
    program.write_text(
        "import os, sys\n"
        f"sys.path[:0] = [{str(TOP)!r}, {str(TOP / 'classification')!r}]\n"
        "import run_clue_classifier\nfrom clue_utils import runtime\n"
        "words = sys.argv[1:]\n"
        "if os.environ['PADDLE_TRAINER_ID'] == '1': words[words.index('--data_dir') + 1] = '/nowhere'\n"
        "runtime.run(lambda: run_clue_classifier.main(words))\n"
    )
    command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", "log"]
    command += [str(program), "--task_name", "AFQMC", "--model_name_or_path", str(demo / "model"), "--device", "cpu"]
    command += ["--data_dir", str(demo / "data"), "--output_dir", "out", "--do_train", "--max_steps", "2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    log = (tmp_path / "log/workerlog.1").read_text()
    assert done.returncode != 0
    assert "rank 1: error: " in log and "/nowhere" in log and "Traceback" not in log


def test_two_processes_are_stopped_and_killed_and_end_as_if_they_never_were(demo, tmp_path):
    script = "classification/run_clue_classifier.py"
    words = "--task_name TNEWS --do_train --max_steps 300 --save_steps 100 --logging_steps 5 --batch_size 4".split()
    words += ["--max_seq_length", "24"]
    _, unbroken = launch(script, 2, tmp_path / "unbroken", demo, *words)

    output = tmp_path / "stopped"
    command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2"]
    command += ["--log_dir", str(output) + "-log", str(TOP / script), "--model_name_or_path", str(demo / "model")]
    command += ["--device", "cpu", "--data_dir", str(demo / "data"), "--output_dir", str(output), *words]

    def last_step() -> int:
        """The newest update in the metrics log, which is written at once; the launcher prints lines late."""
        try:
            lines = (output / "metrics.jsonl").read_text().split("\n")[:-1]
        except FileNotFoundError:
            return 0
        return max((json.loads(line)["step"] for line in lines), default=0)

    def end_after(num_updates: int, number: int, all_processes: bool) -> None:
        """Start the run; after so many more updates, send a signal to the launcher, or to its processes as well."""
        environment = os.environ | {"PYTHONPATH": str(TOP)}
        environment.pop("OMP_NUM_THREADS", None)
        begin = last_step()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment, cwd=tmp_path) as launcher:
            while last_step() < begin + num_updates:
                assert launcher.poll() is None, "the run ended before it was stopped"
                time.sleep(0.01)
            pids = [launcher.pid]
            if all_processes:
                pids += map(int, Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split())
            for pid in pids:
                os.kill(pid, number)

    end_after(15, signal.SIGTERM, all_processes=False)  # the launcher passes it on
    stopped_at = max(int(path.name.partition("-")[2]) for path in output.glob("checkpoint-*"))
    assert 15 <= stopped_at < 300
    end_after(40, signal.SIGKILL, all_processes=True)
    assert stopped_at < last_step() < 300
    _, resumed = launch(script, 2, output, demo, *words)
    for result in (unbroken, resumed):
        del result["wall_time"], result["peak_memory_bytes"]
    assert resumed == unbroken
    assert (output / "model.safetensors").read_bytes() == (tmp_path / "unbroken/model.safetensors").read_bytes()
