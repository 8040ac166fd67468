"""Load a pretrained model and its tokenizer from a name or a folder, and save a checkpoint of ours."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paddle
from paddlenlp import transformers
from paddlenlp.transformers import ErnieGramModel, ErnieGramPretrainedModel
from safetensors import safe_open
from safetensors.numpy import save_file

from clue_utils import runtime
from clue_utils.errors import UserError
from clue_utils.models.source import PICKLES, SAFE_WEIGHTS, read_settings, readable_errors, unshadowed
from clue_utils.results import WEIGHTS_FILE as SAFETENSORS
from clue_utils.results import flush_names, flush_to_disk, give_default_permissions, read_result
from clue_utils.tasks import Task

logger = logging.getLogger(__name__)

_AUTO_CLASSES = {
    "classification": "AutoModelForSequenceClassification",
    "multiple_choice": "AutoModelForMultipleChoice",
    "cloze": "AutoModelForMultipleChoice",
    "span": "AutoModelForQuestionAnswering",
}


def load_model(name_or_path: str, task: Task, dropout: float, num_outputs: int, training: bool) -> paddle.nn.Layer:
    """Load the encoder with the task's head.

    Args:
        dropout: probability for every dropout of encoder (hidden and attention) and head.
        num_outputs: classes of a classifier, choices of a question; not used for spans.
        training: a head that is missing or of another shape is then drawn anew; otherwise it is refused, since its
            predictions would be noise.

    Raises:
        UserError: no such model, unreadable weights, or a head that does not fit and ``training`` is false.
    """
    settings: dict[str, Any] = {
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        "classifier_dropout": dropout,
        "use_cache": False,  # Hugging Face's configurations set it, and outputs become tuples
    }
    if task.kind == "classification":
        settings["num_classes"] = num_outputs
    elif task.kind != "span":
        settings["num_choices"] = num_outputs
    trained_on = (read_result(name_or_path) or {}).get("task", task.name)
    if not training and trained_on != task.name:
        raise UserError(
            f"{name_or_path} was fine-tuned for {trained_on}: it has no head for {task.name}; name a checkpoint "
            f"fine-tuned for that, or fine-tune this one with --do_train"
        )
    with readable_errors(name_or_path), unshadowed(name_or_path) as found, _as_safetensors(found) as source:
        model = _model_class(task, source).from_pretrained(
            source,
            ignore_mismatched_sizes=training,
            convert_from_torch=_is_torch_checkpoint(source) or None,
            **settings,
        )
        if not training:
            _require_head(model, source, name_or_path, task)
    return model


def check_fit(model: paddle.nn.Layer, tokenizer: Any, max_seq_length: int) -> None:
    """Refuse inputs that the model has no embedding for, which Paddle would end with a crash.

    Raises:
        UserError: sequences longer than the positions, or a vocabulary larger than the embedding.
    """
    positions = getattr(model.config, "max_position_embeddings", max_seq_length)
    if max_seq_length > positions:
        raise UserError(f"--max_seq_length {max_seq_length}: the model has {positions} positions; pass at most that")
    if len(tokenizer) > model.config.vocab_size:
        raise UserError(
            f"the tokenizer knows {len(tokenizer)} tokens but the model embeds {model.config.vocab_size}: "
            "vocab.txt and weights are not of one model"
        )


def save_model(model: paddle.nn.Layer, tokenizer: Any, folder: Path) -> None:
    """Save weights (safetensors), configuration and tokenizer into ``folder``.

    Each file is written in a folder of its own first and then moved into place, so that an interrupted save leaves
    the earlier checkpoint whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=".saving-", suffix=".tmp", dir=folder) as temporary,
        runtime.os_errors(folder),
    ):
        model.save_pretrained(temporary, safe_serialization=True)
        tokenizer.save_pretrained(temporary)
        flush_to_disk(Path(temporary))
        # The weights last: they are what says that a checkpoint is there.
        for name in sorted(os.listdir(temporary), key=lambda name: name == SAFETENSORS):
            give_default_permissions(Path(temporary, name))
            os.replace(os.path.join(temporary, name), folder / name)
        flush_names(folder)


def _model_class(task: Task, name_or_path: str) -> Any:
    """PaddleNLP's automatic class for the kind of task; for ERNIE-Gram's missing head, ours."""
    model_type = read_settings(name_or_path, "config.json").get("model_type")
    is_ernie_gram = model_type == "ernie_gram" or name_or_path in ErnieGramModel.pretrained_init_configuration
    if is_ernie_gram and task.kind in ("multiple_choice", "cloze"):
        return ErnieGramForMultipleChoice
    return getattr(transformers, _AUTO_CLASSES[task.kind])


class ErnieGramForMultipleChoice(ErnieGramPretrainedModel):
    """A score for each choice from the pooled output, which PaddleNLP has for ERNIE and BERT but not for ERNIE-Gram."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.ernie_gram = ErnieGramModel(config)
        self.dropout = paddle.nn.Dropout(config.classifier_dropout)
        self.classifier = paddle.nn.Linear(config.hidden_size, 1)

    def forward(self, input_ids: Any, token_type_ids: Any = None, attention_mask: Any = None) -> paddle.Tensor:
        """Logits float [batch, choices] of int64 tensors [batch, choices, length]."""
        flat = [x if x is None else x.flatten(0, 1) for x in (input_ids, token_type_ids, attention_mask)]
        pooled = self.ernie_gram(flat[0], token_type_ids=flat[1], attention_mask=flat[2])[1]
        return self.classifier(self.dropout(pooled)).reshape([input_ids.shape[0], -1])


@contextlib.contextmanager
def _as_safetensors(name_or_path: str) -> Iterator[str]:
    """Yield a folder to load from in which no pickle has to be trusted: the one given, or a temporary copy of it."""
    folder = Path(name_or_path)
    require_safe_shards(folder)
    pickles = [(folder / name, read, format_) for name, read, format_ in PICKLES if (folder / name).is_file()]
    if any((folder / name).is_file() for name in SAFE_WEIGHTS) or not pickles:
        yield name_or_path
        return
    path, read, format_ = pickles[0]
    logger.warning("%s is a pickle: reading arrays from it and nothing else; safetensors load faster and safer", path)
    with tempfile.TemporaryDirectory() as copy:
        save_file(read(path), os.path.join(copy, SAFETENSORS), metadata={"format": format_})
        for settings in folder.glob("*.json"):
            shutil.copy(settings, copy)
        yield copy


def require_safe_shards(folder: Path) -> None:
    """Refuse an index of weights that names other files than safetensors beside it: PaddleNLP would unpickle those.

    Raises:
        UserError: it does, or it cannot be read.
    """
    for index in folder.glob("*.index.json"):
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            safe = all(shard == Path(shard).name and shard.endswith(".safetensors") for shard in shards)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{index}: not an index of weights ({error})") from None
        if not safe:
            raise UserError(f"{index}: refused, it names files that are no safetensors of this folder")


def _is_torch_checkpoint(name_or_path: str) -> bool:
    """Whether a folder's weights were written by PyTorch, as the metadata of safetensors say."""
    file = Path(name_or_path) / SAFETENSORS
    if not file.is_file():
        return False
    with safe_open(str(file), framework="np") as weights:
        return (weights.metadata() or {}).get("format") == "pt"


def _require_head(model: paddle.nn.Layer, source: str, name_or_path: str, task: Task) -> None:
    """Refuse to predict with a head that the checkpoint, loaded from ``source``, does not hold."""
    stored: set[str] = set()  # a published encoder: none of them comes with a head for a CLUE task
    if (Path(source) / SAFETENSORS).is_file():
        with safe_open(str(Path(source) / SAFETENSORS), framework="np") as file:
            stored = set(file.keys())
    if _is_torch_checkpoint(source):
        stored |= {m.target_name for m in model._get_name_mappings(model.config) if m.source_name in stored}
    encoder = f"{model.base_model_prefix}."
    missing = sorted(name for name in model.state_dict() if not name.startswith(encoder) and name not in stored)
    if missing:
        raise UserError(
            f"{name_or_path} has no trained head for {task.name} ({', '.join(missing)} missing): "
            "name the folder of a fine-tuned checkpoint, or fine-tune this one with --do_train"
        )
