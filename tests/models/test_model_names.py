"""Models by name: downloaded from a server once, and told apart from folders of the same name."""

from __future__ import annotations

import functools
import http.server
import importlib
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from clue_utils import model_names, models, published
from clue_utils.errors import UserError
from clue_utils.models import source
from clue_utils.tasks import TASKS

KNOWN, COMMUNITY = "ernie-3.0-nano-zh", "somebody/tiny-ernie"


@pytest.fixture
def hub(demo, tmp_path, monkeypatch) -> Any:
    """A server on loopback with two models, in place of PaddleNLP's; the addresses that it was asked for."""
    from paddlenlp.transformers import ErnieModel, ErnieTokenizer

    bos_download = importlib.import_module("paddlenlp.utils.download.bos_download")

    root, asked = tmp_path / "hub", []
    model = ErnieModel.from_pretrained(str(demo / "model"))
    model.save_pretrained(root / COMMUNITY, safe_serialization=False)
    shutil.copy(demo / "model/vocab.txt", root / COMMUNITY)
    shutil.copy(demo / "model/tokenizer_config.json", root / COMMUNITY)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def send_head(self) -> Any:
            asked.append((self.command, self.path))
            return super().send_head()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(bos_download, "MODEL_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(bos_download, "BOS_URL_TEMPLATE_WITHOUT_REVISION", address + "/{repo_id}/{filename}")
    config = model.config
    sizes = {name: getattr(config, name) for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    sizes |= {name: getattr(config, name) for name in ("intermediate_size", "vocab_size", "type_vocab_size")}
    sizes |= {"max_position_embeddings": config.max_position_embeddings, "pad_token_id": 0}
    files = f"{address}/{COMMUNITY}"
    monkeypatch.setitem(ErnieModel.pretrained_init_configuration, KNOWN, sizes)
    monkeypatch.setitem(ErnieModel.pretrained_resource_files_map["model_state"], KNOWN, f"{files}/model_state.pdparams")
    monkeypatch.setitem(ErnieTokenizer.pretrained_resource_files_map["vocab_file"], KNOWN, f"{files}/vocab.txt")
    yield asked
    server.shutdown()
    thread.join()


def word_embeddings(name: str) -> np.ndarray:
    model = models.load_model(name, TASKS["TNEWS"], 0.1, 15, training=True)
    weights: np.ndarray = model.ernie.embeddings.word_embeddings.weight.numpy()
    return weights


@pytest.mark.parametrize("name", [KNOWN, COMMUNITY])
def test_a_model_is_downloaded_once(demo, hub, tmp_path, name, caplog):
    expected = word_embeddings(str(demo / "model"))
    with caplog.at_level("INFO"):
        np.testing.assert_array_equal(word_embeddings(name), expected)
    assert "36 of the encoder's 36 parameters" in caplog.text or "39 of the encoder's 39 parameters" in caplog.text
    assert any(path.endswith("model_state.pdparams") for _, path in hub)
    tokenizer = models.load_tokenizer(name)
    assert tokenizer.tokenize("一条新闻") == list("一条新闻")
    hub.clear()
    np.testing.assert_array_equal(word_embeddings(name), expected)
    assert not any(command == "GET" for command, _ in hub)


def test_a_model_in_parts_is_downloaded_whole(demo, hub, tmp_path):
    """Its index is preferred to the pickle beside it."""
    weights = load_file(str(demo / "model/model.safetensors"))
    places = {name: f"model-{i % 2 + 1:05}-of-00002.safetensors" for i, name in enumerate(sorted(weights))}
    for place in set(places.values()):
        save_file(
            {name: weights[name] for name in places if places[name] == place}, tmp_path / "hub" / COMMUNITY / place
        )
    index = json.dumps({"metadata": {}, "weight_map": places})
    (tmp_path / "hub" / COMMUNITY / "model.safetensors.index.json").write_text(index)
    np.testing.assert_array_equal(word_embeddings(COMMUNITY), word_embeddings(str(demo / "model")))
    assert not any(path.endswith(".pdparams") for _, path in hub)


def test_a_name_wins_over_a_folder_without_weights(demo, hub, tmp_path, monkeypatch):
    """The published commands make a folder of the model's name, for the output, and then load the model."""
    monkeypatch.chdir(tmp_path)
    Path(KNOWN, "models").mkdir(parents=True)
    word_embeddings(KNOWN)
    models.load_tokenizer(KNOWN)
    assert Path.cwd() == tmp_path and os.listdir(KNOWN) == ["models"]


def test_a_folder_with_weights_wins_over_the_name(demo, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(demo / "model", KNOWN)
    word_embeddings(KNOWN)
    assert not hub


def test_a_name_that_is_nowhere_is_one_line(hub):
    with pytest.raises(UserError, match=r"nobody/nothing: neither a folder nor a model that could be downloaded") as e:
        word_embeddings("nobody/nothing")
    assert "\n" not in str(e.value) and len(str(e.value)) < 400
    with pytest.raises(UserError, match="no such folder"):
        word_embeddings("./nothing")


def test_without_a_network_one_is_told_what_to_bring_and_where_to_put_it(monkeypatch):
    """The file names are those by which PaddleNLP then finds them; no name that is near is offered, as it is right."""
    from paddlenlp.transformers import ErnieModel, ErnieTokenizer

    name = "ernie-3.0-base-zh"  # there is ernie-3.0-xbase-zh too

    def refuse(*_: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(source, "resolve_file_path", refuse)
    with pytest.raises(UserError) as error:
        word_embeddings(name)
    text = str(error.value)
    assert text.startswith(
        f"{name}: neither a folder nor a model that could be downloaded (ConnectionError: no route to"
    )
    assert "https_proxy names a proxy, PPNLP_ENDPOINT a mirror" in text
    weights = ErnieModel.pretrained_resource_files_map["model_state"][name]
    vocabulary = ErnieTokenizer.pretrained_resource_files_map["vocab_file"][name]
    assert f"put what another machine fetches into {source.MODEL_HOME}/{name}: " in text
    assert f"{weights} as model_state.pdparams" in text and text.endswith(vocabulary)  # the name is no mistake


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ernie-3.0-bas-zh", "ernie-3.0-base-zh"),
        ("hfl/robert-wwm-ext-large", "hfl/roberta-wwm-ext-large"),
        ("bert_base_chinese", "bert-base-chinese"),
        ("models/ernie-3.0-base-zh/5e-5", None),
        ("somebody/else", None),
    ],
)
def test_a_misspelt_name_gets_the_nearest_one(hub, name, meant):
    for load in (word_embeddings, models.load_tokenizer):
        with pytest.raises(UserError) as error:
            load(name)
        assert str(error.value).partition(": did you mean ")[2] == (f"{meant}?" if meant else "")


NO_NAMES = dict.fromkeys(
    ["", " ", "a\nb", "\0", "~/x", "a/b/c", "../x", "a b", "x:/y", "/" + "x" * 5000], "no such folder"
)
NO_NAMES |= {"model.zip": "model.zip: a file; name the folder", "x" * 5000: "neither a folder nor a model"}


@pytest.mark.parametrize("load", [word_embeddings, models.load_tokenizer])
@pytest.mark.parametrize(("name", "line"), NO_NAMES.items(), ids=lambda text: f"{text:.9}")
def test_what_cannot_be_a_name_is_one_line(hub, tmp_path, monkeypatch, load, name, line):
    monkeypatch.chdir(tmp_path)
    Path("model.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=line) as error:
        load(name)
    assert str(error.value).isprintable() and len(str(error.value)) < 500
    assert not hub or line.startswith("neither")


def test_names_of_paddlenlp_s_models_can_be_names():
    for family in source.FAMILIES:
        assert all(map(model_names.is_name, family.base_class.pretrained_init_configuration)), family


# Packages of PaddleNLP whose published models know no Chinese, write or paint, or read pages and pictures.
OTHERS = {"bart", "bigbird", "blenderbot", "blenderbot_small", "ctrl", "dallebart", "deberta", "deberta_v2"}
OTHERS |= {"ernie_gen", "funnel", "gemma", "layoutlm", "layoutlmv2", "llama", "luke", "opt", "prophetnet"}
OTHERS |= {"reformer", "rw", "t5", "artist", "ernie_code", "ernie_layout", "layoutxlm", "xlm"}


def test_every_published_name_and_every_chinese_encoder_of_paddlenlp_is_known():
    from paddlenlp import transformers

    for model in published.PUBLISHED_MODELS:
        assert source.is_known_name(model.name), model.name
    listed = {
        name: each.__module__.split(".")[-2]
        for each in vars(transformers).values()
        if hasattr(each, "base_model_prefix")
        for name in each.pretrained_init_configuration or ()
    }
    assert len(listed) > 250
    unknown = {name for name in listed if not source.is_known_name(name)}
    assert {listed[name] for name in unknown} <= OTHERS
    assert not source.is_known_name("models/tnews")


@pytest.mark.parametrize("name", ["pai-painter-base-zh", "uie-x-base", "bigbird-base-uncased", "xlm-mlm-xnli15-1024"])
def test_what_is_no_encoder_is_one_line(hub, name):
    with pytest.raises(UserError, match=f"^{name}: PaddleNLP's .* is not supported.*; supported are bert, ") as error:
        models.require_architecture(name)
    assert str(error.value).isprintable() and not hub
    assert ("(its tokenizer needs a package beyond the requirements)" in str(error.value)) == name.startswith("xlm")


def test_a_name_without_weights_is_one_line(hub):
    with pytest.raises(UserError, match="^ernie-health-chinese-generator: .* no weights; name another model$"):
        word_embeddings("ernie-health-chinese-generator")
    assert not hub
