"""Tokenizers that a tokenizer.json describes, and Qwen2's of vocab.json and merges.txt."""

from __future__ import annotations

import functools
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from clue_utils import environment
from clue_utils.errors import UserError
from clue_utils.features.build import tokenizer_fingerprint
from clue_utils.features.offsets import offset_tokenizer
from clue_utils.tasks import TASKS
from clue_utils.training.classification import Classification
from tiny_tokenizers import ids, saved

environment.import_libraries()

from clue_utils.models import load_tokenizer  # noqa: E402
from clue_utils.models.fast_tokenizer import FastTokenizer  # noqa: E402
from clue_utils.models.tokenizer import num_ids  # noqa: E402

TEXTS = ["北京的天气不错，我们去公园吧。", "今天 the weather 不错！", " Apple　公司 2008 年\n", "龘é", ""]
BERT = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
NAMES = {"[UNK]": "unk_token", "[CLS]": "cls_token", "[SEP]": "sep_token", "[PAD]": "pad_token", "[MASK]": "mask_token"}


def byte_pairs() -> Tokenizer:
    """As ModernBERT's: byte pairs, and sequences as BERT's."""
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=BERT, initial_alphabet=alphabet, show_progress=False, max_token_length=6
    )
    made.train_from_iterator(TEXTS * 5, trainer)
    ids = [(token, made.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ids)
    made.decoder = decoders.ByteLevel()
    return made


def unigram() -> Tokenizer:
    """As XLM-R's: of sentencepiece, sequences as RoBERTa's."""
    pieces = [
        *ROBERTA,
        "▁",
        *sorted({char for text in TEXTS[:3] for char in text if not char.isspace()}),
        "▁北京",
        "公园",
    ]
    scores = [(piece, 0.0 if piece in ROBERTA else -float(8 - len(piece))) for piece in pieces]
    made = Tokenizer(models.Unigram(scores, unk_id=3))
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    made.add_special_tokens(ROBERTA)
    return made


def word_pieces() -> Tokenizer:
    """Word pieces that are not BERT's: a text is cut at its blanks and signs alone."""
    pieces = [*BERT, "北京", "##的", "##天气", "不", "##错", "，", "the"]
    made = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    made.add_special_tokens(BERT)
    return made


MADE = {
    name: functools.cache(make)
    for name, make in {"byte pairs": byte_pairs, "unigram": unigram, "word pieces": word_pieces}.items()
}


@pytest.fixture
def make(tmp_path):
    """Write a folder as Hugging Face's libraries do."""

    def write(kind: str | None, config: Any = None, change: Any = None, **settings: Any) -> Path:
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").touch()
        (folder / "config.json").write_text(json.dumps(config or {"model_type": "modernbert"}))
        settings.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        if kind is not None:
            content = json.loads(MADE[kind]().to_str())
            content = change(content) if change else content
            (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
        return folder

    return write


def outcome(tokenizer: Any) -> Any:
    names = ("pad", "cls", "sep", "unk", "mask", "bos", "eos")
    rows = [ids(tokenizer, text) for text in TEXTS]
    pair = tokenizer.build_inputs_with_special_tokens(rows[0], rows[1])
    special = [getattr(tokenizer, f"{name}_token_id") for name in names]
    return rows, pair, special, len(tokenizer), tokenizer_fingerprint(tokenizer)


@pytest.mark.parametrize("kind", MADE)
def test_ids_sequences_and_segments_are_the_library_s(make, tmp_path, kind):
    library, ours = MADE[kind](), load_tokenizer(str(make(kind)))
    assert isinstance(ours, FastTokenizer)
    for first, second in zip(TEXTS, TEXTS[1:], strict=False):
        a, b = ids(ours, first), ids(ours, second)
        assert a == library.encode(first, add_special_tokens=False).ids
        one, two = library.encode(first), library.encode(first, second)
        assert ours.build_inputs_with_special_tokens(a) == one.ids
        assert ours.create_token_type_ids_from_sequences(a) == one.type_ids
        assert ours.build_inputs_with_special_tokens(a, b) == two.ids
        assert ours.create_token_type_ids_from_sequences(a, b) == two.type_ids
    assert len(ours) == num_ids(ours) == library.get_vocab_size()
    again = saved(ours, tmp_path / "again")
    assert outcome(load_tokenizer(str(again))) == outcome(ours)
    assert sorted(path.name for path in again.glob("token*")) == ["tokenizer.json", "tokenizer_config.json"]


@pytest.mark.parametrize(
    "named", ["XLMRobertaTokenizer", "XLMRobertaTokenizerFast", "TokenizersBackend", None, "NewTokenizer"]
)
@pytest.mark.parametrize("model_type", ["xlm-roberta", "modernbert", "deberta-v2", "luke"])
def test_whatever_the_class_the_file_tells(make, named, model_type):
    ours = load_tokenizer(str(make("unigram", {"model_type": model_type}, tokenizer_class=named)))
    assert ids(ours, TEXTS[0]) == unigram().encode(TEXTS[0], add_special_tokens=False).ids


def test_special_tokens_are_those_that_files_name_or_else_the_usual_ones(make):
    pairs = load_tokenizer(str(make("byte pairs")))
    assert {token: getattr(pairs, name) for token, name in NAMES.items()} == {token: token for token in NAMES}
    roberta = load_tokenizer(str(make("unigram", cls_token="</s>", mask_token={"content": "<s>"}, sep_token=None)))
    assert [roberta.cls_token_id, roberta.mask_token_id, roberta.sep_token_id, roberta.pad_token_id] == [2, 0, None, 1]


def test_special_tokens_that_there_are_none_of_stay_so(make, tmp_path):
    ours = load_tokenizer(str(make("unigram", sep_token=None, mask_token=None)))
    again = load_tokenizer(str(saved(ours, tmp_path / "again")))
    assert ours.sep_token is ours.mask_token is again.sep_token is again.mask_token is None
    assert outcome(again) == outcome(ours)


def test_the_side_that_a_text_is_cut_on_is_the_folder_s(make, tmp_path):
    ours = load_tokenizer(str(make("byte pairs", truncation_side="left")))
    again = load_tokenizer(str(saved(ours, tmp_path / "again")))
    assert ours.truncation_side == again.truncation_side == "left"
    encoded = Classification(TASKS["TNEWS"], ours, 12).encode({"sentence": TEXTS[0]})[0]["input_ids"]
    assert encoded == [ours.cls_token_id, *ids(ours, TEXTS[0])[-10:], ours.sep_token_id]
    other = load_tokenizer(str(make("byte pairs")))
    assert other.truncation_side == "right" and tokenizer_fingerprint(other) != tokenizer_fingerprint(ours)


def of_model(**changes: Any) -> Any:
    """A change of what a tokenizer.json says of its model."""
    return lambda content: {**content, "model": {**content["model"], **changes}}


def test_merges_are_never_left_out_at_random(make):
    ours = load_tokenizer(str(make("byte pairs", change=of_model(dropout=0.5))))
    assert outcome(ours) == outcome(load_tokenizer(str(make("byte pairs"))))
    assert ours.encode_with_offsets(TEXTS[0] * 20) == ours.encode_with_offsets(TEXTS[0] * 20)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("word pieces", {"unk_token": "[NO]"}),
        ("unigram", {"unk_id": None}),
        ("byte pairs", {"unk_token": "[NO]", "vocab": {}, "merges": []}),
    ],
)
def test_what_cannot_write_an_unknown_character_is_one_line(make, kind, changes):
    with pytest.raises(UserError, match="tokenizer.json: it fails on a character that it does not know") as error:
        load_tokenizer(str(make(kind, change=of_model(**changes))))
    assert str(error.value).isprintable()


def test_what_cuts_and_pads_in_the_file_is_left_out(make):
    def change(content: Any) -> Any:
        made = Tokenizer.from_str(json.dumps(content))
        made.enable_truncation(3)
        made.enable_padding(length=9)
        return json.loads(made.to_str())

    ours = load_tokenizer(str(make("unigram", change=change)))
    assert outcome(ours)[0] == outcome(load_tokenizer(str(make("unigram"))))[0]


def test_offsets_are_of_the_text_as_it_was(make):
    text = " 北京　的é龘😀 the"
    for kind in MADE:
        ours = load_tokenizer(str(make(kind)))
        found, spans = ours.encode_with_offsets(text)
        assert found == ids(ours, text)
        assert all(0 <= a <= b <= len(text) and text[a:b] == text[a:b].strip() for a, b in spans)
        assert spans == sorted(spans)
        assert {i for a, b in spans for i in range(a, b)} == {i for i, char in enumerate(text) if not char.isspace()}
    ours = load_tokenizer(str(make("unigram")))
    assert dict(zip(ours.tokenize("北京 的"), ours.encode_with_offsets("北京 的")[1], strict=True)) == {
        "▁北京": (0, 2), "▁": (3, 3), "的": (3, 4)
    }  # fmt: skip
    # The bytes of a character share it.
    ours = load_tokenizer(str(make("byte pairs")))
    assert ours.encode_with_offsets("魑")[1] == [(0, 1)] * 3


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(text=st.lists(st.sampled_from([*"北京的天ＡéΣ，½ﬁ①龘😀\u3000 \n\t", "e\u0301", "the ", "  "])).map("".join))
@pytest.mark.parametrize("kind", MADE)
def test_offsets_are_in_order_and_cover_what_is_seen(kind, text):
    ours = FastTokenizer(MADE[kind]().to_str(), {"pad_token": "[PAD]" if kind != "unigram" else "<pad>"})
    found, spans = offset_tokenizer(ours)(text)
    assert found == ids(ours, text)
    for column in zip(*spans, strict=True):
        assert list(column) == sorted(column)
    covered = {i for begin, end in spans for i in range(begin, end)}
    assert [i for i, char in enumerate(text) if not char.isspace() and char != "\u0301" and i not in covered] == []


def test_added_tokens_have_the_ids_that_files_give_them(make, tmp_path):
    size = unigram().get_vocab_size()
    decoder = {str(size): {"content": "新冠", "special": False}, str(size + 1): {"content": "<E>", "special": True}}
    ours = load_tokenizer(str(make("unigram", added_tokens_decoder=decoder, additional_special_tokens=["<E>"])))
    assert [id_ for id_ in ids(ours, "北新冠<E>") if id_ >= size] == [size, size + 1]
    assert num_ids(ours) == size + 2
    assert outcome(load_tokenizer(str(saved(ours, tmp_path / "again")))) == outcome(ours)
    wrong = {"3": {"content": "新冠"}}
    with pytest.raises(
        UserError, match=f"tokenizer.json: the added token '新冠' has id 3, but {size} in the vocabulary"
    ):
        load_tokenizer(str(make("unigram", added_tokens_decoder=wrong)))
    with pytest.raises(UserError, match="the special token '<F>' is not in the vocabulary"):
        load_tokenizer(str(make("unigram", additional_special_tokens=["<F>"])))


# --- Qwen2 -------------------------------------------------------------------------------------------------------


@pytest.fixture
def qwen2(tmp_path):
    """Write a folder as Qwen2 is published, but for its tokenizer.json."""

    def write(settings: Any = None) -> Path:
        folder = tmp_path / "qwen2"
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").touch()
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=300, initial_alphabet=alphabet, show_progress=False, max_token_length=6
        )
        made.train_from_iterator(TEXTS * 5, trainer)
        made.model.save(str(folder))
        (folder / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
        (folder / "tokenizer_config.json").write_text(json.dumps(settings or {"tokenizer_class": "Qwen2Tokenizer"}))
        return folder

    return write


def test_qwen2_of_vocab_json_and_merges(qwen2, tmp_path):
    from paddlenlp.transformers import Qwen2Tokenizer

    folder = qwen2()
    theirs = Qwen2Tokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    ours, size = load_tokenizer(str(folder)), len(json.loads((folder / "vocab.json").read_text()))
    for text in [*TEXTS[:4], "I'Ll 1234\r\n\n  x e\u0301"]:
        assert ids(ours, text) == theirs.convert_tokens_to_ids(theirs.tokenize(text)), text
    assert [ours.eos_token_id, ours.pad_token_id, ours.cls_token_id] == [size, size, None]
    assert ours.build_inputs_with_special_tokens([5], [6]) == [5, 6]
    assert ours.create_token_type_ids_from_sequences([5], [6]) in ([0, 0], [0, 1])
    assert outcome(load_tokenizer(str(saved(ours, tmp_path / "again")))) == outcome(ours)


def test_qwen2_that_is_none_is_one_line(qwen2):
    folder = qwen2()
    for file, content, line in [
        ("merges.txt", "a b c\n", "merges.txt, line 1: 'a b c' is not two pieces"),
        ("merges.txt", "#version: 0.2\n龘 龘\n", "do not go together"),
        ("vocab.json", "[]", "vocab.json: holds a list, expected an object"),
        ("vocab.json", '{"a": "b"}', "vocab.json: 'b' is not the id of 'a'"),
        ("vocab.json", '{"a": 1, "b": 1}', "vocab.json: empty, or one id is that of two pieces"),
        ("vocab.json", None, "vocab.json: no such file, which Qwen2Tokenizer needs"),
    ]:
        path = folder / file
        before = path.read_bytes()
        path.unlink() if content is None else path.write_text(content, encoding="utf-8")
        with pytest.raises(UserError) as error:
            load_tokenizer(str(folder))
        assert line in str(error.value) and str(error.value).isprintable()
        path.write_bytes(before)


# --- what is refused ---------------------------------------------------------------------------------------------


def drop_special(content: Any) -> Any:
    return {**content, "added_tokens": []}


@pytest.mark.parametrize(
    ("settings", "change", "line"),
    [
        ({"cls_token": "[NO]"}, None, "tokenizer.json: '[NO]' is not in its vocabulary, the cls_token"),
        ({}, drop_special, "tokenizer.json: nothing names a pad_token nor an eos_token to pad with"),
        ({}, lambda content: {**content, "model": {"type": "None"}}, "tokenizer.json: "),
        ({}, lambda content: {**content, "post_processor": {"type": "None"}}, "tokenizer.json: "),
        ({}, lambda content: {"version": "1.0"}, "tokenizer.json: "),
        ({"cls_token": 5}, None, "tokenizer_config.json: cls_token is 5, expected a token"),
        ({"truncation_side": "top"}, None, "tokenizer_config.json: truncation_side is 'top', expected \"left\" or"),
    ],
)
def test_a_description_that_is_none_is_one_line(make, settings, change, line):
    folder = make("unigram", change=change, **settings)
    with pytest.raises(UserError) as error:
        load_tokenizer(str(folder))
    assert line in str(error.value) and str(error.value).isprintable()


def test_code_of_a_folder_s_own_is_not_replaced_by_its_description(make):
    folder = make("unigram", tokenizer_class="MyTokenizer", auto_map={"AutoTokenizer": ["x.MyTokenizer", None]})
    with pytest.raises(UserError, match="tokenizer_config.json: the tokenizer is MyTokenizer, code of its own"):
        load_tokenizer(str(folder))


def test_lower_case_is_the_file_s_own(make):
    with pytest.raises(UserError, match="tokenizer.json: says by itself how text is written"):
        load_tokenizer(str(make("unigram")), do_lower_case=True)


def test_files_that_the_settings_name_are_not_opened(make, tmp_path, monkeypatch):
    import builtins
    import io

    other, opened = tmp_path / "other.json", []
    other.write_text("{}")
    for place in (builtins, io, Path):  # Python 3.10's paths have an own reference to the function
        monkeypatch.setattr(place, "open", lambda *a, of=place.open, **k: opened.append(str(a[0])) or of(*a, **k))
    named = {"tokenizer_file": str(other), "vocab_file": str(other), "name_or_path": str(tmp_path)}
    ours = load_tokenizer(str(make("unigram", **named)))
    assert outcome(ours) == outcome(load_tokenizer(str(make("unigram"))))
    assert str(other) not in opened and any(path.endswith("tokenizer.json") for path in opened)


@pytest.mark.parametrize("kind", MADE)
def test_damaged_descriptions_are_one_line_or_work(make, kind):
    """Values are exchanged, left out and replaced at random."""
    folder, choose, refused = make(kind), random.Random(0), 0
    whole = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))

    def damage(value: Any) -> Any:
        if isinstance(value, dict) and value and choose.random() < 0.9:
            key = choose.choice([*value])
            if choose.random() < 0.2:
                return {k: v for k, v in value.items() if k != key}
            return {**value, key: damage(value[key])}
        if isinstance(value, list) and value and choose.random() < 0.9:
            i = choose.randrange(len(value))
            return [*value[:i], *([] if choose.random() < 0.2 else [damage(value[i])]), *value[i + 1 :]]
        return choose.choice([None, True, -1, 1 << 40, 0.5, "", "[CLS]", "x" * 2000, "\ud800", [], {}, [[]], "(?i"])

    for _ in range(150):
        (folder / "tokenizer.json").write_text(json.dumps(damage(whole)))
        try:
            outcome(load_tokenizer(str(folder)))
        except UserError as error:
            assert str(error).isprintable() and len(str(error)) < 700
            refused += 1
    assert refused > 50
