"""What a manifest beside a zip tells, and what the checker makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import check_submission
from clue_utils.errors import UserError
from clue_utils.files import digest_of
from clue_utils.leaderboard import manifest, write
from clue_utils.tasks import TASKS

NAME = "csl_predict.json"


def put_checkpoint(folder: Path, score: float | None, **settings: Any) -> str:
    folder.mkdir()
    record = {"status": "finished", "task": "CSL", "metric": "accuracy", "best_metric": score, "model": "bert-base"}
    (folder / "result.json").write_text(json.dumps(record | {"hyper_parameters": settings}))
    (folder / "model.safetensors").write_bytes(folder.name.encode())
    return str(folder)


def put_predictions(folder: Path, members: list[str], evaluation: dict[str, float] | None = None) -> Path:
    """As a run with --do_predict leaves them."""
    answers: Any = [(i, "01"[i % 2]) for i in range(3000)]
    (path,) = write.write_predictions(TASKS["CSL"], "test", answers, folder)
    made = {
        "sha256": digest_of(path),
        "data_sha256": "d",
        "checkpoints": manifest.describe_members(members, "CSL", folder),
    }
    record = {"status": "finished", "task": "CSL", "metric": "accuracy", "predictions": {NAME: made}}
    (folder / "result.json").write_text(json.dumps(record | ({"evaluation": evaluation} if evaluation else {})))
    return path


@pytest.fixture
def zipped(tmp_path: Path) -> Path:
    members = [put_checkpoint(tmp_path / name, score) for name, score in (("a", 0.75), ("b", 0.5))]
    put_predictions(tmp_path / "out", members, {"loss": 0.3, "accuracy": 0.8125})
    write.zip_predictions([tmp_path / "out"], tmp_path / "submit.zip")
    return tmp_path / "submit.zip"


def lines_of_check(run_script: Any, path: Path) -> list[str]:
    status, out, err = run_script(check_submission.main, path)
    assert (status, err) == (0, "")
    return [line for line in out.splitlines() if "left out" not in line]


def test_a_manifest_tells_what_made_each_file(tmp_path, zipped, run_script):
    told = json.loads((tmp_path / "submit.manifest.json").read_text())
    assert (told["zip"], told["sha256"]) == ("submit.zip", digest_of(zipped))
    made = told["files"][NAME]
    assert (made["task"], made["split"], made["predictions"], made["data_sha256"]) == ("CSL", "test", 3000, "d")
    assert (made["metric"], made["score"], made["folder"]) == ("accuracy", 0.8125, str(tmp_path / "out"))
    assert made["checkpoints"][1] == {
        "path": str(tmp_path / "b"),
        "weights_sha256": digest_of(tmp_path / "b/model.safetensors"),
        "model": "bert-base",
        "score": 0.5,
        "trained_on_dev": False,
    }
    row = f"{NAME:<25}accuracy 81.25 % mean of 2: {tmp_path / 'a'}, {tmp_path / 'b'}"
    assert row in lines_of_check(run_script, zipped)


def test_the_score_of_one_checkpoint_is_its_own(tmp_path):
    put_predictions(tmp_path / "out", [put_checkpoint(tmp_path / "a", 0.75)])
    write.zip_predictions([tmp_path / "out"], tmp_path / "submit.zip")
    assert manifest.read(tmp_path / "submit.zip")["files"][NAME]["score"] == 0.75


def test_a_folder_with_model_and_predictions_can_be_moved(tmp_path):
    model = put_checkpoint(tmp_path / "a", 0.75)
    put_predictions(tmp_path / "a", [model])
    (tmp_path / "a").rename(tmp_path / "b")
    write.zip_predictions([tmp_path / "b"], tmp_path / "submit.zip")
    (member,) = manifest.read(tmp_path / "submit.zip")["files"][NAME]["checkpoints"]
    assert member["path"] == str(tmp_path / "b") and member["score"] == 0.75


def test_a_last_submission_is_told_as_such(tmp_path, run_script):
    put_predictions(tmp_path / "out", [put_checkpoint(tmp_path / "a", None, train_on_dev=True)])
    write.zip_predictions([tmp_path / "out"], tmp_path / "submit.zip")
    row = f"{NAME:<25}no score         {tmp_path / 'a'} (trained on the development set too)"
    assert row in lines_of_check(run_script, tmp_path / "submit.zip")


@pytest.mark.parametrize("record", ["other file", "no record", "damaged", "of another kind"])
def test_where_the_record_does_not_tell_of_a_file_its_origin_is_unknown(tmp_path, run_script, record):
    path = put_predictions(tmp_path / "out", [put_checkpoint(tmp_path / "a", 0.75)])
    result = tmp_path / "out/result.json"
    if record == "other file":
        path.write_text(path.read_text().replace('"0"', '"1"', 1))
    elif record == "no record":
        result.unlink()
    else:
        result.write_text("{" if record == "damaged" else json.dumps({"task": "CSL", "predictions": {NAME: 7}}))
    write.zip_predictions([tmp_path / "out"], tmp_path / "submit.zip")
    assert f"{NAME:<25}of unknown origin: no record beside it tells of it" in lines_of_check(
        run_script, tmp_path / "submit.zip"
    )


def test_a_manifest_of_another_zip_is_noted_and_none_is_nothing(tmp_path, zipped, run_script):
    zipped.write_bytes(zipped.read_bytes() + b" ")
    (note, *_) = lines_of_check(run_script, zipped)
    assert note.startswith("note: submit.manifest.json tells of another zip") and "made by" not in note
    for text in ("{", "[]", '{"files": []}', '{"files": {"a": 1}}', "null"):
        (tmp_path / "submit.manifest.json").write_text(text)
        with pytest.raises(UserError, match=r"submit\.manifest\.json is damaged"):
            manifest.read(zipped)
    (tmp_path / "submit.manifest.json").unlink()
    assert manifest.read(zipped) is None and not any("made by" in line for line in lines_of_check(run_script, zipped))
