"""Load the tokenizer of a checkpoint.

A folder's own files are read here and nothing else: a list of known settings, each checked, and the vocabulary. What
they name is looked up in a table of PaddleNLP's tokenizers, so that no file of a checkpoint decides what is opened.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from paddlenlp import transformers
from paddlenlp.transformers import AddedToken, AutoTokenizer, PretrainedTokenizer
from paddlenlp.transformers.auto.tokenizer import TOKENIZER_MAPPING_NAMES

from clue_utils.errors import UserError
from clue_utils.models.config import CONFIG_FILES
from clue_utils.models.source import readable_errors, unshadowed
from clue_utils.models.vocabulary import Added, added_tokens, read_object, read_tokenizer_json, read_vocabulary
from clue_utils.strict_json import JsonObject

VOCABULARY, SETTINGS, SPECIAL, FAST = "vocab.txt", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json"
# The tokenizers of the encoders that are supported: of word pieces (vocab.txt), and of sentencepiece.
_WORD_PIECES = (
    "BertTokenizer ErnieTokenizer ErnieGramTokenizer ElectraTokenizer RobertaChineseTokenizer AlbertChineseTokenizer "
    "NeZhaTokenizer RoFormerTokenizer RoFormerv2Tokenizer TinyBertTokenizer PPMiniLMTokenizer MegatronBertTokenizer "
    "ConvBertTokenizer MobileBertTokenizer SqueezeBertTokenizer DistilBertTokenizer NystromformerTokenizer "
    "GAUAlphaTokenizer SkepTokenizer"
).split()
_SENTENCE_PIECES = ("ErnieMTokenizer", "AlbertEnglishTokenizer")
# Two kinds of tokenizer go by one name in these families; the files tell which it is.
_BY_FILES = {
    "albert": ("AlbertChineseTokenizer", "AlbertEnglishTokenizer"),
    "roberta": ("RobertaChineseTokenizer", "RobertaBPETokenizer"),
}
# Classes that say nothing of how they split text (Hugging Face's for any tokenizer.json).
_ANY = {"PreTrainedTokenizer", "PretrainedTokenizer", "TokenizersBackend", "AutoTokenizer"}
_REQUIRED = ("unk_token", "sep_token", "pad_token", "cls_token")
_SPECIAL = (*_REQUIRED, "mask_token", "bos_token", "eos_token")


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) and text for text in value)


# Setting -> what it must be, and how to say so; null is as if it were not there. All else is left alone.
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(
        "do_lower_case do_basic_tokenize tokenize_chinese_chars use_jieba split_special_tokens remove_space "
        "keep_accents need_token_type_id add_two_sep_token_inter".split(),
        (_is_flag, "true or false"),
    ),
    "strip_accents": (_is_flag, "true, false or null"),
    "never_split": (_is_texts, "a list of tokens"),
    "use_bpe_encoder": (lambda value: value is False, "false: byte pairs are not supported"),
    "model_max_length": (lambda value: type(value) in (int, float) and value >= 1, "a number of tokens"),
    "truncation_side": (lambda value: value in ("left", "right"), '"left" or "right"'),
    "padding_side": (lambda value: value in ("left", "right"), '"left" or "right"'),
    "model_input_names": (lambda value: _is_texts(value) and "input_ids" in value, "a list with input_ids"),
}
# Settings that change ids where a class does not know them, and the value that is no change.
_NEUTRAL = {"do_basic_tokenize": True, "tokenize_chinese_chars": True}


def load_tokenizer(name_or_path: str, do_lower_case: bool | None = None) -> Any:
    """Load the reference (Python) tokenizer of a model.

    Args:
        do_lower_case: write text in lower case; None: as the model's own setting says.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    given = {} if do_lower_case is None else {"do_lower_case": do_lower_case}
    with readable_errors(name_or_path), unshadowed(name_or_path) as source:
        try:
            if os.path.isdir(source):
                return _Folder(Path(source), given).load()
            return _class_of_name(source).from_pretrained(source, **given)
        except ImportError as error:
            raise UserError(
                f"{name_or_path}: its tokenizer needs the package {error.name}: install requirements.txt anew"
            ) from error


def num_ids(tokenizer: Any) -> int:
    """Rows that an embedding must have for every id of a tokenizer: more than tokens, where a token has two lines."""
    return 1 + max(id_ for token, id_ in tokenizer.get_vocab().items() if token.strip())


def _class_of_name(name: str) -> Any:
    """The tokenizer class of a published model; AutoTokenizer for names that PaddleNLP looks up itself."""
    if name in transformers.ErnieTinyTokenizer.pretrained_init_configuration:  # ErnieTokenizer has the name too
        raise UserError(f"{name}: {_unsupported('ErnieTinyTokenizer')}")
    for known in (*_WORD_PIECES, *_SENTENCE_PIECES):
        if name in getattr(transformers, known).pretrained_init_configuration:
            return getattr(transformers, known)
    other: Any
    for other in vars(transformers).values():
        is_tokenizer = inspect.isclass(other) and issubclass(other, PretrainedTokenizer)
        if is_tokenizer and name in other.pretrained_init_configuration:
            raise UserError(f"{name}: {_unsupported(other.__name__)}")
    return AutoTokenizer


def _unsupported(name: str) -> str:
    name = name if name.isprintable() else ascii(name)
    return (
        f"its tokenizer is {name:.60}, which is not supported; take a model of word pieces (BERT, ERNIE, RoBERTa, "
        "ELECTRA and the like, with vocab.txt), ERNIE-M or ALBERT"
    )


def _family(name: str) -> str:
    """What the names of a model's type, tokenizer and classes have in common: "ernie_gram", "ErnieGramModel"."""
    name = re.sub(r"(Tokenizer(Fast)?|For[A-Z]\w*|(PreTrained|Pretrained)?Model)$", "", name)
    return re.sub(r"[^a-z0-9]", "", name.lower())


_CLASS_OF_FAMILY = {_family(name): name for name in (*_WORD_PIECES, *_SENTENCE_PIECES)}


class _Folder:
    """The tokenizer's part of a checkpoint's folder.

    Args:
        given: settings that win over those of the files.
    """

    def __init__(self, folder: Path, given: JsonObject) -> None:
        self.folder = folder
        self.given = given
        self.said = read_object(folder / SETTINGS)
        self.special = read_object(folder / SPECIAL)

    def load(self) -> Any:
        """The tokenizer, built of the folder's files and of nothing else."""
        class_ = getattr(transformers, self._class_name())
        pieces, added, settings = self._vocabulary(class_)
        settings |= _checked(self.said, self.folder / SETTINGS) | self.given
        if class_ is transformers.RoFormerTokenizer:
            _use_words(settings, pieces)
        special = self._special_tokens(class_, settings.pop("unk_token", None))
        if pieces:
            self._require_tokens(special, {*pieces}, {token.text for token in added})
            _require_known(class_, settings, self.folder / SETTINGS)
        contents = {VOCABULARY: "".join(f"{piece}\n" for piece in pieces).encode()} if pieces else {}
        with tempfile.TemporaryDirectory() as own:
            files = {}
            for argument, name in class_.resource_files_names.items():
                path = self.folder / name
                if name == VOCABULARY:
                    path = Path(own, name)
                    path.write_bytes(contents[name])
                elif class_.__name__ in _WORD_PIECES:
                    continue  # byte pairs of SKEP's English models
                elif path.is_file():
                    contents[name] = path.read_bytes()
                else:
                    raise UserError(f"{path}: no such file, which {class_.__name__} needs: copy it from the model")
                files[argument] = str(path)
            try:
                tokenizer = class_(**files, **settings, **{key: token and str(token) for key, token in special.items()})
            except (RuntimeError, OSError) as error:
                reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
                raise UserError(f"{self.folder}: not files that {class_.__name__} can read ({reason})") from None
        # A checkpoint gets what was read, whatever has become of the folder.
        tokenizer.save_resources = functools.partial(_save, contents)
        self._add_tokens(tokenizer, special, added, len(pieces) or tokenizer.vocab_size)
        return tokenizer

    @functools.cached_property
    def model(self) -> JsonObject:
        """The configuration of the model, read where tokenizer_config.json does not say enough."""
        return next((read_object(self.folder / name) for name in CONFIG_FILES if (self.folder / name).exists()), {})

    def _class_name(self) -> str:
        """The name of PaddleNLP's class: as the folder says, else by the type of the model and the files."""
        named = next((name for name in self._names() if name is not None), None)
        if named is not None and not isinstance(named, str):
            raise UserError(f"{self.folder / SETTINGS}: tokenizer_class is {named!r:.40}, expected the name of a class")
        if named and named.removesuffix("Fast") not in _ANY:
            name = self._of_family(_family(named)) if named.endswith(("Tokenizer", "TokenizerFast")) else None
            if name is None:
                raise UserError(f"{self.folder}: {_unsupported(named)}")
            return name
        architectures = self.model.get("architectures")
        architecture = architectures[0] if isinstance(architectures, list) and architectures else None
        for kind in (self.model.get("model_type"), architecture, self.model.get("init_class")):
            if isinstance(kind, str) and kind:
                if name := self._of_family(_family(kind)):
                    return name
                if _family(kind) in map(_family, TOKENIZER_MAPPING_NAMES):
                    raise UserError(f"{self.folder}: {_unsupported(f'that of {kind}')}")
        return "BertTokenizer"  # whatever the encoder: it is what makes word pieces

    def _names(self) -> Iterator[Any]:
        yield self.said.get("tokenizer_class")
        yield self.said.get("init_class")
        yield self.model.get("tokenizer_class")

    def _of_family(self, family: str) -> str | None:
        if family not in _BY_FILES:
            return _CLASS_OF_FAMILY.get(family)
        of_words, other = _BY_FILES[family]
        if (self.folder / VOCABULARY).exists():
            return of_words
        files = getattr(transformers, other).resource_files_names.values()
        if not any((self.folder / name).exists() for name in files):
            return of_words
        return other if other in _SENTENCE_PIECES else None

    def _vocabulary(self, class_: Any) -> tuple[list[str], list[Added], JsonObject]:
        """Pieces by id (none where a sentencepiece model alone has them), added tokens, tokenizer.json's settings."""
        added = added_tokens(self.folder, self.said)
        if VOCABULARY not in class_.resource_files_names.values():
            return [], added, {}
        word_pieces = class_.__name__ in _WORD_PIECES
        path, fast_path = self.folder / VOCABULARY, self.folder / FAST
        has_list = path.exists() or not word_pieces
        fast = None
        if word_pieces and fast_path.exists() and (not has_list or self._says_nothing()):
            fast = read_tokenizer_json(fast_path)
        if not has_list and fast is None:
            others = ", ".join(sorted(file.name for file in self.folder.glob("*.model")))[:80]
            hint = f" ({others} is of sentencepiece, which {class_.__name__} does not use)" if others else ""
            raise UserError(
                f"{self.folder}: no {VOCABULARY}{hint}, nor a {FAST} to read the word pieces from: "
                "copy it from the model that the weights are of"
            )
        settings = _checked(fast.settings, fast_path) | {"unk_token": fast.settings.get("unk_token")} if fast else {}
        if has_list:
            return read_vocabulary(path, word_pieces), added, settings
        assert fast is not None
        return fast.pieces, [*{token.text: token for token in (*fast.added, *added)}.values()], settings

    def _says_nothing(self) -> bool:
        """Whether a class is named that leaves everything to tokenizer.json."""
        named = next((name for name in self._names() if name is not None), "")
        return named.removesuffix("Fast") in _ANY

    def _special_tokens(self, class_: Any, unk_token: Any) -> JsonObject:
        """Special tokens by name: the class's, those of tokenizer_config.json, and of special_tokens_map.json."""
        known = inspect.signature(class_.__init__).parameters
        tokens = {name: known[name].default for name in _SPECIAL if name in known}
        if unk_token is not None:
            tokens["unk_token"] = _special_token(self.folder / FAST, "unk_token", unk_token)
        for said, file in ((self.said, SETTINGS), (self.special, SPECIAL)):
            for name in _SPECIAL:
                if name not in said:
                    continue
                absent = said[name] is None and name not in _REQUIRED
                tokens[name] = None if absent else _special_token(self.folder / file, name, said[name])
        return tokens

    def _additional(self) -> list[Any]:
        for said, file in ((self.special, SPECIAL), (self.said, SETTINGS)):
            for name in ("additional_special_tokens", "extra_special_tokens"):
                value = said.get(name)
                tokens = list(value.values()) if isinstance(value, dict) else value
                if not isinstance(tokens, list | None):
                    raise UserError(f"{self.folder / file}: {name} is {value!r:.40}, expected a list of tokens")
                if tokens:
                    return [_special_token(self.folder / file, name, token) for token in tokens]
        return []

    def _require_tokens(self, special: JsonObject, pieces: set[str], added: set[str]) -> None:
        vocabulary = self.folder / (VOCABULARY if (self.folder / VOCABULARY).exists() else FAST)
        for name, token in special.items():
            if token is None or str(token) in pieces or (name != "unk_token" and str(token) in added):
                continue
            file = next((file for file, said in ((SPECIAL, self.special), (SETTINGS, self.said)) if name in said), None)
            where = f" ({self.folder / file})" if file else ""
            raise UserError(
                f"{vocabulary}: {str(token)!r:.60} is not in it, the {name}{where}: use the files of one model"
            )

    def _add_tokens(self, tokenizer: Any, special: JsonObject, added: list[Added], size: int) -> None:
        """Give a tokenizer the tokens that it finds before it splits a text: special ones, and added ones."""
        for name, token in special.items():
            if isinstance(token, AddedToken):
                setattr(tokenizer, name, token)
        additional = self._additional()
        names = {*map(str, special.values()), *map(str, additional)}
        for token in sorted(added):
            beyond = token.id >= size
            id_ = tokenizer.convert_tokens_to_ids(token.text)
            if id_ != (tokenizer.unk_token_id if beyond else token.id):
                raise UserError(
                    f"{self.folder}: the added token {token.text!r:.60} has id {token.id}, "
                    f"but {id_} in the vocabulary: use the files of one model"
                )
            if not beyond:
                additional += [token.text] if token.text not in names else []
                continue
            is_special = token.special or token.text in names
            lower = getattr(tokenizer, "do_lower_case", False) and not is_special
            text = token.text.lower() if lower else token.text
            tokenizer.added_tokens_encoder[text] = token.id
            tokenizer.added_tokens_decoder[token.id] = AddedToken(text, special=is_special, normalized=False)
        if additional:
            tokenizer.additional_special_tokens = additional
        known = dict(tokenizer.added_tokens_encoder)
        # Registers what is not to be split, and appends what has no id yet: there must be none.
        tokenizer.add_tokens([*known], special_tokens=True)
        tokenizer.sanitize_special_tokens()
        if unknown := sorted(tokenizer.added_tokens_encoder.keys() - known.keys()):
            raise UserError(
                f"{self.folder}: the special token {unknown[0]!r:.60} is not in the vocabulary and has no embedding: "
                f"take it out of {SETTINGS} and {SPECIAL}, or use the files of one model"
            )


def _checked(said: JsonObject, path: Path) -> JsonObject:
    """The known settings of a file that are not null.

    Raises:
        UserError: one of them has a value that it cannot have.
    """
    settings = {}
    for name, (is_right, expected) in _CHECKS.items():
        value = said.get(name)
        if value is None:
            continue
        if not is_right(value):
            raise UserError(f"{path}: {name} is {value!r:.60}, expected {expected}")
        settings[name] = value
    return settings


def _special_token(path: Path, name: str, value: Any) -> Any:
    """A special token as a file writes it: text, or an object with its ``content`` and how blanks around it count."""
    text = value.get("content") if isinstance(value, dict) else value
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{path}: {name} is {value!r:.60}, expected a token of the vocabulary")
    if not isinstance(value, dict):
        return text
    return AddedToken(text, **{flag: value.get(flag) is True for flag in ("single_word", "lstrip", "rstrip")})


def _require_known(class_: Any, settings: JsonObject, path: Path) -> None:
    """Refuse a setting that would change ids but that the class does not know."""
    known = inspect.signature(class_.__init__).parameters
    neutral = _NEUTRAL | {"strip_accents": settings.get("do_lower_case", True)}
    for name, value in neutral.items():
        if name not in known and settings.get(name, value) != value:
            raise UserError(f"{path}: {class_.__name__} has no {name}, here {settings[name]}: take the setting out")


def _use_words(settings: JsonObject, pieces: list[str]) -> None:
    """RoFormer's vocabularies are of words or of characters; Hugging Face's files do not say which."""
    words = (len(piece) > 1 and all("\u4e00" <= char <= "\u9fff" for char in piece) for piece in pieces)
    if "use_jieba" not in settings:
        settings["use_jieba"] = any(words)
    if settings["use_jieba"]:
        jieba = importlib.import_module("jieba")
        jieba.setLogLevel(logging.WARNING)
        jieba.initialize()  # once, before processes that encode are forked


def _save(contents: dict[str, bytes], folder: str) -> None:
    for name, content in contents.items():
        Path(folder, name).write_bytes(content)
