#!/usr/bin/env python
"""Kill runs at random moments, let them go on, and compare the end with that of a run that was never killed.

A run downloads its data from a server on this machine, encodes, trains, evaluates, predicts and zips. It is killed
(SIGKILL) at a random call of a function that stands for a phase, up to three times, and then left alone. Weights,
metrics, result.json but for times and memory, predictions and what is in the zip must be the same to the bit, and
nothing of the killed runs may be left.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import http.server
import importlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TOP / folder) for folder in ("", "classification", "mrc", "scripts")]

from clue_utils import environment, tasks  # noqa: E402

# Script, task, and flags that keep a run short.
SCRIPTS = (
    ("run_clue_classifier", "TNEWS", "--task_name TNEWS --max_seq_length 24"),
    ("run_c3", "C3", "--max_seq_length 24 --eval_batch_size 256"),
    ("run_chid", "CHID", "--max_seq_length 24 --eval_batch_size 256"),
    ("run_cmrc2018", "CMRC2018", "--max_seq_length 96 --eval_batch_size 256"),
)
FLAGS = "--do_train --do_eval --do_predict --device cpu --max_steps 6 --save_steps 2 --logging_steps 1 --batch_size 4 "
FLAGS += "--learning_rate 1e-3 --num_proc 1 --checkpoint_minutes 0"
EXAMPLES = 48  # to train with, for each task
ANY_TIME = "after a random time"
LEFTOVERS = (".tmp", ".part")


def phases() -> dict[str, tuple[Any, str]]:
    """Phase -> module and name of the function at whose calls a run is killed."""
    from clue_utils import record
    from clue_utils.data import download
    from clue_utils.features import build
    from clue_utils.models import load
    from clue_utils.training import checkpoints, loop, predict

    return {
        "download": (download, "_read"),
        "unpack": (zipfile.ZipFile, "extract"),
        "encode": (build, "_arrow"),
        "step": (loop, "_backward"),
        "evaluate and predict": (predict, "to_tensors"),
        "checkpoint": (checkpoints, "save_file"),
        "best model": (load, "put"),
        "result.json": (record, "write_text_atomically"),
        "rename": (os, "replace"),
        "zip": (zipfile.ZipFile, "write"),
    }


def watch(phase: str, before_call: Callable[[int], None]) -> None:
    """Have ``before_call`` called with a number, from 1, at every call of a phase's function and after it."""
    module, name = phases()[phase]
    function, calls = getattr(module, name), [0]

    def watched(*words: Any, **more: Any) -> Any:
        calls[0] += 1
        before_call(calls[0])
        value = function(*words, **more)
        calls[0] += 1
        before_call(calls[0])
        return value

    setattr(module, name, watched)


def serve(folder: Path) -> str:
    """Serve a folder's files to this machine; return the address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def work(script: str, task: str, words: str, folder: Path, model: Path) -> None:
    """What a user does: the script, then the zip."""
    os.environ["CLUE_CACHE_DIR"] = str(folder / "cache")
    os.environ.pop("CLUE_DATA_DIR", None)  # nothing would be downloaded
    flags = [*words.split(), *FLAGS.split(), "--model_name_or_path", str(model), "--output_dir", str(folder / "out")]
    importlib.import_module(script).main(flags)
    importlib.import_module("zip_predictions").main([str(folder / "out"), "--output", str(folder / "submit.zip")])


def in_a_process(function: Callable[[], Any], seconds: float | None = None) -> int:
    """Run a function in a fork of this process; return its exit status, negative for a signal.

    With ``seconds`` the process is killed after that time.
    """
    pid = os.fork()
    if pid == 0:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                function()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    killer = threading.Timer(seconds or 0, os.kill, (pid, signal.SIGKILL))
    if seconds is not None:
        killer.start()
    # Still a child of ours, so that the timer cannot hit another process.
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    killer.cancel()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod")


def kill_before_change(number: int, function: Callable[[], Any]) -> bool:
    """Run a function in a fork that is killed before its n-th call that changes which files there are; was there one?

    Such calls are those that open a file to write it, and those that make, rename or remove files and folders.
    """
    left = [number]

    def die(event: str, values: tuple[Any, ...]) -> None:
        if event in _CHANGES or (event == "open" and values[2] & (os.O_WRONLY | os.O_RDWR)):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    status = in_a_process(lambda: (sys.addaudithook(die), function()))
    assert status in (0, -signal.SIGKILL), status
    return status != 0


def outcome(folder: Path) -> dict[str, Any]:
    """Everything a run leaves, but times and memory."""
    result = json.loads((folder / "out/result.json").read_text())
    for name in ("wall_time", "begun", "ended", "peak_memory_bytes"):
        del result[name]
    lines = [json.loads(line) for line in (folder / "out/metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("steps_per_second", None), line.pop("peak_memory_bytes", None)
    files = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (folder / "out").iterdir()
        if path.is_file() and path.name not in ("result.json", "metrics.jsonl")
    }
    with zipfile.ZipFile(folder / "submit.zip") as archive:
        zipped = {entry.filename: entry.CRC for entry in archive.infolist()}
    left = [str(path) for path in folder.rglob("*") if path.name.endswith(LEFTOVERS) or "checkpoint-" in path.name]
    return {"result": result, "metrics": lines, "files": files, "zip": zipped, "left": left}


def kill_runs(num_kills: int, seed: int) -> list[tuple[str, str, bool]]:
    """Script, phases and whether the end was the same, for each run that was killed."""
    rng, rows = random.Random(seed), []
    with tempfile.TemporaryDirectory() as temporary:
        top = Path(temporary)
        import make_demo

        def prepare() -> None:
            environment.import_libraries()
            make_demo.make_demo(top / "demo", 0, EXAMPLES)

        assert in_a_process(prepare) == 0
        environment.import_libraries()
        address = serve(top / "archives")
        from clue_utils.data import download

        download._PLAIN_HOSTS = frozenset({"127.0.0.1"})
        for _, name, _ in SCRIPTS:
            folder = tasks.TASKS[name].folder
            archive = Path(shutil.make_archive(str(top / "archives" / name), "zip", top / "demo/data", folder))
            digest = "sha256:" + hashlib.sha256(archive.read_bytes()).hexdigest()
            source = tasks.Archive((f"{address}/{archive.name}",), (digest,))
            tasks.TASKS[name] = dataclasses.replace(tasks.TASKS[name], archive=source)  # type: ignore[index]

        expected: dict[str, Any] = {}
        counts: dict[str, dict[str, int]] = {}
        seconds: dict[str, float] = {}
        while num_kills > 0:
            script = rng.choice(SCRIPTS)
            folder = top / "run"
            job = partial(work, *script, folder, top / "demo/model")
            if script[0] not in expected:
                begin = time.perf_counter()
                counts[script[0]] = count_calls(job, top / "counts")
                seconds[script[0]] = time.perf_counter() - begin
                expected[script[0]] = outcome(folder)
                shutil.rmtree(folder)
            killed = []
            for phase in rng.sample([*phases(), ANY_TIME], k=min(num_kills, rng.randint(1, 3))):
                if phase == ANY_TIME:
                    status = in_a_process(job, rng.uniform(0, seconds[script[0]]))
                else:
                    status = in_a_process(partial(run_until, job, phase, rng.randint(1, counts[script[0]][phase])))
                if status == -signal.SIGKILL:
                    killed.append(phase)
            if not killed:
                shutil.rmtree(folder)
                continue
            num_kills -= len(killed)
            status = in_a_process(job)
            found = outcome(folder) if status == 0 else {"status": status}
            same = found == expected[script[0]]
            if not same:
                print(
                    "differs:", [key for key in found if found[key] != expected[script[0]].get(key)], found.get("left")
                )
            rows.append((script[0], ", ".join(killed), same))
            print(f"{script[0]}: killed at {rows[-1][1]}; {'the same end' if same else 'ANOTHER END'}", flush=True)
            shutil.rmtree(folder)
    return rows


def count_calls(job: Callable[[], None], path: Path) -> dict[str, int]:
    """Do a job unbroken; return how many moments each phase has in it."""

    def counting() -> None:
        counts: Counter[str] = Counter()
        for phase in phases():
            watch(phase, lambda _, phase=phase: counts.update([phase]))  # type: ignore[misc]
        job()
        path.write_text(json.dumps(counts))

    assert in_a_process(counting) == 0
    counts: dict[str, int] = json.loads(path.read_text())
    assert counts.keys() == phases().keys(), counts  # that each function is still called by the name it is watched by
    return counts


def run_until(job: Callable[[], None], phase: str, moment: int) -> None:
    def die(number: int) -> None:
        if number == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    watch(phase, die)
    job()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="(default: a new one)")
    args = parser.parse_args()
    print(f"seed {args.seed}")
    environment.tune_cpu()
    rows = kill_runs(args.kills, args.seed)
    kills = Counter(phase for _, killed, _ in rows for phase in killed.split(", "))
    same = Counter(phase for _, killed, ok in rows if ok for phase in killed.split(", "))
    print("\n| phase | kills | in runs that ended the same |\n|---|---|---|")
    for phase in (*phases(), ANY_TIME):
        print(f"| {phase} | {kills[phase]} | {same[phase]} |")
    print(f"| all | {sum(kills.values())} | {sum(same.values())} |")
    sys.exit(0 if all(ok for _, _, ok in rows) else 1)


if __name__ == "__main__":
    main()
