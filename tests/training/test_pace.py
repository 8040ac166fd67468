"""How long a training still takes, and how a run says so."""

from __future__ import annotations

import io
import re

import pytest

from clue_utils import cli
from clue_utils.training.pace import Pace


def test_evaluations_count_into_the_time_left():
    pace = Pace(10, 3, num_more=1, rows_of_step=8, rows_of_evaluation=240)
    assert pace.num_evaluations == 4 and pace.seconds_left(0) is None
    pace.add_step(99.0)
    pace.add_step(2.0)  # the first one had to set things up
    assert pace.seconds_a_step == 2.0
    # Before one was measured, an evaluation of 30 steps' rows is as long as ten steps.
    assert pace.seconds_left(2) == 8 * 2 + 5 * 20
    pace.add_evaluation(7.0)
    assert pace.seconds_left(3, is_due=True) == 7 * 2 + 5 * 7
    assert pace.seconds_left(3) == 7 * 2 + 4 * 7
    assert pace.seconds_left(9, is_due=True) == 2 + 3 * 7
    assert pace.seconds_left(10, is_due=True) == 2 * 7 and pace.seconds_left(10) == 7


def test_a_machine_that_slows_down_is_believed():
    pace = Pace(10000, 100)
    for seconds in [1.0] * 500 + [3.0] * 200:
        pace.add_step(seconds)
    for seconds in (5.0, 8.0, 8.0, 8.0):
        pace.add_evaluation(seconds)
    assert pace.seconds_left(9900) == pytest.approx(100 * 3 + 8)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_long_work_speaks_once_a_minute_where_there_is_no_terminal(stream, monkeypatch, caplog):
    monkeypatch.setattr(cli.sys, "stdout", stream())
    now = iter([0.0, 30.0, 61.0, 100.0, 125.0])
    with caplog.at_level("INFO", logger="clue_utils"):
        pulse = cli.Pulse("evaluating", 10, "batches", clock=now.__next__)
        for _ in range(4):
            pulse.advance(2)
    said = [re.sub(r"\d\d:\d\d:\d\d", "CLOCK", message) for message in caplog.messages]
    assert said == (
        []
        if stream is Terminal
        else [
            "CLOCK evaluating: 4 of 10 batches, about 92 s left",
            "CLOCK evaluating: 8 of 10 batches, about 31 s left",
        ]
    )


def test_times_for_people():
    assert [cli.duration(seconds) for seconds in (-3, 0.4, 119.4, 120, 7199, 11100)] == [
        "0 s",
        "0 s",
        "119 s",
        "2 min",
        "119 min",
        "3 h 5 min",
    ]
