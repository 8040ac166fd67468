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
from typing import Any

import pytest

import report as script
from clue_utils import record, tasks
from clue_utils.errors import UserError
from clue_utils.grid import outcomes, search_space
from clue_utils.grid.search_space import Trial
from clue_utils.report import collect, page, render, tables

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
    assert winner.standard_error() == pytest.approx((0.57 * 0.43 / 10000) ** 0.5)
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
    assert own["C3"] == "59.00" and rule["C3"] == "57.00" and rule["TNEWS"] == ""
    assert rule["AVG"] == "54.40" and rule["CMRC2018"] == "58.00/78.00"
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
    assert cells(table, "difference")["TNEWS"] == "–" and cells(table, "rbt6")["TNEWS"] == "50.00"
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
    assert sorted(found.scores_over_seeds(winner)) == sorted(scores)
    spread = f"56.00 ± {100 * statistics.stdev(scores):.2f} (3)"
    assert cells(tables.uncertainty_table(found), "TNEWS")["mean ± SD (seeds)"] == spread
    # The three seeds are one cell of the heat map, which shows the best.
    (only,) = page.heat_maps(found.of_task("TNEWS"), winner, False)
    row = next(row for row in only["rows"] if row["rate"] == "3e-5")
    assert row["cells"] == [{"text": "57.00", "heat": 6, "best": True}]


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
        "pruned": [(trial_of("C3", 1e-5).folder, "step 200, rule below the median")],
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
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.md", "scores.csv"]
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
    assert text.count("<svg") == len(tasks.TASKS)
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
    assert render._width(header) == render._width(row) and "…" in row


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
