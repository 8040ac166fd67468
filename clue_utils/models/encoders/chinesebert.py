"""ChineseBERT (Sun et al., "ChineseBERT: Chinese Pretraining Enhanced by Glyph and Pinyin Information", 2021).

Its embeddings want the pinyin of every token: eight letters and tones, 0 where there is none. The authors look a
character's reading up in its text; here it is the first of those that the model's own table has for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddlenlp import transformers

from clue_utils.errors import UserError, show
from clue_utils.language import say
from clue_utils.models.encoders.masks import or_ones, to_add
from clue_utils.models.vocabulary import read_object

# Letters and tones of a reading.
LENGTH = 8
# Where the table is published: in a file of its own, or in the tokenizer's settings.
_FILE, _SETTINGS = "id2pinyin.json", "tokenizer_config.json"
_NAME = "id2pinyin"


class ChineseBertModel(transformers.ChineseBertModel):
    """The encoder with the readings of its vocabulary, which are saved with it."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        # As numbers that any checkpoint can hold; half precision holds them too.
        self.register_buffer("readings", paddle.zeros([config.vocab_size, LENGTH]))

    def forward(
        self, input_ids: Any, token_type_ids: Any = None, attention_mask: Any = None
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Hidden states float [batch, length, hidden_size] and what is pooled of the first token [batch, hidden_size].

        Of int64 tensors [batch, length].
        """
        pinyin_ids = paddle.nn.functional.embedding(input_ids, self.readings).astype("int64")
        embedded = self.embeddings(input_ids, pinyin_ids, token_type_ids=token_type_ids)
        hidden = self.encoder(embedded, to_add(or_ones(attention_mask, input_ids)))
        return hidden, self.pooler(hidden)


def give_readings(encoder: ChineseBertModel, weights: Any) -> None:
    """Give an encoder the readings of its vocabulary: of its checkpoint, else of the table that is published beside it.

    Args:
        weights: of the checkpoint, ``clue_utils.models.weights.Weights``.

    Raises:
        UserError: there is no such table, or it is none of this vocabulary.
    """
    config = encoder.config
    saved = next((name for name in weights.shapes if name.rpartition(".")[2] == "readings"), None)
    file, rows = (weights.files[0], weights.get(saved)) if saved else _published(weights.files[0].parent, config)
    is_table = rows.shape == (config.vocab_size, LENGTH) and (rows == rows.astype(np.int64)).all()
    if not is_table or not rows.min() >= 0 or not rows.max() < config.pinyin_map_len:
        raise UserError(
            say(
                "{file}: its readings are not those of {vocab_size} tokens: use the files of one model",
                file=file,
                vocab_size=config.vocab_size,
            )
        )
    encoder.readings.set_value(rows.astype(np.float32))


def _published(folder: Path, config: Any) -> tuple[Path, np.ndarray]:
    """The file with the table in a model's folder, and the first reading of each token [vocab_size, LENGTH]."""
    file = next((path for path in (folder / _FILE, folder / "config" / _FILE) if path.is_file()), None)
    table = read_object(file) if file else read_object(folder / _SETTINGS).get(_NAME)
    file = file or folder / _SETTINGS
    if not isinstance(table, dict) or not table:
        raise UserError(
            say(
                "{folder}: no {file}, by which a ChineseBERT knows how its tokens are read; it stands in the "
                "folder config where the model was published",
                folder=folder,
                file=_FILE,
            )
        )
    rows = np.zeros((config.vocab_size, LENGTH))
    for token, readings in table.items():
        reading = readings[0] if isinstance(readings, list) and readings else None
        if not _is_reading(reading, config) or not token.isdecimal() or int(token) >= len(rows):
            raise UserError(
                say(
                    "{file}: {token}: {readings} is no list of readings of one of {num_rows} tokens, {length} "
                    "numbers below {pinyin_map_len} each: use the files of one model",
                    file=file,
                    token=show(token),
                    readings=show(readings),
                    num_rows=len(rows),
                    length=LENGTH,
                    pinyin_map_len=config.pinyin_map_len,
                )
            )
        rows[int(token)] = reading
    return file, rows


def _is_reading(value: Any, config: Any) -> bool:
    is_row = isinstance(value, list) and len(value) == LENGTH
    return is_row and all(type(number) is int and 0 <= number < config.pinyin_map_len for number in value)
