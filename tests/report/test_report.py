"""The report on grid searches, on records of trials made here."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import report as script
from clue_utils import record, tasks
from clue_utils.columns import display_width
from clue_utils.errors import UserError
from clue_utils.grid import outcomes, search_space
from clue_utils.grid.search_space import Trial
from clue_utils.report import collect, page, render, tables
from clue_utils.report.uncertainty import interval

TOP = Path(__file__).resolve().parents[2]
TINY = {"learning_rate": 1e-5, "batch_size": 16, "dropout": 0.1, "seed": 42}
Run = Callable[..., tuple[int, str, str]]


def trial_of(task: str, rate: float = 3e-5, batch_size: int = 32, dropout: float = 0.1, seed: int = 42) -> Trial:
    return Trial(task, rate, batch_size, dropout, seed, tasks.TASKS[task].num_gpus)


def put(model: Path, trial: Trial, score: float | None, /, **fields: Any) -> Path:
    """Write what a run of this trial leaves behind; F1 and published rules differ by fixed amounts."""
    task = tasks.TASKS[trial.task]
    metrics: dict[str, float] = {"loss": 1.0}
    if score is not None:
        metrics |= {task.metric: score}
        if task.metric == "em":
            metrics |= {"f1": score + 0.2, "squad_em": score + 0.01, "squad_f1": score + 0.21}
        if trial.task == "C3":
            metrics |= {"accuracy_with_fillers": score - 0.02}
    folder = model / trial.folder
    folder.mkdir(parents=True)
    result = {
        "status": "finished",
        "task": trial.task,
        "model": f"some/{model.name}",
        "metric": task.metric,
        "device": "gpu",
        "hyper_parameters": {
            "learning_rate": trial.learning_rate,
            "batch_size": trial.batch_size // trial.num_gpus,
            "dropout": trial.dropout,
            "seed": trial.seed,
        },
        "num_processes": trial.num_gpus,
        "num_examples": {"dev": task.splits["dev"].num_examples},
        "data_sha256": {"dev": "d"},
        "best_metric": score,
        "best_step": 20,
        "best_metrics": metrics if score is not None else {},
        "history": [] if score is None else [{"step": 10, **metrics, task.metric: score / 2}, {"step": 20, **metrics}],
        "wall_time": 1800.0,
    }
    (folder / "result.json").write_text(json.dumps(result | fields), encoding="utf-8")
    return folder


def read(model: Path) -> collect.ModelReport:
    return collect.read_models([str(model)], Path("nowhere"))[0]


def cells(table: tables.Table, label: str) -> dict[str, str]:
    row = next(row for row in table.rows if row.label == label)
    return dict(zip(table.header[1:], row.cells, strict=True))


def test_the_highest_finished_score_wins(tmp_path: Path) -> None:
    model = tmp_path / "rbt6"
    put(model, trial_of("TNEWS", 1e-5), 0.56)
    put(model, trial_of("TNEWS", 2e-5), 0.57)
    put(model, trial_of("TNEWS", 3e-5), 0.59, status="running")
    put(model, trial_of("TNEWS", 5e-5), 0.60, pruned={"step": 20, "rule": "median"})
    found = read(model)
    winner = found.winners["TNEWS"]
    assert winner and winner.trial == trial_of("TNEWS", 2e-5) and winner.score == 0.57
    assert found.winners["AFQMC"] is None
    assert found.interval(winner) == interval(0.57, 10000)
    assert cells(tables.uncertainty_table(found), "TNEWS")["95 % interval"] == "56.03–57.97"
    row = cells(tables.score_table([found]), "rbt6")
    assert row["TNEWS"] == "57.00" and row["AVG"] == "57.00 (1 of 10)" and row["C3"] == "–"
    assert cells(tables.setting_table([found]), "rbt6")["TNEWS"] == "2e-5,32"


def test_ties_go_by_the_order_of_the_grid(tmp_path: Path) -> None:
    trials = search_space.list_trials(["CLUEWSC2020"])
    for trial in reversed(trials):
        put(tmp_path / "m", trial, 0.75)
    outside = trial_of("CLUEWSC2020", 1e-6, 8, seed=1)
    put(tmp_path / "m", outside, 0.75)
    found = read(tmp_path / "m")
    assert [outcome.trial for outcome in found.of_task("CLUEWSC2020")] == [*trials, outside]
    assert (winner := found.winners["CLUEWSC2020"]) and winner.trial == trials[0]
    assert cells(tables.setting_table([found]), "m")["CLUEWSC2020"] == "1e-5,8,0.1"


def test_whole_grid_with_a_published_row(tmp_path: Path) -> None:
    model = tmp_path / "rbt6"
    for i, name in enumerate(tasks.TASKS):
        put(model, trial_of(name), 0.5 + i / 100)
    found = read(model)
    assert found.published and found.published.name == "hfl/rbt6"
    table = tables.score_table([found])
    assert [row.kind for row in table.rows] == ["own", "rule", "published", "difference"]
    own, rule, published, difference = (dict(zip(table.header[1:], row.cells, strict=True)) for row in table.rows)
    assert own["AVG"] == "54.50" and own["CMRC2018"] == "57.00/77.00"
    # Only scores by the published rules are compared: 58.00 - 62.26, 57.00 - 59.93, and the mean made with them.
    assert own["C3"] == "59.00" and rule["C3"] == "57.00†" and rule["TNEWS"] == own["TNEWS"]
    assert rule["AVG"] == "54.40" and rule["CMRC2018"] == "58.00/78.00†"
    assert published["AVG"] == "69.74†" and published["CMRC2018"] == "62.26/84.72†" and published["C3"] == "59.93†"
    assert difference["CMRC2018"] == "−4.26†" and difference["AVG"] == "−15.34†" and difference["TNEWS"] == "−5.62"
    assert difference["C3"] == "−2.93†"
    assert [row.kind for row in tables.setting_table([found]).rows] == ["own", "published"]
    uncertainty = tables.uncertainty_table(found)
    assert cells(uncertainty, "CMRC2018 EM")["published"] == "–"
    assert cells(uncertainty, "CMRC2018 EM, published rule†")["published"] == "62.26"
    assert cells(uncertainty, "C3")["score"] == "59.00" and cells(uncertainty, "C3")["difference"] == "–"
    assert cells(uncertainty, "C3, published rule†")["difference"] == "−2.93"


def test_a_run_without_the_published_rule_s_metric_is_not_compared(tmp_path: Path) -> None:
    put(tmp_path / "rbt6", trial_of("C3"), 0.6, best_metrics={"accuracy": 0.6, "loss": 1.0})
    table = tables.score_table([read(tmp_path / "rbt6")])
    assert [dict(zip(table.header[1:], row.cells, strict=True))["C3"] for row in table.rows] == [
        *("60.00", "–", "59.93†", "–"),
    ]


def test_another_development_set_is_not_compared(tmp_path: Path) -> None:
    put(tmp_path / "rbt6", trial_of("TNEWS"), 0.5, num_examples={"dev": 30})
    put(tmp_path / "rbt6", trial_of("TNEWS", 5e-5), 0.4, data_sha256={"dev": "other"})
    found = read(tmp_path / "rbt6")
    table = tables.score_table([found])
    assert cells(table, "difference of the two rows above")["TNEWS"] == "–" and cells(table, "rbt6")["TNEWS"] == "50.00"
    assert any("TNEWS 30 for 10000" in note for note in tables.notes([found]))
    assert found.doubts == ("TNEWS: its trials differ in development data (d, other); their scores do not compare",)


def test_trials_not_made_alike_are_named(tmp_path: Path) -> None:
    put(tmp_path / "m", trial_of("TNEWS"), 0.5, max_steps=-1)
    put(tmp_path / "m", trial_of("TNEWS", 5e-5), 0.4, max_steps=10, model="other/m")
    put(tmp_path / "m", trial_of("AFQMC"), 0.4, max_steps=20)
    assert read(tmp_path / "m").doubts == (
        "the folder mixes trials of 2 models: other/m, some/m",
        "TNEWS: its trials differ in max_steps (-1, 10); their scores do not compare",
    )


def test_spread_over_seeds(tmp_path: Path) -> None:
    scores = [0.55, 0.57, 0.56]
    for seed, score in enumerate(scores):
        put(tmp_path / "m", trial_of("TNEWS", seed=seed), score)
    put(tmp_path / "m", trial_of("TNEWS", 5e-5), 0.1)
    found = read(tmp_path / "m")
    assert (winner := found.winners["TNEWS"]) and winner.trial and winner.trial.seed == 1
    assert sorted(one.score for one in found.same_setting(winner)) == sorted(scores)
    spread = f"56.00 ± {100 * statistics.stdev(scores):.2f} (3)"
    assert cells(tables.uncertainty_table(found), "TNEWS")["mean ± SD (seeds)"] == spread
    # The three seeds are one cell of the heat map, which shows the best.
    (only,) = page.heat_maps(found.of_task("TNEWS"), winner, False)
    row = next(row for row in only["rows"] if row["rate"] == "3e-5")
    assert row["cells"] == [{"text": "57.00", "heat": 6, "kind": "best"}]


def test_statuses_and_costs(tmp_path: Path, run_script: Run) -> None:
    model = tmp_path / "m"
    put(model, trial_of("C3"), 0.5)
    put(model, trial_of("C3", 1e-5), 0.4, pruned={"step": 200, "rule": "below the median"})
    here = record._sign_of_life()["process"]
    seen = {"last_seen": "2026-01-02T03:04:05+00:00", "progress": {"step": 120, "num_steps": 500}}
    put(model, trial_of("C3", 2e-5), None, status="running", process=here, **seen)
    put(model, trial_of("C3", 1e-5, 24), 0.3, status="running", process=here | {"started": 0}, **seen)
    put(model, trial_of("C3", 1e-5, seed=1), None, status="stopped", reason="interrupted", wall_time=0.0)
    advice = {"gradient_accumulation_steps": 4}
    put(model, trial_of("C3", 1e-5, seed=2), None, status="failed", reason="a\x1bb", advice=advice, wall_time=0.0)
    silent = model / trial_of("C3", 2e-5, 24).folder
    silent.mkdir(parents=True)
    (silent / "trial.log").write_bytes(b"rank 1: error: no memory\n")
    (model / "C3" / "notes").mkdir()
    outcomes.add_to_plan(model, [trial_of("C3").folder, trial_of("C3", 3e-5, 24).folder, trial_of("TNEWS").folder])
    found = read(model)
    shown = {status: [(o.folder, o.reason) for o in found.with_status(status)] for status in outcomes.STATUSES}
    ((running, how_far),) = shown.pop("running")
    assert running == trial_of("C3", 2e-5).folder
    assert re.fullmatch(rf"step 120 of 500, seen \d+ s ago on {platform.node()}", how_far)
    last = f"step 120 of 500, last seen 2026-01-02T03:04:05+00:00 on {platform.node()}; the same command goes on"
    assert shown == {
        "finished": [(trial_of("C3").folder, "")],
        "pruned": [(trial_of("C3", 1e-5).folder, "at step 200: below the median")],
        "killed": [(trial_of("C3", 1e-5, 24).folder, last)],
        "stopped": [(trial_of("C3", 1e-5, seed=1).folder, "interrupted")],
        "failed": [
            (trial_of("C3", 2e-5, 24).folder, "no result.json: it ended before it began; see trial.log"),
            (
                trial_of("C3", 1e-5, seed=2).folder,
                "a\N{REPLACEMENT CHARACTER}b (advice: --gradient_accumulation_steps 4)",
            ),
        ],
        "missing": [(trial_of("TNEWS").folder, ""), (trial_of("C3", 3e-5, 24).folder, "")],
    }
    # Four trials of half an hour on four GPUs.
    row = cells(tables.cost_table(found), "C3")
    assert row["time (h:m:s)"] == "2:00:00" and row["GPU-hours"] == "8.00" and row["failed"] == "2"
    status, out, _ = run_script(script.main, model, "--output", tmp_path / "out")
    assert status == 0 and f"killed: m/{trial_of('C3', 1e-5, 24).folder}: {last}\n" in out
    for status in ("running", "stopped", "failed"):
        assert f"\n{status}: m/C3/" in out


def test_nothing_is_missing_that_was_not_asked_for(tmp_path: Path, run_script: Run) -> None:
    put(tmp_path / "m", trial_of("TNEWS"), 0.5)
    assert not read(tmp_path / "m").with_status("missing")
    outcomes.add_to_plan(tmp_path / "m", [trial_of("TNEWS").folder, trial_of("TNEWS", 5e-5).folder])
    assert [o.folder for o in read(tmp_path / "m").with_status("missing")] == [trial_of("TNEWS", 5e-5).folder]
    (tmp_path / "m" / "plan.json").write_text("{")
    status, _, err = run_script(script.main, tmp_path / "m")
    assert status == 0 and re.fullmatch(r"warning: .*plan.json is damaged .*\n", err)


@pytest.mark.parametrize(
    "content",
    [
        b'{"status": "fin',
        b"",
        b"[1]",
        b"\xff\xfe",
        b"{}",
        b'{"task": "TNEWS", "hyper_parameters": {"learning_rate": "x"}}',
        b"[" * 100000,
    ],
)
def test_damaged_result_is_named_and_counts_as_failed(tmp_path: Path, content: bytes, run_script: Run) -> None:
    put(tmp_path / "m", trial_of("TNEWS"), 0.5)
    broken = put(tmp_path / "m", trial_of("TNEWS", 5e-5), 0.6)
    (broken / "result.json").write_bytes(content)
    status, out, err = run_script(script.main, tmp_path / "m")
    assert status == 0 and err.count("\n") == 1 and err.startswith(f"warning: {broken / 'result.json'} is ")
    assert "failed: m/TNEWS/5e-5_32_0.1_42: " in out and "50.00 (1 of 10)" in out


@pytest.mark.parametrize(
    "fields",
    [
        {"best_metric": None},
        {"best_metric": float("nan")},
        {"best_metric": True},
        {"best_metrics": {"accuracy": "0.5"}},
        {"history": 5},
        {"history": [5]},
        {"history": [{"accuracy": 0.5}]},
        {"history": [{"step": 1, "accuracy": -1}]},
        {"wall_time": 10**400},
        {"history": [{"step": 10**400, "accuracy": 0.5}]},
        {"num_processes": []},
    ],
)
def test_impossible_values_count_as_failed(tmp_path: Path, fields: dict[str, Any]) -> None:
    put(tmp_path / "m", trial_of("TNEWS"), 0.6, **fields)
    found = read(tmp_path / "m")
    assert len(found.with_status("failed")) == 1 and found.winners["TNEWS"] is None
    assert len(found.damages) == 1 and "is not a result of these scripts" in found.damages[0]
    assert "<html" in page.to_html([found])


def test_single_runs_make_a_row_for_each_model(tmp_path: Path, run_script: Run) -> None:
    models = tmp_path / "models"
    models.mkdir()
    for folder, trial, score, name in (
        ("tnews", trial_of("TNEWS"), 0.57, "hfl/rbt6"),
        ("tnews-seed1", trial_of("TNEWS", seed=1), 0.55, "hfl/rbt6"),
        ("AFQMC", trial_of("AFQMC"), 0.73, "hfl/rbt6"),
        ("other", trial_of("TNEWS"), 0.50, "own"),
    ):
        put(tmp_path / f"of-{folder}", trial, score, model=name).rename(models / folder)
    (models / "exported").mkdir()
    (models / "only-evaluated").mkdir()
    alone = {"status": "finished", "task": "TNEWS", "model": "hfl/rbt6", "evaluation": {"accuracy": 0.9}}
    (models / "only-evaluated" / "result.json").write_text(json.dumps(alone))
    status, out, err = run_script(script.main, *sorted(models.iterdir()))
    assert (status, err) == (0, "") and (models / "report" / "report.html").is_file()
    rbt6, own = collect.read_models([str(path) for path in sorted(models.iterdir())], tmp_path)
    assert (rbt6.name, own.name) == ("rbt6", "own") and rbt6.published and not own.published
    row = cells(tables.score_table([rbt6, own]), "rbt6")
    assert row["TNEWS"] == "57.00" and row["AFQMC"] == "73.00" and row["AVG"] == "65.00 (2 of 10)"
    assert cells(tables.uncertainty_table(rbt6), "TNEWS")["mean ± SD (seeds)"].startswith("56.00 ±")
    # The folder around them does as well; one run alone is its own report, and a damaged one is named.
    assert [model.name for model in collect.read_models([str(models)], tmp_path)] == ["rbt6", "own"]
    (models / "other" / "result.json").write_text("{")
    status, _, err = run_script(script.main, models)
    assert status == 0 and re.fullmatch(r"warning: .*other/result.json is damaged .*\n", err)
    status, _, err = run_script(script.main, models / "other")
    assert status == 2 and err.startswith("error: ") and err.count("\n") == 1


def test_the_mean_over_seeds_can_choose(tmp_path: Path, run_script: Run) -> None:
    for seed, (steady, lucky) in enumerate([(0.56, 0.50), (0.57, 0.60), (0.58, 0.52)]):
        put(tmp_path / "m", trial_of("TNEWS", 2e-5, seed=seed), steady)
        put(tmp_path / "m", trial_of("TNEWS", 5e-5, seed=seed), lucky)
    put(tmp_path / "m", trial_of("TNEWS", 1e-5), 0.65)  # a single seed does not compete with three
    shown = {}
    for choice in collect.CHOICES:
        (model,) = collect.read_models([str(tmp_path / "m")], tmp_path, choice)
        shown[choice] = [
            cells(table, "m")["TNEWS"] for table in (tables.score_table([model]), tables.setting_table([model]))
        ]
        assert choice == "best" or "mean over seeds" in tables.score_table([model]).title
    assert shown == {"best": ["65.00", "1e-5,32"], "mean": ["57.00", "2e-5,32"]}
    status, out, _ = run_script(script.main, tmp_path / "m", "--choose", "mean")
    assert status == 0 and "the mean over seeds of the best setting" in out
    row = next(
        row
        for row in page.heat_maps(model.of_task("TNEWS"), model.winners["TNEWS"], False, "mean")[0]["rows"]
        if row["rate"] == "5e-5"
    )
    assert row["cells"][0]["text"] == "54.00"


def test_a_setting_of_which_a_seed_still_runs_is_running_on_the_heat_map(tmp_path: Path) -> None:
    put(tmp_path / "m", trial_of("C3"), None, status="failed")
    here = record._sign_of_life()
    put(tmp_path / "m", trial_of("C3", seed=1), None, status="running", **here)
    put(tmp_path / "m", trial_of("C3", 1e-5), None, status="failed")
    put(tmp_path / "m", trial_of("C3", 1e-5, seed=1), 0.4, pruned={"step": 200, "rule": "below the median"})
    (only,) = page.heat_maps(read(tmp_path / "m").of_task("C3"), None, False)
    assert [row["cells"][0]["text"] for row in only["rows"]] == ["pruned", "running"]


def test_a_diverged_trial_does_not_flatten_the_heat_map(tmp_path: Path) -> None:
    scores = iter([0.3063, 0.800, 0.830, 0.826, 0.805, 0.810, 0.815, 0.820, 0.8284, 0.8290, 0.8, 0.81])
    for trial in search_space.list_trials(["CMNLI"]):
        put(tmp_path / "m", trial, next(scores))
    model = read(tmp_path / "m")
    (only,) = page.heat_maps(model.of_task("CMNLI"), model.winners["CMNLI"], False)
    found = {cell["text"]: cell for row in only["rows"] for cell in row["cells"]}
    assert found["30.63"] == {"text": "30.63", "heat": None, "kind": "far"}
    assert found["80.00"]["heat"] == 0 and found["83.00"] == {"text": "83.00", "heat": 6, "kind": "best"}
    # 12241 records: the best one's interval begins at 82.32.
    assert [text for text, cell in found.items() if cell["kind"] == "near"] == ["82.60", "82.84", "82.90"]
    text = page.to_html([model])
    assert ">↓30.63<" in text and ">≈82.90<" in text


def test_differences_within_noise_do_not_take_all_colours(tmp_path: Path) -> None:
    for i, trial in enumerate(search_space.list_trials(["CLUEWSC2020"])):
        put(tmp_path / "m", trial, 0.75 + i / 10000)
    model = read(tmp_path / "m")
    maps = page.heat_maps(model.of_task("CLUEWSC2020"), model.winners["CLUEWSC2020"], True)
    assert {cell["heat"] for one in maps for row in one["rows"] for cell in row["cells"]} == {6}


def test_curves_stand_over_epochs_with_a_band_over_seeds(tmp_path: Path) -> None:
    def history(*scores: float, steps: int) -> list[dict[str, float]]:
        return [{"step": steps * (i + 1), "loss": 1.0, "accuracy": score} for i, score in enumerate(scores)]

    hyper = {"num_train_epochs": 2, "dropout": 0.1}
    for seed, scores in enumerate([(0.50, 0.56), (0.52, 0.58)]):
        settings = hyper | {"learning_rate": 3e-5, "batch_size": 32, "seed": seed}
        lines = history(*scores, steps=100)
        put(
            tmp_path / "m",
            trial_of("TNEWS", seed=seed),
            scores[1],
            hyper_parameters=settings,
            num_steps=200,
            history=lines,
        )
    settings = hyper | {"learning_rate": 3e-5, "batch_size": 64, "seed": 0}
    lines = history(0.1, 0.2, steps=50)
    put(tmp_path / "m", trial_of("TNEWS", 3e-5, 64), 0.2, hyper_parameters=settings, num_steps=100, history=lines)
    outcomes_ = read(tmp_path / "m")
    drawn = page.chart(outcomes_.of_task("TNEWS"), outcomes_.winners["TNEWS"], False)
    assert drawn and drawn["x_title"] == "epochs" and [tick["text"] for tick in drawn["x_ticks"]][-1] == "2"
    other, best = drawn["lines"]
    assert best["title"] == "3e-5,32, mean of 2 seeds: 57.00, finished" and drawn["num_seeds"] == 2
    # Twice as many updates of half the batch end at the same place.
    ends = [line["points"].split()[-1].split(",")[0] for line in (other, best)]
    assert ends[0] == ends[1] and len(drawn["bands"]) == 1 and len(drawn["bands"][0].split()) == 4
    # A record that does not tell its epochs leaves updates.
    put(tmp_path / "m", trial_of("TNEWS", 1e-5), 0.4)
    outcomes_ = read(tmp_path / "m")
    drawn = page.chart(outcomes_.of_task("TNEWS"), outcomes_.winners["TNEWS"], False)
    assert drawn and drawn["x_title"] == "updates"


def test_models_against_cost_and_each_other(tmp_path: Path) -> None:
    for i, name in enumerate(("a", "b_1")):
        put(tmp_path / name, trial_of("TNEWS"), 0.5 + i / 10, wall_time=3600.0 * 20**i)
    models = collect.read_models([str(tmp_path / name) for name in ("a", "b_1")], tmp_path)
    drawn = page.cost_chart(models)
    assert drawn and drawn["is_log"] and drawn["num_tasks"] == 1
    assert [point["title"] for point in drawn["points"]] == ["b_1: 60.00, 20.00 GPU-hours", "a: 50.00, 1.00 GPU-hours"]
    assert page.cost_chart(models[:1]) is None
    better = SimpleNamespace(average=0.1, low=0.05, high=0.15, better=("TNEWS",), worse=(), reason="")
    table = tables.pair_table(["a", "b_1"], {("b_1", "a"): better})
    assert cells(table, "b_1") == {"a": "+10.00* [+5.00,\N{NO-BREAK SPACE}+15.00] 1:0", "b_1": "–"}
    text = page.to_html(models, comparisons=[table])
    targets = re.findall(r'href="#([^"]*)"', text)
    assert targets == ["scores", "comparisons", "costs", "model1", "model2"]
    assert all(text.count(f'id="{target}"') == 1 for target in targets)
    latex = render.to_latex(models, [table])
    assert r"b\_1" in latex and r"\textbf{60.00}" in latex and latex.count(r"\toprule") == 3
    assert latex.count("{") == latex.count("}")


def test_latex_is_escaped() -> None:
    assert render.escape_latex(r"50% & a_b\c−1†") == (r"50\% \& a\_b\textbackslash{}c$-$1\textsuperscript{\dag}")


def test_the_whole_report_in_chinese(tmp_path: Path, run_script: Run) -> None:
    put(tmp_path / "rbt6", trial_of("CMRC2018"), 0.5)
    put(tmp_path / "rbt6", trial_of("TNEWS", seed=1), 0.5, max_steps=5)
    put(tmp_path / "rbt6", trial_of("TNEWS"), 0.57, num_examples={"dev": 10})
    put(tmp_path / "rbt6", trial_of("C3"), 0.4, pruned={"step": 200, "rule": "below the median"})
    put(tmp_path / "rbt6", trial_of("AFQMC", 3e-5, 16), 0.73)
    killed = trial_of("AFQMC", 1e-5, 16)
    put(tmp_path / "rbt6", killed, None, status="running")
    put(tmp_path / "own", trial_of("TNEWS"), 0.5)
    arguments = (tmp_path / "rbt6", tmp_path / "own", "--output")
    status, english, _ = run_script(script.main, *arguments, tmp_path / "en", "--language", "en")
    assert status == 0
    status, chinese, _ = run_script(script.main, *arguments, tmp_path / "zh", "--language", "zh", "--choose", "mean")
    assert status == 0 and "在噪声范围内" in chinese and "实验与开销" in chinese and "Trials" not in chinese
    text = (tmp_path / "zh" / "report.html").read_text(encoding="utf-8")
    line = f"{killed.folder}：没有活动迹象；再次运行相同的命令即可继续"
    assert f"意外中断：rbt6/{line}\n" in chinese and line in text and "第 200 步：below the median" in text
    assert '<html lang="zh-CN">' in text and "热力图" in text and "50.00/70.00" in text and "50.00/70.00" in english


class _Collector(HTMLParser):
    """Names of all elements and everything they say in attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


def test_hostile_names_do_no_harm(tmp_path: Path, run_script: Run) -> None:
    name = '<script>alert(1)<\\script>"|`*\x1b[2J'
    put(tmp_path / name, trial_of("TNEWS"), 0.5, model="=1+2", device="</style><img src=x onerror=alert(1)>")
    put(tmp_path / name, trial_of("TNEWS", 5e-5), 0.4, pruned={"rule": "<b>\n| a | b |\ud800"})
    odd = tmp_path / name / "TNEWS" / '"><svg onload=alert(1)>'
    odd.mkdir()
    (odd / "trial.log").write_text("error: <iframe src=http://example.com>", encoding="utf-8")
    status, out, _ = run_script(script.main, tmp_path / name, "--output", tmp_path / "out")
    assert status == 0 and "\x1b" not in out
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    seen = _Collector(page)
    assert not seen.names & {"script", "img", "iframe", "b", "link", "base", "object"}
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    assert "&lt;script&gt;alert(1)" in page and "\x1b" not in page
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "<" not in text and "\x1b" not in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table
    rows = list(csv.DictReader((tmp_path / "out" / "scores.csv").open(encoding="utf-8", newline="")))
    assert "'=1+2" in [row["result.model"] for row in rows]


def test_csv_holds_everything(tmp_path: Path) -> None:
    put(tmp_path / "m", trial_of("CMRC2018"), 0.5, versions={"paddlepaddle": "3.3.1"})
    (tmp_path / "m" / "TNEWS" / "1e-5_16_0.1_42").mkdir(parents=True)
    record.write_failure(tmp_path / "m" / "TNEWS" / "1e-5_16_0.1_42", "a, b", 2, task="TNEWS", hyper_parameters=TINY)
    outcomes.add_to_plan(tmp_path / "m", [trial.folder for trial in search_space.list_trials()])
    found = read(tmp_path / "m")
    rows = list(csv.DictReader(io.StringIO(render.to_csv([found]))))
    assert len(rows) == len(found.outcomes) == len(search_space.list_trials())
    by_status = {row["status"]: row for row in rows}
    assert by_status["failed"]["reason"] == "a, b" and by_status["failed"]["batch_size_all_cards"] == "16"
    finished = by_status["finished"]
    expected = {
        "report": "m", "folder": "CMRC2018/3e-5_32_0.1_42", "is_winner": "1", "learning_rate": "3e-05",
        "batch_size_all_cards": "32", "score": "0.5", "card_hours": "1.0", "result.hyper_parameters.batch_size": "16",
        "result.best_metrics.squad_em": "0.51", "result.versions.paddlepaddle": "3.3.1", "result.num_processes": "2",
        "result.num_examples.dev": "3219",
    }  # fmt: skip
    assert {name: finished[name] for name in expected} == expected
    assert "result.history" not in finished


def test_several_models(tmp_path: Path, run_script: Run) -> None:
    for name, score in (("rbt6", 0.5), ("own", 0.6)):
        put(tmp_path / "results" / name, trial_of("TNEWS"), score)
    arguments = ("rbt6", tmp_path / "results" / "own", "rbt6", "--results", tmp_path / "results")
    status, out, err = run_script(script.main, *arguments)
    assert (status, err) == (0, "")
    folder = tmp_path / "results" / "report"
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.md", "scores.csv", "scores.tex"]
    assert str(folder) in out
    models = collect.read_models(["rbt6", "own"], tmp_path / "results")
    first, _, _, second = tables.score_table(models).rows
    tnews = list(tasks.TASKS).index("TNEWS") + 1
    assert (first.best, second.best) == (frozenset(), frozenset({tnews}))
    assert "**60.00**" in (folder / "report.md").read_text(encoding="utf-8")
    # The report's own folder is passed over, so that results/* works a second time.
    everything = sorted((tmp_path / "results").iterdir())
    assert run_script(script.main, *everything)[0] == 0


def test_a_model_is_looked_for_where_its_search_put_it(tmp_path: Path, run_script: Run, monkeypatch) -> None:
    put(tmp_path / "elsewhere" / "rbt6", trial_of("TNEWS"), 0.5)
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "elsewhere"))
    assert run_script(script.main, "rbt6")[::2] == (0, "")
    assert (tmp_path / "elsewhere" / "report" / "report.html").is_file()


def test_two_folders_of_one_name_keep_apart(tmp_path: Path) -> None:
    for place in "ab":
        put(tmp_path / place / "m", trial_of("TNEWS"), 0.5)
    models = collect.read_models([str(tmp_path / place / "m") for place in "ab"], tmp_path)
    assert [model.name for model in models] == [str(tmp_path / "a" / "m"), str(tmp_path / "b" / "m")]


def test_mistakes_are_one_line(tmp_path: Path, run_script: Run) -> None:
    (tmp_path / "hollow" / "TNEWS").mkdir(parents=True)
    for arguments, expected in (
        ([], "no MODEL"),
        (["rbt7", "--results", tmp_path], "no trials of 'rbt7'"),
        ([tmp_path / "hollow"], "holds no trial"),
    ):
        status, out, err = run_script(script.main, *arguments)
        assert (status, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1 and expected in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hollow"]


def test_page_stands_alone(tmp_path: Path) -> None:
    for trial in search_space.list_trials():
        put(tmp_path / "rbt6", trial, 0.4 + trial.learning_rate * 1000 + trial.dropout / 100)
    text = page.to_html([read(tmp_path / "rbt6")])
    seen = _Collector(text)
    assert not seen.names & {"script", "link", "img", "iframe"}
    assert not [value for name, value in seen.attributes if name in ("src", "href")] and "url(" not in text
    scopes = [value for name, value in seen.attributes if name == "scope"]
    assert set(scopes) == {"row", "col"} and text.count("<table") == text.count("<caption")
    assert text.count('role="img"') == len(tasks.TASKS)
    assert text.count('class="heat"') == sum(len(task.dropouts) for task in tasks.TASKS.values())
    assert text.count(' best" title="winner"') == len(tasks.TASKS)


def _contrast(first: str, second: str) -> float:
    """The contrast ratio of two colours by WCAG 2.1."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [page.LIGHT, page.DARK], ids=["light", "dark"])
def test_contrast(scheme: dict[str, str]) -> None:
    assert scheme.keys() == page.LIGHT.keys()
    texts = [("ink", "page"), ("quiet", "page"), ("quiet", "panel"), ("accent", "page")]
    texts += [(f"on{i}", f"heat{i}") for i in range(page.NUM_HEATS)]
    for text, ground in texts:
        assert _contrast(scheme[text], scheme[ground]) >= 4.5, (text, ground)
    assert _contrast(scheme["curve"], scheme["page"]) >= 3


@pytest.mark.parametrize(
    ("low", "high"), [(0, 0), (55.82, 55.82), (0, 100), (56.1, 56.2), (0, 1), (0, 7), (0, 123456), (99.999, 100)]
)
def test_ticks_are_few_even_and_around(low: float, high: float) -> None:
    ticks = page._ticks(low, high)
    assert 2 <= len(ticks) <= 7 and ticks[0] <= low and ticks[-1] >= high
    assert len({round(second - first, 6) for first, second in zip(ticks, ticks[1:], strict=False)}) == 1


def test_long_and_wide_names_fit_the_terminal(tmp_path: Path) -> None:
    put(tmp_path / ("预训练模型" * 10), trial_of("TNEWS"), 0.5)
    table = tables.score_table([read(tmp_path / ("预训练模型" * 10))])
    _, header, row, *_ = render.as_text(table).split("\n")
    assert display_width(header) == display_width(row) and "…" in row


@pytest.mark.parametrize("width", [80, 120, 400, None])
def test_a_table_wider_than_the_terminal_is_in_parts(tmp_path: Path, monkeypatch: Any, width: int | None) -> None:
    put(tmp_path / "model", trial_of("TNEWS"), 0.5)
    table = tables.score_table([read(tmp_path / "model")])
    whole = render.as_text(table)
    monkeypatch.setattr(render, "terminal_width", lambda: width)
    title, *parts = render.as_text(table).rstrip("\n").split("\n", 1)
    parts = parts[0].split("\n\n")
    assert (len(parts) > 1) == (width == 80)
    assert all(display_width(line) <= (width or 400) for part in parts for line in part.splitlines())
    assert [name for part in parts for name in part.splitlines()[0].split()[1:]] == [*table.header[1:]]
    assert all(part.splitlines()[1].startswith("model ") for part in parts)
    if len(parts) == 1:
        assert render.as_text(table) == whole


def test_shell_script_and_light_import(tmp_path: Path) -> None:
    put(tmp_path / "a b", trial_of("TNEWS"), 0.5)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    shell = ["bash", str(TOP / "scripts" / "report.sh")]
    done = subprocess.run([*shell, "a b"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "50.00 (1 of 10)" in done.stdout, done.stderr
    assert (tmp_path / "report" / "report.html").is_file()
    code = "import sys; from clue_utils.report import page; sys.exit('paddle' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=TOP).returncode == 0


def test_unknown_model_names_both_places(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"rbt6.*{re.escape(str(tmp_path / 'rbt6'))}"):
        collect.find_model("hfl/rbt6", tmp_path)


def test_seeds_of_one_score_stand_in_the_middle_of_their_curves(tmp_path: Path) -> None:
    for seed in range(3):  # three times 0.4: as floats, their mean is not quite that
        line = {"accuracy": 0.4}
        put(tmp_path / "m", trial_of("CMNLI", seed=seed), 0.4, history=[{"step": 1, **line}, {"step": 2, **line}])
    found = read(tmp_path / "m")
    drawn = page.chart(found.of_task("CMNLI"), found.winners["CMNLI"], False)
    assert drawn and [tick["text"] for tick in drawn["y_ticks"]] == ["39", "39.5", "40", "40.5", "41"]
    middle = (drawn["top"] + drawn["bottom"]) / 2
    assert all(float(point.split(",")[1]) == middle for point in drawn["lines"][0]["points"].split())
    put(tmp_path / "other", trial_of("CMNLI"), 0.4000000000000001)
    assert page.cost_chart(collect.read_models([str(tmp_path / name) for name in ("m", "other")], tmp_path))
