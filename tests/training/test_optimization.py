"""What a step does to the weights: AdamW, decay, clipping, schedule, micro-batches, beside a second implementation."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest

from clue_utils import ranks, tasks
from clue_utils.errors import Stopped, UserError
from clue_utils.features.batches import length_grouped_batches
from clue_utils.models.heads import HEADS
from clue_utils.record import Record, Run
from clue_utils.settings import Settings
from clue_utils.training import checkpoints, loop
from clue_utils.training.loop import Job, fit, step_seed
from clue_utils.training.session import Session

NUM_ROWS, NUM_INPUTS, NUM_OUTPUTS = 20, 4, 3
BETA1, BETA2 = 0.9, 0.999
LEARNING_RATE = 0.01
# One pass over the rows: two batches of eight and one of four.
EPOCH = ("--batch_size", "8", "--num_train_epochs", "1", "--learning_rate", str(LEARNING_RATE), "--dropout", "0")


class Tiny(paddle.nn.Layer):
    """(x @ weight + bias) * norm.weight + norm.bias, named as the parts of an encoder are."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.dense = paddle.nn.Linear(NUM_INPUTS, NUM_OUTPUTS)
        self.norm = paddle.nn.LayerNorm(NUM_OUTPUTS)  # for its parameters and their names
        self.set_state_dict({name: paddle.to_tensor(value.astype(np.float32)) for name, value in weights.items()})

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.dense(x) * self.norm.weight + self.norm.bias


def first_weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    shapes = {
        "dense.weight": (NUM_INPUTS, NUM_OUTPUTS),
        "dense.bias": (NUM_OUTPUTS,),
        "norm.weight": (NUM_OUTPUTS,),
        "norm.bias": (NUM_OUTPUTS,),
    }
    return {name: rng.normal(size=shape).astype(np.float32).astype(np.float64) for name, shape in shapes.items()}


def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(8)
    return rng.normal(size=(NUM_ROWS, NUM_INPUTS)), rng.normal(size=(NUM_ROWS, NUM_OUTPUTS))


# --- the second implementation: float64 numpy, gradients by hand ----------------------------------------------------


def losses_and_gradients(
    weights: dict[str, np.ndarray], x: np.ndarray, targets: np.ndarray, scale: float
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Half the squared distance to the targets of each row, and the gradients of its mean."""
    hidden = x @ weights["dense.weight"] + weights["dense.bias"]
    distance = hidden * weights["norm.weight"] + weights["norm.bias"] - targets
    by_output = distance * scale / len(x)
    by_hidden = by_output * weights["norm.weight"]
    return scale * (distance**2).sum(axis=1) / 2, {
        "dense.weight": x.T @ by_hidden,
        "dense.bias": by_hidden.sum(axis=0),
        "norm.weight": (by_output * hidden).sum(axis=0),
        "norm.bias": by_output.sum(axis=0),
    }


def rate(step: int, num_steps: int, num_warmup: int) -> float:
    """Share of the peak learning rate that the step after ``step`` others takes."""
    if step < num_warmup:
        return step / num_warmup
    return (num_steps - step) / (num_steps - num_warmup)


def adamw(
    num_steps: int,
    num_warmup: int = 0,
    weight_decay: float = 0.01,
    epsilon: float = 1e-8,
    max_norm: float = 1.0,
    scale: float = 1.0,
    batch_size: int = 8,
    seed: int = 42,
) -> tuple[dict[str, np.ndarray], list[float]]:
    """Weights after so many steps, and the mean loss of each (Loshchilov and Hutter, 2019, algorithm 2)."""
    weights, (x, targets) = first_weights(), rows()
    first = {name: np.zeros_like(value) for name, value in weights.items()}
    second = {name: np.zeros_like(value) for name, value in weights.items()}
    per_epoch = -(-NUM_ROWS // batch_size)
    means = []
    for step in range(num_steps):
        epoch, index = divmod(step, per_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(NUM_ROWS)[index * batch_size :][:batch_size]
        losses, gradients = losses_and_gradients(weights, x[order], targets[order], scale)
        means.append(losses.mean())
        norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
        shrink = min(1.0, max_norm / norm) if max_norm else 1.0
        learning_rate = LEARNING_RATE * rate(step, num_steps, num_warmup)
        for name, gradient in gradients.items():
            first[name] = BETA1 * first[name] + (1 - BETA1) * shrink * gradient
            second[name] = BETA2 * second[name] + (1 - BETA2) * (shrink * gradient) ** 2
            mean = first[name] / (1 - BETA1 ** (step + 1))
            root = np.sqrt(second[name] / (1 - BETA2 ** (step + 1)))
            decay = weight_decay if name == "dense.weight" else 0.0
            weights[name] = weights[name] - learning_rate * (mean / (root + epsilon) + decay * weights[name])
    return weights, means


# --- the product ----------------------------------------------------------------------------------------------------


def arguments_of(folder: Path, *words: str) -> Settings:
    """Flags as a script would read them."""
    given = ("--model_name_or_path", "ernie-3.0-base-zh", "--do_train", "--output_dir", str(folder), *words)
    return Settings.resolve(vars(Settings.parser().parse_args(given)), tasks.TASKS["TNEWS"], num_gpus=1, trained={})


# Six steps with evaluations at 2, 4 and 6.
SIX = ("--num_train_epochs", "2", "--save_steps", "2", "--logging_steps", "1", "--warmup_steps", "2")
# A checkpoint after each step: a kill loses nothing but the step that is being done.
ALWAYS = ("--checkpoint_minutes", "0")


class Killed(BaseException):
    """Stands for a SIGKILL: nothing catches it."""


def kill() -> None:
    raise Killed


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def train(
    folder: Path,
    *words: str,
    scale: float = 1.0,
    accuracies: Sequence[float] = (),
    reasons: Sequence[str] = (),
    events: dict[int, Callable[[], Any]] | None = None,
    on_step: Callable[[], Any] = lambda: None,
    on_evaluation: Callable[[], Any] = lambda: None,
) -> SimpleNamespace:
    """Fit the tiny model: its weights at the end, the run, and what happened on the way.

    Args:
        scale: of the loss.
        accuracies, reasons: what the evaluations say, and whether training ends there.
        events: what happens while the loss of a micro-batch is computed, by its number; a number multiplies the loss.
        on_step, on_evaluation: what happens each time.
    """
    args = arguments_of(folder, *EPOCH, *words)
    folder.mkdir(parents=True, exist_ok=True)
    model, run = Tiny(first_weights()), Run("TNEWS", "accuracy", args, "cpu")
    model.eval()  # as it may be when it is loaded
    answers, verdicts = iter(accuracies), iter(reasons)
    seen = SimpleNamespace(micro_batches=[], draws=[], saved=[], told=[], events=[], run=run)

    def compute_loss(layer: paddle.nn.Layer, batch: dict[str, paddle.Tensor]) -> paddle.Tensor:
        assert layer.training
        seen.micro_batches.append(batch["row"].tolist())
        seen.draws.append(float(paddle.rand([])))
        on_step()
        factor = (events or {}).get(len(seen.micro_batches), lambda: None)() or 1.0
        return squared_distances(layer, batch) * scale * factor

    def evaluate() -> dict[str, float]:
        on_evaluation()
        return {"loss": 1.0, "accuracy": next(answers, 0.5)}

    def save_best() -> None:
        seen.saved.append(run.fields["best_step"])
        seen.told.append(Record.read(folder).score)

    job = Job(
        model,
        replace(HEADS["classification"], loss=compute_loss),
        FEATURES,
        collate,
        evaluate,
        save_best=save_best,
        **({"reason_to_stop": lambda: next(verdicts)} if reasons else {}),
        watch=lambda *event: seen.events.append(event),
    )
    fit(job, args, run)
    seen.weights = {name: value.numpy() for name, value in model.state_dict().items()}
    seen.history = run.fields["history"]
    return seen


class Rows(list):
    """Features held in memory, each longer than the one before."""

    def sizes(self) -> np.ndarray:
        return np.arange(len(self)) + 1


FEATURES: Any = Rows({"row": i} for i in range(NUM_ROWS))


def collate(features: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    x, targets = rows()
    picked = np.array([feature["row"] for feature in features])
    return {"x": x[picked].astype(np.float32), "targets": targets[picked].astype(np.float32), "row": picked}


def squared_distances(layer: paddle.nn.Layer, batch: dict[str, paddle.Tensor]) -> paddle.Tensor:
    return ((layer(batch["x"]) - batch["targets"]) ** 2).sum(axis=1) / 2


def distance(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


TOLERANCE = 2e-6  # of float32 sums over twenty steps of weights around 1


# Steps, flags, the second implementation's settings, and those of a loop that would not heed the flags. Adam takes
# away the size of gradients, so that a clip shows where it is as small as epsilon, or where sizes differ over time.
@pytest.mark.parametrize(
    ("num_steps", "words", "settings", "unheeded"),
    [
        (1, "", {}, {"weight_decay": 0.0}),
        (20, "", {}, {"max_norm": 0.0}),
        (20, "", {}, {"num_warmup": 1}),
        (1, "--weight_decay 0", {"weight_decay": 0.0}, {}),
        (20, "--weight_decay 0", {"weight_decay": 0.0}, {}),
        (1, "--weight_decay 0.5", {"weight_decay": 0.5}, {}),
        (20, "--weight_decay 0.5", {"weight_decay": 0.5}, {}),
        (20, "--max_grad_norm 0", {"max_norm": 0.0}, {}),
        (1, "--max_grad_norm 1e-7", {"max_norm": 1e-7}, {}),
        (20, "--max_grad_norm 1e-7", {"max_norm": 1e-7}, {}),
        (20, "--max_grad_norm 6", {"max_norm": 6.0}, {}),  # some of the gradients are longer, others shorter
        (20, "--warmup_steps 5", {"num_warmup": 5}, {}),
        (20, "--warmup_steps 5 --warmup_proportion 0.5", {"num_warmup": 5}, {"num_warmup": 10}),
        (20, "--warmup_proportion 0.39", {"num_warmup": 7}, {}),
        (20, "--warmup_proportion 0.04", {}, {"num_warmup": 1}),
        (20, "--seed 3", {"seed": 3}, {}),
        (20, "--batch_size 6", {"batch_size": 6}, {}),
    ],
)
def test_steps_are_those_of_adamw(tmp_path, num_steps, words, settings, unheeded):
    expected = adamw(num_steps, **settings)[0]
    assert distance(expected, adamw(num_steps, **(unheeded or {}))[0]) > 20 * TOLERANCE
    found = train(tmp_path, "--warmup_proportion", "0", "--max_steps", str(num_steps), *words.split())
    assert distance(found.weights, expected) < TOLERANCE


@pytest.mark.parametrize("num_steps", [1, 20])
@pytest.mark.parametrize("epsilon", [1e-8, 1e-6])
def test_epsilon_counts_where_gradients_are_small(tmp_path, num_steps, epsilon):
    """As small as those of a head's neighbours late in training: 1e-6 would then slow what 1e-8 does not."""
    of = {value: adamw(num_steps, epsilon=value, scale=1e-6)[0] for value in (1e-8, 1e-6)}
    assert distance(of[1e-8], of[1e-6]) > 1000 * TOLERANCE
    words = () if epsilon == 1e-8 else ("--adam_epsilon", "1e-6")  # 1e-8 is the published runs' value
    found = train(tmp_path, "--warmup_proportion", "0", "--max_steps", str(num_steps), *words, scale=1e-6)
    assert distance(found.weights, of[epsilon]) < TOLERANCE


@pytest.mark.parametrize(("number", "sizes"), [(2, [[4, 4], [4, 4], [2, 2]]), (3, [[3, 3, 2], [3, 3, 2], [2, 1, 1]])])
def test_micro_batches_are_one_step(tmp_path, number, sizes):
    """Those of unequal size too, and those of the smaller batch at an epoch's end: every row has the same weight."""
    words = ("--num_train_epochs", "3", "--warmup_proportion", "0")
    found = train(tmp_path, *words, "--gradient_accumulation_steps", str(number))
    assert [len(rows) for rows in found.micro_batches] == 3 * sum(sizes, [])
    assert distance(found.weights, adamw(9)[0]) < TOLERANCE


def test_log_lines_tell_rate_loss_and_place(tmp_path, caplog):
    """The rate is that of the next step, as the published logs have it."""
    words = "--num_train_epochs 2 --warmup_steps 2 --logging_steps 1 --gradient_accumulation_steps 2"
    with caplog.at_level("INFO", logger="clue_utils"):
        train(tmp_path, *words.split())
    pattern = r"global step (\d+)/(\d+), epoch: (\d+), batch: (\d+), rank_id: 0, "
    pattern += r"loss: (\d+\.\d{6}), lr: (\d\.\d{10}), speed: \d+\.\d{4} step/s"
    lines = [match.groups() for match in map(re.compile(pattern).fullmatch, caplog.messages) if match]
    places = [("0", "0"), ("0", "1"), ("0", "2"), ("1", "0"), ("1", "1"), ("1", "2")]
    assert [line[:4] for line in lines] == [(str(i + 1), "6", *place) for i, place in enumerate(places)]
    losses, rates = ([float(line[column]) for line in lines] for column in (4, 5))
    assert losses == pytest.approx(adamw(6, num_warmup=2)[1], abs=2e-6)
    expected = [LEARNING_RATE * share for share in (1 / 2, 1, 3 / 4, 1 / 2, 1 / 4, 0)]
    assert rates == pytest.approx(expected, abs=1e-10)
    entries = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    logged = [entry for entry in entries if entry["kind"] == "train"]
    assert [entry["step"] for entry in logged] == list(range(1, 7))
    assert [entry["loss"] for entry in logged] == pytest.approx(losses, abs=1e-6)
    assert [entry["learning_rate"] for entry in logged] == pytest.approx(rates, abs=1e-10)
    assert all(entry["steps_per_second"] > 0 < entry["peak_memory_bytes"] for entry in logged)
    evaluated = [entry for entry in entries if entry["kind"] == "eval"]
    assert evaluated == [{"kind": "eval", "step": 6, "loss": 1.0, "accuracy": 0.5}]
    assert len([message for message in caplog.messages if message.startswith("memory: ")]) == 1
    # In a log no bar tells how far it is.
    assert "training: examples 20, epochs 2, updates 6 (of 8 examples), evaluations 1" in caplog.messages
    (said,) = [message for message in caplog.messages if re.match(r"\d\d:\d\d:\d\d training: ", message)]
    assert re.fullmatch(r"\S+ training: 17 %, about \d+ s left", said)


@pytest.mark.parametrize(
    ("words", "num_steps", "evaluated"),
    [
        ("--num_train_epochs 2", 6, [3, 6]),
        ("--num_train_epochs 2 --batch_size 10", 4, [2, 4]),
        ("--num_train_epochs 2 --save_steps 4", 6, [4, 6]),
        ("--num_train_epochs 2 --save_steps 2", 6, [2, 4, 6]),
        ("--num_train_epochs 2 --max_steps 5", 5, [3, 5]),
        ("--num_train_epochs 1 --max_steps 7", 7, [3, 6, 7]),
        ("--num_train_epochs 2 --max_steps -1", 6, [3, 6]),
        ("--num_train_epochs 9 --max_steps 1", 1, [1]),
    ],
)
def test_steps_and_evaluations_of_a_run(tmp_path, words, num_steps, evaluated):
    found = train(tmp_path, "--save_steps", "0", "--warmup_proportion", "0", *words.split())
    assert [entry["step"] for entry in found.history] == evaluated and len(found.micro_batches) == num_steps
    assert found.run.fields["num_steps"] == num_steps
    batch_size = 10 if "--batch_size" in words else 8
    assert distance(found.weights, adamw(num_steps, batch_size=batch_size)[0]) < TOLERANCE


def test_an_epoch_takes_every_row_once_in_an_order_of_its_own(tmp_path):
    batches = train(tmp_path, "--num_train_epochs", "2").micro_batches
    assert [len(rows) for rows in batches] == [8, 8, 4] * 2
    orders = [sum(batches[:3], []), sum(batches[3:], [])]
    assert [sorted(order) for order in orders] == [list(range(NUM_ROWS))] * 2 and orders[0] != orders[1]


def test_batches_of_similar_length_are_those_of_the_epoch(tmp_path):
    found = train(tmp_path, "--num_train_epochs", "2", "--group_by_length", "--seed", "5").micro_batches
    expected = [length_grouped_batches(FEATURES.sizes(), 8, 5, epoch) for epoch in (0, 1)]
    assert found == [batch.tolist() for batches in expected for batch in batches]


@pytest.mark.parametrize(("every", "step"), [("1", 4), ("100", 6)])
def test_a_loss_that_is_no_number_ends_the_run(tmp_path, every, step):
    """At the next log line, and where there is none before it, at the next evaluation."""
    words = ("--num_train_epochs", "2", "--save_steps", "3", "--logging_steps", every)
    pattern = rf"the loss is nan at step {step}: .*the best checkpoint, of step 3, is kept"
    with pytest.raises(UserError, match=pattern):
        train(tmp_path / "later", *words, events={4: lambda: float("nan")})
    with pytest.raises(UserError, match="the loss is (inf|nan) at step .*no checkpoint has been kept yet"):
        train(tmp_path / "at once", *words, events={1: lambda: float("inf"), 3: lambda: float("inf")})


def test_speed_is_that_of_steps_alone(tmp_path, monkeypatch, caplog):
    """By a clock that steps and evaluations set: two seconds and a hundred each."""
    now = [1000.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def passes(seconds: float) -> Callable[[], None]:
        return lambda: now.__setitem__(0, now[0] + seconds)

    words = [*"--num_train_epochs 3 --logging_steps 2 --save_steps 3".split(), *ALWAYS]
    clock = {"on_step": passes(2.0), "on_evaluation": passes(100.0)}
    with pytest.raises(Killed):
        train(tmp_path, *words, **clock, events={4: kill})
    caplog.clear()
    with caplog.at_level("INFO", logger="clue_utils"):
        train(tmp_path, *words, **clock)
    speeds = [message.rpartition("speed: ")[2] for message in caplog.messages if "speed: " in message]
    # Going on from step 3: a log line after one step, then after two each.
    assert speeds == ["0.5000 step/s"] * 3


HALF = (*SIX, "--precision", "fp16")


def test_scaled_losses_give_the_same_steps(tmp_path, scalers):
    half, whole = (train(tmp_path / name, *words) for name, words in (("half", HALF), ("whole", SIX)))
    assert distance(half.weights, whole.weights) == 0  # a power of two only moves the exponent
    assert [(scaler.is_enable(), scaler.taken) for scaler in scalers] == [(True, [True] * 6), (False, [True] * 6)]


def test_an_infinite_gradient_leaves_out_one_update_and_halves_the_scale(tmp_path, scalers):
    """Also in a run that is stopped later, in the fifth step, and goes on from there."""
    folders = [tmp_path / "unbroken", tmp_path / "broken"]
    infinite = {3: lambda: 1e36}  # finite itself, but not with the scale
    unbroken = train(folders[0], *HALF, events=infinite)
    (scaler,) = scalers
    assert scaler.taken == [True, True, False, True, True, True]
    assert scaler.state_dict()["scale"] == 2.0**15 and scaler.state_dict()["incr_count"] == 3
    with pytest.raises(Stopped):
        train(folders[1], *HALF, events=infinite | {5: terminate})
    resumed = train(folders[1], *HALF)
    assert distance(resumed.weights, unbroken.weights) == 0
    assert scalers[-1].taken == [True] and scalers[-1].state_dict() == scaler.state_dict()


def test_the_best_evaluation_is_kept_and_the_first_of_equals(tmp_path, caplog):
    accuracies = (0.25, 0.5, 0.5, 0.125, 0.75, 0.5)
    words = "--num_train_epochs 2 --save_steps 1"
    with caplog.at_level("INFO", logger="clue_utils"):
        found = train(tmp_path / "kept", *words.split(), accuracies=accuracies)
    assert found.saved == [1, 2, 5]
    assert found.told == [0.25, 0.5, 0.75]  # the record tells of the best before its weights are written
    assert "best accuracy: 75.00 % at step 5" in caplog.messages
    assert [entry["accuracy"] for entry in found.history] == list(accuracies)


def test_what_a_run_does_can_be_watched(tmp_path):
    found = train(tmp_path, *SIX, "--gradient_accumulation_steps", "2")
    assert [value for event, value in found.events if event == "step"] == [1, 2, 3, 4, 5, 6]
    assert [batch["row"].tolist() for event, batch in found.events if event == "batch"] == found.micro_batches
    assert len(found.micro_batches) == 12 and len(found.events) == 18


def test_the_evaluation_line_names_every_metric_and_how_long_it_took(caplog, monkeypatch):
    metrics, seen, now = {"loss": 0.5, "accuracy": 0.12345678, "em": 0.25}, [], iter((7.0, 107.0))
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    method = SimpleNamespace(score=lambda *_: metrics)
    session = SimpleNamespace(_logits=lambda *_: None, method=method, watch=lambda *event: seen.append(event))
    with caplog.at_level("INFO", logger="clue_utils"):
        assert Session.evaluate(session, [], SimpleNamespace(examples=[], features=[])) == metrics
    assert caplog.messages == ["eval loss: 0.500000, acc: 0.123457, em: 0.25, eval done total : 100.0 s"]
    assert seen == [("evaluation", 100.0)]


def test_seeds_of_steps_differ_in_seed_step_and_rank():
    seeds = {step_seed(seed, step, rank) for seed in range(5) for step in range(20) for rank in range(3)}
    assert len(seeds) == 5 * 20 * 3
    assert step_seed(42, 7, 1) == step_seed(42, 7, 1)


# --- ranks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_rows", [8, 4, 2])
@pytest.mark.parametrize("num_micro_batches", [1, 2, 3])
def test_the_mean_of_the_ranks_gradients_is_that_of_one(monkeypatch, num_rows, num_micro_batches):
    """With fewer rows than ranks too; a rank exchanges gradients once, with its last micro-batch."""
    num_ranks, x, targets = 3, *rows()
    chosen = np.arange(num_rows) + 5
    losses, expected = losses_and_gradients(first_weights(), x[chosen], targets[chosen], 1.0)
    gradients, mean, taken = {name: 0.0 for name in expected}, 0.0, []
    monkeypatch.setattr(ranks, "world_size", lambda: num_ranks)
    for rank in range(num_ranks):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        model, is_quiet, exchanges = Tiny(first_weights()), [], []

        @contextlib.contextmanager
        def no_sync(is_quiet=is_quiet):
            is_quiet.append(1)
            yield
            is_quiet.clear()

        def compute_loss(layer, batch, is_quiet=is_quiet, exchanges=exchanges):
            exchanges.append(not is_quiet)
            taken.extend(batch["row"].tolist())
            return squared_distances(layer, batch)

        model.no_sync = no_sync
        scaler = paddle.amp.GradScaler(enable=False)
        head = replace(HEADS["classification"], loss=compute_loss)
        job = Job(model, head, FEATURES, collate, evaluate=dict, save_best=lambda: None)
        args = SimpleNamespace(gradient_accumulation_steps=num_micro_batches, precision="fp32", r_drop=0.0)
        share = loop._backward(job, model, chosen, scaler, args)
        assert exchanges[-1] and sum(exchanges) == 1
        mean += float(share) / num_ranks
        for name, parameter in model.named_parameters():
            gradients[name] = gradients[name] + parameter.grad.numpy() / num_ranks
    assert mean == pytest.approx(losses.mean(), abs=1e-6)
    assert distance(gradients, expected) < TOLERANCE
    spare = [chosen[0]] if num_rows < num_ranks else []  # a rank without rows of its own takes part with a weight of 0
    assert sorted(taken) == sorted([*chosen, *spare])


# --- stopped and started again --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "number", "error", "resumed"),
    [
        (kill, 1, Killed, 0),
        (kill, 2, Killed, 1),
        (kill, 4, Killed, 3),
        (terminate, 3, Stopped, 3),
        (terminate, 4, Stopped, 4),
    ],
    ids=["killed at once", "killed before an evaluation", "killed", "stopped", "stopped before an evaluation"],
)
def test_a_run_that_is_broken_off_ends_as_one_that_is_not(tmp_path, caplog, event, number, error, resumed):
    accuracies = (0.25, 0.75, 0.5)
    whole = train(tmp_path / "whole", *SIX, accuracies=accuracies)
    with pytest.raises(error):
        train(tmp_path / "broken", *SIX, *ALWAYS, accuracies=accuracies, events={number: event})
    left = json.loads((tmp_path / "broken/result.json").read_text())
    assert (left["status"], left["num_steps"]) == ("running", 6)
    assert [entry["step"] for entry in left.get("history", [])] == list(range(2, min(number, resumed + 1), 2))
    folders = [path.name for path in (tmp_path / "broken").glob("checkpoint-*")]
    assert f"checkpoint-{resumed}" in folders or (resumed == 0 and not folders)
    evaluated = (resumed - 1) // 2 if event is terminate else resumed // 2
    with caplog.at_level("INFO", logger="clue_utils"):
        rest = train(tmp_path / "broken", *SIX, *ALWAYS, accuracies=accuracies[evaluated:])
    assert f"going on from {tmp_path}/broken/checkpoint-{resumed}" in caplog.messages or resumed == 0
    assert rest.micro_batches == whole.micro_batches[resumed:] and rest.draws == whole.draws[resumed:]
    assert distance(rest.weights, whole.weights) < 1e-7 and distance(rest.weights, adamw(6, 2)[0]) < TOLERANCE
    assert rest.history == whole.history and rest.run.fields["best_step"] == 4
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "broken")]
    kept = [[(e["kind"], e["step"], e["loss"], e.get("learning_rate")) for e in map(json.loads, log)] for log in lines]
    assert kept[0] == kept[1]


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand, in minutes."""
    minutes = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: 60 * minutes[0])
    return lambda passed: lambda: minutes.__setitem__(0, minutes[0] + passed)


@pytest.mark.parametrize(
    ("words", "of_a_step", "of_an_evaluation", "expected"),
    [
        ("--save_steps 1", 1.0, 0.0, [*range(10, 61, 10)]),
        ("--save_steps 0", 1.0, 0.0, [*range(10, 61, 10)]),
        ("--save_steps 7 --checkpoint_minutes 25", 1.0, 0.0, [25, 50, 60]),
        ("--save_steps 25", 0.0, 30.0, [26, 51, 60]),
        ("--save_steps 1", 0.001, 0.0, [60]),
    ],
    ids=["one evaluation a step", "one an epoch", "other interval", "long evaluations", "a short run"],
)
def test_checkpoints_come_by_time_and_after_the_last_step(
    tmp_path, monkeypatch, clock, words, of_a_step, of_an_evaluation, expected
):
    steps: list[int] = []
    monkeypatch.setattr(checkpoints, "save", lambda folder, step, *rest: steps.append(step))
    words += " --num_train_epochs 20"
    train(tmp_path, *words.split(), on_step=clock(of_a_step), on_evaluation=clock(of_an_evaluation))
    assert steps == expected


def test_the_weights_that_are_kept_are_those_of_the_best_on_record(tmp_path, clock):
    """A run was killed after its best evaluation, whose weights are in the folder, and goes on from before that.

    It is killed once more before it comes to an evaluation.
    """
    words, minute = (*SIX, "--checkpoint_minutes", "3"), clock(1.0)
    for reasons, accuracies, best, saved in ((("it is behind",), (0.4,), 4, [4]), ((), (0.4, 0.3), 4, [4])):
        folder = tmp_path / str(len(reasons))
        with pytest.raises(Killed):
            train(folder, *words, accuracies=(0.5, 0.6), on_step=minute, events={6: kill})
        assert Record.read(folder).score == 0.6 and checkpoints.find_latest(folder)[0].name == "checkpoint-3"
        with pytest.raises(Killed):
            train(folder, *words, on_step=minute, events={1: kill})
        found = train(folder, *words, accuracies=accuracies, reasons=reasons, on_step=minute)
        assert (found.run.fields["best_step"], found.saved) == (best, saved)
        assert [entry["accuracy"] for entry in found.history] == [0.5, *accuracies]


def test_a_run_ends_where_it_is_told_to(tmp_path, caplog):
    with caplog.at_level("INFO", logger="clue_utils"):
        found = train(tmp_path, *SIX, accuracies=(0.25, 0.5), reasons=("", "it is behind"))
    assert len(found.micro_batches) == 4 and [entry["step"] for entry in found.history] == [2, 4]
    assert found.run.fields["pruned"] == {"step": 4, "rule": "it is behind"}
    assert "stopped at step 4, it is behind" in caplog.messages and found.saved == [2, 4]
    assert "pruned" not in train(tmp_path / "whole", *SIX).run.fields
