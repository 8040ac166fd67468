"""The report as one page of HTML: no network, no script, legible on a phone, in the dark and on paper.

Every text reaches the page through Jinja's autoescaping; nothing is marked as safe.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from clue_utils import tasks
from clue_utils.grid.outcomes import Outcome
from clue_utils.report import tables
from clue_utils.report.collect import ModelReport, setting_text
from clue_utils.report.tables import NOTHING, duration, percent

# Colours of the two schemes: page, text, quieter text, rules, the winner's accent, the other curves, and the heat
# map's steps from low to high, each with the colour of the text on it.
LIGHT: Mapping[str, str] = {
    "page": "#ffffff", "panel": "#f6f7f9", "ink": "#17202b", "quiet": "#566272", "rule": "#d9dee5",
    "accent": "#b3470a", "curve": "#8592a3",
    "heat0": "#edf4fb", "heat1": "#d5e5f5", "heat2": "#b4d1ec", "heat3": "#8ab8e0",
    "heat4": "#5f9cd0", "heat5": "#2f6fae", "heat6": "#154a80",
    "on0": "#17202b", "on1": "#17202b", "on2": "#17202b", "on3": "#17202b",
    "on4": "#0b1622", "on5": "#ffffff", "on6": "#ffffff",
}  # fmt: skip
DARK: Mapping[str, str] = {
    "page": "#12171e", "panel": "#1a212a", "ink": "#e6ebf1", "quiet": "#9ba8b7", "rule": "#323c48",
    "accent": "#ffa25c", "curve": "#6c7a8c",
    "heat0": "#18283a", "heat1": "#1d354f", "heat2": "#234669", "heat3": "#2c5b89",
    "heat4": "#5c9bd1", "heat5": "#86bbe6", "heat6": "#bcdcf7",
    "on0": "#e6ebf1", "on1": "#e6ebf1", "on2": "#e6ebf1", "on3": "#f2f6fa",
    "on4": "#0b1622", "on5": "#0b1622", "on6": "#0b1622",
}  # fmt: skip
NUM_HEATS = 7
# Size of a chart in CSS pixels and the room around its plot: it is shown near this size on a phone too.
WIDTH, HEIGHT = 320, 190
LEFT, RIGHT, TOP, BOTTOM = 38, 14, 10, 24


def to_html(models: Sequence[ModelReport], now: datetime.datetime | None = None) -> str:
    """The whole page; ``now`` is the time it states, the present one if not given."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    now = now or datetime.datetime.now(datetime.timezone.utc)
    return environment.get_template("page.html.jinja").render(
        light=LIGHT,
        dark=DARK,
        num_heats=NUM_HEATS,
        models=[_model(model) for model in models],
        title="CLUE results: " + ", ".join(model.name for model in models),
        tables=[tables.score_table(models), tables.setting_table(models)],
        notes=tables.notes(models),
        now=now.strftime("%Y-%m-%d %H:%M UTC"),
        width=WIDTH,
        height=HEIGHT,
    )


def _model(model: ModelReport) -> dict[str, Any]:
    """What the template shows of one model."""
    finished = model.with_status("finished")
    average = model.average()
    figures = []
    if average is not None:
        mean, count = average
        figures.append((percent(mean), f"mean of {count} task{'s' if count > 1 else ''}"))
    by_rule = model.average(by_published_rule=True)
    if model.published and by_rule and by_rule[1] == len(tasks.TASKS):
        mark = tables.RULE_MARK
        figures.append((percent(by_rule[0]) + mark, "by the published rules"))
        figures.append((f"{model.published.average:.2f}{mark}", "published"))
    figures += [
        (str(len(finished)), f"of {len(model.outcomes)} trials finished"),
        (f"{sum(outcome.gpu_hours for outcome in model.outcomes):.1f}", "GPU-hours"),
    ]
    return {
        "name": model.name,
        "figures": figures,
        "details": [tables.uncertainty_table(model), tables.cost_table(model)],
        "tasks": [_task(model, name) for name in model.tasks_with_trials],
        "warnings": model.doubts,
        "problems": tables.problems(model),
    }


def _task(model: ModelReport, name: str) -> dict[str, Any]:
    outcomes = model.of_task(name)
    winner = model.winners[name]
    with_dropout = model.searches_dropout(name)
    setting = setting_text(winner.trial, with_dropout) if winner and winner.trial else ""
    started = [outcome for outcome in outcomes if outcome.status != "missing"]
    finished = sum(outcome.status == "finished" for outcome in started)
    seconds = sum(outcome.record.wall_time for outcome in started)
    return {
        "name": name,
        "metric": "EM" if tasks.TASKS[name].metric == "em" else tasks.TASKS[name].metric,
        "score": tables.own_score(winner),
        "setting": setting,
        "summary": f"{finished} of {len(outcomes)} trials finished, {duration(seconds)}",
        "maps": heat_maps(outcomes, winner, with_dropout),
        "chart": chart(outcomes, winner, with_dropout),
    }


def heat_maps(outcomes: Sequence[Outcome], winner: Outcome | None, with_dropout: bool) -> list[dict[str, Any]]:
    """Best finished score by learning rate and batch size, a map for each dropout; one colour scale for all of them.

    Axes have the values of trials that were started. A cell without a finished trial says what became of it.
    """
    known = [outcome for outcome in outcomes if outcome.trial is not None]
    started = [outcome.trial for outcome in known if outcome.trial and outcome.status != "missing"]
    scores = [outcome.score for outcome in known if outcome.status == "finished" and outcome.score is not None]
    rates = sorted({trial.learning_rate for trial in started})
    batch_sizes = sorted({trial.batch_size for trial in started})

    def cell(rate: float, batch_size: int, dropout: float) -> dict[str, Any]:
        there = [outcome for outcome in known if outcome.trial and outcome.trial[1:4] == (rate, batch_size, dropout)]
        found = [outcome.score for outcome in there if outcome.status == "finished" and outcome.score is not None]
        if not found:
            status = min((outcome.status for outcome in there), default=NOTHING)
            return {"text": NOTHING if status == "missing" else status, "heat": None, "best": False}
        best = any(outcome is winner for outcome in there)
        return {"text": percent(max(found)), "heat": _heat(max(found), min(scores), max(scores)), "best": best}

    maps = []
    for dropout in sorted({trial.dropout for trial in started}, reverse=True):
        rows = []
        for rate in rates:
            label = next(setting_text(trial, False).split(",")[0] for trial in started if trial.learning_rate == rate)
            rows.append({"rate": label, "cells": [cell(rate, batch_size, dropout) for batch_size in batch_sizes]})
        caption = f"dropout {dropout:g}" if with_dropout else ""
        maps.append({"caption": caption, "batch_sizes": batch_sizes, "rows": rows})
    return maps


def _heat(score: float, low: float, high: float) -> int:
    """The step of the colour scale, 0 to ``NUM_HEATS - 1``; the middle one where all scores are equal."""
    return round((score - low) / (high - low) * (NUM_HEATS - 1)) if high > low else NUM_HEATS // 2


def chart(outcomes: Sequence[Outcome], winner: Outcome | None, with_dropout: bool) -> dict[str, Any] | None:
    """Lines, ticks and labels of a task's learning curves, in pixels; None where nothing was evaluated."""
    drawn = [outcome for outcome in outcomes if outcome.record.history]
    if not drawn:
        return None
    values = [100 * score for outcome in drawn for _, score in outcome.record.history]
    margin = 0.0 if max(values) > min(values) else 1.0  # a single evaluation stands in the middle
    y_ticks = _ticks(max(0.0, min(values) - margin), min(100.0, max(values) + margin))
    low, high = min(y_ticks[0], min(values)), max(y_ticks[-1], max(values))
    last = max(step for outcome in drawn for step, _ in outcome.record.history)
    x_ticks = [tick for tick in _ticks(0, last) if tick <= last]

    def x(step: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * step / (last or 1), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low), 1)

    lines = []
    for outcome in sorted(drawn, key=lambda outcome: outcome is winner):  # the winner last, on top
        points = [(x(step), y(100 * score)) for step, score in outcome.record.history]
        setting = setting_text(outcome.trial, with_dropout) if outcome.trial else outcome.folder
        seed = f", seed {outcome.trial.seed}" if outcome.trial else ""
        best = max(score for _, score in outcome.record.history)
        lines.append({
            "points": " ".join(f"{px},{py}" for px, py in points),
            "dots": points if len(points) <= 10 and (outcome is winner or len(drawn) <= 12 or len(points) == 1) else [],
            "kind": "best" if outcome is winner else "whole" if outcome.status == "finished" else "part",
            "title": f"{setting}{seed}: {percent(best)}, {outcome.status}",
        })  # fmt: skip
    return {
        "lines": lines,
        "x_ticks": [{"at": x(tick), "text": f"{tick:,g}"} for tick in x_ticks],
        "y_ticks": [{"at": y(tick), "text": f"{tick:g}"} for tick in y_ticks],
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "bottom": HEIGHT - BOTTOM,
        "num_curves": len(drawn),
        "some_stopped": any(line["kind"] == "part" for line in lines),
    }


def _ticks(low: float, high: float, at_most: int = 5) -> list[float]:
    """Round numbers around ``low`` to ``high``, 2 to ``at_most + 2`` of them, evenly spaced."""
    span = high - low or abs(high) * 0.1 or 1.0
    size = 10.0 ** math.floor(math.log10(span / at_most))
    step = next(size * factor for factor in (1, 2, 5, 10, 20) if span / (size * factor) <= at_most)
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    return [round(i * step, 10) for i in range(first, last + 1)]
