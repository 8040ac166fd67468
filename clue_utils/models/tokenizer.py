"""Load the tokenizer of a checkpoint.

A folder's own files are read here and nothing else: a list of known settings, each checked, and the vocabulary. What
they name is looked up in a table (``tokenizer_kinds``), so that no file of a checkpoint decides what is opened.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import os
import pickle
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from paddlenlp import transformers
from paddlenlp.transformers import AddedToken, PretrainedTokenizer
from paddlenlp.transformers.auto.tokenizer import TOKENIZER_MAPPING_NAMES
from paddlenlp.utils.download import resolve_file_path

from clue_utils.errors import UserError
from clue_utils.language import later, say
from clue_utils.models.fast_tokenizer import SPECIAL_TOKENS, FastTokenizer, Unreadable, qwen2
from clue_utils.models.pickles import read_words
from clue_utils.models.source import fetch, readable_errors, unshadowed
from clue_utils.models.tokenizer_kinds import CANDIDATES, KINDS, Kind, common_name, find_published
from clue_utils.models.vocabulary import (
    Added,
    added_tokens,
    makes_bert_pieces,
    read_bert_pieces,
    read_bytes,
    read_ids,
    read_merges,
    read_numbered_vocabulary,
    read_object,
    read_vocabulary,
)
from clue_utils.size_class import CONFIG_FILES
from clue_utils.strict_json import JsonObject

VOCABULARY, SETTINGS, SPECIAL, FAST = "vocab.txt", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json"
_ADDED, _WORDS = "added_tokens.json", "dict.wordseg.pickle"
# Classes that say nothing of how they split text (Hugging Face's for any tokenizer.json).
_ANY = {"PreTrainedTokenizer", "PretrainedTokenizer", "TokenizersBackend", "AutoTokenizer"}
_REQUIRED = ("unk_token", "sep_token", "pad_token", "cls_token")
# What a special token is called where no file says which it is.
_USUAL = {
    "unk_token": ("[UNK]", "<unk>"),
    "sep_token": ("[SEP]", "</s>"),
    "pad_token": ("[PAD]", "<pad>"),
    "cls_token": ("[CLS]", "<s>"),
    "mask_token": ("[MASK]", "<mask>"),
    "eos_token": ("</s>", "<|endoftext|>"),
}


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) and text for text in value)


def _is_template(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[^{}]*\{\}[^{}]*", value) is not None


def _is_language(value: Any) -> bool:
    return value in transformers.MBart50Tokenizer.FAIRSEQ_LANGUAGE_CODES


# Setting -> what it must be, and how to say so; null is as if it were not there. All else is left alone.
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(
        "do_lower_case do_basic_tokenize tokenize_chinese_chars use_jieba split_special_tokens remove_space "
        "keep_accents split_by_punct need_token_type_id add_two_sep_token_inter".split(),
        (_is_flag, later("true or false")),
    ),
    "strip_accents": (_is_flag, later("true, false or null")),
    "cls_num": (lambda value: type(value) is int and 1 <= value <= 16, later("a number of tokens from 1 to 16")),
    "cls_token_template": (_is_template, later("a token with {} for its number")),
    "src_lang": (_is_language, later("a language such as zh_CN")),
    "never_split": (_is_texts, later("a list of tokens")),
    "use_bpe_encoder": (lambda value: value is False, later("false: byte pairs are not supported")),
    "model_max_length": (lambda value: type(value) in (int, float) and value >= 1, later("a number of tokens")),
    "truncation_side": (lambda value: value in ("left", "right"), later('"left" or "right"')),
    "padding_side": (lambda value: value in ("left", "right"), later('"left" or "right"')),
    "model_input_names": (lambda value: _is_texts(value) and "input_ids" in value, later("a list with input_ids")),
}
# Settings that change ids where a class does not know them, and the value that is no change.
_NEUTRAL = {"do_basic_tokenize": True, "tokenize_chinese_chars": True}


def load_tokenizer(name_or_path: str, do_lower_case: bool | None = None) -> Any:
    """Load the tokenizer of a model: PaddleNLP's own in Python, or what its ``tokenizer.json`` describes.

    Args:
        do_lower_case: write text in lower case; None: as the model's own setting says.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    given = {} if do_lower_case is None else {"do_lower_case": do_lower_case}
    with readable_errors(name_or_path), unshadowed(name_or_path) as source:
        try:
            return (_Folder(Path(source), given) if os.path.isdir(source) else _by_name(source, given)).load()
        except ImportError as error:
            raise UserError(
                say(
                    "{name_or_path}: its tokenizer needs the package {name}: install requirements.txt anew",
                    name_or_path=name_or_path,
                    name=error.name,
                )
            ) from error


def num_ids(tokenizer: Any) -> int:
    """Rows that an embedding must have for every id of a tokenizer: more than tokens, where a token has two lines."""
    vocabulary = {**tokenizer.get_vocab(), **getattr(tokenizer, "added_tokens_encoder", {})}
    return 1 + max(id_ for token, id_ in vocabulary.items() if token.strip())


def _by_name(name: str, given: JsonObject) -> _Folder:
    """The files of a model by its name, downloaded unless PaddleNLP's cache holds them."""
    found = find_published(name)
    if found is None:
        other: Any
        for other in vars(transformers).values():
            is_tokenizer = inspect.isclass(other) and issubclass(other, PretrainedTokenizer)
            if is_tokenizer and name in other.pretrained_init_configuration:
                raise UserError(f"{name}: {_unsupported(other.__name__)}")
        return _Folder(_download(name), given)
    kind, class_ = found
    addresses = {argument: table.get(name) for argument, table in class_.pretrained_resource_files_map.items()}
    paths = {file: Path(fetch(name, [addresses[argument]])) for argument, file in kind.files.items()}
    if addresses.get("tokenizer_config_file"):
        paths[SETTINGS] = Path(fetch(name, [addresses["tokenizer_config_file"]]))
    return _Published(name, given, kind, paths, class_.pretrained_init_configuration[name])


def _download(name: str) -> Path:
    """The folder of PaddleNLP's cache that holds whatever files of a tokenizer a model has."""

    def fetched(files: list[str]) -> list[Path]:
        return [Path(path) for file in files if (path := resolve_file_path(name, [file], "")) is not None]

    files = [SETTINGS, SPECIAL, _ADDED, FAST, *CONFIG_FILES[:2]]
    found = fetched(files)
    # What these say tells which others to ask the network for.
    candidates = _Folder(found[0].parent, {}).candidates() if found else CANDIDATES["bert"]
    others = sorted({file for kind in candidates for file in kind.files.values()})
    found += fetched(others)
    if not found:
        raise FileNotFoundError(say("it has none of {value}", value=", ".join([*files, *others])))
    return found[0].parent


def _unsupported(name: str) -> str:
    name = name if name.isprintable() else ascii(name)
    others = ", ".join(kind.name.removesuffix("Tokenizer") for kind in KINDS if not kind.makes_word_pieces)
    return say(
        "its tokenizer is {name:.60}, which is not supported; supported are any {fast}, BERT's word pieces, and those "
        "of {others}",
        name=name,
        fast=FAST,
        others=others,
    )


class _Folder:
    """The tokenizer's part of a checkpoint's folder.

    Args:
        given: settings that win over those of the files.
    """

    def __init__(self, folder: Path, given: JsonObject) -> None:
        self.folder = folder
        self.given = given
        self.said = read_object(self._path(SETTINGS))
        self.special = read_object(self._path(SPECIAL))

    def _path(self, file: str) -> Path:
        return self.folder / file

    def _has(self, file: str) -> bool:
        return self._path(file).exists()

    def load(self) -> Any:
        """The tokenizer, built of the folder's files and of nothing else."""
        candidates = self.candidates()
        kind = next((kind for kind in candidates if all(map(self._has, kind.files.values()))), None)
        content = None
        if self._has(FAST) and (kind is None or kind.class_ is None or self._says_nothing()):
            content = read_object(self._path(FAST))
            if not makes_bert_pieces(content):
                return self._fast(content, candidates)
            kinds = (kind, *candidates, *CANDIDATES["bert"])
            kind = next(each for each in kinds if each and each.makes_word_pieces)
        if kind is None:
            raise self._missing(candidates)
        return self._slow(kind, content) if kind.class_ else self._byte_pairs(kind)

    @functools.cached_property
    def model(self) -> JsonObject:
        """The configuration of the model, read where tokenizer_config.json does not say enough."""
        return next((read_object(self._path(name)) for name in CONFIG_FILES if self._has(name)), {})

    # --- which tokenizer it is ---

    def candidates(self) -> tuple[Kind, ...]:
        """The tokenizers that it can be: as the folder says, else by the type of the model; none: tokenizer.json's."""
        named = next((name for name in self._names() if name is not None), None)
        if named is not None and not isinstance(named, str):
            raise UserError(
                say(
                    "{path}: tokenizer_class is {named!r:.40}, expected the name of a class",
                    path=self._path(SETTINGS),
                    named=named,
                )
            )
        if named and named.removesuffix("Fast") not in _ANY:
            is_tokenizer = named.isidentifier() and named.endswith(("Tokenizer", "TokenizerFast"))
            if is_tokenizer and common_name(named) in CANDIDATES:
                return CANDIDATES[common_name(named)]
            if is_tokenizer and self._has(FAST) and not self.said.get("auto_map"):
                return ()
            if self._has(FAST):
                named = named if named.isprintable() else ascii(named)
                raise UserError(
                    say(
                        "{path}: the tokenizer is {named:.60}, code of its own, which is not run; where {fast} "
                        "says all that it does, write PreTrainedTokenizerFast for tokenizer_class",
                        path=self._path(SETTINGS),
                        named=named,
                        fast=FAST,
                    )
                )
            raise UserError(f"{self.folder}: {_unsupported(named)}")
        architectures = self.model.get("architectures")
        architecture = architectures[0] if isinstance(architectures, list) and architectures else None
        for said in (self.model.get("model_type"), architecture, self.model.get("init_class")):
            if isinstance(said, str) and said:
                if common_name(said) in CANDIDATES:
                    return CANDIDATES[common_name(said)]
                if common_name(said) in map(common_name, TOKENIZER_MAPPING_NAMES):
                    if self._has(FAST):
                        return ()
                    raise UserError(f"{self.folder}: {_unsupported(say('that of {type}', type=said))}")
        return CANDIDATES["bert"]  # whatever the encoder: it is what makes word pieces

    def _names(self) -> Iterator[Any]:
        yield self.said.get("tokenizer_class")
        yield self.said.get("init_class")
        yield self.model.get("tokenizer_class")

    def _says_nothing(self) -> bool:
        """Whether a class is named that leaves everything to tokenizer.json."""
        named = next((name for name in self._names() if name is not None), "")
        return named.removesuffix("Fast") in _ANY

    def _missing(self, candidates: tuple[Kind, ...]) -> UserError:
        """What to say where the files of none of the candidates are all there, nor a tokenizer.json."""
        for kind in candidates:
            missing = [file for file in kind.files.values() if not self._has(file)]
            if len(missing) < len(kind.files):
                return UserError(
                    say(
                        "{path}: no such file, which {name} needs: copy it from the model",
                        path=self._path(missing[0]),
                        name=kind.name,
                    )
                )
        ways = [{*kind.files.values()} for kind in candidates]
        least = [kind for kind, way in zip(candidates, ways, strict=True) if not any(other < way for other in ways)]
        wanted = say(" or ").join(say(" and ").join(kind.files.values()) for kind in least)
        files = {*self.folder.glob("*.model"), *self.folder.glob("vocab.json")}
        others = ", ".join(sorted(file.name for file in files))[:80]
        hint = ""
        if others:
            hint = say(" ({files}: of another tokenizer than {name})", files=others, name=candidates[0].name)
        return UserError(
            say(
                "{folder}: no {wanted}{hint}, nor a {fast}: copy it from the model that the weights are of",
                folder=self.folder,
                wanted=wanted,
                hint=hint,
                fast=FAST,
            )
        )

    # --- PaddleNLP's classes ---

    def _slow(self, kind: Kind, content: JsonObject | None) -> Any:
        """The tokenizer of a class of PaddleNLP.

        Args:
            content: what tokenizer.json holds, if word pieces or settings are to be taken from there.
        """
        pieces, added, settings = self._vocabulary(kind, content)
        settings |= _checked(self.said, self._path(SETTINGS)) | self.given
        if kind.class_ is transformers.RoFormerTokenizer:
            settings.setdefault("use_jieba", _has_words(pieces))
        words = _start_jieba() if kind.uses_jieba or settings.get("use_jieba") else None
        special = self._special_tokens(kind, settings.pop("unk_token", None))
        if pieces:
            self._require_tokens(special, {*pieces}, {token.text for token in added})
            if kind.name == "ErnieCtmTokenizer":
                self._require_cls_tokens(settings, {*pieces})
        self._require_known(kind, settings)
        contents = {file: self._content(file, kind, pieces) for file in kind.files.values()}
        with tempfile.TemporaryDirectory() as own:
            _save(contents, own)
            files = {argument: str(Path(own, file)) for argument, file in kind.files.items()}
            plain = {name: token and str(token) for name, token in special.items()}
            try:
                tokenizer = kind.class_(**files, **settings, **plain)
            except (RuntimeError, OSError) as error:
                reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
                raise UserError(
                    say(
                        "{folder}: not files that {name} can read ({reason})",
                        folder=self.folder,
                        name=kind.name,
                        reason=reason,
                    )
                ) from None
        # A checkpoint gets what was read, whatever has become of the folder.
        tokenizer.resources = contents
        tokenizer.save_resources = functools.partial(_save, contents)
        tokenizer.words = words
        if not kind.makes_word_pieces:
            self._drop_absent(tokenizer, kind, special)
        self._add_tokens(tokenizer, kind, special, added, len(pieces) or tokenizer.vocab_size)
        return tokenizer

    def _vocabulary(self, kind: Kind, content: JsonObject | None) -> tuple[list[str], list[Added], JsonObject]:
        """Pieces by id (none where a sentencepiece model alone has them), added tokens, tokenizer.json's settings."""
        added = self._added()
        if VOCABULARY not in kind.files.values():
            return [], added, {}
        fast = None if content is None else read_bert_pieces(self._path(FAST), content)
        settings = {}
        if fast:
            settings = _checked(fast.settings, self._path(FAST)) | {"unk_token": fast.settings.get("unk_token")}
        if self._has(VOCABULARY):
            path = self._path(VOCABULARY)
            pieces = (
                read_numbered_vocabulary(path) if kind.is_numbered else read_vocabulary(path, kind.makes_word_pieces)
            )
            return pieces, added, settings
        assert fast is not None
        return fast.pieces, [*{token.text: token for token in (*fast.added, *added)}.values()], settings

    def _added(self) -> list[Added]:
        return added_tokens(self.folder, self.said)

    def _content(self, file: str, kind: Kind, pieces: list[str]) -> bytes:
        """A file of the tokenizer, as the class is to read it."""
        if file == VOCABULARY:
            ends = (f"\t{id_}" if kind.is_numbered else "" for id_ in range(len(pieces)))
            return "".join(f"{piece}{end}\n" for piece, end in zip(pieces, ends, strict=True)).encode()
        if file == _WORDS:  # the class loads whatever is pickled
            return pickle.dumps(dict.fromkeys(read_words(self._path(file)), 0), protocol=4)
        return read_bytes(self._path(file))

    def _special_tokens(self, kind: Kind, unk_token: Any) -> JsonObject:
        """Special tokens by name: the class's, those of tokenizer_config.json, and of special_tokens_map.json."""
        known = inspect.signature(kind.class_.__init__).parameters
        tokens = {name: known[name].default for name in SPECIAL_TOKENS if name in known}
        if unk_token is not None:
            tokens["unk_token"] = _special_token(self._path(FAST), "unk_token", unk_token)
        return tokens | self._said_tokens({name for name in _REQUIRED if name in known})

    def _said_tokens(self, required: set[str]) -> JsonObject:
        """Special tokens by name as the files have them, None for those that they take away."""
        tokens = {}
        for said, file in ((self.said, SETTINGS), (self.special, SPECIAL)):
            for name in SPECIAL_TOKENS:
                if name not in said:
                    continue
                absent = said[name] is None and name not in required
                tokens[name] = None if absent else _special_token(self._path(file), name, said[name])
        return tokens

    def _additional(self) -> list[Any]:
        for said, file in ((self.special, SPECIAL), (self.said, SETTINGS)):
            for name in ("additional_special_tokens", "extra_special_tokens"):
                value = said.get(name)
                tokens = list(value.values()) if isinstance(value, dict) else value
                if not isinstance(tokens, list | None):
                    raise UserError(
                        say(
                            "{path}: {name} is {value!r:.40}, expected a list of tokens",
                            path=self._path(file),
                            name=name,
                            value=value,
                        )
                    )
                if tokens:
                    return [_special_token(self._path(file), name, token) for token in tokens]
        return []

    def _require_tokens(self, special: JsonObject, pieces: set[str], added: set[str]) -> None:
        vocabulary = self._path(VOCABULARY if self._has(VOCABULARY) else FAST)
        for name, token in special.items():
            if token is None or str(token) in pieces or (name != "unk_token" and str(token) in added):
                continue
            file = next((file for file, said in ((SPECIAL, self.special), (SETTINGS, self.said)) if name in said), None)
            where = f" ({self._path(file)})" if file else ""
            raise UserError(
                say(
                    "{vocabulary}: {token!r:.60} is not in it, the {name}{where}: use the files of one model",
                    vocabulary=vocabulary,
                    token=str(token),
                    name=name,
                    where=where,
                )
            )

    def _require_cls_tokens(self, settings: JsonObject, pieces: set[str]) -> None:
        for number in range(settings.get("cls_num", 1)):
            token = settings.get("cls_token_template", "[CLS{}]").replace("{}", str(number))
            if token not in pieces:
                raise UserError(
                    say(
                        "{path}: {token!r:.60} is not in it: use the files of one model",
                        path=self._path(VOCABULARY),
                        token=token,
                    )
                )

    def _require_known(self, kind: Kind, settings: JsonObject) -> None:
        """Refuse a setting that would change ids but that the class does not know; choose a language."""
        known = inspect.signature(kind.class_.__init__).parameters
        neutral = _NEUTRAL | {"strip_accents": settings.get("do_lower_case", True)}
        for name, value in neutral.items():
            if kind.makes_word_pieces and name not in known and settings.get(name, value) != value:
                raise UserError(
                    say(
                        "{path}: {name} has no {setting}, here {value}: take the setting out",
                        path=self._path(SETTINGS),
                        name=kind.name,
                        setting=name,
                        value=settings[name],
                    )
                )
        if self.given.get("do_lower_case") and "do_lower_case" not in known:
            raise UserError(
                say(
                    "{folder}: {name} cannot write in lower case: leave out --do_lower_case",
                    folder=self.folder,
                    name=kind.name,
                )
            )
        if "src_lang" in known:
            languages = kind.class_.FAIRSEQ_LANGUAGE_CODES
            if settings.setdefault("src_lang", "zh_CN") not in languages:
                raise UserError(
                    say(
                        "{path}: {name} has no src_lang {src_lang}",
                        path=self._path(SETTINGS),
                        name=kind.name,
                        src_lang=settings["src_lang"],
                    )
                )

    def _drop_absent(self, tokenizer: Any, kind: Kind, special: JsonObject) -> None:
        """Take away a class's special tokens that the vocabulary lacks; pad with another token where there is none."""
        vocabulary = tokenizer.get_vocab()
        for name, token in special.items():
            is_said = self.said.get(name) or self.special.get(name)
            if token and str(token) not in vocabulary and not (is_said or kind.appends or name in _REQUIRED):
                setattr(tokenizer, name, None)
                tokenizer.init_kwargs[name] = special[name] = None
        if tokenizer._pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    def _add_tokens(self, tokenizer: Any, kind: Kind, special: JsonObject, added: list[Added], size: int) -> None:
        """Give a tokenizer the tokens that it finds before it splits a text: special ones, and added ones."""
        for name, token in special.items():
            if isinstance(token, AddedToken):
                setattr(tokenizer, name, token)
        additional = self._additional()
        names = {*map(str, special.values()), *map(str, additional)}
        vocabulary = tokenizer.get_vocab()
        for token in sorted(added):
            beyond = token.id >= size
            if (id_ := vocabulary.get(token.text)) != (None if beyond else token.id):
                raise UserError(f"{self.folder}: {_other_id(token, id_)}")
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
        for token in tokenizer.all_special_tokens if kind.appends else ():
            if token not in vocabulary and token not in tokenizer.added_tokens_encoder and token != tokenizer.unk_token:
                id_ = len(tokenizer)
                tokenizer.added_tokens_encoder[token] = id_
                tokenizer.added_tokens_decoder[id_] = AddedToken(token, special=True, normalized=False)
        known = dict(tokenizer.added_tokens_encoder)
        # Registers what is not to be split, and appends what has no id yet: there must be none.
        tokenizer.add_tokens([*known], special_tokens=True)
        tokenizer.sanitize_special_tokens()
        if unknown := sorted(tokenizer.added_tokens_encoder.keys() - known.keys()):
            raise self._unknown(unknown[0])

    def _unknown(self, token: str) -> UserError:
        return UserError(
            say(
                "{folder}: the special token {token!r:.60} is not in the vocabulary and has no embedding: take it "
                "out of {settings} and {special}, or use the files of one model",
                folder=self.folder,
                token=token,
                settings=SETTINGS,
                special=SPECIAL,
            )
        )

    # --- tokenizer.json ---

    def _fast(self, content: JsonObject, candidates: tuple[Kind, ...]) -> FastTokenizer:
        """The tokenizer that tokenizer.json describes."""
        path = self._path(FAST)
        listed = content["added_tokens"] if isinstance(content.get("added_tokens"), list) else []
        tokens = [token.get("content") for token in listed if isinstance(token, dict)]
        usual: dict[str, tuple[Any, ...]] = dict(_USUAL)
        for kind in candidates[:1]:
            parameters = inspect.signature(kind.class_.__init__).parameters if kind.class_ else {}
            for name in SPECIAL_TOKENS:
                if name in parameters:
                    usual[name] = (parameters[name].default, *usual.get(name, ()))
        special = {name: next((each for each in names if each in tokens), None) for name, names in usual.items()}
        return self._described(path, read_bytes(path).decode("utf-8-sig"), special, self._added())

    def _byte_pairs(self, kind: Kind) -> FastTokenizer:
        """Qwen2's, of vocab.json and merges.txt."""
        path, merges = (self._path(file) for file in kind.files.values())
        ids, end, added = read_ids(path), "<|endoftext|>", self._added()
        if end not in ids and end not in {token.text for token in added}:
            added.append(Added(len(ids), end, True))
        try:
            content = qwen2(ids, read_merges(merges))
        except Unreadable as error:
            raise UserError(
                say(
                    "{path}, {merges}: do not go together ({error}): use the files of one model",
                    path=path,
                    merges=merges,
                    error=error,
                )
            ) from None
        return self._described(path, content, {"eos_token": end, "pad_token": end}, added)

    def _described(self, path: Path, content: str, usual: Mapping[str, Any], added: list[Added]) -> FastTokenizer:
        """A tokenizer.json's tokenizer; ``usual`` are special tokens by name where no file says which they are."""
        if "do_lower_case" in self.given:
            raise UserError(say("{path}: says by itself how text is written: leave out --do_lower_case", path=path))
        special = dict(usual) | self._said_tokens(set())
        settings = _checked(self.said, self._path(SETTINGS))
        try:
            tokenizer = FastTokenizer(
                content,
                {name: str(token) for name, token in special.items() if token},
                sorted(added),
                settings.get("truncation_side", "right"),
            )
        except Unreadable as error:
            raise UserError(say("{path}: {error}: use the files of one model", path=path, error=error)) from None
        vocabulary = tokenizer.get_vocab()
        for token in map(str, self._additional()):
            if token not in vocabulary:
                raise self._unknown(token)
        return tokenizer


class _Published(_Folder):
    """The files of a model that comes with PaddleNLP by name.

    Args:
        kind: of tokenizer.
        paths: where its files are, by name.
        settings: PaddleNLP's for the name.
    """

    def __init__(
        self, name: str, given: JsonObject, kind: Kind, paths: Mapping[str, Path], settings: JsonObject
    ) -> None:
        self.kind, self.paths = kind, paths
        super().__init__(Path(name), given)
        self.said = {**settings, **self.said}

    def _path(self, file: str) -> Path:
        return self.paths.get(file, self.folder / file)  # which is not there: the name is no folder

    def _has(self, file: str) -> bool:
        return file in self.paths

    def candidates(self) -> tuple[Kind, ...]:
        return (self.kind,)

    def _added(self) -> list[Added]:
        return []


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
            raise UserError(
                say(
                    "{path}: {name} is {value!r:.60}, expected {expected}",
                    path=path,
                    name=name,
                    value=value,
                    expected=say(expected),
                )
            )
        settings[name] = value
    return settings


def _special_token(path: Path, name: str, value: Any) -> Any:
    """A special token as a file writes it: text, or an object with its ``content`` and how blanks around it count."""
    text = value.get("content") if isinstance(value, dict) else value
    if not isinstance(text, str) or not text.strip():
        raise UserError(
            say(
                "{path}: {name} is {value!r:.60}, expected a token of the vocabulary", path=path, name=name, value=value
            )
        )
    if not isinstance(value, dict):
        return text
    return AddedToken(text, **{flag: value.get(flag) is True for flag in ("single_word", "lstrip", "rstrip")})


def _other_id(token: Added, id_: int | None) -> str:
    found = "none" if id_ is None else id_
    return say(
        "the added token {text!r:.60} has id {id}, but {other} in the vocabulary: use the files of one model",
        text=token.text,
        id=token.id,
        other=found,
    )


def _has_words(pieces: list[str]) -> bool:
    """RoFormer's vocabularies are of words or of characters; Hugging Face's files do not say which."""
    return any(len(piece) > 1 and all("\u4e00" <= char <= "\u9fff" for char in piece) for piece in pieces)


def _start_jieba() -> str:
    """Load jieba's dictionary, once, before processes that encode are forked; its version."""
    jieba = importlib.import_module("jieba")
    jieba.setLogLevel(logging.WARNING)
    jieba.initialize()
    return str(jieba.__version__)


def _save(contents: dict[str, bytes], folder: str) -> None:
    for name, content in contents.items():
        Path(folder, name).write_bytes(content)
