"""The pieces of a checkpoint's vocabulary and its JSON files: read, bounded and checked before anything uses them."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any, NamedTuple

from clue_utils import strict_json
from clue_utils.errors import UserError
from clue_utils.features.tokenization import WORD_BEGIN
from clue_utils.language import later, say
from clue_utils.strict_json import JsonObject

# Far above what any model has (a vocabulary of 250,000 pieces takes some 5 MB); what is larger is no vocabulary.
_MAX_BYTES = 64 << 20
_MAX_PIECES = 2_000_000
_MAX_PIECE_CHARS = 1_000
_SAME_MODEL = later("copy the file anew from the model that the weights are of")


class Added(NamedTuple):
    """A token that is found in a text before anything splits it; ``id`` may lie beyond the vocabulary."""

    id: int
    text: str
    special: bool


class TokenizerJson(NamedTuple):
    """What a tokenizer.json of word pieces says: the pieces by id, added tokens, and settings by PaddleNLP's names."""

    pieces: list[str]
    added: list[Added]
    settings: JsonObject


def read_object(path: Path) -> JsonObject:
    """The object in a JSON file; empty where there is no such file.

    Raises:
        UserError: the file cannot be read, is too large, or holds anything else.
    """
    if not path.exists():
        return {}
    try:
        # NaN is refused by name where the setting is used; of a key that is there twice the last value counts, as for
        # those who wrote and tried the model.
        value, _ = strict_json.parse(read_bytes(path).removeprefix(codecs.BOM_UTF8), allow_nan=True)
    except strict_json.NotJson as error:
        where = str(path)
        if error.line and error.line > 1:
            where = say("{path}, line {number}", path=path, number=error.line)
        raise UserError(
            say("{path}: {error}; {same_model}", path=where, error=error, same_model=say(_SAME_MODEL))
        ) from None
    if not isinstance(value, dict):
        raise UserError(
            say(
                "{path}: holds a {name}, expected an object; {same_model}",
                path=path,
                name=type(value).__name__,
                same_model=say(_SAME_MODEL),
            )
        )
    return value


def read_vocabulary(path: Path, word_pieces: bool) -> list[str]:
    """Pieces of a vocab.txt, one a line; the id of a piece is the number of its line, from 0.

    Lines are told apart as transformers and PaddleNLP do (``\\n``, ``\\r\\n`` or ``\\r``), and of equal lines the last
    counts there. A byte order mark is not part of the first piece. Blanks around a word piece are not part of it
    either (google-research/bert, ``load_vocab``) unless the same piece has a line without them.

    Raises:
        UserError: there is no such file, or it is none of UTF-8 text with one piece a line.
    """
    content = read_bytes(path)
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            say(
                "{path}, line {number}: not UTF-8 text; {same_model}",
                path=path,
                number=number,
                same_model=say(_SAME_MODEL),
            )
        ) from None
    if text.count("\n") > _MAX_PIECES:
        raise UserError(
            say(
                "{path}: more than {max_pieces:,} lines, which no vocabulary has; {same_model}",
                path=path,
                max_pieces=_MAX_PIECES,
                same_model=say(_SAME_MODEL),
            )
        )
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    if not any(lines):
        raise UserError(say("{path}: empty; {same_model}", path=path, same_model=say(_SAME_MODEL)))
    for number, line in enumerate(lines, 1):
        _check_piece(line, say("{path}, line {number}", path=path, number=number))
    if not word_pieces:
        return lines
    exact = set(lines)
    pieces = [line if line.strip() in exact else line.strip() for line in lines]
    _require_word_pieces(pieces, path)
    return pieces


def read_numbered_vocabulary(path: Path) -> list[str]:
    """Pieces of a vocab.txt with lines of a piece, a tab and its id; a line of a piece alone has its number for id.

    Raises:
        UserError: there is no such file, or it leaves out ids.
    """
    by_id: dict[int, str] = {}
    for number, line in enumerate(read_vocabulary(path, word_pieces=False)):
        piece, tab, id_text = line.rpartition("\t")
        if tab and not (id_text.isascii() and id_text.isdigit() and len(id_text) < 10):
            raise UserError(
                say(
                    "{path}, line {number}: {id!r:.20} is not the id of a piece; {same_model}",
                    path=path,
                    number=number + 1,
                    id=id_text,
                    same_model=say(_SAME_MODEL),
                )
            )
        by_id[int(id_text) if tab else number] = piece if tab else line
    if max(by_id) >= len(by_id):
        raise UserError(
            say(
                "{path}: two lines have one id, or ids are left out; {same_model}",
                path=path,
                same_model=say(_SAME_MODEL),
            )
        )
    return [by_id[id_] for id_ in range(len(by_id))]


def read_merges(path: Path) -> list[tuple[str, str]]:
    """The pairs of merges.txt, in order: two pieces a line, after a line that tells the version.

    Raises:
        UserError: there is no such file, or a line is not a pair.
    """
    pairs = []
    for number, line in enumerate(read_vocabulary(path, word_pieces=False), 1):
        first, _, second = line.partition(" ")
        if not line or number == 1 and line.startswith("#version"):
            continue
        if not first or not second or " " in second:
            raise UserError(
                say(
                    "{path}, line {number}: {line!r:.40} is not two pieces; {same_model}",
                    path=path,
                    number=number,
                    line=line,
                    same_model=say(_SAME_MODEL),
                )
            )
        pairs.append((first, second))
    return pairs


def read_ids(path: Path) -> dict[str, int]:
    """The ids of a vocab.json by piece.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    read_bytes(path)  # that there is such a file
    ids = read_object(path)
    for piece, id_ in ids.items():
        _check_piece(piece, f"{path}, id {id_!r:.20}")
        if type(id_) is not int or not 0 <= id_ < _MAX_PIECES:
            raise UserError(
                say(
                    "{path}: {id!r:.20} is not the id of {piece!r:.40}; {same_model}",
                    path=path,
                    id=id_,
                    piece=piece,
                    same_model=say(_SAME_MODEL),
                )
            )
    if len({*ids.values()}) < len(ids) or not ids:
        raise UserError(
            say("{path}: empty, or one id is that of two pieces; {same_model}", path=path, same_model=say(_SAME_MODEL))
        )
    return ids


def makes_bert_pieces(content: JsonObject) -> bool:
    """Whether what a tokenizer.json holds makes word pieces as google-research/bert does."""
    model, normalizer = content.get("model"), content.get("normalizer")
    if not isinstance(model, dict) or not isinstance(normalizer, dict):
        return False
    return (
        model.get("type", "WordPiece") == "WordPiece"
        and model.get("continuing_subword_prefix", "##") == "##"
        and model.get("max_input_chars_per_word", 100) == 100
        and _type(content.get("pre_tokenizer")) == "BertPreTokenizer"
        and normalizer.get("type") == "BertNormalizer"
        and normalizer.get("clean_text", True) is True
    )


def read_bert_pieces(path: Path, content: JsonObject) -> TokenizerJson:
    """The vocabulary and settings in a tokenizer.json that :func:`makes_bert_pieces`.

    Raises:
        UserError: it is malformed.
    """
    model, normalizer = content["model"], content["normalizer"]
    if not isinstance(model.get("vocab"), dict):
        raise UserError(
            say("{path}: no model.vocab that maps pieces to ids; {same_model}", path=path, same_model=say(_SAME_MODEL))
        )
    added = [_added(path, token) for token in _list(path, content, "added_tokens")]
    by_id: dict[int, str] = {}
    texts = [*model["vocab"].items(), *((token.text, token.id) for token in added)]
    for piece, id_ in texts:
        _check_piece(piece, f"{path}, id {id_!r:.20}")
        if type(id_) is not int or not 0 <= id_ < len(texts) or by_id.setdefault(id_, piece) != piece:
            raise UserError(
                say(
                    "{path}: {id!r:.20} is not the id of {piece!r:.40} alone; {same_model}",
                    path=path,
                    id=id_,
                    piece=piece,
                    same_model=say(_SAME_MODEL),
                )
            )
    # Tokens were added behind the vocabulary or into a gap of it; those behind stay added tokens.
    size = 1 + max(model["vocab"].values(), default=-1)
    if not size or any(id_ not in by_id for id_ in range(size)):
        raise UserError(
            say("{path}: model.vocab leaves out ids or is empty; {same_model}", path=path, same_model=say(_SAME_MODEL))
        )
    names = {"lowercase": "do_lower_case", "strip_accents": "strip_accents"}
    names["handle_chinese_chars"] = "tokenize_chinese_chars"
    settings = {ours: normalizer[theirs] for theirs, ours in names.items() if theirs in normalizer}
    if "unk_token" in model:
        settings["unk_token"] = model["unk_token"]
    pieces = [by_id[id_] for id_ in range(size)]
    _require_word_pieces(pieces, path)
    return TokenizerJson(pieces, added, settings)


def added_tokens(folder: Path, settings: JsonObject) -> list[Added]:
    """Tokens that tokenizer_config.json, or else added_tokens.json, adds to the vocabulary.

    Raises:
        UserError: either is malformed.
    """
    path = folder / "tokenizer_config.json"
    decoder = settings.get("added_tokens_decoder")
    if decoder is not None:
        if not isinstance(decoder, dict):
            raise UserError(
                say("{path}: added_tokens_decoder is {decoder!r:.40}, expected an object", path=path, decoder=decoder)
            )
        tokens = [token if isinstance(token, dict) else {"content": token} for token in decoder.values()]
        ids = [int(key) if key.isascii() and key.isdigit() and len(key) < 10 else key for key in decoder]
        return [_added(path, {**token, "id": id_}) for id_, token in zip(ids, tokens, strict=True)]
    path = folder / "added_tokens.json"
    return [_added(path, {"content": text, "id": id_}) for text, id_ in read_object(path).items()]


def _added(path: Path, token: Any) -> Added:
    text, id_, special = map((token if isinstance(token, dict) else {}).get, ("content", "id", "special"))
    if not isinstance(text, str) or not text or type(id_) is not int or id_ < 0:
        raise UserError(
            say("{path}: {token!r:.80} is not an added token, which has a content and an id", path=path, token=token)
        )
    _check_piece(text, say("{path}, added token {id}", path=path, id=id_))
    return Added(id_, text, special is True)


def read_bytes(path: Path) -> bytes:
    """The bytes of a file of a checkpoint.

    Raises:
        UserError: there is no such file, or it is larger than any of its kind.
    """
    if path.is_dir():
        raise UserError(say("{path}: a folder, expected a file; {same_model}", path=path, same_model=say(_SAME_MODEL)))
    if not path.is_file():
        raise UserError(say("{path}: no such file; {same_model}", path=path, same_model=say(_SAME_MODEL)))
    if path.stat().st_size > _MAX_BYTES:
        raise UserError(
            say(
                "{path}: larger than {max_bytes} MB, which no such file is; {same_model}",
                path=path,
                max_bytes=_MAX_BYTES >> 20,
                same_model=say(_SAME_MODEL),
            )
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(say("{path}: cannot be read ({strerror})", path=path, strerror=error.strerror)) from None


def _check_piece(piece: str, where: str) -> None:
    if len(piece) > _MAX_PIECE_CHARS:
        raise UserError(
            say(
                "{where}: {num_piece:,} characters, more than a piece of a word has; {same_model}",
                where=where,
                num_piece=len(piece),
                same_model=say(_SAME_MODEL),
            )
        )
    if any(char in piece for char in "\0\n\r") or not piece.isprintable() and _has_surrogate(piece):
        raise UserError(
            say(
                "{where}: holds a character that no piece has (NUL, line end, half a pair); {same_model}",
                where=where,
                same_model=say(_SAME_MODEL),
            )
        )


def _has_surrogate(piece: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in piece)


def _require_word_pieces(pieces: list[str], path: Path) -> None:
    """Refuse a vocabulary of sentencepiece, of which a tokenizer of word pieces would find next to nothing."""
    of_sentences = sum(piece.startswith(WORD_BEGIN) and len(piece) > 1 for piece in pieces)
    if of_sentences and not any(piece.startswith("##") for piece in pieces):
        raise UserError(
            say(
                "{path}: {of_sentences} of {num_pieces} pieces begin with {word_begin}: a vocabulary of "
                "sentencepiece (as ernie-tiny has), which the tokenizer of this folder does not use; take a model "
                "of word pieces",
                path=path,
                of_sentences=of_sentences,
                num_pieces=len(pieces),
                word_begin=WORD_BEGIN,
            )
        )


def _list(path: Path, content: JsonObject, key: str) -> list[Any]:
    value = content.get(key)
    if not isinstance(value, list | None):
        raise UserError(say("{path}: {key} is {value!r:.40}, expected a list", path=path, key=key, value=value))
    return value or []


def _type(part: Any) -> Any:
    return part.get("type") if isinstance(part, dict) else part
