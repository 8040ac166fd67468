"""What a search shows while it runs: a live screen in a terminal, lines with a clock elsewhere. Imports no Paddle."""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from clue_utils.cli import duration
from clue_utils.grid.outcomes import clean, read_trials, winner
from clue_utils.grid.progress import Progress, State
from clue_utils.language import say
from clue_utils.project import as_typed
from clue_utils.tasks import KNOWN, TASKS

# Seconds from one look at the records to the next, and from one line that says how far a search is to the next.
INTERVAL, HEARTBEAT = 3.0, 300.0
# Seconds within which a warning is seen.
_TICK = 0.2
_BAR = 30
# Lines of the screen that are no trial's: title, bar, names of the columns, two blank ones, "and more".
_OTHER_LINES = 6


def clock() -> str:
    return time.strftime("%H:%M:%S")


def _percent(score: float | None) -> str:
    return "" if score is None else f"{100 * score:.2f}"


def _run_name(state: State) -> str:
    return state.trial.folder.partition("/")[2]


def counts_line(progress: Progress) -> str:
    """``12 of 134 ended (11 finished, 1 failed), 8 running``."""
    ended = [
        say("{number} {status}", number=number, status=say(status))
        for status, number in sorted(progress.counts.items())
        if _is_end(status)
    ]
    return say(
        "{number} of {all} ended{detail}, {running} running",
        number=progress.num_ended,
        all=len(progress.states),
        detail=say(" ({names})", names=say(", ").join(ended)) if ended else "",
        running=len(progress.running),
    )


def _is_end(status: str) -> bool:
    return status not in ("running", "waiting")


def left_text(progress: Progress) -> str:
    """How long the search still takes, in words; "" where there is nothing to say of that."""
    if progress.num_ended == len(progress.states):
        return ""
    if progress.seconds_left is None:
        return say("time left not known yet")
    return say("about {time} left", time=duration(progress.seconds_left))


def best_text(progress: Progress) -> str:
    """The best score of each task so far, in percent: ``TNEWS 56.12, C3 71.03``."""
    return ", ".join(f"{task} {_percent(state.score)}" for task, state in progress.best().items())


def render(title: str, progress: Progress, height: int = 24, note: str = "") -> RenderableType:
    """The screen: how far the search is, what each trial that runs is at, the best scores so far.

    Args:
        height: lines of the terminal; what does not fit is counted.
        note: a line that has to be seen, such as that the search is being stopped.
    """
    share = progress.share or 0.0
    # Letters of which every terminal knows the width: in a Chinese one those for lines may take two columns.
    done = round(share * _BAR)
    bar = Text("=" * done, style="green") + Text("-" * (_BAR - done), style="bright_black")
    head = [Text(f"{clean(title)}: {counts_line(progress)}", style="bold")]
    head.append(bar + Text(f" {100 * share:.0f} %  {left_text(progress)}"))
    best = Text(say("best so far: {best}", best=best_text(progress) or say("nothing scored yet")))
    if note:
        head.append(Text(note, style="bold yellow"))
    best_lines = 1 + best.cell_len // 80
    room = max(1, height - _OTHER_LINES - len(head) - best_lines)
    table = Table(box=None, pad_edge=False, padding=(0, 1), collapse_padding=True, header_style="bright_black")
    table.add_column(say("task"), no_wrap=True)
    table.add_column(say("trial"), no_wrap=True, overflow="ellipsis")
    for name in (say("step"), say("done"), "loss", say("best"), say("left")):
        table.add_column(name, justify="right", no_wrap=True)
    for state in progress.running[:room]:
        left = "" if state.seconds_left is None else duration(state.seconds_left)
        table.add_row(state.trial.task, _run_name(state), *_numbers(state), _percent(state.score), left)
    parts: list[RenderableType] = [*head]
    if progress.running:
        parts += [Text(""), table]
    if len(progress.running) > room:
        parts.append(Text(say("and {number} more", number=len(progress.running) - room)))
    return Group(*parts, Text(""), best)


def _numbers(state: State) -> tuple[str, str, str]:
    if state.step is None or not state.num_steps:
        return say("starting"), "", ""
    loss = "" if state.loss is None else f"{state.loss:.4f}"
    return f"{state.step}/{state.num_steps}", f"{100 * state.step / state.num_steps:.0f} %", loss


class Screen:
    """Shows how far a search is, from the records, as long as ``shown`` lasts.

    Args:
        title: names the search.
        read: looks at the records.
        console: by default standard output. Where it is no terminal, lines come: when a trial begins, and now and then
            how far the search is.
    """

    def __init__(self, title: str, read: Callable[[], Progress], console: Console | None = None) -> None:
        self._title, self._read = title, read
        # Said outright: what else may be in the environment, such as FORCE_COLOR, makes no terminal of a pipe.
        is_terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._console = console or Console(highlight=False, force_terminal=is_terminal)
        self._lock = threading.RLock()
        self._is_over = threading.Event()
        self._live: Live | None = None
        self._begun: set[str] = set()
        self._said_at, self.note, self._is_note_said = time.monotonic(), "", False

    @property
    def is_terminal(self) -> bool:
        return self._console.is_terminal

    def say(self, line: str) -> None:
        """Print a line, above the screen in a terminal."""
        with self._lock:
            self._console.print(Text(clean(line)), soft_wrap=True)
            sys.stdout.flush()

    def warn(self, note: str) -> None:
        """Have a line be seen at once; a signal's handler may call it, since it takes no lock and prints nothing."""
        self.note = note

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Look at the records every few seconds, in a thread, and show what they say."""
        self._is_over.clear()
        thread = threading.Thread(target=self._loop, daemon=True)
        with contextlib.ExitStack() as stack:
            if self.is_terminal:
                live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stdout=False)
                self._live = stack.enter_context(live)
            thread.start()
            try:
                yield
            finally:
                self._is_over.set()
                thread.join()
                self._live = None

    def _loop(self) -> None:
        looked, noted = -math.inf, self.note
        while not self._is_over.wait(_TICK):
            if time.monotonic() - looked < INTERVAL and self.note == noted:
                continue
            looked, noted = time.monotonic(), self.note
            with contextlib.suppress(Exception):  # a screen that fails is no reason to lose a search
                self.show(self._read())

    def show(self, progress: Progress) -> None:
        """Show what a search is at."""
        with self._lock:
            if self._live:
                self._live.update(render(self._title, progress, self._console.size.height, self.note), refresh=True)
            else:
                self._print_news(progress)

    def _print_news(self, progress: Progress) -> None:
        if self.note and not self._is_note_said:
            self._is_note_said = True
            self.say(f"{clock()} {self.note}")
        for state in progress.running:
            if state.trial.folder not in self._begun:
                self._begun.add(state.trial.folder)
                self.say(f"{clock()} {say('{trial} runs', trial=state.trial.folder)}")
        if time.monotonic() - self._said_at >= HEARTBEAT:
            self._said_at = time.monotonic()
            self.say(f"{clock()} {status_line(progress)}")


def status_line(progress: Progress) -> str:
    """How far a search is, in a line: what has ended, what runs and where, the time left, the best scores."""
    steps = [
        f"{state.trial.folder} {f'{state.step}/{state.num_steps}' if state.step else say('starting')}"
        for state in progress.running[:4]
    ]
    more = [say("{number} more", number=len(progress.running) - 4)] if len(progress.running) > 4 else []
    parts = [counts_line(progress), left_text(progress)]
    parts += [say("runs: {trials}", trials=say(", ").join(steps + more))] if steps else []
    parts += [say("best so far: {best}", best=best_text(progress))] if progress.best() else []
    return say("; ").join(filter(None, parts))


def watch(title: str, read: Callable[[], Progress], console: Console | None = None) -> None:
    """Show a search that another program runs until it has ended, or Ctrl-C comes.

    Raises:
        UserError: of ``read``, at the first look.
    """
    screen = Screen(title, read, console)
    progress = read()
    try:
        if progress.num_ended < len(progress.states):
            if not screen.is_terminal:
                screen.say(f"{clock()} {clean(title)}: {status_line(progress)}")
            with screen.shown():
                while progress.num_ended < len(progress.states):
                    time.sleep(INTERVAL)
                    progress = read()
                    idle = say("no trial runs at the moment; Ctrl-C ends this screen")
                    screen.note = "" if progress.running else idle
    except KeyboardInterrupt:
        screen.say(say("no longer watched; the search goes on"))
        return
    screen.say(f"{clock()} {clean(title)}: {status_line(progress)}")


def best_scores(folder: Path, names: Iterable[str]) -> list[str]:
    """What is said after a search: the winner of each of these tasks among a model's trials."""
    found = [winner(read_trials(folder / name, KNOWN[name])[0]) for name in names]
    winners = [one for one in found if one]
    width = max([len(one.task.name) for one in winners], default=0)
    rows = [one.folder.partition("/") for one in winners]
    lines = [
        f"  {name:<{width}}  {_percent(one.score):>6}  {run}" for one, (name, _, run) in zip(winners, rows, strict=True)
    ]
    return [say("best score of each task, in percent:"), *lines] if lines else []


def next_commands(folder: Path, flags: Sequence[str], names: Iterable[str] = TASKS) -> list[str]:
    """What to type after a search.

    Args:
        folder: of the model's trials.
        flags: of every trial, as words.
        names: of its tasks. The test sets of a user's are predicted by its script, and nothing is zipped.
    """
    data = [word for word in flags if word.startswith("--data_dir=")]
    if "--data_dir" in flags:
        begin = flags.index("--data_dir")
        data = [*flags[begin : begin + 2]]
    report = ["bash", "scripts/report.sh", str(folder)]
    predict = ["bash", "scripts/predict_and_zip.sh", str(folder), *(["--", *data] if data else [])]
    commands = [report, *([predict] if {*names} & {*TASKS} else [])]
    for task in (KNOWN[name] for name in names if name not in TASKS):
        best = winner(read_trials(folder / task.name, task)[0])
        if best and best.path and best.has_checkpoint:
            place = ["--model_name_or_path", str(best.path), "--output_dir", str(best.path)]
            commands.append(["python", task.script, *task.words, *place, "--do_predict"])
    return [say("next:"), *(f"  {as_typed(shlex.join(command))}" for command in commands)]
