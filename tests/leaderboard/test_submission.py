"""Prediction files and the zip."""

from __future__ import annotations

import json
import zipfile

import pytest

import zip_predictions
from clue_utils.errors import UserError
from clue_utils.leaderboard import write
from clue_utils.tasks import TASKS


def test_names_and_lines_of_a_task_with_two_test_sets(tmp_path):
    task = TASKS["TNEWS"]
    assert [p.name for p in write.write_predictions(task, "test1.0", [(0, "102")], tmp_path)] == [
        "tnews10_predict.json"
    ]
    paths = write.write_predictions(task, "test1.1", [(5, "116"), (6, "100")], tmp_path)
    assert [p.name for p in paths] == ["tnews11_predict.json", "tnews_predict.json"]
    assert paths[0].read_text() == '{"id": 5, "label": "116"}\n{"id": 6, "label": "100"}\n' == paths[1].read_text()


def test_objects_keep_chinese_text(tmp_path):
    paths = write.write_predictions(TASKS["CMRC2018"], "test", {"TEST_0_QUERY_0": "光荣和\u2028ω-force"}, tmp_path)
    assert [p.name for p in paths] == ["cmrc2018_predict.json"]
    assert json.loads(paths[0].read_text()) == {"TEST_0_QUERY_0": "光荣和\u2028ω-force"}
    assert "光荣和" in paths[0].read_text()


def test_probabilities_are_a_line_for_each_record_beside_the_predictions(tmp_path):
    lines = [{"name": "财经", "probability": 0.75}, {"name": "军事", "probability": 0.5}]
    path = write.write_probabilities(TASKS["TNEWS"], "test1.1", iter(lines), tmp_path)
    assert path == tmp_path / "tnews11_probabilities.jsonl"
    expected = '{"name": "财经", "probability": 0.75}\n{"name": "军事", "probability": 0.5}\n'
    assert path.read_text(encoding="utf-8") == expected and [*tmp_path.iterdir()] == [path]


def test_the_zip_holds_leaderboard_names_at_its_top_level(tmp_path):
    write.write_predictions(TASKS["TNEWS"], "test1.1", [(0, "102")], tmp_path / "a")
    write.write_predictions(TASKS["C3"], "test1.1", [(0, 3)], tmp_path / "b")
    counts = write.zip_predictions([tmp_path / "a", tmp_path / "b"], tmp_path / "submit.zip")
    assert counts == {"c311_predict.json": 1, "tnews11_predict.json": 1}
    assert sorted(zipfile.ZipFile(tmp_path / "submit.zip").namelist()) == sorted(counts)


def test_diagnostics_that_are_asked_for_must_be_there(tmp_path):
    write.write_predictions(TASKS["C3"], "test1.1", [(0, 3)], tmp_path)
    with pytest.raises(UserError, match=r"no diagnostics_predict\.json in .*the data has clue_diagnostics_public/"):
        write.zip_predictions([tmp_path], tmp_path / "submit.zip", with_diagnostics=True)
    assert not (tmp_path / "submit.zip").exists()


def test_what_the_leaderboard_would_score_zero_is_refused(tmp_path):
    (tmp_path / "tnews11_predict.json").write_text('{"id": 0, "label": 3}\n')
    with pytest.raises(UserError, match=r"tnews11_predict\.json:1: label 3"):
        write.zip_predictions([tmp_path], tmp_path / "submit.zip")
    assert not (tmp_path / "submit.zip").exists()


def test_one_file_from_two_folders_is_refused(tmp_path):
    for folder in ("a", "b"):
        write.write_predictions(TASKS["CSL"], "test", [(0, "1")], tmp_path / folder)
    with pytest.raises(UserError, match="csl_predict.json is in both"):
        write.zip_predictions([tmp_path / "a", tmp_path / "b"], tmp_path / "submit.zip")


def test_a_mistyped_folder_is_refused(run_script, tmp_path):
    write.write_predictions(TASKS["CSL"], "test", [(0, "1")], tmp_path / "csl")
    status, _, err = run_script(zip_predictions.main, tmp_path / "csl", tmp_path / "tnews", "--output", tmp_path / "z")
    assert status == 2 and err == f"error: {tmp_path}/tnews: no such folder\n" and not (tmp_path / "z").exists()


def test_no_predictions_at_all(tmp_path):
    with pytest.raises(UserError, match="--do_predict"):
        write.zip_predictions([tmp_path], tmp_path / "submit.zip")
