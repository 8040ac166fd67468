"""The tokenizers that the scripts can load, as data: PaddleNLP's classes by name, and what their files hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paddlenlp import transformers


class ErnieCtmTokenizer(transformers.ErnieCtmTokenizer):
    """One token a character, after several special tokens; PaddleNLP's class cannot tell its vocabulary."""

    def get_vocab(self) -> dict[str, int]:
        return dict(self.vocab.token_to_idx, **self.added_tokens_encoder)


@dataclass(frozen=True, eq=False)
class Kind:
    """One tokenizer.

    Attributes:
        name: PaddleNLP's.
        class_: PaddleNLP's class, or one derived from it; None: the files make a ``tokenizer.json`` of Qwen2's kind.
        files: names of the files that it is made of, by parameter of the class.
        makes_word_pieces: whether vocab.txt has pieces as BERT's, which a ``tokenizer.json`` may have as well.
        is_numbered: whether lines of vocab.txt tell the piece's id after a tab.
        appends: whether special tokens that the vocabulary lacks get the ids that follow it, in the order that
            PaddleNLP has them in; their models embed more than the vocabulary.
        uses_jieba: whether jieba finds the words of a text first.
    """

    name: str
    class_: Any
    files: Mapping[str, str]
    makes_word_pieces: bool = False
    is_numbered: bool = False
    appends: bool = False
    uses_jieba: bool = False


def _paddle(name: str, class_: Any = None, **attributes: bool) -> Kind:
    class_ = class_ or getattr(transformers, name)
    files = class_.resource_files_names
    if attributes.get("makes_word_pieces"):  # SKEP's English models have byte pairs besides
        files = {"vocab_file": "vocab.txt"}
    return Kind(name, class_, files, **attributes)


_WORD_PIECES = (
    "BertTokenizer ErnieTokenizer ErnieGramTokenizer ErnieDocTokenizer ElectraTokenizer RobertaChineseTokenizer "
    "AlbertChineseTokenizer NeZhaTokenizer RoFormerTokenizer RoFormerv2Tokenizer TinyBertTokenizer PPMiniLMTokenizer "
    "MegatronBertTokenizer ConvBertTokenizer MobileBertTokenizer SqueezeBertTokenizer DistilBertTokenizer "
    "NystromformerTokenizer GAUAlphaTokenizer SkepTokenizer"
).split()
KINDS = (
    *(_paddle(name, makes_word_pieces=True) for name in _WORD_PIECES),
    _paddle("UNIMOTokenizer", makes_word_pieces=True, is_numbered=True),
    _paddle("ErnieCtmTokenizer", ErnieCtmTokenizer),
    _paddle("ErnieMTokenizer"),
    _paddle("ErnieTinyTokenizer"),
    _paddle("UnifiedTransformerTokenizer", is_numbered=True),
    _paddle("AlbertEnglishTokenizer"),
    _paddle("XLNetTokenizer"),
    _paddle("XLMRobertaTokenizer"),
    _paddle("RemBertTokenizer"),
    _paddle("MBartTokenizer"),
    _paddle("MBart50Tokenizer"),
    _paddle("DebertaV2Tokenizer", appends=True),
    _paddle("GLMChineseTokenizer", appends=True),
    _paddle("GPTChineseTokenizer", uses_jieba=True),
    Kind("Qwen2Tokenizer", None, {"vocab_file": "vocab.json", "merges_file": "merges.txt"}),
)
_BY_NAME = {kind.name: kind for kind in KINDS}


def common_name(name: str) -> str:
    """What the names of a model's type, tokenizer and classes have in common: "ernie_gram", "ErnieGramModel"."""
    name = re.sub(r"(Tokenizer(Fast)?|For[A-Z]\w*|(PreTrained|Pretrained)?Model)$", "", name)
    return re.sub(r"[^a-z0-9]", "", name.lower())


# Tokenizers by what their names and those of models have in common. Of several that go by one name the files tell
# which it is: the first whose files are all there.
CANDIDATES = {common_name(kind.name): (kind,) for kind in KINDS} | {
    key: tuple(_BY_NAME[name] for name in names.split())
    for key, names in {
        "albert": "AlbertChineseTokenizer AlbertEnglishTokenizer",
        "ernie": "ErnieTinyTokenizer ErnieTokenizer",
        "debertav2": "DebertaV2Tokenizer BertTokenizer",
        # A tokenizer of BERT's; pinyin is made of the ids, by the encoder. PaddleNLP's class mixes up its settings.
        "chinesebert": "BertTokenizer",
        "gpt": "GPTChineseTokenizer",
        "gpt2": "BertTokenizer",
        "glm": "GLMChineseTokenizer",
        "roberta": "RobertaChineseTokenizer",
        "qwen3": "Qwen2Tokenizer",
    }.items()
}


def find_published(name: str) -> tuple[Kind, Any] | None:
    """The tokenizer of a model that comes with PaddleNLP by name, and the class that knows the name's files."""
    if name in transformers.ChineseBertTokenizer.pretrained_init_configuration:
        return _BY_NAME["BertTokenizer"], transformers.ChineseBertTokenizer
    # ErnieTokenizer has the name of ernie-tiny, too.
    for kind in sorted(KINDS, key=lambda kind: kind.name == "ErnieTokenizer"):
        if kind.class_ and name in kind.class_.pretrained_init_configuration:
            return kind, kind.class_
    return None
