"""The grid search: its list of trials, one trial, and the engines that run them all. Training is stood in for."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from unittest import mock

import pytest
from test_outcomes import put

import grid_search
import list_trials
import quickstart
import run_trial
import slurm_job
from clue_utils import environment, errors
from clue_utils.errors import UserError
from clue_utils.files import locked_folder
from clue_utils.grid import outcomes, schedule, trial
from clue_utils.grid.search_space import Trial
from clue_utils.tasks import TASKS

TOP = Path(__file__).parents[2]
needs_parallel = pytest.mark.skipif(shutil.which("parallel") is None, reason="needs GNU parallel")
# Stands for the scripts of the tasks: notes its words, then does what FAKE_* in the environment say.
SCRIPT = r"""
import json, os, signal, sys, time
from datetime import datetime, timezone
from pathlib import Path

words = sys.argv[1:]
value = dict(zip(words, words[1:]))
accumulation = "gradient_accumulation_steps"
micro_batches = int(value.get("--" + accumulation, 1))
call = {"words": words, "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"), "pid": os.getpid(), "begin": time.time()}
call["threads"], call["order"] = os.environ.get("OMP_NUM_THREADS"), os.environ.get("CUDA_DEVICE_ORDER")
note = Path(os.environ["FAKE_CALLS"], f"{time.time_ns()}-{os.getpid()}")
def save(*_):
    time.sleep(1)
    (note.parent.parent / "saved").touch()
    os._exit(143)
if "FAKE_SAVES" in os.environ:
    signal.signal(signal.SIGTERM, save)
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
folder.mkdir(parents=True, exist_ok=True)
result = {"status": "running", "metric": "accuracy", "best_metric": 0.5, "model": value["--model_name_or_path"]}
result["max_steps"] = int(value.get("--max_steps", -1))
numbers = {name: float(value.get("--" + name, 0)) for name in ("learning_rate", "batch_size", "dropout", "seed")}
result |= {"task": folder.parent.name, "device": value.get("--device"), "hyper_parameters": numbers}
numbers[accumulation] = micro_batches
if folder.parent.name == "AFQMC":
    numbers["max_seq_length"] = int(value.get("--max_seq_length", 128))
result |= {"wall_time": 1800.0, "num_processes": 2}
def fail(reason, **advice):
    failed = {"status": "failed", "reason": reason, "exit_status": 2, "advice": advice}
    (folder / "result.json").write_text(json.dumps(result | failed))
    sys.exit("error: " + reason)
for name in ("workerlog.0", "workerlog.1", "default.env") if "--log_dir" in value else ():
    Path(value["--log_dir"], name).write_text(name + " speaks\n")
if micro_batches < int(os.environ.get("FAKE_MICRO_BATCHES", 1)):
    fail("out of memory", **{accumulation: micro_batches * 2})
if os.environ.get("FAKE_FAILURE", "nowhere") in str(folder):
    print("on the way", flush=True)
    fail(os.environ["FAKE_FAILURE"] + " cannot be done")
if "FAKE_REFUSAL" in os.environ:
    sys.exit("error: " + os.environ["FAKE_REFUSAL"])
if "FAKE_SIGNAL" in os.environ:
    os.kill(os.getpid(), int(os.environ["FAKE_SIGNAL"]))
(folder / "result.json").write_text(json.dumps(result | {"status": "finished"}))
call["end"] = time.time()
write_note()
"""
# Stands for the launcher of two processes: all three note the signals they get.
LAUNCHER = r"""
import os, signal, sys, time
from pathlib import Path

notes = Path(os.environ["FAKE_CALLS"]).parent
rank = None
def on_signal(number, _):
    with open(notes / "signals", "a") as file:
        print("launcher" if rank is None else rank, file=file)
    if rank is None or "FAKE_HANG" not in os.environ:
        for pid in ranks if rank is None else ():
            os.kill(pid, signal.SIGKILL)
        os._exit(143)
ranks = []
signal.signal(signal.SIGTERM, on_signal)
for number in range(2):
    if (pid := os.fork()) == 0:
        os.setsid()
        rank = number
        (notes / f"rank-{number}").touch()
        while True:
            signal.pause()
    ranks.append(pid)
for pid in ranks:
    os.waitpid(pid, 0)
sys.exit(143)
"""
# Stands for ssh and the server of the other side, which ends with the client, and not what it has started.
SSH = """\
#!/bin/sh
shift
[ "$1" != -- ] || shift
export WORDS="$*" CLIENT=$$
setsid sh -c 'sh -c "$WORDS" & while kill -0 $CLIENT && kill -0 $!; do sleep 0.1; done 2>/dev/null' &
wait
"""
# Stands for the interpreter.
PYTHON = """\
#!/bin/sh
case "$*" in
*/scripts/use_gpu.py)
  echo "$CUDA_VISIBLE_DEVICES" >>"$FAKE_CALLS/../asked"
  [ -z "$FAKE_REASON" ] || {{ echo "error: --device gpu: $FAKE_REASON, or pass --device cpu" >&2; exit 2; }}
  ;;
*paddle.distributed.launch*) exec "{python}" -IS "{fakes}/${{FAKE_LAUNCHER:-script}}.py" "$@" ;;
*/make_demo.py*) ;;
*/classification/*|*/mrc/*) exec "{python}" -IS "{fakes}/script.py" "$@" ;;
*) exec "{python}" "$@" ;;
esac
"""


class Place:
    """A folder with a blank in its name, and what the scripts find in their environment."""

    def __init__(self, folder: Path, run_script) -> None:
        self.folder = folder / "a place"
        self.calls = folder / "calls"
        self.calls.mkdir()
        self.folder.mkdir()
        (folder / "script.py").write_text(SCRIPT)
        (folder / "launcher.py").write_text(LAUNCHER)
        python = folder / "python"
        python.write_text(PYTHON.format(python=sys.executable, fakes=folder))
        python.chmod(0o755)
        # Without SHELL, as a scheduler may start it, parallel would run nothing on another host and end with 0.
        unset = re.compile("CUDA|OMP|SLURM|PARALLEL|SHELL$")
        kept = {name: value for name, value in os.environ.items() if not unset.match(name)}
        self.environment = kept | {"PYTHON": str(python), "FAKE_CALLS": str(self.calls)}
        self.environment["XDG_RUNTIME_DIR"] = str(folder)  # where the locks of GPUs are
        self._run_script = run_script

    def start(self, script: str, *words: str, stderr: int = subprocess.PIPE, **environment: str) -> subprocess.Popen:
        """Start one of the shell scripts."""
        command = ["bash", str(TOP / "scripts" / script), *words]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            # Where nohup runs the tests it would be ignored.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
            start_new_session=True,
        )

    def run(self, script: str, *words: str, **environment: str) -> tuple[int, str, str]:
        """Run one of the shell scripts."""
        process = self.start(script, *words, **environment)
        out, err = process.communicate()
        return process.returncode, out, err

    def call(self, script, *words: str, **environment: str) -> tuple[int, str, str]:
        """Run the ``main`` of a script in this process."""
        variables = mock.patch.dict(os.environ, self.environment | environment, clear=True)
        with pytest.MonkeyPatch.context() as patch, variables:  # what the script sets is undone too
            patch.chdir(self.folder)
            return self._run_script(script.main, *words)

    def lines(self, name: str) -> list[str]:
        """What the stubs have noted in a file."""
        path = self.calls.parent / name
        return path.read_text().splitlines() if path.exists() else []

    def put_nvidia_smi(self, text: str) -> dict[str, str]:
        """Have a program of that name list these GPUs; return the environment in which it is found."""
        tool = self.calls.parent / "tools/nvidia-smi"
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f"#!/bin/sh\n[ $1 = -L ] || exit 6\ncat <<'END'\n{text}END\n")
        tool.chmod(0o755)
        return {"PATH": f"{tool.parent}:{os.environ['PATH']}"}

    def done(self) -> list[dict]:
        """The calls of the tasks' scripts, in their order."""
        return [json.loads(path.read_text()) for path in sorted(self.calls.iterdir())]

    def wait_for_calls(self, number: int, process: subprocess.Popen) -> list[dict]:
        while len(self.done()) < number:
            assert process.poll() is None
            time.sleep(0.05)
        return self.done()


@pytest.fixture
def place(tmp_path, run_script) -> Place:
    return Place(tmp_path, run_script)


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
    assert {int(gpus): int(number) for gpus, _, number in told} == counts
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
        ("--tasks TNEWS --cards 4", "none of TNEWS takes 4 GPUs"),
        (
            "some/model --published",
            "no scores of some/model are published, only of hfl/roberta-wwm-ext-large, ernie-3.0",
        ),
        ("--published", "name the model"),
        ("rbt6 --published --dropouts 0", "--published or --dropouts, not both"),
        ("rbt6 --published --learning_rates 1e-5", "--published or --learning_rates, not both"),
    ],
)
def test_mistakes_are_one_line(run_script, words, part):
    status, out, err = run_script(list_trials.main, *words.split())
    assert status == 2 and out == "" and err.count("\n") == 1 and part in err


# Words, what the list is to hold; a copy in a folder is known by the last part of its path.
@pytest.mark.parametrize(
    ("words", "number", "first"),
    [
        ("hfl/rbt6 --published", 10, "AFQMC 3e-5 16 0.1 42 1"),
        ("/models/ernie-3.0-base-zh --published --tasks CLUEWSC2020 C3", 2, "CLUEWSC2020 2e-5 16 0 42 1"),
        ("bert-base-chinese --published --tasks CHID --seeds 1 2 3", 3, "CHID 2e-5 32 0.1 1 4"),
        ("rbt6 --published --cards 4", 2, "CHID 3e-5 24 0.1 42 4"),
    ],
)
def test_the_published_settings_of_a_model_are_listed(run_script, words, number, first):
    status, out, _ = run_script(list_trials.main, *words.split())
    assert status == 0 and len(out.splitlines()) == number and out.splitlines()[0] == first


# --- one trial ---------------------------------------------------------------------------------------------------

AFQMC = "m AFQMC 1e-5 16 0.1 42 1".split()


@pytest.mark.parametrize(
    ("task", "total", "num_gpus", "given", "processes", "each"),
    [
        ("C3", 24, 4, "0123", 4, 6),
        ("C3", 32, 4, "45678", 4, 8),
        ("CMRC2018", 24, 2, "01", 2, 12),
        ("CHID", 24, 4, "012", 3, 8),
        ("CHID", 32, 4, "012", 2, 16),
        ("CHID", 32, 4, "5", 1, 32),
        ("C3", 24, 4, "", 1, 24),
        ("TNEWS", 32, 1, "0123", 1, 32),
    ],
)
def test_the_batch_is_shared_out_over_the_gpus(task, total, num_gpus, given, processes, each):
    plan = trial.make_plan("m", Trial(task, 1e-5, total, 0.1, 42, num_gpus), [], tuple(given))
    words = trial.command(plan)
    assert plan.gpus == tuple(given[:processes])
    assert value_of(words, "--batch_size") == str(each)
    assert ("paddle.distributed.launch" in words) == (processes > 1)
    assert value_of(words, "--device") == ("gpu" if given else "cpu")
    is_less = bool(given) and processes < num_gpus
    assert (f"{processes} of them with {each} examples each, {total} in all" in plan.note) == is_less


def test_the_numbers_of_a_trial_reach_the_script_as_they_are():
    words = trial.command(trial.make_plan("m", Trial("AFQMC", 2e-5, 16, 0.3, 7, 1), ["--max_steps", "5"], ()), 4)
    assert [float(value_of(words, f"--{name}")) for name in ("learning_rate", "dropout", "seed")] == [2e-5, 0.3, 7]
    assert words[-4:] == ["--max_steps", "5", "--gradient_accumulation_steps", "4"]


TWO = """\
GPU 0: Tesla V100-SXM2-16GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
GPU 1: Tesla V100-SXM2-16GB (UUID: GPU-6e5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
"""
DIVIDED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 3g.20gb     Device  0: (UUID: MIG-c7384736-a75d-5afc-978f-d2f1294409fd)
  MIG 3g.20gb     Device  1: (UUID: MIG-GPU-5d5ba0d6/2/0)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-6e5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
"""
PARTS = ("MIG-c7384736-a75d-5afc-978f-d2f1294409fd", "MIG-GPU-5d5ba0d6/2/0")


@pytest.mark.parametrize(
    ("shown", "environment", "gpus"),
    [
        (TWO, {}, ("0", "1")),
        (DIVIDED, {}, (*PARTS, "1")),
        ("", {}, ()),
        ("No devices were found\n", {}, ()),
        ("[N/A]\n", {}, ()),
        (TWO, {"CUDA_VISIBLE_DEVICES": "3,GPU-8"}, ("3", "GPU-8")),
        (TWO, {"CUDA_VISIBLE_DEVICES": "-1"}, ()),
        (TWO, {"CUDA_VISIBLE_DEVICES": ""}, ()),
        (TWO, {"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, ()),
        (TWO, {"DEVICE": "cpu"}, ()),
        ("", {"DEVICE": "gpu"}, "no GPU is visible"),
        ("", {"DEVICE": "tpu"}, "DEVICE=tpu: choose gpu or cpu"),
        ("", {"DEVICE": "xpu"}, "DEVICE=xpu: a grid search knows GPUs and the CPU only"),
    ],
)
def test_the_gpus_of_the_machine_are_found(place, shown, environment, gpus):
    with mock.patch.dict(os.environ, place.environment | place.put_nvidia_smi(shown) | environment, clear=True):
        if isinstance(gpus, str):
            with pytest.raises(UserError, match=gpus):
                trial.visible_gpus()
            return
        assert trial.visible_gpus() == gpus
        # Numbers that nvidia-smi has given mean what it means by them; the user's own are left as they are.
        asked = not environment and bool(gpus)
        assert os.environ.get("CUDA_DEVICE_ORDER") == ("PCI_BUS_ID" if asked else None)


def test_a_part_of_a_gpu_runs_a_trial_by_itself():
    plan = trial.make_plan("m", Trial("C3", 1e-5, 24, 0.1, 42, 4), [], PARTS)
    assert plan.gpus == PARTS[:1] and "4 GPUs wanted, 2 given: 1 of them with 24 examples each" in plan.note
    assert schedule.Search("m", [plan.trial], [], PARTS).groups(4) == [[part] for part in PARTS]


def test_a_trial_runs_once_in_its_own_folder(place):
    words = ["hub/m", "tnews", "3e-5", "32", "0", "7", "1", "--", "--data_dir", "the data", "--max_steps", "5"]
    status, out, err = place.run("run_trial.sh", *words, RESULTS_DIR="all results", DEVICE="cpu")
    assert status == 0 and out.startswith("TNEWS/3e-5_32_0_7: finished, accuracy 50.00 %, "), err
    folder = place.folder / "all results/m/TNEWS/3e-5_32_0_7"
    (call,) = place.done()
    assert "finished" in (folder / "result.json").read_text() and (folder / "trial.log").is_file()
    assert value_of(call["words"], "--task_name") == "TNEWS" and value_of(call["words"], "--data_dir") == "the data"
    assert {"--do_train", "--do_eval"} <= set(call["words"])

    status, out, _ = place.call(run_trial, *words, RESULTS_DIR="all results", DEVICE="cpu")
    assert status == 0 and out == "TNEWS/3e-5_32_0_7: finished already, accuracy 50.00 %\n"
    assert len(place.done()) == 1


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("m TNEWS 1e-5 32 0.1 42", "required: cards"),
        ("m TNEWS fast 32 0.1 42 1", "'fast' is not a number above 0"),
        ("m WNLI 1e-5 32 0.1 42 1", "unknown task 'WNLI'"),
        ("m TNEWS 1e-5 32 0.1 42 1 -- --seed 3", "--seed is set by the trial itself"),
        ("m TNEWS 1e-5 32 0.1 42 1 -- --max_steps x", "'x' is not a number of steps"),
        ("/ C3 3e-5 24 0.1 42 2", "error: '/' has no name for a folder of trials: give another model or folder\n"),
    ],
)
def test_a_mistyped_trial_is_one_line(place, words, part):
    status, out, err = place.call(run_trial, *words.split(), DEVICE="cpu")
    assert status == 2 and out == "" and err.count("\n") == 1 and part in err


@pytest.mark.parametrize("model", ["q\nnote[$(touch${IFS}pwned)]", "a 'b' \"c\" $(touch pwned) * `d`"])
def test_a_dry_run_shows_a_command_to_paste(place, model):
    words = [model, "C3", "3e-5", "24", "0.1", "42", "4"]
    gpus = {"DEVICE": "gpu", "CUDA_VISIBLE_DEVICES": "0,1"}
    status, out, err = place.call(run_trial, *words, DRY_RUN="1", **gpus)
    assert status == 0 and not list(place.folder.iterdir()), err
    note, _, command = out.partition("\n")
    assert note.endswith("4 GPUs wanted, 2 given: 2 of them with 12 examples each, 24 in all")
    said = shlex.split(command)
    assert value_of(said, "--model_name_or_path") == model
    assert value_of(said, "--output_dir") == f"results/{model}/C3/3e-5_24_0.1_42"


@needs_parallel
def test_a_dry_run_of_a_search_shows_the_commands(place):
    words = "m --gpus 0,1 --tasks TNEWS C3 --learning_rates 1e-5 --batch_sizes 16".split()
    status, out, err = place.call(grid_search, *words, DRY_RUN="1")
    first, note, second = out.splitlines()
    assert status == 0 and not list(place.folder.iterdir()), err
    assert "--task_name TNEWS" in first and "4 GPUs wanted, 2 given" in note and "run_c3.py" in second


def test_where_memory_runs_out_the_batch_is_split_as_advised(place):
    status, out, err = place.call(run_trial, *AFQMC, DEVICE="cpu", FAKE_MICRO_BATCHES="4")
    assert status == 0 and "finished" in out, err
    calls = [call["words"] for call in place.done()]
    assert "--gradient_accumulation_steps" not in calls[0]
    assert [value_of(call, "--gradient_accumulation_steps") for call in calls[1:]] == ["2", "4"]
    assert not any("--overwrite_output_dir" in call for call in calls)  # it goes on from its checkpoint

    # Killed before its end, it goes on with the micro-batches it had.
    result = place.folder / "results/m/AFQMC/1e-5_16_0.1_42/result.json"
    result.write_text(result.read_text().replace("finished", "running"))
    assert place.call(run_trial, *AFQMC, DEVICE="cpu", FAKE_MICRO_BATCHES="4")[0] == 0
    last = place.done()[-1]["words"]
    assert value_of(last, "--gradient_accumulation_steps") == "4"


def test_a_trial_begins_with_the_micro_batches_that_one_beside_it_needed(place):
    def micro_batches(*words, **environment) -> list[str]:
        before = len(place.done())
        assert place.call(run_trial, *words, **({"DEVICE": "cpu", "FAKE_MICRO_BATCHES": "4"} | environment))[0] == 0
        calls = [call["words"] for call in place.done()[before:]]
        flag = "--gradient_accumulation_steps"
        return [value_of(call, flag) if flag in call else "1" for call in calls]

    assert micro_batches(*AFQMC) == ["1", "2", "4"]
    assert micro_batches("m", "AFQMC", "2e-5", "16", "0.1", "42", "1") == ["4"]
    # Not where less is held in memory, or on another kind of device.
    less = {"FAKE_MICRO_BATCHES": "1"}
    assert micro_batches("m", "AFQMC", "2e-5", "8", "0.1", "42", "1", **less) == ["1"]
    assert micro_batches("m", "AFQMC", "3e-5", "16", "0.1", "42", "1", "--", "--max_seq_length", "32", **less) == ["1"]
    gpu = {"DEVICE": "gpu", "CUDA_VISIBLE_DEVICES": "0"}
    assert micro_batches("m", "AFQMC", "5e-5", "16", "0.1", "42", "1", **gpu, **less) == ["1"]
    assert micro_batches("m", "TNEWS", "3e-5", "16", "0.1", "42", "1", **less) == ["1"]


def test_advice_that_was_followed_already_is_not_tried_again(place):
    words = [*AFQMC, "--", "--gradient_accumulation_steps", "2"]
    status, out, _ = place.call(run_trial, *words, DEVICE="cpu", FAKE_FAILURE="AFQMC")
    assert status == 1 and len(place.done()) == 1
    result = place.folder / "results/m/AFQMC/1e-5_16_0.1_42/result.json"
    fields = json.loads(result.read_text())
    assert trial._num_micro_batches(trial.make_plan("m", Trial("AFQMC", 1e-5, 16, 0.1, 42, 1), words[-2:], ())) == 2
    result.write_text(json.dumps(fields | {"advice": {"gradient_accumulation_steps": 8}}))
    assert place.call(run_trial, *words, DEVICE="cpu")[0] == 0
    assert value_of(place.done()[-1]["words"][-2:], "--gradient_accumulation_steps") == "8"


def test_a_finished_trial_is_not_taken_for_one_of_other_settings(place):
    """Neither where a flag is given nor where one is left out."""
    assert place.call(run_trial, *AFQMC, DEVICE="cpu")[0] == 0
    result = place.folder / "results/m/AFQMC/1e-5_16_0.1_42/result.json"
    fields = json.loads(result.read_text())
    fields["hyper_parameters"]["max_seq_length"] = 32
    result.write_text(json.dumps(fields))
    status, out, _ = place.call(run_trial, *AFQMC, "--", "--max_seq_length", "32", DEVICE="cpu")
    assert status == 0 and "finished already" in out
    length = ["--", "--max_seq_length", "32"]
    for words, difference in (
        (AFQMC, "--max_seq_length 32, not 128"),
        ([*AFQMC, "--", "--max_seq_length", "64"], "--max_seq_length 32, not 64"),
        ([*AFQMC, *length, "--max_steps", "5"], "--max_steps -1, not 5"),
        (["other/m", *AFQMC[1:], *length], "--model_name_or_path m, not other/m"),
    ):
        status, out, err = place.call(run_trial, *words, DEVICE="cpu")
        assert status == 2 and out == "" and err.count("\n") == 1 and f"a finished run with {difference}: " in err
    assert len(place.done()) == 1


def test_a_failed_trial_says_why(place):
    log = "results/m/AFQMC/1e-5_16_0.1_42/trial.log"
    status, out, _ = place.call(run_trial, *AFQMC, DEVICE="cpu", FAKE_FAILURE="AFQMC")
    assert status == 1 and len(place.done()) == 1
    assert out == f"AFQMC/1e-5_16_0.1_42: failed with status 1: AFQMC cannot be done (log: {log})\n"
    # Whose script could not say it: what an earlier run has said is no longer true.
    status, out, _ = place.call(run_trial, *AFQMC, DEVICE="cpu", FAKE_SIGNAL="9")
    assert (status, out) == (137, f"AFQMC/1e-5_16_0.1_42: failed with status 137: killed by SIGKILL (log: {log})\n")
    fields = json.loads((place.folder / log).with_name("result.json").read_text())
    assert [fields[name] for name in ("status", "exit_status", "advice")] == ["failed", 137, {}]
    assert fields["hyper_parameters"]["learning_rate"] == 1e-5
    # Nor could it where it does not take a flag; then the end of the log does.
    status, out, _ = place.call(run_trial, *AFQMC, DEVICE="cpu", FAKE_REFUSAL="unknown argument '--x'")
    assert status == 1 and out.endswith(f"failed with status 1: unknown argument '--x' (log: {log})\n")
    # The same where there was no record.
    assert place.call(run_trial, *AFQMC[:-2], "43", "1", DEVICE="cpu", FAKE_SIGNAL="9")[0] == 137
    (_, killed), damages = outcomes.read_trials(place.folder / "results/m/AFQMC", TASKS["AFQMC"])
    assert killed.trial == Trial("AFQMC", 1e-5, 16, 0.1, 43, 1) and killed.reason == "killed by SIGKILL"


def test_a_trial_leaves_the_record_of_another_run_alone(place):
    folder = place.folder / "results/m/AFQMC/1e-5_16_0.1_42"
    folder.mkdir(parents=True)
    now = datetime.now(timezone.utc).isoformat()
    text = json.dumps({"status": "running", "last_seen": now, "progress": {"step": 1, "num_steps": 9}})
    (folder / "result.json").write_text(text)
    with locked_folder(folder):
        status, out, _ = place.call(run_trial, *AFQMC, DEVICE="cpu", FAKE_SIGNAL="9")
    assert status == 137 and "another run is writing there: step 1 of 9, seen " in out
    assert (folder / "result.json").read_text() == text


def test_what_stopped_another_process_of_a_trial_stands_in_its_log(place):
    words = "m C3 1e-5 24 0.1 42 4".split()
    assert place.call(run_trial, *words, CUDA_VISIBLE_DEVICES="0,1", FAKE_FAILURE="C3")[0] == 1
    folder = place.folder / "results/m/C3/1e-5_24_0.1_42"
    note, *_, own, other = (folder / "trial.log").read_text().splitlines()
    assert re.fullmatch("== .*, GPUs 0,1; 4 GPUs wanted, 2 given: 2 of them with 12 examples each, 24 in all", note)
    assert (own, other) == ("error: C3 cannot be done", "workerlog.1 speaks")
    # The launcher writes its environment down there.
    assert (folder / "launch").stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in (folder / "launch").iterdir()) == ["workerlog.0", "workerlog.1"]


def test_a_trial_that_another_process_runs_is_waited_for(place):
    folder = place.folder / "results/m/AFQMC/1e-5_16_0.1_42"
    assert place.call(run_trial, *AFQMC, DEVICE="cpu")[0] == 0
    finished = (folder / "result.json").read_text()
    (folder / "result.json").unlink()
    terminal, screen = os.openpty()
    with open(folder / "trial.log", "a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        process = place.start("run_trial.sh", *AFQMC, stderr=screen, DEVICE="cpu")
        said = b""
        while b"waiting for another process that runs it" not in said:
            said += os.read(terminal, 1000)
        (folder / "result.json").write_text(finished)
    out, _ = process.communicate()
    assert out == "AFQMC/1e-5_16_0.1_42: finished already, accuracy 50.00 %\n" and len(place.done()) == 1
    os.close(terminal)
    os.close(screen)


def test_a_training_that_outlives_its_grid_keeps_its_trial_and_its_gpus(place):
    process = place.start("run_trial.sh", "--gpu_groups", "3:4", *AFQMC, FAKE_SECONDS="3600")
    (call,) = place.wait_for_calls(1, process)
    process.kill()
    process.communicate()
    (gpu,) = place.calls.parent.glob("gpu-locks-*/3")
    paths = (gpu, place.folder / "results/m/AFQMC/1e-5_16_0.1_42/trial.log")
    for path in paths:
        with open(path, "a") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    status, out, err = place.run("run_trial.sh", "--gpu_groups", "3:4", *AFQMC[:-2], "43", "1")
    assert status == 0 and place.done()[-1]["gpus"] == "4", err
    os.kill(call["pid"], signal.SIGKILL)
    for path in paths:
        with open(path, "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)


# --- all trials --------------------------------------------------------------------------------------------------

C3_ON_TWO = "m C3 1e-5 24 0.1 42 4".split()


def test_the_processes_of_a_launcher_are_told_to_stop_and_it_is_not(place):
    """It would kill them after half a minute, whatever the first of them still has to save."""
    process = place.start("run_trial.sh", *C3_ON_TWO, CUDA_VISIBLE_DEVICES="0,1", FAKE_LAUNCHER="launcher")
    ranks = [place.calls.parent / f"rank-{number}" for number in range(2)]
    while not all(path.exists() for path in ranks):
        assert process.poll() is None
        time.sleep(0.05)
    # As a terminal and GNU parallel do: to the whole group.
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate()
    assert process.returncode == 143 and sorted(place.lines("signals")) == ["0", "1"]


def test_a_launcher_whose_processes_do_not_stop_is_told_in_the_end(place, monkeypatch):
    monkeypatch.setattr(trial, "SECONDS_TO_END", 1)
    previous = signal.getsignal(signal.SIGALRM)

    def stop() -> None:
        while not (place.calls.parent / "rank-1").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    hanging = {"FAKE_LAUNCHER": "launcher", "FAKE_HANG": "1"}
    status, _, _ = place.call(run_trial, *C3_ON_TWO, CUDA_VISIBLE_DEVICES="0,1", **hanging)
    assert status == 143 and sorted(place.lines("signals")) == ["0", "1", "launcher"]
    signal.signal(signal.SIGALRM, previous)


def test_who_stops_a_training_waits_longer_than_what_it_stops():
    """From the outside in: GNU parallel, a trial, Paddle's launcher; and Slurm."""
    (launcher,) = importlib.util.find_spec("paddle").submodule_search_locations
    controller = (Path(launcher) / "distributed/launch/controllers/controller.py").read_text()
    (by_launcher,) = map(int, re.findall(r"self\.master\.stop\(\)\n +self\.pod\.stop\(timeout=(\d+)\)", controller))
    words = schedule.Search("m", [], []).parallel(1)
    first, milliseconds, last, _ = value_of(words, "--termseq").split(",")
    assert (first, last) == ("TERM", "KILL")
    assert int(milliseconds) / 1000 > errors.SECONDS_TO_END + by_launcher
    slurm = (TOP / "scripts/grid_search.slurm").read_text()
    (by_slurm,) = map(int, re.findall(r"^#SBATCH --signal=B:TERM@(\d+)$", slurm, re.MULTILINE))
    assert by_slurm > by_launcher
    # What Slurm signals is the shell: it has become the program.
    assert slurm.splitlines()[-1].startswith("exec ")


def test_gpus_that_paddle_cannot_use_are_refused_once(place):
    reason = "the installed PaddlePaddle is built without gpu support; install it as README.md says"
    smi = place.put_nvidia_smi(TWO) | {"FAKE_REASON": reason}
    line = f"error: GPUs 0,1 cannot be used: {reason}; or take the CPU: DEVICE=cpu"
    trial_0 = line.replace("0,1", "0") + "\n"
    assert place.call(run_trial, *AFQMC, **smi) == (2, "", trial_0)
    slurm = {"MODEL": "m", "SLURM_ARRAY_TASK_ID": "0", "CUDA_VISIBLE_DEVICES": "0"}
    assert place.call(slurm_job, **smi, **slurm) == (2, "", trial_0)
    assert place.lines("asked") == ["0", "0"] and not (place.folder / "results/m/AFQMC").exists()
    # Nothing is asked where no GPU is used.
    assert place.call(run_trial, *AFQMC, **smi, DEVICE="cpu")[0] == 0
    assert place.call(run_trial, *AFQMC, **smi, DRY_RUN="1")[0] == 0
    assert place.call(run_trial, *AFQMC, **smi)[0] == 0  # finished already
    assert len(place.lines("asked")) == 2


@needs_parallel
def test_a_search_asks_once_whether_its_gpus_can_be_used(place):
    smi = place.put_nvidia_smi(TWO)
    words = ["m", "--tasks", "TNEWS", *NARROW]
    status, out, err = place.call(grid_search, *words, **smi, FAKE_REASON="no kernel for it")
    said = "error: GPUs 0,1 cannot be used: no kernel for it; or take the CPU: DEVICE=cpu, or --cpu_slots N\n"
    assert (status, out, err) == (2, "", said) and not (place.folder / "results").exists()
    assert place.call(grid_search, *words, **smi, FAKE_REASON="no", DRY_RUN="1")[0] == 0
    status, out, err = place.call(grid_search, *words, **smi)
    assert status == 0 and "2 finished" in out, err
    assert place.lines("asked") == ["0,1", "0,1"]
    assert all(call["order"] == "PCI_BUS_ID" for call in place.done())


@pytest.mark.skipif("paddlepaddle-gpu" in environment.versions(), reason="this Paddle is built with gpu support")
def test_the_cpu_build_says_that_it_can_use_no_gpu(warm_python, monkeypatch):
    monkeypatch.setenv("PYTHON", str(warm_python))
    with pytest.raises(UserError, match="^GPUs 0,1 cannot be used: .* built without gpu support; .*: DEVICE=cpu$"):
        trial.require_use(("0", "1"))


NARROW = "--learning_rates 1e-5 2e-5 --batch_sizes 24 --dropouts 0.1".split()


@needs_parallel
def test_a_failing_trial_is_reported_and_the_others_run(place):
    words = ["hub/m", "--cpu_slots", "2", "--tasks", "TNEWS", *NARROW, "--results", "all results"]
    words += ["--", "--data_dir", "the  data's {1} {} {place}"]
    status, out, err = place.run("grid_search.sh", *words, FAKE_FAILURE="TNEWS/2e-5")
    assert status == 1 and "1 finished, 1 failed" in out and err == ""
    assert re.search(r"^\[2/2\] ", out, re.MULTILINE) and "best of TNEWS 50.00" in out
    assert re.search(r"^  TNEWS   50.00  1e-5_24_0.1_42\nthis search took \d+ s\nnext:\n", out, re.MULTILINE)
    assert "\n  bash scripts/report.sh 'all results/m'\n" in out
    folder = place.folder / "all results/m"
    end = "  on the way\n  error: TNEWS/2e-5 cannot be done\n"
    assert f"failed: {folder.relative_to(place.folder)}/TNEWS/2e-5_24_0.1_42: TNEWS/2e-5 cannot" in out and end in out
    assert len((folder / "joblog").read_text().splitlines()) == 3
    planned = outcomes.read_plan(folder)
    assert len(planned) == 2 and all((folder / name / "trial.log").is_file() for name in planned)
    calls = place.done()
    assert len(calls) == 2 and all(value_of(call["words"], "--data_dir") == words[-1] for call in calls)
    assert all(call["threads"] == str(max(1, len(os.sched_getaffinity(0)) // 2)) for call in calls)
    # Again: what is finished is left alone.
    status, out, _ = place.call(grid_search, *words)
    assert status == 0 and "2 finished, 0 failed; 2.00 GPU-hours" in out and len(place.done()) == 3


@needs_parallel
def test_a_locale_that_is_not_installed_is_not_warned_of(place):
    words = "m --cpu_slots 1 --tasks TNEWS --learning_rates 1e-5 --batch_sizes 16".split()
    status, out, err = place.run("grid_search.sh", *words, LC_ALL="xx_XX.UTF-8")
    assert status == 0 and "1 finished" in out and "perl" not in err


@needs_parallel
def test_retries_run_a_failing_trial_again(place):
    words = "m --cpu_slots 1 --retries 1 --tasks TNEWS --learning_rates 1e-5 --batch_sizes 16".split()
    status, out, _ = place.call(grid_search, *words, FAKE_FAILURE="TNEWS")
    assert status == 1 and out.count("[1/1]") == 1 and len(place.done()) == 2


@needs_parallel
def test_gpus_are_given_in_groups_and_never_to_two_trials(place):
    words = ["m", "--gpus", "0,1,2,3,6", "--tasks", "CMRC2018", "C3", *NARROW]
    # That the two of CMRC2018 end at all shows that pairs of GPUs are in use side by side.
    status, out, err = place.call(grid_search, *words, FAKE_SECONDS="0.1", FAKE_MEETING="CMRC2018")
    assert status == 0 and "trials of m: 4, GPUs 0,1,2,3,6; results in results/m\n" in out, out + err
    calls = place.done()
    sizes = [len(call["gpus"].split(",")) for call in calls]
    assert sizes == [4, 4, 2, 2]
    for i, one in enumerate(calls):
        for other in calls[:i]:
            if one["begin"] < other["end"]:
                assert not set(one["gpus"].split(",")) & set(other["gpus"].split(","))


@needs_parallel
def test_hosts_run_trials_as_this_machine_does(place, tmp_path):
    """With what stands for ssh: one host is this machine, another is down."""
    ssh = tmp_path / "tools/ssh"
    ssh.parent.mkdir()
    # As ssh does, it joins the words behind the host for a shell.
    ssh.write_text('#!/bin/sh\n[ "$1" != down ] || exit 255\nshift\n[ "$1" != -- ] || shift\nexec sh -c "$*"\n')
    ssh.chmod(0o755)
    path = f"{ssh.parent}:{os.environ['PATH']}"
    (place.folder / "hosts").write_text("one\ntwo\n")
    words = ["m", "--cpu_slots", "1", "--hosts", "hosts", "--results", "all results", "--tasks", "TNEWS", *NARROW]
    status, out, err = place.call(grid_search, *words, "--", "--data_dir", "the  data's {1}", PATH=path)
    assert status == 0 and "2 finished, 0 failed" in out, out + err
    assert "trials of m: 2, 1 at a time on the CPU of each of the hosts in hosts; results in all results/m" in out
    assert {value_of(call["words"], "--data_dir") for call in place.done()} == {"the  data's {1}"}
    hosts = [line.split("\t")[1] for line in (place.folder / "all results/m/joblog").read_text().splitlines()]
    assert sorted(hosts) == ["Host", "one", "two"]
    on_gpus = ["m", "--gpus", "0,1", *words[3:]]
    status, out, err = place.call(grid_search, *on_gpus, PATH=path, FAKE_REASON="no kernel for it")
    assert (status, out, err) == (2, "", "error: --hosts hosts: no kernel for it: one, two\n")
    assert place.lines("asked") == ["0,1", "0,1"]
    (place.folder / "hosts").write_text("# ours\n1/one\n\ndown\n")
    status, out, err = place.call(grid_search, *words, PATH=path)
    assert status == 2 and out == "" and err.endswith("lacks this folder, the project or its Python: down\n")
    (place.folder / "hosts").write_bytes(b"down \xff\n")  # whatever is in the file goes to parallel as it is
    status, out, err = place.call(grid_search, *words, PATH=path)
    assert status == 2 and out == "" and err.startswith("error: --hosts hosts: ") and err.count("\n") == 1
    (place.folder / "hosts").write_text("# none\n")  # this machine, which is asked as any
    status, out, err = place.call(grid_search, *on_gpus, PATH=path, FAKE_REASON="no kernel for it")
    assert (status, out, err) == (2, "", "error: --hosts hosts: no kernel for it: :\n")


@needs_parallel
@pytest.mark.skipif(shutil.which("setsid") is None, reason="needs setsid")
def test_a_trial_on_another_host_has_time_to_write_a_checkpoint(place, tmp_path):
    """The client of ssh dies at once; on the far side, in a session of its own, parallel's own program sees that."""
    ssh = tmp_path / "tools/ssh"
    ssh.parent.mkdir()
    ssh.write_text(SSH)
    ssh.chmod(0o755)
    (place.folder / "hosts").write_text("far\n")
    words = ["m", "--cpu_slots", "1", "--hosts", "hosts", "--tasks", "TNEWS", *NARROW]
    here = {"PATH": f"{ssh.parent}:{os.environ['PATH']}", "FAKE_SECONDS": "3600", "FAKE_SAVES": "1"}
    process = place.start("grid_search.sh", *words, **here)
    (call,) = place.wait_for_calls(1, process)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate()
    assert process.returncode == 143 and "interrupted: the same command goes on" in out
    while Path(f"/proc/{call['pid']}").exists():
        time.sleep(0.05)
    assert (place.calls.parent / "saved").exists()


@needs_parallel
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_ends_every_process(place, number):
    words = ["m", "--cpu_slots", "2", "--tasks", "TNEWS", *NARROW]
    process = place.start("grid_search.sh", *words, FAKE_SECONDS="3600")
    place.wait_for_calls(2, process)
    process.send_signal(number)
    out, _ = process.communicate()
    assert process.returncode == 128 + number and "interrupted: the same command goes on" in out
    assert "0 finished, 0 failed, 2 not ended" in out
    calls = place.done()
    assert len(calls) == 2
    for call in calls:
        with pytest.raises(ProcessLookupError):
            os.kill(call["pid"], 0)


def test_the_summary_is_what_the_records_say(place, monkeypatch, capsys):
    monkeypatch.chdir(place.folder)
    search = schedule.Search("m", [Trial("AFQMC", 1e-5, 16, 0.1, seed, 1) for seed in range(6)], [])
    *plans, silent = search.plans()
    settings = {
        "status": "finished",
        "metric": "accuracy",
        "best_metric": 0.5,
        "wall_time": 900,
        "hyper_parameters": {},
    }
    settings |= {"model": "m", "max_steps": -1}
    failed = {"status": "failed", "reason": "why"}
    for plan, more in zip(plans, ({}, failed, {"model": "n"}, {"status": "running"}, failed), strict=True):
        plan.folder.mkdir(parents=True)
        (plan.folder / "result.json").write_text(json.dumps(settings | more))
    plans[1].log.write_text("1\n2\n3\n4\n5\n6\n")
    assert schedule.summarize([*plans, silent], is_interrupted=True) == 1
    out = capsys.readouterr().out
    assert "\nfailed: results/m/AFQMC/1e-5_16_0.1_1: why; the end of its trial.log:\n  2\n" in out
    assert "\nrefused: results/m/AFQMC/1e-5_16_0.1_2, for the reason given above\n" in out
    assert "\nfailed: results/m/AFQMC/1e-5_16_0.1_4, for the same reason\n" in out and out.count("why") == 1
    assert out.endswith("\n1 finished, 3 failed, 2 not ended; 1.00 GPU-hours\n")
    # Without a record, a trial that has had its turn was refused.
    schedule.summarize([silent], is_interrupted=False)
    assert "0 finished, 1 failed" in capsys.readouterr().out
    assert schedule.summarize(plans[:1], is_interrupted=False) == 0


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("", "no model given"),
        ("--tasks TNEWS", "no model before --tasks"),
        ("m --gpus", "--gpus: expected one argument"),
        ("m --gpus 0;1", "write ids such as 0,1,2,3"),
        ("m --gpus 0 --cpu_slots 2", "not both"),
        ("m --cpu_slots none", "'none' is not an integer of at least 1"),
        ("m --retries=-1", "'-1' is not an integer of at least 0"),
        ("m --hosts nowhere", "no such file"),
        ("./nowhere", "./nowhere: no such folder"),
        ("--model_name_or_path m", "the model comes first, its name or folder without a flag"),
        ("m --hosts /dev/null", "what each of them has"),
        ("m --task TNEWS", "did you mean --tasks?"),
        ("m --gpu 0", "did you mean --gpus?"),
        (
            "m --max_steps 4",
            "'--max_steps': a flag of the tasks' scripts goes to the end of the line, behind --",
        ),
        ("m n", "n is no flag's value"),
        ("-n m", "unknown argument '-n'"),
        ("m --tasks AFQMC -- --max_step 4", "classifier.py: unknown argument '--max_step': did you mean --max_steps?"),
        ("m --tasks C3 AFQMC -- --doc_stride 9", "error: mrc/run_c3.py: unknown argument '--doc_stride'"),
        ("m --tasks AFQMC -- --device cpu", "error: --device is set by the trial itself: leave it out after --\n"),
    ],
)
def test_a_mistyped_search_is_one_line(place, words, part):
    status, out, err = place.call(grid_search, *words.split())
    assert status == 2 and out == "" and err.count("\n") == 1 and part in err


def test_a_pruned_search_takes_the_trials_of_a_task_in_a_random_order(place):
    words = ("m", "--tasks", "C3", "TNEWS", "--dry_run")
    grid, pruned, again = (
        place.call(grid_search, *words, *more)[1].splitlines() for more in ((), ("--prune",), ("--prune",))
    )
    assert pruned == again != grid and sorted(pruned) == sorted(grid)
    assert [line.split()[0] for line in pruned] == [line.split()[0] for line in grid]


def test_adapters_want_learning_rates_of_their_own(place):
    words = ("m", "--tasks", "C3", "--dry_run", "--", "--lora_rank", "8")
    status, _, error = place.call(grid_search, *words)
    assert status == 2 and error.count("\n") == 1 and "pass --learning_rates, such as 1e-04 3e-04" in error
    assert place.call(grid_search, "m", "--learning_rates", "1e-4", *words[1:])[0] == 0
    assert place.call(grid_search, *words[:-1], "0")[0] == 0


def test_a_dry_run_lists_the_trials(place):
    status, out, _ = place.call(grid_search, "m", "--dry_run", "--tasks", "C3", *NARROW)
    assert status == 0 and out.splitlines() == ["C3 1e-5 24 0.1 42 4", "C3 2e-5 24 0.1 42 4"]
    assert not (place.folder / "results").exists()


def test_without_gnu_parallel_its_package_is_named(place, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    status, out, err = place.call(grid_search, "m", PATH=str(tools))
    assert status == 2 and out == "" and "GNU parallel is not installed; on Debian or Ubuntu: apt-get install" in err
    (tools / "parallel").write_text("#!/bin/sh\n")
    (tools / "parallel").chmod(0o755)
    status, out, err = place.call(grid_search, "m", PATH=str(tools))
    assert status == 2 and out == "" and err.count("\n") == 1 and "another one (moreutils?)" in err


def test_a_python_that_is_not_there_is_named(place):
    for script in ("grid_search.sh", "report.sh"):
        status, out, err = place.run(script, "m", PYTHON="nowhere")
        assert (status, out) == (2, "")
        assert err == "error: PYTHON=nowhere: no such program; bash scripts/setup_env.sh makes one\n"


@needs_parallel
def test_a_published_row_is_run_again_and_judged(place):
    words = ["copies/rbt6", "--published", "--tasks", "TNEWS", "AFQMC", "--seeds", "1", "2", "--cpu_slots", "1"]
    # The stand-in does not say what it was scored on; these are finished already.
    fields = {"model": "copies/rbt6", "max_steps": -1, "num_examples": {"dev": 10000}}
    for seed, score in ((1, 0.570), (2, 0.571)):
        put(place.folder / "results/rbt6", f"5e-5_16_0.1_{seed}", score, **fields)
    status, out, err = place.call(grid_search, *words)
    assert status == 0 and "4 finished, 0 failed" in out, err
    ran = {value_of(call["words"], "--output_dir") for call in place.done()}
    assert ran == {f"results/rbt6/AFQMC/3e-5_16_0.1_{seed}" for seed in (1, 2)}
    assert re.search(r"^TNEWS +within noise +5e-5,16 +57.05 .* 56.62 +\+0.43 +10000 +2$", out, re.MULTILINE), out
    assert "rbt6 beside RBT6, Chinese as published: of 1 task 1 within noise." in out
    assert "not both" in place.call(grid_search, *words, "--prune")[2]
    slurm = {"MODEL": "hfl/rbt6", "SLURM_ARRAY_TASK_ID": "9", "RESULTS_DIR": "array", "DEVICE": "cpu"}
    status, out, err = place.call(slurm_job, "--published", **slurm)
    assert status == 0 and out.startswith("C3/3e-5_24_0.1_42: finished"), err


def test_a_job_of_a_slurm_array_runs_its_trial(place):
    slurm = {"SLURM_SUBMIT_DIR": str(TOP), "RESULTS_DIR": str(place.folder / "all results"), "MODEL": "m"}
    words = ["--tasks", "C3", "TNEWS", *NARROW, "--", "--data_dir", "the data"]
    status, out, err = place.run(
        "grid_search.slurm", *words, **slurm, SLURM_ARRAY_TASK_ID="1", CARDS="4", CUDA_VISIBLE_DEVICES="0,1,2,3"
    )
    assert status == 0 and out.startswith("C3/2e-5_24_0.1_42: finished"), err
    (call,) = place.done()
    assert value_of(call["words"], "--batch_size") == "6" and value_of(call["words"], "--data_dir") == "the data"
    status, out, _ = place.call(slurm_job, *words, **slurm, SLURM_ARRAY_TASK_ID="2", CARDS="4")
    assert status == 0 and out == "no trial 2 among 2\n"
    slurm_0 = slurm | {"SLURM_ARRAY_TASK_ID": "0", "RESULTS_DIR": "others"}
    assert place.call(slurm_job, *words, "--seed", "1", **slurm_0)[0] == 2
    assert place.call(slurm_job, *words, **slurm_0, DRY_RUN="1")[0] == 0 and not (place.folder / "others").exists()
    # Without GPUs in the allocation those of the node are not taken, nor hidden by what Paddle's launcher fails at.
    smi = place.put_nvidia_smi(TWO)
    for number, device in enumerate(({}, {"DEVICE": ""})):
        assert place.call(slurm_job, *words, **(slurm_0 | smi | device | {"RESULTS_DIR": f"none {number}"}))[0] == 0
        assert place.done()[-1]["gpus"] is None and value_of(place.done()[-1]["words"], "--device") == "cpu"
    assert place.call(slurm_job, *words, **slurm_0, **smi, DEVICE="gpu")[2].startswith("error: DEVICE=gpu, but the job")
    assert "no array" in place.call(slurm_job, *words, **slurm)[2]
    assert "no model given" in place.call(slurm_job, *words, SLURM_ARRAY_TASK_ID="2")[2]
    status, _, err = place.run("grid_search.slurm", **(slurm | {"SLURM_SUBMIT_DIR": str(place.folder)}))
    assert status == 2 and "from the project's top folder" in err


def test_a_task_that_fails_ends_the_quickstart(place):
    status, out, err = place.call(quickstart, FAKE_FAILURE="TNEWS")
    assert status == 1 and out.startswith("\nMaking the demo model and data\n[1/10] AFQMC: train, evaluate, predict\n")
    end = "on the way\nerror: TNEWS cannot be done\n"
    assert err == f"[2/10] TNEWS failed; the end of demo/output/TNEWS.log:\n{end}"
    assert "[1/10] AFQMC: accuracy 50.00 %, " in out and not (place.folder / "demo/submit.zip").exists()
