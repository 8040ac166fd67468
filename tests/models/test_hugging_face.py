"""Checkpoints as Hugging Face publishes them: the logits of BERT's formulas, or one line that says why not."""

from __future__ import annotations

import dataclasses
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from test_models import torch, write_stream, write_zip  # noqa: F401, a fixture

import hugging_face as hf
import run_clue_classifier
from clue_utils import device, models
from clue_utils.errors import UserError
from clue_utils.models import heads
from clue_utils.tasks import TASKS


def load(folder: Path, task: str = "TNEWS", training: bool = False) -> Any:
    num_outputs = len(TASKS[task].labels) or 4
    model = models.load_model(str(folder), TASKS[task], 0.1, num_outputs, training)
    model.eval()
    return model


def logits_of(model: Any, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    import paddle

    batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids * 0}
    with paddle.no_grad():
        logits: np.ndarray = heads.logits(model, {k: paddle.to_tensor(v) for k, v in batch.items()}).numpy()
    return logits


def write_shards(folder: Path, weights: hf.Weights, write: Any, end: str) -> None:
    names = sorted(weights)
    parts = {f"{end.split('.')[0]}-{i + 1:05}-of-00002.{end.split('.')[1]}": names[i::2] for i in range(2)}
    folder.mkdir()
    for file, part in parts.items():
        write(folder / file, {name: weights[name] for name in part})
    index = {"metadata": {"total_size": 1}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / f"{end}.index.json").write_text(json.dumps(index))
    hf.write_settings(folder)


def to_bfloat16(weights: hf.Weights) -> tuple[hf.Weights, bytes]:
    """Weights as bfloat16 holds them, and the bytes of a file of safetensors with them."""
    header, data = {}, b""
    rounded = {}
    for name, value in weights.items():
        bits = (value.view(np.uint32) >> 16).astype(np.uint16)
        header[name] = {"dtype": "BF16", "shape": value.shape, "data_offsets": [len(data), len(data) + bits.nbytes]}
        data += bits.tobytes()
        rounded[name] = (bits.astype(np.uint32) << 16).view(np.float32)
    text = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
    return rounded, struct.pack("<Q", len(text)) + text + data


PLAIN = hf.make_weights()
# What a folder is made of -> weights, config.json, metadata of the file.
FOLDERS: dict[str, tuple[hf.Weights, dict[str, Any], Any]] = {
    "as transformers saves it": (PLAIN, hf.make_config(), {"format": "pt"}),
    "no metadata": (PLAIN, hf.make_config(), None),
    "metadata of another framework": (PLAIN, hf.make_config(), {"format": "np"}),
    "of DataParallel": (hf.rename(PLAIN, ("^", "module.")), hf.make_config(), {"format": "pt"}),
    "of torch.compile in DataParallel": (hf.rename(PLAIN, ("^", "module._orig_mod.")), hf.make_config(), None),
    "no prefix, as BertModel is saved": (
        hf.rename(PLAIN, ("^bert\\.", "")),
        hf.make_config(architectures=["BertModel"], id2label={"0": "LABEL_0"}, bos_token_id=0),
        {"format": "pt"},
    ),
    "says RoBERTa": (
        PLAIN,
        hf.make_config(model_type="roberta", architectures=["RobertaForMaskedLM"]),
        {"format": "pt"},
    ),
    "no architectures": (PLAIN, hf.make_config(architectures=None), {"format": "pt"}),
    "no model_type": (PLAIN, hf.make_config(model_type=None), {"format": "pt"}),
    "neither": (PLAIN, hf.make_config(model_type=None, architectures=None), {"format": "pt"}),
    "torch_dtype half": (PLAIN, hf.make_config(torch_dtype="float16"), {"format": "pt"}),
    "dtype bfloat16": (PLAIN, hf.make_config(dtype="bfloat16"), {"format": "pt"}),
    "return_dict": (PLAIN, hf.make_config(return_dict=True, output_hidden_states=True), {"format": "pt"}),
    "tokens without a task": (
        PLAIN | {"cls.predictions.bias": np.zeros(3, np.float32)},
        hf.make_config(problem_type="single_label_classification"),
        {"format": "pt"},
    ),
}


@pytest.mark.parametrize("form", FOLDERS)
def test_a_folder_gives_the_logits_of_its_weights(tmp_path, form):
    weights, config, metadata = FOLDERS[form]
    folder = hf.write(tmp_path / "model", weights, config, metadata)
    before = sorted(path.name for path in folder.iterdir())
    ids, mask = hf.make_rows()
    np.testing.assert_allclose(logits_of(load(folder), ids, mask), hf.bert_logits(PLAIN, ids, mask), atol=1e-5)
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize("form", ["pickle", "old pickle", "shards", "shards of pickles", "half", "bfloat16"])
def test_a_form_of_weights_gives_the_same_logits(torch, tmp_path, form):  # noqa: F811
    folder, weights = tmp_path / "model", PLAIN
    if form == "shards":
        write_shards(
            folder, PLAIN, lambda file, part: save_file(part, str(file), metadata={"format": "pt"}), "model.safetensors"
        )
    elif form == "shards of pickles":
        write_shards(folder, PLAIN, write_zip, "pytorch_model.bin")
    else:
        hf.write_settings(folder)
        if form == "pickle":
            write_zip(folder / "pytorch_model.bin", PLAIN)
        elif form == "old pickle":
            write_stream(folder / "pytorch_model.bin", PLAIN)
        elif form == "half":
            halves = {name: value.astype(np.float16) for name, value in PLAIN.items()}
            save_file(halves, str(folder / "model.safetensors"), metadata={"format": "pt"})
            weights = {name: value.astype(np.float32) for name, value in halves.items()}
        else:
            weights, content = to_bfloat16(PLAIN)
            (folder / "model.safetensors").write_bytes(content)
    device.set_device("cpu")  # with its settings of Paddle, under which not every kernel is there
    ids, mask = hf.make_rows()
    np.testing.assert_allclose(logits_of(load(folder), ids, mask), hf.bert_logits(weights, ids, mask), atol=1e-5)


@pytest.mark.parametrize("name", hf.PUBLISHED)
def test_a_published_layout_gives_the_logits_of_its_weights(torch, tmp_path, monkeypatch, name):  # noqa: F811
    model = hf.PUBLISHED[name]
    folder = hf.write(tmp_path / "model", model.stored, model.config)
    (folder / "tokenizer_config.json").unlink()
    for file, content in model.files.items():
        (folder / f"{file}.json").write_text(json.dumps(content))
    if model.is_pickle:
        (folder / "model.safetensors").unlink()
        write_stream(folder / "pytorch_model.bin", model.stored)
    tokenizer = models.load_tokenizer(str(folder))
    assert tokenizer.tokenize("A á[MASK]") == [*("aa" if model.lower_case else "Aá"), "[MASK]"]
    ids, mask = hf.make_rows()
    expected = hf.bert_logits(model.weights, ids, mask, **model.how)
    task = "TNEWS"
    if len(model.config.get("id2label", {})) == 7:
        with pytest.raises(UserError, match=r"no trained head for TNEWS \(classifier.weight"):
            load(folder)
        monkeypatch.setitem(TASKS, task, dataclasses.replace(TASKS[task], labels=tuple(hf.NEWS), label_names=()))
    elif "id2label" in model.config:
        task, expected = "CMNLI", expected[:, [0, 2, 1]]  # contradiction, entailment, neutral
    loaded = load(folder, task)
    models.check_fit(loaded, tokenizer, 512)
    np.testing.assert_allclose(logits_of(loaded, ids, mask), expected, atol=1e-5)


def test_the_tanh_form_of_gelu(tmp_path):
    model = load(hf.write(tmp_path / "first", PLAIN, hf.make_config(hidden_act="gelu_new")))
    ids, mask = hf.make_rows()
    expected = hf.bert_logits(PLAIN, ids, mask, act="gelu_new")
    np.testing.assert_allclose(logits_of(model, ids, mask), expected, atol=1e-5)
    assert np.abs(expected - hf.bert_logits(PLAIN, ids, mask)).max() > 1e-4


@pytest.mark.parametrize("config_file", ["bert_config.json", "model_config.json"])
def test_names_that_the_configuration_has_had(tmp_path, config_file):
    config = hf.make_config(model_type=None, architectures=None, layer_norm_eps=None, pad_token_id=None)
    if config_file == "model_config.json":  # nested, as PaddleNLP before 2.5 wrote it
        config = {"init_args": [config | {"init_class": "BertModel"}], "init_class": "BertForSequenceClassification"}
        config["num_classes"] = 15
    hf.write(tmp_path, PLAIN, config, config_file=config_file)
    ids, mask = hf.make_rows()
    np.testing.assert_allclose(logits_of(load(tmp_path), ids, mask), hf.bert_logits(PLAIN, ids, mask), atol=1e-5)


def test_what_is_saved_is_what_was_loaded(tmp_path):
    """Also the epsilon of layer normalisations, which small embeddings feel, and the activation."""
    weights = PLAIN | {"bert.embeddings.word_embeddings.weight": PLAIN["bert.embeddings.word_embeddings.weight"] / 1e3}
    weights["bert.embeddings.position_embeddings.weight"] = PLAIN["bert.embeddings.position_embeddings.weight"] / 1e3
    weights["bert.embeddings.token_type_embeddings.weight"] = np.zeros((2, hf.HIDDEN), np.float32)
    folder = hf.write(tmp_path / "theirs", weights, hf.make_config(hidden_act="gelu_new"))
    ids, mask = hf.make_rows()
    expected = hf.bert_logits(weights, ids, mask, act="gelu_new")
    model = load(folder)
    np.testing.assert_allclose(logits_of(model, ids, mask), expected, atol=1e-4)
    models.save_model(model, models.load_tokenizer(str(folder)), tmp_path / "ours")
    np.testing.assert_array_equal(logits_of(load(tmp_path / "ours"), ids, mask), logits_of(model, ids, mask))


def test_a_saved_checkpoint_names_its_classes(tmp_path):
    folder = hf.write(tmp_path / "theirs", PLAIN)
    models.save_model(load(folder), models.load_tokenizer(str(folder)), tmp_path / "ours")
    config = json.loads((tmp_path / "ours/config.json").read_text())
    assert config["id2label"]["4"] == "news_finance" and config["label2id"]["news_game"] == 14
    assert config["finetuning_task"] == "TNEWS"
    load(tmp_path / "ours")  # which knows these names, and the official labels too


def test_classes_may_be_named_in_any_order(tmp_path):
    """By the names that people call them, as by the official labels."""
    ids, mask = hf.make_rows()
    expected = logits_of(load(hf.write(tmp_path / "plain", PLAIN)), ids, mask)
    for number, known in enumerate((TASKS["TNEWS"].labels, TASKS["TNEWS"].names)):
        folder = hf.write(tmp_path / str(number), PLAIN, hf.make_config(id2label=dict(enumerate(reversed(known)))))
        np.testing.assert_allclose(logits_of(load(folder), ids, mask), expected[:, ::-1], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "other"),
    [("gelu_pytorch_tanh", "gelu_new"), ("gelu_fast", "gelu_new"), ("swish", "silu"), ("relu", None), ("tanh", None)],
)
def test_an_activation_is_the_one_that_is_named(tmp_path, name, other):
    ids, mask = hf.make_rows()

    def found(activation: str) -> np.ndarray:
        folder = hf.write(tmp_path / activation, PLAIN, hf.make_config(hidden_act=activation))
        return logits_of(load(folder), ids, mask)

    assert np.abs(found(name) - found("gelu")).max() > 1e-5
    if other:
        np.testing.assert_array_equal(found(name), found(other))


@pytest.mark.parametrize(
    ("index", "part", "line"),
    [
        ("model.safetensors", "model-1.safetensors", None),
        ("model.safetensors", "model-1.pdparams", r".*\.safetensors files of this folder"),
        ("model.safetensors", "../model-1.safetensors", r".*\.safetensors files of this folder"),
        ("model_state.pdparams", "model-1.pdparams", "it names files that are no safetensors"),
    ],
)
def test_parts_that_a_library_would_unpickle_are_refused(tmp_path, index, part, line):
    (tmp_path / f"{index}.index.json").write_text(json.dumps({"weight_map": {"a": part}}))
    if line is None:
        models.require_safe_shards(tmp_path)
    else:
        with pytest.raises(UserError, match=rf"{index}.index.json: refused, {line}"):
            models.require_safe_shards(tmp_path)


# --- what Paddle wrote -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "pad"), [("Bert", 0), ("Ernie", 0), ("ErnieGram", 0), ("Roberta", 1)])
def test_paddle_s_checkpoints_compute_what_paddlenlp_does(tmp_path, name, pad):
    """Also by the epsilon of its layer normalisations, felt where embeddings are small: ERNIE-Gram has its own."""
    import paddle
    from paddlenlp import transformers

    settings = hf.make_config(embedding_size=hf.HIDDEN, model_type=None, architectures=None, pad_token_id=pad)
    config = getattr(transformers, f"{name}Config")(**settings, num_labels=15)
    theirs = getattr(transformers, f"{name}ForSequenceClassification")(config)
    paddle.seed(4)
    for parameter_name, parameter in theirs.named_parameters():
        scale = 1e-3 if "_embeddings." in parameter_name else 0.5
        parameter.set_value(paddle.randn(parameter.shape) * scale)
    theirs.eval()
    theirs.save_pretrained(tmp_path, safe_serialization=True)
    ids, mask = hf.make_rows()
    np.testing.assert_allclose(logits_of(load(tmp_path), ids, mask), logits_of(theirs, ids, mask), atol=1e-6)


def test_a_checkpoint_is_saved_with_its_weights_last_and_readable_as_other_files_are(tmp_path, monkeypatch):
    """They are what says that a checkpoint is there."""
    folder, moved = hf.write(tmp_path / "theirs", PLAIN), []

    def replace(source: str, target: Path) -> None:
        moved.append(target.name)
        os.rename(source, target)

    model, tokenizer = load(folder), models.load_tokenizer(str(folder))
    monkeypatch.setattr(os, "replace", replace)
    models.save_model(model, tokenizer, tmp_path / "ours")
    assert moved[-1] == "model.safetensors" and set(moved) == set(os.listdir(tmp_path / "ours"))
    (tmp_path / "new").touch()
    modes = {path.stat().st_mode for path in (tmp_path / "ours").iterdir()}
    assert modes == {(tmp_path / "new").stat().st_mode}


# --- Chinese RoBERTa -------------------------------------------------------------------------------------------------


def chinese_roberta(folder: Path, form: str) -> Path:
    """One encoder as it is published: BERT in PyTorch, RoBERTa in PaddleNLP."""
    if form == "PyTorch":
        return hf.write(folder, PLAIN, hf.make_config(model_type="roberta"))
    import paddle
    from paddlenlp.transformers import RobertaConfig, RobertaModel

    config = {key: value for key, value in hf.make_config().items() if key not in ("model_type", "architectures")}
    config["layer_norm_eps"] = 1e-12
    model = RobertaModel(RobertaConfig(**config))
    theirs = load(hf.write(folder / "theirs", PLAIN)).state_dict()
    for name, parameter in model.named_parameters():
        parameter.set_value(theirs[f"bert.{name}"])
    paddle.seed(0)
    model.save_pretrained(folder / "ours", safe_serialization=True)
    (folder / "ours/vocab.txt").write_text("\n".join(hf.VOCABULARY) + "\n", encoding="utf-8")
    return folder / "ours"


@pytest.mark.parametrize("form", ["PyTorch", "PaddleNLP"])
def test_positions_of_chinese_roberta_begin_at_0(tmp_path, form):
    import paddle

    model = load(chinese_roberta(tmp_path, form), training=True)
    ids, mask = hf.make_rows((512, 1, 17, 511))
    with paddle.no_grad():
        inputs = {"input_ids": paddle.to_tensor(ids), "attention_mask": paddle.to_tensor(mask)}
        hidden = model.bert(**inputs)[0].numpy()
    np.testing.assert_allclose(hidden[mask == 1], hf.bert_hidden_states(PLAIN, ids, mask)[mask == 1], atol=1e-5)
    models.check_fit(model, models.load_tokenizer(str(tmp_path if form == "PyTorch" else tmp_path / "ours")), 512)


@pytest.mark.parametrize("pad_token_id", [1, None])
def test_positions_of_english_roberta_begin_behind_the_padding(tmp_path, pad_token_id):
    architectures = ["RobertaForQuestionAnswering"]
    config = hf.make_config(
        model_type="roberta", architectures=architectures, pad_token_id=pad_token_id, type_vocab_size=1
    )
    weights = hf.make_weights("roberta.", num_labels=2, head="qa_outputs")
    weights["roberta.embeddings.token_type_embeddings.weight"] = weights[
        "roberta.embeddings.token_type_embeddings.weight"
    ][:1]
    folder = hf.write(tmp_path, weights, config)
    model = load(folder, "CMRC2018")
    with pytest.raises(UserError, match="--max_seq_length 511: the model has 510 positions"):
        models.check_fit(model, models.load_tokenizer(str(folder)), 511)
    models.check_fit(model, models.load_tokenizer(str(folder)), 510)
    import paddle

    ids, mask = hf.make_rows((6,))
    with paddle.no_grad():
        start, end = heads.span_logits(
            model, {"input_ids": paddle.to_tensor(ids), "attention_mask": paddle.ones([1, 6])}
        )
    shifted = dict(weights)
    shifted["roberta.embeddings.position_embeddings.weight"] = np.roll(
        weights["roberta.embeddings.position_embeddings.weight"], -2, axis=0
    )
    hidden = hf.bert_hidden_states(shifted, ids, mask, "roberta.")
    expected = hidden @ weights["qa_outputs.weight"].T + weights["qa_outputs.bias"]
    np.testing.assert_allclose(np.stack([start.numpy(), end.numpy()], -1), expected, atol=1e-5)


def test_a_head_that_was_trained_with_shifted_positions_is_refused(tmp_path):
    from paddlenlp.transformers import RobertaConfig, RobertaForMultipleChoice

    keys = set(hf.make_config()) - {"model_type", "architectures"}
    config = RobertaConfig(**{key: hf.make_config()[key] for key in keys}, num_choices=4)
    RobertaForMultipleChoice(config).save_pretrained(tmp_path, safe_serialization=True)
    with pytest.raises(UserError, match="fine-tuned with positions that begin at 1"):
        load(tmp_path, "C3")
    load(tmp_path, "C3", training=True)


@pytest.mark.parametrize("positions", [1, 2, 8])
def test_a_model_of_few_positions(tmp_path, positions):
    name = "bert.embeddings.position_embeddings.weight"
    weights = PLAIN | {name: PLAIN[name][:positions]}
    folder = hf.write(tmp_path, weights, hf.make_config(max_position_embeddings=positions))
    ids, mask = hf.make_rows((positions, 1))
    model = load(folder)
    np.testing.assert_allclose(logits_of(model, ids, mask), hf.bert_logits(weights, ids, mask), atol=1e-5)
    with pytest.raises(UserError, match=f"the model has {positions} positions"):
        models.check_fit(model, models.load_tokenizer(str(folder)), positions + 1)


# --- the classes of a checkpoint -------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("names", "ids", "order"),  # of contradiction, entailment and neutral
    [
        (["entailment", "neutral", "contradiction"], None, [2, 0, 1]),
        (None, {"neutral": 1, "contradiction": 2, "entailment": 0}, [2, 0, 1]),
        ({}, {"neutral": 1, "contradiction": 2, "entailment": 0}, [2, 0, 1]),
        ({"2": " Contradiction", "1": "NEUTRAL", "0": "Entailment "}, None, [2, 0, 1]),
        ({"0": "contradiction", "1": "entailment", "2": "NEUTRAL"}, None, [0, 1, 2]),
        ({"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}, None, [0, 1, 2]),
        ({"0": "label_0", "1": "label_1", "2": "label_2"}, None, [0, 1, 2]),
        ({"0": "0", "1": "1", "2": "2"}, None, [0, 1, 2]),
        ({"0": 0, "1": 1, "2": 2}, None, [0, 1, 2]),
    ],
)
def test_a_head_s_classes_are_put_in_the_task_s_order(tmp_path, names, ids, order, training):
    """Also where it is trained on; names that say nothing are in that order already."""
    weights = hf.make_weights(num_labels=3)
    folder = hf.write(tmp_path, weights, hf.make_config(id2label=names, label2id=ids))
    rows, mask = hf.make_rows()
    expected = hf.bert_logits(weights, rows, mask)[:, order]
    np.testing.assert_allclose(logits_of(load(folder, "CMNLI", training), rows, mask), expected, atol=1e-5)


@pytest.mark.parametrize(
    "names", [5, "x", {"1": "a", "2": "b", "3": "c"}, {"0": "a", "1": None}, {"0": True}, {"x": "y" * 10**6}, [["a"]]]
)
def test_names_of_classes_that_are_none(tmp_path, names):
    folder = hf.write(tmp_path, hf.make_weights(num_labels=3), hf.make_config(id2label=names))
    with pytest.raises(UserError, match=r"config\.json: id2label cannot be") as error:
        load(folder, "CMNLI")
    assert len(str(error.value)) < 400


def test_classes_of_another_task_are_refused_and_not_trained_on(tmp_path, caplog):
    weights = hf.make_weights(num_labels=2)
    folder = hf.write(tmp_path, weights, hf.make_config(id2label=["negative", "positive"]))
    with pytest.raises(UserError, match=r"its classes are \['negative', 'positive'\], those of AFQMC \('0', '1'\)"):
        load(folder, "AFQMC")
    head = load(folder, "AFQMC", training=True).classifier.weight.numpy()
    assert np.abs(head - weights["classifier.weight"].T).max() > 0.01
    assert "the head is drawn at random" in caplog.text


# --- sizes and classes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["PyTorch", "Paddle"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("hidden_size", 8), ("intermediate_size", 31), ("vocab_size", len(hf.VOCABULARY) - 1)],
        *[("type_vocab_size", 3), ("max_position_embeddings", 511)],
    ],
)
def test_a_size_that_is_not_the_tensor_s_names_both(tmp_path, name, value, form):
    folder = hf.write(tmp_path / "model", PLAIN)
    if form == "Paddle":
        load(folder).save_pretrained(tmp_path / "model", safe_serialization=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {name: value}))
    with pytest.raises(UserError, match=rf"config.json: {name} is {value}, but bert\..* has {config[name]}$"):
        load(folder, training=True)


def test_the_first_layers_of_more_can_be_used(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(hf, "LAYERS", 1)
    ids, mask = hf.make_rows()
    folder = hf.write(tmp_path, PLAIN, hf.make_config(num_hidden_layers=1))
    with caplog.at_level("INFO"):
        model = load(folder, training=True)
    np.testing.assert_allclose(logits_of(model, ids, mask), hf.bert_logits(PLAIN, ids, mask), atol=1e-5)
    assert "of 2 layers the first 1 are used" in caplog.text and "at random" not in caplog.text
    folder = hf.write(tmp_path, PLAIN, hf.make_config(num_hidden_layers=3))
    with pytest.raises(UserError, match="num_hidden_layers is 3, but the weights have 2 layers"):
        load(folder)


def test_a_vocabulary_larger_than_the_embedding_is_refused(tmp_path):
    folder, words = hf.write(tmp_path, PLAIN), len(hf.VOCABULARY)
    model = load(folder)
    models.check_fit(model, models.load_tokenizer(str(folder)), 16)
    with open(folder / "vocab.txt", "a", encoding="utf-8") as file:
        file.write("龘\n")
    with pytest.raises(UserError, match=f"the tokenizer knows {words + 1} tokens but the model embeds {words}"):
        models.check_fit(model, models.load_tokenizer(str(folder)), 16)


def test_a_head_of_another_number_of_classes_is_drawn_anew_or_refused(tmp_path):
    folder = hf.write(tmp_path, PLAIN)
    assert load(folder, "CMNLI", training=True).classifier.weight.shape == [hf.HIDDEN, 3]
    with pytest.raises(UserError, match=r"no trained head for CMNLI \(classifier.weight, classifier.bias missing"):
        load(folder, "CMNLI")


# --- refusals --------------------------------------------------------------------------------------------------------


def without(weights: hf.Weights, part: str) -> hf.Weights:
    return {name: value for name, value in weights.items() if part not in name}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("weights", "line"),
    [
        (without(PLAIN, "encoder.layer.1.output.LayerNorm"), r"2 of the encoder's 39 parameters are not in it"),
        (without(PLAIN, "embeddings.word"), "1 of the encoder's 39 parameters"),
        (hf.rename(PLAIN, ("bert.", "mybert.")), "39 parameters are not in it"),
        (hf.rename(PLAIN, ("attention.self.query", "attention.self.q")), "4 of the encoder's"),
        (
            PLAIN | {"bert.encoder.layer.0.intermediate.dense.weight": np.zeros((32, 8), np.float32)},
            r"intermediate.dense.weight has shape \[8, 32\] where .*config.json makes it \[16, 32\]",
        ),
        (
            PLAIN | {"bert.pooler.dense.weight": np.zeros((16, 16), np.int8)},
            "pooler.dense.weight is of i8: weights that are quantised",
        ),
        ({"x": np.zeros(600, np.float32)}, "the weights have no layers"),
        (
            PLAIN | {"bert.encoder.layers.0.norm1.bias": np.zeros(16, np.float32)},
            "layer.0.attention.output.LayerNorm.bias and .*norm1.bias are the same parameter",
        ),
        (hf.rename(PLAIN, ("bert.", "electra.")), "config.json: of bert, but the weights are electra's"),
        (hf.rename(PLAIN, ("bert.", "roberta.")), "config.json: of bert, but the weights are roberta's"),
        (
            PLAIN | {"bert.pooler.dense.weight": np.full((16, 16), np.inf, np.float32)},
            "model.safetensors: bert.pooler.dense.weight holds NaN or infinity",
        ),
        ({name: value.astype(np.float64) * 1e300 for name, value in PLAIN.items()}, "holds NaN or infinity"),
        ({name: value * np.float32(1e30) for name, value in PLAIN.items()}, "its scores are no finite numbers"),
    ],
    ids="norm words prefix query shape int8 other twice electra roberta inf double huge".split(),
)
def test_an_encoder_that_did_not_come_from_the_file_is_refused(tmp_path, weights, line, training):
    folder = hf.write(tmp_path, weights)
    with pytest.raises(UserError, match=line) as error:
        load(folder, training=training)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("architecture", ["BertForQuestionAnswering", "BertForTokenClassification", None])
@pytest.mark.parametrize(("task", "head"), [("AFQMC", "qa_outputs"), ("CMRC2018", "classifier")])
def test_a_head_of_another_kind_is_refused_and_not_trained_on(tmp_path, task, head, architecture):
    """Whose shape is alike: beginning and end of a span, and two classes."""
    if architecture == "BertForQuestionAnswering" and task == "CMRC2018":
        architecture = "BertForSequenceClassification"
    weights = hf.make_weights(num_labels=2, head=head)
    folder = hf.write(tmp_path, weights, hf.make_config(architectures=architecture and [architecture]))
    with pytest.raises(UserError, match=rf"has no trained head for {task} \(classifier.weight, .* missing"):
        load(folder, task)
    drawn = load(folder, task, training=True).classifier.weight.numpy()
    assert np.abs(drawn - weights[f"{head}.weight"].T).max() > 0.01


def test_a_pooler_may_be_new_in_training_alone(tmp_path, caplog):
    folder = hf.write(tmp_path, without(PLAIN, "pooler"))
    with caplog.at_level("INFO"):
        load(folder, training=True)
    assert "37 of the encoder's 39 parameters" in caplog.text and "drawn at random: bert.pooler" in caplog.text
    with pytest.raises(UserError, match=r"has no trained head for TNEWS \(bert.pooler.dense.weight"):
        load(folder)
    weights = without(hf.make_weights(num_labels=2, head="qa_outputs"), "pooler")
    spans = hf.write(tmp_path / "spans", weights, hf.make_config(architectures=["BertForQuestionAnswering"]))
    load(spans, "CMRC2018")  # which does not use it


@pytest.mark.parametrize("model_type", ["roc_bert", "t5", "llama"])
def test_an_architecture_is_refused_before_its_tokenizer_is_read(demo, tmp_path, model_type):
    """Which may be one that the scripts have, or say something that leads astray."""
    folder = hf.write(tmp_path / "model", PLAIN, hf.make_config(model_type=model_type))
    (folder / "vocab.txt").unlink()
    flags = f"--task_name TNEWS --model_name_or_path {folder} --data_dir {demo}/data --output_dir {tmp_path}/out"
    with pytest.raises(UserError, match=rf"config.json: model_type '{model_type}' is not supported; supported are"):
        run_clue_classifier.main([*flags.split(), "--device", "cpu", "--do_train"])


def test_an_architecture_that_pytorch_s_form_is_not_read_of_is_refused_as_such(tmp_path):
    config = hf.make_config(model_type="tinybert", architectures=["TinyBertModel"])
    with pytest.raises(UserError, match=r"safetensors: tinybert cannot be read in PyTorch's form; take PaddleNLP's"):
        load(hf.write(tmp_path, hf.make_weights("tinybert."), config), training=True)


@pytest.mark.parametrize(
    ("files", "line"),
    [
        (["tf_model.h5"], "tf_model.h5: TensorFlow's weights cannot be read; take the PyTorch or Paddle form"),
        (["bert_model.ckpt.index", "bert_model.ckpt.meta"], "bert_model.ckpt.index: TensorFlow's"),
        (["flax_model.msgpack"], "Flax's weights cannot be read"),
        (["model.onnx"], "ONNX's weights cannot be read"),
        (["model.gguf"], "GGUF's weights cannot be read"),
        ([], "no weights in this folder"),
    ],
)
def test_other_frameworks_weights_are_named(tmp_path, files, line):
    hf.write_settings(tmp_path)
    for name in files:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=line):
        load(tmp_path, training=True)


NAN, HUGE = float("nan"), 2**63
SIZES = "hidden_size num_hidden_layers num_attention_heads intermediate_size vocab_size type_vocab_size".split()
BAD_VALUES: list[tuple[str, Any]] = [
    *[(name, value) for name in (*SIZES, "max_position_embeddings") for value in (0, -1, NAN, True, "16", 1.5, HUGE)],
    *[("hidden_size", 1), ("hidden_size", 130), ("num_attention_heads", 3), ("num_attention_heads", 10**9)],
    *[("num_hidden_layers", 10**9), ("num_hidden_layers", 3), ("vocab_size", 21128), ("max_position_embeddings", 1024)],
    *[(name, 10**400) for name in ("vocab_size", "initializer_range", "hidden_dropout_prob", "pad_token_id")],
    *[("pool_act", value) for value in ("relu", 5)],
    *[("hidden_act", value) for value in ("class", "embedding", "cross_entropy", 5, "")],
    *[("fuse", value) for value in (1.5, "no")],
    *[("initializer_range", value) for value in ("x", -1, NAN)],
    *[("pad_token_id", value) for value in (True, -1, 10**6, "0")],
    *[("hidden_dropout_prob", value) for value in (NAN, 2, "x")],
    *[("model_type", value) for value in ("t5", "bloom", 5, ["bert"])],
    ("quantization_config", {"bits": 4}),
    ("position_embedding_type", "relative_key"),
    ("is_decoder", True),
    ("pruned_heads", {"0": [1]}),
    ("layer_norm_eps", 0.0),
    ("layer_norm_eps", 0.9),
    ("layer_norm_eps", "1e-12"),
]


@pytest.mark.parametrize(("name", "value"), BAD_VALUES, ids=lambda value: f"{value!s:.20}")
def test_a_value_that_cannot_be_is_one_line(tmp_path, name, value):
    hf.write(tmp_path, PLAIN, hf.make_config(**{name: value}))
    with pytest.raises(UserError) as error:
        load(tmp_path, training=True)
    text = str(error.value)
    assert text.startswith(f"{tmp_path}/config.json: ") and "\n" not in text and len(text) < 800
    assert name in text or name.endswith(("_act", "heads"))


@pytest.mark.parametrize(
    "content",
    ["", "[]", "5", "null", "{", "{}", '{"hidden_size": 16', '"x"', "\x00"]
    + ['{"a":' + "9" * 5000 + "}", "[" * 100_000, "é" * 2**20, " " * (65 << 20)],
)
def test_a_configuration_that_is_none_is_one_line(tmp_path, content):
    hf.write(tmp_path, PLAIN)
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.json: ") as error:
        load(tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_files_of_too_many_tensors_are_refused_by_their_size(tmp_path):
    hf.write_settings(tmp_path)
    for count, line in ((30_000, "more than 20,000 tensors"), (300_000, "its list of tensors takes")):
        entry = '"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
        text = "{" + ",".join(entry % i for i in range(count)) + "}"
        (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text.encode())
        with pytest.raises(UserError, match=line):
            load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"x" * 5, struct.pack("<Q", 2**62) + b"{}", struct.pack("<Q", 2) + b"{}"])
def test_a_damaged_file_of_weights_is_one_line(tmp_path, content):
    hf.write_settings(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors: ") as error:
        load(tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_a_part_that_is_missing_is_named(tmp_path):
    folder = tmp_path / "model"
    write_shards(folder, PLAIN, lambda file, part: save_file(part, str(file)), "model.safetensors")
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-00002-of-00002.safetensors: is missing"):
        load(folder)


@pytest.mark.parametrize(
    "content",
    [5, {}, {"weight_map": {}}, {"weight_map": []}]
    + [{"weight_map": {"a": name}} for name in (5, None, [1], "", "../x.safetensors", "x.bin", "a\nb.safetensors")]
    + [{"weight_map": {"a": "a" * 5000 + ".safetensors"}}],
    ids=lambda content: f"{content!s:.30}",
)
def test_an_index_that_is_none_is_one_line(tmp_path, content):
    hf.write_settings(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"safetensors(\.index\.json)?: ") as error:
        load(tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
