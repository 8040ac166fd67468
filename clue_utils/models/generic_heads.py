"""The heads of all kinds of tasks over any encoder: for architectures that have none in PaddleNLP, or a wrong one.

An encoder of this project is called with int64 tensors [batch, length] (``input_ids``, and of ``token_type_ids`` and
``attention_mask``, ones for tokens and zeros for padding, those that its ``forward`` names) and gives its last hidden
states, float [batch, length, hidden_size], alone or as the first of a tuple. ``Family.encoder_class`` makes one of an
encoder that PaddleNLP has with another interface.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import paddle

from clue_utils.models.encoders.masks import last_states, or_ones
from clue_utils.models.heads import parameter_names

# How the states of a text become one: of its first token ([CLS]), of its last that is no padding, the mean of all that
# are none, or the second thing that the encoder gives, a layer over the first token that was trained with it.
POOLS = ("first", "last", "mean", "pooler")
# What stands between encoder and classifier: its name, and a layer of float [..., hidden_size] by configuration.
Neck = tuple[str, Callable[[Any], paddle.nn.Layer]]


def make_head_class(encoder_class: Any, pools: str | Callable[[Any], str], name: str, neck: Neck | None = None) -> Any:
    """A class of encoder and head, as PaddleNLP's are built: a PretrainedModel with ``classifier`` over the encoder.

    Args:
        encoder_class: derived from a PretrainedModel that knows configuration, prefix and initialisation.
        pools: one of ``POOLS``, or configuration -> one of them; of no account for spans.
        name: of the class; its end tells the kind.
    """
    kind = next(kind for kind in _KINDS if name.endswith(kind.__name__))
    of_config = pools if callable(pools) else lambda _: pools
    members = {"encoder_class": encoder_class, "pools": staticmethod(of_config), "neck": neck, "__module__": __name__}
    return type(name, (kind, _pretrained_class(encoder_class)), members)


def _pretrained_class(encoder_class: Any) -> Any:
    """The class that PaddleNLP derives encoder and heads of an architecture from."""
    return next(
        each for each in encoder_class.__mro__ if "base_model_prefix" in vars(each) and each is not encoder_class
    )


def encode(model: Any, input_ids: Any, token_type_ids: Any = None, attention_mask: Any = None) -> tuple[Any, ...]:
    """What a model's encoder gives of int64 tensors [batch, length], the hidden states first."""
    encoder = getattr(model, model.base_model_prefix)
    accepted = parameter_names(type(encoder).forward)
    inputs = {"token_type_ids": token_type_ids, "attention_mask": attention_mask}
    output = encoder(input_ids, **{name: value for name, value in inputs.items() if name in accepted})
    return tuple(output) if isinstance(output, (tuple, list)) else (output,)


class _OverEncoder:
    """What the kinds of heads share."""

    encoder_class: Any
    pools: Callable[[Any], str]
    neck: Neck | None
    # Given by PaddleNLP's class.
    base_model_prefix: str

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        setattr(self, self.base_model_prefix, self.encoder_class(config))
        self.pooling = self.pools(config)
        if self.neck:
            setattr(self, self.neck[0], self.neck[1](config))
        self.dropout = paddle.nn.Dropout(config.classifier_dropout)
        self.classifier = paddle.nn.Linear(config.hidden_size, self._num_outputs(config))

    @staticmethod
    def _num_outputs(config: Any) -> int:
        raise NotImplementedError

    def _pooled(self, input_ids: Any, token_type_ids: Any, attention_mask: Any) -> paddle.Tensor:
        """What the classifier takes of each text, float [batch, hidden_size]."""
        hidden, *others = encode(self, input_ids, token_type_ids, attention_mask)
        if self.pooling == "pooler":
            return self._through_neck(others[0])
        if self.pooling == "first":
            return self._through_neck(hidden[:, 0])
        mask = or_ones(attention_mask, input_ids)
        if self.pooling == "mean":
            weights = mask.astype(hidden.dtype) / mask.sum(axis=1, keepdim=True).astype(hidden.dtype)
            return self._through_neck((hidden * weights.unsqueeze(-1)).sum(axis=1))
        return self._through_neck(last_states(hidden, mask))

    def _through_neck(self, states: paddle.Tensor) -> paddle.Tensor:
        return getattr(self, self.neck[0])(states) if self.neck else states


class ForSequenceClassification(_OverEncoder):
    """A score for each class of a text."""

    @staticmethod
    def _num_outputs(config: Any) -> int:
        return int(config.num_labels)

    def forward(self, input_ids: Any, token_type_ids: Any = None, attention_mask: Any = None) -> paddle.Tensor:
        """Logits float [batch, classes] of int64 tensors [batch, length]."""
        return self.classifier(self.dropout(self._pooled(input_ids, token_type_ids, attention_mask)))


class ForMultipleChoice(_OverEncoder):
    """A score for each choice of a question."""

    @staticmethod
    def _num_outputs(config: Any) -> int:
        return 1

    def forward(self, input_ids: Any, token_type_ids: Any = None, attention_mask: Any = None) -> paddle.Tensor:
        """Logits float [batch, choices] of int64 tensors [batch, choices, length]."""
        flat = [x if x is None else x.flatten(0, 1) for x in (input_ids, token_type_ids, attention_mask)]
        return self.classifier(self.dropout(self._pooled(*flat))).reshape(input_ids.shape[:2])


class ForQuestionAnswering(_OverEncoder):
    """A score for each token as the start of the answer, and as its end."""

    @staticmethod
    def _num_outputs(config: Any) -> int:
        return 2

    def forward(
        self, input_ids: Any, token_type_ids: Any = None, attention_mask: Any = None
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Logits of starts and of ends, float [batch, length] each, of int64 tensors [batch, length]."""
        states = self._through_neck(encode(self, input_ids, token_type_ids, attention_mask)[0])
        start, end = self.classifier(states).unbind(axis=-1)
        return start, end


_KINDS = (ForSequenceClassification, ForMultipleChoice, ForQuestionAnswering)
