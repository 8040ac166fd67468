"""Signals: each ends a program, in order, wherever it is."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tqdm import tqdm

from clue_utils import cli, environment
from clue_utils.errors import Stopped
from clue_utils.training.stopping import StopRequest


class Sending:
    """Sends this process a signal when it is destroyed, where no exception can pass."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)
        for _ in range(10_000):  # Python looks for signals now and then
            pass


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_a_destructor_is_not_lost(run_script, monkeypatch, number, status):
    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: lost.append(found.exc_type))

    def main(_):
        Sending(number)
        print("goes on")
        cli.check_stop()
        print("never")

    assert run_script(main)[:2] == (status, "goes on\n")
    assert len(lost) == 1
    cli.check_stop()  # the next program of this process has not been asked


def test_signals_reach_their_handlers_after_the_libraries_are_imported(monkeypatch):
    """PaddleNLP has SIGTERM end the process, below Python."""

    def handled():
        masks = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
        return bool(int(masks["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1)

    def import_module(name):
        ctypes.CDLL(None).signal(int(signal.SIGTERM), None)
        assert not handled()
        return SimpleNamespace(logger=SimpleNamespace(set_level=lambda level: None))

    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        monkeypatch.setattr(environment.importlib, "import_module", import_module)
        monkeypatch.setattr(environment, "home_for_libraries", lambda: contextlib.nullcontext(False))
        environment.import_libraries()
        assert handled()
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("number", "more"), [(signal.SIGTERM, ""), (signal.SIGINT, "; Ctrl-C again ends it as it is")])
def test_whoever_stops_a_training_is_answered_at_once(capfd, number, more):
    with pytest.raises(Stopped), StopRequest() as stop:
        os.kill(os.getpid(), number)
        assert stop.asked == number
        assert capfd.readouterr().err == f"stopping after this step and a checkpoint{more}\n"


def test_what_another_library_logs_stands_above_a_bar(capsys):
    handler = logging.StreamHandler()
    handler.setStream(cli.AboveBars())
    with tqdm(total=2, file=sys.stderr, ascii=True, desc="bar") as bar:
        bar.update()
        handler.emit(logging.makeLogRecord({"msg": "a line"}))
    before, line, rest = capsys.readouterr().err.partition("a line\n")
    assert line and before.endswith(" \r") and rest.startswith("\r" + "bar")  # the bar is wiped out and drawn anew
