"""The report as one page of HTML: no network, no script, legible on a phone, in the dark and on paper.

Every text reaches the page through Jinja's autoescaping; nothing is marked as safe.
"""

from __future__ import annotations

import datetime
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import jinja2

from clue_utils import language, tasks
from clue_utils.grid.outcomes import STATUSES, Outcome
from clue_utils.language import say
from clue_utils.record import Record
from clue_utils.report import tables, verdict
from clue_utils.report.collect import ModelReport, by_setting, setting_of, setting_text
from clue_utils.report.tables import NOTHING, Table, duration, percent
from clue_utils.report.uncertainty import interval

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
WIDTH, HEIGHT = 320, 216
LEFT, RIGHT, TOP, BOTTOM = 38, 14, 24, 38
# Of the chart of scores against cost, and the height and the width of a letter of its labels.
COST_WIDTH, COST_HEIGHT = 640, 300
_LINE, _LETTER = 13, 6.2
# Evaluations before this share of a training do not set the range of a chart: what matters is where the curves end.
_EARLY = 0.5
# What HTML calls the languages.
LANGUAGE_TAGS = {"en": "en", "zh": "zh-CN"}


def environment() -> jinja2.Environment:
    """What renders the templates beside this module."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def to_html(
    models: Sequence[ModelReport], now: datetime.datetime | None = None, comparisons: Sequence[Table] = ()
) -> str:
    """The whole page, in the language of :func:`language.current`.

    Args:
        now: the time that the page states, the present one if not given.
        comparisons: tables of models against each other, which stand below the scores.
    """
    now = now or datetime.datetime.now(datetime.timezone.utc)
    template = environment().get_template("page.html.jinja")
    return template.render(
        say=say,
        language=LANGUAGE_TAGS[language.current()],
        light=LIGHT,
        dark=DARK,
        num_heats=NUM_HEATS,
        models=[_model(model) for model in models],
        title=say("{title}: {text}", title=say("CLUE results"), text=say(", ").join(model.name for model in models)),
        tables=[tables.score_table(models), tables.setting_table(models)],
        comparisons=comparisons,
        facts=tables.model_table(models),
        costs=cost_chart(models),
        notes=tables.notes(models) + verdict.notes(models),
        now=now.strftime("%Y-%m-%d %H:%M UTC"),
        width=WIDTH,
        height=HEIGHT,
        cost_width=COST_WIDTH,
        cost_height=COST_HEIGHT,
    )


def _model(model: ModelReport) -> dict[str, Any]:
    """What the template shows of one model."""
    finished = model.with_status("finished")
    average = model.average()
    figures = []
    if average is not None:
        mean, count = average
        figures.append((percent(mean), say("mean of {count} of {all} tasks", count=count, all=len(model.averaged))))
    by_rule = model.average(by_published_rule=True)
    if model.published and by_rule and by_rule[1] == len(tasks.TASKS):
        mark = tables.RULE_MARK
        figures.append((percent(by_rule[0]) + mark, say("by the published rules")))
        figures.append((f"{model.published.average:.2f}{mark}", say("published")))
    figures += [
        (str(len(finished)), say("of {count} runs finished", count=len(model.outcomes))),
        (f"{sum(outcome.gpu_hours for outcome in model.outcomes):.1f}", say("GPU-hours")),
    ]
    return {
        "name": model.name,
        "figures": figures,
        "details": [verdict.verdict_table(model), tables.uncertainty_table(model), tables.cost_table(model)],
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
        "metric": _metric(tasks.KNOWN[name]),
        "score": tables.own_score(model, winner),
        "setting": setting,
        "summary": say(
            "{count} of {all} runs finished, {time}", count=finished, all=len(outcomes), time=duration(seconds)
        ),
        "maps": heat_maps(outcomes, winner, with_dropout, model.choice),
        "chart": chart(outcomes, winner, with_dropout),
    }


def _metric(task: tasks.Task) -> str:
    return say(task.metric) if task.metric == "accuracy" else task.metric.upper()


def heat_maps(
    outcomes: Sequence[Outcome], winner: Outcome | None, with_dropout: bool, choice: str = "best"
) -> list[dict[str, Any]]:
    """Finished scores by learning rate and batch size, a map for each dropout; one colour scale for all of them.

    Axes have the values of trials that were started. A cell shows the best of its seeds, or their mean where that
    chooses the winner; one without a finished trial says what became of it, or that it runs. Colours go from the best
    cell down to :func:`_floor`, at least as far as the noise of the best; what is below has a mark in place of a
    colour. Cells within the winner's interval are marked too.
    """
    known = [outcome for outcome in outcomes if outcome.trial is not None]
    started = [outcome.trial for outcome in known if outcome.trial and outcome.status != "missing"]
    combine = statistics.fmean if choice == "mean" else max
    values = {
        setting: combine(scores)
        for setting, group in by_setting(known).items()
        if (scores := [one.score for one in group if one.status == "finished" and one.score is not None])
    }
    shown = values.get(setting_of(winner)) if winner else None
    high = max(values.values(), default=0.0)
    num_dev = winner.record.num_dev if winner else None
    near = interval(shown, num_dev)[0] if shown is not None and num_dev else math.inf
    low = min(_floor(list(values.values())), high - 2 * (high - near)) if near < high else _floor(list(values.values()))
    rates = sorted({trial.learning_rate for trial in started})
    batch_sizes = sorted({trial.batch_size for trial in started})

    def cell(rate: float, batch_size: int, dropout: float) -> dict[str, Any]:
        there = [one for one in known if one.trial and one.trial[1:4] == (rate, batch_size, dropout)]
        value = values.get(setting_of(there[0])) if there else None
        if value is None:
            statuses = {one.status for one in there}
            status = next((status for status in ("running", *STATUSES) if status in statuses), NOTHING)
            return {"text": NOTHING if status in ("missing", NOTHING) else say(status), "heat": None, "kind": "word"}
        kind = ""
        heat: int | None = _heat(value, low, high)
        if any(one is winner for one in there):
            kind = "best"
        elif value < low:
            kind, heat = "far", None
        elif value >= near:
            kind = "near"
        return {"text": percent(value), "heat": heat, "kind": kind}

    maps = []
    for dropout in sorted({trial.dropout for trial in started}, reverse=True):
        rows = []
        for rate in rates:
            label = next(setting_text(trial, False).split(",")[0] for trial in started if trial.learning_rate == rate)
            rows.append({"rate": label, "cells": [cell(rate, batch_size, dropout) for batch_size in batch_sizes]})
        caption = f"dropout {dropout:g}" if with_dropout else ""
        maps.append({"caption": caption, "batch_sizes": batch_sizes, "rows": rows})
    return maps


def _floor(values: Sequence[float]) -> float:
    """The lowest value that is not far below the others, by Tukey's rule: 1.5 interquartile ranges below the quartile.

    Source: Tukey, "Exploratory Data Analysis" (1977).
    """
    if len(values) < 2:
        return min(values, default=0.0)
    quartile, _, upper = statistics.quantiles(values, n=4, method="inclusive")
    return min(value for value in values if value >= quartile - 1.5 * (upper - quartile))


def _heat(score: float, low: float, high: float) -> int:
    """The step of the colour scale, 0 to ``NUM_HEATS - 1``; the middle one where all scores are equal."""
    return round((score - low) / (high - low) * (NUM_HEATS - 1)) if high > low else NUM_HEATS // 2


@dataclass(frozen=True)
class _Curve:
    """A learning curve in data units: x -> the mean, lowest and highest score over ``num`` seeds, in percent."""

    points: Mapping[float, tuple[float, float, float]]
    kind: str
    title: str
    num: int

    @property
    def top(self) -> float:
        return max(mean for mean, _, _ in self.points.values())


def _epochs_a_step(record: Record) -> float | None:
    """Epochs that one update makes; None where the record does not tell."""
    epochs, limit = record.hyper_parameters.get("num_train_epochs"), record.fields.get("max_steps") or 0
    if record.num_steps and _is_positive(epochs) and not _is_positive(limit):
        return epochs / record.num_steps
    counts = record.fields.get("num_examples")
    num_train = counts.get("train") if isinstance(counts, dict) else None
    batch_size = record.hyper_parameters.get("batch_size")
    if _is_positive(num_train) and _is_positive(batch_size):
        return batch_size * record.num_processes / num_train
    return None


def _is_positive(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e15


def _curves(drawn: Sequence[Outcome], winner: Outcome | None, with_dropout: bool, in_epochs: bool) -> list[_Curve]:
    """Finished seeds of one setting as one curve, all else as curves of their own; the winner's last, on top."""
    groups = [[one] for one in drawn if one.status != "finished" or one.trial is None]
    groups += by_setting(one for one in drawn if one.status == "finished").values()
    curves = []
    for group in groups:
        first = group[0]
        wins = any(one is winner for one in group)
        kind = "best" if wins else "whole" if first.status == "finished" else "part"
        setting = setting_text(first.trial, with_dropout) if first.trial else first.folder
        scale = (_epochs_a_step(first.record) or 1.0) if in_epochs else 1.0
        histories = [dict(one.record.history) for one in group]
        points = {
            step * scale: (100 * statistics.fmean(found), 100 * min(found), 100 * max(found))
            for step in sorted(set(histories[0]).intersection(*histories))
            if (found := [history[step] for history in histories])
        }
        if not points:
            continue
        over = say("mean of {count} seeds", count=len(group))
        seeds = over if len(group) > 1 else say("seed {seed}", seed=first.trial.seed) if first.trial else ""
        best = f"{max(mean for mean, _, _ in points.values()):.2f}"
        title = say("{title}: {text}", title=say(", ").join(filter(None, [setting, seeds])), text=best)
        curves.append(_Curve(points, kind, say(", ").join([title, say(first.status)]), len(group)))
    return sorted(curves, key=lambda curve: ("part", "whole", "best").index(curve.kind))


def chart(outcomes: Sequence[Outcome], winner: Outcome | None, with_dropout: bool) -> dict[str, Any] | None:
    """Lines, band, ticks and labels of a task's learning curves, in pixels; None where nothing was evaluated.

    Scores stand over epochs, or over updates where a record does not tell its epochs. The vertical range is that of the
    curves that are not far below the others, without their beginnings: what is below it is cut off.
    """
    drawn = [outcome for outcome in outcomes if outcome.record.history]
    in_epochs = all(_epochs_a_step(outcome.record) for outcome in drawn)
    curves = _curves(drawn, winner, with_dropout, in_epochs)
    if not curves:
        return None
    last = max(x for curve in curves for x in curve.points)
    floor = _floor([curve.top for curve in curves])
    late = [
        value
        for curve in curves
        if curve.top >= floor
        for x, (mean, lowest, highest) in curve.points.items()
        if x >= _EARLY * last
        for value in ((lowest, highest) if curve.kind == "best" else (mean,))
    ]
    high = max([curve.top for curve in curves] + late)
    low = min(late, default=high)
    margin = 0.0 if high - low > 1e-6 else 1.0  # equal scores stand in the middle; the mean of seeds has rounding
    y_ticks = _ticks(max(0.0, low - margin), min(100.0, high + margin))
    low, high = min(y_ticks[0], low), max(y_ticks[-1], high)
    x_ticks = [tick for tick in _ticks(0, last) if tick <= last * 1.001]

    def x(value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * value / (last or 1), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low), 1)

    def text(points: Iterable[tuple[float, float]]) -> str:
        return " ".join(f"{px},{py}" for px, py in points)

    lines, bands = [], []
    for curve in curves:
        means = [(x(at), y(mean)) for at, (mean, _, _) in curve.points.items()]
        dotted = len(means) <= 10 and (curve.kind == "best" or len(curves) <= 12 or len(means) == 1)
        dots = [point for point in means if point[1] <= HEIGHT - BOTTOM] if dotted else []
        lines.append({"points": text(means), "dots": dots, "kind": curve.kind, "title": curve.title})
        if curve.kind == "best" and curve.num > 1:
            upper = [(x(at), y(highest)) for at, (_, _, highest) in curve.points.items()]
            lower = [(x(at), y(lowest)) for at, (_, lowest, _) in curve.points.items()]
            bands.append(text(upper + lower[::-1]))
    return {
        "lines": lines,
        "bands": bands,
        "x_ticks": [{"at": x(tick), "text": f"{tick:,g}"} for tick in x_ticks],
        "y_ticks": [{"at": y(tick), "text": f"{tick:g}"} for tick in y_ticks],
        "x_title": say("epochs") if in_epochs else say("updates"),
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "top": TOP,
        "bottom": HEIGHT - BOTTOM,
        "num_curves": len(curves),
        "num_seeds": next((curve.num for curve in curves if curve.kind == "best"), 0),
        "has_others": any(curve.kind == "whole" for curve in curves),
        "some_stopped": any(curve.kind == "part" for curve in curves),
        "is_cut": any(mean < low for curve in curves for mean, _, _ in curve.points.values()),
    }


def cost_chart(models: Sequence[ModelReport]) -> dict[str, Any] | None:
    """Mean score over what the winners' trainings took, a point for each model, in pixels.

    Means and costs are over the tasks that all models have; None for a single model, or where none are.
    """
    common = [name for name in tasks.KNOWN if all(model.winners[name] for model in models)]
    found = [
        (model.name, cost, 100 * average[0])
        for model in models
        if (cost := model.winners_gpu_hours(common)) > 0 and (average := model.average(over=common))
    ]
    if len(found) < 2:
        return None
    hours = [cost for _, cost, _ in found]
    scores = [score for _, _, score in found]
    y_ticks = _ticks(min(scores), max(scores))
    is_log = max(hours) > 8 * min(hours)
    x_ticks = _log_ticks(min(hours), max(hours)) if is_log else _ticks(0, max(hours))
    left, right, top, bottom = LEFT + 4, COST_WIDTH - RIGHT, TOP, COST_HEIGHT - BOTTOM

    def place(cost: float) -> float:
        return math.log10(cost) if is_log else cost

    def x(cost: float) -> float:
        share = (place(cost) - place(x_ticks[0])) / (place(x_ticks[-1]) - place(x_ticks[0]))
        return round(left + (right - left) * share, 1)

    def y(score: float) -> float:
        return round(bottom - (bottom - top) * (score - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]), 1)

    points = [
        (name, x(cost), y(score), say("{name}: {score:.2f}, {cost:.2f} GPU-hours", name=name, score=score, cost=cost))
        for name, cost, score in found
    ]
    return {
        "points": _labelled(points, right),
        "x_ticks": [{"at": x(tick), "text": f"{tick:,g}"} for tick in x_ticks],
        "y_ticks": [{"at": y(tick), "text": f"{tick:g}"} for tick in y_ticks],
        "left": left,
        "right": right,
        "bottom": bottom,
        "is_log": is_log,
        "num_tasks": len(common),
    }


def _labelled(points: Sequence[tuple[str, float, float, str]], right: float) -> list[dict[str, Any]]:
    """Points with a label each, beside its point and moved up or down until it lies on no other."""
    taken = [(px - 5, px + 5, py) for _, px, py, _ in points]
    placed = []
    for name, px, py, title in sorted(points, key=lambda point: point[2]):
        name = name if len(name) <= 32 else f"…{name[-31:]}"
        width = _LETTER * sum(2 if ord(letter) > 0x2E80 else 1 for letter in name)
        to_left = px + 8 + width > right + RIGHT
        begin = px - 8 - width if to_left else px + 8
        shift = 0
        for shift in (0, *(sign * step * _LINE for step in range(1, 9) for sign in (1, -1))):
            others = [box for box in taken if box != (px - 5, px + 5, py)]
            free = all(begin > high or begin + width < low or abs(py + shift - at) >= _LINE for low, high, at in others)
            if free:
                break
        taken.append((begin, begin + width, py + shift))
        placed.append({
            "name": name, "x": px, "y": py, "title": title, "label_x": px - 8 if to_left else px + 8,
            "label_y": py + shift, "anchor": "end" if to_left else "start",
        })  # fmt: skip
    return placed


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten around ``low`` to ``high``, both more than 0."""
    ticks = [factor * 10.0**power for power in range(-9, 12) for factor in (1, 2, 5)]
    first = max(i for i, tick in enumerate(ticks) if tick <= max(low, ticks[0]))
    last = min(i for i, tick in enumerate(ticks) if tick >= min(high, ticks[-1]))
    return ticks[first : max(last, first + 1) + 1]


def _ticks(low: float, high: float, at_most: int = 5) -> list[float]:
    """Round numbers around ``low`` to ``high``, 2 to ``at_most + 2`` of them, evenly spaced.

    What differs by rounding alone, as means of equal scores do, counts as equal.
    """
    low, high = round(low, 9), round(high, 9)
    span = high - low or abs(high) * 0.1 or 1.0
    size = 10.0 ** math.floor(math.log10(span / at_most))
    step = next(size * factor for factor in (1, 2, 5, 10, 20) if span / (size * factor) <= at_most)
    first = math.floor(round(low / step, 6))
    last = max(math.ceil(round(high / step, 6)), first + 1)
    return [round(i * step, 10) for i in range(first, last + 1)]
