"""Every architecture of the table with random weights, as ordinary checkpoint folders: for trials and for tests.

What is made follows from ``clue_utils.models.families``; an architecture has a row here only for what its settings or
its tokenizer have of their own. PaddlePaddle and PaddleNLP have to be imported before anything here is called.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clue_utils.errors import UserError
from demo import words
from demo.model import vocabulary

if TYPE_CHECKING:
    from clue_utils.models.families import Family
    from clue_utils.models.tokenizer_kinds import Kind

# Settings of the smallest model; each configuration takes those that it knows.
SIZES: Mapping[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 16,
    "embedding_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "initializer_range": 0.3,
    "init_std": 0.3,
    "pad_token_id": 0,
}
# How weights are drawn, which tests have wider than pretraining.
_SPREADS = ("initializer_range", "init_std")
EXTRAS: Mapping[str, Mapping[str, Any]] = {
    "ernie_gram": {"rel_pos_size": 8},
    "nezha": {"use_relative_position": True, "max_relative_position": 8},
    "mobilebert": {"intra_bottleneck_size": 16, "num_feedforward_networks": 1},
    "nystromformer": {"num_landmarks": 4, "segment_means_seq_len": 4},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8}
    | {"norm_rel_ebd": "layer_norm", "conv_kernel_size": 3},
    "modernbert": {"local_attention": 8},
    "ernie_doc": {"memory_len": 3},
    "qwen2": {"num_key_value_heads": 1},
    "qwen3": {"num_key_value_heads": 1, "head_dim": 12},
    "chinesebert": {"glyph_embedding_dim": 12, "pinyin_embedding_size": 8, "pinyin_map_len": 32},
    "xlnet": {"d_inner": 32},
    "glm": {"max_sequence_length": 64, "output_predict": True},
    "rembert": {"input_embedding_size": 12},
}


def config_of(family: Family, sizes: Mapping[str, Any] = SIZES, extras: Mapping[str, Any] | None = None) -> Any:
    """A configuration of an architecture.

    Args:
        sizes: by their common names; those that the configuration does not know are left out.
        extras: by the architecture's own names, before ``EXTRAS``.
    """
    config_class = family.base_class.config_class
    known = set(inspect.signature(config_class.__init__).parameters) | set(config_class.attribute_map)
    settings = {config_class.attribute_map.get(name, name): value for name, value in sizes.items() if name in known}
    return config_class(**{**settings, **EXTRAS.get(family.model_type, {}), **(extras or {})})


def make_encoder(family: Family, folder: Path, config: Any = None, spread: float | None = 0.3) -> Path:
    """Write an encoder with random weights into a folder, without a tokenizer; return the folder. Seeds Paddle.

    Args:
        config: default: of ``SIZES``.
        spread: standard deviation of every matrix, so large that rows and tokens can be told apart by what comes out;
            None: as the architecture draws them for pretraining.
    """
    import paddle

    paddle.seed(3)
    model = family.base_class(config_of(family) if config is None else config)
    for parameter in model.parameters() if spread else ():
        if parameter.ndim > 1:
            parameter.set_value(paddle.randn(parameter.shape) * spread)
    if family.model_type == "chinesebert":
        readings = paddle.randint(0, model.config.pinyin_map_len, model.readings.shape)
        model.readings.set_value(readings.astype("float32"))
    model.save_pretrained(str(folder), safe_serialization=True)
    return folder


def make_checkpoint(
    family: Family, folder: Path, sizes: Mapping[str, Any] = SIZES, extras: Mapping[str, Any] | None = None
) -> Path:
    """Write an encoder with random weights and a tokenizer of its architecture into a folder; return the folder.

    Args:
        sizes: as of :func:`config_of`; the vocabulary is the tokenizer's.
        extras: as of :func:`config_of`.
    """
    settings = {name: value for name, value in sizes.items() if name not in _SPREADS}
    settings["vocab_size"] = make_tokenizer(family, folder)
    return make_encoder(family, folder, config_of(family, settings, extras), spread=None)


def make_published(name: str, folder: Path) -> Path:
    """Write a published model's architecture and size with random weights, and a tokenizer of its kind.

    Raises:
        UserError: no such name, or its sizes are not known here.
    """
    from clue_utils.models.catalogue import find

    model = find(name)
    make_tokenizer(model.family, folder)
    return make_encoder(model.family, folder, model.config, spread=None)


# --- tokenizers ---------------------------------------------------------------------------------------------------

# Architectures whose tokenizer is not the first that goes by their name; "": any, of a tokenizer.json.
_TOKENIZERS: Mapping[str, str] = {
    "ernie": "ErnieTokenizer",
    "fnet": "BertTokenizer",
    "modernbert": "",
}
# Special tokens of all that is made of sentencepiece, and of ERNIE-CTM.
SYMBOLS = (
    "<cls> <sep> <pad> <mask> <eop> <eod> <bod> [CLS] [SEP] [MASK] [PAD] [UNK] [sMASK] [gMASK] <|endoftext|> "
    "<|startofpiece|> <|endofpiece|>"
).split()
_CTM_SYMBOLS = ["[CLS0]", "[CLS1]"]
_FAST = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"}


def kind_of(family: Family) -> Kind | None:
    """The kind of tokenizer that is made for an architecture; None: one of a tokenizer.json.

    Raises:
        UserError: none of this architecture is supported.
    """
    from clue_utils.models.tokenizer_kinds import CANDIDATES, KINDS, common_name

    name = _TOKENIZERS.get(family.model_type)
    if name is not None:
        return next((kind for kind in KINDS if kind.name == name), None)
    for kind in CANDIDATES.get(common_name(family.model_type), ()):
        return kind
    raise UserError(f"{family.model_type}: no tokenizer of this architecture is supported")


def make_tokenizer(family: Family, folder: Path) -> int:
    """Write the files of a small tokenizer of the architecture's kind; return how many ids it has.

    Raises:
        UserError: none of this architecture is supported.
    """
    from clue_utils.models import load_tokenizer
    from clue_utils.models.tokenizer import num_ids

    folder.mkdir(parents=True, exist_ok=True)
    kind = kind_of(family)
    files = list(kind.files.values()) if kind else ["tokenizer.json"]
    model = next((folder / file for file in files if file.endswith(".model")), None)
    pieces = _train_sentence_pieces(model) if model else [*vocabulary(), *_CTM_SYMBOLS]
    if "vocab.txt" in files:
        lines = [f"{piece}\t{id_}\n" if kind and kind.is_numbered else f"{piece}\n" for id_, piece in enumerate(pieces)]
        (folder / "vocab.txt").write_text("".join(lines), encoding="utf-8", newline="\n")
    elif kind is None:
        _train_byte_pairs([*_FAST.values()]).save(str(folder / "tokenizer.json"))
    elif "merges.txt" in files:
        _train_byte_pairs(["<|endoftext|>"]).save_model(str(folder))
    settings = {"tokenizer_class": kind.name} if kind else {"tokenizer_class": "PreTrainedTokenizerFast", **_FAST}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return num_ids(load_tokenizer(str(folder)))


def _train_sentence_pieces(path: Path) -> list[str]:
    """Write a small model of sentencepiece that knows every character of the demo's vocabulary; return its pieces."""
    characters = [piece for piece in vocabulary() if len(piece) == 1]
    size = len(characters) + len(SYMBOLS) + 200
    return pieces_of(train_sentence_pieces(path, [*_texts(_lists()), *characters], size))


def train_sentence_pieces(path: Path, texts: Iterable[str], size: int, symbols: Sequence[str] = SYMBOLS) -> Any:
    """Train sentencepiece on texts, of which it knows every character then, and write the model; return its processor.

    Args:
        path: of the model, which ends with ".model".
        size: of the vocabulary, where the texts yield so many pieces.
        symbols: pieces that are in the vocabulary whatever the texts are.
    """
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(path.with_suffix("")),
        vocab_size=size,
        user_defined_symbols=list(symbols),
        character_coverage=1.0,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    path.with_suffix(".vocab").unlink()
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


def pieces_of(model: Any) -> list[str]:
    """The pieces of a processor of sentencepiece, by id."""
    return [model.id_to_piece(id_) for id_ in range(len(model))]


def _train_byte_pairs(special: list[str]) -> Any:
    """Byte pairs of the demo's words, two texts set apart as BERT does where there are tokens for it."""
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.processors import TemplateProcessing

    pairs = ByteLevelBPETokenizer()
    pairs.train_from_iterator(_texts(_lists()), vocab_size=1000, special_tokens=special, show_progress=False)
    if "[CLS]" in special:
        ids = [(token, pairs.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
        pairs.post_processor = TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
        )
    return pairs


def _lists() -> Mapping[str, Any]:
    """The demo's word lists by name, without what Python keeps in a module beside them, such as its path."""
    return {name: value for name, value in vars(words).items() if not name.startswith("_")}


def _texts(value: Any) -> list[str]:
    """The texts in word lists, however they are nested."""
    if isinstance(value, str):
        return value.split()
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    return [text for each in value for text in _texts(each)] if isinstance(value, list | tuple) else []
