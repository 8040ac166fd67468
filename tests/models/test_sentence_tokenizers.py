"""Tokenizers that are not of BERT's word pieces: of sentencepiece, of words, of characters; by folder and by name."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path
from typing import Any

import pytest

from clue_utils import environment
from clue_utils.errors import UserError
from clue_utils.features.build import tokenizer_fingerprint
from demo.architectures import pieces_of, train_sentence_pieces
from tiny_tokenizers import ids, saved

environment.import_libraries()

from clue_utils.models import load_tokenizer  # noqa: E402
from clue_utils.models import tokenizer as tokenizers  # noqa: E402
from clue_utils.models.tokenizer_kinds import KINDS, Kind  # noqa: E402

# Some of what the tokenizers take for special.
SYMBOLS = "<cls> <sep> <pad> <mask> <eop> <eod> [CLS] [SEP] [MASK] [PAD] [UNK]".split()
TEXTS = ["北京的天气不错，我们去公园吧。", "今天 the weather 不错！", "Apple 公司 2008 年", "龘"]
CHARS = sorted({char for text in TEXTS[:3] for char in text.lower() if not char.isspace()})
LINES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[CLS0]", "[CLS1]", *CHARS, *(f"##{char}" for char in CHARS)]
WORDS = {"北京", "天气", "我们", "公园"}
OTHERS = {kind.name: kind for kind in KINDS if kind.class_ and (kind.is_numbered or not kind.makes_word_pieces)}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Any:
    """A model of sentencepiece."""
    return train_sentence_pieces(tmp_path_factory.mktemp("spm") / "m.model", TEXTS[:3] * 30, 110, SYMBOLS)


def content(file: str, kind: Kind, model: Any) -> bytes:
    """A file of a tokenizer."""
    if file == "dict.wordseg.pickle":
        return pickle.dumps(WORDS)
    if file == "vocab.txt":
        lines = LINES if kind.name in ("UNIMOTokenizer", "ErnieCtmTokenizer") else pieces_of(model)
        return "".join(f"{line}\t{i}\n" if kind.is_numbered else f"{line}\n" for i, line in enumerate(lines)).encode()
    return model.serialized_model_proto()


@pytest.fixture
def make(tmp_path, model):
    """Write a folder as a checkpoint has it."""

    def write(name: str, config: Any = None, **settings: Any) -> Path:
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").touch()
        for file in OTHERS[name].files.values():
            (folder / file).write_bytes(content(file, OTHERS[name], model))
        if config is None:
            settings = {"tokenizer_class": name, **settings}
        (folder / "config.json").write_text(json.dumps(config or {}))
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        return folder

    return write


@pytest.fixture
def refused(make):
    """The one line that a folder is refused with, once files were written over it."""

    def line(name: str, **files: bytes | None) -> str:
        folder = make(name)
        for file, value in files.items():
            path = folder / file.replace("__", ".")
            path.unlink(missing_ok=True)
            if value is not None:
                path.write_bytes(value)
        with pytest.raises(UserError) as error:
            load_tokenizer(str(folder))
        text = str(error.value)
        assert text.isprintable() and len(text) < 600 + 2 * len(str(folder)), text
        return text.replace(str(folder), "MODEL")

    return line


def outcome(tokenizer: Any) -> Any:
    """All that the project asks of a tokenizer."""
    names = ("pad", "cls", "sep", "unk", "mask", "bos", "eos")
    special = [getattr(tokenizer, f"_{name}_token") and getattr(tokenizer, f"{name}_token_id") for name in names]
    rows = [ids(tokenizer, text) for text in TEXTS]
    pairs = tokenizer.build_inputs_with_special_tokens(rows[0], rows[1])
    types = tokenizer.create_token_type_ids_from_sequences(rows[0], rows[1])
    return rows, tokenizer.build_inputs_with_special_tokens(rows[0]), pairs, types, special, tokenizer.get_vocab()


@pytest.mark.parametrize("name", OTHERS)
def test_a_folder_gives_the_ids_that_paddlenlp_gives_and_so_does_what_is_saved(make, tmp_path, name):
    kind, folder = OTHERS[name], make(name)
    theirs = kind.class_(**{argument: str(folder / file) for argument, file in kind.files.items()})
    ours = load_tokenizer(str(folder))
    assert type(ours) is type(theirs)
    assert [ids(ours, text) for text in TEXTS] == [ids(theirs, text) for text in TEXTS]
    again = load_tokenizer(str(saved(ours, tmp_path / "again")))
    assert outcome(again) == outcome(ours) and len(again) == len(ours)
    assert tokenizer_fingerprint(again) == tokenizer_fingerprint(ours)
    for file in kind.files.values():
        if file.endswith((".model", ".txt")):
            assert (tmp_path / "again" / file).read_bytes() == (folder / file).read_bytes()
    assert tokenizers.num_ids(ours) == len(ours)


def test_ids_by_hand(make, model):
    """Each way of making an id of a piece: its own number, one more, the number of its line."""
    sentence = model.encode(TEXTS[0])
    unknown = model.unk_id()
    for name, expected in {
        "XLNetTokenizer": model.encode("北京的天气不错,我们去公园吧。"),
        "RemBertTokenizer": sentence,
        "GLMChineseTokenizer": sentence,
        "DebertaV2Tokenizer": sentence,
        "XLMRobertaTokenizer": [3 if id_ == unknown else id_ + 1 for id_ in sentence],
        "MBartTokenizer": [3 if id_ == unknown else id_ + 1 for id_ in sentence],
        # The words of its list first, with blanks between them.
        "ErnieTinyTokenizer": model.encode("北京 的 天气 不 错 ， 我们 去 公园 吧 。"),
        "UNIMOTokenizer": [LINES.index(char) for char in TEXTS[0]],
        "ErnieCtmTokenizer": [LINES.index(char) for char in TEXTS[0]],
    }.items():
        assert ids(load_tokenizer(str(make(name))), TEXTS[0]) == expected, name


@pytest.mark.parametrize(
    ("model_type", "name"),
    [
        ("xlnet", "XLNetTokenizer"),
        ("xlm-roberta", "XLMRobertaTokenizer"),
        ("xlm_roberta", "XLMRobertaTokenizer"),
        ("rembert", "RemBertTokenizer"),
        ("mbart", "MBartTokenizer"),
        ("albert", "AlbertEnglishTokenizer"),
        ("deberta-v2", "DebertaV2Tokenizer"),
        ("ernie", "ErnieTinyTokenizer"),
        ("ernie_ctm", "ErnieCtmTokenizer"),
        ("ernie_m", "ErnieMTokenizer"),
        ("unimo", "UNIMOTokenizer"),
        ("unified_transformer", "UnifiedTransformerTokenizer"),
        ("glm", "GLMChineseTokenizer"),
        ("gpt", "GPTChineseTokenizer"),
    ],
)
def test_the_type_of_the_model_tells_where_no_class_is_named(make, model_type, name):
    assert type(load_tokenizer(str(make(name, {"model_type": model_type})))).__name__ == name


@pytest.mark.parametrize("said", [{"tokenizer_class": "DebertaV2Tokenizer"}, {}])
@pytest.mark.parametrize("model_type", ["deberta-v2", "ernie_doc", "chinesebert"])
def test_a_vocabulary_of_word_pieces(tmp_path, model_type, said):
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "vocab.txt").write_text("".join(f"{line}\n" for line in LINES), encoding="utf-8")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said if model_type == "deberta-v2" else {}))
    tokenizer = load_tokenizer(str(tmp_path))
    assert type(tokenizer).__name__ == ("ErnieDocTokenizer" if model_type == "ernie_doc" else "BertTokenizer")
    assert ids(tokenizer, TEXTS[0]) == [LINES.index(char) for char in TEXTS[0]]
    assert [tokenizer.cls_token_id, tokenizer.unk_token_id] == [2, 1]


# --- what some of them need ------------------------------------------------------------------------------------


def test_special_tokens_beyond_the_vocabulary_of_the_models_that_embed_them(make, model, tmp_path):
    for name, tokens in {
        "GLMChineseTokenizer": ["<|endoftext|>", "[UNUSED1]", "[UNUSED2]", "<|startofpiece|>", "<|endofpiece|>"],
        "DebertaV2Tokenizer": [],
    }.items():
        tokenizer = load_tokenizer(str(make(name)))
        assert tokenizer.convert_tokens_to_ids(tokens) == [*range(len(model), len(model) + len(tokens))]
        again = load_tokenizer(str(saved(tokenizer, tmp_path / name)))
        assert again.convert_tokens_to_ids(tokens) == tokenizer.convert_tokens_to_ids(tokens)


def test_a_token_that_gpt_has_but_the_vocabulary_lacks_is_none(make, model, tmp_path):
    """Its embedding has no row for <bod>; it pads with the end of a document."""
    tokenizer = load_tokenizer(str(make("GPTChineseTokenizer")))
    assert tokenizer._bos_token is None and len(tokenizer) == len(model)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == pieces_of(model).index("<eod>")


def test_chinese_is_the_language_of_mbart_unless_it_says_another(make):
    assert (
        load_tokenizer(str(make("MBartTokenizer"))).suffix_tokens[-1]
        != load_tokenizer(str(make("MBartTokenizer", src_lang="en_XX"))).suffix_tokens[-1]
    )
    tokenizer = load_tokenizer(str(make("MBart50Tokenizer")))
    assert tokenizer.convert_ids_to_tokens(tokenizer.prefix_tokens) == ["zh_CN"]
    with pytest.raises(UserError, match="src_lang is 'xx', expected a language such as zh_CN"):
        load_tokenizer(str(make("MBartTokenizer", src_lang="xx")))
    with pytest.raises(UserError, match="MBartTokenizer has no src_lang th_TH"):
        load_tokenizer(str(make("MBartTokenizer", src_lang="th_TH")))


def test_several_special_tokens_of_ernie_ctm(make, refused):
    tokenizer = load_tokenizer(str(make("ErnieCtmTokenizer", cls_num=2)))
    assert tokenizer.build_inputs_with_special_tokens([9]) == [LINES.index("[CLS0]"), LINES.index("[CLS1]"), 9, 3]
    lines = "".join(f"{line}\n" for line in LINES if line != "[CLS0]").encode()
    assert "MODEL/vocab.txt: '[CLS0]' is not in it" in refused("ErnieCtmTokenizer", vocab__txt=lines)


def test_fingerprints_tell_files_and_settings_apart(make):
    def fingerprint(name: str, **settings: Any) -> str:
        return tokenizer_fingerprint(load_tokenizer(str(make(name, **settings))))

    for name, settings in [
        ("XLNetTokenizer", {"keep_accents": True}),
        ("MBartTokenizer", {"src_lang": "en_XX"}),
        ("DebertaV2Tokenizer", {"split_by_punct": True}),
        ("ErnieCtmTokenizer", {"cls_num": 2}),
    ]:
        assert fingerprint(name) == fingerprint(name) != fingerprint(name, **settings), name
    folder = make("ErnieTinyTokenizer")
    before = tokenizer_fingerprint(load_tokenizer(str(folder)))
    (folder / "dict.wordseg.pickle").write_bytes(pickle.dumps([*WORDS]))  # the same words
    assert tokenizer_fingerprint(load_tokenizer(str(folder))) == before
    (folder / "dict.wordseg.pickle").write_bytes(pickle.dumps([*WORDS, "不错"]))
    assert tokenizer_fingerprint(load_tokenizer(str(folder))) != before


# --- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form", [set, frozenset, list, tuple, dict.fromkeys, lambda words: dict(zip(words, range(9), strict=False))]
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_every_form_of_ernie_tiny_s_dictionary(make, form, protocol):
    folder = make("ErnieTinyTokenizer")
    expected = ids(load_tokenizer(str(folder)), TEXTS[0])
    (folder / "dict.wordseg.pickle").write_bytes(pickle.dumps(form(sorted(WORDS)), protocol))
    assert ids(load_tokenizer(str(folder)), TEXTS[0]) == expected


class Runs:
    def __reduce__(self) -> Any:
        return exec, ("import pathlib; pathlib.Path('ran').touch()",)


def test_a_dictionary_that_would_run_something_is_refused(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in (Runs(), {"北京": Runs()}, [Runs()]):
        line = refused("ErnieTinyTokenizer", dict__wordseg__pickle=pickle.dumps(value))
        assert "MODEL/dict.wordseg.pickle: refused: the file asks to run " in line and "exec" in line
    for value in (5, {"a": b"b"}, [5], [["a"]], "text", {5: 1}):
        if value != {"a": b"b"}:
            assert "MODEL/dict.wordseg.pickle: " in refused(
                "ErnieTinyTokenizer", dict__wordseg__pickle=pickle.dumps(value)
            )
    with monkeypatch.context() as patch:
        patch.setattr("clue_utils.models.vocabulary._MAX_BYTES", 1 << 20)
        line = refused("ErnieTinyTokenizer", dict__wordseg__pickle=pickle.dumps(["天" * (1 << 20)]))
        assert "MODEL/dict.wordseg.pickle: larger than 1 MB" in line
    assert "damaged or not a dictionary of words" in refused("ErnieTinyTokenizer", dict__wordseg__pickle=b"none")
    assert not list(tmp_path.rglob("ran"))


@pytest.mark.parametrize("name", [name for name, kind in OTHERS.items() if "Ctm" not in name and "UNIMO" not in name])
def test_a_model_of_sentencepiece_that_is_none_or_missing(refused, name):
    file = next(file for file in OTHERS[name].files.values() if file.endswith(".model"))
    key = file.replace(".", "__")
    assert f"MODEL: not files that {name} can read" in refused(name, **{key: b"none"})
    line = refused(name, **{key: None})
    assert (
        f"MODEL/{file}: no such file, which {name} needs" in line
        or f"MODEL: no {file}" in line
        and "nor a tokenizer.json" in line
    )


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        (["[PAD]\t0", "[UNK]\tx"], "MODEL/vocab.txt, line 2: 'x' is not the id of a piece"),
        (["[PAD]\t0", "[UNK]\t5"], "MODEL/vocab.txt: two lines have one id, or ids are left out"),
        (["[PAD]\t0", "[UNK]\t0"], "MODEL/vocab.txt: "),
        (["[PAD]\t0", "[UNK]\t1"], "MODEL/vocab.txt: '[SEP]' is not in it, the sep_token"),
    ],
)
def test_a_numbered_vocabulary_that_is_none(refused, lines, line):
    assert line in refused("UNIMOTokenizer", vocab__txt="\n".join(lines).encode())


def test_lines_of_a_numbered_vocabulary_in_any_order(make):
    folder = make("UNIMOTokenizer")
    expected = outcome(load_tokenizer(str(folder)))
    lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    random.Random(0).shuffle(lines)
    (folder / "vocab.txt").write_text("\n".join(lines), encoding="utf-8")
    assert outcome(load_tokenizer(str(folder))) == expected


def test_lower_case_is_not_asked_of_what_has_none(make):
    with pytest.raises(UserError, match="XLMRobertaTokenizer cannot write in lower case: leave out --do_lower_case"):
        load_tokenizer(str(make("XLMRobertaTokenizer")), do_lower_case=True)
    load_tokenizer(str(make("XLMRobertaTokenizer")), do_lower_case=False)


def test_damaged_models_of_sentencepiece_are_one_line_or_work(make, model):
    """Bytes are changed, cut off and put in at random."""
    choose, folder = random.Random(0), make("XLMRobertaTokenizer")
    path = folder / "sentencepiece.bpe.model"
    whole, refused = path.read_bytes(), 0
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(choose.choice([1, 3, 30])):
            damaged[choose.randrange(len(damaged))] = choose.randrange(256)
        path.write_bytes(damaged[: choose.choice([len(damaged), choose.randrange(len(damaged))])])
        try:
            ids(load_tokenizer(str(folder)), TEXTS[0])
        except UserError as error:
            assert str(error).isprintable()
            refused += 1
    assert refused > 20


# --- by name ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "class_name"),
    [
        ("gpt-cpm-large-cn", "GPTChineseTokenizer"),
        ("unimo-text-1.0", "UNIMOTokenizer"),
        ("plato-mini", "UnifiedTransformerTokenizer"),
        ("ernie-tiny", "ErnieTinyTokenizer"),
        ("ernie-ctm", "ErnieCtmTokenizer"),
        ("ernie-m-base", "ErnieMTokenizer"),
        ("mbart-large-cc25", "MBartTokenizer"),
        ("chinese-xlnet-base", "XLNetTokenizer"),
        ("THUDM/glm-large-chinese", "GLMChineseTokenizer"),
        ("rembert", "RemBertTokenizer"),
    ],
)
def test_a_published_name_is_as_good_as_a_folder(make, monkeypatch, name, class_name):
    kind = OTHERS[class_name]
    settings = {key: value for key, value in kind.class_.pretrained_init_configuration[name].items()}
    folder = make(class_name, **settings)
    tables = kind.class_.pretrained_resource_files_map
    files = {tables[argument][name]: folder / file for argument, file in kind.files.items()}
    monkeypatch.setattr(tokenizers, "fetch", lambda asked, urls: str(files[urls[0]]) if asked == name else None)
    expected = load_tokenizer(str(folder))
    tokenizer = load_tokenizer(name)
    assert outcome(tokenizer) == outcome(expected)
    assert tokenizer_fingerprint(tokenizer) == tokenizer_fingerprint(expected)
    if name == "ernie-ctm":
        assert len(tokenizer.build_inputs_with_special_tokens([])) == 3


def test_any_other_name_is_as_good_as_the_folder_that_its_files_are_fetched_to(make, monkeypatch):
    folder, asked = make("XLNetTokenizer"), []

    def resolve(name: str, files: list[str], _: str) -> str | None:
        asked.append(files[0])
        path = folder / files[0]
        return str(path) if path.is_file() else None

    monkeypatch.setattr(tokenizers, "resolve_file_path", resolve)
    assert outcome(load_tokenizer("somebody/xlnet")) == outcome(load_tokenizer(str(folder)))
    # No file of any other tokenizer.
    assert [file for file in asked if not file.endswith(".json")] == ["spiece.model"] and len({*asked}) == len(asked)
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(UserError, match="somebody/xlnet: neither a folder nor a model that could be downloaded"):
        load_tokenizer("somebody/xlnet")
