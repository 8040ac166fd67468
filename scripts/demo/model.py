"""ERNIE and its kin with random weights, as ordinary checkpoint folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clue_utils import environment

SIZES = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "max_position_embeddings": 512,
    "type_vocab_size": 4,
}


def vocabulary() -> list[str]:
    """Word pieces in the order of ids: specials as ERNIE has them, ASCII, and the characters of GB2312."""
    specials = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", *(f"[unused{i}]" for i in range(1, 10))]
    ascii_marks = [chr(code) for code in range(0x21, 0x7F)]
    # Rows 1 to 3 hold punctuation, numbers in circles and full-width forms, rows 16 to 87 the 6,763 ideographs.
    gb2312 = [_gb2312(row, cell) for row in (1, 2, 3, *range(16, 88)) for cell in range(1, 95)]
    # Only what makes words of several characters continues one; ideographs stand alone.
    continuing = [char for char in ascii_marks + gb2312 if char.isalnum() and not "\u4e00" <= char <= "\u9fff"]
    pieces = specials + ascii_marks + gb2312 + [f"##{char}" for char in continuing]
    return [piece for piece in dict.fromkeys(pieces) if piece.strip()]


def _gb2312(row: int, cell: int) -> str:
    return bytes((0xA0 + row, 0xA0 + cell)).decode("gb2312", errors="ignore")  # some cells are empty


def make_model(
    folder: Path,
    seed: int = 0,
    sizes: Mapping[str, Any] = SIZES,
    family: str = "Ernie",
    tokenizer: Any = None,
) -> None:
    """Write an encoder with random weights, and its tokenizer, as a checkpoint folder.

    Seeds Paddle's generator.

    Args:
        sizes: what the family's configuration takes; without ``vocab_size``, that of the tokenizer.
        family: what PaddleNLP's names of its classes begin with.
        tokenizer: default: the family's, with ``vocabulary``.

    Raises:
        UserError: PaddlePaddle or PaddleNLP cannot be imported.
    """
    environment.import_libraries()
    import paddle
    from paddlenlp import transformers

    from clue_utils.models import save_model

    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer is None:
        vocab_file = folder / "vocab.txt"
        vocab_file.write_text("\n".join(vocabulary()) + "\n", encoding="utf-8", newline="\n")
        # PaddleNLP's RobertaTokenizer reads Chinese checkpoints with this class.
        tokenizer_class = "RobertaChineseTokenizer" if family == "Roberta" else f"{family}Tokenizer"
        tokenizer = getattr(transformers, tokenizer_class)(str(vocab_file))
    config = getattr(transformers, f"{family}Config")(**{"vocab_size": len(tokenizer), **sizes})
    paddle.seed(seed)
    save_model(getattr(transformers, f"{family}Model")(config), tokenizer, folder)
