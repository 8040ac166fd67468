"""The grid search: its list of trials, one trial, and the engines that run them all. Training is stood in for."""

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

import list_trials

TOP = Path(__file__).parent.parent
needs_parallel = pytest.mark.skipif(shutil.which("parallel") is None, reason="needs GNU parallel")

# Stands for the scripts of the tasks: notes its words, then does what FAKE_* in the environment say.
SCRIPT = r"""
import json, os, sys, time
from pathlib import Path

words = sys.argv[1:]
value = dict(zip(words, words[1:]))
parts = int(value.get("--gradient_accumulation_steps", 1))
call = {"words": words, "cards": os.environ.get("CUDA_VISIBLE_DEVICES"), "pid": os.getpid(), "begin": time.time()}
call["threads"] = os.environ.get("OMP_NUM_THREADS")
note = Path(os.environ["FAKE_CALLS"], f"{time.time_ns()}-{os.getpid()}")
def write_note():
    new = note.parent.with_name(note.name)
    new.write_text(json.dumps(call))
    new.rename(note)
write_note()
time.sleep(float(os.environ.get("FAKE_SECONDS", 0)))
# Neither of two trials of this task ends before the other has begun.
meeting = os.environ.get("FAKE_MEETING", "no task")
while meeting in value["--output_dir"] and sum(meeting in path.read_text() for path in note.parent.iterdir()) < 2:
    time.sleep(0.05)
folder = Path(value["--output_dir"])
result = {"status": "running", "metric": "accuracy", "best_metric": 0.5, "model": value["--model_name_or_path"]}
result["max_steps"] = int(value.get("--max_steps", -1))
result["hyper_parameters"] = {"learning_rate": float(value["--learning_rate"]), "gradient_accumulation_steps": parts}
if parts < int(os.environ.get("FAKE_PARTS", 1)):
    (folder / "result.json").write_text(json.dumps(result))
    advice = f"pass --gradient_accumulation_steps {parts * 2}; the batch stays the same"
    sys.exit(f"error: out of memory with a batch of shape [8, 16]: {advice}")
if os.environ.get("FAKE_FAILURE", "nowhere") in str(folder):
    print("on the way", flush=True)
    sys.exit("error: " + os.environ["FAKE_FAILURE"] + " cannot be done")
(folder / "result.json").write_text(json.dumps(result | {"status": "finished"}))
call["end"] = time.time()
write_note()
"""


class Place:
    """A folder with a blank in its name, and what the scripts find in their environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "a place"
        self.calls = folder / "calls"
        self.calls.mkdir()
        self.folder.mkdir()
        (folder / "fake.py").write_text(SCRIPT)
        python = folder / "python"
        python.write_text(
            f'#!/bin/sh\ncase "$*" in\n*/run_*.py*) exec "{sys.executable}" "{folder}/fake.py" "$@" ;;\n'
            f'*) exec "{sys.executable}" "$@" ;;\nesac\n'
        )
        python.chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if not re.match("CUDA|OMP|SLURM|PARALLEL", name)}
        self.environment = kept | {"PYTHON": str(python), "FAKE_CALLS": str(self.calls)}
        self.environment["XDG_RUNTIME_DIR"] = str(folder)  # where the locks of GPUs are

    def start(self, script: str, *words: str, **environment: str) -> subprocess.Popen:
        command = ["bash", str(TOP / "scripts" / script), *words]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Where nohup runs the tests it would be ignored.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )

    def run(self, script: str, *words: str, **environment: str) -> tuple[int, str, str]:
        process = self.start(script, *words, **environment)
        out, err = process.communicate()
        return process.returncode, out, err

    def done(self) -> list[dict]:
        """The calls of the tasks' scripts, in their order."""
        return [json.loads(path.read_text()) for path in sorted(self.calls.iterdir())]


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


def value_of(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


# --- the list ----------------------------------------------------------------------------------------------------


def test_the_published_grid_has_134_trials(run_script):
    status, out, _ = run_script(list_trials.main)
    lines = out.splitlines()
    assert status == 0 and len(lines) == len(set(lines)) == 134
    assert lines[0] == "AFQMC 1e-5 16 0.1 42 1" and "CLUEWSC2020 5e-5 8 0 42 1" in lines
    counts = {cards: len(run_script(list_trials.main, "--cards", cards)[1].splitlines()) for cards in (4, 2, 1)}
    assert counts == {4: 12, 2: 6, 1: 116}
    # What the Slurm script tells its reader to type.
    told = re.findall(r"CARDS=(\d) .* --array=0-(\d+) .* (\d+) trials", (TOP / "scripts/grid_search.slurm").read_text())
    assert {int(cards): int(number) for cards, _, number in told} == counts
    assert all(int(last) == int(number) - 1 for _, last, number in told)


def test_the_grid_is_narrowed_and_widened(run_script):
    words = "--tasks c3 TNEWS --learning_rates 2e-5 1e-4 --batch_sizes 24 --dropouts 0 0.25 --seeds 7 8"
    status, out, _ = run_script(list_trials.main, *words.split())
    lines = out.splitlines()
    assert status == 0 and len(lines) == 16
    assert lines[0] == "C3 2e-5 24 0 7 4" and lines[-1] == "TNEWS 0.0001 24 0.25 8 1"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("--tasks WNLI", "unknown task 'WNLI'"),
        ("--tasks", "--tasks: expected at least one argument"),
        ("--learning_rate 1", "did you mean --learning_rates?"),
        ("--batch_sizes 0", "'0' is not an integer of at least 1"),
        ("--dropouts 1", "'1' is not a number from 0 to below 1"),
        ("--cards 3", "choose from 1, 2, 4"),
        ("--tasks TNEWS --cards 4", "none of TNEWS takes 4 cards"),
    ],
)
def test_mistakes_are_one_line(run_script, words, part):
    status, out, err = run_script(list_trials.main, *words.split())
    assert status == 2 and out == "" and err.count("\n") == 1 and part in err


# --- one trial ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "total", "cards", "given", "processes", "each"),
    [
        ("C3", "24", "4", "0,1,2,3", 4, "6"),
        ("C3", "32", "4", "4,5,6,7,8", 4, "8"),
        ("CMRC2018", "24", "2", "0,1", 2, "12"),
        ("CHID", "24", "4", "0,1,2", 3, "8"),
        ("CHID", "32", "4", "0,1,2", 2, "16"),
        ("CHID", "32", "4", "5", 1, "32"),
        ("C3", "24", "4", "", 1, "24"),
        ("TNEWS", "32", "1", "0,1,2,3", 1, "32"),
    ],
)
def test_the_batch_is_shared_out_over_the_cards(place, task, total, cards, given, processes, each):
    words = ["m", task, "1e-5", total, "0.1", "42", cards]
    status, out, err = place.run("run_trial.sh", *words, DRY_RUN="1", CUDA_VISIBLE_DEVICES=given)
    assert status == 0, err
    *notes, command = out.splitlines()
    assert value_of(command.split(), "--batch_size") == each
    assert ("paddle.distributed.launch" in command) == (processes > 1)
    assert value_of(command.split(), "--device") == ("gpu" if given else "cpu")
    is_less = bool(given) and processes < int(cards)
    assert len(notes) == is_less and all(f"{processes} of them with {each} records each" in note for note in notes)
    assert not (place.folder / "results").exists()


def test_a_trial_runs_once_in_its_own_folder(place):
    words = ["hub/m", "tnews", "3e-5", "32", "0", "7", "1", "--", "--data_dir", "the data", "--max_steps", "5"]
    status, out, err = place.run("run_trial.sh", *words, RESULTS_DIR="all results", DEVICE="cpu")
    assert status == 0 and out.startswith("TNEWS/3e-5_32_0_7: finished, accuracy 0.5000, "), err
    folder = place.folder / "all results/m/TNEWS/3e-5_32_0_7"
    (call,) = place.done()
    assert "finished" in (folder / "result.json").read_text() and (folder / "trial.log").is_file()
    assert value_of(call["words"], "--task_name") == "TNEWS" and value_of(call["words"], "--data_dir") == "the data"
    assert {"--do_train", "--do_eval"} <= set(call["words"])

    status, out, _ = place.run("run_trial.sh", *words, RESULTS_DIR="all results", DEVICE="cpu")
    assert status == 0 and out == "TNEWS/3e-5_32_0_7: finished already, accuracy 0.5000\n"
    # A short try must not pass for the real run.
    status, out, err = place.run("run_trial.sh", *words[:-2], RESULTS_DIR="all results", DEVICE="cpu")
    assert status == 2 and err.count("\n") == 1 and "finished run with --max_steps 5, not -1" in err
    status, _, err = place.run("run_trial.sh", "other/m", *words[1:], RESULTS_DIR="all results", DEVICE="cpu")
    assert status == 2 and "--model_name_or_path hub/m, not other/m" in err
    assert len(place.done()) == 1


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("m TNEWS 1e-5 32 0.1 42", "required: cards"),
        ("m TNEWS fast 32 0.1 42 1", "'fast' is not a number above 0"),
        ("m WNLI 1e-5 32 0.1 42 1", "unknown task 'WNLI'"),
        ("m TNEWS 1e-5 32 0.1 42 1 -- --seed 3", "--seed is set by the trial itself"),
        ("m TNEWS 1e-5 32 0.1 42 1 -- --max_steps x", "'x' is not a number of updates"),
    ],
)
def test_a_mistyped_trial_is_one_line(place, words, part):
    status, out, err = place.run("run_trial.sh", *words.split(), DEVICE="cpu")
    assert status == 2 and out == "" and err.count("\n") == 1 and part in err


@pytest.mark.parametrize("model", ["q\nnote[$(touch${IFS}pwned)]", "mo\n2\ndel", "a 'b' \"c\" $(touch pwned) * `d`"])
def test_a_name_of_any_characters_is_a_name(place, model):
    words = [model, "C3", "3e-5", "24", "0.1", "42", "2"]
    gpus = {"DEVICE": "gpu", "CUDA_VISIBLE_DEVICES": "0,1"}
    status, out, err = place.run("run_trial.sh", *words, DRY_RUN="1", **gpus)
    assert status == 0 and not list(place.folder.iterdir()), err
    said = subprocess.run(["bash", "-c", f"printf '%s\\0' {out}"], capture_output=True, text=True).stdout.split("\0")
    assert value_of(said, "--model_name_or_path") == model and value_of(said, "--batch_size") == "12"
    assert value_of(said, "--output_dir") == f"results/{model}/C3/3e-5_24_0.1_42"


def test_a_model_without_a_name_is_refused(place):
    words = ["/", "C3", "3e-5", "24", "0.1", "42", "2"]
    status, out, err = place.run("run_trial.sh", *words, DEVICE="cpu")
    assert (
        status == 2
        and out == ""
        and err == "error: '/' has no name for a folder of trials: give another model or folder\n"
    )


def test_where_memory_runs_out_the_batch_is_split_as_advised(place):
    words = ["m", "AFQMC", "1e-5", "16", "0.1", "42", "1"]
    status, out, err = place.run("run_trial.sh", *words, DEVICE="cpu", FAKE_PARTS="4")
    assert status == 0 and "finished" in out, err
    calls = [call["words"] for call in place.done()]
    assert "--gradient_accumulation_steps" not in calls[0]
    assert [value_of(call, "--gradient_accumulation_steps") for call in calls[1:]] == ["2", "4"]
    assert not any("--overwrite_output_dir" in call for call in calls)  # it goes on from its checkpoint

    # Killed before its end, it goes on with the parts it had.
    result = place.folder / "results/m/AFQMC/1e-5_16_0.1_42/result.json"
    result.write_text(result.read_text().replace("finished", "running"))
    assert place.run("run_trial.sh", *words, DEVICE="cpu", FAKE_PARTS="4")[0] == 0
    last = place.done()[-1]["words"]
    assert value_of(last, "--gradient_accumulation_steps") == "4"


def test_a_finished_trial_is_not_taken_for_one_of_other_settings(place):
    """Neither where a flag is given nor where one is left out."""
    words = ["m", "AFQMC", "1e-5", "16", "0.1", "42", "1"]
    assert place.run("run_trial.sh", *words, DEVICE="cpu")[0] == 0
    result = place.folder / "results/m/AFQMC/1e-5_16_0.1_42/result.json"
    fields = json.loads(result.read_text())
    fields["hyper_parameters"]["max_seq_length"] = 32
    result.write_text(json.dumps(fields))
    status, out, _ = place.run("run_trial.sh", *words, "--", "--max_seq_length", "32", DEVICE="cpu")
    assert status == 0 and "finished already" in out
    for more, length in (((), 128), (("--", "--max_seq_length", "64"), 64)):
        status, out, err = place.run("run_trial.sh", *words, *more, DEVICE="cpu")
        assert status == 2 and out == "" and f"a finished run with --max_seq_length 32, not {length}: " in err
    assert len(place.done()) == 1


@needs_parallel
def test_a_flag_that_no_trial_takes_is_said_once(place):
    status, out, err = place.run("grid_search.sh", "m", "--tasks", "AFQMC", "--cpu_slots", "2", "--", "--device", "cpu")
    assert status == 2 and err == "error: --device is set by the trial itself: leave it out after --\n" and out == ""


def test_a_failed_trial_shows_its_last_line(place):
    words = ["m", "AFQMC", "1e-5", "16", "0.1", "42", "1"]
    status, out, _ = place.run("run_trial.sh", *words, DEVICE="cpu", FAKE_FAILURE="AFQMC")
    assert status == 1 and len(place.done()) == 1
    log = "results/m/AFQMC/1e-5_16_0.1_42/trial.log"
    assert out == f"AFQMC/1e-5_16_0.1_42: failed with status 1: error: AFQMC cannot be done (log: {log})\n"


# --- all trials --------------------------------------------------------------------------------------------------

NARROW = "--learning_rates 1e-5 2e-5 --batch_sizes 24 --dropouts 0.1".split()


@needs_parallel
def test_a_failing_trial_is_reported_and_the_others_run(place):
    words = ["hub/m", "--cpu_slots", "2", "--tasks", "C3", "TNEWS", *NARROW, "--results", "all results"]
    words += ["--", "--data_dir", "the  data's {1} {} {place}"]
    status, out, err = place.run("grid_search.sh", *words, FAKE_FAILURE="TNEWS/2e-5")
    assert status == 1 and "3 finished, 1 failed" in out and err == ""
    assert re.search(r"^\[4/4\] ", out, re.MULTILINE) and "left\n" in out
    folder = place.folder / "all results/m"
    end = "  on the way\n  error: TNEWS/2e-5 cannot be done\n"
    assert f"failed: {folder.relative_to(place.folder)}/TNEWS/2e-5_24_0.1_42" in out and end in out
    assert len((folder / "joblog").read_text().splitlines()) == 5
    calls = place.done()
    assert len(calls) == 4 and all(value_of(call["words"], "--data_dir") == words[-1] for call in calls)
    assert all(call["threads"] == str(max(1, len(os.sched_getaffinity(0)) // 2)) for call in calls)
    # Again: what is finished is left alone.
    status, out, _ = place.run("grid_search.sh", *words)
    assert status == 0 and "4 finished, 0 failed" in out and len(place.done()) == 5


@needs_parallel
def test_retries_run_a_failing_trial_again(place):
    words = "m --cpu_slots 1 --retries 2 --tasks TNEWS --learning_rates 1e-5 --batch_sizes 16".split()
    status, out, _ = place.run("grid_search.sh", *words, FAKE_FAILURE="TNEWS")
    assert status == 1 and out.count("[1/1]") == 1 and len(place.done()) == 3


@needs_parallel
def test_gpus_are_given_in_groups_and_never_to_two_trials(place):
    words = ["m", "--gpus", "0,1,2,3,6", "--tasks", "TNEWS", "CMRC2018", "C3", *NARROW]
    # That the two of CMRC2018 end at all shows that pairs of cards are in use side by side.
    status, out, err = place.run("grid_search.sh", *words, FAKE_SECONDS="0.3", FAKE_MEETING="CMRC2018")
    assert status == 0, out + err
    calls = place.done()
    sizes = [len(call["cards"].split(",")) for call in calls]
    assert sizes == [4, 4, 2, 2, 1, 1]
    for i, one in enumerate(calls):
        for other in calls[:i]:
            if one["begin"] < other["end"]:
                assert not set(one["cards"].split(",")) & set(other["cards"].split(","))


@needs_parallel
@pytest.mark.parametrize(
    ("shown", "environment", "where"),
    [
        ("echo 0; echo 1", {}, "GPUs 0,1"),
        ("echo 0; echo 1", {"CUDA_VISIBLE_DEVICES": "3"}, "GPUs 3"),
        ("echo 0; echo 1", {"CUDA_VISIBLE_DEVICES": "-1"}, "2 at a time on the CPU"),
        ("echo 0; echo 1", {"DEVICE": "cpu"}, "2 at a time on the CPU"),
        ("echo No devices were found; exit 6", {}, "2 at a time on the CPU"),
    ],
)
def test_the_gpus_of_the_machine_are_found(place, tmp_path, shown, environment, where):
    tool = tmp_path / "tools/nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\n{shown}\n")
    tool.chmod(0o755)
    path = f"{tool.parent}:{os.environ['PATH']}"
    words = "m --tasks TNEWS --learning_rates 1e-5 --batch_sizes 16".split()
    status, out, err = place.run("grid_search.sh", *words, PATH=path, **environment)
    assert status == 0 and out.startswith(f"trials of m: 1, {where}; "), out + err


@needs_parallel
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_ends_every_process(place, number):
    words = ["m", "--cpu_slots", "2", "--tasks", "TNEWS", *NARROW]
    process = place.start("grid_search.sh", *words, FAKE_SECONDS="3600")
    while len(place.done()) < 2:
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(number)
    out, _ = process.communicate()
    assert process.returncode == 128 + number and "interrupted: the same command goes on" in out
    assert "0 finished, 0 failed, 2 not ended" in out
    calls = place.done()
    assert len(calls) == 2
    for call in calls:
        with pytest.raises(ProcessLookupError):
            os.kill(call["pid"], 0)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("", "no model given"),
        ("--tasks TNEWS", "no model before --tasks"),
        ("m --gpus", "--gpus needs a value"),
        ("m --gpus 0;1", "write ids such as 0,1,2,3"),
        ("m --gpus 0 --cpu_slots 2", "not both"),
        ("m --cpu_slots none", "--cpu_slots none is not an integer"),
        ("m --retries=-1", "--retries -1 is not an integer"),
        ("m --hosts nowhere", "no such file"),
        ("m --hosts /dev/null", "what each of them has"),
        ("m --task TNEWS", "did you mean --tasks?"),
    ],
)
def test_a_mistyped_search_is_one_line(place, words, part):
    status, out, err = place.run("grid_search.sh", *words.split())
    assert status == 2 and out == "" and err.count("\n") == 1 and part in err


def test_a_pruned_search_takes_the_trials_of_a_task_in_a_random_order(place):
    words = ("grid_search.sh", "m", "--tasks", "C3", "TNEWS", "--dry_run")
    grid, pruned, again = (place.run(*words, *more)[1].splitlines() for more in ((), ("--prune",), ("--prune",)))
    assert pruned == again != grid and sorted(pruned) == sorted(grid)
    assert [line.split()[0] for line in pruned] == [line.split()[0] for line in grid]


def test_a_dry_run_lists_the_trials(place):
    status, out, _ = place.run("grid_search.sh", "m", "--dry_run", "--tasks", "C3", *NARROW)
    assert status == 0 and out.splitlines() == ["C3 1e-5 24 0.1 42 4", "C3 2e-5 24 0.1 42 4"]
    assert not (place.folder / "results").exists()


def test_without_gnu_parallel_its_package_is_named(place, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "sh", "dirname"):
        (tools / name).symlink_to(shutil.which(name) or name)
    status, out, err = place.run("grid_search.sh", "m", PATH=str(tools))
    assert status == 2 and out == "" and err.count("\n") == 1 and "apt-get install parallel" in err


def test_a_job_of_a_slurm_array_runs_its_trial(place):
    slurm = {"SLURM_SUBMIT_DIR": str(TOP), "RESULTS_DIR": str(place.folder / "all results"), "MODEL": "m"}
    words = ["--tasks", "C3", "TNEWS", *NARROW, "--", "--data_dir", "the data"]
    status, out, err = place.run(
        "grid_search.slurm", *words, **slurm, SLURM_ARRAY_TASK_ID="1", CARDS="4", CUDA_VISIBLE_DEVICES="0,1,2,3"
    )
    assert status == 0 and out.startswith("C3/2e-5_24_0.1_42: finished"), err
    (call,) = place.done()
    assert value_of(call["words"], "--batch_size") == "6" and value_of(call["words"], "--data_dir") == "the data"
    status, out, _ = place.run("grid_search.slurm", *words, **slurm, SLURM_ARRAY_TASK_ID="2", CARDS="4")
    assert status == 0 and out == "no trial 2 among 2\n"
    status, _, err = place.run("grid_search.slurm", **(slurm | {"SLURM_SUBMIT_DIR": str(place.folder)}))
    assert status == 2 and "from the project's top folder" in err
