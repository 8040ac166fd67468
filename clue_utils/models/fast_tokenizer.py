"""Tokenizers that one file describes whole: ``tokenizer.json``, of Hugging Face's library ``tokenizers``.

Byte pairs, Unigram (sentencepiece), word pieces that are not BERT's: the library reads the file and splits texts. The
class here gives it the methods that this project calls, as PaddleNLP's tokenizers have them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from clue_utils.features.tokenization import WORD_BEGIN
from clue_utils.language import say
from clue_utils.models.vocabulary import Added

SPECIAL_TOKENS = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token", "bos_token", "eos_token")
# How Qwen2 cuts a text before it looks for byte pairs: contractions, words, single digits, signs, line ends, blanks.
# As its published tokenizer.json has it.
_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Texts of which a tokenizer makes at least one token, whatever it is for.
_PROBES = ("a", "的", "1", "the", WORD_BEGIN)
# What next to no vocabulary has: rare characters of several kinds, and a word of more letters than any is looked up by.
_UNKNOWN = "ꙮ \U00012031 \U0001fa95 \U0002cea1 \ue123 " + "x" * 200


class Unreadable(Exception):
    """A description of a tokenizer that is none."""


class FastTokenizer:
    """A tokenizer as ``tokenizer.json`` describes it.

    Args:
        content: text of the file.
        special: special tokens by name ("cls_token"), each in the vocabulary.
        added: tokens that the file does not have, in order of their ids, which follow those of the vocabulary.
        truncation_side: "left" or "right": which end of a text that is too long is left out.

    Raises:
        Unreadable: the file describes none, one that fails on a character that it does not know, or a token has
            another id.
    """

    resource_files_names = {"tokenizer_file": "tokenizer.json"}
    padding_side = "right"
    pad_token_type_id = 0
    model_input_names = ("input_ids", "token_type_ids")

    def __init__(
        self, content: str, special: Mapping[str, str], added: Iterable[Added] = (), truncation_side: str = "right"
    ) -> None:
        self.truncation_side = truncation_side
        self._tokenizer = _parse(content)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._add(added)
        self.special_tokens_map = {name: special[name] for name in SPECIAL_TOKENS if special.get(name)}
        for name, token in self.special_tokens_map.items():
            if self._tokenizer.token_to_id(token) is None:
                raise Unreadable(say("{token!r:.60} is not in its vocabulary, the {name}", token=token, name=name))
        # None of them is split.
        known = {token.content for token in self._tokenizer.get_added_tokens_decoder().values()}
        unknown = [token for token in self.special_tokens_map.values() if token not in known]
        self._tokenizer.add_special_tokens([*dict.fromkeys(unknown)])
        if "pad_token" not in self.special_tokens_map:
            if "eos_token" not in self.special_tokens_map:
                raise Unreadable(say("nothing names a pad_token nor an eos_token to pad with"))
            self.special_tokens_map["pad_token"] = self.special_tokens_map["eos_token"]
        for name in SPECIAL_TOKENS:
            found = self.special_tokens_map.get(name)
            setattr(self, name, found)
            setattr(self, f"{name}_id", found and self._tokenizer.token_to_id(found))
        self.init_kwargs: dict[str, Any] = {}
        self.resources = {"tokenizer.json": self._tokenizer.to_str().encode()}
        _require_unknown(self._tokenizer)
        self._single, self._pair = _Form(self._tokenizer, False), _Form(self._tokenizer, True)

    def _add(self, added: Iterable[Added]) -> None:
        for token in added:
            if self._tokenizer.token_to_id(token.text) is None:
                kind = {"normalized": False, "special": token.special}
                self._tokenizer.add_tokens([AddedToken(token.text, **kind)])
            if (id_ := self._tokenizer.token_to_id(token.text)) != token.id:
                raise Unreadable(
                    say(
                        "the added token {text!r:.60} has id {id}, but {other} in the vocabulary",
                        text=token.text,
                        id=token.id,
                        other=id_,
                    )
                )

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    @property
    def vocab_size(self) -> int:
        return int(self._tokenizer.get_vocab_size(with_added_tokens=False))

    def get_vocab(self) -> dict[str, int]:
        """Ids of all tokens, added ones too."""
        return dict(self._tokenizer.get_vocab(with_added_tokens=True))

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text, without special ones; what it has no token for is as the file says.

        That is ``unk_token``, the character's bytes or, in byte pairs that name no unknown token, nothing.
        """
        return self.convert_ids_to_tokens(self.ids_of(text))

    def ids_of(self, text: str) -> list[int]:
        """The ids of a text's tokens, without special ones."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of the tokens of a text, and the half-open range of characters in it that each stands for.

        Blanks at the ends of a range are left out: a token of nothing else has an empty one, as has the mark of a
        word's beginning. Tokens that are bytes of one character share it.
        """
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        spans = []
        for token, (begin, end) in zip(encoding.tokens, encoding.offsets, strict=True):
            if token == WORD_BEGIN:  # put before a text, it is said to stand for the first character
                end = begin
            while begin < end and text[begin].isspace():
                begin += 1
            while begin < end and text[end - 1].isspace():
                end -= 1
            spans.append((begin, end))
        return list(encoding.ids), spans

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """The id of a token or ids of a list; of what is no token that of ``unk_token``, None where there is none."""
        if isinstance(tokens, str):
            id_ = self._tokenizer.token_to_id(tokens)
            return self.unk_token_id if id_ is None else id_  # type: ignore[attr-defined]
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        """The token of an id, or tokens of a list."""
        return self._tokenizer.id_to_token(ids) if isinstance(ids, int) else [*map(self._tokenizer.id_to_token, ids)]

    def build_inputs_with_special_tokens(self, first: list[int], second: list[int] | None = None) -> list[int]:
        """Ids of one text or two, as the model takes them."""
        return self._single.ids([first]) if second is None else self._pair.ids([first, second])

    def create_token_type_ids_from_sequences(self, first: list[int], second: list[int] | None = None) -> list[int]:
        """The segment of each token of what :meth:`build_inputs_with_special_tokens` gives."""
        return self._single.types([first]) if second is None else self._pair.types([first, second])

    def save_pretrained(self, folder: str) -> None:
        """Write what :func:`clue_utils.models.load_tokenizer` makes the same tokenizer of, and Hugging Face too."""
        for name, content in self.resources.items():
            Path(folder, name).write_bytes(content)
        # A token that there is none of is null, and not the usual one of its name when this is read again.
        tokens = {name: self.special_tokens_map.get(name) for name in SPECIAL_TOKENS}
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "truncation_side": self.truncation_side, **tokens}
        Path(folder, "tokenizer_config.json").write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")


class _Form:
    """Where special tokens and texts stand in a sequence: found by having two texts written."""

    def __init__(self, tokenizer: Tokenizer, is_pair: bool) -> None:
        for probe in _PROBES:
            encoding = tokenizer.encode(probe, probe if is_pair else None)
            places = encoding.sequence_ids
            if set(places) >= {0, int(is_pair)}:
                break
        else:
            raise Unreadable(say("it makes no token of any text"))
        # Special tokens (id, segment) as they are; a text as its number and its segment.
        self._parts: list[tuple[bool, int, int]] = []
        for id_, place, segment in zip(encoding.ids, places, encoding.type_ids, strict=True):
            part = (False, id_, segment) if place is None else (True, place, segment)
            if place is None or part not in self._parts:
                self._parts.append(part)
        if [number for is_text, number, _ in self._parts if is_text] != [0, 1][: 1 + is_pair]:
            raise Unreadable(say("it does not write one text after the other"))

    def ids(self, texts: Sequence[list[int]]) -> list[int]:
        parts = ((texts[number] if is_text else [number]) for is_text, number, _ in self._parts)
        return [id_ for part in parts for id_ in part]

    def types(self, texts: Sequence[list[int]]) -> list[int]:
        lengths = ((len(texts[number]) if is_text else 1, segment) for is_text, number, segment in self._parts)
        return [segment for length, segment in lengths for _ in range(length)]


def qwen2(vocabulary: Mapping[str, int], merges: list[tuple[str, str]]) -> str:
    """The ``tokenizer.json`` of a Qwen2 that has its byte pairs in ``vocab.json`` and ``merges.txt``.

    Raises:
        Unreadable: the two do not go together.
    """
    try:
        tokenizer = Tokenizer(BPE(dict(vocabulary), merges))
    except Exception as error:  # the library raises nothing more precise
        raise Unreadable(_reason(error)) from None
    tokenizer.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(_QWEN2_WORDS), behavior="isolated")
    in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, in_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    return str(tokenizer.to_str())


def _parse(content: str) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_str(content)
        if isinstance(tokenizer.model, BPE):
            tokenizer.model.dropout = None  # merges are left out at random: a text's ids would be others each time
        return tokenizer
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the library is no Exception
        raise Unreadable(_reason(error)) from None


def _require_unknown(tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer that fails on what its vocabulary lacks: one without the unknown token that it is to take."""
    try:
        tokenizer.encode(_UNKNOWN)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise Unreadable(
            say("it fails on a character that it does not know ({reason})", reason=_reason(error))
        ) from None


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__
