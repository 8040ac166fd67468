"""The report as one page of HTML: no network, no script, legible on a phone, in the dark and on paper.

Every text reaches the page through Jinja's autoescaping; nothing is marked as safe.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from clue_utils import report_tables, tasks
from clue_utils.report import ModelReport, Outcome, setting_text
from clue_utils.report_tables import NOTHING, duration, percent

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
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    now = now or datetime.datetime.now(datetime.timezone.utc)
    return environment.from_string(_TEMPLATE).render(
        light=LIGHT,
        dark=DARK,
        num_heats=NUM_HEATS,
        models=[_model(model) for model in models],
        title="CLUE results: " + ", ".join(model.name for model in models),
        tables=[report_tables.score_table(models), report_tables.setting_table(models)],
        notes=report_tables.notes(models),
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
    looser = model.average(looser=True)
    if model.published and looser and looser[1] == len(tasks.TASKS):
        mark = report_tables.LOOSER_MARK
        figures.append((percent(looser[0]) + mark, "with the looser CMRC2018"))
        figures.append((f"{model.published.average:.2f}{mark}", "published"))
    figures += [
        (str(len(finished)), f"of {len(model.outcomes)} trials finished"),
        (f"{sum(outcome.card_hours for outcome in model.outcomes):.1f}", "card-hours"),
    ]
    return {
        "name": model.name,
        "figures": figures,
        "details": [report_tables.uncertainty_table(model), report_tables.cost_table(model)],
        "tasks": [_task(model, name) for name in tasks.TASKS if _has_trials(model, name)],
        "warnings": model.doubts,
        "problems": report_tables.problems(model),
    }


def _has_trials(model: ModelReport, task_name: str) -> bool:
    return any(outcome.status != "missing" for outcome in model.of_task(task_name))


def _task(model: ModelReport, name: str) -> dict[str, Any]:
    outcomes = model.of_task(name)
    winner = model.winner(name)
    with_dropout = model.searches_dropout(name)
    setting = setting_text(winner.trial, with_dropout) if winner and winner.trial else ""
    started = [outcome for outcome in outcomes if outcome.status != "missing"]
    finished = sum(outcome.status == "finished" for outcome in started)
    seconds = sum(outcome.wall_time for outcome in started)
    return {
        "name": name,
        "metric": "EM" if tasks.TASKS[name].metric == "em" else tasks.TASKS[name].metric,
        "score": report_tables.own_score(winner),
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
    drawn = [outcome for outcome in outcomes if outcome.history]
    if not drawn:
        return None
    values = [100 * score for outcome in drawn for _, score in outcome.history]
    margin = 0.0 if max(values) > min(values) else 1.0  # a single evaluation stands in the middle
    y_ticks = _ticks(max(0.0, min(values) - margin), min(100.0, max(values) + margin))
    low, high = min(y_ticks[0], min(values)), max(y_ticks[-1], max(values))
    last = max(step for outcome in drawn for step, _ in outcome.history)
    x_ticks = [tick for tick in _ticks(0, last) if tick <= last]

    def x(step: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * step / (last or 1), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low), 1)

    lines = []
    for outcome in sorted(drawn, key=lambda outcome: outcome is winner):  # the winner last, on top
        points = [(x(step), y(100 * score)) for step, score in outcome.history]
        setting = setting_text(outcome.trial, with_dropout) if outcome.trial else outcome.folder
        seed = f", seed {outcome.trial.seed}" if outcome.trial else ""
        best = max(score for _, score in outcome.history)
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


_TEMPLATE = """\
{% macro table(table, class) %}
<div class="scroll" role="region" tabindex="0" aria-label="{{ table.title }}">
<table class="{{ class }}{{ " texts" if table.num_texts }}">
<caption><span>{{ table.title }}</span></caption>
<thead><tr>{% for name in table.header %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}
<tr{% if row.kind %} class="{{ row.kind }}"{% endif %}><th scope="row">{{ row.label }}</th>\
{% for cell in row.cells %}<td{% if loop.index0 in row.best %} class="lead" title="best of the models"{% endif %}>\
{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endmacro %}
{% macro colours(scheme) %}{% for name, colour in scheme.items() %}--{{ name }}:{{ colour }};{% endfor %}{% endmacro %}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; {{ colours(light) }} }
@media screen and (prefers-color-scheme: dark) { :root { {{ colours(dark) }} } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 2.5rem 1rem 4rem; background: var(--page); color: var(--ink);
  font: 0.9375rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Noto Sans CJK SC", "PingFang SC",
  "Microsoft YaHei", sans-serif; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
h1, h2, h3 { font-weight: 600; line-height: 1.25; margin: 0; }
h1 { font-size: 1.75rem; letter-spacing: -0.015em; }
h2 { font-size: 1.375rem; letter-spacing: -0.01em; }
h3 { font-size: 1rem; }
p { margin: 0; }
.quiet, footer { color: var(--quiet); }
.key-line { margin-top: 0.5rem; }
.small, footer { font-size: 0.8125rem; }
section { margin-top: 2.5rem; }
section.model { margin-top: 3.5rem; padding-top: 1.75rem; border-top: 2px solid var(--ink); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, max-content)); gap: 0.75rem 2.5rem;
  margin: 1rem 0 0; }
.figures div { display: flex; flex-direction: column-reverse; justify-content: flex-end; }
.figures dd { margin: 0; font-size: 1.5rem; font-weight: 600; line-height: 1.2; }
.figures dt { color: var(--quiet); font-size: 0.8125rem; }
.scroll { position: relative; overflow-x: auto; margin-top: 1.75rem; }
.scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
table { border-collapse: collapse; font-size: 0.8125rem; line-height: 1.4; }
caption { text-align: left; font-weight: 600; font-size: 0.9375rem; padding-bottom: 0.5rem; }
caption span { position: sticky; left: 0; display: inline-block; max-width: calc(100vw - 2rem); }
th, td { padding: 0.375rem 0.625rem; text-align: right; white-space: nowrap; }
.wide { width: 100%; }
.wide thead th { color: var(--quiet); font-weight: 500; border-bottom: 1px solid var(--ink); vertical-align: bottom; }
.wide td, .wide tbody th { border-bottom: 1px solid var(--rule); }
.wide th:first-child { position: sticky; left: 0; background: var(--page); text-align: left; padding-left: 0; }
.wide tbody th { font-weight: 400; white-space: normal; min-width: 7.5rem; max-width: 16rem; }
.wide tr.own th, .wide tr.own td, .wide tr.total th, .wide tr.total td { font-weight: 600; }
.wide tr.looser th, .wide tr.looser td, .wide tr.published th, .wide tr.published td, .wide tr.difference th,
.wide tr.difference td { color: var(--quiet); }
.wide tr.looser th, .wide tr.published th, .wide tr.difference th { padding-left: 0.875rem; }
.wide td.lead { color: var(--accent); text-decoration: underline; text-decoration-thickness: 1px;
  text-underline-offset: 3px; }
.scores tr.own th, .scores tr.own td { border-top: 1px solid var(--quiet); }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 35rem), 1fr)); gap: 0 2.5rem; }
.pair > div { min-width: 0; }
.pair tbody th { overflow-wrap: normal; }
.pair thead th { white-space: normal; overflow-wrap: normal; }
.pair th, .pair td { padding-left: 0.375rem; padding-right: 0.375rem; }
.scores th:nth-child(2), .scores td:nth-child(2) { border-right: 1px solid var(--rule); }
.notes { margin: 1.25rem 0 0; padding-left: 1.1rem; max-width: 52rem; color: var(--quiet); font-size: 0.8125rem; }
.notes li { margin-top: 0.375rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 2.25rem 2rem;
  margin-top: 1.25rem; }
.card { min-width: 0; border-top: 1px solid var(--ink); padding-top: 0.75rem; break-inside: avoid; }
.head { display: flex; flex-wrap: wrap; justify-content: space-between; align-items: baseline; gap: 0 1rem; }
.head strong { font-size: 1.125rem; font-weight: 600; }
.heat { width: 100%; table-layout: fixed; margin-top: 0; }
.maps .scroll { margin-top: 0.75rem; }
.heat caption { color: var(--quiet); font-weight: 400; font-size: 0.75rem; padding-bottom: 0.25rem; }
.heat th { color: var(--quiet); font-weight: 400; font-size: 0.75rem; padding: 0.25rem; text-align: center; }
.heat th:first-child { width: 3.25rem; text-align: left; padding-left: 0; }
.heat td { text-align: center; padding: 0.375rem 0.125rem; border: 2px solid var(--page); background: var(--panel);
  color: var(--quiet); font-size: 0.8125rem; }
.heat td.word { font-size: 0.6875rem; }
{% for i in range(num_heats) %}
.heat td.heat{{ i }} { background: var(--heat{{ i }}); color: var(--on{{ i }}); }
{% endfor %}
.heat td.best { font-weight: 700; box-shadow: inset 0 0 0 2px var(--accent), inset 0 0 0 3px var(--page); }
figure { margin: 1rem 0 0; }
svg { display: block; width: 100%; height: auto; max-width: 27rem; overflow: visible; }
svg text { fill: var(--quiet); font-size: 10.5px; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg polyline { fill: none; stroke: var(--curve); stroke-width: 1.1; stroke-linejoin: round; opacity: 0.75; }
svg .part { stroke-dasharray: 3 3; }
svg circle { fill: var(--curve); }
svg polyline.best { stroke: var(--accent); stroke-width: 2.25; opacity: 1; }
svg circle.best { fill: var(--accent); }
figcaption { color: var(--quiet); font-size: 0.75rem; margin-top: 0.375rem; }
.key { color: var(--accent); font-weight: 600; }
details { margin-top: 0.75rem; border-top: 1px solid var(--rule); padding-top: 0.625rem; }
summary { cursor: pointer; font-weight: 600; }
summary span { color: var(--quiet); font-weight: 400; }
details ul { margin: 0.5rem 0 0; padding-left: 1.1rem; font-size: 0.8125rem; columns: 17rem; column-gap: 2rem; }
details.long ul { columns: auto; }
footer { margin-top: 3.5rem; }
@media (max-width: 40rem) { body { padding-top: 1.5rem; } .wide tbody th { max-width: 9rem; } }
@media print {
  @page { margin: 14mm; }
  :root { font-size: 11px; }
  body { max-width: none; padding: 0; }
  section { margin-top: 1.5rem; }
  section.model { break-before: page; margin-top: 0; }
  h2, h3, caption { break-after: avoid; }
  .scroll { overflow: visible; }
  .wide { font-size: 6.5pt; } .wide th, .wide td { padding: 2pt 2.5pt; }
  .wide tbody th { min-width: 0; max-width: 24mm; }
  table, tr { break-inside: avoid; }
  .pair { grid-template-columns: 1fr 1fr; gap: 0 1.5rem; }
  .pair .wide { font-size: 6pt; } .pair .wide th, .pair .wide td { padding: 2pt 1.5pt; }
  .cards { grid-template-columns: 1fr 1fr 1fr; gap: 1.25rem 1.5rem; }
  .heat td { padding: 0.2rem 0; }
  .heat td, svg { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  details::details-content { content-visibility: visible; height: auto; }
}
</style>
</head>
<body>
<header>
<h1>CLUE results</h1>
<p class="quiet">Development sets of the ten CLUE tasks; the best trial of each task’s grid search.</p>
</header>
<main>
{{ table(tables[0], "wide scores") }}
{% if models | length > 1 %}
<p class="quiet small key-line">Underlined: the best of the models.</p>
{% endif %}
{{ table(tables[1], "wide") }}
<ul class="notes">
{% for note in notes %}
<li>{{ note }}</li>
{% endfor %}
</ul>
{% for model in models %}
<section class="model" aria-labelledby="model{{ loop.index }}">
<h2 id="model{{ loop.index }}">{{ model.name }}</h2>
<dl class="figures">
{% for figure, meaning in model.figures %}
<div><dt>{{ meaning }}</dt><dd>{{ figure }}</dd></div>
{% endfor %}
</dl>
<div class="pair">
{% for detail in model.details if detail.rows %}
{{ table(detail, "wide") }}
{% endfor %}
</div>
<section>
<h3>Searches by task</h3>
<p class="quiet small">Heat maps: best score over seeds by learning rate (down) and batch size over all cards
(across), darker or, on a dark page, brighter for higher; the framed one won. Curves: development score in percent
over training steps.</p>
<div class="cards">
{% for task in model.tasks %}
<article class="card">
<div class="head"><h3>{{ task.name }}</h3><strong>{{ task.score }}</strong></div>
<p class="quiet small">{{ task.summary }}</p>
<div class="maps">
{% for map in task.maps %}
<div class="scroll" role="region" tabindex="0" aria-label="{{ task.name }} heat map {{ map.caption }}">
<table class="heat">
<caption>{{ task.metric }} by learning rate and batch size{% if map.caption %}, {{ map.caption }}{% endif %}</caption>
<thead><tr><th scope="col"><abbr title="learning rate">lr</abbr></th>\
{% for size in map.batch_sizes %}<th scope="col">{{ size }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in map.rows %}
<tr><th scope="row">{{ row.rate }}</th>{% for cell in row.cells %}\
{% if cell.heat is none %}<td class="word">{{ cell.text }}</td>\
{% else %}<td class="heat{{ cell.heat }}{% if cell.best %} best" title="winner{% endif %}">{{ cell.text }}</td>\
{% endif %}{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endfor %}
</div>
{% if task.chart %}
<figure>
<svg viewBox="0 0 {{ width }} {{ height }}" role="img" \
aria-label="{{ task.name }}: development {{ task.metric }} over steps, {{ task.chart.num_curves }} trials">
{% for tick in task.chart.y_ticks %}
<line class="grid" x1="{{ task.chart.left }}" x2="{{ task.chart.right }}" y1="{{ tick.at }}" y2="{{ tick.at }}"/>\
<text x="{{ task.chart.left - 6 }}" y="{{ tick.at }}" dy="0.35em" text-anchor="end">{{ tick.text }}</text>
{% endfor %}
{% for tick in task.chart.x_ticks %}
<text x="{{ tick.at }}" y="{{ task.chart.bottom + 16 }}" text-anchor="middle">{{ tick.text }}</text>
{% endfor %}
{% for line in task.chart.lines %}
<g><title>{{ line.title }}</title><polyline class="{{ line.kind }}" points="{{ line.points }}"/>\
{% for dot in line.dots %}<circle class="{{ line.kind }}" cx="{{ dot[0] }}" cy="{{ dot[1] }}" r="2.5"/>{% endfor %}</g>
{% endfor %}
</svg>
<figcaption>{% if task.setting %}<span class="key">{{ task.setting }}</span> won{% else %}No trial has finished\
{% endif %}{% if task.chart.some_stopped %}; dashed: did not run to the end{% endif %}</figcaption>
</figure>
{% endif %}
</article>
{% endfor %}
</div>
</section>
{% if model.warnings or model.problems %}
<section>
<h3>To look into</h3>
{% if model.warnings %}
<details class="long" open><summary>Warnings <span>{{ model.warnings | length }}</span></summary>
<ul>{% for line in model.warnings %}<li>{{ line }}</li>{% endfor %}</ul></details>
{% endif %}
{% for status, trials in model.problems.items() %}
<details{% if status != "missing" %} class="long"{% if trials | length <= 10 %} open{% endif %}{% endif %}>
<summary>{{ status | capitalize }} <span>{{ trials | length }}</span></summary>
<ul>{% for trial in trials %}<li>{{ trial }}</li>{% endfor %}</ul></details>
{% endfor %}
</section>
{% endif %}
</section>
{% endfor %}
</main>
<footer>Made {{ now }} from the result.json of every trial.</footer>
</body>
</html>
"""
