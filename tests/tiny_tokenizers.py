"""Tokenizers of every kind, tiny: sentencepiece and byte pairs are trained on texts that are made here."""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

from clue_utils import environment
from demo.architectures import SYMBOLS, pieces_of, train_sentence_pieces

environment.import_libraries()

from paddlenlp import transformers as nlp  # noqa: E402
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, normalizers, pre_tokenizers  # noqa: E402

from clue_utils.models.fast_tokenizer import FastTokenizer  # noqa: E402

WORDS = (
    "北京 上海 大学 公司 天气 今天 不错 我们 他们 的 了 在 是 和 有 人 年 月 日 成立 于 位于 中国 电影 导演 音乐 "
    "学校 老师 学生 世界 城市 河流 一 二 三 四 五 ， 。 、 “ ” 《 》 （ ） ： ！ ？ 1 2 3 2008 15 the of and song "
    "Apple iPhone Beijing e 天地 玄黄 宇宙 洪荒 日月 盈昃"
).split()
SPECIAL = (*SYMBOLS, "[UNUSED1]", "[UNUSED2]")
# Of sentencepiece: whole texts; of byte pairs; of words (jieba's, or of a list) and single characters.
SENTENCE_PIECES = ("XLNet", "XLMRoberta", "ErnieM", "MBart", "RemBert", "AlbertEnglish", "DebertaV2", "GLMChinese")
WORD_SENTENCE_PIECES = ("UnifiedTransformer", "GPTChinese", "ErnieTiny")
BYTE_PAIRS = ("Qwen2", "GPT", "RobertaBPE")
WORD_PIECES = ("Bert", "RoFormer", "ErnieCtm")
TOKENIZER_JSON = ("JsonBytePairs", "JsonUnigram")
KINDS = (*SENTENCE_PIECES, *WORD_SENTENCE_PIECES, *BYTE_PAIRS, *WORD_PIECES, *TOKENIZER_JSON)


def made_texts(number: int = 400) -> list[str]:
    choose = random.Random(0)
    blanks = choose.choices(["", "", "", " ", "　"], k=number)
    return [blank.join(choose.choices(WORDS, k=30)) for blank in blanks]


def train(folder: Path, texts: list[str] | None = None, size: int = 400) -> None:
    """Write what the tokenizers below are made of into a folder."""
    texts = texts or made_texts()
    pieces = pieces_of(train_sentence_pieces(folder / "m.model", texts, size, SPECIAL))
    (folder / "pieces.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    pairs = ByteLevelBPETokenizer()
    specials = ["<|endoftext|>", "<s>", "</s>", "<pad>", "<unk>", "<mask>"]
    pairs.train_from_iterator(texts, vocab_size=256 + size, special_tokens=specials, show_progress=False)
    pairs.save_model(str(folder))
    pairs.save(str(folder / "pairs.json"))
    chars = sorted({char.lower() for text in texts for char in text if not char.isspace()})
    words = [word for word in WORDS if len(word) > 1]
    marks = "[PAD] [UNK] [CLS] [SEP] [MASK] [unused1] [CLS0] [CLS1]".split()
    lines = [*marks, *dict.fromkeys([*chars, *words, *(f"##{char}" for char in chars)])]
    (folder / "vocab.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (folder / "words.pickle").write_bytes(pickle.dumps({word: 1 for word in words}))


def make(kind: str, folder: Path) -> Any:
    """The tokenizer of a kind (see ``KINDS``) of what :func:`train` has written into a folder."""
    if kind in TOKENIZER_JSON:
        return FastTokenizer(_tokenizer_json(kind, folder), {"unk_token": "<unk>", "eos_token": "</s>"})
    class_ = getattr(nlp, f"{kind}Tokenizer")
    pieces, vocab, model = (str(folder / name) for name in ("pieces.txt", "vocab.txt", "m.model"))
    if kind in BYTE_PAIRS:
        return class_(str(folder / "vocab.json"), str(folder / "merges.txt"))
    if kind in WORD_PIECES:
        settings = {"RoFormer": {"use_jieba": True}, "ErnieCtm": {"cls_num": 2}}
        return class_(vocab, **settings.get(kind, {}))
    if kind in ("ErnieM", "UnifiedTransformer"):
        return class_(pieces, model)
    if kind == "ErnieTiny":
        return class_(pieces, model, str(folder / "words.pickle"))
    return class_(model)


def saved(tokenizer: Any, folder: Path) -> Path:
    """A folder, which is made, with a tokenizer as a run saves it beside weights."""
    folder.mkdir(exist_ok=True)
    tokenizer.save_pretrained(str(folder))
    (folder / "model.safetensors").touch()
    return folder


def ids(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text without special tokens, by way of the tokens."""
    found: list[int] = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text))
    return found


def _tokenizer_json(kind: str, folder: Path) -> str:
    """The text of a tokenizer.json: byte pairs, or the pieces of sentencepiece with their scores."""
    import sentencepiece

    if kind == "JsonBytePairs":
        return (folder / "pairs.json").read_text(encoding="utf-8")
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "m.model"))
    scores = [(piece, model.get_score(i)) for i, piece in enumerate(pieces_of(model))]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=model.unk_id()))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return str(tokenizer.to_str())
