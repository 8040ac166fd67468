"""What users get wrong: one line naming the place and the remedy, exit status 2, and nothing half-written.

``pytest -s tests/test_bad_input.py`` prints the lines.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import run_clue_classifier
from clue_utils import record, settings, tasks
from clue_utils.errors import UserError
from clue_utils.models import pickles

Case = tuple[Callable[["Scene"], None], str]


class Scene:
    """The command of a good run, to be spoilt: flags by name, its own copies of TNEWS data and of the model."""

    def __init__(self, folder: Path, demo: Path) -> None:
        self.folder = folder
        self.data, self.model = folder / "data/tnews_public", folder / "model"
        shutil.copytree(demo / "data/tnews_public", self.data)
        shutil.copytree(demo / "model", self.model)
        self.flags: dict[str, Any] = {
            "--task_name": "TNEWS",
            "--model_name_or_path": self.model,
            "--data_dir": folder / "data",
            "--output_dir": folder / "output",
            "--device": "cpu",
            "--max_steps": 1,
            "--batch_size": 8,
            "--max_seq_length": 16,
        }
        self.actions = ["--do_train"]

    def words(self) -> list[str]:
        return [str(word) for pair in self.flags.items() for word in pair] + self.actions

    def line_3(self, **fields: Any) -> None:
        """Change fields of the third training example; None removes one."""
        lines = (self.data / "train.json").read_text(encoding="utf-8").split("\n")
        example = json.loads(lines[2]) | fields
        lines[2] = json.dumps({name: value for name, value in example.items() if value is not None})
        (self.data / "train.json").write_text("\n".join(lines), encoding="utf-8")

    def append(self, data: bytes) -> None:
        with open(self.data / "train.json", "ab") as file:
            file.write(data)

    def cut(self, name: str) -> None:
        """Lose the second half of a file of the model."""
        path = self.model / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flag(name: str, value: Any) -> Callable[[Scene], None]:
    return lambda scene: scene.flags.update({name: value})


def write(name: str, data: bytes) -> Callable[[Scene], Any]:
    return lambda scene: (scene.folder / name).write_bytes(data)


def finished_run(scene: Scene) -> None:
    """The output folder holds the run of another model."""
    (scene.folder / "output").mkdir()
    result = {"task": "TNEWS", "model": "another", "status": "running", "hyper_parameters": {}, "history": []}
    (scene.folder / "output/result.json").write_text(json.dumps(result))


CASES: dict[str, Case] = {
    # Flags
    "unknown task": (flag("--task_name", "TNEW"), r"'TNEW': did you mean TNEWS\? .*CSL, or .*--task_file"),
    "a task of another script": (flag("--task_name", "C3"), r"C3 is a reading task: run mrc/run_c3.py"),
    "a device that is not there": (flag("--device", "gpu"), r"--device gpu: .*pass --device cpu"),
    "more tokens than positions": (
        flag("--max_seq_length", 4096),
        r"--max_seq_length 4096: the model has \d+ positions",
    ),
    # Files and examples
    "no data folder": (flag("--data_dir", "/nowhere"), r"/nowhere"),
    "missing file": (lambda s: (s.data / "train.json").unlink(), r"train\.json"),
    "empty file": (write("data/tnews_public/train.json", b""), r"train\.json: empty"),
    "broken JSON": (lambda s: s.append(b'{"sentence": "cut o\n'), r"train\.json:\d+: .*JSON"),
    "not UTF-8": (lambda s: s.append(b'{"sentence": "\xff\xfe"}\n'), r"train\.json:\d+: .*UTF-8"),
    "an array for lines": (
        lambda s: (s.data / "train.json").write_text(json.dumps([{"sentence": "中" * 99, "label": "100"}] * 99)),
        r"train\.json:1: a JSON array in place of one JSON object a line",
    ),
    "a value that is long and nested": (
        lambda s: s.line_3(sentence={f"{i}": [["甲" * 999] * 99] * 99 for i in range(9)}),
        r"train\.json:3: field 'sentence': .* is not a string",
    ),
    "unknown label": (lambda s: s.line_3(label="105"), r"train\.json:3: .*label.*105"),
    # Models and checkpoints
    "no model folder": (flag("--model_name_or_path", "/nowhere/model"), r"/nowhere/model: no such folder"),
    "folder without weights": (
        lambda s: (s.model / "model.safetensors").unlink(),
        r"model: no weights in this folder \(looked for model\.safetensors",
    ),
    "weights cut off": (lambda s: s.cut("model.safetensors"), r"model/model\.safetensors: damaged"),
    "configuration cut off": (lambda s: s.cut("config.json"), r"model/config\.json, line \d+: not JSON"),
    "no vocabulary": (
        lambda s: (s.model / "vocab.txt").unlink(),
        r"model: no vocab\.txt, nor a tokenizer\.json: copy it from the model that the weights are of",
    ),
    "prediction without a head": (
        lambda s: s.actions.__setitem__(0, "--do_predict"),
        r"model has no trained head for TNEWS .*with --do_train",
    ),
    "damaged result.json": (write("model/result.json", b"{"), r"model/result\.json is damaged"),
    # Output
    "output folder below a file": (flag("--output_dir", "/etc/hostname/out"), r"/etc/hostname/out.*: Not a directory"),
    "output folder that cannot be made": (flag("--output_dir", "/proc/out"), r"/proc/out.*: "),
    "output folder of another run": (finished_run, r"holds a run with other settings \(.*--overwrite_output_dir"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_line_and_status_2(run_script, demo, tmp_path, case):
    scene = Scene(tmp_path, demo)
    spoil, line = CASES[case]
    spoil(scene)
    before = set(tmp_path.rglob("*"))
    status, _, error = run_script(run_clue_classifier.main, *scene.words())
    print(f"\n{case:<35}{error.strip()}".replace(str(tmp_path), ""), end="")
    assert status == 2
    assert re.fullmatch(rf"error: .*{line}.*\n", error) and len(error.replace(str(tmp_path), "")) < 300, error
    left = {path.name for path in set(tmp_path.rglob("*")) - before}
    assert left <= {"output", "result.json", ".lock"}


@pytest.mark.parametrize("place", ["/proc/cache", "/dev/null/cache"])
def test_a_cache_that_cannot_be_written(run_script, demo, tmp_path, monkeypatch, place):
    monkeypatch.setenv("CLUE_CACHE_DIR", place)
    status, _, error = run_script(run_clue_classifier.main, *Scene(tmp_path / "scene", demo).words())
    assert status == 2
    assert re.fullmatch(rf"error: {place}/features: cannot keep features there .*CLUE_CACHE_DIR\n", error), error


LONG = "long\n" * 9999


def read_pickle(content: bytes) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        (folder / "model_state.pdparams").write_bytes(content)
        pickles.read_paddle_pickle(folder / "model_state.pdparams")

    return read


def go_on_with_another_run(folder: Path) -> None:
    names = [f"setting_{i}" for i in range(99)]
    before, now = dict.fromkeys(names, [LONG]), dict.fromkeys(names, 1)
    record._require_same_run(folder, before, now | {"hyper_parameters": {}})


def take_a_hyper_parameter(folder: Path) -> None:
    given = {"model_name_or_path": str(folder), "do_train": True}
    settings.Settings.resolve(given, tasks.TASKS["TNEWS"], 1, trained={"dropout": [LONG]})


@pytest.mark.parametrize(
    "read",
    [
        read_pickle(pickle.dumps({LONG: 1})),
        read_pickle(b"c" + b"m" * 9999 + b"\n" + b"n" * 9999 + b"\n."),
        go_on_with_another_run,
        take_a_hyper_parameter,
        lambda folder: tasks.get_task(LONG),
    ],
)
def test_no_message_shows_more_of_a_file_than_two_lines(tmp_path, read):
    with pytest.raises(UserError) as refused:
        read(tmp_path)
    line = str(refused.value).replace(str(tmp_path), "")
    assert line.isprintable() and len(line) < 300, line


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 512 KiB, too small for a checkpoint."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_no_half_checkpoint(run_script, demo, tmp_path, small_disk):
    scene = Scene(tmp_path / "scene", demo)
    scene.flags["--output_dir"] = small_disk / "output"
    status, _, error = run_script(run_clue_classifier.main, *scene.words())
    print(f"\n{'full disk':<35}{error.strip()}".replace(str(tmp_path), ""), end="")
    assert status == 2
    assert re.fullmatch(r"error: .*(No space left on device|disk).*\n", error), error
    assert not list(small_disk.rglob("*.safetensors"))
