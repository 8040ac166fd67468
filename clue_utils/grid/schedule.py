"""All trials of a search: GNU parallel runs them, side by side and on other machines; a job slot becomes GPUs here.

Each job runs ``scripts/run_trial.sh``; what ended how is read from the trials' records. Imports no PaddlePaddle.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clue_utils import cli, environment, project
from clue_utils.errors import SECONDS_TO_END, UserError
from clue_utils.grid import outcomes, progress, screen, search_space, trial
from clue_utils.grid.search_space import Trial
from clue_utils.language import later, say
from clue_utils.record import Record
from clue_utils.tasks import KNOWN

RUN_TRIAL = project.TOP / "scripts/run_trial.sh"
# What other machines are told of the environment.
_PASSED_ON = "PYTHON RESULTS_DIR CLUE_DATA_DIR CLUE_CACHE_DIR CLUE_LANG OMP_NUM_THREADS CUDA_DEVICE_ORDER".split()
# Longer than run_trial.sh gives a training, and then the launcher its processes, which it kills after 30 s.
_SECONDS_TO_END = SECONDS_TO_END + 60
_INSTALL = later("on Debian or Ubuntu: apt-get install parallel")
_JOBLOG_COLUMNS = "Seq Host Starttime JobRuntime Send Receive Exitval Signal Command".split()


@dataclass(frozen=True)
class Search:
    """The trials of a model and what they run on.

    Attributes:
        flags: of every trial, as words.
        gpus: ids; none: ``cpu_slots`` trials at a time share the processors.
        hosts: a file that names machines as GNU parallel's ``--sshloginfile`` reads them; None: this one.
        retries: further runs of a trial that fails.
        keep: whose weights are kept, one of ``keep.KEEP``.
    """

    model: str
    trials: Sequence[Trial]
    flags: Sequence[str]
    gpus: Sequence[str] = ()
    cpu_slots: int = 1
    hosts: Path | None = None
    retries: int = 0
    keep: str = "all"

    @property
    def folder(self) -> Path:
        return search_space.model_folder(trial.results_dir(), self.model)

    def groups(self, num_gpus: int) -> list[list[str]]:
        """Groups of so many GPUs, or of all there are; a GPU that is left over is not used."""
        size = min(num_gpus, trial.num_together(self.gpus))
        return [list(self.gpus[i : i + size]) for i in range(0, len(self.gpus) - size + 1, size)] if size else []

    def job(self, one: Trial) -> list[str]:
        """The words of the job that runs a trial in whatever slot it gets.

        Of a host, parallel signals what it starts there and kills the rest when that has gone: it has to be the trial
        itself, not a shell that waits for it.
        """
        slot = ["--gpu_groups", ":".join(map(",".join, self.groups(one.num_gpus)))]
        slot = slot if self.gpus else ["--cpu_slots", str(self.cpu_slots)]
        slot += ["--keep", self.keep] if self.keep != "all" else []
        slot += KNOWN[one.task].words if KNOWN[one.task].is_own else []
        return ["exec", "bash", str(RUN_TRIAL), *slot, self.model, *one.words, "--", *self.flags]

    def parallel(self, num_gpus: int) -> list[str]:
        """The words of GNU parallel for the trials that take so many GPUs; jobs are read from its standard input."""
        slots = len(self.groups(num_gpus)) or self.cpu_slots
        words = ["parallel", "--will-cite", "--null", "-j", str(slots), "--joblog", f"+{self.folder / 'joblog'}"]
        words += ["--retries", str(self.retries + 1), "--termseq", f"TERM,{_SECONDS_TO_END * 1000},KILL,100"]
        if self.hosts:
            words += ["--sshloginfile", str(self.hosts), "--workdir", os.getcwd()]
            words += [word for name in _PASSED_ON if name in os.environ for word in ("--env", name)]
        return words

    def slots(self) -> dict[int, int]:
        """How many trials run at a time on all hosts, by the GPUs that they take."""
        counts, hosts = {one.num_gpus for one in self.trials}, num_hosts(self.hosts)
        return {num_gpus: hosts * (len(self.groups(num_gpus)) or self.cpu_slots) for num_gpus in counts}

    def plans(self) -> list[trial.Plan]:
        """How the trials run, each on the first of its groups."""
        return [
            trial.make_plan(self.model, one, self.flags, (self.groups(one.num_gpus) or [[]])[0]) for one in self.trials
        ]


def _environment() -> dict[str, str]:
    """The environment of parallel: bash reads its jobs, not the user's shell, whatever that is and if it is known."""
    # Perl warns at length of a locale that is not installed, which Chinese need not be to be spoken here.
    return os.environ | {"PARALLEL_SHELL": shutil.which("bash") or "/bin/bash", "PERL_BADLANG": "0"}


def require_parallel() -> None:
    """Raise UserError, which names the remedy, where GNU parallel is not installed."""
    if not shutil.which("parallel"):
        raise UserError(say("GNU parallel is not installed; {install}", install=say(_INSTALL)))
    version = subprocess.run(["parallel", "--will-cite", "--version"], capture_output=True, text=True).stdout
    if not version.startswith("GNU parallel"):
        raise UserError(say("the program parallel is another one (moreutils?); {install}", install=say(_INSTALL)))


def _logins(hosts: Path) -> list[str]:
    """The hosts of a file as parallel reads it: bytes of any kind; this machine where it names none."""
    lines = hosts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")] or [":"]


def num_hosts(hosts: Path | None) -> int:
    """How many machines a search is spread over."""
    return len(_logins(hosts)) if hosts else 1


def require_hosts(hosts: Path, gpus: Sequence[str]) -> None:
    """Raise UserError where a host cannot work, on its GPUs if any: it would fail trials as fast as they come."""
    here, runner, python = map(shlex.quote, (os.getcwd(), str(RUN_TRIAL), trial.interpreter()))
    check = f"cd {here} && test -f {runner} && command -v {python} >/dev/null"
    if gpus:
        variables = f"PYTHONPATH={shlex.quote(str(project.MODULES))} CUDA_VISIBLE_DEVICES={shlex.quote(','.join(gpus))}"
        check += f" && {variables} {python} {shlex.quote(str(trial.USE_GPU))} 2>&1"
    logins = _logins(hosts)
    words = ["parallel", "--will-cite", "-N0", "--timeout", "300" if gpus else "60", "-S"]
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "env": _environment()}
    # One program a host, whose exit status is that host's.
    asked = [subprocess.Popen([*words, login, check, ":::", ""], text=True, **streams) for login in logins]
    said = [process.communicate()[0] for process in asked]
    bad = [(login, text) for login, text, process in zip(logins, said, asked, strict=True) if process.returncode]
    if bad:
        lacks = say("cannot be reached, or lacks this folder, the project or its Python")
        reason = next(filter(None, (trial.reason_of(text) for _, text in bad)), lacks)
        raise UserError(
            say(
                "--hosts {hosts}: {reason}: {bad}",
                hosts=hosts,
                reason=reason,
                bad=", ".join((login for login, _ in bad)),
            )
        )


def run(search: Search) -> int:
    """Run all trials, those that take most GPUs first, and print a line for each and a summary.

    Returns:
        Exit status: 0 all finished, 1 some did not, 128 and its number after a signal.
    """
    plans = search.plans()
    if trial.is_dry_run():
        return max(map(trial.run, plans))
    slots = search.slots()
    shown = _Shown(search, slots)
    outcomes.add_to_plan(search.folder, [one.folder for one in search.trials], slots)
    (search.folder / "joblog").write_text("\t".join(_JOBLOG_COLUMNS) + "\n", encoding="utf-8")
    where = say("{slots} at a time on the CPU", slots=search.cpu_slots)
    if search.gpus:
        where = say("GPUs {gpus}", gpus=",".join(search.gpus))
    if search.hosts:
        where = say("{where} of each of the hosts in {hosts}", where=where, hosts=search.hosts)
    print(
        say(
            "trials of {model}: {num_plans}, {where}; results in {folder}",
            model=search.model,
            num_plans=len(plans),
            where=where,
            folder=search.folder,
        ),
        flush=True,
    )
    signals: list[int] = []
    for num_gpus in sorted(slots, reverse=True):
        jobs = [search.job(one) for one in search.trials if one.num_gpus == num_gpus]
        signals = signals or _run_jobs(search.parallel(num_gpus), jobs, shown)
    status = summarize(plans, bool(signals))
    names = dict.fromkeys(one.task for one in search.trials)
    scores = screen.best_scores(search.folder, names)
    took = say("this search took {time}", time=cli.duration(time.monotonic() - shown.begin))
    print(*scores, took, sep="\n")
    if not signals:
        if scores:
            print(*screen.next_commands(search.folder, search.flags, names), sep="\n")
        return status
    print(say("interrupted: the same command goes on from here"))
    return 128 + signals[-1]


def _run_jobs(words: list[str], jobs: Sequence[list[str]], shown: _Shown) -> list[int]:
    """Have GNU parallel run jobs and show the lines they print; return the signals that ended that."""

    def stop(process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGINT)
        shown.screen.warn(
            say(
                "stopping: what runs writes a checkpoint first, for up to {minutes} minutes",
                minutes=SECONDS_TO_END // 60,
            )
        )

    with tempfile.TemporaryFile("w+") as file:
        file.write("".join(f"{shlex.join(job)}\0" for job in jobs))
        file.seek(0)
        streams: dict[str, Any] = {"stdin": file, "stdout": subprocess.PIPE, "env": _environment()}
        with trial.child(words, stop, **streams) as (process, signals), shown.screen.shown():
            for line in process.stdout or ():
                shown.end(line.rstrip("\n"))
    return signals


class _Shown:
    """A search on its screen: the line of each trial that ends, with its number, the best so far and the time left."""

    def __init__(self, search: Search, slots: Mapping[int, int]) -> None:
        self.begin = time.monotonic()
        self._search = search
        self._ended: list[str] = []
        self._reader = progress.Reader(search.folder, search.trials, slots)
        self.screen = screen.Screen(search.folder.name, self.read)

    def read(self) -> progress.Progress:
        return self._reader.read(frozenset(self._ended))

    def end(self, line: str) -> None:
        """Show the line that a trial has ended with."""
        self._ended.append(line.partition(":")[0])
        now = self.read()
        task = self._ended[-1].partition("/")[0]
        leader = now.best().get(task)
        best = say("best of {task} {score}", task=task, score=cli.percent(leader.score or 0.0)) if leader else ""
        rest = screen.left_text(now) if len(self._ended) < len(self._search.trials) else ""
        number = f"[{len(self._ended)}/{len(self._search.trials)}]"
        self.screen.say(say("; ").join(filter(None, (f"{number} {screen.clock()} {line}", best, rest))))


def _status(plan: trial.Plan) -> str:
    """What became of a trial: "finished", "failed", "unfinished", "refused" (of other settings), "none" (no record)."""
    try:
        found = Record.read(plan.folder)
        if trial.ending(plan):
            return "finished"
    except UserError:
        return "refused"
    if not found:
        return "none"
    return "failed" if found.status == "failed" else "unfinished"


def summarize(plans: Sequence[trial.Plan], is_interrupted: bool) -> int:
    """Print what became of the trials, as their records say; return 0 if all are finished, else 1."""
    counts = {"finished": 0, "failed": 0, "unfinished": 0}
    hours = 0.0
    for plan in plans:
        status = _status(plan)
        if status == "none":  # one that has had its turn was refused
            status = "unfinished" if is_interrupted else "refused"
        if status == "refused":
            print("\n" + say("refused: {folder}, for the reason given above", folder=plan.folder))
        elif found := Record.read(plan.folder):
            hours += found.wall_time * found.num_processes / 3600
            if status == "failed":
                print(
                    "\n"
                    + say(
                        "failed: {folder}: {remark}; the end of its {log_file}:",
                        folder=plan.folder,
                        remark=found.remark,
                        log_file=search_space.LOG_FILE,
                    )
                )
                print(*(f"  {line}" for line in trial.last_lines(plan.log, 5)), sep="\n")
        counts["failed" if status == "refused" else status] += 1
    rest = say(", {number} not ended", number=counts["unfinished"]) if counts["unfinished"] else ""
    print(
        "\n"
        + say(
            "{finished} finished, {failed} failed{rest}; {hours:.2f} GPU-hours",
            finished=counts["finished"],
            failed=counts["failed"],
            rest=rest,
            hours=hours,
        )
    )
    return int(counts["finished"] < len(plans))


def share_of_cpu(slots: int) -> dict[str, str]:
    """The environment of a trial that shares the processors with others."""
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, environment.num_processors() // slots))
    return {"DEVICE": "cpu", "OMP_NUM_THREADS": threads}


@contextlib.contextmanager
def free_group(groups: Sequence[Sequence[str]]) -> Iterator[Sequence[str]]:
    """Wait for a group of GPUs of which no other trial of this user on this machine takes one, and hold their locks.

    parallel's own slot numbers run over all hosts; locks also keep off GPUs where a trial outlived a search that was
    killed, for what this process starts with ``close_fds=False`` holds them too. The loop is needed, since no call
    waits for the first of several locks, and waiting for one of them would leave another GPU idle. It is rare that
    anything is waited for: there are as many slots as groups.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR") or Path.home() / ".cache/clue_benchmark"
    folder = Path(runtime) / f"gpu-locks-{platform.node()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        for gpus in groups:
            with contextlib.ExitStack() as held:
                if _lock_all(folder, gpus, held):
                    yield gpus
                    return
        time.sleep(1)


def _lock_all(folder: Path, gpus: Sequence[str], held: contextlib.ExitStack) -> bool:
    for gpu in sorted(gpus):
        name = "".join(letter if letter.isalnum() else "_" for letter in gpu)
        file = held.enter_context(open(folder / name, "a"))  # noqa: SIM115
        if not trial.lock(file, wait=False):
            return False
        os.set_inheritable(file.fileno(), True)
    return True
