"""What ends a training run early, and what is left then."""

from __future__ import annotations

import json
import re

import pytest
import run_clue_classifier

from clue_utils import classification


@pytest.fixture
def train(run_script, demo, tmp_path):
    """Train on TNEWS for six updates: (status, standard output, standard error)."""

    def run(*words):
        return run_script(
            run_clue_classifier.main,
            *("--task_name", "TNEWS", "--model_name_or_path", demo / "model", "--data_dir", demo / "data"),
            *("--output_dir", tmp_path, "--device", "cpu", "--do_train", "--max_steps", 6, "--batch_size", 8),
            *("--max_seq_length", 16, "--save_steps", 2, "--logging_steps", 1, *words),
        )

    return run


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ((), "pass --gradient_accumulation_steps 2; the results stay the same"),
        (("--gradient_accumulation_steps", 4), "pass --gradient_accumulation_steps 8; the results stay the same"),
        (("--batch_size", 1), "lower --max_seq_length or take a smaller model"),
    ],
)
@pytest.mark.parametrize("message", ["ResourceExhaustedError: Out of memory error on GPU 0.", "std::bad_alloc"])
def test_out_of_memory_says_what_to_try(train, monkeypatch, words, advice, message):
    def compute_loss(model, batch):
        raise MemoryError(message) if "bad_alloc" in message else RuntimeError(message)

    monkeypatch.setattr(classification, "cross_entropy_loss", compute_loss)
    status, _, error = train(*words)
    assert status == 2
    assert re.fullmatch(rf"error: out of memory .*shape \[\d+, \d+\].*: {advice}\n|error: .*{advice}\n", error), error


def test_a_loss_that_is_no_number_stops_and_keeps_the_best_checkpoint(train, tmp_path, monkeypatch):
    compute_loss, calls = classification.cross_entropy_loss, []

    def diverging(model, batch):
        calls.append(1)
        return compute_loss(model, batch) * (float("nan") if len(calls) > 4 else 1)

    monkeypatch.setattr(classification, "cross_entropy_loss", diverging)
    status, _, error = train()
    assert status == 2
    assert re.search(
        r"the loss is nan at step 5: lower --learning_rate .*the best checkpoint, of step \d, is kept", error
    )
    assert (tmp_path / "model.safetensors").is_file()
    assert json.loads((tmp_path / "result.json").read_text())["best_step"] in (2, 4)
