"""Adapters beside the layers of every architecture: what they compute, what is trained, what is saved."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_families import batch_for, make_encoder, outputs

from clue_utils import environment, models
from clue_utils.errors import UserError
from clue_utils.models import heads
from clue_utils.tasks import TASKS

environment.import_libraries()

import paddle  # noqa: E402

from clue_utils.models.families import BY_TYPE, FAMILIES  # noqa: E402

TASK = TASKS["TNEWS"]
HEAD = heads.HEADS["classification"]
BERT = BY_TYPE["bert"]
RANK = 3


class Tokenizer:
    """What ``models.save_model`` asks of a tokenizer."""

    def save_pretrained(self, folder):
        pass


def load(folder, training=True, rank=RANK, task=TASK):
    return models.load_model(str(folder), task, 0.0, len(task.labels) or 4, training, rank)


def draw_adapters(model):
    """B begins at 0, where the adapters add nothing."""
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            parameter.set_value(paddle.randn(parameter.shape) * 0.1)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
def test_every_architecture_has_its_adapters_trained_and_loaded_again(tmp_path, family):
    folder = make_encoder(family, tmp_path / "base")
    if family.model_type == "squeezebert":
        with pytest.raises(UserError, match="--lora_rank: a squeezebert has no linear layers in attention"):
            load(folder)
        return
    model, plain = load(folder), load(folder, rank=0)
    named = dict(model.named_parameters())
    trained = {name for name, parameter in named.items() if not parameter.stop_gradient}
    prefix = f"{model.base_model_prefix}."
    assert {name for name in trained if name.startswith(prefix) and "pooler" not in name} == {
        name for name in named if ".lora_" in name
    }
    assert {name for name in named if not name.startswith(prefix)} <= trained
    own = dict(plain.named_parameters())
    assert named.keys() - own.keys() == {name for name in named if ".lora_" in name}
    draw_adapters(model)
    HEAD.loss(model, batch_for("TNEWS")).sum().backward()
    gradients = {name for name, parameter in named.items() if parameter.grad is not None and parameter.grad.abs().max()}
    assert gradients == trained
    before = outputs(model, "TNEWS")
    models.save_model(model, Tokenizer(), tmp_path / "saved")
    assert load_file(str(tmp_path / "saved/model.safetensors")).keys() == trained
    again = load(tmp_path / "saved", training=False, rank=0)
    np.testing.assert_array_equal(outputs(again, "TNEWS"), before)
    if not family.sees_padding:
        whole = load(tmp_path / "saved", rank=0)
        assert not any(parameter.stop_gradient for parameter in whole.parameters())
        assert dict(whole.named_parameters()).keys() == own.keys()
        np.testing.assert_allclose(outputs(whole, "TNEWS"), before, atol=2e-5 * np.abs(before).max())


def test_what_an_adapter_adds(tmp_path):
    """2 x A B beside x W + b, once on the way up and once on the way down."""
    model = load(make_encoder(BERT, tmp_path))
    draw_adapters(model)
    layer = model.bert.encoder.layers[0].linear1
    x = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
    weight, bias, a, b = (value.numpy() for value in (layer.weight, layer.bias, layer.lora_A, layer.lora_B))
    assert a.shape == (16, RANK) and b.shape == (RANK, 32) and np.abs(a).max() > 0
    np.testing.assert_allclose(layer(paddle.to_tensor(x)).numpy(), x @ weight + bias + 2 * x @ a @ b, atol=1e-5)


def test_a_model_learns_by_its_adapters(tmp_path):
    model, batch = load(make_encoder(BERT, tmp_path)), batch_for("TNEWS")
    for parameter in model.classifier.parameters():
        parameter.stop_gradient = True
    frozen = {name: p.numpy() for name, p in model.named_parameters() if p.stop_gradient}
    optimizer = paddle.optimizer.AdamW(1e-2, parameters=model.parameters())
    losses = []
    for _ in range(40):
        loss = HEAD.loss(model, batch).mean()
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        losses.append(float(loss))
    assert losses[-1] < losses[0] / 4
    state = {name: p.numpy() for name, p in model.named_parameters() if p.stop_gradient}
    assert all((state[name] == frozen[name]).all() for name in frozen)


def test_adapters_and_head_come_from_the_checkpoint(tmp_path):
    model = load(make_encoder(BERT, tmp_path / "base"))
    draw_adapters(model)
    models.save_model(model, Tokenizer(), tmp_path / "saved")
    again = load(tmp_path / "saved")  # to be trained on
    assert [p.stop_gradient for p in again.parameters()] == [p.stop_gradient for p in model.parameters()]
    np.testing.assert_array_equal(outputs(again, "TNEWS"), outputs(model, "TNEWS"))
    other = load(tmp_path / "saved", task=TASKS["CMRC2018"])  # a head of its own over the same adapters
    for name, parameter in model.bert.named_parameters():
        np.testing.assert_array_equal(dict(other.bert.named_parameters())[name].numpy(), parameter.numpy())
    with pytest.raises(UserError, match="no trained head for CMRC2018"):
        load(tmp_path / "saved", task=TASKS["CMRC2018"], training=False)


@pytest.mark.parametrize("rank", [17, 10**9])
def test_a_rank_beyond_the_layers_is_refused(tmp_path, rank):
    with pytest.raises(UserError, match=rf"--lora_rank cannot be {rank}: the model has layers of size 16"):
        load(make_encoder(BERT, tmp_path), rank=rank)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (3, "clue_lora cannot be 3"),
        ({"rank": 3}, "clue_lora cannot be"),
        ({"rank": "3"}, "clue_lora cannot be"),
        ({"rank": 2}, "is missing or of another shape"),
        ({"rank": 0}, "clue_lora cannot be"),
        ({"base": "no/such/folder"}, r'"base" in clue_lora cannot be .no/such/folder.'),
        ({"base": ""}, r'"base" in clue_lora cannot be'),
        ({"rank": 17}, r'config\.json: "rank" in clue_lora cannot be 17'),
        ({"base": "/no/such/folder"}, r"config\.json: the model that its adapters were trained on is not to be had"),
        ({"base": "saved"}, "has adapters itself"),
        ({"sha256": "0"}, "trained on other weights"),
    ],
    ids=str,
)
def test_what_a_configuration_cannot_say(tmp_path, said, line):
    models.save_model(load(make_encoder(BERT, tmp_path / "base")), Tokenizer(), tmp_path / "saved")
    path = tmp_path / "saved/config.json"
    config = json.loads(path.read_text())
    if isinstance(said, dict) and said != {"rank": 3}:
        said = config["clue_lora"] | said
        said["base"] = said["base"].replace("saved", str(path.parent))
    path.write_text(json.dumps(config | {"clue_lora": said}))
    with pytest.raises(UserError, match=line):
        load(path.parent, training=False)


@pytest.mark.parametrize(
    ("name", "value"), [("num_attention_heads", 4), ("hidden_act", "relu"), ("layer_norm_eps", 1e-6)]
)
def test_the_settings_of_the_base_must_be_what_they_were(tmp_path, name, value):
    models.save_model(load(make_encoder(BERT, tmp_path / "base")), Tokenizer(), tmp_path / "saved")
    path = tmp_path / "base/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(UserError, match="or with other settings of their config.json"):
        load(tmp_path / "saved", training=False)


def test_a_checksum_does_not_depend_on_the_order_of_parameters(tmp_path, monkeypatch):
    models.save_model(load(make_encoder(BERT, tmp_path / "base")), Tokenizer(), tmp_path / "saved")
    named = paddle.nn.Layer.named_parameters
    monkeypatch.setattr(paddle.nn.Layer, "named_parameters", lambda self, *rest: reversed([*named(self, *rest)]))
    load(tmp_path / "saved", training=False)


def test_a_pooler_of_adapters_is_not_said_to_be_drawn(tmp_path, caplog):
    folder = make_encoder(BERT, tmp_path / "base")
    weights = load_file(str(folder / "model.safetensors"))
    save_file({name: w for name, w in weights.items() if "pooler" not in name}, str(folder / "model.safetensors"))
    with caplog.at_level("INFO"):
        models.save_model(load(folder), Tokenizer(), tmp_path / "saved")
        assert "drawn at random: bert.pooler" in caplog.text
        caplog.clear()
        load(tmp_path / "saved")
    assert "drawn at random" not in caplog.text
