"""Every architecture with every head: loaded, saved, loaded again; or refused where PaddleNLP's computes wrongly."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import hugging_face as hf
from clue_utils import environment, models
from clue_utils.errors import UserError
from clue_utils.models import heads
from clue_utils.tasks import TASKS
from demo.architectures import EXTRAS, SIZES, make_encoder

environment.import_libraries()

from clue_utils.models.config import Config, encoder_settings, with_common_names  # noqa: E402
from clue_utils.models.export import write_model  # noqa: E402
from clue_utils.models.families import BY_TYPE, FAMILIES, Family  # noqa: E402
from clue_utils.models.gpu_layers import fuse_attention  # noqa: E402

TASK_NAMES = ("TNEWS", "C3", "CMRC2018")
HEAD = heads.HEADS["classification"]
CANNOT_BE_EXPORTED = {"roformer", "roformerv2", "convbert", "ernie_doc"}
# What no loss depends on; a head for spans leaves the pooler out too, where there is one that others use; they leave
# out what is computed for the single tokens.
NEVER_USED = {"ernie_gram": "rel_pos_embeddings.", "tinybert": "fit_dense", "xlnet": "mask_emb"}
ONLY_FOR_SPANS = {"ernie-ctm": "feature_"}
NO_POOLER = {"electra", "roformerv2", "distilbert", "mobilebert", "nystromformer", "gpt", "gpt2", "qwen2", "qwen3"}
NO_POOLER |= {"xlnet", "unimo", "unified_transformer", "glm", "mbart", "deberta-v2", "modernbert"}
# Whose attention is Paddle's own layer.
CAN_BE_FUSED = {"bert", "ernie", "roberta", "electra", "ernie_gram", "ernie_m", "tinybert", "ppminilm", "skep"}
CAN_BE_FUSED |= {"distilbert", "ernie-ctm", "chinesebert", "unimo", "unified_transformer", "mbart"}
# Whose feed-forward layers have a size that is in no configuration.
NO_INTERMEDIATE_SIZE = {"glm"}


class Vocabulary:
    """What ``models.check_fit`` asks of a tokenizer."""

    def get_vocab(self) -> dict[str, int]:
        return {"a": 0, "b": SIZES["vocab_size"] - 1}


def outputs(model: Any, task_name: str, segment: int = 0) -> np.ndarray:
    import paddle

    ids = np.arange(5, 29).reshape(2, 12) % 50
    if task_name == "C3":
        ids = np.stack([ids, ids + 1, ids + 2, ids + 3], 1)
    batch = {name: paddle.to_tensor(array) for name, array in (("input_ids", ids), ("attention_mask", ids * 0 + 1))}
    batch["token_type_ids"] = batch["attention_mask"] * paddle.to_tensor(np.repeat([0, segment], 6))
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
    model = models.load_model(str(folder), task, 0.1, num_outputs, training=True)
    models.check_fit(model, Vocabulary(), 12)
    before = outputs(model, task_name)
    assert before.std() > 0 and (task_name != "CMRC2018" or np.abs(before[0] - before[1]).max() > 1e-3)
    if "token_type_ids" in heads.input_names(model):
        assert np.abs(outputs(model, task_name, segment=1) - before).max() > 1e-3
    model.save_pretrained(tmp_path / "saved", safe_serialization=True)
    again = models.load_model(str(tmp_path / "saved"), task, 0.1, num_outputs, training=False)
    np.testing.assert_array_equal(outputs(again, task_name), before)


on_every_task = pytest.mark.parametrize(
    ("family", "task_name"),
    [pytest.param(family, name, id=f"{family.model_type}-{name}") for family in FAMILIES for name in TASK_NAMES],
)


def load_for_training(family: Family, task_name: str, folder: Path, dropout: float = 0.0) -> Any:
    task = TASKS[task_name]
    return models.load_model(str(make_encoder(family, folder)), task, dropout, len(task.labels) or 4, training=True)


def batch_for(task_name: str) -> dict[str, Any]:
    """Three rows of which two are padded."""
    ids = np.arange(5, 41).reshape(3, 12) % 50
    mask = (np.arange(12) < np.array([[12], [7], [2]])).astype(np.int64)
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
    if task_name != "CMRC2018":
        ends.append(ONLY_FOR_SPANS.get(family.model_type, "-"))
    elif family.model_type not in NO_POOLER:
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
            UserError, match=f"^--fused_attention: a {model.config.model_type} has an attention of its own"
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
    known = inspect.signature(family.base_class.config_class.__init__).parameters
    known = {*known, *family.base_class.config_class.attribute_map, *family.setting_names}
    for size in [name for name in ("hidden_size", "intermediate_size") if name in known]:
        (tmp_path / "config.json").write_text(json.dumps(config | {size: 4000}))
        with pytest.raises(UserError, match=rf"config\.json: .*{size} 4000.*: the weights are far smaller"):
            models.load_model(str(tmp_path), TASKS["TNEWS"], 0.1, 15, training=True)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
def test_dropout_reaches_encoder_and_head(tmp_path, family):
    """But for what no published run sets: PaddleNLP leaves dropouts after activations at 0."""
    import paddle

    model = models.load_model(str(make_encoder(family, tmp_path)), TASKS["TNEWS"], 0.25, 15, training=True)
    assert model.training
    rates = {layer.p for layer in model.sublayers() if isinstance(layer, paddle.nn.Dropout)}
    attentions = [layer.self_attn for layer in model.sublayers() if hasattr(layer, "self_attn")]
    rates |= {rate for each in attentions if isinstance(rate := getattr(each, "dropout", 0), float)}
    named = [getattr(layer, f"{place}_dropout", 0) for layer in model.sublayers() for place in ("hidden", "attention")]
    rates |= {rate for rate in named if isinstance(rate, float)}
    assert rates - {0} == {0.25}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
def test_rows_without_a_mask_are_rows_without_padding(tmp_path, family):
    import paddle

    model = load_for_training(family, "TNEWS", tmp_path)
    model.eval()
    batch = {"input_ids": paddle.to_tensor(np.arange(5, 29).reshape(2, 12))}
    with paddle.no_grad():
        given = heads.logits(model, batch | {"attention_mask": paddle.ones_like(batch["input_ids"])})
        np.testing.assert_allclose(heads.logits(model, batch).numpy(), given.numpy(), atol=1e-5)


def change_encoder(folder: Path, extra: dict[str, list[int]], **settings: Any) -> Path:
    """Add tensors to a checkpoint, or settings; None takes one out."""
    weights = load_file(str(folder / "model.safetensors"))
    new = {name: np.zeros(shape, np.float32) for name, shape in extra.items()}
    save_file(weights | new, str(folder / "model.safetensors"))
    config = json.loads((folder / "config.json").read_text()) | settings
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return folder


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
def test_an_encoder_of_which_a_part_has_no_place_is_refused(tmp_path, family):
    folder, prefix = make_encoder(family, tmp_path), family.base_class.base_model_prefix
    first = min(load_file(str(folder / "model.safetensors")))
    prefix = f"{prefix}." if first.startswith(f"{prefix}.") else f"{first.partition('.')[0]}."
    change_encoder(folder, {f"{prefix}position_ids": [64], "lm_head.weight": [60, 16], f"{prefix}pooler.bias": [16]})
    models.load_model(str(folder), TASKS["TNEWS"], 0.1, 15, training=True)
    change_encoder(folder, {f"{prefix}something.weight": [16]})
    with pytest.raises(
        UserError, match=rf"1 tensors of its encoder \(such as {prefix}something.weight\) have no place"
    ):
        models.load_model(str(folder), TASKS["TNEWS"], 0.1, 15, training=True)


@pytest.mark.parametrize(
    ("model_type", "settings", "tensor"),
    [
        ("qwen3", {"model_type": "qwen2", "attention_bias": False}, "k_norm"),
        ("deberta-v2", {"relative_attention": False}, "pos_key_proj"),
        ("deberta-v2", {"conv_kernel_size": 0}, "conv"),
    ],
)
def test_the_weights_of_a_richer_model_are_refused(tmp_path, model_type, settings, tensor):
    family = BY_TYPE[model_type]
    folder = change_encoder(make_encoder(family, tmp_path), {}, **settings)
    if model_type == "qwen3":
        weights = load_file(str(folder / "model.safetensors"))
        names = {name: f"model.{name.partition('qwen3.')[2] or name}" for name in weights}
        save_file({names[name]: w for name, w in weights.items()}, str(folder / "model.safetensors"))
    with pytest.raises(UserError, match="have no place in the .* describes: use the files of one model") as raised:
        models.load_model(str(folder), TASKS["TNEWS"], 0.1, 15, training=True)
    assert tensor in str(raised.value)


@pytest.mark.parametrize(("said", "is_warned"), [(None, True), (False, False)])
def test_task_embeddings_that_are_not_asked_for_are_left_out(tmp_path, caplog, said, is_warned):
    family = BY_TYPE["ernie"]
    name = "embeddings.task_type_embeddings.weight"
    folder = change_encoder(make_encoder(family, tmp_path), {name: [3, 16]}, use_task_id=said, task_type_vocab_size=3)
    models.load_model(str(folder), TASKS["TNEWS"], 0.1, 15, training=True)
    assert ("does not say use_task_id: true" in caplog.text) == is_warned


def test_fewer_layers_than_the_weights_have_are_said(tmp_path, caplog):
    for model_type, name in (("gpt2", "n_layer"), ("bert", "num_hidden_layers")):
        family = BY_TYPE[model_type]
        folder = make_encoder(family, tmp_path / model_type)
        config = json.loads((folder / "config.json").read_text())
        assert name in config or "num_hidden_layers" in config
        name = name if name in config else "num_hidden_layers"
        change_encoder(folder, {}, **{name: 1})
        models.load_model(str(folder), TASKS["TNEWS"], 0.1, 15, training=True)
        assert f"{folder}: of 2 layers the first 1 are used" in caplog.text


def test_memory_that_runs_out_is_no_fault_of_the_settings(tmp_path, monkeypatch):
    def run_out(*_: Any) -> None:
        raise MemoryError("ResourceExhaustedError: out of memory")

    head = dataclasses.replace(heads.HEADS["classification"], forward=run_out)
    monkeypatch.setitem(heads.HEADS, "classification", head)
    family = BY_TYPE["bert"]
    with pytest.raises(MemoryError):
        models.load_model(str(make_encoder(family, tmp_path)), TASKS["TNEWS"], 0.1, 15, training=True)


def test_an_architecture_with_a_wrong_mask_is_refused(tmp_path, monkeypatch):
    """As PaddleNLP's MegatronBERT is without the class that mends it."""
    family = BY_TYPE["megatron-bert"]
    folder = make_encoder(family, tmp_path)
    monkeypatch.setattr(family.encoder_class, "forward", family.base_class.forward)
    with pytest.raises(UserError, match="a text's scores depend on the other texts"):
        models.load_model(str(folder), TASKS["TNEWS"], 0.1, 15, training=True)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
def test_an_exported_model_computes_the_same_or_is_refused(tmp_path, family):
    model = models.load_model(str(make_encoder(family, tmp_path / "encoder")), TASKS["TNEWS"], 0.1, 15, training=True)
    try:
        write_model(model, tmp_path / "model", HEAD, model.config.pad_token_id or 0)  # which compares what it wrote
    except UserError as error:
        assert family.model_type in CANNOT_BE_EXPORTED, error
    else:
        assert family.model_type not in CANNOT_BE_EXPORTED


def test_an_export_that_fails_leaves_nothing_to_the_next(tmp_path, monkeypatch):
    """Paddle would give the next program what it keeps of the failed one, if both get the same ``id()``."""
    from paddle.jit.dy2static import parameter_recorder

    def fail(model: Any, batch: dict[str, Any]) -> Any:
        batch["input_ids"][:, 0] = 1  # noted in a map of its own
        heads.logits(model, batch)
        raise ValueError

    monkeypatch.setattr(parameter_recorder, "_program_hash", lambda program: 0)
    family = next(family for family in FAMILIES if family.model_type == "bert")
    model = models.load_model(str(make_encoder(family, tmp_path / "encoder")), TASKS["TNEWS"], 0.1, 15, training=True)
    with pytest.raises(UserError, match="cannot write down .*, ValueError"):
        write_model(model, tmp_path / "model", dataclasses.replace(HEAD, outputs=fail), 0)
    assert parameter_recorder._global_parameter_recorder.pop(None) == ([], [])  # what the next would get
    assert not parameter_recorder._global_inplace_map.params_dict
    write_model(model, tmp_path / "model", HEAD, 0)


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
    ("electra", "TNEWS"): hf.LAYER_NAMES,
    ("electra", "CMRC2018"): hf.LAYER_NAMES | SPANS,
    ("electra", "C3"): hf.LAYER_NAMES | {"sequence_summary.dense": "sequence_summary.summary"},
    ("roformer", "CMRC2018"): hf.LAYER_NAMES | SPANS,
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
TORCH_NAMES["rembert", "TNEWS"] = {"layer_norm": "LayerNorm"}
TORCH_NAMES["rembert", "CMRC2018"] = TORCH_NAMES["rembert", "TNEWS"] | SPANS
TORCH_NAMES["mbart", "TNEWS"] = {
    "mbart.": "model.",
    "encoder.encoder.layers.": "encoder.layers.",
    "encoder.encoder.norm.": "encoder.layer_norm.",
    "encoder.encoder_layernorm_embedding.": "encoder.layernorm_embedding.",
    "encoder.encoder_embed_positions.": "encoder.embed_positions.",
    "norm1": "self_attn_layer_norm",
    "norm2": "final_layer_norm",
    "linear1": "fc1",
    "linear2": "fc2",
}
TORCH_NAMES["xlnet", "TNEWS"] = {"classifier.dense": "sequence_summary.summary", "classifier.out_proj": "logits_proj"}
TORCH_NAMES["xlnet", "CMRC2018"] = {}
TORCH_NAMES["distilbert", "C3"] = TORCH_NAMES["distilbert", "TNEWS"]
TORCH_NAMES["distilbert", "CMRC2018"] = TORCH_NAMES["distilbert", "TNEWS"] | SPANS


def write_as_pytorch(model: Any, model_type: str, task_name: str, folder: Path, **settings: Any) -> None:
    """Write a model as transformers does; None takes a setting out."""
    weights = hf.as_pytorch(model, TORCH_NAMES[model_type, task_name])
    if model_type == "xlnet":  # a matrix for each head
        for name, array in weights.items():
            if name.split(".")[-1] in ("q", "k", "v", "o", "r"):
                weights[name] = array.reshape(len(array), SIZES["num_attention_heads"], -1)
    folder.mkdir()
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    names = TORCH_SETTINGS.get(model_type, {})
    config = {names.get(name, name): value for name, value in json.loads(model.config.to_json_string()).items()}
    config |= {"model_type": model_type, "id2label": dict(enumerate(TASKS[task_name].labels))} | settings
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


@pytest.mark.parametrize(("model_type", "task_name"), TORCH_NAMES, ids=str)
def test_the_names_and_matrices_of_pytorch_give_the_same(tmp_path, model_type, task_name, caplog):
    import paddle

    family, task = BY_TYPE[model_type], TASKS[task_name]
    num_outputs = len(task.labels) or 4
    make_encoder(family, tmp_path / "encoder")
    model = models.load_model(str(tmp_path / "encoder"), task, 0.1, num_outputs, training=True)
    for layer in model.sublayers():
        if isinstance(layer, paddle.nn.LayerNorm):
            layer._epsilon = 1e-3
    folder = tmp_path / "torch"
    write_as_pytorch(model, model_type, task_name, folder, layer_norm_eps=1e-3)
    again = models.load_model(str(folder), task, 0.1, num_outputs, training=False)
    np.testing.assert_allclose(outputs(again, task_name), outputs(model, task_name), atol=1e-5)
    again.save_pretrained(tmp_path / "saved", safe_serialization=True)
    saved = models.load_model(str(tmp_path / "saved"), task, 0.1, num_outputs, training=False)
    np.testing.assert_array_equal(outputs(saved, task_name), outputs(again, task_name))


@pytest.mark.parametrize(("model_type", "epsilon"), [("megatron-bert", 1e-12), ("mbart", 1e-5)])
def test_layers_are_normalised_as_in_pytorch_where_the_configuration_does_not_say_how(tmp_path, model_type, epsilon):
    import paddle

    model = load_for_training(BY_TYPE[model_type], "TNEWS", tmp_path / "encoder")
    write_as_pytorch(model, model_type, "TNEWS", tmp_path / "torch", layer_norm_eps=None)
    again = models.load_model(str(tmp_path / "torch"), TASKS["TNEWS"], 0.1, 15, training=True)
    assert {x._epsilon for x in again.sublayers() if isinstance(x, paddle.nn.LayerNorm)} == {epsilon}


@pytest.mark.parametrize("fine_tuned", [False, True])
@pytest.mark.parametrize("model_type", ["ernie_gram", "nezha", "ppminilm"])
def test_a_nested_configuration_names_the_architecture(tmp_path, model_type, fine_tuned):
    """As PaddleNLP before 2.5 wrote it, of an encoder alone and of encoder and head."""
    family = BY_TYPE[model_type]
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
    family = BY_TYPE["distilbert"]
    said = {"vocab_size": 46, "dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 64}
    settings = encoder_settings(Config("config.json", said | {"activation": "relu"}), family)
    assert settings["hidden_act"] == "relu"
    assert [settings[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")] == [16, 3, 2]


def test_sizes_are_found_and_checked_by_whatever_name_an_architecture_has_for_them():
    def settings(model_type: str, **said: Any) -> Any:
        family = BY_TYPE[model_type]
        return with_common_names(encoder_settings(Config("config.json", said), family), family)

    xlnet = {"vocab_size": 60, "d_model": 16, "n_layer": 2, "n_head": 4, "d_inner": 32, "mem_len": None}
    for model_type, said in {
        "xlnet": xlnet,
        "glm": {"vocab_size": 60, "hidden_size": 16, "num_layers": 2, "num_attention_heads": 4},
        "mbart": {"vocab_size": 60, "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 4},
    }.items():
        found = settings(model_type, **said)
        names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
        assert [found[name] for name in names] == [60, 16, 2, 4], model_type
        for name, value in said.items():
            if type(value) is int:
                for wrong in (0, "2", True, 1 << 25):
                    with pytest.raises(UserError, match=r"config\.json: \w+ cannot be "):
                        settings(model_type, **said | {name: wrong})
        first = next(iter(said))
        with pytest.raises(UserError, match=r"config\.json: no vocab_size, which the weights alone do not say"):
            settings(model_type, **{name: value for name, value in said.items() if name != first})
    with pytest.raises(UserError, match="num_attention_heads 3 does not divide hidden_size 16"):
        settings("xlnet", **xlnet | {"n_head": 3})


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
def test_the_settings_of_every_published_name_are_taken(family):
    for name, settings in family.base_class.pretrained_init_configuration.items():
        if isinstance(settings, dict):  # no address
            found = with_common_names(encoder_settings(Config(name, settings), family), family)
            num_heads, layers = found.get("num_attention_heads", 1), found["num_hidden_layers"]
            assert found.get("hidden_size", 0) % num_heads == 0 and layers >= 2, name
