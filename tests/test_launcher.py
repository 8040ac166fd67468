"""What Paddle's launcher makes of the commands that the pages show and of a trial, wherever they are run."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from clue_utils import environment
from clue_utils.grid import trial
from clue_utils.grid.search_space import Trial

SHOWN, ERRORS = (
    (Path(__file__).parents[1] / "docs" / name).read_text(encoding="utf-8") for name in ("distributed.md", "errors.md")
)
# The launcher's words and the script, of each command.
COMMANDS = re.findall(r"^python (-m paddle\.distributed\.launch .*?)mrc/run_c3\.py", SHOWN, re.MULTILINE)
ONE_MACHINE, TWO_MACHINES, NO_GPU = (words.replace('"', "").split() for words in COMMANDS)
# Stands for the script; the launcher runs it as it is.
PROGRAM = """\
#!/bin/sh
env >"$NOTES/$PADDLE_TRAINER_ID"
"""


@pytest.fixture
def launch(warm_python, tmp_path) -> Callable[..., tuple[list[dict[str, str]], str]]:
    """Run the launcher with a program: the environment of each of its processes, and what it says itself."""
    program = tmp_path / "program"
    program.write_text(PROGRAM)
    program.chmod(0o755)

    def run(words: list[str], **variables: str) -> tuple[list[dict[str, str]], str]:
        kept = {name: value for name, value in os.environ.items() if not re.match("CUDA|XPU|PADDLE|FLAGS", name)}
        environment = kept | {"NOTES": str(tmp_path)} | variables
        command = [warm_python, "-W", "ignore", *words, program]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        notes = [path.read_text().splitlines() for path in sorted(tmp_path.glob("[0-9]"))]
        assert (done.returncode == 0) == bool(notes), done.stdout + done.stderr
        return [dict(line.split("=", 1) for line in lines if "=" in line) for lines in notes], done.stderr

    return run


def selected(processes: list[dict[str, str]]) -> list[str | None]:
    return [process.get("FLAGS_selected_gpus") for process in processes]


@pytest.mark.skipif("paddlepaddle-gpu" in environment.versions(), reason="this Paddle is built with gpu support")
def test_without_gpus_two_processes_are_started(launch):
    processes, _ = launch(NO_GPU, https_proxy="http://proxy")
    assert [process["PADDLE_TRAINERS_NUM"] for process in processes] == ["2", "2"]
    assert selected(processes) == [None, None]
    # It keeps a proxy from its processes, under another name.
    for process in processes:
        assert "https_proxy" not in process and process["https_proxy_original"] == "http://proxy"


def test_within_an_allocation_gpus_are_left_out_and_all_are_taken(launch):
    assert ONE_MACHINE[-2:] == TWO_MACHINES[-2:] == ["--gpus", "0,1,2,3"]
    processes, _ = launch(ONE_MACHINE[:-2], CUDA_VISIBLE_DEVICES="4,5")
    assert selected(processes) == ["0", "1"] and {process["CUDA_VISIBLE_DEVICES"] for process in processes} == {"4,5"}


def test_the_launch_of_a_trial_starts_a_process_on_each_of_its_gpus(launch, monkeypatch, tmp_path):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "results"))
    plan = trial.make_plan("m", Trial("C3", 1e-5, 24, 0.1, 42, 4), [], ["4", "GPU-5d5b"])
    words = trial.command(plan)[1:]
    words = words[: next(i for i, word in enumerate(words) if word.endswith("run_c3.py"))]
    plan.folder.mkdir(parents=True)
    processes, said = launch(words, CUDA_VISIBLE_DEVICES=",".join(plan.gpus))
    assert selected(processes) == ["0", "1"]
    # Nothing is asked of nvidia-smi while it runs.
    assert "gpu log" not in said and not list((plan.folder / "launch").glob("*.gpu.log"))


@pytest.mark.parametrize(
    ("words", "visible", "error"),
    [
        (ONE_MACHINE, "4,5", "ValueError: '0' is not in list"),
        (NO_GPU, "", "IndexError: list index out of range"),
        (NO_GPU, "-1", "IndexError: list index out of range"),
    ],
)
def test_the_tracebacks_of_the_launcher_stand_in_the_table_of_errors(launch, words, visible, error):
    processes, said = launch(words, CUDA_VISIBLE_DEVICES=visible)
    assert processes == [] and said.splitlines()[-1] == error and f"`{error}`" in ERRORS
