"""Comparisons of runs, folders and models, on records and answers made here."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import check_statistics
import compare as script
from clue_utils import dev_predictions, published, tasks
from clue_utils.compare import pairs, statistics, words
from clue_utils.compare.answers import read_answers
from clue_utils.compare.matrix import matrix
from clue_utils.errors import UserError
from clue_utils.grid.search_space import Trial
from clue_utils.record import Record
from clue_utils.report.collect import read_models

NUM = 200
Rights = Sequence[Any]


def rights(rate: float, seed: int = 0, num: int = NUM) -> list[int]:
    """Which records are right; of two rates the higher has those of the lower and more."""
    return (np.random.default_rng(seed).random(num) < rate).astype(int).tolist()


def line_of(task: tasks.Task, number: int, right: Any) -> dict[str, Any]:
    """A line of answers; ``right``: whether it is; of CHID the flags of its blanks; of CMRC2018 its F1."""
    line = {"id": number, "inputs": {"sentence": "文"}, "is_cut": False, "gold": "a", "answer": "b"}
    if task.kind == "cloze":
        blank = {"tag": "#idiom1#", "gold": "a", "answer": "b", "probabilities": [1.0]}
        flags = [bool(flag) for flag in right]
        return {
            **line,
            "gold": ["a"],
            "answer": ["b"],
            "blanks": [{**blank, "is_right": flag} for flag in flags],
            "is_right": all(flags),
        }
    if task.kind == "span":
        em = int(right == 1)
        return {**line, "gold": ["a"], "em": em, "f1": float(right), "n_best": [], "is_right": em == 1}
    if task.kind == "multiple_choice":
        return {**line, "gold_index": 0, "answer_index": 1, "probabilities": [1.0], "is_right": bool(right)}
    return {**line, "probabilities": {"a": 0.0, "b": 1.0}, "is_right": bool(right)}


def put(folder: Path, task_name: str, right: Rights, trained: bool = True, /, **fields: Any) -> Path:
    """Write what a run leaves behind that answered so."""
    task = tasks.TASKS[task_name]
    folder.mkdir(parents=True)
    lines = [line_of(task, number, one) for number, one in enumerate(right)]
    if task.kind == "cloze":
        metrics = {"accuracy": sum(map(sum, right)) / sum(map(len, right))}
    elif task.kind == "span":
        metrics = {"em": sum(one == 1 for one in right) / len(right), "f1": sum(right) / len(right)}
    else:
        metrics = {"accuracy": sum(right) / len(right)}
    best = {"best_metric": metrics[task.metric], "best_step": 10, "best_metrics": metrics, "history": []}
    result = {
        "status": "finished",
        "task": task_name,
        "model": "some/model",
        "metric": task.metric,
        "hyper_parameters": {"learning_rate": 3e-5, "batch_size": 32, "dropout": 0.1, "seed": 42},
        "num_processes": 1,
        "num_examples": {"dev": len(lines)},
        "data_sha256": {"dev": "d"},
        "dev_predictions": {**dev_predictions.write(folder, lines), "step": 10 if trained else None},
        **(best if trained else {"evaluation": metrics}),
    }
    (folder / "result.json").write_text(json.dumps(result | fields), encoding="utf-8")
    return folder


def put_trial(model: Path, task: str, right: Rights, rate: float = 3e-5, seed: int = 42, **fields: Any) -> Path:
    own = {"learning_rate": rate, "batch_size": 32, "dropout": 0.1, "seed": seed}
    return put(model / Trial(task, rate, 32, 0.1, seed, 1).folder, task, right, hyper_parameters=own, **fields)


def compared(first: Path, second: Path, **options: Any) -> pairs.Pair:
    return pairs.compare_all(pairs.read_sides([str(first), str(second)], Path("nowhere"), **options))[0]


def refusal(first: Path, second: Path) -> str:
    with pytest.raises(UserError) as caught:
        compared(first, second)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def two_models(tmp_path: Path) -> tuple[Path, Path]:
    """A far better one on TNEWS, hardly another one on CSL, a worse one on C3."""
    for name, rates in (("rbt3", (0.5, 0.7, 0.9)), ("rbt6", (0.7, 0.705, 0.6))):
        for task, rate in zip(("TNEWS", "CSL", "C3"), rates, strict=True):
            put_trial(tmp_path / name, task, rights(rate))
    return tmp_path / "rbt3", tmp_path / "rbt6"


def test_the_script_prints_a_table_a_sentence_and_what_to_know(two_models, capsys):
    script.main([*map(str, two_models)])
    text = capsys.readouterr().out
    assert re.search(
        r"rbt6 is better than rbt3 on 1 of 3 tasks \(TNEWS \+\d\d\.\d\d \[\d\d\.\d\d, \d\d\.\d\d\]\), worse on 1 \(C3 "
        r"−\d\d\.\d\d \[−\d\d\.\d\d, −\d\d\.\d\d\]\); on average over the tasks [+−]\d",
        text,
    )
    row = next(line.split() for line in text.splitlines() if line.startswith("TNEWS"))
    scores = [100 * np.mean(rights(rate)) for rate in (0.5, 0.7)]
    assert row[1:4] == [f"{scores[0]:.2f}", f"{scores[1]:.2f}", f"+{scores[1] - scores[0]:.2f}"]
    assert "one seed" in text and "McNemar" in text and "Holm" in text and "sign flips" not in text


def test_a_comparison_in_chinese(two_models, capsys, chinese):
    script.main([*map(str, two_models)])
    text = capsys.readouterr().out
    assert re.search(
        r"3 个任务中，rbt6 在 1 个上优于 rbt3（TNEWS \+.*\]），在 1 个上差于它（C3 −.*\]）；各任务平均差值 ", text
    )
    assert "95% 置信区间" in text and "精确 McNemar 检验" in text and "有一侧只有一个种子（" in text
    assert " better" not in text
    with pytest.raises(UserError, match="没有 AFQMC 已完成的运行：请从 --tasks 中去掉"):
        script.main([*map(str, two_models), "--tasks", "AFQMC"])


def test_tasks_can_be_chosen_and_tables_be_markdown(two_models, capsys):
    script.main([*map(str, two_models), "--tasks", "csl", "--markdown"])
    text = capsys.readouterr().out
    assert "| CSL |" in text and "TNEWS" not in text
    assert "No difference between rbt6 and rbt3 can be told on CSL: accuracy" in text
    with pytest.raises(UserError, match="no finished run of AFQMC"):
        script.main([*map(str, two_models), "--tasks", "AFQMC"])


def test_p_values_are_adjusted_for_the_number_of_tasks(two_models):
    pair = compared(*two_models)
    raw, adjusted = [one.main for one in pair.tasks.values()], [one.adjusted_p for one in pair.tasks.values()]
    assert adjusted == statistics.holm([one.p_value for one in raw])
    assert min(adjusted) == 3 * min(one.p_value for one in raw)
    assert [one.task.name for one in pair.better] == ["TNEWS"] and [one.task.name for one in pair.worse] == ["C3"]
    assert pair.average == pytest.approx(np.mean([one.value for one in raw]))


def test_a_model_beside_itself_does_not_differ(two_models, capsys):
    script.main([str(two_models[0]), str(two_models[0])])
    text = capsys.readouterr().out
    assert "No difference: " in text and "are the same runs." in text and "better" not in text
    assert re.search(r"^TNEWS .* \+0\.00 +\[0\.00, 0\.00\] .*no difference$", text, re.MULTILINE)


def test_more_than_two_are_compared_two_by_two(two_models, tmp_path, capsys):
    put_trial(tmp_path / "third", "TNEWS", rights(0.7, seed=1))
    script.main([*map(str, two_models), str(tmp_path / "third")])
    assert re.findall(r"^(\S+) \(B\) minus (\S+) \(A\)", capsys.readouterr().out, re.MULTILINE) == [
        ("rbt6", "rbt3"),
        ("third", "rbt3"),
        ("third", "rbt6"),
    ]
    with pytest.raises(UserError, match="at least two"):
        script.main([str(two_models[0])])


def test_runs_folders_of_runs_and_names_are_taken(two_models, tmp_path):
    run = put(tmp_path / "models/tnews", "TNEWS", rights(0.7), False)  # evaluated alone
    put(tmp_path / "models/csl", "CSL", rights(0.7))
    (tmp_path / "models/notes").mkdir()
    assert list(pairs.read_side(str(run), tmp_path).runs) == ["TNEWS"]
    assert list(pairs.read_side(str(tmp_path / "models"), tmp_path).runs) == ["TNEWS", "CSL"]
    assert list(pairs.read_side("hfl/rbt3", tmp_path).runs) == ["TNEWS", "CSL", "C3"]
    pair = compared(tmp_path / "models", two_models[1])
    assert list(pair.tasks) == ["TNEWS", "CSL"] and pair.not_compared == ("C3",)
    assert any("not compared" in note and "C3" in note for note in words.notes([pair]))


def test_the_winner_is_compared_with_all_its_seeds_and_not_other_settings(tmp_path):
    first = [put_trial(tmp_path / "a", "TNEWS", rights(0.7, seed), seed=seed) for seed in (1, 2)]
    put_trial(tmp_path / "a", "TNEWS", rights(0.3), rate=5e-5)
    put_trial(tmp_path / "b", "TNEWS", rights(0.7))
    side = pairs.read_side(str(tmp_path / "a"), tmp_path)
    assert sorted(record.folder for record in side.runs["TNEWS"].records) == sorted(first)
    pair = compared(tmp_path / "a", tmp_path / "b")
    one = pair.tasks["TNEWS"]
    assert one.num_runs == (2, 1) and one.main.test == "t"
    assert one.main.first == pytest.approx(np.mean([rights(0.7, seed) for seed in (1, 2)]))
    notes = words.notes([pair])
    assert any("unlike numbers of settings by these same records (TNEWS 2 and 1)" in note for note in notes)
    assert any("Several seeds (TNEWS 2 and 1)" in note for note in notes)


def test_published_settings_can_be_compared_instead_of_winners(tmp_path):
    best = published.published_model("hfl/rbt6").best_runs["TNEWS"]
    name = "hfl/rbt6"
    for rate, share in ((best.learning_rate, 0.5), (1e-5, 0.9)):
        own = {"learning_rate": rate, "batch_size": best.batch_size, "dropout": best.dropout, "seed": 42}
        put(tmp_path / f"rbt6/TNEWS/{rate}", "TNEWS", rights(share), model=name, hyper_parameters=own)
    side = pairs.read_side(str(tmp_path / "rbt6"), tmp_path, by_published=True)
    assert side.runs["TNEWS"].records[0].score == np.mean(rights(0.5))
    put_trial(tmp_path / "other", "TNEWS", rights(0.5))
    with pytest.raises(UserError, match="no finished run with published settings"):
        pairs.read_side(str(tmp_path / "other"), tmp_path, by_published=True)


def test_chid_is_compared_by_blanks_and_cmrc2018_by_em_and_f1(tmp_path):
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 6, size=100)
    for name, rate in (("a", 0.5), ("b", 0.8)):
        put_trial(tmp_path / name, "CHID", [rng.binomial(1, rate, size=size).tolist() for size in sizes])
        put_trial(tmp_path / name, "CMRC2018", (rng.integers(0, 5, size=100) / 4).tolist())
    pair = compared(tmp_path / "a", tmp_path / "b")
    chid, cmrc = pair.tasks["CHID"], pair.tasks["CMRC2018"]
    assert chid.main.second == pairs.read_side(str(tmp_path / "b"), tmp_path).runs["CHID"].records[0].score
    assert chid.main.test == "sign flips" and chid.is_real
    assert cmrc.main.test == "McNemar" and cmrc.f1.test == "sign flips"
    labels = [row.label for row in words.table(pair).rows]
    assert labels == ["CMRC2018 EM", "CMRC2018 F1", "CHID", "AVG"]
    assert "sign flips" in words.notes([pair])[0]


def test_other_data_is_refused(tmp_path):
    one = put(tmp_path / "a", "TNEWS", rights(0.5))
    other = put(tmp_path / "b", "TNEWS", rights(0.5), data_sha256={"dev": "e"})
    fewer = put(tmp_path / "c", "TNEWS", rights(0.5)[:-1])
    chid = [put(tmp_path / name, "CHID", [[1, 0], size]) for name, size in (("d", [1]), ("e", [1, 1]))]
    assert "(checksums d and e)" in refusal(one, other)
    assert "(200 and 199 records)" in refusal(one, fewer)
    assert "not scored on the same development data" in refusal(*chid)
    assert "no task in common" in refusal(one, chid[0])


def test_answers_that_are_missing_stale_or_damaged_are_refused(tmp_path):
    good, bad = (put(tmp_path / name, "TNEWS", rights(0.5)) for name in ("a", "b"))
    path = bad / "dev_predictions.jsonl"
    content = path.read_bytes()
    flipped = content.replace(b'"is_right": true', b'"is_right": false', 1)
    for damage, said in ((flipped, "result.json tells of"), (content + b"{\n", "result.json|not JSON"), (b"", "")):
        path.write_bytes(damage)
        assert re.search(said, refusal(good, bad)) and "--do_eval" in refusal(good, bad)
    path.unlink()
    message = refusal(good, bad)
    assert "holds no dev_predictions.jsonl" in message and f"--output_dir {bad}" in message


def test_runs_that_have_not_finished_and_folders_without_any_are_refused(tmp_path):
    good, bad = put(tmp_path / "a", "TNEWS", rights(0.5)), put(tmp_path / "b", "TNEWS", rights(0.5), status="failed")
    assert "holds no finished run" in refusal(good, bad)
    put_trial(tmp_path / "model", "CSL", rights(0.5)).joinpath("result.json").write_text("{")
    assert "is damaged" in refusal(good, tmp_path / "model")
    assert "no trials of" in refusal(good, tmp_path / "nowhere")
    for name in ("x", "y"):
        put(tmp_path / "evaluated" / name, "TNEWS", rights(0.5), False)
    assert "several evaluations of TNEWS" in refusal(good, tmp_path / "evaluated")


def test_the_matrix_has_every_two_models_both_ways_and_reasons(two_models, tmp_path):
    put_trial(tmp_path / "old", "TNEWS", rights(0.5)).joinpath("dev_predictions.jsonl").unlink()
    put_trial(tmp_path / "none", "TNEWS", rights(0.5), status="failed")
    cells = matrix(read_models([*map(str, two_models), *(str(tmp_path / name) for name in ("old", "none"))], tmp_path))
    assert len(cells) == 12
    there, back = cells["rbt6", "rbt3"], cells["rbt3", "rbt6"]
    assert (there.better, there.worse, there.num_tasks) == (("TNEWS",), ("C3",), 3)
    assert (back.better, back.worse, back.average) == (("C3",), ("TNEWS",), -there.average)
    assert (back.low, back.high) == (-there.high, -there.low) and there.low < there.average < there.high
    assert there.average == pytest.approx(compared(*two_models).average)
    assert "dev_predictions.jsonl" in cells["rbt3", "old"].reason and cells["none", "rbt3"].reason


def test_the_matrix_is_of_the_runs_that_a_report_was_given(tmp_path):
    """Of single runs that lie side by side, too: each model has its own."""
    for model, rate in (("rbt3", 0.5), ("rbt6", 0.7), ("other", 0.9)):
        put(tmp_path / f"tnews-{model}", "TNEWS", rights(rate), model=model)
    found = read_models([str(tmp_path / f"tnews-{model}") for model in ("rbt3", "rbt6")], tmp_path)
    cells = matrix(found)
    assert {*cells} == {("rbt3", "rbt6"), ("rbt6", "rbt3")}
    assert cells["rbt6", "rbt3"].better == ("TNEWS",) and cells["rbt6", "rbt3"].average == pytest.approx(
        (sum(rights(0.7)) - sum(rights(0.5))) / NUM
    )


def test_a_real_comparison_is_computed_anew(two_models, capsys):
    assert check_statistics.check_sides([*map(str, two_models)], Path("nowhere"))
    assert capsys.readouterr().out.count("ok\n") == 2  # CSL has one record that differs


def test_a_run_that_has_learnt_the_development_set_is_not_compared(tmp_path):
    """Neither by a score, which it has not, nor by answers that were made in spite of that."""
    settings = {"learning_rate": 3e-5, "batch_size": 32, "dropout": 0.1, "seed": 42, "train_on_dev": True}
    one, other = put(tmp_path / "a", "TNEWS", rights(0.5)), tmp_path / "b"
    put(other, "TNEWS", rights(0.9), hyper_parameters=settings, best_metric=None, best_metrics=None)
    assert refusal(one, other) == f"{other} holds no finished run with a development score"
    with pytest.raises(UserError, match="was trained on the development set too: its answers there say nothing"):
        read_answers(Record.read(other))
