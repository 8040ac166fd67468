"""Which tokenizer a folder has, what it is built of, and what is refused in one line."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from clue_utils import environment
from clue_utils.errors import UserError
from clue_utils.features.build import tokenizer_fingerprint
from clue_utils.features.tokenization import PieceIds, sets_ideographs_apart
from clue_utils.published import PUBLISHED_MODELS
from demo.architectures import pieces_of, train_sentence_pieces
from tiny_tokenizers import ids, saved

environment.import_libraries()

from paddlenlp import transformers as nlp  # noqa: E402

from clue_utils.models import load_tokenizer  # noqa: E402
from clue_utils.models import tokenizer as tokenizers  # noqa: E402
from clue_utils.models.tokenizer_kinds import KINDS, find_published  # noqa: E402

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXTS = [
    "今天天气不错，我们去公园吧。",
    "北京的iPhone 12价格是￥5999元？Ａｐｐｌｅ 表示 Hello, World!",
    "[MASK]中[SEP] [unused1]x[cls] 新冠",
    "éÉ ΣΑΣ大ΑΣ\u200b\u3000文\ufffd字 x" + "x" * 120,
    "",
]
CHARS = sorted({char for text in TEXTS for char in unicodedata.normalize("NFKC", text) if char.isalnum()})
PIECES = [*SPECIAL, "[unused1]", "，", "。", "？", ",", "!", *CHARS, *(f"##{char}" for char in CHARS)]


def load(folder: Path, **settings: Any) -> Any:
    return load_tokenizer(str(folder), **settings)


@pytest.fixture
def make(tmp_path):
    """Write a folder as a checkpoint has it: its vocabulary, and JSON files by name; None: no such file."""

    def write(vocab: list[str] | bytes | None = PIECES, /, **files: Any) -> Path:
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").touch()
        if vocab is not None:
            content = vocab if isinstance(vocab, bytes) else "".join(f"{piece}\n" for piece in vocab).encode()
            (folder / "vocab.txt").write_bytes(content)
        for name, content in {"config": {"model_type": "bert"}, **files}.items():
            if content is not None:
                text = content if isinstance(content, str) else json.dumps(content)
                (folder / f"{name}.json").write_text(text, encoding="utf-8")
        return folder

    return write


@pytest.fixture
def refused(make):
    """The one line that a folder is refused with."""

    def line(*vocab: Any, **files: Any) -> str:
        folder = make(*vocab, **files)
        with pytest.raises(UserError) as error:
            load(folder)
        text = str(error.value)
        assert "\n" not in text and len(text) < 600 + 2 * len(str(folder)), text
        assert text.startswith(str(folder)), text
        return text.replace(str(folder), "MODEL")

    return line


def outcome(tokenizer: Any) -> Any:
    """All that the project asks of a tokenizer."""
    a, b = ids(tokenizer, TEXTS[0]), ids(tokenizer, TEXTS[1])
    pair = tokenizer.prepare_for_model(a, b, max_length=24, truncation=True)
    names = ("pad_token_id", "cls_token_id", "sep_token_id", "unk_token_id", "mask_token_id")
    special = [getattr(tokenizer, name) for name in names]
    pieces = PieceIds(tokenizer)
    return [ids(tokenizer, text) for text in TEXTS], [pieces(text) for text in TEXTS], dict(pair), special


# --- what runs have saved ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("do_lower_case", [True, False])
@pytest.mark.parametrize("name", [kind.name for kind in KINDS if kind.makes_word_pieces and not kind.is_numbered])
def test_a_saved_tokenizer_gives_the_ids_that_paddlenlp_gives(make, tmp_path, name, do_lower_case):
    class_, folder = getattr(nlp, name), make()
    class_(str(folder / "vocab.txt"), do_lower_case=do_lower_case).save_pretrained(str(folder))
    theirs, ours = class_.from_pretrained(str(folder)), load(folder)
    assert type(ours) is type(theirs) and outcome(ours) == outcome(theirs) and len(ours) == len(theirs)
    again = saved(ours, tmp_path / "again")
    assert (again / "vocab.txt").read_bytes() == (folder / "vocab.txt").read_bytes()
    assert outcome(load(again)) == outcome(class_.from_pretrained(str(again))) == outcome(theirs)
    assert tokenizer_fingerprint(load(again)) == tokenizer_fingerprint(ours)


@pytest.fixture(scope="module")
def sentence_pieces(tmp_path_factory) -> Any:
    return train_sentence_pieces(tmp_path_factory.mktemp("spm") / "m.model", [*TEXTS, *CHARS] * 20, 120)


@pytest.mark.parametrize(
    ("name", "file"), [("ErnieMTokenizer", "sentencepiece.bpe.model"), ("AlbertEnglishTokenizer", "spiece.model")]
)
def test_a_saved_tokenizer_of_sentencepiece_too(make, tmp_path, sentence_pieces, name, file):
    folder = make(None)
    (folder / file).write_bytes(sentence_pieces.serialized_model_proto())
    class_, files = getattr(nlp, name), {}
    if name == "ErnieMTokenizer":
        (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces_of(sentence_pieces)), "utf-8")
    files = {argument: str(folder / file) for argument, file in class_.resource_files_names.items()}
    class_(**files).save_pretrained(str(folder))
    theirs, ours = class_.from_pretrained(str(folder)), load(folder)
    assert type(ours) is type(theirs) and outcome(ours) == outcome(theirs)
    again = saved(ours, tmp_path / "again")
    assert outcome(load(again)) == outcome(theirs)
    assert tokenizer_fingerprint(load(again)) == tokenizer_fingerprint(ours)
    (folder / file).write_bytes(b"none")
    with pytest.raises(UserError, match="not files that"):
        load(folder)


def test_a_published_name_gives_the_class_that_paddlenlp_gives_it():
    from paddlenlp.transformers.auto.tokenizer import INIT_CONFIG_MAPPING

    theirs = {name: class_ for names, class_ in INIT_CONFIG_MAPPING.items() for name in names}
    chosen = 0
    for name, class_ in theirs.items():
        found = find_published(name)
        if found is None:
            with pytest.raises(UserError, match=f"^{name}: its tokenizer is {class_.__name__}, which is not supported"):
                load_tokenizer(name)
        elif name not in ("ernie-tiny", "ChineseBERT-base", "ChineseBERT-large"):
            assert found[1].__name__ == class_.__name__, name
            chosen += 1
    assert chosen > 120
    for name in (model.name for model in PUBLISHED_MODELS if model.name.startswith("hfl/")):
        assert find_published(name)[1] is nlp.RobertaChineseTokenizer
    assert find_published("ernie-tiny")[0].name == "ErnieTinyTokenizer"  # PaddleNLP's ErnieTokenizer has it, too
    assert find_published("ChineseBERT-base")[0].name == "BertTokenizer"


# --- which tokenizer a folder has --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "config", "name", "lower"),
    [
        (None, {"model_type": "bert"}, "BertTokenizer", True),
        ({}, {"model_type": "bert"}, "BertTokenizer", True),
        ({"do_lower_case": False, "model_max_length": 512}, {"model_type": "bert"}, "BertTokenizer", False),
        ({"init_inputs": []}, {"model_type": "bert"}, "BertTokenizer", True),
        ({"do_lower_case": True, "init_class": "BertTokenizer"}, {"model_type": "bert"}, "BertTokenizer", True),
        ({"tokenizer_class": "BertTokenizerFast", "do_lower_case": False}, {}, "BertTokenizer", False),
        ({"tokenizer_class": "BertTokenizer"}, {"model_type": "albert"}, "BertTokenizer", True),
        ({"tokenizer_class": "AlbertTokenizer"}, {"model_type": "albert"}, "AlbertChineseTokenizer", True),
        ({"tokenizer_class": "RobertaTokenizer"}, {"model_type": "roberta"}, "RobertaChineseTokenizer", True),
        ({}, {"model_type": "roberta"}, "RobertaChineseTokenizer", True),
        ({"tokenizer_class": "ErnieTokenizer"}, {"model_type": "ernie"}, "ErnieTokenizer", True),
        ({}, {"model_type": "ernie"}, "ErnieTokenizer", True),
        ({}, {"model_type": "ernie", "tokenizer_class": "BertTokenizer"}, "BertTokenizer", True),
        ({}, {"model_type": "ernie_gram"}, "ErnieGramTokenizer", True),
        ({"tokenizer_class": "ElectraTokenizerFast"}, {"model_type": "electra"}, "ElectraTokenizer", True),
        ({}, {"model_type": "electra"}, "ElectraTokenizer", True),
        ({}, {"model_type": "megatron-bert"}, "MegatronBertTokenizer", True),
        ({}, {"architectures": ["NezhaForMaskedLM"]}, "NeZhaTokenizer", True),
        ({}, {"hidden_size": 8}, "BertTokenizer", True),
        ({}, {"model_type": "modernbert"}, "BertTokenizer", True),
        ({"tokenizer_class": "RoFormerTokenizer"}, {"model_type": "roformer"}, "RoFormerTokenizer", True),
    ],
)
def test_a_folder_that_names_the_class_in_any_way_or_not_at_all(make, settings, config, name, lower):
    tokenizer = load(make(tokenizer_config=settings, config=config))
    assert type(tokenizer).__name__ == name
    assert tokenizer.basic_tokenizer.do_lower_case is lower
    assert ids(tokenizer, "北")[0] == PIECES.index("北")
    assert (ids(tokenizer, "H") == ids(tokenizer, "h")) is lower


@pytest.mark.parametrize(
    ("file", "content"),
    [("bert_config", {"hidden_size": 8}), ("model_config", {"init_class": "ErnieForSequenceClassification"})],
)
def test_other_names_of_the_configuration(make, file, content):
    expected = "BertTokenizer" if file == "bert_config" else "ErnieTokenizer"
    assert type(load(make(config=None, **{file: content}))).__name__ == expected


def test_the_flag_wins_over_the_file(make):
    folder = make(tokenizer_config={"do_lower_case": False})
    assert ids(load(folder, do_lower_case=True), "H") == [PIECES.index("h")]


@pytest.mark.parametrize(
    "name",
    "ErnieDocBPETokenizer BertJapaneseTokenizer my_module.MyTokenizer __class__ os.system".split(),
)
def test_a_class_that_is_not_supported_is_named(refused, name):
    line = refused(tokenizer_config={"tokenizer_class": name, "auto_map": {"AutoTokenizer": ["x.py", None]}})
    assert f"its tokenizer is {name}, which is not supported; supported are any tokenizer.json, " in line
    assert "BERT's word pieces, and those of ErnieCtm, ErnieM, " in line and "XLMRoberta" in line and len(line) < 350


def test_code_of_its_own_is_not_run_and_tokenizer_json_is_there(refused, make):
    for name in ("MyTokenizer", "my_module.My"):
        said = {"tokenizer_class": name, "auto_map": {"AutoTokenizer": ["x.py", None]}}
        line = refused(tokenizer_config=said, tokenizer=fast())
        assert f"MODEL/tokenizer_config.json: the tokenizer is {name}, code of its own, which is not run; " in line
        assert "supported" not in line and "write PreTrainedTokenizerFast for tokenizer_class" in line
    said["tokenizer_class"] = "PreTrainedTokenizerFast"
    assert ids(load(make(tokenizer_config=said, tokenizer=fast())), "天") == [PIECES.index("天")]


def test_the_name_of_a_class_does_not_break_the_line(refused):
    assert r"its tokenizer is 'a\nTokenizer', which" in refused(tokenizer_config={"tokenizer_class": "a\nTokenizer"})


def test_a_family_whose_tokenizer_is_not_supported(refused):
    assert "that of luke, which is not supported" in refused(config={"model_type": "luke"})


def test_byte_pairs_without_a_tokenizer_json_are_not_supported(refused):
    line = refused(None, tokenizer_config={"tokenizer_class": "RobertaTokenizer"}, vocab={"a": 0})
    assert "no vocab.txt (vocab.json: of another tokenizer than RobertaChineseTokenizer), nor a tokenizer.json" in line


def test_a_vocabulary_of_sentencepiece_is_no_vocabulary_of_word_pieces(refused):
    line = refused([*SPECIAL, "▁的", "▁是", "北"], config={"model_type": "ernie"})
    assert "MODEL/vocab.txt: 2 of 8 pieces begin with ▁: a vocabulary of sentencepiece (as ernie-tiny has)" in line


def test_no_vocabulary(refused, make):
    for model_type in ("bert", "ernie"):  # ernie-tiny's has two files more
        assert "MODEL: no vocab.txt, nor a tokenizer.json: " in refused(None, config={"model_type": model_type})
    (make(None) / "spm.model").touch()
    assert "no vocab.txt (spm.model: of another tokenizer than BertTokenizer)" in refused(None)


# --- tokenizer.json ----------------------------------------------------------------------------------------------


def fast(pieces: list[str] = PIECES, **changes: Any) -> dict[str, Any]:
    normalizer = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
    return {
        "added_tokens": [{"id": i, "content": token, "special": True} for i, token in enumerate(SPECIAL)],
        "normalizer": {**normalizer, "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {**model, "max_input_chars_per_word": 100, "vocab": {piece: i for i, piece in enumerate(pieces)}},
        **changes,
    }


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("name", ["BertTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend", None])
def test_tokenizer_json_alone_is_as_good_as_vocab_txt(make, tmp_path, name, lower):
    content = fast()
    content["normalizer"]["lowercase"] = lower
    folder = make(None, tokenizer_config={"tokenizer_class": name, "backend": "tokenizers"}, tokenizer=content)
    before = sorted(folder.iterdir())
    tokenizer = load(folder)
    assert sorted(folder.iterdir()) == before
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    reference = nlp.BertTokenizer(str(tmp_path / "vocab.txt"), do_lower_case=lower)
    assert type(tokenizer) is type(reference)
    assert [ids(tokenizer, text) for text in TEXTS[:2]] == [ids(reference, text) for text in TEXTS[:2]]
    assert len(tokenizer) == len(PIECES)
    assert outcome(load(saved(tokenizer, tmp_path / "again"))) == outcome(tokenizer)


def test_what_tokenizer_config_says_wins_over_tokenizer_json(make):
    folder = make(None, tokenizer_config={"do_lower_case": False, "strip_accents": True}, tokenizer=fast())
    basic = load(folder).basic_tokenizer
    assert (basic.do_lower_case, basic.strip_accents, basic.tokenize_chinese_chars) == (False, True, True)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model": {"type": "BPE", "vocab": {"a": 0}}}, "Missing vocab/merges"),
        ({"model": 5}, "use the files of one model"),
        ({"model": {"type": "WordPiece", "vocab": 5}}, "no model.vocab"),
        ({"model": {"type": "WordPiece", "vocab": {}}}, "leaves out ids or is empty"),
        ({"model": {"type": "WordPiece", "vocab": {"a": 0, "b": 0}}}, "0 is not the id of 'b' alone"),
        ({"model": {"type": "WordPiece", "vocab": {"a": 10**9}}}, "1000000000 is not the id of 'a' alone"),
        ({"model": {"type": "WordPiece", "vocab": {"a": True}}}, "True is not the id of 'a' alone"),
        ({"model": {"type": "WordPiece", "vocab": {"a\nb": 0}}}, "holds a character that no piece has"),
        ({"model": {"type": "WordPiece", "vocab": {"\ud800": 0}}}, "holds a character that no piece has"),
        ({"pre_tokenizer": {"type": "None such"}}, "use the files of one model"),
        ({"normalizer": {"type": "BertNormalizer", "lowercase": "no"}}, "do_lower_case is 'no', expected true or"),
        ({"added_tokens": 5}, "added_tokens is 5, expected a list"),
        ({"added_tokens": [5]}, "5 is not an added token"),
    ],
)
def test_a_tokenizer_json_that_is_another_or_broken(refused, changes, line):
    content = fast(**changes)
    if "added_tokens" not in changes:
        content["added_tokens"] = []
    text = refused(None, tokenizer=content)
    assert text.startswith("MODEL/tokenizer.json") and line in text


# --- vocab.txt ---------------------------------------------------------------------------------------------------

TEXT = "".join(f"{piece}\n" for piece in PIECES).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + TEXT,
        TEXT.replace(b"\n", b"\r\n"),
        TEXT.replace(b"\n", b"\r"),
        TEXT.replace(b"\n", b" \t\n"),
        TEXT[:-1],
    ],
    ids=["mark", "windows", "mac", "blanks", "no-line-end"],
)
def test_harmless_forms_of_a_vocabulary_give_the_same_ids(make, tmp_path, content):
    expected = outcome(load(make(TEXT)))
    tokenizer = load(make(content))
    assert outcome(tokenizer) == expected and len(tokenizer) == len(PIECES)
    assert (saved(tokenizer, tmp_path / "again") / "vocab.txt").read_bytes() == TEXT


def test_a_piece_with_blanks_does_not_take_the_place_of_the_one_without(make):
    assert ids(load(make([*PIECES, "北 "])), "北") == [PIECES.index("北")]


def without(token: str) -> bytes:
    return TEXT.replace(f"{token}\n".encode(), b"x\n", 1)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "MODEL/vocab.txt: empty"),
        (b"\n\n", "MODEL/vocab.txt: empty"),
        (b"[UNK]\n", "MODEL/vocab.txt: '[SEP]' is not in it, the sep_token"),
        (TEXT + b"\0\0\0\0", f"MODEL/vocab.txt, line {len(PIECES) + 1}: holds a character that no piece has (NUL"),
        (TEXT + b"x" * (50 << 20), f"MODEL/vocab.txt, line {len(PIECES) + 1}: 52,428,800 characters"),
        (TEXT + b"x" * (65 << 20), "MODEL/vocab.txt: larger than 64 MB"),
        (TEXT + b"\n" * (3 << 20), "MODEL/vocab.txt: more than 2,000,000 lines"),
        (TEXT + b"\xff\n", f"MODEL/vocab.txt, line {len(PIECES) + 1}: not UTF-8 text"),
        ("\n".join(PIECES).encode("utf-16"), "MODEL/vocab.txt, line 1: not UTF-8 text"),
        *((without(token), f"MODEL/vocab.txt: {token!r} is not in it, the ") for token in SPECIAL),
    ],
    ids=["empty", "blank", "one-line", "nul", "long", "large", "lines", "bytes", "utf-16", *SPECIAL],
)
def test_a_vocabulary_that_is_none(refused, content, line):
    text = refused(content)
    assert text.startswith(line)
    assert "copy the file anew" in text or "use the files of one model" in text


def test_a_vocabulary_that_is_a_folder(refused, make):
    (make(None) / "vocab.txt").mkdir()
    assert "MODEL/vocab.txt: a folder" in refused(None)


def test_ids_of_doubled_lines_are_counted(make):
    tokenizer = load(make([*PIECES, *PIECES]))
    assert len(tokenizer) == len(PIECES) and ids(tokenizer, "北") == [len(PIECES) + PIECES.index("北")]
    assert tokenizers.num_ids(tokenizer) == 2 * len(PIECES)
    assert tokenizers.num_ids(load(make([*PIECES, "", ""]))) == len(PIECES)


# --- settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "content", "line"),
    [
        ("tokenizer_config", {"unk_token": ""}, "MODEL/tokenizer_config.json: unk_token is '', expected a token"),
        ("tokenizer_config", {"unk_token": "[NO]"}, "'[NO]' is not in it, the unk_token (MODEL/tokenizer_config.json)"),
        ("tokenizer_config", {"cls_token": None}, "MODEL/tokenizer_config.json: cls_token is None, expected"),
        ("tokenizer_config", {"additional_special_tokens": 5}, "additional_special_tokens is 5, expected a list"),
        ("tokenizer_config", {"additional_special_tokens": "x"}, "additional_special_tokens is 'x', expected a list"),
        ("tokenizer_config", {"additional_special_tokens": [5]}, "additional_special_tokens is 5, expected a token"),
        ("tokenizer_config", {"additional_special_tokens": ["<e>"]}, "special token '<e>' is not in the vocabulary"),
        ("tokenizer_config", {"do_lower_case": "true"}, "do_lower_case is 'true', expected true or false"),
        ("tokenizer_config", {"do_lower_case": 1}, "do_lower_case is 1, expected true or false"),
        ("tokenizer_config", {"never_split": 5}, "never_split is 5, expected a list of tokens"),
        ("tokenizer_config", {"model_max_length": "x"}, "model_max_length is 'x', expected a number"),
        ("tokenizer_config", {"model_input_names": []}, "model_input_names is [], expected a list with input_ids"),
        ("tokenizer_config", {"truncation_side": "up"}, "truncation_side is 'up', expected"),
        ("tokenizer_config", {"tokenizer_class": 5}, "tokenizer_class is 5, expected the name of a class"),
        ("tokenizer_config", {"added_tokens_decoder": 5}, "added_tokens_decoder is 5, expected an object"),
        ("tokenizer_config", {"added_tokens_decoder": {"x": {"content": "y"}}}, "is not an added token"),
        ("tokenizer_config", {"added_tokens_decoder": {"9": {"content": "[CLS]"}}}, "'[CLS]' has id 9, but 2 in the"),
        ("tokenizer_config", [], "MODEL/tokenizer_config.json: holds a list, expected an object"),
        ("tokenizer_config", "{", "MODEL/tokenizer_config.json: not JSON"),
        ("tokenizer_config", "[" * 100_000, "MODEL/tokenizer_config.json: not JSON that can be read (nested too"),
        ("tokenizer_config", '{"a": ' + "1" * 5_000 + "}", "not JSON that can be read (a number with too many digits"),
        ("special_tokens_map", {"cls_token": None}, "MODEL/special_tokens_map.json: cls_token is None, expected"),
        ("special_tokens_map", {"cls_token": "vocab"}, "the cls_token (MODEL/special_tokens_map.json)"),
        ("special_tokens_map", {"cls_token": {"content": 5}}, "MODEL/special_tokens_map.json: cls_token is"),
        ("special_tokens_map", [5], "MODEL/special_tokens_map.json: holds a list, expected an object"),
        ("added_tokens", {"x": "y"}, "MODEL/added_tokens.json: {'content': 'x', 'id': 'y'} is not an added token"),
        ("added_tokens", {"": 500}, "is not an added token"),
        ("added_tokens", {"北": 500}, "the added token '北' has id 500, but"),
        ("config", "nonsense", "MODEL/config.json: not JSON"),
    ],
)
def test_settings_that_cannot_be_are_refused(refused, file, content, line):
    assert line in refused(**{file: content})


@pytest.mark.parametrize(
    ("settings", "pieces"),
    [
        ({}, "a ##b e 中 文"),
        ({"do_lower_case": True, "strip_accents": None}, "a ##b e 中 文"),
        ({"do_lower_case": False}, "A ##b é 中 文"),
        ({"do_lower_case": False, "strip_accents": True}, "A ##b e 中 文"),
        ({"strip_accents": False}, "a ##b é 中 文"),
        ({"tokenize_chinese_chars": False}, "a ##b e ##中 ##文"),
        ({"do_lower_case": False, "strip_accents": False, "tokenize_chinese_chars": False}, "A ##b é ##中 ##文"),
    ],
)
def test_case_accents_and_ideographs_are_as_transformers_treats_them(make, settings, pieces):
    """The pieces are those of its BertTokenizer."""
    vocab = [*SPECIAL, *"A a ##b é e 中 文 ##中 ##文".split()]
    tokenizer = load(make(vocab, tokenizer_config=settings))
    assert tokenizer.tokenize("Ab é中文") == pieces.split()
    assert tokenizer.convert_ids_to_tokens(PieceIds(tokenizer)("Ab é中文")) == pieces.split()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer_config", {"vocab_file": 5}),
        ("tokenizer_config", {"vocab_file": "/etc/passwd", "tokenizer_file": "/etc/passwd", "name_or_path": "/etc"}),
        ("tokenizer_config", {"chat_template": "{{"}),
        ("tokenizer_config", {"chat_template": 5, "trust_remote_code": True, "auto_map": {"AutoTokenizer": "x.Y"}}),
        ("tokenizer_config", {"additional_special_tokens": [], "extra_special_tokens": {}, "bos_token": None}),
        ("tokenizer_config", {"added_tokens_decoder": {str(i): {"content": t} for i, t in enumerate(SPECIAL)}}),
        ("tokenizer_config", {"unk_token": {"__type": "AddedToken", "content": "[UNK]", "normalized": True}}),
        ("special_tokens_map", {"vocab": "x", "tokenize": 5, "__class__": "x", "save_pretrained": "y"}),
        ("special_tokens_map", {"cls_token": {"content": "[CLS]", "lstrip": False}}),
        ("chat_template", {"query": 5}),
    ],
)
def test_settings_that_the_scripts_do_not_use_change_nothing(make, file, content):
    expected = load(make())
    tokenizer = load(make(**{file: content}))
    assert outcome(tokenizer) == outcome(expected) and len(tokenizer) == len(expected)


def test_another_vocabulary_is_never_opened(make, tmp_path, monkeypatch):
    import builtins
    import io

    other = tmp_path / "other.txt"
    other.write_text("[UNK]\n")
    opened = []
    for module in (builtins, io):
        monkeypatch.setattr(module, "open", lambda *a, of=module.open, **k: opened.append(str(a[0])) or of(*a, **k))
    load(make(tokenizer_config={"vocab_file": str(other), "tokenizer_class": "BertTokenizer"}))
    assert any(path.endswith("vocab.txt") for path in opened) and str(other) not in opened


def test_symbolic_links_as_in_a_cache_of_downloads_are_followed(make, tmp_path):
    folder = make()
    (folder / "vocab.txt").rename(tmp_path / "blob")
    (folder / "vocab.txt").symlink_to(tmp_path / "blob")
    assert ids(load(folder), "北") == [PIECES.index("北")]


def test_added_tokens_are_found_within_text_and_after_saving_too(make, tmp_path):
    folder = make(added_tokens={"新冠": len(PIECES), "<E>": len(PIECES) + 1})
    tokenizer = load(folder)
    expected = [PIECES.index("北"), len(PIECES), len(PIECES) + 1, PIECES.index("大")]
    assert PieceIds(tokenizer)("北新冠<e>大") == ids(tokenizer, "北新冠<E>大") == expected
    assert not sets_ideographs_apart(tokenizer) and len(tokenizer) == len(PIECES) + 2
    again = load(saved(tokenizer, tmp_path / "again"))
    assert PieceIds(again)("北新冠<e>大") == expected
    assert tokenizer_fingerprint(again) == tokenizer_fingerprint(tokenizer)


def test_a_setting_that_the_class_does_not_know_is_refused(refused):
    said = {"tokenizer_class": "ErnieTokenizer", "do_lower_case": True, "strip_accents": False}
    assert "ErnieTokenizer has no strip_accents, here False" in refused(tokenizer_config=said)


def test_a_package_that_is_missing_is_named(make, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(UserError, match="its tokenizer needs the package jieba: install requirements.txt anew$"):
        load(make(tokenizer_config={"tokenizer_class": "RoFormerTokenizer", "use_jieba": True}))


# --- words, layouts, fingerprints --------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [{}, {"use_jieba": True}])
def test_roformer_s_words_are_used(make, said):
    pieces = [*PIECES, "北京", "天气", "不错"]
    tokenizer = load(make(pieces, tokenizer_config={"tokenizer_class": "RoFormerTokenizer", **said}))
    expected = [pieces.index(word) for word in ("北京", "的", "天气", "不错", "，")]
    assert PieceIds(tokenizer)("北京的天气不错，") == expected
    again = load(make(pieces, tokenizer_config={"tokenizer_class": "RoFormerTokenizer", **said}))
    assert tokenizer_fingerprint(again) == tokenizer_fingerprint(tokenizer)


def test_roformer_of_characters_uses_none_and_says_so_in_its_fingerprint(make):
    folder = make(tokenizer_config={"tokenizer_class": "RoFormerTokenizer"})
    characters = load(folder)
    assert PieceIds(characters)("今天") == [PIECES.index("今"), PIECES.index("天")]
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "RoFormerTokenizer", "use_jieba": true}')
    assert tokenizer_fingerprint(load(folder)) != tokenizer_fingerprint(characters)
