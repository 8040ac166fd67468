"""Number types, memory, and what ends a training run early."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import paddle
import pytest

import run_clue_classifier
from clue_utils import device, ranks
from clue_utils.models import gpu_layers
from clue_utils.models.heads import HEADS
from clue_utils.training import loop, optimizer, predict, session
from clue_utils.training.optimizer import quickest_classes
from clue_utils.training.predict import compute_logits


@pytest.fixture
def train(run_on_demo, tmp_path):
    """Train on TNEWS for six steps: (status, standard output, standard error)."""
    flags = "--task_name TNEWS --do_train --max_steps 6 --batch_size 8 --max_seq_length 16 --save_steps 2"
    return lambda *words: run_on_demo(run_clue_classifier.main, tmp_path, *flags.split(), "--logging_steps", 1, *words)


HEAD = HEADS["classification"]


@pytest.fixture
def change_head(monkeypatch):
    """Have training and evaluation, but not the check of a model that is loaded, use another loss or forward."""
    return lambda **functions: monkeypatch.setattr(session, "HEADS", {"classification": replace(HEAD, **functions)})


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ((), "pass --gradient_accumulation_steps 2; the batch stays the same"),
        (("--gradient_accumulation_steps", 4), "pass --gradient_accumulation_steps 8; the batch stays the same"),
        (("--batch_size", 1), "lower --max_seq_length or take a smaller model"),
    ],
)
@pytest.mark.parametrize("message", ["ResourceExhaustedError: Out of memory error on GPU 0.", "std::bad_alloc"])
def test_out_of_memory_says_what_to_try(train, change_head, words, advice, message):
    def loss(model, batch):
        raise MemoryError(message) if "bad_alloc" in message else RuntimeError(message)

    change_head(loss=loss)
    status, _, error = train(*words)
    assert status == 2
    assert re.fullmatch(rf"error: out of memory .*shape \[\d+, \d+\].*: {advice}\n|error: .*{advice}\n", error), error


@pytest.fixture
def waits(monkeypatch):
    """How often the host has read a tensor, written one, or waited for the device; each makes it wait for a GPU."""
    counts = Counter()

    def counted(kind, function):
        return lambda *words, **more: counts.update([kind]) or function(*words, **more)

    for name in ("__float__", "__int__", "__bool__", "__index__", "item", "numpy", "tolist"):
        monkeypatch.setattr(paddle.Tensor, name, counted("read", getattr(paddle.Tensor, name)))
    monkeypatch.setattr(paddle, "to_tensor", counted("written", paddle.to_tensor))
    monkeypatch.setattr(paddle.device, "synchronize", counted("synchronized", paddle.device.synchronize))
    return counts


def test_no_tensor_is_read_between_log_lines(run_on_demo, tmp_path, waits, monkeypatch):
    """The number of reads must not grow with that of steps; a batch is written in two: its inputs, and its labels.

    That holds on a card, where a read waits for all that is under way: its layers, optimizer and clipping compute here.
    """
    classes = quickest_classes("gpu", 1.0)  # tried once in a process
    monkeypatch.setattr(optimizer, "quickest_classes", lambda *_: classes)
    monkeypatch.setattr(predict.cpu_layers, "speed_up", gpu_layers.speed_up)
    counts = []
    for steps in (4, 12):
        waits.clear()
        flags = f"--task_name TNEWS --do_train --batch_size 8 --max_seq_length 16 --max_steps {steps} --save_steps 100"
        assert run_on_demo(run_clue_classifier.main, tmp_path / str(steps), *flags.split())[0] == 0
        counts.append(waits.copy())
    assert counts[0]["read"] == counts[1]["read"] > 0
    assert counts[1]["written"] - counts[0]["written"] == 8 * 2
    assert waits["synchronized"] == 0


def test_evaluation_reads_a_batch_once(waits):
    model = paddle.nn.Linear(4, 3)
    head = replace(HEAD, forward=lambda layer, batch: layer(batch["x"]))

    def collate(rows):
        return {"x": np.ones([len(rows), 4], np.float32), "label": np.zeros(len(rows), np.int64)}

    class Rows(list):
        def sizes(self):
            return np.ones(len(self), np.int64)

    logits = compute_logits(model, head, Rows(range(10)), collate, predict.BatchLimit(4, 100, 100), 3, "fp32")
    assert logits.shape == (10, 3) and waits == {"read": 3, "written": 6}


def test_what_averages_gradients_does_not_look_for_parameters_without(monkeypatch):
    """Those are known before the first step."""

    class Model(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.used, self.unused = paddle.nn.Linear(2, 2), paddle.nn.Linear(2, 2)

    made = []
    monkeypatch.setattr(paddle, "DataParallel", lambda model, **settings: made.append((model, settings)) or "replica")
    head = replace(HEAD, loss=lambda model, batch: model.used(batch["x"]).sum(axis=1))
    job = loop.Job(Model(), head, [0], lambda rows: {"x": np.ones([len(rows), 2], np.float32)}, dict, lambda: None)
    assert loop._replica(job) is job.model and not made
    monkeypatch.setattr(ranks, "world_size", lambda: 2)
    assert loop._replica(job) == "replica"
    assert made == [(job.model, {"find_unused_parameters": False})]
    frozen = {name for name, parameter in job.model.named_parameters() if parameter.stop_gradient}
    assert frozen == {"unused.weight", "unused.bias"}
    assert all(parameter.grad is None for parameter in job.model.parameters())


def test_attention_in_one_operation_is_a_setting_of_the_run(train, tmp_path, monkeypatch):
    shapes = []
    to_tensors = loop.to_tensors
    monkeypatch.setattr(
        loop, "to_tensors", lambda arrays: shapes.append(arrays["input_ids"].shape) or to_tensors(arrays)
    )
    status, out, error = train("--fused_attention", "--max_seq_length", 15, "--dropout", 0)
    assert status == 0, error
    assert "attention: one operation in each of 2 layers (--fused_attention)" in out
    assert {width for _, width in shapes} <= {8, 15}  # padded to a multiple of eight, as far as the limit allows
    fused = json.loads((tmp_path / "result.json").read_text())
    assert fused["hyper_parameters"]["fused_attention"] is True
    status, _, error = train("--max_seq_length", 15, "--dropout", 0)
    assert status == 2 and "fused_attention True there, False now" in error
    status, out, error = train("--max_seq_length", 15, "--dropout", 0, "--overwrite_output_dir")
    assert status == 0 and "attention: one" not in out, error
    plain = json.loads((tmp_path / "result.json").read_text())
    for one, other in zip(fused["history"], plain["history"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-4)


def limited_to(most):
    """Logits whose computation for more than so many examples at a time fails as on a full GPU."""

    def limited(model, batch):
        if len(batch["input_ids"]) > most:
            raise RuntimeError("ResourceExhaustedError: Out of memory error on GPU 0.")
        return HEAD.forward(model, batch)

    return limited


def test_evaluation_goes_on_in_smaller_batches_where_memory_runs_out(train, tmp_path, change_head):
    assert train("--do_predict")[0] == 0
    whole, predictions = json.loads((tmp_path / "result.json").read_text()), (tmp_path / "tnews11_predict.json")
    before = predictions.read_bytes()
    change_head(forward=limited_to(10))
    status, out, error = train("--do_predict", "--overwrite_output_dir")
    assert status == 0, error
    assert "out of memory in evaluation with a batch of shape [64, 16]: taking it in halves" in out
    halves = json.loads((tmp_path / "result.json").read_text())
    for one, other in zip(whole["history"], halves["history"], strict=True):
        assert one["accuracy"] == other["accuracy"] and one["loss"] == pytest.approx(other["loss"], abs=1e-5)
    assert predictions.read_bytes() == before


def test_memory_that_ran_out_in_evaluation_is_remembered(train, monkeypatch, change_head):
    """However many batches and evaluations there are: each failure costs time."""
    tried = []

    def forward(model, batch):
        tried.append(len(batch["input_ids"]))
        return limited_to(10)(model, batch)

    change_head(forward=forward)
    status, out, error = train("--do_predict", "--eval_batch_size", 32)
    assert status == 0, error
    failures = [size for size in tried if size > 10]
    assert failures == [32, 16] and out.count("taking it in halves") == len(failures)
    first_batch = tried[: 2 + 4]
    assert first_batch == [32, 16, 8, 8, 8, 8] and len(tried) > 4 * len(first_batch)


@pytest.mark.parametrize("when", ["training", "evaluation"])
def test_memory_may_run_out_for_the_batch_itself(train, monkeypatch, when):
    module = loop if when == "training" else predict
    to_tensors, calls = module.to_tensors, []

    def copied_to_a_full_gpu(batch):
        calls.append(len(batch["input_ids"]))
        if calls[-1] > 4:
            raise OSError("(External) CUDA error(2), out of memory. ")
        return to_tensors(batch)

    monkeypatch.setattr(module, "to_tensors", copied_to_a_full_gpu)
    status, out, error = train("--eval_batch_size", 8)
    if when == "training":
        assert status == 2 and "out of memory with a batch of shape [8, " in error and len(calls) == 1
        assert "pass --gradient_accumulation_steps 2;" in error
    else:
        assert status == 0 and calls[:3] == [8, 4, 4] and out.count("taking it in halves") == 1


@pytest.mark.parametrize(
    ("place", "memory", "given", "rows", "tokens"),
    [
        ("cpu", 0, None, 64, 1 << 12),
        ("cpu", 0, 8, 8, 1 << 12),
        ("gpu:0", 16 << 30, None, sys.maxsize, 1 << 14),
        ("gpu:0", 24 << 30, None, sys.maxsize, 1 << 16),
        ("xpu:1", 64 << 30, 32, 32, 1 << 16),
    ],
)
def test_batches_of_evaluation_are_as_large_as_the_card_is_good_for(monkeypatch, place, memory, given, rows, tokens):
    monkeypatch.setattr(paddle, "get_device", lambda: place)
    monkeypatch.setattr(device, "card_memory_bytes", lambda: memory)
    assert predict.BatchLimit.of(given) == predict.BatchLimit(rows, tokens, tokens)


def test_all_ranks_take_the_batches_of_the_smallest_card(monkeypatch):
    monkeypatch.setattr(device, "gather", lambda array: [array, array // 4, array * 2])
    limit = predict.BatchLimit.of(None)
    assert limit.tokens == limit.fitting == predict.max_tokens() // 4


def test_an_example_that_memory_cannot_evaluate_ends_the_run(train, change_head):
    change_head(forward=limited_to(0))
    status, _, error = train()
    assert status == 2
    assert "error: out of memory in evaluation with one example of shape [1, 16]: lower --max_seq" in error


def test_a_loss_that_is_no_number_stops_and_keeps_the_best_checkpoint(train, tmp_path, change_head):
    calls = []

    def diverging(model, batch):
        calls.append(1)
        return HEAD.loss(model, batch) * (float("nan") if len(calls) > 4 else 1)

    change_head(loss=diverging)
    status, _, error = train()
    assert status == 2
    assert re.search(
        r"the loss is nan at step 5: lower --learning_rate .*the best checkpoint, of step \d, is kept", error
    )
    assert (tmp_path / "model.safetensors").is_file()
    assert json.loads((tmp_path / "result.json").read_text())["best_step"] in (2, 4)


def test_scores_that_are_no_numbers_are_refused(train, tmp_path, change_head):
    assert train("--do_eval")[0] == 0
    change_head(forward=lambda model, batch: HEAD.forward(model, batch) * float("nan"))
    status, _, error = train("--do_predict")
    assert status == 2 and error.startswith("error: the model's scores are not numbers: ")
    assert not list(tmp_path.glob("*_predict.json"))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_needs_a_gpu(train, precision):
    status, _, error = train("--precision", precision)
    assert status == 2 and error == f"error: --precision {precision}: cpu cannot compute with it; pass fp32\n"


def test_half_precision_holds_for_training_and_evaluation(train, tmp_path, monkeypatch):
    calls = []

    def auto_cast(**settings):
        calls.append(settings)
        return contextlib.nullcontext()

    monkeypatch.setattr(device, "require_precision", lambda precision: None)
    monkeypatch.setattr(paddle.amp, "auto_cast", auto_cast)
    status, out, error = train("--precision", "bf16", "--do_eval")
    assert status == 0, error
    assert ", bf16, " in out and all(call == {"level": "O1", "dtype": "bfloat16"} for call in calls)
    num_steps, num_evaluations = 6, 4
    num_batches, rest = divmod(len(calls) - num_steps, num_evaluations)
    assert num_batches > 0 and rest == 0
