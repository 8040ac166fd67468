"""What --do_export writes is used without this project, as docs/inference.md says."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import run_c3
import run_chid
import run_clue_classifier
import run_cmrc2018
from clue_utils import environment
from clue_utils.data.examples import load_examples
from clue_utils.errors import UserError
from clue_utils.tasks import TASKS
from clue_utils.training.classification import Classification
from clue_utils.training.cloze import Chid
from clue_utils.training.multiple_choice import C3
from clue_utils.training.span import Cmrc2018
from demo.architectures import make_encoder

environment.import_libraries()

from clue_utils import models  # noqa: E402
from clue_utils.features.batches import collate  # noqa: E402
from clue_utils.models import export, onnx_model  # noqa: E402
from clue_utils.models.families import BY_TYPE  # noqa: E402
from clue_utils.models.heads import HEADS, to_tensors  # noqa: E402

GUIDE = Path(__file__).parents[2] / "docs/inference_en.md"
LENGTH = 48
TNEWS = (run_clue_classifier.main, "--task_name", "TNEWS")
CMRC2018 = (run_cmrc2018.main, "--max_query_length", 16, "--doc_stride", 16)
SCRIPTS = {"TNEWS": TNEWS, "C3": (run_c3.main,), "CHID": (run_chid.main,), "CMRC2018": CMRC2018}


def method_of(task: str, tokenizer: Any) -> Any:
    """As the scripts make it."""
    return {
        "TNEWS": lambda: Classification(TASKS["TNEWS"], tokenizer, LENGTH),
        "C3": lambda: C3(tokenizer, LENGTH),
        "CHID": lambda: Chid(tokenizer, LENGTH, "joint"),
        "CMRC2018": lambda: Cmrc2018(tokenizer, LENGTH, 16, 16, 20, 50),
    }[task]()


def blocks() -> list[str]:
    """The guide's code: what all tasks share, each of ``SCRIPTS``, and ONNX Runtime in place of Paddle Inference."""
    return re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def compare(run: Any, model: Any, kind: str, features: list[Any], pad_id: int) -> None:
    """Of each feature for itself the guide's ``run`` gives the model's logits."""
    for feature in features:
        ids = feature["input_ids"]
        if isinstance(ids[0], list):
            rows = [*zip(ids, feature.get("token_type_ids", [[]] * len(ids)), strict=True)]
        else:
            rows = [(ids, feature["token_type_ids"])]
            feature = {name: np.array(value) if type(value) is list else value for name, value in feature.items()}
        expected = HEADS[kind].outputs(model, to_tensors(collate([feature], pad_id)))
        expected = expected if isinstance(expected, tuple) else (expected,)
        for here, there in zip(run(rows), expected, strict=True):
            np.testing.assert_allclose(here, there.numpy(), atol=1e-5)


@pytest.mark.parametrize(("number", "task"), [*enumerate(SCRIPTS, start=1)])
def test_an_exported_model_is_used_as_the_guide_says(run_script, demo, few_examples, tmp_path, capsys, number, task):
    """The guide's code gives the inputs that training has, and the checkpoint's logits."""
    main, *words = SCRIPTS[task]
    flags = ("--data_dir", few_examples, "--device", "cpu", "--output_dir", tmp_path, "--max_seq_length", LENGTH)
    training = ("--do_train", "--max_steps", 1, "--batch_size", 2, "--do_export")
    status, _, error = run_script(main, *words, "--model_name_or_path", demo / "model", *flags, *training)
    assert status == 0, error
    code = blocks()
    guide: dict[str, Any] = {}
    exec(code[0].replace("models/tnews/inference", str(tmp_path / "inference")), guide)
    capsys.readouterr()
    exec(code[number], guide)
    assert capsys.readouterr().out.strip()

    method = method_of(task, models.load_tokenizer(str(tmp_path)))
    model = models.load_model(str(tmp_path), TASKS[task], 0.1, method.num_outputs, training=False)
    model.eval()
    examples = itertools.islice(load_examples(TASKS[task], "dev", few_examples), 4)
    features = [feature for example in examples for feature in method.encode(example)]
    compare(guide["run"], model, TASKS[task].kind, features, method.sequences.pad_id)


@pytest.mark.parametrize("task", ["TNEWS", "AFQMC", "C3"])
def test_texts_become_the_sequence_that_training_has(demo, few_examples, task):
    """As the guide makes it of what ``task.json`` says, where texts are cut too."""
    tokenizer = models.load_tokenizer(str(demo / "model"))
    for length in (16, 24, 48):
        method = C3(tokenizer, length) if task == "C3" else Classification(TASKS[task], tokenizer, length)
        code = re.search(r"^def build.*?^    return ids, types$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
        guide = {"task": json.loads(json.dumps(method.description()))}
        exec(code[0], guide)
        for example in load_examples(TASKS[task], "dev", few_examples):
            (feature,) = method.encode(example)
            if task == "C3":
                read = method._read(example)
                texts = [read["context"], read["question"], read["choice"][0]]
                expected = feature["input_ids"][0], feature["token_type_ids"][0]
            else:
                texts = [example[name] for name in method.texts]
                expected = feature["input_ids"], feature["token_type_ids"]
            assert guide["build"](*map(method._ids, texts)) == expected


def test_a_record_says_what_the_inputs_are(demo):
    tokenizer = models.load_tokenizer(str(demo / "model"))
    said = {task: method_of(task, tokenizer).description() for task in SCRIPTS}
    assert [len(record["texts"]) for record in said.values()] == [1, 3, 2, 2]
    assert said["TNEWS"]["names"][8] == "news_tech" and said["TNEWS"]["labels"][8] == "109"
    assert said["CHID"]["blank_ids"] == [tokenizer.convert_tokens_to_ids("[unused1]")]
    assert said["CMRC2018"]["max_answer_length"] == 50


def test_an_export_that_is_refused_leaves_the_earlier_one(demo, tmp_path, monkeypatch):
    tokenizer = models.load_tokenizer(str(demo / "model"))
    model = models.load_model(str(demo / "model"), TASKS["TNEWS"], 0.1, 15, training=True)
    method, folder = method_of("TNEWS", tokenizer), tmp_path / "inference"
    export.export(model, folder, TASKS["TNEWS"], method, tokenizer)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {"model.json", "model.pdiparams", "task.json", "vocab.txt"} <= before.keys()
    assert json.loads(before["task.json"])["largest_difference"] < 1e-5
    run = export._run
    monkeypatch.setattr(export, "_run", lambda *words: [output + 1 for output in run(*words)])
    with pytest.raises(UserError, match=r"a ernie cannot be exported \(its logits would be off by 1"):
        export.export(model, folder, TASKS["TNEWS"], method, tokenizer)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["inference"]


def has_paddle2onnx() -> bool:
    try:
        environment.require_paddle2onnx()
    except UserError:
        return False
    return True


needs_paddle2onnx = pytest.mark.skipif(not has_paddle2onnx(), reason="needs paddle2onnx 2")
needs_onnxruntime = pytest.mark.skipif(not onnx_model.can_run(), reason="needs onnxruntime")


@needs_paddle2onnx
@needs_onnxruntime
@pytest.mark.parametrize("task", SCRIPTS)
def test_onnx_runtime_gives_the_same_logits(demo, few_examples, tmp_path, task):
    """As the guide uses it: of rows of many lengths, one by one and together, padded."""
    tokenizer = models.load_tokenizer(str(demo / "model"))
    method = method_of(task, tokenizer)
    model = models.load_model(str(demo / "model"), TASKS[task], 0.1, method.num_outputs, training=True)
    model.eval()
    export.export(model, tmp_path / "inference", TASKS[task], method, tokenizer, with_onnx=True)
    code, guide = blocks(), dict[str, Any]()
    exec(code[0].replace("models/tnews/inference", str(tmp_path / "inference")), guide)
    by_paddle = guide["run"]
    exec(code[-1], guide)
    examples = itertools.islice(load_examples(TASKS[task], "dev", few_examples), 4)
    features = [feature for example in examples for feature in method.encode(example)]
    compare(guide["run"], model, TASKS[task].kind, features, method.sequences.pad_id)
    if task == "TNEWS":
        rows = [(feature["input_ids"][: 5 + 3 * i], feature["token_type_ids"]) for i, feature in enumerate(features)]
        rows = [(ids, types[: len(ids)]) for ids, types in rows]
        np.testing.assert_allclose(guide["run"](rows)[0], by_paddle(rows)[0], atol=1e-5)
    outputs = guide["session"].get_outputs()
    assert [output.name for output in outputs] == guide["task"]["outputs"]
    assert {value.name: value.shape for value in guide["session"].get_inputs()} == guide["task"]["inputs"]
    assert all(output.shape[0] == "batch" for output in outputs)


@needs_paddle2onnx
def test_what_has_no_form_in_onnx_is_refused_in_one_line(tmp_path, monkeypatch):
    """Where paddle2onnx aborts the process that it is in, too."""
    family = BY_TYPE["fnet"]
    model = models.load_model(str(make_encoder(family, tmp_path / "encoder")), TASKS["TNEWS"], 0.1, 15, training=True)
    words = (model, tmp_path / "model", HEADS["classification"], 0)
    with pytest.raises(UserError, match="^--export_onnx: a fnet cannot be exported .paddle2onnx: .*unsupported op"):
        export.write_model(*words, with_onnx=True)
    monkeypatch.setattr(onnx_model, "_MOST_BYTES", 1000)
    with pytest.raises(UserError, match="^--export_onnx: .* more than the 2 GB that the file may have"):
        export.write_model(*words, with_onnx=True)


def fake_onnx(monkeypatch: pytest.MonkeyPatch, can_run: bool) -> None:
    """What needs neither package: an empty file, which computes something else."""
    monkeypatch.setattr(onnx_model, "write", lambda path, *words: Path(f"{path}.onnx").touch())
    monkeypatch.setattr(onnx_model, "can_run", lambda: can_run)
    monkeypatch.setattr(onnx_model, "run", lambda path, batch: [np.full((3, 15), 9, np.float32)])


def test_an_onnx_model_that_computes_something_else_is_refused(demo, tmp_path, monkeypatch):
    tokenizer = models.load_tokenizer(str(demo / "model"))
    model = models.load_model(str(demo / "model"), TASKS["TNEWS"], 0.1, 15, training=True)
    fake_onnx(monkeypatch, can_run=True)
    with pytest.raises(UserError, match=r"^--export_onnx: a ernie cannot be exported \(its logits would be off by"):
        export.export(model, tmp_path / "inference", TASKS["TNEWS"], method_of("TNEWS", tokenizer), tokenizer, True)
    assert not [*tmp_path.iterdir()]


def test_an_onnx_model_that_cannot_be_compared_is_said(run_script, demo, few_examples, tmp_path, monkeypatch):
    fake_onnx(monkeypatch, can_run=False)
    monkeypatch.setattr(environment, "require_paddle2onnx", lambda: None)
    main, *words = TNEWS
    flags = ("--model_name_or_path", demo / "model", "--data_dir", few_examples, "--output_dir", tmp_path)
    training = ("--device", "cpu", "--max_seq_length", 16, "--do_train", "--max_steps", 1, "--batch_size", 2)
    status, output, error = run_script(main, *words, *flags, *training, "--do_export", "--export_onnx")
    assert status == 0, error
    assert "model.onnx is not compared with the model: onnxruntime is not installed" in output + error
    assert (tmp_path / "inference/model.onnx").exists()


@pytest.mark.parametrize("found", ["1.3.1", None])
def test_without_paddle2onnx_nothing_is_trained(run_script, demo, few_examples, tmp_path, monkeypatch, found):
    version = importlib.metadata.version

    def fake(name: str) -> str:
        if name != "paddle2onnx":
            return version(name)
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(environment, "version", fake)
    main, *words = TNEWS
    flags = ("--model_name_or_path", demo / "model", "--data_dir", few_examples, "--output_dir", tmp_path / "run")
    status, _, error = run_script(main, *words, *flags, "--do_train", "--do_export", "--export_onnx")
    assert status == 2 and not (tmp_path / "run").exists()
    assert f"needs paddle2onnx 2, which Python 3.10 to 3.12 can have (installed: {found or 'none'})" in error
