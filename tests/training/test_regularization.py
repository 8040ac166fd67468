"""FGM, R-Drop, averaged weights and layer-wise rates, beside formulas in NumPy; and runs with all of them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file
from test_resume import Killed, outcome

import run_clue_classifier
import run_clue_classifier_trainer
import run_cmrc2018
from clue_utils import models, tasks
from clue_utils.errors import Stopped, UserError
from clue_utils.models.families import BY_TYPE
from clue_utils.models.heads import HEADS
from clue_utils.record import Run
from clue_utils.settings import Settings
from clue_utils.tasks import TASKS
from clue_utils.training import checkpoints, loop, session
from clue_utils.training.loop import Job, fit
from clue_utils.training.optimizer import shares_of_rate
from clue_utils.training.regularization import Average, moved_uphill, r_drop_loss, word_embeddings
from demo.architectures import make_encoder

NUM_WORDS, SIZE, NUM_CLASSES, NUM_ROWS = 11, 3, 4, 6


class Tiny(paddle.nn.Layer):
    """The mean of the words' vectors times a matrix, named as an encoder's parts are."""

    base_model_prefix = "tiny"

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(vocab_size=NUM_WORDS, model_type="tiny")
        self.tiny = paddle.nn.Layer()
        self.tiny.positions = paddle.nn.Embedding(2, SIZE)
        self.tiny.words = paddle.nn.Embedding(NUM_WORDS, SIZE)
        self.tiny.layers = paddle.nn.LayerList([paddle.nn.Linear(SIZE, SIZE, bias_attr=False) for _ in range(2)])
        self.classifier = paddle.nn.Linear(SIZE, NUM_CLASSES, bias_attr=False)
        rng = np.random.default_rng(5)
        for parameter in self.parameters():
            parameter.set_value(rng.normal(size=parameter.shape).astype(np.float32))

    def forward(self, ids: paddle.Tensor) -> paddle.Tensor:
        hidden = self.tiny.words(ids).mean(axis=1)
        for layer in self.tiny.layers:
            hidden = layer(hidden)
        return self.classifier(hidden)


def weights_of(model: paddle.nn.Layer) -> dict[str, np.ndarray]:
    return {name: parameter.numpy().astype(np.float64) for name, parameter in model.named_parameters()}


def batch_of(rows: Sequence[int]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(6)
    ids, labels = rng.integers(0, NUM_WORDS, (NUM_ROWS, 5)), rng.integers(0, NUM_CLASSES, NUM_ROWS)
    return {"input_ids": ids[list(rows)], "label": labels[list(rows)]}


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def gradients(weights: dict[str, np.ndarray], batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of the mean cross-entropy, by hand."""
    ids, labels = batch["input_ids"], batch["label"]
    one, two = (weights[f"tiny.layers.{i}.weight"] for i in (0, 1))
    first = weights["tiny.words.weight"][ids].mean(axis=1)
    second, third = first @ one, first @ one @ two
    by_logits = (softmax(third @ weights["classifier.weight"]) - np.eye(NUM_CLASSES)[labels]) / len(ids)
    by_third = by_logits @ weights["classifier.weight"].T
    by_second = by_third @ two.T
    by_words = np.zeros_like(weights["tiny.words.weight"])
    for row, by_first in zip(ids, by_second @ one.T, strict=True):
        np.add.at(by_words, row, by_first / len(row))
    found = {"tiny.words.weight": by_words, "classifier.weight": third.T @ by_logits}
    return found | {"tiny.layers.0.weight": first.T @ by_second, "tiny.layers.1.weight": second.T @ by_third}


def label_loss(model: paddle.nn.Layer, batch: dict[str, paddle.Tensor]) -> paddle.Tensor:
    head = HEADS["classification"]
    return head.losses(model(batch["input_ids"]), batch)


HEAD = replace(HEADS["classification"], loss=label_loss)


class Rows(list):
    def sizes(self) -> np.ndarray:
        return np.ones(len(self), np.int64)


FEATURES: Any = Rows(range(NUM_ROWS))


def settings_of(folder: Path, *words: str) -> Settings:
    given = ("--model_name_or_path", "x", "--do_train", "--output_dir", str(folder), "--batch_size", "6", *words)
    return Settings.resolve(vars(Settings.parser().parse_args(given)), tasks.TASKS["TNEWS"], num_gpus=1, trained={})


def train(folder: Path, *words: str, head: Any = HEAD, on_evaluation: Any = lambda model: None) -> SimpleNamespace:
    args = settings_of(folder, "--learning_rate", "0.01", "--warmup_proportion", "0", *words)
    folder.mkdir(parents=True, exist_ok=True)
    model, run = Tiny(), Run("TNEWS", "accuracy", args, "cpu")
    seen = SimpleNamespace(evaluated=[], saved=[])

    def evaluate() -> dict[str, float]:
        seen.evaluated.append(weights_of(model))
        on_evaluation(model)
        return {"loss": 1.0, "accuracy": len(seen.evaluated) / 10}

    fit(Job(model, head, FEATURES, batch_of, evaluate, lambda: seen.saved.append(weights_of(model))), args, run)
    return SimpleNamespace(weights=weights_of(model), run=run, **vars(seen))


def assert_near(one: dict[str, np.ndarray], other: dict[str, np.ndarray], tolerance: float = 2e-6) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], rtol=0, atol=tolerance, err_msg=name)


# --- FGM ------------------------------------------------------------------------------------------------------------


def backward(words: str = "", head: Any = HEAD, model: Tiny | None = None, scale: float = 0.0) -> tuple[Any, Any]:
    """Gradients of a step, by name, and the model."""
    model, args = model or Tiny(), settings_of(Path("out"), *words.split())
    scaler = paddle.amp.GradScaler(enable=bool(scale), init_loss_scaling=scale or 1.0)
    job = Job(model, head, FEATURES, batch_of, dict, lambda: None)
    attacked = word_embeddings(model) if args.fgm else None
    loss = loop._backward(job, model, np.arange(NUM_ROWS), scaler, args, attacked)
    found = {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": float(loss), **found}, model


@pytest.mark.parametrize("num_micro_batches", [1, 2, 4])
def test_fgm_adds_the_gradients_at_embeddings_moved_uphill(num_micro_batches):
    """By the gradient of the whole batch, into however many micro-batches it is cut."""
    found, model = backward(f"--fgm 1.5 --gradient_accumulation_steps {num_micro_batches}")
    before = weights_of(Tiny())
    clean = gradients(before, batch_of(range(NUM_ROWS)))
    uphill = clean["tiny.words.weight"]
    moved = before | {"tiny.words.weight": before["tiny.words.weight"] + 1.5 * uphill / np.linalg.norm(uphill)}
    adversarial = gradients(moved, batch_of(range(NUM_ROWS)))
    plain = backward()[0]
    assert found.pop("loss") == pytest.approx(plain.pop("loss"), abs=1e-6)  # that of the clean batch
    assert_near(plain, clean)
    assert_near(found, {name: clean[name] + adversarial[name] for name in clean})
    assert max(np.abs(adversarial[name] - clean[name]).max() for name in clean) > 0.1
    for name, value in Tiny().named_parameters():
        assert (dict(model.named_parameters())[name].numpy() == value.numpy()).all(), name


def test_fgm_puts_the_embeddings_back_whatever_happens():
    model, calls = Tiny(), []

    def runs_out(layer: Any, batch: Any) -> Any:
        calls.append(layer.tiny.words.weight.numpy())
        if len(calls) == 2:
            raise RuntimeError("ResourceExhaustedError: Out of memory error on GPU 0")
        return label_loss(layer, batch)

    with pytest.raises(UserError, match="out of memory"):
        backward("--fgm 1", replace(HEAD, loss=runs_out), model)
    assert np.linalg.norm(calls[1] - calls[0]) == pytest.approx(1, abs=1e-5)
    assert (model.tiny.words.weight.numpy() == calls[0]).all()


def test_fgm_does_not_move_without_a_gradient():
    weight = paddle.create_parameter([2, 2], "float32")
    before = weight.numpy()
    weight.grad = paddle.zeros([2, 2])
    with moved_uphill(weight, 1.0):
        assert (weight.numpy() == before).all()


def test_fgm_does_not_depend_on_the_scale_of_the_loss(tmp_path, scalers):
    words = ("--max_steps", "3", "--fgm", "1.0")
    half = train(tmp_path / "half", *words, "--precision", "fp16")
    assert scalers[0].taken == [True] * 3
    assert_near(half.weights, train(tmp_path / "whole", *words).weights, 0)
    plain = train(tmp_path / "plain", *words[:2]).weights
    assert max(np.abs(half.weights[name] - plain[name]).max() for name in plain) > 1e-4


@pytest.mark.parametrize("name", ["bert", "albert", "gpt2", "mbart", "glm", "xlnet"])
def test_layers_and_embeddings_of_architectures(tmp_path, name):
    """What comes before the layers learns slowest, what comes after them as fast as the head."""
    model = models.load_model(
        str(make_encoder(BY_TYPE[name], tmp_path)), TASKS["TNEWS"], 0.1, len(TASKS["TNEWS"].labels), training=True
    )
    shares = shares_of_rate(model, 0.5)
    (words,) = [own for own, parameter in model.named_parameters() if parameter is word_embeddings(model)]
    num_layers = 1 if name == "albert" else 2  # whose layers share their weights
    assert shares[words] == min(shares.values()) == 0.5 ** (num_layers + 1)
    assert {*shares.values()} == {0.5**depth for depth in range(num_layers + 2)}
    prefix = f"{model.base_model_prefix}."
    for own, share in shares.items():
        assert share == 1 or own.startswith(prefix)
        if ".0." in own:
            assert share == 0.5**num_layers
        elif "pooler" in own or "encoder.norm" in own or "final" in own:
            assert share == 1
        elif ".1." in own:
            assert share == 0.5, own


def test_what_cannot_be_attacked_or_told_apart_is_refused():
    model = Tiny()
    model.tiny.words.weight.stop_gradient = True
    with pytest.raises(UserError, match="--fgm moves the word embeddings, which --lora_rank leaves as they are"):
        word_embeddings(model)
    model.config.vocab_size = 5
    with pytest.raises(UserError, match="--fgm: a tiny has no table of word embeddings"):
        word_embeddings(model)
    del model.tiny.layers
    with pytest.raises(UserError, match="--layer_decay: a tiny has no numbered layers"):
        shares_of_rate(model, 0.5)


# --- R-Drop ---------------------------------------------------------------------------------------------------------


def symmetric(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    p, q = softmax(one), softmax(other)
    return ((p * np.log(p / q)).sum(axis=1) + (q * np.log(q / p)).sum(axis=1)) / 2


@pytest.mark.parametrize("kind", ["classification", "multiple_choice", "cloze"])
def test_r_drop_of_scores_for_classes_and_choices(kind):
    rng = np.random.default_rng(1)
    passes, labels = rng.normal(size=(2, 5, 4)).astype(np.float32), np.array([0, 3, 1, 1, 2])
    head = replace(HEADS[kind], forward=lambda model, batch: paddle.to_tensor(np.concatenate(passes)))
    found = r_drop_loss(head, None, {"label": paddle.to_tensor(labels)}, 3.0).numpy()
    losses = [-np.log(softmax(logits)[np.arange(5), labels]) for logits in passes.astype(np.float64)]
    expected = np.mean(losses, axis=0) + 3.0 * symmetric(*passes.astype(np.float64))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_r_drop_of_spans_counts_start_and_end_alike_and_no_padding():
    rng = np.random.default_rng(2)
    length, kept = 7, 5
    inputs = {"attention_mask": paddle.to_tensor([[1] * kept + [0] * 2] * 3)}
    inputs |= {"start": paddle.to_tensor([0, 2, 4]), "end": paddle.to_tensor([1, 2, 4])}
    starts, ends = rng.normal(size=(2, 6, length)).astype(np.float32)

    class Spans(paddle.nn.Layer):
        config = SimpleNamespace()

        def forward(self, attention_mask: Any) -> tuple[paddle.Tensor, paddle.Tensor]:
            return paddle.to_tensor(starts), paddle.to_tensor(ends)

    found = r_drop_loss(HEADS["span"], Spans(), inputs, 2.0).numpy()
    expected = np.zeros(3)
    for logits, gold in ((starts, [0, 2, 4]), (ends, [1, 2, 4])):
        first, second = logits.astype(np.float64)[:, :kept].reshape(2, 3, kept)
        by_gold = [-np.log(softmax(part)[np.arange(3), gold]) for part in (first, second)]
        expected += (np.mean(by_gold, axis=0) + 2.0 * symmetric(first, second)) / 2
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_two_passes_of_r_drop_differ_in_dropout_alone():
    model, seen = Tiny(), []
    dropout = paddle.nn.Dropout(0.5)

    def forward(layer: Any, batch: Any) -> paddle.Tensor:
        seen.append(layer(batch["input_ids"]).numpy())
        return dropout(layer(batch["input_ids"]))

    head = replace(HEADS["classification"], forward=forward)
    batch = {name: paddle.to_tensor(value) for name, value in batch_of(range(4)).items()}
    paddle.seed(0)
    none, much = (r_drop_loss(head, model, batch, alpha).numpy() for alpha in (0.0, 5.0))
    np.testing.assert_allclose(seen[0][:4], seen[0][4:], atol=1e-5)
    assert (much > none + 0.1).any()
    found, _ = backward("--r_drop 2", replace(HEADS["classification"], forward=lambda m, b: m(b["input_ids"])))
    assert_near(found, backward()[0])  # without dropout both answers are one


# --- averaged weights -----------------------------------------------------------------------------------------------


def test_the_mean_of_the_weights_is_evaluated_and_kept_and_the_weights_are_trained(tmp_path):
    """By the weights after every step, as a run without it has them."""
    plain = train(tmp_path / "plain", *"--max_steps 9 --save_steps 1".split())
    found = train(tmp_path / "mean", *"--max_steps 9 --save_steps 3 --ema 0.4".split())
    mean, means = weights_of(Tiny()), []
    for step, weights in enumerate(plain.evaluated, 1):
        decay = min(0.4, (1 + step) / (10 + step))
        mean = {name: decay * mean[name] + (1 - decay) * weights[name] for name in mean}
        means.append(mean)
    assert len(found.evaluated) == 3
    for got, saved, expected in zip(found.evaluated, found.saved, means[2::3], strict=True):
        assert_near(got, expected)
        assert_near(saved, expected)
    assert_near(found.weights, plain.weights, 0)
    assert max(np.abs(means[-1][name] - plain.weights[name]).max() for name in mean) > 1e-3


def test_what_is_not_trained_has_no_mean():
    model = Tiny()
    model.tiny.words.weight.stop_gradient = True
    assert "tiny.words.weight" not in Average(model, 0.9).state() and len(Average(model, 0.9).state()) == 4
    assert Average(model, 0.0).state() == {}


def test_a_checkpoint_holds_the_trained_weights_also_when_an_evaluation_is_broken_off(tmp_path):
    """While the mean is in their place."""
    words, models_seen = "--max_steps 4 --save_steps 2".split(), []

    def terminate(model: Tiny) -> None:
        models_seen.append(model)
        os.kill(os.getpid(), signal.SIGTERM)

    plain = train(tmp_path / "plain", *words)
    with pytest.raises(Stopped):
        train(tmp_path / "mean", *words, "--ema", "0.9", on_evaluation=terminate)
    assert_near(weights_of(models_seen[0]), plain.evaluated[0], 0)
    checkpoint = tmp_path / "mean/checkpoint-2"
    held = load_file(str(checkpoint / "weights.safetensors"))
    assert_near({name: value.astype(np.float64) for name, value in held.items()}, plain.evaluated[0], 0)
    assert checkpoints.read_average(checkpoint).keys() == plain.weights.keys()
    (checkpoint / "average.safetensors").write_bytes(b"")
    assert checkpoints.find_latest(tmp_path / "mean") is None


# --- layer-wise learning rates --------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.01, 0.5])
@pytest.mark.parametrize("max_norm", ["0", "1.0"])
def test_each_layer_steps_by_its_share_of_the_rate(tmp_path, max_norm, decay):
    """The first step of AdamW, learning rate * (sign of the gradient + weight decay * weight), where that is exact."""
    flags = f"--max_steps 1 --max_grad_norm {max_norm} --adam_epsilon 1e-12 --weight_decay"
    before = weights_of(Tiny())
    uphill = gradients(before, batch_of(range(NUM_ROWS)))
    depths = {"classifier.weight": 0, "tiny.layers.1.weight": 1, "tiny.layers.0.weight": 2, "tiny.words.weight": 3}
    for weight_decay in (0.0, 0.1):
        found = train(tmp_path / str(weight_decay), *flags.split(), str(weight_decay), "--layer_decay", str(decay))
        for name, depth in depths.items():
            expected = before[name] - 0.01 * decay**depth * (np.sign(uphill[name]) + weight_decay * before[name])
            clear = np.abs(uphill[name]) > 1e-6
            assert clear.sum() > 8
            np.testing.assert_allclose(found.weights[name][clear], expected[clear], atol=1e-6, err_msg=name)


def test_a_share_of_one_changes_nothing(tmp_path):
    plain = train(tmp_path / "plain", "--max_steps", "3")
    assert_near(train(tmp_path / "one", *"--max_steps 3 --layer_decay 1".split()).weights, plain.weights, 0)


# --- runs -----------------------------------------------------------------------------------------------------------

FLAGS = "--task_name TNEWS --do_train --max_steps 6 --save_steps 3 --logging_steps 1 --batch_size 8"
FLAGS += " --max_seq_length 24 --learning_rate 1e-3 --checkpoint_minutes 0"
ALL = "--fgm 0.5 --r_drop 1 --ema 0.9 --layer_decay 0.8"


@pytest.fixture(scope="module")
def classify(run_on_demo, few_examples):
    flags = (*FLAGS.split(), "--data_dir", few_examples)
    return lambda output, *words: run_on_demo(run_clue_classifier.main, output, *flags, *words)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, classify):
    output = tmp_path_factory.mktemp("unbroken")
    status, _, err = classify(output, *ALL.split())
    assert status == 0, err
    return output


@pytest.mark.parametrize("step", [2, 3])
def test_a_killed_run_with_all_of_them_ends_with_the_same_bits(classify, unbroken, tmp_path, monkeypatch, step):
    save = checkpoints.save

    def save_and_die(folder: Path, number: int, *rest: Any) -> None:
        save(folder, number, *rest)
        if number == step:
            raise Killed

    monkeypatch.setattr(checkpoints, "save", save_and_die)
    with pytest.raises(Killed):
        classify(tmp_path, *ALL.split())
    monkeypatch.undo()
    status, out, err = classify(tmp_path, *ALL.split())
    assert status == 0, err
    assert f"checkpoint-{step}" in out and outcome(tmp_path) == outcome(unbroken)


def test_the_flags_are_on_record_and_their_change_is_refused(classify, unbroken, tmp_path, monkeypatch):
    recorded = json.loads((unbroken / "result.json").read_text())["hyper_parameters"]
    assert {name: recorded[name] for name in ("fgm", "r_drop", "ema", "layer_decay", "train_on_dev")} == {
        **{"fgm": 0.5, "r_drop": 1.0, "ema": 0.9, "layer_decay": 0.8},
        "train_on_dev": False,
    }
    status, _, err = classify(unbroken, *ALL.replace("0.9", "0.99").split())
    assert status == 2 and "ema 0.9 there, 0.99 now" in err and err.count("\n") == 1


def test_adapters_go_with_all_but_fgm(classify, tmp_path):
    words = ("--lora_rank", "2", "--r_drop", "1", "--ema", "0.9", "--layer_decay", "0.8")
    status, _, err = classify(tmp_path / "lora", *words)
    assert status == 0, err
    status, _, err = classify(tmp_path / "fgm", "--lora_rank", "2", "--fgm", "1")
    assert (
        status == 2
        and err == "error: --fgm moves the word embeddings, which --lora_rank leaves as they are: drop one of them\n"
    )


def test_spans_are_learnt_with_all_of_them(run_on_demo, few_examples, tmp_path):
    words = "--do_train --max_steps 2 --batch_size 4 --max_seq_length 96 --data_dir".split()
    status, _, err = run_on_demo(run_cmrc2018.main, tmp_path, *words, few_examples, *ALL.split())
    assert status == 0, err


# --- the last submission --------------------------------------------------------------------------------------------


def test_train_and_dev_are_learnt_together_and_the_last_weights_are_kept(classify, tmp_path, monkeypatch):
    sizes, evaluated, trained = [], [], []
    fit_job = session.fit

    def fit_and_note(job: Job, *rest: Any) -> None:
        sizes.append((len(job.train), job.num_dev))
        fit_job(replace(job, evaluate=lambda: evaluated.append(1)), *rest)  # type: ignore[arg-type, return-value]
        trained.append(weights_of(job.model))

    monkeypatch.setattr(session, "fit", fit_and_note)
    status, out, err = classify(tmp_path, "--train_on_dev", "--do_predict")
    assert status == 0, err
    kept = {name: value.astype(np.float64) for name, value in load_file(str(tmp_path / "model.safetensors")).items()}
    assert_near(kept, trained[0], 0)
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["status"], result["best_metric"], result["history"]) == ("finished", None, [])
    num_train, num_dev = (result["num_examples"][split] for split in ("train", "dev"))
    assert sizes == [(num_train + num_dev, num_dev)] and num_train > num_dev > 0 and not evaluated
    assert result["hyper_parameters"]["train_on_dev"] and {*result["data_sha256"]} >= {"train", "dev"}
    assert "the last weights are kept, and no score: the development set was trained on" in out
    assert not (tmp_path / "dev_predictions.jsonl").exists() and (tmp_path / "tnews11_predict.json").is_file()
    status, out, _ = classify(tmp_path, "--train_on_dev")
    assert status == 0 and "trained already, the last weights are kept" in out


def test_a_model_that_has_learnt_the_development_set_is_not_evaluated_on_it(run_on_demo, classify, tmp_path):
    assert classify(tmp_path / "model", "--train_on_dev", "--max_steps", "1")[0] == 0
    words = ("--do_eval", "--output_dir", tmp_path / "eval")
    for main, own in (
        (run_clue_classifier.main, ("--task_name", "TNEWS")),
        (run_clue_classifier_trainer.main, ("--dataset", "clue tnews")),
    ):
        status, _, err = run_on_demo(main, tmp_path / "eval", *own, *words, model=tmp_path / "model")
        assert status == 2 and "a score on it says nothing" in err and err.count("\n") == 1
