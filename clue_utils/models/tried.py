"""What was tried of each architecture, as data; the tests hold it to the table of architectures.

Every architecture is tried on all kinds of tasks by the tests, tiny and with random weights: trained, saved, loaded
again; and on all ten tasks by ``scripts/dev/try_architectures.py``. What is here is what that and
``scripts/dev/compare_pytorch.py`` showed beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Tried:
    """How an architecture was tried beyond the tests.

    Attributes:
        learnt: accuracy in percent on the demo's TNEWS after training from random weights, where chance has 6.7.
        full_size: the model whose full size was tried with random weights: an update, and predictions; "": none.
        pytorch: largest difference to what PyTorch computes with the same random weights, relative to the largest
            value; None: not compared.
    """

    learnt: float | None = None
    full_size: str = ""
    pytorch: float | None = None


# model_type -> how, in the order of the table of architectures.
TRIED: Mapping[str, Tried] = {
    "bert": Tried(learnt=99.3, full_size="bert-base-chinese", pytorch=1.5e-6),
    "ernie": Tried(learnt=99.3, full_size="ernie-3.0-base-zh", pytorch=1.5e-6),
    "roberta": Tried(learnt=99.3, full_size="hfl/roberta-wwm-ext", pytorch=1.3e-6),
    "electra": Tried(learnt=98.0, full_size="chinese-electra-base", pytorch=9.3e-7),
    "ernie_gram": Tried(learnt=98.7, full_size="ernie-gram-zh"),
    "albert": Tried(learnt=92.7, full_size="albert-chinese-base", pytorch=6.4e-7),
    "megatron-bert": Tried(learnt=98.7, full_size="megatronbert-cased", pytorch=1.6e-6),
    "roformer": Tried(learnt=98.7, full_size="roformer-chinese-base", pytorch=9.3e-7),
    "roformerv2": Tried(learnt=88.7, full_size="roformer_v2_chinese_char_base"),
    "nezha": Tried(learnt=92.7, full_size="nezha-base-chinese"),
    "ernie_m": Tried(learnt=99.3, full_size="ernie-m-base"),
    "tinybert": Tried(learnt=88.7, full_size="tinybert-6l-768d-zh"),
    "ppminilm": Tried(learnt=99.3, full_size="ppminilm-6l-768h"),
    "skep": Tried(learnt=98.7, full_size="skep_ernie_1.0_large_ch"),
    "gau_alpha": Tried(learnt=93.3, full_size="chinese_GAU-alpha-char_L-24_H-768"),
    "distilbert": Tried(learnt=97.3, full_size="distilbert/distilbert-base-multilingual-cased", pytorch=1.1e-6),
    "mobilebert": Tried(learnt=99.3, full_size="mobilebert-uncased"),
    "squeezebert": Tried(learnt=100.0, full_size="squeezebert-uncased"),
    "convbert": Tried(learnt=71.3, full_size="convbert-base"),
    "nystromformer": Tried(learnt=99.3, full_size="nystromformer-base-zh"),
    "fnet": Tried(learnt=99.3, full_size="fnet-base"),
    "ernie_doc": Tried(learnt=100.0, full_size="ernie-doc-base-zh"),
    "ernie-ctm": Tried(learnt=98.7, full_size="ernie-ctm"),
    "gpt": Tried(learnt=100.0, full_size="gpt-cpm-small-cn-distill"),
    "gpt2": Tried(learnt=100.0, full_size="uer/gpt2-chinese-cluecorpussmall", pytorch=7.6e-7),
    "qwen2": Tried(learnt=99.3, full_size="Qwen/Qwen2-0.5B", pytorch=1.8e-6),
    "qwen3": Tried(learnt=99.3, full_size="Qwen/Qwen3-0.6B", pytorch=2.0e-6),
    "deberta-v2": Tried(learnt=99.3, full_size="IDEA-CCNL/Erlangshen-DeBERTa-v2-97M-Chinese", pytorch=1.0e-6),
    "modernbert": Tried(learnt=99.3, full_size="jhu-clsp/mmBERT-base", pytorch=1.4e-6),
    "chinesebert": Tried(learnt=92.7, full_size="ChineseBERT-base"),
    "xlnet": Tried(learnt=97.3, full_size="chinese-xlnet-base", pytorch=6.2e-7),
    "unimo": Tried(learnt=100.0, full_size="unimo-text-1.0"),
    "unified_transformer": Tried(learnt=99.3, full_size="unified_transformer-12L-cn"),
    "glm": Tried(learnt=98.0, full_size="THUDM/glm-large-chinese"),
    "rembert": Tried(learnt=80.0, full_size="rembert", pytorch=3.6e-6),
    "xlm-roberta": Tried(learnt=96.7, full_size="FacebookAI/xlm-roberta-base", pytorch=7.3e-7),
    "mbart": Tried(learnt=100.0, full_size="mbart-large-cc25", pytorch=4.1e-7),
}
