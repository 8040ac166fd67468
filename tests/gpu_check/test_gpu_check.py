"""check_gpu.sh from the outside: its parts, how they end, what it leaves, and what it tells of whom."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import threading
import time
from pathlib import Path

import pytest

from gpu_check import __main__ as check_gpu
from gpu_check import checks, document, verdict
from gpu_check.checks import Check

TOP = Path(__file__).parents[2]
# A part is a module; these stand in for the real ones.
FINE = """
def check(report, bench):
    report.at_most("a time", 3.0, 2.0, "s", otherwise="slow")
    report.equal("a device", bench.device, "cpu")
    report.info("an amount", 12.5, "GiB")
    report.not_run("a card", "there is none")
    with report.failing("a step"):
        pass
"""
FAILING = """
from clue_utils.errors import UserError
def check(report, bench):
    with report.failing("one thing"):
        raise UserError("no such card")
    report.at_least("another thing", 4, 3)
    report.at_most("no number", float("nan"), 1.0)
    raise UserError("the data is missing")
"""
CRASHING = """
import os, signal
def check(report, bench):
    report.info("before", 1)
    print("what it was doing", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)
"""
# Its child stands in for a rank, which the launcher gives a session of its own.
HANGING = """
import os, subprocess, sys, threading
from pathlib import Path
def check(report, bench):
    report.info("before", 1)
    print("waiting for a card", flush=True)
    words = [sys.executable, "-c", "import threading; threading.Event().wait()"]
    child = subprocess.Popen(words, start_new_session=True)
    Path(os.environ["REACHED"]).write_text(str(child.pid))
    threading.Event().wait()
"""
TALKING = """
import getpass, platform
from pathlib import Path
from clue_utils.errors import UserError
def check(report, bench):
    report.info("folder", f"{Path.home()}/data of {getpass.getuser()}")
    report.info("other folder", "/data/a-firm/out/x: not there, 3 MB/s")
    report.fail("a run", f"{platform.node()}: {bench.scratch}: no such file")
    raise UserError(f"{getpass.getuser()}@{platform.node()}: {Path.home()} is full")
"""


class OnceReached(threading.Thread):
    """In place of a timer: goes off once a file is there, never by the clock."""

    def __init__(self, _, function):
        super().__init__(daemon=True)
        self.function, self.is_cancelled = function, threading.Event()

    def run(self):
        while not self.is_cancelled.wait(0.01):
            path = Path(os.environ["REACHED"])
            if path.is_file() and path.read_text():
                self.function()
                return

    def cancel(self):
        self.is_cancelled.set()


@pytest.fixture
def run(run_script, tmp_path, monkeypatch):
    """Run the check with other parts (name -> source) or, without any, its own; return status, output and outcome."""

    def run_check(*words, **sources):
        paths = [str(tmp_path), *(str(TOP / folder) for folder in ("", "scripts"))]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
        if sources:
            for name, source in sources.items():
                (tmp_path / f"part_{name}.py").write_text(source)
            parts = [check_gpu.Part(name, f"the part {name}", f"part_{name}", 3600) for name in sources]
            monkeypatch.setattr(check_gpu, "PARTS", tuple(parts))
        output = tmp_path / "output"
        status, out, error = run_script(check_gpu.main, "--output_dir", output, *words)
        outcome = json.loads((output / "gpu-check.json").read_text()) if status < 2 else error
        return status, out, outcome

    return run_check


def statuses(outcome):
    return {check["name"]: check["status"] for check in outcome["checks"]}


def test_a_check_that_holds(run, tmp_path):
    status, out, outcome = run("--device", "cpu", fine=FINE)
    assert status == 0
    assert statuses(outcome) == {"a time": "slow", "a device": "ok", "an amount": "info", "a card": "not run"}
    assert "  slow     a time" in out and "  not run  a card (there is none)\n" in out
    assert outcome["counts"] == {"ok": 1, "FAIL": 0, "slow": 1, "not run": 1, "info": 1}
    first = outcome["checks"][0]
    assert (first["value"], first["unit"], first["relation"], first["bound"]) == (3.0, "s", "<=", 2.0)
    assert {path.name for path in (tmp_path / "output").iterdir()} == {"gpu-check.json", "gpu-check.md", "logs"}


def test_what_fails_does_not_keep_the_rest_from_running(run):
    status, out, outcome = run("--device", "cpu", failing=FAILING, fine=FINE)
    assert status == 1
    found = statuses(outcome)
    assert (found["one thing"], found["another thing"], found["no number"]) == ("FAIL", "ok", "FAIL")
    assert found["the whole part"] == "FAIL" and found["a device"] == "ok"
    assert "  FAIL     one thing (no such card)\n" in out
    last = out.splitlines()[-4:]
    assert last[:3] == ["FAIL failing: one thing", "FAIL failing: no number", "FAIL failing: the whole part"]
    assert last[3].startswith("2 ok, 3 FAIL, 1 slow, 1 not run, 1 info; ")
    assert "  FAIL     the whole part (error: the data is missing)\n" in out


def test_a_part_that_crashes_is_a_line_with_its_last_words(run):
    status, out, outcome = run("--device", "cpu", crashing=CRASHING, fine=FINE)
    assert status == 1
    assert statuses(outcome).items() >= {"before": "info", "the whole part": "FAIL", "a device": "ok"}.items()
    assert "ended by SIGSEGV; its last line: what it was doing" in out
    assert outcome["parts"][0]["cut_short"].startswith("ended by SIGSEGV")


def test_a_part_that_hangs_is_ended_with_all_that_it_started(run, tmp_path, monkeypatch):
    monkeypatch.setenv("REACHED", str(tmp_path / "reached"))
    monkeypatch.setattr(check_gpu.threading, "Timer", OnceReached)
    status, out, outcome = run("--device", "cpu", hanging=HANGING)
    assert status == 1
    assert statuses(outcome) == {"before": "info", "the whole part": "FAIL"}
    assert "not done after 3600 s; its last line: waiting for a card" in out
    child = Path("/proc") / (tmp_path / "reached").read_text() / "stat"
    while child.exists() and child.read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)  # killed, which takes the system a moment


def test_both_files_say_the_same(run, tmp_path):
    _, _, outcome = run("--device", "cpu", failing=FAILING, fine=FINE)
    text = (tmp_path / "output/gpu-check.md").read_text()
    assert text == document.markdown(outcome)
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    shown = {(row[0].removeprefix("| "), row[1]) for row in rows}
    assert shown >= {(check["status"], check["name"]) for check in outcome["checks"]}


def test_nobody_and_no_machine_is_named(run, tmp_path, monkeypatch):
    home = tmp_path / "zhangsan"
    home.mkdir()
    for name, value in {"HOME": home, "LOGNAME": "zhangsan"}.items():
        monkeypatch.setenv(name, str(value))
    _, out, outcome = run("--device", "cpu", talking=TALKING)
    for path in (tmp_path / "output").glob("gpu-check.*"):
        text = path.read_text()
        assert not re.search(rf"zhangsan|\b{re.escape(platform.node())}\b|{re.escape(str(TOP))}\b", text), path
    found = {check["name"]: check["value"] or check["note"] for check in outcome["checks"]}
    assert found["folder"] == "~/data of <user>"
    assert found["other folder"] == ".../x: not there, 3 MB/s"
    assert found["a run"].startswith("<host>: ")
    assert found["the whole part"] == "error: <user>@<host>: ~ is full"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--only", "everything"], "error: argument --only: invalid choice: 'everything'"),
        (["--device", "xpu"], "error: argument --device: invalid choice: 'xpu'"),
        (["--output", "x"], "error: unknown argument '--output': did you mean --output_dir?"),
        (["--device", "gpu"], "error: --device gpu: no GPU is visible"),
    ],
)
def test_a_wrong_flag_is_one_line(run, monkeypatch, words, line):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    status, _, error = run(*words, fine=FINE)
    assert status == 2 and error.startswith(line) and error.count("\n") == 1


def test_some_parts_alone(run):
    _, _, outcome = run("--device", "cpu", "--only", "fine", failing=FAILING, fine=FINE)
    assert [part["name"] for part in outcome["parts"]] == ["fine"]


@pytest.fixture
def play_cards(tmp_path, monkeypatch):
    """Put an nvidia-smi on the path that has so many cards."""

    def play(number):
        folder = tmp_path / "bin"
        folder.mkdir()
        program = folder / "nvidia-smi"
        lines = "".join(f"{i}, Tesla V100-SXM2-32GB, 550.54.15, 32768, 0, [N/A], Enabled\\n" for i in range(number))
        numbers = "".join(f"{i}\\n" for i in range(number))
        names = "".join(f"GPU {i}: Tesla V100-SXM2-32GB (UUID: GPU-{i:08x})\\n" for i in range(number))
        answers = {"-L": names, "--query-gpu=index": numbers, "--query-gpu=index,*": lines}
        cases = "".join(f"{words}) printf '{answer}' ;; " for words, answer in answers.items())
        program.write_text(f"#!/bin/sh\ncase $1 in {cases} esac\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return play


def test_on_the_cpu_it_runs_what_it_can_and_says_what_it_cannot(run, warm_python, monkeypatch):
    monkeypatch.setenv("PYTHON", str(warm_python))
    status, out, outcome = run("--device", "cpu", "--only", "machine", "device", "determinism")
    assert status == 0, out
    found = statuses(outcome)
    assert found["--device cpu, 2 ranks"] == found["fp32, killed at step 15 and resumed"] == "ok"
    assert found["2 ranks, each on a card of its own"] == "not run"
    assert [part["cut_short"] for part in outcome["parts"]] == ["", "", ""]
    assert max(map(len, out.splitlines()[1:-1])) <= checks.WIDTH
    assert {claim["status"] for claim in outcome["verdict"]} == {"ok"}


def test_cards_with_the_build_for_the_cpu_fail_with_the_remedy(run, warm_python, monkeypatch, play_cards):
    import paddle

    if paddle.is_compiled_with_cuda():
        pytest.skip("needs Paddle's build for the CPU")
    play_cards(2)
    monkeypatch.setenv("PYTHON", str(warm_python))
    status, out, outcome = run("--only", "machine")
    assert status == 1 and outcome["device"] == "gpu"
    (cards,) = [check["value"] for check in outcome["checks"] if check["name"] == "cards"]
    assert cards == "2 x Tesla V100-SXM2-32GB, 32,768 MiB"
    assert "FAIL     PaddlePaddle for GPUs" in out and "setup_env.sh --cuda" in out


def test_the_script_answers_at_once():
    done = subprocess.run(["bash", TOP / "scripts/check_gpu.sh", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--output_dir DIR" in done.stdout
    for part in check_gpu.PARTS:
        assert part.name in done.stdout


def test_a_claim_holds_if_nothing_of_it_failed_and_something_was_run():
    ok = Check("determinism", "fp32, weights of a second run", "ok", "ab", bound="ab", relation="==")
    half = Check("determinism", "fp16, weights of a second run", "FAIL", "ab", bound="cd", relation="==")
    unseen = Check("cards", "SIGTERM to the launcher: checkpoint", "not run", note="no GPU is used")
    found = {claim["claim"]: claim["status"] for claim in verdict.claims([ok, unseen])}
    assert found == {"the same command gives the same weights": "ok", "SIGTERM writes a checkpoint first": "not run"}
    assert verdict.claims([ok, half])[0]["status"] == "FAIL"


def test_every_claim_has_a_part():
    names = {part.name for part in check_gpu.PARTS}
    assert {part for sources in verdict.CLAIMS.values() for part, _ in sources} <= names


def test_the_slowest_three_come_first_with_what_to_try():
    found = verdict.slowest(
        [
            Check("speed", "TNEWS fp32, updates", "info", 10.0, "1/s"),
            Check("speed", "C3 bf16, updates", "info", 2.0, "1/s"),
            Check("speed", "C3 bf16, launch-bound: time in kernels", "info", 30.0, "%"),
            Check("speed", "TNEWS fp32, a checkpoint", "info", 20.0, "s"),
            Check("speed", "12L768H, records of TNEWS by --eval_batch_size 64", "info", 500.0, "1/s"),
        ]
    )
    assert [(item["what"], item["value"]) for item in found] == [
        ("100 updates, C3 bf16", 50.0),
        ("TNEWS fp32, a checkpoint", 20.0),
        ("100 updates, TNEWS fp32", 10.0),
    ]
    assert "larger --batch_size" in found[0]["try"] and "tf32" in found[2]["try"]


@pytest.mark.parametrize(
    "check",
    [
        Check("p", "a name of some length that says much", "FAIL", note="a reason " * 40),
        Check("p", "n" * 70, "ok", 1.5, "GB/s", 1.0, ">="),
        Check("p", "short", "ok", "v" * 80, bound="v" * 80, relation="=="),
        Check("p", "short", "not run", note="w" * 200),
    ],
    ids=["failure", "name", "value", "not run"],
)
def test_a_line_fits_a_terminal(check):
    assert max(map(len, check.line().splitlines())) <= checks.WIDTH and check.status in check.line()
