"""Encoders that compute nothing for padding."""

from __future__ import annotations

import concurrent.futures
import logging

import numpy as np
import pytest

from clue_utils import environment

environment.import_libraries()

import paddle  # noqa: E402

from clue_utils import models  # noqa: E402
from clue_utils.models import cpu_layers, heads, lora, packed, threads  # noqa: E402
from clue_utils.models.families import FAMILIES  # noqa: E402
from clue_utils.tasks import TASKS  # noqa: E402
from demo.architectures import make_encoder  # noqa: E402

# Whose encoder is Paddle's.
PACKED = {"bert", "ernie", "roberta", "electra", "ernie_gram", "ernie_m", "tinybert", "ppminilm", "skep", "distilbert"}
PACKED |= {"ernie-ctm", "chinesebert", "unimo", "unified_transformer", "mbart"}
# Of these, whose heads read more than the first state of a text: the mean of all, or the last.
READ_MORE: set[str] = {"mbart"}
LENGTHS = np.array([12, 7, 7, 3, 11, 1])
RIGHT = np.arange(12) < LENGTHS[:, None]
HOLES = np.random.default_rng(0).random((6, 12)) < 0.6


@pytest.fixture(autouse=True)
def nothing_told():
    """What is logged once a process is logged once a test."""
    cpu_layers._tell.cache_clear()


def make_encoder_of_paddle(**settings):
    paddle.seed(0)
    layer = paddle.nn.TransformerEncoderLayer(16, 2, 32, **{"dropout": 0.0, "activation": "gelu"} | settings)
    norm = paddle.nn.LayerNorm(16) if settings.get("normalize_before") else None
    encoder = paddle.nn.Sequential(paddle.nn.TransformerEncoder(layer, 2, norm))
    for name, parameter in encoder.named_parameters():  # no weight at its first value of 1 or 0
        parameter.set_value(paddle.normal(1.0 if "norm" in name else 0.0, 0.3, parameter.shape))
    return encoder


def states_and_gradients(encoder, is_token, mask):
    x = paddle.to_tensor(np.random.default_rng(1).normal(size=(*is_token.shape, 16)).astype("float32"))
    x.stop_gradient = False
    states = encoder[0](x, mask)
    weights = np.random.default_rng(2).normal(size=states.shape) * is_token[..., None]
    (states * paddle.to_tensor(weights.astype("float32"))).sum().backward()
    gradients = [tensor.grad.numpy() for tensor in (x, *encoder.parameters())]
    encoder.clear_gradients()
    return [states.numpy() * is_token[..., None], *gradients]


@pytest.mark.parametrize("kind", ["float", "int", "none"])
@pytest.mark.parametrize("is_token", [RIGHT, RIGHT[:, ::-1], HOLES | RIGHT[::-1]], ids=["right", "left", "holes"])
@pytest.mark.parametrize("settings", [{}, {"normalize_before": True}, {"activation": "relu"}], ids=str)
def test_states_and_gradients_are_paddles(settings, is_token, kind):
    masks = {"float": (1 - is_token[:, None, None]).astype("float32") * -1e4, "int": is_token[:, None, None] * 1}
    mask = paddle.to_tensor(masks[kind]) if kind in masks else None
    is_token = is_token if kind in masks else np.ones_like(is_token)
    encoder = make_encoder_of_paddle(**settings)
    expected = states_and_gradients(encoder, is_token, mask)
    cpu_layers.speed_up(encoder)
    assert type(encoder[0]) is cpu_layers.PackedTransformerEncoder
    for mine, theirs in zip(states_and_gradients(encoder, is_token, mask), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=2e-5)
    with paddle.no_grad():
        states = encoder[0](paddle.ones([*is_token.shape, 16]), mask).numpy()
    assert not states[~is_token].any()


def test_where_the_first_state_alone_is_read_no_other_is_computed():
    encoder = make_encoder_of_paddle()
    mask = paddle.to_tensor((1 - RIGHT[:, None, None]).astype("float32") * -1e4)

    def run(mask):
        x = paddle.to_tensor(np.random.default_rng(1).normal(size=(6, 12, 16)).astype("float32"))
        x.stop_gradient = False
        states = encoder[0](x, mask)
        states[:, 0].square().sum().backward()
        gradients = [tensor.grad.numpy() for tensor in (x, *encoder.parameters())]
        encoder.clear_gradients()
        return states.numpy(), gradients

    expected, gradients = run(mask)
    cpu_layers.speed_up(encoder)
    encoder[0].is_read_first_only = True
    seen = []
    encoder[0].layers[1].linear1.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].shape))
    states, found = run(mask)
    assert seen == [[6, 16]] and np.isnan(states[:, 1:]).all()  # to be seen where it is read after all
    for mine, theirs in zip([states[:, 0], *found], [expected[:, 0], *gradients], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=2e-5)
    left = paddle.to_tensor((1 - RIGHT[:, None, None, ::-1]).astype("float32") * -1e4)
    states, _ = run(left)  # the first state is that of padding
    assert np.isfinite(states).all()
    alone = paddle.to_tensor(np.random.default_rng(1).normal(size=(3, 1, 16)).astype("float32"))
    assert np.isfinite(encoder[0](alone).numpy()).all() and encoder[0](alone).shape == [3, 1, 16]


def test_only_tokens_go_through_the_layers():
    encoder = make_encoder_of_paddle()
    cpu_layers.speed_up(encoder)
    seen = []
    for layer in encoder[0].layers:
        for each in (layer.linear1, layer.linear2, layer.self_attn.out_proj):
            each.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].shape))
    encoder[0](paddle.ones([6, 12, 16]), paddle.to_tensor((1 - RIGHT[:, None, None]).astype("float32") * -1e4))
    assert seen == 2 * [[41, 16], [41, 16], [41, 32]] and LENGTHS.sum() == 41


@pytest.mark.parametrize("lengths", [[5], [9, 9, 9], list(range(1, 65)), [128, 3, 3, 127, 60, 61] * 4])
def test_groups_hold_each_row_once_and_little_padding(lengths):
    lengths = np.array(lengths)
    groups = packed.group_by_length(lengths, 12)
    assert sorted(np.concatenate(groups)) == list(range(len(lengths)))
    computed = sum(len(group) * lengths[group].max() ** 2 for group in groups)
    assert computed <= 1.3 * (lengths**2).sum() + 2 * packed._GROUP_COST / 12
    assert all(
        len(group) == 1 or 12 * len(group) * lengths[group].max() ** 2 <= packed._GROUP_SCORES for group in groups
    )
    assert len(packed.group_by_length(np.array([3, 4, 5] * 20), 4)) == 1  # one costs less than three


def test_the_number_and_size_of_groups_change_nothing(monkeypatch):
    mask = paddle.to_tensor((1 - RIGHT[:, None, None]).astype("float32") * -1e4)
    encoder = make_encoder_of_paddle()
    cpu_layers.speed_up(encoder)
    found = []
    for cost, scores in ((1 << 14, 1 << 19), (0, 1 << 19), (1 << 14, 1)):
        monkeypatch.setattr(packed, "_GROUP_COST", cost)
        monkeypatch.setattr(packed, "_GROUP_SCORES", scores)
        found.append(states_and_gradients(encoder, RIGHT, mask))
    assert [len(packed.group_by_length(LENGTHS, 2))] == [6]
    for other in found[1:]:
        for mine, theirs in zip(other, found[0], strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_several_threads_compute_the_same(monkeypatch, dropout):
    """The same units are dropped, too."""
    encoder = make_encoder_of_paddle(dropout=dropout)
    cpu_layers.speed_up(encoder)
    mask = paddle.to_tensor((1 - RIGHT[:, None, None]).astype("float32") * -1e4)
    monkeypatch.setattr(packed, "_GROUP_SCORES", 1)  # the same groups
    monkeypatch.setattr(threads, "_PART_SIZE", 1)
    found = []
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for number, of_number in ((1, None), (3, pool), (3, pool)):
            monkeypatch.setattr(threads, "count", lambda number=number: number)
            monkeypatch.setattr(threads, "_pool", lambda of_number=of_number: of_number)
            paddle.seed(8)
            found.append(states_and_gradients(encoder, RIGHT, mask))
    for alone, together, again in zip(*found, strict=True):
        np.testing.assert_allclose(together, alone, rtol=1e-4, atol=2e-5)
        assert np.array_equal(together, again)  # however the threads take turns


@pytest.mark.parametrize("read", [slice(None), slice(1)], ids=["all", "first"])
@pytest.mark.parametrize("dropouts", [{"dropout": 0.4}, {"attn_dropout": 0.4}], ids=["everywhere", "attention"])
def test_gradients_with_dropout_are_those_of_what_was_computed(dropouts, read):
    """The directional derivative, with the same units dropped."""
    encoder = make_encoder_of_paddle(**dropouts)
    cpu_layers.speed_up(encoder)
    encoder[0].is_read_first_only = read == slice(1)
    mask = paddle.to_tensor((1 - RIGHT[:, None, None]).astype("float32") * -1e4)
    rng = np.random.default_rng(3)
    x, weights = (paddle.to_tensor(rng.normal(size=(6, 12, 16)).astype("float32")) for _ in range(2))
    directions = [paddle.to_tensor(rng.normal(size=p.shape).astype("float32")) for p in encoder.parameters()]

    def loss(step, seed=4):
        paddle.seed(seed)
        for parameter, direction in zip(encoder.parameters(), directions, strict=True):
            parameter.set_value(parameter + step * direction)
        value = (encoder[0](x, mask)[:, read] * weights[:, read]).sum()
        for parameter, direction in zip(encoder.parameters(), directions, strict=True):
            parameter.set_value(parameter - step * direction)
        return value

    loss(0.0).backward()
    pairs = zip(encoder.parameters(), directions, strict=True)
    slope = sum(float((parameter.grad * direction).sum()) for parameter, direction in pairs)
    assert float(loss(1e-3) - loss(-1e-3)) / 2e-3 == pytest.approx(slope, rel=0.02)
    assert float(loss(0.0)) == float(loss(0.0))
    encoder[0].layers[0].eval()
    assert float(loss(0.0)) != float(loss(0.0, seed=5))  # the last layer draws, too


def test_a_mask_that_says_more_goes_the_padded_way(caplog):
    encoder = make_encoder_of_paddle()
    x = paddle.to_tensor(np.random.default_rng(1).normal(size=(6, 12, 16)).astype("float32"))
    causal = paddle.to_tensor(np.triu(np.full((12, 12), -1e4, np.float32), 1)).expand([6, 1, 12, 12])
    empty = paddle.to_tensor((1 - (RIGHT & (LENGTHS > 1)[:, None])[:, None, None]).astype("float32") * -1e4)
    soft = paddle.full([6, 1, 1, 12], -0.5)
    expected = [encoder[0](x, mask).numpy() for mask in (causal, empty, soft)]
    with caplog.at_level(logging.INFO):
        cpu_layers.speed_up(encoder)
        cpu_layers.speed_up(make_encoder_of_paddle())
        found = [encoder[0](x, mask).numpy() for mask in (causal, empty, soft)]
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
    assert [record.message for record in caplog.records] == [
        "padding: left out, the encoder computes tokens alone",
        "padding: computed after all, since the mask says more than where the tokens are",
    ]


def loss_and_gradients(model, head, batch):
    loss = head.loss(model, batch)
    loss.sum().backward()
    gradients = {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
    model.clear_gradients()
    return loss.numpy(), gradients


@pytest.mark.parametrize("task_name", ["TNEWS", "CMRC2018"])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
def test_every_architecture_learns_the_same(tmp_path, family, task_name, caplog):
    task = TASKS[task_name]
    model = models.load_model(str(make_encoder(family, tmp_path)), task, 0.0, len(task.labels), training=True)
    if family.model_type == "ernie" and task_name == "TNEWS":  # with adapters beside the projections
        lora.adapt(model, family, lora.Lora(2, "/base", "0"), 0.0)
    ids = np.where(RIGHT, np.arange(5, 77).reshape(6, 12) % 50, model.config.pad_token_id or 0)
    arrays = {"input_ids": ids, "token_type_ids": ids * 0, "attention_mask": RIGHT.astype(np.int64)}
    arrays |= {"label": ids[:, 0] % 3} if task_name == "TNEWS" else dict.fromkeys(("start", "end"), ids[:, 0] % 1)
    head, batch = heads.HEADS[task.kind], heads.to_tensors(arrays)
    names = [name for name, _ in model.named_parameters()]
    losses, gradients = loss_and_gradients(model, head, batch)
    with caplog.at_level(logging.INFO):
        cpu_layers.speed_up(model)
    found_losses, found = loss_and_gradients(model, head, batch)
    is_packed = family.model_type in PACKED
    reading = [
        layer.is_read_first_only for layer in model.sublayers() if type(layer) is cpu_layers.PackedTransformerEncoder
    ]
    assert reading == [task_name == "TNEWS" and family.model_type not in READ_MORE] * is_packed
    assert caplog.records[-1].message.startswith(f"padding: {'left out' if is_packed else 'computed like tokens'}")
    assert [name for name, _ in model.named_parameters()] == names
    np.testing.assert_allclose(found_losses, losses, rtol=1e-4, atol=1e-5)
    assert found.keys() == gradients.keys()
    largest = max(np.abs(gradient).max() for gradient in gradients.values())
    for name, gradient in found.items():
        np.testing.assert_allclose(gradient, gradients[name], atol=1e-5 * largest, err_msg=name)
