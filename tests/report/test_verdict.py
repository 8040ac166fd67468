"""Whether a published row was matched: verdicts on records of trials made here, with intervals worked out by hand."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from test_report import cells, put, read

import report as script
from clue_utils import language, tasks
from clue_utils.grid import search_space
from clue_utils.published import published_model
from clue_utils.report import collect, render, verdict
from clue_utils.report.uncertainty import interval

ROW = published_model("hfl/rbt6")
assert ROW


def put_row(model: Path, points: float, seed: int = 42, **fields: Any) -> None:
    """All ten tasks at their published settings, each so many percentage points above its published score."""
    for trial in search_space.published_trials("hfl/rbt6", (), [seed]):
        score = ROW.scores[trial.task].value + points
        score += {"CMRC2018": -1, "C3": 2}.get(trial.task, 0)  # what ``put`` adds for the published rule
        put(model, trial, score / 100, model="hfl/rbt6", **fields)


@pytest.mark.parametrize(
    ("points", "tnews", "average"),
    [(0.5, "within noise", "within noise"), (-1.5, "below", "below"), (1.5, "above", "above")],
)
def test_a_score_is_compared_with_the_interval_of_its_development_set(
    tmp_path: Path, points: float, tnews: str, average: str
) -> None:
    put_row(tmp_path / "rbt6", points)
    table = verdict.verdict_table(read(tmp_path / "rbt6"))
    row = cells(table, "TNEWS")
    own = (ROW.scores["TNEWS"].value + points) / 100
    low, high = interval(own, 10000)
    assert row["verdict"] == tnews and row["dev records"] == "10000" and row["setting"] == "5e-5,16"
    assert row["95 % noise"] == f"{100 * low:.2f}–{100 * high:.2f}"
    assert float(row["score"]) == pytest.approx(100 * own) and float(row["published"]) == ROW.scores["TNEWS"].value
    assert row["difference"].lstrip("+\N{MINUS SIGN}") == f"{abs(points):.2f}"
    # 304 examples tell far less; the reading tasks are compared by the rule that they were published with.
    assert cells(table, "CLUEWSC2020")["verdict"] == "within noise"
    assert cells(table, "CMRC2018†")["difference"] == row["difference"] == cells(table, "C3†")["difference"]
    # The mean of ten is surer than any of them; the published one is rounded.
    assert cells(table, "AVG†")["verdict"] == average
    assert [line.label.rstrip("†") for line in table.rows] == [*tasks.TASKS, "AVG"]


def test_seeds_widen_the_interval_by_their_spread(tmp_path: Path) -> None:
    scores = [0.5750, 0.5800, 0.5820]
    (trial,) = search_space.published_trials("hfl/rbt6", ["TNEWS"])
    put(tmp_path / "rbt6", trial, scores[0])
    model = read(tmp_path / "rbt6")
    one = verdict.of_task(model, tasks.TASKS["TNEWS"])
    assert one and one.num_seeds == 1 and (one.low, one.high) == interval(scores[0], 10000)
    for seed, score in enumerate(scores[1:]):
        put(tmp_path / "rbt6", trial._replace(seed=seed), score)
    put(tmp_path / "rbt6", trial._replace(seed=9), 0.1, status="failed")
    put(tmp_path / "rbt6", trial._replace(learning_rate=2e-5), 0.9)  # another setting is no run of the row
    found = verdict.of_task(read(tmp_path / "rbt6"), tasks.TASKS["TNEWS"])
    assert found and found.num_seeds == 3 and found.score == pytest.approx(statistics.fmean(scores))
    low, high = interval(statistics.fmean(scores), 10000)
    further = stats.t.ppf(0.975, 2) * statistics.stdev(scores) * (4 / 3) ** 0.5
    assert found.score - found.low == pytest.approx(((found.score - low) ** 2 + further**2) ** 0.5)
    assert found.high - found.score == pytest.approx(((high - found.score) ** 2 + further**2) ** 0.5)
    assert one.text == found.text == "within noise"  # 56.62
    assert verdict.noise([1.0, 0.5], 100)[1] == 1.0


def test_there_is_no_verdict_on_other_data_and_it_says_why(tmp_path: Path) -> None:
    put_row(tmp_path / "rbt6", 0.0, num_examples={"dev": 30})
    model = read(tmp_path / "rbt6")
    row = cells(verdict.verdict_table(model), "AFQMC")
    assert row["verdict"] == "none: 30 development examples, the release has 4316"
    assert row["score"] == row["difference"] == "–" and verdict.of_average(model) is None
    with language.using("zh"):
        (chinese, *_) = verdict.verdict_table(model).rows
        put_row(tmp_path / "short" / "rbt6", -20)
        summary = verdict.summary(read(tmp_path / "short" / "rbt6"))
    assert chinese.cells[0] == "无法判断：验证集样本数为 30，官方发布版本为 4316"
    assert "10 个任务中，10 个低于公开得分（AFQMC, TNEWS, " in summary and summary.endswith("C3）。")
    assert verdict.summary(model).endswith("as published: of 10 tasks 10 without a verdict.")
    put_row(tmp_path / "other" / "rbt6", 0.0)
    put_row(tmp_path / "other" / "rbt6", 0.0, seed=1, data_sha256={"dev": "edited"})
    found = verdict.of_task(read(tmp_path / "other" / "rbt6"), tasks.TASKS["OCNLI"])
    assert found and found.text == "none: the runs of its seeds have different development data"
    (trial,) = search_space.published_trials("hfl/rbt6", ["C3"])
    put(tmp_path / "old" / "rbt6", trial, 0.6, best_metrics={"accuracy": 0.6})
    found = verdict.of_task(read(tmp_path / "old" / "rbt6"), tasks.TASKS["C3"])
    assert found and found.text.startswith("none: ") and "published rule" in found.text


def test_the_report_shows_it_everywhere(tmp_path: Path, run_script: Any) -> None:
    put_row(tmp_path / "rbt6", -1.5)
    status, out, _ = run_script(script.main, tmp_path / "rbt6", "--output", tmp_path / "out")
    assert status == 0 and "Published scores matched: rbt6\n" in out
    said = "rbt6 beside RBT6, Chinese as published: of 10 tasks "
    assert said in out and "below (" in out and "sqrt(w² + e²)" in out
    for name in ("report.md", "report.html"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert "Published scores matched" in text and said in text


def test_a_model_without_a_row_or_without_its_settings_has_no_table(tmp_path: Path) -> None:
    (trial,) = search_space.published_trials("hfl/rbt6", ["TNEWS"])
    put(tmp_path / "mine", trial, 0.5)
    put(tmp_path / "rbt6", trial._replace(dropout=0.3), 0.5)
    models = [read(tmp_path / name) for name in ("mine", "rbt6")]
    assert not any(verdict.verdict_table(model).rows for model in models) and verdict.notes(models) == []
    assert "matched" not in render.to_markdown(models)
    assert isinstance(models[0], collect.ModelReport)
