"""Encoders of Hugging Face's newer architectures: the logits of the papers' formulas, or one line that says why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hugging_face as hf
import numpy_encoders as reference
from clue_utils import environment, models
from clue_utils.errors import UserError
from clue_utils.models import heads
from clue_utils.tasks import TASKS

environment.import_libraries()

from clue_utils.models.encoders import deberta_v2  # noqa: E402

ROWS = hf.make_rows((11, 4, 7, 9))


def load(folder: Path, task: str = "TNEWS", training: bool = False) -> Any:
    num_outputs = len(TASKS[task].labels) or 4
    model = models.load_model(str(folder), TASKS[task], 0.1, num_outputs, training)
    model.eval()
    return model


def logits_of(model: Any, ids: np.ndarray = ROWS[0], mask: np.ndarray = ROWS[1]) -> np.ndarray:
    """[batch, classes], or [batch, length, 2] of a model for spans."""
    import paddle

    batch = heads.to_tensors({"input_ids": ids, "attention_mask": mask, "token_type_ids": ids * 0})
    with paddle.no_grad():
        output = model(**heads.model_inputs(model, batch))
    arrays = [x.numpy() for x in output] if isinstance(output, tuple) else [output.numpy()]
    return arrays[0] if len(arrays) == 1 else np.stack(arrays, -1)


def assert_equal_at_tokens(ours: np.ndarray, expected: np.ndarray) -> None:
    tokens = ROWS[1].astype(bool)
    np.testing.assert_allclose(ours[tokens], expected[tokens], atol=1e-5)


# --- ModernBERT ---------------------------------------------------------------------------------------------------

# How a checkpoint says the same: as transformers 5 writes it, and before.
NEW_NAMES = {
    "layer_types": ["full_attention", "sliding_attention"],
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 1000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
    },
}
OLD_NAMES = ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")


@pytest.mark.parametrize("names", ["old", "new"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_modernbert_gives_the_logits_of_its_weights(tmp_path, pooling, names):
    has_bias = pooling == "mean"
    flags = dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), has_bias)
    config = reference.modernbert_config(classifier_pooling=pooling, **flags)
    if names == "new":
        config = {name: value for name, value in config.items() if name not in OLD_NAMES} | NEW_NAMES
    weights = reference.modernbert_weights(has_bias)
    model = load(hf.write(tmp_path / "model", weights, config))
    expected = reference.modernbert_logits(weights, *ROWS, pooling)
    np.testing.assert_allclose(logits_of(model), expected, atol=1e-5)
    model.save_pretrained(tmp_path / "saved", safe_serialization=True)
    np.testing.assert_array_equal(logits_of(load(tmp_path / "saved")), logits_of(model))


def test_modernbert_s_other_heads(tmp_path):
    weights = reference.modernbert_weights(num_labels=2)
    spans = hf.write(tmp_path, weights, reference.modernbert_config(architectures=["ModernBertForQuestionAnswering"]))
    assert_equal_at_tokens(logits_of(load(spans, "CMRC2018")), reference.modernbert_logits(weights, *ROWS, "none"))
    with pytest.raises(UserError, match="has no trained head for AFQMC"):
        load(spans, "AFQMC")
    weights = reference.modernbert_weights(num_labels=1)
    hf.write(tmp_path, weights, reference.modernbert_config(architectures=["ModernBertForMultipleChoice"]))
    choices = [array[None] for array in ROWS]
    expected = reference.modernbert_logits(weights, *ROWS, "cls")
    np.testing.assert_allclose(logits_of(load(tmp_path, "C3"), *choices), expected.T, atol=1e-5)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_an_encoder_alone_is_the_same_with_and_without_its_prefix(tmp_path, metadata):
    """Neither names nor the file say that PyTorch wrote it: the shapes do."""
    weights = {name: x for name, x in reference.modernbert_weights().items() if name.startswith("model.")}
    config = reference.modernbert_config(architectures=["ModernBertModel"])
    bare = hf.rename(weights, (r"^model\.", ""))
    first = load(hf.write(tmp_path / "a", weights, config, metadata), training=True)
    second = load(hf.write(tmp_path / "b", bare, config, metadata), training=True)
    for name, parameter in first.modernbert.named_parameters():
        np.testing.assert_array_equal(parameter.numpy(), second.modernbert.state_dict()[name].numpy(), name)
    wi = first.modernbert.layers[0].mlp.Wi.weight
    np.testing.assert_array_equal(wi.numpy(), weights["model.layers.0.mlp.Wi.weight"].T)


def test_the_layer_that_was_pretrained_before_the_classifier_is_kept(tmp_path):
    weights = {name: x for name, x in reference.modernbert_weights().items() if "classifier" not in name}
    config = reference.modernbert_config(architectures=["ModernBertForMaskedLM"])
    model = load(hf.write(tmp_path, weights, config), training=True)
    np.testing.assert_array_equal(model.head.dense.weight.numpy(), weights["head.dense.weight"].T)


# --- DeBERTa-v2 ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["classifier", "qa_outputs"])
@pytest.mark.parametrize("kind", reference.DEBERTA_KINDS)
def test_deberta_gives_the_logits_of_its_weights(tmp_path, kind, head):
    is_span = head == "qa_outputs"
    architecture = f"DebertaV2For{'QuestionAnswering' if is_span else 'SequenceClassification'}"
    config = reference.deberta_config(architectures=[architecture], **reference.DEBERTA_KINDS[kind])
    weights = reference.deberta_weights(config, head, 2 if is_span else reference.NUM_LABELS)
    task = "CMRC2018" if is_span else "TNEWS"
    model = load(hf.write(tmp_path / "model", weights, config), task)
    expected = reference.deberta_logits(weights, config, *ROWS)
    assert_equal_at_tokens(logits_of(model), expected) if is_span else np.testing.assert_allclose(
        logits_of(model), expected, atol=1e-5
    )
    model.save_pretrained(tmp_path / "saved", safe_serialization=True)
    np.testing.assert_array_equal(logits_of(load(tmp_path / "saved", task)), logits_of(model))


def test_far_distances_share_buckets():
    """Of the published sizes: 256 buckets for 511 distances."""
    config = deberta_v2.DebertaV2Config(position_buckets=256, max_position_embeddings=512)
    rows = deberta_v2.bucket_of_distance(config)
    assert rows.tolist() == [min(256 + reference.bucket(d, 256, 512), 511) for d in range(-511, 512)]
    assert rows[511] == 256 and rows[511 + 128] == 384 and len({*rows[511 + 128 :].tolist()}) == 128
    every = deberta_v2.bucket_of_distance(deberta_v2.DebertaV2Config(max_position_embeddings=4))
    assert every.tolist() == [1, 2, 3, 4, 5, 6, 7]


# --- RoBERTa of one language and of many --------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["roberta", "xlm-roberta"])
def test_roberta_gives_the_logits_of_its_weights(tmp_path, model_type):
    """Positions begin after the padding's id; the classifier has two layers and no pooler stands below it."""
    weights = hf.make_weights("roberta.", head="classifier.out_proj", segments=1, positions=514)
    weights |= {f"classifier.dense.{part}": weights[f"roberta.pooler.dense.{part}"] for part in ("weight", "bias")}
    weights = {name: value for name, value in weights.items() if "pooler" not in name}
    config = hf.make_config(
        **{"model_type": model_type, "architectures": None, "pad_token_id": 1, "layer_norm_eps": 1e-5},
        **{"type_vocab_size": 1, "max_position_embeddings": 514, "bos_token_id": 0, "eos_token_id": 2},
    )
    name = "roberta.embeddings.position_embeddings.weight"
    states = hf.bert_hidden_states(weights | {name: weights[name][2:]}, *ROWS, "roberta.", epsilon=1e-5)
    layers = reference.Layers(weights, "", 1e-5)
    expected = layers.linear(np.tanh(layers.linear(states[:, 0], "classifier.dense")), "classifier.out_proj")
    for form, metadata in (("told", {"format": "pt"}), ("not told", None)):
        model = load(hf.write(tmp_path / form, weights, config, metadata))
        np.testing.assert_allclose(logits_of(model), expected, atol=1e-5)
    model.save_pretrained(tmp_path / "saved", safe_serialization=True)
    np.testing.assert_array_equal(logits_of(load(tmp_path / "saved")), logits_of(model))


# --- RoFormer -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["RoFormer", "narrow embeddings", "RoFormerV2"])
def test_roformer_gives_the_logits_of_its_weights(tmp_path, form):
    is_second = form == "RoFormerV2"
    weights = reference.roformer_weights(is_second, 8 if form == "narrow embeddings" else hf.HIDDEN)
    more = {"norm_type": "rms_norm", "use_bias": False} if is_second else {"layer_norm_eps": 1e-12}
    config = reference.sizes(
        **{"model_type": "roformer", "hidden_act": "relu" if is_second else "gelu", "type_vocab_size": 2},
        **{"rotary_value": False, "embedding_size": 8 if form == "narrow embeddings" else hf.HIDDEN},
        **{"architectures": ["RoFormerForSequenceClassification"]},
    )
    table = {"roformer.encoder.embed_positions.weight": np.zeros((512, 4), np.float32)}
    model = load(hf.write(tmp_path / "model", weights | table, config | more))
    np.testing.assert_allclose(logits_of(model), reference.roformer_logits(weights, *ROWS), atol=1e-5)
    model.save_pretrained(tmp_path / "saved", safe_serialization=True)
    np.testing.assert_array_equal(logits_of(load(tmp_path / "saved")), logits_of(model))
    if is_second:
        weights["classifier.bias"] = np.ones(reference.NUM_LABELS, np.float32)
        with pytest.raises(UserError, match=r"its head has classifier\.bias, for which a roformerv2 has no place here"):
            load(hf.write(tmp_path / "model", weights, config | more))


def test_roformer_s_choices_are_refused(tmp_path):
    """Hugging Face's head takes the last place of a row, padding or not: such a score depends on the batch."""
    weights = {name: x for name, x in reference.roformer_weights(False).items() if "classifier" not in name}
    weights |= {"classifier.weight": np.ones((1, hf.HIDDEN), np.float32), "classifier.bias": np.ones(1, np.float32)}
    config = reference.sizes(
        **{"model_type": "roformer", "architectures": ["RoFormerForMultipleChoice"], "embedding_size": hf.HIDDEN}
    )
    with pytest.raises(UserError, match=r"has no trained head for C3 \(roformer.pooler"):
        load(hf.write(tmp_path, weights, config), "C3")


# --- what cannot be -----------------------------------------------------------------------------------------------

DEBERTA = reference.deberta_config(**reference.DEBERTA_KINDS["v3"])
FULL = {"full_attention": {"rope_type": "default", "rope_theta": 1000.0}}


@pytest.mark.parametrize(
    ("config", "name", "value"),
    [
        *[(reference.modernbert_config(), "layer_types", value) for value in (["full_attention"], ["x", "y"], 5, [5])],
        *[(reference.modernbert_config(), "local_attention", value) for value in (0, "6", 1.5, 10**400)],
        *[(reference.modernbert_config(), "global_attn_every_n_layers", value) for value in (0, True, None)],
        *[(reference.modernbert_config(), "classifier_pooling", value) for value in ("max", 5)],
        *[(reference.modernbert_config(), "rope_parameters", value) for value in (5, {"full_attention": 5})],
        (reference.modernbert_config(), "rope_parameters", FULL | {"sliding_attention": {"rope_type": "yarn"}}),
        (reference.modernbert_config(), "rope_parameters", {"full_attention": {"rope_theta": "x"}}),
        *[(reference.modernbert_config(), "norm_eps", value) for value in (0.0, 0.9, "x")],
        (reference.modernbert_config(), "norm_bias", "yes"),
        (reference.modernbert_config(), "hidden_activation", "mish"),
        *[(DEBERTA, "pos_att_type", value) for value in ("p2p", ["c2c"], 5, {"c2p": 1}, "c2p|" * 10**5)],
        *[(DEBERTA, "position_buckets", value) for value in (1, 10**6, "8", 1.5)],
        (DEBERTA, "max_relative_positions", "12"),
        *[(DEBERTA, "norm_rel_ebd", value) for value in ("rms", 5)],
        *[(DEBERTA, "conv_kernel_size", value) for value in (2, -1)],
        *[(DEBERTA, "type_vocab_size", value) for value in (-1, False)],
        (DEBERTA, "layer_norm_eps", 0.0),
        (DEBERTA, "conv_act", "mish"),
    ],
    ids=lambda value: f"{value!s:.20}",
)
def test_a_value_that_cannot_be_is_one_line(tmp_path, config, name, value):
    weights = (
        reference.modernbert_weights() if config["model_type"] == "modernbert" else reference.deberta_weights(DEBERTA)
    )
    with pytest.raises(UserError) as error:
        load(hf.write(tmp_path, weights, config | {name: value}))
    text = str(error.value)
    assert text.startswith(f"{tmp_path}/config.json: ") and "\n" not in text and len(text) < 400
    assert name.removeprefix("norm_").removeprefix("hidden_")[:3] in text


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model.layers.1.attn.Wqkv.weight": np.ones((40, 16), np.float32)}, r"Wqkv.weight has shape \[16, 40\] where"),
        (
            {"model.layers.1.mlp_norm.weight": None},
            r"1 of the encoder's 14 parameters are not in it \(such as modernbert",
        ),
        ({"model.embeddings.tok_embeddings.weight": None}, "1 of the encoder's 14 parameters are not in it"),
    ],
    ids="shape norm words".split(),
)
def test_modernbert_s_weights_that_do_not_fit_are_one_line(tmp_path, changes, line, training):
    weights = {name: x for name, x in (reference.modernbert_weights() | changes).items() if x is not None}
    with pytest.raises(UserError, match=line) as error:
        load(hf.write(tmp_path, weights, reference.modernbert_config()), training=training)
    assert "\n" not in str(error.value)


def test_deberta_s_settings_that_its_weights_contradict(tmp_path):
    weights = reference.deberta_weights(DEBERTA)
    for change, line in (
        ({"position_buckets": 4}, r"rel_embeddings.weight has shape \[16, 16\] where .*config.json makes it \[8, 16\]"),
        ({"share_att_key": False}, r"8 of the encoder's \d+ parameters are not in it"),
        ({"conv_kernel_size": 3}, r"4 of the encoder's \d+ parameters are not in it \(such as deberta.encoder.conv"),
    ):
        (tmp_path / "config.json").unlink(missing_ok=True)
        hf.write(tmp_path, weights, json.loads(json.dumps(DEBERTA | change)))
        with pytest.raises(UserError, match=line):
            load(tmp_path)
