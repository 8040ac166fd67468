"""What a search shows: a screen in a terminal, lines elsewhere; and what a watcher sees of another program's search."""

from __future__ import annotations

import io
import itertools
import json
import re
import threading
from pathlib import Path

import pytest
from rich.console import Console

import report
from clue_utils import record
from clue_utils.grid import outcomes, progress, schedule, screen
from clue_utils.grid.progress import Progress, State
from clue_utils.grid.search_space import Trial

TRIALS = [Trial("TNEWS", rate, 32, 0.1, 42, 1) for rate in (1e-5, 2e-5, 3e-5, 5e-5)]
STATES = (
    State(TRIALS[0], "finished", 0.0, 0.5612),
    State(TRIALS[1], "failed", 0.0),
    State(TRIALS[2], "running", 754.0, 0.55, 1200, 5004, 1.2034),
    State(TRIALS[3], "waiting", 3000.0),
)
NOW = Progress(STATES, 11000.0, 0.31)


def terminal(width: int = 80, height: int = 24) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, color_system=None, width=width, height=height)


def shown(console: Console, *words, **more) -> list[str]:
    console.print(screen.render(*words, **more))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_screen_tells_what_runs_and_how_long():
    lines = shown(terminal(), "ernie-3.0-base-zh", NOW, 24)
    assert lines == [
        "ernie-3.0-base-zh: 2 of 4 ended (1 failed, 1 finished), 1 running",
        "=========--------------------- 31 %  about 3 h 3 min left",
        "",
        "task  trial               step done   loss  best   left",
        "TNEWS 3e-5_32_0.1_42 1200/5004 24 % 1.2034 55.00 12 min",
        "",
        "best so far: TNEWS 56.12",
    ]


def test_the_screen_in_chinese(chinese):
    lines = shown(terminal(), "ernie-3.0-base-zh", NOW, 24)
    assert lines == [
        "ernie-3.0-base-zh: 已结束 2/4 个（失败 1 个，已完成 1 个），运行中 1 个",
        "=========--------------------- 31 %  预计剩余 3 小时 3 分",
        "",
        "任务  实验                步数 进度   loss  最优    剩余",
        "TNEWS 3e-5_32_0.1_42 1200/5004 24 % 1.2034 55.00 12 分钟",
        "",
        "当前最优：TNEWS 56.12",
    ]
    assert screen.status_line(NOW).endswith("；正在运行：TNEWS/3e-5_32_0.1_42 1200/5004；当前最优：TNEWS 56.12")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 10), (200, 60)])
def test_the_screen_fits_the_terminal(width, height):
    """With the longest names and numbers there are, and a search of eight cards."""
    many = [Trial("CLUEWSC2020", 1.25e-5, 64, 0.15, seed, 1) for seed in range(1000, 1040)]
    states = [State(one, "running", 360000.0, 0.9934, 120000, 200000, 12.3456) for one in many]
    note = "stopping: wait"
    lines = shown(terminal(width, height), "m", Progress(tuple(states), 360000.0, 0.6), height, note)
    assert len(lines) <= height and all(len(line) <= width for line in lines)
    assert note in lines and any(re.fullmatch(r"and \d+ more", line) for line in lines) == (height < 50)
    row = next(line for line in lines if line.startswith("CLUEWSC2020"))
    assert "120000/200000" in row and "99.34" in row and row.endswith("100 h 0 min")


def lines_of(words, *looks: Progress, monkeypatch, every: float = 0.0) -> list[str]:
    """What is printed where there is no terminal, at these looks."""
    file = io.StringIO()
    monkeypatch.setattr(screen, "HEARTBEAT", every)
    monkeypatch.setattr(screen, "clock", lambda: "12:00:00")
    one = screen.Screen("m", iter(looks).__next__, Console(file=file, width=80))
    for note, look in zip(words, looks, strict=True):
        one.note = note
        one.show(look)
    return file.getvalue().splitlines()


def test_without_a_terminal_a_trial_is_told_of_once_and_the_search_now_and_then(monkeypatch):
    found = lines_of(["", "", "stopping", "stopping"], NOW, NOW, NOW, NOW, monkeypatch=monkeypatch, every=1e9)
    assert found == ["12:00:00 TNEWS/3e-5_32_0.1_42 runs", "12:00:00 stopping"]
    *_, last = lines_of([""], NOW, monkeypatch=monkeypatch)
    assert last == (
        "12:00:00 2 of 4 ended (1 failed, 1 finished), 1 running; about 3 h 3 min left; "
        "runs: TNEWS/3e-5_32_0.1_42 1200/5004; best so far: TNEWS 56.12"
    )


def test_a_screen_that_cannot_read_leaves_the_search_alone():
    asked = threading.Event()

    def fail() -> Progress:
        asked.set()
        raise OSError("the disk is away")

    with screen.Screen("m", fail, terminal()).shown():
        assert asked.wait(60)


def put(folder: Path, trial: Trial, **fields) -> None:
    path = folder / trial.folder
    path.mkdir(parents=True)
    numbers = {"learning_rate": trial.learning_rate, "batch_size": 32, "dropout": 0.1, "seed": 42}
    about = {"task": trial.task, "metric": "accuracy", "hyper_parameters": numbers, "num_steps": 5004}
    (path / "result.json").write_text(json.dumps(about | fields))


def put_all(folder: Path) -> None:
    sign = record._sign_of_life()
    put(folder, TRIALS[0], status="finished", best_metric=0.5612, wall_time=1000.0)
    put(folder, TRIALS[1], status="failed", reason="the loss is nan")
    at = {"step": 1200, "num_steps": 5004, "seconds_left": 760.0, "loss": 1.2}
    put(folder, TRIALS[2], status="running", progress=at, wall_time=240.0, **sign)


def test_plan_and_records_alone_tell_how_far_a_search_is(tmp_path):
    put_all(tmp_path)
    outcomes.add_to_plan(tmp_path, [trial.folder for trial in TRIALS], {1: 2})
    reader = progress.Reader(tmp_path)
    found = reader.read()
    assert [state.status for state in found.states] == ["finished", "failed", "running", "waiting"]
    assert found.best()["TNEWS"].trial == TRIALS[0]
    # One slot ends what runs, the other one runs the last, as long as the two that were measured.
    assert found.states[2].seconds_left == pytest.approx(760, abs=60)
    assert found.seconds_left == pytest.approx(1000 + progress.START_SECONDS, abs=60)
    # With an engine that does not say how many run at a time, they are as many as run now.
    outcomes.add_to_plan(tmp_path, [])
    assert reader.read().seconds_left == pytest.approx(1760 + progress.START_SECONDS, abs=60)
    # What failed before this search is run again by it; what has had its turn is not.
    assert [state.status for state in reader.read(ended=[]).states][1] == "waiting"
    assert [state.status for state in reader.read(ended=[TRIALS[1].folder, TRIALS[3].folder]).states][1::2] == [
        "failed",
        "refused",
    ]
    (tmp_path / TRIALS[1].folder / "result.json").write_text("{")
    assert reader.read().states[1].status == "failed"


def test_between_two_trials_a_slot_of_an_engine_that_names_none_still_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    trials = [TRIALS[0]._replace(seed=seed) for seed in range(4)]
    outcomes.add_to_plan(tmp_path, [trial.folder for trial in trials])
    reader, now, sign = progress.Reader(tmp_path), 0.0, record._sign_of_life()
    for trial in trials[:2]:
        put(tmp_path, trial, status="running", wall_time=100.0, **sign)
    reader.read()
    for trial in trials[:2]:
        (tmp_path / trial.folder / "result.json").unlink()
        (tmp_path / trial.folder).rmdir()
        put(tmp_path, trial, status="finished", wall_time=100.0)
    one = 100.0 + progress.START_SECONDS
    assert reader.read().seconds_left == pytest.approx(one)
    now = 1000.0
    assert reader.read().seconds_left == pytest.approx(2 * one)


def test_before_anything_is_measured_no_time_is_told(tmp_path):
    outcomes.add_to_plan(tmp_path, [trial.folder for trial in TRIALS])
    found = progress.Reader(tmp_path).read()
    assert found.seconds_left is None and screen.left_text(found) == "time left not known yet"
    assert found.share is None and shown(terminal(), "m", found)[0] == "m: 0 of 4 ended, 0 running"


def test_a_line_of_a_search_has_clock_best_and_time_left(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    put_all(tmp_path / "m")
    search = schedule.Search("m", TRIALS, ["--data_dir", "my data"], cpu_slots=2)
    one = schedule._Shown(search, search.slots())
    one.end(f"{TRIALS[0].folder}: finished, accuracy 56.12 %, 1000 s")
    out = capsys.readouterr().out
    line = r"\[1/4\] \d\d:\d\d:\d\d TNEWS/1e-5_32_0.1_42: finished, accuracy 56.12 %, 1000 s; best of TNEWS 56.12 %; "
    assert re.fullmatch(line + r"about \d+ min left\n", out), out
    folder = tmp_path / "m"
    lines = screen.best_scores(folder, ["TNEWS", "C3"])
    assert lines == ["best score of each task, in percent:", "  TNEWS   56.12  1e-5_32_0.1_42"]
    assert screen.next_commands(folder, search.flags)[1:] == [
        f"  bash scripts/report.sh {folder}",
        f"  bash scripts/predict_and_zip.sh {folder} -- --data_dir 'my data'",
    ]


def test_a_search_can_be_watched_from_elsewhere(tmp_path, run_script, monkeypatch):
    put_all(tmp_path / "m")
    outcomes.add_to_plan(tmp_path / "m", [trial.folder for trial in TRIALS[:3]], {1: 2})
    looks = itertools.count()

    def sleep(_: float) -> None:
        if next(looks):
            raise KeyboardInterrupt
        put(tmp_path / "m", TRIALS[3], status="finished", best_metric=0.6)

    monkeypatch.setattr(screen.time, "sleep", sleep)
    status, out, err = run_script(report.main, "m", "--results", str(tmp_path), "--watch")
    assert (status, err) == (0, "") and "2 of 3 ended (1 failed, 1 finished), 1 running; about 1" in out
    assert out.endswith("no longer watched; the search goes on\n") and not (tmp_path / "report").exists()
    path = tmp_path / "m" / TRIALS[2].folder / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "finished", "best_metric": 0.7}))
    status, out, _ = run_script(report.main, str(tmp_path / "m"), "--watch")
    assert status == 0 and "3 of 3 ended (1 failed, 2 finished), 0 running; best so far: TNEWS 70.00\n" in out
    for words, part in ((["n"], "no search of 'n' (looked for n/plan.json and "), (["m", "n"], "give one model")):
        status, out, err = run_script(report.main, *words, "--results", str(tmp_path), "--watch")
        assert (status, out) == (2, "") and err.startswith("error: --watch: ") and part in err and err.count("\n") == 1
