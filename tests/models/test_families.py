"""Every architecture with every head: loaded, saved, loaded again; or refused where PaddleNLP's computes wrongly."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from clue_utils import environment, models
from clue_utils.errors import UserError
from clue_utils.models import heads
from clue_utils.tasks import TASKS

environment.import_libraries()

from clue_utils.models.config import Config, encoder_settings  # noqa: E402
from clue_utils.models.export import export  # noqa: E402
from clue_utils.models.families import FAMILIES, Family  # noqa: E402
from clue_utils.models.gpu_layers import fuse_attention  # noqa: E402

SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 16,
    "embedding_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
EXTRAS: dict[str, dict[str, Any]] = {
    "ernie_gram": {"rel_pos_size": 8},
    "nezha": {"use_relative_position": True, "max_relative_position": 8},
    "mobilebert": {"intra_bottleneck_size": 16, "num_feedforward_networks": 1},
    "nystromformer": {"num_landmarks": 4, "segment_means_seq_len": 4},
}
TASK_NAMES = ("TNEWS", "C3", "CMRC2018")
NO_HEAD = {(family, "C3") for family in ("skep", "distilbert", "mobilebert", "squeezebert")} | {("skep", "CMRC2018")}
# PaddleNLP's own computation lets the rows of a batch depend on each other.
WRONG = {("gau_alpha", name) for name in TASK_NAMES} | {("squeezebert", "CMRC2018")}
CANNOT_BE_EXPORTED = {"roformer", "roformerv2", "convbert"}
# What no loss depends on; a head for spans leaves the pooler out too, where there is one that others use.
NEVER_USED = {"ernie_gram": "rel_pos_embeddings.", "tinybert": "fit_dense"}
NO_POOLER = {"electra", "roformerv2", "distilbert", "mobilebert", "nystromformer"}
# Whose attention is Paddle's own layer.
CAN_BE_FUSED = {"bert", "ernie", "roberta", "electra", "ernie_gram", "ernie_m", "tinybert", "ppminilm", "skep"}
CAN_BE_FUSED |= {"distilbert"}


class Vocabulary:
    """What ``models.check_fit`` asks of a tokenizer."""

    def get_vocab(self) -> dict[str, int]:
        return {"a": 0, "b": SIZES["vocab_size"] - 1}


def make_encoder(family: Family, folder: Path) -> Path:
    import paddle

    paddle.seed(3)
    config_class = family.base_class.config_class
    known = set(inspect.signature(config_class.__init__).parameters) | set(config_class.attribute_map)
    sizes = {name: value for name, value in SIZES.items() if name in known}
    config = config_class(**sizes, **EXTRAS.get(family.model_type, {}))
    model = family.base_class(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:  # else all rows look alike
            parameter.set_value(paddle.randn(parameter.shape) * 0.3)
    model.save_pretrained(folder, safe_serialization=True)
    return folder


def outputs(model: Any, task_name: str, segment: int = 0) -> np.ndarray:
    import paddle

    ids = np.arange(5, 29).reshape(2, 12) % 50
    if task_name == "C3":
        ids = np.stack([ids, ids + 1, ids + 2, ids + 3], 1)
    batch = {name: paddle.to_tensor(array) for name, array in (("input_ids", ids), ("attention_mask", ids * 0 + 1))}
    batch["token_type_ids"] = batch["input_ids"] * 0 + segment
    model.eval()
    with paddle.no_grad():
        if task_name == "CMRC2018":
            return np.stack([output.numpy() for output in heads.span_logits(model, batch)])
        return np.asarray(heads.logits(model, batch).numpy())


@pytest.mark.parametrize("task_name", TASK_NAMES)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
def test_every_architecture_gives_again_what_it_gave(tmp_path, family, task_name):
    folder, task = make_encoder(family, tmp_path / "encoder"), TASKS[task_name]
    num_outputs = len(task.labels) or 4
    if (family.model_type, task_name) in NO_HEAD:
        with pytest.raises(UserError, match=f"{family.model_type} has no head for {task_name}"):
            models.load_model(str(folder), task, 0.1, num_outputs, training=True)
        return
    if (family.model_type, task_name) in WRONG:
        with pytest.raises(UserError, match="refused, a text's scores depend on the other texts of its batch"):
            models.load_model(str(folder), task, 0.1, num_outputs, training=True)
        return
    model = models.load_model(str(folder), task, 0.1, num_outputs, training=True)
    models.check_fit(model, Vocabulary(), 12)
    before = outputs(model, task_name)
    assert before.std() > 0 and (task_name != "CMRC2018" or np.abs(before[0] - before[1]).max() > 1e-3)
    if "token_type_ids" in inspect.signature(model.forward).parameters:
        assert np.abs(outputs(model, task_name, segment=1) - before).max() > 1e-3
    model.save_pretrained(tmp_path / "saved", safe_serialization=True)
    again = models.load_model(str(tmp_path / "saved"), task, 0.1, num_outputs, training=False)
    np.testing.assert_array_equal(outputs(again, task_name), before)


on_every_task = pytest.mark.parametrize(
    ("family", "task_name"),
    [
        pytest.param(family, name, id=f"{family.model_type}-{name}")
        for family in FAMILIES
        for name in TASK_NAMES
        if (family.model_type, name) not in NO_HEAD | WRONG
    ],
)


def load_for_training(family: Family, task_name: str, folder: Path, dropout: float = 0.0) -> Any:
    task = TASKS[task_name]
    return models.load_model(str(make_encoder(family, folder)), task, dropout, len(task.labels) or 4, training=True)


def batch_for(task_name: str) -> dict[str, Any]:
    """Three rows of which two are padded."""
    ids = np.arange(5, 41).reshape(3, 12) % 50
    mask = (np.arange(12) < np.array([[12], [7], [1]])).astype(np.int64)
    ids *= mask
    if task_name == "C3":
        ids, mask = np.stack([ids, ids + mask, ids, ids + mask], 1), np.stack([mask] * 4, 1)
    answers = {"start": np.array([0, 2, 0]), "end": np.array([3, 2, 0])}
    arrays = {"input_ids": ids, "token_type_ids": ids * 0, "attention_mask": mask}
    return heads.to_tensors(arrays | (answers if task_name == "CMRC2018" else {"label": np.array([0, 1, 3])}))


@on_every_task
def test_the_parameters_that_no_loss_depends_on_are_known(tmp_path, family, task_name):
    """They are those that get no gradient; a parameter left out would end training in several processes."""
    model, batch = load_for_training(family, task_name, tmp_path), batch_for(task_name)
    head = heads.HEADS[TASKS[task_name].kind]
    head.loss(model, batch).sum().backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    model.clear_gradients()
    assert heads.freeze_unused(model, head, batch) == without
    ends = [NEVER_USED.get(family.model_type, "-")]
    if task_name == "CMRC2018" and family.model_type not in NO_POOLER:
        ends.append("pooler.")
    named = [name for name, _ in model.named_parameters()]
    assert without == [name for name in named if any(end in name for end in ends)]
    assert {name for name, parameter in model.named_parameters() if parameter.stop_gradient} == {*without}
    head.loss(model, batch).sum().backward()
    assert all((parameter.grad is None) == (name in without) for name, parameter in model.named_parameters())
    assert {*without} <= model.state_dict().keys()  # they are saved all the same
    assert heads.freeze_unused(model, head, batch) == []


@on_every_task
def test_attention_in_one_operation_computes_the_same(tmp_path, family, task_name):
    model, batch = load_for_training(family, task_name, tmp_path), batch_for(task_name)
    if family.model_type not in CAN_BE_FUSED:
        with pytest.raises(
            UserError, match=f"^--fused_attention: a {family.model_type.replace('-', '')} has an attention of its own"
        ):
            fuse_attention(model)
        return
    head = heads.HEADS[TASKS[task_name].kind]

    def run() -> tuple[np.ndarray, dict[str, np.ndarray]]:
        model.eval()
        head.loss(model, batch).sum().backward()
        gradients = {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
        model.clear_gradients(set_to_zero=False)
        return head.forward(model, batch).numpy(), gradients

    expected_logits, expected = run()
    fuse_attention(model)
    logits, gradients = run()
    np.testing.assert_allclose(logits, expected_logits, atol=1e-5)
    largest = max(float(np.abs(gradient).max()) for gradient in expected.values())
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, expected[name], atol=1e-5 * largest, err_msg=name)
    # What lies beyond a row's mask does not count.
    other = batch | {"input_ids": batch["input_ids"] * batch["attention_mask"] + 7 * (1 - batch["attention_mask"])}
    changed = head.forward(model, other).numpy()
    if task_name == "CMRC2018":
        kept = np.repeat(batch["attention_mask"].numpy(), 2, 1).astype(bool)
        np.testing.assert_allclose(changed[kept], logits[kept], atol=1e-5)
    else:
        np.testing.assert_allclose(changed, logits, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
def test_memory_is_not_taken_for_sizes_far_from_those_of_the_weights(tmp_path, family):
    name = f"{family.base_class.base_model_prefix}.encoder.layers.0.bias"
    save_file({name: np.zeros(4000, np.float32)}, str(tmp_path / "model.safetensors"))
    config = {"model_type": family.model_type, **SIZES, "num_hidden_layers": 1}
    for size in ("hidden_size", "intermediate_size"):
        (tmp_path / "config.json").write_text(json.dumps(config | {size: 4000}))
        with pytest.raises(UserError, match=rf"config\.json: .*{size} 4000.*: the weights are far smaller"):
            models.load_model(str(tmp_path), TASKS["TNEWS"], 0.1, 15, training=True)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
def test_dropout_reaches_encoder_and_head(tmp_path, family):
    """But for what no published run sets: PaddleNLP leaves dropouts after activations at 0."""
    import paddle

    if (family.model_type, "TNEWS") in WRONG:
        pytest.skip("refused")
    model = models.load_model(str(make_encoder(family, tmp_path)), TASKS["TNEWS"], 0.25, 15, training=True)
    assert model.training
    rates = {layer.p for layer in model.sublayers() if isinstance(layer, paddle.nn.Dropout)}
    attentions = [layer.self_attn for layer in model.sublayers() if hasattr(layer, "self_attn")]
    rates |= {attention.dropout for attention in attentions if isinstance(attention.dropout, float)}
    assert rates - {0} == {0.25}


def test_an_architecture_with_a_wrong_mask_is_refused(tmp_path, monkeypatch):
    """As PaddleNLP's MegatronBERT is without the class that mends it."""
    family = next(family for family in FAMILIES if family.model_type == "megatron-bert")
    folder = make_encoder(family, tmp_path)
    from clue_utils.models import families

    monkeypatch.setattr(families.MegatronBertModel, "forward", family.base_class.forward)
    with pytest.raises(UserError, match="a text's scores depend on the other texts"):
        models.load_model(str(folder), TASKS["TNEWS"], 0.1, 15, training=True)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
def test_an_exported_model_computes_the_same_or_is_refused(tmp_path, family):
    if (family.model_type, "TNEWS") in WRONG:
        pytest.skip("refused")
    model = models.load_model(str(make_encoder(family, tmp_path / "encoder")), TASKS["TNEWS"], 0.1, 15, training=True)
    try:
        export(model, tmp_path / "inference/model")  # which compares what it wrote
    except UserError as error:
        assert family.model_type in CANNOT_BE_EXPORTED, error
        assert not (tmp_path / "inference").exists()
    else:
        assert family.model_type not in CANNOT_BE_EXPORTED


# Paddle's names -> PyTorch's, as transformers 5 has them.
LAYER_NAMES = {
    "encoder.layers.": "encoder.layer.",
    "self_attn.q_proj": "attention.self.query",
    "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value",
    "self_attn.out_proj": "attention.output.dense",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm1": "attention.output.LayerNorm",
    "norm2": "output.LayerNorm",
    "layer_norm": "LayerNorm",
}
SPANS = {"classifier": "qa_outputs"}
# Of a configuration; the others are Paddle's.
TORCH_SETTINGS = {
    "distilbert": {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
    }
}
TORCH_NAMES: dict[tuple[str, str], dict[str, str]] = {
    ("electra", "TNEWS"): LAYER_NAMES,
    ("electra", "CMRC2018"): LAYER_NAMES | SPANS,
    ("electra", "C3"): LAYER_NAMES | {"sequence_summary.dense": "sequence_summary.summary"},
    ("roformer", "CMRC2018"): LAYER_NAMES | SPANS,
    ("albert", "TNEWS"): {"transformer": "albert", ".layer_norm": ".LayerNorm"},
    ("albert", "CMRC2018"): {"transformer": "albert", ".layer_norm": ".LayerNorm"},
    ("megatron-bert", "TNEWS"): {"megatronbert": "bert", "layer_norm": "ln"},
    ("distilbert", "TNEWS"): {
        "encoder.layers.": "transformer.layer.",
        **{f"self_attn.{part}_proj": f"attention.{part}_lin" for part in ("q", "k", "v", "out")},
        "norm1": "sa_layer_norm",
        "norm2": "output_layer_norm",
        "linear1": "ffn.lin1",
        "linear2": "ffn.lin2",
        "embeddings.layer_norm": "embeddings.LayerNorm",
    },
}
TORCH_NAMES["distilbert", "CMRC2018"] = TORCH_NAMES["distilbert", "TNEWS"] | SPANS


@pytest.mark.parametrize(("model_type", "task_name"), TORCH_NAMES, ids=str)
def test_the_names_and_matrices_of_pytorch_give_the_same(tmp_path, model_type, task_name, caplog):
    import paddle

    family, task = next(family for family in FAMILIES if family.model_type == model_type), TASKS[task_name]
    num_outputs = len(task.labels) or 4
    make_encoder(family, tmp_path / "encoder")
    model = models.load_model(str(tmp_path / "encoder"), task, 0.1, num_outputs, training=True)
    for layer in model.sublayers():
        if isinstance(layer, paddle.nn.LayerNorm):
            layer._epsilon = 1e-3
    linear = {f"{name}.weight" for name, layer in model.named_sublayers() if isinstance(layer, paddle.nn.Linear)}
    weights = {}
    for name, parameter in model.named_parameters():
        theirs = name
        for old, new in TORCH_NAMES[model_type, task_name].items():
            theirs = theirs.replace(old, new)
        array = parameter.numpy()
        weights[theirs] = np.ascontiguousarray(array.T if name in linear else array)
    folder = tmp_path / "torch"
    folder.mkdir()
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    settings = TORCH_SETTINGS.get(model_type, {})
    config = json.loads((tmp_path / "encoder/config.json").read_text())
    config = {settings.get(name, name): value for name, value in config.items()}
    changes = {"model_type": model_type, "layer_norm_eps": 1e-3, "id2label": dict(enumerate(task.labels))}
    (folder / "config.json").write_text(json.dumps(config | changes))
    again = models.load_model(str(folder), task, 0.1, num_outputs, training=False)
    np.testing.assert_allclose(outputs(again, task_name), outputs(model, task_name), atol=1e-5)
    again.save_pretrained(tmp_path / "saved", safe_serialization=True)
    saved = models.load_model(str(tmp_path / "saved"), task, 0.1, num_outputs, training=False)
    np.testing.assert_array_equal(outputs(saved, task_name), outputs(again, task_name))


@pytest.mark.parametrize("fine_tuned", [False, True])
@pytest.mark.parametrize("model_type", ["ernie_gram", "nezha", "ppminilm"])
def test_a_nested_configuration_names_the_architecture(tmp_path, model_type, fine_tuned):
    """As PaddleNLP before 2.5 wrote it, of an encoder alone and of encoder and head."""
    family = next(family for family in FAMILIES if family.model_type == model_type)
    folder = make_encoder(family, tmp_path / "model")
    model = models.load_model(str(folder), TASKS["TNEWS"], 0.1, 15, training=True)
    if fine_tuned:
        model.save_pretrained(folder, safe_serialization=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    names = {name: config[name] for name in (*SIZES, *EXTRAS.get(model_type, {})) if name in config}
    nested: dict[str, Any] = names | {"init_class": f"{family.name}Model"}
    if fine_tuned:
        head = {"num_classes": 15, "init_class": f"{family.name}ForSequenceClassification"}
        nested = {"init_args": [nested], **head}
    (folder / "model_config.json").write_text(json.dumps(nested))
    again = models.load_model(str(folder), TASKS["TNEWS"], 0.1, 15, training=not fine_tuned)
    again.classifier.set_state_dict(model.classifier.state_dict())
    np.testing.assert_array_equal(outputs(again, "TNEWS"), outputs(model, "TNEWS"))


def test_settings_by_hugging_face_s_names():
    family = next(family for family in FAMILIES if family.model_type == "distilbert")
    said = {"vocab_size": 46, "dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 64}
    settings = encoder_settings(Config("config.json", said | {"activation": "relu"}), family)
    assert settings["hidden_act"] == "relu"
    assert [settings[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")] == [16, 3, 2]
